"""The page on small synthetic results: what it says, what it holds and what it refuses."""

import base64
import json
import re
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.evaluation.summarise import COLUMNS
from stages.gaze import quality
from stages.gaze.recordings.scan import Scan
from stages.report import attention, charts, figures, gaze_quality
from stages.report.page import number, spread
from stages.report.report import report
from stages.report.sections import choose
from stages.settings.quality import QualitySettings
from stages.settings.report import History, ReportDataset, ReportSettings, Training

NAN = float("nan")
SIZE = (32, 48)
HOSTILE = ("<script>alert(1)</script>", "a$b_{$", '" onerror="alert(2)')


def blob(size, centre, radius):
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


class Made(NamedTuple):
    """A data set's samples, in numbers that a test may change."""

    name: str = "a"
    title: str = "Data set A"
    note: str = ""
    # The first four train (the fourth unseen), then one val, then three test.
    splits: tuple = ("train",) * 4 + ("val",) + ("test",) * 3
    ids: tuple = tuple(f"s{i}" for i in range(8))
    masks: bool = True
    origin: str = "recorded"
    grey: bool = False
    looked: tuple = (0, 1, 2)
    limits: QualitySettings = QualitySettings()
    # "heatmaps" or "refined": the gaze came as maps.
    maps: str = ""


# One picture: the prediction of one test sample.
SMALL = Made(looked=(), splits=("train",) * 4 + ("val",) * 3 + ("test",))


