"""Run the stages on many samples: time per image, and peak memory, which must not grow with them.

    python benchmarks/many.py [--images 1000 5000] [--threads 2] [--frame 530 620] [--size 224 224]

All stages but the trainings run one after the other, for each number of images: from a raw folder
in the layout of Kvasir-SEG, with gaze on all frames, to the report. In place of a network's
predictions there are noisy masks. All samples count as test images, and two experiments are
compared. `--frame 64 64 --size 64 64` shows what a sample costs besides its pixels. The last line
is a JSON object; its ratio is 2 GiB divided by the highest peak.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from stages.core import io

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MIB = 2048
COLUMNS = (
    "IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION",
    "CURRENT_FIX_START",
)  # fmt: skip
# Of the data set, and of the experiments that are compared.
NAME, EXPERIMENTS = "kvasir", ("full", "other")


class Cost(NamedTuple):
    """Time that a stage took, s; time of its processor, s; its peak resident memory, MiB."""

    seconds: float
    processor_seconds: float
    peak_mib: float


def write_raw_folder(root: Path, images: int, size: tuple[int, int]) -> None:
    """Write the raw folder: textured frames, each with a brighter disc that has gaze."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    grains = (max(4, size[0] // 13), max(4, size[1] // 13), 3)
    with (root / "fixations.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for i in range(images):
            centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.075, 0.2) * size[0]
            disc = np.hypot(y - centre[0] * size[0], x - centre[1] * size[1]) < radius
            # No two frames have the same pixels: `prepare` would stop.
            grain = Image.fromarray(rng.integers(60, 160, grains, np.uint8))
            frame = np.asarray(grain.resize(size[::-1])) + np.uint8(60) * disc[..., None]
            Image.fromarray(frame).save(root / f"images/{i:05d}.jpg", quality=90)
            Image.fromarray(disc.astype(np.uint8) * 255).save(root / f"masks/{i:05d}.jpg")
            for j in range(15):
                fixation = centre[::-1] + rng.normal(0, 0.05, 2)
                table.writerow((f"{i:05d}.jpg", j + 1, *fixation, rng.integers(100, 600), 500 * j))
    num_train = round(0.9 * images)
    (root / "train.txt").write_text("".join(f"{i:05d}\n" for i in range(num_train)))
    (root / "test.txt").write_text("".join(f"{i:05d}\n" for i in range(num_train, images)))


def write_predictions(prepared: Path, output: Path) -> None:
    """Predict the mask of each sample with noise, and call it a test image."""
    rng = np.random.default_rng(0)
    with (
        io.open_h5(prepared, "mask", "sample_id") as source,
        io.create_h5(output, "predict", {}, {}) as file,
    ):
        masks, sample_ids = source["mask"], io.read_strings(source, "sample_id")
        probability = io.create_sample_dataset(file, "probability", masks.shape, np.float16)
        for i in range(len(masks)):
            probability[i] = (masks[i] + rng.uniform(-0.6, 0.6, masks.shape[1:])).clip(0, 1)
        io.write_strings(file, "sample_id", sample_ids)
        io.write_strings(file, "split", ["test"] * len(sample_ids))


def run_stage(stage: str, images: int, **options: object) -> Cost:
    """Run a stage like its rule; settings are given as objects, and several files as a list."""
    command = [sys.executable, "-m", f"stages.{stage}"]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        texts = [json.dumps(v) if isinstance(v, dict) else str(v) for v in values]
        command += [f"--{name}", *texts]
    with tempfile.TemporaryFile("w+") as messages:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stderr=messages)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            messages.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{messages.read()[-2000:]}")
    # Linux reports KiB, macOS bytes.
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    cost = Cost(seconds, usage.ru_utime + usage.ru_stime, peak)
    print(
        f"{images:>7} images, {stage:>20}: {1000 * cost.seconds / images:7.2f} ms an image "
        f"({1000 * cost.processor_seconds / images:.2f} ms of the processor), "
        f"peak {cost.peak_mib:5.0f} MiB",
        flush=True,
    )
    return cost


