"""Data exports of Tobii Pro Lab and Tobii Studio 3: one row per gaze sample, with its eye movement.

Column names and units depend on the version: `Fixation point X [MCS px]`, in older versions of Pro
Lab `Fixation point X (MCSpx)`, in Studio `FixationPointX (MCSpx)`. MCS is the coordinate system of
the stimulus, DACS and ADCS are that of the screen; a column without either is in screen pixels.

Gaze that was mapped on snapshots has columns of its own for each snapshot, with its name in
brackets: `Mapped fixation X [scene]`.

A fixation export of Tobii Studio 2, with one row per fixation, is read by `fixations.py`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, log
from stages.gaze.overlaps import MAX_LATE_MS, name_lines
from stages.gaze.recordings import fixations as fixation_tables
from stages.gaze.recordings.columns import (
    as_row_values,
    find_header,
    matching_columns,
    require_column,
    split_header,
)
from stages.gaze.recordings.exports import recognise
from stages.gaze.recordings.images import ImageIndex
from stages.gaze.recordings.presets import PRESETS
from stages.gaze.recordings.table import Columns, Table, encode_names, read_columns
from stages.settings.recording import RecordingSettings

_IMAGE_COLUMNS = ("Presented Stimulus name", "Presented Media name", "MediaName")
_TIME_COLUMNS = ("Recording timestamp",)
_DURATION_COLUMNS = ("Gaze event duration", "Eye movement event duration")
_MOVEMENT_COLUMNS = ("Eye movement type", "GazeEventType")
_INDEX_COLUMNS = ("Eye movement type index", "FixationIndex")
_READER_COLUMNS = {
    "participant": ("Participant name",),
    "recording": ("Recording name",),
}
_MAPPED = r"mapped (eye movement type|eye movement type index|fixation x|fixation y)"
_MAPPED_COLUMN = re.compile(_MAPPED + r"\s*[\[(](.+)[\])]", re.IGNORECASE)
# Columns of our frames that identify a recording; `sequence` does so without the recordings' names.
_RECORDING_KEYS = ["participant", "recording", "sequence"]
# A fixation has one duration, so two recordings of one name do not become one.
_FIXATION_KEYS = [*_RECORDING_KEYS, "index", "duration_ms"]
_UNIT_NAMES = {"px": "px", "fraction": "norm"}
_MICROSECOND_UNITS = ("μs", "us")
# Timestamps without a unit are in microseconds if the time span of a fixation is at least this many
# times its duration in ms.
_MIN_MICROSECOND_RATIO = 30.0


class _Gaze(NamedTuple):
    """The columns of gaze on one or more images.

    Attributes
    ----------
    image
        Column with the name of the image; empty: all rows belong to `image_name`.
    """

    image: str
    image_name: str
    movement: str
    number: str
    x: str
    y: str


def _find_column(table: Table, names: Sequence[str], units: Sequence[str] = ("",)) -> str | None:
    """Find the table's column with one of these names and units; spaces do not matter.

    The first unit with a matching column wins; then the first name.
    """
    headers = ((column, *split_header(column)) for column in table.columns)
    by_header = {(name.replace(" ", ""), unit): column for column, name, unit in headers}
    candidates = ((name.lower().replace(" ", ""), unit) for unit in units for name in names)
    return next((by_header[header] for header in candidates if header in by_header), None)


def _is_fixation_table(table: Table) -> bool:
    """Return whether a table has one row per fixation, as Studio 2 exports it."""
    return bool(matching_columns(table.columns, PRESETS["tobii"][0].columns["x"]))


def open_recording(file: Path, settings: RecordingSettings) -> tuple[Table, Columns]:
    """Find the columns of an export, under the names of its version.

    Raises
    ------
    BadInput
        A column is absent, or the settings do not fit the kind of export.
    """
    studio = PRESETS["tobii"][0]
    table, _ = find_header(
        file,
        [
            ["Eye movement type", "Eye movement type index"],
            ["GazeEventType", "FixationIndex"],
            ["Mapped eye movement type"],
            studio.required_names(),
        ],
    )
    if _is_fixation_table(table):
        return fixation_tables.open_recording(file, settings, [studio])
    rows = as_row_values(settings.rows)
    table = table._replace(rows={require_column(table, name): rows[name] for name in rows})
    times = {
        "Recording timestamp [ms]": _find_column(
            table, _TIME_COLUMNS, ("ms", *_MICROSECOND_UNITS, "")
        ),
        "Gaze event duration [ms]": _find_column(table, _DURATION_COLUMNS, ("ms", "")),
    }
    snapshots = _find_snapshots(table, settings)
    found = times if snapshots else {**_find_screen_columns(table, settings), **times}
    if absent := [label for label, column in found.items() if column is None]:
        raise BadInput(
            table.file,
            "columns",
            found=table.columns,
            expected=f"also {absent}",
            mend=recognise(file, settings)
            or "select these columns in Pro Lab's data export; if another column names the "
            "image, set recording.image_column; recording.unit and recording.screen decide which "
            "coordinates are read"
            + _other_coordinates(table, settings),
        )
    time, duration = times.values()
    assert time is not None and duration is not None  # absent columns are an error above
    gaze = snapshots[0] if snapshots else _screen_gaze(table, settings)
    # For messages about names, the column that holds the name of the first snapshot.
    image = gaze.movement if snapshots else gaze.image
    return table, Columns(image, gaze.x, gaze.y, time, duration, image_name=gaze.image_name)


def _other_coordinates(table: Table, settings: RecordingSettings) -> str:
    """Advise on recording.screen, if the table has only the other kind of coordinates."""
    unit = _UNIT_NAMES[settings.unit]
    on_image = _find_column(table, ["Fixation point X"], [f"MCS{unit}"])
    on_screen = _find_column(table, ["Fixation point X"], ["DACSpx", ""])
    if settings.screen is not None and on_image and not on_screen:
        return f": {on_image!r} is on the image, so remove recording.screen"
    if settings.screen is None and on_screen and not on_image:
        return f": {on_screen!r} is on the screen, so set recording.screen"
    return ""


def _find_screen_columns(table: Table, settings: RecordingSettings) -> dict[str, str | None]:
    """Return the usual name of each column of gaze on a screen → its name here, None if absent.

    Raises
    ------
    BadInput
        A column names the images, and recording.image names one, too.
    """
    system = "MCS" if settings.screen is None else "DACS"
    unit = _UNIT_NAMES[settings.unit]
    units = [f"{system}{unit}"]
    if settings.screen is not None:
        # In Studio the screen is ADCS. In older versions a column in screen pixels has no unit.
        units += [f"ADCS{unit}", ""]
    column = settings.image_column or settings.columns.image
    names_image = (
        next(iter(matching_columns(table.columns, column)), None)
        if column
        else _find_column(table, _IMAGE_COLUMNS)
    )
    if settings.image and names_image not in (None, *table.rows):
        raise BadInput(
            table.file,
            f"column {names_image}",
            found=f"names of images, while recording.image is {settings.image!r}",
            expected="one source of the names",
            mend=f"remove recording.image; or choose the rows of this image: recording.rows: "
            f"{{{names_image}: NAME}}",
        )
    image = {} if settings.image else {column or _IMAGE_COLUMNS[0]: names_image}
    return {
        **image,
        f"Fixation point X [{system} {unit}]": _find_column(table, ["Fixation point X"], units),
        f"Fixation point Y [{system} {unit}]": _find_column(table, ["Fixation point Y"], units),
        _MOVEMENT_COLUMNS[0]: _find_column(table, _MOVEMENT_COLUMNS),
        _INDEX_COLUMNS[0]: _find_column(table, _INDEX_COLUMNS),
    }


def _screen_gaze(table: Table, settings: RecordingSettings) -> _Gaze:
    """Return the columns of gaze on a screen; `open_recording` has found them all."""
    columns = [name or "" for name in _find_screen_columns(table, settings).values()]
    x, y, movement, index = columns[-4:]
    image = "" if settings.image else columns[0]
    return _Gaze(image, settings.image, movement, index, x, y)


def _find_snapshots(table: Table, settings: RecordingSettings) -> list[_Gaze]:
    """Return the columns of each snapshot on which gaze was mapped; none for gaze on a screen.

    Raises
    ------
    BadInput
        A snapshot lacks a column, or the settings do not fit mapped gaze.
    """
    column = settings.image_column or settings.columns.image
    if column or _find_column(table, _IMAGE_COLUMNS):
        return []
    parts: dict[str, dict[str, str]] = {}
    for name in table.columns:
        if match := _MAPPED_COLUMN.fullmatch(name):
            parts.setdefault(match[2], {})[match[1].lower()] = name
    if not parts:
        return []
    if settings.unit != "px" or settings.screen is not None:
        raise BadInput(
            table.file,
            "columns",
            found=f"gaze mapped on {', '.join(parts)}, in pixels of the snapshot",
            expected="recording.unit: px, without recording.screen",
            mend="set recording.unit: px, and remove recording.screen",
        )
    if settings.image and len(parts) > 1:
        raise BadInput(
            table.file,
            "recording.image",
            found=f"{settings.image!r}, while gaze is mapped on {', '.join(parts)}",
            expected="the names of the snapshots in the names of the columns",
            mend="remove recording.image; name the image files like the snapshots",
        )
    needed = ("eye movement type", "eye movement type index", "fixation x", "fixation y")
    gaze = []
    for name, columns in parts.items():
        if absent := [f"Mapped {part} [{name}]" for part in needed if part not in columns]:
            raise BadInput(
                table.file,
                "columns",
                found=table.columns,
                expected=f"also {absent}",
                mend="select these columns in Pro Lab's data export",
            )
        gaze.append(_Gaze("", settings.image or name, *(columns[part] for part in needed)))
    return gaze


def _merge_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Merge the rows of a fixation on one image, in any order: the earliest, with the last time."""
    keys = [*_FIXATION_KEYS, "sample"]
    rows = rows.sort_values("time", kind="stable")
    last = rows.groupby(keys, dropna=False)["last"].transform("max")
    return rows.assign(last=last)[~rows.duplicated(keys)].sort_index()


