"""DICOM files of one image each: pixels, masks, and the position of the slice in the patient."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut, get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from stages.core.cli import BadInput
from stages.data.datasets import files
from stages.data.datasets.labels import Labels, foreground_mask

_EXPECTED_FILE = "a readable DICOM image"
_DECOMPRESS = "decompress the file: `gdcmconv --raw IN OUT` (GDCM), or `dcmdjpeg IN OUT` (DCMTK)"
_SINGLE = "store one image per file; segmentations (SEG) belong to the masks"
_GREY_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
# pydicom logs tracebacks of decoders, and repeats its warnings, without the name of the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
# The tags that give the position of a slice. Some software rounds them, so two values of a tag may
# differ by this much: relative, absolute (mm for the position).
_TOLERANCES = {
    "Rows": (0.0, 0.0),
    "Columns": (0.0, 0.0),
    "PixelSpacing": (1e-3, 0.0),
    "ImagePositionPatient": (0.0, 0.1),
    "ImageOrientationPatient": (0.0, 1e-3),
}
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# The tags of a `Header`.
HEADER_TAGS = ("PatientID", *_UIDS, *_TOLERANCES)
# All slices of one series share these tags, that is all but the position.
SERIES_TAGS = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")


@dataclass(frozen=True)
class SliceGeometry:
    """Position, orientation and pixel size of a slice in the patient.

    Attributes
    ----------
    number
        InstanceNumber.
    shape
        Height and width, pixels.
    origin
        (3,) centre of the first pixel: left, posterior, superior; mm.
    step_down, step_right
        (3,) step from a pixel to the next one in its column and in its row, mm.
    """

    path: Path
    number: int
    shape: tuple[int, int]
    origin: NDArray[np.float64]
    step_down: NDArray[np.float64]
    step_right: NDArray[np.float64]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit vector perpendicular to the slice."""
        normal_vector = np.cross(self.step_right, self.step_down)
        return np.asarray(normal_vector / np.linalg.norm(normal_vector))


def has_prefix(path: Path) -> bool:
    """Return whether a file begins as DICOM files do: 128 bytes, then DICM.

    Raises
    ------
    BadInput
        The file cannot be read.
    """
    with files.report_read_errors(path, "a readable file"), path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def open_dataset(path: Path, tags: list[str] | None = None) -> pydicom.Dataset:
    """Open a file; with `tags` only these, without the pixels.

    Raises
    ------
    BadInput
        The file cannot be read, or is not DICOM.
    """
    if not has_prefix(path):
        raise BadInput(
            path,
            "file",
            found="no DICM after the first 128 bytes",
            expected=_EXPECTED_FILE,
            mend="replace the file by a new export; `dcmconv IN OUT` (DCMTK) adds the missing "
            "beginning to DICOM data without it",
        )
    with files.report_read_errors(path, _EXPECTED_FILE):
        return pydicom.dcmread(path, stop_before_pixels=tags is not None, specific_tags=tags)


def _read_numbers(header: pydicom.Dataset, name: str) -> NDArray[np.float64]:
    """Read the numbers of a tag; an empty array if the tag is absent or empty."""
    values = np.ravel(np.asarray(header.get(name), object))
    # Software that anonymises files may leave only the separators between the numbers.
    return np.array([] if any(value in (None, "") for value in values) else values, float)


def read_slice_geometry(path: Path) -> SliceGeometry:
    """Read the geometry of a slice from its header, without the pixels.

    Raises
    ------
    BadInput
        The file cannot be read, or its header does not give the geometry.
    """
    header = open_dataset(path, ["InstanceNumber", *_TOLERANCES])
    with files.report_read_errors(path, _EXPECTED_FILE):
        values = {name: _read_numbers(header, name) for name in _TOLERANCES}
        number = header.get("InstanceNumber")
        number = None if number in (None, "") else int(number)
    sizes = [values[name].size for name in _TOLERANCES]
    if number is None or sizes != [1, 1, 2, 3, 6] or (values["PixelSpacing"] <= 0).any():
        raise BadInput(
            path,
            "geometry",
            found=f"InstanceNumber {number}, "
            + ", ".join(f"{name} {values[name].tolist()}" for name in _TOLERANCES),
            expected="InstanceNumber, image size, pixel size, position and orientation",
            mend="download or export the series again",
        )
    rows, columns, spacing, origin, orientation = (values[name] for name in _TOLERANCES)
    # The first three numbers of the orientation point along a row, from column to column.
    return SliceGeometry(
        path,
        number,
        (int(rows[0]), int(columns[0])),
        origin,
        orientation[3:] * spacing[0],
        orientation[:3] * spacing[1],
    )


