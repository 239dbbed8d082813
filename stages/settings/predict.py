from pydantic import Field

from stages.settings.base import Settings

# Attention data sets in predictions.h5, one per scale at which the teacher reads the text, the
# finest first.
ATTENTION_DATASETS = ("attention_1", "attention_2", "attention_3", "attention_4")


class PredictSettings(Settings):
    """Outputs in addition to the probabilities."""

    attention: bool = Field(
        default=False,
        description="also write the teacher's attention to each sentence, for the report; up to "
        "0.2 MB per image at 224 × 224 px",
    )
