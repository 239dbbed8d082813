"""Whether an explanation is true of its image, as far as the gaze can tell: area and place."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.text.describers import Explanation

# Words for the nine parts of an image → row and column of the part.
PLACES = {
    f"{vertical} {horizontal}": (row, column)
    for row, vertical in enumerate(("upper", "middle", "lower"))
    for column, horizontal in enumerate(("left", "centre", "right"))
}
# A centroid this near to a border between two parts, as a share of the side, is in both.
_BESIDE = 0.05
# Nested pseudomasks enclose the region's true area only roughly, and areas are read off pictures
# roughly: a factor of 2 on either side separates what is plausible from what is not.
_FACTOR = 2


class Agreement(NamedTuple):
    """What the gaze says to the claims of an explanation.

    Attributes
    ----------
    area_error
        Claimed area less that of the broad pseudomask, as a share of the image, -1 to 1; NaN where
        no area is claimed.
    area_agrees
        Whether the claimed area is at least half that of the precise pseudomask and at most twice
        that of the broad one; None where no area is claimed.
    place_agrees
        Whether the centroid of the broad pseudomask lies in the claimed ninth of the image or
        within 0.05 of the image's side of it; None where no place is claimed or nothing is marked.
    """

    area_error: float
    area_agrees: bool | None
    place_agrees: bool | None


def agreement(explanation: Explanation, regions: NDArray[np.uint8]) -> Agreement:
    """Compare the `area` and the `place` among an explanation's values with the pseudomasks.

    Parameters
    ----------
    regions
        (L, H, W) uint8 in {0, 1}, from precise to broad.
    """
    precise, broad = (float((level > 0).mean()) for level in (regions[0], regions[-1]))
    area = explanation.values.get("area")
    if isinstance(area, float) and np.isfinite(area):
        error, area_agrees = area - broad, precise / _FACTOR <= area <= broad * _FACTOR
    else:
        error, area_agrees = float("nan"), None
    part = PLACES.get(str(explanation.values.get("place")))
    if part is None or broad == 0:
        return Agreement(error, area_agrees, None)
    centroid = [
        (places.mean() + 0.5) / side
        for places, side in zip(np.nonzero(regions[-1]), regions.shape[1:])
    ]
    place_agrees = all(
        number / 3 - _BESIDE <= where <= (number + 1) / 3 + _BESIDE
        for number, where in zip(part, centroid)
    )
    return Agreement(error, area_agrees, place_agrees)
