"""Time the training of teacher and student against a plain version of the authors' joint recipe.

    python benchmarks/training.py [--quick] [--repeats 5]

An image counts once the teacher and the student were updated with it. Ours: `loop.fit` with the
teacher's step, then with that of the distilled student, on prepared files. The published recipe
(`published_reference.py`): one joint step, which also decodes and resizes the files. Both have the
same networks, images, batch and number of threads. They take turns, and each block runs in a new
process; medians are over steps. Work that is done once, before training, does not count. On a
shared machine the CPU time (`cpu_ratio`) is more reliable than the wall-clock time.

There are two sizes: that of the demo, and the published one with frames of 530 × 620 px, which
takes minutes and 16 GB, and which `--quick` skips. `outside` is the share of a step that is spent
outside the networks, losses and their gradients. The last line is a JSON object about the demo's
size; its `by_size` has both.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import published_reference as published
import torch
import yaml
from PIL import Image
from torch import nn

from stages.core import io
from stages.core.config import Experiment, parse
from stages.core.device import choose_device
from stages.core.resize import resize
from stages.demo.phantoms import draw_polyp_frame
from stages.networks import models
from stages.settings.training import OptimisationSettings
from stages.training import loop, teacher
from stages.training.methods import distilled
from stages.training.samples import Batch, Column, Samples

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 32
# Tokens of a text and channels of a token, as for measured explanations with MiniLM.
TEXT = (5, 384)


class BenchmarkCase(NamedTuple):
    """A size: a data set of config.yaml, the size of its frames, steps of a block, and threads.

    The first `warm_up` steps of each block do not count. Small networks have no work for a second
    thread. `gpus` is 0 for the CPU.
    """

    dataset: str
    frame: tuple[int, int]
    steps: int
    warm_up: int
    threads: int
    gpus: int = 0


CASES = {
    "demo": BenchmarkCase("demo_kvasir", (168, 195), 14, 4, 1),
    "published": BenchmarkCase("kvasir", (530, 620), 3, 1, 2),
}


class StepTimes(NamedTuple):
    """For each step: wall-clock and CPU seconds, and the share outside; and peak memory, MiB.

    On a GPU the memory is that of the GPU, and the share outside has no meaning: the functions
    return before the GPU has finished.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    outside_share: list[float]
    peak_mib: float


