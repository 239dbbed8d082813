"""Heatmaps from fixations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stages.gaze.heatmap import CANVAS_SIDE, draw_heatmap, draw_published_heatmap


def fixations(*rows):
    """Rows of x, y, duration."""
    return np.array([[*row, 0] for row in rows], float).reshape(-1, 4)


def draw(scan, size, sigma, original_size=(100, 100)):
    return draw_heatmap(scan, size, original_size=original_size, sigma=sigma)


def draw_published(scan, size, sigma=70, original_size=(100, 100)):
    return draw_published_heatmap(scan, size, original_size=original_size, sigma=sigma)


# Heatmap


def test_one_fixation_is_a_gaussian_at_the_pixel_centres():
    # Four pixels a side and a std of one of them. The centres lie 0.5 and 1.5 std off the fixation
    # along each axis: a = exp(−0.5³) = exp(−1/8), b = exp(−9/8) = a / e. Inner pixels have a²,
    # edges ab, corners b². Normalised, an edge has (ab − b²) / (a² − b²) = b / (a + b) or
    # 1 / (1 + e).
    edge = 1 / (1 + math.e)
    expected = [[0, edge, edge, 0], [edge, 1, 1, edge], [edge, 1, 1, edge], [0, edge, edge, 0]]
    heat = draw(fixations((0.5, 0.5, 123)), (4, 4), CANVAS_SIDE / 4)
    assert heat.dtype == np.float32
    assert heat == pytest.approx(np.array(expected), abs=1e-6)


def test_x_runs_along_the_width_and_y_along_the_height():
    heat = draw(fixations((0.9, 0.2, 100)), (20, 30), 70)
    assert np.unravel_index(heat.argmax(), heat.shape) in {(3, 26), (3, 27), (4, 26), (4, 27)}


@pytest.mark.parametrize(("x", "nearest"), [(0.0, 0), (1.0, -1)])
def test_a_fixation_on_the_border_does_not_wrap_to_the_opposite_one(x, nearest):
    heat = draw(fixations((x, 0.5, 100)), (9, 12), 70)
    along = heat[4] if nearest == 0 else heat[4, ::-1]
    assert along[0] == 1
    assert (np.diff(along) < 0).all()
    assert along[-1] < 1e-6


def test_fixations_are_weighted_by_duration():
    # The distance is 0.6 of 768 px, or 6.6 std, so the two do not overlap.
    heat = draw(fixations((0.2, 0.5, 100), (0.8, 0.5, 300)), (50, 50), 70)
    assert heat.max() == heat[24:26, 39:41].max() == 1
    assert heat[24:26, 9:11].max() == pytest.approx(1 / 3, rel=1e-3)


def test_one_long_fixation_equals_several_short_ones():
    long = draw(fixations((0.3, 0.4, 600), (0.7, 0.6, 150)), (20, 20), 70)
    short = draw(fixations(*[(0.3, 0.4, 200)] * 3, (0.7, 0.6, 150)), (20, 20), 70)
    assert long == pytest.approx(short, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "sigma"),
    [([], 70), ([(0.5, 0.5, 0)], 70), ([(0.5, 0.5, 200)], 1e12)],
    ids=["empty", "no duration", "constant"],
)
def test_constant_map_becomes_zero(rows, sigma):
    heat = draw(fixations(*rows), (5, 7), sigma)
    assert heat.dtype == np.float32
    assert heat.shape == (5, 7)
    assert (heat == 0).all()


points = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(50, 5000))


@given(st.lists(points, min_size=1, max_size=6), st.integers(2, 20), st.floats(20, 300))
def test_map_spans_0_to_1_and_mirrors_with_its_fixations(rows, side, sigma):
    scan = fixations(*rows)
    heat = draw(scan, (side, 2 * side), sigma)
    assert (heat.min(), heat.max()) == (0, 1)
    mirrored = scan * [-1, 1, 1, 1] + [1, 0, 0, 0]
    assert draw(mirrored, (side, 2 * side), sigma) == pytest.approx(heat[:, ::-1], abs=1e-6)


def test_gaussians_are_round_at_any_aspect_ratio():
    # An image of 100 × 400 scaled to the area of 768 × 768 is 384 × 1536, and the map has one pixel
    # to eight of it along both axes.
    heat = draw(fixations((0.5, 0.5, 100)), (48, 192), 60, original_size=(100, 400))
    across, down = heat[23, 95 : 95 + 24], heat[23:47, 95]
    assert across[:20] == pytest.approx(down[:20], abs=0.01)
    # Half a pixel up, and 12.5 pixels, 100 px, to the right of the fixation.
    assert heat[23, 108] == pytest.approx(math.exp(-0.5 * (100 / 60) ** 2), abs=0.01)


def test_matches_published_map_except_at_the_border():
    rows = [(0.4, 0.5, 300), (0.55, 0.45, 500), (0.5, 0.6, 200)]
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.float32)
    for x, y, duration in rows:
        canvas[round(y * CANVAS_SIDE) - 1, round(x * CANVAS_SIDE) - 1] += duration
    canvas = ndimage.gaussian_filter(canvas, 70, mode="constant")
    # The centre of a pixel of 12 lies between the canvas's sixth and seventh.
    near = [canvas[i::12, j::12] for i in (5, 6) for j in (5, 6)]
    published = sum(near) / 4
    published = (published - published.min()) / np.ptp(published)
    # The published index is half a canvas pixel off, and its kernel is cut at four std.
    assert draw(fixations(*rows), (64, 64), 70) == pytest.approx(published, abs=0.01)


# The published canvas


def test_the_published_map_follows_the_notebook():
    """Compare with an independent version of its steps: add, blur, normalise, resize, store."""
    rows = [(0.4, 0.5, 300), (0.55, 0.45, 500), (0.5, 0.6, 200)]
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE))
    for x, y, duration in rows:
        canvas[round(y * CANVAS_SIDE) - 1, round(x * CANVAS_SIDE) - 1] += duration
    canvas = ndimage.gaussian_filter(canvas, 70)
    canvas = (canvas - canvas.min()) / np.ptp(canvas)
    # Image and working size are twice the canvas, so bicubic resizing hardly changes the map.
    near = canvas[np.arange(1536) // 2][:, np.arange(1536) // 2]
    found = draw_published(fixations(*rows), (1536, 1536), original_size=(1536, 1536))
    assert found.dtype == np.float32
    assert found == pytest.approx(near, abs=1.5 / 255 + 0.01)
    assert np.array_equal(found * 255, np.rint(found * 255)), "stored in 8 bit"


def test_published_map_is_stretched_with_the_image():
    square = draw_published(fixations((0.3, 0.6, 100)), (48, 48))
    wide = draw_published(fixations((0.3, 0.6, 100)), (48, 48), original_size=(100, 400))
    assert wide == pytest.approx(square, abs=0.01)


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_a_published_fixation_on_the_border_stays_there(x):
    heat = draw_published(fixations((x, 0.5, 100)), (32, 32))
    along = heat[16] if x == 0 else heat[16, ::-1]
    assert along[0] > 0.9
    assert (along[20:] == 0).all()


@pytest.mark.parametrize("rows", [[], [(0.5, 0.5, 0)]], ids=["empty", "no duration"])
def test_constant_published_map_becomes_zero(rows):
    assert (draw_published(fixations(*rows), (8, 8)) == 0).all()


@settings(max_examples=10)
@given(st.lists(points, min_size=1, max_size=4))
def test_any_published_map_lies_in_0_to_1(rows):
    heat = draw_published(fixations(*rows), (40, 24), sigma=30, original_size=(53, 31))
    assert 0 <= heat.min() <= heat.max() <= 1
