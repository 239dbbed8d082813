from pydantic import Field

from stages.settings.base import Settings
from stages.settings.report import ReportDataset


class TabulateSettings(Settings):
    """What the page of a comparison says beside its numbers."""

    table: str = Field(description="name of the table")
    datasets: tuple[ReportDataset, ...]
