"""DICOM files of one image: values, colours, spacing, and where a slice lies."""

import numpy as np
import pydicom
import pytest
from conftest import write_dicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from stages.cli import BadInput
from stages.datasets import dicom

# 0, 1, … 11
STORED = np.arange(12).reshape(3, 4)
PLACE = {
    "InstanceNumber": 7,
    "ImagePositionPatient": [-10.0, 20.0, 30.0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slice.dcm"


def test_stored_values_and_spacing(path):
    write_dicom(path, STORED, (0.5, 0.75))
    image, spacing = dicom.read(path)
    assert image.dtype == np.float32 and image.shape == (3, 4, 1)
    np.testing.assert_array_equal(image[..., 0], STORED)
    assert spacing == (0.5, 0.75)  # along y, then x


def test_slope_and_intercept_are_applied(path):
    write_dicom(path, STORED, (1, 1), RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(dicom.read(path)[0][..., 0], 2 * STORED - 1024)


def test_monochrome1_is_inverted_over_the_stored_range(path):
    # 4 bits: 0 … 15. Inverted 15 − v; rescaled 2 (15 − v) − 10.
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 4, "HighBit": 3}
    write_dicom(path, STORED, (1, 1), **tags, RescaleSlope=2, RescaleIntercept=-10)
    np.testing.assert_array_equal(dicom.read(path)[0][..., 0], 20 - 2 * STORED)


def test_signed_monochrome1(path):
    # 16 bits: −32768 … 32767. Inverted −1 − v.
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": 1}
    write_dicom(path, STORED - 6, (1, 1), **tags)
    np.testing.assert_array_equal(dicom.read(path)[0][..., 0], 5 - STORED)


def test_a_compressed_file(path):
    write_dicom(path, STORED, (1, 1))
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(dicom.read(path)[0][..., 0], STORED)


def write_colours(path, rgb, photometric, **tags):
    write_dicom(
        path, rgb[..., 0], (1, 1), PhotometricInterpretation=photometric, SamplesPerPixel=3,
        PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7,
        PixelData=rgb.astype(np.uint8).tobytes(), **tags,
    )  # fmt: skip


def test_rgb(path):
    rgb = np.arange(36).reshape(3, 4, 3) * 7
    write_colours(path, rgb, "RGB")
    image, _ = dicom.read(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, rgb)


def test_ybr_becomes_rgb(path):
    # ITU-R BT.601, full range: Y = 0.299 · 255 = 76, Cb = 128 − 0.1687 · 255 = 85, Cr = 255.
    ybr = np.broadcast_to([76, 85, 255], (3, 4, 3))
    write_colours(path, ybr, "YBR_FULL")
    red = dicom.read(path)[0]
    assert red.dtype == np.uint8
    assert abs(red.astype(int) - [255, 0, 0]).max() <= 2


SPACINGS = [
    ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.5, 0.75)),
    ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
    ({"PixelSpacing": None}, (np.nan, np.nan)),
]


@pytest.mark.parametrize(("tags", "expected"), SPACINGS)
def test_spacing_is_of_the_patient_else_of_the_detector_else_unknown(path, tags, expected):
    write_dicom(path, STORED, (0.5, 0.75), **tags)
    np.testing.assert_array_equal(dicom.read(path)[1], expected)


def film(path):
    write_dicom(path, np.vstack([STORED] * 2), (1, 1), NumberOfFrames=2, Rows=3)


def palette(path):
    write_dicom(path, STORED, (1, 1), PhotometricInterpretation="PALETTE COLOR")


def truncated(path):
    write_dicom(path, STORED, (1, 1))
    path.write_bytes(path.read_bytes()[:-10])


def no_pixels(path):
    write_dicom(path, STORED, (1, 1))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


BAD = {
    "frames": (film, "frames", "found:    2\n  expected: 1", "store one image per file"),
    "palette": (palette, "pixels", "found:    PALETTE COLOR, 16 bits", "as grey or as RGB"),
    "truncated": (truncated, "file", "expected: a readable DICOM image", "replace the file"),
    "no pixels": (no_pixels, "file", "expected: a readable DICOM image", "replace the file"),
    "text": (lambda path: path.write_text("x" * 200), "file", "DICM", "replace the file"),
    "empty": (lambda path: path.touch(), "file", "a readable DICOM image", "replace the file"),
    "absent": (lambda path: None, "file", "No such file", "replace the file"),
    "spacing 0": (
        lambda path: write_dicom(path, STORED, (0.5, 0)), "PixelSpacing", "found:    0.5, 0",
        "delete it where it is not known",
    ),
    "one spacing": (
        lambda path: write_dicom(path, STORED, (0.5,)), "file", "two numbers, mm", "replace",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named(name, path):
    make, field, found, mend = BAD[name]
    make(path)
    with pytest.raises(BadInput) as caught:
        dicom.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {field}\n")
    assert found in text and mend in text.split("to mend:")[1]


def test_where_a_slice_lies(path):
    orientation = [0, 1, 0, 0, 0, -1]  # sagittal: rows to the back, columns to the feet
    write_dicom(path, STORED, (0.5, 0.75), **PLACE | {"ImageOrientationPatient": orientation})
    plane = dicom.read_plane(path)
    assert (plane.path, plane.number, plane.shape) == (path, 7, (3, 4))
    assert plane.corner.tolist() == [-10, 20, 30]
    assert plane.down.tolist() == [0, 0, -0.5]
    assert plane.right.tolist() == [0, 0.75, 0]
    assert plane.normal.tolist() == [-1, 0, 0]


@pytest.mark.parametrize("name", ["PixelSpacing", *PLACE])
def test_a_slice_without_its_place_is_named(name, path):
    tags = {"PixelSpacing": [1, 1]} | PLACE
    write_dicom(path, STORED, (1, 1), **tags | {name: None})
    with pytest.raises(BadInput) as caught:
        dicom.read_plane(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: place in the patient\n  found:    InstanceNumber ")
    assert (f"{name} []" if name != "InstanceNumber" else "InstanceNumber None") in text
    assert text.endswith("to mend:  download or export the series again")


def test_the_patient(path):
    for patient, expected in (("P 7", "P 7"), (" ", ""), (None, "")):
        write_dicom(path, STORED, (1, 1), PatientID=patient)
        assert dicom.read_patient(path) == expected


@given(at=st.integers(0, 700), value=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_bad_input_or_an_image(tmp_path_factory, at, value):
    path = tmp_path_factory.mktemp("damaged") / "a.dcm"
    write_dicom(path, STORED, (1, 1), **PLACE)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    for read in (dicom.read, dicom.read_plane, dicom.read_patient):
        try:
            read(path)
        except BadInput as problem:
            assert str(problem).startswith(f"{path}: ")
