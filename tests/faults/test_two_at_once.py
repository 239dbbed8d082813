"""Two workflows on one folder, and two jobs that write the same results at the same time.

Snakemake locks its working directory, so a second workflow there stops. Nothing locks results that
two working directories share by a symbolic link, nor results under `--nolock`: there every file is
whole and right at any time, but a workflow may stop, because the other one began to make an input
anew. It then ends well when it is run again.
"""

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from threading import BrokenBarrierError

import pytest

from stages.core import io
from stages.data.prepare import prepare
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.settings.prepare import PrepareSettings
from stages.text.explain import explain
from stages.text.journal import Journal
from tests.faults.test_explaining_killed import make_inputs
from tests.workspace import Workspace, tiny_config

FORK = multiprocessing.get_context("fork")
DATA = "results/demo_isic"


def _run_job(function, arguments, barrier):
    """Run a job; each of its files waits, complete and not yet renamed, for that of the other."""
    fsync = os.fsync

    def wait_and_sync(descriptor):
        with suppress(BrokenBarrierError):
            barrier.wait(timeout=5)
        fsync(descriptor)

    os.fsync = wait_and_sync
    function(*arguments)


def run_two(function, *arguments):
    """Run a job in two processes at the same time; return their exit statuses."""
    barrier = FORK.Barrier(2)
    jobs = [FORK.Process(target=_run_job, args=(function, arguments, barrier)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(300)
    return [job.exitcode for job in jobs]


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_two_jobs_with_one_output_end_with_one_whole_file(kvasir, tmp_path):
    settings = PrepareSettings(layout="kvasir", size=(32, 48))
    alone, both = tmp_path / "alone/prepared.h5", tmp_path / "both/prepared.h5"
    prepare(kvasir, alone, settings, 1)
    assert run_two(prepare, kvasir, both, settings, 1) == [0, 0]
    assert both.read_bytes() == alone.read_bytes()
    assert names(both.parent) == ["prepared.h5"]


def explain_arguments(inputs, folder):
    return (
        inputs / "prepared.h5", inputs / "gaze.h5", folder / "0of1.jsonl",
        ExplainSettings(batch_size=3), EndpointSettings(), 0, 1, folder / "work", 1, 0,
    )  # fmt: skip


def test_two_jobs_with_one_journal_keep_all_answers(tmp_path):
    inputs = make_inputs(tmp_path, 20)
    alone, both = tmp_path / "alone", tmp_path / "both"
    explain(*explain_arguments(inputs, alone))
    assert run_two(explain, *explain_arguments(inputs, both)) == [0, 0]
    assert (both / "0of1.jsonl").read_bytes() == (alone / "0of1.jsonl").read_bytes()
    (journal,) = (both / "work").iterdir()
    assert Journal(journal, "0of1").entries == Journal(*(alone / "work").iterdir(), "0of1").entries
    assert names(both) == ["0of1.jsonl", "work", f"work/{journal.name}", *names(both)[-1:]]


def test_a_journal_that_another_job_writes_is_not_cut(tmp_path):
    first = Journal(tmp_path, "0of1")
    first.add({"a": 1})
    before = (tmp_path / "0of1.jsonl").stat()
    Journal(tmp_path, "0of1")
    # A job that starts must not truncate it: the other job may have written more meanwhile.
    assert (tmp_path / "0of1.jsonl").stat().st_mtime_ns == before.st_mtime_ns


def _export(folder, number):
    with io.atomic_folder(folder) as new:
        for name in "abc":
            (new / name).write_text(str(number))
            time.sleep(0.01)


def test_a_folder_that_two_jobs_replace_is_always_whole(tmp_path):
    """One of the two may fail, and leaves nothing behind."""
    folder = tmp_path / "export"
    for turn in range(3):
        jobs = [FORK.Process(target=_export, args=(folder, 2 * turn + k)) for k in range(2)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join(60)
        assert 0 in [job.exitcode for job in jobs]
        assert len({(folder / name).read_text() for name in "abc"}) == 1
        assert names(tmp_path) == ["export", "export/a", "export/b", "export/c"]


# Whole workflows


def config():
    found = tiny_config()
    found["datasets"]["demo_isic"]["experiments"] = ["full"]
    return found


def results(folder):
    """Return the content of the results, without logs, times and Snakemake's own files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "results").rglob("*")
        if path.is_file() and path.parent.name not in ("logs", "benchmarks", "explain")
        and not path.name.startswith(".") and "work" not in path.parts
    }  # fmt: skip


def wait_for(file, process):
    """Wait until a job has begun to write its log."""
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


TARGET = f"{DATA}/texts.h5"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed"), config())
    workspace.must_run(TARGET)
    return results(workspace.folder)


def test_a_second_workflow_in_the_folder_stops_and_the_first_ends_well(tmp_path, undisturbed):
    workspace = Workspace(tmp_path, config())
    first = workspace.start(TARGET)
    wait_for(tmp_path / "results/logs/demo_data_isic.log", first)
    # It does nothing more until the second one has ended.
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        status, printed = workspace.run(TARGET)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert status == 1
    assert "Directory cannot be locked" in printed and "--unlock" in printed
    assert "Traceback" not in printed
    printed, _ = first.communicate(timeout=600)
    assert first.returncode == 0, printed
    assert results(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("how", ["linked", "nolock"])
def test_two_workflows_on_shared_results_end_with_the_right_files(tmp_path, undisturbed, how):
    first = Workspace(tmp_path / "first", config())
    second, options = first, ["--nolock"]
    if how == "linked":
        second, options = Workspace(tmp_path / "second", config()), []
        for name in ("results", "data"):
            (first.folder / name).mkdir()
            (second.folder / name).symlink_to(first.folder / name)
    running = [workspace.start(TARGET, *options) for workspace in (first, second)]
    ended = [process.communicate(timeout=600)[0] for process in running]
    # A workflow may have stopped, and says so; what is there is right.
    for process, printed in zip(running, ended, strict=True):
        assert process.returncode == 0 or "Error" in printed
    for name, content in results(first.folder).items():
        assert content == undisturbed[name], name
    for workspace in (first, second):
        workspace.must_run(TARGET, *options)
    assert results(first.folder) == undisturbed
    assert not list(first.folder.rglob("*.tmp"))
