"""Time training, teacher and student, against the authors' joint recipe written straightforwardly.

    python benchmarks/training.py [--quick] [--repeats 5]

One image has been in an update of the teacher and in one of the student. Ours: `loop.fit` with
the teacher's step, then with that of the distilled student, on prepared files. The published
recipe (`published_reference.py`): one joint step, in which files are decoded and resized. Both
have the same networks, images, batch and number of threads, and run by turns, each block in a
process of its own; medians are over steps. What is prepared once is not counted. On a machine that
others use, the seconds of the cores (`cpu_ratio`) tell more than those of the clock.

Two sizes: the demo's; and the published one on frames of 530 × 620 px, which `--quick` leaves out:
it takes minutes and 16 GB. `outside` is the share of a step outside the networks, losses and
their gradients. The last line is a JSON object, about the demo's size; `by_size` has both.
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
from stages.core.resize import resize
from stages.demo.phantoms import polyp
from stages.networks import models
from stages.settings.training import OptimisationSettings
from stages.training import loop, teacher
from stages.training.methods import distilled
from stages.training.samples import Batch, Column, Samples

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 32
# Tokens of a text, and their channels: those of the measured explanations under MiniLM.
TEXT = (5, 384)


class Case(NamedTuple):
    """What both train: a data set of config.yaml with frames of this size; steps in a block.

    Of each block the first steps, as many as `warming`, do not count. Small networks leave nothing
    to share between threads.
    """

    dataset: str
    frame: tuple[int, int]
    steps: int
    warming: int
    threads: int


CASES = {
    "demo": Case("demo_kvasir", (168, 195), 14, 4, 1),
    "published": Case("kvasir", (530, 620), 3, 1, 2),
}


class Timed(NamedTuple):
    """Seconds of each step, on the clock and of all cores; share outside; peak memory, MiB."""

    seconds: list[float]
    cpu: list[float]
    outside: list[float]
    peak: float


class Watch:
    """When steps began, what the cores had done by then, and how long networks and losses took."""

    def __init__(self) -> None:
        self.inside = 0.0
        self.marks: list[tuple[float, float, float]] = []
        self.over(torch.Tensor, "backward")
        self.over(models.Teacher, "forward", "features")
        self.over(models.Student, "forward")

    def over(self, owner: Any, *names: str) -> None:
        """Time these functions of a module or class."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            before = time.perf_counter()
            result = function(*values, **named)
            self.inside += time.perf_counter() - before
            return result

        return timed

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time(), self.inside))

    def read(self, warming: int) -> Timed:
        periods = np.diff(np.array(self.marks), axis=0)[warming:]
        self.marks.clear()
        # Linux counts in KiB, macOS in bytes.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return Timed(
            periods[:, 0].tolist(),
            periods[:, 1].tolist(),
            (1 - periods[:, 2] / periods[:, 0]).tolist(),
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        )


def experiment(case: Case) -> tuple[Experiment, tuple[int, int]]:
    """Return the settings of the method, and the working size."""
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))
    return config.experiment(case.dataset, "full"), config.dataset(case.dataset).prepare.size


def sample_ids() -> list[str]:
    return [f"sample{i:03d}" for i in range(IMAGES)]


