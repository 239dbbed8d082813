"""Recordings of every table format → each image's fixations, checked."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, list_names, log
from stages.gaze.overlaps import count_once
from stages.gaze.placing import is_on_image, to_image_fractions
from stages.gaze.recordings.images import ImageIndex
from stages.gaze.recordings.meaning import TargetShare, check_placement
from stages.gaze.recordings.scan import Scanpath, hits_target
from stages.gaze.recordings.table import Columns, Table
from stages.settings.modules import reader_module
from stages.settings.recording import RecordingSettings

# A larger median of the durations cannot be in milliseconds.
_MAX_MEDIAN_MS = 20_000.0
# Number of names in a message.
_MAX_SHOWN = 5
# Usual range of the median duration.
_USUAL_MEDIAN_MS = (50.0, 5_000.0)
# Name and sign of other time units → one unit, in milliseconds.
_UNIT_IN_MS = {("seconds", "s"): 1000.0, ("microseconds", "us"): 0.001}


def _check_durations(table: Table, columns: Columns, fixations: pd.DataFrame) -> None:
    wrong = ~(fixations["duration_ms"].to_numpy() > 0)
    if wrong.any():
        row = int(wrong.argmax())
        duration = fixations["duration_ms"].iloc[row]
        raise BadInput(
            table.file,
            f"column {columns.duration}, line {fixations.index[row]}",
            found="none" if np.isnan(duration) else f"{duration:g} ms",
            expected="a duration above 0 ms",
            mend="correct or delete the line",
        )


def _check_duration_unit(
    table: Table, columns: Columns, durations: NDArray[np.float64], min_duration_ms: float
) -> None:
    median, longest = float(np.median(durations)), float(durations.max())
    if longest >= min_duration_ms and median <= _MAX_MEDIAN_MS:
        return
    low, high = _USUAL_MEDIAN_MS
    likely = next((unit for unit, ms in _UNIT_IN_MS.items() if low <= median * ms <= high), None)
    raise BadInput(
        table.file,
        f"column {columns.duration}",
        found=f"{len(durations)} fixations of {durations.min():g} to {longest:g} ms, with a median "
        f"of {median:g} ms",
        expected=f"fixations of {min_duration_ms:g} ms (gaze.min_fixation_ms) or longer"
        if longest < min_duration_ms
        else f"a median of at most {_MAX_MEDIAN_MS:g} ms",
        mend=(
            f"the durations look like {likely[0]}: set recording.time_unit: {likely[1]}"
            if columns.duration_ms == 1
            else "correct recording.time_unit"
        )
        if likely
        else "correct recording.time_unit, or lower gaze.min_fixation_ms",
    )


def read_scanpaths(
    file: Path,
    sizes: Mapping[str, tuple[int, int]],
    settings: RecordingSettings,
    min_duration_ms: float,
    problems: Problems,
    masks: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> dict[str, Scanpath]:
    """Read a recording that is a table.

    Parameters
    ----------
    file
        A table in the format `settings.format`.
    sizes
        Sample id → height and width of its original image, px. Rows of other images are ignored,
        and the log counts them.
    settings
        The format of the file and the meaning of its coordinates.
    min_duration_ms
        Fixations that are shorter, off the image or without a position are dropped.
    problems
        Collects errors after which the rest of the table is still readable: a value that is not a
        number or has an ambiguous comma, an image named in two folders or shown in another size, a
        duration that is not above 0, durations in another unit of time, too many fixations off
        their image, fixations that one reader cannot have made, or no fixation on any image.
    masks
        Sample id → (H, W) mask of its target at any size, for some samples: they show in messages
        what wrong coordinates mean.

    Returns
    -------
    Sample id → scanpath: the fixations of all readers in the order of the file. A sample without a
    row is absent; a sample whose fixations are all dropped has a scanpath without fixations.

    Raises
    ------
    BadInput
        The file is not a table, a column is absent, or no row belongs to a sample. For raw samples
        also: every error that `problems` collects otherwise, times that do not increase or do not
        fit the sampling rate, or no fixation at all (fixations are not detected in bad samples).
    """
    found = Problems()
    # Only a recording can be replaced by maps.
    if file.is_dir():
        raise BadInput(
            file,
            "file",
            found="a folder",
            expected=f"a table (gaze.recording.format: {settings.format})",
            mend="give the path of the table; if the folder holds maps, set gaze.recording.format "
            "to heatmaps or refined",
        )
    # Imported by name: a change of another format's reader must not rerun this recording.
    raw = settings.detection is not None
    reader: Any = importlib.import_module(reader_module(settings.format, raw=raw))
    table: Table
    columns: Columns
    table, columns = reader.open_recording(file, settings)
    images = ImageIndex(sizes)
    gaze: pd.DataFrame = reader.read_gaze(table, columns, settings, images, found)
    with found.collect():
        images.check_matches(
            table, f"column {columns.image}" if columns.image else "gaze.recording.image"
        )
    width_height = np.array([size[::-1] for size in sizes.values()], np.float64)
    # Raw samples without a position are blinks.
    to_check = gaze[gaze["x"].notna() & gaze["y"].notna()] if raw else gaze
    if len(to_check):
        with found.collect():
            check_placement(
                file,
                f"columns {columns.x}, {columns.y}",
                to_check[["x", "y"]].to_numpy(),
                width_height[to_check["sample"]],
                settings,
                "samples" if raw else "fixations",
                _target_share(to_check, [masks.get(name) for name in sizes]),
            )
    if raw or not len(gaze):
        found.raise_all()
        gaze = reader.find_fixations(table, gaze, settings, min_duration_ms) if raw else gaze
    else:
        with found.collect():
            _check_durations(table, columns, gaze)
            _check_duration_unit(table, columns, gaze["duration_ms"].to_numpy(), min_duration_ms)
        problems += found
    position = to_image_fractions(
        gaze[["x", "y"]].to_numpy(), width_height[gaze["sample"]], settings
    )
    gaze = gaze.assign(x=position[:, 0], y=position[:, 1])
    if not found:
        with problems.collect():
            gaze = count_once(file, gaze)
    scanpaths = _group_by_sample(file, list(sizes), gaze, min_duration_ms)
    if not found:
        with problems.collect():
            _require_kept_fixations(file, scanpaths, min_duration_ms, images.unknown)
    return scanpaths


def _target_share(gaze: pd.DataFrame, masks: list[NDArray[np.bool_] | None]) -> TargetShare | None:
    """Return the function that tells which share of the time of these rows is on masks, if any."""
    sample = gaze["sample"].to_numpy()
    weight = (
        gaze["duration_ms"].fillna(0).to_numpy() if "duration_ms" in gaze else np.ones(len(gaze))
    )
    rows = {
        number: found
        for number, mask in enumerate(masks)
        if mask is not None and len(found := np.flatnonzero(sample == number))
    }
    total = sum(float(weight[found].sum()) for found in rows.values())
    if total <= 0:
        return None

    def share(fraction: NDArray[np.float64]) -> float:
        on_target = 0.0
        for number, found in rows.items():
            mask = masks[number]
            assert mask is not None
            on_target += float(weight[found] @ hits_target(fraction[found], mask))
        return on_target / total

    return share


def _require_kept_fixations(
    file: Path, scanpaths: dict[str, Scanpath], min_duration_ms: float, others: list[str]
) -> None:
    """Check that fixations are left; `others` are names of images that are not in the data set."""
    if not scanpaths:
        raise BadInput(
            file,
            "fixations",
            found="none on an image of the data set"
            + (f"; rows name other images: {list_names(others, _MAX_SHOWN)}" if others else ""),
            expected="fixations on its images",
            mend="check whether the export is of these images, and holds its fixations",
        )
    if not any(len(scanpath.fixations) for scanpath in scanpaths.values()):
        off = sum(scanpath.off_image for scanpath in scanpaths.values())
        short = sum(scanpath.short for scanpath in scanpaths.values())
        raise BadInput(
            file,
            "fixations",
            found=f"no usable fixation: {off} off their image, {short} too short",
            expected=f"fixations on their image, of {min_duration_ms:g} ms (gaze.min_fixation_ms) "
            "or longer",
            mend="check the unit of the durations, and unit, origin and screen of gaze.recording",
        )


def _group_by_sample(
    file: Path, sample_ids: list[str], fixations: pd.DataFrame, min_duration_ms: float
) -> dict[str, Scanpath]:
    """Group fixations by image; x and y are fractions of the image."""
    sample = fixations["sample"].to_numpy()
    values = fixations[["x", "y", "duration_ms", "start_ms"]].to_numpy()
    long_enough = values[:, 2] >= min_duration_ms
    on_image = is_on_image(values[:, :2])
    kept = long_enough & on_image
    log.info("%s: %d of %d fixations kept", file, int(kept.sum()), len(values))
    order = np.argsort(sample, kind="stable")
    present, firsts = np.unique(sample[order], return_index=True)
    return {
        sample_ids[number]: Scanpath(
            values[rows[kept[rows]]],
            int((long_enough & ~on_image)[rows].sum()),
            int((~long_enough)[rows].sum()),
        )
        for number, rows in zip(present, np.split(order, firsts)[1:], strict=True)
    }
