import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.training.masking import disagreement_mask


def draw(disagreement, ratio=0.3, block=(3, 10), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return disagreement_mask(disagreement, ratio=ratio, block=block, generator=generator)


def block_around(y, x, side, size):
    """Return the square around a centre, clipped at the border, as two slices."""
    top, left = y - side // 2, x - side // 2
    return (
        slice(max(top, 0), min(top + side, size[0])),
        slice(max(left, 0), min(left + side, size[1])),
    )


def reference_mask(disagreement, ratio, block, rng):
    """Mask one image as the docstring says: centre after centre, until the budget is met."""
    mask = torch.zeros_like(disagreement)
    centres = disagreement.nonzero().tolist()
    rng.shuffle(centres)
    for y, x in centres:
        if mask.sum() >= ratio * len(centres):
            break
        mask[block_around(y, x, rng.randint(*block), disagreement.shape)] = True
    return mask


blocks = st.tuples(st.integers(1, 6), st.integers(0, 6)).map(lambda b: (b[0], b[0] + b[1]))
sizes = st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
ratios = st.integers(0, 1000).map(lambda r: r / 1000)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), ratio=ratios, block=blocks, size=sizes)
def test_the_masked_area_exceeds_the_budget_by_less_than_a_block(seed, share, ratio, block, size):
    disagreement = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < share
    mask = draw(disagreement, ratio, block, seed)
    budget = ratio * disagreement.sum((1, 2)).double()
    covered = mask.sum((1, 2))
    assert (covered >= budget - 1e-6).all()
    assert (covered < budget + block[1] ** 2).all()
    assert not mask[budget == 0].any()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.02, 0.2, 1.0]),
    ratio=ratios,
    block=blocks,
    size=st.tuples(st.just(2), st.integers(1, 16), st.integers(1, 16)),
)
def test_a_mask_is_a_union_of_blocks_around_disagreeing_pixels(seed, share, ratio, block, size):
    disagreement = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < share
    for masked, centres in zip(draw(disagreement, ratio, block, seed), disagreement):
        union = torch.zeros_like(masked)
        for y, x in centres.nonzero().tolist():
            for side in range(block[0], block[1] + 1):
                square = block_around(y, x, side, masked.shape)
                if masked[square].all():
                    union[square] = True
        assert torch.equal(union, masked)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), ratio=ratios, size=sizes)
def test_blocks_of_one_pixel_mask_exactly_the_budget(seed, share, ratio, size):
    disagreement = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < share
    mask = draw(disagreement, ratio, (1, 1), seed)
    assert not (mask & ~disagreement).any()
    # In thousandths, to avoid rounding.
    thousandths = round(1000 * ratio) * disagreement.sum((1, 2))
    assert torch.equal(mask.sum((1, 2)), (thousandths + 999) // 1000)


def test_rounding_does_not_raise_an_integer_budget():
    assert 0.07 * 100 > 7
    assert draw(torch.ones(1, 10, 10, dtype=torch.bool), 0.07, (1, 1)).sum() == 7


def test_an_image_without_disagreement_is_not_masked():
    disagreement = torch.zeros(2, 32, 32, dtype=torch.bool)
    disagreement[1, 8:24, 8:24] = True
    mask = draw(disagreement)
    assert not mask[0].any()
    assert mask[1].any()
    assert not draw(torch.zeros(2, 8, 8, dtype=torch.bool)).any()
    assert not draw(torch.ones(2, 8, 8, dtype=torch.bool), ratio=0.0).any()


@pytest.mark.parametrize(("y", "x"), [(10, 20), (0, 0), (31, 31), (1, 30)])
def test_blocks_are_squares_of_a_random_side_around_a_disagreeing_pixel(y, x):
    disagreement = torch.zeros(400, 32, 32, dtype=torch.bool)
    disagreement[:, y, x] = True
    drawn = {mask.numpy().tobytes() for mask in draw(disagreement)}
    expected = set()
    for side in range(3, 11):
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[block_around(y, x, side, (32, 32))] = True
        expected.add(mask.numpy().tobytes())
    assert drawn == expected


def test_the_seed_determines_the_mask():
    disagreement = torch.ones(2, 48, 48, dtype=torch.bool)
    assert torch.equal(draw(disagreement, seed=3), draw(disagreement, seed=3))
    assert not torch.equal(draw(disagreement, seed=3), draw(disagreement, seed=4))


def test_the_images_of_a_batch_are_masked_independently():
    mask = draw(torch.ones(2, 48, 48, dtype=torch.bool))
    assert not torch.equal(mask[0], mask[1])


@pytest.mark.parametrize(("ratio", "block"), [(0.1, (2, 5)), (0.3, (3, 6)), (1.0, (1, 4))])
def test_masks_have_the_distribution_of_the_reference(ratio, block):
    # A ring that touches the border, and a pixel apart.
    y, x = torch.meshgrid(torch.arange(14), torch.arange(14), indexing="ij")
    radius = ((y - 5) ** 2 + (x - 6) ** 2).float().sqrt()
    disagreement = (radius - 5).abs() < 1
    disagreement[13, 12] = True
    n, rng = 1500, random.Random(0)
    expected = torch.stack([reference_mask(disagreement, ratio, block, rng) for _ in range(n)])
    drawn = draw(disagreement.expand(n, -1, -1), ratio, block)
    # How often each pixel is masked, each pair of neighbours, and how large the area is. A
    # difference of frequencies has variance (v1 + v2) / n; five deviations are one in 10⁶.
    for statistic in (
        lambda mask: mask.flatten(1),
        lambda mask: (mask[:, :, 1:] & mask[:, :, :-1]).flatten(1),
        lambda mask: mask.sum((1, 2))[:, None],
    ):
        a, b = statistic(expected).double(), statistic(drawn).double()
        deviation = ((a.var(dim=0) + b.var(dim=0)) / n).sqrt()
        assert ((a.mean(dim=0) - b.mean(dim=0)).abs() <= 5 * deviation).all()


def test_nothing_is_transferred_to_the_host():
    # Tensors on `meta` have no values: reading one raises.
    disagreement = torch.zeros(2, 32, 32, dtype=torch.bool, device="meta")
    assert draw(disagreement).shape == (2, 32, 32)
