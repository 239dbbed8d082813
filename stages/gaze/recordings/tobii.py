"""Data exports of Tobii Pro Lab: one row per gaze sample, with the type of the eye movement.

Column names and units depend on the version of Pro Lab: `Fixation point X [MCS px]`, in older
versions `Fixation point X (MCSpx)`. MCS is the coordinate system of the stimulus, DACS that of the
screen; a column without either is in screen pixels.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings.images import ImageIndex
from stages.gaze.recordings.table import Columns, Table, encode_names, read_columns
from stages.settings.recording import RecordingSettings

_IMAGE_COLUMNS = ("Presented Stimulus name", "Presented Media name")
_DURATION_COLUMNS = ("Gaze event duration", "Eye movement event duration")
_MOVEMENT_COLUMN = "Eye movement type"
_INDEX_COLUMN = "Eye movement type index"
_READER_COLUMNS = ("Participant name", "Recording name")
# Columns of our frames that identify a recording; `sequence` does so even without reader columns.
_RECORDING_KEYS = ["participant", "recording", "sequence"]
_UNIT_NAMES = {"px": "px", "fraction": "norm"}
_MICROSECOND_UNITS = ("μs", "us")
# Timestamps without a unit are in microseconds if the time span of a fixation is at least this many
# times its duration in ms.
_MIN_MICROSECOND_RATIO = 30.0


def _split_header(name: str) -> tuple[str, str]:
    """Split a header into its name in lower case and its unit without brackets and spaces."""
    # NFKC unifies the two characters that look like the Greek letter of microseconds.
    match = re.fullmatch(r"(.*?)\s*(?:[\[(]([^\])]*)[\])])?", unicodedata.normalize("NFKC", name))
    assert match is not None
    return match[1].lower(), (match[2] or "").replace(" ", "")


def _find_column(table: Table, names: Sequence[str], units: Sequence[str] = ("",)) -> str | None:
    """Find the table's column with one of these names and units.

    The first unit with a matching column wins; then the first name.
    """
    by_header = {_split_header(column): column for column in table.columns}
    candidates = ((name.lower(), unit) for unit in units for name in names)
    return next((by_header[header] for header in candidates if header in by_header), None)


def find_columns(table: Table, settings: RecordingSettings) -> Columns:
    """Find the columns of an export, under the names of its version of Pro Lab.

    Raises
    ------
    BadInput
        A column is absent.
    """
    unit = _UNIT_NAMES[settings.unit]
    system = "MCS" if settings.screen is None else "DACS"
    # In older versions a column in screen pixels has no unit.
    units = [f"{system}{unit}"] if settings.screen is None else [f"{system}{unit}", ""]
    unit_label = f"{system} {unit}"
    image_column = settings.image_column
    found = {
        image_column or _IMAGE_COLUMNS[0]: (image_column if image_column in table.columns else None)
        if image_column
        else _find_column(table, _IMAGE_COLUMNS),
        f"Fixation point X [{unit_label}]": _find_column(table, ["Fixation point X"], units),
        f"Fixation point Y [{unit_label}]": _find_column(table, ["Fixation point Y"], units),
        "Recording timestamp [ms]": _find_column(
            table, ["Recording timestamp"], ("ms", *_MICROSECOND_UNITS, "")
        ),
        "Gaze event duration [ms]": _find_column(table, _DURATION_COLUMNS, ("ms", "")),
        _MOVEMENT_COLUMN: _find_column(table, [_MOVEMENT_COLUMN]),
        _INDEX_COLUMN: _find_column(table, [_INDEX_COLUMN]),
    }
    columns = [column for column in found.values() if column is not None]
    if len(columns) < len(found):
        raise BadInput(
            table.file,
            "columns",
            found=table.columns,
            expected=f"also {[name for name, column in found.items() if column is None]}",
            mend="select these columns in Pro Lab's data export; if another column names the "
            "image, set recording.image_column; recording.unit and recording.screen decide which "
            "coordinates are read",
        )
    return Columns(*columns[:5])


def _merge_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Merge consecutive rows of the same fixation: keep the first row, with the last row's time."""
    key = rows[[*_RECORDING_KEYS, "index"]].to_numpy()
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (key[1:] != key[:-1]).any(axis=1)
    is_last = np.roll(is_first, -1)
    fixations = rows[is_first].copy()
    fixations["last"] = rows["last"].to_numpy()[is_last]
    return fixations


