"""Each sample's recorded gaze, and whether it is there."""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.cli import BadInput, Problems, name_some
from stages.recordings import Scan, read_scans
from stages.settings.modules import reader_module
from stages.settings.recording import MAPS, RecordingSettings


def find_recorded(
    fixations: Path,
    sizes: Mapping[str, tuple[int, int]],
    recording: RecordingSettings,
    min_duration_ms: float,
    problems: Problems,
) -> dict[str, Scan | Path]:
    """Read the recorded gaze of a data set.

    Parameters
    ----------
    fixations
        The table, or the folder of maps.
    sizes
        Sample id → height and width of the image as it was looked at.
    recording
        The format, and what its coordinates mean.
    min_duration_ms
        Shorter fixations are dropped.
    problems
        Takes what is wrong with a table that can be read nevertheless.

    Returns
    -------
    Sample id → its fixations, or the file of its map. Of a sample whose fixations are
    all off the image or too short it holds their number.

    Raises
    ------
    BadInput
        The file or folder cannot be used.
    """
    if recording.format in MAPS:
        maps: Any = importlib.import_module(reader_module(recording.format))
        return dict(maps.find_maps(fixations, sizes))
    return dict(read_scans(fixations, sizes, recording, min_duration_ms, problems))


def read_map(
    file: Path, size: tuple[int, int], original_size: tuple[int, int]
) -> NDArray[np.float32]:
    """Read a map that `find_recorded` has found; see `stages.recordings.maps`."""
    maps: Any = importlib.import_module(reader_module("heatmaps"))
    read: NDArray[np.float32] = maps.read_map(file, size, original_size)
    return read


def has_gaze(scans: Mapping[str, Scan | Path], sample_id: str) -> bool:
    """Whether a sample has a fixation or a map."""
    scan = scans.get(sample_id)
    return isinstance(scan, Path) or (scan is not None and len(scan.fixations) > 0)


def check_present(
    where: Path,
    training: list[str],
    found: Collection[str],
    *,
    recorded: bool,
    partial: bool,
) -> None:
    """Stop where training samples lack gaze, unless some of them may.

    Raises
    ------
    BadInput
        With the samples, or the first of them.
    """
    known = set(found)
    lacking = [name for name in training if name not in known]
    if not lacking or (partial and len(lacking) < len(training)):
        return
    raise BadInput(
        where,
        "gaze of the training images",
        found=f"none for {len(lacking)} of {len(training)}: {name_some(lacking)}",
        expected="fixations for each" if recorded else "a mask for each, to simulate its fixations",
        mend=f"{'record' if recorded else 'draw'} them, take the images out of training, or leave "
        "them out of training: gaze.partial: true",
    )
