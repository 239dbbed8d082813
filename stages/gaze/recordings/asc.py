"""Text files of EyeLink's edf2asc: the tracker's own fixations or the raw samples, and messages.

Lines that matter, with times in ms: `MSG time text`, `START time`, `END time`, `EVENTS kind …`,
`SAMPLES kind eyes …`, `EFIX eye start end duration x y pupil`; and from START to END the samples,
`time` and `x y pupil` of each eye, with dots where it was lost. A trial begins with the message
TRIALID, or with START if there is none. Messages name the images: those of the form
`!V TRIAL_VAR name value` belong to their whole trial, also after END; any other message counts from
its time on.
"""

import re
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, list_names, log
from stages.gaze.recordings.columns import as_row_values
from stages.gaze.recordings.images import ImageIndex
from stages.gaze.recordings.table import Columns, Table, detect_encoding
from stages.settings.recording import RecordingSettings

# Names of the values of a fixation, for messages.
_COLUMNS = ["eye", "start", "end", "duration", "x", "y"]
_EYE = "eye"
# x, y and pupil; other values, such as velocities, follow those of all eyes.
_VALUES_PER_EYE = 3
_TRIAL_ID = "TRIALID"
_VARIABLE = "!V TRIAL_VAR "
_FIRST_LINE = re.compile(r"\*\* CONVERTED FROM|MSG\s+\d|START\s+\d")
# Time, an offset in ms before which the message was sent, and the text.
_MESSAGE = re.compile(r"MSG\s+(\d{1,15}(?:\.\d+)?)\s+(?:(-?\d{1,15})\s+(?=\D))?(.*)")
# `float` would also read inf, nan and 1_000.
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_FOUR_NUMBERS = r"[\s=]+" + r"\s+".join([r"(-?\d{1,9}(?:\.\d*)?)"] * 4) + r"(?!\S)"
_COORDINATES = re.compile(rf"(?:DISPLAY|GAZE)_COORDS\b(?:{_FOUR_NUMBERS})?")
# Number of lines in which the form of a file shows.
_MAX_FIRST_LINES = 50
_MAX_SHOWN = 6


class _Message(NamedTuple):
    trial: int
    time: float
    text: str


class _Fixation(NamedTuple):
    line: int
    trial: int
    eye: str
    start: float
    since_start: float
    duration: float
    x: float
    y: float


class _Sample(NamedTuple):
    line: int
    trial: int
    block: int
    start: float
    x: float
    y: float


class _Recording(NamedTuple):
    """The content of a file; `size` is the width and height of the display, px, or None."""

    messages: list[_Message]
    fixations: list[_Fixation]
    samples: list[_Sample]
    size: tuple[float, float] | None


def is_asc(file: Path) -> bool:
    """Return whether a file has the form of edf2asc."""
    try:
        with file.open(encoding=detect_encoding(file), errors="replace") as lines:
            first = (line for _, line in zip(range(_MAX_FIRST_LINES), lines, strict=False))
            return any(_FIRST_LINE.match(line) for line in first)
    except OSError:
        # The reader of tables reports it.
        return False


def is_asc_table(table: Table) -> bool:
    """Return whether `open_recording` of this module returned a table."""
    return table.columns == _COLUMNS


def open_recording(file: Path, settings: RecordingSettings) -> tuple[Table, Columns]:
    """Check that the settings fit a file of edf2asc.

    Raises
    ------
    BadInput
        They do not.
    """
    columns = [f"columns.{role}" for role, name in settings.columns if name and role != "image"]
    unused = [*columns, *(name for name in ("time_unit", "start_unit") if getattr(settings, name))]
    if unused or settings.unit != "px" or not set(settings.rows) <= {_EYE}:
        raise BadInput(
            file,
            "gaze.recording",
            found=f"recording.{unused[0]}"
            if unused
            else f"recording.unit: {settings.unit}"
            if settings.unit != "px"
            else f"recording.rows: {settings.rows}",
            expected="px for the gaze of a file of edf2asc, and its own columns and units",
            mend="set recording.unit: px, and remove other columns and units; recording.rows may "
            f"choose the {_EYE}: L or R",
        )
    image = settings.image_column or settings.columns.image or _TRIAL_ID
    return (
        Table(file, detect_encoding(file), " ", list(_COLUMNS)),
        Columns(
            "" if settings.image else image,
            "x",
            "y",
            "start",
            "duration",
            image_name=settings.image,
        ),
    )


