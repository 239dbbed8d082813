from pydantic import Field

from stages.settings.base import Settings
from stages.settings.report import ReportDataset
from stages.settings.summarise import SummariseSettings


class CompareSettings(SummariseSettings):
    """What the files of a comparison are, and which experiment the others are held against."""

    reference: str = Field(description="experiment against which the others are tested")
    seed: int = Field(ge=0, description="draws the resampled subjects and the flipped signs")


class TabulateSettings(Settings):
    """What the page of a comparison says beside its numbers."""

    table: str = Field(description="name of the table")
    datasets: tuple[ReportDataset, ...]
