"""Refined map → nested pseudomasks, one per threshold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cut_levels(refined: NDArray[np.floating], thresholds: Sequence[float]) -> NDArray[np.uint8]:
    """Threshold maps into nested pseudomasks `refined >= t`, the highest threshold first.

    Parameters
    ----------
    refined
        (…, H, W): one map or many.

    Returns
    -------
    (…, L, H, W) uint8 in {0, 1}; each level contains the one before it.
    """
    levels = np.array(sorted(thresholds, reverse=True), np.float32)
    maps = refined.astype(np.float32)[..., None, :, :]
    return (maps >= levels[:, None, None]).astype(np.uint8)


def spaced_thresholds(thresholds: Sequence[float], levels: int) -> tuple[float, ...]:
    """Space `levels` thresholds equally from the highest to the lowest of `thresholds`.

    The published sets of three, four and five levels have this spacing (Zhong et al., MICCAI 2024).
    A single level lies halfway between the two.

    Raises
    ------
    ValueError
        `levels` is 2 or more, but all thresholds are equal.
    """
    high, low = max(thresholds), min(thresholds)
    if levels == 1:
        return ((high + low) / 2,)
    if high == low:
        raise ValueError(f"no {levels} levels fit between {high:g} and {low:g}")
    return tuple(np.linspace(high, low, levels).tolist())
