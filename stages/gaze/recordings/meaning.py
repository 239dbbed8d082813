"""Check the meaning of recorded x and y that the settings state, and advise on another one.

Every meaning is tried: unit, origin, on the screen or on the image, axes exchanged. An advice names
all meanings that the coordinates do not rule out, because a wrong one moves all gaze in silence.
"""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, log
from stages.gaze.placing import (
    Origin,
    Unit,
    is_on_image,
    screen_to_image_fractions,
    to_image_fractions,
)
from stages.settings.recording import RecordingSettings, ScreenSettings

# Unit → its name in messages; a larger unit comes later.
_UNITS: dict[Unit, str] = {"px": "pixels", "percent": "percent", "fraction": "fractions"}
# Origin → its name in messages.
_ORIGINS: dict[Origin, str] = {
    "top-left": "the top left",
    "bottom-left": "the bottom left",
    "centre": "the centre",
    "centre-down": "the centre with y down",
}
# A reading explains the coordinates if it puts at least this share of them on the images. Only a
# fifth of recorded gaze or less is usually off the screen; a reading is ruled out if its share is
# below the usual one by more than chance, and below the last value.
_MIN_EXPLAINED_SHARE, _USUAL_SHARE, _MAX_LEAST_SHARE = 0.75, 0.8, 0.7
# Within this of the best share, the fewest changes come first.
_TIE = 0.1
# A warning needs this gain over the share of the stated reading.
_CLEAR_GAIN = 0.2
# The extent of gaze lies between these percentiles. Gaze within this extent of the image is in one
# spot, if a larger unit enlarges it by more than the factor and puts it on the images. Within the
# second extent, there is a warning.
_EXTENT_PERCENTILES, _SPOT_EXTENT, _DOUBTFUL_EXTENT, _SPOT_FACTOR = (10, 90), 0.15, 0.4, 2.0
# Within one pixel or percent, gaze within this extent of the image is in one spot in any case.
_TINY_EXTENT = 0.05
# Usual gaze in degrees of visual angle is within this.
_MAX_DEGREES = 45.0
# Number of other readings in a message about masks.
_MAX_SHOWN = 6
# As many positions at most show what they mean.
_MAX_POSITIONS = 20_000
# Width and height of the largest usual screen, px.
_LARGEST_USUAL_SCREEN = (3840, 2160)

# (F, 2) fractions of the image → share of them on masks.
TargetShare = Callable[[NDArray[np.float64]], float]


class _Reading(NamedTuple):
    """A possible meaning of the coordinates, and where it puts them.

    Attributes
    ----------
    swapped
        Whether x and y are swapped.
    changes
        Number of differences from the stated settings.
    fraction
        (F, 2) the positions, as fractions of the image.
    on_image
        (F,) whether they are on their images.
    share
        Share of the positions on their images.
    tiny
        Whether nearly all coordinates are within one pixel, or percent, and in one spot.
    on_target
        Share of the gaze on images with masks that is on the masks; None without masks.
    """

    settings: RecordingSettings
    swapped: bool
    changes: int
    fraction: NDArray[np.float64]
    on_image: NDArray[np.bool_]
    share: float
    tiny: bool
    on_target: float | None = None


def _place(
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    settings: RecordingSettings,
    swapped: bool,
) -> NDArray[np.float64]:
    return to_image_fractions(position[:, ::-1] if swapped else position, image_size, settings)


def _fills_screen(image_size: NDArray[np.float64], screen: ScreenSettings) -> bool:
    """Return whether each image is as large as the screen and fills it."""
    whole = np.ones_like(image_size)
    corners = (
        screen_to_image_fractions(corner, image_size, screen) for corner in (0 * whole, whole)
    )
    same_size = np.allclose(image_size, screen.size)
    return same_size and all(map(np.allclose, corners, (0, 1)))


