"""Levels from refined maps, and their thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.gaze.levels import cut_levels, spaced_thresholds

maps = arrays(np.float16, (3, 5, 6), elements=st.floats(0, 1, width=16))
distinct = st.lists(st.floats(0.01, 0.99), min_size=2, max_size=5, unique=True)


def test_levels_are_thresholded_with_the_highest_first():
    refined = np.array([[0.125, 0.25, 0.375, 0.5, 1.0]], np.float16)
    levels = cut_levels(refined, (0.25, 0.5))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [[[0, 0, 0, 1, 1]], [[0, 1, 1, 1, 1]]]


@given(maps, distinct)
def test_levels_are_nested_for_any_map(refined, thresholds):
    levels = cut_levels(refined[0], tuple(thresholds))
    assert levels.shape == (len(thresholds), 5, 6)
    assert set(np.unique(levels)) <= {0, 1}
    assert (np.diff(levels.astype(int), axis=0) >= 0).all()


@given(maps, distinct)
def test_batch_of_maps_equals_single_maps(refined, thresholds):
    each = np.stack([cut_levels(one, thresholds) for one in refined])
    assert np.array_equal(cut_levels(refined, thresholds), each)
    assert cut_levels(refined[:0], thresholds).shape == (0, *each.shape[1:])


# The sets of Zhong et al. (MICCAI 2024) for two to five levels, highest first.
@pytest.mark.parametrize(
    ("levels", "published"),
    [(2, [0.5, 0.3]), (3, [0.5, 0.4, 0.3]), (4, [0.5, 0.433, 0.367, 0.3]),
     (5, [0.5, 0.45, 0.4, 0.35, 0.3])],
)  # fmt: skip
def test_spaced_thresholds_match_the_published_sets(levels, published):
    # Only the highest and the lowest threshold matter.
    assert spaced_thresholds((0.3, 0.5, 0.31), levels) == pytest.approx(published, abs=5e-4)


def test_one_level_lies_halfway():
    assert spaced_thresholds((0.5, 0.3), 1) == pytest.approx([0.4])
    assert spaced_thresholds((0.25,), 1) == (0.25,)


def test_several_levels_do_not_fit_at_one_threshold():
    with pytest.raises(ValueError, match=r"no 3 levels fit between 0\.25 and 0\.25"):
        spaced_thresholds((0.25,), 3)


@given(maps, st.lists(st.floats(0.01, 0.99), min_size=2, max_size=2, unique=True))
def test_two_levels_equal_the_given_thresholds(refined, thresholds):
    again = spaced_thresholds(thresholds, 2)
    assert np.array_equal(cut_levels(refined, again), cut_levels(refined, thresholds))
