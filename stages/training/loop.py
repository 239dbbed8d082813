"""The training loop of all networks; each method passes its own step function."""

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stages.core import io, job_log, processes
from stages.core.cli import BadInput, list_names, log, progress
from stages.core.device import choose_device, make_deterministic
from stages.core.fingerprint import fingerprint
from stages.core.precision import autocast, choose_precision
from stages.networks import models
from stages.settings.training import OptimisationSettings
from stages.training.checkpoint import Checkpoint, TrainingState, remove_checkpoints
from stages.training.samples import Batch, Samples

# Name → loss term of a step; the optimiser minimises "loss".
LossTerms = dict[str, Tensor]
# (joined batch of all processes, iteration from 1, generator of all random numbers) → loss terms.
Step = Callable[[Batch, int, torch.Generator], LossTerms]
# (network, batch) → (B, H, W) bool.
Predict = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True)
class Run:
    """One training: its inputs and settings, and the paths of its results.

    Attributes
    ----------
    name
        Name of the network and of the stage.
    inputs
        Role → file.
    output, history
        Files for the weights and the history, written at the end.
    work
        Folder of the checkpoints.
    modules
        Modules on whose code the result depends.
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


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def _keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory for the next step.

    By default it maps memory for each large activation and returns it right after use, and the
    kernel clears every new page: this takes a fifth of a step at the published size. Without glibc
    nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def set_up_torch(threads: int, gpus: int) -> torch.device:
    """Configure threads, processes, memory and determinism; return the device to run on.

    Parameters
    ----------
    threads
        CPU threads of all processes together.
    gpus
        0: use the CPU. 1 or more: each process uses its own GPU; without a visible GPU, a warning
        and the CPU. Some GPU operations have no deterministic form; PyTorch then warns and
        continues.
    """
    device = choose_device(gpus)
    processes.init_process_group(device)
    torch.set_num_threads(max(1, threads // processes.world_size()))
    _keep_freed_memory()
    make_deterministic(device)
    return device


def index_batches(
    num_samples: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield batches of indices without end; each epoch has every sample once."""
    queue = torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(num_samples, generator=generator)])
        yield queue[:batch_size]
        queue = queue[batch_size:]


def learning_rate(iteration: int, settings: OptimisationSettings) -> float:
    """Return the learning rate of an iteration (from 1), along a cosine from first to final."""
    first, last = settings.learning_rate, settings.final_learning_rate
    fraction = (iteration - 1) / settings.iterations
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


