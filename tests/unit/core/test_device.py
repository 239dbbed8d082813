"""Which GPU a job takes, told by a pretended driver: none is needed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stages.core import device
from stages.core.cli import BadInput

ROOT = Path(__file__).resolve().parents[3]
# Takes a GPU of two, says which, and has it until it is killed.
JOB = """
import sys, time, torch
from types import SimpleNamespace
from stages.core import device
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_properties = lambda index: SimpleNamespace(uuid=f"GPU-{index}")
print(device._claim(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Two GPUs, and a folder of locks that no real job uses."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = [SimpleNamespace(uuid=f"GPU-{index}") for index in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: tmp_path)
    device._claim.cache_clear()
    yield chosen
    device._claim.cache_clear()


def start(folder):
    """Start a job; return it and the number of its GPU."""
    environment = os.environ | {"TMPDIR": str(folder)}
    job = subprocess.Popen(
        [sys.executable, "-c", JOB], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    return job, int(job.stdout.readline())


def test_jobs_side_by_side_take_a_gpu_each_and_give_it_back_however_they_end(
    machine, tmp_path, caplog
):
    job, number = start(tmp_path)
    try:
        assert number == 0
        assert device.choose(1) == torch.device("cuda", 1)
        assert machine == [torch.device("cuda", 1)]
        # Once more in the same process: the same one.
        assert device.choose(1) == torch.device("cuda", 1)
        assert "shared" not in caplog.text
    finally:
        job.kill()
        job.wait()
    again, number = start(tmp_path)
    again.kill()
    assert (number, again.wait() < 0) == (0, True)


@pytest.fixture
def taken(machine, tmp_path):
    """Both GPUs are other jobs'."""
    jobs = [start(tmp_path) for _ in range(2)]
    yield sorted(number for _, number in jobs)
    for job, _ in jobs:
        job.kill()
        job.wait()


def test_where_all_are_taken_one_is_shared_with_a_warning(taken, caplog):
    assert taken == [0, 1]
    assert device.choose(1) == torch.device("cuda", 0)
    assert "other jobs have all 2 GPUs that are visible: number 0 is shared" in caplog.text


def test_the_processes_of_a_training_share_none(taken, monkeypatch):
    monkeypatch.setattr(device.distributed, "is_torchelastic_launched", lambda: True)
    with pytest.raises(BadInput, match=r"--gpus[^$]*2 visible[^$]*lower `gpus`"):
        device.choose(1)


def test_none_is_taken_that_was_not_asked_for(machine, tmp_path):
    assert device.choose(0) == torch.device("cpu")
    assert not list(tmp_path.iterdir())
