"""Aggregates against values computed by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.evaluation.summarise import COLUMNS, aggregate, summarise
from stages.settings.evaluation import SummariseSettings, TrainingRun

HEADER = ["sample_id", "subject_id", "split", "model",
          "dice", "iou", "hd95", "asd", "diagonal", "unit", "note"]  # fmt: skip
NAN = math.nan


def row(sample, subject, dice, hd95, split="test", model="student", unit="px"):
    scores = [dice, dice / 2, hd95, hd95 / 2, 10 if dice == dice else NAN]
    return [sample, subject, split, model, *scores, unit, ""]


def frame(*rows):
    return pd.DataFrame(rows, columns=HEADER)


def write(path, *rows):
    io.write_csv(frame(*rows), path)
    return path


def write_gaze(path, dwell_ms, origin="recorded"):
    with io.create_h5(path, "gaze", {}, {}) as file:
        file["dwell_ms"] = np.array(dwell_ms, np.float32)
        file.attrs["gaze_origin"] = origin
    return path


def run(dataset="a", experiment="full", seed=0, labels="pseudomask", mask_seconds=None):
    return TrainingRun(dataset=dataset, experiment=experiment, seed=seed, labels=labels,
               mask_seconds=mask_seconds)  # fmt: skip


def test_two_seeds_of_three_images_of_two_patients():
    # Dice 0.4, 0.6, 0.8 and 0.6, 0.8, 1.0: mean 4.2 / 6 = 0.7, squared deviations
    # 0.09 + 0.01 + 0.01 + 0.01 + 0.01 + 0.09 = 0.22, std √(0.22 / 5).
    # Patient p: (0.4 + 0.6 + 0.6 + 0.8) / 4 = 0.6, q: (0.8 + 1) / 2 = 0.9: mean 0.75 (not 0.7),
    # std √(2 · 0.15²) = 0.15 √2. HD95 2, 4, –, 0, 2, 2: mean 10 / 5, with diagonal 10: 20 / 6.
    # ASD is half of HD95: (5 + 10) / 6.
    table = frame(
        row("1", "p", 0.4, 2), row("2", "p", 0.6, 4), row("3", "q", 0.8, NAN),
        row("1", "p", 0.6, 0), row("2", "p", 0.8, 2), row("3", "q", 1.0, 2),
    )  # fmt: skip
    found = aggregate(table, seeds=2)
    assert found == pytest.approx(
        {
            "seeds": 2, "n": 3,
            "dice_mean": 0.7, "dice_std": math.sqrt(0.22 / 5),
            "iou_mean": 0.35, "iou_std": math.sqrt(0.22 / 5) / 2,
            "hd95_mean": 2, "hd95_std": math.sqrt(8 / 4),
            "asd_mean": 1, "asd_std": math.sqrt(8 / 4) / 2,
            "unit": "px", "undefined": 1, "hd95_penalised": 20 / 6, "asd_penalised": 15 / 6,
            "dice_patient_mean": 0.75, "dice_patient_std": 0.15 * math.sqrt(2),
            # Most draws of two patients hold both; a quarter each only p (0.6) or only q (0.9).
            "dice_low": 0.6, "dice_high": 0.9,
        }
    )  # fmt: skip


def test_an_empty_prediction_makes_the_penalised_distance_worse():
    # The plain mean improves from 5 to 2 if the hard case has an empty prediction.
    hit = [row("1", "p", 0.9, 2), row("2", "q", 0.3, 8)]
    missed = [hit[0], row("2", "q", 0.0, NAN)]
    before, after = (aggregate(frame(*rows), seeds=1) for rows in (hit, missed))
    assert (before["hd95_mean"], after["hd95_mean"]) == (5, 2)
    assert (before["hd95_penalised"], after["hd95_penalised"]) == (5, 6)
    assert (before["undefined"], after["undefined"]) == (0, 1)


def test_rows_without_a_mask_are_ignored():
    found = aggregate(frame(row("1", "p", 0.5, 1), row("2", "q", NAN, NAN)), seeds=1)
    assert (found["n"], found["undefined"], found["dice_mean"]) == (1, 0, 0.5)
    assert found["dice_patient_mean"] == 0.5
    assert math.isnan(found["dice_std"])


def test_only_rows_with_a_mask_decide_the_unit():
    masked = [row("1", "p", 0.5, 1, unit="mm"), row("2", "q", 0.7, 3, unit="mm")]
    found = aggregate(frame(*masked, row("3", "r", NAN, NAN)), seeds=1)
    assert (found["unit"], found["hd95_mean"]) == ("mm", 2)


def test_mm_and_px_are_not_averaged():
    found = aggregate(frame(row("1", "p", 0.5, 1), row("2", "q", 0.7, 3, unit="mm")), seeds=1)
    assert found["unit"] == "mixed"
    assert found["dice_mean"] == pytest.approx(0.6)
    assert found["undefined"] == 0
    assert np.isnan([found["hd95_mean"], found["asd_mean"], found["hd95_penalised"]]).all()


@pytest.fixture
def summary(tmp_path):
    """Summarise data set a (gaze, two seeds, with a teacher; masks, one seed) and data set b."""
    models = [
        row("1", "NA", 0.8, 1), row("v", "p", 0.6, 1, split="val"),
        row("1", "NA", 0.2, 1, model="teacher"), row("v", "p", 0.4, 1, "val", "teacher"),
    ]  # fmt: skip
    files = [
        write(tmp_path / "0.csv", *models),
        write(tmp_path / "1.csv", row("1", "NA", 0.9, 1), *models[1:]),
        write(tmp_path / "2.csv", row("1", "NA", 0.95, 1)),
        write(tmp_path / "3.csv", row("x", "p", NAN, NAN)),
    ]
    gaze = [
        write_gaze(tmp_path / "b.h5", [np.nan, np.nan], "simulated"),
        write_gaze(tmp_path / "a.h5", [2000, np.nan, 5000]),
    ]
    runs = (
        run(seed=3), run(seed=5),
        run(experiment="supervised", labels="mask", mask_seconds=74.8), run("b"),
    )  # fmt: skip
    settings = SummariseSettings(runs=runs, gaze=("b", "a"))
    summarise(files, gaze, tmp_path / "summary.csv", settings)
    return pd.read_csv(tmp_path / "summary.csv")


def test_rows_follow_the_runs_and_val_comes_before_test(summary):
    assert list(summary.columns) == COLUMNS
    assert summary[["dataset", "experiment", "model", "split"]].to_numpy().tolist() == [
        ["a", "full", "student", "val"],
        ["a", "full", "student", "test"],
        ["a", "full", "teacher", "val"],
        ["a", "full", "teacher", "test"],
        ["a", "supervised", "student", "test"],
        ["b", "full", "student", "test"],
    ]
    assert list(summary["seeds"]) == [2, 2, 2, 2, 1, 1]
    assert summary["dice_mean"][1] == pytest.approx(0.85)


def test_a_patient_may_be_called_na(summary):
    assert summary["dice_patient_mean"][1] == pytest.approx(0.85)


def test_annotation_time_depends_on_the_training_labels(summary):
    # Data set a: (2 + 5) s over the two images with fixations. Data set b has no fixations.
    seconds = summary["annotation_seconds_per_image"]
    assert list(seconds[:5]) == [3.5] * 4 + [74.8]
    assert math.isnan(seconds[5])
    assert list(summary["gaze"].fillna("")) == ["recorded"] * 4 + ["", "simulated"]


def test_a_data_set_without_any_mask_has_empty_numbers(summary):
    last = summary.iloc[-1]
    assert (last["n"], last["undefined"]) == (0, 0)
    endings = ("_mean", "_std", "_penalised", "_low", "_high")
    names = [name for name in COLUMNS if name.endswith(endings)]
    assert last[names].isna().all()


def test_an_unstated_mask_time_is_empty(tmp_path):
    file = write(tmp_path / "0.csv", row("1", "p", 0.5, 1))
    settings = SummariseSettings(runs=(run(labels="mask"),), gaze=())
    summarise([file], [], tmp_path / "summary.csv", settings)
    assert math.isnan(pd.read_csv(tmp_path / "summary.csv")["annotation_seconds_per_image"][0])


@pytest.mark.parametrize(
    ("runs", "gaze", "message"),
    [
        ([run(), run(seed=1)], ["a"], r"runs\n.*2 entries\n.*1, one per file"),
        ([run()], [], r"gaze\n.*0 entries\n.*1, one per file"),
        ([run()], ["b"], r"gaze\n.*\['b'\]\n.*also 'a'"),
    ],
)
def test_settings_that_do_not_match_the_files_are_refused(tmp_path, runs, gaze, message):
    metrics = [write(tmp_path / "0.csv", row("1", "p", 0.5, 1))]
    gaze_files = [write_gaze(tmp_path / "gaze.h5", [1])]
    settings = SummariseSettings(runs=tuple(runs), gaze=tuple(gaze))
    with pytest.raises(BadInput, match=message):
        summarise(metrics, gaze_files, tmp_path / "summary.csv", settings)


def test_a_training_named_twice_is_refused(tmp_path):
    file = write(tmp_path / "0.csv", row("1", "p", 0.5, 1))
    settings = SummariseSettings(runs=(run(labels="mask"),) * 2, gaze=())
    with pytest.raises(BadInput, match=r"\('a', 'full', 0\) twice"):
        summarise([file, file], [], tmp_path / "summary.csv", settings)


def test_seeds_with_different_samples_are_refused(tmp_path):
    files = [
        write(tmp_path / "0.csv", row("1", "p", 0.5, 1)),
        write(tmp_path / "1.csv", row("2", "p", 0.5, 1)),
    ]
    settings = SummariseSettings(runs=(run(labels="mask"), run(seed=1, labels="mask")), gaze=())
    with pytest.raises(BadInput, match=r"1\.csv: columns sample_id(.|\n)*0\.csv"):
        summarise(files, [], tmp_path / "summary.csv", settings)


@pytest.mark.parametrize("text", ["", "sample_id,dice\n1,0.5\n", None])
def test_an_invalid_metrics_csv_is_refused(tmp_path, text):
    file = tmp_path / "0.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=r"0\.csv: table(.|\n)*snakemake"):
        summarise([file], [], tmp_path / "summary.csv",
                  SummariseSettings(runs=(run(labels="mask"),), gaze=()))  # fmt: skip


def test_command_line(tmp_path):
    file = write(tmp_path / "0.csv", row("1", "p", 0.5, 1))
    output = tmp_path / "summary.csv"
    settings = SummariseSettings(runs=(run(labels="mask"),), gaze=()).model_dump_json()
    argv = ["--metrics", str(file), "--gaze", "--output", str(output), "--settings", settings]
    cli.run(summarise, argv)
    assert len(pd.read_csv(output)) == 1
