"""The page on small synthetic results: its text, its pictures and the input that it refuses."""

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
from stages.evaluation.compare import COLUMNS as COMPARE_COLUMNS
from stages.evaluation.summarise import COLUMNS
from stages.gaze import quality
from stages.gaze.recordings.scan import Scanpath
from stages.report import attention, charts, figures, gaze_quality
from stages.report.page import format_mean_std, format_number
from stages.report.report import report
from stages.report.sections import choose_samples
from stages.settings.quality import QualitySettings
from stages.settings.report import (
    ReportDataset,
    ReportHistory,
    ReportSettings,
    ReportTable,
    ReportTraining,
)

NAN = float("nan")
SIZE = (32, 48)
HOSTILE = ("<script>alert(1)</script>", "a$b_{$", '" onerror="alert(2)')


def blob(size, centre, radius):
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


class DatasetSpec(NamedTuple):
    """The samples of a synthetic data set."""

    name: str = "a"
    title: str = "Data set A"
    note: str = ""
    # Four train (the fourth has no gaze), one val, three test.
    splits: tuple = ("train",) * 4 + ("val",) + ("test",) * 3
    ids: tuple = tuple(f"s{i}" for i in range(8))
    masks: bool = True
    origin: str = "recorded"
    grey: bool = False
    # Indices of the samples with gaze.
    with_gaze: tuple = (0, 1, 2)
    limits: QualitySettings = QualitySettings()
    # "heatmaps" or "refined" if the gaze is given as maps.
    maps: str = ""
    backend: str = "transformers"


# The page has one picture: the prediction of one test sample.
SMALL = DatasetSpec(with_gaze=(), splits=("train",) * 4 + ("val",) * 3 + ("test",))