@dataclass(frozen=True)
class Header:
    """Patient and geometry of the image in a file, as far as the header states them.

    Attributes
    ----------
    patient_id
        PatientID; empty if the header has none.
    uid, series, frame_of_reference
        SOPInstanceUID, SeriesInstanceUID and FrameOfReferenceUID; empty if the header has none.
    geometry
        Tag → numbers, for those of Rows, Columns, PixelSpacing (mm), ImagePositionPatient (mm) and
        ImageOrientationPatient that the header states.
    """

    path: Path
    patient_id: str
    geometry: dict[str, NDArray[np.float64]]
    uid: str = ""
    series: str = ""
    frame_of_reference: str = ""

    def describe(self, names: Iterable[str]) -> str:
        """Write the tags `names` with their values."""
        return ", ".join(f"{name} {self.geometry[name].tolist()}" for name in names)


def read_header(path: Path) -> Header:
    """Read patient and geometry from the header of a file, without the pixels.

    Raises
    ------
    BadInput
        The file cannot be read.
    """
    return parse_header(path, open_dataset(path, [*HEADER_TAGS]))


def parse_header(path: Path, dataset: pydicom.Dataset) -> Header:
    """Return the header of the file `path`, which was opened with at least `HEADER_TAGS`.

    Raises
    ------
    BadInput
        A tag cannot be read.
    """
    with files.report_read_errors(path, _EXPECTED_FILE):
        patient_id = str(dataset.get("PatientID") or "").strip()
        uids = [str(dataset.get(name) or "") for name in _UIDS]
        return Header(path, patient_id, read_geometry(dataset), *uids)


def read_geometry(*datasets: pydicom.Dataset) -> dict[str, NDArray[np.float64]]:
    """Read the geometry that data sets of one file state, each tag from the first that has it.

    Returns
    -------
    Tag → numbers, as in `Header.geometry`.
    """
    values: dict[str, NDArray[np.float64]] = {}
    for name in _TOLERANCES:
        stated = (_read_numbers(dataset, name) for dataset in datasets)
        if (found := next((numbers for numbers in stated if numbers.size), None)) is not None:
            values[name] = found
    return values


def differing_tags(
    first_header: Header, second_header: Header, names: Iterable[str] = tuple(_TOLERANCES)
) -> list[str]:
    """List those of the tags `names` that both headers state, with different values."""
    names_that_differ = []
    for name in names:
        first, second = first_header.geometry.get(name), second_header.geometry.get(name)
        if first is not None and second is not None:
            relative, absolute = _TOLERANCES[name]
            same_length = first.shape == second.shape
            if not (same_length and np.allclose(second, first, rtol=relative, atol=absolute)):
                names_that_differ.append(name)
    return names_that_differ


def check_same_geometry(image: Header, mask: Header) -> None:
    """Check that a mask has the geometry of its image.

    Raises
    ------
    BadInput
        Both files state spacing, position or orientation, and the values differ.
    """
    names = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    if differing := differing_tags(image, mask, names):
        raise BadInput(
            mask.path,
            "geometry",
            found=mask.describe(differing),
            expected=f"that of the image: {image.describe(differing)}",
            mend="give the image its own mask, or export the mask again",
        )


def _read_spacing(path: Path, dataset: pydicom.Dataset) -> tuple[float, float]:
    mend = "correct the tag, or delete it if the spacing is not known"
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        with files.report_read_errors(path, f"{name} as two numbers, mm", mend):
            spacing = _read_numbers(dataset, name).tolist()
        # An unknown spacing is an absent or an empty tag.
        if not spacing:
            continue
        if len(spacing) != 2 or not all(0 < size < np.inf for size in spacing):
            raise BadInput(
                path,
                name,
                found=", ".join(f"{size:g}" for size in spacing),
                expected="two distances above 0, mm: of rows, then of columns",
                mend=mend,
            )
        return spacing[0], spacing[1]
    return np.nan, np.nan