def _merge_images(rows: pd.DataFrame) -> pd.DataFrame:
    """Merge a fixation with its rows on the next image, which come later."""
    rows = rows.sort_values([*_FIXATION_KEYS, "time"], kind="stable")
    continues = rows.duplicated(_FIXATION_KEYS) & (rows["time"] > rows["last"].shift())
    return rows[~continues].sort_index()


def _ms_per_time_unit(column: str, fixations: pd.DataFrame) -> float:
    """Return how many ms one unit of a time column is."""
    unit = split_header(column)[1]
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

    The rows of one recording with the same index are one fixation, in any order; a warning names
    rows whose time falls back. A fixation belongs to the image on which it begins, even if the next
    image appears before it ends. If no column names the recordings, another one begins where the
    time falls back by more than `MAX_LATE_MS`.

    Returns
    -------
    Frame as of `fixations.read_gaze`; each recording is a reader. start_ms counts from the first
    row with this image in the recording; for a snapshot, from the first row of the recording. A
    fixation whose duration reaches into the next one began before its first row here.
    """
    if _is_fixation_table(table):
        return fixation_tables.read_gaze(table, columns, settings, images, problems)
    snapshots = _find_snapshots(table, settings)
    gaze = snapshots or [_screen_gaze(table, settings)]
    fixations = pd.concat(
        [
            _read_fixations(table, columns, one, images, problems, warn=one is gaze[0])
            for one in gaze
        ]
    ).sort_index(kind="stable")
    if not len(fixations):
        kinds = {kind for one in gaze for kind in _movement_kinds(table, one.movement)}
        problems.append(
            BadInput(
                table.file,
                f"column {gaze[0].movement}",
                found=sorted(filter(None, kinds)),
                expected="rows of the type 'Fixation'",
                mend="export with one of Tobii's fixation filters, in English",
            )
        )
    fixations["reader"] = fixations.groupby(_RECORDING_KEYS).ngroup()
    names = ["sample", "reader", "x", "y", "duration_ms", "start_ms"]
    return fixations.loc[fixations["sample"] >= 0, names]


def _movement_kinds(table: Table, column: str) -> set[str]:
    """Return the eye movements that a column names."""
    parts = read_columns(table, [column], [], [], Problems())
    return {kind for part in parts for kind in part[column].cat.categories}


class _Falls:
    """The rows whose time is less than that of the row above in the same recording."""

    def __init__(self) -> None:
        self._last: tuple[float, ...] = (np.nan, np.nan, np.nan)
        self._count = 0
        self.lines: list[int] = []
        self.sizes: list[float] = []

    def number_runs(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Return (R,) the number of falls up to each of the next rows of the table."""
        values = rows[["participant", "recording", "time"]].to_numpy(np.float64)
        above = np.vstack([self._last, values[:-1]])[: len(values)]
        fall = above[:, 2] - values[:, 2]
        falls = (above[:, :2] == values[:, :2]).all(axis=1) & (fall > 0)
        runs: NDArray[np.int64] = self._count + np.cumsum(falls)
        if len(values):
            self._last, self._count = tuple(values[-1]), int(runs[-1])
        self.lines += rows.index[falls].tolist()
        self.sizes += fall[falls].tolist()
        return runs

    def number_sequences(self, ms: float, *, named: bool) -> NDArray[np.int64]:
        """Return the number of each run's recording: runs after a small fall belong to one.

        Parameters
        ----------
        ms
            One unit of time, ms.
        named
            Whether a column names the recordings, so that no fall begins another one.
        """
        begins = (np.array(self.sizes) * ms > MAX_LATE_MS) & (not named)
        return np.concatenate([[0], np.cumsum(begins)])

    def warn(self, file: Path, sequences: NDArray[np.int64]) -> None:
        """Warn about rows in the wrong order."""
        late = [line for line, new in zip(self.lines, np.diff(sequences), strict=True) if not new]
        if late:
            log.warning(
                "%s: in %d rows the time is less than in the row above of the same recording "
                "(%s): rows are in the wrong order, or twice. All rows of one fixation "
                "count once",
                file, len(late), name_lines(late),
            )  # fmt: skip