def even(stride):
    """Return weights of one half everywhere."""
    return np.full((SIZE[0] // stride, SIZE[1] // stride), 0.5)


# The entries of provenance.json for a known result and for one with few known values.
KNOWN = {
    "job": "gaze", "log": "results/a/logs/gaze.log", "sha256": "a1" * 32,
    "code": "0123456789abcdef", "commit": "cafe-dirty", "host": "node7", "device": "2 × H100",
    "seconds": 90.25, "peak_mb": 1234.5, "taken_from": None,
    "stage": "gaze", "inputs": {}, "params": {},
    "versions": {"numpy": "2.4"},
}  # fmt: skip
UNKNOWN = KNOWN | dict.fromkeys(("code", "commit", "host", "device", "seconds", "peak_mb")) | {
    "log": "results/a/logs/texts.log", "sha256": "b2" * 32, "versions": {"numpy": "2.5"},
}  # fmt: skip


class ReportFiles:
    """The files of a report, and the arguments that name them."""

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
                "tables",
            )
        }
        self.datasets, self.trainings, self.histories, self.rows = [], [], [], []
        self.tables = []
        self.provenance = {"results/a/gaze.h5": KNOWN, "results/a/texts.h5": UNKNOWN}

    def path(self, role, name):
        path = self.folder / f"{role}-{len(self.files[role])}-{name}"
        self.files[role].append(path)
        return path

    def dataset(self, spec=None):
        spec = spec or DatasetSpec()
        n, rng = len(spec.ids), np.random.default_rng(0)
        self.datasets.append(ReportDataset(name=spec.name, title=spec.title, note=spec.note))
        masks = np.stack([blob(SIZE, (16, 20 + i), 8) for i in range(n)])
        with io.create_h5(self.path("prepared", "p.h5"), "prepare", {}, {}) as file:
            channels, kind = (1, np.float32) if spec.grey else (3, np.uint8)
            file["image"] = rng.integers(0, 255, (n, *SIZE, channels)).astype(kind)
            file["mask"] = masks.astype(np.uint8) * spec.masks
            file["has_mask"] = np.full(n, spec.masks)
            io.write_strings(file, "split", spec.splits)
            io.write_strings(file, "sample_id", spec.ids)
        # The broad level of sample i is the mask, moved by 4 - i rows: Dice increases with i.
        broad = np.stack([blob(SIZE, (20 - i, 20 + i), 8) for i in range(n)])
        precise = np.stack([blob(SIZE, (20 - i, 20 + i), 5) for i in range(n)])
        has_gaze = np.isin(np.arange(n), spec.with_gaze)
        with io.create_h5(self.path("gaze", "g.h5"), "gaze", {}, {}) as file:
            file.attrs["gaze_origin"] = spec.origin
            has_heatmap = has_gaze[:, None, None] & (spec.maps != "refined")
            file["heatmap"] = (rng.random((n, *SIZE)) * has_heatmap).astype(np.float16)
            file["refined"] = (broad * 0.9 * has_gaze[:, None, None]).astype(np.float16)
            levels = np.stack([precise, broad], axis=1) & has_gaze[:, None, None, None]
            file["pseudomask"] = levels.astype(np.uint8)
            file["threshold"] = np.array([0.5, 0.3], np.float32)
            fixated = has_gaze & (spec.maps == "")
            file["has_gaze"] = has_gaze
            file["fixation_count"] = np.where(fixated, 3, 0).astype(np.int32)
            file["dwell_ms"] = np.where(fixated, 1500, NAN).astype(np.float32)
            scans = [[[i / 10, 0.5, 300, 0], [0.5, 0.5, 700, 400], [0.4, 0.6, 500, 1200]]
                     for i in np.flatnonzero(fixated)]  # fmt: skip
            file["fixation"] = np.array(scans, np.float32).reshape(-1, 4)
            offset = np.concatenate([[0], np.cumsum(fixated * 3)])
            file["fixation_offset"] = offset.astype(np.int64)
            io.write_strings(file, "sample_id", spec.ids)
        self.quality(spec, levels.astype(np.uint8), masks.astype(np.uint8), fixated)
        with io.create_h5(self.path("explanations", "e.h5"), "embed", {}, {}) as file:
            text = [["It is <b>red</b>.", f"It is number {i}."] if has_gaze[i] else ["", ""]
                    for i in range(n)]  # fmt: skip
            io.write_strings(file, "text", text)
            # Sample i claims 12.8 % of the image, which is the area of each mask and prediction.
            claim = '{"area": 0.128, "place": "upper left"}'
            io.write_strings(file, "attributes", [claim if known else "{}" for known in has_gaze])
            io.write_strings(file, "sample_id", spec.ids)
            file["failed"] = np.arange(n) == n - 1
            file["area_agrees"] = np.where(has_gaze, np.arange(n) % 2, -1).astype(np.int8)
            file["place_agrees"] = np.full(n, -1, np.int8)
            file.attrs["backend"] = spec.backend
            file.attrs["fields"] = ["area_percentage", ""]
        return spec

    def quality(self, spec, levels, masks, fixated):
        rows = []
        for i, (name, split) in enumerate(zip(spec.ids, spec.splits, strict=True)):
            fixations = [[i / 10, 0.5, 300, 0], [0.5, 0.5, 700, 400], [0.4, 0.6, 500, 1200]]
            scan = Scanpath(np.array(fixations if fixated[i] else []).reshape(-1, 4), 0, 0)
            row = quality.measure_sample(
                None if spec.maps and i in spec.with_gaze else scan,
                levels[i],
                masks[i] if spec.masks and split == "train" else None,
                (0.5, 0.3),
                SIZE,
            )
            name = {"sample_id": name, "subject_id": name, "split": split}
            rows.append(name | row | quality.flag_sample(row, spec.limits))
        io.write_csv(quality.quality_table(rows, (0.5, 0.3)), self.path("quality", "q.csv"))

    def training(self, spec, experiment="full", teacher=False, dice=(0.3, 0.9, 0.6)):
        """Add a training; `dice` holds the student's scores on the test samples."""
        self.trainings.append(ReportTraining(dataset=spec.name, experiment=experiment, seed=0))
        # The order differs from prepared.h5, so the report must match samples by id.
        chosen = [i for i, split in enumerate(spec.splits) if split != "train"][::-1]
        ids = [spec.ids[i] for i in chosen]
        splits = [spec.splits[i] for i in chosen]
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
                rows.append((name, split, model, value if spec.masks else NAN))
        table = pd.DataFrame(rows, columns=["sample_id", "split", "model", "dice"])
        io.write_csv(table, self.path("metrics", "m.csv"))
        for network in models:
            self.histories.append(
                ReportHistory(dataset=spec.name, experiment=experiment, seed=0, network=network)
            )
            history = pd.DataFrame(
                {"iteration": [10, 20], "loss": [0.5, 0.2], "learning_rate": [1, 0],
                 "seconds": [1, 2], "val_dice": [NAN, 0.7 if spec.masks else NAN]}
            )  # fmt: skip
            io.write_csv(history, self.path("histories", f"{network}.csv"))
        for model in models:
            self.row(spec, experiment, model)

    def attention(self, spec, share=None):
        """Add attention to the last predictions; `share(stride)` is the first token's (h, w)."""
        with h5py.File(self.files["predictions"][-1], "r+") as file:
            ids = list(file["sample_id"].asstr())
            for scale, stride in enumerate((2, 4, 8, 16), start=1):
                first = np.zeros((len(ids), SIZE[0] // stride, SIZE[1] // stride))
                has_text = np.zeros(len(ids), bool)
                for i in spec.with_gaze:
                    if spec.ids[i] in ids:
                        k = ids.index(spec.ids[i])
                        first[k], has_text[k] = (share or even)(stride), True
                both = np.stack([first, 1 - first], axis=1) * has_text[:, None, None, None]
                file[f"attention_{scale}"] = both.astype(np.float16)

    def row(self, spec, experiment, model="student", split="test", **values):
        known = spec.masks
        self.rows.append(
            {"dataset": spec.name, "experiment": experiment, "model": model, "split": split,
             "seeds": 1, "n": 3 if known else 0, "unit": "mm", "undefined": 1 if known else 0,
             "dice_mean": 0.8123 if known else NAN, "dice_std": 0.0512 if known else NAN,
             "dice_low": 0.7891 if known else NAN, "dice_high": 0.8344 if known else NAN,
             "hd95_mean": 12.34 if known else NAN, "hd95_std": 3.21 if known else NAN,
             "hd95_penalised": 45.67 if known else NAN, "asd_penalised": 8.9 if known else NAN,
             "annotation_seconds_per_image": 1.5, "gaze": spec.origin} | values
        )  # fmt: skip

    def table(self, spec, name, **values):
        row = {"dataset": spec.name, "experiment": "no_text", "reference": "full", "unit": "mm",
               "gaze": "recorded", "n": 3, "subjects": 2, "seeds": 5, "dice_mean": 0.7654,
               "dice_difference": -0.0123, "dice_difference_low": -0.02,
               "dice_difference_high": -0.004}  # fmt: skip
        file = self.path("tables", f"{name}.csv")
        io.write_csv(pd.DataFrame([row | values], columns=COMPARE_COLUMNS), file)
        self.tables.append(ReportTable(dataset=spec.name, name=name))

    @property
    def settings(self):
        return ReportSettings(
            datasets=tuple(self.datasets),
            trainings=tuple(self.trainings),
            histories=tuple(self.histories),
            tables=tuple(self.tables),
        )

    def options(self):
        summary = self.folder / "summary.csv"
        io.write_csv(pd.DataFrame(self.rows, columns=COLUMNS), summary)
        provenance = self.folder / "provenance.json"
        provenance.write_text(json.dumps(self.provenance))
        return {"summary": summary, "provenance": provenance,
                "output": self.folder / "out" / "report.html",
                "figures": self.folder / "out" / "figures", "settings": self.settings,
                **self.files}  # fmt: skip

    def html(self):
        options = self.options()
        report(**options)
        return options["output"].read_text("utf-8")


class Tags(HTMLParser):
    """The elements of a page and its visible text."""

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
    """Return the text of each caption: of the chart, and of figures A to E."""
    found = re.findall(r'<p class="hint">(.*?)</p>|<figcaption>(.*?)</figcaption>', html, re.S)
    plain = (re.sub(r"<[^>]+>", "", "".join(pair)) for pair in found)
    return [" ".join(unescape(text).split()) for text in plain]


@pytest.fixture
def report_files(tmp_path):
    return ReportFiles(tmp_path)


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """Return a page: A has recorded gaze and two experiments, B simulated gaze and grey images."""
    report_files = ReportFiles(tmp_path_factory.mktemp("report"))
    first = report_files.dataset(DatasetSpec(note="Phantoms: nothing about patients."))
    report_files.training(first, teacher=True)
    report_files.training(first, "supervised")
    second = report_files.dataset(DatasetSpec("b", "Data set B", origin="simulated", grey=True))
    report_files.training(second)
    return report_files.html()


def test_the_page_loads_nothing_and_has_no_scripts(html):
    tags = Tags(html)
    assert not {tag for tag, _ in tags.found} & {"script", "iframe", "object", "embed", "base"}
    for _, attrs in tags.found:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "srcset", "data"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in html
    assert "@import" not in html


def test_each_picture_is_a_png_with_an_alternative_text(html):
    tags = Tags(html)
    # Two charts; per data set three pictures for A, one for B, three for C, one for D and for E.
    assert len(tags.pictures()) == 2 + 2 * 9
    for picture in tags.pictures():
        assert picture.format == "PNG"
        assert "Software" not in picture.info
    assert all(attrs["alt"] for tag, attrs in tags.found if tag == "img")


def test_tables_hold_formatted_values(html):
    text = Tags(html).text
    assert "0.812 ± 0.05" in text
    assert "12.3 ± 3.2 mm" in text
    assert "– mm" not in text
    assert "Data set A full 0.812 ± 0.05 0.789 to 0.834 – 45.7 mm 8.90 mm 3 1 1.5 recorded" in text


def test_notes_are_in_the_summary_and_in_the_section(html):
    assert html.count("Phantoms: nothing about patients.") == 3  # and in the settings
    assert "<strong>Data set A:</strong> Phantoms" in html


def test_a_section_counts_samples_and_gaze(html):
    text = Tags(html).text
    assert "Samples, train 4 Samples, val 1 Samples, test 3" in text
    assert "Images with usable gaze 3 of 8" in text
    assert "Fixations per image, median 3 Dwell per image, mean 1.5 s" in text


def test_a_section_counts_the_explanations_that_agree_with_the_gaze(html):
    text = Tags(html).text
    assert "(1 failed) Claimed area agrees with the gaze" in text
    assert "Claimed place agrees with the gaze – " in text
    assert "precise ≥ 0.5" in text


def test_measured_texts_are_not_compared_with_the_gaze_that_they_come_from(report_files):
    report_files.training(report_files.dataset(DatasetSpec(backend="measured")))
    assert "agrees with the gaze" not in Tags(report_files.html()).text


def test_gaze_and_words_are_compared_with_the_students_masks(report_files):
    # Samples 5, 6 and 7 are test images; two of them have gaze.
    spec = report_files.dataset(DatasetSpec(with_gaze=(0, 5, 6)))
    report_files.training(spec)
    expected = []
    for i in (5, 6):
        gaze, prediction = blob(SIZE, (20 - i, 20 + i), 8), blob(SIZE, (17, 20 + i), 8)
        expected.append(2 * (gaze & prediction).sum() / (gaze.sum() + prediction.sum()))
    text = Tags(report_files.html()).text
    assert f"Gaze and student (full) agree, test Dice {np.mean(expected):.3f}" in text
    assert "Claimed area agrees with the student, test 2 of 2" in text
    # The centres lie at rows 17 of 32 and columns 25 and 26 of 48: in the middle of the image.
    assert "Claimed place agrees with the student, test 0 of 2" in text


def test_comparisons_are_shown_and_explained(report_files):
    spec = report_files.dataset(SMALL)
    report_files.table(spec, "ablations")
    report_files.table(spec, "levels", experiment="levels_2", reference="<full>")
    page = report_files.html()
    text = Tags(page).text
    for words in ("Comparison: ablations", "Comparison: levels", "no_text", "levels_2",
                  "-0.012 [-0.020, -0.004]", "compared with <full>", "sign-flip"):  # fmt: skip
        assert words in text, words
    assert "&lt;full&gt;" in page
    assert "a table levels" in text.partition("SHA-256")[2]


def test_a_comparison_of_another_data_set_is_refused(report_files):
    report_files.table(report_files.dataset(SMALL), "ablations", dataset="other")
    with pytest.raises(BadInput, match=r"ablations\.csv: column dataset\n.*'other'"):
        report(**report_files.options())


def test_each_picture_is_also_a_file(report_files):
    report_files.training(report_files.dataset(), teacher=True)
    pictures = Tags(report_files.html()).pictures()
    files = sorted((report_files.folder / "out/figures").iterdir())
    assert [file.stem for file in files] == [
        "a_gaze_quality", "a_gaze_to_pseudomask_1", "a_gaze_to_pseudomask_2",
        "a_gaze_to_pseudomask_3", "a_outcomes", "a_test_image_1", "a_test_image_2",
        "a_test_image_3", "a_training_curves", "annotation_effort", "dice",
    ]  # fmt: skip
    on_page = {picture.tobytes() for picture in pictures}
    assert {Image.open(file).tobytes() for file in files} == on_page


def test_errors_have_a_tint():
    image = np.zeros((8, 8, 3), np.uint8)
    truth, prediction = np.zeros((2, 8, 8), bool)
    truth[2:6, 2:6], prediction[2:6, 4:8] = True, True
    drawn = colours(figures.draw_prediction_strip(image, truth, [("student", "", prediction)]))
    for code in (figures.MISSED_COLOUR, figures.WRONG_COLOUR):
        half = tuple(round(int(code[i : i + 2], 16) / 2) for i in (1, 3, 5))
        assert half in drawn
    without = colours(figures.draw_prediction_strip(image, None, [("student", "", prediction)]))
    assert not [c for c in without if max(c) - min(c) > 60 and c[0] > c[2] > 20 and c[1] < 70]


def test_samples_have_the_lowest_median_and_highest_dice(html):
    section = html.split('id="data-1"')[1].split('id="data-2"')[0]
    shown = re.findall(r"<h4><bdi>(.*?)</bdi> · (\w+) Dice, ([\d.]+)", section)
    # Training images by the Dice of the broad pseudomask, test images by that of the first student.
    assert [(name, reason) for name, reason, _ in shown[:3]] == [
        ("s0", "lowest"), ("s1", "median"), ("s2", "highest")
    ]  # fmt: skip
    assert shown[3:] == [
        ("s7", "lowest", "0.300"), ("s5", "median", "0.600"), ("s6", "highest", "0.900")
    ]  # fmt: skip
    assert (
        "chosen for the lowest, median and highest Dice of the student of “full” (seed 0)."
        in section
    )


def test_each_picture_shows_its_own_sample(report_files, monkeypatch):
    drawn, blank = [], figures.draw_strip([figures.Panel("", np.zeros((*SIZE, 3), np.uint8))])

    def keep(*arguments):
        drawn.append(arguments)
        return blank

    monkeypatch.setattr(figures, "draw_gaze_strip", keep)
    monkeypatch.setattr(figures, "draw_prediction_strip", keep)
    spec = report_files.dataset()
    report_files.training(spec, teacher=True)
    report_files.html()
    gaze_strips, prediction_strips = drawn[:3], drawn[3:]
    for i, (image, fixations, heatmap, refined, levels, truth) in zip((0, 1, 2), gaze_strips):
        assert fixations[:, 0] == pytest.approx([i / 10, 0.5, 0.4])
        assert (levels[1] == blob(SIZE, (20 - i, 20 + i), 8)).all()
        assert ((refined > 0) == levels[1]).all()
        assert (truth == blob(SIZE, (16, 20 + i), 8)).all()
        assert image.shape == (*SIZE, 3)
        assert heatmap.shape == SIZE
    scores = ((7, 0.3), (5, 0.6), (6, 0.9))
    for (i, score), (_, truth, predictions) in zip(scores, prediction_strips):
        assert (truth == blob(SIZE, (16, 20 + i), 8)).all()
        assert [(title, subtitle) for title, subtitle, _ in predictions] == [
            ("teacher, full", "Dice 0.500"), ("student, full", f"Dice {score:.3f}")
        ]  # fmt: skip
        assert all((mask == blob(SIZE, (17, 20 + i), 8)).all() for _, _, mask in predictions)


def test_level_rows_hold_the_distribution_of_areas(html):
    # A disc of radius 8 has 197 of the 32 · 48 pixels, one of radius 5 has 81; all lie inside.
    text = Tags(html).text
    assert "precise ≥ 0.5 5.3 ± 0.0 5.3 5.3 0.5" in text
    assert "broad ≥ 0.3 12.8 ± 0.0 12.8 12.8 0.7" in text


def test_level_rows_ignore_excluded_samples():
    rows = []
    for area, excluded in ((0.1, False), (0.3, False), (0.7, True)):
        known = dict.fromkeys(quality.table_columns((0.5,)), NAN)
        numbers = {
            "area_0.5": area,
            "dice_0.5": area + 0.2,
            "flags": "much (1)" if excluded else "",
        }
        rows.append(known | numbers | {"left_out": str(excluded), "is_usable": not excluded})
    level = gaze_quality.quality_figure(pd.DataFrame(rows), np.array([0.5])).levels
    # ± √2 · 0.1: the sample standard deviation of two values.
    assert level == [("≥ 0.5", "20.0 ± 14.1", "10.0", "30.0", "0.400 ± 0.14")]


def test_the_caption_of_gaze_quality_holds_its_numbers(html):
    _, _, _, quality_caption, *_ = captions(html)
    assert quality_caption.startswith(
        "3 images with gaze. Bars: number of images; dashed line: median. Boxes: quartiles of each "
        "pseudomask level; whiskers: 5th to 95th percentile. Means: 3.0 fixations; "
        "1.5 s of dwell time; 100.0% of the fixations on the image; dispersion "
    )
    # Fixations of 300, 700 and 500 ms: only the first, near the left border, is beside the mask.
    assert "80.0% of the dwell time on the mask (train); 66.7% of the fixations" in quality_caption
    assert quality_caption.endswith("No image is flagged.")


def test_flagged_and_excluded_images_are_counted(report_files):
    limits = QualitySettings(min_fixations=4, min_dwell_ms=2000, max_area=0.1, min_on_image=0)
    report_files.dataset(DatasetSpec(limits=limits))
    report_files.dataset(DatasetSpec("b", limits=limits.model_copy(update={"leave_out": True})))
    html = report_files.html()
    flagged, excluded = (caption for caption in captions(html) if "Flagged" in caption)
    reasons = (
        "reasons: fewer than 4 fixations (3); dwell below 2000 ms (3); "
        "broad pseudomask above 0.1 of the image (3)."
    )
    assert flagged.endswith(f"Flagged: 3, none of them excluded from training; {reasons}")
    assert excluded.endswith(f"Flagged: 3, all of them excluded from training; {reasons}")
    # Excluded images have no usable gaze.
    text = Tags(html).text
    assert "Images with usable gaze 3 of 8" in text
    assert "Images with usable gaze 0 of 8" in text
    assert "No training image has usable gaze." in text


def test_the_caption_names_the_most_frequent_reasons(report_files):
    limits = QualitySettings(min_fixations=4, min_dwell_ms=2000, max_area=0.1, max_dispersion=0.13)
    report_files.dataset(DatasetSpec(limits=limits))
    _, caption, *_ = captions(report_files.html())
    assert "; most frequent reasons: fewer than 4 fixations (3); dwell below" in caption
    assert "dispersion above" not in caption


def panels_of(report_files, monkeypatch, spec):
    """Return the panel titles of each strip, and the page."""
    drawn, draw_strip = [], figures.draw_strip

    def keep(panels):
        drawn.append([panel.title for panel in panels])
        return draw_strip(panels)

    monkeypatch.setattr(figures, "draw_strip", keep)
    report_files.dataset(spec)
    return drawn, report_files.html()


def test_gaze_given_as_heatmaps_has_no_fixations(report_files, monkeypatch):
    drawn, html = panels_of(report_files, monkeypatch, DatasetSpec(maps="heatmaps"))
    assert drawn == [["image", "heatmap", "refined map", "pseudomasks", "truth"]] * 3
    gaze_caption, quality_caption, *_ = captions(html)
    assert "Fixations: the area" not in gaze_caption
    assert "Heatmap, and map refined along image edges" in gaze_caption
    assert quality_caption.startswith("3 images with gaze. Boxes: quartiles")
    assert "Means" not in quality_caption
    text = Tags(html).text
    assert "Images with usable gaze 3 of 8" in text
    assert "Fixations per image, median – Dwell per image, mean –" in text
    # Two charts: areas and Dice.
    assert Tags(html).pictures()[3].width == pytest.approx(2 * 2.65 * 150, abs=2)


def test_gaze_given_as_refined_maps_has_no_heatmap(report_files, monkeypatch):
    drawn, html = panels_of(report_files, monkeypatch, DatasetSpec(maps="refined", masks=False))
    assert drawn == [["image", "refined map", "pseudomasks"]] * 3
    gaze_caption, *_ = captions(html)
    assert "Map refined along image edges: brighter is higher." in gaze_caption
    assert "heatmap" not in gaze_caption.lower()
    assert 'alt="image, refined map, pseudomasks"' in html


def test_flags_are_escaped(report_files):
    report_files.dataset()
    file = report_files.files["quality"][0]
    table = pd.read_csv(file, keep_default_na=False, dtype=str)
    table.loc[0, "flags"] = HOSTILE[0]
    table.to_csv(file, index=False)
    tags = Tags(report_files.html())
    assert "script" not in {tag for tag, _ in tags.found}
    assert HOSTILE[0].partition("(")[0] in tags.text


def test_quality_with_different_samples_is_refused(report_files):
    report_files.dataset()
    file = report_files.files["quality"][0]
    file.write_text(file.read_text().replace("s3,", "t3,", 1))
    message = (
        r"quality-0-q\.csv: column sample_id\n.*8 ids, which differ from those of .*gaze-0-g\.h5\n"
        r".*the same 8 ids in the same order\n.*delete both files"
    )
    with pytest.raises(BadInput, match=message):
        report(**report_files.options())


def test_the_explanation_is_shown_and_escaped(html):
    assert "It is &lt;b&gt;red&lt;/b&gt;. It is number 0." in html


def test_captions_with_simulated_gaze_say_so(html):
    chart, effort, *figures_ = captions(html)
    assert chart.endswith("Gaze simulated from the masks, not recorded: Data set B.")
    assert effort.endswith("The time of simulated gaze is simulated, too.")
    recorded, simulated = figures_[:5], figures_[5:]
    assert len(simulated) == 5
    assert not [caption for caption in recorded if "simulated" in caption]
    assert all("simulated from the masks, not recorded" in caption for caption in simulated)


def test_provenance_names_versions_and_every_input(html):
    text = Tags(html.split('id="provenance"')[1]).text
    for name in ("python", "summary", "a gaze", "a full seed0 metrics", "b explanations",
                 "a full seed0 teacher_history"):  # fmt: skip
        assert f" {name} " in text
    # No path of the clone.
    assert "/tmp" not in text


def test_provenance_describes_each_result(report_files):
    report_files.dataset(DatasetSpec(with_gaze=()))
    text = Tags(report_files.html().split('id="provenance"')[1]).text
    assert "2 results of 2 jobs, on node7 (2 × H100), 1.5 minutes in all, at most 1,234 MB" in text
    assert f"a/gaze.h5 0123456789abcdef cafe-dirty 90.2 1,234 node7 2 × H100 1 {'a1' * 8}" in text
    assert f"a/texts.h5 – – – – – – 2 {'b2' * 8}" in text
    assert "Versions 1: numpy 2.4" in text and "Versions 2: numpy 2.5" in text


def test_results_of_the_same_job_count_its_time_once(report_files):
    report_files.provenance["results/a/history.csv"] = KNOWN
    report_files.dataset(DatasetSpec(with_gaze=()))
    assert (
        "3 results of 2 jobs, on node7 (2 × H100), 1.5 minutes in all"
        in Tags(report_files.html()).text
    )


def test_an_invalid_provenance_is_refused(report_files):
    report_files.dataset(DatasetSpec(with_gaze=()))
    options = report_files.options()
    options["provenance"].write_text("{")
    with pytest.raises(BadInput, match=r"provenance\.json: file\n"):
        report(**options)


def test_hostile_names_are_escaped(report_files):
    ids = (HOSTILE[0] + "0", HOSTILE[1] + "0", HOSTILE[2], "3", "4", HOSTILE[0], HOSTILE[1], "7")
    spec = report_files.dataset(DatasetSpec(title=r"A$_{\frac$ <i>", note="<img src=x>", ids=ids))
    report_files.training(spec, r"e$^{<u>", teacher=True)
    html = report_files.html()
    tags = Tags(html)
    assert not {tag for tag, _ in tags.found} & {"script", "i", "u"}
    assert all(attrs["src"].startswith("data:") for tag, attrs in tags.found if tag == "img")
    assert not [attrs for _, attrs in tags.found if "onerror" in attrs]
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], spec.title, spec.note, r"e$^{<u>"):
        assert name in tags.text


