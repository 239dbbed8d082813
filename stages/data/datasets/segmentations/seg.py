"""Read DICOM segmentations (SEG): each frame is the mask of segments in one image."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pydicom
from highdicom.seg import Segmentation
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.data.datasets import dicom, files
from stages.data.datasets.dicom import Header
from stages.data.datasets.segmentations.index import (
    Index,
    check_plain,
    name_segments,
    read_sequence,
    read_uid,
)

# As pydicom in dicom.py.
logging.getLogger("highdicom").setLevel(logging.CRITICAL)
_EXPECTED = "a readable DICOM segmentation (SEG)"
_MEND = "export the segmentation again, on the images of the data set"
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
# All tags that give the position of a frame's pixels in the patient.
_POSITION = {
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A frame: of one segment, or of all in a LABELMAP.

    Attributes
    ----------
    number
        From 1.
    segment
        None in a LABELMAP.
    images
        SOPInstanceUIDs of the images that it is derived from.
    header
        Its geometry, as far as the file states it.
    """

    number: int
    segment: int | None
    images: frozenset[str]
    header: Header

    def find_images(self, images: Iterable[Header]) -> list[Header]:
        """Return the images to which the frame belongs.

        Of the images that it names, these are those with its size, spacing, position and
        orientation, as far as both state them. A frame that names none belongs to the images that
        state the same of all of these.

        Raises
        ------
        BadInput
            It has the geometry of none of the images that it names.
        """
        if not self.images:
            return [image for image in images if self._is_at(image)]
        named = [image for image in images if image.uid in self.images]
        differing = [dicom.differing_tags(image, self.header) for image in named]
        fitting = [image for image, tags in zip(named, differing, strict=True) if not tags]
        if named and not fitting:
            raise BadInput(
                self.header.path,
                f"geometry of frame {self.number}",
                found=self.header.describe(differing[0]),
                expected=f"that of the image {named[0].path.name}, which the frame names: "
                f"{named[0].describe(differing[0])}",
                mend=f"{_MEND}, without resampling or mirroring",
            )
        return fitting

    def _is_at(self, image: Header) -> bool:
        if not (image.geometry.keys() == self.header.geometry.keys() == _POSITION):
            return False
        if image.frame_of_reference != self.header.frame_of_reference:
            return False
        # The first tag excludes nearly all images.
        return not (
            dicom.differing_tags(image, self.header, ["ImagePositionPatient"])
            or dicom.differing_tags(image, self.header)
        )


def _read_segments(dataset: pydicom.Dataset) -> dict[int, str]:
    segments = {
        int(item.SegmentNumber): str(item.get("SegmentLabel") or "")
        for item in read_sequence(dataset, "SegmentSequence")
    }
    # In a LABELMAP, 0 is what is in no segment.
    return {number: name for number, name in segments.items() if number > 0}


def _first_item(*groups: pydicom.Dataset, name: str) -> pydicom.Dataset:
    """Return a frame's functional group: its own, or that of all frames; empty if it has none."""
    found = (items for group in groups if (items := read_sequence(group, name)))
    return next(found, [pydicom.Dataset()])[0]


