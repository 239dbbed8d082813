from typing import Annotated, Literal

from pydantic import Field

from stages.settings.base import Settings

# Four halvings lie between the input and the deepest scale of the networks.
Side = Annotated[int, Field(ge=32, le=2048, multiple_of=16)]


class PrepareSettings(Settings):
    """Raw images and masks to one working size, and who is in which split."""

    layout: Literal["kvasir", "nci_isbi", "isic", "lesions"] = Field(
        description="how the raw folder is laid out; data/README.md draws each"
    )
    size: tuple[Side, Side] = Field(
        default=(224, 224), description="working height and width, px, multiples of 16"
    )
    val_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="share of the training subjects (not images) held out for validation",
    )
    split_seed: int = Field(default=0, ge=0, description="draws the validation subjects")
