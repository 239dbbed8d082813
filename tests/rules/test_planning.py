"""The time of a large dry run, which does not depend on the number of images."""

import os

import pytest

from tests.workspace import Workspace, own_data_settings, tiny_config

DATASETS, EXPERIMENTS, SEEDS = ("first", "second", "third"), 12, 5


@pytest.fixture
def workspace(tmp_path):
    config = tiny_config()
    names = list(config["experiments"])[:EXPERIMENTS]
    config["datasets"] = {
        name: own_data_settings(config, f"data/{name}", experiments=names) for name in DATASETS
    }
    return Workspace(tmp_path, config | {"seeds": list(range(SEEDS)), "summary": [], "tables": {}})


def put_raw_data(workspace, count):
    """Write empty files with the right names; planning does not read them."""
    for dataset in DATASETS:
        root = workspace.folder / "data" / dataset
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (root / f"{kind}/{i}.jpg").touch()
        for name in ("train.txt", "test.txt", "fixations.csv"):
            (root / name).touch()


def cpu_seconds():
    times = os.times()
    return times.children_user + times.children_system


def test_ten_thousand_images_need_the_jobs_of_ten_and_seconds_of_planning(workspace):
    put_raw_data(workspace, 10)
    few = workspace.job_counts("all")
    put_raw_data(workspace, 10_000)
    began = cpu_seconds()
    many = workspace.job_counts("all")
    # CPU time, because other work on the machine does not lengthen it.
    assert cpu_seconds() - began < 15
    assert many == few
    assert few["student"] == few["predict"] == len(DATASETS) * EXPERIMENTS * SEEDS
    assert few["prepare"] == few["pseudomasks"] == len(DATASETS)


def test_a_config_without_tables_is_planned_without_an_exception(workspace):
    put_raw_data(workspace, 1)
    assert "Exception" not in workspace.must_run("-n", "all")
