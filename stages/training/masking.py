"""DARM, disagreement-aware random masking (Chen et al., From Gaze to Insight, 2025)."""

import torch
from torch import Tensor


def disagreement_mask(
    disagreement: Tensor, *, ratio: float, block: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Cover part of each image's disagreement by random square blocks.

    Centres are drawn without replacement from the disagreement set, around each a square of a
    random side, until the covered area reaches `ratio` times the area of disagreement. Covered
    pixels count once, however many blocks overlap there, and count also outside the set.

    All blocks of all images are laid at once, without a transfer to the host: a random order ranks
    the pixels as centres; each pixel gets the rank of the first block that covers it, the minimum
    over the centres that reach it; a count of pixels by rank says with which block an image's
    budget is met. Time and memory depend on the size of the images and the largest side alone.

    Parameters
    ----------
    disagreement
        (B, H, W) bool: where teacher and student decide differently. H · W below 2²⁴, or
        torch.randperm raises RuntimeError.
    ratio
        In [0, 1].
    block
        Smallest and largest side, px, both included, from 1.
    generator
        On the tensor's device.

    Returns
    -------
    (B, H, W) bool, the masked pixels. Per image their number is at least ratio · area, and
    exceeds it by less than one block.
    """
    smallest, largest = block
    shape, device = disagreement.shape, disagreement.device
    pixels = shape[1] * shape[2]
    never = pixels + 1
    # Whole numbers, but float32: it is exact as far as randperm goes, and the fastest.
    order = [
        torch.randperm(pixels, generator=generator, device=device, dtype=torch.float32)
        for _ in disagreement
    ]
    rank = torch.stack(order).view(shape) + 1
    side = torch.randint(
        smallest, largest + 1, shape, generator=generator, device=device, dtype=torch.float32
    )
    side *= disagreement

    # A square of side s is one of side s − 1 and a row and a column more: from the largest side
    # down, the centres of side s join in, then all squares laid so far grow by that row and column.
    # Even squares reach one pixel further up and left, so that the growth alternates. It may be cut
    # off at the border: a pixel between a centre and a pixel in the image is in the image too.
    first = torch.full_like(rank, never)
    for s in range(largest, 0, -1):
        if s >= smallest:
            # A penalty in arithmetic is many times as fast as torch.where.
            first = torch.minimum(first, (side - s).abs_().mul_(never).add_(rank))
        if s > 1:
            for dim in (1, 2):
                upper = first.narrow(dim, 0, shape[dim] - 1)
                lower = first.narrow(dim, 1, shape[dim] - 1)
                (lower if s % 2 else upper).copy_(torch.minimum(upper, lower))

    first = first.clamp_(max=never).flatten(1).long()
    covered = torch.zeros(len(first), never + 1, dtype=torch.long, device=device)
    covered.scatter_add_(1, first, torch.ones_like(first[:1, :1]).expand_as(first))
    # A product that is whole but for its rounding, as 0.07 · 100, is that whole number.
    area = disagreement.sum(dim=(1, 2), dtype=torch.float64)
    budget = (ratio * area - 1e-6).ceil().long()
    last = torch.searchsorted(covered.cumsum(dim=1), budget[:, None])
    return (first <= last).view(shape)
