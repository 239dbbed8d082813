"""Recordings of every tabular format → each image's fixations, checked."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.cli import BadInput, Problems, log
from stages.recordings import eyelink, samples, tobii
from stages.recordings.images import Images
from stages.recordings.placing import check_placement, on_image, to_image
from stages.recordings.scan import Scan
from stages.recordings.table import Columns, Table, open_table
from stages.settings.recording import RecordingSettings

_FORMATS = {"gazemedseg": eyelink, "eyelink": eyelink, "tobii": tobii, "samples": samples}


def _check_durations(table: Table, columns: Columns, fixations: pd.DataFrame) -> None:
    wrong = ~(fixations["duration_ms"].to_numpy() > 0)
    if wrong.any():
        row = int(wrong.argmax())
        duration = fixations["duration_ms"].iloc[row]
        raise BadInput(
            table.file,
            f"column {columns.duration}, line {fixations.index[row]}",
            found="none" if np.isnan(duration) else f"{duration:g} ms",
            expected="a duration above 0 ms",
            mend="correct or delete the line",
        )


def _find_fixations(
    table: Table, gaze: pd.DataFrame, settings: RecordingSettings, min_duration_ms: float
) -> pd.DataFrame:
    # Only raw samples need it, and its import takes longer than most recordings.
    from stages.recordings.detection import find_fixations

    found = find_fixations(gaze, settings, min_duration_ms)
    if not len(found):
        raise BadInput(
            table.file,
            "samples",
            found=f"no fixation in {len(gaze)} samples",
            expected=f"stretches of {min_duration_ms:g} ms or longer in which the gaze rests",
            mend="check recording.detection: threshold, rate_hz, screen_mm, distance_mm",
        )
    return found


def read_scans(
    file: Path,
    sizes: Mapping[str, tuple[int, int]],
    settings: RecordingSettings,
    min_duration_ms: float,
    problems: Problems,
) -> dict[str, Scan]:
    """Read a recording.

    Parameters
    ----------
    file
        A table; `settings.format` says of what: gazemedseg, eyelink, tobii or samples.
    sizes
        Sample id → height and width of its original image, px. Rows of other images are left out,
        and counted in the log.
    settings
        What the file holds and what its coordinates mean.
    min_duration_ms
        Shorter fixations are dropped, and so are those off the image or without a position.
    problems
        Takes what is wrong with a table, of which the rest is read nevertheless: a value that is
        no number, a duration not above 0, too many fixations off their image.

    Returns
    -------
    Sample id → scan, its fixations in the order of the file, all readers' together. Samples that
    no row is of are absent; those with rows that are all dropped have a scan without fixations.

    Raises
    ------
    BadInput
        Nothing can be read: the file is no table, a column is absent, or no row is of a sample. Of
        raw samples also with what `problems` would take, or where times do not grow or are not of
        the stated rate, or no fixation is found: fixations are not looked for in broken samples.
    """
    found = Problems()
    table = open_table(file)
    reader = _FORMATS[settings.format]
    columns = reader.find_columns(table, settings)
    images = Images(sizes)
    gaze = reader.read(table, columns, settings, images, found)
    with found.collect():
        images.check(table, columns.image)
    raw = settings.format == "samples"
    width_height = np.array([size[::-1] for size in sizes.values()], np.float64)
    # Of raw samples those without a position are blinks.
    placed = gaze[gaze["x"].notna() & gaze["y"].notna()] if raw else gaze
    if len(placed):
        with found.collect():
            check_placement(
                file,
                f"columns {columns.x}, {columns.y}",
                placed[["x", "y"]].to_numpy(),
                width_height[placed["sample"]],
                settings,
                "samples" if raw else "fixations",
            )
    if raw or not len(gaze):
        found.stop()
        gaze = _find_fixations(table, gaze, settings, min_duration_ms) if raw else gaze
    else:
        with found.collect():
            _check_durations(table, columns, gaze)
        problems += found
    return _gather(file, list(sizes), gaze, width_height, settings, min_duration_ms)


def _gather(
    file: Path,
    sample_ids: list[str],
    fixations: pd.DataFrame,
    width_height: NDArray[np.float64],
    settings: RecordingSettings,
    min_duration_ms: float,
) -> dict[str, Scan]:
    sample = fixations["sample"].to_numpy()
    place = to_image(fixations[["x", "y"]].to_numpy(), width_height[sample], settings)
    values = np.concatenate([place, fixations[["duration_ms", "start_ms"]].to_numpy()], axis=1)
    long = values[:, 2] >= min_duration_ms
    on = on_image(place)
    log.info("%s: %d of %d fixations kept", file, int((long & on).sum()), len(values))
    order = np.argsort(sample, kind="stable")
    present, firsts = np.unique(sample[order], return_index=True)
    return {
        sample_ids[number]: Scan(
            values[rows[(long & on)[rows]]],
            int((long & ~on)[rows].sum()),
            int((~long)[rows].sum()),
        )
        for number, rows in zip(present, np.split(order, firsts[1:]), strict=True)
    }
