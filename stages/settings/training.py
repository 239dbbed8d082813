from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from stages.settings.base import Settings, is_part

# Group norm has 4 groups and cross-attention 8 heads.
Width = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
Widths = tuple[Width, Width, Width, Width, Width, Width]


class OptimisationSettings(Settings):
    """Adam with a cosine schedule over a fixed number of iterations."""

    iterations: int = Field(default=15_000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=8, ge=2, description="images per step")
    head_width: Width = Field(default=128, description="channels of the 1 × 1 head")
    learning_rate: float = Field(
        default=1e-2, gt=0, description="Adam's first step size; falls to 0 along a cosine"
    )
    log_every: int = Field(
        default=100, ge=1, description="iterations averaged into one row of the history"
    )
    validate_every: int = Field(
        default=1_000, ge=1, description="iterations between looks at the validation split"
    )


class TeacherSettings(OptimisationSettings):
    """The network that reads image and text, trained on the precise gaze region."""

    widths: Widths = Field(
        default=(64, 128, 256, 512, 1024, 128),
        description="channels of the five encoder scales and of the last decoder",
    )
    text: bool = Field(default=True, description="fuse the explanation; off: image alone")
    class_balance: bool = Field(
        default=True,
        description="trusted foreground and trusted background weigh the same in the loss; off: "
        "each trusted pixel does",
    )
    text_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of training samples read without their text, so that the teacher "
        "can also read an image that nobody has looked at",
    )


class StudentSettings(OptimisationSettings):
    """The network that reads the image alone, and what it learns from."""

    widths: Widths = Field(
        default=(32, 64, 128, 256, 512, 32),
        description="channels of the five encoder scales and of the last decoder",
    )
    labels: Literal["pseudomask", "mask"] = Field(
        default="pseudomask", description="pseudomask: the broad one; mask: the dense truth"
    )
    distil: bool = Field(default=True, description="learn from a teacher as well")
    afc_weight: float = Field(default=0.1, ge=0, description="weight of feature alignment")
    cwc_weight: float = Field(default=1.0, ge=0, description="weight of consistency")
    cwc_threshold: float = Field(
        default=0.8, ge=0.5, lt=1, description="teacher confidence from which a pixel counts"
    )
    ramp_iterations: int = Field(
        default=4_000, ge=1, description="iterations over which both weights rise"
    )
    noise: float = Field(
        default=0.2, ge=0, description="uniform noise, ± this, on the normalised image for CWC"
    )
    cutmix_beta: int = Field(default=4, ge=1, description="Beta(b, b) of a CutMix box's share")
    darm_ratio: float = Field(
        default=0.3, ge=0, le=1, description="masked area over the area of disagreement"
    )
    darm_block: tuple[int, int] = Field(
        default=(3, 10), description="smallest and largest side of a masked block, px"
    )

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo[Any]) -> "StudentSettings":
        low, high = self.darm_block
        if not 1 <= low <= high:
            raise ValueError(f"darm_block must be 1 <= smallest <= largest, found {low}, {high}")
        if self.labels == "mask" and self.distil and not is_part(info):
            raise ValueError(
                "labels: mask with distil: true is impossible: the teacher is for weak labels; "
                "set distil: false"
            )
        return self
