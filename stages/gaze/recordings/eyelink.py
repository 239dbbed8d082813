"""Fixation reports of EyeLink Data Viewer, and the GazeMedSeg tables, which derive from one."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings.images import ImageIndex
from stages.gaze.recordings.table import Columns, Table, read_columns, require_columns
from stages.settings.recording import RecordingSettings

# Columns of the GazeMedSeg tables with the height and width of the shown image, px.
_SIZE_COLUMNS = ("IMAGE_HEIGHT", "IMAGE_WIDTH")


def find_columns(table: Table, settings: RecordingSettings) -> Columns:
    """Return the column names of a report.

    Raises
    ------
    BadInput
        A column is absent.
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
        mend += "; if another column names the image, set recording.image_column"
    require_columns(table, columns, mend)
    return columns


def read_gaze(
    table: Table,
    columns: Columns,
    settings: RecordingSettings,
    images: ImageIndex,
    problems: Problems,
) -> pd.DataFrame:
    """Read the fixations of a report, one row each.

    A report may have fixations without x or y (`.`), because the eye was lost; they are kept. In a
    GazeMedSeg table a missing value is an error. If a GazeMedSeg table states the size of the shown
    image, `problems` collects sizes that differ from the data set's by more than a pixel.

    Returns
    -------
    Frame with the columns sample (position of the image), x, y (NaN if the eye was lost),
    duration_ms and start_ms; the index is the line in the file. Rows of other images are absent.
    start_ms (CURRENT_FIX_START) counts from the start of the trial.
    """
    gazemedseg = settings.format == "gazemedseg"
    size_columns = _SIZE_COLUMNS if gazemedseg and set(_SIZE_COLUMNS) <= set(table.columns) else ()
    fixation_columns = (columns.x, columns.y, columns.duration, columns.time)
    optional = size_columns if gazemedseg else fixation_columns[:2]
    numbers = [*fixation_columns, *size_columns]
    parts: list[pd.DataFrame] = []
    wrong_sizes: dict[int, _ShownSize] = {}
    for part in read_columns(table, [columns.image], numbers, optional, problems):
        sample = images.find_positions(part.pop(columns.image))
        part = part[sample >= 0]
        sample = sample[sample >= 0]
        if size_columns:
            _collect_wrong_sizes(sample, part[list(size_columns)], images, wrong_sizes)
        rows = part[list(fixation_columns)]
        rows = rows.set_axis(["x", "y", "duration_ms", "start_ms"], axis="columns")
        rows.insert(0, "sample", sample)
        parts.append(rows)
    with problems.collect():
        _check_sizes(table, images, wrong_sizes)
    return pd.concat(parts)


class _ShownSize(NamedTuple):
    line: int
    size: tuple[float, float]


def _collect_wrong_sizes(
    sample: NDArray[np.int64],
    shown: pd.DataFrame,
    images: ImageIndex,
    wrong_sizes: dict[int, _ShownSize],
) -> None:
    """Add to `wrong_sizes` each image that was shown in another size, with its first line."""
    size = shown.to_numpy()
    # A missing size is NaN, which never compares as different.
    for row in np.flatnonzero((np.abs(size - images.sizes[sample]) > 1).any(axis=1)).tolist():
        height, width = size[row].tolist()
        wrong_sizes.setdefault(int(sample[row]), _ShownSize(int(shown.index[row]), (height, width)))


def _check_sizes(table: Table, images: ImageIndex, wrong_sizes: dict[int, _ShownSize]) -> None:
    if wrong_sizes:
        position, (line, (height, width)) = next(iter(wrong_sizes.items()))
        others = len(wrong_sizes) - 1
        more = f"; {others} more with another size" if others else ""
        raise BadInput(
            table.file,
            f"columns {' and '.join(_SIZE_COLUMNS)}, line {line}",
            found=f"{height:g} and {width:g} for the sample {images[position]!r}{more}",
            expected="{} and {}, the size of its image".format(*images.sizes[position]),
            mend="use the images that were shown; if the images were only scaled afterwards, "
            "delete the two columns",
        )
