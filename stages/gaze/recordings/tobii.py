"""Data exports of Tobii Pro Lab: one row per gaze sample, each said to be of a fixation or not.

Names and units of columns are those that versions of Pro Lab write: `Fixation point X [MCS px]`,
formerly `Fixation point X (MCSpx)`. MCS is the coordinate system of the stimulus, DACS that of the
screen; a column without either is in screen pixels.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings.images import Images
from stages.gaze.recordings.table import Columns, Table, codes, read_columns
from stages.settings.recording import RecordingSettings

_IMAGE = ("Presented Stimulus name", "Presented Media name")
_DURATION = ("Gaze event duration", "Eye movement event duration")
_MOVEMENT = "Eye movement type"
_INDEX = "Eye movement type index"
_READERS = ("Participant name", "Recording name")
# What tells recordings apart; the last also where no column does.
_RECORDING = ["participant", "recording", "sequence"]
_UNITS = {"px": "px", "fraction": "norm"}
_MICROSECONDS = ("μs", "us")
# Times that grow more than this many times as fast as durations, in ms, are in microseconds.
_FASTER = 30.0


def _split(name: str) -> tuple[str, str]:
    """Part a header into its name and its unit, without the unit's brackets and spaces."""
    # Two characters look like the Greek letter of microseconds.
    found = re.fullmatch(r"(.*?)\s*(?:[\[(]([^\])]*)[\])])?", unicodedata.normalize("NFKC", name))
    assert found is not None
    return found[1].lower(), (found[2] or "").replace(" ", "")


def _find(table: Table, names: Sequence[str], units: Sequence[str] = ("",)) -> str | None:
    """First column of the table with one of these names, units before names."""
    parts = {_split(column): column for column in table.columns}
    wanted = ((name.lower(), unit) for unit in units for name in names)
    return next((parts[part] for part in wanted if part in parts), None)


def find_columns(table: Table, settings: RecordingSettings) -> Columns:
    """Name the columns of an export, as its version of Pro Lab calls them.

    Raises
    ------
    BadInput
        Some are absent.
    """
    unit = _UNITS[settings.unit]
    system = "MCS" if settings.screen is None else "DACS"
    # Formerly a column of the screen's pixels had no unit.
    units = [f"{system}{unit}"] if settings.screen is None else [f"{system}{unit}", ""]
    shown = f"{system} {unit}"
    named = settings.image_column
    found = {
        named or _IMAGE[0]: (named if named in table.columns else None)
        if named
        else _find(table, _IMAGE),
        f"Fixation point X [{shown}]": _find(table, ["Fixation point X"], units),
        f"Fixation point Y [{shown}]": _find(table, ["Fixation point Y"], units),
        "Recording timestamp [ms]": _find(
            table, ["Recording timestamp"], ("ms", *_MICROSECONDS, "")
        ),
        "Gaze event duration [ms]": _find(table, _DURATION, ("ms", "")),
        _MOVEMENT: _find(table, [_MOVEMENT]),
        _INDEX: _find(table, [_INDEX]),
    }
    columns = [column for column in found.values() if column is not None]
    if len(columns) < len(found):
        raise BadInput(
            table.file,
            "columns",
            found=table.columns,
            expected=f"also {[name for name, column in found.items() if column is None]}",
            mend="tick these columns in Pro Lab's data export; recording.image_column names "
            "another column of image names, recording.unit and recording.screen say which "
            "coordinates are read",
        )
    return Columns(*columns[:5])


def _collapse(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each run of rows that are of one fixation: its first, with its last time."""
    key = rows[[*_RECORDING, "index"]].to_numpy()
    first = np.ones(len(rows), bool)
    first[1:] = (key[1:] != key[:-1]).any(axis=1)
    last = np.roll(first, -1)
    one_each = rows[first].copy()
    one_each["last"] = rows["last"].to_numpy()[last]
    return one_each


def _to_ms(column: str, fixations: pd.DataFrame) -> float:
    unit = _split(column)[1]
    if unit:
        return 0.001 if unit in _MICROSECONDS else 1.0
    # Versions differ in the unit of a timestamp that has none: durations in ms tell.
    span = (fixations["last"] - fixations["time"]) / fixations["duration_ms"]
    return 1.0 if span[span > 0].median() < _FASTER else 0.001


def read(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: Images,
    problems: Problems,
) -> pd.DataFrame:
    """Read the fixations of an export.

    Rows of one recording that follow each other with one `Eye movement type index` are one
    fixation; it is of the image on which it begins, also where the next one appears before it
    ends. Where the time goes back from one row to the next, another recording begins.

    Returns
    -------
    Frame of sample (position of the image), x, y (NaN where lost), duration_ms and start_ms, with
    the line as index; other images' rows are left out. Starts count from the first row of the
    reader's recording that is of the image.
    """
    movement, index = _find(table, [_MOVEMENT]), _find(table, [_INDEX])
    assert movement is not None and index is not None  # find_columns has seen them
    readers = [name for name in _READERS if name in table.columns]
    numbers = (columns.x, columns.y, columns.duration, index, columns.time)
    parts, appeared = [], []
    known: tuple[dict[str, int], dict[str, int]] = ({}, {})
    movements: set[str] = set()
    before, sequence = -np.inf, 0
    text = dict.fromkeys((columns.image, movement, *readers))
    for part in read_columns(table, list(text), numbers, numbers[:-1], problems):
        kind = part[movement]
        movements.update(kind.cat.categories)
        time = part[columns.time].to_numpy()
        sequences = sequence + np.cumsum(np.diff(time, prepend=before) < 0)
        if len(time):
            before, sequence = time[-1], int(sequences[-1])
        rows = pd.DataFrame(
            {
                "sample": images.find(part[columns.image]),
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
        for name, seen in zip(readers, known, strict=False):
            rows[name.split()[0].lower()] = codes(part[name], seen)
        on_image = rows[rows["sample"] >= 0]
        appeared.append(on_image.groupby([*_RECORDING, "sample"])["time"].min())
        looking = rows[(kind == "Fixation").to_numpy()]
        nameless = looking["index"].isna().to_numpy()
        if nameless.any():
            raise BadInput(
                table.file,
                f"column {index}, line {looking.index[int(nameless.argmax())]}",
                found="no number",
                expected="the number of the fixation that the row is of",
                mend="export again, or delete the line",
            )
        parts.append(_collapse(looking))
    fixations = _collapse(pd.concat(parts))
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
    first = pd.concat(appeared).groupby(level=[0, 1, 2, 3]).min()
    keys = pd.MultiIndex.from_frame(fixations[[*_RECORDING, "sample"]])
    since = fixations["time"].to_numpy() - first.reindex(keys).to_numpy()
    fixations["start_ms"] = since * _to_ms(columns.time, fixations)
    return fixations[["sample", "x", "y", "duration_ms", "start_ms"]]
