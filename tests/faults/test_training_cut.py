"""A training that is interrupted anywhere continues and ends with the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import TINY, make_files, read_history, train_tiny_student, train_tiny_teacher

from stages.settings.parts import EncoderSettings
from stages.settings.training import StudentSettings, TeacherSettings
from stages.training import checkpoint, loop
from stages.training.checkpoint import Interrupted
from stages.training.encoder import prepare_encoder

ROOT = Path(__file__).resolve().parents[2]
LONG = {"iterations": 9, "log_every": 4, "validate_every": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Tiny inputs, and weights of an encoder, which only the networks with that encoder read."""
    folder = tmp_path_factory.mktemp("files")
    settings = EncoderSettings(encoder="test_efficientnet", weights="none")
    prepare_encoder(folder / "encoder.safetensors", settings)
    return make_files(folder) | {"encoder": folder / "encoder.safetensors"}


@pytest.fixture(scope="module")
def teacher(files, tmp_path_factory):
    return train_tiny_teacher(files, tmp_path_factory.mktemp("teacher"), **LONG)


def interrupt_at(monkeypatch, after, end):
    """Call `end` once, in optimiser step number `after`."""
    original, calls = loop.make_optimiser, []

    def make_counting_optimiser(*arguments):
        optimiser = original(*arguments)
        step = optimiser.step

        def counting_step(*rest):
            calls.append(1)
            if len(calls) == after:
                end()
            return step(*rest)

        optimiser.step = counting_step
        return optimiser

    monkeypatch.setattr(loop, "make_optimiser", make_counting_optimiser)


@pytest.fixture
def as_in_a_terminal():
    """Handle Ctrl-C as in a terminal; a job in the background of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("as_in_a_terminal")
@pytest.mark.parametrize("options", [{}, {"ema": 0.7}, {"patience": 2}, {"optimiser": "sgd"}])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_teacher_continues_after_a_signal(files, tmp_path, monkeypatch, number, options):
    handler = signal.getsignal(number)
    whole = train_tiny_teacher(files, tmp_path / "whole", **LONG | options)
    folder = tmp_path / "cut"
    for after in (2, 3):
        with monkeypatch.context() as patch:
            interrupt_at(patch, after, lambda: os.kill(os.getpid(), number))
            with pytest.raises(Interrupted) as raised:
                train_tiny_teacher(files, folder, **LONG | options)
        assert raised.value.code == 128 + number
        assert len(list((folder / "work").iterdir())) == 1
        assert not (folder / "teacher.safetensors").exists()
    resumed = train_tiny_teacher(files, folder, **LONG | options)
    assert resumed.read_bytes() == whole.read_bytes()
    one, other = (read_history(file).drop(columns="seconds") for file in (resumed, whole))
    assert one.equals(other)
    # The checkpoint is deleted, and the signal handlers are restored.
    assert not list((folder / "work").iterdir())
    assert signal.getsignal(number) == handler


def test_a_training_in_the_background_ignores_ctrl_c(files, tmp_path, monkeypatch):
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt_at(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train_tiny_teacher(files, tmp_path, **LONG).exists()
    finally:
        signal.signal(signal.SIGINT, handler)


# The settings that only the student of one method needs.
METHODS = {
    "distilled": {},
    "gazemedseg": {"method": "gazemedseg"},
    "published": {"method": "published", "teacher_widths": TINY["widths"]},
    "encoder": {
        "method": "single", "encoder": "test_efficientnet", "encoder_weights": "none",
        "decoder_widths": (16, 16, 8, 8, 8),
    },
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=4)
@given(after=st.integers(1, 9))
def test_a_student_killed_at_any_iteration_continues_from_its_checkpoint(
    files, teacher, tmp_path_factory, method, after
):
    folder = tmp_path_factory.mktemp("student")
    guide, options = teacher if method == "distilled" else None, LONG | METHODS[method]
    whole = train_tiny_student(files, folder / "whole", guide, **options)

    class Killed(Exception):
        pass

    def die():
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "SAVE_INTERVAL", 0)
        interrupt_at(patch, after, die)
        with pytest.raises(Killed):
            train_tiny_student(files, folder / "cut", guide, **options)
    found = train_tiny_student(files, folder / "cut", guide, **options)
    assert found.read_bytes() == whole.read_bytes()
    one, other = (read_history(file).drop(columns="seconds") for file in (found, whole))
    pd.testing.assert_frame_equal(one, other)


def test_a_truncated_checkpoint_restarts_the_training(files, tmp_path, monkeypatch, caplog):
    whole = train_tiny_teacher(files, tmp_path / "whole", **LONG)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train_tiny_teacher(files, tmp_path / "cut", **LONG)
    (file,) = (tmp_path / "cut" / "work").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    found = train_tiny_teacher(files, tmp_path / "cut", **LONG)
    assert f"{file} cannot be read" in caplog.text
    assert found.read_bytes() == whole.read_bytes()


def test_another_number_of_threads_restarts_the_training(files, tmp_path, monkeypatch, caplog):
    # Another number of threads adds in another order.
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train_tiny_teacher(files, tmp_path, threads=2, **LONG)
    caplog.set_level("INFO")
    train_tiny_teacher(files, tmp_path, **LONG)
    assert "resumed" not in caplog.text
    assert not list((tmp_path / "work").iterdir())


def test_another_setting_restarts_and_leaves_no_checkpoint(files, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train_tiny_teacher(files, tmp_path / "cut", **LONG)
    changed = LONG | {"learning_rate": 0.02}
    found = train_tiny_teacher(files, tmp_path / "cut", **changed)
    assert (
        found.read_bytes() == train_tiny_teacher(files, tmp_path / "whole", **changed).read_bytes()
    )
    assert not list((tmp_path / "cut" / "work").iterdir())


def command(role, settings, files, folder):
    """Return the arguments of `python -m` that train a network on `files` in `folder`."""
    paths = files | {"output": folder / f"{role}.safetensors", "work": folder / "work"}
    paths |= {"history": folder / f"{role}_history.csv"}
    named = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    return [f"stages.training.{role}", *named, "--settings", settings.model_dump_json(),
            "--seed", "0", "--threads", "1", "--gpus", "0", "--resident-mb", "100"]  # fmt: skip


def test_a_signalled_process_leaves_a_checkpoint_and_exits_with_143(files, tmp_path):
    endless = {"iterations": 10**6, "log_every": 1, "validate_every": 10**6}
    options = TeacherSettings(**TINY | endless)
    process = subprocess.Popen(
        [sys.executable, "-m", *command("teacher", options, files, tmp_path)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert any("teacher 1: " in line for line in iter(process.stderr.readline, ""))
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert len(list((tmp_path / "work").glob("teacher-*.safetensors"))) == 1
    assert "is saved in" in printed


def two_process_command(role, options, files, folder):
    """Return the command that trains with two processes."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return [sys.executable, "-m", *launch, *command(role, options, files, folder)]


