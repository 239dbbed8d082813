"""What every recording becomes."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scan(NamedTuple):
    """One image's fixations.

    Attributes
    ----------
    fixations
        (F, 4) float64: x, y as fractions of the image (0 left or top, 1 right or bottom), duration
        and start in ms; those on the image that last long enough.
    off_image
        How many others last long enough but lie off the image, or have no position.
    short
        How many others are too short.
    """

    fixations: NDArray[np.float64]
    off_image: int
    short: int


def on_target(fixations: NDArray[np.float64], truth: NDArray[Any]) -> dict[str, float]:
    """Measure how much of the gaze is on the truth.

    Parameters
    ----------
    fixations
        (F, 4) as of a scan.
    truth
        (H, W), above 0 on the target.

    Returns
    -------
    ``on_target_count`` and ``on_target``, the shares of the fixations and of their time; without
    fixations or time: not there.
    """
    height, width = truth.shape
    # A fixation on the right or lower border, at 1, belongs to the last pixel.
    column = np.minimum((fixations[:, 0] * width).astype(int), width - 1)
    row = np.minimum((fixations[:, 1] * height).astype(int), height - 1)
    hit, duration = truth[row, column] > 0, fixations[:, 2]
    shares = {"on_target_count": float(hit.mean())} if len(hit) else {}
    if duration.sum() > 0:
        shares["on_target"] = float(duration[hit].sum() / duration.sum())
    return shares
