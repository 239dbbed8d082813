from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from stages.settings.base import Settings, is_partial
from stages.settings.parts import CrfSettings, EncoderSettings

# A multiple of 4 (groups of group norm) and of 8 (heads of cross-attention).
Width = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]
Widths = tuple[Width, Width, Width, Width, Width, Width]
DecoderWidths = tuple[Width, Width, Width, Width, Width]
Levels = Annotated[
    int | None,
    Field(
        ge=1,
        description="number of pseudomasks to learn from, cut from the refined map at equally "
        "spaced thresholds between the highest and the lowest of gaze.thresholds; 1: half way "
        "between them; null: at gaze.thresholds",
    ),
]


class AugmentSettings(Settings):
    """Random changes of the training images; labels follow, and texts that become false are hidden.

    Each sample has its own random numbers in each step. The upper limits keep words for colour and
    brightness true. The hue never changes.
    """

    flips: bool = Field(
        default=True,
        description="true: each sample is flipped horizontally and vertically, each with "
        "probability ½",
    )
    quarter_turns: bool = Field(
        default=False,
        description="true: each sample is turned by 0, 90, 180 or 270 degrees; needs square images",
    )
    scale: float = Field(
        default=0,
        ge=0,
        le=1,
        description="half of the samples are enlarged about the centre by a factor from "
        "1 / (1 + scale) to 1 + scale; the other half keeps its size",
    )
    shift: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="the half of the samples that `scale` enlarges is shifted along each axis by "
        "up to this share of the image's side; reflections fill the image",
    )
    brightness: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="colour images are multiplied by a factor from 1 - brightness to "
        "1 + brightness; to normalised grey images, up to ± brightness (standard deviations) is "
        "added",
    )
    contrast: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="differences from an image's mean are multiplied by a factor from "
        "1 - contrast to 1 + contrast",
    )
    saturation: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="colour images: differences from grey are multiplied by a factor from "
        "1 - saturation to 1 + saturation; grey images do not change",
    )

    @property
    def text_marks(self) -> tuple[str, ...]:
        """Data sets of explanations.h5 that mark the texts which these changes make false."""
        moved = ("false_if_moved",) if self.scale or self.shift else ()
        turned = ("false_if_turned",) if self.quarter_turns else ()
        return (*moved, *turned)


class OptimisationSettings(Settings):
    """A network's encoder and decoder, and how it is optimised: a cosine schedule."""

    encoder: str = Field(
        default="unet",
        min_length=1,
        description="unet: the published network, trained from scratch; or the name of a model of "
        "timm that makes feature maps, such as tf_efficientnet_lite0 or resnet34",
    )
    encoder_weights: str = Field(
        default="imagenet",
        min_length=1,
        description="encoder of timm: imagenet (tf_efficientnet_lite0 to 2 from packages, others "
        "from timm's hub), none, or a file (.safetensors, or a PyTorch file of tensors)",
    )
    decoder_widths: DecoderWidths = Field(
        default=(128, 64, 48, 32, 16),
        description="encoder of timm: channels of the five decoder blocks, deepest first",
    )
    encoder_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="encoder of timm: its initial step size; it falls as the other does; null: "
        "learning_rate",
    )
    iterations: int = Field(default=15_000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=8, ge=2, description="images per step, over all GPUs")
    augment: AugmentSettings = AugmentSettings()
    head_width: Width = Field(default=128, description="channels of the 1 × 1 head")
    dice_weight: float = Field(
        default=0,
        ge=0,
        description="weight of a Dice loss beside each cross-entropy; in it each image counts the "
        "same, so that small regions are found; gazemedseg and published have none",
    )
    optimiser: Literal["adam", "sgd"] = Field(
        default="adam", description="adam, or sgd with Nesterov momentum"
    )
    momentum: float = Field(default=0.9, gt=0, lt=1, description="sgd: momentum")
    learning_rate: float = Field(default=1e-2, gt=0, description="initial step size")
    final_learning_rate: float = Field(
        default=0, ge=0, description="final step size of the cosine schedule"
    )
    weight_decay: float = Field(default=0, ge=0, description="weight decay (adam: decoupled)")
    clip: float = Field(default=1, ge=0, description="largest norm of the gradient; 0: no limit")
    ema: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="decay of the exponential moving average of the weights, which is the result; "
        "0: the result is the last weights",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="training ends after this number of validations without a better Dice, and the "
        "result is the weights with the best Dice; null: train to the end",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="precision of convolutions and matrix products in training; auto: bf16 on a "
        "GPU that has it, and on a processor with AMX or AMD's AVX-512 BF16 unless the network "
        "has depthwise convolutions; else fp32",
    )
    log_every: int = Field(
        default=100, ge=1, description="iterations whose mean is one row of the history"
    )
    validate_every: int = Field(
        default=1_000, ge=1, description="iterations between two validations"
    )

    def unused_fields(self) -> set[str]:
        """Return the momentum, unless the optimiser is SGD, and the fields of other encoders."""
        unused = {"momentum"} if self.optimiser == "adam" else set[str]()
        if self.encoder == "unet":
            return unused | {"encoder_weights", "decoder_widths", "encoder_learning_rate"}
        return unused | {"widths"}

    @property
    def pretrained(self) -> EncoderSettings | None:
        """The encoder of timm; None for a network that is trained from scratch."""
        if self.encoder == "unet":
            return None
        return EncoderSettings(encoder=self.encoder, weights=self.encoder_weights)


