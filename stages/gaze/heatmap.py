"""Fixations → heatmap, as arrays."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stages.core.resize import resize

# Side of the published canvas, px.
CANVAS_SIDE = 768


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
    """Sum one round Gaussian per fixation, weighted by duration, and normalise to [0, 1].

    The function evaluates each Gaussian at the pixel centres of the working size. It needs no
    intermediate canvas, so a border cannot wrap, reflect or cut off a Gaussian.

    Parameters
    ----------
    fixations
        (F, 4): x, y in [0, 1], duration in ms, start (unused).
    size
        Height and width of the map (the working size), px.
    original_size
        Height and width of the original image, px. The Gaussians are round at this aspect ratio.
    sigma
        Std of the Gaussian, in px of the original image scaled to the area of 768 × 768 px.

    Returns
    -------
    (H, W) float32 in [0, 1]; all 0 if there are no fixations or if the map is constant.
    """
    side = np.sqrt(original_size[0] * original_size[1])

    def gaussians(position: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        centres = (np.arange(size[axis]) + 0.5) / size[axis]
        length = original_size[axis] / side * CANVAS_SIDE
        values: NDArray[np.float64] = np.exp(
            -0.5 * ((centres - position[:, None]) * length / sigma) ** 2
        )
        return values

    x, y, duration = fixations[:, 0], fixations[:, 1], fixations[:, 2]
    return _normalise((gaussians(y, 0) * duration[:, None]).T @ gaussians(x, 1))


def draw_published_heatmap(
    fixations: NDArray[np.float64],
    size: tuple[int, int],
    *,
    original_size: tuple[int, int],
    sigma: float,
) -> NDArray[np.float32]:
    """Draw a heatmap by the steps of the GazeMedSeg notebook, to compare with its released maps.

    The steps: add durations at `round(x · 768) − 1, round(y · 768) − 1` of a 768 × 768 canvas,
    blur (reflecting at the border), normalise min–max, resize to the image (bicubic), store in
    8 bit (truncated, not rounded), resize to the working size. Three details differ from the
    notebook: a fixation at 0 stays on its border (there it wraps to the opposite border), a
    constant map becomes 0, and bicubic values outside [0, 1] are clipped.

    Parameters and result are as in `draw_heatmap`, but `sigma` is in px of the canvas.
    """
    column, row = (
        np.clip(np.rint(fixations[:, axis] * CANVAS_SIDE).astype(int) - 1, 0, CANVAS_SIDE - 1)
        for axis in (0, 1)
    )
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE))
    np.add.at(canvas, (row, column), fixations[:, 2])
    heat = Image.fromarray(_normalise(ndimage.gaussian_filter(canvas, sigma)))
    at_image = heat.resize(original_size[::-1], Image.Resampling.BICUBIC)
    stored = (np.clip(np.asarray(at_image), 0, 1) * 255).astype(np.uint8)
    return resize(stored, size) / np.float32(255)
