"""Which SEG and RTSTRUCT files say what about which image, and the masks that come of it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    RTStructureSetStorage,
    SegmentationStorage,
    SurfaceSegmentationStorage,
)

from stages.core.cli import BadInput, Problems, list_names, log
from stages.data.datasets import Record, dicom, files, volumes
from stages.data.datasets.dicom import Header
from stages.data.datasets.labels import Labels
from stages.data.datasets.segmentations import Part, rtstruct, seg
from stages.data.datasets.segmentations.index import Index, OpenFile, name_segments, read_uid

# pydicom 3.0 has no name for the second, of LABELMAP.
_SEG = (SegmentationStorage, UID("1.2.840.10008.5.1.4.1.1.66.7"))
_MAX_NAMED = 5


def _read_class(path: Path, dataset: pydicom.Dataset) -> str:
    with files.report_read_errors(path, "a readable DICOM file"):
        return read_uid(dataset, "SOPClassUID")


def is_segmentation(path: Path) -> bool:
    """Return whether a DICOM file is a SEG or an RTSTRUCT.

    Raises
    ------
    BadInput
        The file cannot be read, or is a segmentation by surfaces.
    """
    found = _read_class(path, dicom.open_dataset(path, ["SOPClassUID"]))
    if found == SurfaceSegmentationStorage:
        raise BadInput(
            path,
            "SOPClassUID",
            found="a segmentation by surfaces",
            expected="a segmentation by pixels (SEG), or contours (RTSTRUCT)",
            mend="export it as SEG",
        )
    return found in (*_SEG, RTStructureSetStorage)


def _read_index(path: Path) -> Index:
    dataset = dicom.open_dataset(path)
    if _read_class(path, dataset) == RTStructureSetStorage:
        return rtstruct.read_index(path, dataset)
    return seg.read_index(path, dataset)


def _open(path: Path) -> OpenFile:
    dataset = dicom.open_dataset(path)
    if _read_class(path, dataset) == RTStructureSetStorage:
        return rtstruct.StructFile(path, dataset)
    return seg.SegFile(path, dataset)


@volumes.cache_last_two
def _open_all(paths: tuple[Path, ...]) -> list[OpenFile]:
    """Open the files of an image; those of the next image are mostly the same."""
    return [_open(path) for path in paths]


def _find_referenced(index: Index, images: Collection[Header]) -> list[Header]:
    """Return the images of the series to which a file refers.

    If it refers to none: those of its frame of reference.
    """
    named = index.images.union(*(item.images for item in index.items))
    series = index.series | {image.series for image in images if image.uid in named} - {""}
    if not named and not series:
        frames = index.frames_of_reference
        return [image for image in images if image.frame_of_reference in frames]
    return [image for image in images if image.uid in named or image.series in series]


def _check_unique(path: Path, images: Sequence[Header]) -> None:
    counts = Counter(image.uid for image in images)
    for uid, count in counts.items():
        if count > 1:
            names = [image.path.name for image in images if image.uid == uid]
            raise BadInput(
                path,
                "images",
                found=f"{count} images with one SOPInstanceUID: {list_names(names, _MAX_NAMED)}",
                expected="each image of its series once",
                mend="remove the copies of the image",
            )


def _assign_file(path: Path, images: Collection[Header]) -> dict[Path, Part]:
    index = _read_index(path)
    referenced = _find_referenced(index, images)
    _check_unique(path, referenced)
    items: dict[Path, list[int]] = {image.path: [] for image in referenced}
    unmatched = 0
    for number, item in enumerate(index.items):
        found = item.find_images(referenced)
        unmatched += not found
        for image in found:
            items[image.path].append(number)
    if not referenced or (index.items and unmatched == len(index.items)):
        raise BadInput(
            path,
            "images",
            found=f"{len(index.items)} frames or contours, of no image of the folder",
            expected="at least one of an image of the folder, by its SOPInstanceUID or position",
            mend="add the images on which it was drawn, unchanged, or remove the file",
        )
    if unmatched:
        log.warning(
            "%s: %d of %d frames or contours are of no image of the folder",
            *(path, unmatched, len(index.items)),
        )
    drawn = {image.series for image in referenced if items[image.path]}
    for image in referenced:
        # A series may be referred to only because it helped to draw on another one.
        if index.items and not items[image.path] and image.series not in drawn - {""}:
            del items[image.path]
    empty = sum(not numbers for numbers in items.values())
    log.info("%s: masks of %d images, %d of them empty", path, len(items), empty)
    segments = tuple(index.segments.items())
    return {image: Part(path, segments, tuple(numbers)) for image, numbers in items.items()}


def join(
    records: Iterable[list[Record]],
    images: Collection[Header],
    paths: Iterable[Path],
    problems: Problems,
) -> None:
    """Give records what SEG and RTSTRUCT files state about their images.

    Frames and contours belong to the images that they name by SOPInstanceUID, else to those at
    their position in the series to which the file refers. Writers leave out empty slices, so the
    other images of a series with a frame or contour have an empty mask. In a file without any, this
    holds for all series to which it refers. About images of other series the file states nothing.

    Parameters
    ----------
    records
        Lists of records, which receive the `parts`.
    images
        The headers of the records' DICOM images.
    paths
        The SEG and RTSTRUCT files.
    problems
        Receives files that cannot be read (see `seg.read_index` and `rtstruct.read_index`) or are
        of no image, frames with another geometry than their image, and images that also have a mask
        file of their own.
    """
    parts: dict[Path, list[Part]] = defaultdict(list)
    for path in paths:
        with problems.collect():
            for image, part in _assign_file(path, images).items():
                parts[image].append(part)
    for of_file in records:
        for i, record in enumerate(of_file):
            if not (found := parts.get(record.image)):
                continue
            of_file[i] = replace(record, parts=tuple(found))
            if record.mask is not None:
                problems.append(
                    BadInput(
                        record.mask,
                        "mask",
                        found=f"a second mask of the image, which {found[0].path.name} has too",
                        expected="one mask for an image",
                        mend="remove one of the two files",
                    )
                )


def _check_one_segment(parts: Sequence[Part]) -> None:
    segments = list(dict.fromkeys(segment for part in parts for segment in part.segments))
    if len(segments) > 1:
        paths = list(dict.fromkeys(part.path for part in parts))
        raise BadInput(
            paths[0],
            "segments",
            found=f"{len(segments)}"
            + (f", together with {list_names([p.name for p in paths[1:]])}" if paths[1:] else "")
            + f": {name_segments(segments)}",
            expected="one segment",
            mend="name the numbers of the segments of the foreground in `prepare.foreground`, such "
            "as `foreground: [1, 2]`",
        )


def _check_same_segment(
    segment: int, image: Header, found: list[tuple[Part, NDArray[np.bool_]]]
) -> None:
    (first, mask), *others = found
    for other, other_mask in others:
        names = [dict(part.segments)[segment] for part in (first, other)]
        differing = np.count_nonzero(mask != other_mask)
        if names[0] != names[1] or differing:
            raise BadInput(
                other.path,
                f"segment {segment} {names[1]!r}",
                found=f"segment {segment} {names[0]!r} in {first.path.name}"
                + (f", with {differing} other pixels in {image.path.name}" if differing else ""),
                expected="one file for a segment of an image, or the same segment in all",
                mend="remove one of the files, or give different segments different numbers",
            )


def read_mask(image: Path, parts: Sequence[Part], labels: Labels | None) -> NDArray[np.bool_]:
    """Read the mask of an image from what SEG and RTSTRUCT files state about it.

    Parameters
    ----------
    image
        The DICOM file of the image.
    parts
        What `join` found for it; at least one.
    labels
        The numbers of the segments that are foreground, which may overlap; None: there is only one
        segment.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    BadInput
        A file cannot be read; there are several segments without `labels`; two files give a segment
        of this image differently, or another name to its number.
    """
    header = dicom.read_header(image)
    if labels is None:
        _check_one_segment(parts)
        chosen = {number for part in parts for number, _ in part.segments}
    else:
        for part in parts:
            labels.see_segments(part.path, dict(part.segments))
        chosen = set(labels.foreground)
    opened = _open_all(tuple(part.path for part in parts))
    mask = np.zeros([int(header.geometry[name][0]) for name in ("Rows", "Columns")], bool)
    for segment in sorted(chosen):
        found = [
            (part, file.draw(segment, part.items, header))
            for part, file in zip(parts, opened, strict=True)
            if segment in dict(part.segments)
        ]
        if found:
            _check_same_segment(segment, header, found)
            mask |= found[0][1]
    return mask
