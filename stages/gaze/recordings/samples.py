"""Raw gaze samples: exports of the trackers, edf2asc, and any table whose columns are named."""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.core.cli import BadInput, Problems, log
from stages.gaze.recordings import asc
from stages.gaze.recordings.columns import find_lost
from stages.gaze.recordings.detection import detect_fixations
from stages.gaze.recordings.exports import open_export
from stages.gaze.recordings.images import ImageIndex
from stages.gaze.recordings.presets import RAW_PRESETS, Preset
from stages.gaze.recordings.table import Columns, Table, encode_names, read_columns
from stages.settings.recording import RecordingSettings

# Smaller shares of the seen time in fixations cause a warning; in pictures 80 to 90 % are usual.
_MIN_SHARE = 0.6
# A larger velocity threshold from the noise causes a warning, degrees per second.
_NOISY_VELOCITY = 40.0
# Largest relative difference between the recorded and the stated time step.
_RATE_TOLERANCE = 0.2
# Ratio of the stated to the recorded time step → the time unit that explains this ratio.
_TIME_UNITS = {1000.0: "seconds", 0.001: "microseconds", 0.000001: "nanoseconds"}
_UNIT_SIGNS = {"seconds": "s", "microseconds": "us", "nanoseconds": "ns"}


def open_recording(file: Path, settings: RecordingSettings) -> tuple[Table, Columns]:
    """Open a table of samples.

    Raises
    ------
    BadInput
        See `open_export`.
    """
    if settings.format == "eyelink":
        if asc.is_asc(file):
            return asc.open_recording(file, settings)
        raise BadInput(
            file,
            "gaze.recording.detection",
            found="a table, not a text file of edf2asc",
            expected="raw samples of EyeLink in a text file of edf2asc",
            mend="convert the EDF file with edf2asc; or remove recording.detection and read the "
            "fixation report; or name the columns, with recording.format: samples",
        )
    return open_export(file, settings, _presets(settings))


def _presets(settings: RecordingSettings) -> tuple[Preset, ...]:
    """Return the kinds of raw gaze that the table may be."""
    presets = RAW_PRESETS[settings.format]
    if settings.format == "samples" and settings.columns.start:
        # Our own column is in ms; another one must state its unit.
        return tuple(preset._replace(time_unit=None) for preset in presets)
    return presets


def read_gaze(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: ImageIndex,
    problems: Problems,
) -> pd.DataFrame:
    """Read the samples of the data set's images, in recorded order within each sequence.

    A sequence holds the samples of one reader on one image. The eye was lost if x or y is missing,
    if the column `valid` says so, if the pupil is 0, or if x and y are both exactly 0 and the
    origin is not the centre: many trackers write (0, 0) for a lost eye, and real gaze never hits a
    corner of the screen exactly. The log counts the samples at (0, 0).

    Returns
    -------
    Frame with the columns sample (position of the image), sequence (a number), time_ms, x, y (NaN
    if the eye was lost); the index is the line in the file. Rows of a sequence are consecutive.
    """
    if asc.is_asc_table(table):
        samples = asc.read_samples(table, columns, settings, images, problems)
        with problems.collect():
            _check_times(table, columns, samples, settings)
        return samples
    # `valid` is read as text because it may hold true and false.
    text = [columns.image, columns.reader, columns.valid, columns.number]
    text = [name for name in text if name]
    numbers = [columns.time, columns.x, columns.y]
    numbers += [columns.pupil] if columns.pupil else []
    valid_range = settings.valid_range
    if valid_range is None and not settings.columns.valid:
        valid_range = RAW_PRESETS[settings.format][0].valid_range
    known: dict[str, int] = {}
    parts, zero_count = [], 0
    for part in read_columns(table, text, numbers, numbers[1:], problems):
        if columns.number:
            # Rows of events have no number of a sample.
            part = part[(part[columns.number] != "").to_numpy()]
        sample = (
            images.find_positions(part[columns.image])
            if columns.image
            else images.repeat_position(columns.image_name, len(part))
        )
        reader = (
            encode_names(part[columns.reader], known)
            if columns.reader
            else np.zeros(len(part), np.int64)
        )
        rows = part[[columns.time, columns.x, columns.y]]
        rows = rows.set_axis(["time_ms", "x", "y"], axis="columns")
        rows["time_ms"] *= columns.time_ms
        lost = find_lost(table, columns, part, valid_range, problems)
        rows.loc[lost, ["x", "y"]] = np.nan
        rows.insert(0, "sample", sample.astype(np.int32))
        rows.insert(1, "sequence", (reader * len(images) + sample))
        rows = rows[sample >= 0]
        if "centre" not in settings.origin:
            at_zero = ((rows["x"] == 0) & (rows["y"] == 0)).to_numpy()
            rows.loc[at_zero, ["x", "y"]] = np.nan
            zero_count += int(at_zero.sum())
        parts.append(rows)
    samples = pd.concat(parts)
    if zero_count:
        log.warning(
            "%s: %d of %d samples lie exactly at (0, 0), and count as lost",
            table.file,
            zero_count,
            len(samples),
        )
    sequence = samples["sequence"].to_numpy()
    if (sequence[1:] < sequence[:-1]).any():
        samples = samples.iloc[np.argsort(sequence, kind="stable")]
    with problems.collect():
        _check_times(table, columns, samples, settings)
    return samples


