"""Open the exports of trackers: find the kind of export, its header, columns, units and image."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stages.core.cli import BadInput
from stages.gaze.recordings.asc import is_asc
from stages.gaze.recordings.columns import (
    as_row_values,
    find_header,
    matching_columns,
    ms_per_unit,
    read_preamble,
    require_column,
)
from stages.gaze.recordings.presets import GENERAL, OTHER_EXPORTS, PRESETS, RAW_PRESETS, Preset
from stages.gaze.recordings.table import Columns, Table
from stages.settings.recording import RecordingSettings


class _Known(NamedTuple):
    """An export that `recognise` knows; `kind` is None if it has a reader of its own."""

    format: str
    raw: bool
    title: str
    names: list[str]
    kind: Preset | None


def _name_columns(preset: Preset, settings: RecordingSettings) -> dict[str, str]:
    """Return role → name of the column, from the preset and the settings; the settings win."""
    stated = {role: name for role, name in settings.columns if name}
    if settings.image_column:
        stated["image"] = settings.image_column
    names = {**preset.columns, **stated}
    if settings.image:
        names.pop("image", None)
    return names


def _required_names(preset: Preset, settings: RecordingSettings) -> list[str]:
    """Return the names of the columns that a table must have."""
    stated = {role for role, name in settings.columns if name}
    stated |= {"image"} if settings.image_column else set()
    names = _name_columns(preset, settings)
    optional = set(preset.optional) - stated
    required = [name for role, name in names.items() if role not in optional]
    return [*required, *preset.rows, *settings.rows]


def open_export(
    file: Path, settings: RecordingSettings, presets: Sequence[Preset]
) -> tuple[Table, Columns]:
    """Find the header and the columns of a table.

    Parameters
    ----------
    file
        The table.
    settings
        Its format, and what differs from the format.
    presets
        Kinds of export that it may be; the first one that fits is read.

    Raises
    ------
    BadInput
        A column is absent, nothing names the image, or a unit of time is unknown.
    """
    table, position = find_header(file, [_required_names(preset, settings) for preset in presets])
    if position is None:
        raise _absent_columns(table, presets, settings)
    preset = presets[position]
    rows = {**preset.rows, **as_row_values(settings.rows)}
    table = table._replace(rows={require_column(table, name): rows[name] for name in rows})
    found = {
        role: require_column(table, name)
        for role, name in _name_columns(preset, settings).items()
        if matching_columns(table.columns, name)
    }
    start, duration = found.get("start", ""), found.get("duration", "")
    usual = preset.start_unit or settings.time_unit or preset.time_unit
    columns = Columns(
        image=found.get("image", ""),
        x=found["x"],
        y=found["y"],
        time=start,
        duration=duration,
        reader=found.get("reader", ""),
        number=found.get("index", ""),
        valid=found.get("valid", ""),
        pupil=found.get("pupil", ""),
        image_name="" if "image" in found else _name_image(table, preset, settings),
    )
    if duration:
        ms = ms_per_unit(
            table, duration, settings.time_unit, preset.time_unit, "recording.time_unit"
        )
        columns = columns._replace(duration_ms=ms)
        stated, setting = settings.start_unit, "recording.start_unit"
    else:
        stated, setting = settings.time_unit, "recording.time_unit"
    if start:
        columns = columns._replace(time_ms=ms_per_unit(table, start, stated, usual, setting))
    return table, columns


def _absent_columns(
    table: Table, presets: Sequence[Preset], settings: RecordingSettings
) -> BadInput:
    """Return the message for a table that is none of the presets: it names the closest one."""

    def absent_names(preset: Preset) -> list[str]:
        names = _required_names(preset, settings)
        return [name for name in names if not matching_columns(table.columns, name)]

    preset = min(presets, key=lambda preset: len(absent_names(preset)))
    absent = absent_names(preset)
    if preset is GENERAL:
        mend = "correct recording.columns and recording.rows, which name the table's columns"
    elif preset is RAW_PRESETS["samples"][0]:
        mend = "rename the columns, or name them in recording.columns"
    else:
        mend = f"export it again with these columns, as {preset.title}"
    if _name_columns(preset, settings).get("image") in absent:
        mend += "; if another column names the image, set recording.image_column"
        mend += "; if none does, set recording.image"
    return BadInput(
        table.file,
        "columns",
        found=table.columns,
        expected=f"also {absent}",
        mend=recognise(table.file, settings) or mend,
    )


def _name_image(table: Table, preset: Preset, settings: RecordingSettings) -> str:
    """Return the name of the image of all rows, from the settings or from above the header.

    Raises
    ------
    BadInput
        Neither names it, or a column of the format names it.
    """
    column = preset.columns.get("image", "")
    others = matching_columns(table.columns, column) if column else []
    if settings.image and others and not set(others) & set(table.rows):
        raise BadInput(
            table.file,
            f"column {others[0]}",
            found=f"names of images, while recording.image is {settings.image!r}",
            expected="one source of the names",
            mend="remove recording.image; or choose the rows of this image: recording.rows: "
            f"{{{others[0]}: NAME}}",
        )
    name = settings.image
    if not name and preset.image_line:
        name = read_preamble(table, preset.image_line)
    if not name:
        raise BadInput(
            table.file,
            "image",
            found=f"no column with its name in {preset.title}",
            expected="the name of the image on which the gaze was recorded",
            mend="set recording.image to the image of all rows, or recording.image_column to the "
            "column that names it",
        )
    return name


def recognise(file: Path, settings: RecordingSettings) -> str:
    """Advise on the format of a table whose stated format does not fit; empty if unknown.

    The advice is part of a message: "these are the columns of …: set recording.format: …".
    """
    if is_asc(file):
        return (
            "this is a text file of EyeLink's edf2asc: set recording.format: eyelink, and "
            "recording.image_column to the words before the name of the image in its messages, or "
            "to the trial variable with the name"
        )
    # Exports with fixations come first: a file with both is one of them.
    known = [
        _Known(
            name,
            raw,
            kind.title,
            [c for c in kind.required_names() if c != kind.columns.get("image")],
            kind,
        )
        for raw, presets in ((False, PRESETS), (True, RAW_PRESETS))
        for name, kinds in presets.items()
        for kind in kinds
        if name not in ("gazemedseg", "samples")
    ]
    known += [_Known(name, False, title, list(names), None) for name, title, names in OTHER_EXPORTS]
    known.sort(key=lambda export: export.raw)
    table, position = find_header(file, [export.names for export in known])
    if position is None:
        return ""
    name, raw, title, _, kind = known[position]
    if (name, raw) == (settings.format, settings.detection is not None):
        return ""
    advice = f"these are the columns of {title}: set recording.format: {name}"
    if name in ("eyelink", "tobii") and settings.unit != "px":
        advice += ", recording.unit: px"
    if raw and settings.detection is None:
        advice += ", with recording.detection and recording.screen"
    elif not raw and settings.detection is not None:
        advice += ", without recording.detection"
    stated = settings.image or settings.image_column or settings.columns.image
    if kind is None or kind.image_line or stated:
        return advice
    if matching_columns(table.columns, kind.columns.get("image") or ""):
        return advice
    return (
        f"{advice}, and recording.image_column to the column that names the image (or "
        "recording.image, if none does)"
    )
