"""metrics.csv of all runs → summary.csv: one row per experiment, model and split."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

from stages.core import cli, io, job_log
from stages.evaluation.statistics import bootstrap_interval
from stages.settings.evaluation import SummariseSettings

_TEXT_COLUMNS = ("sample_id", "subject_id", "split", "model", "unit")
# The same metrics always have the same interval.
_INTERVAL_SEED = 0
_NUMBER_COLUMNS = ("dice", "iou", "hd95", "asd", "diagonal")
COLUMNS = [
    "dataset", "experiment", "model", "split", "seeds", "n",
    "dice_mean", "dice_std", "iou_mean", "iou_std",
    "hd95_mean", "hd95_std", "asd_mean", "asd_std",
    "unit", "undefined", "hd95_penalised", "asd_penalised", "annotation_seconds_per_image", "gaze",
    "dice_patient_mean", "dice_patient_std", "dice_low", "dice_high",
]  # fmt: skip


def aggregate(rows: pd.DataFrame, seeds: int) -> dict[str, object]:
    """Aggregate the rows of one model and one split over images and seeds.

    Means and sample standard deviations (n − 1) are over images; an image counts once per seed.
    `dice_patient_…` are over subjects: each has the mean of its images and seeds. Rows without
    numbers (no mask) are ignored. An undefined distance (one of the two masks is empty) counts in
    `undefined`, is ignored in the means of the distances, and counts as the diagonal of its image
    in `hd95_penalised` and `asd_penalised`. `dice_low` and `dice_high` are the ends of the 95 %
    interval of `dice_mean` (`statistics.bootstrap_interval`), in which an image has the mean of its
    seeds.

    Parameters
    ----------
    rows
        The columns of metrics.csv.
    seeds
        Number of trainings in `rows`.

    Returns
    -------
    The columns of summary.csv from `seeds` to `asd_penalised`, `dice_patient_…`, `dice_low` and
    `dice_high`. `n` is the number of images with a mask, per seed. A mean of no value or a
    deviation of one value is NaN.
    If some images are in mm and some in px, `unit` is "mixed" and the distances are NaN.
    """
    scored = rows[rows["dice"].notna()]
    units = (scored if len(scored) else rows)["unit"].unique()
    undefined = int(scored["hd95"].isna().sum())
    if len(units) > 1:
        scored = scored.assign(hd95=math.nan, asd=math.nan, diagonal=math.nan)
    patient_dice = scored.groupby("subject_id")["dice"].mean()
    images = mean_dice_per_image(scored)
    low, high = bootstrap_interval(
        images["dice"].to_numpy(),
        images["subject_id"].to_numpy(object),
        np.random.default_rng(_INTERVAL_SEED),
    )
    row: dict[str, object] = {"seeds": seeds, "n": len(scored) // seeds}
    for name in ("dice", "iou", "hd95", "asd"):
        row[f"{name}_mean"] = scored[name].mean()
        row[f"{name}_std"] = scored[name].std()
    return row | {
        "unit": units[0] if len(units) == 1 else "mixed",
        "undefined": undefined,
        "hd95_penalised": scored["hd95"].fillna(scored["diagonal"]).mean(),
        "asd_penalised": scored["asd"].fillna(scored["diagonal"]).mean(),
        "dice_patient_mean": patient_dice.mean(),
        "dice_patient_std": patient_dice.std(),
        "dice_low": low,
        "dice_high": high,
    }


def mean_dice_per_image(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the subject and the mean Dice over seeds of each image, indexed by sample id."""
    return scores.groupby("sample_id").agg({"subject_id": "first", "dice": "mean"})


def _read_seeds(files: dict[int, Path]) -> pd.DataFrame:
    """Read the metrics of one experiment, given as seed → file, into one table with `seed`."""
    tables = {
        seed: io.read_csv(file, _TEXT_COLUMNS, _NUMBER_COLUMNS) for seed, file in files.items()
    }
    key = ["sample_id", "split", "model"]
    (first, *_), (reference, *_) = files.values(), tables.values()
    for seed, table in tables.items():
        if not table[key].equals(reference[key]):
            raise cli.BadInput(
                files[seed],
                "columns " + ", ".join(key),
                found=f"{len(table)} rows, which differ from those of {first}",
                expected=f"the same {len(reference)} samples and models in each seed",
                mend="delete both files and run snakemake again: they come from different data",
            )
    return pd.concat([table.assign(seed=seed) for seed, table in tables.items()], ignore_index=True)


def mean_dwell_seconds(gaze: h5py.File) -> float:
    """Return the mean dwell time (sum of fixation durations), s, of the images with fixations.

    NaN if no image has fixations.
    """
    dwell = gaze["dwell_ms"][()].astype(np.float64)
    known = dwell[~np.isnan(dwell)]
    return float(known.mean()) / 1000 if len(known) else math.nan


