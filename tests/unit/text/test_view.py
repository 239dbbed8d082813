import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.settings.explain import ViewSettings
from stages.text.describers import Sample
from stages.text.describers.view import caption, draw_view

CYAN, BLACK, GREY = (0, 255, 255), (0, 0, 0), (100, 100, 100)


def sample(precise=None, broad=None, size=(64, 64), heat=0.0):
    """A grey image; the levels are given as (rows, columns)."""
    regions = np.zeros((2, *size), np.uint8)
    for level, part in zip(regions, (precise, broad), strict=True):
        if part:
            level[slice(*part[0]), slice(*part[1])] = 1
    image = np.full((*size, 3), GREY, np.uint8)
    return Sample("a", image, np.full(size, heat, np.float16), regions)


def colour_mask(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=2)


def bounds(mask):
    rows, columns = np.nonzero(mask)
    return (rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1)


PRECISE, BROAD = ((28, 36), (24, 40)), ((20, 44), (16, 48))
IMAGE, OVERLAY, CROP = (ViewSettings(show=kind, side=64) for kind in ("image", "overlay", "crop"))


def test_the_image_alone_is_the_image():
    rng = np.random.default_rng(0)
    shown = sample(PRECISE, BROAD, heat=1)._replace(
        image=rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    )
    np.testing.assert_array_equal(draw_view(shown, IMAGE), shown.image)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((64, 64), 448, (448, 448)), ((50, 100), 64, (32, 64)), ((3, 300), 64, (1, 64))],
)
def test_the_longer_side_is_as_set_and_the_aspect_ratio_is_kept(size, side, expected):
    picture = draw_view(sample(size=size), ViewSettings(show="image", side=side))
    assert picture.shape == (*expected, 3)
    assert picture.dtype == np.uint8
    assert (picture == GREY).all()


def test_the_gaze_tints_more_where_it_was_longer():
    # 100 + 0.2 · heat · (colour - 100) of (255, 225, 0): (131, 125, 80) at 1, and
    # (112.4, 110, 92) at 0.4.
    shown = sample()
    shown.heatmap[:, :32], shown.heatmap[:32, 32:] = 1, 0.4
    picture = draw_view(shown, OVERLAY)
    assert picture[10, 10].tolist() == [131, 125, 80]
    assert picture[10, 50].tolist() == [112, 110, 92]
    assert picture[50, 50].tolist() == list(GREY)


def test_the_overlay_outlines_the_precise_pseudomask_and_keeps_its_inside():
    picture = draw_view(sample(PRECISE, BROAD), OVERLAY)
    line = colour_mask(picture, CYAN)
    # One pixel outside of rows 28 to 36 and columns 24 to 40, without the corners, whose distance
    # is √2; the rim is one pixel further.
    assert bounds(line) == ((27, 37), (23, 41))
    assert line.sum() == 2 * 8 + 2 * 16
    assert (picture[28:36, 24:40] == GREY).all()
    assert bounds(colour_mask(picture, BLACK)) == ((26, 38), (22, 42))
    # Nothing else is touched.
    assert (~colour_mask(picture, GREY)).sum() == line.sum() + colour_mask(picture, BLACK).sum()


def test_the_line_is_thicker_on_a_larger_picture():
    picture = draw_view(sample(PRECISE, BROAD), ViewSettings(side=448))
    # 2 px of 448, around 7 times the rows and columns.
    assert bounds(colour_mask(picture, CYAN)) == (
        (28 * 7 - 2, 36 * 7 + 2),
        (24 * 7 - 2, 40 * 7 + 2),
    )


def test_without_a_precise_pseudomask_the_next_one_is_outlined():
    picture = draw_view(sample(None, BROAD), OVERLAY)
    assert bounds(colour_mask(picture, CYAN)) == ((19, 45), (15, 49))


@pytest.mark.parametrize("view", [OVERLAY, CROP])
def test_nothing_is_drawn_where_nothing_is_marked(view):
    np.testing.assert_array_equal(draw_view(sample(), view), sample().image)


