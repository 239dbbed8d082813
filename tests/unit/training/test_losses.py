"""Golden values worked out by hand; log is the natural logarithm."""

import math
from datetime import timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, multiprocessing
from torch.nn import functional

from stages.training.losses import (
    consistency,
    feature_alignment,
    partial_cross_entropy,
    ramp_up,
    soft_dice,
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


@pytest.mark.parametrize(("balance", "weight"), [(0, 1), (0.5, 2), (1, 4)])
def test_partial_cross_entropy_weighs_the_rarer_class_up(balance, weight):
    # One trusted foreground pixel (0.8) against four of background (0.1 each); the last, which is
    # not trusted, does not count. 4^balance is 1, 2 and 4, at which both classes weigh the same.
    logits = logits_of([[0.8, 0.1, 0.1, 0.1, 0.1, 0.5]])
    target = torch.tensor([[[1, 0, 0, 0, 0, 1]]])
    trusted = torch.tensor([[[True] * 5 + [False]]])
    loss = partial_cross_entropy(logits, target, trusted, balance=balance)
    expected = (weight * -math.log(0.8) + 4 * -math.log(0.9)) / (weight + 4)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("label", [0, 1])
def test_partial_cross_entropy_of_one_class_does_not_depend_on_the_balance(label):
    logits = logits_of([[0.8, 0.6]])
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    loss = partial_cross_entropy(logits, everywhere * label, everywhere, balance=0.7)
    loss.backward()
    p = [0.8, 0.6] if label else [0.2, 0.4]
    assert loss.item() == pytest.approx(-sum(map(math.log, p)) / 2)
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


def test_partial_cross_entropy_of_soft_targets():
    # t = 0.75 at p1 = 0.8: −(0.75 log 0.8 + 0.25 log 0.2). t = 0 at p1 = 0.1: −log 0.9. The third
    # is not trusted.
    logits = logits_of([[0.8, 0.1, 0.5]])
    target = torch.tensor([[[0.75, 0.0, 0.5]]])
    trusted = torch.tensor([[[True, True, False]]])
    loss = partial_cross_entropy(logits, target, trusted)
    first = -(0.75 * math.log(0.8) + 0.25 * math.log(0.2))
    assert loss.item() == pytest.approx((first - math.log(0.9)) / 2)


def test_partial_cross_entropy_is_minimal_where_p_equals_the_soft_target():
    # d/dz1 = p1 − t, so that the gradient is 0 where p1 = t, and there alone.
    trusted = torch.ones(1, 1, 2, dtype=torch.bool)
    logits, target = logits_of([[0.3, 0.6]]), torch.tensor([[[0.3, 0.4]]], dtype=torch.float64)
    partial_cross_entropy(logits, target, trusted).backward()
    gradient = logits.grad[0, 1, 0]
    assert gradient.tolist() == pytest.approx([0, (0.6 - 0.4) / 2], abs=1e-12)


def test_partial_cross_entropy_balanced_weighs_soft_targets_by_class():
    # Foreground: (0.9 · −log 0.8 + 0.1 · −log 0.4) / (0.9 + 0.1);
    # background: (0.1 · −log 0.2 + 0.9 · −log 0.6) / (0.1 + 0.9).
    logits = logits_of([[0.8, 0.4]])
    target = torch.tensor([[[0.9, 0.1]]], dtype=torch.float64)
    trusted = torch.ones(1, 1, 2, dtype=torch.bool)
    loss = partial_cross_entropy(logits, target, trusted, balance=1)
    foreground = -(0.9 * math.log(0.8) + 0.1 * math.log(0.4))
    background = -(0.1 * math.log(0.2) + 0.9 * math.log(0.6))
    assert loss.item() == pytest.approx((foreground + background) / 2)


def test_partial_cross_entropy_balanced_divides_by_weights_below_one():
    # Σ t = 0.2 and Σ (1 − t) = 0.8: each class's mean is its one pixel's loss all the same.
    logits = logits_of([[0.8]])
    target, trusted = (
        torch.tensor([[[0.2]]], dtype=torch.float64),
        torch.ones(1, 1, 1, dtype=torch.bool),
    )
    loss = partial_cross_entropy(logits, target, trusted, balance=1)
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)


def test_soft_dice_is_the_mean_over_images_of_their_trusted_pixels():
    # First image, without its last pixel: Σ |p − t| = 0.2 + 0.1, Σ p + Σ t = 0.9 + 1.
    # Second: Σ |p − t| = 0.5 + 0.5 + 0.2, Σ p + Σ t = 1.2 + 1.
    logits = torch.cat([logits_of([[0.8, 0.1, 0.5]]), logits_of([[0.5, 0.5, 0.2]])])
    target = torch.tensor([[[1, 0, 1]], [[1, 0, 0]]])
    trusted = torch.tensor([[[True, True, False]], [[True, True, True]]])
    loss = soft_dice(logits, target, trusted)
    assert loss.item() == pytest.approx((0.3 / 2.9 + 1.2 / 3.2) / 2)


