"""What every recording becomes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scan(NamedTuple):
    """One image's fixations.

    Attributes
    ----------
    fixations
        (F, 4) float64: x, y as fractions of the image (0 left or top, 1 right or bottom), duration
        and start in ms; those on the image that last long enough.
    off_image
        How many others last long enough but lie off the image, or have no position.
    short
        How many others are too short.
    """

    fixations: NDArray[np.float64]
    off_image: int
    short: int
