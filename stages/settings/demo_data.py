from typing import Literal

from pydantic import Field

from stages.settings.base import Settings
from stages.settings.scanpath import ScanSettings


class DemoSettings(Settings):
    """A phantom data set in its published raw layout."""

    dataset: Literal["kvasir", "prostate", "isic"] = Field(description="which one to imitate")
    seed: int = Field(default=0, ge=0, description="of images and fixations")
    train: int = Field(
        default=432,
        ge=6,
        description="images of train.txt, of which the pipeline takes its validation part; "
        "prostate: rounded to whole cases of 6 slices",
    )
    test: int = Field(default=120, ge=6, description="images of test.txt, rounded likewise")
    scan: ScanSettings = Field(
        default=ScanSettings(), description="how the recorded fixations came about"
    )
