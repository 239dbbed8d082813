"""Run a stage from the command line: the parameters of its function are the options."""

import argparse
import errno
import inspect
import logging
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from stages.core import job_log

log = logging.getLogger("stages")
T = TypeVar("T")
_FREE_SPACE = "free space on its disk, and run the command again"
_CHECK_DISK = "check the disk, or the connection to it, and run the command again"
_PERMIT = "give this user permission to read and write it and its folder"
_WRITABLE = "make the disk writable, or use a folder on another one"
_SHORTEN = "use shorter names"
# Number of an error of the system → how to mend it.
_SYSTEM_MENDS = {
    errno.ENOSPC: _FREE_SPACE, errno.EDQUOT: _FREE_SPACE, errno.EFBIG: _FREE_SPACE,
    errno.EIO: _CHECK_DISK, errno.ESTALE: _CHECK_DISK,
    errno.EACCES: _PERMIT, errno.EPERM: _PERMIT, errno.EROFS: _WRITABLE,
    errno.ENAMETOOLONG: _SHORTEN,
}  # fmt: skip


class BadInput(Exception):
    """An input of the user is unusable; the message says how to mend it.

    Parameters
    ----------
    where
        The file or folder at fault.
    field
        The part at fault: a column, an HDF5 data set, a sample id, a line.
    found, expected
        The actual and the required content.
    mend
        How the user can mend it, as an imperative sentence.
    """

    def __init__(
        self, where: Path | str, field: str, *, found: object, expected: object, mend: str
    ) -> None:
        super().__init__(
            f"{where}: {field}\n  found:    {found}\n  expected: {expected}\n  to mend:  {mend}"
        )


def describe_system_error(error: OSError) -> BadInput | None:
    """Turn an error of the operating system into a message; None if it is an error of a library.

    Only the system numbers its errors.
    """
    if error.errno is None:
        return None
    return BadInput(
        os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "file system",
        "file",
        found=os.strerror(error.errno),
        expected="a file that this user can read, or a folder that this user can write to",
        mend=_SYSTEM_MENDS.get(error.errno, "correct the path, or what is there"),
    )


class _LogFile(logging.FileHandler):
    """A log file that must not lose a line: a result's provenance is read from it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise what the system says, which logging itself would print with a traceback."""
        if isinstance(error := sys.exc_info()[1], OSError):
            error.filename = self.baseFilename
            raise error
        super().handleError(record)


def list_names(names: Sequence[object], limit: int = 20) -> str:
    """Join the first `limit` names with commas, and count the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more


class BadInputGroup(BadInput):
    """Several problems in one numbered message.

    Attributes
    ----------
    problems
        The single problems, each with its own message.
    """

    def __init__(self, problems: list[BadInput]) -> None:
        self.problems = problems
        numbered = (f"{i}. {problem}" for i, problem in enumerate(problems, start=1))
        Exception.__init__(self, "\n".join((f"{len(problems)} problems:", *numbered)))


class Problems(list[BadInput]):
    """All problems of an input, so that the user sees them at once."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Record a `BadInput` that the block raises; execution continues after the block."""
        try:
            yield
        except BadInputGroup as group:
            self.extend(group.problems)
        except BadInput as problem:
            self.append(problem)

    def raise_all(self) -> None:
        """Raise the recorded problems, each message once; do nothing if there are none."""
        unique = list({str(problem): problem for problem in self}.values())
        if unique:
            raise unique[0] if len(unique) == 1 else BadInputGroup(unique)


