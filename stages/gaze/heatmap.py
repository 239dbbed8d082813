"""Fixations → heatmap → nested pseudomasks, as arrays."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stages.core.resize import resize

# Side of the published canvas, px.
CANVAS = 768


def _normalise(heat: NDArray[np.float64]) -> NDArray[np.float32]:
    span = np.ptp(heat)
    if span == 0:
        return np.zeros(heat.shape, np.float32)
    normalised: NDArray[np.float32] = ((heat - heat.min()) / span).astype(np.float32)
    return normalised


def draw_heatmap(
    fixations: NDArray[np.float64],
    size: tuple[int, int],
    *,
    original_size: tuple[int, int],
    sigma: float,
) -> NDArray[np.float32]:
    """Duration-weighted sum of round Gaussians, one per fixation, min–max normalised.

    Each Gaussian is evaluated at the pixel centres of the working size: there is no canvas with a
    border to wrap around, reflect at or be cut off by.

    Parameters
    ----------
    fixations
        (F, 4): x, y in [0, 1], duration in ms, start (unused).
    size
        Height and width of the map, the working size.
    original_size
        Height and width of the image as it was looked at; its aspect makes the Gaussians round.
    sigma
        Std of the Gaussian, px of the image scaled to the area of 768 × 768.

    Returns
    -------
    (H, W) float32 in [0, 1]; all 0 where there are no fixations or the map is constant.
    """
    side = np.sqrt(original_size[0] * original_size[1])

    def bells(position: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        centres = (np.arange(size[axis]) + 0.5) / size[axis]
        length = original_size[axis] / side * CANVAS
        bell: NDArray[np.float64] = np.exp(
            -0.5 * ((centres - position[:, None]) * length / sigma) ** 2
        )
        return bell

    x, y, duration = fixations[:, 0], fixations[:, 1], fixations[:, 2]
    return _normalise((bells(y, 0) * duration[:, None]).T @ bells(x, 1))


def draw_published_heatmap(
    fixations: NDArray[np.float64],
    size: tuple[int, int],
    *,
    original_size: tuple[int, int],
    sigma: float,
) -> NDArray[np.float32]:
    """Heatmap by the steps of the GazeMedSeg notebook, to compare with its released maps.

    Durations are added at `round(x · 768) − 1, round(y · 768) − 1` of a 768 × 768 canvas, blurred
    (reflecting at the border), min–max normalised, resized to the image (bicubic), stored in 8 bit
    (cut off, not rounded) and resized to the working size. Unlike there, a fixation at 0 stays on
    the border instead of wrapping to the opposite one, a constant map is 0, and what bicubic puts
    outside [0, 1] is clipped.

    Parameters and result are those of `draw_heatmap`; `sigma` is in px of the canvas.
    """
    column, row = (
        np.clip(np.rint(fixations[:, axis] * CANVAS).astype(int) - 1, 0, CANVAS - 1)
        for axis in (0, 1)
    )
    canvas = np.zeros((CANVAS, CANVAS))
    np.add.at(canvas, (row, column), fixations[:, 2])
    heat = Image.fromarray(_normalise(ndimage.gaussian_filter(canvas, sigma)))
    at_image = heat.resize(original_size[::-1], Image.Resampling.BICUBIC)
    stored = (np.clip(np.asarray(at_image), 0, 1) * 255).astype(np.uint8)
    return resize(stored, size) / np.float32(255)
