from typing import Literal

from pydantic import Field

from stages.settings.base import Settings


class ReportDataset(Settings):
    """A data set that the report shows."""

    name: str
    title: str = Field(description="name in tables and figures")
    note: str = Field(default="", description="remark shown with its figures")


class ReportTraining(Settings):
    """One training whose predictions the report shows."""

    dataset: str
    experiment: str
    seed: int


class ReportHistory(ReportTraining):
    """The training of one network whose curves the report shows."""

    network: Literal["teacher", "student"]


class ReportTable(Settings):
    """One comparison of experiments on a data set."""

    dataset: str
    name: str


class ReportSettings(Settings):
    """Descriptions of the input files of a report."""

    datasets: tuple[ReportDataset, ...] = Field(
        description="the data set of each prepared.h5, gaze.h5, gaze_quality.csv and "
        "explanations.h5, in order"
    )
    trainings: tuple[ReportTraining, ...] = Field(
        description="the training of each predictions.h5 and metrics.csv, in order"
    )
    histories: tuple[ReportHistory, ...] = Field(
        description="the network of each history, in order"
    )
    tables: tuple[ReportTable, ...] = Field(
        default=(), description="the comparison of each table, in order"
    )


class TabulateSettings(Settings):
    """Text on the page of a comparison in addition to its numbers."""

    table: str = Field(description="name of the table")
    datasets: tuple[ReportDataset, ...]
