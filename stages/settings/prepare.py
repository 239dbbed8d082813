import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

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


def _check_label(label: Any) -> int | str:
    if (type(label) is int and label > 0) or (type(label) is str and label.strip()):
        return label
    raise ValueError(
        f"found {label!r}; allowed: a label, that is a whole number above 0, or its name in the "
        "dataset.json of the layout nnunet"
    )


Label = Annotated[int | str, PlainValidator(_check_label, json_schema_input_type=int | str)]
Layout = Literal[
    "kvasir", "nci_isbi", "nci_isbi_volumes", "isic", "isic_challenge", "folder", "nnunet",
    "lesions",
]  # fmt: skip


def _write_number(channel: Any) -> Any:
    return str(channel) if type(channel) is int else channel


class PrepareSettings(Settings):
    """Working size of images and masks, their foreground and channel, and the splits."""

    layout: Layout = Field(description="layout of the raw folder; data/README.md shows each layout")
    size: tuple[ImageSide, ImageSide] = Field(
        default=(224, 224), description="working height and width, px"
    )
    subject: Annotated[str, AfterValidator(_check_one_group)] | None = Field(
        default=None,
        description="regular expression with one group, the patient's part of a sample id; null: "
        "the patients of the layout, or each image as its own patient if the layout has none",
    )
    foreground: tuple[Label, ...] | None = Field(
        default=None,
        min_length=1,
        description="labels of the masks that are foreground, such as [1, 2]; the others are "
        "background. In a DICOM SEG or RTSTRUCT: numbers of segments or ROIs. With the layout "
        "nnunet also names of dataset.json. null: masks hold 0 and one other value, or one segment",
    )
    channel: (
        Annotated[str, BeforeValidator(_write_number, json_schema_input_type=int | str)] | None
    ) = Field(
        default=None,
        description="layout nnunet: the channel to train on, by its name or number in "
        "dataset.json; null: the only one",
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

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        if self.layout == "nnunet":
            return self
        names = [label for label in self.foreground or () if isinstance(label, str)]
        if names:
            raise ValueError(
                f"foreground: found {names[0]!r}; allowed: numbers, as only the layout nnunet "
                "names labels"
            )
        if self.channel is not None:
            raise ValueError(
                f"channel: found {self.channel!r}; allowed: null, as only the layout nnunet has "
                "channels"
            )
        return self

    def layout_options(self) -> dict[str, Any]:
        """Return the settings that choose among the files and labels of a layout."""
        if self.layout != "nnunet":
            return {}
        drawn = self.split == "drawn"
        return {"channel": self.channel, "foreground": self.foreground, "drawn": drawn}

    def unused_fields(self) -> set[str]:
        """Return the fields of random draws that do not take place."""
        if self.split == "drawn":
            return set()
        return {"test_fraction"} | (set() if self.val_fraction else {"split_seed"})
