"""The check of a machine's GPU, rehearsed on the CPU: the script itself must run."""

import json
import os
import subprocess
import sys

import pytest

from tests.workspace import ROOT


@pytest.mark.slow
def test_the_checks_pass_on_the_cpu():
    command = [sys.executable, str(ROOT / "benchmarks/gpu_check.py"), "--rehearse"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    *lines, last = run.stdout.splitlines()
    result = json.loads(last)
    assert result["rehearsal"]
    # The ratio of two tiny steps means nothing.
    assert [line for line in lines if line.startswith("FAIL") and "FAIL steps" not in line] == []
    assert result["checks"]["steps"]["ratio"] > 0
    assert result["checks"]["resume"]["was_killed"]


def test_a_machine_without_a_gpu_is_told_so():
    command = [sys.executable, str(ROOT / "benchmarks/gpu_check.py")]
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | hidden
    )
    assert "no GPU is visible" in run.stdout
    assert json.loads(run.stdout.splitlines()[-1])["gpu"] is None
