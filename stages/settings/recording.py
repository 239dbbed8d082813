from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, model_validator

from stages.settings.base import Settings, is_part

# Formats of a folder of maps; the others are tables.
MAPS = ("heatmaps", "refined")
# Centimetres would pass as millimetres, here and of the distance, and make every angle many times
# as wide or as narrow.
ScreenSide = Annotated[float, Field(ge=100)]


class ScreenSettings(Settings):
    """The screen on which coordinates were measured, and where the image was on it."""

    size: tuple[PositiveInt, PositiveInt] = Field(description="width and height, px")
    shown: Literal["fit", "native"] = Field(
        default="fit",
        description="fit: each image as large as the screen allows, centred; native: pixel for "
        "pixel, centred",
    )
    area: tuple[float, float, PositiveFloat, PositiveFloat] | None = Field(
        default=None,
        description="left, top, width and height of the part of the screen in which images were "
        "shown, px; none: all of it",
    )

    @model_validator(mode="after")
    def _within(self, info: ValidationInfo[Any]) -> "ScreenSettings":
        if self.area is not None and not is_part(info):
            (left, top, width, height), (right, bottom) = self.area, self.size
            if min(left, top) < 0 or left + width > right or top + height > bottom:
                raise ValueError(f"screen.area {self.area} reaches beyond screen.size {self.size}")
        return self


class DetectionSettings(Settings):
    """How fixations are found in raw gaze samples."""

    method: Literal["velocity", "dispersion"] = Field(
        default="velocity", description="velocity threshold (I-VT) or dispersion threshold (I-DT)"
    )
    rate_hz: float = Field(gt=0, description="samples per second")
    screen_mm: tuple[ScreenSide, ScreenSide] = Field(
        description="visible width and height of the screen, mm"
    )
    distance_mm: float = Field(ge=200, description="from the eye to the screen, mm")
    max_velocity: float = Field(
        default=30, gt=0, description="above it a sample is of a saccade, degrees per second"
    )
    max_dispersion: float = Field(
        default=1, gt=0, description="extent of a fixation along x plus along y, degrees"
    )

    def unread(self) -> set[str]:
        """Name the threshold of the other method."""
        return {"max_dispersion" if self.method == "velocity" else "max_velocity"}


class RecordingSettings(Settings):
    """What the file of a data set's `fixations` holds, and what its coordinates mean."""

    format: Literal["gazemedseg", "eyelink", "tobii", "samples", "heatmaps", "refined"] = Field(
        default="gazemedseg",
        description="gazemedseg, eyelink, tobii: fixation tables; samples: raw gaze samples; "
        "heatmaps, refined: a folder of 8-bit maps",
    )
    unit: Literal["fraction", "px"] = Field(
        default="fraction",
        description="of x and y: fractions of the whole image or screen, or pixels",
    )
    origin: Literal["top-left", "bottom-left", "centre"] = Field(
        default="top-left",
        description="where x = y = 0 is; y runs down from the top left, up from the others",
    )
    screen: ScreenSettings | None = Field(
        default=None, description="coordinates are on this screen; none: they are on the image"
    )
    image_column: str = Field(
        default="", description="column that names the image, where it is not the format's usual"
    )
    max_off_image: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="largest share of fixations off their image; more stops the run",
    )
    detection: DetectionSettings | None = Field(
        default=None, description="for raw samples: how fixations are found in them"
    )

    @model_validator(mode="after")
    def _stated(self, info: ValidationInfo[Any]) -> "RecordingSettings":
        if is_part(info):
            return self
        if self.format in MAPS:
            others = (name for name in type(self).model_fields if name != "format")
            plain = type(self)()
            if stated := [name for name in others if getattr(self, name) != getattr(plain, name)]:
                raise ValueError(
                    f"recording.{stated[0]} says nothing about the format {self.format}: a map has "
                    "no coordinates"
                )
        tracked = self.format in ("eyelink", "tobii", "samples")
        if tracked and "unit" not in self.model_fields_set:
            raise ValueError(
                f"recording.unit must be stated for the format {self.format}: 'px' or 'fraction'"
            )
        if self.format == "samples" and self.detection is None:
            raise ValueError(
                "recording.detection must be stated for the format samples: rate_hz, screen_mm and "
                "distance_mm, without which no fixation is found"
            )
        if self.format != "samples" and self.detection is not None:
            raise ValueError(
                f"recording.detection says nothing about the format {self.format}: fixations are "
                "found in samples alone"
            )
        if self.format == "samples" and self.screen is None:
            raise ValueError(
                "recording.screen must be stated for the format samples: fixations are found in "
                "degrees on the screen"
            )
        if self.format == "tobii" and self.screen is not None and self.unit == "fraction":
            raise ValueError(
                "recording.unit must be px for the format tobii with a screen: Pro Lab gives "
                "fixation points on the screen in pixels alone"
            )
        return self
