"""The training loop. What a method does in a step is the function that it hands in."""

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stages.core import io, job_log, processes
from stages.core.cli import BadInput, log, progress
from stages.core.device import choose, deterministic
from stages.core.fingerprint import fingerprint
from stages.networks import models
from stages.settings.training import OptimisationSettings
from stages.training.checkpoint import Checkpoint, State, remove_checkpoints
from stages.training.samples import Batch, Samples

# A step's loss terms by name; "loss" is the one that is minimised.
Terms = dict[str, Tensor]
# The joined batch of all processes, the iteration (from 1), the source of all that is random.
Step = Callable[[Batch, int, torch.Generator], Terms]
# The network and a batch → (B, H, W) bool.
Predict = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True)
class Run:
    """One training: what it depends on, and where its results go.

    Attributes
    ----------
    name
        Of the network and of the stage.
    inputs
        Role → file.
    output, history
        Weights and history, to be written at the end.
    work
        Folder of the checkpoints.
    modules
        Whose code it depends on.
    """

    name: str
    inputs: Mapping[str, Path]
    settings: OptimisationSettings
    seed: int
    device: torch.device
    output: Path
    history: Path
    work: Path
    modules: tuple[str, ...]

    @property
    def params(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json") | {"seed": self.seed}


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def _keep_freed_memory() -> None:
    """Have malloc keep what is freed, for the next step to use, where it is glibc's.

    Else it maps each large activation anew and hands it back right after, and the kernel clears
    every page of it: a fifth of a step at the published size.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def start(threads: int, gpus: int) -> torch.device:
    """Fix what decides results bit for bit and how memory is kept; return the device to run on.

    Parameters
    ----------
    threads
        Of the CPU, for all processes together.
    gpus
        From 1 on: a GPU, each process its own, and, with a warning, the CPU where none is seen; 0:
        the CPU. On a GPU some operations have no deterministic form; PyTorch then warns and goes
        on.
    """
    device = choose(gpus)
    processes.start(device)
    torch.set_num_threads(max(1, threads // processes.count()))
    _keep_freed_memory()
    deterministic(device)
    return device


def resolve(device: torch.device, precision: str) -> str:
    """Say what "auto" is on this device: bf16 where it is fast, else fp32."""
    if precision != "auto":
        return precision
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device.type == "cuda"
        else torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16" if fast else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Compute in bfloat16 what may be, where `precision` is, or resolves to, "bf16"."""
    enabled = resolve(device, precision) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches for ever, each sample once before any comes again."""
    queue = torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(n, generator=generator)])
        yield queue[:size]
        queue = queue[size:]


def learning_rate(iteration: int, settings: OptimisationSettings) -> float:
    """Step size of an iteration, from 1: along a cosine from the first to the final one."""
    first, last = settings.learning_rate, settings.final_learning_rate
    done = (iteration - 1) / settings.iterations
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def flatten(model: nn.Module) -> nn.Parameter:
    """Lay the weights that are trained end to end in one vector, and their gradients in another.

    What is done to all weights is then done once, and not to each of more than a hundred tensors:
    at the demo's size that takes 4 % of a step.

    Returns
    -------
    The vector, with `grad`; the network's parameters and their gradients are parts of the two, in
    the order in which they lay in memory. In between are zeros, so that each starts at a multiple
    of 64 bytes. What needs no gradient stays where it is.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lengths = [-(-parameter.numel() // 16) * 16 for parameter in parameters]
    flat = nn.Parameter(parameters[0].new_zeros(sum(lengths)))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter, length in zip(parameters, lengths):
        shape, strides = parameter.shape, parameter.stride()
        weights = flat.detach().as_strided(shape, strides, start)
        weights.copy_(parameter.detach())
        parameter.data = weights
        parameter.grad = flat.grad.as_strided(shape, strides, start)
        start += length
    return flat


def make_optimiser(weights: nn.Parameter, settings: OptimisationSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "adam":
        return torch.optim.AdamW([weights], rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(
        [weights],
        rate,
        momentum=settings.momentum,
        weight_decay=decay,
        nesterov=True,
        fused=True,
    )


@torch.no_grad()
def validation_dice(predict: Callable[[Batch], Tensor], data: Samples, size: int) -> float:
    """Mean Dice at the working size; NaN without a sample.

    Parameters
    ----------
    predict
        Batch → (B, H, W) bool.
    data
        With `mask`.
    size
        Samples at a time.
    """
    scores = []
    for batch in data.batches(torch.split(torch.arange(len(data)), size) if len(data) else ()):
        predicted, truth = predict(batch), batch["mask"].bool()
        area = predicted.sum((1, 2)) + truth.sum((1, 2))
        overlap = 2 * (predicted & truth).sum((1, 2))
        scores.append(torch.where(area > 0, overlap / area.clamp(min=1), 1.0))
    return float(processes.average(torch.cat(scores).mean())) if scores else math.nan


def _not_finite(name: str, field: str, found: str) -> BadInput:
    return BadInput(
        name, field, found=found, expected="finite numbers",
        mend="lower `learning_rate`; if it is `precision: auto` or bf16, try fp32",
    )  # fmt: skip


def _read_out(state: State, name: str) -> dict[str, float]:
    """Means of the loss terms since the last row, which begin anew.

    Raises
    ------
    BadInput
        One is no number.
    """
    means = {k: float(processes.average(v)) / state.counted for k, v in state.sums.items()}
    if not all(map(math.isfinite, means.values())):
        found = f"{means} in the {state.counted} iterations up to {state.iteration}"
        raise _not_finite(name, "loss", found)
    state.sums.clear()
    state.counted = 0
    return means


def _look(state: State, predict: Predict, val: Samples, settings: OptimisationSettings) -> float:
    """Dice of the validation split, which early stopping takes note of."""
    shown = state.shown.eval()
    dice = validation_dice(lambda batch: predict(shown, batch), val, settings.batch_size)
    state.model.train()
    state.looks += 1
    if settings.patience is not None and dice > state.best_dice:
        state.best_dice, state.looks = dice, 0
        state.best = {name: value.clone() for name, value in shown.state_dict().items()}
    return dice


def _check(run: Run, val: Samples) -> None:
    settings, n = run.settings, processes.count()
    if settings.batch_size % n:
        raise BadInput(
            "--settings", "batch_size", found=settings.batch_size,
            expected=f"a multiple of the {n} processes", mend="change `batch_size` or `gpus`",
        )  # fmt: skip
    if settings.patience is not None and not len(val):
        raise BadInput(
            run.inputs["prepared"], "validation split", found="no sample with a mask",
            expected="at least one, to end training early by",
            mend="leave `patience` out, or add masks",
        )  # fmt: skip


def fit(
    run: Run, model: nn.Module, step: Step, predict: Predict, data: Samples, val: Samples
) -> pd.DataFrame:
    """Train `model` and leave the result in it; no checkpoint is chosen unless it is asked for.

    The step size falls along a cosine over a fixed number of iterations, and the last weights are
    the result: with `settings.ema` their moving average, with `settings.patience` those of the
    best look at the validation split, after which it may end early. A job that was cut off goes on
    from its checkpoint and ends with the same weights.

    Parameters
    ----------
    model
        In training mode, on the run's device.
    step
        Batch, iteration and generator → loss terms, under autocast.
    predict
        Network, in evaluation mode, and batch → (B, H, W) bool.
    data, val
        Training samples; validation samples that have a mask.

    Returns
    -------
    The history: iteration, the mean of every loss term since the row before, learning_rate,
    seconds of training, val_dice (NaN where it was not computed).

    Raises
    ------
    BadInput
        A loss or a weight is no number; the batch does not divide among the processes; early
        stopping without validation masks.
    """
    settings, name = run.settings, run.name
    _check(run, val)
    average = None
    if settings.ema:
        average = AveragedModel(
            model,
            multi_avg_fn=get_ema_multi_avg_fn(settings.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
    generator = torch.Generator(run.device).manual_seed(run.seed)
    weights = flatten(model)
    precision = resolve(run.device, settings.precision)
    state = State(model, make_optimiser(weights, settings), generator, average)
    about = io.provenance(name, run.inputs, run.params)
    # Bits depend on how many processes and threads add up a sum, on what, and how finely; and a
    # generator's state is of its kind of device.
    about |= {
        "code": fingerprint(*run.modules),
        "processes": processes.count(),
        "threads": torch.get_num_threads() if run.device.type == "cpu" else 0,
        "device": run.device.type,
        "precision": precision,
    }
    checkpoint = Checkpoint(run.work, name, about)
    checkpoint.resume(state)

    # Not the seed of the augmentation: the same numbers would decide on both.
    order = batches(len(data), settings.batch_size, torch.Generator().manual_seed(~run.seed))
    for _ in range(state.iteration):
        next(order)
    iterations = range(state.iteration + 1, settings.iterations + 1)
    ahead = data.batches(index for index, _ in zip(order, iterations))
    began = time.monotonic() - state.seconds
    with checkpoint.listening():
        for iteration, batch in zip(progress(iterations, name), ahead):
            if settings.patience is not None and state.looks >= settings.patience:
                break
            rate = learning_rate(iteration, settings)
            for group in state.optimiser.param_groups:
                group["lr"] = rate
            with autocast(run.device, precision):
                terms = step(batch, iteration, generator)
            # Kept, for the gradients of the parameters are parts of it.
            state.optimiser.zero_grad(set_to_none=False)
            terms["loss"].backward()  # type: ignore[no-untyped-call]
            processes.average_gradient(weights)
            if settings.clip:
                nn.utils.clip_grad_norm_(weights, settings.clip)
            state.optimiser.step()
            if average is not None:
                average.update_parameters(model)

            state.iteration = iteration
            state.counted += 1
            for key, term in terms.items():
                state.sums[key] = state.sums.get(key, 0) + term.detach()
            last = iteration == settings.iterations
            look = last or iteration % settings.validate_every == 0
            if look or iteration % settings.log_every == 0:
                row = {"iteration": iteration, **_read_out(state, name), "learning_rate": rate}
                row |= {"seconds": time.monotonic() - began, "val_dice": math.nan}
                if look:
                    with autocast(run.device, precision):
                        row["val_dice"] = _look(state, predict, val, settings)
                state.rows.append(row)
                shown = ", ".join(f"{k} {v:.4g}" for k, v in row.items())
                log.info("%s %d: %s", name, iteration, shown)
            state.seconds = time.monotonic() - began
            checkpoint.after_iteration(state)
    if not torch.isfinite(weights).all():
        raise _not_finite(name, "weights", "infinity or none, of the last step")
    model.load_state_dict(state.best or state.shown.state_dict())
    return pd.DataFrame(state.rows)


def finish(run: Run, model: models.Teacher | models.Student, history: pd.DataFrame) -> None:
    """Write weights and history; the checkpoint has served."""
    if processes.rank() == 0:
        made = io.provenance(run.name, run.inputs, run.params)
        # The history cannot hold it.
        job_log.made_from(made)
        models.save(model, run.output, made)
        io.write_csv(history, run.history)
        remove_checkpoints(run.work, run.name)
    processes.stop()