def _read_in_every_way(
    position: NDArray[np.float64], image_size: NDArray[np.float64], settings: RecordingSettings
) -> list[_Reading]:
    """Return the stated reading, then all others: unit, origin, screen or image, axes exchanged.

    If the images fill the screen, on the screen and on the image is the same.
    """
    within_one = np.abs(position).max(axis=1) <= 1
    screens: list[ScreenSettings | None] = [settings.screen]
    if settings.screen is not None and not _fills_screen(image_size, settings.screen):
        screens.append(None)
    readings: list[_Reading] = []
    for unit, origin, screen, swapped in product(_UNITS, _ORIGINS, screens, (False, True)):
        new = {"unit": unit, "origin": origin, "screen": screen}
        changes = sum(getattr(settings, key) != value for key, value in new.items()) + swapped
        reading = settings.model_copy(update=new)
        fraction = _place(position, image_size, reading, swapped)
        tiny = (
            unit != "fraction"
            and bool(within_one.mean() >= _MIN_EXPLAINED_SHARE)
            and _extent(fraction[within_one]) < _TINY_EXTENT
        )
        on_image = is_on_image(fraction)
        readings.append(
            _Reading(reading, swapped, changes, fraction, on_image, float(on_image.mean()), tiny)
        )
    return sorted(readings, key=lambda reading: reading.changes)


def _share_within(position: NDArray[np.float64], limit: float) -> float:
    """Return the share of positions of which neither coordinate exceeds a limit."""
    return float((np.abs(position).max(axis=1) <= limit).mean())


def _extent(fraction: NDArray[np.float64]) -> float:
    """Return the larger extent of positions, in x or in y."""
    return float(np.ptp(np.percentile(fraction, _EXTENT_PERCENTILES, axis=0), axis=0).max())


def _spreads(other: _Reading, reading: _Reading, extent: float) -> bool:
    """Return whether another reading spreads gaze that this one keeps within an extent.

    Only the gaze that the other reading puts on the images counts: the rest may be far off.
    """
    if other.tiny or other.share < _MIN_EXPLAINED_SHARE:
        return False
    kept, spread = (_extent(r.fraction[other.on_image]) for r in (reading, other))
    return kept < extent and spread > _SPOT_FACTOR * kept


def _in_one_spot(reading: _Reading, readings: list[_Reading]) -> bool:
    """Return whether a reading squeezes gaze into one spot that a larger unit spreads."""
    units = list(_UNITS)
    larger = units[units.index(reading.settings.unit) + 1 :]
    return reading.tiny or any(
        other.settings.unit in larger and _spreads(other, reading, _SPOT_EXTENT)
        for other in readings
    )


def _least_share(count: int) -> float:
    """Return the share below which a reading of so many positions is ruled out.

    A fifth of the gaze may be off the screen, and in a small sample more by chance: two standard
    deviations of the binomial distribution.
    """
    chance = 2 * math.sqrt(_USUAL_SHARE * (1 - _USUAL_SHARE) / count)
    return min(_MAX_LEAST_SHARE, _USUAL_SHARE - chance)


def _find_plausible(readings: list[_Reading]) -> list[_Reading]:
    """Return the readings that the coordinates do not rule out.

    Readings that squeeze the gaze into one spot are absent. Empty: no reading puts most of the gaze
    on the images.
    """
    least = _least_share(len(readings[0].fraction))
    found = [r for r in readings if r.share >= least and not _in_one_spot(r, readings)]
    return found if max((r.share for r in found), default=0.0) >= _MIN_EXPLAINED_SHARE else []


def _rank(plausible: list[_Reading]) -> list[_Reading]:
    """Return the readings with the best shares first; among these, fewest changes, then masks."""
    best = max((reading.share for reading in plausible), default=0.0)
    return sorted(
        plausible, key=lambda r: (r.share < best - _TIE, r.changes, -(r.on_target or 0.0))
    )


def _is_clear(plausible: list[_Reading]) -> bool:
    """Return whether all plausible readings have one unit, and the stated one is not among them."""
    units = {reading.settings.unit for reading in plausible}
    return len(units) == 1 and all(reading.changes for reading in plausible)