def even(stride):
    """A share of one half everywhere."""
    return np.full((SIZE[0] // stride, SIZE[1] // stride), 0.5)


# What provenance.json tells of a result, and of one of which little is known.
MADE = {
    "job": "gaze", "log": "results/a/logs/gaze.log", "sha256": "a1" * 32,
    "code": "0123456789abcdef", "commit": "cafe-dirty", "host": "node7", "device": "2 × H100",
    "seconds": 90.25, "peak_mb": 1234.5, "taken_from": None,
    "stage": "gaze", "inputs": {}, "params": {},
    "versions": {"numpy": "2.4"},
}  # fmt: skip
UNKNOWN = MADE | dict.fromkeys(("code", "commit", "host", "device", "seconds", "peak_mb")) | {
    "log": "results/a/logs/texts.log", "sha256": "b2" * 32, "versions": {"numpy": "2.5"},
}  # fmt: skip


class World:
    """Files of a report, and the arguments that name them."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {
            role: []
            for role in (
                "prepared",
                "gaze",
                "quality",
                "explanations",
                "predictions",
                "metrics",
                "histories",
            )
        }
        self.datasets, self.trainings, self.histories, self.rows = [], [], [], []
        self.provenance = {"results/a/gaze.h5": MADE, "results/a/texts.h5": UNKNOWN}

    def path(self, role, name):
        path = self.folder / f"{role}-{len(self.files[role])}-{name}"
        self.files[role].append(path)
        return path

    def dataset(self, made=None):
        made = made or Made()
        n, rng = len(made.ids), np.random.default_rng(0)
        self.datasets.append(ReportDataset(name=made.name, title=made.title, note=made.note))
        masks = np.stack([blob(SIZE, (16, 20 + i), 8) for i in range(n)])
        with io.create_h5(self.path("prepared", "p.h5"), "prepare", {}, {}) as file:
            channels, kind = (1, np.float32) if made.grey else (3, np.uint8)
            file["image"] = rng.integers(0, 255, (n, *SIZE, channels)).astype(kind)
            file["mask"] = masks.astype(np.uint8) * made.masks
            file["has_mask"] = np.full(n, made.masks)
            io.write_strings(file, "split", made.splits)
            io.write_strings(file, "sample_id", made.ids)
        # The broad level of sample i is the mask moved by 4 - i rows: the later, the better.
        broad = np.stack([blob(SIZE, (20 - i, 20 + i), 8) for i in range(n)])
        precise = np.stack([blob(SIZE, (20 - i, 20 + i), 5) for i in range(n)])
        seen = np.isin(np.arange(n), made.looked)
        with io.create_h5(self.path("gaze", "g.h5"), "gaze", {}, {}) as file:
            file.attrs["gaze_origin"] = made.origin
            some = seen[:, None, None] & (made.maps != "refined")
            file["heatmap"] = (rng.random((n, *SIZE)) * some).astype(np.float16)
            file["refined"] = (broad * 0.9 * seen[:, None, None]).astype(np.float16)
            levels = np.stack([precise, broad], axis=1) & seen[:, None, None, None]
            file["pseudomask"] = levels.astype(np.uint8)
            file["threshold"] = np.array([0.5, 0.3], np.float32)
            fixated = seen & (made.maps == "")
            file["has_gaze"] = seen
            file["fixation_count"] = np.where(fixated, 3, 0).astype(np.int32)
            file["dwell_ms"] = np.where(fixated, 1500, NAN).astype(np.float32)
            scans = [[[i / 10, 0.5, 300, 0], [0.5, 0.5, 700, 400], [0.4, 0.6, 500, 1200]]
                     for i in np.flatnonzero(fixated)]  # fmt: skip
            file["fixation"] = np.array(scans, np.float32).reshape(-1, 4)
            offset = np.concatenate([[0], np.cumsum(fixated * 3)])
            file["fixation_offset"] = offset.astype(np.int64)
            io.write_strings(file, "sample_id", made.ids)
        self.quality(made, levels.astype(np.uint8), masks.astype(np.uint8), fixated)
        with io.create_h5(self.path("explanations", "e.h5"), "embed", {}, {}) as file:
            text = [["It is <b>red</b>.", f"It is number {i}."] if seen[i] else ["", ""]
                    for i in range(n)]  # fmt: skip
            io.write_strings(file, "text", text)
            io.write_strings(file, "sample_id", made.ids)
            file["failed"] = np.arange(n) == n - 1
            file["area_agrees"] = np.where(seen, np.arange(n) % 2, -1).astype(np.int8)
            file["place_agrees"] = np.full(n, -1, np.int8)
            file.attrs["backend"] = "measured"
            file.attrs["fields"] = ["area_percentage", ""]
        return made

    def quality(self, made, levels, masks, fixated):
        rows = []
        for i, (name, split) in enumerate(zip(made.ids, made.splits, strict=True)):
            fixations = [[i / 10, 0.5, 300, 0], [0.5, 0.5, 700, 400], [0.4, 0.6, 500, 1200]]
            scan = Scan(np.array(fixations if fixated[i] else []).reshape(-1, 4), 0, 0)
            row = quality.measure(
                None if made.maps and i in made.looked else scan,
                levels[i],
                masks[i] if made.masks and split == "train" else None,
                (0.5, 0.3),
                SIZE,
            )
            name = {"sample_id": name, "subject_id": name, "split": split}
            rows.append(name | row | quality.judge(row, made.limits))
        io.write_csv(quality.table(rows, (0.5, 0.3)), self.path("quality", "q.csv"))

    def training(self, made, experiment="full", teacher=False, dice=(0.3, 0.9, 0.6)):
        """A training; `dice` of the student on the test samples."""
        self.trainings.append(Training(dataset=made.name, experiment=experiment, seed=0))
        # Another order than that of prepared.h5: only ids may be relied on.
        chosen = [i for i, split in enumerate(made.splits) if split != "train"][::-1]
        ids = [made.ids[i] for i in chosen]
        splits = [made.splits[i] for i in chosen]
        models = ["student"] + ["teacher"] * teacher
        with io.create_h5(self.path("predictions", "p.h5"), "predict", {}, {}) as file:
            maps = np.stack([blob(SIZE, (17, 20 + i), 8) for i in chosen]).astype(np.float16)
            file["probability"] = maps
            if teacher:
                file["teacher_probability"] = maps
            for name, values in (("sample_id", ids), ("split", splits)):
                io.write_strings(file, name, values)
        scores = iter(dice)
        rows = []
        for model in models:
            for name, split in zip(ids, splits, strict=True):
                value = next(scores, 0.5) if split == "test" else 0.5
                rows.append((name, split, model, value if made.masks else NAN))
        table = pd.DataFrame(rows, columns=["sample_id", "split", "model", "dice"])
        io.write_csv(table, self.path("metrics", "m.csv"))
        for network in models:
            self.histories.append(
                History(dataset=made.name, experiment=experiment, seed=0, network=network)
            )
            history = pd.DataFrame(
                {"iteration": [10, 20], "loss": [0.5, 0.2], "learning_rate": [1, 0],
                 "seconds": [1, 2], "val_dice": [NAN, 0.7 if made.masks else NAN]}
            )  # fmt: skip
            io.write_csv(history, self.path("histories", f"{network}.csv"))
        for model in models:
            self.row(made, experiment, model)

    def attention(self, made, share=None):
        """Add attention to the last predictions: of the first token `share` (h, w) by stride."""
        with h5py.File(self.files["predictions"][-1], "r+") as file:
            ids = list(file["sample_id"].asstr())
            for stride in (2, 4, 8, 16):
                first = np.zeros((len(ids), SIZE[0] // stride, SIZE[1] // stride))
                told = np.zeros(len(ids), bool)
                for i in made.looked:
                    if made.ids[i] in ids:
                        k = ids.index(made.ids[i])
                        first[k], told[k] = (share or even)(stride), True
                both = np.stack([first, 1 - first], axis=1) * told[:, None, None, None]
                file[f"attention_{stride}"] = both.astype(np.float16)

    def row(self, made, experiment, model="student", split="test", **values):
        known = made.masks
        self.rows.append(
            {"dataset": made.name, "experiment": experiment, "model": model, "split": split,
             "seeds": 1, "n": 3 if known else 0, "unit": "mm", "undefined": 1 if known else 0,
             "dice_mean": 0.8123 if known else NAN, "dice_std": 0.0512 if known else NAN,
             "hd95_mean": 12.34 if known else NAN, "hd95_std": 3.21 if known else NAN,
             "annotation_seconds_per_image": 1.5, "gaze": made.origin} | values
        )  # fmt: skip

    @property
    def settings(self):
        return ReportSettings(datasets=tuple(self.datasets), trainings=tuple(self.trainings),
                              histories=tuple(self.histories))  # fmt: skip

    def options(self):
        summary = self.folder / "summary.csv"
        io.write_csv(pd.DataFrame(self.rows, columns=COLUMNS), summary)
        provenance = self.folder / "provenance.json"
        provenance.write_text(json.dumps(self.provenance))
        return {"summary": summary, "provenance": provenance,
                "output": self.folder / "out" / "report.html", "settings": self.settings,
                **self.files}  # fmt: skip

    def html(self):
        options = self.options()
        report(**options)
        return options["output"].read_text("utf-8")


class Tags(HTMLParser):
    """All elements of a page, and its visible text."""

    def __init__(self, html):
        super().__init__()
        self.found, self.words, self.open = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def pictures(self):
        return [
            Image.open(BytesIO(base64.b64decode(attrs["src"].partition(",")[2])))
            for tag, attrs in self.found
            if tag == "img"
        ]


def captions(html):
    """Text of every caption: of the chart, and of figures A to D."""
    found = re.findall(r'<p class="hint">(.*?)</p>|<figcaption>(.*?)</figcaption>', html, re.S)
    plain = (re.sub(r"<[^>]+>", "", "".join(pair)) for pair in found)
    return [" ".join(unescape(text).split()) for text in plain]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The page of two data sets, one recorded with two experiments, one simulated in grey."""
    world = World(tmp_path_factory.mktemp("world"))
    first = world.dataset(Made(note="Phantoms: nothing about patients."))
    world.training(first, teacher=True)
    world.training(first, "supervised")
    second = world.dataset(Made("b", "Data set B", origin="simulated", grey=True))
    world.training(second)
    return world.html()


def test_the_page_fetches_nothing_and_runs_nothing(html):
    tags = Tags(html)
    assert not {tag for tag, _ in tags.found} & {"script", "iframe", "object", "embed", "base"}
    for _, attrs in tags.found:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "srcset", "data"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in html
    assert "@import" not in html


def test_every_picture_can_be_opened_and_says_what_it_shows(html):
    tags = Tags(html)
    # The chart, and per data set three times A, B, three times C, and D.
    assert len(tags.pictures()) == 1 + 2 * 8
    for picture in tags.pictures():
        assert picture.format == "PNG"
        assert "Software" not in picture.info
    assert all(attrs["alt"] for tag, attrs in tags.found if tag == "img")


def test_tables_hold_formatted_values(html):
    text = Tags(html).text
    assert "0.812 ± 0.05" in text
    assert "12.3 ± 3.2 mm" in text
    assert "– mm" not in text
    assert "Data set A full 0.812 ± 0.05 – 12.3 ± 3.2 mm – 3 1 1.5 recorded" in text


def test_notes_stand_in_the_summary_and_in_the_section(html):
    assert html.count("Phantoms: nothing about patients.") == 3  # and in the settings
    assert "<strong>Data set A:</strong> Phantoms" in html


def test_a_section_counts_samples_and_gaze(html):
    text = Tags(html).text
    assert "Samples, train 4 Samples, val 1 Samples, test 3" in text
    assert "Images learned from 3 of 8" in text
    assert "Fixations per image, median 3 Dwell per image, mean 1.5 s" in text


def test_a_section_tells_how_many_explanations_are_true_of_the_gaze(html):
    text = Tags(html).text
    assert "(1 failed) Claimed area agrees with the gaze" in text
    assert "Claimed place agrees with the gaze – " in text
    assert "precise ≥ 0.5" in text


def test_samples_are_those_at_the_lowest_median_and_highest_dice(html):
    section = html.split('id="data-1"')[1].split('id="data-2"')[0]
    shown = re.findall(r"<h4><bdi>(.*?)</bdi> · (\w+) Dice, ([\d.]+)", section)
    # Training images by their broad pseudomask; test images by the first training's student.
    assert [(name, why) for name, why, _ in shown[:3]] == [
        ("s0", "lowest"), ("s1", "median"), ("s2", "highest")
    ]  # fmt: skip
    assert shown[3:] == [
        ("s7", "lowest", "0.300"), ("s5", "median", "0.600"), ("s6", "highest", "0.900")
    ]  # fmt: skip
    assert "student of “full” (seed 0); they were chosen that way" in section


def test_each_picture_is_of_its_own_sample(world, monkeypatch):
    drawn, blank = [], figures.strip([figures.Panel("", np.zeros((*SIZE, 3), np.uint8))])

    def keep(*arguments):
        drawn.append(arguments)
        return blank

    monkeypatch.setattr(figures, "gaze_strip", keep)
    monkeypatch.setattr(figures, "prediction_strip", keep)
    made = world.dataset()
    world.training(made, teacher=True)
    world.html()
    looked, predicted = drawn[:3], drawn[3:]
    for i, (image, fixations, heatmap, refined, levels, truth) in zip((0, 1, 2), looked):
        assert fixations[:, 0] == pytest.approx([i / 10, 0.5, 0.4])
        assert (levels[1] == blob(SIZE, (20 - i, 20 + i), 8)).all()
        assert ((refined > 0) == levels[1]).all()
        assert (truth == blob(SIZE, (16, 20 + i), 8)).all()
        assert image.shape == (*SIZE, 3)
        assert heatmap.shape == SIZE
    for (i, score), (_, truth, predictions) in zip(((7, 0.3), (5, 0.6), (6, 0.9)), predicted):
        assert (truth == blob(SIZE, (16, 20 + i), 8)).all()
        assert [(title, subtitle) for title, subtitle, _ in predictions] == [
            ("teacher, full", "Dice 0.500"), ("student, full", f"Dice {score:.3f}")
        ]  # fmt: skip
        assert all((mask == blob(SIZE, (17, 20 + i), 8)).all() for _, _, mask in predictions)


def test_levels_tell_how_their_areas_spread(html):
    # A disc of radius 8 has 197 of the 32 · 48 pixels, one of radius 5 has 81; none is cut off.
    text = Tags(html).text
    assert "precise ≥ 0.5 5.3 ± 0.0 5.3 5.3 0.5" in text
    assert "broad ≥ 0.3 12.8 ± 0.0 12.8 12.8 0.7" in text


def test_only_what_is_learned_from_counts_for_the_levels():
    rows = []
    for area, out in ((0.1, False), (0.3, False), (0.7, True)):
        known = dict.fromkeys(quality.columns((0.5,)), NAN)
        numbers = {"area_0.5": area, "dice_0.5": area + 0.2, "flags": "much (1)" if out else ""}
        rows.append(known | numbers | {"left_out": str(out), "learned": not out})
    level = gaze_quality.describe(pd.DataFrame(rows), np.array([0.5])).levels
    # ± √2 · 0.1: the sample standard deviation of two.
    assert level == [("≥ 0.5", "20.0 ± 14.1", "10.0", "30.0", "0.400 ± 0.14")]


def test_the_caption_of_gaze_quality_holds_its_numbers(html):
    _, _, measured, *_ = captions(html)
    assert measured.startswith(
        "3 images with gaze. Bars: images; dashed line: median. Boxes: quartiles of each "
        "pseudomask level; whiskers: from the 5th to the 95th percentile. Means: 3.0 fixations; "
        "1.5 s of dwell; 100.0% of the fixations on the image; dispersion "
    )
    # Of 300, 700 and 500 ms the first, at most 0.2 from the left border, is beside the mask.
    assert "80.0% of the dwell on the mask (train); 66.7% of the fixations" in measured
    assert measured.endswith("No image is flagged.")


def test_flagged_and_left_out_images_are_told(world):
    limits = QualitySettings(min_fixations=4, min_dwell_ms=2000, max_area=0.1, min_on_image=0)
    world.dataset(Made(limits=limits))
    world.dataset(Made("b", limits=limits.model_copy(update={"leave_out": True})))
    html = world.html()
    flagged, out = (found for found in captions(html) if "Flagged" in found)
    reasons = (
        "reasons: fewer than 4 fixations (3); dwell below 2000 ms (3); "
        "broad pseudomask above 0.1 of the image (3)."
    )
    assert flagged.endswith(f"Flagged: 3, none of them left out of training; {reasons}")
    assert out.endswith(f"Flagged: 3, all of them left out of training; {reasons}")
    # What is left out is not among the pseudomasks that are learned from.
    text = Tags(html).text
    assert "Images learned from 3 of 8" in text
    assert "Images learned from 0 of 8" in text
    assert "No training image has gaze to learn from." in text


def test_the_most_frequent_of_many_reasons(world):
    limits = QualitySettings(min_fixations=4, min_dwell_ms=2000, max_area=0.1, max_dispersion=0.13)
    world.dataset(Made(limits=limits))
    _, caption, *_ = captions(world.html())
    assert "; most frequent reasons: fewer than 4 fixations (3); dwell below" in caption
    assert "dispersion above" not in caption


def panels_of(world, monkeypatch, made):
    """Titles of the panels of each strip, and the page."""
    drawn, strip = [], figures.strip

    def keep(panels):
        drawn.append([panel.title for panel in panels])
        return strip(panels)

    monkeypatch.setattr(figures, "strip", keep)
    world.dataset(made)
    return drawn, world.html()


def test_heatmaps_made_elsewhere_have_no_fixations(world, monkeypatch):
    drawn, html = panels_of(world, monkeypatch, Made(maps="heatmaps"))
    assert drawn == [["image", "heatmap", "refined map", "pseudomasks", "truth"]] * 3
    looked, measured, *_ = captions(html)
    assert "Fixations: area" not in looked
    assert "Heatmap and map refined along the image's edges" in looked
    assert measured.startswith("3 images with gaze. Boxes: quartiles")
    assert "Means" not in measured
    text = Tags(html).text
    assert "Images learned from 3 of 8" in text
    assert "Fixations per image, median – Dwell per image, mean –" in text
    # Two of the small multiples: areas and Dice.
    assert Tags(html).pictures()[3].width == pytest.approx(2 * 2.65 * 150, abs=2)


def test_refined_maps_made_elsewhere_have_no_heatmap(world, monkeypatch):
    drawn, html = panels_of(world, monkeypatch, Made(maps="refined", masks=False))
    assert drawn == [["image", "refined map", "pseudomasks"]] * 3
    looked, *_ = captions(html)
    assert "Map refined along the image's edges: dark to bright." in looked
    assert "heatmap" not in looked.lower()
    assert 'alt="image, refined map, pseudomasks"' in html


def test_what_the_quality_says_is_shown_as_it_is(world):
    world.dataset()
    file = world.files["quality"][0]
    table = pd.read_csv(file, keep_default_na=False, dtype=str)
    table.loc[0, "flags"] = HOSTILE[0]
    table.to_csv(file, index=False)
    tags = Tags(world.html())
    assert "script" not in {tag for tag, _ in tags.found}
    assert HOSTILE[0].partition("(")[0] in tags.text


def test_quality_of_other_samples_is_refused(world):
    world.dataset()
    file = world.files["quality"][0]
    file.write_text(file.read_text().replace("s3,", "t3,", 1))
    message = (
        r"quality-0-q\.csv: column sample_id\n.*8 ids, not those of .*gaze-0-g\.h5\n"
        r".*the same 8 ids in the same order\n.*delete both files"
    )
    with pytest.raises(BadInput, match=message):
        report(**world.options())


def test_the_explanation_stands_under_its_image(html):
    assert "It is &lt;b&gt;red&lt;/b&gt;. It is number 0." in html


def test_every_caption_that_rests_on_simulated_gaze_says_so(html):
    chart, *figures_ = captions(html)
    assert chart.endswith("Gaze simulated from the masks, not recorded: Data set B.")
    recorded, simulated = figures_[:4], figures_[4:]
    assert len(simulated) == 4
    assert not [caption for caption in recorded if "simulated" in caption]
    assert all("simulated from the masks, not recorded" in caption for caption in simulated)


def test_provenance_names_versions_and_every_input(html):
    text = Tags(html.split('id="provenance"')[1]).text
    for name in ("python", "summary", "a gaze", "a full seed0 metrics", "b explanations",
                 "a full seed0 teacher_history"):  # fmt: skip
        assert f" {name} " in text
    # Not where a clone of the project lies.
    assert "/tmp" not in text


def test_provenance_tells_how_each_result_came_to_be(world):
    world.dataset(Made(looked=()))
    text = Tags(world.html().split('id="provenance"')[1]).text
    assert "2 results of 2 jobs, on node7 (2 × H100), 1.5 minutes in all, at most 1,234 MB" in text
    assert f"a/gaze.h5 0123456789abcdef cafe-dirty 90.2 1,234 node7 2 × H100 1 {'a1' * 8}" in text
    assert f"a/texts.h5 – – – – – – 2 {'b2' * 8}" in text
    assert "Versions 1: numpy 2.4" in text and "Versions 2: numpy 2.5" in text


def test_results_of_one_job_count_once(world):
    world.provenance["results/a/history.csv"] = MADE
    world.dataset(Made(looked=()))
    assert "3 results of 2 jobs, on node7 (2 × H100), 1.5 minutes in all" in Tags(world.html()).text


def test_a_provenance_that_is_none_is_refused(world):
    world.dataset(Made(looked=()))
    options = world.options()
    options["provenance"].write_text("{")
    with pytest.raises(BadInput, match=r"provenance\.json: file\n"):
        report(**options)


def test_hostile_names_are_shown_as_they_are_and_do_nothing(world):
    ids = (HOSTILE[0] + "0", HOSTILE[1] + "0", HOSTILE[2], "3", "4", HOSTILE[0], HOSTILE[1], "7")
    made = world.dataset(Made(title=r"A$_{\frac$ <i>", note="<img src=x>", ids=ids))
    world.training(made, r"e$^{<u>", teacher=True)
    html = world.html()
    tags = Tags(html)
    assert not {tag for tag, _ in tags.found} & {"script", "i", "u"}
    assert all(attrs["src"].startswith("data:") for tag, attrs in tags.found if tag == "img")
    assert not [attrs for _, attrs in tags.found if "onerror" in attrs]
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], made.title, made.note, r"e$^{<u>"):
        assert name in tags.text


