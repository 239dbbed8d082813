"""Gaze where there is no recording: fixations drawn from the masks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stages.gaze.recordings.scan import Scan
from stages.gaze.scanpath import simulate_fixations
from stages.settings.gaze import GazeSettings


def simulate(
    sample_ids: NDArray[np.object_],
    masked: NDArray[np.bool_],
    read_mask: Callable[[int], NDArray[np.bool_]],
    settings: GazeSettings,
) -> dict[str, Scan]:
    """Draw fixations from the masks of the samples where `masked` is true.

    Each sample has a generator of its own: its gaze does not depend on which others there are.
    """
    assert settings.simulate is not None
    scans: dict[str, Scan] = {}
    for i in np.flatnonzero(masked).tolist():
        rng = np.random.default_rng([settings.seed, *str(sample_ids[i]).encode()])
        found = simulate_fixations(read_mask(i), settings=settings.simulate, rng=rng)
        long = found[:, 2] >= settings.min_fixation_ms
        scans[str(sample_ids[i])] = Scan(found[long], 0, int((~long).sum()))
    return scans
