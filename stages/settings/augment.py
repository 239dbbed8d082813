from pydantic import Field

from stages.settings.base import Settings


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
