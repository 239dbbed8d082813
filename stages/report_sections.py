"""One data set's part of the report: its numbers, its samples and its curves."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from stages import cli, figures, io
from stages.evaluate import MODELS, THRESHOLD
from stages.images import to_rgb8
from stages.metrics import dice
from stages.report_page import Level, Picture, Section, Shown, number, percent
from stages.settings.report import History, ReportDataset, Training
from stages.summarise import mean_dwell

SPLITS = ("train", "val", "test")
SIMULATED = "The gaze behind it is simulated from the masks, not recorded."


class Trained(NamedTuple):
    """A training and its files."""

    training: Training
    predictions: Path
    metrics: Path


def choose(scores: list[float]) -> list[tuple[int, str]]:
    """Choose up to three samples to show: the lowest, median and highest score.

    Returns
    -------
    (position in `scores`, why), each position once. NaN scores are never chosen; where all are
    NaN, three positions evenly spread, without a why.
    """
    known = sorted((score, i) for i, score in enumerate(scores) if not math.isnan(score))
    if not known:
        spots = np.linspace(0, len(scores) - 1, min(3, len(scores))).round().astype(int)
        return [(int(i), "") for i in spots]
    chosen: dict[int, str] = {}
    for rank, why in ((0, "lowest"), ((len(known) - 1) // 2, "median"), (-1, "highest")):
        score, i = known[rank]
        chosen.setdefault(i, f"{why} Dice, {score:.3f}")
    return list(chosen.items())


def _levels(
    prepared: h5py.File, gaze: h5py.File, training: NDArray[np.bool_]
) -> tuple[list[Level], dict[int, float]]:
    """Numbers of each pseudomask level, and Dice of the broad one per training sample."""
    areas, agreement = [], {}
    has_mask = prepared["has_mask"][()]
    for i in np.flatnonzero(gaze["fixation_count"][()] > 0):
        # One sample at a time: no data set of images needs to fit into memory.
        levels = gaze["pseudomask"][i] > 0
        areas.append(levels.mean(axis=(1, 2)))
        if training[i]:
            truth = prepared["mask"][i] > 0
            agreement[int(i)] = [
                dice(truth, level) if has_mask[i] else math.nan for level in levels
            ]
    known = [scores for scores in agreement.values() if not math.isnan(scores[-1])]
    count = len(gaze["threshold"])
    area = np.mean(areas, axis=0) if areas else np.full(count, np.nan)
    mean = np.mean(known, axis=0) if known else np.full(count, np.nan)
    rows = [
        Level(f"≥ {threshold:.2g}", percent(a), number(d, 3))
        for threshold, a, d in zip(gaze["threshold"][()], area, mean, strict=True)
    ]
    return rows, {i: scores[-1] for i, scores in agreement.items()}


def _facts(prepared: h5py.File, gaze: h5py.File) -> list[tuple[str, str]]:
    split, has_mask = io.read_strings(prepared, "split"), prepared["has_mask"][()]
    facts = []
    for name in SPLITS:
        members = split == name
        masks = int(has_mask[members].sum())
        lacking = "" if masks == members.sum() else f" ({masks or 'none'} with a mask)"
        facts.append((f"Samples, {name}", f"{members.sum()}{lacking}"))
    counts = gaze["fixation_count"][()]
    seen = counts > 0
    median = float(np.median(counts[seen])) if seen.any() else math.nan
    return [
        *facts,
        ("Gaze", str(gaze.attrs["gaze_origin"])),
        ("Images with fixations", f"{seen.sum()} of {len(counts)}"),
        ("Fixations per image, median", number(median, 1).removesuffix(".0")),
        ("Dwell per image, mean", number(mean_dwell(gaze), 1, "s")),
    ]


def _truth(prepared: h5py.File, i: int) -> NDArray[np.bool_] | None:
    return prepared["mask"][i] > 0 if prepared["has_mask"][i] else None


def _gaze_samples(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, agreement: dict[int, float]
) -> list[Shown]:
    shown = []
    indices = list(agreement)
    for position, why in choose(list(agreement.values())):
        i = indices[position]
        first, last = gaze["fixation_offset"][i : i + 2]
        png = figures.gaze_strip(
            to_rgb8(prepared["image"][i]),
            gaze["fixation"][first:last],
            gaze["heatmap"][i],
            gaze["refined"][i],
            gaze["pseudomask"][i] > 0,
            _truth(prepared, i),
        )
        sentences = [text for text in explanations["text"].asstr()[i] if text]
        picture = Picture(png, "image, fixations, heatmap, refined map, pseudomasks and truth")
        shown.append(Shown(prepared["sample_id"].asstr()[i], why, picture, sentences))
    return shown


def _test_dice(trained: Trained) -> dict[tuple[str, str], float]:
    """(sample id, model) → Dice of the test samples, at full resolution."""
    table = io.read_csv(trained.metrics, ("sample_id", "split", "model"), ("dice",))
    test = table[table["split"] == "test"]
    return dict(zip(zip(test["sample_id"], test["model"], strict=True), test["dice"], strict=True))


def _position(file: h5py.File, sample_id: str, scored: Path) -> int:
    """Where in a file a sample is that `scored` has a score of."""
    found = np.flatnonzero(io.read_strings(file, "sample_id") == sample_id)
    if not len(found):
        raise cli.BadInput(
            file.filename,
            "data set sample_id",
            found=f"no {sample_id!r}, which {scored} scores",
            expected="the same samples in all files of a data set",
            mend="delete both files and run snakemake again: they are of different data",
        )
    return int(found[0])


def _test_samples(prepared: h5py.File, trainings: list[Trained]) -> list[Shown]:
    """Show three test samples with the first teacher and every student."""
    if not trainings:
        return []
    scored = trainings[0].metrics
    scores = [_test_dice(trained) for trained in trainings]
    sample_ids = [name for name, model in scores[0] if model == "student"]
    shown = []
    with ExitStack() as stack:
        files = [
            stack.enter_context(io.open_h5(t.predictions, "sample_id", "probability"))
            for t in trainings
        ]
        guided = [(k, "teacher") for k, file in enumerate(files) if MODELS["teacher"] in file]
        columns = guided[:1] + [(k, "student") for k in range(len(files))]
        for position, why in choose([scores[0][name, "student"] for name in sample_ids]):
            name = sample_ids[position]
            predictions = []
            for k, model in columns:
                probability = files[k][MODELS[model]][_position(files[k], name, scored)]
                score = number(scores[k].get((name, model), math.nan), 3)
                title = f"{model}, {trainings[k].training.experiment}"
                predictions.append((title, f"Dice {score}", probability >= THRESHOLD))
            i = _position(prepared, name, scored)
            png = figures.prediction_strip(
                to_rgb8(prepared["image"][i]), _truth(prepared, i), predictions
            )
            picture = Picture(png, "image, truth, and the outline of each prediction")
            shown.append(Shown(name, why, picture, []))
    return shown


def _captions(
    gaze: list[Shown], test: list[Shown], backend: str, trainings: list[Trained]
) -> tuple[str, str]:
    """Tell what figures A and B show, and how their samples were chosen."""
    if not gaze:
        looked = "Nobody looked at a training image."
    else:
        chosen = (
            "with the lowest, median and highest Dice of the broad pseudomask against the mask"
            if gaze[0].why
            else "evenly spread over the file; there are no masks"
        )
        looked = (
            f"Training images that were looked at, {chosen}. Fixations: area of a circle as the "
            "duration, numbered in order. Heatmap and map refined along the image's edges: dark "
            f"to bright. Below, the explanation in words (backend “{backend}”)."
        )
    if not test:
        return looked, "No training of this data set has predictions of test images."
    first = trainings[0].training
    chosen = (
        f"with the lowest, median and highest Dice of the student of “{first.experiment}” "
        f"(seed {first.seed}); they were chosen that way"
        if test[0].why
        else "evenly spread over the file; there are no masks"
    )
    return looked, (
        f"Test images {chosen}. Outlines: probability from {THRESHOLD} at the working size. "
        "Dice: at full resolution."
    )


def _curves(histories: list[tuple[History, Path]], experiments: list[str]) -> Picture | None:
    columns = ("iteration", "loss", "val_dice")
    curves = [
        figures.Curve(
            history.experiment,
            history.network == "teacher",
            *io.read_csv(file, (), columns)[list(columns)].to_numpy(float).T,
        )
        for history, file in histories
    ]
    if not curves:
        return None
    png = figures.training_curves(curves, experiments)
    return Picture(png, "training loss and validation Dice against the iteration")


def section(
    dataset: ReportDataset,
    files: tuple[Path, Path, Path],
    trainings: list[Trained],
    histories: list[tuple[History, Path]],
    experiments: list[str],
) -> Section:
    with (
        io.open_h5(files[0], "image", "mask", "has_mask", "split", "sample_id") as prepared,
        io.open_h5(
            files[1], "heatmap", "refined", "pseudomask", "threshold", "fixation_count",
            "dwell_ms", "fixation", "fixation_offset", "sample_id",
        ) as gaze,
        io.open_h5(files[2], "text", "sample_id") as explanations,
    ):  # fmt: skip
        io.check_same_samples(prepared, gaze, explanations)
        training = io.read_strings(prepared, "split") == "train"
        levels, agreement = _levels(prepared, gaze, training)
        looked = _gaze_samples(prepared, gaze, explanations, agreement)
        test = _test_samples(prepared, trainings)
        captions = _captions(looked, test, str(explanations.attrs["backend"]), trainings)
        return Section(
            title=dataset.title,
            note=dataset.note,
            facts=_facts(prepared, gaze),
            levels=levels,
            gaze=looked,
            gaze_caption=captions[0],
            test=test,
            test_caption=captions[1],
            has_truth=bool(prepared["has_mask"][()].any()),
            curves=_curves(histories, experiments),
            simulated=SIMULATED if gaze.attrs["gaze_origin"] == "simulated" else "",
        )