def _read_file(table: Table, raw_eye: str | None = None) -> _Recording:
    """Read the messages, and the fixations or, with `raw_eye`, the samples of an eye.

    `raw_eye` is L or R, or empty: the left eye of each block, or the only one.
    """
    messages: list[_Message] = []
    fixations: list[_Fixation] = []
    samples: list[_Sample] = []
    size: tuple[float, float] | None = None
    trial, started, start_time, named = 0, 0, 0.0, False
    # Number of the block from START to END, its eyes, and the place of the eye's x in a sample.
    block, eyes, place = 0, "", 0
    recording = False
    with table.file.open(encoding=table.encoding, errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("MSG"):
                if not (match := _MESSAGE.match(line)):
                    continue
                text = match[3].strip()
                if text.startswith(_TRIAL_ID):
                    trial, named = trial + 1, True
                messages.append(_Message(trial, float(match[1]) - int(match[2] or 0), text))
                if corners := _COORDINATES.match(text):
                    if corners[1] is None:
                        log.warning(
                            "%s, line %d: no four numbers follow %s, so the size of the display is "
                            "not checked", table.file, number, text.split()[0],
                        )  # fmt: skip
                        continue
                    left, top, right, bottom = map(float, corners.groups())
                    size = (right - left + 1, bottom - top + 1)
                continue
            if raw_eye is not None and recording and line[:1].isdigit():
                if not eyes:
                    raise BadInput(
                        table.file,
                        f"line {number}",
                        found="a sample without a line SAMPLES above it",
                        expected="a line SAMPLES GAZE with the eyes of the samples",
                        mend="convert the recording again with edf2asc",
                    )
                if place:
                    time, x, y, pupil = (
                        _to_number(table, line.split(), number, position)
                        for position in (0, place, place + 1, place + 2)
                    )
                    if pupil <= 0:
                        x = y = np.nan
                    samples.append(_Sample(number, trial, block, time, x, y))
                continue
            values = line.split()
            kind = values[0] if values else ""
            if kind == "START":
                # In a file without the message, a trial begins here. With it, a trial may have
                # several blocks, whose times count from the first one.
                trial += not named
                if trial != started:
                    started, start_time = trial, _to_number(table, values, number, 1)
                block, eyes, place, recording = block + 1, "", 0, True
            elif kind == "END":
                recording = False
            elif kind == ("EVENTS" if raw_eye is None else "SAMPLES"):
                if values[1:2] != ["GAZE"]:
                    raise BadInput(
                        table.file,
                        f"line {number}",
                        found=values[1:2],
                        expected=f"{kind.lower()} in GAZE coordinates, px of the screen",
                        mend="convert the recording again with edf2asc, with gaze coordinates",
                    )
                eyes = "".join(name[0] for name in ("LEFT", "RIGHT") if name in values)
                wanted = raw_eye or eyes[:1]
                place = 1 + _VALUES_PER_EYE * eyes.index(wanted) if wanted in eyes else 0
            elif kind == "EFIX" and raw_eye is None:
                start, _, duration, x, y = (
                    _to_number(table, values, number, position) for position in range(2, 7)
                )
                fixations.append(
                    _Fixation(number, trial, values[1], start, start - start_time, duration, x, y)
                )
    return _Recording(messages, fixations, samples, size)


def _to_number(table: Table, values: list[str], number: int, position: int) -> float:
    """Return a value of a line; NaN for a dot, which means that the eye was lost."""
    text = values[position] if position < len(values) else ""
    if text == ".":
        return np.nan
    value = float(text) if _NUMBER.fullmatch(text) else np.inf
    if not np.isfinite(value):
        raise BadInput(
            table.file,
            f"line {number}",
            found=repr(text),
            expected=f"a number as value {position + 1} of "
            + (f"the sample {values[0]}" if values[0][0].isdigit() else values[0]),
            mend="convert the recording again with edf2asc",
        )
    return value


def _choose_eye(table: Table, fixations: pd.DataFrame, settings: RecordingSettings) -> pd.DataFrame:
    """Return the fixations of one eye: the chosen one, otherwise the left one of each trial."""
    if settings.rows:
        chosen = fixations[fixations["eye"].isin(as_row_values(settings.rows)[_EYE])]
        if not len(chosen):
            raise BadInput(
                table.file,
                "EFIX",
                found=f"fixations of the eyes {sorted(set(fixations['eye']))}",
                expected=f"fixations of the eye {settings.rows[_EYE]!r}",
                mend=f"correct recording.rows: {{{_EYE}: L}} or {{{_EYE}: R}}",
            )
        return chosen
    left = fixations["eye"] == "L"
    has_left = left.groupby(fixations["trial"]).transform("any")
    chosen = fixations[left | ~has_left]
    if dropped := len(fixations) - len(chosen):
        log.info(
            "%s: both eyes were recorded: %d fixations of the right eye do not count",
            table.file,
            dropped,
        )
    return chosen


def _name_images(
    table: Table,
    key: str,
    messages: list[_Message],
    rows: pd.DataFrame,
    images: ImageIndex,
) -> list[str]:
    """Return the name of each row's image, from the messages that begin with `key`.

    Numbers may follow the name, such as the position of the image.

    Raises
    ------
    BadInput
        No message does.
    """
    variable = f"{_VARIABLE}{key} "
    by_trial = {
        message.trial: message.text.removeprefix(variable).strip()
        for message in messages
        if message.text.startswith(variable)
    }
    if by_trial:
        return [by_trial.get(trial, "") for trial in rows["trial"]]
    named = [
        message._replace(text=_leading_name(message.text.removeprefix(key).strip(), images))
        for message in messages
        if message.text.startswith(f"{key} ")
    ]
    if not named:
        kinds = dict.fromkeys(" ".join(m.text.split()[:3]) for m in messages if m.trial)
        raise BadInput(
            table.file,
            "messages",
            found=list_names(list(kinds), _MAX_SHOWN),
            expected=f"messages '{key} NAME', or trial variables '{variable}NAME'",
            mend="set recording.image_column to the words before the name of the image, or to the "
            "trial variable with the name; if no message names it, set recording.image",
        )
    # TRIALID precedes the recording, other messages may come while it runs.
    named.sort(key=lambda message: (message.trial, message.time))
    keys = [(message.trial, message.time) for message in named]
    names = []
    for trial, start in zip(rows["trial"].tolist(), rows["start"].tolist(), strict=True):
        past = bisect_right(keys, (trial, start)) - 1
        names.append(named[past].text if past >= 0 and keys[past][0] == trial else "")
    return names


def _leading_name(text: str, images: ImageIndex) -> str:
    """Return the beginning of a text that names an image; the text if none does."""
    words = text.split(" ")
    beginnings = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((name for name in beginnings if images.has(name)), text)


def _check_names(
    table: Table, key: str, names: list[str], messages: list[_Message], images: ImageIndex
) -> None:
    """Advise on other messages with names of images, if `names` has none."""
    if any(images.has(name) for name in names if name):
        return
    for message in messages:
        words = message.text.split(" ")
        before = next((i for i, word in enumerate(words) if images.has(word)), 0)
        other = " ".join(words[:before]).removeprefix(_VARIABLE.rstrip()).strip()
        # The chosen messages may name images of trials without a fixation.
        if other not in ("", key):
            raise BadInput(
                table.file,
                f"messages '{key}'",
                found=list_names(list(dict.fromkeys(filter(None, names))), _MAX_SHOWN),
                expected="names of images of the data set",
                mend=f"set recording.image_column: {other}, as in the message {message.text!r}",
            )


def _check_size(
    table: Table,
    size: tuple[float, float],
    sample: NDArray[np.int64],
    images: ImageIndex,
    settings: RecordingSettings,
) -> None:
    """Check that the size of the display is that of recording.screen, or of the images."""
    stated = f"[{size[0]:g}, {size[1]:g}]"
    if settings.screen is not None:
        if np.abs(np.subtract(settings.screen.size, size)).max() > 1:
            raise BadInput(
                table.file,
                "DISPLAY_COORDS",
                found=f"a screen of {stated} px",
                expected=f"recording.screen.size: {list(settings.screen.size)}",
                mend=f"set recording.screen.size: {stated}",
            )
        return
    for position in np.unique(sample[sample >= 0]).tolist():
        height, width = images.sizes[position].tolist()
        if abs(width - size[0]) > 1 or abs(height - size[1]) > 1:
            raise BadInput(
                table.file,
                "DISPLAY_COORDS",
                found=f"a screen of {stated} px, while the image {images[position]!r} has "
                f"[{width}, {height}] px",
                expected="recording.screen, where the screen is not as large as the image",
                mend=f"set recording.screen: {{size: {stated}}}",
            )


def _find_images(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    recording: _Recording,
    rows: pd.DataFrame,
    images: ImageIndex,
    problems: Problems,
) -> NDArray[np.int64]:
    """Return (R,) the position of each row's image, -1 if the data set lacks it.

    Raises
    ------
    BadInput
        Nothing names the images, or recording.image names one while there are several trials.
    """
    trials = rows["trial"].nunique()
    if columns.image_name:
        if trials > 1:
            raise BadInput(
                table.file,
                "recording.image",
                found=f"{columns.image_name!r}, for {trials} trials",
                expected="messages that name the image of each trial",
                mend="remove recording.image; set recording.image_column to the words before the "
                "name of the image in the messages, or to the trial variable with the name",
            )
        sample = images.repeat_position(columns.image_name, len(rows))
    else:
        names = _name_images(table, columns.image, recording.messages, rows, images)
        _check_names(table, columns.image, names, recording.messages, images)
        sample = images.find_positions(pd.Series(pd.Categorical(names)))
        if unnamed := sum(not name for name in names):
            log.warning(
                "%s: no message '%s' names the image of %d %s, which do not count",
                table.file,
                columns.image,
                unnamed,
                "samples" if recording.samples else "fixations",
            )
    if recording.size is not None:
        with problems.collect():
            _check_size(table, recording.size, sample, images, settings)
    return sample


def read_gaze(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: ImageIndex,
    problems: Problems,
) -> pd.DataFrame:
    """Read the fixations of one eye.

    Returns
    -------
    As `fixations.read_gaze`; start_ms counts from START of the trial, and each trial is a reader.

    Raises
    ------
    BadInput
        The file has no fixations, nothing names the images, or recording.image names one while
        there are several trials.
    """
    recording = _read_file(table)
    if not recording.fixations:
        raise BadInput(
            table.file,
            "EFIX",
            found="no fixation",
            expected="lines EFIX: the fixations that the tracker detected",
            mend="convert the recording again with edf2asc, with events; or set "
            "recording.detection, if it holds samples",
        )
    fixations = pd.DataFrame(recording.fixations, columns=_Fixation._fields).set_index("line")
    fixations = _choose_eye(table, fixations, settings)
    sample = _find_images(table, columns, settings, recording, fixations, images, problems)
    rows = fixations[["x", "y", "duration", "since_start"]]
    rows = rows.set_axis(["x", "y", "duration_ms", "start_ms"], axis="columns")
    rows.insert(0, "sample", sample)
    rows.insert(1, "reader", fixations["trial"])
    return rows[sample >= 0]


def read_samples(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: ImageIndex,
    problems: Problems,
) -> pd.DataFrame:
    """Read the samples of one eye: the chosen one, otherwise the left one of each block.

    Returns
    -------
    As `samples.read_gaze`; a sequence is what one block, from START to END, shows of one image.

    Raises
    ------
    BadInput
        The file has no samples of the eye, or as `read_gaze`.
    """
    eyes = as_row_values(settings.rows)[_EYE] if settings.rows else [""]
    if len(eyes) != 1 or eyes[0] not in ("", "L", "R"):
        raise BadInput(
            table.file,
            "gaze.recording",
            found=f"recording.rows: {settings.rows}",
            expected=f"one {_EYE}: L or R",
            mend=f"set recording.rows: {{{_EYE}: L}} or {{{_EYE}: R}}, or remove it",
        )
    recording = _read_file(table, eyes[0])
    if not recording.samples:
        raise BadInput(
            table.file,
            "samples",
            found="no sample" + f" of the eye {eyes[0]}" * bool(eyes[0]),
            expected="lines of a time and the x, y and pupil of each eye, from START to END",
            mend="convert the recording again with edf2asc, with samples; or remove "
            "recording.detection and read the tracker's own fixations",
        )
    rows = pd.DataFrame(recording.samples, columns=_Sample._fields).set_index("line")
    sample = _find_images(table, columns, settings, recording, rows, images, problems)
    samples = pd.DataFrame(
        {
            "sample": sample,
            "sequence": rows["block"].to_numpy() * len(images) + sample,
            "time_ms": rows["start"],
            "x": rows["x"],
            "y": rows["y"],
        },
        index=rows.index,
    )[sample >= 0]
    return samples.sort_values("sequence", kind="stable")