def _read_frame(path: Path, dataset: pydicom.Dataset, number: int, own: pydicom.Dataset) -> Frame:
    shared = (read_sequence(dataset, "SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    segment = None
    if dataset.SegmentationType != "LABELMAP":
        identification = _first_item(own, shared, name="SegmentIdentificationSequence")
        segment = int(identification.ReferencedSegmentNumber)
    geometry = dicom.read_geometry(
        dataset,
        _first_item(own, shared, name="PixelMeasuresSequence"),
        _first_item(own, shared, name="PlanePositionSequence"),
        _first_item(own, shared, name="PlaneOrientationSequence"),
    )
    derivations = read_sequence(own, "DerivationImageSequence") or read_sequence(
        shared, "DerivationImageSequence"
    )
    images = frozenset(
        read_uid(source, "ReferencedSOPInstanceUID")
        for derivation in derivations
        for source in read_sequence(derivation, "SourceImageSequence")
    ) - {""}
    frame_of_reference = read_uid(dataset, "FrameOfReferenceUID")
    header = Header(path, "", geometry, frame_of_reference=frame_of_reference)
    return Frame(number, segment, images, header)


def _check_supported(path: Path, dataset: pydicom.Dataset) -> None:
    check_plain(path, dataset)
    with files.report_read_errors(path, _EXPECTED):
        kind = str(dataset.get("SegmentationType"))
    if kind not in _TYPES:
        raise BadInput(
            path, "SegmentationType", found=kind, expected=" or ".join(_TYPES), mend=_MEND
        )
    dicom.check_transfer_syntax(path, dataset)


def read_index(path: Path, dataset: pydicom.Dataset) -> Index:
    """Read which segments the file holds, and to which images it refers.

    Raises
    ------
    BadInput
        A tag cannot be read, the file is encrypted or of another type, or a frame has no known
        segment.
    """
    _check_supported(path, dataset)
    with files.report_read_errors(path, _EXPECTED):
        segments = _read_segments(dataset)
        groups = read_sequence(dataset, "PerFrameFunctionalGroupsSequence")
        count = int(dataset.get("NumberOfFrames") or 1)
        frames = [
            _read_frame(path, dataset, number, own) for number, own in enumerate(groups, start=1)
        ]
        series = read_sequence(dataset, "ReferencedSeriesSequence")
        images = [
            image
            for item in [*series, dataset]
            for name in ("ReferencedInstanceSequence", "SourceImageSequence")
            for image in read_sequence(item, name)
        ]
        references = (
            frozenset(read_uid(item, "SeriesInstanceUID") for item in series) - {""},
            frozenset(read_uid(image, "ReferencedSOPInstanceUID") for image in images) - {""},
            frozenset([read_uid(dataset, "FrameOfReferenceUID")]) - {""},
        )
    if count != len(frames):
        raise BadInput(
            path,
            "NumberOfFrames",
            found=count,
            expected=f"{len(frames)}, as the file describes",
            mend=_MEND,
        )
    for frame in frames:
        if not segments or (frame.segment is not None and frame.segment not in segments):
            raise _unknown_segment(path, frame.number, frame.segment, segments)
    return Index(path, segments, *references, frames)


def _unknown_segment(
    path: Path, frame: int, segment: int | None, segments: dict[int, str]
) -> BadInput:
    return BadInput(
        path,
        f"segment of frame {frame}",
        found=segment,
        expected=f"a segment that the file describes: {name_segments(segments)}",
        mend=_MEND,
    )


class SegFile:
    """A file in memory; decodes the frames that are asked for. Threads may share it."""

    def __init__(self, path: Path, dataset: pydicom.Dataset) -> None:
        self._path, self._dataset = path, dataset
        self._index = read_index(path, dataset)
        self._lock = Lock()

    @cached_property
    def _segmentation(self) -> Any:
        with files.report_read_errors(self._path, _EXPECTED):
            return Segmentation.from_dataset(self._dataset, copy=False)

    def _decode(self, frame: int) -> NDArray[Any]:
        """Decode a frame, from 1."""
        with self._lock:
            segmentation = self._segmentation
            with files.report_read_errors(self._path, _EXPECTED):
                return np.asarray(segmentation.get_stored_frame(frame))

    def draw(self, segment: int, items: Iterable[int], image: Header) -> NDArray[np.bool_]:
        """Return the (H, W) mask of a segment in an image: where one of the frames shows it.

        A FRACTIONAL frame shows it where its value is at least half of MaximumFractionalValue.

        Raises
        ------
        BadInput
            A frame cannot be decoded, or a LABELMAP holds a number without a segment.
        """
        rows, columns = (int(image.geometry[name][0]) for name in ("Rows", "Columns"))
        mask = np.zeros((rows, columns), bool)
        for item in items:
            frame = self._index.items[item]
            assert isinstance(frame, Frame)
            if frame.segment in (None, segment):
                inside = self._show(frame, segment)
                files.check_mask_size(self._path, inside.shape, mask.shape)
                mask |= inside
        return mask

    def _show(self, frame: Frame, segment: int) -> NDArray[np.bool_]:
        values = self._decode(frame.number)
        if frame.segment is None:
            for number in np.unique(values).tolist():
                if number not in {0, *self._index.segments}:
                    raise _unknown_segment(self._path, frame.number, number, self._index.segments)
            return np.asarray(values == segment)
        if self._segmentation.SegmentationType == "FRACTIONAL":
            with files.report_read_errors(self._path, _EXPECTED):
                whole = int(self._segmentation.MaximumFractionalValue)
            return np.asarray(values.astype(np.int64) * 2 >= whole)
        return np.asarray(values != 0)
