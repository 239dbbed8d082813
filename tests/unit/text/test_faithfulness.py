import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import disk

from stages.text.describers.faithfulness import PLACES, compare_with_gaze
from stages.text.describers.measured import describe_region


def block(rows, columns, size=(100, 100)):
    region = np.zeros(size, np.uint8)
    region[slice(*rows), slice(*columns)] = 1
    return region


# 100 px and 400 px of 10,000; the broad one's centroid is (50, 50) / 100.
SQUARES = np.stack([block((45, 55), (45, 55)), block((40, 60), (40, 60))])


@pytest.mark.parametrize(
    ("area", "error", "agrees"),
    [
        # From half of 0.01 to twice 0.04, both included.
        (0.04, 0.0, True),
        (0.005, -0.035, True),
        (0.00499, -0.03501, False),
        (0.08, 0.04, True),
        (0.0801, 0.0401, False),
        (1.0, 0.96, False),
        (0.0, -0.04, False),
    ],
)
def test_a_claimed_area_is_compared_with_both_pseudomasks(area, error, agrees):
    found = compare_with_gaze({"area": area}, SQUARES)
    assert found.area_error == pytest.approx(error, abs=1e-12)
    assert found.area_agrees is agrees


@pytest.mark.parametrize("values", [{}, {"area": "a tenth"}, {"area": float("nan")}])
def test_without_a_claimed_area_there_is_no_area_verdict(values):
    found = compare_with_gaze(values, SQUARES)
    assert np.isnan(found.area_error)
    assert found.area_agrees is None


def test_there_are_nine_places():
    assert PLACES["upper left"] == (0, 0)
    assert PLACES["middle right"] == (1, 2)
    assert PLACES["lower centre"] == (2, 1)
    assert sorted(PLACES.values()) == [(i, j) for i in range(3) for j in range(3)]


@pytest.mark.parametrize(
    ("centroid", "agreeing"),
    [
        # In hundredths of height and width; the borders are at 33.3 and 66.7, and 5 beside them
        # count for both parts.
        ((50, 50), {"middle centre"}),
        ((37, 50), {"upper centre", "middle centre"}),
        ((39, 50), {"middle centre"}),
        ((30, 64), {"upper centre", "upper right", "middle centre", "middle right"}),
        ((28, 72), {"upper right"}),
        ((5, 95), {"upper right"}),
        ((70, 20), {"lower left", "middle left"}),
    ],
)
def test_a_claimed_place_has_a_tolerance(centroid, agreeing):
    y, x = centroid
    broad = block((y - 2, y + 2), (x - 2, x + 2))
    regions = np.stack([broad * 0, broad])
    found = {place for place in PLACES if compare_with_gaze({"place": place}, regions).place_agrees}
    assert found == agreeing


def test_height_and_width_are_not_confused():
    # The centroid's row is 100 of 200, its column 10 of 50.
    broad = block((98, 102), (8, 12), (200, 50))
    regions = np.stack([broad, broad])
    assert compare_with_gaze({"place": "middle left"}, regions).place_agrees is True
    assert compare_with_gaze({"place": "upper centre"}, regions).place_agrees is False


@pytest.mark.parametrize("values", [{}, {"place": "somewhere"}])
def test_without_a_known_place_there_is_no_place_verdict(values):
    assert compare_with_gaze(values, SQUARES).place_agrees is None


def test_an_empty_pseudomask_has_no_place_verdict_but_an_area_verdict():
    found = compare_with_gaze({"place": "upper left", "area": 0.1}, SQUARES * 0)
    assert found == (pytest.approx(0.1), False, None)


@given(
    centre=st.tuples(st.integers(0, 59), st.integers(0, 79)),
    radius=st.floats(1, 25),
    share=st.floats(0.2, 1),
)
def test_measured_explanations_agree(centre, radius, share):
    regions = np.zeros((2, 60, 80), np.uint8)
    for level, r in zip(regions, (share * radius, radius), strict=True):
        level[disk(centre, max(r, 1), shape=level.shape)] = 1
    explanation = describe_region(np.full((60, 80, 3), 90, np.uint8), regions)
    assert compare_with_gaze(explanation.values, regions) == (0.0, True, True)
