from pydantic import Field

from stages.settings.base import Settings


class QualitySettings(Settings):
    """Limits beyond which a sample's gaze is flagged.

    All of them concern the gaze and the pseudomasks drawn from it, never the masks: what weak
    labels are learned from must not be chosen with the truth that they stand in for.
    """

    min_fixations: int = Field(default=3, ge=0, description="fewest fixations on the image")
    min_dwell_ms: float = Field(
        default=500, ge=0, description="least sum of the fixations' durations, ms"
    )
    min_on_image: float = Field(
        default=0.7, ge=0, le=1, description="smallest share of the fixations that is on the image"
    )
    max_dispersion: float | None = Field(
        default=0.25,
        gt=0,
        description="largest root mean square distance of the fixations from their centre, as a "
        "share of the image's diagonal; gaze that covers the image evenly has 0.29; none: no limit",
    )
    max_area: float | None = Field(
        default=0.5,
        gt=0,
        le=1,
        description="largest share of the image that the broad pseudomask may take; none: no limit",
    )
    leave_out: bool = Field(
        default=False, description="true: flagged samples are left out of training"
    )
