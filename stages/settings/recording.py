from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, model_validator

from stages.settings.base import Settings, is_partial

# Formats that are a folder of maps; the others are tables.
MAP_FORMATS = ("heatmaps", "refined")
# Formats that may be raw samples: with `detection` the raw gaze is read, not the tracker's own
# fixations.
RAW_FORMATS = ("samples", "eyelink", "tobii", "gazepoint", "pupil", "imotions")
# The lower limits of screen size and distance refuse centimetres, which would make all angles wrong
# by a factor of 10.
ScreenSide = Annotated[float, Field(ge=100)]
# A value in a cell of a table.
Cell = bool | int | float | str
TimeUnit = Literal["ms", "s", "us", "ns"]
# Formats that say what x and y are → unit and origin; a stated setting wins.
_COORDINATES = {
    "gazepoint": {"unit": "fraction", "origin": "top-left"},
    "pupil": {"unit": "fraction", "origin": "bottom-left"},
    "smi": {"unit": "px", "origin": "top-left"},
    "imotions": {"unit": "px", "origin": "top-left"},
}


class ScreenSettings(Settings):
    """The screen on which coordinates were measured, and the position of images on it."""

    size: tuple[PositiveInt, PositiveInt] = Field(description="width and height, px")
    shown: Literal["fit", "native"] = Field(
        default="fit",
        description="fit: each image as large as the screen allows, centred; native: pixel for "
        "pixel, centred",
    )
    area: tuple[float, float, PositiveFloat, PositiveFloat] | None = Field(
        default=None,
        description="left, top, width and height of the part of the screen that showed images, px; "
        "null: the whole screen",
    )

    @model_validator(mode="after")
    def _check_area(self, info: ValidationInfo[Any]) -> "ScreenSettings":
        if self.area is not None and not is_partial(info):
            (left, top, width, height), (right, bottom) = self.area, self.size
            if min(left, top) < 0 or left + width > right or top + height > bottom:
                raise ValueError(f"screen.area {self.area} reaches beyond screen.size {self.size}")
        return self


class DetectionSettings(Settings):
    """How fixations are detected in raw gaze samples."""

    method: Literal["velocity", "dispersion"] = Field(
        default="velocity", description="velocity threshold (I-VT) or dispersion threshold (I-DT)"
    )
    rate_hz: float = Field(gt=0, description="samples per second")
    screen_mm: tuple[ScreenSide, ScreenSide] = Field(
        description="visible width and height of the screen, mm"
    )
    distance_mm: float = Field(ge=200, description="from the eye to the screen, mm")
    max_velocity: float | None = Field(
        default=None,
        gt=0,
        description="samples above it belong to saccades, degrees per second; null: from the "
        "noise, at least 30",
    )
    max_dispersion: float = Field(
        default=1, gt=0, description="largest extent of a fixation in x plus in y, degrees"
    )
    smoothing_ms: float = Field(
        default=50,
        ge=0,
        le=200,
        description="window of the running median that smooths the samples first, ms; 0: none",
    )

    def unused_fields(self) -> set[str]:
        """Return the threshold of the other method."""
        return {"max_dispersion" if self.method == "velocity" else "max_velocity"}


class ColumnSettings(Settings):
    """Names of a table's columns. A name without a unit in brackets fits a column with one."""

    x: str = Field(default="", description="horizontal position")
    y: str = Field(default="", description="vertical position")
    duration: str = Field(default="", description="duration of the fixation")
    start: str = Field(
        default="", description="start of the fixation, or time of the sample; may be absent"
    )
    image: str = Field(default="", description="name of the image")
    reader: str = Field(default="", description="name of the reader; may be absent")
    index: str = Field(
        default="",
        description="number of the fixation, if a fixation has several rows: the last one counts",
    )
    valid: str = Field(default="", description="1 or true; 0 or false where the eye was lost")
    pupil: str = Field(default="", description="size of the pupil; 0 or less: the eye was lost")


