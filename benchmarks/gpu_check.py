"""Check that a machine's GPU works with every part that can use one, and how fast it is.

    python benchmarks/gpu_check.py [--rehearse]

Prints a line with PASS or FAIL for each check, and as its last line a JSON object with all figures:

visible   the GPU that PyTorch sees
steps     training steps of teacher and student at 224 × 224 and the published widths, against the
          published recipe's joint step (`published_reference.py`), both on the GPU
crf       the dense CRF on the GPU against the CPU: largest difference, and how much faster
resume    a training that is killed and continued, against one that is not
agree     a short training on the GPU against the CPU: losses and validation Dice
describe  answers of a tiny vision-language model on the GPU against the CPU

Without a GPU it says so and exits with 0. It exits with 1 if a check fails. `--rehearse` runs the
same checks on the CPU at small sizes: it shows that the script runs, its figures mean nothing.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# The tests build tiny inputs and models.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
import training
from models_on_disk import write_vlm
from safetensors.torch import load_file
from tiny_training import make_files, read_history, train_tiny_teacher

from stages.core.device import choose_device
from stages.gaze import crf
from stages.settings.explain import ExplainSettings
from stages.text.describers.asking import Question
from stages.text.describers.local import LocalModel
from stages.training import checkpoint, loop

# Both devices round sums in different orders.
CRF_TOLERANCE, WEIGHT_TOLERANCE, LOSS_TOLERANCE, DICE_TOLERANCE = 1e-3, 1e-3, 0.02, 0.05
SHORT = {"iterations": 20, "log_every": 5, "validate_every": 5}


class Machine(NamedTuple):
    """Where the checks run: `gpus` is 0 in a rehearsal."""

    gpus: int
    # Of the images of the CRF.
    crf_size: tuple[int, int]
    steps: training.BenchmarkCase


GPU = Machine(1, (530, 620), training.BenchmarkCase("kvasir", (530, 620), 12, 4, 4, gpus=1))
CPU = Machine(0, (53, 62), training.BenchmarkCase("demo_kvasir", (84, 97), 2, 1, 1))
# Figures, and whether they are good.
Result = tuple[dict[str, Any], bool]


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, so that it finds a fresh GPU and settings."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as child:
        return child.submit(function, *arguments).result()


def check_visible(machine: Machine, folder: Path) -> Result:
    """Name the GPU."""
    if not machine.gpus:
        return {"gpu": None}, True
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }, True


def check_steps(machine: Machine, folder: Path) -> Result:
    """Time training steps; good if ours are not slower than the published one."""
    training.make_files(machine.steps, folder)
    ours = in_new_process(training.run_ours, machine.steps, folder)
    other = in_new_process(training.run_published, machine.steps, folder)
    seconds = {name: float(np.median(t.seconds)) for name, t in (ours | other).items()}
    batch = training.read_settings(machine.steps)[0].teacher.batch_size
    ratio = seconds["joint"] / (seconds["teacher"] + seconds["student"])
    return {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "images_per_second": round(batch / (seconds["teacher"] + seconds["student"]), 1),
        "ratio": round(ratio, 2),
        "peak_mib": {name: round(t.peak_mib) for name, t in (ours | other).items()},
    }, ratio >= 1


def check_crf(machine: Machine, folder: Path) -> Result:
    """Refine maps on both devices; good if they agree."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: machine.crf_size[0], : machine.crf_size[1]]
    centre = np.array(machine.crf_size) / 2
    inside = np.hypot(y - centre[0], x - centre[1]) < machine.crf_size[0] / 4
    image = (rng.normal(120, 8, (*machine.crf_size, 3)) + 60 * inside[..., None]).clip(0, 255)
    heat = np.exp(-((y - centre[0]) ** 2 + (x - centre[1] - 20) ** 2) / centre[0] ** 2)
    settings = {"sxy": (80.0, 80.0), "srgb": 13.0, "compat": 1.0, "iterations": 10}

    def refine(device: torch.device) -> tuple[np.ndarray[Any, Any], float]:
        start = time.perf_counter()
        refined = crf.refine(
            image.astype(np.uint8), heat.astype(np.float32), device=device, **settings
        )
        return refined, time.perf_counter() - start

    device = choose_device(machine.gpus)
    refine(device)
    (found, gpu_seconds), (expected, cpu_seconds) = refine(device), refine(torch.device("cpu"))
    difference = float(abs(found - expected).max())
    figures = {
        "largest_difference": float(f"{difference:.2g}"),
        "faster": round(cpu_seconds / gpu_seconds, 2),
    }
    return figures, difference <= CRF_TOLERANCE