@pytest.mark.parametrize("view", [OVERLAY, CROP])
def test_a_region_that_fills_the_image_is_framed(view):
    everything = (0, 64), (0, 64)
    line = colour_mask(draw_view(sample(everything, everything), view), CYAN)
    expected = np.ones((64, 64), bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(line, expected)


def test_the_line_follows_the_border_where_the_region_reaches_it():
    region = (0, 10), (0, 10)
    line = colour_mask(draw_view(sample(region, region), OVERLAY), CYAN)
    # Two sides outside of the region, row and column 10, and two on the border, within it.
    assert line[10, :10].all() and line[:10, 10].all() and line[0, :11].all() and line[:11, 0].all()
    assert not line[1:10, 1:10].any()


def test_a_single_pixel_is_outlined_on_a_much_smaller_picture():
    pixel = (500, 501), (300, 301)
    picture = draw_view(sample(pixel, pixel, size=(1000, 1000)), OVERLAY)
    (top, bottom), (left, right) = bounds(colour_mask(picture, CYAN))
    # At 500.5 / 1000 and 300.5 / 1000 of 64 px.
    assert top < 32.03 < bottom <= top + 4
    assert left < 19.2 < right <= left + 4


def test_the_crop_is_around_the_broad_pseudomask():
    # 24 × 32 with a quarter on each side: rows 14 to 50, columns 8 to 56. 48 px become 96.
    view = ViewSettings(show="crop", side=96, margin=0.25)
    shown = sample(PRECISE, BROAD)
    shown.image[14:50, 8:56] = 200
    picture = draw_view(shown, view)
    assert picture.shape == (72, 96, 3)
    line = colour_mask(picture, CYAN)
    assert bounds(line) == ((2 * 6 - 1, 2 * 30 + 1), (2 * 8 - 1, 2 * 40 + 1))
    assert np.unique(picture[~line & ~colour_mask(picture, BLACK)]).tolist() == [200]


def test_the_crop_stays_inside_the_image():
    shown = sample(None, ((0, 20), (40, 64)))
    shown.image[:25, 34:] = 200
    # 20 + 5 rows of 64 from 0 on, 24 + 6 columns up to 64.
    picture = draw_view(shown, ViewSettings(show="crop", side=120))
    assert picture.shape == (100, 120, 3)
    assert (picture[90:, :10] == 200).all()


@pytest.mark.parametrize("at", [(0, 0), (79, 159), (40, 80), (2, 157)])
def test_the_crop_of_a_few_pixels_has_a_minimum_size(at):
    # At least an eighth of 80 rows and 160 columns, also in a corner.
    row, column = at
    shown = sample(None, ((row, row + 1), (column, column + 1)), size=(80, 160))
    assert draw_view(shown, CROP).shape == (32, 64, 3)
    assert colour_mask(draw_view(shown, CROP), CYAN).any()


def test_the_caption_says_what_is_drawn():
    shown = sample(PRECISE, BROAD)
    assert caption(shown, IMAGE).startswith("Nothing is marked in the picture.")
    assert "tinted yellow" in caption(shown, OVERLAY)
    assert "cyan line" in caption(shown, OVERLAY)
    # Columns 8 to 56 and rows 14 to 50 of 64.
    assert (
        "spans from 12 to 88 percent of the image's width, counted from the left, and from 22 to "
        "78 percent of its height" in caption(shown, CROP)
    )
    assert re.search(r"Location and Area Percentage are asked of the whole", caption(shown, CROP))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    kind=st.sampled_from(["overlay", "crop", "image"]),
    margin=st.floats(0, 2),
)
def test_any_sample_can_be_drawn(seed, size, cuts, kind, margin):
    rng = np.random.default_rng(seed)
    heatmap = rng.random(size).astype(np.float16)
    regions = np.stack([heatmap >= max(cuts), heatmap >= min(cuts)]).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    shown = Sample("a", image, heatmap, regions)
    before = [array.copy() for array in shown[1:]]
    view = ViewSettings(show=kind, side=64, margin=margin)
    picture = draw_view(shown, view)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3 and picture.shape[2] == 3
    assert max(picture.shape[:2]) == 64
    np.testing.assert_array_equal(draw_view(shown, view), picture)
    for array, old in zip(shown[1:], before, strict=True):
        np.testing.assert_array_equal(array, old)
    marked = {"overlay": regions.any(), "crop": regions[-1].any(), "image": False}[kind]
    if marked:
        assert colour_mask(picture, CYAN).any()
    assert caption(shown, view)
