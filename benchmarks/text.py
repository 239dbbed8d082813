"""Does the teacher use its text? The right texts against texts shuffled between images.

    python benchmarks/text.py [--datasets kvasir prostate isic] [--seeds 3]

The demo's phantoms, stages and settings, with one difference: gaze, simulated, on the held-out
images too, so that they have a text. Per data set and seed two teachers are trained: with each
image's own text, and with the texts dealt to other images of the same split. Dice is of the
held-out images at the working size, each teacher reading the kind of text that it was trained with;
the first also reads the shuffled ones, and none.

The text is of the region that was looked at, and the gaze is simulated from the mask: what is
measured is whether the fusion passes the text on, not what words are worth to a clinician. The last
line is a JSON object; its ratio is Dice with the right texts to Dice with shuffled ones.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py
import numpy as np
import pandas as pd
import torch
import yaml

from stages.core import io
from stages.core.config import DatasetSettings, parse
from stages.data.prepare import prepare
from stages.demo.demo_data import make_demo_data
from stages.gaze.pseudomasks import make_gaze
from stages.gaze.scanpath import simulate_fixations
from stages.networks import models
from stages.settings.explain import TextsSettings
from stages.settings.scanpath import ScanSettings
from stages.settings.training import TeacherSettings
from stages.text.embed import embed
from stages.text.explain import explain
from stages.text.texts import merge_texts
from stages.training import loop, samples
from stages.training.samples import Batch, Column, Samples, normalise
from stages.training.teacher import train_teacher

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("right", "shuffled", "right, reads shuffled", "right, reads none")


class Made(NamedTuple):
    """The files of a data set that teachers are trained on."""

    prepared: Path
    gaze: Path
    explanations: Path


def write_fixations(prepared: Path, table: Path) -> None:
    """Simulate gaze on all images, of each split, in the columns of the published export."""
    rows = []
    with io.open_h5(prepared, "mask", "original_size") as file:
        for i, name in enumerate(io.read_strings(file, "sample_id")):
            rng, (height, width) = np.random.default_rng([0, i]), file["original_size"][i]
            x, y, duration, start = simulate_fixations(
                file["mask"][i] > 0, settings=ScanSettings(), rng=rng
            ).T
            columns = {
                "IMAGE": f"{name}.jpg",
                "CURRENT_FIX_INDEX": np.arange(1, len(x) + 1),
                "CURRENT_FIX_X": x,
                "CURRENT_FIX_Y": y,
                "CURRENT_FIX_DURATION": duration,
                "CURRENT_FIX_START": start,
                "IMAGE_HEIGHT": height,
                "IMAGE_WIDTH": width,
            }
            rows.append(pd.DataFrame(columns))
    io.write_csv(pd.concat(rows), table)


def make(dataset: DatasetSettings, folder: Path) -> Made:
    """Run the stages from raw data to explanations."""
    assert dataset.demo is not None
    made = Made(*(folder / f"{stage}.h5" for stage in ("prepared", "gaze", "explanations")))
    make_demo_data(folder / "raw", dataset.demo)
    prepare(folder / "raw", made.prepared, dataset.prepare, threads=1)
    write_fixations(made.prepared, folder / "fixations.csv")
    make_gaze(made.prepared, made.gaze, dataset.gaze, 1, 0, folder / "fixations.csv")
    answers, texts = folder / "answers.jsonl", folder / "texts.h5"
    explain(
        made.prepared, made.gaze, answers, dataset.explain, dataset.endpoint, 0, 1,
        folder / "work", threads=1, gpus=0,
    )  # fmt: skip
    limit = TextsSettings(max_failed=0)
    merge_texts(made.prepared, made.gaze, [answers], texts, limit)
    embed(texts, made.explanations, dataset.embed, threads=1, gpus=0)
    return made


def shuffle(made: Made, seed: int) -> Made:
    """Deal the texts of each split so that no image has its own."""
    dealt = made._replace(explanations=made.explanations.with_name(f"shuffled{seed}.h5"))
    shutil.copy(made.explanations, dealt.explanations)
    rng = np.random.default_rng(seed)
    with io.open_h5(made.prepared) as source, h5py.File(dealt.explanations, "r+") as file:
        splits, text = io.read_strings(source, "split"), file["embedding"][()]
        for split in ("train", "val", "test"):
            members = np.flatnonzero((splits == split) & text.any(axis=(1, 2)))
            order = rng.permutation(members)
            file["embedding"][np.sort(order)] = text[np.roll(order, 1)[np.argsort(order)]]
    return dealt


def teach(made: Made, settings: TeacherSettings, seed: int) -> models.Teacher:
    folder = made.prepared.parent
    weights = folder / "teacher.safetensors"
    work = folder / "work"
    history = folder / "history.csv"
    train_teacher(
        made.prepared, made.gaze, weights, history, settings, seed, work, threads=1, gpus=0,
        resident_mb=4000, explanations=made.explanations,
    )  # fmt: skip
    return models.load(weights, "teacher")


def dice(teacher: models.Teacher, made: Made, read: bool = True) -> float:
    """Mean Dice of the held-out images; `read`: the teacher is given their text."""
    columns = {
        "image": Column(made.prepared, "image"),
        "mask": Column(made.prepared, "mask"),
        "text": Column(made.explanations, "embedding"),
    }
    rows = samples.rows_of(made.prepared, "test")
    data = Samples(columns, rows, torch.device("cpu"), resident_mb=4000)

    def predict(part: Batch) -> torch.Tensor:
        text = part["text"] if read else None
        logits: torch.Tensor = teacher(normalise(part["image"]), text).logits
        return logits[:, 1] > logits[:, 0]

    return loop.validation_dice(predict, data, 16)


def measure(made: Made, settings: TeacherSettings, seed: int) -> list[float]:
    """Return the Dice of each of COLUMNS."""
    dealt = shuffle(made, seed)
    right = teach(made, settings, seed)
    return [
        dice(right, made),
        dice(teach(dealt, settings, seed), dealt),
        dice(right, dealt),
        dice(right, made, read=False),
    ]


def main() -> None:
    names = ["kvasir", "prostate", "isic"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))

    print(f"{'':12}" + "".join(f"{column:>24}" for column in COLUMNS) + "   Dice")
    rows = []
    for name in arguments.datasets:
        settings = config.experiment(f"demo_{name}", "full").teacher
        dataset = config.dataset(f"demo_{name}")
        with tempfile.TemporaryDirectory() as folder:
            made = make(dataset, Path(folder))
            for seed in range(arguments.seeds):
                found = measure(made, settings, seed)
                rows.append((name, seed, *found))
                cells = "".join(f"{value:>24.3f}" for value in found)
                print(f"{name:>9} {seed:<2}{cells}", flush=True)
    table = pd.DataFrame(rows, columns=["dataset", "seed", *COLUMNS])
    mean = table[list(COLUMNS)].mean()
    gain = table["right"] - table["shuffled"]
    swapped = table["right"] - table["right, reads shuffled"]
    print(f"{'mean':>12}" + "".join(f"{value:>24.3f}" for value in mean))
    print(
        json.dumps(
            {
                "name": "text",
                "ours": round(mean["right"], 4),
                "other": round(mean["shuffled"], 4),
                "unit": "Dice",
                "ratio": round(mean["right"] / mean["shuffled"], 3),
                "repeats": arguments.seeds,
                "right_reads_shuffled": round(mean["right, reads shuffled"], 4),
                "right_reads_none": round(mean["right, reads none"], 4),
                "gain": round(gain.mean(), 4),
                "gain_std": round(gain.std(), 4),
                "gain_by_dataset": gain.groupby(table["dataset"]).mean().round(4).to_dict(),
                "pairs": len(table),
                "pairs_right_better": int((gain > 0).sum()),
                "pairs_right_better_than_swapped": int((swapped > 0).sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
