from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from stages.settings.base import Settings, is_part
from stages.settings.crf import CrfSettings

# Group norm has 4 groups and cross-attention 8 heads.
Width = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
Widths = tuple[Width, Width, Width, Width, Width, Width]
Levels = Annotated[
    int | None,
    Field(
        ge=1,
        description="pseudomasks to learn from, cut from the refined map at equally spaced "
        "thresholds between gaze.thresholds' highest and lowest, 1: half way; null: those of "
        "gaze.thresholds",
    ),
]


class OptimisationSettings(Settings):
    """A cosine schedule over a fixed number of iterations."""

    iterations: int = Field(default=15_000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=8, ge=2, description="images per step, over all GPUs")
    head_width: Width = Field(default=128, description="channels of the 1 × 1 head")
    optimiser: Literal["adam", "sgd"] = Field(
        default="adam", description="adam; sgd: with Nesterov momentum"
    )
    momentum: float = Field(default=0.9, gt=0, lt=1, description="of sgd")
    learning_rate: float = Field(default=1e-2, gt=0, description="the first step size")
    final_learning_rate: float = Field(
        default=0, ge=0, description="to which the step size falls along a cosine"
    )
    weight_decay: float = Field(
        default=0, ge=0, description="pull of the weights towards 0 (adam: decoupled)"
    )
    clip: float = Field(default=1, ge=0, description="largest norm of the gradient; 0: any")
    ema: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="share of the past in the moving average of the weights, which is then the "
        "result; 0: the last weights are",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="looks at the validation split without a better Dice after which training "
        "ends; the best look's weights are then the result; null: train to the end",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="of convolutions and matrix products; auto: bf16 where the processor or GPU "
        "is made for it",
    )
    log_every: int = Field(
        default=100, ge=1, description="iterations averaged into one row of the history"
    )
    validate_every: int = Field(
        default=1_000, ge=1, description="iterations between looks at the validation split"
    )

    def unread(self) -> set[str]:
        """Momentum is of SGD alone."""
        return {"momentum"} if self.optimiser == "adam" else set()


class TeacherSettings(OptimisationSettings):
    """The network that reads image and text, trained on the precise gaze region."""

    widths: Widths = Field(
        default=(64, 128, 256, 512, 1024, 128),
        description="channels of the five encoder scales and of the last decoder",
    )
    text: bool = Field(default=True, description="fuse the explanation; off: image alone")
    levels: Levels = None
    class_balance: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="how far trusted foreground, the rarer class, is weighed up in the loss: by "
        "the classes' ratio to this power; 0: each pixel weighs the same, 1: each class does",
    )
    background: float | None = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="trusted as background is what the refined map gives less than this, so that "
        "what lies just outside a broad pseudomask that is too small is left open; null: all "
        "outside it",
    )
    text_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of training samples read without their text, so that the teacher "
        "can also read an image that nobody has looked at",
    )

    def unread(self) -> set[str]:
        """Name what a teacher without text does not read either."""
        return super().unread() | (set() if self.text else {"text_dropout"})


# What a method reads of the settings that not all of them read.
_OF_TWO_NETWORKS = {
    "afc_weight", "cwc_weight", "cwc_threshold", "ramp_iterations", "noise", "cutmix_beta",
    "darm_ratio", "darm_block",
}  # fmt: skip
_READ = {
    "distilled": _OF_TWO_NETWORKS | {"target_crf", "cwc_weighted"},
    "single": set[str](),
    "gazemedseg": {"cwc_weight"},
    "published": _OF_TWO_NETWORKS | {"teacher_widths"},
}


class StudentSettings(OptimisationSettings):
    """The network that reads the image alone, and what it learns from."""

    widths: Widths = Field(
        default=(32, 64, 128, 256, 512, 32),
        description="channels of the five encoder scales and of the last decoder",
    )
    labels: Literal["pseudomask", "mask"] = Field(
        default="pseudomask",
        description="pseudomask: the broad one or, with `levels`, the mean of all; mask: the dense "
        "truth",
    )
    levels: Levels = None
    method: Literal["distilled", "single", "gazemedseg", "published"] = Field(
        default="distilled",
        description="distilled: from a trained teacher as well; single: from one label per pixel; "
        "gazemedseg: two networks, one per level, that are to agree; published: teacher and "
        "student at once, as the authors' code does it",
    )
    teacher_widths: Widths | None = Field(
        default=None,
        description="of the teacher that method: published trains along; null: as `teacher` has",
    )
    target_crf: CrfSettings | None = Field(
        default=CrfSettings(sxy=25, compat=12),
        description="the CRF that draws the teacher's answers to the edges of the training images "
        "before a distilled student learns from them; null: they stay as they are",
    )
    afc_weight: float = Field(default=0.1, ge=0, description="weight of feature alignment")
    cwc_weight: float = Field(default=1.0, ge=0, description="weight of consistency")
    cwc_threshold: float = Field(
        default=0.8, ge=0.5, lt=1, description="teacher confidence from which a pixel counts"
    )
    cwc_weighted: bool = Field(
        default=True,
        description="a pixel counts by the teacher's confidence; off: each from the threshold on "
        "counts the same",
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
        if self.labels == "mask" and self.method != "single" and not is_part(info):
            raise ValueError(
                f"labels: mask with method: {self.method} is impossible: it is for weak labels; "
                "set method: single"
            )
        return self

    def unread(self) -> set[str]:
        """Name what only other methods read, and the levels where the labels are masks."""
        others = set().union(*_READ.values()) - _READ[self.method]
        return super().unread() | others | ({"levels"} if self.labels == "mask" else set())

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher is trained first."""
        return self.method == "distilled"

    @property
    def reads_pseudolabels(self) -> bool:
        """Whether the teacher's answers are drawn to the images' edges first."""
        return self.needs_teacher and self.target_crf is not None

    @property
    def trains_teacher(self) -> bool:
        """Whether a teacher is trained along."""
        return self.method == "published"
