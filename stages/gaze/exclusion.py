"""Which samples the limits on the quality of gaze leave out of training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import io


def left_out(quality: Path | None, sample_ids: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Tell for each sample whether gaze_quality.csv leaves it out; without the file none is."""
    if quality is None:
        return np.zeros(len(sample_ids), bool)
    table = io.read_csv(quality, ("sample_id", "left_out"), ())
    excluded = table.loc[table["left_out"] == "True", "sample_id"]
    return np.isin(sample_ids.astype(str), excluded.to_numpy(str))