def find_fixations(
    table: Table, samples: pd.DataFrame, settings: RecordingSettings, min_duration_ms: float
) -> pd.DataFrame:
    """Find the fixations in the result of `read_gaze`; see `stages.gaze.recordings.detection`.

    Raises
    ------
    BadInput
        The samples contain no fixation.
    """
    fixations, seen_ms, threshold = detect_fixations(samples, settings, min_duration_ms)
    if not len(fixations):
        lost = samples["x"].isna().sum()
        raise BadInput(
            table.file,
            "samples",
            found=f"no fixation in {len(samples)} samples, of which {lost} are lost",
            expected=f"periods of {min_duration_ms:g} ms or longer in which the gaze rests",
            mend="check recording.detection: threshold, rate_hz, screen_mm, distance_mm",
        )
    _report_share(table, settings, fixations, seen_ms, threshold)
    return fixations


def _report_share(
    table: Table,
    settings: RecordingSettings,
    fixations: pd.DataFrame,
    seen_ms: float,
    threshold: float,
) -> None:
    """Log which share of the seen time is in fixations; warn if it is small, or the noise large."""
    assert settings.detection is not None
    by_velocity = settings.detection.method == "velocity"
    name = "max_velocity" if by_velocity else "max_dispersion"
    from_noise = by_velocity and settings.detection.max_velocity is None
    dwell_ms = float(fixations["duration_ms"].sum())
    log.info(
        "%s: %d fixations last %.2f of the %.2f s in which the eye was seen (%.0f %%); %s: %.3g%s",
        table.file, len(fixations), dwell_ms / 1000, seen_ms / 1000, 100 * dwell_ms / seen_ms, name,
        threshold, " (from the noise)" if from_noise else "",
    )  # fmt: skip
    if dwell_ms < _MIN_SHARE * seen_ms:
        log.warning(
            "%s: only %.0f %% of the time in which the eye was seen is in fixations (usual: %.0f "
            "%% or more): raise recording.detection.%s (%.3g here) or smoothing_ms, and check "
            "screen_mm, distance_mm and rate_hz, which all angles depend on",
            table.file, 100 * dwell_ms / seen_ms, 100 * _MIN_SHARE, name, threshold,
        )  # fmt: skip
    if from_noise and threshold > _NOISY_VELOCITY:
        log.warning(
            "%s: noisy samples: saccades are told from noise only above %.3g degrees per second, "
            "so small ones are missed and fixations are long. Prefer the tracker's own fixations, "
            "if it exports them; or compare with recording.detection.max_velocity: 30",
            table.file, threshold,
        )  # fmt: skip


def _check_times(
    table: Table, columns: Columns, samples: pd.DataFrame, settings: RecordingSettings
) -> None:
    """Check that the times of each sequence increase and fit the stated sampling rate."""
    detection = settings.detection
    assert detection is not None
    step = np.diff(samples["time_ms"].to_numpy())
    same_sequence = np.diff(samples["sequence"].to_numpy()) == 0
    not_increasing = same_sequence & (step <= 0)
    if not_increasing.any():
        row = int(not_increasing.argmax()) + 1
        previous, time = samples["time_ms"].iloc[[row - 1, row]]
        found = f"{time:g} after {previous:g}"
        distinguish = (
            "if the file holds several recordings, distinguish them in a column reader "
            "(recording.columns.reader)"
        )
        mend = f"sort the rows by time; {distinguish}"
        at_once = int((same_sequence & (step == 0)).sum())
        if time == previous and at_once:
            duplicates = samples.duplicated().to_numpy()
            # Only if every row with a repeated time is a duplicate, rows were copied: two readers
            # whose eyes are both lost have equal rows, but not at every time.
            if duplicates[1:][same_sequence & (step == 0)].all():
                found += f"; {duplicates.sum()} of {len(duplicates)} rows repeat another"
                mend = "delete the repeated rows"
            else:
                found += f"; {at_once} samples have the time of the sample before (both eyes?)"
                mend = (
                    "keep one sample of each time: choose one eye (recording.rows, or the columns "
                    f"of one eye), or average both; {distinguish}"
                )
        raise BadInput(
            table.file,
            f"column {columns.time}, line {samples.index[row]}",
            found=found,
            expected="increasing times for each reader and image",
            mend=mend,
        )
    if not same_sequence.any():
        return
    median_step, stated_step = float(np.median(step[same_sequence])), 1000 / detection.rate_hz
    if abs(median_step / stated_step - 1) > _RATE_TOLERANCE:
        unit = next(
            (
                name
                for ratio, name in _TIME_UNITS.items()
                if abs(median_step * ratio / stated_step - 1) < 0.2
            ),
            None,
        )
        raise BadInput(
            table.file,
            f"column {columns.time}",
            found=f"a median step of {median_step:.4g} from one sample to the next",
            expected=f"about {stated_step:.4g} ms (recording.detection.rate_hz: "
            f"{detection.rate_hz:g})",
            mend=f"the times look like {unit}: set recording.time_unit: {_UNIT_SIGNS[unit]}"
            if unit and not settings.time_unit
            else f"set rate_hz to {1000 / median_step:.4g}, if recording.time_unit is right",
        )
