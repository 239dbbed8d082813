"""The one way in which a stage becomes a command: its function's signature is its options."""

import argparse
import inspect
import logging
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from stages.core import job_log

log = logging.getLogger("stages")
T = TypeVar("T")


class BadInput(Exception):
    """Something that a user handed in cannot be used; the message says how to mend it.

    Parameters
    ----------
    where
        The file or folder at fault.
    field
        The part of it: a column, a data set, a sample id, a line.
    found, expected
        What is there and what should be.
    mend
        What the user can do about it, as an imperative sentence.
    """

    def __init__(
        self, where: Path | str, field: str, *, found: object, expected: object, mend: str
    ) -> None:
        super().__init__(
            f"{where}: {field}\n  found:    {found}\n  expected: {expected}\n  to mend:  {mend}"
        )


def name_some(names: Sequence[object], most: int = 20) -> str:
    """Name the first of them, and count the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


class ManyBad(BadInput):
    """Several things that cannot be used, each with how to mend it, in one message.

    Attributes
    ----------
    problems
        The things, one by one.
    """

    def __init__(self, problems: list[BadInput]) -> None:
        self.problems = problems
        numbered = (f"{i}. {problem}" for i, problem in enumerate(problems, start=1))
        Exception.__init__(self, "\n".join((f"{len(problems)} problems:", *numbered)))


class Problems(list[BadInput]):
    """What is wrong with an input, gathered, so that a user learns all of it at once."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Take note of a `BadInput` and go on behind the block."""
        try:
            yield
        except ManyBad as several:
            self.extend(several.problems)
        except BadInput as problem:
            self.append(problem)

    def stop(self) -> None:
        """Raise what was gathered, each message once, if anything was."""
        different = list({str(problem): problem for problem in self}.values())
        if different:
            raise different[0] if len(different) == 1 else ManyBad(different)


def progress(items: Iterable[T], name: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on: with a bar in a terminal, with about ten log lines otherwise."""
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


def _optional(kind: type) -> Callable[[str], Any]:
    # "--gaze" with nothing, or '', behind it is None: a rule writes an optional input as it is.
    def parse(text: str) -> Any:
        return kind(text) if text else None

    # argparse calls it by its name in messages.
    parse.__name__ = kind.__name__
    return parse


def _json(kind: type[BaseModel]) -> Callable[[str], BaseModel]:
    def parse(text: str) -> BaseModel:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _add_option(parser: argparse.ArgumentParser, parameter: inspect.Parameter) -> None:
    option = "--" + parameter.name.replace("_", "-")
    kind = parameter.annotation
    required = parameter.default is inspect.Parameter.empty
    if get_origin(kind) is list:
        parser.add_argument(option, nargs="*", type=get_args(kind)[0], required=required)
    elif get_origin(kind) in (Union, types.UnionType):
        (inner,) = [k for k in get_args(kind) if k is not type(None)]
        parser.add_argument(option, nargs="?", type=_optional(inner))
    elif issubclass(kind, BaseModel):
        parser.add_argument(option, type=_json(kind), metavar="JSON", required=required)
    else:
        parser.add_argument(option, type=kind, required=required)


def run(stage: Callable[..., Any], argv: list[str] | None = None) -> None:
    """Call `stage` with the command line's options and leave the process with its outcome.

    Each parameter of `stage` is an option of its name: a path, a number, a list of paths, an
    optional path, or a pydantic model given as JSON. `--log FILE` also writes the messages to a
    file, `--code NAME` has them begin with the version of the code and where it runs. Exit status
    0: done. 1: a `BadInput`, printed without a traceback, or a failure, with.
    """
    name = Path(inspect.getfile(stage)).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{name}", description=inspect.getdoc(stage)
    )
    for parameter in inspect.signature(stage).parameters.values():
        _add_option(parser, parameter)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--code")
    options = vars(parser.parse_args(argv))

    # Of several processes, which torchrun numbers, the first speaks.
    first = "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if (log_file := options.pop("log")) is not None and first:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, mode="w"))
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR,
        format="%(asctime)s %(message)s",
        handlers=handlers,
        force=True,
    )
    if (code := options.pop("code")) is not None and first:
        job_log.begin(code)
    try:
        stage(**{option: value for option, value in options.items() if value is not None})
    except BadInput as error:
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        log.exception("%s failed", name)
        sys.exit(1)
