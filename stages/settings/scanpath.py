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

    Lengths are fractions of the image's side; durations are log-normal with the given medians. The
    defaults fit the recorded gaze on Kvasir-SEG (`benchmarks/scanpath.py`).
    """

    search: CountRangeFromZero = Field(
        default=(1, 1), description="fixations before the target is found"
    )
    search_step: float = Field(
        default=0.07,
        ge=0,
        description="standard deviation of a step of the search, which starts at the centre",
    )
    target: CountRange = Field(default=(5, 11), description="fixations inside a small target")
    border: CountRangeFromZero = Field(
        default=(0, 0), description="fixations along its border, the last ones"
    )
    growth: float = Field(
        default=5.7,
        ge=0,
        description="a target of the share a of the image gets 1 + growth × √a times as many "
        "fixations",
    )
    core: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="fixations inside are at least so deep, as a share of the greatest depth",
    )
    even: PositiveInt = Field(
        default=5,
        description="random places of which the one farthest from earlier fixations is visited, so "
        "that these cover the target evenly; 1: independent places",
    )
    nearest: PositiveInt = Field(
        default=5,
        description="places of which the eye visits the nearest first; 1: random order",
    )
    search_ms: float = Field(default=250, gt=0, description="median duration while searching, ms")
    target_ms: float = Field(default=310, gt=0, description="median duration inside the target, ms")
    border_ms: float = Field(default=310, gt=0, description="median duration on the border, ms")
    spread: float = Field(
        default=0.46, ge=0, description="standard deviation of the logarithm of a duration"
    )
    jitter: float = Field(
        default=0.025, ge=0, description="standard deviation of the noise of each fixation"
    )
    drift: float = Field(
        default=0.02,
        ge=0,
        description="standard deviation of the calibration error, drawn once per recording",
    )
    distraction: float = Field(
        default=0.008,
        ge=0,
        le=1,
        description="probability of a fixation elsewhere after each fixation",
    )
    saccade_ms: float = Field(default=40, ge=0, description="time between two fixations, ms")
