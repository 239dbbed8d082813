"""How a prepared image is shown to eyes and to the CRF: 8-bit colour."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_rgb8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Show a prepared image as (H, W, 3) uint8.

    uint8 colour passes; a float32 (H, W, 1) image is scaled from its minimum and maximum to 0 and
    255 and repeated, a constant one becomes 0.
    """
    if image.dtype == np.uint8:
        return image
    span = np.ptp(image) or 1.0
    grey = np.rint((image - image.min()) / span * 255).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)
