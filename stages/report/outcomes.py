"""What the student's results depend on: size of the target, confidence, gaze and words.

All numbers are of the first seed and, but for the pseudomasks, of test images with a mask at the
working size; the Dice of the student is that of metrics.csv, at full resolution.
"""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import io
from stages.core.metrics import dice
from stages.evaluation.evaluate import THRESHOLD
from stages.gaze.quality import level_columns
from stages.report.charts import Relation, Series, plot_relations
from stages.report.page import Picture, format_number
from stages.report.trainings import TrainingFiles, find_rows, read_test_dice
from stages.text.describers.faithfulness import Agreement, compare_with_gaze

FloatArray = NDArray[np.float64]

# Groups of equally many images, and bins of the predicted probability.
_GROUPS, _BINS = 4, 10
# Half the width of a normal 95 % interval, in standard errors.
_NORMAL_95 = 1.96


class Calibration(NamedTuple):
    """How the predicted probability and the true share of foreground agree.

    Attributes
    ----------
    confidence, frequency
        (B,) mean probability and share of foreground pixels of each bin; NaN in an empty bin.
    error
        Expected calibration error (Naeini et al., 2015): the mean of |confidence - frequency| over
        all pixels, in [0, 1]; NaN without pixels.
    """

    confidence: FloatArray
    frequency: FloatArray
    error: float


def calibrate(
    pairs: Iterable[tuple[NDArray[np.floating], NDArray[np.bool_]]], bins: int = _BINS
) -> Calibration:
    """Compare probabilities with masks, in equally wide bins of the probability.

    Parameters
    ----------
    pairs
        Probability in [0, 1] and mask of each image, of the same shape. One pair is in memory at a
        time.
    """
    count, probability_sum, foreground = np.zeros((3, bins))
    for probability, mask in pairs:
        values = np.asarray(probability, np.float64).ravel()
        index = np.minimum((values * bins).astype(int), bins - 1)
        count += np.bincount(index, minlength=bins)
        probability_sum += np.bincount(index, values, bins)
        foreground += np.bincount(index, mask.ravel(), bins)
    filled = np.where(count, count, np.nan)
    total = count.sum()
    error = float(abs(probability_sum - foreground).sum() / total) if total else np.nan
    return Calibration(probability_sum / filled, foreground / filled, error)


def group_means(name: str, x: FloatArray, y: FloatArray) -> Series:
    """Average `y` in up to four groups of equally many images, in the order of `x`.

    An image with NaN in `x` or `y` is ignored. `half` is half the width of the 95 % interval of the
    mean of y, from a normal distribution; NaN in a group of one image.
    """
    known = ~(np.isnan(x) | np.isnan(y))
    order = np.argsort(x[known], kind="stable")
    groups = np.array_split(order, min(_GROUPS, len(order))) if len(order) else []
    x_means, y_means, half = [], [], []
    for group in groups:
        values = y[known][group]
        x_means.append(x[known][group].mean())
        y_means.append(values.mean())
        spread = values.std(ddof=1) if len(values) > 1 else np.nan
        half.append(_NORMAL_95 * spread / np.sqrt(len(values)))
    return Series(name, np.array(x_means), np.array(y_means), np.array(half))


class _TestImages(NamedTuple):
    """The test images of a training, N in number."""

    # (N,) of the student; NaN without a mask.
    dice: FloatArray
    # (N,) in prepared.h5 and in predictions.h5.
    prepared_rows: NDArray[np.intp]
    prediction_rows: NDArray[np.intp]


def _read_test_images(
    files: TrainingFiles, prepared: h5py.File, predictions: h5py.File
) -> _TestImages:
    scores = {
        name: score for (name, model), score in read_test_dice(files).items() if model == "student"
    }
    names = list(scores)
    return _TestImages(
        np.array(list(scores.values()), np.float64),
        find_rows(prepared, names, files.metrics),
        find_rows(predictions, names, files.metrics),
    )


def _measure_student(prepared: h5py.File, files: TrainingFiles) -> tuple[Series, Calibration]:
    """Return the student's Dice by the target's share of the image, and its calibration."""
    with io.open_h5(files.predictions, "sample_id", "probability") as predictions:
        images = _read_test_images(files, prepared, predictions)
        with_mask = np.flatnonzero(prepared["has_mask"][()][images.prepared_rows])
        area = np.full(len(images.dice), np.nan)

        def pairs() -> Iterator[tuple[NDArray[np.floating], NDArray[np.bool_]]]:
            for n in with_mask:
                mask = prepared["mask"][images.prepared_rows[n]] > 0
                area[n] = mask.mean()
                yield predictions["probability"][images.prediction_rows[n]], mask

        calibration = calibrate(pairs())
    return group_means(files.training.experiment, area, images.dice), calibration


