"""Write masks and maps: PNG, NIfTI in the orientation of its source, DICOM segmentations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from nibabel.nifti1 import Nifti1Extension
from numpy.typing import NDArray
from PIL import Image

from stages.core import io
from stages.core.cli import BadInput
from stages.data.datasets import files, volumes
from stages.deploy import records

# In a map of 16 bits this is 1.
PNG_ONE = 65535
PNG_MEND = "segment it with `--format png`, which needs no such tags"
# Without these (type 1 of the standard) a segmentation cannot refer to its images.
_NEEDED_TAGS = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Rows", "Columns",
)  # fmt: skip
# These may be empty or unknown; software that anonymises files often deletes them.
_EMPTY_TAGS = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip


def write_png(path: Path, pixels: NDArray[Any], record: Mapping[str, Any]) -> None:
    """Write a mask (bool) as 0 and 255, or a map (float32 in [0, 1]) as 0 to 65535."""
    if pixels.dtype == np.bool_:
        stored: NDArray[Any] = pixels * np.uint8(255)
    else:
        stored = np.rint(pixels * PNG_ONE).astype(np.uint16)
    with io.atomic_file(path) as temporary:
        Image.fromarray(stored).save(temporary, "PNG", pnginfo=records.png_info(record, stored))


def write_nifti(
    path: Path, source: Path, slices: NDArray[Any], record: Mapping[str, Any], mend: str
) -> None:
    """Write a mask (bool, as uint8) or a map (float32) on the grid of the volume `source`.

    Parameters
    ----------
    slices
        (slices, H, W), oriented as `volumes.read_voxels` returns the volume. They are turned back
        to the orientation of the source; shape, affine, the codes of sform and qform, units and
        the version of NIfTI are those of the source.
    """
    grid = volumes.read_grid(source, mend)
    image: Any = nibabel.load(source)
    stored = np.flip(slices, grid.flipped_axes).transpose(np.argsort(grid.axis_order))
    stored = np.asarray(stored.reshape(image.shape), np.uint8 if slices.dtype == bool else None)
    header = image.header.copy()
    header.set_data_dtype(stored.dtype)
    header["cal_min"], header["cal_max"] = 0, 1
    # These would describe the source, and may name the patient.
    header["aux_file"], header["intent_code"], header["intent_name"] = b"", 0, b""
    if "db_name" in header:
        header["db_name"] = b""
    header["descrip"] = f"{record['content']} by {records.CREATOR}".encode()
    header.extensions.clear()
    text = records.seal(record, stored).encode()
    header.extensions.append(Nifti1Extension(records.NIFTI_COMMENT, text))
    # Without an affine, nibabel leaves sform, qform and their codes as they are in the header.
    with io.atomic_file(path) as temporary:
        type(image)(stored, None, header).to_filename(temporary)


def _set_thickness(path: Path, headers: list[pydicom.Dataset]) -> None:
    """Set a SliceThickness that the headers lack: readers of segmentations need it.

    It is the median distance of the slices of a series. Images without a position need none.
    """
    tags = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient")
    with files.report_read_errors(path, "positions and orientations of the slices"):
        if headers[0].get("SliceThickness") is not None or not all(headers[0].get(t) for t in tags):
            return
        orientation = np.asarray(headers[0].ImageOrientationPatient, float)
        normal = np.cross(orientation[:3], orientation[3:])
        places = [np.dot(np.asarray(h.ImagePositionPatient, float), normal) for h in headers]
    distances = np.diff(np.unique(np.round(places, 3)))
    if not len(distances):
        raise BadInput(
            path,
            "SliceThickness",
            found="none",
            expected="the thickness of the slice, mm",
            mend=PNG_MEND,
        )
    for header in headers:
        header.SliceThickness = float(np.median(distances))


def read_source_headers(paths: tuple[Path, ...]) -> list[pydicom.Dataset]:
    """Read the headers of images that a DICOM segmentation will refer to.

    Raises
    ------
    BadInput
        A header lacks a tag, or the images do not belong together.
    """
    headers = []
    for path in paths:
        with files.report_read_errors(path, "a readable DICOM image"):
            header = pydicom.dcmread(path, stop_before_pixels=True)
        if missing := [name for name in _NEEDED_TAGS if header.get(name) in (None, "")]:
            raise BadInput(
                path,
                "header",
                found=f"no {', '.join(missing)}",
                expected="the tags to which a DICOM segmentation refers",
                mend=PNG_MEND,
            )
        for name in _EMPTY_TAGS:
            if name not in header:
                setattr(header, name, None)
        headers.append(header)
    for name in ("StudyInstanceUID", "Rows", "Columns", "FrameOfReferenceUID"):
        values = {str(header.get(name)) for header in headers}
        if len(values) > 1:
            raise BadInput(
                paths[0],
                name,
                found=f"{len(values)} values in the {len(paths)} images of the series",
                expected="one value",
                mend=PNG_MEND,
            )
    _set_thickness(paths[0], headers)
    return headers


def write_segmentation(
    path: Path, sources: tuple[Path, ...], mask: NDArray[np.bool_], record: Mapping[str, Any],
    label: str,
) -> None:  # fmt: skip
    """Write a DICOM segmentation: binary, one segment, a frame for each source image.

    As the standard demands, it copies the attributes of patient and study from its sources.

    Parameters
    ----------
    sources
        The files of the images, of one series.
    mask
        (images, H, W), in their order.
    label
        Name of the segment.

    Raises
    ------
    BadInput
        As in `read_source_headers`, or a segmentation cannot refer to such images.
    """
    # highdicom takes a second to import.
    import highdicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    headers = read_source_headers(sources)
    students = record["students"]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"{records.CREATOR} student",
        version=records.VERSION,
        family=codes.DCM.ArtificialIntelligence,
        source=records.CREATOR,
        parameters={"student": ",".join(students), "test-time flips": str(record["flips"])},
    )
    # No list of codes knows what a student was trained to find, so the code is a general one.
    segment = SegmentDescription(
        segment_number=1,
        segment_label=label,
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    segment.SegmentDescription = (
        f"Foreground (probability of at least 0.5) predicted by {len(students)} trained network"
        f"{'s' * (len(students) > 1)} of {records.CREATOR} {records.VERSION}; not a medical "
        f"device. SHA-256 of the weights: {', '.join(students)}"
    )[:1024]
    # PS3.5: a device serial number has at most 64 characters, as many as a SHA-256.
    serial = students[0] if len(students) == 1 else records.hash_pixels("".join(students).encode())
    try:
        segmentation = Segmentation(
            source_images=headers,
            pixel_array=mask,
            segmentation_type="BINARY",
            segment_descriptions=[segment],
            series_instance_uid=highdicom.UID(),
            series_number=1000 + int(headers[0].get("SeriesNumber") or 0),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=records.CREATOR,
            manufacturer_model_name=f"{records.CREATOR} student",
            software_versions=records.VERSION,
            device_serial_number=serial,
            content_description=f"Mask by {records.CREATOR}, not checked by a person",
            series_description=f"{label} by {records.CREATOR}"[:64],
            omit_empty_frames=False,
        )
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise BadInput(
            sources[0],
            "header",
            found=error,
            expected="images to which a DICOM segmentation can refer",
            mend=PNG_MEND,
        ) from error
    block = segmentation.private_block(records.PRIVATE_GROUP, records.CREATOR, create=True)
    text = records.seal(record, segmentation.PixelData)
    block.add_new(records.PRIVATE_ELEMENT, "UT", text)
    with io.atomic_file(path) as temporary:
        segmentation.save_as(temporary)
