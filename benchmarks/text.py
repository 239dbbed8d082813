"""Does the teacher use its text? Compare correct texts with texts shuffled between images.

    python benchmarks/text.py [--datasets kvasir prostate isic] [--seeds 3]

Data, stages and settings are those of the demo, but teachers train longer, and the held-out images
also have simulated gaze, and therefore a text. For each data set and seed two teachers are trained:
one with the text of each image (`right`), one with texts shuffled between the images of a split
(`shuffled`). Dice is that of the held-out images at the working size. Each teacher reads the kind
of text of its training; the first one is also tested with shuffled texts and without text.

The text describes the region with gaze, and the gaze is simulated from the mask. So this measures
whether the fusion uses the text, not the value of the words for a clinician. The last line is a
JSON object; its ratio is the Dice with the right texts divided by the Dice with shuffled ones.
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
from method import phantom_config

from stages.core import io
from stages.core.config import DatasetSettings, parse
from stages.data.prepare import prepare
from stages.demo.demo_data import make_demo_data
from stages.gaze.pseudomasks import make_pseudomasks
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


class StageFiles(NamedTuple):
    """The files of a data set for the training of teachers."""

    prepared: Path
    gaze: Path
    explanations: Path


def write_fixations(prepared: Path, table: Path, reader: ScanSettings) -> None:
    """Simulate gaze on the images of all splits, in the columns of the published export."""
    rows = []
    with io.open_h5(prepared, "mask", "original_size") as file:
        for i, name in enumerate(io.read_strings(file, "sample_id")):
            rng, (height, width) = np.random.default_rng([0, i]), file["original_size"][i]
            x, y, duration, start = simulate_fixations(
                file["mask"][i] > 0, settings=reader, rng=rng
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


def make_stage_files(dataset: DatasetSettings, folder: Path) -> StageFiles:
    """Run the stages from raw data to explanations."""
    assert dataset.demo is not None
    files = StageFiles(*(folder / f"{stage}.h5" for stage in ("prepared", "gaze", "explanations")))
    make_demo_data(folder / "raw", dataset.demo)
    prepare(folder / "raw", files.prepared, dataset.prepare, threads=1)
    write_fixations(
        files.prepared, folder / "fixations.csv", dataset.gaze.simulate or dataset.demo.scan
    )
    make_pseudomasks(files.prepared, files.gaze, dataset.gaze, 1, 0, folder / "fixations.csv")
    answers, texts = folder / "answers.jsonl", folder / "texts.h5"
    explain(
        files.prepared, files.gaze, answers, dataset.explain, dataset.endpoint, 0, 1,
        folder / "work", threads=1, gpus=0,
    )  # fmt: skip
    limit = TextsSettings(max_failed=0)
    merge_texts(files.prepared, files.gaze, [answers], texts, limit)
    embed(texts, files.explanations, dataset.embed, threads=1, gpus=0)
    return files


def shuffle(files: StageFiles, seed: int) -> StageFiles:
    """Shuffle the texts within each split so that no image keeps its own."""
    shuffled = files._replace(explanations=files.explanations.with_name(f"shuffled{seed}.h5"))
    shutil.copy(files.explanations, shuffled.explanations)
    rng = np.random.default_rng(seed)
    with io.open_h5(files.prepared) as source, h5py.File(shuffled.explanations, "r+") as file:
        splits, text = io.read_strings(source, "split"), file["embedding"][()]
        for split in ("train", "val", "test"):
            members = np.flatnonzero((splits == split) & text.any(axis=(1, 2)))
            order = rng.permutation(members)
            file["embedding"][np.sort(order)] = text[np.roll(order, 1)[np.argsort(order)]]
    return shuffled


def train(files: StageFiles, settings: TeacherSettings, seed: int) -> models.Teacher:
    folder = files.prepared.parent
    weights = folder / "teacher.safetensors"
    work = folder / "work"
    history = folder / "history.csv"
    train_teacher(
        files.prepared, files.gaze, weights, history, settings, seed, work, threads=1, gpus=0,
        resident_mb=4000, explanations=files.explanations,
    )  # fmt: skip
    return models.load(weights, "teacher")


def dice(teacher: models.Teacher, files: StageFiles, with_text: bool = True) -> float:
    """Return the mean Dice of the held-out images; `with_text`: the teacher reads their text."""
    columns = {
        "image": Column(files.prepared, "image"),
        "mask": Column(files.prepared, "mask"),
        "text": Column(files.explanations, "embedding"),
    }
    rows = samples.rows_in_splits(files.prepared, "test")
    data = Samples(columns, rows, torch.device("cpu"), resident_mb=4000)

    def predict(part: Batch) -> torch.Tensor:
        text = part["text"] if with_text else None
        logits: torch.Tensor = teacher(normalise(part["image"]), text).logits
        return logits[:, 1] > logits[:, 0]

    return loop.validation_dice(predict, data, 16)


def measure_dice(files: StageFiles, settings: TeacherSettings, seed: int) -> list[float]:
    """Return the Dice of each column in `COLUMNS`."""
    shuffled = shuffle(files, seed)
    right = train(files, settings, seed)
    return [
        dice(right, files),
        dice(train(shuffled, settings, seed), shuffled),
        dice(right, shuffled),
        dice(right, files, with_text=False),
    ]


def main() -> None:
    names = ["kvasir", "prostate", "isic"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    config = parse(phantom_config() | {"summary": []})

    print(f"{'':12}" + "".join(f"{column:>24}" for column in COLUMNS) + "   Dice")
    rows = []
    for name in arguments.datasets:
        settings = config.experiment(f"demo_{name}", "full").teacher
        dataset = config.dataset(f"demo_{name}")
        with tempfile.TemporaryDirectory() as folder:
            files = make_stage_files(dataset, Path(folder))
            for seed in range(arguments.seeds):
                dice_values = measure_dice(files, settings, seed)
                rows.append((name, seed, *dice_values))
                cells = "".join(f"{value:>24.3f}" for value in dice_values)
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