def _label_relation(quality: pd.DataFrame, thresholds: NDArray[np.float32]) -> Series:
    """Return the Dice of the broad pseudomask by the spread of the fixations, on train."""
    usable = quality[quality["is_usable"] & (quality["split"] == "train")]
    column = level_columns("dice", thresholds)[-1]
    return group_means("", usable["dispersion"].to_numpy(float), usable[column].to_numpy(float))


def outcome_figure(
    prepared: h5py.File,
    thresholds: NDArray[np.float32],
    quality: pd.DataFrame,
    trainings: list[TrainingFiles],
    experiments: list[str],
) -> tuple[Picture | None, str]:
    """Draw what Dice depends on, and the reliability diagram; return the picture and its caption.

    Parameters
    ----------
    quality
        The table of `gaze_quality.read_quality`.
    experiments
        All experiments of the page; the position decides the colour.

    Returns
    -------
    None and an empty caption if the data set has no masks to compare with.
    """
    relations, sentences = [], []
    measured = [_measure_student(prepared, files) for files in trainings]
    by_size = [series for series, _ in measured if len(series.x)]
    calibrations = [(s.name, known) for s, known in measured if not np.isnan(known.error)]
    if by_size:
        relations.append(Relation("Student, test", "target, share of the image", "Dice", by_size))
        sentences.append(
            "Student: test images in four groups by the size of the target; whiskers: 95 % "
            "interval of the mean."
        )
    labels = _label_relation(quality, thresholds)
    if len(labels.x):
        relations.append(
            Relation("Broad pseudomask, train", "dispersion of the gaze", "Dice", [labels])
        )
        sentences.append(
            "Broad pseudomask: training images in four groups by the dispersion of their fixations."
        )
    if calibrations:
        lines = [
            Series(name, known.confidence, known.frequency, np.full(_BINS, np.nan))
            for name, known in calibrations
        ]
        relations.append(
            Relation(
                "Reliability, test", "probability of the student", "share of foreground", lines,
                diagonal=True,
            )
        )  # fmt: skip
        errors = ", ".join(f"{name} {known.error:.3f}" for name, known in calibrations)
        sentences.append(
            "Reliability: pixels of the test images in ten bins by the predicted probability; on "
            f"the dashed line it is true. Expected calibration error over all pixels: {errors}."
        )
    if not relations:
        return None, ""
    picture = Picture(
        plot_relations(relations, experiments),
        "; ".join(f"{r.title}: {r.y_name} against {r.x_name}" for r in relations),
    )
    return picture, " ".join(sentences)


def agreement_facts(
    prepared: h5py.File,
    gaze: h5py.File,
    explanations: h5py.File,
    trainings: list[TrainingFiles],
) -> list[tuple[str, str]]:
    """Return how gaze and words agree with the student's masks of the test images.

    The student is that of the first training; it has seen neither gaze nor text of these images.
    Words agree if `faithfulness.compare_with_gaze` accepts them for the student's mask in place of
    the pseudomasks.
    """
    if not trainings:
        return []
    files = trainings[0]
    overlaps: list[float] = []
    verdicts: list[Agreement] = []
    with io.open_h5(files.predictions, "sample_id", "probability") as predictions:
        images = _read_test_images(files, prepared, predictions)
        has_gaze = gaze["has_gaze"][()]
        for i, k in zip(images.prepared_rows, images.prediction_rows, strict=True):
            if not has_gaze[i]:
                continue
            mask = predictions["probability"][k] >= THRESHOLD
            overlaps.append(dice(gaze["pseudomask"][i][-1] > 0, mask))
            claims = json.loads(explanations["attributes"].asstr()[i])
            verdicts.append(compare_with_gaze(claims, mask[None].astype(np.uint8)))
    if not overlaps:
        return []
    name = files.training.experiment
    facts = [
        (f"Gaze and student ({name}) agree, test",
         f"Dice {format_number(float(np.mean(overlaps)), 3)}"),
    ]  # fmt: skip
    for word in ("area", "place"):
        claims = [getattr(verdict, f"{word}_agrees") for verdict in verdicts]
        known = [claim for claim in claims if claim is not None]
        if known:
            facts.append(
                (f"Claimed {word} agrees with the student, test", f"{sum(known)} of {len(known)}")
            )
    return facts
