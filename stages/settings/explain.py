from typing import Literal

from pydantic import Field

from stages.settings.base import Settings


class ExplainSettings(Settings):
    """Who explains an image."""

    backend: Literal["measured"] = Field(
        default="measured",
        description="measured: words for what is measured inside the gaze, no language model",
    )


class EmbedSettings(Settings):
    """What turns the words into vectors."""

    encoder: Literal["all-MiniLM-L6-v2"] = Field(
        default="all-MiniLM-L6-v2",
        description="sentence encoder, 384-d, its weights installed with the environment",
    )
    batch_size: int = Field(default=64, ge=1, description="sentences at a time")
