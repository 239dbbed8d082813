"""Each sample's gaze: read from a recording or simulated, and checked to be there."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.cli import BadInput, Problems, name_some
from stages.recordings import Scan, maps, read_scans
from stages.scanpath import simulate_fixations
from stages.settings.gaze import GazeSettings
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
        return dict(maps.find_maps(fixations, sizes))
    return dict(read_scans(fixations, sizes, recording, min_duration_ms, problems))


def simulate(
    sample_ids: NDArray[np.object_],
    masked: NDArray[np.bool_],
    read_mask: Callable[[int], NDArray[np.bool_]],
    settings: GazeSettings,
) -> dict[str, Scan | Path]:
    """Draw fixations from the masks of the samples where `masked` is true.

    Each sample has a generator of its own: its gaze does not depend on which others there are.
    """
    assert settings.simulate is not None
    scans: dict[str, Scan | Path] = {}
    for i in np.flatnonzero(masked).tolist():
        rng = np.random.default_rng([settings.seed, *str(sample_ids[i]).encode()])
        found = simulate_fixations(read_mask(i), settings=settings.simulate, rng=rng)
        long = found[:, 2] >= settings.min_fixation_ms
        scans[str(sample_ids[i])] = Scan(found[long], 0, int((~long).sum()))
    return scans


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
