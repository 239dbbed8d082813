"""Raw gaze samples of any eye tracker, in a table with columns of our own naming."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, log
from stages.gaze.recordings.detection import find_fixations as detect_fixations
from stages.gaze.recordings.images import Images
from stages.gaze.recordings.table import Columns, Table, codes, read_columns, require
from stages.settings.recording import DetectionSettings, RecordingSettings

READER = "reader"
VALID = "valid"
_TRUTHS = {"true": "1", "false": "0"}
# By how much the samples may be denser or sparser than the stated rate.
_RATE_TOLERANCE = 0.2
# Ratios of the stated to the recorded step that a unit of time explains.
_TIME_UNITS = {1000.0: "seconds", 0.001: "microseconds", 0.000001: "nanoseconds"}


def find_columns(table: Table, settings: RecordingSettings) -> Columns:
    """Name the columns of a table of samples.

    Raises
    ------
    BadInput
        One of them is absent.
    """
    columns = Columns(
        image=settings.image_column or "image", x="x", y="y", time="time_ms", duration=""
    )
    require(
        table,
        columns[:4],
        "name the columns so; where another column names the image, say which: "
        "recording.image_column",
    )
    return columns


def read(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: Images,
    problems: Problems,
) -> pd.DataFrame:
    """Read the samples of the data set's images, in recorded order within each sequence.

    A sequence is what one reader (column `reader`, where there is one) looked at in one image.
    Where x or y is missing, or a column `valid` holds 0 or false, the eye was lost. So it was where
    both are exactly 0, unless the origin is the centre: many trackers write that, and nobody's
    gaze hits a corner of the screen to the last digit. These are counted in the log.

    Returns
    -------
    Frame of sample (position of the image), sequence (a number), time_ms, x, y (NaN where lost);
    the line is its index. Rows of a sequence follow each other.
    """
    readers = [READER] if READER in table.columns else []
    valid = [VALID] if VALID in table.columns else []
    # `valid` as text: it may hold true and false, and each word is translated but once.
    text = [columns.image, *readers, *valid]
    numbers = (columns.time, columns.x, columns.y)
    known: dict[str, int] = {}
    parts, zeros = [], 0
    for part in read_columns(table, text, numbers, numbers[1:], problems):
        sample = images.find(part[columns.image])
        reader = codes(part[READER], known) if readers else np.zeros(len(part), np.int64)
        rows = part[[columns.time, columns.x, columns.y]]
        rows = rows.set_axis(["time_ms", "x", "y"], axis="columns")
        if valid:
            with problems.collect():
                rows.loc[_find_lost(table, part[VALID]), ["x", "y"]] = np.nan
        rows.insert(0, "sample", sample.astype(np.int32))
        rows.insert(1, "sequence", (reader * len(images) + sample))
        rows = rows[sample >= 0]
        if settings.origin != "centre":
            zero = ((rows["x"] == 0) & (rows["y"] == 0)).to_numpy()
            rows.loc[zero, ["x", "y"]] = np.nan
            zeros += int(zero.sum())
        parts.append(rows)
    samples = pd.concat(parts)
    if zeros:
        log.warning(
            "%s: %d of %d samples lie exactly at (0, 0), and count as lost",
            table.file,
            zeros,
            len(samples),
        )
    sequence = samples["sequence"].to_numpy()
    if (sequence[1:] < sequence[:-1]).any():
        samples = samples.iloc[np.argsort(sequence, kind="stable")]
    assert settings.detection is not None
    with problems.collect():
        _check_times(table, columns, samples, settings.detection)
    return samples


def find_fixations(
    table: Table, samples: pd.DataFrame, settings: RecordingSettings, min_duration_ms: float
) -> pd.DataFrame:
    """Find the fixations in what `read` returned; see `stages.gaze.recordings.detection`.

    Raises
    ------
    BadInput
        There is none.
    """
    found = detect_fixations(samples, settings, min_duration_ms)
    if not len(found):
        lost = samples["x"].isna().sum()
        raise BadInput(
            table.file,
            "samples",
            found=f"no fixation in {len(samples)} samples, of which {lost} are lost",
            expected=f"stretches of {min_duration_ms:g} ms or longer in which the gaze rests",
            mend="check recording.detection: threshold, rate_hz, screen_mm, distance_mm",
        )
    return found


def _find_lost(table: Table, valid: pd.Series) -> NDArray[np.bool_]:
    """(R,) whether the eye was lost, of (R,) categories of text."""
    words = [word.strip().lower().replace(",", ".") for word in valid.cat.categories]
    numbers = pd.to_numeric(pd.Series([_TRUTHS.get(word, word) for word in words]), errors="coerce")
    number = numbers.to_numpy(np.float64, na_value=np.nan)[valid.cat.codes.to_numpy()]
    # Some trackers count the other way: 0 is their best.
    wrong = ~np.isin(number, [0, 1])
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(
            table.file,
            f"column {VALID}, line {valid.index[row]}",
            found=repr(valid.iloc[row]),
            expected="1 or true, or 0 or false where the eye was lost",
            mend="translate the tracker's own words or numbers into these",
        )
    lost: NDArray[np.bool_] = number == 0
    return lost


def _check_times(
    table: Table, columns: Columns, samples: pd.DataFrame, detection: DetectionSettings
) -> None:
    step = np.diff(samples["time_ms"].to_numpy())
    within = np.diff(samples["sequence"].to_numpy()) == 0
    back = within & (step <= 0)
    if back.any():
        row = int(back.argmax()) + 1
        before, time = samples["time_ms"].iloc[[row - 1, row]]
        copies = samples.duplicated().to_numpy()
        # Two readers, both lost at one time, are elsewhere at another.
        copied = time == before and bool(copies[1:][within & (step == 0)].all())
        raise BadInput(
            table.file,
            f"column {columns.time}, line {samples.index[row]}",
            found=f"{time:g} after {before:g}"
            + (f"; {copies.sum()} of {len(copies)} rows repeat another" if copied else ""),
            expected="times that grow, for each reader and image",
            mend="delete the repeated rows"
            if copied
            else f"sort the rows by time; where several recordings are in the file, tell them "
            f"apart in a column {READER}",
        )
    if not within.any():
        return
    found, stated = float(np.median(step[within])), 1000 / detection.rate_hz
    if abs(found / stated - 1) > _RATE_TOLERANCE:
        unit = next(
            (name for r, name in _TIME_UNITS.items() if abs(found * r / stated - 1) < 0.2), None
        )
        raise BadInput(
            table.file,
            f"column {columns.time}",
            found=f"{found:.4g} from one sample to the next, as a rule",
            expected=f"about {stated:.4g} ms, as recording.detection.rate_hz: "
            f"{detection.rate_hz:g} says",
            mend=f"the times look like {unit}: give them in milliseconds"
            if unit
            else f"correct rate_hz: {1000 / found:.4g} would fit, if the times are milliseconds",
        )
