"""A process that has imported Snakemake and the stages, and runs each command in a fork of itself.

A stage that imports torch takes seconds to start; its fork takes milliseconds.
"""

import importlib
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stages.core import cli
from tests.faults.interception import Call, intercept, supervise
from tests.workspace import ROOT

# Largest size of a request, bytes.
_MAX_REQUEST = 1 << 17
# A command that waits for something that never comes ends with SIGALRM.
_LIMIT_S = 300
_ENTRY = re.compile(r'^if __name__ == "__main__":\n    cli\.run\((\w+)\)', re.MULTILINE)


class Outcome(NamedTuple):
    """How a command ended: exit status, or minus the number of a signal; and what it printed."""

    status: int
    printed: str


class Server:
    """The server, seen from the tests; runs one command at a time.

    Parameters
    ----------
    modules
        Modules that the server imports once.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.faults.server", str(other.fileno()), *modules]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[other.fileno()], env=environment, start_new_session=True
        )
        other.close()

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        decide: Callable[[Call], int] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Outcome:
        """Run `python -m` with these words in `folder`.

        Parameters
        ----------
        decide
            As in `supervise`; None: no call is intercepted.
        changes
            Attributes to set first: module → name → value.
        """
        printed = folder.with_name(f"{folder.name}.printed")
        printed.unlink(missing_ok=True)
        request = {
            "command": [*command], "folder": str(folder), "printed": str(printed),
            "intercepted": decide is not None, "changes": changes or {},
        }  # fmt: skip
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno()])
            theirs.close()
            if decide:
                supervise(ours, folder.resolve(), decide)
        status = int(self._socket.recv(16))
        return Outcome(status, printed.read_text(errors="backslashreplace"))


def stages_with_command() -> list[str]:
    """List the modules that run as a program."""
    files = (path for path in (ROOT / "stages").rglob("*.py") if _ENTRY.search(path.read_text()))
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)


def _run_stage(name: str) -> None:
    """Do what the module does as a program, without executing it a second time."""
    module = importlib.import_module(name)
    assert module.__file__
    entry = _ENTRY.search(Path(module.__file__).read_text())
    assert entry
    cli.run(getattr(module, entry[1]))


def _run(request: Mapping[str, Any], channel: socket.socket) -> int:
    """Run a command in this process, which must end after it; return its exit status."""
    signal.alarm(_LIMIT_S)
    stream = os.open(request["printed"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.chdir(request["folder"])
    for module, values in request["changes"].items():
        for name, value in values.items():
            setattr(importlib.import_module(module), name, value)
    module, *arguments = request["command"]
    sys.argv = [module, *arguments]
    if request["intercepted"]:
        intercept(channel)
    channel.close()
    try:
        if module.startswith("stages."):
            _run_stage(module)
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        status: Any = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


def serve(number: int, modules: Sequence[str]) -> None:
    """Serve the requests of the socket with this descriptor until it closes."""
    for module in modules:
        importlib.import_module(module)
    with socket.socket(fileno=number) as requests:
        while True:
            content, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 1)
            if not content:
                return
            source, target = os.pipe()
            known = set(sys.modules)
            child = os.fork()
            if not child:
                requests.close()
                os.close(source)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                with socket.socket(fileno=descriptors[0]) as channel:
                    status = _run(json.loads(content), channel)
                # A write to a pipe is in no file of the workspace, and passes.
                os.write(target, json.dumps(sorted(set(sys.modules) - known)).encode())
                os._exit(status)
            os.close(target)
            os.close(descriptors[0])
            with os.fdopen(source, "rb") as stream:
                imported = stream.read()
            _, status = os.waitpid(child, 0)
            # What a stage imports only as it runs, the next fork has from the start.
            for name in json.loads(imported or "[]"):
                with suppress(Exception):
                    importlib.import_module(name)
            requests.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:])
