"""Tables of fixations: the presets of the trackers, and any other table whose columns are named."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stages.core.cli import BadInput, Problems, list_names
from stages.gaze.recordings import asc
from stages.gaze.recordings.columns import find_lost
from stages.gaze.recordings.exports import open_export
from stages.gaze.recordings.images import SIZE_COLUMNS, ImageIndex, ShownSizes
from stages.gaze.recordings.presets import GENERAL, PRESETS, Preset
from stages.gaze.recordings.table import Columns, Table, encode_names, read_columns
from stages.settings.recording import RecordingSettings

# If the median step from one start to the next is below or above these multiples of the median
# duration, starts and durations have different units. It takes this number of steps to tell.
_STEP_RANGE = (0.02, 200.0)
_MIN_STEPS = 3


def open_recording(
    file: Path, settings: RecordingSettings, presets: Sequence[Preset] = ()
) -> tuple[Table, Columns]:
    """Open a table of fixations, or a text file of edf2asc.

    Parameters
    ----------
    file
        The table.
    settings
        Its format, and what differs from the format.
    presets
        Kinds of export that it may be; none: those of the format.

    Raises
    ------
    BadInput
        See `open_export`.
    """
    if settings.format == "eyelink" and asc.is_asc(file):
        return asc.open_recording(file, settings)
    presets = presets or PRESETS.get(settings.format, (GENERAL,))
    return open_export(file, settings, presets)


def read_gaze(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: ImageIndex,
    problems: Problems,
) -> pd.DataFrame:
    """Read the fixations of a table.

    With a column `index`, consecutive rows of one reader with the same index are one fixation:
    image, start and line are those of its first row, the other values those of its last row; rows
    without an index belong to no fixation. Otherwise each row is a fixation.

    A fixation may have no x or y, because the eye was lost; it is kept. In a GazeMedSeg table a
    missing value is an error. If a GazeMedSeg table states the size of the shown image, `problems`
    collects sizes that differ from the data set's by more than a pixel.

    Returns
    -------
    Frame with the columns sample (position of the image), reader (a number; 0 without names), x, y
    (NaN if the eye was lost), duration_ms and start_ms (NaN without such a column); the index is
    the line in the file. Rows of other images are absent. start_ms counts from the tracker's own
    zero.
    """
    if asc.is_asc_table(table):
        return asc.read_gaze(table, columns, settings, images, problems)
    gazemedseg = settings.format == "gazemedseg"
    size_columns = SIZE_COLUMNS if gazemedseg and set(SIZE_COLUMNS) <= set(table.columns) else ()
    start = [columns.time] if columns.time else []
    pupil = [columns.pupil] if columns.pupil else []
    trial = "" if columns.image else _trial_column(table, settings)
    text = [columns.image, columns.reader, columns.number, columns.valid, trial]
    text = list(dict.fromkeys(name for name in text if name))
    numbers = [columns.x, columns.y, columns.duration, *start, *pupil, *size_columns]
    optional = [*size_columns, *pupil] if gazemedseg else [columns.x, columns.y, *pupil]
    if columns.number:
        # Rows between fixations may lack the values of a fixation.
        optional += [columns.duration, *start]
    parts: list[pd.DataFrame] = []
    sizes = ShownSizes(images)
    readers: dict[str, int] = {}
    indices: dict[str, int] = {"": -1}
    trials: set[str] = set()
    for part in read_columns(table, text, list(dict.fromkeys(numbers)), optional, problems):
        if columns.image:
            sample = images.find_positions(part[columns.image])
        else:
            sample = images.repeat_position(columns.image_name, len(part))
        if trial:
            trials.update(part[trial].cat.remove_unused_categories().cat.categories)
        if size_columns:
            on_image = sample >= 0
            sizes.add(sample[on_image], part.loc[on_image, list(size_columns)])
        rows = pd.DataFrame(
            {
                "sample": sample,
                "reader": encode_names(part[columns.reader], readers) if columns.reader else 0,
                "index": encode_names(part[columns.number], indices) if columns.number else 0,
                "x": part[columns.x],
                "y": part[columns.y],
                "duration_ms": part[columns.duration] * columns.duration_ms,
                "start_ms": part[columns.time] * columns.time_ms if start else np.nan,
            },
            index=part.index,
        )
        lost = find_lost(table, columns, part, settings.valid_range, problems)
        rows.loc[lost, ["x", "y"]] = np.nan
        parts.append(_merge_rows(rows[rows["index"] >= 0]) if columns.number else rows)
    with problems.collect():
        sizes.check(table)
    if len(trials) > 1:
        raise BadInput(
            table.file,
            f"column {trial}",
            found=f"several trials: {list_names(sorted(trials), 6)}",
            expected="the trial of one image: no column names the images",
            mend=f"choose the trials of the image: recording.rows: {{{trial}: NUMBER}}",
        )
    fixations = pd.concat(parts)
    if columns.number:
        fixations = _merge_rows(fixations)
    fixations = fixations[fixations["sample"] >= 0]
    if settings.format == "fixations" or settings.time_unit or settings.start_unit:
        with problems.collect():
            _check_start_unit(table, columns, fixations)
    return fixations[["sample", "reader", "x", "y", "duration_ms", "start_ms"]]


def _trial_column(table: Table, settings: RecordingSettings) -> str:
    """Return the column that must have one value, because no column names the image; or none."""
    names = {preset.trial for preset in PRESETS.get(settings.format, ()) if preset.trial}
    return next((name for name in names if name in table.columns and name not in table.rows), "")


def _merge_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Merge consecutive rows of the same fixation; see `read_gaze`."""
    key = rows[["reader", "index"]].to_numpy()
    start = rows["start_ms"].to_numpy()
    is_first = np.ones(len(rows), bool)
    # Where the start decreases, another recording begins, whose numbers may repeat.
    is_first[1:] = (key[1:] != key[:-1]).any(axis=1) | (start[1:] < start[:-1])
    is_last = np.roll(is_first, -1)
    fixations = rows[is_first].copy()
    values = ["x", "y", "duration_ms"]
    fixations[values] = rows.loc[is_last, values].to_numpy()
    return fixations


def _check_start_unit(table: Table, columns: Columns, fixations: pd.DataFrame) -> None:
    """Check that starts and durations have the same unit: a fixation begins after the last one."""
    groups = fixations.groupby(["sample", "reader"], sort=False)["start_ms"]
    step = groups.diff().to_numpy()
    step = step[step > 0]
    if len(step) < _MIN_STEPS:
        return
    median = float(np.median(step))
    duration = float(fixations["duration_ms"].median())
    low, high = _STEP_RANGE
    if low * duration <= median <= high * duration:
        return
    raise BadInput(
        table.file,
        f"column {columns.time}",
        found=f"a median step of {median:.4g} ms from one start to the next, while the median "
        f"duration is {duration:.4g} ms",
        expected="starts in the unit that recording.start_unit, recording.time_unit or the format "
        "states",
        mend=f"set recording.start_unit: {'s' if median < duration else 'us'}, if the starts are "
        f"in {'seconds' if median < duration else 'microseconds'}",
    )
