"""The CRF as the stages use it, at the working size of a prepared image."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.images import to_rgb8
from stages.gaze import crf
from stages.settings.crf import CrfSettings


def refine(
    image: NDArray[Any],
    probability: NDArray[np.float32],
    original_size: tuple[int, int],
    settings: CrfSettings,
    device: torch.device,
) -> NDArray[np.float32]:
    """Draw a foreground probability to the image's own edges.

    Parameters
    ----------
    image
        (H, W, C), as prepared.
    probability
        (H, W) in [0, 1].
    original_size
        Height and width of the image in whose pixels `settings.sxy` is given.

    Returns
    -------
    (H, W) float32 in [0, 1].
    """
    scale = np.array(probability.shape) / original_size
    return crf.refine(
        to_rgb8(image),
        probability,
        sxy=(settings.sxy * scale[0], settings.sxy * scale[1]),
        srgb=settings.srgb,
        compat=settings.compat,
        iterations=settings.iterations,
        device=device,
    )
