"""The model of a reader: what holds for any mask and seed, and the scan it models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.gaze.scanpath import SHORTEST_MS, simulate_fixations
from stages.settings.scanpath import ScanSettings

# Neither noise nor chance: positions are where the reader means to look, durations the medians.
EXACT = {"jitter": 0, "drift": 0, "distraction": 0, "spread": 0}

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
def test_any_scan_is_one_that_an_eye_tracker_could_report(mask, seed, noise):
    fixations = scan(mask, seed, jitter=noise, drift=noise, distraction=0.3)
    assert fixations.ndim == 2
    assert fixations.shape[1] == 4
    assert fixations.dtype == np.float64
    assert np.isfinite(fixations).all()
    position, duration, start = fixations[:, :2], fixations[:, 2], fixations[:, 3]
    assert ((position >= 0) & (position <= 1)).all()
    assert (duration >= SHORTEST_MS).all()
    # One fixation begins after the one before has ended.
    assert (start >= 0).all()
    assert (start[1:] >= (start + duration)[:-1]).all()
    again = scan(mask, seed, jitter=noise, drift=noise, distraction=0.3)
    assert np.array_equal(fixations, again)


def test_the_mask_is_not_changed_and_another_seed_is_another_scan():
    mask = disc()
    first, second = scan(mask, 0), scan(mask, 1)
    assert np.array_equal(mask, disc())
    assert first.shape != second.shape or not np.array_equal(first, second)


@pytest.mark.parametrize("seed", range(20))
def test_without_noise_most_dwell_is_on_a_large_target(seed):
    fixations = scan(disc(), seed, jitter=0, drift=0, distraction=0)
    on_target = inside(fixations, disc())
    # At least 4 + 4 looks at the target and at most 3 while searching, by the default counts.
    assert on_target.sum() >= 8 - 1  # one may be too short to be reported
    assert fixations[on_target, 2].sum() > 0.7 * fixations[:, 2].sum()


@pytest.mark.parametrize("seed", range(5))
def test_first_search_then_the_inside_then_once_round_the_border(seed):
    counts = {"search": (2, 2), "target": (5, 5), "border": (9, 9)}
    fixations = scan(disc(), seed, **EXACT, **counts)
    assert fixations[:, 2].tolist() == [180] * 2 + [400] * 5 + [250] * 9
    # Each starts 40 ms, a saccade, after the end of the one before.
    assert fixations[:4, 3].tolist() == [40, 260, 480, 920]
    distance = np.hypot(*(fixations[:, :2].T * 100 - 50))
    # The core is at least half as deep as the centre, the rim at most 0.12 of it: 3 px.
    assert (distance[2:7] <= 13).all()
    assert ((distance[7:] >= 21) & (distance[7:] <= 25)).all()
    around = fixations[7:, :2] - fixations[7:, :2].mean(axis=0)
    assert (np.diff(np.arctan2(around[:, 1], around[:, 0])) >= 0).all()


def test_parts_are_visited_from_the_largest_and_specks_are_not_seen():
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
    assert 1 <= len(fixations) <= 3
    assert (fixations[:, 2] == 180).all()


def test_a_glance_follows_each_fixation_where_the_reader_is_sure_to_be_distracted():
    counts = {"search": (1, 1), "target": (6, 6), "border": (6, 6)}
    fixations = scan(disc(radius=5), 0, **EXACT | {"distraction": 1.0}, **counts)
    assert len(fixations) == 2 * 13
    assert (fixations[1::2, 2] == 180).all()
    # A random place is on a target of less than 1 % of the image once in a hundred times.
    assert inside(fixations[1::2], disc(radius=5)).sum() <= 2
    assert inside(fixations[2::2], disc(radius=5)).all()


def test_drift_moves_a_recording_as_one_and_jitter_each_fixation():
    # The disc is far from the image's edges, so that nothing is dropped.
    still = EXACT | {"search": (0, 0), "target": (20, 20), "border": (20, 20)}
    true = scan(disc(), 3, **still)
    offset = (scan(disc(), 3, **still | {"drift": 0.02}) - true)[:, :2]
    assert np.ptp(offset, axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert (offset[0] != 0).all()
    shaken = (scan(disc(), 3, **still | {"jitter": 0.02}) - true)[:, :2]
    # 80 normal numbers: the standard error of their std is 0.02 / sqrt(160), 8 %.
    assert shaken.std() == pytest.approx(0.02, rel=0.3)


def test_what_falls_off_the_image_or_is_too_short_is_dropped():
    assert scan(disc(), 0, drift=50).shape == (0, 4)
    assert scan(disc(), 0, search_ms=1, target_ms=1, border_ms=1, spread=0).shape == (0, 4)
