"""DARM, disagreement-aware random masking (Chen et al., From Gaze to Insight, 2025)."""

import torch
from torch import Tensor


def disagreement_mask(
    disagreement: Tensor, *, ratio: float, block: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Mask random square blocks around pixels where teacher and student disagree.

    The centres of the blocks are drawn without replacement from the disagreeing pixels, and each
    block has a random side. Blocks are added until the masked area reaches `ratio` times the area
    of disagreement. A masked pixel counts once, even if blocks overlap there, and it also counts
    if teacher and student agree there.

    All blocks of all images are placed at once, without a transfer to the host. A random order
    ranks the pixels as centres. Each pixel gets the rank of the first block that covers it: the
    minimum over the centres whose block reaches it. The cumulative number of pixels by rank shows
    which block is the last one that an image needs. Time and memory depend only on the size of the
    images and the largest side.

    Parameters
    ----------
    disagreement
        (B, H, W) bool: True where teacher and student predict different classes. H · W must be
        below 2²⁴, or torch.randperm raises RuntimeError.
    ratio
        Masked area over area of disagreement, in [0, 1].
    block
        Smallest and largest side in px, both included, at least 1.
    generator
        Generator on the tensor's device.

    Returns
    -------
    The masked pixels, (B, H, W) bool. Per image their number is at least ratio · area, and it
    exceeds this by less than one block.
    """
    smallest, largest = block
    shape, device = disagreement.shape, disagreement.device
    pixels = shape[1] * shape[2]
    no_block = pixels + 1
    # Integers in float32, the fastest type: it is exact for all values of randperm.
    centre_order = [
        torch.randperm(pixels, generator=generator, device=device, dtype=torch.float32)
        for _ in disagreement
    ]
    rank = torch.stack(centre_order).view(shape) + 1
    side = torch.randint(
        smallest, largest + 1, shape, generator=generator, device=device, dtype=torch.float32
    )
    side *= disagreement

    # A square of side s is a square of side s − 1 plus one row and one column. The loop goes from
    # the largest side down: it adds the centres of side s, then lets all squares so far grow by one
    # row and one column. An even square reaches one pixel further up and left, so the direction
    # alternates. Clipping at the border is safe: all pixels between two pixels of an image are in
    # the image.
    first_block = torch.full_like(rank, no_block)
    for s in range(largest, 0, -1):
        if s >= smallest:
            # Adding a penalty is many times as fast as torch.where.
            first_block = torch.minimum(first_block, (side - s).abs_().mul_(no_block).add_(rank))
        if s > 1:
            for dim in (1, 2):
                upper = first_block.narrow(dim, 0, shape[dim] - 1)
                lower = first_block.narrow(dim, 1, shape[dim] - 1)
                (lower if s % 2 else upper).copy_(torch.minimum(upper, lower))

    first_block = first_block.clamp_(max=no_block).flatten(1).long()
    pixels_per_rank = torch.zeros(len(first_block), no_block + 1, dtype=torch.long, device=device)
    pixels_per_rank.scatter_add_(
        1, first_block, torch.ones_like(first_block[:1, :1]).expand_as(first_block)
    )
    # − 1e-6: a product such as 0.07 · 100, which rounding makes larger than 7, counts as 7.
    area = disagreement.sum(dim=(1, 2), dtype=torch.float64)
    budget = (ratio * area - 1e-6).ceil().long()
    last_block = torch.searchsorted(pixels_per_rank.cumsum(dim=1), budget[:, None])
    return (first_block <= last_block).view(shape)
