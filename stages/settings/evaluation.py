from typing import Literal

from pydantic import Field

from stages.settings.base import Settings


class Run(Settings):
    """One training whose metrics are summarised."""

    dataset: str
    experiment: str
    seed: int
    labels: Literal["pseudomask", "mask"] = Field(description="what its student learned from")
    mask_seconds: float | None = Field(
        default=None, description="seconds to draw one full mask by hand, from literature"
    )


class SummariseSettings(Settings):
    """What the files that a summary is over are."""

    runs: tuple[Run, ...] = Field(description="of each metrics.csv, in their order")
    gaze: tuple[str, ...] = Field(description="data set of each gaze.h5, in their order")


class CompareSettings(SummariseSettings):
    """What the files of a comparison are, and which experiment the others are held against."""

    reference: str = Field(description="experiment against which the others are tested")
    seed: int = Field(ge=0, description="draws the resampled subjects and the flipped signs")
