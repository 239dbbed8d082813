"""metrics.csv of all runs → one table of experiments, each compared with a reference."""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.core import cli, io, job_log
from stages.evaluation.statistics import bootstrap_interval, holm_adjust, sign_flip_p_value
from stages.evaluation.summarise import (
    ExperimentResults,
    mean_dice_per_image,
    name_inputs,
    read_experiments,
)
from stages.settings.evaluation import CompareSettings

COLUMNS = [
    "dataset", "experiment", "reference", "seeds", "n", "subjects",
    "dice_mean", "dice_std", "iou_mean", "iou_std",
    "hd95_penalised_mean", "hd95_penalised_std", "asd_penalised_mean", "asd_penalised_std",
    "unit", "undefined", "annotation_seconds_per_image", "gaze",
    "dice_difference", "dice_difference_low", "dice_difference_high", "p", "p_adjusted",
]  # fmt: skip


def aggregate_over_seeds(scores: pd.DataFrame) -> dict[str, object]:
    """Average over the images of each seed, then take mean and standard deviation over seeds.

    An undefined distance (one of the two masks is empty) counts as the diagonal of its image.

    Parameters
    ----------
    scores
        The columns of metrics.csv and `seed`; only images with a mask.

    Returns
    -------
    ``n, subjects``
        Number of images and of subjects.
    ``undefined``
        Number of undefined distances, all seeds together.
    ``unit``
        mm or px; "mixed" if the images differ in it, and then the distances are NaN.
    ``…_mean, …_std``
        Per metric, mean and sample standard deviation (n − 1) over seeds; the latter is NaN for
        one seed.
    """
    units = scores["unit"].unique()
    penalised = scores[["dice", "iou"]].assign(
        **{
            f"{name}_penalised": scores[name].fillna(scores["diagonal"])
            if len(units) == 1
            else np.nan
            for name in ("hd95", "asd")
        }
    )
    means = penalised.groupby(scores["seed"]).mean()
    row: dict[str, object] = {
        "n": scores["sample_id"].nunique(),
        "subjects": scores["subject_id"].nunique(),
        "unit": "mixed" if len(units) > 1 else "".join(units),
        "undefined": int(scores["hd95"].isna().sum()),
    }
    for name in means:
        row |= {f"{name}_mean": means[name].mean(), f"{name}_std": means[name].std()}
    return row


def compare_with_reference(
    images: pd.DataFrame, reference: pd.DataFrame, seed: int
) -> dict[str, float]:
    """Compare the Dice of two experiments, paired by image.

    Parameters
    ----------
    images, reference
        Tables of `mean_dice_per_image`, of the same images.
    seed
        Seed of interval and test. Both start from it, so a row does not depend on other rows.

    Returns
    -------
    ``dice_difference``
        Mean difference over images.
    ``dice_difference_low, dice_difference_high``
        Its interval (`statistics.bootstrap_interval`).
    ``p``
        p-value of the subjects' mean differences (`statistics.sign_flip_p_value`).

    A value that cannot be computed is NaN.
    """
    differences = images["dice"] - reference["dice"]
    low, high = bootstrap_interval(
        differences.to_numpy(), images["subject_id"].to_numpy(object), np.random.default_rng(seed)
    )
    subject_means = differences.groupby(images["subject_id"]).mean().to_numpy()
    return {
        "dice_difference": differences.mean(),
        "dice_difference_low": low,
        "dice_difference_high": high,
        "p": sign_flip_p_value(subject_means, np.random.default_rng(seed)),
    }


def _student_test_scores(results: ExperimentResults) -> pd.DataFrame:
    """Return the student's rows of the test images with a mask."""
    scores = results.scores
    student = (scores["model"] == "student") & (scores["split"] == "test")
    return scores[student & scores["dice"].notna()]


def _check_same_images(
    images: pd.DataFrame, reference: pd.DataFrame, results: ExperimentResults
) -> None:
    same_ids = images.index.equals(reference.index)
    if not (same_ids and images["subject_id"].equals(reference["subject_id"])):
        raise cli.BadInput(
            f"metrics.csv of {results.dataset}, {results.experiment}",
            "columns sample_id, subject_id",
            found=f"{len(images)} test images with a mask, which differ from the reference's",
            expected=f"the same {len(reference)} images in each experiment of a data set",
            mend="delete the data set's metrics.csv files and run snakemake again: they come from "
            "different data",
        )


def _compare_dataset(
    experiments: list[ExperimentResults], settings: CompareSettings
) -> list[dict[str, object]]:
    """Return the rows of one data set, in the order of its experiments."""
    scores = {results.experiment: _student_test_scores(results) for results in experiments}
    if settings.reference not in scores:
        raise cli.BadInput(
            "--settings",
            "runs",
            found=f"{experiments[0].dataset}: {', '.join(scores)}",
            expected=f"also the reference {settings.reference}",
            mend="add the runs of the reference and their files",
        )
    reference = mean_dice_per_image(scores[settings.reference])
    rows = []
    for results in experiments:
        row: dict[str, object] = {
            "dataset": results.dataset,
            "experiment": results.experiment,
            "reference": settings.reference,
            "seeds": results.seeds,
        }
        row |= aggregate_over_seeds(scores[results.experiment]) | results.annotation_effort
        if results.experiment != settings.reference:
            images = mean_dice_per_image(scores[results.experiment])
            _check_same_images(images, reference, results)
            row |= compare_with_reference(images, reference, settings.seed)
        rows.append(row)
    adjusted = holm_adjust(np.array([row.get("p", np.nan) for row in rows], np.float64))
    return [row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]


def compare(metrics: list[Path], gaze: list[Path], output: Path, settings: CompareSettings) -> None:
    """Write a table with one row per data set and experiment: the student on test images.

    =============================== ==============================================================
    column                          content
    =============================== ==============================================================
    dataset, experiment             in the order of the runs
    reference                       the experiment that the row is compared with
    seeds                           number of trainings
    n, subjects                     number of test images with a mask, and of their subjects
    dice, iou: _mean, _std          mean and sample standard deviation over seeds of the mean over
                                    images (_std is empty for one seed)
    hd95, asd: _penalised_mean,     the same; an undefined distance (one mask is empty) counts as
    _penalised_std                  the diagonal of its image
    unit                            unit of the distances: mm, px, or mixed (distances are empty)
    undefined                       number of undefined distances, all seeds together
    annotation_seconds_per_image    mean dwell time, or the stated time to draw a mask
    gaze                            recorded or simulated; empty if the labels are masks
    dice_difference                 Dice minus the reference's Dice: averaged over seeds, paired
                                    by image, averaged over images
    dice_difference_low, _high      95 % interval of the difference: paired bootstrap, 10,000
                                    draws of subjects with all their images; empty for one subject
    p                               two-sided sign-flip permutation test of the subjects' mean
                                    differences; exact up to 12 subjects, else 10,000 draws
    p_adjusted                      p, adjusted by Holm's method over the rows of one data set
    =============================== ==============================================================

    Interval and p describe how much the result depends on the subjects, for these trainings.
    `dice_std` shows how much it depends on the seed. The row of the reference itself has no
    comparison.
    """
    datasets: dict[str, list[ExperimentResults]] = {}
    for results in read_experiments(metrics, gaze, settings):
        datasets.setdefault(results.dataset, []).append(results)
    rows = [
        row for experiments in datasets.values() for row in _compare_dataset(experiments, settings)
    ]
    job_log.log_provenance(io.provenance("compare", name_inputs(metrics, gaze, settings), settings))
    io.write_csv(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    cli.run(compare)
