"""Interval, test and correction against values computed by hand and against SciPy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import permutation_test

from stages.evaluation.statistics import (
    MAX_EXACT_SUBJECTS,
    RESAMPLES,
    bootstrap_interval,
    holm_adjust,
    sign_flip_p_value,
)

few_examples = settings(max_examples=20)
values = st.floats(-1, 1, width=32)


def rng(seed=0):
    return np.random.default_rng(seed)


def names(*subjects):
    return np.array(subjects, object)


def test_the_interval_of_two_subjects_ends_at_their_means():
    # A draw is p twice (1/4), p and q (1/2) or q twice (1/4): the 2.5th percentile is the mean of p
    # and the 97.5th that of q. The three images of p are drawn together; their mean is 0.1.
    low, high = bootstrap_interval(np.array([0.0, 0.5, 0.1, 0.2]), names("p", "q", "p", "p"), rng())
    assert (low, high) == pytest.approx((0.1, 0.5))


def test_a_subject_with_more_images_weighs_more():
    # 39 subjects have one image with value 0, and one subject has 39 images with value 1. If it is
    # drawn k times, the mean is 39 k / (39 k + 40 − k). k is 0 with probability (39/40)^40 = 0.36
    # and at least 4 with 0.018, so the 97.5th percentile is at k = 3: 117 / 154.
    subjects = names(*map(str, range(39)), *["many"] * 39)
    found = bootstrap_interval(np.repeat([0.0, 1.0], 39), subjects, rng())
    assert found == pytest.approx((0, 117 / 154))


def test_the_interval_of_many_subjects_agrees_with_the_normal_distribution():
    # The mean of 1,000 values of ±0.1 has the standard error 0.1 / √1000. The ends are 1.96
    # standard errors from the mean, and vary by about 1/40 of that with 10,000 draws.
    differences = np.tile([0.1, -0.1], 500) + 0.02
    low, high = bootstrap_interval(differences, names(*map(str, range(1000))), rng())
    half_width = 1.96 * 0.1 / math.sqrt(1000)
    assert (low, high) == pytest.approx(
        (0.02 - half_width, 0.02 + half_width), abs=0.05 * half_width
    )


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, 0.2]])
def test_fewer_than_two_subjects_have_no_interval(differences):
    subjects = names(*["p"] * len(differences))
    assert np.isnan(bootstrap_interval(np.array(differences), subjects, rng())).all()


@few_examples
@given(arrays(np.float64, st.integers(2, 15), elements=values), st.data())
def test_an_interval_lies_within_the_subject_means_for_any_order(differences, data):
    count = len(differences)
    subjects = names("a", "b", *data.draw(st.lists(st.sampled_from("abcd"), min_size=count - 2,
                                                   max_size=count - 2)))  # fmt: skip
    low, high = bootstrap_interval(differences, subjects, rng())
    means = [differences[subjects == name].mean() for name in set(subjects)]
    assert min(means) - 1e-12 <= low <= high <= max(means) + 1e-12
    order = data.draw(st.permutations(range(count)))
    again = bootstrap_interval(differences[order], subjects[order], rng())
    assert again == pytest.approx((low, high), abs=1e-12)
    shifted = bootstrap_interval(differences + 1, subjects, rng())
    assert shifted == pytest.approx((low + 1, high + 1))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # Only all plus and all minus are as far from 0: 2 of 8.
        ([1, 2, 3], 2 / 8),
        # Sums of four ±1: 0 in 6 of 16 patterns, ±2 or ±4 in the others.
        ([1, 1, 1, -1], 10 / 16),
        # The sum is 0, so every pattern counts. In floating point, 0.1 + 0.2 − 0.3 is not 0.
        ([0.1, 0.2, -0.3], 1),
        ([0, 0, 0], 1),
        ([0.4], 1),
        # The smallest p for 12 subjects.
        ([0.1] * 12, 2 / 2**12),
    ],
)
def test_p_of_few_subjects_is_exact(differences, p):
    assert sign_flip_p_value(np.array(differences, float), rng()) == p


def test_without_differences_p_is_nan():
    assert math.isnan(sign_flip_p_value(np.array([]), rng()))


@few_examples
@given(arrays(np.float64, st.integers(2, 8), elements=st.integers(-100, 100).map(float)))
def test_p_of_whole_numbers_agrees_with_scipy(differences):
    expected = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p_value(differences, rng()) == pytest.approx(expected.pvalue)


def test_p_from_drawn_signs_agrees_with_the_exact_p():
    # 14 subjects: all 2^14 patterns against 10,000 drawn ones, within four standard errors.
    differences = np.round(rng(3).normal(0.3, 1, 14), 3)
    signs = np.array(list(itertools.product([-1, 1], repeat=14)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9)
    assert 0.02 < exact < 0.98
    error = math.sqrt(exact * (1 - exact) / RESAMPLES)
    assert sign_flip_p_value(differences, rng()) == pytest.approx(exact, abs=4 * error)


def test_p_from_drawn_signs_is_never_zero():
    # Only 2 of 2^100 patterns are as far from 0, and 10,000 draws contain none of them.
    assert sign_flip_p_value(np.ones(100), rng()) == 1 / (RESAMPLES + 1)


@few_examples
@given(arrays(np.float64, st.integers(1, MAX_EXACT_SUBJECTS + 3), elements=values))
def test_p_is_symmetric_in_the_methods(differences):
    p = sign_flip_p_value(differences, rng())
    assert 0 < p <= 1
    assert sign_flip_p_value(-differences, rng()) == pytest.approx(p)


@few_examples
@given(st.integers(0, 1000))
def test_equal_methods_rarely_have_a_small_p(seed):
    # 200 experiments with 6 subjects, exact: p ≤ 0.05 for at most 2 of 64 patterns, 3.1 %. More
    # than 9 % of 200 has a probability below 1e-4.
    noise = rng(seed).normal(size=(200, 6))
    assert np.mean([sign_flip_p_value(row, rng()) <= 0.05 for row in noise]) < 0.09


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # 4 × 0.005, 3 × 0.01, 2 × 0.03, and 1 × 0.04, which is raised to the value before it.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.5], [1, 1]),
        ([0.04], [0.04]),
        # The row of the reference is not a test.
        ([np.nan, 0.02, 0.03], [np.nan, 0.04, 0.04]),
        ([np.nan], [np.nan]),
        ([], []),
    ],
)
def test_holm_adjust_by_hand(p, adjusted):
    assert holm_adjust(np.array(p, float)) == pytest.approx(np.array(adjusted), nan_ok=True)


@few_examples
@given(arrays(np.float64, st.integers(1, 10), elements=st.floats(0, 1)))
def test_holm_adjust_keeps_the_order_and_is_between_p_and_bonferroni(p):
    adjusted = holm_adjust(p)
    assert (p <= adjusted).all()
    assert (adjusted <= np.minimum(len(p) * p, 1)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(len(p) * p.min(), 1))
