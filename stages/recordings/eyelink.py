"""Fixation reports of EyeLink Data Viewer, and the tables that GazeMedSeg made of one."""

import pandas as pd

from stages.cli import Problems
from stages.recordings.images import Images
from stages.recordings.table import Columns, Table, read_columns, require
from stages.settings.recording import RecordingSettings


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
    have none of these, so there a missing value is a fault.

    Returns
    -------
    Frame of sample (position of the image), x, y (NaN where lost), duration_ms and start_ms, with
    the line as index; rows of other images are left out. CURRENT_FIX_START counts from the start
    of the trial.
    """
    lost = (columns.x, columns.y) if settings.format == "eyelink" else ()
    numbers = (columns.x, columns.y, columns.duration, columns.time)
    parts = []
    for part in read_columns(table, [columns.image], numbers, lost, problems):
        sample = images.find(part.pop(columns.image))
        part = part.set_axis(["x", "y", "duration_ms", "start_ms"], axis="columns")
        part.insert(0, "sample", sample)
        parts.append(part[sample >= 0])
    return pd.concat(parts)
