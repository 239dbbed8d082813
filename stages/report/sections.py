"""One data set's part of the report: its numbers, its samples and its curves."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import io
from stages.core.images import to_rgb8
from stages.evaluation.evaluate import MODELS, THRESHOLD
from stages.evaluation.summarise import mean_dwell
from stages.gaze.quality import level_columns
from stages.report import attention, charts, figures, gaze_quality
from stages.report.page import MISSING, Picture, Section, Shown, number
from stages.settings.predict import ATTENTION
from stages.settings.report import History, ReportDataset, Training

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


def _share(verdicts: NDArray[np.int8]) -> str:
    """Say how many of the claims hold; -1 stands for none."""
    claims = verdicts[verdicts >= 0]
    return f"{(claims == 1).sum()} of {len(claims)}" if len(claims) else MISSING


def _faithfulness(explanations: h5py.File) -> list[tuple[str, str]]:
    """How many explanations there are, and how many are true of the region that was looked at."""
    given = (explanations["text"].asstr()[()] != "").any(axis=1)
    failed = int(explanations["failed"][()].sum())
    return [
        ("Explanations", f"{given.sum()}" + (f" ({failed} failed)" if failed else "")),
        ("Claimed area agrees with the gaze", _share(explanations["area_agrees"][()])),
        ("Claimed place agrees with the gaze", _share(explanations["place_agrees"][()])),
    ]


def _facts(prepared: h5py.File, gaze: h5py.File, quality: pd.DataFrame) -> list[tuple[str, str]]:
    split, has_mask = io.read_strings(prepared, "split"), prepared["has_mask"][()]
    facts = []
    for name in SPLITS:
        members = split == name
        masks = int(has_mask[members].sum())
        lacking = "" if masks == members.sum() else f" ({masks or 'none'} with a mask)"
        facts.append((f"Samples, {name}", f"{members.sum()}{lacking}"))
    counts = quality["fixations"]
    return [
        *facts,
        ("Gaze", str(gaze.attrs["gaze_origin"])),
        ("Images learned from", f"{quality['learned'].sum()} of {len(quality)}"),
        ("Fixations per image, median",
         number(counts[counts > 0].median(), 1).removesuffix(".0")),
        ("Dwell per image, mean", number(mean_dwell(gaze), 1, "s")),
    ]  # fmt: skip


def _truth(prepared: h5py.File, i: int) -> NDArray[np.bool_] | None:
    return prepared["mask"][i] > 0 if prepared["has_mask"][i] else None


def _gaze_samples(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, quality: pd.DataFrame
) -> tuple[list[Shown], set[str]]:
    """Show three training samples, and tell which of fixations and heatmap they have."""
    shown, drawn = [], set()
    broad = level_columns("dice", gaze["threshold"][()])[-1]
    agreement = quality.loc[quality["learned"] & (quality["split"] == "train"), broad]
    for position, why in choose(agreement.tolist()):
        i = int(agreement.index[position])
        first, last = gaze["fixation_offset"][i : i + 2]
        heatmap, truth = gaze["heatmap"][i], _truth(prepared, i)
        png = figures.gaze_strip(
            to_rgb8(prepared["image"][i]),
            gaze["fixation"][first:last],
            heatmap,
            gaze["refined"][i],
            gaze["pseudomask"][i] > 0,
            truth,
        )
        parts = ["fixations"] * bool(last > first) + ["heatmap"] * bool(heatmap.any())
        drawn.update(parts)
        sentences = [text for text in explanations["text"].asstr()[i] if text]
        known = ["truth"] if truth is not None else []
        alt = ", ".join(["image", *parts, "refined map", "pseudomasks", *known])
        shown.append(Shown(prepared["sample_id"].asstr()[i], why, Picture(png, alt), sentences))
    return shown, drawn


def _test_dice(trained: Trained) -> dict[tuple[str, str], float]:
    """(sample id, model) → Dice of the test samples, at full resolution."""
    table = io.read_csv(trained.metrics, ("sample_id", "split", "model"), ("dice",))
    test = table[table["split"] == "test"]
    return dict(zip(zip(test["sample_id"], test["model"], strict=True), test["dice"], strict=True))


def _position(file: h5py.File, sample_id: str, scored: Path) -> int:
    """Where in a file a sample is that `scored` has a score of."""
    found = f"no {sample_id!r}, which {scored} scores"
    return io.find_sample(file, sample_id, where=file.filename, found=found)


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


def _gaze_caption(shown: list[Shown], drawn: set[str], backend: str) -> str:
    """Tell what figure A shows, and how its samples were chosen."""
    if not shown:
        return "No training image has gaze to learn from."
    chosen = (
        "with the lowest, median and highest Dice of the broad pseudomask against the mask"
        if shown[0].why
        else "evenly spread over the file; there are no masks"
    )
    told = [f"Training images with gaze, {chosen}."]
    if "fixations" in drawn:
        told.append(
            "Fixations: area of a circle as the duration, numbered by their start, also "
            "where several readers looked."
        )
    told += [
        "Heatmap and map refined along the image's edges: dark to bright."
        if "heatmap" in drawn
        else "Map refined along the image's edges: dark to bright.",
        f"Below, the explanation in words (backend “{backend}”).",
    ]
    return " ".join(told)


def _test_caption(test: list[Shown], trainings: list[Trained]) -> str:
    """Tell what the figure of test images shows, and how its samples were chosen."""
    if not test:
        return "No training of this data set has predictions of test images."
    first = trainings[0].training
    chosen = (
        f"with the lowest, median and highest Dice of the student of “{first.experiment}” "
        f"(seed {first.seed}); they were chosen that way"
        if test[0].why
        else "evenly spread over the file; there are no masks"
    )
    return (
        f"Test images {chosen}. Outlines: probability from {THRESHOLD} at the working size. "
        "Dice: at full resolution."
    )


def _attention(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, trainings: list[Trained]
) -> tuple[list[Shown], str]:
    """Show the attention of the first training that wrote it; an empty caption: none did."""
    for trained in trainings:
        with io.open_h5(trained.predictions) as file:
            written = ATTENTION[0] in file
        if written:
            return attention.attention(
                prepared, gaze, explanations, trained.training, trained.predictions
            )
    return [], ""


def _curves(histories: list[tuple[History, Path]], experiments: list[str]) -> Picture | None:
    columns = ("iteration", "loss", "val_dice")
    curves = [
        charts.Curve(
            history.experiment,
            history.network == "teacher",
            *io.read_csv(file, (), columns)[list(columns)].to_numpy(float).T,
        )
        for history, file in histories
    ]
    if not curves:
        return None
    png = charts.training_curves(curves, experiments)
    return Picture(png, "training loss and validation Dice against the iteration")


def section(
    dataset: ReportDataset,
    files: tuple[Path, Path, Path, Path],
    trainings: list[Trained],
    histories: list[tuple[History, Path]],
    experiments: list[str],
) -> Section:
    """Make the section of one data set.

    Parameters
    ----------
    dataset
        Its name and title.
    files
        Its prepared.h5, gaze.h5, gaze_quality.csv and explanations.h5.
    trainings, histories
        Its own, with their files.
    experiments
        All of the page, in the order that gives them their colours.

    Raises
    ------
    BadInput
        The files do not belong together.
    """
    with (
        io.open_h5(files[0], "image", "mask", "has_mask", "split", "sample_id") as prepared,
        io.open_h5(
            files[1], "heatmap", "refined", "pseudomask", "threshold", "has_gaze",
            "dwell_ms", "fixation", "fixation_offset", "sample_id",
        ) as gaze,
        io.open_h5(
            files[3], "text", "failed", "area_agrees", "place_agrees", "sample_id"
        ) as explanations,
    ):  # fmt: skip
        io.check_same_samples(prepared, gaze, explanations)
        quality = gaze_quality.read(files[2], gaze)
        described = gaze_quality.describe(quality, gaze["threshold"][()])
        looked, drawn = _gaze_samples(prepared, gaze, explanations, quality)
        test = _test_samples(prepared, trainings)
        read, read_caption = _attention(prepared, gaze, explanations, trainings)
        return Section(
            title=dataset.title,
            note=dataset.note,
            facts=_facts(prepared, gaze, quality) + _faithfulness(explanations),
            levels=described.levels,
            gaze=looked,
            gaze_caption=_gaze_caption(looked, drawn, str(explanations.attrs["backend"])),
            quality=described.picture,
            quality_caption=described.caption,
            test=test,
            test_caption=_test_caption(test, trainings),
            has_truth=bool(prepared["has_mask"][()].any()),
            curves=_curves(histories, experiments),
            attention=read,
            attention_caption=read_caption,
            simulated=SIMULATED if gaze.attrs["gaze_origin"] == "simulated" else "",
        )
