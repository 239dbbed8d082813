"""Which GPU a job takes, with a simulated driver: no GPU is needed."""

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
# Takes one of two GPUs, prints its index, and keeps it until the job is killed.
JOB = """
import sys, time, torch
from types import SimpleNamespace
from stages.core import device
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_properties = lambda index: SimpleNamespace(uuid=f"GPU-{index}")
print(device._claim_gpu(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Simulate two GPUs, with a folder of locks that no real job uses."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = [SimpleNamespace(uuid=f"GPU-{index}") for index in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: tmp_path)
    device._claim_gpu.cache_clear()
    yield chosen
    device._claim_gpu.cache_clear()


def start(folder):
    """Start a job; return it and the index of its GPU."""
    environment = os.environ | {"TMPDIR": str(folder)}
    job = subprocess.Popen(
        [sys.executable, "-c", JOB], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    return job, int(job.stdout.readline())


def test_parallel_jobs_take_one_gpu_each_and_a_killed_job_frees_its_gpu(machine, tmp_path, caplog):
    job, number = start(tmp_path)
    try:
        assert number == 0
        assert device.choose_device(1) == torch.device("cuda", 1)
        assert machine == [torch.device("cuda", 1)]
        # A second call in the same process returns the same GPU.
        assert device.choose_device(1) == torch.device("cuda", 1)
        assert "shared" not in caplog.text
    finally:
        job.kill()
        job.wait()
    again, number = start(tmp_path)
    again.kill()
    assert (number, again.wait() < 0) == (0, True)


@pytest.fixture
def taken(machine, tmp_path):
    """Start other jobs that use both GPUs."""
    jobs = [start(tmp_path) for _ in range(2)]
    yield sorted(number for _, number in jobs)
    for job, _ in jobs:
        job.kill()
        job.wait()


def test_a_gpu_is_shared_with_a_warning_if_all_are_taken(taken, caplog):
    assert taken == [0, 1]
    assert device.choose_device(1) == torch.device("cuda", 0)
    assert "other jobs use all 2 visible GPUs: sharing GPU 0" in caplog.text


def test_several_processes_of_one_training_never_share_a_gpu(taken, monkeypatch):
    monkeypatch.setattr(device.distributed, "is_torchelastic_launched", lambda: True)
    with pytest.raises(BadInput, match=r"--gpus[^$]*2 visible[^$]*lower `gpus`"):
        device.choose_device(1)


def test_no_gpu_is_taken_if_gpus_is_0(machine, tmp_path):
    assert device.choose_device(0) == torch.device("cpu")
    assert not list(tmp_path.iterdir())