def test_missing_values_are_dashes(report_files):
    spec = report_files.dataset(SMALL)
    report_files.training(spec)
    report_files.rows.clear()
    unknown = (
        "dice_std", "dice_low", "dice_high", "hd95_mean", "hd95_std", "hd95_penalised",
        "asd_penalised", "annotation_seconds_per_image",
    )  # fmt: skip
    report_files.row(spec, "full", unit="mixed", gaze="", **dict.fromkeys(unknown, NAN))
    report_files.row(spec, "NA", split="val")
    html = report_files.html()
    text = Tags(html).text
    assert "full 0.812 ± – – – – – 3 1 – –" in text
    # An experiment without test images has a row.
    assert "NA – – – – – – – – –" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_the_same_files_give_the_same_bytes(report_files):
    spec = report_files.dataset(DatasetSpec(with_gaze=(0,), splits=SMALL.splits))
    report_files.training(spec, teacher=True)
    first = report_files.html()
    assert len(Tags(first).pictures()) == 7
    assert report_files.html() == first


def test_a_data_set_without_masks(report_files):
    spec = report_files.dataset(DatasetSpec(masks=False))
    report_files.training(spec)
    html = report_files.html()
    text = Tags(html).text
    gaze_caption, quality_caption, test_caption, _ = captions(html)
    assert "Samples, train 4 (none with a mask)" in text
    assert "evenly spaced in the file" in gaze_caption
    assert "no masks" in gaze_caption.lower()
    assert "No masks" in test_caption
    assert "truth" not in gaze_caption + test_caption
    assert re.findall(r"<h4><bdi>(.*?)</bdi></h4>", html) == ["s0", "s1", "s2", "s7", "s6", "s5"]
    # There is no Dice, so no chart; the strips have no panel for the truth.
    assert len(Tags(html).pictures()) == 8
    assert "on the mask" not in quality_caption
    assert "Dice –" not in html


