"""After a kill or with a broken file, a run keeps its results and leaves no partial files."""

import os
import signal
import time

import pytest

from tests.workspace import Workspace, tiny_config


@pytest.fixture
def workspace(tmp_path):
    config = tiny_config()
    config["datasets"]["demo_isic"]["experiments"] = ["gaze_only"]
    return Workspace(tmp_path, config)


def leftovers(workspace):
    return [p for p in (workspace.folder / "results").rglob("*") if p.suffix == ".tmp"]


def test_a_run_after_a_kill_in_training_ends_like_an_undisturbed_one(workspace):
    config = workspace.config["datasets"]["demo_isic"]["student"]
    run = workspace.folder / "results/demo_isic/gaze_only/seed0"
    workspace.must_run("demo_isic")
    expected = (run / "student.safetensors").read_bytes()
    gaze_time = (run / "../../gaze.h5").stat().st_mtime_ns

    # Make the training long enough to kill it midway; later, restore the setting.
    before = dict(config)
    config["iterations"] = 100_000
    workspace.save_config()
    process = workspace.start("demo_isic")
    log = run / "logs/student.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and "student 10:" in log.read_text()):
        assert time.monotonic() < deadline, "the training did not start"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (run / "student.safetensors").exists()

    config.clear()
    config.update(before)
    workspace.save_config()
    workspace.must_run("--unlock")
    # All results that need the weights exist and fit the settings again, so Snakemake makes the
    # weights only if they are a target.
    workspace.must_run("results/demo_isic/gaze_only/seed0/student.safetensors", "demo_isic")
    assert (run / "student.safetensors").read_bytes() == expected
    assert (run / "../../gaze.h5").stat().st_mtime_ns == gaze_time
    assert not leftovers(workspace)


def test_message_names_a_broken_file_and_other_results_stay(workspace):
    workspace.must_run("results/demo_isic/gaze.h5")
    gaze = workspace.folder / "results/demo_isic/gaze.h5"
    gaze.write_bytes(gaze.read_bytes()[:1000])
    status, printed = workspace.run("demo_isic")
    assert status != 0
    assert "results/demo_isic/gaze.h5: file" in printed
    assert "to mend:  delete it and run snakemake again" in printed
    assert not (workspace.folder / "results/demo_isic/gaze_only/seed0/student.safetensors").exists()
    assert (workspace.folder / "results/demo_isic/prepared.h5").exists()
    assert not leftovers(workspace)

    gaze.unlink()
    workspace.must_run("demo_isic")
