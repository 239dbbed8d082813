"""The samples that gaze_quality.csv excludes from training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import io


def excluded_samples(quality: Path | None, sample_ids: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return (N,) bool: True where gaze_quality.csv excludes the sample; without a file, all False.

    The table excludes a sample where its column `left_out` is True.
    """
    if quality is None:
        return np.zeros(len(sample_ids), bool)
    table = io.read_csv(quality, ("sample_id", "left_out"), ())
    excluded = table.loc[table["left_out"] == "True", "sample_id"]
    return np.isin(sample_ids.astype(str), excluded.to_numpy(str))