def test_soft_dice_counts_a_small_region_as_much_as_a_large_one():
    # Both images miss half of their region: 1 of 2 pixels, or 500 of 1,000.
    trusted = torch.ones(1, 1, 2000, dtype=torch.bool)
    losses = []
    for size in (2, 1000):
        target = (torch.arange(2000) < size)[None, None]
        p = torch.where(torch.arange(2000) < size // 2, 1 - 1e-9, 1e-9)[None]
        losses.append(soft_dice(logits_of(p.tolist()), target, trusted).item())
    # 1 / (3 + 1) and 500 / (1500 + 1).
    assert losses == pytest.approx([1 / 4, 500 / 1501], rel=1e-4)


def test_soft_dice_is_least_where_p_equals_the_soft_target():
    target = torch.tensor([[[0.3, 0.6, 0.0]]], dtype=torch.float64)
    trusted = torch.ones(1, 1, 3, dtype=torch.bool)
    assert soft_dice(logits_of([[0.3, 0.6, 0.0]]), target, trusted).item() == pytest.approx(0)
    assert soft_dice(logits_of([[0.4, 0.6, 0.0]]), target, trusted).item() > 0


def test_soft_dice_of_nothing_is_zero():
    trusted = torch.zeros(1, 1, 2, dtype=torch.bool)
    logits = logits_of([[0.4, 0.6]])
    loss = soft_dice(logits, torch.ones(1, 1, 2), trusted)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.bool, torch.uint8, torch.long, torch.float32]),
)
def test_labels_of_any_dtype_count_as_classes(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 5, 4, generator=generator, requires_grad=True)
    label, trusted = torch.rand(2, 2, 5, 4, generator=generator) < 0.5
    trusted[0, 0, 0] = True
    loss = partial_cross_entropy(logits, label.to(dtype), trusted)
    (gradient,) = torch.autograd.grad(loss, logits)
    chosen = functional.cross_entropy(
        logits, label.long().masked_fill(~trusted, -1), ignore_index=-1
    )
    (expected,) = torch.autograd.grad(chosen, logits)
    torch.testing.assert_close(loss, chosen)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("balance", [0, 0.5])
def test_without_trusted_pixels_the_loss_is_zero_with_a_finite_gradient(balance):
    logits = logits_of([[0.7, 0.2]])
    nowhere = torch.zeros(1, 1, 2, dtype=torch.bool)
    loss = partial_cross_entropy(logits, torch.zeros(1, 1, 2), nowhere, balance=balance)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("scale", "expected"), [(3.0, 0.0), (-2.0, 2.0)])
def test_feature_alignment_is_0_for_equal_and_2_for_opposite_directions(scale, expected):
    teacher = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    loss = feature_alignment([scale * teacher] * 4, [teacher] * 4)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_feature_alignment_depends_only_on_directions():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 3, 3, generator=generator)
    # A scale of its own for each pixel.
    scale = torch.rand(2, 2, 1, 3, 3, generator=generator) + 0.1
    once = feature_alignment([student], [teacher])
    scaled = feature_alignment([scale[0] * student], [scale[1] * teacher])
    torch.testing.assert_close(once, scaled)


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


