"""Labels follow the augmented image, and random values have the stated distribution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.training import augment
from stages.training.augment import add_noise, draw_cutmix_boxes, paste_boxes

SIZE = (4, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Flips


def batch_of(n=64, seed=0):
    """Images whose channel 0 is their label, and a text of the same shape as an image."""
    label = torch.randint(0, 2, (n, *SIZE), generator=generator(seed))
    image = torch.stack([label.float(), torch.rand(n, *SIZE, generator=generator(seed))], dim=1)
    return {
        "image": image,
        "pseudomask": label.to(torch.uint8),
        "mask": label,
        "text": torch.rand(n, *SIZE, generator=generator(seed + 1)),
        "has_gaze": torch.rand(n, generator=generator(seed)) < 0.5,
    }


def test_labels_move_with_the_image_and_the_text_stays():
    batch = batch_of()
    flipped = augment.random_flip(batch, generator())
    assert torch.equal(flipped["pseudomask"], flipped["image"][:, 0].to(torch.uint8))
    assert torch.equal(flipped["mask"], flipped["image"][:, 0].long())
    for name in ("text", "has_gaze"):
        assert torch.equal(flipped[name], batch[name])
    assert flipped["pseudomask"].dtype == torch.uint8
    assert not torch.equal(flipped["image"], batch["image"])


def test_the_four_flips_are_equally_frequent():
    batch = batch_of(400)
    flipped = augment.random_flip(batch, generator())["image"]
    ways = {(): 0, (2,): 0, (1,): 0, (1, 2): 0}
    for before, after in zip(batch["image"], flipped):
        (way,) = [axes for axes in ways if torch.equal(after, before.flip(axes))]
        ways[way] += 1
    # Binomial, 400 of ¼: 100 ± 8.7; five standard deviations.
    assert all(57 <= count <= 143 for count in ways.values()), ways


def test_flips_do_not_change_the_batch_and_the_seed_determines_them():
    batch = batch_of()
    before = {name: values.clone() for name, values in batch.items()}
    first, second = (
        augment.random_flip(batch, generator(3)),
        augment.random_flip(batch, generator(3)),
    )
    for name, values in batch.items():
        assert torch.equal(values, before[name])
        assert torch.equal(first[name], second[name])


# CutMix


@settings(max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)
)
def test_a_box_is_a_rectangle_that_a_seed_fixes(height, width, count, beta, seed):
    boxes = draw_cutmix_boxes((height, width), count, beta, generator(seed))
    assert boxes.shape == (count, height, width)
    assert boxes.dtype == torch.bool
    assert torch.equal(boxes, draw_cutmix_boxes((height, width), count, beta, generator(seed)))
    for box in boxes:
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert torch.equal(box, rows[:, None] & columns[None])
        for along in (rows, columns):
            assert (along.int().diff() != 0).sum() <= 2  # in one piece


@pytest.mark.parametrize("beta", [1, 4])
def test_the_share_of_a_box_is_beta_distributed_except_for_clipping(beta):
    boxes = draw_cutmix_boxes((64, 64), 4000, beta, generator())
    rows, columns = boxes.any(dim=2).float().mean(dim=1), boxes.any(dim=1).float().mean(dim=1)
    # Where no border cuts it, a side is the square root of the share along both axes.
    uncut = ~(boxes[:, [0, -1]].any(dim=2).any(dim=1) | boxes[:, :, [0, -1]].any(dim=2).any(dim=1))
    assert rows[uncut].numpy() == pytest.approx(columns[uncut].numpy(), abs=1.01 / 64)

    # A centre drawn evenly leaves of a side s the mean part s − s² / 4 of it (s ≤ 1, ½ · s² / 4 off
    # each end). For s = √B the mean area is E[(s − s² / 4)²] with E[s^k] of Beta(β, β):
    # Γ(β + k/2) Γ(2β) / (Γ(β) Γ(2β + k/2)).
    def moment(k):
        terms = torch.lgamma(torch.tensor([beta + k / 2, 2 * beta, beta, 2 * beta + k / 2]))
        return float((terms[0] + terms[1] - terms[2] - terms[3]).exp())

    expected = moment(2) - moment(3) / 2 + moment(4) / 16
    assert boxes.float().mean().item() == pytest.approx(expected, rel=0.05)


def test_a_box_is_pasted_from_the_previous_sample():
    values = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    box = torch.zeros(3, 4, 4, dtype=torch.bool)
    box[0, 0, 0], box[1, :2] = True, True
    mixed = paste_boxes(values, box)
    # The first takes from the last.
    assert mixed[0, :, 0, 0].tolist() == [2, 2]
    assert mixed[0].sum() == 2 * 2
    assert mixed[1, 0].tolist() == [[0] * 4] * 2 + [[1] * 4] * 2
    assert torch.equal(mixed[2], values[2])


def test_image_and_target_are_pasted_the_same_way():
    label = torch.randint(0, 2, (6, 1, 16, 16), generator=generator())
    box = draw_cutmix_boxes((16, 16), 6, 4, generator(1))
    assert torch.equal(paste_boxes(label.float(), box).long(), paste_boxes(label, box))


# Noise


def test_noise_is_uniform_within_its_amplitude():
    noise = add_noise(torch.ones(4, 3, 32, 32), 0.2, generator()) - 1
    assert noise.abs().max() <= 0.2 + 1e-6
    # Variance of a uniform number in ± a: a² / 3.
    assert noise.var().item() == pytest.approx(0.04 / 3, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