def test_prediction_strips_have_one_panel_per_network(report_files):
    spec = report_files.dataset(SMALL)
    report_files.training(spec, "supervised")
    alone = Tags(report_files.html()).pictures()[2].width
    report_files.training(spec, "full", teacher=True)
    # One more student, and one teacher, which belongs to the second training.
    more = Tags(report_files.html()).pictures()[2].width
    assert more / alone == pytest.approx(5 / 3, rel=0.02)


def test_a_data_set_without_gaze_and_without_trainings(report_files):
    report_files.dataset(DatasetSpec(with_gaze=()))
    text = Tags(report_files.html()).text
    assert "No training image has usable gaze." in text
    assert "No training of this data set has predictions of test images." in text
    assert "Fixations per image, median – Dwell per image, mean –" in text


def test_training_without_test_images(report_files):
    spec = report_files.dataset(DatasetSpec(with_gaze=(), splits=("train",) * 4 + ("val",) * 4))
    report_files.training(spec)
    assert "has predictions of test images" in Tags(report_files.html()).text


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
        ("tables", r"tables\n.*1 entries\n.*0, one"),
    ],
)
def test_counts_that_do_not_match_are_refused(report_files, role, message):
    spec = report_files.dataset()
    report_files.training(spec)
    report_files.table(spec, "ablations")
    report_files.files[role].pop()
    with pytest.raises(BadInput, match=message):
        report(**report_files.options())