class RecordingSettings(Settings):
    """The format of a data set's `fixations`, and the meaning of its coordinates."""

    format: Literal[
        "gazemedseg", "eyelink", "tobii", "gazepoint", "pupil", "smi", "imotions", "fixations",
        "samples", "heatmaps", "refined",
    ] = Field(
        default="gazemedseg",
        description="gazemedseg, eyelink, tobii, gazepoint, pupil, smi, imotions: fixations as "
        "the tracker's software exports them; fixations: a table whose `columns` you name; "
        "samples: raw gaze samples; heatmaps, refined: a folder of 8-bit maps",
    )  # fmt: skip
    columns: ColumnSettings = Field(
        default_factory=ColumnSettings,
        description="columns of a table, where they differ from those of the format",
    )
    rows: dict[str, Cell | list[Cell]] = Field(
        default_factory=dict,
        description="column → value, or list of values: only these rows are read",
    )
    image: str = Field(
        default="", description="image of all rows, if no column of the table names the image"
    )
    valid_range: tuple[float, float] | None = Field(
        default=None,
        description="lowest and highest value of the column `valid` where the eye was seen; null: "
        "1 or true, as the format says otherwise",
    )
    time_unit: TimeUnit | None = Field(
        default=None,
        description="unit of durations and starts; null: as the format says, or the name of the "
        "column in brackets",
    )
    start_unit: TimeUnit | None = Field(
        default=None, description="unit of starts, if it is not that of the durations"
    )
    unit: Literal["fraction", "percent", "px"] = Field(
        default="fraction",
        description="unit of x and y: fractions or percent of the whole image or screen, or pixels",
    )
    origin: Literal["top-left", "bottom-left", "centre", "centre-down"] = Field(
        default="top-left",
        description="position of x = y = 0; y points down for top-left and centre-down, up for "
        "bottom-left and centre",
    )
    screen: ScreenSettings | None = Field(
        default=None, description="screen of the coordinates; null: coordinates are on the image"
    )
    image_column: str = Field(
        default="", description="column with the image name, if not the usual one of the format"
    )
    max_off_image: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="largest share of fixations off their image; a larger share stops the run",
    )
    detection: DetectionSettings | None = Field(
        default=None,
        description="how fixations are detected in raw gaze; null: the tracker's own fixations",
    )

    @model_validator(mode="before")
    @classmethod
    def _add_coordinates(cls, values: Any, info: ValidationInfo[Any]) -> Any:
        """Add the unit and the origin that the format defines."""
        if is_partial(info) or not isinstance(values, dict):
            return values
        name = values.get("format")
        return {**_COORDINATES.get(name, {}), **values} if isinstance(name, str) else values

    @model_validator(mode="after")
    def _check_format(self, info: ValidationInfo[Any]) -> "RecordingSettings":
        if is_partial(info):
            return self
        if self.format in MAP_FORMATS:
            others = (name for name in type(self).model_fields if name != "format")
            defaults = type(self)()
            if changed := [n for n in others if getattr(self, n) != getattr(defaults, n)]:
                raise ValueError(
                    f"recording.{changed[0]} does not apply to the format {self.format}: a map has "
                    "no coordinates"
                )
        needs_unit = self.format in ("eyelink", "tobii", "fixations", "samples")
        if needs_unit and "unit" not in self.model_fields_set:
            raise ValueError(
                f"recording.unit must be set for the format {self.format}: 'px', 'fraction' or "
                "'percent'"
            )
        self._check_columns()
        if self.format == "samples" and self.detection is None:
            raise ValueError(
                "recording.detection must be set for the format samples: rate_hz, screen_mm and "
                "distance_mm are needed to detect fixations"
            )
        if self.format not in RAW_FORMATS and self.detection is not None:
            raise ValueError(
                f"recording.detection does not apply to the format {self.format}: fixations are "
                "detected only in samples"
            )
        if self.detection is not None and self.screen is None:
            raise ValueError(
                "recording.screen must be set for raw samples: fixations are detected in degrees "
                "on the screen"
            )
        if self.format == "tobii" and self.unit == "percent":
            raise ValueError(
                "recording.unit must be px or fraction for the format tobii: Tobii exports no "
                "percent"
            )
        if (
            self.format == "tobii"
            and self.screen
            and not self.detection
            and self.unit == "fraction"
        ):
            raise ValueError(
                "recording.unit must be px for the format tobii with a screen: Pro Lab exports "
                "fixation points on the screen only in pixels"
            )
        return self

    def _check_columns(self) -> None:
        """Check that the settings name each column once, and all that the format needs."""
        named = [self.image, self.image_column, self.columns.image]
        if sum(map(bool, named)) > 1:
            raise ValueError(
                "recording.image, recording.image_column and recording.columns.image exclude each "
                "other: one of them says where the name of the image is"
            )
        roles = {role: name for role, name in self.columns if name}
        if repeated := [name for name in roles.values() if list(roles.values()).count(name) > 1]:
            raise ValueError(f"recording.columns names {repeated[0]!r} twice")
        if self.valid_range and not self.columns.valid and self.detection is None:
            raise ValueError("recording.valid_range needs recording.columns.valid")
        if self.detection is not None:
            unused = [f"columns.{role}" for role in ("duration",) if role in roles]
            unused += ["start_unit"] if self.start_unit else []
            if unused:
                raise ValueError(
                    f"recording.{unused[0]} does not apply to raw samples: they have one time, "
                    "recording.columns.start in recording.time_unit"
                )
        elif self.format == "tobii":
            unused = [f"columns.{role}" for role in roles if role != "image"]
            unused += [name for name in ("time_unit", "start_unit") if getattr(self, name)]
            if unused:
                raise ValueError(
                    f"recording.{unused[0]} does not apply to the format tobii, which knows its "
                    "columns: for another table, set recording.format: fixations"
                )
        if self.format != "fixations":
            return
        needed = {role: getattr(self.columns, role) for role in ("x", "y", "duration")}
        if absent := [role for role, name in needed.items() if not name]:
            raise ValueError(
                f"recording.columns.{absent[0]} must be set for the format fixations: the name of "
                "the column"
            )
        if not any(named):
            raise ValueError(
                "recording.columns.image must be set for the format fixations; or recording.image, "
                "if no column names the image"
            )
