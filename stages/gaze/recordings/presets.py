"""The exports of each eye tracker's software: names of columns, units, and rows that count.

A preset describes an export as data: `fixations.py` reads those with fixations, `samples.py` those
with raw gaze. A new export that is a table needs only an entry here.
"""

from collections.abc import Mapping
from typing import NamedTuple


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
    valid_range
        As in `recording.valid_range`.
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
    valid_range: tuple[float, float] | None = None
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
# Format → its kinds of export. The first kind that fits is read.
PRESETS: dict[str, tuple[Preset, ...]] = {
    "gazemedseg": (Preset("a table of the GazeMedSeg release", _EYELINK),),
    "eyelink": (
        Preset(
            "a fixation report of EyeLink Data Viewer",
            {**_EYELINK, "reader": "RECORDING_SESSION_LABEL"},
            optional=("start", "reader"),
        ),
    ),
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
            "fixations on a surface of Pupil Player",
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
        Preset(
            "an event export of SMI BeGaze",
            {
                "image": "Stimulus",
                "x": "Fixation Position X",
                "y": "Fixation Position Y",
                "duration": "Event Duration",
                "start": "Event Start Trial Time",
                "reader": "Participant",
            },
            optional=("reader",),
            rows={"Category": ("Fixation", "Visual Intake"), "Eye L/R": ("Left",)},
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
# Format → its kinds of raw gaze, which `samples.py` reads: `start` is the time of the sample, and
# rows without `index` are no samples.
RAW_PRESETS: dict[str, tuple[Preset, ...]] = {
    "samples": (
        Preset(
            "a table of samples",
            {
                "image": "image",
                "x": "x",
                "y": "y",
                "start": "time_ms",
                "reader": "reader",
                "valid": "valid",
            },
            optional=("reader", "valid"),
        ),
    ),
    "gazepoint": (
        Preset(
            "all gaze of Gazepoint Analysis",
            {
                "image": "MEDIA_NAME",
                "x": "BPOGX",
                "y": "BPOGY",
                "start": "TIME",
                "valid": "BPOGV",
            },
            time_unit="s",
        ),
    ),
    "pupil": (
        Preset(
            "gaze positions of Pupil Player",
            {
                "x": "norm_pos_x",
                "y": "norm_pos_y",
                "start": "gaze_timestamp",
                "valid": "confidence",
            },
            time_unit="s",
            valid_range=(0.6, 1),
        ),
    ),
    "imotions": (
        Preset(
            "raw gaze of iMotions",
            {
                "image": "SourceStimuliName",
                "x": "ET_GazeLeftx",
                "y": "ET_GazeLefty",
                "start": "Timestamp",
                "valid": "ET_ValidityLeftEye",
            },
            optional=("image",),
            valid_range=(0, 3),
        ),
    ),
    "tobii": (
        Preset(
            "samples of Tobii Studio",
            {
                "image": "MediaName",
                "x": "GazePointX (ADCSpx)",
                "y": "GazePointY (ADCSpx)",
                "start": "RecordingTimestamp",
                "index": "GazePointIndex",
                "reader": "ParticipantName",
            },
            optional=("reader",),
        ),
        *(
            Preset(
                "samples of Tobii Pro Lab",
                {
                    "image": image,
                    "x": f"Gaze point X{unit}",
                    "y": f"Gaze point Y{unit}",
                    "start": "Recording timestamp",
                    "reader": "Participant name",
                },
                optional=("reader",),
                rows={"Sensor": ("Eye Tracker",)},
                time_unit=None,
            )
            for unit in (" [DACS px]", "")
            for image in ("Presented Stimulus name", "Presented Media name")
        ),
    ),
}
# Exports that have readers of their own, or no fixations: format, title, columns.
OTHER_EXPORTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tobii", "an export of Tobii Pro Lab", ("Eye movement type", "Eye movement type index")),
    (
        "tobii",
        "an export of Tobii Pro Lab with snapshots",
        ("Mapped eye movement type", "Mapped fixation X"),
    ),
    ("tobii", "an export of Tobii Studio", ("GazeEventType", "FixationIndex", "MediaName")),
)
