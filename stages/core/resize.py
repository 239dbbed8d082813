"""Resize images and masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a (H, W) or (H, W, C) array to `size` (height, width), bilinear with anti-aliasing.

    Returns
    -------
    float32 array with the same number of axes, within the value range of `image`. For uint8 input
    the values are whole numbers, for bool the share of True in steps of 1/255.
    """
    if image.dtype == np.bool_:
        return resize(image.astype(np.uint8) * np.uint8(255), size) / np.float32(255)
    # uint8 stays uint8: photographs of many megapixels would fill the memory as float32.
    dtype = np.uint8 if image.dtype == np.uint8 else np.float32
    planes = image.reshape(*image.shape[:2], -1)
    height, width = size
    resized = [
        Image.fromarray(np.ascontiguousarray(planes[..., c], dtype)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        for c in range(planes.shape[2])
    ]
    stacked = np.stack([np.asarray(plane, np.float32) for plane in resized], axis=-1)
    return stacked.reshape(*size, *image.shape[2:])


def resize_keep_dtype(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize a (H, W, C) image to the working size of the networks, keeping its dtype.

    `stages.training.samples.normalise` depends on the dtype: uint8 is colour.
    """
    return resize(image, size).astype(image.dtype)