def test_missing_values_are_dashes(world):
    made = world.dataset(SMALL)
    world.training(made)
    world.rows.clear()
    world.row(made, "full", dice_std=NAN, hd95_mean=NAN, hd95_std=NAN, unit="mixed",
              annotation_seconds_per_image=NAN, gaze="")  # fmt: skip
    world.row(made, "NA", split="val")
    html = world.html()
    text = Tags(html).text
    assert "full 0.812 ± – – – – 3 1 – –" in text
    # An experiment without test images keeps its row.
    assert "NA – – – – – – – –" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_the_same_files_give_the_same_bytes(world):
    made = world.dataset(Made(looked=(0,), splits=SMALL.splits))
    world.training(made, teacher=True)
    first = world.html()
    assert len(Tags(first).pictures()) == 5
    assert world.html() == first


def test_a_data_set_without_masks(world):
    made = world.dataset(Made(masks=False))
    world.training(made)
    html = world.html()
    text = Tags(html).text
    looked, measured, test, _ = captions(html)
    assert "Samples, train 4 (none with a mask)" in text
    assert "evenly spread over the file" in looked
    assert "no masks" in looked.lower()
    assert "No masks" in test
    assert "truth" not in looked + test
    assert re.findall(r"<h4><bdi>(.*?)</bdi></h4>", html) == ["s0", "s1", "s2", "s7", "s6", "s5"]
    # No chart of numbers that do not exist; the panels of truth are left out.
    assert len(Tags(html).pictures()) == 8
    assert "on the mask" not in measured
    assert "Dice –" not in html


