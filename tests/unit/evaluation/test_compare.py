"""Tables over seeds, worked out by hand, and the page that shows them."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.evaluation.compare import COLUMNS, against, compare, over_seeds, per_image
from stages.evaluation.statistics import bootstrap_interval
from stages.report.tabulate import difference, probability, tabulate
from stages.settings.evaluation import CompareSettings, Run
from stages.settings.report import ReportDataset, TabulateSettings

HEADER = ["sample_id", "subject_id", "split", "model",
          "dice", "iou", "hd95", "asd", "diagonal", "unit", "note"]  # fmt: skip
NAN = math.nan


def row(sample, subject, dice, hd95=1.0, split="test", model="student", unit="px"):
    return [sample, subject, split, model, dice, dice / 2, hd95, hd95 / 2, 10, unit, ""]


def with_seeds(*seeds):
    """Columns of metrics.csv and `seed`, one list of rows per seed."""
    return pd.concat(
        [pd.DataFrame(rows, columns=HEADER).assign(seed=i) for i, rows in enumerate(seeds)],
        ignore_index=True,
    )


def test_the_spread_is_that_of_the_seeds_means():
    # Means of the seeds: Dice 0.5 and 0.7, mean 0.6, deviation √(2 · 0.1²); not that of the images,
    # which differ much more. HD95 2 and 4, and 0 and 10, its diagonal, for none: 3 and 5.
    scores = with_seeds(
        [row("1", "p", 0.1, 2), row("2", "q", 0.9, 4)],
        [row("1", "p", 0.5, 0), row("2", "q", 0.9, NAN)],
    )
    assert over_seeds(scores) == pytest.approx(
        {
            "n": 2, "subjects": 2, "unit": "px", "undefined": 1,
            "dice_mean": 0.6, "dice_std": 0.1 * math.sqrt(2),
            "iou_mean": 0.3, "iou_std": 0.05 * math.sqrt(2),
            "hd95_penalised_mean": 4, "hd95_penalised_std": math.sqrt(2),
            # 1 and 2, and 0 and 10.
            "asd_penalised_mean": (1.5 + 5) / 2, "asd_penalised_std": 3.5 / math.sqrt(2),
        }
    )  # fmt: skip


def test_one_seed_has_no_spread():
    found = over_seeds(with_seeds([row("1", "p", 0.1), row("2", "q", 0.9)]))
    assert found["dice_mean"] == 0.5
    assert math.isnan(found["dice_std"])


def test_mm_and_px_are_not_averaged():
    found = over_seeds(with_seeds([row("1", "p", 0.1), row("2", "q", 0.9, unit="mm")]))
    assert (found["unit"], found["undefined"], found["dice_mean"]) == ("mixed", 0, 0.5)
    assert np.isnan([found["hd95_penalised_mean"], found["asd_penalised_mean"]]).all()


def test_differences_are_of_the_same_image_and_of_all_seeds():
    # Per image, averaged over seeds: 0.7 − 0.5, 0.5 − 0.5 and 0.3 − 0.6; mean −0.1 / 3.
    ours = with_seeds(
        [row("1", "p", 0.6), row("2", "p", 0.4), row("3", "q", 0.2)],
        [row("1", "p", 0.8), row("2", "p", 0.6), row("3", "q", 0.4)],
    )
    theirs = with_seeds([row("3", "q", 0.6), row("2", "p", 0.5), row("1", "p", 0.5)])
    found = against(per_image(ours), per_image(theirs), seed=0)
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


class World:
    """Files of two experiments on two data sets, two seeds each."""

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
                        Run(dataset=dataset, experiment=experiment, seed=seed, labels=labels,
                            mask_seconds=74.8)
                    )  # fmt: skip
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
def world(tmp_path):
    return World(tmp_path)


def test_a_row_for_each_data_set_and_experiment(world):
    table = world.compare()
    assert list(table.columns) == COLUMNS
    assert table[["dataset", "experiment"]].to_numpy().tolist() == [
        [dataset, experiment] for dataset in ("b", "a") for experiment in ("full", "odd", "masks")
    ]
    assert set(table["reference"]) == {"full"}
    assert (table[["seeds", "n", "subjects"]] == [2, 6, 6]).all(axis=None)
    assert table["annotation_seconds_per_image"].tolist() == [3, 3, 74.8] * 2
    assert table["gaze"].fillna("").tolist() == ["simulated", "simulated", ""] * 2


def test_only_the_others_are_held_against_the_reference(world):
    table = world.compare().set_index(["dataset", "experiment"])
    paired = ["dice_difference", "dice_difference_low", "dice_difference_high", "p", "p_adjusted"]
    assert table.loc["a", "full"][paired].isna().all()
    # All six subjects on one side: 2 of 64 patterns; two tests: the smaller p is doubled, and the
    # other, which is as small, is raised to it.
    assert table.loc["a", "odd"][paired].to_numpy() == pytest.approx(
        [0.2, 0.2, 0.2, 1 / 32, 1 / 16]
    )
    assert table.loc["b", "masks"][paired].to_numpy() == pytest.approx(
        [0.4, 0.4, 0.4, 1 / 32, 1 / 16]
    )


def test_a_row_does_not_depend_on_the_other_data_sets_and_experiments(world):
    both = world.compare()
    first = [i for i, run in enumerate(world.runs) if run.dataset == "b" and run.labels != "mask"]
    compare([world.metrics[i] for i in first], world.gaze[:1], world.table,
            world.settings(runs=[world.runs[i] for i in first], gaze=["b"]))  # fmt: skip
    alone = pd.read_csv(world.table)
    pd.testing.assert_frame_equal(
        alone.drop(columns="p_adjusted"),
        both.iloc[:2].drop(columns="p_adjusted"),
        check_dtype=False,
    )
    # One test, which needs no adjustment.
    assert alone["p_adjusted"][1] == alone["p"][1]


def test_a_data_set_without_masks_has_empty_numbers(world):
    for file in world.metrics:
        write(file, row("1", "p", NAN, NAN), row("2", "q", NAN, NAN))
    table = world.compare()
    assert (table[["n", "subjects", "undefined"]] == 0).all(axis=None)
    assert table[[name for name in COLUMNS if "dice" in name or name == "p"]].isna().all(axis=None)


def test_no_data_set_is_an_empty_table(world):
    compare([], [], world.table, world.settings(runs=(), gaze=()))
    assert list(pd.read_csv(world.table).columns) == COLUMNS


def test_experiments_of_other_images_are_refused(world):
    for file in world.metrics[2:4]:
        write(file, *(row(str(i), "s", 0.5) for i in range(6)))
    with pytest.raises(
        BadInput, match=r"metrics\.csv of b, odd: columns sample_id(.|\n)*the same 6"
    ):
        world.compare()


def test_a_reference_without_runs_is_refused(world):
    with pytest.raises(BadInput, match=r"b: full, odd, masks\n.*also the reference fulll"):
        world.compare(reference="fulll")


def test_files_and_settings_that_do_not_fit_are_refused(world):
    with pytest.raises(BadInput, match="one per file"):
        compare(world.metrics[1:], world.gaze, world.table, world.settings())


def page(world, **changes):
    world.compare()
    datasets = [
        ReportDataset(name="a", title="<Set> A", note="simulated & small"),
        ReportDataset(name="b", title="B"),
    ]
    html = world.folder / "table.html"
    values = {"table": "ablations", "datasets": datasets} | changes
    tabulate(world.table, html, TabulateSettings(**values))
    return html.read_text()


def test_the_page_fetches_nothing_and_escapes_what_it_is_given(world):
    html = page(world)
    assert not re.search(r"""(src|href)=(?!"(data:|#))""", html)
    assert "<script" not in html and "@import" not in html
    assert "&lt;Set&gt; A" in html and "<Set>" not in html
    assert "simulated &amp; small" in html
    assert "<title>Segmentation from gaze: ablations</title>" in html