def read_gaze_effort(gaze: Path) -> dict[str, object]:
    """Read the annotation effort from a gaze.h5.

    Returns
    -------
    `annotation_seconds_per_image` (`mean_dwell_seconds`) and `gaze` ("recorded" or "simulated").
    """
    with io.open_h5(gaze, "dwell_ms") as file:
        origin = str(file.attrs["gaze_origin"])
        return {"annotation_seconds_per_image": mean_dwell_seconds(file), "gaze": origin}


def _check_settings(metrics: list[Path], gaze: list[Path], settings: SummariseSettings) -> None:
    """Raise if the settings do not describe the files."""

    def fail(field: str, found: object, expected: object, mend: str) -> None:
        raise cli.BadInput("--settings", field, found=found, expected=expected, mend=mend)

    for field, entries, files in (
        ("runs", settings.runs, metrics),
        ("gaze", settings.gaze, gaze),
    ):
        if len(entries) != len(files):
            fail(field, f"{len(entries)} entries", f"{len(files)}, one per file",
                 f"add one entry per file to {field}, in the order of the files")  # fmt: skip
    known = set()
    for run in settings.runs:
        training = (run.dataset, run.experiment, run.seed)
        if training in known:
            fail("runs", f"{training} twice", "each training once", "delete one of the two")
        known.add(training)
        if run.labels == "pseudomask" and run.dataset not in settings.gaze:
            fail("gaze", list(settings.gaze), f"also {run.dataset!r}: run {training} uses its gaze",
                 "add the data set and its gaze.h5")  # fmt: skip


def name_inputs(
    metrics: list[Path], gaze: list[Path], settings: SummariseSettings
) -> dict[str, Path]:
    """Return a readable name of each input file → the file, for its provenance."""
    runs = zip(settings.runs, metrics, strict=True)
    datasets = zip(settings.gaze, gaze, strict=True)
    return {f"{r.dataset} {r.experiment} seed{r.seed} metrics": file for r, file in runs} | {
        f"{name} gaze": file for name, file in datasets
    }


class ExperimentResults(NamedTuple):
    """The results of one experiment on one data set."""

    dataset: str
    experiment: str
    # Number of trainings.
    seeds: int
    # The columns of metrics.csv and `seed`; all seeds.
    scores: pd.DataFrame
    # `annotation_seconds_per_image` and `gaze`: the effort behind the training labels.
    annotation_effort: dict[str, object]


def read_experiments(
    metrics: list[Path], gaze: list[Path], settings: SummariseSettings
) -> Iterator[ExperimentResults]:
    """Yield the results of each experiment on each data set, in the order of the runs.

    If the student was trained on gaze, the annotation effort is the mean dwell time, and `gaze` is
    "recorded" or "simulated". Else it is the `mask_seconds` of the settings, and `gaze` is empty.

    Raises
    ------
    BadInput
        The settings do not describe the files, or the seeds have different samples.
    """
    _check_settings(metrics, gaze, settings)
    gaze_effort = {
        name: read_gaze_effort(file) for name, file in zip(settings.gaze, gaze, strict=True)
    }
    experiments: dict[tuple[str, str], list[int]] = {}
    for i, run in enumerate(settings.runs):
        experiments.setdefault((run.dataset, run.experiment), []).append(i)
    for (dataset, experiment), run_indices in experiments.items():
        run = settings.runs[run_indices[0]]
        effort: dict[str, object] = gaze_effort[dataset] if run.labels == "pseudomask" else {
            "annotation_seconds_per_image": run.mask_seconds, "gaze": "",
        }  # fmt: skip
        scores = _read_seeds({settings.runs[i].seed: metrics[i] for i in run_indices})
        yield ExperimentResults(dataset, experiment, len(run_indices), scores, effort)


def summarise(
    metrics: list[Path], gaze: list[Path], output: Path, settings: SummariseSettings
) -> None:
    """Write summary.csv: data sets and experiments in the order of the runs, val before test.

    `annotation_seconds_per_image` and `gaze` come from `read_experiments`, the other columns from
    `aggregate`.
    """
    rows = []
    for dataset, experiment, seeds, scores, effort in read_experiments(metrics, gaze, settings):
        for model in scores["model"].unique():
            for split in ("val", "test"):
                selected = scores[(scores["model"] == model) & (scores["split"] == split)]
                if len(selected):
                    key = {"dataset": dataset, "experiment": experiment,
                           "model": model, "split": split}  # fmt: skip
                    rows.append(key | aggregate(selected, seeds) | effort)
    job_log.log_provenance(
        io.provenance("summarise", name_inputs(metrics, gaze, settings), settings)
    )
    io.write_csv(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    cli.run(summarise)