def test_names_that_do_not_match_are_refused(report_files):
    spec = report_files.dataset()
    report_files.training(spec)
    report_files.row(spec._replace(name="c"), "full")
    with pytest.raises(BadInput, match=r"summary\.csv: column dataset\n.*\['c'\]"):
        report(**report_files.options())
    report_files.trainings[0] = report_files.trainings[0].model_copy(update={"dataset": "d"})
    with pytest.raises(BadInput, match=r"trainings\n.*d\n.*one of \['a'\]"):
        report(**report_files.options())
    report_files.dataset()
    with pytest.raises(BadInput, match=r"datasets\n.*\['a', 'a'\]"):
        report(**report_files.options())


def test_predictions_with_different_samples_are_refused(report_files):
    spec = report_files.dataset(SMALL)
    report_files.training(spec)
    report_files.training(spec._replace(ids=tuple(f"t{i}" for i in range(8))), "other")
    with pytest.raises(BadInput, match=r"predictions-1-p\.h5: data set sample_id\n.*'s7'"):
        report(**report_files.options())


def test_an_invalid_table_is_refused(report_files):
    report_files.training(report_files.dataset(SMALL))
    report_files.files["histories"][0].write_text("iteration\n1\n")
    with pytest.raises(BadInput, match=r"student\.csv: table(.|\n)*iteration, loss, val_dice"):
        report(**report_files.options())


