"""Any lab's own images: pictures, DICOM files and NIfTI volumes, with or without masks."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.data.datasets import Pixels, Record, dicom, files, listing, published, volumes

Kind = Literal["picture", "DICOM", "NIfTI"]
# Longest first, where one ends in the other.
_ENDINGS: dict[str, Kind] = {
    ".nii.gz": "NIfTI", ".nii": "NIfTI", ".dcm": "DICOM", ".png": "picture", ".jpg": "picture",
    ".jpeg": "picture", ".tif": "picture", ".tiff": "picture", ".bmp": "picture",
}  # fmt: skip
_MEND = "export the volume again as NIfTI"


def _is_dicom(path: Path) -> bool:
    with files.reading(path, "a readable file"), path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def classify(path: Path) -> tuple[str, Kind]:
    """Return the stem of an image file, and what it is.

    By its ending, whatever its case. A file without one of ours may be DICOM, by its content: its
    stem is the whole name then, which may be a UID with dots.

    Raises
    ------
    BadInput
        It is none of these.
    """
    for ending, kind in _ENDINGS.items():
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], kind
    if path.is_file() and _is_dicom(path):
        return path.name, "DICOM"
    raise BadInput(
        path,
        "file",
        found="another kind of file" if path.is_file() else "a folder",
        expected=f"an image: {', '.join(_ENDINGS)}, or DICOM without an ending",
        mend="convert it, or take it away",
    )


def _by_stem(folder: Path, problems: Problems) -> dict[str, Path]:
    """Find the images of a folder, in the order of their names."""
    return listing.by_id(listing.list_folder(folder), lambda path: classify(path)[0], problems)


def _samples(stem: str, image: Path, mask: Path | None) -> list[Record]:
    """List what is in an image file: itself, or the slices of a volume."""
    kind = classify(image)[1]
    if mask is not None and (kind == "NIfTI") != (classify(mask)[1] == "NIfTI"):
        raise BadInput(
            mask,
            "mask",
            found=f"a {classify(mask)[1]} file, though {image.name} is a {kind} file",
            expected="volumes with volumes, and single images with single images",
            mend="save the mask in a format of its image's kind",
        )
    if kind == "picture":
        return [Record(stem, stem, None, image, mask)]
    if kind == "DICOM":
        header = dicom.read_header(image)
        if mask is not None and classify(mask)[1] == "DICOM":
            dicom.check_same_place(header, dicom.read_header(mask))
        return [Record(stem, header.patient or stem, None, image, mask)]
    if mask is None:
        slices = volumes.read_grid(image, _MEND).shape[0]
    else:
        slices = volumes.check_same_grid(image, mask, _MEND).shape[0]
    names = [stem] if slices == 1 else [f"{stem}_{number}" for number in range(1, slices + 1)]
    return [Record(name, stem, None, image, mask, i) for i, name in enumerate(names)]


def list_images(images: Path, problems: Problems) -> list[Record]:
    """List what is in a folder of images alone, as `index` does."""
    records = []
    for stem, image in _by_stem(images, problems).items():
        with problems.collect():
            records += _samples(stem, image, None)
    return records


def index(root: Path, problems: Problems) -> list[Record]:
    """List the images, in the order of their names or of the split files.

    An id is the name without its ending. That of a volume's slice has `_` and the number of the
    slice behind it, from 1 at the feet; a volume of one slice is named as the file. Subjects are
    PatientID of a DICOM file that has one, the volume of a slice, else each image. A line of a
    split file is an id, or names a volume with all its slices.

    Raises
    ------
    BadInput
        There is no folder of images, or `masks` is a file.
    """
    images = _by_stem(root / "images", problems)
    masks = _by_stem(root / "masks", problems) if (root / "masks").exists() else {}
    looked_for = f"{root / 'images'}/<id> and an ending"
    if lone := sorted(masks.keys() - images.keys()):
        problems.append(published.without_image(root / "masks", lone, looked_for))
    by_name: dict[str, list[Record]] = {}
    records = []
    for stem, image in images.items():
        # Also of what cannot be read: a split file that lists it is not wrong for that.
        by_name[stem] = []
        with problems.collect():
            by_name[stem] = _samples(stem, image, masks.get(stem))
        records += by_name[stem]
    if (listed := published.read_splits(root, problems)) is None:
        return records
    by_name = {record.sample_id: [record] for record in records} | by_name
    published.check_listed(root, listed, by_name, (looked_for, _ENDINGS), problems)
    return [
        replace(record, split=split) for name, split in listed for record in by_name.get(name, [])
    ]


@volumes.kept
def _mask_of_volume(path: Path) -> NDArray[np.bool_]:
    return files.foreground(path, volumes.read_voxels(path, _MEND))


def _read_mask(record: Record, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    if record.mask is None:
        return None
    if record.slice is not None:
        return np.asarray(_mask_of_volume(record.mask)[record.slice])
    if classify(record.mask)[1] == "picture":
        return files.read_mask(record.mask, shape)
    return dicom.read_mask(record.mask, shape)


def read(record: Record) -> Pixels:
    """Read an image, its mask, and the size of its pixels where the file states it."""
    spacing = (float("nan"), float("nan"))
    if record.slice is not None:
        image = volumes.read_slice(record.image, record.slice, _MEND)
        spacing = volumes.read_grid(record.image, _MEND).spacing[1:]
    elif classify(record.image)[1] == "picture":
        image = files.read_image(record.image)
    else:
        image, spacing = dicom.read(record.image)
    return Pixels(image, _read_mask(record, image.shape[:2]), spacing)
