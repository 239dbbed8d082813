"""Load the recorded gaze of a data set, and check that the training samples have gaze."""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, list_names
from stages.gaze.recordings import Scanpath, read_scanpaths
from stages.settings.modules import reader_module
from stages.settings.recording import MAP_FORMATS, RecordingSettings

# Reason why a fixation is dropped → the settings that decide it; the order is that of the counts in
# `Scanpath`.
_DROP_REASONS = {
    "off the image": "unit, origin and screen of gaze.recording",
    "too short": "gaze.min_fixation_ms",
}


def read_recorded_gaze(
    fixations: Path,
    sizes: Mapping[str, tuple[int, int]],
    recording: RecordingSettings,
    min_duration_ms: float,
    problems: Problems,
    masks: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> dict[str, Scanpath | Path]:
    """Read the recorded gaze of a data set.

    Parameters
    ----------
    fixations
        The table, or the folder of maps.
    sizes
        Sample id → height and width of its original image, px.
    recording
        The format and the meaning of the coordinates.
    min_duration_ms
        Shorter fixations are dropped.
    problems
        Collects the errors of a table that is readable nevertheless.
    masks
        Sample id → mask, for some samples; see `read_scanpaths`.

    Returns
    -------
    Sample id → its scanpath, or the file of its map. If all fixations of a sample are off the image
    or too short, the scanpath holds only their numbers.

    Raises
    ------
    BadInput
        The file or folder cannot be used.
    """
    if recording.format in MAP_FORMATS:
        maps: Any = importlib.import_module(reader_module(recording.format))
        return dict(maps.find_maps(fixations, sizes))
    return dict(read_scanpaths(fixations, sizes, recording, min_duration_ms, problems, masks))


def read_map(
    file: Path, size: tuple[int, int], original_size: tuple[int, int]
) -> NDArray[np.float32]:
    """Read a map file that `read_recorded_gaze` returned; see `stages.gaze.recordings.maps`."""
    maps: Any = importlib.import_module(reader_module("heatmaps"))
    pixels: NDArray[np.float32] = maps.read_map(file, size, original_size)
    return pixels


def has_gaze(scanpaths: Mapping[str, Scanpath | Path], sample_id: str) -> bool:
    """Return whether a sample has a fixation or a map."""
    scanpath = scanpaths.get(sample_id)
    return isinstance(scanpath, Path) or (scanpath is not None and len(scanpath.fixations) > 0)


def _count_dropped(scanpath: Scanpath | Path | None) -> dict[str, int]:
    """Return reason → number of dropped fixations, without reasons that never occur."""
    counts = scanpath[1:] if isinstance(scanpath, Scanpath) else ()
    return {reason: count for reason, count in zip(_DROP_REASONS, counts) if count}


def require_gaze(
    source: Path,
    training_ids: list[str],
    ids_with_gaze: Collection[str],
    scanpaths: Mapping[str, Scanpath | Path],
    *,
    recorded: bool,
    partial: bool,
) -> None:
    """Require gaze for every training sample, or for at least one of them if `partial` is true.

    Parameters
    ----------
    source
        For the message: the recording, or the file with the masks for the simulation.
    training_ids
        Ids of the training samples.
    ids_with_gaze
        Ids of the samples with gaze.
    scanpaths
        As from `read_recorded_gaze`; shows which samples lack gaze because it was dropped.
    recorded
        Whether the gaze is recorded (true) or simulated (false).
    partial
        Whether some training samples may lack gaze.

    Raises
    ------
    BadInput
        Training samples lack gaze. The message lists them, or the first of them, and the number of
        dropped fixations of each.
    """
    known = set(ids_with_gaze)
    without_gaze = [name for name in training_ids if name not in known]
    if not without_gaze or (partial and len(without_gaze) < len(training_ids)):
        return
    dropped = {name: _count_dropped(scanpaths.get(name)) for name in without_gaze}
    descriptions = [
        f"{name} (dropped: {', '.join(f'{count} {reason}' for reason, count in counts.items())})"
        if counts
        else name
        for name, counts in dropped.items()
    ]
    settings_to_check = [
        setting
        for reason, setting in _DROP_REASONS.items()
        if any(reason in counts for counts in dropped.values())
    ]
    if len(without_gaze) == len(training_ids):
        # No training sample is left, so gaze.partial cannot help.
        mend = (
            "record them, or train on images that have fixations"
            if recorded
            else "draw masks for training images, or use recorded gaze: set `fixations` and remove "
            "gaze.simulate"
        )
    else:
        mend = (
            f"{'record' if recorded else 'draw'} them, move the images out of the training split, "
            "or set gaze.partial: true to train without these images"
        )
    raise BadInput(
        source,
        "gaze of the training images",
        found=f"none for {len(without_gaze)} of {len(training_ids)}: {list_names(descriptions)}",
        expected="fixations for each" if recorded else "a mask for each, to simulate its fixations",
        mend=(f"check {', and '.join(settings_to_check)}; or " if settings_to_check else "") + mend,
    )