def split_parameters(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the weights that are trained: those of pretrained encoders last, if there are any."""
    backbones = (getattr(module, "backbone", None) for module in model.modules())
    pretrained = {
        id(parameter)
        for backbone in backbones
        if isinstance(backbone, nn.Module)
        for parameter in backbone.parameters()
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [[p for p in trained if (id(p) in pretrained) == last] for last in (False, True)]
    return [group for group in groups if group]


def flatten_parameters(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Store weights in one vector, and their gradients in another.

    The optimiser then updates one vector instead of more than a hundred tensors, which takes 4 %
    of a step at the demo's size.

    Returns
    -------
    The vector, with `grad`. The network's parameters and gradients become views of the two and keep
    their memory layout. Zeros pad them, so that each starts at a multiple of 64 bytes.
    """
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


def make_optimiser(
    weights: list[nn.Parameter], settings: OptimisationSettings
) -> torch.optim.Optimizer:
    """Make the optimiser of vectors of weights: one group each, a pretrained encoder's second."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "adam":
        return torch.optim.AdamW(
            [{"params": vector} for vector in weights], rate, weight_decay=decay, fused=True
        )
    return torch.optim.SGD(
        [{"params": vector} for vector in weights],
        rate,
        momentum=settings.momentum,
        weight_decay=decay,
        nesterov=True,
        fused=True,
    )


@torch.no_grad()
def validation_dice(predict: Callable[[Batch], Tensor], data: Samples, batch_size: int) -> float:
    """Return the mean Dice at the working size; NaN without a sample.

    Parameters
    ----------
    predict
        Batch → (B, H, W) bool.
    data
        Samples with a `mask`.
    batch_size
        Samples per batch.
    """
    scores = []
    for batch in data.batches(
        torch.split(torch.arange(len(data)), batch_size) if len(data) else ()
    ):
        predicted, truth = predict(batch), batch["mask"].bool()
        area = predicted.sum((1, 2)) + truth.sum((1, 2))
        overlap = 2 * (predicted & truth).sum((1, 2))
        scores.append(torch.where(area > 0, overlap / area.clamp(min=1), 1.0))
    return float(processes.all_reduce_mean(torch.cat(scores).mean())) if scores else math.nan


def _not_finite_error(name: str, field: str, found: str) -> BadInput:
    return BadInput(
        name, field, found=found, expected="finite numbers",
        mend="lower `learning_rate`; with `precision: auto` or bf16, try fp32",
    )  # fmt: skip


def _take_mean_losses(
    state: TrainingState, name: str, name_batch: Callable[[int], list[str]]
) -> dict[str, float]:
    """Return the mean of each loss term since the last row, and reset the sums.

    `name_batch` returns the ids of the samples of an iteration.

    Raises
    ------
    BadInput
        A mean is not finite; the message names the first such iteration and its samples.
    """
    means = {
        k: float(processes.all_reduce_mean(v)) / state.summed_iterations
        for k, v in state.sums.items()
    }
    if not all(map(math.isfinite, means.values())):
        # All processes follow the first of them one iteration later: the averaged gradient.
        finite = math.floor(float(processes.all_reduce_mean(state.finite_iterations)))
        first = state.iteration - state.summed_iterations + finite + 1
        found = (
            f"{means} in the {state.summed_iterations} iterations up to {state.iteration}; the "
            f"first is {first}, with the samples {list_names(name_batch(first))}"
        )
        raise _not_finite_error(name, "loss", found)
    state.sums.clear()
    state.summed_iterations = 0
    state.finite_iterations = torch.zeros_like(state.finite_iterations)
    return means


def _validate(
    state: TrainingState, predict: Predict, val: Samples, settings: OptimisationSettings
) -> float:
    """Return the Dice of the validation split, and update the state of early stopping."""
    network = state.result_network.eval()
    dice = validation_dice(lambda batch: predict(network, batch), val, settings.batch_size)
    state.model.train()
    state.validations_since_best += 1
    if settings.patience is not None and dice > state.best_dice:
        state.best_dice, state.validations_since_best = dice, 0
        state.best_weights = {name: value.clone() for name, value in network.state_dict().items()}
    return dice


def _check_run(run: Run, val: Samples) -> None:
    settings, world_size = run.settings, processes.world_size()
    if settings.batch_size % world_size:
        raise BadInput(
            "--settings", "batch_size", found=settings.batch_size,
            expected=f"a multiple of the {world_size} processes",
            mend="change `batch_size` or `gpus`",
        )  # fmt: skip
    if settings.patience is not None and not len(val):
        raise BadInput(
            run.inputs["prepared"], "validation split", found="no sample with a mask",
            expected="at least one, because early stopping needs a Dice",
            mend="leave `patience` out, or add masks",
        )  # fmt: skip


def fit(
    run: Run, model: nn.Module, step: Step, predict: Predict, data: Samples, val: Samples
) -> pd.DataFrame:
    """Train `model`; afterwards it holds the resulting weights.

    The learning rate falls along a cosine over a fixed number of iterations. The result is the last
    weights or, with `settings.ema`, their moving average. With `settings.patience` training may
    stop early, and the result is the weights with the best validation Dice. An interrupted job
    resumes from its checkpoint and ends with the same weights.

    Parameters
    ----------
    model
        Network in training mode, on the run's device.
    step
        (batch, iteration, generator) → loss terms, called under autocast.
    predict
        (network in evaluation mode, batch) → (B, H, W) bool.
    data, val
        Training samples; validation samples that have a mask.

    Returns
    -------
    The history, with the columns iteration, each loss term (mean since the previous row),
    learning_rate, seconds (of training) and val_dice (NaN if not computed).

    Raises
    ------
    BadInput
        A loss or a weight is not finite; the processes cannot share the batch equally; `patience`
        is set and no validation sample has a mask.
    """
    settings, name = run.settings, run.name
    _check_run(run, val)
    average = None
    if settings.ema:
        average = AveragedModel(
            model,
            multi_avg_fn=get_ema_multi_avg_fn(settings.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
    generator = torch.Generator(run.device).manual_seed(run.seed)
    weights = [flatten_parameters(parameters) for parameters in split_parameters(model)]
    # The second group of weights, if there is one, is a pretrained encoder's.
    rate_scales = [1.0]
    if settings.pretrained:
        encoder_rate = settings.encoder_learning_rate or settings.learning_rate
        rate_scales.append(encoder_rate / settings.learning_rate)
    precision, reason = choose_precision(settings.precision, run.device, model)
    log.info("precision: %s (%s)", precision, reason)
    state = TrainingState(model, make_optimiser(weights, settings), generator, average)
    dependencies = io.provenance(name, run.inputs, run.params)
    # The exact result depends on the processes and threads that add up a sum, on the device and on
    # the precision. A generator's state also belongs to its type of device.
    dependencies |= {
        "code": fingerprint(*run.modules),
        "processes": processes.world_size(),
        "threads": torch.get_num_threads() if run.device.type == "cpu" else 0,
        "device": run.device.type,
        "precision": precision,
    }
    checkpoint = Checkpoint(run.work, name, dependencies)
    checkpoint.resume(state)

    def order_from(iteration: int) -> Iterator[Tensor]:
        """Yield the indices of the samples of an iteration, and of those after it."""
        # Not the seed of the augmentation, or both would use the same random numbers.
        own = torch.Generator().manual_seed(~run.seed)
        return islice(index_batches(len(data), settings.batch_size, own), iteration - 1, None)

    order = order_from(state.iteration + 1)
    iterations = range(state.iteration + 1, settings.iterations + 1)
    loaded_batches = data.batches(index for index, _ in zip(order, iterations))
    started = time.monotonic() - state.seconds
    with checkpoint.catching_signals():
        for iteration, batch in zip(progress(iterations, name), loaded_batches):
            if settings.patience is not None and state.validations_since_best >= settings.patience:
                break
            rate = learning_rate(iteration, settings)
            for group, scale in zip(state.optimiser.param_groups, rate_scales, strict=True):
                group["lr"] = rate * scale
            with autocast(run.device, precision):
                terms = step(batch, iteration, generator)
            # Not None: the gradients of the parameters are views of this one.
            state.optimiser.zero_grad(set_to_none=False)
            terms["loss"].backward()  # type: ignore[no-untyped-call]
            for vector in weights:
                processes.average_gradient(vector)
            if settings.clip:
                nn.utils.clip_grad_norm_(weights, settings.clip)
            state.optimiser.step()
            if average is not None:
                average.update_parameters(model)

            state.iteration = iteration
            state.summed_iterations += 1
            for key, term in terms.items():
                state.sums[key] = state.sums.get(key, 0) + term.detach()
            # A sum is not finite from the first such term on.
            state.finite_iterations = state.finite_iterations + state.sums["loss"].isfinite()
            last = iteration == settings.iterations
            validates = last or iteration % settings.validate_every == 0
            if validates or iteration % settings.log_every == 0:
                row = {
                    "iteration": iteration,
                    **_take_mean_losses(
                        state, name, lambda first: data.names(next(order_from(first)))
                    ),
                    "learning_rate": rate,
                }
                row |= {"seconds": time.monotonic() - started, "val_dice": math.nan}
                if validates:
                    with autocast(run.device, precision):
                        row["val_dice"] = _validate(state, predict, val, settings)
                state.rows.append(row)
                values = ", ".join(f"{k} {v:.4g}" for k, v in row.items())
                log.info("%s %d: %s", name, iteration, values)
            state.seconds = time.monotonic() - started
            checkpoint.after_iteration(state)
    if not all(torch.isfinite(vector).all() for vector in weights):
        raise _not_finite_error(name, "weights", "infinity or NaN after the last step")
    model.load_state_dict(state.best_weights or state.result_network.state_dict())
    return pd.DataFrame(state.rows)


def save_results(run: Run, model: models.Teacher | models.Student, history: pd.DataFrame) -> None:
    """Write weights and history, and remove the checkpoints."""
    if processes.rank() == 0:
        provenance = io.provenance(run.name, run.inputs, run.params)
        # The history, a CSV file, cannot hold the provenance.
        job_log.log_provenance(provenance)
        models.save(model, run.output, provenance)
        io.write_csv(history, run.history)
        remove_checkpoints(run.work, run.name)
    processes.destroy_process_group()
