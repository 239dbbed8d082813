"""What is in folders and texts: their files, changes without reading them, and JSON."""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any


def is_hidden(name: str) -> bool:
    """Return whether the name starts with a dot or belongs to a hidden file of Windows."""
    return name[0] == "." or name.lower() in ("thumbs.db", "desktop.ini")


def find_files(folder: str) -> Iterator[tuple[str, int, int]]:
    """Yield path, size (bytes) and modification time (ns) of all files below a folder.

    Hidden files and hidden folders are skipped.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from find_files(entry.path)
            elif entry.is_file():
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


@cache
def folder_digest(folder: Path) -> str:
    """Hash the names, sizes and times of all files below a folder, except hidden ones.

    The folder's own time does not change when a file is replaced or a subfolder changes. The
    files are not read: 20,000 files take an eighth of a second.
    """
    files = sorted(find_files(str(folder)))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def describe_os_error(error: OSError) -> str:
    """Describe what the file system refused, and how to mend it."""
    mend = "mend it, or remove it"
    if isinstance(error, PermissionError):
        mend = "give this user permission to read it and its parent folders"
    return f"{error.filename}: {error.strerror}: {mend}"


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    ValueError
        The text is not JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
