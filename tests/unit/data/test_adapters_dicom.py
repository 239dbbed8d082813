"""DICOM files of one image: values, colours, spacing, and where a slice lies."""

import numpy as np
import pydicom
import pytest
from conftest import write_dicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from stages.core.cli import BadInput
from stages.data.datasets import dicom

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
    write_dicom(path, STORED, (0.5, 0.75), **PLACE | {"InstanceNumber": 0})
    assert dicom.read_plane(path).number == 0


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


def header(path, **tags):
    write_dicom(path, STORED, (0.5, 0.75), **tags)
    return dicom.read_header(path)


def test_the_patient(path):
    for patient, expected in (("P 7", "P 7"), (" ", ""), (None, "")):
        assert header(path, PatientID=patient).patient == expected


def test_a_header_holds_the_numbers_that_are_there(path):
    # Software that takes names out may leave two separators.
    place = header(path, ImagePositionPatient="\\\\", ImageOrientationPatient=None).place
    assert {name: values.tolist() for name, values in place.items()} == {
        "Rows": [3], "Columns": [4], "PixelSpacing": [0.5, 0.75],
    }  # fmt: skip


# Half, and twice, of what headers may differ in by rounding.
ALIKE = {
    "PixelSpacing": ([0.50025, 0.75], [0.501, 0.75]),
    "ImagePositionPatient": ([-10, 20.05, 30], [-10, 20.2, 30]),
    "ImageOrientationPatient": ([1, 0, 5e-4, 0, 1, 0], [1, 0, 2e-3, 0, 1, 0]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_headers_state_differently(name, path):
    one = header(path, **PLACE)
    near, far = (header(path, **PLACE | {name: values}) for values in ALIKE[name])
    absent = header(path, **PLACE | {name: None})
    assert dicom.differing(one, near) == dicom.differing(one, absent) == []
    assert dicom.differing(one, far) == dicom.differing(far, one) == [name]
    assert dicom.differing(one, far, ["Rows"]) == []


def test_a_mask_must_not_say_that_it_lies_elsewhere(path):
    image = header(path, **PLACE)
    dicom.check_same_place(image, header(path, PixelSpacing=None))
    with pytest.raises(BadInput) as caught:
        dicom.check_same_place(image, header(path, **PLACE | {"ImagePositionPatient": [0, 20, 30]}))
    assert str(caught.value) == (
        f"{path}: place in the patient\n"
        "  found:    ImagePositionPatient [0.0, 20.0, 30.0]\n"
        "  expected: as its image: ImagePositionPatient [-10.0, 20.0, 30.0]\n"
        "  to mend:  pair the mask with its own image, or export it again"
    )


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        # As a number of Hounsfield units, 0 would be -1024.
        {"RescaleSlope": 2, "RescaleIntercept": -1024},
        {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 1, "HighBit": 0},
    ],
)
def test_of_a_mask_the_stored_values_count(tags, path):
    inside = STORED % 5 == 0
    write_dicom(path, inside * 1, (1, 1), **tags)
    mask = dicom.read_mask(path, (3, 4))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, inside)


@given(at=st.integers(0, 700), value=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_bad_input_or_an_image(tmp_path_factory, at, value):
    path = tmp_path_factory.mktemp("damaged") / "a.dcm"
    write_dicom(path, STORED, (1, 1), **PLACE)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    for read in (dicom.read, dicom.read_plane, dicom.read_header):
        try:
            read(path)
        except BadInput as problem:
            assert str(problem).startswith(f"{path}: ")
