"""Convert recorded coordinates to fractions of the image, and diagnose wrong coordinates."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, log
from stages.settings.recording import RecordingSettings, ScreenSettings

Unit = Literal["fraction", "percent", "px"]
Origin = Literal["top-left", "bottom-left", "centre", "centre-down"]

# Unit → its name in messages; a larger unit comes later.
_UNITS: dict[Unit, str] = {"px": "pixels", "percent": "percent", "fraction": "fractions"}
# Origin → its name in messages.
_ORIGINS: dict[Origin, str] = {
    "top-left": "the top left",
    "bottom-left": "the bottom left",
    "centre": "the centre",
    "centre-down": "the centre with y down",
}
# A reading explains the coordinates if it puts at least this share of them on the images: a fifth
# of recorded gaze may be off the screen. Within the margin below the best share, others are not
# ruled out; within the tie, the fewest changes decide.
_MIN_EXPLAINED_SHARE, _MARGIN, _TIE = 0.75, 0.1, 0.05
# A warning needs this gain over the share of the stated reading.
_CLEAR_GAIN = 0.2
# The extent of gaze lies between these percentiles, which a fifth far off does not reach. Gaze
# within this extent of the image is in one spot, if a larger unit enlarges it by more than the
# factor and leaves it on the images.
_EXTENT_PERCENTILES, _SPOT_EXTENT, _SPOT_FACTOR = (25, 75), 0.15, 4.0
# Smallest side of images on which values up to 100 are percent rather than pixels, px.
_MIN_PERCENT_SIDE = 200
# As many positions at most show what they mean.
_MAX_POSITIONS = 20_000
# Width and height of the largest usual screen, px.
_LARGEST_USUAL_SCREEN = (3840, 2160)

# (F, 2) fractions of the image → share of them on masks.
TargetShare = Callable[[NDArray[np.float64]], float]


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
        Where x = y = 0 is. y points down from the top left and for `centre-down`, otherwise up.
    """
    whole = {"fraction": np.ones(2), "percent": np.full(2, 100.0), "px": frame}
    fraction: NDArray[np.float64] = position / whole[unit]
    if origin in ("centre", "bottom-left"):
        fraction[:, 1] *= -1
    if origin in ("centre", "centre-down"):
        fraction += 0.5
    elif origin == "bottom-left":
        fraction[:, 1] += 1
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


class _Reading(NamedTuple):
    """A possible meaning of the coordinates, and where it puts them.

    Attributes
    ----------
    swapped
        Whether x and y are swapped.
    changes
        Number of differences from the stated settings.
    share
        Share of the positions on their images.
    extent
        (2,) extent of the positions in x and y, fractions of the image.
    tiny
        Whether nearly all coordinates are within one pixel, or percent, of the origin.
    """

    settings: RecordingSettings
    swapped: bool
    changes: int
    share: float
    extent: NDArray[np.float64]
    tiny: bool


def _place(
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    settings: RecordingSettings,
    swapped: bool,
) -> NDArray[np.float64]:
    return to_image_fractions(position[:, ::-1] if swapped else position, image_size, settings)


def _read_in_every_way(
    position: NDArray[np.float64], image_size: NDArray[np.float64], settings: RecordingSettings
) -> list[_Reading]:
    """Return the stated reading, then all others: unit, origin, screen or image, axes exchanged."""
    within_one = _share_within(position, 1) >= _MIN_EXPLAINED_SHARE
    screens = [settings.screen] if settings.screen is None else [settings.screen, None]
    ways = product(_UNITS, _ORIGINS, screens, (False, True))
    stated = (settings.unit, settings.origin, settings.screen, False)
    readings = []
    for unit, origin, screen, swapped in sorted(ways, key=lambda way: way != stated):
        new = {"unit": unit, "origin": origin, "screen": screen}
        changes = sum(getattr(settings, key) != value for key, value in new.items()) + swapped
        reading = settings.model_copy(update=new)
        fraction = _place(position, image_size, reading, swapped)
        low, high = np.percentile(fraction, _EXTENT_PERCENTILES, axis=0)
        share = float(is_on_image(fraction).mean())
        tiny = within_one and unit != "fraction"
        readings.append(_Reading(reading, swapped, changes, share, high - low, tiny))
    return readings


def _share_within(position: NDArray[np.float64], limit: float) -> float:
    """Return the share of positions of which neither coordinate exceeds a limit."""
    return float((np.abs(position).max(axis=1) <= limit).mean())


def _in_one_spot(reading: _Reading, readings: list[_Reading]) -> bool:
    """Return whether a reading squeezes gaze into one spot that a larger unit spreads."""
    units = list(_UNITS)
    return reading.tiny or (
        bool(reading.extent.max() < _SPOT_EXTENT)
        and any(
            units.index(other.settings.unit) > units.index(reading.settings.unit)
            and not other.tiny
            and other.share >= _MIN_EXPLAINED_SHARE
            and bool((other.extent > _SPOT_FACTOR * reading.extent).all())
            for other in readings
        )
    )


def _explain(readings: list[_Reading], image_size: NDArray[np.float64]) -> list[_Reading]:
    """Return the reading that clearly puts most gaze on the images, with the fewest changes.

    Returns
    -------
    It, and the one that is as good and differs only in the direction of y. Empty: no reading
    explains the gaze, or several do that differ in more.
    """
    # On small images percent and pixels look alike; pixels are usual.
    small = bool(np.median(image_size.min(axis=1)) < _MIN_PERCENT_SIDE)
    explaining = [
        reading
        for reading in readings
        if reading.share >= _MIN_EXPLAINED_SHARE
        and not (small and reading.settings.unit == "percent")
        and not _in_one_spot(reading, readings)
    ]
    best = max((reading.share for reading in explaining), default=0.0)
    equal = [reading for reading in explaining if reading.share > best - _MARGIN]
    fewest = min((reading.changes for reading in equal), default=0)
    simplest = [reading for reading in equal if reading.changes == fewest]
    kinds = {
        (r.settings.screen is None, r.swapped, "centre" in r.settings.origin) for r in simplest
    }
    units = {reading.settings.unit for reading in equal}
    if len(units) != 1 or len(kinds) != 1 or simplest[0].share < best - _TIE:
        return []
    return simplest


