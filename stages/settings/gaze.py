from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.settings.base import Settings
from stages.settings.crf import CrfSettings
from stages.settings.recording import MAPS, RecordingSettings
from stages.settings.scanpath import ScanSettings

Threshold = Annotated[float, Field(gt=0, lt=1)]


class GazeSettings(Settings):
    """Fixations to heatmap, refined map and nested pseudomasks."""

    recording: RecordingSettings = RecordingSettings()
    canvas: Literal["image", "published"] = Field(
        default="image",
        description="image: round Gaussians at the image's own aspect; published: a square canvas "
        "laid over the image and its steps of rounding, as in the released notebook",
    )
    sigma: float = Field(
        default=70,
        gt=0,
        description="heatmap's Gaussian std, px of an image of the area of 768 × 768, or of that "
        "canvas",
    )
    min_fixation_ms: float = Field(
        default=50, ge=0, description="shorter fixations are dropped, ms"
    )
    crf: CrfSettings = CrfSettings()
    thresholds: tuple[Threshold, ...] = Field(
        default=(0.5, 0.3),
        min_length=1,
        description="levels on the refined map; highest: precise, lowest: broad pseudomask, one "
        "level alone: both",
    )
    simulate: ScanSettings | None = Field(
        default=None,
        description="scan model of the fixations, for a data set without recordings: they are "
        "then drawn from the masks of the training split alone",
    )
    recorded: bool = Field(
        default=True,
        description="`fixations` holds people's gaze; false: a model's, as in the demo, and "
        "tables and figures then say that it is simulated",
    )
    partial: bool = Field(
        default=False,
        description="training images without gaze are allowed, and left out; false: they stop "
        "the run, with the list",
    )
    seed: int = Field(default=0, ge=0, description="seed of the simulated fixations")

    def unread(self) -> set[str]:
        """Name what is only of a recording, of a simulation, or of fixations where maps are."""
        if self.simulate is not None:
            return {"recording", "recorded"}
        if self.recording.format not in MAPS:
            return {"seed"}
        drawn = {"seed", "canvas", "sigma", "min_fixation_ms"}
        return drawn | ({"crf"} if self.recording.format == "refined" else set())

    @model_validator(mode="after")
    def _distinct(self) -> "GazeSettings":
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f"thresholds must differ from each other, found {self.thresholds}")
        return self
