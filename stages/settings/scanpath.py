from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from stages.settings.base import Settings


def _check_order(count: tuple[int, int]) -> tuple[int, int]:
    if count[0] > count[1]:
        raise ValueError(f"must be minimum <= maximum, found {count[0]}, {count[1]}")
    return count


# Minimum and maximum of a random number, both included.
CountRange = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_check_order)]
CountRangeFromZero = Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_check_order)]


class ScanSettings(Settings):
    """How a simulated reader looks at an image: search, then the target, then its border.

    Lengths are fractions of the image's side; durations are log-normal with the given medians.
    """

    search: CountRangeFromZero = Field(
        default=(1, 3), description="fixations before the target is found"
    )
    target: CountRange = Field(default=(4, 8), description="fixations inside the target")
    border: CountRange = Field(default=(4, 8), description="fixations along its border")
    search_ms: float = Field(default=180, gt=0, description="median duration while searching, ms")
    target_ms: float = Field(default=400, gt=0, description="median duration inside the target, ms")
    border_ms: float = Field(default=250, gt=0, description="median duration on the border, ms")
    spread: float = Field(
        default=0.4, ge=0, description="standard deviation of the logarithm of a duration"
    )
    jitter: float = Field(
        default=0.015, ge=0, description="standard deviation of the noise of each fixation"
    )
    drift: float = Field(
        default=0.02,
        ge=0,
        description="standard deviation of the calibration error, drawn once per recording",
    )
    distraction: float = Field(
        default=0.08,
        ge=0,
        le=1,
        description="probability of a fixation elsewhere after each fixation",
    )
    saccade_ms: float = Field(default=40, ge=0, description="time between two fixations, ms")
