"""What lies in a folder of images or masks, and the ids of the samples in it."""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from stages.core.cli import BadInput, Problems
from stages.core.contents import is_hidden


def as_id(name: str) -> str:
    """Write a name in one way, where Unicode has several (NFC): macOS takes accents apart."""
    return unicodedata.normalize("NFC", name)


def check_folder(
    folder: Path, mend: str = "put the folder there, or correct `root` in config.yaml"
) -> None:
    """Stop where `folder` is none.

    Raises
    ------
    BadInput
        It does not exist, or is a file.
    """
    if not folder.is_dir():
        raise BadInput(
            folder,
            "folder",
            found="a file" if folder.exists() else "none",
            expected="a folder",
            mend=mend,
        )


def list_folder(folder: Path) -> list[Path]:
    """List what is in a folder, hidden files aside, in the order of the names.

    Raises
    ------
    BadInput
        As in `check_folder`.
    """
    check_folder(folder)
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def by_id(
    paths: Iterable[Path], stem: Callable[[Path], str], problems: Problems
) -> dict[str, Path]:
    """Find the file of each id.

    Parameters
    ----------
    paths
        The files.
    stem
        Says what is left of a file's name without its ending, or raises `BadInput`.
    problems
        Takes what `stem` raises, and the second file of an id.
    """
    found: dict[str, Path] = {}
    for path in paths:
        with problems.collect():
            name = as_id(stem(path))
            if name in found:
                raise BadInput(
                    path,
                    f"id {name!r}",
                    found=f"also {found[name].name}",
                    expected="one file per id",
                    mend="rename one of the two, or take it away",
                )
            found[name] = path
    return found
