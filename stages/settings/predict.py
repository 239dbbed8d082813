from pydantic import Field

from stages.settings.base import Settings

# Data sets of predictions.h5, one per stride at which the teacher reads the text.
ATTENTION = ("attention_2", "attention_4", "attention_8", "attention_16")


class PredictSettings(Settings):
    """What is written beside the probabilities."""

    attention: bool = Field(
        default=False,
        description="also write where the teacher reads each sentence, for the report; up to "
        "0.2 MB per image at 224 × 224",
    )
