"""Time until the method is as good as the published recipe after 90 minutes, on real data.

    python benchmarks/time_to_quality.py [data/kvasir] [--minutes 90] [--folder FOLDER]

DATA is a folder in the layout `kvasir` with recorded gaze. Two trainings run side by side, each on
one core, and each with a schedule fitted to its time. One is the authors' released recipe: its own
networks from scratch, and as many iterations as the given time allows. The other is `full` with the
laptop preset, teacher and pseudolabels included, and fewer iterations, which take some ten minutes.
Image size, batch and data are the same. Both are compared by the student's Dice on the validation
images, at the working size; the test split is not read.

It prints when `full` first reaches the best Dice that the recipe had at any time, and draws both
curves into FOLDER/time_to_quality.png. The last line is a JSON object; its ratio is the recipe's
time divided by the time of `full`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import yaml
from method import ROOT, add_real_data, lacks_real_data, laptop_config, run_snakemake

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Iterations whose speed tells how many fit into the time.
TRIAL = 12
# The published part of the training in which the weights of the losses rise: 4,000 of 15,000.
RAMP = 4 / 15
# Iterations of the teacher and of the student of `full`: some ten minutes of one core.
SHORT = 600
RUNS = {"ours": "full", "recipe": "published"}


def fit_schedule(iterations: int, validate_every: int) -> dict[str, int]:
    """Return the student's settings for a training of the given length."""
    return {
        "iterations": iterations,
        "ramp_iterations": max(1, round(iterations * RAMP)),
        "validate_every": validate_every,
    }


def make_config(data: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Make a configuration with a data set for each of the two, both of the same images."""
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))["datasets"]["kvasir"]
    config = laptop_config(data, threads=1)
    ours = config["datasets"]["kvasir"]
    ours["teacher"] = ours["teacher"] | {"iterations": SHORT}
    ours["student"] = ours["student"] | fit_schedule(SHORT, validate_every=50)
    same = {key: ours[key] for key in ("root", "fixations", "threads", "gpus", "prepare")}
    config["datasets"] = {
        "ours": ours,
        "recipe": shipped | same | {"experiments": ["published"], "student": recipe},
    }
    return config


def read_history(folder: Path, run: str) -> pd.DataFrame:
    """Return the history of the student's training."""
    return pd.read_csv(folder / f"results/{run}/{RUNS[run]}/seed0/student_history.csv")


def measure(folder: Path, data: Path, minutes: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train both; return their curves: minutes of work before the row, validation Dice."""
    ours, recipe = (
        f"results/{run}/{experiment}/seed0/student.safetensors" for run, experiment in RUNS.items()
    )
    # In a folder of its own, so that an interrupted run continues with the same schedule.
    trial = {"iterations": TRIAL, "log_every": TRIAL // 2, "validate_every": TRIAL}
    (folder / "trial").mkdir(exist_ok=True)
    run_snakemake(folder / "trial", make_config(data, trial), [recipe], "2")
    per_iteration = read_history(folder / "trial", "recipe")["seconds"].iloc[0] / (TRIAL // 2)
    iterations = max(20, round(60 * minutes / per_iteration))
    step = max(1, iterations // 20)
    schedule = fit_schedule(iterations, validate_every=step) | {"log_every": step}
    run_snakemake(folder, make_config(data, schedule), [ours, recipe], "2")
    return read_curves(folder)


def read_curves(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the curves of both trainings of `measure`."""
    jobs = folder / "results/ours/full/seed0/benchmarks"
    before = sum(
        pd.read_csv(jobs / f"{job}.tsv", sep="\t")["s"].iloc[0]
        for job in ("teacher", "pseudolabels")
    )
    curves = []
    for run, start in (("ours", before), ("recipe", 0.0)):
        history = read_history(folder, run).dropna(subset=["val_dice"])
        curves.append(
            pd.DataFrame(
                {"minutes": (history["seconds"] + start) / 60, "dice": history["val_dice"]}
            )
        )
    return curves[0], curves[1]


def draw(ours: pd.DataFrame, recipe: pd.DataFrame, path: Path) -> None:
    """Draw both curves."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for curve, label in ((ours, "full, laptop preset"), (recipe, "published recipe")):
        axes.plot(curve["minutes"], curve["dice"], marker=".", label=label)
    axes.axhline(recipe["dice"].max(), color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="minutes on one core, teacher included", ylabel="Dice of the student, validation"
    )
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=90)
    add_real_data(parser)
    arguments = parser.parse_args()
    if lacks_real_data(arguments.data):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        ours, recipe = measure(folder, arguments.data.resolve(), arguments.minutes)
        draw(ours, recipe, folder / "time_to_quality.png")
    goal, time = recipe["dice"].max(), recipe["minutes"].iloc[-1]
    reached = ours.loc[ours["dice"] >= goal, "minutes"]
    first = float(reached.iloc[0]) if len(reached) else float("nan")
    print(f"published recipe: best Dice {goal:.3f} in {time:.1f} minutes")
    print(f"full: that Dice after {first:.1f} minutes; {ours['dice'].iloc[-1]:.3f} at the end,"
          f" after {ours['minutes'].iloc[-1]:.1f} minutes")  # fmt: skip
    print(
        json.dumps(
            {
                "name": "time_to_quality",
                "ours": round(first, 2),
                "other": round(time, 2),
                "unit": "minutes",
                "ratio": round(time / first, 2) if len(reached) else 0,
                "repeats": 1,
                "dice": {"ours": round(ours["dice"].iloc[-1], 4), "other": round(goal, 4)},
            }
        )
    )


if __name__ == "__main__":
    main()
