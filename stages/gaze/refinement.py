"""The CRF with the project's settings, applied to a prepared image at its working size."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.images import to_rgb8
from stages.gaze import crf
from stages.settings.parts import CrfSettings


def refine_with_crf(
    image: NDArray[Any],
    probability: NDArray[np.float32],
    original_size: tuple[int, int],
    settings: CrfSettings,
    device: torch.device,
) -> NDArray[np.float32]:
    """Align a foreground probability with the edges of its image, by the CRF.

    Parameters
    ----------
    image
        (H, W, C), as prepared.
    probability
        (H, W) in [0, 1].
    original_size
        Height and width of the original image, px; `settings.sxy` is in pixels of this image.

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
