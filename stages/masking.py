"""DARM, disagreement-aware random masking."""

import torch
from torch import Tensor


def disagreement_mask(
    disagreement: Tensor, *, ratio: float, block: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Cover part of each image's disagreement by random square blocks.

    Centres are drawn without replacement from the disagreement set, around each a square of a
    random side, until the covered area reaches `ratio` times the area of disagreement. Covered
    pixels count once, however many blocks overlap there, and count also outside the set.

    For each pixel the first block to cover it is found for all images at once; the budget then is
    one cumulative count per image. The first ⌈ratio · area⌉ centres are distinct pixels, so that
    many blocks always suffice.

    Parameters
    ----------
    disagreement
        (B, H, W) bool: where teacher and student decide differently.
    ratio
        In [0, 1].
    block
        Smallest and largest side, px, both included.
    generator
        On the tensor's device.

    Returns
    -------
    (B, H, W) bool, the masked pixels. Per image their number is at least ratio · area, and
    exceeds it by less than one block.
    """
    batch, height, width = disagreement.shape
    device = disagreement.device
    flat = disagreement.reshape(batch, -1)
    budget = ratio * flat.sum(dim=1)
    blocks = int(budget.max().ceil())
    if blocks == 0:
        return torch.zeros_like(disagreement)

    key = torch.rand(flat.shape, generator=generator, device=device).masked_fill(~flat, 2.0)
    key, centre = key.topk(blocks, dim=1, largest=False)
    smallest, largest = block
    side = torch.randint(smallest, largest + 1, centre.shape, generator=generator, device=device)
    side = side.masked_fill(key >= 2, 0)  # fewer centres here than in another image

    step = torch.arange(largest, device=device)
    y = (centre // width - side // 2)[..., None] + step
    x = (centre % width - side // 2)[..., None] + step
    inside_y = (step < side[..., None]) & (y >= 0) & (y < height)
    inside_x = (step < side[..., None]) & (x >= 0) & (x < width)
    inside = inside_y[..., :, None] & inside_x[..., None, :]
    pixel = (y[..., :, None] * width + x[..., None, :]).masked_fill(~inside, 0)
    order = torch.arange(blocks, device=device)[None, :, None, None].expand_as(pixel)
    order = order.masked_fill(~inside, blocks)

    first = torch.full(flat.shape, blocks, device=device)
    first.scatter_reduce_(1, pixel.flatten(1), order.flatten(1), "amin")
    covered = torch.zeros(batch, blocks + 1, dtype=torch.long, device=device)
    covered.scatter_add_(1, first, torch.ones_like(first))
    reached = covered[:, :blocks].cumsum(dim=1) >= budget[:, None]
    last = reached.int().argmax(dim=1)
    mask = (first <= last[:, None]) & (budget > 0)[:, None]
    return mask.reshape(disagreement.shape)
