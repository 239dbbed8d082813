"""The two views of a prepared image: 8-bit colour for eyes and the CRF, normalised for networks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# ImageNet's mean and std per channel, as the published loaders use them for colour images.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


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


def normalise(images: NDArray[Any]) -> NDArray[np.float32]:
    """Normalise (N, H, W, C) prepared images to (N, C, H, W) float32 for the networks.

    uint8 colour: ImageNet's mean and std. float32: z-score per image; a constant one becomes 0.
    """
    if images.dtype == np.uint8:
        scaled = (images.astype(np.float32) / 255 - _MEAN) / _STD
    else:
        mean = images.mean(axis=(1, 2, 3), keepdims=True)
        std = images.std(axis=(1, 2, 3), keepdims=True)
        scaled = (images - mean) / np.where(std > 0, std, 1)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 1), np.float32)
