"""What the published 2-D releases share: split files of ids, and image files beside masks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from stages.cli import BadInput, Problems
from stages.datasets import Record, Split, files


def _read_ids(file: Path) -> list[str]:
    if not file.is_file():
        raise BadInput(
            file,
            "file",
            found="none, though other split files are there",
            expected="the ids of this split, one a line",
            mend="add the file; or take the others away, and prepare.split: drawn draws the splits",
        )
    with files.reading(file, "UTF-8 text, one id a line", "save it as UTF-8 text"):
        lines = file.read_text("utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def read_splits(root: Path, problems: Problems) -> list[tuple[str, Split]] | None:
    """Read the ids of train.txt, val.txt and test.txt, in this order.

    Returns
    -------
    Each id with its split; None where there is none of the files. Where there is one, `problems`
    takes the absence of train.txt or test.txt; val.txt may be absent.
    """
    names: dict[Split, Path] = {split: root / f"{split}.txt" for split in get_args(Split)}
    if not any(file.is_file() for file in names.values()):
        return None
    found: list[tuple[str, Split]] = []
    for split, file in names.items():
        if split != "val" or file.is_file():
            with problems.collect():
                found += [(sample_id, split) for sample_id in _read_ids(file)]
    return found


def not_there(root: Path, split: Split, name: str, looked_for: str) -> BadInput:
    """Make the problem of a line `name` of a split file that no image belongs to."""
    return BadInput(
        root / f"{split}.txt",
        f"id {name!r}",
        found=f"no file {looked_for}",
        expected="one image per id",
        mend="add the image or delete the line",
    )


def index(
    root: Path,
    problems: Problems,
    image: str,
    mask: str,
    subject: Callable[[str], str] = lambda sample_id: sample_id,
) -> list[Record]:
    """List the samples of the split files, training first; of all images where there are none.

    Parameters
    ----------
    root
        The raw folder.
    problems
        Takes ids without an image, which are left out, and what `read_splits` finds.
    image, mask
        A sample's files, relative to `root`, with {} for its id. A mask that does not exist is
        None.
    subject
        A sample's id → its subject's. By default each image is a subject.
    """
    listed: Sequence[tuple[str, Split | None]] | None = read_splits(root, problems)
    if listed is None:
        names = sorted(path.name for path in root.glob(image.format("*")) if path.name[0] != ".")
        listed = [(Path(name).stem, None) for name in names]
    records = []
    for sample_id, split in listed:
        path, mask_path = root / image.format(sample_id), root / mask.format(sample_id)
        if split is not None and not path.is_file():
            problems.append(not_there(root, split, sample_id, str(path)))
            continue
        drawn = mask_path if mask_path.is_file() else None
        records.append(Record(sample_id, subject(sample_id), split, path, drawn))
    return records
