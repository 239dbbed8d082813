from pydantic import Field

from stages.settings.base import Settings


class QualitySettings(Settings):
    """Limits beyond which a sample's gaze is flagged.

    All limits concern the gaze and its pseudomasks, never the true masks: weak labels must not be
    selected with the truth that they replace.
    """

    min_fixations: int = Field(default=3, ge=0, description="fewest fixations on the image")
    min_dwell_ms: float = Field(
        default=500, ge=0, description="smallest sum of the fixations' durations, ms"
    )
    min_on_image: float = Field(
        default=0.7, ge=0, le=1, description="smallest share of fixations on the image"
    )
    max_dispersion: float | None = Field(
        default=0.25,
        gt=0,
        description="largest root mean square distance of the fixations from their centre, as a "
        "share of the image's diagonal; gaze that covers the image evenly has 0.29; null: no limit",
    )
    max_area: float | None = Field(
        default=0.5,
        gt=0,
        le=1,
        description="largest share of the image in the broad pseudomask; null: no limit",
    )
    leave_out: bool = Field(
        default=False, description="true: exclude flagged samples from training"
    )
