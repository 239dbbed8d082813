"""Read DICOM structure sets (RTSTRUCT): contours in the patient's coordinates, mm."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.data.datasets import files
from stages.data.datasets.dicom import Header
from stages.data.datasets.segmentations.index import Index, check_plain, read_sequence, read_uid
from stages.data.datasets.segmentations.polygons import fill_polygons

_EXPECTED = "a readable DICOM structure set (RTSTRUCT)"
_MEND = "export the structure set again, with its contours on the images of the data set"
# The second kind states what we do with the first.
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# Largest distance of a contour from the plane of its image, mm.
_MAX_DISTANCE = 0.5
# Nothing is farther from the origin, and no pixel is smaller, mm.
_FARTHEST, _SMALLEST = 1e6, 1e-6
_PLANE = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True)
class Contour:
    """A contour of a region of interest (ROI).

    Attributes
    ----------
    name
        For messages.
    kind
        ContourGeometricType.
    images
        SOPInstanceUIDs of the images that it names.
    frame_of_reference
        FrameOfReferenceUID of its coordinates.
    points
        (N, 3) left, posterior, superior; mm.
    """

    path: Path
    name: str
    roi: int
    kind: str
    images: frozenset[str]
    frame_of_reference: str
    points: NDArray[np.float64] = field(repr=False)

    def find_images(self, images: Iterable[Header]) -> list[Header]:
        """Return the images that the contour names.

        If it names none: in each series the image whose plane is nearest, at most 0.5 mm away.
        """
        if self.images:
            return [image for image in images if image.uid in self.images]
        nearest: dict[str, tuple[float, Header]] = {}
        for image in images:
            distance = np.inf
            if self._shares_coordinates(image) and len(self.points) and _has_plane(image):
                distance = self._distance(image)
            if distance <= min(_MAX_DISTANCE, nearest.get(image.series, (np.inf,))[0]):
                nearest[image.series] = distance, image
        return [image for _, image in nearest.values()]

    def _shares_coordinates(self, image: Header) -> bool:
        stated = {self.frame_of_reference, image.frame_of_reference} - {""}
        return len(stated) < 2

    def _distance(self, image: Header) -> float:
        """Return the distance of the farthest point from the plane of the image, mm."""
        orientation = image.geometry["ImageOrientationPatient"]
        normal = np.cross(orientation[:3], orientation[3:])
        offset = (self.points - image.geometry["ImagePositionPatient"]) @ normal
        return float(abs(offset).max())

    def check_closed_on(self, image: Header) -> None:
        """Check that the contour is closed, and in the plane of an image.

        Raises
        ------
        BadInput
            It is not, or the image does not state its plane.
        """
        if self.kind not in _CLOSED:
            raise BadInput(
                self.path,
                f"ContourGeometricType of {self.name}",
                found=self.kind or "none",
                expected=" or ".join(_CLOSED),
                mend="choose other ROIs in `prepare.foreground`, or draw closed contours",
            )
        if not _has_plane(image):
            raise BadInput(
                image.path,
                "geometry",
                found=image.describe(name for name in _PLANE if name in image.geometry) or "none",
                expected=f"{', '.join(_PLANE)}, for the contours of {self.path.name}; the "
                "orientation as two unit vectors at right angles",
                mend="export the images again, with their position in the patient",
            )
        if not self._shares_coordinates(image):
            raise BadInput(
                self.path,
                f"ReferencedFrameOfReferenceUID of {self.name}",
                found=self.frame_of_reference,
                expected=f"{image.frame_of_reference}, that of the image {image.path.name}",
                mend=_MEND,
            )
        if (distance := self._distance(image)) > _MAX_DISTANCE:
            raise BadInput(
                self.path,
                f"plane of {self.name}",
                found=f"points {distance:.4g} mm away from the image {image.path.name}",
                expected=f"points in the plane of the image, within {_MAX_DISTANCE:g} mm",
                mend=_MEND,
            )

    def on_pixels(self, image: Header) -> NDArray[np.float64]:
        """Return (N, 2) row and column of the points, pixels; (0, 0) is the first one's centre."""
        spacing, origin, orientation = (image.geometry[name] for name in _PLANE)
        offset = self.points - origin
        # The first three numbers of the orientation point along a row, from column to column.
        steps = (offset @ orientation[3:] / spacing[0], offset @ orientation[:3] / spacing[1])
        return np.stack(steps, axis=1)