def progress(items: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show progress: a bar in a terminal, otherwise about ten log lines."""
    if total is None:
        items = list(items)
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=name, total=total)
        return
    step = max(1, total // 10)
    for done, item in enumerate(items, start=1):
        yield item
        if done % step == 0 or done == total:
            log.info("%s: %d of %d", name, done, total)


def _parse_optional(kind: type) -> Callable[[str], Any]:
    # "--gaze" without a value, or with '', is None: so a rule can pass an optional input unchanged.
    def parse(text: str) -> Any:
        return kind(text) if text else None

    # argparse shows this name in its messages.
    parse.__name__ = kind.__name__
    return parse


def _parse_json(kind: type[BaseModel]) -> Callable[[str], BaseModel]:
    def parse(text: str) -> BaseModel:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _split_docstring(stage: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring above its first section, and the text of each parameter."""
    before, *sections = re.split(r"\n\n(?=\w+\n-{3,}\n)", inspect.getdoc(stage) or "")
    options: dict[str, str] = {}
    for section in sections:
        title, _, *lines = section.splitlines()
        if title == "Parameters":
            for name, text in re.findall(
                r"^(\w[\w, ]*)\n((?: +.*\n|\n(?= ))*)", "\n".join([*lines, ""]), re.M
            ):
                options |= dict.fromkeys(name.split(", "), " ".join(text.split()))
    return before, options


def _add_option(
    parser: argparse.ArgumentParser, parameter: inspect.Parameter, text: str | None
) -> None:
    option = "--" + parameter.name.replace("_", "-")
    kind = parameter.annotation
    # argparse formats this text with %.
    add = partial(parser.add_argument, option, help=text and text.replace("%", "%%"))
    required = parameter.default is inspect.Parameter.empty
    if get_origin(kind) is list:
        add(nargs="*", type=get_args(kind)[0], required=required)
    elif get_origin(kind) is Literal:
        add(choices=get_args(kind), required=required)
    elif get_origin(kind) in (Union, types.UnionType):
        (inner,) = [k for k in get_args(kind) if k is not type(None)]
        add(nargs="?", type=_parse_optional(inner))
    elif kind is bool:
        add(action="store_true")
    elif issubclass(kind, BaseModel):
        add(type=_parse_json(kind), metavar="JSON", required=required)
    else:
        add(type=kind, required=required)


def _log_to(file: Path) -> None:
    """Also write the messages to a new log file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # As on the terminal, a file name that is not valid text is written with escapes.
    handler = _LogFile(file, mode="w", encoding="utf-8", errors="backslashreplace")
    root = logging.getLogger()
    handler.setFormatter(root.handlers[0].formatter)
    root.addHandler(handler)


def run(
    stage: Callable[..., Any], argv: list[str] | None = None, command: str | None = None
) -> None:
    """Call `stage` with the options of the command line; set the exit status of the process.

    Each parameter of `stage` is an option of the same name: a path, a number, a list of paths, an
    optional path, one of several words, a switch that is off by default, or a pydantic model given
    as JSON. Its text in the docstring is the option's help. `command` is what the user typed; by
    default `python -m` and the module. `--log FILE` also writes the messages to a file. `--code
    NAME` logs host, code version and commit first. Exit status 0: success. 1: a `BadInput` or an
    error of the operating system, such as a full disk, printed without a traceback; or any other
    exception, printed with its traceback.
    """
    file = Path(inspect.getfile(stage))
    name, family = file.stem, file.parent.name
    description, texts = _split_docstring(stage)
    parser = argparse.ArgumentParser(
        prog=command or f"python -m stages.{family}.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for parameter in inspect.signature(stage).parameters.values():
        _add_option(parser, parameter, texts.get(parameter.name))
    parser.add_argument("--log", type=Path)
    parser.add_argument("--code")
    options = vars(parser.parse_args(argv))

    # torchrun numbers several processes; only the first one logs.
    first = "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR,
        format="%(asctime)s %(message)s",
        handlers=[logging.StreamHandler()],
        force=True,
    )
    log_file, code = options.pop("log"), options.pop("code")
    try:
        if log_file is not None and first:
            _log_to(log_file)
        if code is not None and first:
            job_log.log_start(code)
        stage(**{option: value for option, value in options.items() if value is not None})
    except Exception as error:
        problem = describe_system_error(error) if isinstance(error, OSError) else error
        # The disk of the log file may be full; the terminal has the message.
        with suppress(OSError):
            if isinstance(problem, BadInput):
                log.error("%s", problem)
            else:
                log.exception("%s failed", name)
        sys.exit(1)
