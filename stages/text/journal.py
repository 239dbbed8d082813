"""A journal of finished results, so that a killed job can continue where it stopped."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core.cli import log
from stages.core.contents import parse_json


class _Entries(Mapping[str, Any]):
    """Entries by name, kept as JSON, which needs a third of the memory of their objects."""

    def __init__(self) -> None:
        self._json: dict[str, bytes] = {}

    def set(self, name: str, entry: Any) -> None:
        self._json[name] = json.dumps(entry, ensure_ascii=False).encode()

    def __getitem__(self, name: str) -> Any:
        return json.loads(self._json[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._json)

    def __len__(self) -> int:
        return len(self._json)


class Journal:
    """Entries by name, in a file of JSON lines; each `add` is flushed to the disk at once.

    All journals of a folder are read together, so that a job finds the finished entries even if
    the number of jobs has changed. If a kill cut the last line short, that line is dropped. So is a
    line that cannot be read, and the log names it.

    Parameters
    ----------
    folder
        The folder of the journals. Other settings or inputs need another folder.
    writer
        The name of the file that this job appends to. No other running job may use the same name.
    shared
        A folder with more journals, which are only read.

    Attributes
    ----------
    entries
        Name → entry, of all journals; a later line of the same name replaces an earlier one.
    """

    def __init__(self, folder: Path, writer: str, shared: Path | None = None) -> None:
        self.entries = _Entries()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{writer}.jsonl"
        others = sorted(shared.glob("*.jsonl")) if shared else []
        for file in [*others, *sorted(folder.glob("*.jsonl"))]:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if not line.endswith(b"\n"):
                        if file == self._file:
                            with file.open("r+b") as stream:
                                stream.truncate(lines.tell() - len(line))
                        break
                    try:
                        name, entry = parse_json(line)
                        self.entries.set(name, entry)
                    except (ValueError, TypeError) as error:
                        # A power failure may leave blocks of zeros.
                        log.warning("%s: line %d is dropped: %s", file, number, error)

    def add(self, entries: Mapping[str, Any]) -> None:
        """Append entries; after the return, a kill cannot lose them."""
        # Unbuffered: a job whose Snakemake has ended may append at the same time.
        with self._file.open("ab", buffering=0) as stream:
            content = "".join(to_lines(entries.items())).encode()
            # If the disk is nearly full, a write may be partial without an error.
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
        for name, entry in entries.items():
            self.entries.set(name, entry)


def to_lines(entries: Iterable[tuple[str, Any]]) -> Iterable[str]:
    """Format entries as the lines of a journal."""
    return (json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n" for entry in entries)
