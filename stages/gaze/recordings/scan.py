"""The common form of all recorded and simulated gaze: the fixations on one image."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scanpath(NamedTuple):
    """The fixations on one image, of all its readers together.

    Attributes
    ----------
    fixations
        (F, 4) float64: x, y as fractions of the image (0 left or top, 1 right or bottom), duration
        and start in ms. Only fixations that lie on the image and last long enough.
    off_image
        Number of dropped fixations that last long enough but lie off the image or have no position.
    short
        Number of dropped fixations that are too short.
    """

    fixations: NDArray[np.float64]
    off_image: int
    short: int


def on_target_shares(fixations: NDArray[np.float64], truth: NDArray[Any]) -> dict[str, float]:
    """Measure which share of the gaze lies on the target.

    Parameters
    ----------
    fixations
        (F, 4), as in `Scanpath`.
    truth
        (H, W) ground-truth mask, above 0 on the target.

    Returns
    -------
    ``on_target_count``: share of the fixations on the target; absent if there are none.
    ``on_target``: share of the fixation time; absent if the total time is 0.
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
