"""Comparisons of experiments over seeds: their jobs, and the run of a small one."""

import json

import pandas as pd
import pytest

from stages.evaluation.compare import COLUMNS
from tests.workspace import DEMO_DATASETS, Workspace, tiny_config


def small_config():
    """Return a config with two experiments without a teacher; only the table lists one of them."""
    config = tiny_config()
    config["seeds"] = [0, 1]
    config["summary"] = ["demo_isic"]
    config["datasets"]["demo_isic"]["experiments"] = ["gaze_only"]
    config["tables"] = {"bounds": {"reference": "gaze_only", "experiments": ["supervised"]}}
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("tables"), small_config())
    workspace.must_run("bounds")
    return workspace


def test_a_table_runs_only_the_jobs_that_it_needs(tmp_path):
    assert Workspace(tmp_path, small_config()).job_counts("bounds") == {
        "demo_data": 1, "prepare": 1, "pseudomasks": 1, "student": 4, "predict": 4, "evaluate": 4,
        "compare": 1, "compare_together": 1, "tabulate": 1,
        "provenance_table": 1, "bounds": 1,
    }  # fmt: skip


def test_a_table_of_two_experiments_and_two_seeds(finished):
    results = finished.folder / "results"
    table = pd.read_csv(results / "demo_isic/bounds.csv")
    assert list(table.columns) == COLUMNS
    assert table["experiment"].tolist() == ["gaze_only", "supervised"]
    assert (table[["seeds", "n", "subjects"]] == [2, 6, 6]).all(axis=None)
    assert table["dice_std"].notna().all()
    # The expected values, from the files of the trainings.
    means = {
        experiment: [
            scores.loc[scores["split"] == "test", "dice"].mean()
            for seed in (0, 1)
            for scores in [pd.read_csv(results / f"demo_isic/{experiment}/seed{seed}/metrics.csv")]
        ]
        for experiment in table["experiment"]
    }
    expected = pd.DataFrame(means).agg(["mean", "std"]).T
    assert table["dice_mean"].to_numpy() == pytest.approx(expected["mean"].to_numpy(), rel=1e-5)
    assert table["dice_std"].to_numpy() == pytest.approx(expected["std"].to_numpy(), rel=1e-4)
    low, mean, high = table.loc[1, [f"dice_difference{end}" for end in ("_low", "", "_high")]]
    assert low <= mean <= high
    assert mean == pytest.approx(expected["mean"]["supervised"] - expected["mean"]["gaze_only"],
                                 abs=1e-5)  # fmt: skip
    # For six subjects p is a multiple of 2 / 64.
    assert 0 < table["p_adjusted"][1] == table["p"][1] <= 1

    assert (results / "bounds.csv").read_bytes() == (results / "demo_isic/bounds.csv").read_bytes()
    page = (results / "bounds.html").read_text()
    assert "Skin phantom" in page and "nothing about patients" in page


def test_another_seed_of_the_table_resamples_and_trains_nothing(finished):
    assert "Nothing to be done" in finished.must_run("bounds")
    finished.config["tables"]["bounds"]["seed"] = 1
    finished.save_config()
    assert finished.planned_rules("bounds") == {
        "compare", "compare_together", "tabulate", "provenance_table", "bounds",
    }  # fmt: skip


def test_a_report_shows_the_tables_of_its_data_set(finished):
    # The table has been made; the report adds what it shows itself.
    finished.config["datasets"]["demo_isic"]["tables"] = ["bounds"]
    finished.save_config()
    assert "student" not in finished.planned_rules("demo_isic")
    finished.must_run("demo_isic")
    page = (finished.folder / "results/demo_isic/report.html").read_text()
    assert "Comparison: bounds" in page
    provenance = json.loads((finished.folder / "results/demo_isic/provenance.json").read_text())
    assert {
        "results/demo_isic/bounds.csv",
        "results/demo_isic/supervised/seed1/metrics.csv",
    } <= set(provenance)


def test_a_table_of_one_data_set_needs_no_summary(tmp_path):
    config = small_config()
    config["summary"] = []
    config["datasets"]["demo_isic"]["tables"] = ["bounds"]
    counts = Workspace(tmp_path, config).job_counts("demo_isic")
    assert counts["student"] == 4 and counts["compare"] == counts["report"] == 1


@pytest.mark.parametrize("target", ["baselines", "ablations"])
def test_a_table_has_one_training_per_data_set_experiment_and_seed(tmp_path, target):
    config = tiny_config()
    config["seeds"] = [0, 1, 2]
    workspace = Workspace(tmp_path, config)
    experiments = 1 + len(config["tables"][target]["experiments"])
    counts = workspace.job_counts(target)
    for rule in ("student", "predict", "evaluate"):
        assert counts[rule] == len(DEMO_DATASETS) * experiments * 3
    assert counts["compare"] == len(DEMO_DATASETS)
    assert counts["compare_together"] == counts["tabulate"] == counts[target] == 1
    assert "summarise" not in counts and "report" not in counts
