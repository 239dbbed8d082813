"""Convert recorded coordinates to fractions of the image, and diagnose wrong coordinates."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.settings.recording import RecordingSettings, ScreenSettings

Unit = Literal["fraction", "percent", "px"]
Origin = Literal["top-left", "bottom-left", "centre"]

# Unit → its name in messages.
_UNITS: dict[Unit, str] = {"fraction": "fractions", "percent": "percent", "px": "pixels"}
_ORIGINS: tuple[Origin, ...] = ("top-left", "bottom-left", "centre")
# An interpretation explains the coordinates if it puts at least this share of them on the images.
_MIN_EXPLAINED_SHARE = 0.95
# Smallest side of images on which values up to 100 are percent rather than pixels, px.
_MIN_PERCENT_SIDE = 200
# Width and height of the largest usual screen, px.
_LARGEST_USUAL_SCREEN = (3840, 2160)


def to_frame_fractions(
    position: NDArray[np.float64], frame: NDArray[np.float64], unit: Unit, origin: Origin
) -> NDArray[np.float64]:
    """Convert coordinates to fractions of their frame (screen or image), from its top left.

    Parameters
    ----------
    position
        (F, 2) x, y.
    frame
        (2,) or (F, 2) width, height in px.
    unit
        Unit of `position`. Fractions and percent refer to the whole frame, so from the centre
        fractions run from -0.5 to 0.5.
    origin
        Where x = y = 0 is. y points down from the top left, and up from the other origins.
    """
    whole = {"fraction": np.ones(2), "percent": np.full(2, 100.0), "px": frame}
    fraction: NDArray[np.float64] = position / whole[unit]
    if origin == "centre":
        fraction[:, 0] += 0.5
        fraction[:, 1] = 0.5 - fraction[:, 1]
    elif origin == "bottom-left":
        fraction[:, 1] = 1 - fraction[:, 1]
    return fraction


def _screen_to_image_fractions(
    fraction: NDArray[np.float64], image_size: NDArray[np.float64], screen: ScreenSettings
) -> NDArray[np.float64]:
    """Convert (F, 2) fractions of the screen to fractions of the image shown on it."""
    left, top, *size = screen.area or (0.0, 0.0, *screen.size)
    area = np.array(size, np.float64)
    shown_size = image_size
    if screen.shown == "fit":
        shown_size = image_size * np.min(area / image_size, axis=1)[:, None]
    corner = np.array([left, top]) + (area - shown_size) / 2
    position: NDArray[np.float64] = (fraction * np.array(screen.size) - corner) / shown_size
    return position


def to_image_fractions(
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    settings: RecordingSettings,
) -> NDArray[np.float64]:
    """Convert a recording's coordinates to fractions of the image.

    Parameters
    ----------
    position
        (F, 2) x, y as recorded; NaN stays NaN.
    image_size
        (F, 2) width and height of the original image of each position, px.
    settings
        The meaning of the coordinates: unit, origin, screen.

    Returns
    -------
    (F, 2) float64: 0 left or top, 1 right or bottom; values outside 0 to 1 are off the image.
    """
    screen = settings.screen
    frame = image_size if screen is None else np.array(screen.size, np.float64)
    fraction = to_frame_fractions(position, frame, settings.unit, settings.origin)
    return fraction if screen is None else _screen_to_image_fractions(fraction, image_size, screen)


def is_on_image(fraction: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (F,) whether a position is on the image. The border is on it; NaN is not."""
    x, y = fraction.T
    on_image: NDArray[np.bool_] = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    return on_image


class _Interpretation(NamedTuple):
    """Another possible meaning of the coordinates.

    Attributes
    ----------
    swapped
        Whether x and y are swapped.
    changes
        Number of differences from the stated settings.
    """

    settings: RecordingSettings
    swapped: bool
    changes: int


def _other_interpretations(settings: RecordingSettings) -> Iterator[_Interpretation]:
    screens = [settings.screen] if settings.screen is None else [settings.screen, None]
    for unit, origin, screen, swapped in product(_UNITS, _ORIGINS, screens, (False, True)):
        new = {"unit": unit, "origin": origin, "screen": screen}
        changes = sum(getattr(settings, key) != value for key, value in new.items()) + swapped
        if changes:
            yield _Interpretation(settings.model_copy(update=new), swapped, changes)


