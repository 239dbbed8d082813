"""DICOM files of one image each: pixels, and where the slice lies in the patient."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut

from stages.cli import BadInput
from stages.datasets import files

_READABLE = "a readable DICOM image"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PLACE = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True)
class Plane:
    """Where a slice lies in the patient.

    Attributes
    ----------
    number
        InstanceNumber.
    shape
        Height and width, pixels.
    corner
        (3,) centre of the first pixel: left, posterior, superior, mm.
    down, right
        (3,) steps from a pixel to the next of its column and of its row, mm.
    """

    path: Path
    number: int
    shape: tuple[int, int]
    corner: NDArray[np.float64]
    down: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) direction across the slice, of length 1."""
        across = np.cross(self.right, self.down)
        return np.asarray(across / np.linalg.norm(across))


def read_plane(path: Path) -> Plane:
    """Read where a slice lies, without its pixels.

    Raises
    ------
    BadInput
        The file cannot be read or does not say where the slice lies.
    """
    with files.reading(path, _READABLE):
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["InstanceNumber", *_PLACE]
        )
        values = {name: np.asarray(header.get(name) or [], float).ravel() for name in _PLACE}
        number = header.get("InstanceNumber")
    sizes = [values[name].size for name in _PLACE]
    if number is None or sizes != [1, 1, 2, 3, 6] or (values["PixelSpacing"] <= 0).any():
        raise BadInput(
            path,
            "place in the patient",
            found=f"InstanceNumber {number}, "
            + ", ".join(f"{name} {values[name].tolist()}" for name in _PLACE),
            expected="InstanceNumber, the size of the image and of a pixel, position, orientation",
            mend="download or export the series again",
        )
    rows, columns, spacing, corner, orientation = (values[name] for name in _PLACE)
    # The first three numbers run along a row, from column to column.
    return Plane(
        path,
        int(number),
        (int(rows[0]), int(columns[0])),
        corner,
        orientation[3:] * spacing[0],
        orientation[:3] * spacing[1],
    )


def read_patient(path: Path) -> str:
    """Read PatientID; empty where the file names none."""
    with files.reading(path, _READABLE):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(header.get("PatientID") or "").strip()


def _spacing(path: Path, dataset: Any) -> tuple[float, float]:
    with files.reading(path, "PixelSpacing as two numbers, mm"):
        # Either is absent or empty where nobody knows it.
        stated = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        y, x = map(float, stated or (np.nan, np.nan))
    if y <= 0 or x <= 0:
        raise BadInput(
            path,
            "PixelSpacing",
            found=f"{y:g}, {x:g}",
            expected="millimetres, above 0",
            mend="correct it, or delete it where it is not known",
        )
    return y, x


def _grey(dataset: Any) -> NDArray[np.float32]:
    """Rescale the stored values as the file says, and let bright mean more."""
    image = apply_modality_lut(dataset.pixel_array, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        bits = dataset.BitsStored
        stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if dataset.PixelRepresentation == 0:
            stored = (0, 2**bits - 1)
        image = apply_modality_lut(np.array(stored), dataset).sum() - image
    return np.asarray(image, np.float32)[..., None]


def read(path: Path) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read the one image in a file.

    Returns
    -------
    (H, W, 1) float32 of a grey image: slope and intercept applied, MONOCHROME1 inverted; or
    (H, W, 3) uint8 RGB of a colour one with 8 bits. And the size of a pixel along y and x, mm: of
    PixelSpacing, else of ImagerPixelSpacing, else NaN.

    Raises
    ------
    BadInput
        The file cannot be read or is not one such image.
    """
    with files.reading(path, _READABLE):
        dataset = pydicom.dcmread(path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        colours = str(dataset.PhotometricInterpretation)
        bits = int(dataset.BitsAllocated)
    if frames != 1:
        raise BadInput(path, "frames", found=frames, expected=1, mend="store one image per file")
    if not (colours in _GREY or (bits == 8 and colours.startswith(("RGB", "YBR")))):
        raise BadInput(
            path,
            "pixels",
            found=f"{colours}, {bits} bits",
            expected="grey, or RGB or YBR with 8 bits",
            mend="export the image as grey or as RGB",
        )
    with files.reading(path, _READABLE):
        # Pydicom turns YBR to RGB.
        image = _grey(dataset) if colours in _GREY else np.asarray(dataset.pixel_array)
    return image, _spacing(path, dataset)