def _read_fixations(
    table: Table,
    columns: Columns,
    gaze: _Gaze,
    images: ImageIndex,
    problems: Problems,
    *,
    warn: bool,
) -> pd.DataFrame:
    """Read the fixations of one group of columns; sample is -1 for other images."""
    readers = {
        key: name for key, names in _READER_COLUMNS.items() if (name := _find_column(table, names))
    }
    numbers = (gaze.x, gaze.y, columns.duration, gaze.number, columns.time)
    parts, first_times = [], []
    known: dict[str, dict[str, int]] = {key: {} for key in readers}
    falls = _Falls()
    text = dict.fromkeys(name for name in (gaze.image, gaze.movement, *readers.values()) if name)
    for part in read_columns(table, list(text), numbers, numbers[:-1], problems):
        time = part[columns.time].to_numpy()
        rows = pd.DataFrame(
            {
                "sample": images.find_positions(part[gaze.image])
                if gaze.image
                else images.repeat_position(gaze.image_name, len(part)),
                "participant": 0,
                "recording": 0,
                "index": part[gaze.number],
                "x": part[gaze.x],
                "y": part[gaze.y],
                "duration_ms": part[columns.duration],
                "time": time,
                "last": time,
            },
            index=part.index,
        )
        for key, name in readers.items():
            rows[key] = encode_names(part[name], known[key])
        rows["sequence"] = falls.number_runs(rows)
        on_image = rows[rows["sample"] >= 0]
        first_times.append(on_image.groupby([*_RECORDING_KEYS, "sample"])["time"].min())
        fixating = rows[(part[gaze.movement] == "Fixation").to_numpy()]
        without_index = fixating["index"].isna().to_numpy()
        if without_index.any():
            raise BadInput(
                table.file,
                f"column {gaze.number}, line {fixating.index[int(without_index.argmax())]}",
                found="no number",
                expected="the number of the row's fixation",
                mend="export again, or delete the line",
            )
        parts.append(_merge_rows(fixating))
    fixations, first_time = pd.concat(parts), pd.concat(first_times).reset_index()
    ms = _ms_per_time_unit(columns.time, fixations)
    named = any(known.get("recording", {}))
    sequences = falls.number_sequences(ms, named=named)
    if warn:
        falls.warn(table.file, sequences)
    for frame in (fixations, first_time):
        frame["sequence"] = sequences[frame["sequence"]]
    fixations = _merge_images(_merge_rows(fixations))
    keys = [*_RECORDING_KEYS, "sample"]
    begin = first_time.groupby(keys)["time"].min()
    begin = begin.reindex(pd.MultiIndex.from_frame(fixations[keys])).to_numpy()
    fixations["start_ms"] = (_begin_times(fixations, ms) - begin) * ms
    return fixations


def _begin_times(fixations: pd.DataFrame, ms: float) -> NDArray[np.float64]:
    """Return (F,) when each fixation began: early enough to end before the next on its image."""
    keys = [*_RECORDING_KEYS, "sample"]
    ordered = fixations.sort_values([*keys, "time"], kind="stable")
    following = ordered.groupby(keys)["time"].shift(-1)
    begin = ordered["time"].clip(upper=following - ordered["duration_ms"] / ms)
    return begin.reindex(fixations.index).to_numpy(np.float64)
