"""The area of what was looked at, and maps that keep to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.gaze.area import estimate_areas, rescale_to_area, spread_area

SIZE = (300, 400)


def on_a_disc(centre, radius, n=400):
    """Fixations that cover a disc evenly: a sunflower's seeds; x and y as shares of the image."""
    k = np.arange(n) + 0.5
    angle, r = np.pi * (1 + 5**0.5) * k, radius * np.sqrt(k / n)
    x, y = centre[0] + r * np.cos(angle), centre[1] + r * np.sin(angle)
    return np.stack([x / SIZE[1], y / SIZE[0], np.full(n, 200.0), k], axis=1)


@pytest.mark.parametrize("radius", [10, 40, 100])
def test_fixations_all_over_a_disc_tell_its_area(radius):
    found = spread_area(on_a_disc((180, 140), radius), SIZE)
    assert found == pytest.approx(np.pi * radius**2 / (300 * 400), rel=0.02)


def test_glances_elsewhere_change_the_area_little():
    looked = on_a_disc((180, 140), 40)
    glances = np.tile([0.05, 0.9, 200, 0], (40, 1))
    found = spread_area(np.concatenate([looked, glances]), SIZE)
    assert found == pytest.approx(spread_area(looked, SIZE), rel=0.25)


def test_a_single_fixation_has_no_spread():
    assert spread_area(np.array([[0.4, 0.5, 200, 0]]), SIZE) == 0


def test_few_fixations_take_the_area_of_the_training_images():
    areas, counts = np.array([0.0, 0.1, 0.3, 0.9]), np.array([1, 99, 99, 99])
    found = estimate_areas(areas, counts, np.array([False, True, True, False]))
    # The median of the training images is 0.2 and counts as one fixation.
    assert found == pytest.approx([0.1, 0.101, 0.299, 0.893])


maps = hnp.arrays(np.float32, (12, 9), elements=st.floats(0, 1, width=32))


@given(maps, st.floats(0.001, 0.999))
def test_a_rescaled_map_keeps_its_order_and_reaches_the_area(refined, area):
    found = rescale_to_area(refined, area)
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    order = np.argsort(refined, axis=None)
    assert (np.diff(found.ravel()[order]) >= -1e-6).all()
    count = np.clip(round(area * refined.size), 1, refined.size - 1)
    value = np.sort(refined, axis=None)[-count]
    if 1e-3 <= value <= 1 - 1e-3:
        # Equal values are not split.
        assert (found >= 0.5).sum() == (refined >= value).sum()


def test_a_map_is_rescaled_linearly_on_both_sides_of_its_cut():
    refined = np.array([[0.0, 0.1, 0.2, 0.4], [0.6, 0.8, 0.9, 1.0]], np.float32)
    # Three of eight pixels: the third largest value, 0.8, becomes ½.
    expected = [[0, 0.0625, 0.125, 0.25], [0.375, 0.5, 0.75, 1]]
    assert rescale_to_area(refined, 3 / 8) == pytest.approx(np.array(expected), abs=1e-6)
