"""Comparisons of experiments over seeds: their jobs, and a small one really run."""

import pandas as pd
import pytest

from stages.evaluation.compare import COLUMNS
from tests.workspace import DEMO_DATASETS, Workspace, tiny_config


def small_config():
    """Two trainings without a teacher, one of which the data set does not list itself."""
    config = tiny_config()
    config["seeds"] = [0, 1]
    config["summary"] = ["demo_isic"]
    config["datasets"]["demo_isic"]["experiments"] = ["gaze_only"]
    config["tables"] = {"bounds": {"reference": "gaze_only", "experiments": ["supervised"]}}
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("tables"), small_config())
    workspace.must_run("bounds")
    return workspace


def test_only_what_the_table_needs_is_run(tmp_path):
    assert Workspace(tmp_path, small_config()).job_counts("bounds") == {
        "demo_data": 1, "prepare": 1, "pseudomasks": 1, "student": 4, "predict": 4, "evaluate": 4,
        "compare": 1, "compare_together": 1, "tabulate": 1,
        "provenance_table": 1, "bounds": 1,
    }  # fmt: skip


def test_two_experiments_of_two_seeds(done):
    results = done.folder / "results"
    table = pd.read_csv(results / "demo_isic/bounds.csv")
    assert list(table.columns) == COLUMNS
    assert table["experiment"].tolist() == ["gaze_only", "supervised"]
    assert (table[["seeds", "n", "subjects"]] == [2, 6, 6]).all(axis=None)
    assert table["dice_std"].notna().all()
    # What the trainings' own files say.
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
    # Six subjects: a multiple of 2 / 64.
    assert 0 < table["p_adjusted"][1] == table["p"][1] <= 1

    assert (results / "bounds.csv").read_bytes() == (results / "demo_isic/bounds.csv").read_bytes()
    page = (results / "bounds.html").read_text()
    assert "Skin phantom" in page and "nothing about patients" in page


def test_a_seed_of_the_table_draws_anew_and_trains_nothing(done):
    assert "Nothing to be done" in done.must_run("bounds")
    done.config["tables"]["bounds"]["seed"] = 1
    done.save_config()
    assert done.planned_rules("bounds") == {
        "compare", "compare_together", "tabulate", "provenance_table", "bounds",
    }  # fmt: skip


@pytest.mark.parametrize("target", ["baselines", "ablations"])
def test_jobs_are_data_sets_times_experiments_times_seeds(tmp_path, target):
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
