"""Fixation reports of EyeLink Data Viewer, and the tables that GazeMedSeg made of one."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings.images import Images
from stages.gaze.recordings.table import Columns, Table, read_columns, require
from stages.settings.recording import RecordingSettings

# Height and width of the image that was shown, px, in GazeMedSeg's tables.
_SIZE = ("IMAGE_HEIGHT", "IMAGE_WIDTH")


def find_columns(table: Table, settings: RecordingSettings) -> Columns:
    """Name the columns of a report.

    Raises
    ------
    BadInput
        One of them is absent.
    """
    columns = Columns(
        image=settings.image_column or "IMAGE",
        x="CURRENT_FIX_X",
        y="CURRENT_FIX_Y",
        time="CURRENT_FIX_START",
        duration="CURRENT_FIX_DURATION",
    )
    mend = "export the fixation report with these columns"
    if columns.image not in table.columns:
        mend += "; where another column names the image, say which: recording.image_column"
    require(table, columns, mend)
    return columns


def read(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: Images,
    problems: Problems,
) -> pd.DataFrame:
    """Read the fixations of a report, one row each.

    A fixation without x or y (`.` in a report) is kept: the eye was lost. GazeMedSeg's tables
    have none of these, so there a missing value is a fault. Where they say how large the image was
    that was shown, `problems` takes what differs from the data set's by more than a pixel.

    Returns
    -------
    Frame of sample (position of the image), x, y (NaN where lost), duration_ms and start_ms, with
    the line as index; rows of other images are left out. CURRENT_FIX_START counts from the start
    of the trial.
    """
    released = settings.format == "gazemedseg"
    sized = _SIZE if released and set(_SIZE) <= set(table.columns) else ()
    fixation = (columns.x, columns.y, columns.duration, columns.time)
    optional = sized if released else fixation[:2]
    parts: list[pd.DataFrame] = []
    wrong: dict[int, _Shown] = {}
    for part in read_columns(table, [columns.image], [*fixation, *sized], optional, problems):
        sample = images.find(part.pop(columns.image))
        part = part[sample >= 0]
        sample = sample[sample >= 0]
        if sized:
            _compare(sample, part[list(sized)], images, wrong)
        rows = part[list(fixation)].set_axis(["x", "y", "duration_ms", "start_ms"], axis="columns")
        rows.insert(0, "sample", sample)
        parts.append(rows)
    with problems.collect():
        _check_sizes(table, images, wrong)
    return pd.concat(parts)


class _Shown(NamedTuple):
    line: int
    size: tuple[float, float]


def _compare(
    sample: NDArray[np.int64], shown: pd.DataFrame, images: Images, wrong: dict[int, _Shown]
) -> None:
    """Add the images that were shown in another size, with the first line that says so."""
    size = shown.to_numpy()
    # What is not said differs from nothing.
    for row in np.flatnonzero((np.abs(size - images.size[sample]) > 1).any(axis=1)).tolist():
        height, width = size[row].tolist()
        wrong.setdefault(int(sample[row]), _Shown(int(shown.index[row]), (height, width)))


def _check_sizes(table: Table, images: Images, wrong: dict[int, _Shown]) -> None:
    if wrong:
        place, (line, (height, width)) = next(iter(wrong.items()))
        others = f", and other sizes of {len(wrong) - 1} more samples" if len(wrong) > 1 else ""
        raise BadInput(
            table.file,
            f"columns {' and '.join(_SIZE)}, line {line}",
            found=f"{height:g} and {width:g} for the sample {images[place]!r}{others}",
            expected="{} and {}, the size of its image".format(*images.size[place]),
            mend="give the data set the images that were shown; where they were only scaled since, "
            "delete the two columns",
        )
