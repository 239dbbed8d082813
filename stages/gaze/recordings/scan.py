"""The common form of all recorded and simulated gaze: the fixations on one image."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.gaze.placing import is_on_image


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


def hits_target(fraction: NDArray[np.float64], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (F,) whether positions are on the target; off the image and NaN are not.

    Parameters
    ----------
    fraction
        (F, 2) x, y as fractions of the image.
    truth
        (H, W) mask of the image at any size, above 0 on the target.
    """
    size = np.array(truth.shape[::-1])
    on_image = is_on_image(fraction)
    # A position on the right or lower border, at 1, belongs to the last pixel.
    pixel = np.minimum((np.where(on_image[:, None], fraction, 0) * size).astype(int), size - 1)
    hits: NDArray[np.bool_] = on_image & (truth[pixel[:, 1], pixel[:, 0]] > 0)
    return hits


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
    hit, duration = hits_target(fixations[:, :2], truth), fixations[:, 2]
    shares = {"on_target_count": float(hit.mean())} if len(hit) else {}
    if duration.sum() > 0:
        shares["on_target"] = float(duration[hit].sum() / duration.sum())
    return shares
