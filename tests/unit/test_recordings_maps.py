"""Maps that were made elsewhere."""

import numpy as np
import pytest
from PIL import Image

from stages.cli import BadInput
from stages.recordings.maps import list_maps, read_map

GREY = np.array([[0, 51], [102, 255]], np.uint8)


def save(folder, name, pixels=GREY, **options):
    Image.fromarray(pixels).save(folder / name, **options)


def message(function, *arguments):
    with pytest.raises(BadInput) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif"])
def test_a_map_is_scaled_to_1(tmp_path, name):
    save(tmp_path, name)
    found = read_map(tmp_path, "a", (2, 2))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0.2], [0.4, 1]], rtol=1e-6)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg"])
def test_a_jpeg(tmp_path, name):
    save(tmp_path, name, np.full((16, 16), 128, np.uint8))
    np.testing.assert_allclose(read_map(tmp_path, "a", (8, 4)), np.full((8, 4), 128 / 255))


def test_a_map_has_the_working_size(tmp_path):
    save(tmp_path, "a.png", np.repeat(np.repeat(GREY, 4, axis=0), 8, axis=1))
    found = read_map(tmp_path, "a", (2, 4))
    assert found.shape == (2, 4)
    # A triangle 4 px to either side of 2, in rows and columns: of rows 0 to 5 it weighs the upper
    # level 0.625 + 0.875 + 0.875 + 0.625, the lower one 0.375 + 0.125, six to one; of columns 0
    # to 5 all are left.
    np.testing.assert_allclose(found[0, [0, 3]], [0.4 / 7, (6 * 0.2 + 1) / 7], rtol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_grey_in_colours_is_grey(tmp_path, mode):
    Image.fromarray(GREY).convert("RGB").convert(mode).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_map(tmp_path, "a", (2, 2)), GREY / 255, atol=1e-6)


def test_a_stem_is_matched_as_it_is(tmp_path):
    for name in ("1.png", "11.png", "case.1.png", "[1].png", "case.1.png.txt"):
        (tmp_path / name).touch()
    save(tmp_path, "1.jpg")
    (tmp_path / "1.png").unlink()
    assert list_maps(tmp_path, ["case", "1", "case.1", "?", "*"]) == ["1", "case.1"]
    assert read_map(tmp_path, "1", (2, 2)).shape == (2, 2)
    for absent in ("case", "?", "*", "[11]"):
        assert f"{tmp_path}: map of '{absent}'\n  found:    none" in message(
            read_map, tmp_path, absent, (2, 2)
        )


def test_two_maps_of_one_sample(tmp_path):
    save(tmp_path, "a.png")
    save(tmp_path, "a.bmp")
    for text in (message(list_maps, tmp_path, ["a"]), message(read_map, tmp_path, "a", (2, 2))):
        assert f"{tmp_path}: map of 'a'" in text
        assert "a.bmp" in text
        assert "a.png" in text
        assert "to mend:  delete all but one" in text


def test_maps_of_other_samples_are_counted(tmp_path, caplog):
    for name in ("a", "b", "c"):
        save(tmp_path, f"{name}.png")
    assert list_maps(tmp_path, ["b", "z"]) == ["b"]
    assert "2 maps are of no sample" in caplog.text


def test_a_folder_of_another_data_set_is_refused(tmp_path):
    save(tmp_path, "a.png")
    text = message(list_maps, tmp_path, ["c", "b"])
    assert "found:    ['a.png']" in text
    assert "such as ['b', 'c'], ending in .png, .jpg, .jpeg, .bmp, .tif" in text
    assert "expected: a folder of maps" in message(list_maps, tmp_path / "a.png", ["a"])


def test_a_picture_in_colours_is_no_map(tmp_path):
    save(tmp_path, "a.png", np.dstack([GREY, GREY, 255 - GREY]))
    text = message(read_map, tmp_path, "a", (2, 2))
    assert f"{tmp_path / 'a.png'}: pixels\n  found:    mode RGB with colours" in text
    assert "expected: 8-bit grey, 0 to 255" in text


@pytest.mark.parametrize("pixels", [GREY.astype(np.uint16) * 200, GREY > 60])
def test_another_depth(tmp_path, pixels):
    save(tmp_path, "a.png", pixels)
    assert "expected: 8-bit grey" in message(read_map, tmp_path, "a", (2, 2))


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("heat")
    assert "expected: a readable image" in message(read_map, tmp_path, "a", (2, 2))
