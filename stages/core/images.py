"""Convert prepared images to 8-bit colour, for figures and the CRF; statistics of colour images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# ImageNet's statistics (R, G, B) for values in [0, 1]: colour images are normalised by them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_rgb8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a prepared image to (H, W, 3) uint8.

    A uint8 colour image is returned unchanged. A float32 (H, W, 1) image is scaled so that its
    minimum becomes 0 and its maximum 255, and its channel is repeated; a constant image becomes 0.
    """
    if image.dtype == np.uint8:
        return image
    span = np.ptp(image) or 1.0
    grey = np.rint((image - image.min()) / span * 255).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)
