"""Comparison of an explanation with the gaze: whether it claims the right area and place."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Words for the nine parts of an image → row and column of the part.
PLACES = {
    f"{vertical} {horizontal}": (row, column)
    for row, vertical in enumerate(("upper", "middle", "lower"))
    for column, horizontal in enumerate(("left", "centre", "right"))
}
# A centroid this near to a border between two parts counts for both, as a share of the side.
_PLACE_TOLERANCE = 0.05
# Pseudomasks show the true area of the region only roughly, and models estimate areas roughly: a
# claimed area is plausible if it is within this factor.
_AREA_FACTOR = 2


class Agreement(NamedTuple):
    """How the claims of an explanation agree with the gaze.

    Attributes
    ----------
    area_error
        Claimed area minus the area of the broad pseudomask, as a share of the image, -1 to 1; NaN
        if no area is claimed.
    area_agrees
        Whether the claimed area is at least half that of the precise pseudomask and at most twice
        that of the broad one; None if no area is claimed.
    place_agrees
        Whether the centroid of the broad pseudomask lies in the claimed ninth of the image or
        within 0.05 of the image's side of it; None if no place is claimed or nothing is marked.
    """

    area_error: float
    area_agrees: bool | None
    place_agrees: bool | None


def compare_with_gaze(
    values: Mapping[str, float | str], pseudomasks: NDArray[np.uint8]
) -> Agreement:
    """Compare the `area` and the `place` among an explanation's values with the pseudomasks.

    Parameters
    ----------
    values
        `Explanation.values`.
    pseudomasks
        (L, H, W) uint8 in {0, 1}, from precise to broad.
    """
    precise, broad = (float((level > 0).mean()) for level in (pseudomasks[0], pseudomasks[-1]))
    area = values.get("area")
    if isinstance(area, float) and np.isfinite(area):
        error, area_agrees = area - broad, precise / _AREA_FACTOR <= area <= broad * _AREA_FACTOR
    else:
        error, area_agrees = float("nan"), None
    part = PLACES.get(str(values.get("place")))
    if part is None or broad == 0:
        return Agreement(error, area_agrees, None)
    centroid = [
        (pixels.mean() + 0.5) / side
        for pixels, side in zip(np.nonzero(pseudomasks[-1]), pseudomasks.shape[1:])
    ]
    place_agrees = all(
        index / 3 - _PLACE_TOLERANCE <= coordinate <= (index + 1) / 3 + _PLACE_TOLERANCE
        for index, coordinate in zip(part, centroid)
    )
    return Agreement(error, area_agrees, place_agrees)
