"""Tables over seeds against values computed by hand, and the page that shows them."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.evaluation.compare import (
    COLUMNS,
    aggregate_over_seeds,
    compare,
    compare_with_reference,
    mean_dice_per_image,
)
from stages.evaluation.statistics import bootstrap_interval
from stages.report.comparison import format_difference, format_p_value
from stages.report.tabulate import tabulate
from stages.settings.evaluation import CompareSettings, TrainingRun
from stages.settings.report import ReportDataset, TabulateSettings

HEADER = ["sample_id", "subject_id", "split", "model",
          "dice", "iou", "hd95", "asd", "diagonal", "unit", "note"]  # fmt: skip
NAN = math.nan


def row(sample, subject, dice, hd95=1.0, split="test", model="student", unit="px"):
    return [sample, subject, split, model, dice, dice / 2, hd95, hd95 / 2, 10, unit, ""]


def with_seeds(*seeds):
    """Return the columns of metrics.csv and `seed`, from one list of rows per seed."""
    return pd.concat(
        [pd.DataFrame(rows, columns=HEADER).assign(seed=i) for i, rows in enumerate(seeds)],
        ignore_index=True,
    )


def test_the_deviation_is_over_the_means_of_the_seeds():
    # Means per seed: Dice 0.5 and 0.7, mean 0.6, deviation √(2 · 0.1²). The deviation over images
    # is much larger. HD95: 2 and 4; 0 and 10 (the diagonal, for an undefined one): means 3 and 5.
    scores = with_seeds(
        [row("1", "p", 0.1, 2), row("2", "q", 0.9, 4)],
        [row("1", "p", 0.5, 0), row("2", "q", 0.9, NAN)],
    )
    assert aggregate_over_seeds(scores) == pytest.approx(
        {
            "n": 2, "subjects": 2, "unit": "px", "undefined": 1,
            "dice_mean": 0.6, "dice_std": 0.1 * math.sqrt(2),
            "iou_mean": 0.3, "iou_std": 0.05 * math.sqrt(2),
            "hd95_penalised_mean": 4, "hd95_penalised_std": math.sqrt(2),
            # 1 and 2; 0 and 10.
            "asd_penalised_mean": (1.5 + 5) / 2, "asd_penalised_std": 3.5 / math.sqrt(2),
        }
    )  # fmt: skip


def test_one_seed_has_no_deviation():
    found = aggregate_over_seeds(with_seeds([row("1", "p", 0.1), row("2", "q", 0.9)]))
    assert found["dice_mean"] == 0.5
    assert math.isnan(found["dice_std"])


def test_mm_and_px_are_not_averaged():
    found = aggregate_over_seeds(with_seeds([row("1", "p", 0.1), row("2", "q", 0.9, unit="mm")]))
    assert (found["unit"], found["undefined"], found["dice_mean"]) == ("mixed", 0, 0.5)
    assert np.isnan([found["hd95_penalised_mean"], found["asd_penalised_mean"]]).all()


def test_differences_are_paired_by_image_and_averaged_over_seeds():
    # Per image, averaged over seeds: 0.7 − 0.5, 0.5 − 0.5 and 0.3 − 0.6; mean −0.1 / 3.
    scores = with_seeds(
        [row("1", "p", 0.6), row("2", "p", 0.4), row("3", "q", 0.2)],
        [row("1", "p", 0.8), row("2", "p", 0.6), row("3", "q", 0.4)],
    )
    reference_scores = with_seeds([row("3", "q", 0.6), row("2", "p", 0.5), row("1", "p", 0.5)])
    found = compare_with_reference(
        mean_dice_per_image(scores), mean_dice_per_image(reference_scores), seed=0
    )
    interval = bootstrap_interval(
        np.array([0.2, 0, -0.3]), np.array(["p", "p", "q"], object), np.random.default_rng(0)
    )
    assert found == pytest.approx(
        {
            "dice_difference": -0.1 / 3,
            "dice_difference_low": interval[0],
            "dice_difference_high": interval[1],
            # Subjects' means 0.1 and −0.3: |sum| 0.2, 0.4, 0.4, 0.2.
            "p": 1.0,
        }
    )


def write(path, *rows):
    io.write_csv(pd.DataFrame(rows, columns=HEADER), path)
    return path


class ComparisonFiles:
    """Files of three experiments on two data sets, two seeds each."""

    def __init__(self, folder):
        self.folder = folder
        self.runs, self.metrics = [], []
        for dataset in ("b", "a"):
            for experiment, offset in (("full", 0.0), ("odd", 0.2), ("masks", 0.4)):
                for seed in (0, 1):
                    rows = [
                        row("v", "v", 0.9, split="val"),
                        row("none", "w", NAN, NAN),
                        row("1", "w", 0.1, model="teacher"),
                        # Six subjects, each better by the offset.
                        *(row(str(i), f"s{i}", 0.1 * i + offset + 0.01 * seed) for i in range(6)),
                    ]
                    self.metrics.append(write(folder / f"{len(self.metrics)}.csv", *rows))
                    labels = "mask" if experiment == "masks" else "pseudomask"
                    self.runs.append(
                        TrainingRun(
                            dataset=dataset,
                            experiment=experiment,
                            seed=seed,
                            labels=labels,
                            mask_seconds=74.8,
                        )
                    )
        self.gaze = []
        for dataset in ("b", "a"):
            with io.create_h5(folder / f"{dataset}.h5", "gaze", {}, {}) as file:
                file["dwell_ms"] = np.array([2000, 4000], np.float32)
                file.attrs["gaze_origin"] = "simulated"
            self.gaze.append(folder / f"{dataset}.h5")
        self.table = folder / "table.csv"

    def settings(self, **changes):
        values = {"runs": self.runs, "gaze": ("b", "a"), "reference": "full", "seed": 0}
        return CompareSettings(**values | changes)

    def compare(self, **changes):
        compare(self.metrics, self.gaze, self.table, self.settings(**changes))
        return pd.read_csv(self.table)


@pytest.fixture
def files(tmp_path):
    return ComparisonFiles(tmp_path)


def test_a_row_for_each_data_set_and_experiment(files):
    table = files.compare()
    assert list(table.columns) == COLUMNS
    assert table[["dataset", "experiment"]].to_numpy().tolist() == [
        [dataset, experiment] for dataset in ("b", "a") for experiment in ("full", "odd", "masks")
    ]
    assert set(table["reference"]) == {"full"}
    assert (table[["seeds", "n", "subjects"]] == [2, 6, 6]).all(axis=None)
    assert table["annotation_seconds_per_image"].tolist() == [3, 3, 74.8] * 2
    assert table["gaze"].fillna("").tolist() == ["simulated", "simulated", ""] * 2


def test_the_reference_is_not_compared_with_itself(files):
    table = files.compare().set_index(["dataset", "experiment"])
    paired = ["dice_difference", "dice_difference_low", "dice_difference_high", "p", "p_adjusted"]
    assert table.loc["a", "full"][paired].isna().all()
    # All six subjects have the same sign: 2 of 64 patterns. There are two tests: the first p is
    # doubled, and the other, which is equal, is raised to it.
    assert table.loc["a", "odd"][paired].to_numpy() == pytest.approx(
        [0.2, 0.2, 0.2, 1 / 32, 1 / 16]
    )
    assert table.loc["b", "masks"][paired].to_numpy() == pytest.approx(
        [0.4, 0.4, 0.4, 1 / 32, 1 / 16]
    )


def test_a_row_does_not_depend_on_the_other_data_sets_and_experiments(files):
    both = files.compare()
    first = [i for i, run in enumerate(files.runs) if run.dataset == "b" and run.labels != "mask"]
    compare([files.metrics[i] for i in first], files.gaze[:1], files.table,
            files.settings(runs=[files.runs[i] for i in first], gaze=["b"]))  # fmt: skip
    alone = pd.read_csv(files.table)
    pd.testing.assert_frame_equal(
        alone.drop(columns="p_adjusted"),
        both.iloc[:2].drop(columns="p_adjusted"),
        check_dtype=False,
    )
    # A single test needs no adjustment.
    assert alone["p_adjusted"][1] == alone["p"][1]


def test_a_data_set_without_masks_has_empty_numbers(files):
    for file in files.metrics:
        write(file, row("1", "p", NAN, NAN), row("2", "q", NAN, NAN))
    table = files.compare()
    assert (table[["n", "subjects", "undefined"]] == 0).all(axis=None)
    assert table[[name for name in COLUMNS if "dice" in name or name == "p"]].isna().all(axis=None)


def test_without_data_sets_the_table_is_empty(files):
    compare([], [], files.table, files.settings(runs=(), gaze=()))
    assert list(pd.read_csv(files.table).columns) == COLUMNS


def test_experiments_with_different_images_are_refused(files):
    for file in files.metrics[2:4]:
        write(file, *(row(str(i), "s", 0.5) for i in range(6)))
    with pytest.raises(
        BadInput, match=r"metrics\.csv of b, odd: columns sample_id(.|\n)*the same 6"
    ):
        files.compare()


def test_a_reference_without_runs_is_refused(files):
    with pytest.raises(BadInput, match=r"b: full, odd, masks\n.*also the reference fulll"):
        files.compare(reference="fulll")


def test_files_and_settings_that_do_not_fit_are_refused(files):
    with pytest.raises(BadInput, match="one per file"):
        compare(files.metrics[1:], files.gaze, files.table, files.settings())


def page(files, **changes):
    files.compare()
    datasets = [
        ReportDataset(name="a", title="<Set> A", note="simulated & small"),
        ReportDataset(name="b", title="B"),
    ]
    html = files.folder / "table.html"
    values = {"table": "ablations", "datasets": datasets} | changes
    tabulate(files.table, html, TabulateSettings(**values))
    return html.read_text()


def test_the_page_loads_nothing_and_escapes_its_input(files):
    html = page(files)
    assert not re.search(r"""(src|href)=(?!"(data:|#))""", html)
    assert "<script" not in html and "@import" not in html
    assert "&lt;Set&gt; A" in html and "<Set>" not in html
    assert "simulated &amp; small" in html
    assert "<title>Segmentation from gaze: ablations</title>" in html


