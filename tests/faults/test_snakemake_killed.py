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
# Rule → its output.
OUTPUTS = {
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
# The default suite tests only these: an HDF5 file, a journal and a training.
QUICK = ("pseudomasks", "explain", "teacher")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with the results up to the teacher."""
    config = tiny_config()
    config["datasets"]["demo_isic"]["experiments"] = ["full"]
    workspace = Workspace(tmp_path_factory.mktemp("killed"), config)
    workspace.must_run(OUTPUTS["teacher"])
    return workspace


@pytest.fixture(scope="module")
def complete(trained):
    """The workspace with all results, and their content."""
    trained.must_run("demo_isic")
    return trained, contents(trained)


def content(path):
    """Return the content of a result, without the time and memory of its job."""
    if path.name.endswith("_history.csv"):
        return pd.read_csv(path).drop(columns="seconds").to_csv()
    if path.name == "provenance.json":
        varying = {"seconds", "peak_mb", "sha256"}
        entries = json.loads(path.read_text()).items()
        return {
            name: {k: v for k, v in about.items() if k not in varying} for name, about in entries
        }
    return None if path.suffix == ".html" else path.read_bytes()


def contents(workspace):
    """Return the content of all raw data and results."""
    return {
        path.relative_to(workspace.folder): content(path)
        for root in ("data", "results")
        for path in (workspace.folder / root).rglob("*")
        if path.is_file()
        and path.parent.name not in ("logs", "benchmarks")
        # Skip saved answers, checkpoints, and the file with which Snakemake marks a folder.
        and "work" not in path.parts
        and path.name != ".snakemake_timestamp"
    }


def wait_for(log):
    """Wait until a job has logged its host."""
    deadline = time.monotonic() + 120
    while not (log.exists() and "host: " in log.read_text()):
        assert time.monotonic() < deadline, f"no {log}"
        time.sleep(0.01)


def kill_and_run_again(workspace, rule):
    """Kill Snakemake during a job; the job continues beside the same job of the next run."""
    log = workspace.folder / LOGS.get(
        rule, f"{OUTPUTS[rule].rpartition('/')[0]}/logs/{rule}.log"
    )  # fmt: skip
    log.unlink()
    killed = workspace.start("--forcerun", rule, "--", OUTPUTS[rule])
    wait_for(log)
    job = psutil.Process(killed.pid).children(recursive=True)
    assert job
    for process in job:
        process.suspend()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    status, printed = workspace.run(OUTPUTS[rule])
    assert status != 0 and "--unlock" in printed
    workspace.must_run("--unlock")

    log.unlink()
    again = workspace.start(OUTPUTS[rule])
    wait_for(log)
    for process in job:
        process.resume()
    printed, _ = again.communicate(timeout=600)
    assert again.returncode == 0, printed
    # This returns when the last process of the killed run ends.
    killed.stdout.read()


@pytest.mark.parametrize("rule", QUICK)
def test_a_run_after_a_kill_gives_the_same_results(trained, rule):
    before = contents(trained)
    kill_and_run_again(trained, rule)
    assert contents(trained) == before


@pytest.mark.slow
@pytest.mark.parametrize("rule", [rule for rule in OUTPUTS if rule not in QUICK])
def test_a_run_after_a_kill_in_any_other_rule_gives_the_same_results(complete, rule):
    workspace, before = complete
    kill_and_run_again(workspace, rule)
    assert contents(workspace) == before


@pytest.mark.slow
def test_one_more_run_after_all_kills_completes_the_results(complete):
    workspace, before = complete
    workspace.must_run("demo_isic")
    assert contents(workspace) == before
    assert workspace.planned_rules("demo_isic") == set()


def test_every_rule_of_a_data_set_is_tested(trained):
    assert set(trained.job_counts("demo_isic", "--forceall")) == {*OUTPUTS, "demo_isic"}
