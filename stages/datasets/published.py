"""What the published 2-D releases share: split files of ids, and image files beside masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stages.cli import BadInput
from stages.datasets import Record


def read_split(root: Path, split: Literal["train", "test"]) -> list[str]:
    """Read the ids of `<split>.txt`, in its order, without blank lines; no id twice."""
    file = root / f"{split}.txt"
    ids = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise BadInput(
            file,
            "ids",
            found=f"{twice[:5]} more than once",
            expected="each id once",
            mend="delete the repeated lines",
        )
    return ids


def index(
    root: Path,
    image: Callable[[str], str],
    mask: Callable[[str], str],
    subject: Callable[[str], str] = lambda sample_id: sample_id,
) -> list[Record]:
    """List the samples of both split files, training first.

    Parameters
    ----------
    root
        The raw folder.
    image, mask
        A sample's id → its file, relative to `root`. A mask that does not exist is None.
    subject
        A sample's id → its subject's. By default each image is a subject.

    Raises
    ------
    BadInput
        An image is absent, or a subject is in both splits.
    """
    records: list[Record] = []
    for split in ("train", "test"):
        for sample_id in read_split(root, split):
            path, mask_path = root / image(sample_id), root / mask(sample_id)
            if not path.is_file():
                raise BadInput(
                    root / f"{split}.txt",
                    f"id {sample_id!r}",
                    found=f"no file {path}",
                    expected="one image per id",
                    mend="add the image or delete the line",
                )
            records.append(
                Record(
                    sample_id,
                    subject(sample_id),
                    split,
                    path,
                    mask_path if mask_path.is_file() else None,
                )
            )
    check_no_leak(root, records)
    return records


def check_no_leak(root: Path, records: list[Record]) -> None:
    """Stop where a subject is both in training and in test."""
    train, test = ({r.subject_id for r in records if r.split == s} for s in ("train", "test"))
    if both := sorted(train & test):
        raise BadInput(
            root,
            "split",
            found=f"subjects in train and test: {both[:10]}",
            expected="each subject in one split",
            mend="move all of a subject's images to one",
        )


def open_image(path: Path, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) or (H, W) uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(
            path, "file", found=error, expected="a readable image", mend="replace the file"
        ) from error


def open_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a grey mask, 8 bit: foreground from 128, as JPEG masks are not exactly 0 and 255."""
    grey = open_image(path, "L")
    if grey.shape != shape:
        raise BadInput(
            path,
            "size",
            found=f"{grey.shape} (height, width)",
            expected=f"the image's {shape}",
            mend="pair the mask with its own image",
        )
    if grey.max() == 1:
        raise BadInput(
            path,
            "grey levels",
            found="0 and 1",
            expected="0 and 255",
            mend="multiply the mask by 255",
        )
    return grey >= 128