def test_the_page_shows_and_explains_the_numbers(files):
    html = page(files)
    # Dice of `full`: (0 + … + 0.5) / 6 = 0.25 and 0.26 with the two seeds.
    assert "<td>0.255 ± 0.007</td>" in html
    assert "<td>+0.200 [+0.200, +0.200]</td>" in html
    assert "<td>0.031</td>" in html and "<td>0.062</td>" in html
    assert html.count("<td>reference</td>") == 2
    assert "images: 6, subjects: 6, seeds: 2" in html
    for words in ("over seeds", "95 % interval", "10,000 draws of subjects", "up to 12 subjects",
                  "sign-flip", "Holm", "diagonal"):  # fmt: skip
        assert words in re.sub(r"<.*?>|\s+", " ", html).replace("  ", " "), words


def test_the_best_experiment_trained_on_gaze_is_bold(files):
    bold = re.findall(r"<td><strong>(.*?)</strong>", page(files))
    # Dice, IoU: `odd`, because `masks` has no gaze. Distances: `full` and `odd` are equal.
    equal = ["1.0 ± 0.0 px", "0.50 ± 0.00 px"]
    assert bold == [*equal, "0.455 ± 0.007", "0.228 ± 0.004", *equal] * 2


def test_the_same_table_gives_the_same_page(files):
    assert page(files) == page(files)


