import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.settings.base import Settings

# The networks halve the input four times.
ImageSide = Annotated[int, Field(ge=32, le=2048)]


def _check_one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"found {pattern!r}; allowed: a regular expression ({error})") from None
    if groups != 1:
        raise ValueError(f"found {pattern!r}; allowed: a regular expression with one (group)")
    return pattern


Layout = Literal[
    "kvasir", "nci_isbi", "nci_isbi_volumes", "isic", "isic_challenge", "folder", "lesions"
]


class PrepareSettings(Settings):
    """Working size of images and masks, and the splits."""

    layout: Layout = Field(description="layout of the raw folder; data/README.md shows each layout")
    size: tuple[ImageSide, ImageSide] = Field(
        default=(224, 224), description="working height and width, px"
    )
    subject: Annotated[str, AfterValidator(_check_one_group)] | None = Field(
        default=None,
        description="regular expression with one group, the patient's part of a sample id; null: "
        "the patients of the layout, or each image as its own patient if the layout has none",
    )
    split: Literal["given", "drawn"] = Field(
        default="given",
        description="given: the split files or parts of the raw folder; drawn: test subjects are "
        "drawn at random, whatever the folder states",
    )
    test_fraction: float = Field(
        default=0.1, ge=0, le=0.9, description="drawn: share of all subjects for test"
    )
    val_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="share of the training subjects (not images) for validation, if the raw folder "
        "states no validation part",
    )
    split_seed: int = Field(
        default=0, ge=0, description="random seed of the drawn test and validation subjects"
    )

    def unused_fields(self) -> set[str]:
        """Return the fields of random draws that do not take place."""
        if self.split == "drawn":
            return set()
        return {"test_fraction"} | (set() if self.val_fraction else {"split_seed"})