def _advise(
    readings: list[_Reading],
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    target_share: TargetShare | None,
) -> str:
    """Advise on the reading that clearly puts most gaze on the images; see `_explain`.

    If only the direction of y stays open, the one that puts more gaze on the masks comes first.
    """
    settings = readings[0].settings
    if chosen := _explain(readings[1:], image_size):
        on_target = {
            reading.settings.origin: target_share(
                _place(position, image_size, reading.settings, reading.swapped)
            )
            for reading in chosen
            if target_share
        }
        best, *others = sorted(chosen, key=lambda r: -on_target.get(r.settings.origin, 0))
        advice = _describe(best, settings)
        for other in others:
            advice += f" (or {other.settings.origin}, if y points the other way)"
        if on_target:
            advice += "; of the gaze on images with masks, on the masks: " + ", ".join(
                f"{on_target[reading.settings.origin]:.0%} from {_ORIGINS[reading.settings.origin]}"
                for reading in (best, *others)
            )
        return advice
    # Of a screen only its usual size is known.
    on_screen = ((position >= 0) & (position <= _LARGEST_USUAL_SCREEN)).all(axis=1).mean()
    pixels = on_screen >= _MIN_EXPLAINED_SHARE > _share_within(position, 100)
    if pixels and settings.screen is None:
        unit = "" if settings.unit == "px" else "recording.unit: px and "
        return (
            "x and y look like pixels of the screen, not of the image: set "
            f"{unit}recording.screen, with the screen's size"
        )
    return (
        "compare some rows with their images, then correct recording.unit, recording.origin or "
        "recording.screen, which define the meaning of x and y"
    )


def _describe(reading: _Reading, settings: RecordingSettings) -> str:
    """Describe how a reading differs from the stated settings, and what to do."""
    new = reading.settings
    symptoms, actions = [], []
    if reading.swapped:
        symptoms.append("swapped")
        actions.append("swap the two columns")
    if new.unit != settings.unit:
        symptoms.append(f"like {_UNITS[new.unit]}, not {_UNITS[settings.unit]}")
        actions.append(f"set recording.unit: {new.unit}")
    if new.screen != settings.screen:
        symptoms.append("measured on the image, not on the screen")
        actions.append("remove recording.screen")
    if new.origin != settings.origin:
        symptoms.append(f"measured from {_ORIGINS[new.origin]}")
        actions.append(f"set recording.origin: {new.origin}")
    return f"x and y look {', and '.join(symptoms)}: {' and '.join(actions)}"


def check_placement(
    file: Path,
    columns: str,
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    settings: RecordingSettings,
    kind: str,
    target_share: TargetShare | None = None,
) -> None:
    """Check that the coordinates can have the meaning that the settings state.

    Every other reading is tried, too: unit, origin, on the screen or on the image, axes exchanged.
    A warning names one that puts clearly more gaze on the images than the stated one.

    Parameters
    ----------
    file, columns, kind
        For the message: the file, its columns, and the kind of row in the plural ("fixations").
    position, image_size
        As in `to_image_fractions`.
    target_share
        Tells which share of the positions is on masks, if some are known.

    Raises
    ------
    BadInput
        More than `settings.max_off_image` of the positions lie off their image. Or nearly all are
        in one spot, and would not be in a larger unit; `max_off_image` of 1 allows this, except
        within one pixel or percent. The message names the reading that clearly puts most positions
        on their images, if there is one.
    """
    share_off = 1 - is_on_image(to_image_fractions(position, image_size, settings)).mean()
    tracked = np.isfinite(position).all(axis=1)
    known, known_size, lost = position[tracked], image_size[tracked], 1 - tracked.mean()
    if not len(known) or lost > settings.max_off_image:
        if share_off <= settings.max_off_image:
            return
        spot, ranges = False, ""
        mend = "complete the recording, or raise recording.max_off_image"
    else:
        step = -(-len(known) // _MAX_POSITIONS)
        readings = _read_in_every_way(known[::step], known_size[::step], settings)
        stated = readings[0]
        spot = _in_one_spot(stated, readings) if settings.max_off_image < 1 else stated.tiny
        accepted = share_off <= settings.max_off_image and not spot
        better = _explain(readings[1:], known_size)
        if accepted and not (better and better[0].share > stated.share + _CLEAR_GAIN):
            return
        mend = _advise(readings, position, image_size, target_share)
        if accepted:
            log.warning(
                "%s: %s: %.0f %% of the %s lie on their images; otherwise %.0f %% would: %s",
                *(file, columns, 100 * stated.share, kind, 100 * better[0].share, mend),
            )
            return
        low, high = known.min(axis=0), known.max(axis=0)
        ranges = f"; x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to {high[1]:g}"
    unit = _UNITS[settings.unit]
    frame = "the image" if settings.screen is None else "the screen"
    raise BadInput(
        file,
        columns,
        found=f"{share_off:.0%} of {len(position)} {kind} off their image"
        + (f", {lost:.0%} without a position" if lost else "")
        + (", nearly all others in one spot" if spot else "")
        + ranges,
        expected=f"at most {settings.max_off_image:.0%} (recording.max_off_image), in {unit} of "
        f"{frame} from {_ORIGINS[settings.origin]}",
        mend=mend,
    )