def test_columns_follow_the_networks(world):
    made = world.dataset(SMALL)
    world.training(made, "supervised")
    alone = Tags(world.html()).pictures()[1].width
    world.training(made, "full", teacher=True)
    # One more student, and the one teacher, that of the second training.
    more = Tags(world.html()).pictures()[1].width
    assert more / alone == pytest.approx(5 / 3, rel=0.02)


def test_a_data_set_that_nobody_looked_at_and_nothing_was_trained_on(world):
    world.dataset(Made(looked=()))
    text = Tags(world.html()).text
    assert "No training image has gaze to learn from." in text
    assert "No training of this data set has predictions of test images." in text
    assert "Fixations per image, median – Dwell per image, mean –" in text


def test_training_without_test_images(world):
    made = world.dataset(Made(looked=(), splits=("train",) * 4 + ("val",) * 4))
    world.training(made)
    assert "has predictions of test images" in Tags(world.html()).text


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("prepared", r"prepared\n.*1 entries\n.*0, one per file of --prepared"),
        ("gaze", r"gaze\n.*1 entries\n.*0, one"),
        ("quality", r"quality\n.*1 entries\n.*0, one"),
        ("explanations", r"explanations\n.*1 entries\n.*0, one"),
        ("predictions", r"predictions\n.*1 entries\n.*0, one"),
        ("metrics", r"metrics\n.*1 entries\n.*0, one"),
        ("histories", r"histories\n.*1 entries\n.*0, one"),
    ],
)
def test_counts_that_do_not_match_are_refused(world, role, message):
    world.training(world.dataset())
    world.files[role].pop()
    with pytest.raises(BadInput, match=message):
        report(**world.options())


