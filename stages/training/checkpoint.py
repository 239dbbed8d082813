"""Checkpoints of a training: an interrupted job resumes and ends with the same result."""

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stages.core import processes
from stages.core.cli import log
from stages.networks.tensors import save_tensors

# Seconds between checkpoints: a crash loses about this much time.
SAVE_INTERVAL = 300
# SLURM sends SIGTERM before it ends a job, or SIGUSR1 if the user asks for it; Ctrl-C is SIGINT.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(SystemExit):
    """A signal stopped the training; its checkpoint is written."""


@dataclass
class TrainingState:
    """Everything that changes during a training.

    Attributes
    ----------
    average
        The moving average of the weights, if the settings ask for one.
    generator
        Generator of all random numbers except the order of the samples, which follows from seed
        and iteration.
    best_weights
        With early stopping, the weights with the best validation Dice so far.
    best_dice, validations_since_best
        That Dice, and the number of validations since then.
    rows
        The history so far.
    sums, summed_iterations
        Sums of the loss terms since the last row, and their number of iterations.
    finite_iterations
        Number of these before the first whose loss is not finite, as a tensor on the device.
    seconds
        Seconds of training in all jobs together.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    average: AveragedModel | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_dice: float = -1.0
    validations_since_best: int = 0
    iteration: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)
    summed_iterations: int = 0
    finite_iterations: Tensor = field(default_factory=lambda: torch.zeros(()))
    seconds: float = 0.0

    @property
    def result_network(self) -> nn.Module:
        """The network whose weights are the result."""
        return self.average.module if self.average else self.model

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({"average": self.average} if self.average else {})

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; all processes must call this together.

        Each process then has the mean of all processes' sums, so that later means do not change.
        """
        tensors = {"generator": self.generator.get_state()}
        for part, module in self._modules().items():
            tensors |= {f"{part}/{name}": value for name, value in module.state_dict().items()}
        # The optimiser has a parameter, by number, for each vector of `loop.flatten_parameters`.
        moments = {
            f"{number}/{name}": value
            for number, named in self.optimiser.state_dict()["state"].items()
            for name, value in named.items()
        }
        sums = {name: processes.all_reduce_mean(value) for name, value in self.sums.items()}
        tensors["finite_iterations"] = processes.all_reduce_mean(self.finite_iterations)
        for part, named in (("optimiser", moments), ("best", self.best_weights), ("sums", sums)):
            tensors |= {f"{part}/{name}": value for name, value in named.items()}
        return tensors

    def json_values(self) -> dict[str, Any]:
        """Return all other values, ready for JSON."""
        names = (
            "best_dice",
            "validations_since_best",
            "iteration",
            "rows",
            "summed_iterations",
            "seconds",
        )
        # The terms keep the order of the history's columns: safetensors sorts tensors by name.
        return {name: getattr(self, name) for name in names} | {"terms": list(self.sums)}

    def restore(self, tensors: Mapping[str, Tensor], json_values: Mapping[str, Any]) -> None:
        """Restore the state from the results of `tensors` and `json_values`."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        self.generator.set_state(tensors["generator"])
        for part, module in self._modules().items():
            module.load_state_dict(parts[part])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts.get("optimiser", {}).items():
            number, _, moment = name.partition("/")
            moments.setdefault(int(number), {})[moment] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": moments})
        device = next(self.model.parameters()).device
        self.best_weights = {
            name: value.to(device) for name, value in parts.get("best", {}).items()
        }
        self.sums = {name: parts["sums"][name].to(device) for name in json_values["terms"]}
        self.finite_iterations = tensors["finite_iterations"].to(device)
        for name in json_values.keys() - {"terms"}:
            setattr(self, name, json_values[name])


class Checkpoint:
    """The checkpoint file of one training; other settings, inputs, seed or code use another file.

    Parameters
    ----------
    folder
        Folder of the run's checkpoints.
    name
        Name of the network.
    dependencies
        Everything on which the result depends, as JSON values.
    """

    def __init__(self, folder: Path, name: str, dependencies: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}-{key}.safetensors"
        self._saved = time.monotonic()
        self._signal = 0

    def resume(self, state: TrainingState) -> None:
        """Restore `state` from the checkpoint of an earlier job, if there is one."""
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                json_values = json.loads(file.metadata()["numbers"])
        except SafetensorError as error:
            # A power failure may leave a damaged file.
            log.warning("%s cannot be read (%s): training starts again", self.path, error)
            return
        state.restore(tensors, json_values)
        log.info("resumed at iteration %d from %s", state.iteration, self.path)

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint by `state`; return when all processes have done so."""
        tensors = state.tensors()
        if processes.rank() == 0:
            # Cloned: safetensors refuses tensors that share memory.
            copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
            save_tensors(copies, self.path, {"numbers": json.dumps(state.json_values())})
        # Wait for the first: if one process exits, torchrun soon ends the others.
        processes.all_reduce_max(0)
        self._saved = time.monotonic()

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Record stop signals instead of exiting at once."""

        def remember(number: int, _: object) -> None:
            self._signal = number

        # Python handles signals only in the main thread.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A background job of a script ignores Ctrl-C, and should. SIGUSR1 may also be ignored, so
        # that Snakemake survives it, but it is meant for the training.
        caught = [
            number
            for number in _STOP_SIGNALS
            if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN
        ]
        previous_handlers = {number: signal.signal(number, remember) for number in caught}
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    def after_iteration(self, state: TrainingState) -> None:
        """Save `state` if it is time to, and exit if there was a stop signal.

        Raises
        ------
        Interrupted
            There was a stop signal; the exit status is 128 + its number, as in a shell.
        """
        stop_signal = processes.all_reduce_max(self._signal)
        if processes.all_reduce_max(
            stop_signal or int(time.monotonic() - self._saved >= SAVE_INTERVAL)
        ):
            self.save(state)
        if stop_signal:
            log.info(
                "signal %d: iteration %d is saved in %s", stop_signal, state.iteration, self.path
            )
            raise Interrupted(128 + stop_signal)


def remove_checkpoints(folder: Path, name: str) -> None:
    """Delete all checkpoints of a network in `folder`."""
    for file in folder.glob(f"{name}-*.safetensors"):
        # Another job, whose Snakemake was killed, may delete it at the same time.
        file.unlink(missing_ok=True)
