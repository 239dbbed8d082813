"""Write axial MR slices as DICOM files; the same content gives the same bytes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import DSfloat, format_number_as_ds


def make_uid(*parts: object) -> str:
    """Derive a UID from `parts`; the same parts give the same UID."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def to_decimal_string(value: float) -> DSfloat:
    """Round a number to a DICOM decimal string, which has at most 16 characters."""
    return DSfloat(format_number_as_ds(float(value)))


def to_16_bit(
    image: NDArray[np.float32],
) -> tuple[NDArray[np.integer], float, float]:
    """Convert a finite image to the 16 bits of a DICOM pixel.

    Returns
    -------
    Pixels of the same shape, slope and intercept: `image` is slope · pixels + intercept. Integers
    that fit into uint16 or int16 stay as they are, with slope 1 and intercept 0. All other images
    are scaled to uint16 with a slope of 1/65535 of their value range, and an error of at most half
    a slope.
    """
    low, high = float(image.min()), float(image.max())
    if (image == np.rint(image)).all():
        for kind in (np.uint16, np.int16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return image.astype(kind), 1.0, 0.0
    # The pixels are computed from the rounded values, which are the stored ones.
    slope, intercept = to_decimal_string((high - low) / 65535 or 1.0), to_decimal_string(low)
    stored = np.rint((image.astype(np.float64) - intercept) / slope)
    return np.clip(stored, 0, 65535).astype(np.uint16), slope, intercept


def write_slice(
    path: Path,
    pixels: NDArray[np.integer],
    *,
    study: str,
    number: int,
    bits: int,
    attributes: Mapping[str, Any],
) -> None:
    """Write one grey slice. Its study has one series.

    Parameters
    ----------
    path
        The file.
    pixels
        (H, W) uint16 or int16 stored values that fit into `bits`.
    study
        Name of the study; slices with the same name share study and series.
    number
        InstanceNumber, which differs for each slice of a study.
    bits
        Bits of a stored value, at most 16.
    attributes
        DICOM keyword → value of further attributes: patient, geometry, rescaling.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = make_uid(study, number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Without it, pydicom would write its version into the file.
    meta.ImplementationClassUID = make_uid("implementation")
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = make_uid(study, "study")
    dataset.SeriesInstanceUID = make_uid(study, "series")
    dataset.Modality = "MR"
    dataset.InstanceNumber = number
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.save_as(path, enforce_file_format=True)
