"""Gaze for a data set without a recording: fixations simulated from its masks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stages.gaze.recordings.scan import Scanpath
from stages.gaze.scanpath import simulate_fixations
from stages.settings.gaze import GazeSettings


def simulate_gaze(
    sample_ids: NDArray[np.object_],
    selected: NDArray[np.bool_],
    read_mask: Callable[[int], NDArray[np.bool_]],
    settings: GazeSettings,
) -> dict[str, Scanpath]:
    """Simulate fixations from the masks of the samples for which `selected` is True.

    Each sample has its own random generator, so its gaze does not depend on the other samples.
    """
    assert settings.simulate is not None
    scanpaths: dict[str, Scanpath] = {}
    for i in np.flatnonzero(selected).tolist():
        rng = np.random.default_rng([settings.seed, *str(sample_ids[i]).encode()])
        fixations = simulate_fixations(read_mask(i), settings=settings.simulate, rng=rng)
        long_enough = fixations[:, 2] >= settings.min_fixation_ms
        scanpaths[str(sample_ids[i])] = Scanpath(
            fixations[long_enough], 0, int((~long_enough).sum())
        )
    return scanpaths