def check_transfer_syntax(path: Path, dataset: pydicom.Dataset) -> None:
    """Check that the file says how its pixels are stored, and that they can be decoded.

    Raises
    ------
    BadInput
        The file does not, or they cannot.
    """
    with files.report_read_errors(path, _EXPECTED_FILE):
        stated = dataset.file_meta.get("TransferSyntaxUID")
    if not stated:
        implicit, _ = dataset.original_encoding
        uncompressed = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        raise BadInput(
            path,
            "TransferSyntaxUID",
            found="none",
            expected="how the pixels are stored, in the tag (0002,0010)",
            mend=f"export the image again, or add the tag: {uncompressed} for pixels that are not "
            "compressed",
        )
    syntax = UID(stated)
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError:
        readable = False
    if not readable:
        raise BadInput(
            path,
            "TransferSyntaxUID",
            found=syntax if syntax.name == syntax else f"{syntax.name} ({syntax})",
            expected="pixels that are not compressed, or in RLE, JPEG, JPEG Lossless, JPEG-LS, "
            "JPEG 2000 or HTJ2K",
            mend=_DECOMPRESS,
        )


def _decode(path: Path, dataset: pydicom.Dataset) -> NDArray[Any]:
    """Decode the pixels: colours as RGB, stored values of a grey image."""
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    mend = f"{_DECOMPRESS}; if that fails, replace it" if compressed else "replace the file"
    with files.report_read_errors(path, _EXPECTED_FILE, mend):
        return np.asarray(dataset.pixel_array)


def _rescale_grey(dataset: Any, stored_values: NDArray[Any]) -> NDArray[np.float32]:
    """Apply the rescaling of the file, and invert MONOCHROME1, so that bright pixels are high."""
    image = apply_modality_lut(stored_values, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        bits = dataset.BitsStored
        stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if dataset.PixelRepresentation == 0:
            stored = (0, 2**bits - 1)
        image = apply_modality_lut(np.array(stored), dataset).sum() - image
    return np.asarray(image, np.float32)[..., None]


def _open_single_image(path: Path) -> pydicom.Dataset:
    """Open a file that holds one grey or colour image."""
    dataset = open_dataset(path)
    if "PixelData" not in dataset:
        with files.report_read_errors(path, _EXPECTED_FILE):
            modality = dataset.get("Modality")
        raise BadInput(
            path,
            "file",
            found=f"no pixels, Modality {modality}",
            expected=_EXPECTED_FILE,
            mend="replace the file by an image; contours (RTSTRUCT) belong to the masks",
        )
    with files.report_read_errors(path, _EXPECTED_FILE):
        frames = int(dataset.get("NumberOfFrames") or 1)
        photometric = str(dataset.PhotometricInterpretation)
        bits = int(dataset.BitsAllocated)
    if frames != 1:
        raise BadInput(path, "frames", found=frames, expected=1, mend=_SINGLE)
    if not (
        photometric in _GREY_PHOTOMETRIC or (bits == 8 and photometric.startswith(("RGB", "YBR")))
    ):
        raise BadInput(
            path,
            "pixels",
            found=f"{photometric}, {bits} bits",
            expected="grey, or RGB or YBR of 8 bits",
            mend="export the image as grey or as RGB",
        )
    check_transfer_syntax(path, dataset)
    return dataset


def read_image(path: Path) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read the one image in a file.

    Returns
    -------
    (H, W, 1) float32 for a grey image, with slope and intercept applied and MONOCHROME1 inverted;
    (H, W, 3) uint8 RGB for a colour image of 8 bits. Then the size of a pixel along y and x, mm,
    from PixelSpacing, else from ImagerPixelSpacing, else NaN.

    Raises
    ------
    BadInput
        The file cannot be read, or does not hold one such image.
    """
    dataset = _open_single_image(path)
    # pydicom converts YBR to RGB.
    image = _decode(path, dataset)
    if dataset.PhotometricInterpretation in _GREY_PHOTOMETRIC:
        with files.report_read_errors(path, _EXPECTED_FILE):
            image = _rescale_grey(dataset, image)
    return image, _read_spacing(path, dataset)


def read_mask(
    path: Path, shape: tuple[int, int], labels: Labels | None = None
) -> NDArray[np.bool_]:
    """Read the mask of an image of `shape` (height, width): see `labels.foreground_mask`.

    Only the stored values count: rescaling and MONOCHROME1 change the display, not the foreground.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    BadInput
        The file cannot be read, is not a mask, or does not have the size of the image.
    """
    dataset = _open_single_image(path)
    levels = _decode(path, dataset)
    files.check_mask_size(path, levels.shape[:2], shape)
    if levels.ndim != 2:
        raise BadInput(path, "mask", found="colours", expected="grey", mend="save the mask as grey")
    return foreground_mask(path, levels, labels)