def test_a_failure_leaves_no_file(report_files, monkeypatch):
    report_files.dataset(DatasetSpec(with_gaze=()))
    options = report_files.options()

    def fail(page):
        raise RuntimeError("no page")

    monkeypatch.setattr("stages.report.report.render_page", fail)
    with pytest.raises(RuntimeError, match="no page"):
        report(**options)
    assert not options["output"].parent.exists()


def test_command_line(report_files):
    report_files.training(report_files.dataset(SMALL))
    options = report_files.options()
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
def test_choose_samples(scores, expected):
    assert [position for position, _ in choose_samples(scores)] == expected


def test_formatted_values():
    assert format_mean_std(0.8123, 0.0512, (3, 2)) == "0.812 ± 0.05"
    assert format_mean_std(12.34, NAN, (1, 1), "px") == "12.3 ± – px"
    assert format_mean_std(NAN, 0.1, (3, 2), "mm") == "–"
    assert (format_number(3.0), format_number(3.25, 1, "s"), format_number(NAN, 2, "s")) == (
        "3",
        "3.2 s",
        "–",
    )


def test_tint_and_overlay_keep_the_rest_of_the_image():
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[True, False], [False, False]])
    tinted = figures.tint_mask(image, mask, "#C8FF00")
    assert tinted[0, 0].tolist() == [150, 178, 50]
    assert (tinted[~mask] == 100).all()
    warm = figures.overlay_map(image, mask.astype(np.float16))
    # At 1, the brightest colour covers 80 % of the grey image; at 0, it covers nothing.
    assert warm[0, 0].min() > 100
    assert (warm[~mask] == 100).all()


