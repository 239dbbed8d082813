"""metrics.csv of all runs → summary.csv: one row per experiment, model and split."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd

from stages.core import cli, io, job_log
from stages.settings.evaluation import SummariseSettings

_TEXT = ("sample_id", "subject_id", "split", "model", "unit")
_NUMBERS = ("dice", "iou", "hd95", "asd", "diagonal")
COLUMNS = [
    "dataset", "experiment", "model", "split", "seeds", "n",
    "dice_mean", "dice_std", "iou_mean", "iou_std",
    "hd95_mean", "hd95_std", "asd_mean", "asd_std",
    "unit", "undefined", "hd95_penalised", "annotation_seconds_per_image", "gaze",
    "dice_patient_mean", "dice_patient_std",
]  # fmt: skip


def aggregate(rows: pd.DataFrame, seeds: int) -> dict[str, object]:
    """Aggregate one model's rows of one split, all seeds together.

    Means and sample standard deviations (n − 1) are over images, an image counting once per
    seed; the patient's are over subjects, each with the mean of its images and seeds. Rows
    without numbers (no mask) are left out. A distance that does not exist (one mask empty) is
    counted in `undefined` and left out of the distances' means; in `hd95_penalised` it counts as
    the image's diagonal.

    Parameters
    ----------
    rows
        The columns of metrics.csv.
    seeds
        Number of trainings that `rows` are of.

    Returns
    -------
    Columns of summary.csv from `seeds` to `hd95_penalised`, and the patient's; `n` is the number
    of images with a mask, per seed. NaN: nothing to average, or a deviation of one value. Where
    some images are in mm and some in px, `unit` is "mixed" and the distances are NaN.
    """
    scored = rows[rows["dice"].notna()]
    units = (scored if len(scored) else rows)["unit"].unique()
    undefined = int(scored["hd95"].isna().sum())
    if len(units) > 1:
        scored = scored.assign(hd95=math.nan, asd=math.nan, diagonal=math.nan)
    patients = scored.groupby("subject_id")["dice"].mean()
    row: dict[str, object] = {"seeds": seeds, "n": len(scored) // seeds}
    for name in ("dice", "iou", "hd95", "asd"):
        row[f"{name}_mean"] = scored[name].mean()
        row[f"{name}_std"] = scored[name].std()
    return row | {
        "unit": units[0] if len(units) == 1 else "mixed",
        "undefined": undefined,
        "hd95_penalised": scored["hd95"].fillna(scored["diagonal"]).mean(),
        "dice_patient_mean": patients.mean(),
        "dice_patient_std": patients.std(),
    }


def _read_seeds(files: dict[int, Path]) -> pd.DataFrame:
    """Read one experiment's metrics, seed → file, all seeds one below the other."""
    tables = {seed: io.read_csv(file, _TEXT, _NUMBERS) for seed, file in files.items()}
    key = ["sample_id", "split", "model"]
    (first, *_), (reference, *_) = files.values(), tables.values()
    for seed, table in tables.items():
        if not table[key].equals(reference[key]):
            raise cli.BadInput(
                files[seed],
                "columns " + ", ".join(key),
                found=f"{len(table)} rows, not those of {first}",
                expected=f"the same {len(reference)} samples and models in each seed",
                mend="delete both files and run snakemake again: they are of different data",
            )
    return pd.concat([table.assign(seed=seed) for seed, table in tables.items()], ignore_index=True)


def mean_dwell(gaze: h5py.File) -> float:
    """Mean sum of fixation durations, s, over the images with fixations; NaN without any."""
    dwell = gaze["dwell_ms"][()].astype(np.float64)
    known = dwell[~np.isnan(dwell)]
    return float(known.mean()) / 1000 if len(known) else math.nan


def read_viewing(gaze: Path) -> dict[str, object]:
    """Tell from a gaze.h5 what its annotation took.

    Returns
    -------
    `annotation_seconds_per_image`: `mean_dwell`, and `gaze`: "recorded" or "simulated".
    """
    with io.open_h5(gaze, "dwell_ms") as file:
        origin = str(file.attrs["gaze_origin"])
        return {"annotation_seconds_per_image": mean_dwell(file), "gaze": origin}


