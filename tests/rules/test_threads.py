"""The libraries of a job take as many threads as its rule has, and no more."""

import json

import pytest

from tests.workspace import Workspace, own_data_settings, tiny_config

# In place of a stage: what it would compute with.
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


# A data set's `threads`, Snakemake's cores, and what a job gets.
@pytest.mark.parametrize(("wanted", "cores", "threads"), [(1, 3, 1), (4, 2, 2)])
def test_libraries_follow_the_threads_of_the_rule(
    tmp_path, kvasir, monkeypatch, wanted, cores, threads
):
    config = tiny_config()
    config["datasets"]["ours"] = own_data_settings(config, str(kvasir), threads=wanted)
    workspace = Workspace(tmp_path / "clone", config)
    (workspace.folder / "stages/data/prepare.py").write_text(PROBE)
    # Whatever the shell says from which Snakemake is started.
    for name in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", "7")
    workspace.must_run("--cores", str(cores), "results/ours/prepared.h5")
    seen = json.loads((workspace.folder / "results/ours/prepared.h5").read_text())
    # Fewer where the machine has no more cores.
    assert seen.pop("torch") <= threads
    assert set(seen.values()) == {str(threads)}
