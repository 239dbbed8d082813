"""The section of the report about one data set: its numbers, sample images and curves."""

import math
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import io
from stages.core.images import to_rgb8
from stages.evaluation.evaluate import PROBABILITY_DATASETS, THRESHOLD
from stages.evaluation.summarise import mean_dwell_seconds
from stages.gaze.quality import level_columns
from stages.report import attention, charts, figures, gaze_quality, outcomes
from stages.report.page import (
    MISSING,
    Comparison,
    Picture,
    SampleFigure,
    Section,
    format_number,
)
from stages.report.trainings import TrainingFiles, find_rows, read_test_dice
from stages.settings.predict import ATTENTION_DATASETS
from stages.settings.report import ReportDataset, ReportHistory

SPLITS = ("train", "val", "test")
SIMULATED_NOTE = "The gaze is simulated from the masks, not recorded."


def choose_samples(scores: list[float]) -> list[tuple[int, str]]:
    """Choose up to three samples to show: those with the lowest, median and highest Dice.

    Returns
    -------
    (position in `scores`, reason), each position once. A score of NaN is never chosen. If all are
    NaN: three evenly spaced positions, with empty reasons.
    """
    known = sorted((score, i) for i, score in enumerate(scores) if not math.isnan(score))
    if not known:
        positions = np.linspace(0, len(scores) - 1, min(3, len(scores))).round().astype(int)
        return [(int(i), "") for i in positions]
    chosen: dict[int, str] = {}
    for rank, name in ((0, "lowest"), ((len(known) - 1) // 2, "median"), (-1, "highest")):
        score, i = known[rank]
        chosen.setdefault(i, f"{name} Dice, {score:.3f}")
    return list(chosen.items())


def _count_agreeing(agreement: NDArray[np.int8]) -> str:
    """Format how many claims agree: 1 agrees, 0 does not, -1 is no claim."""
    claims = agreement[agreement >= 0]
    return f"{(claims == 1).sum()} of {len(claims)}" if len(claims) else MISSING


def _explanation_facts(explanations: h5py.File) -> list[tuple[str, str]]:
    """Return the number of explanations, and of those whose claims agree with the gaze.

    Measured texts are taken from the gaze, so they always agree with it.
    """
    has_text = (explanations["text"].asstr()[()] != "").any(axis=1)
    failed = int(explanations["failed"][()].sum())
    facts = [("Explanations", f"{has_text.sum()}" + (f" ({failed} failed)" if failed else ""))]
    if explanations.attrs["backend"] == "measured":
        return facts
    return [
        *facts,
        ("Claimed area agrees with the gaze", _count_agreeing(explanations["area_agrees"][()])),
        ("Claimed place agrees with the gaze", _count_agreeing(explanations["place_agrees"][()])),
    ]


def _dataset_facts(
    prepared: h5py.File, gaze: h5py.File, quality: pd.DataFrame
) -> list[tuple[str, str]]:
    split, has_mask = io.read_strings(prepared, "split"), prepared["has_mask"][()]
    facts = []
    for name in SPLITS:
        members = split == name
        masks = int(has_mask[members].sum())
        mask_count = "" if masks == members.sum() else f" ({masks or 'none'} with a mask)"
        facts.append((f"Samples, {name}", f"{members.sum()}{mask_count}"))
    counts = quality["fixations"]
    return [
        *facts,
        ("Gaze", str(gaze.attrs["gaze_origin"])),
        ("Images with usable gaze", f"{quality['is_usable'].sum()} of {len(quality)}"),
        ("Fixations per image, median",
         format_number(counts[counts > 0].median(), 1).removesuffix(".0")),
        ("Dwell per image, mean", format_number(mean_dwell_seconds(gaze), 1, "s")),
    ]  # fmt: skip


def _true_mask(prepared: h5py.File, i: int) -> NDArray[np.bool_] | None:
    return prepared["mask"][i] > 0 if prepared["has_mask"][i] else None


def _gaze_samples(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, quality: pd.DataFrame
) -> tuple[list[SampleFigure], set[str]]:
    """Draw three training samples; also return which of fixations and heatmap they have."""
    samples, available = [], set()
    broad_dice = level_columns("dice", gaze["threshold"][()])[-1]
    scores = quality.loc[quality["is_usable"] & (quality["split"] == "train"), broad_dice]
    for position, reason in choose_samples(scores.tolist()):
        i = int(scores.index[position])
        first, last = gaze["fixation_offset"][i : i + 2]
        heatmap, truth = gaze["heatmap"][i], _true_mask(prepared, i)
        png = figures.draw_gaze_strip(
            to_rgb8(prepared["image"][i]),
            gaze["fixation"][first:last],
            heatmap,
            gaze["refined"][i],
            gaze["pseudomask"][i] > 0,
            truth,
        )
        parts = ["fixations"] * bool(last > first) + ["heatmap"] * bool(heatmap.any())
        available.update(parts)
        sentences = [text for text in explanations["text"].asstr()[i] if text]
        truth_panel = ["truth"] if truth is not None else []
        picture = Picture(
            png, ", ".join(["image", *parts, "refined map", "pseudomasks", *truth_panel])
        )
        samples.append(SampleFigure(prepared["sample_id"].asstr()[i], reason, picture, sentences))
    return samples, available


def _test_samples(prepared: h5py.File, trainings: list[TrainingFiles]) -> list[SampleFigure]:
    """Draw three test samples with the predictions of the first teacher and of all students."""
    if not trainings:
        return []
    metrics = trainings[0].metrics
    scores = [read_test_dice(files) for files in trainings]
    sample_ids = [sample_id for sample_id, model in scores[0] if model == "student"]
    samples = []
    with ExitStack() as stack:
        predictions_files = [
            stack.enter_context(io.open_h5(t.predictions, "sample_id", "probability"))
            for t in trainings
        ]
        teachers = [
            (k, "teacher")
            for k, file in enumerate(predictions_files)
            if PROBABILITY_DATASETS["teacher"] in file
        ]
        # (index of the training, model) of each prediction that is drawn.
        models = teachers[:1] + [(k, "student") for k in range(len(predictions_files))]
        student_scores = [scores[0][sample_id, "student"] for sample_id in sample_ids]
        for position, reason in choose_samples(student_scores):
            sample_id = sample_ids[position]
            predictions = []
            for k, model in models:
                (row,) = find_rows(predictions_files[k], [sample_id], metrics)
                probability = predictions_files[k][PROBABILITY_DATASETS[model]][row]
                score = format_number(scores[k].get((sample_id, model), math.nan), 3)
                title = f"{model}, {trainings[k].training.experiment}"
                predictions.append((title, f"Dice {score}", probability >= THRESHOLD))
            (i,) = find_rows(prepared, [sample_id], metrics)
            png = figures.draw_prediction_strip(
                to_rgb8(prepared["image"][i]), _true_mask(prepared, i), predictions
            )
            picture = Picture(png, "image, truth, and the outline of each prediction")
            samples.append(SampleFigure(sample_id, reason, picture, []))
    return samples


def _gaze_caption(samples: list[SampleFigure], available: set[str], backend: str) -> str:
    """Describe figure A and the choice of its samples."""
    if not samples:
        return "No training image has usable gaze."
    chosen = (
        "with the lowest, median and highest Dice of the broad pseudomask against the mask"
        if samples[0].reason
        else "evenly spaced in the file; there are no masks"
    )
    sentences = [f"Training images with usable gaze, {chosen}."]
    if "fixations" in available:
        sentences.append(
            "Fixations: the area of a circle is proportional to the duration; the numbers follow "
            "the start times, over all readers."
        )
    sentences += [
        "Heatmap, and map refined along image edges: brighter is higher."
        if "heatmap" in available
        else "Map refined along image edges: brighter is higher.",
        f"Below each image: its explanation in words (backend “{backend}”).",
    ]
    return " ".join(sentences)


def _test_caption(samples: list[SampleFigure], trainings: list[TrainingFiles]) -> str:
    """Describe the figure of test images and the choice of its samples."""
    if not samples:
        return "No training of this data set has predictions of test images."
    first = trainings[0].training
    chosen = (
        f"chosen for the lowest, median and highest Dice of the student of “{first.experiment}” "
        f"(seed {first.seed})"
        if samples[0].reason
        else "evenly spaced in the file; there are no masks"
    )
    return (
        f"Test images, {chosen}. Outlines: probability ≥ {THRESHOLD} at the working size. "
        "Dice: at full resolution."
    )


def _attention_samples(
    prepared: h5py.File, gaze: h5py.File, explanations: h5py.File, trainings: list[TrainingFiles]
) -> tuple[list[SampleFigure], str]:
    """Draw the attention of the first training whose predictions hold it.

    Without such a training, there are no samples and the caption is empty.
    """
    for files in trainings:
        with io.open_h5(files.predictions) as file:
            has_attention = ATTENTION_DATASETS[0] in file
        if has_attention:
            return attention.attention_figures(
                prepared, gaze, explanations, files.training, files.predictions
            )
    return [], ""


def _training_curves(
    histories: list[tuple[ReportHistory, Path]], experiments: list[str]
) -> Picture | None:
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
    png = charts.plot_training_curves(curves, experiments)
    return Picture(png, "training loss and validation Dice against the iteration")


def make_section(
    dataset: ReportDataset,
    files: tuple[Path, Path, Path, Path],
    trainings: list[TrainingFiles],
    histories: list[tuple[ReportHistory, Path]],
    comparisons: list[Comparison],
    experiments: list[str],
) -> Section:
    """Make the section of one data set.

    Parameters
    ----------
    dataset
        Name, title and note of the data set.
    files
        Its prepared.h5, gaze.h5, gaze_quality.csv and explanations.h5.
    trainings, histories
        Its trainings and histories, with their files.
    comparisons
        Tables about it.
    experiments
        All experiments of the page; the position decides the colour.

    Raises
    ------
    BadInput
        The files have different samples.
    """
    with (
        io.open_h5(files[0], "image", "mask", "has_mask", "split", "sample_id") as prepared,
        io.open_h5(
            files[1], "heatmap", "refined", "pseudomask", "threshold", "has_gaze",
            "dwell_ms", "fixation", "fixation_offset", "sample_id",
        ) as gaze,
        io.open_h5(
            files[3], "text", "attributes", "failed", "area_agrees", "place_agrees", "sample_id"
        ) as explanations,
    ):  # fmt: skip
        io.check_same_samples(prepared, gaze, explanations)
        quality = gaze_quality.read_quality(files[2], gaze)
        quality_figure = gaze_quality.quality_figure(quality, gaze["threshold"][()])
        gaze_samples, available = _gaze_samples(prepared, gaze, explanations, quality)
        test_samples = _test_samples(prepared, trainings)
        outcome_chart, outcome_caption = outcomes.outcome_figure(
            prepared, gaze["threshold"][()], quality, trainings, experiments
        )
        attention_samples, attention_caption = _attention_samples(
            prepared, gaze, explanations, trainings
        )
        return Section(
            title=dataset.title,
            note=dataset.note,
            facts=[
                *_dataset_facts(prepared, gaze, quality),
                *_explanation_facts(explanations),
                *outcomes.agreement_facts(prepared, gaze, explanations, trainings),
            ],
            levels=quality_figure.levels,
            gaze_samples=gaze_samples,
            gaze_caption=_gaze_caption(gaze_samples, available, str(explanations.attrs["backend"])),
            quality_chart=quality_figure.picture,
            quality_caption=quality_figure.caption,
            test_samples=test_samples,
            test_caption=_test_caption(test_samples, trainings),
            outcome_chart=outcome_chart,
            outcome_caption=outcome_caption,
            has_masks=bool(prepared["has_mask"][()].any()),
            comparisons=comparisons,
            training_curves=_training_curves(histories, experiments),
            attention_samples=attention_samples,
            attention_caption=attention_caption,
            simulated_note=SIMULATED_NOTE if gaze.attrs["gaze_origin"] == "simulated" else "",
        )
