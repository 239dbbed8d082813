from typing import Literal

from pydantic import Field

from stages.settings.base import Settings


class ReportDataset(Settings):
    """A data set of the report."""

    name: str
    title: str = Field(description="name in tables and figures")
    note: str = Field(default="", description="what a reader of its figures must know")


class Training(Settings):
    """One training whose predictions are shown."""

    dataset: str
    experiment: str
    seed: int


class History(Training):
    """One network's training whose curves are shown."""

    network: Literal["teacher", "student"]


class ReportSettings(Settings):
    """What the files that a report is made of are."""

    datasets: tuple[ReportDataset, ...] = Field(
        description="of each prepared.h5, gaze.h5, gaze_quality.csv and explanations.h5, in their "
        "order"
    )
    trainings: tuple[Training, ...] = Field(
        description="of each predictions.h5 and metrics.csv, in their order"
    )
    histories: tuple[History, ...] = Field(description="of each history, in their order")


class TabulateSettings(Settings):
    """What the page of a comparison says beside its numbers."""

    table: str = Field(description="name of the table")
    datasets: tuple[ReportDataset, ...]
