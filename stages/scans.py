"""Each sample's gaze: read from a recording or simulated, and checked to be there."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.cli import BadInput, Problems
from stages.recordings import Scan, maps, read_scans
from stages.scanpath import simulate_fixations
from stages.settings.gaze import GazeSettings
from stages.settings.recording import MAPS, RecordingSettings

# How many samples a message names.
_NAMED = 20


def find_recorded(
    fixations: Path,
    sizes: Mapping[str, tuple[int, int]],
    recording: RecordingSettings,
    min_duration_ms: float,
    problems: Problems,
) -> dict[str, Scan | None]:
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
    Sample id → its fixations; None where there is a map instead. Of a sample whose fixations are
    all off the image or too short it holds their number.

    Raises
    ------
    BadInput
        The file or folder cannot be used.
    """
    if recording.format in MAPS:
        return dict.fromkeys(maps.list_maps(fixations, sizes))
    return dict(read_scans(fixations, sizes, recording, min_duration_ms, problems))


def simulate(
    sample_ids: NDArray[np.object_],
    masked: NDArray[np.bool_],
    read_mask: Callable[[int], NDArray[np.bool_]],
    settings: GazeSettings,
) -> dict[str, Scan | None]:
    """Draw fixations from the masks of the samples where `masked` is true.

    Each sample has a generator of its own: its gaze does not depend on which others there are.
    """
    assert settings.simulate is not None
    scans: dict[str, Scan | None] = {}
    for i in np.flatnonzero(masked).tolist():
        rng = np.random.default_rng([settings.seed, *str(sample_ids[i]).encode()])
        found = simulate_fixations(read_mask(i), settings=settings.simulate, rng=rng)
        long = found[:, 2] >= settings.min_fixation_ms
        scans[str(sample_ids[i])] = Scan(found[long], 0, int((~long).sum()))
    return scans


def has_gaze(scans: Mapping[str, Scan | None], sample_id: str) -> bool:
    """Whether a sample has a fixation or a map."""
    return sample_id in scans and ((scan := scans[sample_id]) is None or len(scan.fixations) > 0)


def check_present(
    where: Path,
    training: list[str],
    scans: Mapping[str, Scan | None],
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
    lacking = [name for name in training if not has_gaze(scans, name)]
    if not lacking or (partial and len(lacking) < len(training)):
        return
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    raise BadInput(
        where,
        "gaze of the training images",
        found=f"none for {len(lacking)} of {len(training)}: {', '.join(lacking[:_NAMED])}{more}",
        expected="fixations for each" if recorded else "a mask for each, to simulate its fixations",
        mend=f"{'record' if recorded else 'draw'} them, take the images out of train.txt, or leave "
        "them out of training: gaze.partial: true",
    )
