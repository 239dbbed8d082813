import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.masking import disagreement_mask


def draw(disagreement, ratio=0.3, block=(3, 10), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return disagreement_mask(disagreement, ratio=ratio, block=block, generator=generator)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0, 1),
    # A budget below the precision of float32 cannot be told from 0.
    ratio=st.integers(0, 1000).map(lambda r: r / 1000),
    block=st.tuples(st.integers(1, 6), st.integers(0, 6)).map(lambda b: (b[0], b[0] + b[1])),
    size=st.tuples(st.integers(1, 4), st.integers(4, 40), st.integers(4, 40)),
)
def test_the_budget_of_each_image_is_met_and_exceeded_by_less_than_a_block(
    seed, share, ratio, block, size
):
    generator = torch.Generator().manual_seed(seed)
    disagreement = torch.rand(size, generator=generator) < share
    mask = draw(disagreement, ratio, block, seed)
    budget = ratio * disagreement.sum((1, 2)).float()
    covered = mask.sum((1, 2))
    assert (covered >= budget - 1e-3).all()
    assert (covered < budget + block[1] ** 2).all()
    assert not mask[budget == 0].any()


def test_an_image_without_disagreement_is_not_masked():
    disagreement = torch.zeros(2, 32, 32, dtype=torch.bool)
    disagreement[1, 8:24, 8:24] = True
    mask = draw(disagreement)
    assert not mask[0].any()
    assert mask[1].any()
    assert not draw(torch.zeros(2, 8, 8, dtype=torch.bool)).any()


def test_blocks_are_squares_of_the_given_side_around_a_disagreeing_pixel():
    disagreement = torch.zeros(1, 32, 32, dtype=torch.bool)
    disagreement[0, 10, 20] = True
    for seed in range(20):
        mask = draw(disagreement, seed=seed)[0]
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        side = len(rows)
        assert 3 <= side <= 10
        assert side == len(columns)
        assert mask.sum() == side**2
        assert rows[0] == 10 - side // 2
        assert columns[0] == 20 - side // 2


def test_a_seed_fixes_the_mask_and_another_changes_it():
    disagreement = torch.ones(2, 48, 48, dtype=torch.bool)
    assert torch.equal(draw(disagreement, seed=3), draw(disagreement, seed=3))
    assert not torch.equal(draw(disagreement, seed=3), draw(disagreement, seed=4))


def test_centres_are_spread_evenly_over_the_disagreement():
    disagreement = torch.zeros(1, 40, 40, dtype=torch.bool)
    disagreement[0, :, :20] = True
    hits = sum(draw(disagreement, seed=seed)[0].float() for seed in range(200))
    upper, lower = hits[:20, :20].mean().item(), hits[20:, :20].mean().item()
    assert upper == pytest.approx(lower, rel=0.1)
    assert hits[:, 28:].sum() == 0