def test_names_that_do_not_match_are_refused(world):
    made = world.dataset()
    world.training(made)
    world.row(made._replace(name="c"), "full")
    with pytest.raises(BadInput, match=r"summary\.csv: column dataset\n.*\['c'\]"):
        report(**world.options())
    world.trainings[0] = world.trainings[0].model_copy(update={"dataset": "d"})
    with pytest.raises(BadInput, match=r"trainings\n.*d\n.*one of \['a'\]"):
        report(**world.options())
    world.dataset()
    with pytest.raises(BadInput, match=r"datasets\n.*\['a', 'a'\]"):
        report(**world.options())


def test_predictions_of_other_samples_are_refused(world):
    made = world.dataset(SMALL)
    world.training(made)
    world.training(made._replace(ids=tuple(f"t{i}" for i in range(8))), "other")
    with pytest.raises(BadInput, match=r"predictions-1-p\.h5: data set sample_id\n.*'s7'"):
        report(**world.options())


def test_a_table_that_is_none_is_refused(world):
    world.training(world.dataset(SMALL))
    world.files["histories"][0].write_text("iteration\n1\n")
    with pytest.raises(BadInput, match=r"student\.csv: table(.|\n)*iteration, loss, val_dice"):
        report(**world.options())


def test_nothing_is_left_behind_on_failure(world, monkeypatch):
    world.dataset(Made(looked=()))
    options = world.options()

    def fail(page):
        raise RuntimeError("no page")

    monkeypatch.setattr("stages.report.report.render", fail)
    with pytest.raises(RuntimeError, match="no page"):
        report(**options)
    assert list(options["output"].parent.iterdir()) == []


