"""Small series of DICOM slices, with segmentations (SEG) and structure sets (RTSTRUCT) of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from stages.data.dicom_writer import make_uid
from tests.conftest import write_dicom

# In a SEG, the bits of a frame of odd size do not end with a byte.
SIZE = (19, 23)
SPACING = (0.5, 0.75)
CORNER = np.array([-20.0, -30.0, 100.0])
AXIAL = [1.0, 0, 0, 0, 1, 0]
# Turned about two axes: rows and columns are along no axis of the patient.
OBLIQUE = [0.8, 0.6, 0.0, -0.48, 0.64, 0.6]
GAP = 3.0


def write_slices(
    folder: Path, count: int = 3, series: str = "t2", orientation: Sequence[float] = AXIAL, **tags
) -> list[Path]:
    """Write slices `<series> <number>.dcm`, from 1, each with other pixels; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for i in range(count):
        pixels = 100 * (i + 1) + sum(map(ord, series)) + np.arange(SIZE[0] * SIZE[1]).reshape(SIZE)
        paths.append(folder / f"{series} {i + 1}.dcm")
        geometry = {
            "SOPInstanceUID": make_uid(series, i),
            "SeriesInstanceUID": make_uid(series),
            "StudyInstanceUID": make_uid("study"),
            "FrameOfReferenceUID": make_uid("frame of reference"),
            "InstanceNumber": i + 1,
            "ImagePositionPatient": (CORNER + GAP * i * normal).round(6).tolist(),
            "ImageOrientationPatient": list(orientation),
        }
        patient = {
            "PatientID": "Planted-Id", "PatientName": "Planted^Name", "PatientBirthDate": "",
            "PatientSex": "", "AccessionNumber": "", "StudyID": "", "StudyDate": "",
            "StudyTime": "", "ReferringPhysicianName": "", "SeriesNumber": 1,
            "SliceThickness": GAP, "PositionReferenceIndicator": "",
        }  # fmt: skip
        write_dicom(paths[-1], pixels, SPACING, **patient | geometry | tags)
        dataset = pydicom.dcmread(paths[-1])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_seg(
    path: Path,
    images: Sequence[Path],
    segments: Mapping[int, tuple[str, np.ndarray]],
    kind: str = "BINARY",
    **options,
) -> pydicom.Dataset:
    """Write a SEG of images of one series; return it, to change and save it again.

    `segments`: number, from 1 → name and (N, H, W) mask of the images; floats in [0, 1] with the
    kind FRACTIONAL. In a LABELMAP the last segment wins.
    """
    masks = [mask for _, mask in segments.values()]
    if kind == "LABELMAP":
        pixels = np.zeros(masks[0].shape, np.uint8)
        for number, (_, mask) in segments.items():
            pixels[mask] = number
    else:
        pixels = np.stack(masks, axis=-1)
        pixels = pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    segmentation = Segmentation(
        source_images=[pydicom.dcmread(image) for image in images],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Prostate,
                algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
            )
            for number, (name, _) in segments.items()
        ],
        series_instance_uid=make_uid(path.name, "series"),
        series_number=2,
        sop_instance_uid=make_uid(path.name),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    segmentation.save_as(path)
    return pydicom.dcmread(path)


def to_patient(image: Path, row_column: np.ndarray) -> np.ndarray:
    """Turn (N, 2) rows and columns of an image into (N, 3) mm in the patient."""
    header = pydicom.dcmread(image)
    down, right = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)[::-1]
    steps = np.stack([down * header.PixelSpacing[0], right * header.PixelSpacing[1]])
    return np.array(header.ImagePositionPatient, float) + row_column @ steps


def write_rtstruct(
    path: Path,
    images: Sequence[Path],
    rois: Mapping[int, tuple[str, Sequence[tuple[int, np.ndarray]]]],
    kind: str = "CLOSED_PLANAR",
    by_position: bool = False,
) -> pydicom.Dataset:
    """Write an RTSTRUCT of images of one series; return it, to change and save it again.

    `rois`: number → name, and for each contour the index of its image and (N, 2) rows and columns.
    With `by_position` it names the series, but no image.
    """
    headers = [pydicom.dcmread(image, stop_before_pixels=True) for image in images]

    def item(**attributes) -> pydicom.Dataset:
        dataset = pydicom.Dataset()
        for name, value in attributes.items():
            setattr(dataset, name, value)
        return dataset

    def reference(header: pydicom.Dataset) -> pydicom.Dataset:
        return item(
            ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID
        )

    named = [] if by_position else [reference(header) for header in headers]
    series = item(SeriesInstanceUID=headers[0].SeriesInstanceUID, ContourImageSequence=named)
    study = item(RTReferencedSeriesSequence=[series])
    frame = headers[0].FrameOfReferenceUID
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = make_uid(path.name)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = item(
        SOPClassUID=RTStructureSetStorage,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        Modality="RTSTRUCT",
        PatientID="Planted-Id",
        PatientName="Planted^Name",
        ReferencedFrameOfReferenceSequence=[
            item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])
        ],
        StructureSetROISequence=[
            item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
            for number, (name, _) in rois.items()
        ],
        ROIContourSequence=[
            item(
                ReferencedROINumber=number,
                ContourSequence=[
                    item(
                        **{} if by_position else {"ContourImageSequence": [reference(headers[i])]},
                        ContourGeometricType=kind,
                        NumberOfContourPoints=len(points),
                        ContourData=[
                            f"{value:.8g}" for value in to_patient(images[i], points).ravel()
                        ],
                    )
                    for i, points in contours
                ],
            )
            for number, (_, contours) in rois.items()
            if contours
        ],
    )
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return pydicom.dcmread(path)
