"""Compare the simulated reader with people, on the same images and masks.

    python benchmarks/scanpath.py [data/kvasir] [--folder FOLDER]

DATA is a folder in the layout `kvasir` with recorded gaze. The scan model looks at the masks of the
training images at its defaults; the recorded gaze on the same images is that of people. Both make
pseudomasks by the published settings at 224 × 224 px. The test images are not read.

The table has one row per statistic: fixations per image, durations in ms, lengths of the saccades
as shares of the image's diagonal, shares of the fixations on the target, and the Dice of both
pseudomasks. The depth of a fixation on the target is 0 at its border and 1 at its deepest point;
its rank correlation with the order of the fixations tells whether the eye moves outwards
(negative). The last line is a JSON object; its ratio is the largest quotient of the two values of a
statistic, without the Dice values and the correlation, whose differences are given.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
import numpy as np
import pandas as pd
from method import add_real_data, lacks_real_data, laptop_config
from scipy import ndimage, stats

from stages.core import io
from stages.core.config import parse
from stages.core.metrics import dice
from stages.data.prepare import prepare
from stages.gaze.pseudomasks import make_pseudomasks
from stages.gaze.recordings.scan import hits_target
from stages.settings.gaze import GazeSettings
from stages.settings.scanpath import ScanSettings

DIFFERENCES = ("Dice, precise", "Dice, broad", "depth and order, rank correlation")


def read_scans(gaze: Path, prepared: Path) -> list[dict[str, Any]]:
    """Return fixations, mask, size and pseudomasks of each training image with gaze."""
    with h5py.File(gaze) as file, io.open_h5(prepared) as source:
        splits, offset = io.read_strings(source, "split"), file["fixation_offset"][:]
        return [
            {
                "fixations": file["fixation"][offset[i] : offset[i + 1]].astype(float),
                "mask": source["mask"][i] > 0,
                "size": source["original_size"][i],
                "pseudomasks": file["pseudomask"][i] > 0,
            }
            for i, split in enumerate(splits)
            if split == "train" and offset[i + 1] > offset[i]
        ]


def measure(scans: list[dict[str, Any]]) -> pd.Series:
    """Return the statistics over all images, by name."""
    columns: dict[str, list[float]] = {name: [] for name in ("ms", "saccade", "depth", "order")}
    images = []
    for scan in scans:
        x, y, duration, _ = scan["fixations"].T
        height, width = scan["size"]
        mask, hit = scan["mask"], hits_target(scan["fixations"][:, :2], scan["mask"])
        lengths = np.hypot(np.diff(x) * width, np.diff(y) * height) / np.hypot(width, height)
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        rows, cols = (
            np.minimum((p * side).astype(int), side - 1)
            for p, side in zip((y, x), mask.shape, strict=True)
        )
        columns["ms"] += duration.tolist()
        columns["saccade"] += lengths.tolist()
        columns["depth"] += (depth[rows, cols] / depth.max())[hit].tolist()
        columns["order"] += np.linspace(0, 1, len(hit))[hit].tolist()
        precise, broad = (dice(mask, scan["pseudomasks"][level]) for level in (0, -1))
        images.append((len(x), hit.mean(), duration[hit].sum() / duration.sum(), precise, broad))
    count, on_target, time_on_target, precise, broad = np.array(images).T
    values = {
        "fixations, mean": count.mean(),
        "fixations, std": count.std(),
        "duration, median": np.median(columns["ms"]),
        "duration, std of the logarithm": np.log(columns["ms"]).std(),
        "saccade, median": np.median(columns["saccade"]),
        "saccade, mean": np.mean(columns["saccade"]),
        "on target, of the fixations": on_target.mean(),
        "on target, of the time": time_on_target.mean(),
        "Dice, precise": precise.mean(),
        "Dice, broad": broad.mean(),
        "depth and order, rank correlation": stats.spearmanr(
            columns["depth"], columns["order"]
        ).statistic,
    }
    return pd.Series(values, dtype=float)


def compare(data: Path, folder: Path) -> pd.DataFrame:
    """Return the statistics of people and of the scan model."""
    dataset = parse(laptop_config(data, threads=2)).dataset("kvasir")
    changes = {"size": (224, 224), "val_fraction": 0}
    prepared = folder / "prepared.h5"
    prepare(data, prepared, dataset.prepare.model_copy(update=changes), threads=2)
    readers = {
        "people": (GazeSettings(recording=dataset.gaze.recording), dataset.fixations),
        "simulated": (GazeSettings(simulate=ScanSettings()), None),
    }
    table = {}
    for name, (settings, fixations) in readers.items():
        gaze = folder / f"{name}.h5"
        make_pseudomasks(prepared, gaze, settings, 2, 0, fixations and Path(fixations))
        table[name] = measure(read_scans(gaze, prepared))
    return pd.DataFrame(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_real_data(parser)
    arguments = parser.parse_args()
    if lacks_real_data(arguments.data):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        table = compare(arguments.data.resolve(), folder)
    print(table.round(3).to_string())
    quotients = table.drop(list(DIFFERENCES)).pipe(lambda t: t["simulated"] / t["people"])
    worst = np.maximum(quotients, 1 / quotients)
    difference = (table["simulated"] - table["people"])[list(DIFFERENCES)].round(3)
    print(
        json.dumps(
            {
                "name": "scanpath",
                "ratio": round(float(worst.max()), 3),
                "statistic": worst.idxmax(),
                "differences": difference.to_dict(),
            }
        )
    )


if __name__ == "__main__":
    main()
