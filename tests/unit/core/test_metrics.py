"""Metrics against values computed by hand and against medpy without cropping; properties."""

import math
from collections import Counter

import monai.metrics
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from medpy.metric import binary
from scipy import ndimage

from stages.core.metrics import (
    dice,
    image_diagonal,
    iou,
    score,
    spacing_and_unit,
    surface_distances,
)

spacings = st.tuples(*[st.floats(0.1, 5)] * 2)


@st.composite
def mask_pairs(draw, filled=False):
    """Draw two masks of the same shape; with `filled` neither is empty."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    pair = [draw(arrays(bool, shape)) for _ in range(2)]
    if filled:
        for mask in pair:
            mask[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return pair


def squares():
    """Return two masks with a 3 × 3 square in rows 1–3: one in columns 1–3, one in columns 3–5."""
    truth, prediction = np.zeros((2, 6, 8), bool)
    truth[1:4, 1:4] = True
    prediction[1:4, 3:6] = True
    return truth, prediction


def test_shifted_squares_in_pixels():
    # Overlap: the 3 pixels of column 3. Dice 2·3 / (9 + 9), IoU 3 / 15. A square's surface is its 8
    # outer pixels, from which the other's is 2, 2, 2, 1, 1, 0, 0, 0 columns away, both ways: of
    # these 16 the mean is 8 / 8, and the 95th percentile, between the 15th and 16th, is 2.
    assert score(*squares()) == pytest.approx((1 / 3, 1 / 5, 2, 1, ""))


def test_shifted_squares_in_mm():
    # Columns are 2 mm apart, so the distances along the rows double.
    assert score(*squares(), spacing=(0.5, 2)) == pytest.approx((1 / 3, 1 / 5, 4, 2, ""))


def test_spacing_is_height_then_width():
    # Two pixels 3 rows and 4 columns apart: √((3 · 1)² + (4 · 0.5)²) = √13, not √(1.5² + 4²).
    truth, prediction = np.zeros((2, 4, 5), bool)
    truth[0, 0] = prediction[3, 4] = True
    assert surface_distances(truth, prediction, (1, 0.5)) == pytest.approx([math.sqrt(13)] * 2)


def test_both_directions_are_pooled_before_percentile_and_mean():
    # A pixel at the end of a column of 20. Distances there: 0; back: 0, 1, …, 19. The 21 pooled
    # values have the 95th percentile 18 (position 0.95 · 20 = 19, from 0) where the larger of two
    # percentiles is 18.05, and the mean 190 / 21 where the one-directional means are 0 and 9.5.
    truth, prediction = np.zeros((2, 20, 1), bool)
    truth[0] = True
    prediction[:] = True
    assert surface_distances(truth, prediction, (1, 1)) == pytest.approx((18, 190 / 21))
    assert surface_distances(truth, prediction, (0.5, 7)) == pytest.approx((9, 95 / 21))


@pytest.mark.parametrize(
    ("truth", "prediction", "overlap", "distance", "note"),
    [
        (True, True, 1, 0, ""),
        (False, False, 1, 0, "both empty"),
        (False, True, 0, math.nan, "empty truth"),
        (True, False, 0, math.nan, "empty prediction"),
    ],
)
def test_conventions_for_empty_masks(truth, prediction, overlap, distance, note):
    found = score(np.full((4, 5), truth), np.full((4, 5), prediction), (0.7, 0.7))
    expected = (overlap, overlap, distance, distance)
    assert found[:4] == pytest.approx(expected, nan_ok=True)
    assert found.note == note


def test_masks_of_different_shapes_are_refused():
    # (4, 1) would silently broadcast to (4, 5).
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 1\).*shape"):
        score(np.ones((4, 5), bool), np.ones((4, 1), bool))


@given(mask_pairs(), spacings)
def test_symmetric(pair, spacing):
    forth, back = score(*pair, spacing), score(*pair[::-1], spacing)
    assert forth[:4] == pytest.approx(back[:4], nan_ok=True)


@given(mask_pairs(), spacings)
def test_ranges(pair, spacing):
    found = score(*pair, spacing)
    assert 0 <= found.iou <= found.dice <= 1
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    if not math.isnan(found.hd95):
        assert 0 <= found.hd95 <= image_diagonal(pair[0].shape, spacing)
        assert 0 <= found.asd <= image_diagonal(pair[0].shape, spacing)


@given(mask_pairs(filled=True))
def test_a_mask_against_itself_and_its_complement(pair):
    mask, _ = pair
    assert score(mask, mask.copy()) == (1, 1, 0, 0, "")
    assert dice(mask, ~mask) == iou(mask, ~mask) == 0


@given(mask_pairs(filled=True), spacings)
def test_transposing_image_and_spacing_changes_nothing(pair, spacing):
    found = score(*pair, spacing)
    turned = score(*(mask.T for mask in pair), spacing[::-1])
    assert turned[:4] == pytest.approx(found[:4])


@given(mask_pairs(filled=True), st.tuples(*[st.integers(0, 6)] * 4), spacings)
def test_cropping_changes_nothing(pair, border, spacing):
    top, bottom, left, right = border
    truth, prediction = (np.pad(mask, ((top, bottom), (left, right))) for mask in pair)
    expected = [
        measure(prediction, truth, voxelspacing=spacing) for measure in (binary.hd95, binary.assd)
    ]
    assert surface_distances(truth, prediction, spacing) == pytest.approx(expected, rel=1e-9)


def random_mask(rng, shape):
    """Draw an empty or full mask, one pixel, a strip at the border, noise or blobs."""
    mask = np.zeros(shape, bool)
    match rng.integers(6):
        case 1:
            mask[:] = True
        case 2:
            mask[tuple(rng.integers(shape))] = True
        case 3:
            mask[: rng.integers(1, shape[0] + 1), -1] = True
        case 4:
            mask[rng.random(shape) < rng.random()] = True
        case 5:
            mask = ndimage.gaussian_filter(rng.normal(size=shape), 2) > rng.normal() / 20
    return mask


def surface_points(mask, spacing):
    """Return the positions of the pixels with a background pixel above, below, left or right."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner) * spacing