def test_the_page_shows_the_numbers_and_says_what_they_mean(world):
    html = page(world)
    # Dice of `full`: (0 + … + 0.5) / 6 = 0.25 and 0.26 with the two seeds.
    assert "<td>0.255 ± 0.007</td>" in html
    assert "<td>+0.200 [+0.200, +0.200]</td>" in html
    assert "<td>0.031</td>" in html and "<td>0.062</td>" in html
    assert html.count("<td>reference</td>") == 2
    assert "images: 6, subjects: 6, seeds: 2" in html
    for words in ("over seeds", "95 % interval", "10,000 draws of subjects", "up to 12 subjects",
                  "sign-flip", "Holm", "diagonal"):  # fmt: skip
        assert words in re.sub(r"<.*?>|\s+", " ", html).replace("  ", " "), words


def test_the_best_of_those_that_learned_from_gaze_is_bold(world):
    bold = re.findall(r"<td><strong>(.*?)</strong>", page(world))
    # `odd`, not `masks`, in Dice and IoU; both that learned from gaze are alike in the distances.
    alike = ["1.0 ± 0.0 px", "0.50 ± 0.00 px"]
    assert bold == [*alike, "0.455 ± 0.007", "0.228 ± 0.004", *alike] * 2


def test_the_same_table_gives_the_same_page(world):
    assert page(world) == page(world)


def test_without_masks_the_page_has_dashes(world):
    for file in world.metrics:
        write(file, row("1", "p", NAN, NAN))
    html = page(world)
    assert not re.search(r"\bnan\b", html, re.I)
    assert "<td>–</td>" in html
    assert "<strong>–" not in html


def test_a_data_set_without_a_title_is_refused(world):
    with pytest.raises(BadInput, match=r"column dataset\n.*\['a', 'b'\]"):
        page(world, datasets=())


def test_a_table_that_is_none_is_refused(world):
    world.table.write_text("dataset\nb\n")
    with pytest.raises(BadInput, match=r"table\.csv: table(.|\n)*snakemake"):
        tabulate(world.table, world.folder / "t.html", TabulateSettings(table="t", datasets=()))


def test_values_as_they_read():
    ends = {"dice_difference": -0.01, "dice_difference_low": NAN, "dice_difference_high": NAN}
    assert difference(ends) == "-0.010"
    assert difference(ends | {"dice_difference_low": -0.02, "dice_difference_high": 0.03}) == (
        "-0.010 [-0.020, +0.030]"
    )
    assert difference(dict.fromkeys(ends, NAN)) == "–"
    assert [probability(p) for p in (0.00099, 0.001, 0.5, NAN)] == [
        "< 0.001",
        "0.001",
        "0.500",
        "–",
    ]


def test_command_lines(world):
    arguments = ["--metrics", *map(str, world.metrics), "--gaze", *map(str, world.gaze)]
    arguments += ["--output", str(world.table), "--settings", world.settings().model_dump_json()]
    cli.run(compare, arguments)
    html = world.folder / "t.html"
    titles = [ReportDataset(name=name, title=name) for name in "ab"]
    settings = TabulateSettings(table="t", datasets=titles).model_dump_json()
    cli.run(tabulate, ["--table", str(world.table), "--output", str(html), "--settings", settings])
    assert html.read_text().startswith("<!doctype html>")