def train(files: dict[str, Path], folder: Path, gpus: int) -> Path:
    """Train a tiny teacher; return its weights."""
    weights: Path = train_tiny_teacher(files, folder, gpus=gpus, **SHORT)
    return weights


def train_and_die(files: dict[str, Path], folder: Path, gpus: int) -> None:
    """Train until the first checkpoint lies in the folder, then kill this process."""
    validate = loop.validation_dice
    # A checkpoint after each iteration.
    checkpoint.SAVE_INTERVAL = 0

    def validate_and_die(*arguments: Any) -> float:
        if any((folder / "work").rglob("*.safetensors")):
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(*arguments)

    loop.validation_dice = validate_and_die
    train(files, folder, gpus)


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference between weights."""
    first, second = load_file(one), load_file(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first | second)


def check_resume(machine: Machine, folder: Path) -> Result:
    """Kill a training and continue it; good if it ends with the weights of one in one piece."""
    files = make_files(folder)
    whole = in_new_process(train, files, folder / "whole", machine.gpus)
    process = multiprocessing.get_context("spawn").Process(
        target=train_and_die, args=(files, folder / "cut", machine.gpus)
    )
    process.start()
    process.join()
    was_killed = process.exitcode == -signal.SIGKILL
    continued = in_new_process(train, files, folder / "cut", machine.gpus)
    difference = largest_difference(whole, continued)
    figures = {"was_killed": was_killed, "largest_difference": float(f"{difference:.2g}")}
    return figures, was_killed and difference <= WEIGHT_TOLERANCE


def check_agree(machine: Machine, folder: Path) -> Result:
    """Train on both devices; good if losses and validation Dice agree."""
    files = make_files(folder)
    found = read_history(in_new_process(train, files, folder / "gpu", machine.gpus))
    expected = read_history(in_new_process(train, files, folder / "cpu", 0))
    loss = float((found["loss"] / expected["loss"] - 1).abs().max())
    dice = float((found["val_dice"] - expected["val_dice"]).abs().max())
    figures = {"loss_difference": float(f"{loss:.2g}"), "dice_difference": float(f"{dice:.2g}")}
    return figures, loss <= LOSS_TOLERANCE and dice <= DICE_TOLERANCE


def check_describe(machine: Machine, folder: Path) -> Result:
    """Ask a model with random weights on both devices; good if its answers are the same."""
    model = write_vlm(folder / "model")
    settings = ExplainSettings(
        backend="transformers", model=str(model), max_tokens=16, dtype="float32"
    )
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    question = [Question(picture, "What is it?")]
    answers = [
        [answer.text for answer in LocalModel(settings, device).generate(question, 0)]
        for device in (choose_device(machine.gpus), torch.device("cpu"))
    ]
    return {"answer": answers[0]}, answers[0] == answers[1]


CHECKS = {
    "visible": check_visible,
    "steps": check_steps,
    "crf": check_crf,
    "resume": check_resume,
    "agree": check_agree,
    "describe": check_describe,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at small sizes")
    machine = CPU if parser.parse_args().rehearse else GPU
    if machine.gpus and not torch.cuda.is_available():
        print("no GPU is visible to PyTorch: nothing was checked")
        print(json.dumps({"name": "gpu_check", "gpu": None}))
        return
    results: dict[str, dict[str, Any]] = {}
    for name, check in CHECKS.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                figures, passed = check(machine, Path(folder))
            except Exception:
                # The other checks still tell something about the machine.
                figures, passed = {"error": traceback.format_exc(limit=-3)}, False
        figures["seconds_of_check"] = round(time.perf_counter() - start, 1)
        results[name] = {"passed": passed, **figures}
        print(f"{'PASS' if passed else 'FAIL'} {name}: {figures}", flush=True)
    passed = all(result["passed"] for result in results.values())
    print(json.dumps({"name": "gpu_check", "rehearsal": not machine.gpus, "passed": passed,
                      "checks": results}))  # fmt: skip
    sys.exit(not passed)


if __name__ == "__main__":
    main()
