from pydantic import Field

from stages.settings.summarise import SummariseSettings


class CompareSettings(SummariseSettings):
    """What the files of a comparison are, and which experiment the others are held against."""

    reference: str = Field(description="experiment against which the others are tested")
    seed: int = Field(ge=0, description="draws the resampled subjects and the flipped signs")