def colours(png):
    return {colour for _, colour in Image.open(BytesIO(png)).convert("RGB").getcolors(1 << 20)}


def test_flagged_images_have_a_colour_of_their_own():
    orange = tuple(bytes.fromhex(charts.PALETTE[1][1:]))
    fixations = charts.Distribution("Fixations", np.array([3.0, 5, 8]), "count")
    none, some = np.zeros(3, bool), np.array([True, False, False])
    assert orange in colours(charts.plot_gaze_quality([fixations], some))
    assert orange not in colours(charts.plot_gaze_quality([fixations], none))


def test_gaze_quality_charts_of_one_image_and_of_equal_values():
    names = ("≥ 0.5", "≥ 0.3")
    boxes = charts.Distribution("Area", np.array([[0.1, 0.1], [NAN, NAN]]), names=names)
    bars = [
        charts.Distribution(kind, np.array([1.0, NAN]), kind)
        for kind in ("count", "share", "range")
    ]
    picture = Image.open(
        BytesIO(charts.plot_gaze_quality([*bars, boxes, boxes], np.zeros(2, bool)))
    )
    # Four charts per row, two rows.
    assert (picture.width, picture.height) == (int(4 * 2.65 * 150), 2 * 2 * 150)


@given(arrays(np.float64, st.integers(1, 50), elements=st.integers(0, 10**6)))
def test_histogram_bins_hold_each_whole_number_once(values):
    edges = charts._bin_edges(values, "count")
    assert np.histogram(values, edges)[0].sum() == len(values)
    assert (edges % 1 == 0.5).all()
    assert len(edges) <= 22


def test_experiments_differ_in_colour_or_marker():
    names = [f"e{i}" for i in range(56)]
    assert len({charts._experiment_style(names, name) for name in names}) == 56


# Attention: the validation sample 4 and the test sample 6 have text.
WITH_TEXT = DatasetSpec(with_gaze=(0, 1, 4, 6))


