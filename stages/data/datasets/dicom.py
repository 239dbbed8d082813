"""DICOM files of one image each: pixels, masks, and where the slice lies in the patient."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut

from stages.core.cli import BadInput
from stages.data.datasets import files

_READABLE = "a readable DICOM image"
_GREY = ("MONOCHROME1", "MONOCHROME2")
# What says where a slice lies, and how far two values of it may differ, relatively and absolutely
# (mm, for the position), since some software rounds them.
_NEAR = {
    "Rows": (0.0, 0.0),
    "Columns": (0.0, 0.0),
    "PixelSpacing": (1e-3, 0.0),
    "ImagePositionPatient": (0.0, 0.1),
    "ImageOrientationPatient": (0.0, 1e-3),
}
# All but the position: what slices of one series share.
SHARED = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")


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


def _numbers(header: pydicom.Dataset, name: str) -> NDArray[np.float64]:
    """Read the numbers of a tag; none where it is absent or empty."""
    values = np.ravel(np.asarray(header.get(name), object))
    # Software that takes names out may leave the separators between numbers.
    return np.array([] if any(value in (None, "") for value in values) else values, float)


def read_plane(path: Path) -> Plane:
    """Read where a slice lies, without its pixels.

    Raises
    ------
    BadInput
        The file cannot be read or does not say where the slice lies.
    """
    with files.reading(path, _READABLE):
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["InstanceNumber", *_NEAR]
        )
        values = {name: _numbers(header, name) for name in _NEAR}
        number = header.get("InstanceNumber")
        number = None if number in (None, "") else int(number)
    sizes = [values[name].size for name in _NEAR]
    if number is None or sizes != [1, 1, 2, 3, 6] or (values["PixelSpacing"] <= 0).any():
        raise BadInput(
            path,
            "place in the patient",
            found=f"InstanceNumber {number}, "
            + ", ".join(f"{name} {values[name].tolist()}" for name in _NEAR),
            expected="InstanceNumber, the size of the image and of a pixel, position, orientation",
            mend="download or export the series again",
        )
    rows, columns, spacing, corner, orientation = (values[name] for name in _NEAR)
    # The first three numbers run along a row, from column to column.
    return Plane(
        path,
        number,
        (int(rows[0]), int(columns[0])),
        corner,
        orientation[3:] * spacing[0],
        orientation[:3] * spacing[1],
    )


@dataclass(frozen=True)
class Header:
    """Whose image is in a file, and where it lies, as far as the file says it.

    Attributes
    ----------
    patient
        PatientID; empty where there is none.
    place
        The numbers of Rows, Columns, PixelSpacing (mm), ImagePositionPatient (mm) and
        ImageOrientationPatient; of those of them that are there.
    """

    path: Path
    patient: str
    place: dict[str, NDArray[np.float64]]

    def describe(self, names: Iterable[str]) -> str:
        """Say the values of `names`."""
        return ", ".join(f"{name} {self.place[name].tolist()}" for name in names)


def read_header(path: Path) -> Header:
    """Read whose image is in a file, and where it lies, without its pixels.

    Raises
    ------
    BadInput
        The file cannot be read.
    """
    with files.reading(path, _READABLE):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", *_NEAR])
        values = {name: _numbers(header, name) for name in _NEAR}
        patient = str(header.get("PatientID") or "").strip()
    return Header(path, patient, {name: value for name, value in values.items() if value.size})


def differing(one: Header, other: Header, names: Iterable[str] = tuple(_NEAR)) -> list[str]:
    """Name what two files state differently, of those of `names` that both state."""
    found = []
    for name in names:
        first, second = one.place.get(name), other.place.get(name)
        if first is not None and second is not None:
            relative, absolute = _NEAR[name]
            alike = first.shape == second.shape
            if not (alike and np.allclose(second, first, rtol=relative, atol=absolute)):
                found.append(name)
    return found


def check_same_place(image: Header, mask: Header) -> None:
    """Stop where a mask says that it lies elsewhere than its image.

    Raises
    ------
    BadInput
        Spacing, position or orientation differ, of those that both files state.
    """
    names = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    if odd := differing(image, mask, names):
        raise BadInput(
            mask.path,
            "place in the patient",
            found=mask.describe(odd),
            expected=f"as its image: {image.describe(odd)}",
            mend="pair the mask with its own image, or export it again",
        )


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


def _open(path: Path) -> pydicom.Dataset:
    """Read a file with one grey or colour image."""
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
    return dataset


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
    dataset = _open(path)
    with files.reading(path, _READABLE):
        grey = dataset.PhotometricInterpretation in _GREY
        # Pydicom turns YBR to RGB.
        image = _grey(dataset) if grey else np.asarray(dataset.pixel_array)
    return image, _spacing(path, dataset)


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the mask of an image of `shape` (height, width): see `files.foreground`.

    The stored values count: how software shows a mask says nothing of what is inside.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    BadInput
        The file cannot be read, is no mask, or does not have the image's size.
    """
    dataset = _open(path)
    with files.reading(path, _READABLE):
        levels = np.asarray(dataset.pixel_array)
    files.check_size(path, levels.shape[:2], shape)
    if levels.ndim != 2:
        raise BadInput(path, "mask", found="colours", expected="grey", mend="save the mask as grey")
    return files.foreground(path, levels)
