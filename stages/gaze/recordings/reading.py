"""Recordings of every tabular format → each image's fixations, checked."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, log
from stages.gaze.recordings.images import Images
from stages.gaze.recordings.placing import check_placement, on_image, to_image
from stages.gaze.recordings.scan import Scan
from stages.gaze.recordings.table import Columns, Table, open_table
from stages.settings.modules import reader_module
from stages.settings.recording import RecordingSettings

# Medians that are not of milliseconds, and usual ones.
_LONGEST_MS = 20_000.0
_USUAL_MS = (50.0, 5_000.0)
# What other units of time are in milliseconds.
_UNITS_MS = {"seconds": 1000.0, "microseconds": 0.001}


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


def _warn_of_copies(file: Path, fixations: pd.DataFrame) -> None:
    """Tell of fixations that an export may hold twice: readers seldom agree in all of these."""
    started = fixations[fixations["start_ms"].notna()]
    if copies := int(started.duplicated().sum()):
        log.warning(
            "%s: %d of %d fixations have the image, place, duration and start of another, and "
            "count twice: was an export appended to one that was there?",
            file, copies, len(fixations),
        )  # fmt: skip


def _check_unit(
    table: Table, columns: Columns, durations: NDArray[np.float64], min_duration_ms: float
) -> None:
    middle, longest = float(np.median(durations)), float(durations.max())
    if longest >= min_duration_ms and middle <= _LONGEST_MS:
        return
    low, high = _USUAL_MS
    likely = next((unit for unit, ms in _UNITS_MS.items() if low <= middle * ms <= high), None)
    raise BadInput(
        table.file,
        f"column {columns.duration}",
        found=f"{len(durations)} fixations of {durations.min():g} to {longest:g} ms, with a median "
        f"of {middle:g} ms",
        expected=f"some of {min_duration_ms:g} ms (gaze.min_fixation_ms) or longer"
        if longest < min_duration_ms
        else f"a median of at most {_LONGEST_MS:g} ms",
        mend=f"the durations look like {likely}: give them in milliseconds"
        if likely
        else "give durations in milliseconds, or lower gaze.min_fixation_ms",
    )


def read_scans(
    file: Path,
    sizes: Mapping[str, tuple[int, int]],
    settings: RecordingSettings,
    min_duration_ms: float,
    problems: Problems,
) -> dict[str, Scan]:
    """Read a recording.

    Parameters
    ----------
    file
        A table; `settings.format` says of what: gazemedseg, eyelink, tobii or samples.
    sizes
        Sample id → height and width of its original image, px. Rows of other images are left out,
        and counted in the log.
    settings
        What the file holds and what its coordinates mean.
    min_duration_ms
        Shorter fixations are dropped, and so are those off the image or without a position.
    problems
        Takes what is wrong with a table, of which the rest is read nevertheless: a value that is
        no number or has a comma without a sure meaning, images named in two folders or shown in
        another size, a duration not above 0, durations in another unit of time, too many
        fixations off their image, or none left on any.

    Returns
    -------
    Sample id → scan, its fixations in the order of the file, all readers' together. Samples that
    no row is of are absent; those with rows that are all dropped have a scan without fixations.

    Raises
    ------
    BadInput
        Nothing can be read: the file is no table, a column is absent, or no row is of a sample. Of
        raw samples also with what `problems` would take, or where times do not grow or are not of
        the stated rate, or no fixation is found: fixations are not looked for in broken samples.
    """
    found = Problems()
    # Here, and not where any table is opened: those of texts have no maps beside them.
    if file.is_dir():
        raise BadInput(
            file,
            "file",
            found="a folder",
            expected="a table, as gaze.recording.format says",
            mend="name the table in it; where it holds maps, set gaze.recording.format: heatmaps "
            "or refined",
        )
    table = open_table(file)
    # By name: a change of another format's reader is none of this gaze.
    reader: Any = importlib.import_module(reader_module(settings.format))
    columns: Columns = reader.find_columns(table, settings)
    images = Images(sizes)
    gaze: pd.DataFrame = reader.read(table, columns, settings, images, found)
    with found.collect():
        images.check(table, columns.image)
    raw = settings.format == "samples"
    width_height = np.array([size[::-1] for size in sizes.values()], np.float64)
    # Of raw samples those without a position are blinks.
    placed = gaze[gaze["x"].notna() & gaze["y"].notna()] if raw else gaze
    if len(placed):
        with found.collect():
            check_placement(
                file,
                f"columns {columns.x}, {columns.y}",
                placed[["x", "y"]].to_numpy(),
                width_height[placed["sample"]],
                settings,
                "samples" if raw else "fixations",
            )
    if raw or not len(gaze):
        found.stop()
        gaze = reader.find_fixations(table, gaze, settings, min_duration_ms) if raw else gaze
    else:
        with found.collect():
            _check_durations(table, columns, gaze)
            _check_unit(table, columns, gaze["duration_ms"].to_numpy(), min_duration_ms)
        problems += found
        _warn_of_copies(file, gaze)
    scans = _gather(file, list(sizes), gaze, width_height, settings, min_duration_ms)
    if not found:
        with problems.collect():
            _check_left(file, scans, min_duration_ms)
    return scans


def _check_left(file: Path, scans: dict[str, Scan], min_duration_ms: float) -> None:
    if not any(len(scan.fixations) for scan in scans.values()):
        off, short = (sum(numbers) for numbers in zip(*(scan[1:] for scan in scans.values())))
        raise BadInput(
            file,
            "fixations",
            found=f"none on its image for long enough: {off} off their image, {short} too short",
            expected=f"some on their image, of {min_duration_ms:g} ms (gaze.min_fixation_ms) or "
            "longer",
            mend="check the unit of the durations, and what recording says of x and y",
        )


def _gather(
    file: Path,
    sample_ids: list[str],
    fixations: pd.DataFrame,
    width_height: NDArray[np.float64],
    settings: RecordingSettings,
    min_duration_ms: float,
) -> dict[str, Scan]:
    sample = fixations["sample"].to_numpy()
    place = to_image(fixations[["x", "y"]].to_numpy(), width_height[sample], settings)
    values = np.concatenate([place, fixations[["duration_ms", "start_ms"]].to_numpy()], axis=1)
    long = values[:, 2] >= min_duration_ms
    on = on_image(place)
    log.info("%s: %d of %d fixations kept", file, int((long & on).sum()), len(values))
    order = np.argsort(sample, kind="stable")
    present, firsts = np.unique(sample[order], return_index=True)
    return {
        sample_ids[number]: Scan(
            values[rows[(long & on)[rows]]],
            int((long & ~on)[rows].sum()),
            int((~long)[rows].sum()),
        )
        for number, rows in zip(present, np.split(order, firsts[1:]), strict=True)
    }
