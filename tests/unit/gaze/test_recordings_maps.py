"""Maps from other software."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.core.cli import BadInput
from stages.gaze.recordings import maps

GREY = np.array([[0, 51], [102, 255]], np.uint8)
SIZE = (2, 2)


def save(folder, name, pixels=GREY, **options):
    Image.fromarray(pixels).save(folder / name, **options)


def list_maps(folder, sample_ids):
    return list(maps.find_maps(folder, sample_ids))


def read_map(folder, sample_id, size, original_size):
    return maps.read_map(maps.find_maps(folder, [sample_id])[sample_id], size, original_size)


def message(function, *arguments):
    with pytest.raises(BadInput) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.Png", "a.tif", "a.TIFF", "a.tiff"])
def test_a_map_is_scaled_to_1(tmp_path, name):
    save(tmp_path, name)
    assert list_maps(tmp_path, ["a"]) == ["a"]
    found = read_map(tmp_path, "a", SIZE, SIZE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0.2], [0.4, 1]], rtol=1e-6)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg"])
def test_a_jpeg(tmp_path, name):
    save(tmp_path, name, np.full((16, 16), 128, np.uint8))
    found = read_map(tmp_path, "a", (8, 4), (16, 16))
    np.testing.assert_allclose(found, np.full((8, 4), 128 / 255))


def test_map_is_resized_to_the_working_size(tmp_path):
    save(tmp_path, "a.png", np.repeat(np.repeat(GREY, 4, axis=0), 8, axis=1))
    found = read_map(tmp_path, "a", (2, 4), (8, 16))
    assert found.shape == (2, 4)
    # A triangle 4 px to either side of 2, in rows and columns: of rows 0 to 5 it weighs the upper
    # level 0.625 + 0.875 + 0.875 + 0.625, the lower one 0.375 + 0.125, six to one; of columns 0
    # to 5 all are left. The pixels of a map stay 8 bits deep, at both passes.
    exact = [0.4 / 7, (6 * 0.2 + 1) / 7]
    np.testing.assert_allclose(found[0, [0, 3]], exact, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_grey_image_in_a_colour_mode_is_accepted(tmp_path, mode):
    Image.fromarray(GREY).convert("RGB").convert(mode).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_map(tmp_path, "a", SIZE, SIZE), GREY / 255, atol=1e-6)


def test_file_stem_is_matched_literally(tmp_path):
    for name in ("1.png", "11.png", "case.1.png", "[1].png", "case.1.png.txt"):
        (tmp_path / name).touch()
    save(tmp_path, "1.jpg")
    (tmp_path / "1.png").unlink()
    assert list_maps(tmp_path, ["case", "1", "case.1", "?", "*"]) == ["1", "case.1"]
    assert read_map(tmp_path, "1", SIZE, SIZE).shape == (2, 2)
    for absent in ("case", "?", "*", "[11]"):
        assert f"{tmp_path}: maps\n  found:    ['1.jpg', " in message(list_maps, tmp_path, [absent])


def test_two_maps_of_one_sample(tmp_path):
    save(tmp_path, "a.png")
    save(tmp_path, "a.bmp")
    for text in (message(list_maps, tmp_path, ["a"]), message(read_map, tmp_path, "a", SIZE, SIZE)):
        assert f"{tmp_path}: map of 'a'" in text
        assert "a.bmp" in text
        assert "a.png" in text
        assert "to mend:  delete all but one" in text


def test_maps_of_other_samples_are_counted(tmp_path, caplog):
    for name in ("a", "b", "c"):
        save(tmp_path, f"{name}.png")
    assert list_maps(tmp_path, ["b", "z"]) == ["b"]
    assert "2 maps belong to no readable image of the data set" in caplog.text


def test_a_folder_of_another_data_set_is_refused(tmp_path):
    save(tmp_path, "a.png")
    text = message(list_maps, tmp_path, ["c", "b"])
    assert "found:    ['a.png']" in text
    assert "such as ['b', 'c'], ending in .png, .jpg, .jpeg, .tif, .tiff, .bmp" in text
    assert "expected: a folder of maps" in message(list_maps, tmp_path / "a.png", ["a"])


def test_coloured_map_is_rejected(tmp_path):
    save(tmp_path, "a.png", np.dstack([GREY, GREY, 255 - GREY]))
    assert message(read_map, tmp_path, "a", SIZE, SIZE) == (
        f"{tmp_path / 'a.png'}: pixels\n  found:    colours\n"
        "  expected: 8-bit grey, 0 to 255\n"
        "  to mend:  export the map as 8-bit grey values, not in colours or with more bits"
    )


def test_16_bit_map_is_rejected(tmp_path):
    save(tmp_path, "a.png", GREY.astype(np.uint16) * 200)
    text = message(read_map, tmp_path, "a", SIZE, SIZE)
    assert "found:    grey of more than 8 bits\n  expected: 8-bit grey" in text


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_named(tmp_path, seed):
    """A damaged file gives an error message that names the file."""
    file = tmp_path / "a.png"
    rng = np.random.default_rng(seed)
    save(tmp_path, file.name, rng.integers(0, 255, (16, 16)).astype(np.uint8))
    damaged = bytearray(file.read_bytes())
    for place in rng.integers(8, len(damaged), 3):
        damaged[place] = rng.integers(256)
    file.write_bytes(bytes(damaged[: rng.integers(20, len(damaged))]))
    assert str(file) in message(read_map, tmp_path, "a", SIZE, (16, 16))


def test_a_file_of_too_many_pixels_is_refused_like_an_image(tmp_path, monkeypatch):
    save(tmp_path, "a.png", np.full((40, 40), 9, np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    text = message(read_map, tmp_path, "a", SIZE, (40, 40))
    assert f"{tmp_path / 'a.png'}: file" in text
    assert "exceeds limit" in text


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("heat")
    text = message(read_map, tmp_path, "a", SIZE, SIZE)
    assert "expected: a readable PNG, JPEG, TIFF or BMP file" in text


def test_map_that_is_0_everywhere_is_rejected(tmp_path):
    save(tmp_path, "a.png", GREY * 0)
    assert message(read_map, tmp_path, "a", SIZE, SIZE) == (
        f"{tmp_path / 'a.png'}: pixels\n  found:    0 everywhere\n"
        "  expected: a map with values above 0\n"
        "  to mend:  delete the file: its image then counts as an image without gaze"
    )


# Shapes

WORKING = (24, 24)


def scaled(tmp_path, shape, original):
    save(tmp_path, "a.png", np.full(shape, 9, np.uint8))
    return read_map(tmp_path, "a", WORKING, original)


def test_map_of_another_aspect_ratio_is_rejected(tmp_path):
    with pytest.raises(BadInput) as error:
        scaled(tmp_path, (64, 48), (48, 64))
    assert str(error.value) == (
        f"{tmp_path / 'a.png'}: size\n  found:    (64, 48) (height, width)\n"
        "  expected: the aspect ratio of the image, (48, 64), or the working size (24, 24)\n"
        "  to mend:  export the map of the image only, without a border, and do not stretch it"
    )


# For a long side of 128 px the exact short side is 128 × 529 / 622 = 108.86 px.
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("short", "fits"), [(107, False), (108, True), (109, True), (110, False)])
def test_aspect_ratio_may_differ_by_one_pixel_of_the_map(tmp_path, short, fits, turned):
    turn = -1 if turned else 1
    shape, original = (short, 128)[::turn], (529, 622)[::turn]
    if fits:
        assert scaled(tmp_path, shape, original).shape == WORKING
    else:
        with pytest.raises(BadInput, match="without a border"):
            scaled(tmp_path, shape, original)


@given(st.integers(16, 2000), st.integers(16, 2000), st.floats(0.02, 1.5))
def test_an_image_scaled_as_a_whole_keeps_its_aspect(tmp_path_factory, height, width, scale):
    shape = tuple(max(1, round(side * scale)) for side in (height, width))
    maps._check_shape(tmp_path_factory.getbasetemp(), shape, (height, width), WORKING)


def test_map_of_the_working_size_is_accepted(tmp_path):
    assert (scaled(tmp_path, WORKING, (1000, 24)) == np.float32(9 / 255)).all()