def _has_plane(image: Header) -> bool:
    stated = [image.geometry[name] for name in _PLANE if name in image.geometry]
    if [values.size for values in stated] != [2, 3, 6]:
        return False
    spacing, origin, orientation = stated
    axes = orientation.reshape(2, 3)
    right_angles = np.allclose(axes @ axes.T, np.eye(2), atol=1e-2)
    in_reach = (abs(origin) <= _FARTHEST).all() and (spacing >= _SMALLEST).all()
    return bool(right_angles and in_reach)


def _read_points(name: str, contour: pydicom.Dataset) -> NDArray[np.float64]:
    values = np.ravel(np.asarray(contour.get("ContourData"), object))
    points = np.array([value for value in values if value is not None], float)
    stated = contour.get("NumberOfContourPoints")
    if points.size % 3 or (stated not in (None, "") and int(stated) * 3 != points.size):
        raise ValueError(f"{name}: {points.size} numbers of {stated} points in ContourData")
    if not (abs(points) <= _FARTHEST).all():
        raise ValueError(f"{name}: numbers in ContourData that are no mm in a patient")
    return points.reshape(-1, 3)


def _read_contours(
    path: Path, dataset: pydicom.Dataset, rois: dict[int, str], frames: dict[int, str]
) -> list[Contour]:
    contours = []
    for item in read_sequence(dataset, "ROIContourSequence"):
        roi = int(item.ReferencedROINumber)
        if roi not in rois:
            raise ValueError(f"contours of ROI {roi}, which StructureSetROISequence lacks")
        for i, contour in enumerate(read_sequence(item, "ContourSequence"), start=1):
            name = f"contour {i} of ROI {roi} {rois[roi]!r}"
            images = frozenset(
                read_uid(image, "ReferencedSOPInstanceUID")
                for image in read_sequence(contour, "ContourImageSequence")
            )
            contours.append(
                Contour(
                    path,
                    name,
                    roi,
                    str(contour.get("ContourGeometricType") or ""),
                    images - {""},
                    frames[roi],
                    _read_points(name, contour),
                )
            )
    return contours


def read_index(path: Path, dataset: pydicom.Dataset) -> Index:
    """Read which ROIs and contours the file holds, and to which images it refers.

    Raises
    ------
    BadInput
        A tag cannot be read, or the file is encrypted, has no ROI, or holds damaged contours.
    """
    check_plain(path, dataset)
    with files.report_read_errors(path, _EXPECTED):
        items = read_sequence(dataset, "StructureSetROISequence")
        rois = {int(item.ROINumber): str(item.get("ROIName") or "") for item in items}
        frames = {
            int(item.ROINumber): read_uid(item, "ReferencedFrameOfReferenceUID") for item in items
        }
        contours = _read_contours(path, dataset, rois, frames)
        series = [
            series
            for frame in read_sequence(dataset, "ReferencedFrameOfReferenceSequence")
            for study in read_sequence(frame, "RTReferencedStudySequence")
            for series in read_sequence(study, "RTReferencedSeriesSequence")
        ]
        images = [image for item in series for image in read_sequence(item, "ContourImageSequence")]
        references = (
            frozenset(read_uid(item, "SeriesInstanceUID") for item in series) - {""},
            frozenset(read_uid(image, "ReferencedSOPInstanceUID") for image in images) - {""},
            frozenset(frames.values()) - {""},
        )
    if not rois:
        raise BadInput(path, "ROIs", found="none", expected="at least one", mend=_MEND)
    return Index(path, rois, *references, contours)


class StructFile:
    """The contours of a file."""

    def __init__(self, path: Path, dataset: pydicom.Dataset) -> None:
        self._contours = read_index(path, dataset).items

    def draw(self, segment: int, items: Iterable[int], image: Header) -> NDArray[np.bool_]:
        """Return the (H, W) mask of an ROI in an image.

        Its contours are filled together: see `polygons.fill_polygons`.

        Raises
        ------
        BadInput
            A contour is not closed or not in the plane of the image, or the image does not state
            its plane.
        """
        rows, columns = (int(image.geometry[name][0]) for name in ("Rows", "Columns"))
        polygons = []
        for item in items:
            contour = self._contours[item]
            assert isinstance(contour, Contour)
            if contour.roi == segment:
                contour.check_closed_on(image)
                polygons.append(contour.on_pixels(image))
        return fill_polygons(polygons, (rows, columns))
