from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.settings.base import Settings
from stages.settings.parts import CrfSettings, EncoderSettings
from stages.settings.recording import MAP_FORMATS, RecordingSettings
from stages.settings.scanpath import ScanSettings


class FeatureSettings(Settings):
    """A pixel classifier on the features of a frozen encoder, which votes on the refined maps.

    It learns from the gaze on other images, and so knows what targets look like.
    """

    encoder: str = Field(
        default="tf_efficientnet_lite0",
        min_length=1,
        description="name of a model of timm that makes feature maps",
    )
    encoder_weights: str = Field(
        default="imagenet",
        min_length=1,
        description="imagenet (tf_efficientnet_lite0 to 2 from packages, others from timm's hub), "
        "none, or a file (.safetensors, or a PyTorch file of tensors)",
    )
    side: int = Field(
        default=256, ge=64, le=2048, description="longer side of the images that it reads, px"
    )
    weight: float = Field(
        default=0.4,
        gt=0,
        lt=1,
        description="weight of the classifier's probability in the mean with the refined map",
    )
    seed: int = Field(default=0, ge=0, description="seed of the classifier")

    @property
    def pretrained(self) -> EncoderSettings:
        """The encoder whose weights the classifier's features come from."""
        return EncoderSettings(encoder=self.encoder, weights=self.encoder_weights)


Threshold = Annotated[float, Field(gt=0, lt=1)]


class GazeSettings(Settings):
    """From fixations to the heatmap, the refined map and nested pseudomasks."""

    recording: RecordingSettings = RecordingSettings()
    canvas: Literal["image", "published"] = Field(
        default="image",
        description="image: round Gaussians on a canvas with the image's aspect ratio; published: "
        "a square canvas stretched over the image, and the rounding steps of the released notebook",
    )
    sigma: float = Field(
        default=70,
        gt=0,
        description="standard deviation of the heatmap's Gaussians, px of an image with the area "
        "of 768 × 768 px, or of the published canvas",
    )
    min_fixation_ms: float = Field(
        default=50, ge=0, description="shorter fixations are dropped, ms"
    )
    crf: CrfSettings = CrfSettings()
    levels: Literal["thresholds", "area"] = Field(
        default="thresholds",
        description="thresholds: the thresholds cut the CRF's map; area: it is first rescaled so "
        "that the pixels from ½ on have the area that the spread of the fixations tells",
    )
    features: FeatureSettings | None = Field(
        default=None,
        description="a pixel classifier that votes on the maps; null: none",
    )
    thresholds: tuple[Threshold, ...] = Field(
        default=(0.5, 0.3),
        min_length=1,
        description="thresholds of the refined map; the highest gives the precise pseudomask, the "
        "lowest the broad one; a single threshold gives both",
    )
    simulate: ScanSettings | None = Field(
        default=None,
        description="scan model for a data set without recordings; it draws fixations from the "
        "masks of the training split only",
    )
    recorded: bool = Field(
        default=True,
        description="true: `fixations` has gaze of people; false: of a model, as in the demo; "
        "tables and figures then call it simulated",
    )
    partial: bool = Field(
        default=False,
        description="true: training images without gaze are left out; false: they stop the run "
        "with a list",
    )
    seed: int = Field(default=0, ge=0, description="seed of the simulated fixations")

    def unused_fields(self) -> set[str]:
        """Return the fields of a recording if gaze is simulated, else those of a simulation.

        For gaze maps also the fields that only fixations need.
        """
        if self.simulate is not None:
            return {"recording", "recorded"}
        if self.recording.format not in MAP_FORMATS:
            return {"seed"}
        of_fixations = {"seed", "canvas", "sigma", "min_fixation_ms", "levels"}
        return of_fixations | ({"crf"} if self.recording.format == "refined" else set())

    @model_validator(mode="after")
    def _check_thresholds(self) -> "GazeSettings":
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f"thresholds must differ from each other, found {self.thresholds}")
        return self
