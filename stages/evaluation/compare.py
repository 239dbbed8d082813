"""metrics.csv of all runs → one table: experiments over seeds, and against a reference."""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.core import cli, io, job_log
from stages.evaluation.statistics import bootstrap_interval, holm, sign_flip_p
from stages.evaluation.summarise import Measured, measured, name_inputs
from stages.settings.evaluation import CompareSettings

COLUMNS = [
    "dataset", "experiment", "reference", "seeds", "n", "subjects",
    "dice_mean", "dice_std", "iou_mean", "iou_std",
    "hd95_penalised_mean", "hd95_penalised_std", "asd_penalised_mean", "asd_penalised_std",
    "unit", "undefined", "annotation_seconds_per_image", "gaze",
    "dice_difference", "dice_difference_low", "dice_difference_high", "p", "p_adjusted",
]  # fmt: skip


def over_seeds(scores: pd.DataFrame) -> dict[str, object]:
    """Mean and spread of the means over images, one per seed.

    A distance that does not exist (one mask empty) counts as its image's diagonal.

    Parameters
    ----------
    scores
        Columns of metrics.csv and `seed`, of images with a mask.

    Returns
    -------
    `n` images, `subjects` and `undefined` distances of all seeds; `unit`, "mixed" where some images
    are in mm and some in px, whose distances are NaN; of each measure the mean and the sample
    standard deviation (n − 1) over seeds, NaN with one seed.
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


def per_image(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over seeds, and subject, of each image; sample ids are the index."""
    return scores.groupby("sample_id").agg({"subject_id": "first", "dice": "mean"})


def against(images: pd.DataFrame, reference: pd.DataFrame, seed: int) -> dict[str, float]:
    """Paired difference of two experiments' Dice on the same images.

    Parameters
    ----------
    images, reference
        As `per_image` returns them, of the same images.
    seed
        Of the generators of interval and test, so that a row does not depend on the other rows.

    Returns
    -------
    `dice_difference`, the mean over images; its interval's ends (`statistics.bootstrap_interval`);
    and `p` of the subjects' mean differences (`statistics.sign_flip_p`). NaN: not to be had.
    """
    differences = images["dice"] - reference["dice"]
    low, high = bootstrap_interval(
        differences.to_numpy(), images["subject_id"].to_numpy(object), np.random.default_rng(seed)
    )
    by_subject = differences.groupby(images["subject_id"]).mean().to_numpy()
    return {
        "dice_difference": differences.mean(),
        "dice_difference_low": low,
        "dice_difference_high": high,
        "p": sign_flip_p(by_subject, np.random.default_rng(seed)),
    }


def _test_images(found: Measured) -> pd.DataFrame:
    """Rows of the student on test images with a mask."""
    scores = found.scores
    student = (scores["model"] == "student") & (scores["split"] == "test")
    return scores[student & scores["dice"].notna()]


def _check_same_images(images: pd.DataFrame, reference: pd.DataFrame, of: Measured) -> None:
    same = images.index.equals(reference.index)
    if not (same and images["subject_id"].equals(reference["subject_id"])):
        raise cli.BadInput(
            f"metrics.csv of {of.dataset}, {of.experiment}",
            "columns sample_id, subject_id",
            found=f"{len(images)} test images with a mask, not those of the reference",
            expected=f"the same {len(reference)} images in each experiment of a data set",
            mend="delete the data set's metrics.csv files and run snakemake again: they are of "
            "different data",
        )


def _compare_dataset(part: list[Measured], settings: CompareSettings) -> list[dict[str, object]]:
    """Rows of one data set, in the order of its experiments."""
    scores = {found.experiment: _test_images(found) for found in part}
    if settings.reference not in scores:
        raise cli.BadInput(
            "--settings",
            "runs",
            found=f"{part[0].dataset}: {', '.join(scores)}",
            expected=f"also the reference {settings.reference}",
            mend="add the reference's runs and their files",
        )
    reference = per_image(scores[settings.reference])
    rows = []
    for found in part:
        row: dict[str, object] = {
            "dataset": found.dataset,
            "experiment": found.experiment,
            "reference": settings.reference,
            "seeds": found.seeds,
        }
        row |= over_seeds(scores[found.experiment]) | found.effort
        if found.experiment != settings.reference:
            images = per_image(scores[found.experiment])
            _check_same_images(images, reference, found)
            row |= against(images, reference, settings.seed)
        rows.append(row)
    adjusted = holm(np.array([row.get("p", np.nan) for row in rows], np.float64))
    return [row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True)]


def compare(metrics: list[Path], gaze: list[Path], output: Path, settings: CompareSettings) -> None:
    """Write a table with one row per data set and experiment: its student on test images.

    =============================== ==============================================================
    column                          what it holds
    =============================== ==============================================================
    dataset, experiment             in the order of the runs
    reference                       the experiment that this one is held against
    seeds                           number of trainings
    n, subjects                     test images with a mask, and whose they are
    dice, iou: _mean, _std          mean over images per seed; of these, mean and sample standard
                                    deviation over seeds (empty with one seed)
    hd95, asd: _penalised_mean,     likewise; a distance that does not exist (one mask empty)
    _penalised_std                  counts as its image's diagonal
    unit                            of the distances: mm, px, or mixed, and then they are empty
    undefined                       distances that do not exist, all seeds together
    annotation_seconds_per_image,   what the labels took, and whether the gaze was recorded or
    gaze                            simulated (empty: learned from masks)
    dice_difference                 Dice minus the reference's: mean over images of the difference,
                                    each averaged over seeds first
    dice_difference_low, _high      its 95 % interval: paired bootstrap, 10,000 draws of subjects
                                    with all their images; empty with one subject
    p                               two-sided sign-flip permutation test of the subjects' mean
                                    differences; exact up to 12 subjects, else 10,000 draws
    p_adjusted                      p by Holm over the rows of one data set
    =============================== ==============================================================

    Both interval and test are about other subjects like these, given these trainings: how much
    another seed would change is in `dice_std`. The reference's own row has no comparison.
    """
    datasets: dict[str, list[Measured]] = {}
    for found in measured(metrics, gaze, settings):
        datasets.setdefault(found.dataset, []).append(found)
    rows = [row for part in datasets.values() for row in _compare_dataset(part, settings)]
    job_log.made_from(io.provenance("compare", name_inputs(metrics, gaze, settings), settings))
    io.write_csv(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    cli.run(compare)
