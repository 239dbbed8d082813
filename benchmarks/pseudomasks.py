"""How good the pseudomasks are on real gaze, by the size of the target.

    python benchmarks/pseudomasks.py [data/kvasir] [--folder FOLDER]

DATA is a folder in the layout `kvasir` with recorded gaze and masks. The workflow makes pseudomasks
of the images in three ways: with the published thresholds of the CRF's map; with levels that follow
the spread of the fixations; and as the laptop preset does, where a pixel classifier on the features
of a frozen encoder votes on these. Masks serve only to score.

For each it prints the mean Dice of the broad pseudomask on the training images, at the working
size: of all, and of each quarter by the true area. The last line is a JSON object; its ratio is the
mean Dice of the preset divided by that of the published thresholds.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from method import ROOT, add_real_data, lacks_real_data, laptop_config, run_snakemake
from numpy.typing import NDArray

sys.path.insert(0, str(ROOT))
from stages.core import metrics

WAYS = ("thresholds", "area", "preset")


def make_config(data: Path) -> dict[str, Any]:
    """Make a configuration with a data set for each way, all of the same images."""
    config = laptop_config(data, threads=2)
    kvasir = config["datasets"]["kvasir"]
    gaze = {
        "thresholds": {"thresholds": config["defaults"]["gaze"]["thresholds"]},
        # Without the classifier's vote ½ is the estimated area.
        "area": {"levels": "area", "thresholds": [0.6, 0.5]},
        "preset": kvasir["gaze"],
    }
    config["datasets"] = {way: kvasir | {"gaze": gaze[way]} for way in WAYS}
    return config


def score(folder: Path, way: str) -> tuple[float, NDArray[np.float64]]:
    """Return the mean Dice of the broad pseudomask: of all, and of the quarters by true area."""
    with (
        h5py.File(folder / f"results/{way}/prepared.h5") as prepared,
        h5py.File(folder / f"results/{way}/gaze.h5") as gaze,
    ):
        used = (prepared["split"].asstr()[()] == "train") & prepared["has_mask"][()]
        used &= gaze["has_gaze"][()]
        mask = prepared["mask"][()][used] > 0
        broad = gaze["pseudomask"][()][used, -1] > 0
    dice = np.array([metrics.dice(*pair) for pair in zip(mask, broad, strict=True)])
    area = mask.mean(axis=(1, 2))
    quarter = np.digitize(area, np.quantile(area, [0.25, 0.5, 0.75]))
    return float(dice.mean()), np.array([dice[quarter == q].mean() for q in range(4)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_real_data(parser)
    arguments = parser.parse_args()
    if lacks_real_data(arguments.data):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        targets = [f"results/{way}/gaze.h5" for way in WAYS]
        run_snakemake(folder, make_config(arguments.data.resolve()), targets, "2")
        scores = {way: score(folder, way) for way in WAYS}
    print(f"{'Dice of the broad pseudomask':30} all   quarters by true area, smallest first")
    for way, (mean, quarters) in scores.items():
        print(f"{way:30} {mean:.3f} " + " ".join(f"{value:.3f}" for value in quarters))
    ours, other = scores["preset"][0], scores["thresholds"][0]
    print(
        json.dumps(
            {
                "name": "pseudomasks",
                "ours": round(ours, 4),
                "other": round(other, 4),
                "unit": "Dice",
                "ratio": round(ours / other, 4),
                "repeats": 1,
                "worst_quarter": round(float(scores["preset"][1].min()), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
