"""Find what to segment: pictures, DICOM images and series, and NIfTI volumes, in folders or not."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems, describe_system_error
from stages.core.contents import is_hidden
from stages.data.datasets import dicom, files, folder, listing, volumes

_MEND = "export the volume again as NIfTI"
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, eq=False)
class Item:
    """A picture, a DICOM image, a DICOM series or a NIfTI volume: what gets one mask.

    Attributes
    ----------
    files
        One file; for a series the file of each slice, from the lowest along its normal.
    stem
        Path of its mask in the output folder, without an ending.
    slice_stems
        The same for a picture of each slice. For a volume of more than one slice `_` and the
        number follow the stem, from 1 at the feet; for DICOM it is the stem of each file.
    """

    kind: folder.FileKind
    files: tuple[Path, ...]
    stem: Path
    slice_stems: tuple[Path, ...]

    def read(self, index: int) -> NDArray[Any]:
        """Read a slice, oriented as in training: (H, W, 3) uint8 or (H, W, 1) float32.

        Raises
        ------
        BadInput
            The slice cannot be read.
        """
        if self.kind == "NIfTI":
            return volumes.read_slice(self.files[0], index, _MEND)
        if self.kind == "picture":
            return files.read_image(self.files[0])
        return dicom.read_image(self.files[index])[0]

    @property
    def ending(self) -> str:
        """Ending of the file name of a volume: `.nii` or `.nii.gz`."""
        return ".nii.gz" if self.files[0].name.lower().endswith(".gz") else ".nii"


def _walk(directory: Path, skip: Path, seen: set[Path], problems: Problems) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without hidden ones and without the folder `skip`.

    `seen` prevents that links lead in a circle, or to the same folder twice.
    """
    if (real := directory.resolve()) in seen or real == skip:
        return
    seen.add(real)
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        problem = describe_system_error(error)
        assert problem is not None
        problems.append(problem)
        return
    for path in entries:
        if is_hidden(path.name):
            continue
        if path.is_dir():
            yield from _walk(path, skip, seen, problems)
        else:
            yield path


def _find_files(
    images: Iterable[Path], output: Path, problems: Problems
) -> Iterator[tuple[Path, Path]]:
    """Yield each file once, and the folder of its mask relative to the output folder."""
    seen_files: set[Path] = set()
    for path in images:
        if not path.exists():
            problems.append(
                BadInput(
                    path,
                    "images",
                    found="nothing",
                    expected="an image, or a folder of images",
                    mend="correct the path in --images",
                )
            )
            continue
        found = _walk(path, output.resolve(), set(), problems) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        for file in found:
            if (real := file.resolve()) not in seen_files:
                seen_files.add(real)
                yield file, file.parent.relative_to(root)


@dataclass(frozen=True)
class _Slice:
    """A DICOM file: its series ("" if unknown), its place in it, and where its mask goes."""

    path: Path
    parent: Path
    stem: str
    series: str
    place: tuple[float, int, str]


def _read_slice(path: Path, parent: Path, stem: str) -> _Slice:
    dataset = dicom.open_dataset(path, [*dicom.HEADER_TAGS, "InstanceNumber"])
    header = dicom.parse_header(path, dataset)
    series, geometry = header.series, header.geometry
    with files.report_read_errors(path, "a number as InstanceNumber"):
        number = int(dataset.get("InstanceNumber") or 0)
    if series and not _UID.fullmatch(series):
        # It becomes the name of a file.
        raise BadInput(
            path,
            "SeriesInstanceUID",
            found=repr(series),
            expected="digits and dots",
            mend="correct the tag, or delete it: the image is then a series of its own",
        )
    along = 0.0
    position = geometry.get("ImagePositionPatient", np.zeros(0))
    orientation = geometry.get("ImageOrientationPatient", np.zeros(0))
    if (position.size, orientation.size) == (3, 6):
        along = float(position @ np.cross(orientation[:3], orientation[3:]))
    return _Slice(path, parent, stem, series, (along, number, path.name))


def _group_series(slices: list[_Slice], as_series: bool) -> Iterator[Item]:
    """Yield an item for each series or, unless `as_series`, for each image."""
    groups: dict[object, list[_Slice]] = {}
    for one in slices:
        groups.setdefault(one.series if as_series and one.series else one.path, []).append(one)
    for group in groups.values():
        ordered = sorted(group, key=lambda one: one.place)
        stems = tuple(one.parent / one.stem for one in ordered)
        stem = stems[0]
        if len(ordered) > 1:
            stem = Path(os.path.commonpath([one.parent for one in ordered])) / ordered[0].series
        yield Item("DICOM", tuple(one.path for one in ordered), stem, stems)


def find_items(
    images: Iterable[Path], output: Path, problems: Problems, *, as_series: bool
) -> list[Item]:
    """Find all images in files and folders, also in subfolders, sorted by path.

    Parameters
    ----------
    images
        Files, and folders; hidden files and hidden folders in them are skipped.
    output
        The folder of the masks; images in it are skipped.
    problems
        Receives a problem for each file that is no image or whose header cannot be read.
    as_series
        Join the DICOM images with the same SeriesInstanceUID.
    """
    items: list[Item] = []
    slices: list[_Slice] = []
    for path, parent in _find_files(images, output, problems):
        with problems.collect():
            name, kind = folder.classify_file(path)
            name = listing.normalise_id(name)
            stem = parent / name
            if kind == "DICOM":
                slices.append(_read_slice(path, parent, name))
            elif kind == "picture":
                items.append(Item(kind, (path,), stem, (stem,)))
            else:
                count = volumes.read_grid(path, _MEND).shape[0]
                numbered = tuple(parent / f"{name}_{i}" for i in range(1, count + 1))
                items.append(Item(kind, (path,), stem, (stem,) if count == 1 else numbered))
    items += _group_series(slices, as_series)
    return sorted(items, key=lambda item: item.stem)