def leaning(stride):
    """Return weights of 3/4 in the upper half of the image and 1/4 in the lower half."""
    share = np.full((SIZE[0] // stride, SIZE[1] // stride), 0.25)
    share[: len(share) // 2] = 0.75
    return share


def attention_of(report_files, monkeypatch):
    """Return the arguments of each attention strip, and the page."""
    drawn, draw_strip = [], figures.draw_attention_strip

    def keep(*arguments):
        drawn.append(arguments)
        return draw_strip(*arguments)

    monkeypatch.setattr(figures, "draw_attention_strip", keep)
    return drawn, report_files.html()


def test_attention_is_shown_for_the_first_and_last_image_with_text(report_files, monkeypatch):
    spec = report_files.dataset(WITH_TEXT)
    report_files.training(spec, "gaze_only")
    report_files.training(spec, teacher=True)
    report_files.attention(spec, leaning)
    drawn, html = attention_of(report_files, monkeypatch)
    # The predictions are in reverse order of the samples.
    for i, (image, ratios, titles, region) in zip((6, 4), drawn, strict=True):
        assert (region == blob(SIZE, (20 - i, 20 + i), 8)).all()
        assert image.shape == (*SIZE, 3)
        assert titles == ["area percentage", "token 2"]
        # The even weight is 1/2: the first token has 1.5 at the top, far from the blurred middle.
        assert ratios[0, 0] == pytest.approx(np.full(SIZE[1], 1.5))
        assert ratios[0, -1] == pytest.approx(np.full(SIZE[1], 0.5))
        assert ratios.mean(axis=0) == pytest.approx(np.ones(SIZE))
    shown = html.split("Attention to the text")[1]
    assert re.findall(r"<h4><bdi>(.*?)</bdi> · (.*?)</h4>", shown) == [
        ("s6", "test image"), ("s4", "validation image")
    ]  # fmt: skip
    assert "Area percentage: It is &lt;b&gt;red&lt;/b&gt;. Token 2: It is number 6." in shown
    assert 'alt="attention of the teacher to each of: area percentage, token 2"' in shown
    caption = captions(html)[-1]
    assert caption.startswith("The first and last of the 2 validation and test images with text.")
    assert "the teacher of “full” (seed 0)" in caption
    assert "relative to an even weight of 1/2." in caption
    assert caption.endswith("Outline : the broad pseudomask, which the text describes.")


def test_the_attention_caption_mentions_simulated_gaze(report_files):
    spec = report_files.dataset(WITH_TEXT._replace(origin="simulated", with_gaze=(0, 4)))
    report_files.training(spec, teacher=True)
    report_files.attention(spec)
    caption = captions(report_files.html())[-1]
    assert caption.startswith("The only validation or test image with text.")
    assert caption.endswith("The gaze is simulated from the masks, not recorded.")


def test_without_attention_or_text_there_is_no_attention_figure(report_files):
    spec = report_files.dataset()
    report_files.training(spec, teacher=True)
    assert "Attention to the text" not in report_files.html()
    report_files.attention(spec)
    html = report_files.html()
    assert captions(html)[-1] == "No validation or test image has a text."
    # Two charts, three pictures for A, one for B, three for C, one for D and one for E.
    assert len(Tags(html).pictures()) == 11


def test_a_single_token_has_no_attention_figure(report_files):
    spec = report_files.dataset(WITH_TEXT)
    report_files.training(spec, teacher=True)
    report_files.attention(spec)
    with h5py.File(report_files.files["predictions"][0], "r+") as file:
        for scale in (1, 2, 3, 4):
            share = file[f"attention_{scale}"][:, :1]
            del file[f"attention_{scale}"]
            file[f"attention_{scale}"] = np.where(share > 0, 1, 0).astype(np.float16)
    html = report_files.html()
    assert captions(html)[-1] == ("The text of an image is a single token: all attention is on it.")
    # Two charts, two pictures for A, one for B, three for C, one for D and one for E.
    assert len(Tags(html).pictures()) == 10


def test_attention_with_different_samples_is_refused(report_files):
    spec = report_files.dataset(WITH_TEXT)
    report_files.training(spec, teacher=True)
    report_files.attention(spec)
    with h5py.File(report_files.files["prepared"][0], "r") as prepared, \
         h5py.File(report_files.files["gaze"][0], "r") as gaze, \
         h5py.File(report_files.files["explanations"][0], "r") as explanations, \
         h5py.File(report_files.files["predictions"][0], "r+") as predictions:  # fmt: skip
        ids = predictions["sample_id"]
        ids[list(ids.asstr()).index("s6")] = "t6"
        predictions.flush()
        options = (prepared, gaze, explanations, report_files.trainings[0])
        message = (
            r"p\.h5: data set sample_id\n.*'t6', which .*prepared-0-p\.h5 lacks\n(.|\n)*delete"
        )
        with pytest.raises(BadInput, match=message):
            attention.attention_figures(*options, report_files.files["predictions"][0])


def test_colours_of_an_attention_strip():
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = figures.overlay_deviation(image, np.array([[-1, 0], [0.5, 1]]))
    less, none, some, more = drawn.reshape(4, 3).astype(int)
    assert none.tolist() == [100, 100, 100]
    # Purple has more blue than red, orange more red than blue; half a deviation is weaker.
    assert less[2] > less[0]
    assert more[0] > more[2]
    assert some[0] - some[2] > 20


@pytest.mark.parametrize(
    ("ratios", "deviations"),
    [
        # With K = 2, log 2 has the full colour, and a ratio of 1/2 the opposite one.
        ([[2, 1], [0.5, 1]], [[1, 0], [-1, 0]]),
        # A ratio of 0 counts as 1/K, so that the other ratios keep their colours.
        ([[2**0.5, 1], [0, 1]], [[0.5, 0], [-1, 0]]),
        ([[1, 1], [1, 1]], [[0, 0], [0, 0]]),
    ],
)
def test_deviation_from_even_attention(ratios, deviations, monkeypatch):
    deviations_drawn = []
    monkeypatch.setattr(
        figures,
        "overlay_deviation",
        lambda image, values: deviations_drawn.append(values) or image,
    )
    image, region = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2), bool)
    figures.draw_attention_strip(image, np.array(ratios, float)[:, None], ["a", "b"], region)
    assert np.array(deviations_drawn)[:, 0] == pytest.approx(np.array(deviations, float))


shares = arrays(np.float64, (3, 2, 4), elements=st.floats(0.01, 1))


@given(shares, shares)
def test_relative_attention_has_mean_one(fine, coarse):
    maps = [values / values.sum(axis=0) for values in (fine, coarse[:, :1, :2])]
    ratios = attention.relative_attention(maps, (4, 8))
    assert ratios.shape == (3, 4, 8)
    assert ratios.min() >= 0
    assert ratios.mean(axis=0) == pytest.approx(np.ones((4, 8)), abs=1e-5)
