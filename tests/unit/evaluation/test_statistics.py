"""Interval, test and correction, against values worked out by hand and against scipy's."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import permutation_test

from stages.evaluation.statistics import DRAWS, EXACT, bootstrap_interval, holm, sign_flip_p

few = settings(max_examples=20)
values = st.floats(-1, 1, width=32)


def rng(seed=0):
    return np.random.default_rng(seed)


def names(*subjects):
    return np.array(subjects, object)


def test_of_two_subjects_the_interval_is_between_their_means():
    # A draw is p twice (1/4), p and q (1/2) or q twice (1/4): the 2.5th percentile is p's own mean
    # and the 97.5th q's. The three images of p come together, with their mean 0.1.
    low, high = bootstrap_interval(np.array([0.0, 0.5, 0.1, 0.2]), names("p", "q", "p", "p"), rng())
    assert (low, high) == pytest.approx((0.1, 0.5))


def test_a_subject_with_more_images_weighs_more():
    # 39 subjects with one image of 0 and one with 39 images of 1. Drawn k times, the mean is
    # 39 k / (39 k + 40 − k); k is 0 with (39/40)^40 = 0.36 and at least 4 with 0.018, so the 97.5th
    # percentile is at k = 3, 117 / 154.
    subjects = names(*map(str, range(39)), *["many"] * 39)
    found = bootstrap_interval(np.repeat([0.0, 1.0], 39), subjects, rng())
    assert found == pytest.approx((0, 117 / 154))


def test_the_interval_of_many_subjects_is_that_of_the_normal_distribution():
    # Standard error of a mean of 1,000 values of ±0.1: 0.1 / √1000; the ends are 1.96 of these off,
    # and, drawn 10,000 times, vary by about a fortieth of that.
    differences = np.tile([0.1, -0.1], 500) + 0.02
    low, high = bootstrap_interval(differences, names(*map(str, range(1000))), rng())
    half = 1.96 * 0.1 / math.sqrt(1000)
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half), abs=0.05 * half)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, 0.2]])
def test_fewer_than_two_subjects_have_no_interval(differences):
    subjects = names(*["p"] * len(differences))
    assert np.isnan(bootstrap_interval(np.array(differences), subjects, rng())).all()


@few
@given(arrays(np.float64, st.integers(2, 15), elements=values), st.data())
def test_an_interval_lies_within_the_subjects_means_whatever_the_order(differences, data):
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
        # Only all plus and all minus are as far off, 2 of 8.
        ([1, 2, 3], 2 / 8),
        # Sums of ±1 four times: 0 in 6 of 16, the others are 2 or 4 off.
        ([1, 1, 1, -1], 10 / 16),
        # A sum of 0: every pattern is as far off. In binary, 0.1 + 0.2 − 0.3 is not 0.
        ([0.1, 0.2, -0.3], 1),
        ([0, 0, 0], 1),
        ([0.4], 1),
        # The least that 12 subjects can give.
        ([0.1] * 12, 2 / 2**12),
    ],
)
def test_all_signs_of_few_subjects_are_tried(differences, p):
    assert sign_flip_p(np.array(differences, float), rng()) == p


def test_no_differences_have_no_p():
    assert math.isnan(sign_flip_p(np.array([]), rng()))


@few
@given(arrays(np.float64, st.integers(2, 8), elements=st.integers(-100, 100).map(float)))
def test_few_whole_numbers_whose_sums_are_exact_agree_with_scipy(differences):
    expected = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences, rng()) == pytest.approx(expected.pvalue)


def test_drawn_signs_agree_with_all_signs():
    # 14 subjects: all 2^14 patterns here, 10,000 drawn there; within four standard errors.
    differences = np.round(rng(3).normal(0.3, 1, 14), 3)
    signs = np.array(list(itertools.product([-1, 1], repeat=14)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9)
    assert 0.02 < exact < 0.98
    error = math.sqrt(exact * (1 - exact) / DRAWS)
    assert sign_flip_p(differences, rng()) == pytest.approx(exact, abs=4 * error)


def test_drawn_signs_never_give_zero():
    # 2 of 2^100 patterns are as far off: none of 10,000 draws.
    assert sign_flip_p(np.ones(100), rng()) == 1 / (DRAWS + 1)


@few
@given(arrays(np.float64, st.integers(1, EXACT + 3), elements=values))
def test_a_p_is_the_same_with_the_methods_swapped(differences):
    p = sign_flip_p(differences, rng())
    assert 0 < p <= 1
    assert sign_flip_p(-differences, rng()) == pytest.approx(p)


@few
@given(st.integers(0, 1000))
def test_methods_that_are_alike_are_seldom_called_different(seed):
    # 200 experiments of 6 subjects, exact: p ≤ 0.05 in at most 2 of 64 patterns, 3.1 %; more than
    # 9 % of 200 has a chance below 1e-4.
    noise = rng(seed).normal(size=(200, 6))
    assert np.mean([sign_flip_p(row, rng()) <= 0.05 for row in noise]) < 0.09


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # 4 × 0.005, 3 × 0.01, 2 × 0.03, and 1 × 0.04, which is raised to what is before it.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.5], [1, 1]),
        ([0.04], [0.04]),
        # The reference's own row is not one of the tests.
        ([np.nan, 0.02, 0.03], [np.nan, 0.04, 0.04]),
        ([np.nan], [np.nan]),
        ([], []),
    ],
)
def test_holm(p, adjusted):
    assert holm(np.array(p, float)) == pytest.approx(np.array(adjusted), nan_ok=True)


@few
@given(arrays(np.float64, st.integers(1, 10), elements=st.floats(0, 1)))
def test_holm_keeps_the_order_and_is_between_p_and_bonferroni(p):
    adjusted = holm(p)
    assert (p <= adjusted).all()
    assert (adjusted <= np.minimum(len(p) * p, 1)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(len(p) * p.min(), 1))
