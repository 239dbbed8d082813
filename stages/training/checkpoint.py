"""Where a training is, kept on disk, so that a job that was cut off goes on and ends the same."""

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
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stages.core import io, processes
from stages.core.cli import log

# Seconds between checkpoints: about what a crash may cost.
EVERY = 300
# What SLURM sends before it takes a node away, what a user may ask it to send, and Ctrl-C.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(SystemExit):
    """A signal asked the training to end; its checkpoint is written."""


@dataclass
class State:
    """All that changes while a network is trained.

    Attributes
    ----------
    average
        The moving average of the weights, where one is kept.
    generator
        Of everything random but the order of the samples, which follows from seed and iteration.
    best
        The weights of the best look at the validation split so far, where they are asked for.
    best_dice, looks
        Its Dice, and how many looks there were since.
    rows
        The history so far.
    sums, counted
        Of the loss terms since the last row, and the number of iterations in them.
    seconds
        Of training, in all jobs together.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    average: AveragedModel | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    best_dice: float = -1.0
    looks: int = 0
    iteration: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)
    counted: int = 0
    seconds: float = 0.0

    @property
    def shown(self) -> nn.Module:
        """The network whose weights are the result."""
        return self.average.module if self.average else self.model

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({"average": self.average} if self.average else {})

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by a name each; all processes ask for them together.

        Each then has the mean of their sums, of which the mean is the same.
        """
        found = {"generator": self.generator.get_state()}
        for part, module in self._modules().items():
            found |= {f"{part}/{name}": value for name, value in module.state_dict().items()}
        # Of the one vector of all weights (`train.flatten`).
        moments = self.optimiser.state_dict()["state"].get(0, {})
        sums = {name: processes.average(value) for name, value in self.sums.items()}
        for part, named in (("optimiser", moments), ("best", self.best), ("sums", sums)):
            found |= {f"{part}/{name}": value for name, value in named.items()}
        return found

    def numbers(self) -> dict[str, Any]:
        """All else, as JSON."""
        names = ("best_dice", "looks", "iteration", "rows", "counted", "seconds")
        # A safetensors file sorts what it holds by name, and a history has its columns in order.
        return {name: getattr(self, name) for name in names} | {"terms": list(self.sums)}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take the state over that `tensors` and `numbers` returned."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        self.generator.set_state(tensors["generator"])
        for part, module in self._modules().items():
            module.load_state_dict(parts[part])
        moments = {0: parts["optimiser"]} if "optimiser" in parts else {}
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": moments})
        device = next(self.model.parameters()).device
        self.best = {name: value.to(device) for name, value in parts.get("best", {}).items()}
        self.sums = {name: parts["sums"][name].to(device) for name in numbers["terms"]}
        for name in numbers.keys() - {"terms"}:
            setattr(self, name, numbers[name])


class Checkpoint:
    """The file of one training's state. Another setting, input, seed or code is another file.

    Parameters
    ----------
    folder
        Of the checkpoints of one run.
    name
        Of the network.
    about
        What the training depends on, JSON.
    """

    def __init__(self, folder: Path, name: str, about: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}-{key}.safetensors"
        self._saved = time.monotonic()
        self._signal = 0

    def resume(self, state: State) -> None:
        """Bring `state` to where an earlier job left it, if one did."""
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                numbers = json.loads(file.metadata()["numbers"])
        except SafetensorError as error:
            # As a disk may leave it that lost its power.
            log.warning("%s cannot be read (%s): training begins anew", self.path, error)
            return
        state.restore(tensors, numbers)
        log.info("resumed at iteration %d from %s", state.iteration, self.path)

    def save(self, state: State) -> None:
        """Keep `state` in place of the one before; done when it is done in all processes."""
        tensors = state.tensors()
        if processes.rank() == 0:
            # Cloned: safetensors refuses tensors that share memory.
            kept = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
            with io.atomic(self.path) as temporary:
                save_file(kept, temporary, {"numbers": json.dumps(state.numbers())})
        # Where one process ends, torchrun soon ends the others.
        processes.largest(0)
        self._saved = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of the signals to end, instead of ending at once."""

        def note(number: int, _: object) -> None:
            self._signal = number

        # Python lets no other thread handle signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # What a script runs in its background ignores Ctrl-C, and is to. SIGUSR1 is ignored because
        # Snakemake is to outlive it, but meant for the training.
        heard = [
            number
            for number in _SIGNALS
            if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN
        ]
        before = {number: signal.signal(number, note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def after_iteration(self, state: State) -> None:
        """Save `state` if it is time to, and leave the process if a signal has asked for it.

        Raises
        ------
        Interrupted
            With the exit status that a shell gives a process that the signal ended.
        """
        asked = processes.largest(self._signal)
        if processes.largest(asked or int(time.monotonic() - self._saved >= EVERY)):
            self.save(state)
        if asked:
            log.info("signal %d: iteration %d is kept in %s", asked, state.iteration, self.path)
            raise Interrupted(128 + asked)


def remove_checkpoints(folder: Path, name: str) -> None:
    """Delete all checkpoints of a run's network."""
    for file in folder.glob(f"{name}-*.safetensors"):
        # A job that outlived its Snakemake may be at it, too.
        file.unlink(missing_ok=True)
