from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.settings.base import Settings
from stages.settings.crf import CrfSettings
from stages.settings.recording import MAP_FORMATS, RecordingSettings
from stages.settings.scanpath import ScanSettings

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
        of_fixations = {"seed", "canvas", "sigma", "min_fixation_ms"}
        return of_fixations | ({"crf"} if self.recording.format == "refined" else set())

    @model_validator(mode="after")
    def _check_thresholds(self) -> "GazeSettings":
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f"thresholds must differ from each other, found {self.thresholds}")
        return self
