"""The libraries of a job use as many threads as its rule has, and no more."""

import json

import pytest

from tests.workspace import Workspace, own_data_settings, tiny_config

# Replaces a stage, and writes how many threads the stage would use.
PROBE = """
import json
import os
import sys
from pathlib import Path

import torch

seen = {name: os.environ.get(f"{name}_NUM_THREADS") for name in ("OMP", "MKL", "OPENBLAS")}
seen |= {"torch": torch.get_num_threads(), "stage": sys.argv[sys.argv.index("--threads") + 1]}
Path(sys.argv[sys.argv.index("--output") + 1]).write_text(json.dumps(seen))
"""


# `threads` of the data set, cores of Snakemake, and the threads of the job.
@pytest.mark.parametrize(("wanted", "cores", "threads"), [(1, 3, 1), (4, 2, 2)])
def test_libraries_use_the_threads_of_the_rule(
    tmp_path, kvasir, monkeypatch, wanted, cores, threads
):
    config = tiny_config()
    config["datasets"]["ours"] = own_data_settings(config, str(kvasir), threads=wanted)
    workspace = Workspace(tmp_path / "clone", config)
    (workspace.folder / "stages/data/prepare.py").write_text(PROBE)
    # The values of the shell that starts Snakemake must not count.
    for name in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", "7")
    workspace.must_run("--cores", str(cores), "results/ours/prepared.h5")
    seen = json.loads((workspace.folder / "results/ours/prepared.h5").read_text())
    # PyTorch uses fewer threads if the machine has fewer cores.
    assert seen.pop("torch") <= threads
    assert set(seen.values()) == {str(threads)}