def _suggest_correction(
    position: NDArray[np.float64], image_size: NDArray[np.float64], settings: RecordingSettings
) -> str:
    """Suggest the correction with the fewest changes that puts the coordinates on their images."""
    tiny = bool(np.abs(position).max() <= 1)
    # On small images percent and pixels look alike; pixels are usual.
    small = bool(np.median(image_size.min(axis=1)) < _MIN_PERCENT_SIDE)
    fits: list[tuple[int, float, int, _Interpretation]] = []
    for candidate in _other_interpretations(settings):
        # Real gaze in pixels is never all within one pixel of the origin; nor gaze in percent.
        if tiny and candidate.settings.unit != "fraction":
            continue
        if small and candidate.settings.unit == "percent":
            continue
        xy = position[:, ::-1] if candidate.swapped else position
        share = is_on_image(to_image_fractions(xy, image_size, candidate.settings)).mean()
        if share >= _MIN_EXPLAINED_SHARE:
            fits.append((candidate.changes, -float(share), len(fits), candidate))
    if fits:
        return _describe_correction(min(fits)[3], settings)
    largest = np.percentile(position, 100 * _MIN_EXPLAINED_SHARE, axis=0)
    fits_screen = bool(
        (position.min(axis=0) >= 0).all() and (largest <= _LARGEST_USUAL_SCREEN).all()
    )
    if fits_screen and settings.screen is None and not tiny:
        unit = "" if settings.unit == "px" else "recording.unit: px and "
        return (
            "x and y look like pixels of the screen, not of the image: set "
            f"{unit}recording.screen, with the screen's size"
        )
    return (
        "compare some rows with their images, then correct recording.unit, recording.origin or "
        "recording.screen, which define the meaning of x and y"
    )


def _describe_correction(interpretation: _Interpretation, settings: RecordingSettings) -> str:
    new = interpretation.settings
    symptoms, actions = [], []
    if interpretation.swapped:
        symptoms.append("swapped")
        actions.append("swap the two columns")
    if new.unit != settings.unit:
        symptoms.append(f"like {_UNITS[new.unit]}, not {_UNITS[settings.unit]}")
        actions.append(f"set recording.unit: {new.unit}")
    if new.origin != settings.origin:
        symptoms.append(f"measured from the {new.origin.replace('-', ' ')}")
        actions.append(f"set recording.origin: {new.origin}")
    if new.screen != settings.screen:
        symptoms.append("measured on the image, not on the screen")
        actions.append("remove recording.screen")
    return f"x and y look {', and '.join(symptoms)}: {' and '.join(actions)}"


def check_placement(
    file: Path,
    columns: str,
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    settings: RecordingSettings,
    kind: str,
) -> None:
    """Check that the coordinates can have the meaning that the settings state.

    Parameters
    ----------
    file, columns, kind
        For the message: the file, its columns, and the kind of row in the plural ("fixations").
    position, image_size
        As in `to_image_fractions`.

    Raises
    ------
    BadInput
        More than `settings.max_off_image` of the positions lie off their image, or all positions
        lie within one pixel of the origin. The message names the meaning of x and y that would put
        nearly all positions on their images.
    """
    share_off = 1 - is_on_image(to_image_fractions(position, image_size, settings)).mean()
    tracked = np.isfinite(position).all(axis=1)
    known = position[tracked]
    tiny = settings.unit != "fraction" and len(known) > 0 and bool(np.abs(known).max() <= 1)
    if share_off <= settings.max_off_image and not tiny:
        return
    lost = 1 - len(known) / len(position)
    if not len(known) or lost > settings.max_off_image:
        ranges, mend = "", "complete the recording, or raise recording.max_off_image"
    else:
        low, high = known.min(axis=0), known.max(axis=0)
        ranges = f"; x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to {high[1]:g}"
        mend = _suggest_correction(known, image_size[tracked], settings)
    unit = _UNITS[settings.unit]
    frame = "the image" if settings.screen is None else "the screen"
    raise BadInput(
        file,
        columns,
        found=f"{share_off:.0%} of {len(position)} {kind} off their image"
        + (f", {lost:.0%} without a position" if lost else "")
        + ranges,
        expected=f"at most {settings.max_off_image:.0%} (recording.max_off_image), in {unit} of "
        f"{frame} from the {settings.origin.replace('-', ' ')}",
        mend=mend,
    )
