from typing import Literal

from pydantic import Field

from stages.settings.base import Settings
from stages.settings.scanpath import ScanSettings


class DemoSettings(Settings):
    """A phantom data set in the layout of the published data set that it imitates."""

    dataset: Literal["kvasir", "prostate", "isic"] = Field(description="data set to imitate")
    seed: int = Field(default=0, ge=0, description="random seed of images and fixations")
    train: int = Field(
        default=432,
        ge=6,
        description="images in train.txt; the pipeline takes its validation images from them; "
        "prostate: rounded to whole cases of 6 slices",
    )
    test: int = Field(default=120, ge=6, description="images in test.txt, rounded in the same way")
    scan: ScanSettings = Field(
        default=ScanSettings(), description="scan model that draws the recorded fixations"
    )
