from pydantic import Field

from stages.settings.base import Settings

# Attention data sets in predictions.h5, one per stride at which the teacher reads the text.
ATTENTION_DATASETS = ("attention_2", "attention_4", "attention_8", "attention_16")


class PredictSettings(Settings):
    """Outputs in addition to the probabilities."""

    attention: bool = Field(
        default=False,
        description="also write the teacher's attention to each sentence, for the report; up to "
        "0.2 MB per image at 224 × 224 px",
    )
