"""Contours become pixels by the even-odd rule; a pixel's centre on a contour is inside."""

import numpy as np
import pytest
from conftest import disc
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import find_contours, grid_points_in_poly

from stages.data.datasets.segmentations.polygons import fill_polygons


def picture(mask):
    return ["".join(".#"[value] for value in row) for row in mask.astype(int)]


def square(first, last):
    """A square from corner (first, first) to (last, last)."""
    return np.array([[first, first], [first, last], [last, last], [last, first]], float)


# What is drawn, and the golden mask of 7 × 8 pixels.
GOLDEN = {
    "corners on pixels are inside": (
        [np.array([[1, 2], [1, 5], [3, 5], [3, 2]], float)],
        ["........", "..####..", "..####..", "..####..", "........", "........", "........"],
    ),
    "corners between pixels": (
        [np.array([[0.5, 1.5], [0.5, 5.5], [3.5, 5.5], [3.5, 1.5]])],
        ["........", "..####..", "..####..", "..####..", "........", "........", "........"],
    ),
    "a triangle, whose border goes through pixels": (
        [np.array([[0, 0], [5, 0], [5, 5]], float)],
        ["#.......", "##......", "###.....", "####....", "#####...", "######..", "........"],
    ),
    "a hole, drawn as a second contour": (
        [square(0.5, 6.5), square(2.5, 4.5)],
        ["........", ".######.", ".######.", ".##..##.", ".##..##.", ".######.", ".######."],
    ),
    "the border of a hole through pixels is not in the hole": (
        [square(0, 6), square(2, 4)],
        ["#######.", "#######.", "#######.", "###.###.", "#######.", "#######.", "#######."],
    ),
    "an island in a hole": (
        [square(-0.5, 6.5), square(0.5, 5.5), square(2.5, 3.5)],
        ["#######.", "#.....#.", "#.....#.", "#..#..#.", "#.....#.", "#.....#.", "#######."],
    ),
    # Out to the hole and back on the same line.
    "a keyhole": (
        [np.array([[0.5, 0.5], [0.5, 6.5], [6.5, 6.5], [6.5, 0.5], [3, 0.5], [3, 2.5],
                   [4.5, 2.5], [4.5, 4.5], [2.5, 4.5], [2.5, 2.5], [3, 2.5], [3, 0.5]])],
        ["........", ".######.", ".######.", ".##..##.", ".##..##.", ".######.", ".######."],
    ),
    "two that share a border": (
        [np.array([[1, 1], [1, 3], [3, 3], [3, 1]], float),
         np.array([[1, 3], [1, 6], [3, 6], [3, 3]], float)],
        ["........", ".######.", ".######.", ".######.", "........", "........", "........"],
    ),
    "cut off at the image": (
        [np.array([[-5, -9], [-5, 1.5], [99, 1.5], [99, -9]])],
        ["##......"] * 7,
    ),
    "a point and a line": (
        [np.array([[1.0, 1.0]]), np.array([[3, 2], [3, 5.0]]), np.zeros((0, 2))],
        ["........", ".#......", "........", "..####..", "........", "........", "........"],
    ),
    "far outside": ([square(1e9, 1e30)], ["........"] * 7),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_masks(name):
    polygons, expected = GOLDEN[name]
    mask = fill_polygons(polygons, (7, 8))
    assert mask.dtype == bool
    assert picture(mask) == expected
    # The direction and the first corner do not matter.
    turned = [np.roll(polygon[::-1], 2, axis=0) for polygon in polygons]
    assert picture(fill_polygons(turned, (7, 8))) == expected


def test_nothing_is_drawn_without_contours():
    assert not fill_polygons([], (3, 4)).any()


def test_rounded_coordinates_are_still_on_a_pixel():
    noise = np.array([[1, -1], [-1, 1], [1, 1], [-1, -1]]) * 4e-4
    assert picture(fill_polygons([square(1, 3) + noise], (5, 5))) == [
        ".....", ".###.", ".###.", ".###.", ".....",
    ]  # fmt: skip


corners = st.lists(st.tuples(st.integers(-4, 24), st.integers(-4, 24)), min_size=3, max_size=9)


@given(corners, st.sampled_from([1.0, 2.0, 3.0]))
def test_one_polygon_agrees_with_skimage_off_its_border(points, scale):
    polygon = np.array(points) / scale
    mask = fill_polygons([polygon], (9, 11))
    # 1: inside, 2: a corner, 3: an edge, but not of each polygon without an area.
    reference = grid_points_in_poly((9, 11), polygon, binarize=False)
    assert mask[reference > 0].all()
    for pixel in np.argwhere(mask & (reference == 0)):
        assert distance_to(polygon, pixel) < 1.5e-3


def distance_to(polygon, point):
    start, step = polygon, np.roll(polygon, -1, axis=0) - polygon
    length = np.maximum((step**2).sum(axis=1), 1e-12)
    share = np.clip(((point - start) * step).sum(axis=1) / length, 0, 1)
    return np.linalg.norm(start + share[:, None] * step - point, axis=1).min()


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.8))
def test_a_mask_is_the_same_after_its_contours_are_filled(seed, share):
    mask = np.random.default_rng(seed).random((12, 15)) < share
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    assert np.array_equal(fill_polygons([contour - 1 for contour in contours], mask.shape), mask)


def test_a_large_contour_is_filled_in_no_time():
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    ring = 255 + 200 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    mask = fill_polygons([ring], (512, 512))
    differing = mask != disc((512, 512), (255, 255), 200)
    assert differing.sum() <= 8
