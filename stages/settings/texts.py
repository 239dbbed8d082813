from pydantic import Field

from stages.settings.base import Settings


class TextsSettings(Settings):
    """When explanations count as had."""

    max_failed: float = Field(ge=0, le=1)