class TeacherSettings(OptimisationSettings):
    """The network that reads image and text, trained on the precise gaze region."""

    widths: Widths = Field(
        default=(64, 128, 256, 512, 1024, 128),
        description="channels of the five encoder scales and of the last decoder",
    )
    text: bool = Field(
        default=True, description="true: fuse image and explanation; false: image only"
    )
    levels: Levels = None
    class_balance: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="weight of trusted foreground, the rarer class, in the loss: the ratio of the "
        "class sizes to this power; 0: each pixel has the same weight, 1: each class has",
    )
    background: float | None = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="pixels below this value of the refined map are trusted as background, so that "
        "pixels just outside a too small broad pseudomask stay unlabelled; null: all pixels "
        "outside the broad pseudomask are",
    )
    text_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of training samples without their text, so that the teacher can also "
        "segment an image without gaze",
    )

    def unused_fields(self) -> set[str]:
        """Return the text dropout for a teacher without text."""
        return super().unused_fields() | (set() if self.text else {"text_dropout"})


class PseudolabelSettings(Settings):
    """What becomes of the teacher's predictions of the training images."""

    crf: CrfSettings | None = Field(default=None, description="CRF on the result; null: none")
    gaze: float = Field(
        default=0, ge=0, lt=1, description="weight of the gaze's refined map in the mean with them"
    )


# Settings that each method uses, among those that only some methods use.
_TWO_NETWORK_FIELDS = {
    "afc_weight", "cwc_weight", "cwc_threshold", "ramp_iterations", "noise", "cutmix_beta",
    "darm_ratio", "darm_block",
}  # fmt: skip
_METHOD_FIELDS = {
    "distilled": _TWO_NETWORK_FIELDS | {"target_gaze", "target_crf", "cwc_weighted", "dice_weight"},
    "single": {"dice_weight"},
    "gazemedseg": {"cwc_weight"},
    "published": _TWO_NETWORK_FIELDS | {"teacher_widths"},
}


class StudentSettings(OptimisationSettings):
    """The network that reads only the image, and its labels and losses."""

    widths: Widths = Field(
        default=(32, 64, 128, 256, 512, 32),
        description="channels of the five encoder scales and of the last decoder",
    )
    labels: Literal["pseudomask", "mask"] = Field(
        default="pseudomask",
        description="pseudomask: the broad pseudomask or, with `levels`, the mean of all; mask: "
        "the full true mask",
    )
    levels: Levels = None
    method: Literal["distilled", "single", "gazemedseg", "published"] = Field(
        default="distilled",
        description="distilled: from labels and a trained teacher; single: from labels alone; "
        "gazemedseg: two networks, one per level, trained to agree; published: teacher and student "
        "trained together, as in the authors' code",
    )
    teacher_widths: Widths | None = Field(
        default=None,
        description="published: widths of the teacher; null: the widths in `teacher`; with an "
        "encoder of timm the teacher has the student's encoder and decoder",
    )
    target_gaze: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="distilled: weight of the gaze's refined map in the mean with the teacher's "
        "predictions, whose errors are others",
    )
    target_crf: CrfSettings | None = Field(
        default=CrfSettings(sxy=25, compat=12),
        description="distilled: CRF that aligns the teacher's predictions (with `target_gaze`, "
        "the mean) with the edges of the training images; null: they are used unchanged",
    )
    afc_weight: float = Field(default=0.1, ge=0, description="weight of the feature alignment loss")
    cwc_weight: float = Field(default=1.0, ge=0, description="weight of the consistency loss")
    cwc_threshold: float = Field(
        default=0.8, ge=0.5, lt=1, description="smallest teacher confidence of a pixel that counts"
    )
    cwc_weighted: bool = Field(
        default=True,
        description="true: pixels are weighted by the teacher's confidence; false: all pixels from "
        "the threshold on have the same weight",
    )
    ramp_iterations: int = Field(
        default=4_000, ge=1, description="iterations over which both loss weights rise"
    )
    noise: float = Field(
        default=0.2, ge=0, description="CWC: amplitude of uniform noise on the normalised image"
    )
    cutmix_beta: int = Field(
        default=4,
        ge=1,
        description="a CutMix box's share of the image area is drawn from Beta(b, b)",
    )
    darm_ratio: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="DARM: masked area relative to the area of disagreement",
    )
    darm_block: tuple[int, int] = Field(
        default=(3, 10), description="DARM: smallest and largest side of a masked block, px"
    )

    @model_validator(mode="after")
    def _check_combination(self, info: ValidationInfo[Any]) -> "StudentSettings":
        low, high = self.darm_block
        if not 1 <= low <= high:
            raise ValueError(f"darm_block must be 1 <= smallest <= largest, found {low}, {high}")
        if self.labels == "mask" and self.method != "single" and not is_partial(info):
            raise ValueError(
                f"labels: mask with method: {self.method} is impossible: the method needs weak "
                "labels; set method: single"
            )
        return self

    def unused_fields(self) -> set[str]:
        """Return the fields that only other methods use, and the levels if labels are masks."""
        others = set().union(*_METHOD_FIELDS.values()) - _METHOD_FIELDS[self.method]
        others |= {"levels"} if self.labels == "mask" else set()
        return super().unused_fields() | others | ({"teacher_widths"} if self.pretrained else set())

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher must be trained first."""
        return self.method == "distilled"

    @property
    def pseudolabels(self) -> PseudolabelSettings:
        """What becomes of the teacher's predictions before the student learns from them."""
        return PseudolabelSettings(crf=self.target_crf, gaze=self.target_gaze)

    @property
    def reads_pseudolabels(self) -> bool:
        """Whether the teacher's predictions are changed before the student learns from them."""
        return self.needs_teacher and self.pseudolabels != PseudolabelSettings()

    @property
    def trains_teacher_jointly(self) -> bool:
        """Whether teacher and student are trained together."""
        return self.method == "published"
