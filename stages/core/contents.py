"""What lies in a folder that a rule reads, without a look into the files."""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, by its dot or by Windows, which makes it."""
    return name[0] == "." or name.lower() in ("thumbs.db", "desktop.ini")


def find_files(folder: str) -> Iterator[tuple[str, int, int]]:
    """Yield path, bytes and time (ns) of all files in a folder; hidden ones and folders aside."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from find_files(entry.path)
            elif entry.is_file():
                about = entry.stat()
                yield entry.path, about.st_size, about.st_mtime_ns


@cache
def contents(folder: Path) -> str:
    """Digest the names, sizes and times of all files in a folder, hidden ones aside.

    The folder's own time tells neither what is replaced under its name nor what lies deeper. The
    files themselves are not read: 20,000 take an eighth of a second.
    """
    found = sorted(find_files(str(folder)))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def refusal(error: OSError) -> str:
    """Say what the file system refused, and how to mend it."""
    mend = "mend it, or take it away"
    if isinstance(error, PermissionError):
        mend = "let this user read it, and the folders that it lies in"
    return f"{error.filename}: {error.strerror}: {mend}"