def run_stages(
    folder: Path, images: int, frame: tuple[int, int], size: tuple[int, int], threads: int
) -> tuple[dict[str, Cost], int]:
    """Run the stages in an empty folder; return the cost of each, and the pictures of the page."""
    raw, fixations = folder / "raw", folder / "raw/fixations.csv"
    prepared, gaze, quality = folder / "prepared.h5", folder / "gaze.h5", folder / "quality.csv"
    answers, texts, explanations = folder / "0of1.jsonl", folder / "texts.h5", folder / "expl.h5"
    predictions, metrics = folder / "predictions.h5", folder / "metrics.csv"
    summary, page, sources = folder / "summary.csv", folder / "page.html", folder / "sources.json"
    write_raw_folder(raw, images, frame)
    sources.write_text("{}")
    of_data = {"prepared": prepared, "gaze": gaze}
    prepare = {"layout": "kvasir", "size": size}
    verify = {
        "prepare": prepare, "recording": {}, "min_fixation_ms": 50, "partial": False,
        "supervised": [],
    }  # fmt: skip
    runs = [
        {"dataset": NAME, "experiment": name, "seed": 0, "labels": "pseudomask"}
        for name in EXPERIMENTS
    ]
    of_runs = {"metrics": [metrics] * len(runs), "gaze": gaze}
    trainings = [{"dataset": NAME, "experiment": name, "seed": 0} for name in EXPERIMENTS]
    shown = {"datasets": [{"name": NAME, "title": NAME}], "trainings": trainings, "histories": []}
    costs = {
        "verify": run_stage("gaze.verify", images, raw=raw, fixations=fixations, threads=threads,
            output=folder / "verified.csv", settings=verify),
        "prepare": run_stage("data.prepare", images, raw=raw, output=prepared, settings=prepare,
            threads=threads),
        "pseudomasks": run_stage("gaze.pseudomasks", images, prepared=prepared, fixations=fixations,
            output=gaze, settings={}, threads=threads, gpus=0),
        "quality": run_stage("gaze.quality", images, **of_data, output=quality, settings={}),
        "explain": run_stage("text.explain", images, **of_data, output=answers, settings={},
            endpoint={}, shard=0, shards=1, work=folder / "work", threads=threads, gpus=0),
        "texts": run_stage("text.texts", images, **of_data, answers=answers, output=texts,
            settings={"max_failed": 0}),
        "embed": run_stage("text.embed", images, texts=texts, output=explanations, settings={},
            threads=threads, gpus=0),
    }  # fmt: skip
    write_predictions(prepared, predictions)
    costs |= {
        "evaluate": run_stage("evaluation.evaluate", images, prepared=prepared,
            predictions=predictions, output=metrics),
        "summarise": run_stage("evaluation.summarise", images, **of_runs, output=summary,
            settings={"runs": runs, "gaze": [NAME]}),
        "compare": run_stage("evaluation.compare", images, **of_runs,
            output=folder / "compared.csv",
            settings={"runs": runs, "gaze": [NAME], "reference": EXPERIMENTS[0], "seed": 0}),
        "report": run_stage("report.report", images, **of_data, quality=quality,
            explanations=explanations, summary=summary, provenance=sources,
            predictions=[predictions] * len(runs), metrics=[metrics] * len(runs), histories=[],
            tables=[], output=page, figures=folder / "figures", settings=shown),
    }  # fmt: skip
    return costs, page.read_text("utf-8").count("data:image/png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=(1000, 5000))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frame", type=int, nargs=2, default=(530, 620))
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224))
    arguments = parser.parse_args()
    measured = {}
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            measured[images] = run_stages(
                Path(folder), images, arguments.frame, arguments.size, arguments.threads
            )
        costs, pictures = measured[images]
        print(f"{images:>7} images, {pictures} pictures on the page", flush=True)
    highest = max(cost.peak_mib for costs, _ in measured.values() for cost in costs.values())
    print(
        json.dumps(
            {
                "name": "many",
                "ours": round(highest),
                "other": LIMIT_MIB,
                "unit": "MiB at the peak",
                "ratio": round(LIMIT_MIB / highest, 2),
                "repeats": 1,
                "images": list(measured),
                "threads": arguments.threads,
                "frame": list(arguments.frame),
                "size": list(arguments.size),
                "ms_per_image": {
                    stage: [round(1000 * c[stage].seconds / n, 2) for n, (c, _) in measured.items()]
                    for stage in costs
                },
                "processor_ms_per_image": {
                    stage: [
                        round(1000 * c[stage].processor_seconds / n, 2)
                        for n, (c, _) in measured.items()
                    ]
                    for stage in costs
                },
                "peak_mib": {
                    stage: [round(c[stage].peak_mib) for c, _ in measured.values()]
                    for stage in costs
                },
                "pictures": [pictures for _, pictures in measured.values()],
            }
        )
    )


if __name__ == "__main__":
    main()
