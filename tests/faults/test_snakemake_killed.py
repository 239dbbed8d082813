"""`kill -9` of Snakemake while a rule runs: the next run ends as if nothing had happened."""

import json
import os
import signal
import time

import pandas as pd
import psutil
import pytest

from tests.workspace import Workspace, tiny_config

DATA, RUN = "results/demo_isic", "results/demo_isic/full/seed0"
# Rule → what it makes.
MADE = {
    "demo_data": "data/demo/isic",
    "verify": f"{DATA}/verified.csv",
    "prepare": f"{DATA}/prepared.h5",
    "pseudomasks": f"{DATA}/gaze.h5",
    "quality": f"{DATA}/gaze_quality.csv",
    "explain": f"{DATA}/texts/0of1.jsonl",
    "texts": f"{DATA}/texts.h5",
    "embed": f"{DATA}/explanations.h5",
    "teacher": f"{RUN}/teacher.safetensors",
    "pseudolabels": f"{RUN}/pseudolabels.h5",
    "student": f"{RUN}/student.safetensors",
    "predict": f"{RUN}/predictions.h5",
    "evaluate": f"{RUN}/metrics.csv",
    "summarise": f"{DATA}/summary.csv",
    "provenance": f"{DATA}/provenance.json",
    "report": f"{DATA}/report.html",
}
LOGS = {
    "demo_data": "results/logs/demo_data_isic.log",
    "explain": f"{DATA}/logs/explain_0of1.log",
}
# What stands for all in the default suite: an HDF5 file, a journal and a training.
QUICK = ("pseudomasks", "explain", "teacher")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A workspace up to the teacher."""
    config = tiny_config()
    config["datasets"]["demo_isic"]["experiments"] = ["full"]
    workspace = Workspace(tmp_path_factory.mktemp("killed"), config)
    workspace.must_run(MADE["teacher"])
    return workspace


@pytest.fixture(scope="module")
def whole(begun):
    """The workspace with all results, and what these hold."""
    begun.must_run("demo_isic")
    return begun, contents(begun)


def content(path):
    """What a result holds, but for the time and memory that it took."""
    if path.name.endswith("_history.csv"):
        return pd.read_csv(path).drop(columns="seconds").to_csv()
    if path.name == "provenance.json":
        took = {"seconds", "peak_mb", "sha256"}
        told = json.loads(path.read_text()).items()
        return {name: {k: v for k, v in about.items() if k not in took} for name, about in told}
    return None if path.suffix == ".html" else path.read_bytes()


def contents(workspace):
    """What all raw data and results hold."""
    return {
        path.relative_to(workspace.folder): content(path)
        for root in ("data", "results")
        for path in (workspace.folder / root).rglob("*")
        if path.is_file()
        and path.parent.name not in ("logs", "benchmarks")
        # Answers and checkpoints, by what they depend on; and what Snakemake marks a folder with.
        and "work" not in path.parts
        and path.name != ".snakemake_timestamp"
    }


def wait_for(log):
    """Wait until a job says where it runs."""
    deadline = time.monotonic() + 120
    while not (log.exists() and "host: " in log.read_text()):
        assert time.monotonic() < deadline, f"no {log}"
        time.sleep(0.01)


def kill_and_run_again(workspace, rule):
    """Kill Snakemake in the middle of a job, which lives on beside the next run's."""
    log = workspace.folder / LOGS.get(
        rule, f"{MADE[rule].rpartition('/')[0]}/logs/{rule}.log"
    )  # fmt: skip
    log.unlink()
    killed = workspace.start("--forcerun", rule, "--", MADE[rule])
    wait_for(log)
    job = psutil.Process(killed.pid).children(recursive=True)
    assert job
    for process in job:
        process.suspend()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    status, printed = workspace.run(MADE[rule])
    assert status != 0 and "--unlock" in printed
    workspace.must_run("--unlock")

    log.unlink()
    again = workspace.start(MADE[rule])
    wait_for(log)
    for process in job:
        process.resume()
    printed, _ = again.communicate(timeout=600)
    assert again.returncode == 0, printed
    # Ends when the last process of the killed run does.
    killed.stdout.read()


@pytest.mark.parametrize("rule", QUICK)
def test_a_run_after_a_kill_makes_the_same(begun, rule):
    before = contents(begun)
    kill_and_run_again(begun, rule)
    assert contents(begun) == before


@pytest.mark.slow
@pytest.mark.parametrize("rule", [rule for rule in MADE if rule not in QUICK])
def test_a_run_after_a_kill_makes_the_same_of_each_other_rule(whole, rule):
    workspace, before = whole
    kill_and_run_again(workspace, rule)
    assert contents(workspace) == before


@pytest.mark.slow
def test_after_all_kills_one_run_more_ends_the_work(whole):
    workspace, before = whole
    workspace.must_run("demo_isic")
    assert contents(workspace) == before
    assert workspace.planned_rules("demo_isic") == set()


def test_no_rule_of_a_data_set_is_left_out(begun):
    assert set(begun.job_counts("demo_isic", "--forceall")) == {*MADE, "demo_isic"}
