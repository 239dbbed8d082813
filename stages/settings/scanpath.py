from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from stages.settings.base import Settings


def _in_order(count: tuple[int, int]) -> tuple[int, int]:
    if count[0] > count[1]:
        raise ValueError(f"must be fewest <= most, found {count[0]}, {count[1]}")
    return count


# Fewest and most, both included.
Count = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_in_order)]
CountOrNone = Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_in_order)]


class ScanSettings(Settings):
    """How a simulated reader looks at an image: search, then the target, then its border.

    Lengths are fractions of the image's side, durations are log-normal with the given median.
    """

    search: CountOrNone = Field(default=(1, 3), description="fixations before the target is found")
    target: Count = Field(default=(4, 8), description="fixations inside the target")
    border: Count = Field(default=(4, 8), description="fixations along its border")
    search_ms: float = Field(default=180, gt=0, description="median duration while searching")
    target_ms: float = Field(default=400, gt=0, description="median duration inside the target")
    border_ms: float = Field(default=250, gt=0, description="median duration on the border")
    spread: float = Field(default=0.4, ge=0, description="std of the log of a duration")
    jitter: float = Field(default=0.015, ge=0, description="std of each fixation's noise")
    drift: float = Field(
        default=0.02, ge=0, description="std of the calibration offset, one per recording"
    )
    distraction: float = Field(
        default=0.08, ge=0, le=1, description="probability of a glance elsewhere after a fixation"
    )
    saccade_ms: float = Field(default=40, ge=0, description="pause between fixations")