def test_consistency_weights_by_confidence_or_not():
    # Teacher q1 = 0.9, 0.2, 0.6: the third is below τ = 0.8. Weights 2c − 1: 0.8 and 0.6.
    # Student p1 = 0.7, 0.4: NLL of the teacher's class −log 0.7 and −log 0.6.
    q = torch.tensor([[[0.9, 0.2, 0.6]]], dtype=torch.float64)
    logits, target = logits_of([[0.7, 0.4, 0.5]]), torch.stack([1 - q, q], dim=1)
    # (0.8 · 0.35667 + 0.6 · 0.51083) / 2 = 0.29592
    loss = consistency(logits, target, 0.8)
    assert loss.item() == pytest.approx((0.8 * -math.log(0.7) + 0.6 * -math.log(0.6)) / 2)
    assert loss.item() == pytest.approx(0.29592, abs=1e-5)
    # Cross-entropy on the confident pixels: (0.35667 + 0.51083) / 2 = 0.43375
    plain = consistency(logits, target, 0.8, weighted=False)
    assert plain.item() == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)
    assert plain.item() == pytest.approx(0.43375, abs=1e-5)
    # The Dice loss of the teacher's class, on the two confident pixels: t = 1, 0; p = 0.7, 0.4;
    # Σ |p − t| / (Σ p + Σ t + 1) = 0.7 / 3.1 = 0.22581
    with_dice = consistency(logits, target, 0.8, dice_weight=2)
    assert with_dice.item() == pytest.approx(0.29592 + 2 * 0.22581, abs=2e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_consistency_gives_doubtful_pixels_and_the_teacher_no_gradient(weighted):
    q = torch.tensor([[[0.9, 0.6]]], dtype=torch.float64)
    logits = logits_of([[0.7, 0.5]])
    target = torch.stack([1 - q, q], dim=1).requires_grad_()
    consistency(logits, target, 0.8, weighted=weighted).backward()
    assert target.grad is None
    assert (logits.grad[..., 1] == 0).all()
    assert (logits.grad[..., 0] != 0).all()


@pytest.mark.parametrize("weighted", [True, False])
def test_consistency_without_a_confident_pixel_is_zero_with_a_finite_gradient(weighted):
    logits = logits_of([[0.7, 0.4]])
    loss = consistency(logits, torch.full((1, 2, 1, 2), 0.5), 0.8, weighted=weighted)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_ramp_up():
    # exp(−5 (1 − t/T)²): exp(−5), exp(−5/4), exp(−5/16), and 1 from T on.
    assert ramp_up(0, 4000) == pytest.approx(0.0067379, abs=1e-7)
    assert ramp_up(2000, 4000) == pytest.approx(0.2865048, abs=1e-7)
    assert ramp_up(3000, 4000) == pytest.approx(0.7316156, abs=1e-7)
    assert ramp_up(4000, 4000) == ramp_up(20_000, 4000) == 1


def terms_of_a_batch():
    """Logits, features and targets of four samples; the first two trust far fewer pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 6, 5, generator=generator, dtype=torch.float64)
    teacher = 3 * torch.randn(4, 2, 6, 5, generator=generator, dtype=torch.float64)
    target = torch.rand(4, 6, 5, generator=generator, dtype=torch.float64)
    trusted = torch.rand(4, 6, 5, generator=generator) < 0.8
    trusted[:2, 1:] = False
    features = torch.randn(2, 4, 3, 2, 2, generator=generator, dtype=torch.float64)
    # No pixel of the first two is the foreground of the balanced loss's labels.
    label = target > 0.5
    label[:2] = False
    return logits, teacher.softmax(dim=1), target, label, trusted, *features


def losses_of(logits, q, target, label, trusted, student, teacher):
    return torch.stack(
        [
            partial_cross_entropy(logits, target, trusted),
            partial_cross_entropy(logits, target, trusted, balance=1),
            partial_cross_entropy(logits, label, trusted, balance=1),
            partial_cross_entropy(logits, label, torch.zeros_like(trusted)),
            soft_dice(logits, target, trusted),
            consistency(logits, q, 0.8),
            consistency(logits, q, 0.8, weighted=False),
            feature_alignment([student], [teacher]),
        ]
    )


def values_and_gradients(batch):
    """Each loss, and its gradients with respect to the logits and the student's features."""
    logits, *others, student, teacher = batch
    logits, student = logits.clone().requires_grad_(), student.clone().requires_grad_()
    losses = losses_of(logits, *others, student, teacher)
    gradients = [
        torch.autograd.grad(loss, (logits, student), retain_graph=True, materialize_grads=True)
        for loss in losses
    ]
    return losses.detach(), *(torch.stack(gradient) for gradient in zip(*gradients))


def one_process(rank, folder):
    """Save the losses and gradients of this process's half of the batch."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/joined",
        world_size=2,
        rank=rank,
        timeout=timedelta(seconds=60),
    )
    half = [x[2 * rank : 2 * rank + 2] for x in terms_of_a_batch()]
    torch.save(values_and_gradients(half), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_the_mean_over_two_processes_equals_the_joined_batch(tmp_path):
    joined = values_and_gradients(terms_of_a_batch())
    multiprocessing.spawn(one_process, (tmp_path,), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    losses, *gradients = zip(*parts)
    torch.testing.assert_close(torch.stack(losses).mean(dim=0), joined[0])
    # A parameter's gradient is the mean over processes of the sum over their samples.
    for halves, whole in zip(gradients, joined[1:]):
        torch.testing.assert_close(torch.cat(halves, dim=1) / 2, whole)
    # The halves differ, or else the mean of two means would do as well.
    assert (losses[0] - losses[1]).abs()[[0, 1, 2, 4, 5, 6]].min() > 1e-3
