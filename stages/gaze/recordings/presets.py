"""The exports of each eye tracker's software: names of columns, units, and rows that count.

A preset describes an export as data. `fixations.py` reads every preset with fixations; a new export
with one row per fixation needs only an entry here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stages.gaze.recordings.asc import is_asc
from stages.gaze.recordings.columns import find_header, matching_columns
from stages.settings.recording import RecordingSettings


class Preset(NamedTuple):
    """One kind of export.

    Attributes
    ----------
    title
        What it is, for messages.
    columns
        Role (as in `recording.columns`) → name of the column.
    optional
        Roles whose columns may be absent.
    rows
        As in `recording.rows`.
    time_unit, start_unit
        Unit of the durations, and of the starts if it is another one.
    image_line
        Beginning of the line above the header that names the image.
    trial
        Column that must have a single value, unless `recording.rows` chooses its values: no column
        names the image.
    """

    title: str
    columns: Mapping[str, str]
    optional: tuple[str, ...] = ()
    rows: Mapping[str, tuple[str, ...]] = {}
    time_unit: str | None = "ms"
    start_unit: str | None = None
    image_line: str = ""
    trial: str = ""

    def required_names(self) -> list[str]:
        """Return the names of the columns without which a table is not this export."""
        names = [name for role, name in self.columns.items() if role not in self.optional]
        return [*names, *self.rows, *([self.trial] if self.trial else [])]


# Any other table: the settings name its columns.
GENERAL = Preset("the table", {}, time_unit=None)
_EYELINK = {
    "image": "IMAGE",
    "x": "CURRENT_FIX_X",
    "y": "CURRENT_FIX_Y",
    "duration": "CURRENT_FIX_DURATION",
    "start": "CURRENT_FIX_START",
}
# Format → its kinds of export. The first kind that fits is read; messages name the first one.
PRESETS: dict[str, tuple[Preset, ...]] = {
    "gazemedseg": (Preset("a table of the GazeMedSeg release", _EYELINK),),
    "eyelink": (Preset("a fixation report of EyeLink Data Viewer", _EYELINK, optional=("start",)),),
    "gazepoint": (
        Preset(
            "an export of Gazepoint Analysis",
            {
                "image": "MEDIA_NAME",
                "x": "FPOGX",
                "y": "FPOGY",
                "duration": "FPOGD",
                "start": "FPOGS",
                "index": "FPOGID",
            },
            rows={"FPOGV": ("1",)},
            time_unit="s",
        ),
    ),
    "pupil": (
        Preset(
            "a surface's fixations of Pupil Player",
            {
                "x": "norm_pos_x",
                "y": "norm_pos_y",
                "duration": "duration",
                "start": "start_timestamp",
                "index": "fixation_id",
            },
            start_unit="s",
        ),
        Preset(
            "the fixations of Pupil Player",
            {
                "x": "norm_pos_x",
                "y": "norm_pos_y",
                "duration": "duration",
                "start": "start_timestamp",
            },
            start_unit="s",
        ),
    ),
    "smi": (
        Preset(
            "an event export of SMI BeGaze",
            {
                "x": "Location X",
                "y": "Location Y",
                "duration": "Duration",
                "start": "Start",
            },
            rows={"Event Type": ("Fixation L",)},
            time_unit="us",
            image_line="Stimulus:",
            trial="Trial",
        ),
    ),
    "imotions": (
        Preset(
            "an export of iMotions with fixations",
            {
                "image": "SourceStimuliName",
                "x": "Fixation X",
                "y": "Fixation Y",
                "duration": "Fixation Duration",
                "start": "Fixation Start",
                "index": "Fixation Index",
            },
        ),
    ),
    "tobii": (
        Preset(
            "a fixation export of Tobii Studio",
            {
                "x": "MappedFixationPointX",
                "y": "MappedFixationPointY",
                "duration": "FixationDuration",
                "start": "Timestamp",
                "index": "FixationIndex",
                "image": "StimuliName",
            },
            optional=("start", "image"),
        ),
    ),
}
# Exports that have readers of their own, or no fixations: format, title, columns.
_OTHERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tobii", "an export of Tobii Pro Lab", ("Eye movement type", "Eye movement type index")),
    ("tobii", "an export of Tobii Studio", ("GazeEventType", "FixationIndex", "MediaName")),
)


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
    known: list[tuple[str, str, list[str], Preset | None]] = [
        (
            name,
            kind.title,
            [c for c in kind.required_names() if c != kind.columns.get("image")],
            kind,
        )
        for name, kinds in PRESETS.items()
        for kind in kinds
        if name != "gazemedseg"
    ]
    known += [(name, title, list(names), None) for name, title, names in _OTHERS]
    table, position = find_header(file, [names for _, _, names, _ in known])
    if position is None or known[position][0] == settings.format:
        return ""
    name, title, _, kind = known[position]
    advice = f"these are the columns of {title}: set recording.format: {name}"
    stated = settings.image or settings.image_column or settings.columns.image
    if kind is None or kind.image_line or stated:
        return advice
    if matching_columns(table.columns, kind.columns.get("image") or ""):
        return advice
    return (
        f"{advice}, and recording.image_column to the column that names the image (or "
        "recording.image, if none does)"
    )
