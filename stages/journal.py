"""What a long job has finished so far, so that a killed one goes on where it was."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Entries by name, appended to a file and flushed to the disk before the next is begun.

    The journals of a folder are read together: jobs that divide the names among themselves
    differently than those before still find what is finished. A last line that a kill cut short
    is dropped.

    Parameters
    ----------
    folder
        Of one job's journals: another setting or input is another folder.
    writer
        Names the file to which this job appends; no other job at the time may have the same.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self.finished: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.jsonl")):
            for line in file.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    name, entry = json.loads(line)
                    self.finished[name] = entry
        self._file = folder / f"{writer}.jsonl"
        if self._file.exists():
            content = self._file.read_bytes()
            with self._file.open("r+b") as stream:
                stream.truncate(content.rfind(b"\n") + 1)

    def add(self, entries: Mapping[str, Any]) -> None:
        """Append entries; when this returns, they outlive a kill."""
        with self._file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(lines(entries.items()))
            stream.flush()
            os.fsync(stream.fileno())
        self.finished |= entries


def lines(entries: Iterable[tuple[str, Any]]) -> Iterable[str]:
    """Write entries as the lines of a journal."""
    return (json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n" for entry in entries)
