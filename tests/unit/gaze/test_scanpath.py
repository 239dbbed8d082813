"""The simulated reader: properties for any mask and seed, and the order of its fixations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.gaze.scanpath import MIN_FIXATION_MS, simulate_fixations
from stages.settings.scanpath import ScanSettings

# No noise and no distraction: positions are exact, and durations equal the medians. No growth:
# counts are those of the settings.
EXACT = {"jitter": 0, "drift": 0, "distraction": 0, "spread": 0, "growth": 0}

masks = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda s: arrays(bool, s))
seeds = st.integers(0, 2**32)


def scan(mask, seed=0, **changes):
    return simulate_fixations(
        mask, settings=ScanSettings(**changes), rng=np.random.default_rng(seed)
    )


def disc(side=100, centre=(50, 50), radius=25):
    y, x = np.mgrid[:side, :side] + 0.5
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def inside(fixations, mask):
    y, x = (np.floor(fixations[:, i] * mask.shape[1 - i]).astype(int) for i in (1, 0))
    return mask[np.minimum(y, mask.shape[0] - 1), np.minimum(x, mask.shape[1] - 1)]


@settings(max_examples=60)
@given(masks, seeds, st.sampled_from([0.0, 0.015, 0.3]))
def test_simulated_scanpath_is_plausible(mask, seed, noise):
    fixations = scan(mask, seed, jitter=noise, drift=noise, distraction=0.3)
    assert fixations.ndim == 2
    assert fixations.shape[1] == 4
    assert fixations.dtype == np.float64
    assert np.isfinite(fixations).all()
    position, duration, start = fixations[:, :2], fixations[:, 2], fixations[:, 3]
    assert ((position >= 0) & (position <= 1)).all()
    assert (duration >= MIN_FIXATION_MS).all()
    # Each fixation begins after the previous one has ended.
    assert (start >= 0).all()
    assert (start[1:] >= (start + duration)[:-1]).all()
    again = scan(mask, seed, jitter=noise, drift=noise, distraction=0.3)
    assert np.array_equal(fixations, again)


def test_mask_is_not_modified_and_seeds_differ():
    mask = disc()
    first, second = scan(mask, 0), scan(mask, 1)
    assert np.array_equal(mask, disc())
    assert first.shape != second.shape or not np.array_equal(first, second)


@pytest.mark.parametrize("seed", range(20))
def test_without_noise_most_dwell_is_on_a_large_target(seed):
    fixations = scan(disc(), seed, jitter=0, drift=0, distraction=0)
    on_target = inside(fixations, disc())
    # By the default counts, one of the search, and at least round(5 (1 + 5.7 √0.196)) = 18 inside.
    assert on_target.sum() >= 18 - 1  # one may be too short to be reported
    assert fixations[on_target, 2].sum() > 0.7 * fixations[:, 2].sum()


@pytest.mark.parametrize("seed", range(5))
def test_order_is_search_then_inside_then_border(seed):
    counts = {"search": (2, 2), "target": (5, 5), "border": (9, 9)}
    medians = {"search_ms": 180, "target_ms": 400, "border_ms": 250}
    fixations = scan(disc(), seed, **EXACT, **counts, **medians, core=0.5)
    assert fixations[:, 2].tolist() == [180] * 2 + [400] * 5 + [250] * 9
    # Each fixation starts 40 ms (a saccade) after the end of the previous one.
    assert fixations[:4, 3].tolist() == [40, 260, 480, 920]
    distance = np.hypot(*(fixations[:, :2].T * 100 - 50))
    # The core is at least half as deep as the centre, the rim at most 0.12 of it: 3 px.
    assert (distance[2:7] <= 13).all()
    assert ((distance[7:] >= 21) & (distance[7:] <= 25)).all()
    around = fixations[7:, :2] - fixations[7:, :2].mean(axis=0)
    assert (np.diff(np.arctan2(around[:, 1], around[:, 0])) >= 0).all()


def test_largest_part_first_and_specks_are_ignored():
    big, small, speck = disc(100, (30, 70), 20), disc(100, (75, 20), 10), disc(100, (90, 90), 3)
    counts = {"search": (1, 1), "target": (3, 3), "border": (4, 4)}
    fixations = scan(big | small | speck, 0, **EXACT, **counts)
    assert len(fixations) == 1 + 2 * 7
    assert inside(fixations[1:8], big).all()
    assert inside(fixations[8:], small).all()


@settings(max_examples=30)
@given(seeds, st.integers(1, 30), st.integers(1, 30))
def test_an_empty_mask_is_only_searched(seed, height, width):
    fixations = scan(np.zeros((height, width), bool), seed, **EXACT)
    assert fixations[:, 2].tolist() == [250]


def test_distraction_1_adds_a_glance_after_each_fixation():
    counts = {"search": (1, 1), "target": (6, 6), "border": (6, 6)}
    fixations = scan(disc(radius=5), 0, **EXACT | {"distraction": 1.0}, **counts)
    assert len(fixations) == 2 * 13
    assert (fixations[1::2, 2] == 250).all()
    # The target covers less than 1 % of the image, so random glances rarely hit it.
    assert inside(fixations[1::2], disc(radius=5)).sum() <= 2
    assert inside(fixations[2::2], disc(radius=5)).all()


@pytest.mark.parametrize(("growth", "inside"), [(0, 10), (2, 19), (10, 54)])
def test_a_larger_target_gets_more_fixations(growth, inside):
    # The disc covers 0.196 of the image: 10 (1 + growth √0.196).
    fixations = scan(disc(), 0, **EXACT | {"growth": growth}, search=(0, 0), target=(10, 10))
    assert len(fixations) == inside


@pytest.mark.parametrize("seed", range(5))
def test_even_fixations_keep_apart_and_the_nearest_come_first(seed):
    still = EXACT | {"search": (0, 0), "target": (25, 25)}

    def gap_and_path(**changes):
        position = scan(disc(), seed, **still, **changes)[:, :2]
        distance = np.linalg.norm(position[:, None] - position, axis=2)
        return (distance + np.eye(25)).min(axis=1).mean(), np.diagonal(distance, 1).mean()

    even, random = gap_and_path(even=10, nearest=1), gap_and_path(even=1, nearest=1)
    assert even[0] > 1.3 * random[0]
    near, far = gap_and_path(even=5, nearest=5), gap_and_path(even=5, nearest=1)
    assert near[0] == pytest.approx(far[0])  # the same places in another order
    assert near[1] < 0.8 * far[1]


def test_drift_shifts_all_fixations_and_jitter_each_one():
    # The disc is far from the image's edges, so that nothing is dropped.
    still = EXACT | {"search": (0, 0), "target": (20, 20), "border": (20, 20)}
    true = scan(disc(), 3, **still)
    offset = (scan(disc(), 3, **still | {"drift": 0.02}) - true)[:, :2]
    assert np.ptp(offset, axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert (offset[0] != 0).all()
    shaken = (scan(disc(), 3, **still | {"jitter": 0.02}) - true)[:, :2]
    # 80 normal numbers: the standard error of their std is 0.02 / sqrt(160), 8 %.
    assert shaken.std() == pytest.approx(0.02, rel=0.3)


def test_fixations_off_the_image_or_too_short_are_dropped():
    assert scan(disc(), 0, drift=50).shape == (0, 4)
    assert scan(disc(), 0, search_ms=1, target_ms=1, border_ms=1, spread=0).shape == (0, 4)
