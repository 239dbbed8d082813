"""Compare the method with the authors' released recipe, and with training on dense masks.

    python benchmarks/method.py [--seeds 3] [--folder FOLDER]

Runs the workflow on the three phantom data sets of the demo, longer than the demo, for each seed:
`full` (the method), `published` (the released recipe) and `supervised` (the student's network on
dense masks). Data, student, image size, batch, iterations and optimiser are the same for all; the
recipe trains its teacher for as many iterations as the student. All values are for the student on
the test split, at full resolution: mean ± standard deviation over seeds.

The last line is a JSON object; its ratio is the Dice of `full` divided by the Dice of `published`.
With `--folder` the results stay in that folder, and an interrupted run can be continued.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from snakemake.utils import update_config

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ["demo_kvasir", "demo_prostate", "demo_isic"]
EXPERIMENTS = ["full", "supervised"]
# The demo trains for less, to be quick; then methods differ less.
LONGER = {
    "teacher": {"iterations": 500, "batch_size": 8},
    "student": {"iterations": 800, "batch_size": 8, "ramp_iterations": 213},
}


def run_snakemake(folder: Path, config: dict[str, Any], targets: list[str], cores: str) -> None:
    """Make the targets in `folder` with a configuration of its own."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = [
        sys.executable, "-m", "snakemake", *targets, "--cores", cores, "--quiet",
        "--snakefile", str(ROOT / "workflow/Snakefile"), "--directory", str(folder),
        "--rerun-incomplete",
    ]  # fmt: skip
    # Rules must find this Python and these stages.
    prepended = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)}
    paths = {
        name: f"{path}{os.pathsep}{os.environ.get(name, '')}" for name, path in prepended.items()
    }
    subprocess.run(command, check=True, env=os.environ | paths, stdout=sys.stderr)


def laptop_config(data: Path, threads: int) -> dict[str, Any]:
    """Return the configuration under the laptop preset, with the data set `kvasir` at `data`."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    preset = (ROOT / "workflow/presets/laptop.yaml").read_text("utf-8")
    update_config(config, yaml.safe_load(preset))
    config["datasets"]["kvasir"] |= {
        "root": str(data), "fixations": str(data / "kvasir_fixation.csv"), "threads": threads,
    }  # fmt: skip
    config["summary"] = []
    return config


def phantom_config() -> dict[str, Any]:
    """Return the configuration with the demo's phantoms alone, which train longer."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    config["datasets"] = {name: config["datasets"][name] for name in DATASETS}
    for dataset in config["datasets"].values():
        update_config(dataset, LONGER)
    return config


def add_real_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of a benchmark on real data."""
    parser.add_argument("data", type=Path, nargs="?", default=ROOT / "data/kvasir")
    parser.add_argument("--folder", type=Path)


def lacks_real_data(data: Path) -> bool:
    """Return whether the recorded gaze is absent, and say so."""
    absent = not (data / "kvasir_fixation.csv").exists()
    if absent:
        print(f"skipped: {data}/kvasir_fixation.csv does not exist; see data/README.md")
    return absent


def run_workflow(folder: Path, seeds: int) -> pd.DataFrame:
    """Run the workflow in `folder`; return its table."""
    config = phantom_config()
    config["seeds"] = list(range(seeds))
    config["summary"] = DATASETS
    config["tables"] = {"baselines": {"reference": "published", "experiments": EXPERIMENTS}}
    run_snakemake(folder, config, ["results/baselines.csv"], "all")
    return pd.read_csv(folder / "results/baselines.csv")


def print_table(table: pd.DataFrame) -> None:
    """Print the table, one row per data set and experiment."""
    columns = {"dice": "Dice", "hd95_penalised": "HD95"}
    print(
        f"{'':28}" + "".join(f"{name:>18}" for name in columns.values()) + "   gain in Dice, 95 %"
    )
    for row in table.to_dict("records"):
        cells = "".join(f"{row[f'{key}_mean']:>10.3f} ± {row[f'{key}_std']:.3f}" for key in columns)
        gain = ""
        if row["experiment"] != "published":
            low, high = row["dice_difference_low"], row["dice_difference_high"]
            gain = f"   {row['dice_difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
            gain += f" p {row['p_adjusted']:.4f}"
        print(f"{row['dataset']:>14} {row['experiment']:<12}{cells}{gain}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        table = run_workflow(arguments.folder.resolve(), arguments.seeds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = run_workflow(Path(folder), arguments.seeds)
    print_table(table)

    dice = table.pivot(index="dataset", columns="experiment", values="dice_mean")
    hd95 = table.pivot(index="dataset", columns="experiment", values="hd95_penalised_mean")
    mean = dice.mean()
    dice_std = table.pivot(index="dataset", columns="experiment", values="dice_std")
    print(
        json.dumps(
            {
                "name": "method",
                "ours": round(mean["full"], 4),
                "other": round(mean["published"], 4),
                "unit": "Dice",
                "ratio": round(mean["full"] / mean["published"], 3),
                "repeats": arguments.seeds,
                "dice_gain": round(mean["full"] - mean["published"], 4),
                "of_supervised": round(mean["full"] / mean["supervised"], 4),
                "dice": dice.round(4).to_dict("index"),
                "dice_std": dice_std.round(4).to_dict("index"),
                "hd95": hd95.round(2).to_dict("index"),
            }
        )
    )


if __name__ == "__main__":
    main()
