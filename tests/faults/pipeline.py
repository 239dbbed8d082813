"""A workspace whose commands, as Snakemake plans them, run one by one in forks of the server."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.folders import Content, read_folder, write_folder
from tests.faults.interception import Call
from tests.faults.server import Outcome, Server


class Step(NamedTuple):
    """A command, and the content of the workspace before and after it."""

    command: list[str]
    before: Content
    after: Content


def plan(server: Server, folder: Path, targets: Sequence[str]) -> list[list[str]]:
    """Return the commands of all jobs that Snakemake would run, in its order, without `python -m`.

    A training is planned without torchrun if its data set has no GPU.
    """
    status, printed = server.run(["snakemake", "-n", "-p", *targets], folder)
    assert status == 0, printed
    planned = [line.split("python -m ") for line in printed.splitlines()]
    return [shlex.split(line[1]) for line in planned if len(line) == 2]


class Pipeline:
    """The commands of a workspace, in order.

    Parameters
    ----------
    changes
        Attributes to set in each command, as in `Server.run`.
    """

    def __init__(
        self, server: Server, folder: Path, commands: list[list[str]], changes: dict[str, Any]
    ) -> None:
        self.server, self.folder, self.commands = server, folder, commands
        self._changes = changes
        self._pending = list(commands)
        self._steps: dict[str, Step] = {}
        self._content = read_folder(folder)

    def run(self, command: Sequence[str], decide: Callable[[Call], int] | None = None) -> Outcome:
        return self.server.run(command, self.folder, decide=decide, changes=self._changes)

    def step(self, stage: str) -> Step:
        """Return the last command of a stage; run all commands up to it that have not run."""
        modules = [command[0] for command in self._pending]
        if f"stages.{stage}" in modules:  # a test may have changed the folder meanwhile
            write_folder(self.folder, self._content)
        while f"stages.{stage}" in modules:
            command, before = self._pending.pop(0), self._content
            status, printed = self.run(command)
            assert status == 0, printed
            self._content = read_folder(self.folder)
            self._steps[modules.pop(0).removeprefix("stages.")] = Step(
                command, before, self._content
            )
        return self._steps[stage]
