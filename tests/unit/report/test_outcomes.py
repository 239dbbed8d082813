"""Groups of images, calibration, and what the page says of both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.report.outcomes import calibrate, group_means

NAN = float("nan")


def test_groups_have_equally_many_images_in_the_order_of_x():
    x = np.array([4, 1, 3, 2, 8, 5, 7, 6.0])
    series = group_means("full", x, x / 10)
    assert series.name == "full"
    assert series.x == pytest.approx([1.5, 3.5, 5.5, 7.5])
    assert series.y == pytest.approx([0.15, 0.35, 0.55, 0.75])
    # Two values 0.1 apart: standard deviation 0.1 / √2, standard error 0.05.
    assert series.half == pytest.approx([1.96 * 0.05] * 4)


def test_unknown_values_are_ignored_and_one_image_has_no_interval():
    series = group_means("", np.array([1.0, NAN, 2.0]), np.array([0.5, 0.6, NAN]))
    assert series.x.tolist() == [1.0]
    assert series.y.tolist() == [0.5]
    assert np.isnan(series.half).all()
    assert len(group_means("", np.array([NAN]), np.array([0.5])).x) == 0


def test_calibration_of_two_images():
    # Bin 1 holds 0.12 and 0.18 with one foreground pixel of two, bin 9 holds 1.0 with none.
    pairs = [
        (np.array([[0.12, 0.18]]), np.array([[True, False]])),
        (np.array([[1.0]]), np.array([[False]])),
    ]
    found = calibrate(iter(pairs))
    assert found.confidence[[1, 9]] == pytest.approx([0.15, 1.0])
    assert found.frequency[[1, 9]] == pytest.approx([0.5, 0.0])
    assert np.isnan(found.frequency[[0, 2, 8]]).all()
    # (2 · |0.15 - 0.5| + 1 · |1 - 0|) / 3
    assert found.error == pytest.approx(1.7 / 3)


def test_without_pixels_there_is_no_error():
    assert np.isnan(calibrate(iter([])).error)


@given(
    arrays(np.float16, (4, 5), elements=st.floats(0, 1, width=16)),
    arrays(bool, (4, 5)),
)
def test_a_certain_and_right_prediction_has_no_error_and_all_errors_are_shares(probability, mask):
    assert calibrate(iter([(mask.astype(np.float16), mask)])).error == 0
    assert 0 <= calibrate(iter([(probability, mask)])).error <= 1
    # The order of the images does not matter.
    parts = [(probability[:2], mask[:2]), (probability[2:], mask[2:])]
    first, second = calibrate(iter(parts)), calibrate(iter(parts[::-1]))
    assert first.error == pytest.approx(second.error)
