"""Where on its image a fixation lies, and what is wrong where too many lie beside it."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.settings.recording import RecordingSettings, ScreenSettings

Unit = Literal["fraction", "px"]
Origin = Literal["top-left", "bottom-left", "centre"]

_UNITS: tuple[Unit, ...] = ("fraction", "px")
_ORIGINS: tuple[Origin, ...] = ("top-left", "bottom-left", "centre")
# A reading explains the coordinates where it puts this share of them on their images.
_EXPLAINED = 0.95
# Width and height of the largest usual screen, px.
_USUAL_SCREEN = (3840, 2160)


def to_frame(
    position: NDArray[np.float64], frame: NDArray[np.float64], unit: Unit, origin: Origin
) -> NDArray[np.float64]:
    """Turn coordinates into fractions of the frame, screen or image, from its top left.

    Parameters
    ----------
    position
        (F, 2) x, y.
    frame
        (2,) or (F, 2) width, height in px.
    unit
        Of `position`. Fractions are of the whole frame, also from the centre: -0.5 to 0.5.
    origin
        y runs down from the top left, up from the others.
    """
    fraction = position / frame if unit == "px" else position.copy()
    if origin == "centre":
        fraction[:, 0] += 0.5
        fraction[:, 1] = 0.5 - fraction[:, 1]
    elif origin == "bottom-left":
        fraction[:, 1] = 1 - fraction[:, 1]
    return fraction


def _from_screen(
    fraction: NDArray[np.float64], image: NDArray[np.float64], screen: ScreenSettings
) -> NDArray[np.float64]:
    """Fractions of the screen → fractions of the image that was shown on it."""
    left, top, *size = screen.area or (0.0, 0.0, *screen.size)
    area = np.array(size, np.float64)
    if screen.shown == "fit":
        image = image * np.min(area / image, axis=1)[:, None]
    corner = np.array([left, top]) + (area - image) / 2
    placed: NDArray[np.float64] = (fraction * np.array(screen.size) - corner) / image
    return placed


def to_image(
    position: NDArray[np.float64],
    image: NDArray[np.float64],
    settings: RecordingSettings,
) -> NDArray[np.float64]:
    """Turn a recording's coordinates into fractions of the image.

    Parameters
    ----------
    position
        (F, 2) x, y as recorded; NaN stays NaN.
    image
        (F, 2) width and height of each one's original image, px.
    settings
        What the coordinates mean: unit, origin, screen.

    Returns
    -------
    (F, 2) float64: 0 left or top, 1 right or bottom; outside 0 to 1 off the image.
    """
    screen = settings.screen
    frame = image if screen is None else np.array(screen.size, np.float64)
    fraction = to_frame(position, frame, settings.unit, settings.origin)
    return fraction if screen is None else _from_screen(fraction, image, screen)


def on_image(fraction: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F,) whether a place is on the image; its borders are, what has no place is not."""
    x, y = fraction.T
    on: NDArray[np.bool_] = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    return on


class _Reading(NamedTuple):
    """Another way to understand the coordinates."""

    settings: RecordingSettings
    exchanged: bool
    changes: int


def _readings(settings: RecordingSettings) -> Iterator[_Reading]:
    screens = [settings.screen] if settings.screen is None else [settings.screen, None]
    for unit, origin, screen, exchanged in product(_UNITS, _ORIGINS, screens, (False, True)):
        new = {"unit": unit, "origin": origin, "screen": screen}
        changes = sum(getattr(settings, key) != value for key, value in new.items()) + exchanged
        if changes:
            yield _Reading(settings.model_copy(update=new), exchanged, changes)


def _explain(
    position: NDArray[np.float64], image: NDArray[np.float64], settings: RecordingSettings
) -> str:
    """Advise what would put the coordinates on their images, with the fewest changes."""
    tiny = bool(np.abs(position).max() <= 1)
    fits: list[tuple[int, float, int, _Reading]] = []
    for reading in _readings(settings):
        # All within one pixel of the origin: nobody looks so.
        if tiny and reading.settings.unit == "px":
            continue
        read = position[:, ::-1] if reading.exchanged else position
        share = on_image(to_image(read, image, reading.settings)).mean()
        if share >= _EXPLAINED:
            fits.append((reading.changes, -float(share), len(fits), reading))
    if fits:
        return _advise(min(fits)[3], settings)
    largest = np.percentile(position, 100 * _EXPLAINED, axis=0)
    of_screen = bool((position.min(axis=0) >= 0).all() and (largest <= _USUAL_SCREEN).all())
    if of_screen and settings.screen is None and not tiny:
        unit = "" if settings.unit == "px" else "recording.unit: px and "
        return (
            "x and y look like pixels of the screen, not of the image: state "
            f"{unit}recording.screen, with the screen's size"
        )
    return (
        "hold some rows against their images: recording.unit, recording.origin and "
        "recording.screen say what x and y mean"
    )


def _advise(reading: _Reading, settings: RecordingSettings) -> str:
    new = reading.settings
    looks, do = [], []
    if reading.exchanged:
        looks.append("exchanged")
        do.append("exchange the two columns")
    if new.unit != settings.unit:
        looks.append("like pixels, not fractions" if new.unit == "px" else
                     "like fractions, not pixels")  # fmt: skip
        do.append(f"set recording.unit: {new.unit}")
    if new.origin != settings.origin:
        looks.append(f"measured from the {new.origin.replace('-', ' ')}")
        do.append(f"set recording.origin: {new.origin}")
    if new.screen != settings.screen:
        looks.append("measured on the image, not on the screen")
        do.append("leave recording.screen out")
    return f"x and y look {', and '.join(looks)}: {' and '.join(do)}"


def check_placement(
    file: Path,
    columns: str,
    position: NDArray[np.float64],
    image: NDArray[np.float64],
    settings: RecordingSettings,
    kind: str,
) -> None:
    """Stop where the coordinates cannot mean what the settings say.

    Parameters
    ----------
    file, columns, kind
        For the message: whose coordinates, in which columns, of what (plural).
    position, image
        As in `to_image`.

    Raises
    ------
    BadInput
        More than `settings.max_off_image` lie off their image, or all within one pixel of the
        origin; with the reading of x and y that would put nearly all on their images.
    """
    share_off = 1 - on_image(to_image(position, image, settings)).mean()
    seen = position[np.isfinite(position).all(axis=1)]
    tiny = settings.unit == "px" and len(seen) > 0 and bool(np.abs(seen).max() <= 1)
    if share_off <= settings.max_off_image and not tiny:
        return
    lost = 1 - len(seen) / len(position)
    if not len(seen) or lost > settings.max_off_image:
        ranges, mend = "", "complete the recording, or raise recording.max_off_image"
    else:
        low, high = seen.min(axis=0), seen.max(axis=0)
        ranges = f"; x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to {high[1]:g}"
        mend = _explain(seen, image[np.isfinite(position).all(axis=1)], settings)
    unit = "pixels" if settings.unit == "px" else "fractions"
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
