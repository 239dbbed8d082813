"""Parts of settings that several stages share."""

from pydantic import Field

from stages.settings.base import Settings


class CrfSettings(Settings):
    """The fully connected CRF that aligns a map with the edges of the image."""

    sxy: float = Field(
        default=80, ge=1, description="spatial standard deviation, px of the original image"
    )
    srgb: float = Field(
        default=13, ge=1, description="colour standard deviation, 8-bit grey levels"
    )
    compat: float = Field(default=1, ge=0, description="weight of the pairwise term")
    iterations: int = Field(default=10, ge=0, description="mean-field iterations")


class EncoderSettings(Settings):
    """A pretrained encoder."""

    encoder: str = Field(description="name of a model of timm")
    weights: str = Field(description="imagenet, none, or a file")

    @property
    def file(self) -> str | None:
        """The user's own file of weights, if there is one."""
        return None if self.weights in ("imagenet", "none") else self.weights
