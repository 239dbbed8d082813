from typing import Literal

from pydantic import Field

from stages.settings.base import Settings


class TrainingRun(Settings):
    """One training with its metrics."""

    dataset: str
    experiment: str
    seed: int
    labels: Literal["pseudomask", "mask"] = Field(
        description="labels that its student learned from"
    )
    mask_seconds: float | None = Field(
        default=None, description="seconds to draw one full mask by hand, from the literature"
    )


class SummariseSettings(Settings):
    """Descriptions of the input files of a summary."""

    runs: tuple[TrainingRun, ...] = Field(description="the training of each metrics.csv, in order")
    gaze: tuple[str, ...] = Field(description="the data set of each gaze.h5, in order")


class CompareSettings(SummariseSettings):
    """Descriptions of the input files of a comparison, and its reference experiment."""

    reference: str = Field(description="experiment with which the others are compared")
    seed: int = Field(
        ge=0, description="random seed of the resampled subjects and the flipped signs"
    )