def make_files(case: Case, folder: Path) -> None:
    """Write the same images in the published layout, and as the stages before training do."""
    _, size = experiment(case)
    for kind in ("images", "masks", "gaze/crf_compat1", "embeddings"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, maps, texts = [], [], []
    for sample_id in sample_ids():
        image, mask = polyp(rng)
        # In place of the refined map: one that crosses both thresholds near the mask's border.
        soft = resize(resize(mask, (24, 28)), mask.shape)
        text = rng.normal(size=TEXT).astype(np.float32)
        scaled = {
            "images": image,
            "masks": mask.astype(np.uint8) * np.uint8(255),
            "gaze/crf_compat1": np.rint(255 * soft).astype(np.uint8),
        }
        scaled = {kind: resize(a, case.frame).astype(np.uint8) for kind, a in scaled.items()}
        for kind, array in scaled.items():
            Image.fromarray(array).save(folder / kind / f"{sample_id}.jpg", quality=90)
        np.save(folder / f"embeddings/{sample_id}.npy", text)
        refined = resize(scaled["gaze/crf_compat1"], size) / 255
        images.append(resize(scaled["images"], size).astype(np.uint8))
        maps.append(refined)
        texts.append(text)
    columns = {
        "prepared": ("image", np.stack(images)),
        "refined": ("refined", np.stack(maps).astype(np.float16)),
        "gaze": ("pseudomask", np.stack([[m >= t for t in published.THRESHOLDS] for m in maps])),
        # In place of what a teacher says.
        "pseudolabels": ("probability", np.stack(maps).astype(np.float16)),
        "explanations": ("embedding", np.stack(texts)),
    }
    for stage, (name, values) in columns.items():
        with io.create_h5(folder / f"{stage}.h5", stage, {}, {}) as file:
            dtype = np.uint8 if values.dtype == bool else values.dtype
            io.sample_dataset(file, name, values.shape, dtype)[...] = values
            io.write_strings(file, "sample_id", sample_ids())


def load(folder: Path, rows: int) -> Samples:
    columns = {
        "image": Column(folder / "prepared.h5", "image"),
        "text": Column(folder / "explanations.h5", "embedding"),
        "pseudomask": Column(folder / "gaze.h5", "pseudomask"),
        "refined": Column(folder / "refined.h5", "refined"),
        "pseudolabel": Column(folder / "pseudolabels.h5", "probability"),
    }
    return Samples(columns, np.arange(rows), torch.device("cpu"), resident_mb=4000)


def run_ours(case: Case, folder: Path) -> dict[str, Timed]:
    """Train a teacher, then a student, a block of steps each."""
    device = loop.start(case.threads, gpus=0)
    found, size = experiment(case)
    watch = Watch()
    watch.over(teacher, "partial_cross_entropy")
    watch.over(distilled, "partial_cross_entropy", "feature_alignment", "consistency")
    data, none = load(folder, IMAGES), load(folder, 0)

    def fit(name: str, model: nn.Module, step: loop.Step, settings: OptimisationSettings) -> Timed:
        def marked(batch: Batch, iteration: int, generator: torch.Generator) -> loop.Terms:
            watch.mark()
            return step(batch, iteration, generator)

        # Each step lasts until the next begins.
        settings = settings.model_copy(update={"iterations": case.steps + 1})
        run = loop.Run(
            name, {"prepared": folder / "prepared.h5"}, settings, 0, device,
            folder / "weights", folder / "history", folder / "work", ("stages.training.loop",),
        )  # fmt: skip
        loop.fit(run, model.train(), marked, teacher.predict, data, none)
        return watch.read(case.warming)

    shape = {"channels": 3, "size": size}
    guide = models.build(
        models.Architecture(
            role="teacher", widths=found.teacher.widths, head_width=found.teacher.head_width,
            text_width=TEXT[1], **shape,
        ),
        seed=0,
    )  # fmt: skip
    assert isinstance(guide, models.Teacher)
    taught = fit("teacher", guide, teacher.teacher_step(guide, found.teacher), found.teacher)
    models.save(guide, folder / "teacher.safetensors", {})
    del guide
    slim = models.Architecture(
        role="student", widths=found.student.widths, head_width=found.student.head_width, **shape
    )
    weights = folder / "teacher.safetensors"
    model, step = distilled.make(found.student, slim, 0, device, weights, TEXT[1])
    return {"teacher": taught, "student": fit("student", model, step, found.student)}


def run_published(case: Case, folder: Path) -> dict[str, Timed]:
    """Make a block of joint steps."""
    torch.set_num_threads(case.threads)
    found, size = experiment(case)
    watch = Watch()
    watch.over(published, "gaze_loss", "alignment", "consistency")
    shape = {"channels": 3, "size": size}
    both = [
        published.as_published(models.build(architecture, seed=0))
        for architecture in (
            models.Architecture(
                role="teacher", widths=found.teacher.widths, head_width=found.teacher.head_width,
                text_width=TEXT[1], **shape,
            ),
            models.Architecture(
                role="student", widths=found.student.widths, head_width=found.student.head_width,
                teacher_widths=found.teacher.widths[1:5], **shape,
            ),
        )
    ]  # fmt: skip
    optimisers = tuple(published.make_optimiser(model) for model in both)
    rng = np.random.default_rng(0)
    for iteration in range(1, case.steps + 1):
        watch.mark()
        chosen = rng.choice(sample_ids(), found.teacher.batch_size, replace=False).tolist()
        batch = published.load_batch(folder, chosen, size, rng)
        published.joint_step(*both, optimisers, batch, iteration, rng)
    watch.mark()
    return {"joint": watch.read(case.warming)}


def compare(name: str, case: Case, repeats: int) -> dict[str, Any]:
    """Run both by turns, and print and return what they took."""
    context = multiprocessing.get_context("spawn")
    blocks: dict[str, list[Timed]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_files(case, folder)
        for turn in range(repeats):
            # Which one goes first changes too.
            for method in (run_ours, run_published)[:: 1 if turn % 2 else -1]:
                with ProcessPoolExecutor(1, mp_context=context) as child:
                    timed = child.submit(method, case, folder).result()
                for part, block in timed.items():
                    blocks.setdefault(part, []).append(block)
                    print(
                        f"{name:>10} {part:>8}{1000 * np.median(block.seconds):>10.0f} ms a step,"
                        f"{1000 * np.median(block.cpu):>8.0f} of the cores,"
                        f"{100 * np.median(block.outside):>7.1f} % outside",
                        flush=True,
                    )

    def median(part: str, field: str) -> float:
        return float(np.median(np.concatenate([getattr(b, field) for b in blocks[part]])))

    seconds = {part: median(part, "seconds") for part in blocks}
    found, size = experiment(case)
    batch = found.teacher.batch_size
    ours, other = (batch / s for s in (seconds["teacher"] + seconds["student"], seconds["joint"]))
    cpu = {part: median(part, "cpu") for part in blocks}
    outside = {part: median(part, "outside") for part in blocks}
    share = outside["teacher"] * seconds["teacher"] + outside["student"] * seconds["student"]
    return {
        "case": name,
        "size": list(size),
        "batch_size": batch,
        "threads": case.threads,
        "precision": found.teacher.precision,
        "ours": float(f"{ours:.3g}"),
        "other": float(f"{other:.3g}"),
        "ratio": round(ours / other, 2),
        "repeats": repeats,
        "cpu_ratio": round(cpu["joint"] / (cpu["teacher"] + cpu["student"]), 2),
        "cpu_seconds": {part: float(f"{s:.3g}") for part, s in cpu.items()},
        "seconds": {part: float(f"{s:.3g}") for part, s in seconds.items()},
        "outside": {part: round(s, 4) for part, s in outside.items()},
        "ours_outside": round(share / (seconds["teacher"] + seconds["student"]), 4),
        "peak_mib": {part: round(max(b.peak for b in blocks[part])) for part in blocks},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the demo's size alone")
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
    shown = {key: rows[0][key] for key in ("ours", "other", "ratio", "repeats")}
    print(
        json.dumps(
            {
                "name": "training",
                "unit": "images per second",
                **shown,
                "by_size": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