def train_on_two_processes(role, options, files, folder):
    """Train with two processes; return the weights file."""
    subprocess.run(
        two_process_command(role, options, files, folder), cwd=ROOT, check=True, timeout=120
    )
    return folder / f"{role}.safetensors"


JOINED = {"iterations": 4, "batch_size": 4, "optimiser": "sgd", "learning_rate": 0.01}


def test_two_processes_have_the_losses_of_one_with_the_whole_batch(files, tmp_path):
    one = train_tiny_teacher(files, tmp_path / "one", **JOINED)
    options = TeacherSettings(**TINY | JOINED)
    two = train_on_two_processes("teacher", options, files, tmp_path / "two")
    rows, others = read_history(one), read_history(two)
    assert torch.allclose(torch.tensor(rows["loss"]), torch.tensor(others["loss"]), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_the_same_student_as_one(files, teacher, tmp_path, method):
    changes = JOINED | METHODS[method] | {"ramp_iterations": 2}
    guide = {"teacher": teacher} if method == "distilled" else {}
    one = train_tiny_student(files, tmp_path / "one", **guide, **changes)
    options, inputs = StudentSettings(**TINY | changes), files | guide
    if options.reads_pseudolabels:
        inputs |= {"pseudolabels": tmp_path / "one" / "pseudolabels.h5"}
    two = train_on_two_processes("student", options, inputs, tmp_path / "two")
    rows, others = read_history(one), read_history(two)
    terms = [name for name in rows if name not in ("seconds", "val_dice")]
    difference = (rows[terms] - others[terms]).abs().max()
    assert (difference < 1e-4).all(), difference


def test_two_processes_continue_after_a_signal(files, tmp_path):
    options = TeacherSettings(**TINY | JOINED | {"iterations": 100})
    whole = train_on_two_processes("teacher", options, files, tmp_path / "whole")
    launcher = subprocess.Popen(
        two_process_command("teacher", options, files, tmp_path / "cut"),
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert any(" teacher 10: " in line for line in iter(launcher.stderr.readline, ""))
        # SLURM also signals all processes of a job.
        os.killpg(launcher.pid, signal.SIGTERM)
        printed = launcher.communicate(timeout=60)[1]
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
    assert launcher.returncode != 0
    assert "is saved in" in printed
    assert not (tmp_path / "cut" / "teacher.safetensors").exists()
    again = subprocess.run(
        two_process_command("teacher", options, files, tmp_path / "cut"),
        cwd=ROOT, check=True, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert "resumed at iteration" in again.stderr
    assert (tmp_path / "cut" / "teacher.safetensors").read_bytes() == whole.read_bytes()