class StepTimer:
    """Record when steps start, in wall-clock and CPU time, and the time in networks and losses."""

    def __init__(self) -> None:
        self.seconds_inside = 0.0
        self.step_starts: list[tuple[float, float, float]] = []
        self.time_functions(torch.Tensor, "backward")
        self.time_functions(models.Teacher, "forward", "features")
        self.time_functions(models.Student, "forward")

    def time_functions(self, owner: Any, *names: str) -> None:
        """Replace functions of a module or class by versions that add up their time."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            before = time.perf_counter()
            result = function(*values, **named)
            self.seconds_inside += time.perf_counter() - before
            return result

        return timed

    def mark_step(self) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.step_starts.append((time.perf_counter(), time.process_time(), self.seconds_inside))

    def take_times(self, warm_up: int) -> StepTimes:
        periods = np.diff(np.array(self.step_starts), axis=0)[warm_up:]
        self.step_starts.clear()
        # Linux reports KiB, macOS bytes.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        if torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated() / 2**20
        return StepTimes(
            periods[:, 0].tolist(),
            periods[:, 1].tolist(),
            (1 - periods[:, 2] / periods[:, 0]).tolist(),
            peak,
        )


def read_settings(case: BenchmarkCase) -> tuple[Experiment, tuple[int, int]]:
    """Return the settings of `full`, the method, and the working size."""
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))
    return config.experiment(case.dataset, "full"), config.dataset(case.dataset).prepare.size


def sample_ids() -> list[str]:
    return [f"sample{i:03d}" for i in range(IMAGES)]


def make_files(case: BenchmarkCase, folder: Path) -> None:
    """Write the same images in the published layout, and as the files of our stages."""
    _, size = read_settings(case)
    for kind in ("images", "masks", "gaze/crf_compat1", "embeddings"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, maps, texts = [], [], []
    for sample_id in sample_ids():
        image, mask = draw_polyp_frame(rng)
        # Instead of a refined map: one that crosses both thresholds near the border of the mask.
        blurred = resize(resize(mask, (24, 28)), mask.shape)
        text = rng.normal(size=TEXT).astype(np.float32)
        resized = {
            "images": image,
            "masks": mask.astype(np.uint8) * np.uint8(255),
            "gaze/crf_compat1": np.rint(255 * blurred).astype(np.uint8),
        }
        resized = {kind: resize(a, case.frame).astype(np.uint8) for kind, a in resized.items()}
        for kind, array in resized.items():
            Image.fromarray(array).save(folder / kind / f"{sample_id}.jpg", quality=90)
        np.save(folder / f"embeddings/{sample_id}.npy", text)
        refined = resize(resized["gaze/crf_compat1"], size) / 255
        images.append(resize(resized["images"], size).astype(np.uint8))
        maps.append(refined)
        texts.append(text)
    columns = {
        "prepared": ("image", np.stack(images)),
        "refined": ("refined", np.stack(maps).astype(np.float16)),
        "gaze": ("pseudomask", np.stack([[m >= t for t in published.THRESHOLDS] for m in maps])),
        # Instead of the output of a teacher.
        "pseudolabels": ("probability", np.stack(maps).astype(np.float16)),
        "explanations": ("embedding", np.stack(texts)),
    }
    for stage, (name, values) in columns.items():
        with io.create_h5(folder / f"{stage}.h5", stage, {}, {}) as file:
            dtype = np.uint8 if values.dtype == bool else values.dtype
            io.create_sample_dataset(file, name, values.shape, dtype)[...] = values
            io.write_strings(file, "sample_id", sample_ids())


def load_samples(folder: Path, rows: int, device: torch.device) -> Samples:
    columns = {
        "image": Column(folder / "prepared.h5", "image"),
        "text": Column(folder / "explanations.h5", "embedding"),
        "pseudomask": Column(folder / "gaze.h5", "pseudomask"),
        "refined": Column(folder / "refined.h5", "refined"),
        "pseudolabel": Column(folder / "pseudolabels.h5", "probability"),
    }
    return Samples(columns, np.arange(rows), device, resident_mb=4000)


def run_ours(case: BenchmarkCase, folder: Path) -> dict[str, StepTimes]:
    """Train a teacher for a block of steps, then a student."""
    device = loop.set_up_torch(case.threads, case.gpus)
    settings, size = read_settings(case)
    timer = StepTimer()
    timer.time_functions(teacher, "label_loss")
    timer.time_functions(distilled, "label_loss", "feature_alignment", "consistency")
    data, no_data = (load_samples(folder, rows, device) for rows in (IMAGES, 0))

    def fit(
        name: str, model: nn.Module, step: loop.Step, settings: OptimisationSettings
    ) -> StepTimes:
        def timed_step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
            timer.mark_step()
            return step(batch, iteration, generator)

        # Each step lasts until the next one starts, so there is one more.
        settings = settings.model_copy(update={"iterations": case.steps + 1})
        run = loop.Run(
            name, {"prepared": folder / "prepared.h5"}, settings, 0, device,
            folder / "weights", folder / "history", folder / "work", ("stages.training.loop",),
        )  # fmt: skip
        loop.fit(run, model.to(device).train(), timed_step, teacher.predict, data, no_data)
        return timer.take_times(case.warm_up)

    shape = {"channels": 3, "size": size}
    teacher_network = models.build(
        models.Architecture(
            role="teacher", widths=settings.teacher.widths, head_width=settings.teacher.head_width,
            text_width=TEXT[1], **shape,
        ),
        seed=0,
    )  # fmt: skip
    assert isinstance(teacher_network, models.Teacher)
    teacher_times = fit(
        "teacher",
        teacher_network,
        teacher.make_teacher_step(teacher_network, settings.teacher),
        settings.teacher,
    )
    models.save(teacher_network, folder / "teacher.safetensors", {})
    del teacher_network
    student_architecture = models.Architecture(
        role="student",
        widths=settings.student.widths,
        head_width=settings.student.head_width,
        **shape,
    )
    weights = folder / "teacher.safetensors"
    model, step = distilled.make_model_and_step(
        settings.student, student_architecture, 0, device, weights, TEXT[1]
    )
    return {"teacher": teacher_times, "student": fit("student", model, step, settings.student)}


def run_published(case: BenchmarkCase, folder: Path) -> dict[str, StepTimes]:
    """Run a block of joint steps."""
    torch.set_num_threads(case.threads)
    device = choose_device(case.gpus)
    settings, size = read_settings(case)
    timer = StepTimer()
    timer.time_functions(published, "gaze_loss", "alignment", "consistency")
    shape = {"channels": 3, "size": size}
    networks = [
        published.as_published(models.build(architecture, seed=0)).to(device)
        for architecture in (
            models.Architecture(
                role="teacher", widths=settings.teacher.widths,
                head_width=settings.teacher.head_width, text_width=TEXT[1], **shape,
            ),
            models.Architecture(
                role="student", widths=settings.student.widths,
                head_width=settings.student.head_width,
                teacher_widths=settings.teacher.widths[1:5], **shape,
            ),
        )
    ]  # fmt: skip
    optimisers = tuple(published.make_optimiser(model) for model in networks)
    rng = np.random.default_rng(0)
    for iteration in range(1, case.steps + 1):
        timer.mark_step()
        chosen = rng.choice(sample_ids(), settings.teacher.batch_size, replace=False).tolist()
        batch = published.load_batch(folder, chosen, size, rng)
        batch = published.Batch(*(values.to(device) for values in batch))
        published.joint_step(*networks, optimisers, batch, iteration, rng)
    timer.mark_step()
    return {"joint": timer.take_times(case.warm_up)}


def compare(name: str, case: BenchmarkCase, repeats: int) -> dict[str, Any]:
    """Run both in turns; print and return their times."""
    context = multiprocessing.get_context("spawn")
    blocks: dict[str, list[StepTimes]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_files(case, folder)
        for turn in range(repeats):
            # The order alternates.
            for method in (run_ours, run_published)[:: 1 if turn % 2 else -1]:
                with ProcessPoolExecutor(1, mp_context=context) as child:
                    timed = child.submit(method, case, folder).result()
                for part, block in timed.items():
                    blocks.setdefault(part, []).append(block)
                    print(
                        f"{name:>10} {part:>8}{1000 * np.median(block.seconds):>10.0f} ms a step,"
                        f"{1000 * np.median(block.cpu_seconds):>8.0f} of the cores,"
                        f"{100 * np.median(block.outside_share):>7.1f} % outside",
                        flush=True,
                    )

    def median_of(part: str, field: str) -> float:
        return float(np.median(np.concatenate([getattr(b, field) for b in blocks[part]])))

    seconds = {part: median_of(part, "seconds") for part in blocks}
    settings, size = read_settings(case)
    batch = settings.teacher.batch_size
    ours, other = (batch / s for s in (seconds["teacher"] + seconds["student"], seconds["joint"]))
    cpu_seconds = {part: median_of(part, "cpu_seconds") for part in blocks}
    outside_share = {part: median_of(part, "outside_share") for part in blocks}
    outside_seconds = (
        outside_share["teacher"] * seconds["teacher"]
        + outside_share["student"] * seconds["student"]
    )
    return {
        "case": name,
        "size": list(size),
        "batch_size": batch,
        "threads": case.threads,
        "precision": settings.teacher.precision,
        "ours": float(f"{ours:.3g}"),
        "other": float(f"{other:.3g}"),
        "ratio": round(ours / other, 2),
        "repeats": repeats,
        "cpu_ratio": round(
            cpu_seconds["joint"] / (cpu_seconds["teacher"] + cpu_seconds["student"]), 2
        ),
        "cpu_seconds": {part: float(f"{s:.3g}") for part, s in cpu_seconds.items()},
        "seconds": {part: float(f"{s:.3g}") for part, s in seconds.items()},
        "outside": {part: round(s, 4) for part, s in outside_share.items()},
        "ours_outside": round(outside_seconds / (seconds["teacher"] + seconds["student"]), 4),
        "peak_mib": {part: round(max(b.peak_mib for b in blocks[part])) for part in blocks},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the demo's size")
    parser.add_argument(
        "--repeats", type=int, default=5, help="blocks; at most 2 of the large size"
    )
    arguments = parser.parse_args()
    rows = [compare("demo", CASES["demo"], arguments.repeats)]
    if not arguments.quick:
        repeats = min(arguments.repeats, 2)
        rows.append(compare("published", CASES["published"], repeats))
    for row in rows:
        print(
            f"{row['case']:>10}: {row['ours']} against {row['other']} images per second, "
            f"{row['ratio']} times; {100 * row['ours_outside']:.1f} % outside"
        )
    main_result = {key: rows[0][key] for key in ("ours", "other", "ratio", "repeats")}
    print(
        json.dumps(
            {
                "name": "training",
                "unit": "images per second",
                **main_result,
                "by_size": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