def test_command_line(world):
    world.training(world.dataset(SMALL))
    options = world.options()
    argv = []
    for name, value in options.items():
        argv.append(f"--{name}")
        if name == "settings":
            argv.append(value.model_dump_json())
        else:
            argv += [str(path) for path in (value if isinstance(value, list) else [value])]
    cli.run(report, argv)
    assert options["output"].is_file()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5, 0.1, 0.9, 0.3], [1, 3, 2]),
        ([NAN, 0.4, NAN], [1]),
        ([0.4, 0.2], [1, 0]),
        ([0.5, 0.5, 0.5], [0, 1, 2]),
        ([NAN] * 5, [0, 2, 4]),
        ([NAN] * 2, [0, 1]),
        ([], []),
    ],
)
def test_choose(scores, expected):
    assert [position for position, _ in choose(scores)] == expected


def test_values_as_they_read():
    assert spread(0.8123, 0.0512, (3, 2)) == "0.812 ± 0.05"
    assert spread(12.34, NAN, (1, 1), "px") == "12.3 ± – px"
    assert spread(NAN, 0.1, (3, 2), "mm") == "–"
    assert (number(3.0), number(3.25, 1, "s"), number(NAN, 2, "s")) == ("3", "3.2 s", "–")


def test_tint_and_overlay_leave_the_rest_of_the_image():
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[True, False], [False, False]])
    tinted = figures.tint(image, mask, "#C8FF00")
    assert tinted[0, 0].tolist() == [150, 178, 50]
    assert (tinted[~mask] == 100).all()
    warm = figures.overlay(image, mask.astype(np.float16))
    # At 1 the map's brightest colour hides four fifths of the grey image; at 0 nothing is hidden.
    assert warm[0, 0].min() > 100
    assert (warm[~mask] == 100).all()


