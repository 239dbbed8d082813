"""Write axial MR slices as DICOM files whose bytes depend on their content alone."""

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


def uid(*parts: object) -> str:
    """Make a UID that depends on its parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def decimal(value: float) -> DSfloat:
    """Round a number to what DICOM stores of it: text of 16 characters at most."""
    return DSfloat(format_number_as_ds(float(value)))


def to_16_bit(
    image: NDArray[np.float32],
) -> tuple[NDArray[np.integer], float, float]:
    """Store a finite image in the 16 bits of a DICOM pixel.

    Returns
    -------
    Pixels of the same shape, slope and intercept: `image` is slope · pixels + intercept. Whole
    numbers that fit into uint16 or int16 pass as they are, with slope 1 and intercept 0. All else
    is spread over uint16, off by half a slope at most: the slope is 1/65535 of the image's span.
    """
    low, high = float(image.min()), float(image.max())
    if (image == np.rint(image)).all():
        for kind in (np.uint16, np.int16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return image.astype(kind), 1.0, 0.0
    # Rounded before anything rests on them.
    slope, intercept = decimal((high - low) / 65535 or 1.0), decimal(low)
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
    """Write one grey slice of a study with one series.

    Parameters
    ----------
    path
        The file.
    pixels
        (H, W) uint16 or int16 stored values, within `bits`.
    study
        What tells the study from all others; slices of the same text share study and series.
    number
        What tells the slice from the others of its study; becomes InstanceNumber.
    bits
        Of a stored value, at most 16.
    attributes
        DICOM keyword → value, of what is known beyond that: patient, geometry, rescaling.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = uid(study, number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Named, or the file would hold the writing library's version.
    meta.ImplementationClassUID = uid("implementation")
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = uid(study, "study")
    dataset.SeriesInstanceUID = uid(study, "series")
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
