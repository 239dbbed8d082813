"""The result files of a training, as the report reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import io
from stages.settings.report import ReportTraining


class TrainingFiles(NamedTuple):
    """A training and its result files."""

    training: ReportTraining
    predictions: Path
    metrics: Path


def read_test_dice(files: TrainingFiles) -> dict[tuple[str, str], float]:
    """Return (sample id, model) → Dice of the test samples, at full resolution."""
    table = io.read_csv(files.metrics, ("sample_id", "split", "model"), ("dice",))
    test = table[table["split"] == "test"]
    return dict(zip(zip(test["sample_id"], test["model"], strict=True), test["dice"], strict=True))


def find_rows(file: h5py.File, sample_ids: Sequence[str], metrics: Path) -> NDArray[np.intp]:
    """Return the index in `file` of each sample, (N,); the ids come from the table `metrics`.

    Raises
    ------
    BadInput
        `file` lacks a sample.
    """
    rows = pd.Index(io.read_strings(file, "sample_id")).get_indexer(pd.Index(sample_ids))
    for missing in np.flatnonzero(rows < 0)[:1]:
        name = sample_ids[missing]
        found = f"no sample {name!r}, which is in {metrics}"
        io.find_sample_index(file, name, where=file.filename, found=found)
    return rows
