"""Your own images: pictures, DICOM files and NIfTI volumes, with or without masks."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, list_names
from stages.data.datasets import RawSample, Record, dicom, files, listing, published, volumes
from stages.data.datasets.labels import Labels, foreground_mask
from stages.data.datasets.segmentations import matching

FileKind = Literal["picture", "DICOM", "NIfTI"]
# The first match counts, so longer endings come first.
KIND_BY_ENDING: dict[str, FileKind] = {
    ".nii.gz": "NIfTI", ".nii": "NIfTI", ".dcm": "DICOM", ".png": "picture", ".jpg": "picture",
    ".jpeg": "picture", ".tif": "picture", ".tiff": "picture", ".bmp": "picture",
}  # fmt: skip
_MEND = "export the volume again as NIfTI"


def classify_file(path: Path) -> tuple[str, FileKind]:
    """Return the stem and the kind of an image file.

    The ending decides, in upper or lower case. A file without a known ending is DICOM if its
    content says so; its stem is then the whole name, which may be a UID with dots.

    Raises
    ------
    BadInput
        The file is of no known kind.
    """
    for ending, kind in KIND_BY_ENDING.items():
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], kind
    if path.is_file() and dicom.has_prefix(path):
        return path.name, "DICOM"
    raise BadInput(
        path,
        "file",
        found="another kind of file" if path.is_file() else "a folder",
        expected=f"an image: {', '.join(KIND_BY_ENDING)}, or DICOM without an ending",
        mend="convert the file, or remove it",
    )


def _by_stem(paths: list[Path], problems: Problems) -> dict[str, Path]:
    return listing.files_by_id(paths, lambda path: classify_file(path)[0], problems)


def _find_images(folder: Path, problems: Problems) -> dict[str, Path]:
    """Find the images of a folder by stem, sorted by name."""
    return _by_stem(listing.list_folder(folder), problems)


def _find_masks(folder: Path, problems: Problems) -> tuple[dict[str, Path], list[Path]]:
    """Find the masks of single images by stem, and the SEG and RTSTRUCT files of many images."""
    masks: list[Path] = []
    segmentations: list[Path] = []
    for path in listing.list_folder(folder) if folder.exists() else []:
        with problems.collect():
            is_dicom = classify_file(path)[1] == "DICOM"
            of_many = is_dicom and matching.is_segmentation(path)
            (segmentations if of_many else masks).append(path)
    return _by_stem(masks, problems), segmentations


def list_file(stem: str, image: Path, mask: Path | None) -> list[Record]:
    """List the samples of an image file: one for a single image, one for each slice of a volume.

    The id of a single image is `stem`; for a slice `_` and its number follow, from 1 at the feet,
    unless the volume has only one slice. `mask` is the file of its mask.

    Raises
    ------
    BadInput
        A file cannot be read or is of no known kind, or the mask does not belong to the image.
    """
    kind = classify_file(image)[1]
    if mask is not None and (kind == "NIfTI") != (classify_file(mask)[1] == "NIfTI"):
        raise BadInput(
            mask,
            "mask",
            found=f"a {classify_file(mask)[1]} file, but {image.name} is a {kind} file",
            expected="a volume for a volume, and a single image for a single image",
            mend="save the mask in a format of the same kind as the image",
        )
    if kind == "picture":
        return [Record(stem, stem, None, image, mask)]
    if kind == "DICOM":
        header = dicom.read_header(image)
        if mask is not None and classify_file(mask)[1] == "DICOM":
            dicom.check_same_geometry(header, dicom.read_header(mask))
        return [Record(stem, stem, None, image, mask, patient_id=header.patient_id)]
    if mask is None:
        slices = volumes.read_grid(image, _MEND).shape[0]
    else:
        slices = volumes.check_same_grid(image, mask, _MEND).shape[0]
    names = [stem] if slices == 1 else [f"{stem}_{number}" for number in range(1, slices + 1)]
    return [Record(name, stem, None, image, mask, i) for i, name in enumerate(names)]


def list_images(images: Path, problems: Problems) -> list[Record]:
    """List the samples of a folder that holds only images, as `list_records` does.

    `problems` also receives ids that occur twice; the list omits their samples.
    """
    records = []
    for stem, image in _find_images(images, problems).items():
        with problems.collect():
            records += list_file(stem, image, None)
    counts = Counter(record.sample_id for record in records)
    if repeated := [name for name, count in counts.items() if count > 1]:
        problems.append(
            BadInput(
                images,
                "ids",
                found=f"more than once: {list_names(repeated, published.MAX_NAMED)}",
                expected="each once: a slice of a volume may have the name of another file",
                mend="rename one of the files",
            )
        )
    return [record for record in records if counts[record.sample_id] == 1]


def apply_splits(
    root: Path, records_by_name: dict[str, list[Record]], expected_image: str, problems: Problems
) -> list[Record] | None:
    """List the samples in the order of the split files of `root`; None if there are none.

    Parameters
    ----------
    records_by_name
        The samples of each image file by its stem, also of one that cannot be read. A line of a
        split file is a stem, or the id of a sample.
    expected_image
        The path of an image, for messages.
    problems
        Receives lines that mean no image.
    """
    if (split_ids := published.read_splits(root, problems)) is None:
        return None
    by_id = {r.sample_id: [r] for records in records_by_name.values() for r in records}
    by_id |= records_by_name
    published.check_split_ids(root, split_ids, by_id, (expected_image, KIND_BY_ENDING), problems)
    return [
        replace(record, split=split) for name, split in split_ids for record in by_id.get(name, [])
    ]


def _join_patients(records: dict[str, list[Record]]) -> None:
    """Give all DICOM files of a patient the subject of the first."""
    subjects: dict[str, str] = {}
    for of_file in records.values():
        for i, record in enumerate(of_file):
            if record.patient_id:
                subject = subjects.setdefault(record.patient_id, record.subject_id)
                of_file[i] = replace(record, subject_id=subject)


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the images, in the order of the split files, else sorted by name.

    The id of an image is its file name without the ending. For a slice of a volume, `_` and the
    number of the slice follow, from 1 at the feet, unless the volume has only one slice. The
    subject is the volume of a slice, or else the image itself; DICOM files with the same PatientID
    have the subject of the first. A line of a split file is an id, or names a volume and means all
    its slices. A mask has the id of its image; a SEG or an RTSTRUCT holds masks of the DICOM images
    that it names: see `matching.join`.

    Raises
    ------
    BadInput
        There is no folder `images`, or `masks` is a file.
    """
    images = _find_images(root / "images", problems)
    masks, segmentations = _find_masks(root / "masks", problems)
    expected_image = f"{root / 'images'}/<id> and an ending"
    if without_image := sorted(masks.keys() - images.keys()):
        problems.append(
            published.masks_without_image(root / "masks", without_image, expected_image)
        )
    records_by_name: dict[str, list[Record]] = {}
    for stem, image in images.items():
        # Also for a file that cannot be read, so that a split file may list it.
        records_by_name[stem] = []
        with problems.collect():
            records_by_name[stem] = list_file(stem, image, masks.get(stem))
    _join_patients(records_by_name)
    if segmentations:
        found = [record.image for of_file in records_by_name.values() for record in of_file]
        headers = [dicom.read_header(p) for p in found if classify_file(p)[1] == "DICOM"]
        matching.join(records_by_name.values(), headers, segmentations, problems)
    in_splits = apply_splits(root, records_by_name, expected_image, problems)
    return [*chain(*records_by_name.values())] if in_splits is None else in_splits


@volumes.cache_last_two
def _read_volume_mask(path: Path, labels: Labels | None) -> NDArray[np.bool_]:
    return foreground_mask(path, volumes.read_voxels(path, _MEND), labels)


def _read_mask(record: Record, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    if record.parts:
        return matching.read_mask(record.image, record.parts, record.labels)
    if record.mask is None:
        return None
    if record.slice is not None:
        return np.asarray(_read_volume_mask(record.mask, record.labels)[record.slice])
    if classify_file(record.mask)[1] == "picture":
        return files.read_mask(record.mask, shape, record.labels)
    return dicom.read_mask(record.mask, shape, record.labels)


def read(record: Record) -> RawSample:
    """Read an image, its mask, and the pixel spacing if the file states it."""
    spacing = (float("nan"), float("nan"))
    if record.slice is not None:
        image = volumes.read_slice(record.image, record.slice, _MEND)
        spacing = volumes.read_grid(record.image, _MEND).spacing[1:]
    elif classify_file(record.image)[1] == "picture":
        image = files.read_image(record.image)
    else:
        image, spacing = dicom.read_image(record.image)
    return RawSample(image, _read_mask(record, image.shape[:2]), spacing)
