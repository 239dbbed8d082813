"""Folders of DICOM slices with a bad SEG or RTSTRUCT as their masks."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pydicom

from stages.data.dicom_writer import make_uid
from tests.segmentations_on_disk import SIZE, write_rtstruct, write_seg, write_slices

Make = Callable[[Path], object]
SCANS = "data/scans"
SEG, RTSTRUCT = f"{SCANS}/masks/seg.dcm", f"{SCANS}/masks/contours.dcm"
# No message may name the patient.
PATIENT = "Planted"
_SQUARE = np.array([[2, 3], [2, 9], [6, 9], [6, 3]], float)


def _images(folder: Path, **tags: str) -> list[Path]:
    (folder / SCANS / "masks").mkdir(parents=True)
    return write_slices(folder / SCANS / "images", **tags)


def _name_patients(folder: Path) -> None:
    """Let each image be of another patient, as splits are drawn by patient."""
    for number, image in enumerate(sorted((folder / SCANS / "images").iterdir())):
        dataset = pydicom.dcmread(image)
        dataset.PatientID = f"{PATIENT}-{number}"
        dataset.save_as(image)


def bad(path: str, change: Callable[[pydicom.Dataset], object], **content: object) -> Make:
    """Write slices with a SEG or an RTSTRUCT of one segment, and change it."""

    def make(folder: Path) -> None:
        images = _images(folder)
        if path == SEG:
            mask = np.zeros((len(images), *SIZE), bool)
            mask[0, 2:7, 3:10] = True
            dataset = write_seg(folder / path, images, {1: ("Prostate", mask)})
        else:
            rois: Mapping = {1: ("Prostate", [(0, _SQUARE)])}
            dataset = write_rtstruct(folder / path, images, rois, **content)
        change(dataset)
        dataset.save_as(folder / path)
        _name_patients(folder)

    return make


def of_others(path: str, **tags: str) -> Make:
    """Write a mask of one series, and in its place other images, with other `tags`."""

    def make(folder: Path) -> None:
        bad(path, lambda dataset: None)(folder)
        for image in (folder / SCANS / "images").iterdir():
            image.unlink()
        write_slices(folder / SCANS / "images", **{"series": "adc"} | tags)
        _name_patients(folder)

    return make


def raw(path: str, change: Callable[[bytes], bytes]) -> Make:
    """Write slices with a SEG or an RTSTRUCT, and change its bytes."""

    def make(folder: Path) -> None:
        bad(path, lambda dataset: None)(folder)
        (folder / path).write_bytes(change((folder / path).read_bytes()))

    return make


def forget_images(dataset: pydicom.Dataset) -> None:
    """Let a SEG name no image: only the position then says to which one a frame belongs."""
    del dataset.ReferencedSeriesSequence
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.DerivationImageSequence = []


def leave_the_frame_of_reference(dataset: pydicom.Dataset) -> None:
    forget_images(dataset)
    dataset.FrameOfReferenceUID = make_uid("another frame of reference")


def move_contours(dataset: pydicom.Dataset) -> None:
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = make_uid("another")


def lift_contours(dataset: pydicom.Dataset) -> None:
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    points = np.reshape(np.array(contour.ContourData, float), (-1, 3)) + np.array([0, 0, 1.2])
    contour.ContourData = [f"{value:.8g}" for value in points.ravel()]


def name_unknown_segment(dataset: pydicom.Dataset) -> None:
    groups = dataset.SharedFunctionalGroupsSequence[0]
    groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 7


def name_unknown_roi(dataset: pydicom.Dataset) -> None:
    dataset.ROIContourSequence[0].ReferencedROINumber = 7


def forget_segments(dataset: pydicom.Dataset) -> None:
    for name in ("SegmentSequence", "StructureSetROISequence", "ROIContourSequence"):
        if name in dataset:
            setattr(dataset, name, [])
