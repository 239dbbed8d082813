"""DICOM files of one image: values, colours, spacing and the geometry of a slice."""

from base64 import b64decode

import gdcm
import numpy as np
import pydicom
import pytest
from conftest import write_dicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless

from stages.core.cli import BadInput
from stages.data.datasets import dicom

# 0, 1, … 11
STORED = np.arange(12).reshape(3, 4)
GEOMETRY = {
    "InstanceNumber": 7,
    "ImagePositionPatient": [-10.0, 20.0, 30.0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slice.dcm"


def test_stored_values_and_spacing(path):
    write_dicom(path, STORED, (0.5, 0.75))
    image, spacing = dicom.read_image(path)
    assert image.dtype == np.float32 and image.shape == (3, 4, 1)
    np.testing.assert_array_equal(image[..., 0], STORED)
    assert spacing == (0.5, 0.75)  # along y, then x


def test_an_unknown_kind_of_value_is_bad_input(path):
    write_dicom(path, STORED, (1, 1))
    content = path.read_bytes()
    # The modality's CS; and no pixels, so that the message wants to name the modality.
    damaged = content.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00S\x02")
    path.write_bytes(damaged.replace(b"\xe0\x7f\x10\x00", b"\xe0\x7f\x12\x00"))
    assert path.read_bytes() != content
    with pytest.raises(BadInput, match="Unknown Value Representation"):
        dicom.read_image(path)


def test_slope_and_intercept_are_applied(path):
    write_dicom(path, STORED, (1, 1), RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(dicom.read_image(path)[0][..., 0], 2 * STORED - 1024)


def test_monochrome1_is_inverted_over_the_stored_range(path):
    # 4 bits: 0 … 15. Inverted 15 − v; rescaled 2 (15 − v) − 10.
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 4, "HighBit": 3}
    write_dicom(path, STORED, (1, 1), **tags, RescaleSlope=2, RescaleIntercept=-10)
    np.testing.assert_array_equal(dicom.read_image(path)[0][..., 0], 20 - 2 * STORED)


def test_signed_monochrome1(path):
    # 16 bits: −32768 … 32767. Inverted −1 − v.
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": 1}
    write_dicom(path, STORED - 6, (1, 1), **tags)
    np.testing.assert_array_equal(dicom.read_image(path)[0][..., 0], 5 - STORED)


# STORED as a codestream of HTJ2K; written by OpenJPH 0.26, as no package here can write it.
HTJ2K_STORED = b64decode(
    "/0//UQApAAAAAAAEAAAAAwAAAAAAAAAAAAAABAAAAAMAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB"
    "/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAADEAAf+TwAAl9QUHdAAA"
    "AADAABJAABKA/hdzAP4AR3QAwAAkAPwB4wD/2Q=="
)


def compress(path, syntax):
    """Compress a file in place."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


# Stored values, with the tags that say so: 12 bits; 16 bits; with a sign.
DEPTHS = {
    "12": (
        np.random.default_rng(0).integers(0, 2**12, (24, 31)), {"BitsStored": 12, "HighBit": 11},
    ),
    "16": (np.random.default_rng(1).integers(0, 2**16, (24, 31)), {}),
    "signed": (
        np.random.default_rng(2).integers(-(2**15), 2**15, (24, 31)), {"PixelRepresentation": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("syntax", "uid"),
    [("RLELossless", "5"), ("JPEGLosslessProcess14", "4.57"), ("JPEGLosslessProcess14_1", "4.70"),
     ("JPEGLSLossless", "4.80"), ("JPEG2000Lossless", "4.90")],
)  # fmt: skip
def test_compression_without_loss_is_read_bit_for_bit(syntax, uid, depth, path):
    stored, tags = DEPTHS[depth]
    write_dicom(path, stored, (0.5, 0.75), **tags)
    compress(path, syntax)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == f"1.2.840.10008.1.2.{uid}"
    image, spacing = dicom.read_image(path)
    np.testing.assert_array_equal(image[..., 0], stored)
    assert spacing == (0.5, 0.75)


def test_htj2k(path):
    write_dicom(path, STORED, (1, 1))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    dataset.PixelData = encapsulate([HTJ2K_STORED])
    dataset.save_as(path)
    np.testing.assert_array_equal(dicom.read_image(path)[0][..., 0], STORED)


def test_a_compressed_mask(path):
    inside = STORED % 5 == 0
    write_dicom(path, inside * 1, (1, 1))
    compress(path, "JPEGLosslessProcess14_1")
    np.testing.assert_array_equal(dicom.read_mask(path, (3, 4)), inside)


def write_colours(path, rgb, photometric, **tags):
    write_dicom(
        path, rgb[..., 0], (1, 1), PhotometricInterpretation=photometric, SamplesPerPixel=3,
        PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7,
        PixelData=rgb.astype(np.uint8).tobytes(), **tags,
    )  # fmt: skip


def test_rgb(path):
    rgb = np.arange(36).reshape(3, 4, 3) * 7
    write_colours(path, rgb, "RGB")
    image, _ = dicom.read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, rgb)


def test_ybr_becomes_rgb(path):
    # ITU-R BT.601, full range: Y = 0.299 · 255 = 76, Cb = 128 − 0.1687 · 255 = 85, Cr = 255.
    ybr = np.broadcast_to([76, 85, 255], (3, 4, 3))
    write_colours(path, ybr, "YBR_FULL")
    red = dicom.read_image(path)[0]
    assert red.dtype == np.uint8
    assert abs(red.astype(int) - [255, 0, 0]).max() <= 2


SPACINGS = [
    ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.5, 0.75)),
    ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
    ({"PixelSpacing": None}, (np.nan, np.nan)),
]


@pytest.mark.parametrize(("tags", "expected"), SPACINGS)
def test_spacing_comes_from_pixel_spacing_else_imager_pixel_spacing_else_is_nan(
    path, tags, expected
):
    write_dicom(path, STORED, (0.5, 0.75), **tags)
    np.testing.assert_array_equal(dicom.read_image(path)[1], expected)


def two_frames(path):
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


def without_prefix(path):
    write_dicom(path, STORED, (1, 1))
    path.write_bytes(path.read_bytes()[132:])


def syntax(path, uid):
    """State how the pixels are stored, whatever they are; with None state nothing."""
    write_dicom(path, STORED, (1, 1))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid
    dataset.PixelData = encapsulate([b"pixels"]) if uid else dataset.PixelData
    dataset["PixelData"].is_undefined_length = uid is not None
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)


DECOMPRESS = "decompress the file: `gdcmconv --raw IN OUT` (GDCM), or `dcmdjpeg IN OUT` (DCMTK)"
BAD = {
    "no prefix": (
        without_prefix, "file", "found:    no DICM after the first 128 bytes", "`dcmconv IN OUT`",
    ),
    "no syntax": (
        lambda path: syntax(path, None), "TransferSyntaxUID", "found:    none\n",
        "add the tag: 1.2.840.10008.1.2.1 for pixels that are not compressed",
    ),
    "video": (
        lambda path: syntax(path, "1.2.840.10008.1.2.4.100"), "TransferSyntaxUID",
        "found:    MPEG2 Main Profile / Main Level (1.2.840.10008.1.2.4.100)\n", DECOMPRESS,
    ),
    "private syntax": (
        lambda path: syntax(path, "1.2.3.4"), "TransferSyntaxUID", "found:    1.2.3.4\n",
        DECOMPRESS,
    ),
    "no codestream": (
        lambda path: syntax(path, "1.2.840.10008.1.2.4.70"), "file", "a readable DICOM image",
        f"{DECOMPRESS}; if that fails, replace it",
    ),
    "frames": (two_frames, "frames", "found:    2\n  expected: 1", "store one image per file"),
    "palette": (palette, "pixels", "found:    PALETTE COLOR, 16 bits", "as grey or as RGB"),
    "truncated": (truncated, "file", "expected: a readable DICOM image", "replace the file"),
    "no pixels": (
        no_pixels, "file",
        "found:    no pixels, Modality MR\n  expected: a readable DICOM image\n", "RTSTRUCT",
    ),
    "text": (lambda path: path.write_text("x" * 200), "file", "no DICM", "a new export"),
    "empty": (lambda path: path.touch(), "file", "a readable DICOM", "replace the file by"),
    "absent": (lambda path: None, "file", "No such file", "replace the file"),
    "spacing 0": (
        lambda path: write_dicom(path, STORED, (0.5, 0)), "PixelSpacing", "found:    0.5, 0",
        "delete it if the spacing is not known",
    ),
    "one spacing": (
        lambda path: write_dicom(path, STORED, (0.5,)), "PixelSpacing",
        "found:    0.5\n  expected: two distances above 0, mm: of rows, then of columns\n",
        "delete it if the spacing is not known",
    ),
    "three imager spacings": (
        lambda path: write_dicom(path, STORED, (), ImagerPixelSpacing=[1, 2, 3]),
        "ImagerPixelSpacing", "found:    1, 2, 3\n", "correct the tag",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_is_reported(name, path, caplog):
    make, field, expected_text, mend = BAD[name]
    make(path)
    with pytest.raises(BadInput) as caught:
        dicom.read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {field}\n")
    assert expected_text in text and mend in text.split("to mend:")[1]
    # Decoders log no traceback between our messages.
    assert caplog.messages == []


def test_the_geometry_of_a_slice(path):
    orientation = [0, 1, 0, 0, 0, -1]  # sagittal: rows to the back, columns to the feet
    write_dicom(path, STORED, (0.5, 0.75), **GEOMETRY | {"ImageOrientationPatient": orientation})
    geometry = dicom.read_slice_geometry(path)
    assert (geometry.path, geometry.number, geometry.shape) == (path, 7, (3, 4))
    assert geometry.origin.tolist() == [-10, 20, 30]
    assert geometry.step_down.tolist() == [0, 0, -0.5]
    assert geometry.step_right.tolist() == [0, 0.75, 0]
    assert geometry.normal.tolist() == [-1, 0, 0]
    write_dicom(path, STORED, (0.5, 0.75), **GEOMETRY | {"InstanceNumber": 0})
    assert dicom.read_slice_geometry(path).number == 0


@pytest.mark.parametrize("name", ["PixelSpacing", *GEOMETRY])
def test_a_slice_without_geometry_is_reported(name, path):
    tags = {"PixelSpacing": [1, 1]} | GEOMETRY
    write_dicom(path, STORED, (1, 1), **tags | {name: None})
    with pytest.raises(BadInput) as caught:
        dicom.read_slice_geometry(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: geometry\n  found:    InstanceNumber ")
    assert (f"{name} []" if name != "InstanceNumber" else "InstanceNumber None") in text
    assert text.endswith("to mend:  download or export the series again")


def header(path, **tags):
    write_dicom(path, STORED, (0.5, 0.75), **tags)
    return dicom.read_header(path)


def test_the_patient_id(path):
    for patient, expected in (("P 7", "P 7"), (" ", ""), (None, "")):
        assert header(path, PatientID=patient).patient_id == expected


def test_a_header_holds_only_the_stated_numbers(path):
    # Software that anonymises files may leave only two separators.
    geometry = header(path, ImagePositionPatient="\\\\", ImageOrientationPatient=None).geometry
    assert {name: values.tolist() for name, values in geometry.items()} == {
        "Rows": [3], "Columns": [4], "PixelSpacing": [0.5, 0.75],
    }  # fmt: skip


# Half of the tolerance for rounding, and twice the tolerance.
ROUNDED_AND_DIFFERENT = {
    "PixelSpacing": ([0.50025, 0.75], [0.501, 0.75]),
    "ImagePositionPatient": ([-10, 20.05, 30], [-10, 20.2, 30]),
    "ImageOrientationPatient": ([1, 0, 5e-4, 0, 1, 0], [1, 0, 2e-3, 0, 1, 0]),
}


@pytest.mark.parametrize("name", ROUNDED_AND_DIFFERENT)
def test_tags_differ_beyond_the_tolerance(name, path):
    reference = header(path, **GEOMETRY)
    near, far = (
        header(path, **GEOMETRY | {name: values}) for values in ROUNDED_AND_DIFFERENT[name]
    )
    absent = header(path, **GEOMETRY | {name: None})
    assert dicom.differing_tags(reference, near) == dicom.differing_tags(reference, absent) == []
    assert dicom.differing_tags(reference, far) == dicom.differing_tags(far, reference) == [name]
    assert dicom.differing_tags(reference, far, ["Rows"]) == []


def test_a_mask_with_another_geometry_is_reported(path):
    image = header(path, **GEOMETRY)
    dicom.check_same_geometry(image, header(path, PixelSpacing=None))
    with pytest.raises(BadInput) as caught:
        dicom.check_same_geometry(
            image, header(path, **GEOMETRY | {"ImagePositionPatient": [0, 20, 30]})
        )
    assert str(caught.value) == (
        f"{path}: geometry\n"
        "  found:    ImagePositionPatient [0.0, 20.0, 30.0]\n"
        "  expected: that of the image: ImagePositionPatient [-10.0, 20.0, 30.0]\n"
        "  to mend:  give the image its own mask, or export the mask again"
    )


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        # In Hounsfield units 0 would be -1024.
        {"RescaleSlope": 2, "RescaleIntercept": -1024},
        {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 1, "HighBit": 0},
    ],
)
def test_only_the_stored_values_of_a_mask_count(tags, path):
    inside = STORED % 5 == 0
    write_dicom(path, inside * 1, (1, 1), **tags)
    mask = dicom.read_mask(path, (3, 4))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, inside)


@given(at=st.integers(0, 700), value=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_raise_bad_input_or_give_an_image(tmp_path_factory, at, value):
    path = tmp_path_factory.mktemp("damaged") / "a.dcm"
    write_dicom(path, STORED, (1, 1), **GEOMETRY)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    for read in (dicom.read_image, dicom.read_slice_geometry, dicom.read_header):
        try:
            read(path)
        except BadInput as problem:
            assert str(problem).startswith(f"{path}: ")