def _check(metrics: list[Path], gaze: list[Path], settings: SummariseSettings) -> None:
    """Stop where files and settings do not belong together."""

    def stop(field: str, found: object, expected: object, mend: str) -> None:
        raise cli.BadInput("--settings", field, found=found, expected=expected, mend=mend)

    for field, named, files in (
        ("runs", settings.runs, metrics),
        ("gaze", settings.gaze, gaze),
    ):
        if len(named) != len(files):
            stop(field, f"{len(named)} entries", f"{len(files)}, one per file",
                 f"list in {field} what each file is, in the order of the files")  # fmt: skip
    seen = set()
    for run in settings.runs:
        name = (run.dataset, run.experiment, run.seed)
        if name in seen:
            stop("runs", f"{name} twice", "each training once", "delete one of the two")
        seen.add(name)
        if run.labels == "pseudomask" and run.dataset not in settings.gaze:
            stop("gaze", list(settings.gaze), f"also {run.dataset!r}, whose run {name} uses gaze",
                 "add the data set and its gaze.h5")  # fmt: skip


def name_inputs(
    metrics: list[Path], gaze: list[Path], settings: SummariseSettings
) -> dict[str, Path]:
    """Role → file."""
    scored = zip(settings.runs, metrics, strict=True)
    looked = zip(settings.gaze, gaze, strict=True)
    return {f"{r.dataset} {r.experiment} seed{r.seed} metrics": file for r, file in scored} | {
        f"{name} gaze": file for name, file in looked
    }


class Measured(NamedTuple):
    """One experiment on one data set."""

    dataset: str
    experiment: str
    seeds: int
    # The columns of metrics.csv and `seed`, all seeds one below the other.
    scores: pd.DataFrame
    # `annotation_seconds_per_image` and `gaze`: what its labels took.
    effort: dict[str, object]


def measured(
    metrics: list[Path], gaze: list[Path], settings: SummariseSettings
) -> Iterator[Measured]:
    """Yield each experiment of each data set, in the order of the runs.

    The effort is the fixations' durations where the student learned from gaze (`gaze` then says
    whether it was recorded or simulated), else the stated time of a mask.

    Raises
    ------
    BadInput
        Files and settings do not belong together, or seeds differ in their samples.
    """
    _check(metrics, gaze, settings)
    viewing = {name: read_viewing(file) for name, file in zip(settings.gaze, gaze, strict=True)}
    experiments: dict[tuple[str, str], list[int]] = {}
    for i, run in enumerate(settings.runs):
        experiments.setdefault((run.dataset, run.experiment), []).append(i)
    for (dataset, experiment), members in experiments.items():
        run = settings.runs[members[0]]
        effort: dict[str, object] = viewing[dataset] if run.labels == "pseudomask" else {
            "annotation_seconds_per_image": run.mask_seconds, "gaze": "",
        }  # fmt: skip
        scores = _read_seeds({settings.runs[i].seed: metrics[i] for i in members})
        yield Measured(dataset, experiment, len(members), scores, effort)


def summarise(
    metrics: list[Path], gaze: list[Path], output: Path, settings: SummariseSettings
) -> None:
    """Write summary.csv: data sets and experiments in the order of the runs, val before test.

    `annotation_seconds_per_image` and `gaze` are those of `measured`, the other columns those of
    `aggregate`.
    """
    rows = []
    for dataset, experiment, seeds, scores, effort in measured(metrics, gaze, settings):
        for model in scores["model"].unique():
            for split in ("val", "test"):
                part = scores[(scores["model"] == model) & (scores["split"] == split)]
                if len(part):
                    name = {"dataset": dataset, "experiment": experiment,
                            "model": model, "split": split}  # fmt: skip
                    rows.append(name | aggregate(part, seeds) | effort)
    job_log.made_from(io.provenance("summarise", name_inputs(metrics, gaze, settings), settings))
    io.write_csv(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    cli.run(summarise)
