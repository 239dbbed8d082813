"""Compare time and memory of a training step between few and many samples.

    python benchmarks/growth.py [--samples 100 10000] [--repeats 3]

Teachers of the demo's size train on few and on many samples, with data that stays in memory and
with data that each step reads from the file (`resident_mb: 0`). They take turns, each in a new
process; medians are over steps. The time to get a batch is also measured alone. The peak memory
should grow by the size of the samples, computed from their shapes, if they stay in memory, and else
not at all. The last line is a JSON object; its ratio is the time of a step with few samples divided
by that with many, both read from the file: 1 means no growth.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import yaml

from stages.core import io
from stages.core.config import parse
from stages.networks import models
from stages.training import loop, teacher
from stages.training.samples import Batch, Column, Samples

ROOT = Path(__file__).resolve().parents[1]
SIZE = (64, 64)
TEXT = (5, 384)
# Steps of a block, its first steps, which do not count, and batches to fetch.
STEPS, WARM_UP, FETCHES = 24, 4, 200
# Name → file, dataset in the file, shape and dtype of one sample.
COLUMNS: dict[str, tuple[str, str, tuple[int, ...], Any]] = {
    "image": ("prepared", "image", (*SIZE, 3), np.uint8),
    "pseudomask": ("gaze", "pseudomask", (2, *SIZE), np.uint8),
    "refined": ("maps", "refined", SIZE, np.float16),
    "text": ("explanations", "embedding", TEXT, np.float32),
}
SAMPLE_MIB = sum(np.prod(s) * np.dtype(t).itemsize for *_, s, t in COLUMNS.values()) / 2**20


def make_files(samples: int, folder: Path) -> None:
    """Write the columns of random samples, which repeat after a hundred."""
    rng = np.random.default_rng(0)
    for stage, name, shape, dtype in COLUMNS.values():
        values_of_100 = rng.integers(0, 2, (100, *shape)).astype(dtype)
        with io.create_h5(folder / f"{stage}.h5", stage, {}, {}) as file:
            values = io.create_sample_dataset(file, name, (samples, *shape), dtype)
            for start in range(0, samples, 100):
                values[start : start + 100] = values_of_100[: samples - start]
            io.write_strings(file, "sample_id", [str(i) for i in range(samples)])


def measure_training(
    samples: int, folder: Path, resident_mb: float
) -> tuple[list[float], float, float]:
    """Train for a block; return the seconds of each step and of a batch, and peak memory, MiB."""
    device = loop.set_up_torch(threads=1, gpus=0)
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))
    settings = config.experiment("demo_kvasir", "full").teacher
    settings = settings.model_copy(update={"iterations": STEPS + 1})
    columns = {
        name: Column(folder / f"{stage}.h5", column)
        for name, (stage, column, *_) in COLUMNS.items()
    }
    data = Samples(columns, np.arange(samples), device, resident_mb)
    no_data = Samples(columns, np.arange(0), device, 0)
    model = models.build(
        models.Architecture(
            role="teacher", channels=3, size=SIZE, widths=settings.widths,
            head_width=settings.head_width, text_width=TEXT[1],
        ),
        seed=0,
    )  # fmt: skip
    assert isinstance(model, models.Teacher)
    step, step_starts = teacher.make_teacher_step(model, settings), []

    def timed_step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
        step_starts.append(time.perf_counter())
        return step(batch, iteration, generator)

    run = loop.Run(
        "teacher", {"prepared": columns["image"].path}, settings, 0, device,
        folder / "weights", folder / "history", folder / "work", ("stages.training.teacher",),
    )  # fmt: skip
    loop.fit(run, model.train(), timed_step, teacher.predict, data, no_data)
    # Linux reports KiB, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    batches = loop.index_batches(samples, settings.batch_size, torch.Generator().manual_seed(0))
    fetches = []
    for index, _ in zip(batches, range(FETCHES)):
        before = time.perf_counter()
        data[index]
        fetches.append(time.perf_counter() - before)
    return np.diff(step_starts)[WARM_UP:].tolist(), float(np.median(fetches)), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs=2, default=(100, 10_000))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    few, many = arguments.samples
    modes = {"resident": 1e6, "streamed": 0.0}
    context = multiprocessing.get_context("spawn")
    blocks: dict[tuple[str, int], list[tuple[list[float], float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {count: Path(temporary, str(count)) for count in (few, many)}
        for count, folder in folders.items():
            folder.mkdir()
            make_files(count, folder)
        for turn in range(arguments.repeats):
            for mode, resident_mb in modes.items():
                # The order alternates.
                for count in (few, many)[:: 1 if turn % 2 else -1]:
                    with ProcessPoolExecutor(1, mp_context=context) as child:
                        block = child.submit(
                            measure_training, count, folders[count], resident_mb
                        ).result()
                    blocks.setdefault((mode, count), []).append(block)

    results = {}
    for mode in modes:
        steps, batches, peaks = {}, {}, {}
        for count in (few, many):
            seconds, fetches, peak = zip(*blocks[mode, count])
            steps[count] = 1000 * float(np.median(np.concatenate(seconds)))
            batches[count] = 1000 * float(np.median(fetches))
            peaks[count] = float(np.median(peak))
            print(
                f"{mode:>9}{count:>8} samples: {steps[count]:.1f} ms a step, "
                f"{batches[count]:.2f} ms a batch, {peaks[count]:.0f} MiB"
            )
        results[mode] = {
            "step_ms": {count: round(ms, 2) for count, ms in steps.items()},
            "batch_ms": {count: round(ms, 3) for count, ms in batches.items()},
            "step_ratio": round(steps[few] / steps[many], 3),
            "batch_ratio": round(batches[few] / batches[many], 3),
            "peak_mib": {count: round(mib) for count, mib in peaks.items()},
            "grown_mib": round(peaks[many] - peaks[few]),
            "computed_mib": round((many - few) * SAMPLE_MIB) if mode == "resident" else 0,
        }
    streamed = results["streamed"]
    print(
        json.dumps(
            {
                "name": "growth",
                "ours": streamed["step_ms"][many],
                "other": streamed["step_ms"][few],
                "unit": "ms per step",
                "ratio": streamed["step_ratio"],
                "repeats": arguments.repeats,
                "samples": [few, many],
                **results,
            }
        )
    )


if __name__ == "__main__":
    main()