def _ms_per_time_unit(column: str, fixations: pd.DataFrame) -> float:
    """Return how many ms one unit of a time column is."""
    unit = _split_header(column)[1]
    if unit:
        return 0.001 if unit in _MICROSECOND_UNITS else 1.0
    # Without a unit in the header it depends on the version; the durations in ms show it.
    span = (fixations["last"] - fixations["time"]) / fixations["duration_ms"]
    return 1.0 if span[span > 0].median() < _MIN_MICROSECOND_RATIO else 0.001


def read_gaze(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: ImageIndex,
    problems: Problems,
) -> pd.DataFrame:
    """Read the fixations of an export.

    Consecutive rows of one recording with the same `Eye movement type index` are one fixation. It
    belongs to the image on which it begins, even if the next image appears before it ends. A new
    recording begins where the time decreases from one row to the next.

    Returns
    -------
    Frame with the columns sample (position of the image), x, y (NaN if the eye was lost),
    duration_ms and start_ms; the index is the line in the file. Rows of other images are absent.
    start_ms counts from the first row with this image in the reader's recording.
    """
    movement, index = _find_column(table, [_MOVEMENT_COLUMN]), _find_column(table, [_INDEX_COLUMN])
    assert movement is not None and index is not None  # checked by find_columns
    readers = [name for name in _READER_COLUMNS if name in table.columns]
    numbers = (columns.x, columns.y, columns.duration, index, columns.time)
    parts, first_times = [], []
    known: tuple[dict[str, int], dict[str, int]] = ({}, {})
    movements: set[str] = set()
    last_time, sequence = -np.inf, 0
    text = dict.fromkeys((columns.image, movement, *readers))
    for part in read_columns(table, list(text), numbers, numbers[:-1], problems):
        kind = part[movement]
        movements.update(kind.cat.categories)
        time = part[columns.time].to_numpy()
        sequences = sequence + np.cumsum(np.diff(time, prepend=last_time) < 0)
        if len(time):
            last_time, sequence = time[-1], int(sequences[-1])
        rows = pd.DataFrame(
            {
                "sample": images.find_positions(part[columns.image]),
                "participant": 0,
                "recording": 0,
                "sequence": sequences,
                "index": part[index],
                "x": part[columns.x],
                "y": part[columns.y],
                "duration_ms": part[columns.duration],
                "time": time,
                "last": time,
            },
            index=part.index,
        )
        for name, known_names in zip(readers, known, strict=False):
            rows[name.split()[0].lower()] = encode_names(part[name], known_names)
        on_image = rows[rows["sample"] >= 0]
        first_times.append(on_image.groupby([*_RECORDING_KEYS, "sample"])["time"].min())
        fixating = rows[(kind == "Fixation").to_numpy()]
        without_index = fixating["index"].isna().to_numpy()
        if without_index.any():
            raise BadInput(
                table.file,
                f"column {index}, line {fixating.index[int(without_index.argmax())]}",
                found="no number",
                expected="the number of the row's fixation",
                mend="export again, or delete the line",
            )
        parts.append(_merge_rows(fixating))
    fixations = _merge_rows(pd.concat(parts))
    if not len(fixations):
        problems.append(
            BadInput(
                table.file,
                f"column {movement}",
                found=sorted(filter(None, movements)),
                expected="rows of the type 'Fixation'",
                mend="export with one of Pro Lab's fixation filters, in English",
            )
        )
    fixations = fixations[fixations["sample"] >= 0]
    first_time = pd.concat(first_times).groupby(level=[0, 1, 2, 3]).min()
    keys = pd.MultiIndex.from_frame(fixations[[*_RECORDING_KEYS, "sample"]])
    start = fixations["time"].to_numpy() - first_time.reindex(keys).to_numpy()
    fixations["start_ms"] = start * _ms_per_time_unit(columns.time, fixations)
    return fixations[["sample", "x", "y", "duration_ms", "start_ms"]]
