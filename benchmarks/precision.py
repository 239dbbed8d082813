"""Time training steps in float32 and in bfloat16: `precision: auto` should take the faster one.

    python benchmarks/precision.py [--quick] [--repeats 7] [--threads 1]

Each network is trained on random images in both precisions, in turns, step by step in the same
process. A step is forward pass, loss, backward pass and optimiser; its batch is in memory. Medians
are over steps. `worst` is the largest time of the precision that `auto` takes, divided by that of
the faster one: 1 means that `auto` always takes the faster one. `--quick` leaves out the published
widths. It runs on the CPU. The last line is a JSON object about the demo's student at the demo's
size; its ratio is the time of the other precision divided by that of ours, which `auto` takes; its
`by_size` has all networks.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import yaml
from torch import nn

from stages.core.config import Config, parse
from stages.core.precision import (
    Precision,
    autocast,
    choose_precision,
    has_depthwise_convolutions,
    read_processor,
)
from stages.networks import models
from stages.settings.training import OptimisationSettings
from stages.training import loop, teacher
from stages.training.methods import single
from stages.training.samples import Batch

ROOT = Path(__file__).resolve().parents[1]
# Tokens of a text and channels of a token, as for measured explanations with MiniLM.
TEXT = (5, 384)
PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")


class Case(NamedTuple):
    """A network: its role, the data set of config.yaml with its settings, and image sides in px."""

    role: str
    dataset: str
    sides: tuple[int, ...]
    encoder: str = "unet"


CASES = {
    "student, demo": Case("student", "demo_kvasir", (64, 96, 128)),
    "teacher, demo": Case("teacher", "demo_kvasir", (64, 96, 128)),
    "student, Lite0": Case("student", "demo_kvasir", (64, 96, 128), "tf_efficientnet_lite0"),
    "student, published": Case("student", "kvasir", (64, 96, 128, 224)),
}


class Training:
    """A network that trains on one batch of random images, in one precision."""

    def __init__(self, config: Config, case: Case, side: int, precision: Precision) -> None:
        experiment = config.experiment(case.dataset, "gaze_only")
        shape: dict[str, Any] = {"channels": 3, "size": (side, side)}
        self.step: loop.Step
        self.model: nn.Module
        if case.role == "teacher":
            self.settings: OptimisationSettings = experiment.teacher
            network = models.build(
                models.Architecture(
                    role="teacher", widths=experiment.teacher.widths,
                    head_width=experiment.teacher.head_width, text_width=TEXT[1], **shape,
                ),
                seed=0,
            )  # fmt: skip
            assert isinstance(network, models.Teacher)
            self.model = network
            self.step = teacher.make_teacher_step(network, experiment.teacher)
        else:
            student = experiment.student
            self.settings = student
            parts = (
                {"widths": student.widths}
                if case.encoder == "unet"
                else {"encoder": case.encoder, "decoder_widths": student.decoder_widths}
            )
            architecture = models.Architecture(
                role="student", head_width=student.head_width, **parts, **shape
            )
            self.model, self.step = single.make_model_and_step(
                student, architecture, 0, torch.device("cpu"), None, 0
            )
        self.model.train()
        self.precision = precision
        self.weights = [loop.flatten_parameters(p) for p in loop.split_parameters(self.model)]
        self.optimiser = loop.make_optimiser(self.weights, self.settings)
        self.generator = torch.Generator().manual_seed(0)
        self.batch = random_batch(self.settings.batch_size, side)

    def time_step(self) -> float:
        """Do one step as `loop.fit` does; return its seconds."""
        before = time.perf_counter()
        with autocast(torch.device("cpu"), self.precision):
            terms = self.step(self.batch, 1, self.generator)
        self.optimiser.zero_grad(set_to_none=False)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
        self.optimiser.step()
        return time.perf_counter() - before


def random_batch(size: int, side: int) -> Batch:
    """Draw images with two pseudomasks, a refined map and a text each."""
    generator = torch.Generator().manual_seed(0)
    refined = torch.rand(size, side, side, generator=generator)
    return {
        "image": torch.randint(
            0, 256, (size, 3, side, side), generator=generator, dtype=torch.uint8
        ),
        "refined": refined,
        "pseudomask": torch.stack([refined >= 0.5, refined >= 0.3], dim=1).to(torch.uint8),
        "text": torch.randn(size, *TEXT, generator=generator),
    }


def compare(config: Config, name: str, side: int, repeats: int) -> dict[str, Any]:
    """Time both precisions of a network in turns; return a row of the table, times in ms."""
    case = CASES[name]
    trainings = {precision: Training(config, case, side, precision) for precision in PRECISIONS}
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for turn in range(repeats + 1):
        # The order alternates.
        for precision in PRECISIONS[:: 1 if turn % 2 else -1]:
            seconds[precision].append(trainings[precision].time_step())
    # The first turn is the warm-up.
    ms = {precision: 1000 * float(np.median(s[1:])) for precision, s in seconds.items()}
    model = trainings["fp32"].model
    auto, reason = choose_precision("auto", torch.device("cpu"), model)
    other = next(precision for precision in PRECISIONS if precision != auto)
    return {
        "network": name,
        "depthwise": has_depthwise_convolutions(model),
        "side": side,
        "auto": auto,
        "reason": reason,
        "ours": round(ms[auto], 2),
        "other": round(ms[other], 2),
        "ratio": round(ms[other] / ms[auto], 3),
        "worst": round(max(1.0, ms[auto] / ms[other]), 3),
        "ms": {precision: round(value, 2) for precision, value in ms.items()},
    }


def processor_name() -> str:
    """Return the name that Linux gives the processor, or what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the published widths")
    parser.add_argument("--repeats", type=int, default=7, help="steps in each precision")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    loop.set_up_torch(arguments.threads, gpus=0)
    config = parse(yaml.safe_load((ROOT / "config.yaml").read_text("utf-8")))
    processor = read_processor()
    print(f"{processor_name()}: {processor}; threads: {arguments.threads}")
    print(f"{'network':>20}{'side':>6}{'fp32':>10}{'bf16':>10}{'bf16/fp32':>11}  auto   ms a step")
    rows = []
    for name, case in CASES.items():
        if arguments.quick and case.dataset == "kvasir":
            continue
        for side in case.sides:
            row = compare(config, name, side, arguments.repeats)
            rows.append(row)
            ms = row["ms"]
            print(
                f"{name:>20}{side:>6}{ms['fp32']:>10.1f}{ms['bf16']:>10.1f}"
                f"{ms['bf16'] / ms['fp32']:>11.2f}  {row['auto']}   {row['reason']}",
                flush=True,
            )
    main_result = {key: rows[0][key] for key in ("ours", "other", "ratio")}
    print(
        json.dumps(
            {
                "name": "precision",
                "unit": "ms per step",
                **main_result,
                "repeats": arguments.repeats,
                "threads": arguments.threads,
                "processor": processor_name(),
                "worst": max(row["worst"] for row in rows),
                "by_size": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
