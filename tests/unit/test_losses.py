"""Golden values worked out by hand; log is the natural logarithm."""

import math

import pytest
import torch

from stages.losses import (
    confidence_weighted_consistency,
    feature_alignment,
    partial_cross_entropy,
    ramp_up,
)


def logits_of(foreground: list[list[float]]) -> torch.Tensor:
    """(1, 2, H, W) logits whose softmax gives these foreground probabilities."""
    p = torch.tensor(foreground, dtype=torch.float64)[None]
    return torch.stack([(1 - p).log(), p.log()], dim=1).requires_grad_()


def test_partial_cross_entropy_is_the_mean_over_trusted_pixels():
    # Trusted: (0.8, label 1), (0.1, label 0). (−log 0.8 − log 0.9) / 2.
    logits = logits_of([[0.8, 0.1, 0.5]])
    target = torch.tensor([[[1, 0, 1]]])
    trusted = torch.tensor([[[True, True, False]]])
    loss = partial_cross_entropy(logits, target, trusted)
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.9)) / 2)


def test_partial_cross_entropy_balanced_weighs_both_classes_the_same():
    # Foreground −log 0.8; background −log 0.9 and −log 0.6, mean first; the last is not trusted.
    logits = logits_of([[0.8, 0.1, 0.4, 0.5]])
    target = torch.tensor([[[1, 0, 0, 1]]])
    trusted = torch.tensor([[[True, True, True, False]]])
    loss = partial_cross_entropy(logits, target, trusted, balanced=True)
    background = -(math.log(0.9) + math.log(0.6)) / 2
    assert loss.item() == pytest.approx((-math.log(0.8) + background) / 2)


def test_partial_cross_entropy_balanced_of_one_class_is_half_its_mean():
    logits = logits_of([[0.8, 0.6]])
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    loss = partial_cross_entropy(logits, everywhere.long(), everywhere, balanced=True)
    loss.backward()
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 4)
    assert torch.isfinite(logits.grad).all()


def test_partial_cross_entropy_ignores_the_ring():
    # Precise: pixel 0. Broad: pixels 0 and 1. Pixel 1 is the ring, pixel 2 background.
    precise = torch.tensor([[[True, False, False]]])
    broad = torch.tensor([[[True, True, False]]])
    values = []
    for ring in (0.01, 0.99):
        logits = logits_of([[0.7, ring, 0.2]])
        loss = partial_cross_entropy(logits, precise, precise | ~broad)
        loss.backward()
        assert (logits.grad[..., 1] == 0).all()
        assert (logits.grad[..., 0] != 0).all()
        values.append(loss.item())
    assert values[0] == values[1] == pytest.approx(-(math.log(0.7) + math.log(0.8)) / 2)


def test_nothing_trusted_is_zero_with_a_finite_gradient():
    logits = logits_of([[0.7, 0.2]])
    loss = partial_cross_entropy(
        logits, torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.bool)
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("scale", "expected"), [(3.0, 0.0), (-2.0, 2.0)])
def test_feature_alignment_is_0_for_equal_and_2_for_opposite_directions(scale, expected):
    teacher = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    loss = feature_alignment([scale * teacher] * 4, [teacher] * 4)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_feature_alignment_of_orthogonal_features_is_1_and_averages_over_scales():
    east, north = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    east[:, 0], north[:, 1] = 1, 1
    # Scales: orthogonal (1) and equal (0).
    assert feature_alignment([east, east], [north, east]).item() == pytest.approx(0.5)


def test_no_gradient_reaches_the_teacher():
    teacher = torch.randn(1, 3, 2, 2, requires_grad=True)
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    feature_alignment([student], [teacher]).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_consistency_weights_by_confidence():
    # Teacher q1 = 0.9, 0.2, 0.6: the third is below τ = 0.8. Weights 2c − 1: 0.8 and 0.6.
    # Student p1 = 0.7, 0.4: NLL of the teacher's class −log 0.7 and −log 0.6.
    q = torch.tensor([[[0.9, 0.2, 0.6]]], dtype=torch.float64)
    target = torch.stack([1 - q, q], dim=1)
    loss = confidence_weighted_consistency(logits_of([[0.7, 0.4, 0.5]]), target, 0.8)
    assert loss.item() == pytest.approx((0.8 * -math.log(0.7) + 0.6 * -math.log(0.6)) / 2)
    plain = (-math.log(0.7) - math.log(0.6)) / 2
    assert abs(loss.item() - plain) > 0.1


def test_consistency_without_a_confident_pixel_is_zero_with_a_finite_gradient():
    logits = logits_of([[0.7, 0.4]])
    loss = confidence_weighted_consistency(logits, torch.full((1, 2, 1, 2), 0.5), 0.8)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_ramp_up():
    assert ramp_up(0, 100) == pytest.approx(math.exp(-5))
    assert ramp_up(50, 100) == pytest.approx(math.exp(-1.25))
    assert ramp_up(100, 100) == ramp_up(500, 100) == 1