def brute_force(truth, prediction, spacing):
    """Return Dice, IoU, HD95 and ASD from sets of pixels and all pairs of surface pixels."""
    t, p = ({tuple(pixel) for pixel in np.argwhere(mask)} for mask in (truth, prediction))
    if not t and not p:
        return 1, 1, 0, 0
    overlaps = 2 * len(t & p) / (len(t) + len(p)), len(t & p) / len(t | p)
    if not t or not p:
        return *overlaps, math.nan, math.nan
    surfaces = surface_points(truth, spacing), surface_points(prediction, spacing)
    pairs = np.linalg.norm(surfaces[0][:, None] - surfaces[1], axis=2)
    pooled = np.concatenate([pairs.min(axis=0), pairs.min(axis=1)])
    return *overlaps, np.percentile(pooled, 95), pooled.mean()


def monai_scores(truth, prediction, spacing):
    """Return Dice, IoU and ASD of MONAI; its HD95 is another one, the larger of both directions."""
    y, y_pred = (torch.from_numpy(mask)[None, None].float() for mask in (truth, prediction))
    values = (
        monai.metrics.compute_dice(y_pred, y, ignore_empty=False),
        monai.metrics.compute_iou(y_pred, y, ignore_empty=False),
        monai.metrics.compute_average_surface_distance(
            y_pred, y, include_background=True, symmetric=True, spacing=list(spacing)
        ),
    )
    return [value.item() for value in values]


def test_a_thousand_random_masks_against_brute_force_medpy_and_monai():
    rng = np.random.default_rng(0)
    seen = Counter()
    for _ in range(1000):
        shape = tuple(rng.integers(1, 33, 2))
        spacing = tuple(rng.uniform(0.3, 4, 2))
        truth, prediction = random_mask(rng, shape), random_mask(rng, shape)
        found = score(truth, prediction, spacing)
        expected = brute_force(truth, prediction, spacing)
        assert found[:4] == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
        seen[truth.any(), prediction.any()] += 1
        if not (truth.any() and prediction.any()):
            continue
        with_medpy = [measure(prediction, truth) for measure in (binary.dc, binary.jc)]
        with_medpy += [
            measure(prediction, truth, voxelspacing=spacing)
            for measure in (binary.hd95, binary.assd)
        ]
        assert found[:4] == pytest.approx(with_medpy, rel=1e-9)
        without_hd95 = (*found[:2], found.asd)
        assert without_hd95 == pytest.approx(monai_scores(truth, prediction, spacing), rel=1e-4)
    assert len(seen) == 4
    assert seen[True, True] > 500


def test_unknown_spacing_means_pixels():
    assert spacing_and_unit(np.array([0.5, 0.75], np.float32)) == ((0.5, 0.75), "mm")
    assert spacing_and_unit(np.array([0.5, np.nan], np.float32)) == ((1, 1), "px")


def test_diagonal():
    assert image_diagonal((3, 4), (1, 1)) == 5
    assert image_diagonal((6, 2), (0.5, 2)) == 5
