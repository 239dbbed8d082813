"""Each sample's recorded gaze, and whether it is there."""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, name_some
from stages.gaze.recordings import Scan, read_scans
from stages.settings.modules import reader_module
from stages.settings.recording import MAPS, RecordingSettings

# Why fixations are dropped, in the order in which a scan counts them → the settings that decide it.
_DROPPED = {
    "off the image": "unit, origin and screen of gaze.recording",
    "too short": "gaze.min_fixation_ms",
}


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
    """Read a map that `find_recorded` has found; see `stages.gaze.recordings.maps`."""
    maps: Any = importlib.import_module(reader_module("heatmaps"))
    read: NDArray[np.float32] = maps.read_map(file, size, original_size)
    return read


def has_gaze(scans: Mapping[str, Scan | Path], sample_id: str) -> bool:
    """Whether a sample has a fixation or a map."""
    scan = scans.get(sample_id)
    return isinstance(scan, Path) or (scan is not None and len(scan.fixations) > 0)


def _count_dropped(scan: Scan | Path | None) -> dict[str, int]:
    numbers = scan[1:] if isinstance(scan, Scan) else ()
    return {why: number for why, number in zip(_DROPPED, numbers) if number}


def check_present(
    where: Path,
    training: list[str],
    found: Collection[str],
    scans: Mapping[str, Scan | Path],
    *,
    recorded: bool,
    partial: bool,
) -> None:
    """Stop where training samples lack gaze, unless some of them may.

    Parameters
    ----------
    where
        The recording, or the images that were to be simulated on, for the message.
    training
        Ids of the training samples.
    found
        Ids of the samples with gaze.
    scans
        As `find_recorded` returns it: tells gaze that was dropped from gaze that is not there.
    recorded
        Whether gaze is recorded, not simulated.
    partial
        Whether some may lack it.

    Raises
    ------
    BadInput
        With the samples, or the first of them, and how many fixations of each were dropped.
    """
    known = set(found)
    lacking = [name for name in training if name not in known]
    if not lacking or (partial and len(lacking) < len(training)):
        return
    dropped = {name: _count_dropped(scans.get(name)) for name in lacking}
    named = [
        f"{name} (dropped: {', '.join(f'{number} {why}' for why, number in counts.items())})"
        if counts
        else name
        for name, counts in dropped.items()
    ]
    checks = [key for why, key in _DROPPED.items() if any(why in c for c in dropped.values())]
    if len(lacking) == len(training):
        # Without these nothing is left to train on.
        mend = (
            "record them, or train on images that have some"
            if recorded
            else "draw masks of training images, or name recorded gaze: fixations instead of "
            "gaze.simulate"
        )
    else:
        mend = (
            f"{'record' if recorded else 'draw'} them, take the images out of training, or leave "
            "them out of training: gaze.partial: true"
        )
    raise BadInput(
        where,
        "gaze of the training images",
        found=f"none for {len(lacking)} of {len(training)}: {name_some(named)}",
        expected="fixations for each" if recorded else "a mask for each, to simulate its fixations",
        mend=(f"check {', and '.join(checks)}; or " if checks else "") + mend,
    )