def _advise(
    readings: list[_Reading],
    plausible: list[_Reading],
    position: NDArray[np.float64],
    on_target: str,
) -> str:
    """Advise on the reading that explains the gaze; name all others that explain it, too."""
    settings = readings[0].settings
    if _is_clear(plausible):
        best, *others = plausible
        alternatives = _name_alternatives(best, others, readings, position)
        return _describe(best, settings) + alternatives + on_target
    units = list(dict.fromkeys(reading.settings.unit for reading in plausible))
    # Of a screen only its usual size is known.
    on_screen = ((position >= 0) & (position <= _LARGEST_USUAL_SCREEN)).all(axis=1).mean()
    pixels = on_screen >= _MIN_EXPLAINED_SHARE > _share_within(position, 100)
    if pixels and not units and settings.screen is None:
        unit = "" if settings.unit == "px" else "recording.unit: px and "
        return (
            "x and y look like pixels of the screen, not of the image: set "
            f"{unit}recording.screen, with the screen's size"
        )
    can_be = f"x and y can be {' or '.join(_UNITS[unit] for unit in units)}: " if units else ""
    return (
        f"{can_be}compare some rows with their images, then correct recording.unit, "
        f"recording.origin or recording.screen, which define the meaning of x and y{on_target}"
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


def _differences(reading: _Reading, other: _Reading) -> list[str]:
    """Name in what a reading differs from another one, as settings."""
    new, old = reading.settings, other.settings
    found = [
        f"recording.{name}: {getattr(new, name)}"
        for name in ("unit", "origin")
        if getattr(new, name) != getattr(old, name)
    ]
    if new.screen != old.screen:
        found.append("without recording.screen" if new.screen is None else "with recording.screen")
    if reading.swapped != other.swapped:
        found.append("columns swapped" if reading.swapped else "columns not swapped")
    return found


def _name_alternatives(
    best: _Reading, others: list[_Reading], readings: list[_Reading], position: NDArray[np.float64]
) -> str:
    """Name what the coordinates leave open beside the best reading."""
    found = sorted({name for other in others for name in _differences(other, best)})
    least = _least_share(len(best.fraction))
    found += dict.fromkeys(
        f"recording.unit: {reading.settings.unit}, if nearly all gaze rests in one spot"
        for reading in readings
        if reading.changes and not reading.tiny and reading.share >= least
        and reading.settings.unit != best.settings.unit
    )  # fmt: skip
    unit = best.settings.unit
    if unit == "percent" and _share_within(position, _MAX_DEGREES) >= _MIN_EXPLAINED_SHARE:
        found.append("degrees of visual angle, which must be converted to pixels")
    if readings[0].settings.screen is None:
        found.append("recording.screen, if x and y are of a screen that the images did not fill")
    return f"; the coordinates fit as well: {'; '.join(found)}" if found else ""


def _show_on_target(readings: list[_Reading], stated: _Reading) -> str:
    """Tell how much gaze readings put on the masks, if there are some; most comes first."""
    known = sorted(
        ((r.on_target, r) for r in readings if r.on_target is not None), key=lambda pair: -pair[0]
    )
    return "; of the gaze on images with masks, on the masks: " * bool(known) + ", ".join(
        f"{share:.0%} {' and '.join(_differences(reading, stated)) or 'as stated'}"
        for share, reading in known
    )


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

        def measure(reading: _Reading) -> _Reading:
            if target_share is None:
                return reading
            placed = _place(position, image_size, reading.settings, reading.swapped)
            return reading._replace(on_target=target_share(placed))

        plausible = _rank([measure(reading) for reading in _find_plausible(readings)])
        others = [reading for reading in plausible if reading.changes]
        shown = others[:_MAX_SHOWN] + ([measure(stated)] if accepted else [])
        on_target = _show_on_target(shown, stated)
        mend = _advise(readings, plausible, position, on_target)
        if accepted:
            best = plausible[0].share if _is_clear(plausible) else 0.0
            if best > stated.share + _CLEAR_GAIN:
                log.warning(
                    "%s: %s: %.0f %% of the %s lie on their images; otherwise %.0f %% would: %s",
                    *(file, columns, 100 * stated.share, kind, 100 * best, mend),
                )
            elif spread := next(
                (r for r in readings if _spreads(r, stated, _DOUBTFUL_EXTENT)), None
            ):
                log.warning(
                    "%s: %s: nearly all gaze is close together; other settings would spread it: "
                    "%s. Compare some rows with their images%s",
                    *(file, columns, " and ".join(_differences(spread, stated)), on_target),
                )
            elif others and on_target:
                log.info("%s: %s fit several settings%s", file, columns, on_target)
            return
        if spot and not stated.tiny:
            mend += "; if nearly all gaze rests in one spot, set recording.max_off_image: 1"
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