def test_without_masks_the_page_has_dashes(files):
    for file in files.metrics:
        write(file, row("1", "p", NAN, NAN))
    html = page(files)
    assert not re.search(r"\bnan\b", html, re.I)
    assert "<td>–</td>" in html
    assert "<strong>–" not in html


def test_a_data_set_without_a_title_is_refused(files):
    with pytest.raises(BadInput, match=r"column dataset\n.*\['a', 'b'\]"):
        page(files, datasets=())


def test_an_invalid_table_is_refused(files):
    files.table.write_text("dataset\nb\n")
    with pytest.raises(BadInput, match=r"table\.csv: table(.|\n)*snakemake"):
        tabulate(files.table, files.folder / "t.html", TabulateSettings(table="t", datasets=()))


def test_formatted_values():
    ends = {"dice_difference": -0.01, "dice_difference_low": NAN, "dice_difference_high": NAN}
    assert format_difference(ends) == "-0.010"
    assert format_difference(
        ends | {"dice_difference_low": -0.02, "dice_difference_high": 0.03}
    ) == ("-0.010 [-0.020, +0.030]")
    assert format_difference(dict.fromkeys(ends, NAN)) == "–"
    assert [format_p_value(p) for p in (0.00099, 0.001, 0.5, NAN)] == [
        "< 0.001",
        "0.001",
        "0.500",
        "–",
    ]


def test_command_lines(files):
    arguments = ["--metrics", *map(str, files.metrics), "--gaze", *map(str, files.gaze)]
    arguments += ["--output", str(files.table), "--settings", files.settings().model_dump_json()]
    cli.run(compare, arguments)
    html = files.folder / "t.html"
    titles = [ReportDataset(name=name, title=name) for name in "ab"]
    settings = TabulateSettings(table="t", datasets=titles).model_dump_json()
    cli.run(tabulate, ["--table", str(files.table), "--output", str(html), "--settings", settings])
    assert html.read_text().startswith("<!doctype html>")
