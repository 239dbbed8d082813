"""The training loop. What a method does in a step is the function that it hands in."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from stages.cli import log, progress
from stages.device import choose
from stages.samples import Batch
from stages.settings.training import OptimisationSettings

# A step's loss terms by name; "loss" is the one that is minimised.
Terms = dict[str, Tensor]
Step = Callable[[Batch, int], Terms]


def start(threads: int, gpus: int) -> torch.device:
    """Fix what decides the result bit for bit, and return the device to run on.

    Parameters
    ----------
    threads
        Of the CPU.
    gpus
        1: the GPU, and, with a warning, the CPU where none is seen; 0: the CPU. On a GPU some
        operations have no deterministic form; PyTorch then warns and goes on.
    """
    device = choose(gpus)
    # Without it cuBLAS refuses to be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Nothing here reads memory before it is written; filling it costs a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches for ever, each sample once before any comes again."""
    queue = torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(n, generator=generator)])
        yield queue[:size]
        queue = queue[size:]


def validation_dice(predict: Callable[[Batch], Tensor], batch: Batch, size: int) -> float:
    """Mean Dice at the working size over the samples that have a mask; NaN where none has.

    Parameters
    ----------
    predict
        Batch → (B, H, W) bool.
    batch
        With `mask` and `has_mask`.
    size
        Samples at a time.
    """
    scores = []
    for chosen in torch.split(torch.nonzero(batch["has_mask"]).flatten(), size):
        part = {name: values[chosen] for name, values in batch.items()}
        predicted, truth = predict(part), part["mask"].bool()
        area = predicted.sum((1, 2)) + truth.sum((1, 2))
        overlap = 2 * (predicted & truth).sum((1, 2))
        scores.append(torch.where(area > 0, overlap / area.clamp(min=1), 1.0))
    return float(torch.cat(scores).mean()) if scores else math.nan


def fit(
    model: nn.Module,
    step: Step,
    data: Batch,
    validate: Callable[[], float],
    settings: OptimisationSettings,
    generator: torch.Generator,
    name: str,
) -> pd.DataFrame:
    """Train `model` for a fixed number of iterations; its last weights are the result.

    No checkpoint is chosen: the step size falls to 0 along a cosine, and validation is only
    looked at.

    Parameters
    ----------
    model
        In training mode, on the data's device.
    step
        Batch of samples and iteration (from 1) → loss terms.
    data
        All training samples.
    validate
        → Dice on the validation split.
    settings
        Iterations, batch size, step size and the rhythm of the history.
    generator
        Of the batches, on the CPU.
    name
        For the progress line.

    Returns
    -------
    The history: iteration, the mean of every loss term since the row before, learning_rate,
    seconds since the start, val_dice (NaN where it was not computed).
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.iterations)
    order = batches(len(data["image"]), settings.batch_size, generator)
    rows: list[dict[str, float]] = []
    sums: dict[str, float] = defaultdict(float)
    counted = 0
    began = time.monotonic()
    for iteration in progress(range(1, settings.iterations + 1), name):
        index = next(order).to(data["image"].device)
        terms = step({key: values[index] for key, values in data.items()}, iteration)
        values = {key: term.item() for key, term in terms.items()}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(f"{name}: loss {values['loss']} at iteration {iteration}")
        optimiser.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = float(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()

        counted += 1
        for key, value in values.items():
            sums[key] += value
        last = iteration == settings.iterations
        look = last or iteration % settings.validate_every == 0
        if look or iteration % settings.log_every == 0:
            row: dict[str, float] = {"iteration": iteration}
            row |= {key: value / counted for key, value in sums.items()}
            row |= {"learning_rate": rate, "seconds": time.monotonic() - began}
            row["val_dice"] = validate() if look else math.nan
            rows.append(row)
            sums.clear()
            counted = 0
            log.info(
                "%s %d: %s", name, iteration, ", ".join(f"{k} {v:.4g}" for k, v in row.items())
            )
    return pd.DataFrame(rows)