def colours(png):
    return {colour for _, colour in Image.open(BytesIO(png)).convert("RGB").getcolors(1 << 20)}


def test_flagged_images_have_a_colour_of_their_own():
    orange = tuple(bytes.fromhex(charts.PALETTE[1][1:]))
    spread = charts.Spread("Fixations", np.array([3.0, 5, 8]), "count")
    none, some = np.zeros(3, bool), np.array([True, False, False])
    assert orange in colours(charts.gaze_quality([spread], some))
    assert orange not in colours(charts.gaze_quality([spread], none))


def test_small_multiples_of_one_image_and_of_equal_values():
    names = ("≥ 0.5", "≥ 0.3")
    boxes = charts.Spread("Area", np.array([[0.1, 0.1], [NAN, NAN]]), names=names)
    bars = [charts.Spread(kind, np.array([1.0, NAN]), kind) for kind in ("count", "share", "range")]
    picture = Image.open(BytesIO(charts.gaze_quality([*bars, boxes, boxes], np.zeros(2, bool))))
    # Four abreast, in two rows.
    assert (picture.width, picture.height) == (int(4 * 2.65 * 150), 2 * 2 * 150)


@given(arrays(np.float64, st.integers(1, 50), elements=st.integers(0, 10**6)))
def test_bins_of_counts_hold_each_whole_number_once(values):
    edges = charts._edges(values, "count")
    assert np.histogram(values, edges)[0].sum() == len(values)
    assert (edges % 1 == 0.5).all()
    assert len(edges) <= 22


def test_experiments_differ_in_colour_or_marker():
    names = [f"e{i}" for i in range(56)]
    assert len({charts._look(names, name) for name in names}) == 56


# Attention: the validation sample 4 and the test sample 6 have text.
READ = Made(looked=(0, 1, 4, 6))


