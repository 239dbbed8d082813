"""List the files of a folder of images or masks, and the ids of their samples."""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from stages.core.cli import BadInput, Problems
from stages.core.contents import is_hidden


def normalise_id(name: str) -> str:
    """Normalise the Unicode of a name (NFC): macOS stores accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def check_folder(
    folder: Path, mend: str = "create the folder, or correct `root` in config.yaml"
) -> None:
    """Check that `folder` is a folder.

    Raises
    ------
    BadInput
        `folder` does not exist, or is a file.
    """
    if not folder.is_dir():
        raise BadInput(
            folder,
            "folder",
            found="a file" if folder.exists() else "nothing",
            expected="a folder",
            mend=mend,
        )


def list_folder(folder: Path) -> list[Path]:
    """List the entries of a folder, without hidden files, sorted by name.

    Raises
    ------
    BadInput
        As in `check_folder`.
    """
    check_folder(folder)
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def files_by_id(
    paths: Iterable[Path], stem: Callable[[Path], str], problems: Problems
) -> dict[str, Path]:
    """Return the file of each id.

    Parameters
    ----------
    paths
        The files.
    stem
        Returns the file name without its ending, or raises `BadInput`.
    problems
        Receives what `stem` raises, and a problem for a second file of the same id.
    """
    found: dict[str, Path] = {}
    for path in paths:
        with problems.collect():
            name = normalise_id(stem(path))
            if name in found:
                raise BadInput(
                    path,
                    f"id {name!r}",
                    found=f"also {found[name].name}",
                    expected="one file per id",
                    mend="rename or remove one of the two",
                )
            found[name] = path
    return found
