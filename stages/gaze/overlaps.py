"""Nobody's time counts twice: find and mend fixations of one reader that overlap in time.

An export may hold a fixation several times: once for each eye, once for each sample while it grows,
or because the export was appended to itself. Readers are told apart by their names; without names,
another reading of the image begins where the time falls back.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stages.core.cli import BadInput, list_names, log

# Where the start falls back by more than this, another reading of the image begins, ms. Less is a
# row in the wrong order, or the other eye.
MAX_LATE_MS = 100.0
# Fixations that overlap by at most this much overlap only because times are rounded, ms.
_ROUNDING_MS = 2.0
# Two fixations are at one place if they differ by less in x and in y, fractions of the image.
_NEAR = 0.1
# A larger share of fixations that overlap at two places stops the run.
_MAX_APART = 0.1
# Both eyes of one reader: their fixations begin and last alike, ms, at nearly the same place
# (fractions of the image). Two readers hardly agree so in half of their fixations, if there are
# some.
_EYES_MS, _EYES_NEAR, _MIN_EYES_SHARE, _MIN_EYES = 25.0, 0.05, 0.5, 5
# Without starts: a row may continue the fixation of the row above if it is as near as this
# (fractions of the image). A larger share of such rows, of at least so many rows, stops the run.
_GROWING_NEAR, _MAX_REPEATS, _MIN_ROWS = 0.01, 0.4, 5
# Largest number of lines in a message.
_MAX_LINES = 5
_READERS = "if they are of several readers, name them in recording.columns.reader"


def count_once(file: Path, fixations: pd.DataFrame) -> pd.DataFrame:
    """Let each reader's time count once.

    - Of fixations that agree in reader, image, place, duration and start, the first one counts.
    - Of two fixations at one place that share half of the shorter one's time, the longer counts.
    - Of other overlapping fixations, the earlier one ends where the later one begins.

    A warning counts the fixations that this changes, and names their lines. It also says where the
    time falls back, so that more time counts than passed. If the starts are unknown or all equal,
    nothing is changed.

    Parameters
    ----------
    file
        For messages.
    fixations
        Frame with the columns sample, reader (numbers), x, y (fractions of the image; NaN if
        unknown), duration_ms and start_ms (NaN if unknown); the index is the line.

    Returns
    -------
    Frame of the same form, in the same order.

    Raises
    ------
    BadInput
        Fixations that one reader cannot have made: at two places at the same time; or two readings
        of one reader that agree fixation by fixation, as both eyes do. Without starts: many rows
        that repeat a row, or continue the row above.
    """
    if not len(fixations):
        return fixations
    if fixations["start_ms"].nunique() < 2 and fixations.duplicated(["sample", "reader"]).any():
        _check_without_starts(file, fixations)
        return fixations
    fixations = _drop_copies(file, fixations)
    reading = _number_readings(fixations)
    fixations = _join(file, fixations.assign(reading=reading))
    _check_eyes(file, fixations)
    _warn_of_readings(file, fixations)
    return fixations.drop(columns="reading")


def name_lines(lines: Collection[int]) -> str:
    """Name lines of a file for a message, the first five by their numbers."""
    return f"line{'s' * (len(lines) > 1)} {list_names([*lines], _MAX_LINES)}"


def _check_without_starts(file: Path, fixations: pd.DataFrame) -> None:
    """Check that not many rows repeat another one, or continue the fixation of the row above."""
    values = fixations[["sample", "reader", "x", "y", "duration_ms"]]
    copies = (values.duplicated() & values["x"].notna()).to_numpy()
    step = values.diff().to_numpy()
    same = (step[:, :2] == 0).all(axis=1) & (np.abs(step[:, 2:4]) <= _GROWING_NEAR).all(axis=1)
    wrong = copies | (same & (step[:, 4] >= 0))
    if wrong.sum() <= _MAX_REPEATS * len(wrong) or len(wrong) < _MIN_ROWS:
        return
    raise BadInput(
        file,
        name_lines(fixations.index[wrong]),
        found=f"{wrong.sum()} of {len(wrong)} rows repeat a fixation, or continue that of the row "
        "above",
        expected="each fixation once",
        mend="set recording.columns.index to the column that numbers the fixations, if one has "
        "several rows; delete the rows that are in the file twice",
    )


def _drop_copies(file: Path, fixations: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that repeat another: two readers hardly agree in all values."""
    keys = ["sample", "reader", "x", "y", "duration_ms", "start_ms"]
    copies = fixations.duplicated(keys).to_numpy() & fixations["x"].notna().to_numpy()
    if copies.any():
        log.warning(
            "%s: %d of %d fixations have the image, place, duration and start of another one, and "
            "do not count (%s): did you append an export to an existing file?",
            file, copies.sum(), len(fixations), name_lines(fixations.index[copies]),
        )  # fmt: skip
    return fixations[~copies]


def _number_readings(fixations: pd.DataFrame) -> NDArray[np.int64]:
    """Return (F,) the number of each row's reading: of one image by one reader."""
    key = fixations[["sample", "reader"]].to_numpy()
    order = np.lexsort((key[:, 1], key[:, 0]))
    begins = (np.diff(key[order], axis=0) != 0).any(axis=1)
    begins |= np.diff(fixations["start_ms"].to_numpy()[order]) < -MAX_LATE_MS
    reading = np.empty(len(fixations), np.int64)
    reading[order] = np.cumsum(np.append(False, begins))
    return reading


