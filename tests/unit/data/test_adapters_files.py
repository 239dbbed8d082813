"""PNG, JPEG, TIFF and BMP files as common software writes them."""

import errno
import struct
import zlib

import numpy as np
import pytest
from conftest import disc
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from stages.core.cli import BadInput
from stages.data.datasets import files
from stages.data.datasets.labels import Labels, foreground_mask

SIZE = (40, 50)
MASK = disc(SIZE, (20, 18), 9)
GREY = np.arange(2000, dtype=np.uint8).reshape(SIZE)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png_of_16_bit_colours(path):
    """Write a PNG with 16 bits per colour, which Pillow cannot do."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + np.array([0, 0, 0, 1, 1, 1], ">u2").tobytes())
    content = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_colours_and_grey_become_rgb(ending, tmp_path):
    image = files.read_image(save(tmp_path / f"colour.{ending}", RGB))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, RGB)
    image = files.read_image(save(tmp_path / f"grey.{ending}", GREY))
    np.testing.assert_array_equal(image, np.stack([GREY] * 3, axis=-1))


def test_a_jpeg_is_read_close_to_what_was_saved(tmp_path):
    smooth = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None] * 4, (50, 60))
    image = files.read_image(save(tmp_path / "a.jpg", smooth, quality=95))
    assert image.shape == (50, 60, 3)
    assert abs(image.astype(int) - smooth[..., None]).max() <= 3


@pytest.mark.parametrize("mode", ["P", "1", "RGBA", "LA", "CMYK"])
def test_images_of_other_modes_look_as_in_a_viewer(mode, tmp_path):
    two = np.where(MASK, 255, 0).astype(np.uint8)
    image = files.read_image(save(tmp_path / "a.tif", two, mode))
    np.testing.assert_array_equal(image, np.stack([two] * 3, axis=-1))


@pytest.mark.parametrize(("ending", "kind"), [("png", "u2"), ("tif", "u2"), ("tif", "f4")])
def test_deep_grey_keeps_its_values(ending, kind, tmp_path):
    deep = (np.arange(2000).reshape(SIZE) * 30).astype(kind)
    image = files.read_image(save(tmp_path / f"a.{ending}", deep))
    assert image.dtype == np.float32 and image.shape == (*SIZE, 1)
    np.testing.assert_array_equal(image[..., 0], deep)


def test_a_jpeg_with_a_preview_is_its_first_picture(tmp_path):
    preview = Image.fromarray(GREY).resize((10, 10))
    path = save(tmp_path / "a.jpg", MASK.astype(np.uint8) * 255, format="MPO", save_all=True,
                append_images=[preview])  # fmt: skip
    assert files.read_image(path).shape == (*SIZE, 3)
    assert (files.read_mask(path, SIZE) ^ MASK).mean() < 0.01


def three_pages(path):
    save(path, GREY, format="TIFF", save_all=True, append_images=[Image.fromarray(GREY)] * 2)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path, RGB, exif=exif)


def transparent(path):
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[3, 4] = 254
    save(path, np.dstack([RGB, alpha]))


def truncated(path):
    save(path, RGB)
    path.write_bytes(path.read_bytes()[:-400])


def not_finite(path):
    pixels = np.zeros(SIZE, np.float32)
    pixels[2, :3] = np.nan, np.inf, -np.inf
    save(path, pixels)


def white_is_0(path):
    save(path, np.arange(64, dtype=np.uint16).reshape(8, 8) * 100, tiffinfo={262: 0})


BAD_IMAGES = {
    "pages.tif": (three_pages, "pages", "3", "1", "save each page as a separate file"),
    "turned.jpg": (rotated, "EXIF orientation", "6", "1: viewers rotate all others",
                   "rotate the stored pixels"),
    "turned.tif": (rotated, "EXIF orientation", "6", "1: viewers rotate all others",
                   "rotate the stored pixels"),
    "through.png": (transparent, "transparency", "pixels that are not opaque",
                    "opaque pixels only: a viewer", "flatten the image"),
    "truncated.png": (truncated, "file", "", "a readable PNG, JPEG, TIFF or BMP file",
                      "replace the file"),
    "truncated.jpg": (truncated, "file", "image file is truncated",
                      "a readable PNG, JPEG, TIFF or BMP file", "replace the file"),
    "truncated.tif": (truncated, "file", "", "a readable PNG, JPEG, TIFF or BMP file",
                      "replace the file"),
    "truncated.bmp": (truncated, "file", "image file is truncated",
                      "a readable PNG, JPEG, TIFF or BMP file", "replace the file"),
    "text.png": (lambda path: path.write_text("none"), "file", "cannot identify image file",
                 "a readable PNG, JPEG, TIFF or BMP file", "replace the file"),
    "film.gif": (lambda path: save(path, GREY), "file", "cannot identify image file",
                 "a readable PNG, JPEG, TIFF or BMP file", "replace the file"),
    "absent.png": (lambda path: None, "file", "No such file",
                   "a readable PNG, JPEG, TIFF or BMP file", "replace the file"),
    "wide.png": (png_of_16_bit_colours, "pixels", "16 bits per colour", "8 bits per colour",
                 "save the image with 8 bits per channel"),
    "negative.tif": (white_is_0, "photometric interpretation", "white is 0, with 16 bits",
                     "black is 0", "save the image with black as 0"),
    "nan.tif": (not_finite, "pixels", "3 values that are not finite", "finite intensities",
                "replace NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_unusable_file_is_reported(name, tmp_path):
    make, field, found, expected, mend = BAD_IMAGES[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(BadInput) as caught:
        files.read_image(path)
    first, second, third, fourth = str(caught.value).split("\n", 3)
    assert first == f"{path}: {field}"
    assert found in second
    assert third.startswith(f"  expected: {expected}")
    assert fourth.startswith(f"  to mend:  {mend}")


def test_a_file_without_read_permission_needs_the_permission(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    with pytest.raises(BadInput) as caught, files.report_read_errors(path, "a readable file"):
        # A real file does not raise it for root, who may read all files.
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    assert "Permission denied" in str(caught.value)
    assert str(caught.value).endswith("to mend:  give this user the permission to read it")


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_orientations_that_viewers_ignore_are_accepted(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert files.read_image(save(tmp_path / "a.jpg", RGB, exif=exif)).shape == RGB.shape


# Masks


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
@pytest.mark.parametrize("level", [1, 7, 255])
def test_the_level_above_0_is_the_foreground(ending, level, tmp_path):
    path = save(tmp_path / f"a.{ending}", (MASK * level).astype(np.uint8))
    mask = files.read_mask(path, SIZE)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "P"])
def test_masks_in_other_modes(mode, tmp_path):
    path = save(tmp_path / "a.png", (MASK * 255).astype(np.uint8), mode)
    np.testing.assert_array_equal(files.read_mask(path, SIZE), MASK)


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_deep_masks(kind, tmp_path):
    path = save(tmp_path / "a.tif", (MASK * 40000).astype(kind))
    np.testing.assert_array_equal(files.read_mask(path, SIZE), MASK)


def test_the_colours_of_a_palette_count_not_its_indices(tmp_path):
    image = Image.fromarray((~MASK).astype(np.uint8))
    image.putpalette([255, 255, 255, 0, 0, 0])  # 0 is white
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(files.read_mask(tmp_path / "a.png", SIZE), MASK)


@pytest.mark.parametrize(("level", "full"), [(0, False), (1, True), (255, True)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_mask_of_one_level_is_empty_or_full(level, full, ending, tmp_path):
    path = save(tmp_path / f"a.{ending}", np.full(SIZE, level, np.uint8))
    assert (files.read_mask(path, SIZE) == full).all()


def test_an_empty_and_a_full_jpeg(tmp_path):
    for level in (0, 255):
        path = save(tmp_path / f"{level}.jpg", np.full(SIZE, level, np.uint8))
        assert (files.read_mask(path, SIZE) == (level == 255)).all()


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ringing_in_a_jpeg_is_accepted(quality, mode, tmp_path):
    path = save(tmp_path / "a.jpg", (MASK * 255).astype(np.uint8), mode, quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    # Only pixels at the border may change: the circumference is 57 of 2000 pixels.
    assert (files.read_mask(path, SIZE) ^ MASK).sum() <= 14


def bad_mask(path, array, **options):
    with pytest.raises(BadInput) as caught:
        files.read_mask(save(path, array, **options), SIZE)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.split("\n", 1)[1]


def test_a_mask_of_other_levels_is_reported(tmp_path):
    three = MASK.astype(np.uint8) + disc(SIZE, (20, 18), 4)
    assert bad_mask(tmp_path / "a.png", three) == (
        "  found:    3 levels: 0, 1, 2\n"
        "  expected: two levels: 0 and one other\n"
        "  to mend:  name the labels of the foreground in `prepare.foreground`, such as "
        "`foreground: [1, 2]`; or save the mask with 0 outside and 255 inside"
    )
    lifted = np.where(MASK, 255, 10).astype(np.uint8)
    assert "found:    2 levels: 10, 255\n" in bad_mask(tmp_path / "b.png", lifted)
    many = bad_mask(tmp_path / "c.tif", GREY)
    assert "found:    256 levels: 0, 1, 2, 3, 4, 5, 6, 7, …\n" in many


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
@pytest.mark.parametrize("chosen", [(1,), (2,), (1, 2), (2, 7)])
def test_chosen_labels_are_foreground_and_the_others_background(ending, chosen, tmp_path):
    labels = MASK.astype(np.uint8) + disc(SIZE, (20, 18), 4)
    labels[:3, :3] = 7
    path = save(tmp_path / f"a.{ending}", labels)
    np.testing.assert_array_equal(
        files.read_mask(path, SIZE, Labels(chosen)), np.isin(labels, chosen)
    )


def test_labels_that_are_no_whole_numbers_are_reported(tmp_path):
    path = save(tmp_path / "a.tif", (MASK * 0.5).astype(np.float32))
    with pytest.raises(BadInput) as caught:
        files.read_mask(path, SIZE, Labels([1]))
    assert f"{path}: mask\n  found:    2 levels: 0, 0.5\n" in str(caught.value)
    assert "`prepare.foreground`" in str(caught.value)


def test_a_jpeg_cannot_hold_labels(tmp_path):
    path = save(tmp_path / "a.jpg", (MASK * 255).astype(np.uint8))
    with pytest.raises(BadInput) as caught:
        files.read_mask(path, SIZE, Labels([255]))
    assert "mask\n  found:    a JPEG, whose compression changes labels\n" in str(caught.value)
    assert "remove `prepare.foreground`" in str(caught.value)


@given(
    arrays.arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(1, 4)),
                  elements=st.integers(-2, 4)),
    st.sets(st.integers(1, 4), min_size=1),
)  # fmt: skip
def test_labels_divide_the_values(values, chosen):
    inside = foreground_mask("mask", values, Labels(chosen))
    np.testing.assert_array_equal(inside, [[value in chosen for value in row] for row in values])


def test_a_grey_jpeg_is_not_a_mask(tmp_path):
    # 5 of 50 columns, a tenth of the pixels, in the middle of the range.
    grey = np.where(MASK, 255, 0).astype(np.uint8)
    grey[:, :5] = 128
    found = bad_mask(tmp_path / "a.jpg", grey, quality=100)
    assert "% of the pixels from 64 to 191\n" in found
    share = float(found.split("found:    ")[1].split("%")[0])
    assert share == pytest.approx(10, abs=1)
    assert "at most 5% of the pixels between" in found


def test_a_jpeg_of_0_and_1_is_not_read_as_empty(tmp_path):
    found = bad_mask(tmp_path / "a.jpg", MASK.astype(np.uint8), quality=100)
    assert "found:    levels up to " in found


def test_a_coloured_mask_is_reported(tmp_path):
    red = np.zeros((*SIZE, 3), np.uint8)
    red[MASK, 0] = 255
    for name in ("a.png", "a.jpg"):
        assert "colours: red, green and blue differ by up to 2" in bad_mask(tmp_path / name, red)


def test_a_mask_of_another_size(tmp_path):
    found = bad_mask(tmp_path / "a.png", MASK.T.astype(np.uint8))
    assert "found:    (50, 40) (height, width)\n  expected: the image's (40, 50)" in found


@given(
    arrays.arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(1, 4)),
                  elements=st.integers(-2, 2))
)  # fmt: skip
def test_foreground_is_any_level_except_0(values):
    levels = sorted({*values.ravel().tolist()})
    good = len(levels) == 1 or (len(levels) == 2 and levels[0] == 0)
    if good:
        np.testing.assert_array_equal(foreground_mask("mask", values), values != 0)
    else:
        with pytest.raises(BadInput, match=f"{len(levels)} levels"):
            foreground_mask("mask", values)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.integers(0, 1500), st.integers(0, 255), st.sampled_from(["png", "jpg", "tif", "bmp"]))
def test_damaged_bytes_raise_bad_input_or_give_an_image(tmp_path_factory, at, value, ending):
    path = save(tmp_path_factory.mktemp("damaged") / f"a.{ending}", RGB)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    try:
        assert files.read_image(path).ndim == 3
    except BadInput as problem:
        assert str(problem).startswith(f"{path}: ")
