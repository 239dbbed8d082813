"""Fixation tables as the GazeMedSeg release publishes them (an EyeLink Data Viewer export)."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.cli import BadInput, log

# Column of the export → what it is here. The order is that of a fixation array's columns.
COLUMNS = {
    "CURRENT_FIX_X": "x",
    "CURRENT_FIX_Y": "y",
    "CURRENT_FIX_DURATION": "duration_ms",
    "CURRENT_FIX_START": "start_ms",
}


def _numbers(table: pd.DataFrame, column: str, file: Path) -> NDArray[np.float64]:
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise BadInput(
            file,
            f"column {column}, line {table.index[bad[0]] + 2}",
            found=repr(table[column].iloc[bad[0]]),
            expected="a number",
            mend="correct or delete the line",
        )
    return numbers


def read_fixations(
    file: Path, sample_ids: Collection[str], min_duration_ms: float
) -> dict[str, NDArray[np.float64]]:
    """Read a fixation CSV.

    Parameters
    ----------
    file
        Columns IMAGE (image file; its stem is the sample id), CURRENT_FIX_X and CURRENT_FIX_Y
        (0 left or top, 1 right or bottom), CURRENT_FIX_DURATION and CURRENT_FIX_START (ms).
    sample_ids
        Samples of the data set; rows of other images are left out, and counted in the log.
    min_duration_ms
        Shorter fixations are dropped, and so are those off the image.

    Returns
    -------
    Sample id → (F, 4) float64: x, y, duration_ms, start_ms, in the order of the file. Samples
    that nobody looked at are absent.

    Raises
    ------
    BadInput
        The file is no table, a column is absent, a value is no number, no row belongs to a
        sample, or more than half of the fixations lie off the image.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except ValueError as error:  # not UTF-8, empty, or a line with too many values
        raise BadInput(
            file,
            "file",
            found=error,
            expected="a table in UTF-8, commas between its columns",
            mend="export the fixation report again",
        ) from error
    # Blank lines leave only now, so that the index tells the line.
    table = table[(table != "").any(axis=1)]
    if absent := [c for c in ("IMAGE", *COLUMNS) if c not in table]:
        raise BadInput(
            file,
            "columns",
            found=list(table.columns),
            expected=f"also {absent}",
            mend="export the fixation report with these columns",
        )
    values = np.stack([_numbers(table, column, file) for column in COLUMNS], axis=1)
    stems = table["IMAGE"].map(lambda name: Path(name).stem)
    known = stems.isin(list(sample_ids)).to_numpy()
    if not known.any():
        raise BadInput(
            file,
            "column IMAGE",
            found=sorted(stems.unique())[:3],
            expected=f"names of images, such as {sorted(sample_ids)[:3]}",
            mend="give the data set its own fixation file",
        )
    if not known.all():
        log.warning("%s: %d rows are of images outside the data set", file, int((~known).sum()))
    x, y, duration, _ = values.T
    on_image = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    if on_image[known].mean() < 0.5:
        raise BadInput(
            file,
            "columns CURRENT_FIX_X, CURRENT_FIX_Y",
            found=f"{(~on_image[known]).mean():.0%} of the fixations off the image, "
            f"largest x {x[known].max():g}",
            expected="coordinates from 0 to 1",
            mend="divide pixels by the image's width and height",
        )
    keep = known & on_image & (duration >= min_duration_ms)
    log.info("%s: %d of %d fixations kept", file, int(keep.sum()), len(keep))
    rows = pd.Series(np.flatnonzero(keep)).groupby(stems[keep].to_numpy())
    return {str(name): values[index.to_numpy()] for name, index in rows}