def _join(file: Path, fixations: pd.DataFrame) -> pd.DataFrame:
    """Join and cut the fixations that overlap within a reading; see `count_once`."""
    order = np.lexsort((fixations["start_ms"], fixations["reading"]))
    ordered = fixations.iloc[order]
    kept = _find_longest(ordered, _find_same(file, ordered))
    joined = ordered.index.delete(kept)
    order, ordered = order[kept], ordered.iloc[kept]
    ordered, late = _cut(ordered)
    if changed := len(joined) + int(late.sum()):
        lines = joined.append(ordered.index[late]).sort_values()
        log.warning(
            "%s: %d of %d fixations overlap another one of the same image in time (%s): both eyes, "
            "or a row for each sample? Of two at one place the longer one counts; otherwise the "
            "earlier one ends where the later one begins. To choose: recording.rows (one eye), "
            "recording.columns.index (rows of one fixation); %s",
            file, changed, len(fixations), name_lines(lines), _READERS,
        )  # fmt: skip
    ordered = ordered.iloc[np.argsort(order)]
    return ordered[ordered["duration_ms"] > 0]


def _find_same(file: Path, ordered: pd.DataFrame) -> NDArray[np.bool_]:
    """Return (F - 1,) whether a fixation is the one before it: at its time and at its place.

    Raises
    ------
    BadInput
        Too many are at the time of the one before, but at another place.
    """
    start, duration, reading = (
        ordered[name].to_numpy() for name in ("start_ms", "duration_ms", "reading")
    )
    overlap = np.where(reading[1:] == reading[:-1], start[:-1] + duration[:-1] - start[1:], 0.0)
    half = overlap >= np.minimum(duration[1:], duration[:-1]) / 2
    distance = np.abs(np.diff(ordered[["x", "y"]].to_numpy(), axis=0)).max(axis=1)
    # A distance to a lost position is NaN, and not larger.
    apart = half & (distance > _NEAR)
    if apart.sum() > max(1, _MAX_APART * len(ordered)):
        row = int(apart.argmax())
        raise BadInput(
            file,
            name_lines(ordered.index[row : row + 2].sort_values()),
            found=f"{apart.sum()} of {len(ordered)} fixations of one image at the time of "
            "another one, but at another place",
            expected="one fixation of each reader at a time",
            mend=f"{_READERS}; if they are of both eyes, choose one in recording.rows",
        )
    return np.asarray(half & ~apart)


def _find_longest(ordered: pd.DataFrame, same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the position of the longest (of equal ones the first) of each chain of same ones."""
    chain = np.concatenate([[0], np.cumsum(~same)])
    longest = np.lexsort((np.arange(len(chain)), -ordered["duration_ms"].to_numpy(), chain))
    return np.sort(longest[np.diff(chain[longest], prepend=-1) > 0])


def _cut(ordered: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """End each fixation where the next of its reading begins; also return which ended later."""
    start, duration, reading = (
        ordered[name].to_numpy() for name in ("start_ms", "duration_ms", "reading")
    )
    # Within a reading the starts increase.
    limit = np.append(np.where(reading[1:] == reading[:-1], start[1:], np.inf), np.inf)
    late = start + duration - limit > _ROUNDING_MS
    return ordered.assign(duration_ms=np.where(late, limit - start, duration)), late


def _check_eyes(file: Path, fixations: pd.DataFrame) -> None:
    """Check that no two readings of an image agree fixation by fixation, as both eyes do."""
    units = [0.25, _EYES_MS, _EYES_MS, _EYES_NEAR, _EYES_NEAR]
    with np.errstate(over="ignore"):
        values = fixations[["sample", "start_ms", "duration_ms", "x", "y"]].to_numpy(float) / units
    # Without a place or a start, or absurdly far away.
    finite = np.isfinite(values).all(axis=1)
    located, values = fixations[finite], values[finite]
    if not len(located):
        return
    pairs = cKDTree(values).query_pairs(1, p=np.inf, output_type="ndarray")
    reading = located["reading"].to_numpy()
    pairs = np.sort(pairs[reading[pairs[:, 0]] != reading[pairs[:, 1]]], axis=1)
    count = len(np.unique(pairs))
    if len(pairs) < _MIN_EYES or count < _MIN_EYES_SHARE * len(located):
        return
    first, second = located.iloc[pairs[:, 0]], located.iloc[pairs[:, 1]]
    lines = " and ".join(map(str, min(zip(first.index, second.index, strict=True))))
    found = (
        f"{count} of {len(located)} fixations begin and last like another one of the same image, "
        "at nearly the same place: both eyes of one reader, or an export twice?"
    )
    if (first["reader"].to_numpy() != second["reader"].to_numpy()).all():
        log.warning(
            "%s: %s (such as lines %s). Their time counts twice; if so, keep one eye", file, found,
            lines,
        )  # fmt: skip
        return
    raise BadInput(
        file,
        f"lines {lines}",
        found=found,
        expected="one eye of each reader",
        mend=f"keep one eye, as by recording.rows, or delete the copy; {_READERS}",
    )


def _warn_of_readings(file: Path, fixations: pd.DataFrame) -> None:
    """Warn if more time counts for a reader than passed, because the time falls back."""
    end = fixations["start_ms"] + fixations["duration_ms"]
    groups = fixations.assign(end=end).groupby(["sample", "reader"])
    span = groups["end"].max() - groups["start_ms"].min()
    longer = groups["duration_ms"].sum() > span + _ROUNDING_MS * groups.size()
    if longer.any():
        again = fixations.duplicated(["sample", "reader"]) & ~fixations.duplicated("reading")
        log.warning(
            "%s: the fixations of a reader on an image (on %d) last longer than the time from the "
            "first to the last: where the start falls back (%s), another reader or trial begins. "
            "If not, delete these rows; %s",
            file, longer.sum(), name_lines(fixations.index[again]), _READERS,
        )  # fmt: skip
