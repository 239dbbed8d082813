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
    shared
        A folder of more of them, which is read alone.
    """

    def __init__(self, folder: Path, writer: str, shared: Path | None = None) -> None:
        self.finished: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(shared.glob("*.jsonl")) if shared else []
        for file in [*others, *sorted(folder.glob("*.jsonl"))]:
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
        # At once: a job that outlives its Snakemake may append as well.
        with self._file.open("ab", buffering=0) as stream:
            content = "".join(lines(entries.items())).encode()
            # Of a disk that is nearly full a part may be written, and no error said.
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
        self.finished |= entries


def lines(entries: Iterable[tuple[str, Any]]) -> Iterable[str]:
    """Write entries as the lines of a journal."""
    return (json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n" for entry in entries)
