import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.settings.base import Settings

# Four halvings lie between the input and the deepest scale of the networks.
Side = Annotated[int, Field(ge=32, le=2048)]


def _one_group(pattern: str) -> str:
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
    """Raw images and masks to one working size, and who is in which split."""

    layout: Layout = Field(description="how the raw folder is laid out; data/README.md draws each")
    size: tuple[Side, Side] = Field(default=(224, 224), description="working height and width, px")
    subject: Annotated[str, AfterValidator(_one_group)] | None = Field(
        default=None,
        description="regular expression whose one group is the patient's part of a sample id; "
        "none: as the layout knows patients, each image its own where it does not",
    )
    split: Literal["given", "drawn"] = Field(
        default="given",
        description="given: by the raw folder's split files or parts; drawn: test subjects are "
        "drawn, whatever the folder states",
    )
    test_fraction: float = Field(
        default=0.1, ge=0, le=0.9, description="share of all subjects drawn for test"
    )
    val_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="share of the training subjects (not images) held out for validation, where "
        "the raw folder states no validation part",
    )
    split_seed: int = Field(default=0, ge=0, description="draws the test and validation subjects")

    def unread(self) -> set[str]:
        """Name what is only of a draw, where none takes place."""
        if self.split == "drawn":
            return set()
        return {"test_fraction"} | (set() if self.val_fraction else {"split_seed"})
