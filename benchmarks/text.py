"""Does the teacher use its text? The right texts against texts shuffled between images.

    python benchmarks/text.py [--datasets kvasir prostate isic] [--seeds 3] [--train 432]

The demo's phantoms, stages and settings, with two differences: more training images (a text has
hundreds of numbers, and of the demo's 60 the teacher learns by heart which image is whose), and
gaze, simulated, on the held-out images too, so that they have a text. Per data set and seed three
teachers are trained: with each image's own text, with the texts dealt to other images of the same
split, and without text. Dice is of the held-out images at the working size, each teacher reading
the kind of text that it was trained with; the first also reads the shuffled ones, and none.

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

from stages import io, models, samples, train
from stages.config import DatasetSettings, parse
from stages.demo_data import make_demo_data
from stages.embed import embed
from stages.explain import explain
from stages.gaze import make_gaze
from stages.prepare import prepare
from stages.samples import Batch
from stages.scanpath import simulate_fixations
from stages.settings.demo_data import DemoSettings
from stages.settings.scanpath import ScanSettings
from stages.settings.texts import TextsSettings
from stages.settings.training import TeacherSettings
from stages.teacher import train_teacher
from stages.texts import merge_texts

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 120
COLUMNS = ("right", "shuffled", "without", "right, reads shuffled", "right, reads none")


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


def make(name: str, dataset: DatasetSettings, training_images: int, folder: Path) -> Made:
    """Run the stages from raw data to explanations."""
    demo = DemoSettings.model_validate(
        {"dataset": name, "seed": 0, "train": training_images, "test": HELD_OUT}
    )
    made = Made(*(folder / f"{stage}.h5" for stage in ("prepared", "gaze", "explanations")))
    make_demo_data(folder / "raw", demo)
    prepare(folder / "raw", made.prepared, dataset.prepare, threads=1)
    write_fixations(made.prepared, folder / "fixations.csv")
    make_gaze(made.prepared, made.gaze, dataset.gaze, 1, 0, folder / "fixations.csv")
    answers, texts = folder / "answers.jsonl", folder / "texts.h5"
    explain(
        made.prepared, made.gaze, answers, dataset.explain, 0, 1, folder / "work", threads=1, gpus=0
    )
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
    train_teacher(*made, weights, folder / "history.csv", settings, seed, threads=1, gpus=0)
    return models.load(weights, "teacher")


@torch.no_grad()
def dice(teacher: models.Teacher, made: Made, read: bool = True) -> float:
    """Mean Dice of the held-out images; `read`: the teacher is given their text."""
    index, batch = samples.load_images(made.prepared, ("test",))
    samples.add_masks(batch, made.prepared, index)
    samples.add_text(batch, made.prepared, made.explanations, index)

    def predict(part: Batch) -> torch.Tensor:
        logits: torch.Tensor = teacher(part["image"], part["text"] if read else None).logits
        return logits[:, 1] > logits[:, 0]

    return train.validation_dice(predict, batch, 16)


def measure(made: Made, settings: TeacherSettings, seed: int) -> list[float]:
    """Return the Dice of each of COLUMNS."""
    dealt = shuffle(made, seed)
    right = teach(made, settings, seed)
    blind = settings.model_copy(update={"text": False})
    return [
        dice(right, made),
        dice(teach(dealt, settings, seed), dealt),
        dice(teach(made, blind, seed), made, read=False),
        dice(right, dealt),
        dice(right, made, read=False),
    ]


def main() -> None:
    names = ["kvasir", "prostate", "isic"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=432, help="images of train.txt")
    arguments = parser.parse_args()
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))

    print(f"{'':12}" + "".join(f"{column:>24}" for column in COLUMNS) + "   Dice")
    rows = []
    for name in arguments.datasets:
        settings = config.experiment(f"demo_{name}", "full").teacher
        with tempfile.TemporaryDirectory() as folder:
            made = make(name, config.dataset(f"demo_{name}"), arguments.train, Path(folder))
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
                "training_images": arguments.train,
                "without_text": round(mean["without"], 4),
                "right_reads_shuffled": round(mean["right, reads shuffled"], 4),
                "right_reads_none": round(mean["right, reads none"], 4),
                "gain": round(gain.mean(), 4),
                "gain_std": round(gain.std(), 4),
                "gain_by_dataset": gain.groupby(table["dataset"]).mean().round(4).to_dict(),
                "pairs": len(table),
                "pairs_right_better": int((gain > 0).sum()),
                "pairs_right_better_than_swapped": int((swapped > 0).sum()),
                "pairs_right_better_than_without": int((table["right"] > table["without"]).sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