def leaning(stride):
    """Three quarters in the upper half of the image, one quarter in the lower, at each scale."""
    share = np.full((SIZE[0] // stride, SIZE[1] // stride), 0.25)
    share[: len(share) // 2] = 0.75
    return share


def attention_of(world, monkeypatch):
    """Arguments of each strip of attention, and the page."""
    drawn, strip = [], figures.attention_strip

    def keep(*arguments):
        drawn.append(arguments)
        return strip(*arguments)

    monkeypatch.setattr(figures, "attention_strip", keep)
    return drawn, world.html()


def test_attention_is_shown_of_the_first_and_last_image_with_text(world, monkeypatch):
    made = world.dataset(READ)
    world.training(made, "gaze_only")
    world.training(made, teacher=True)
    world.attention(made, leaning)
    drawn, html = attention_of(world, monkeypatch)
    # The file of predictions is in the order of the samples, from the last.
    for i, (image, ratios, titles, region) in zip((6, 4), drawn, strict=True):
        assert (region == blob(SIZE, (20 - i, 20 + i), 8)).all()
        assert image.shape == (*SIZE, 3)
        assert titles == ["area percentage", "token 2"]
        # Against an even half: 1.5 in the upper part of the first token, where no scale blurs it.
        assert ratios[0, 0] == pytest.approx(np.full(SIZE[1], 1.5))
        assert ratios[0, -1] == pytest.approx(np.full(SIZE[1], 0.5))
        assert ratios.mean(axis=0) == pytest.approx(np.ones(SIZE))
    shown = html.split("Where the words are read")[1]
    assert re.findall(r"<h4><bdi>(.*?)</bdi> · (.*?)</h4>", shown) == [
        ("s6", "test image"), ("s4", "validation image")
    ]  # fmt: skip
    assert "Area percentage: It is &lt;b&gt;red&lt;/b&gt;. Token 2: It is number 6." in shown
    assert 'alt="for each of area percentage, token 2: where the teacher reads it"' in shown
    caption = captions(html)[-1]
    assert caption.startswith("The first and last of the 2 validation and test images with text.")
    assert "the teacher of “full” (seed 0)" in caption
    assert "against an even share of 1/2." in caption
    assert caption.endswith("Outline : the broad pseudomask, which the words are of.")


def test_attention_that_rests_on_simulated_gaze_says_so(world):
    made = world.dataset(READ._replace(origin="simulated", looked=(0, 4)))
    world.training(made, teacher=True)
    world.attention(made)
    caption = captions(world.html())[-1]
    assert caption.startswith("The only of the 1 validation and test images with text.")
    assert caption.endswith("The gaze behind it is simulated from the masks, not recorded.")


def test_without_attention_or_text_there_is_no_picture_of_it(world):
    made = world.dataset()
    world.training(made, teacher=True)
    assert "Where the words are read" not in world.html()
    world.attention(made)
    html = world.html()
    assert captions(html)[-1] == "No validation or test image has a text to read."
    # The chart, three times A, B, three times C, and D.
    assert len(Tags(html).pictures()) == 9


def test_a_single_token_has_nothing_to_show(world):
    made = world.dataset(READ)
    world.training(made, teacher=True)
    world.attention(made)
    with h5py.File(world.files["predictions"][0], "r+") as file:
        for stride in (2, 4, 8, 16):
            share = file[f"attention_{stride}"][:, :1]
            del file[f"attention_{stride}"]
            file[f"attention_{stride}"] = np.where(share > 0, 1, 0).astype(np.float16)
    html = world.html()
    assert captions(html)[-1] == (
        "An image's text is one token, and every position reads all of it."
    )
    # The chart, twice A, B, three times C, and D.
    assert len(Tags(html).pictures()) == 8


def test_attention_of_other_samples_is_refused(world):
    made = world.dataset(READ)
    world.training(made, teacher=True)
    world.attention(made)
    with h5py.File(world.files["prepared"][0], "r") as prepared, \
         h5py.File(world.files["gaze"][0], "r") as gaze, \
         h5py.File(world.files["explanations"][0], "r") as explanations, \
         h5py.File(world.files["predictions"][0], "r+") as predictions:  # fmt: skip
        ids = predictions["sample_id"]
        ids[list(ids.asstr()).index("s6")] = "t6"
        predictions.flush()
        options = (prepared, gaze, explanations, world.trainings[0])
        message = (
            r"p\.h5: data set sample_id\n.*'t6', which .*prepared-0-p\.h5 lacks\n(.|\n)*delete"
        )
        with pytest.raises(BadInput, match=message):
            attention.attention(*options, world.files["predictions"][0])


def test_colours_of_an_attention_strip():
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = figures.diverge(image, np.array([[-1, 0], [0.5, 1]]))
    less, none, some, more = drawn.reshape(4, 3).astype(int)
    assert none.tolist() == [100, 100, 100]
    # Purple has more blue than red, orange more red than blue; half a deviation has less of it.
    assert less[2] > less[0]
    assert more[0] > more[2]
    assert some[0] - some[2] > 20


@pytest.mark.parametrize(
    ("ratios", "deviations"),
    [
        # Of K = 2, log 2 is the full colour, and half as much is its opposite.
        ([[2, 1], [0.5, 1]], [[1, 0], [-1, 0]]),
        # What is not read at all counts as 1/K, so that it does not take the others' colour.
        ([[2**0.5, 1], [0, 1]], [[0.5, 0], [-1, 0]]),
        ([[1, 1], [1, 1]], [[0, 0], [0, 0]]),
    ],
)
def test_deviation_from_an_even_share(ratios, deviations, monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "diverge", lambda image, values: seen.append(values) or image)
    image, region = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2), bool)
    figures.attention_strip(image, np.array(ratios, float)[:, None], ["a", "b"], region)
    assert np.array(seen)[:, 0] == pytest.approx(np.array(deviations, float))


shares = arrays(np.float64, (3, 2, 4), elements=st.floats(0.01, 1))


@given(shares, shares)
def test_shares_against_even_ones_average_to_one(fine, coarse):
    maps = [values / values.sum(axis=0) for values in (fine, coarse[:, :1, :2])]
    ratios = attention.against_even(maps, (4, 8))
    assert ratios.shape == (3, 4, 8)
    assert ratios.min() >= 0
    assert ratios.mean(axis=0) == pytest.approx(np.ones((4, 8)), abs=1e-5)
