"""What is done to a batch before a network sees it: flips, noise, CutMix."""

import torch
from torch import Tensor

from stages.core.processes import gather, share
from stages.settings.training import StudentSettings
from stages.training.samples import Batch


def flip(batch: Batch, generator: torch.Generator) -> Batch:
    """Flip each sample with its labels, horizontally and vertically, each with probability ½.

    The text of an explanation names no direction, so it stays true.
    """
    flipped = dict(batch)
    count, device = len(batch["image"]), batch["image"].device
    for axis in (-1, -2):
        coin = torch.rand(count, generator=generator, device=device) < 0.5
        # Of each sample and its mirror image one, which takes a fifth of torch.where's time.
        chosen = torch.arange(count, device=device) + count * coin
        for name, values in flipped.items():
            if values.dim() >= 3 and name != "text":
                # torch.cat knows no float16 under autocast on a CPU.
                both = values.new_empty(2 * count, *values.shape[1:])
                both[:count], both[count:] = values, values.flip(axis)
                flipped[name] = both.index_select(0, chosen)
    return flipped


def add_noise(images: Tensor, amplitude: float, generator: torch.Generator) -> Tensor:
    """Add uniform noise in ± `amplitude` to each value."""
    noise = torch.empty_like(images).uniform_(-amplitude, amplitude, generator=generator)
    return images + noise


def cut_boxes(size: tuple[int, ...], count: int, beta: int, generator: torch.Generator) -> Tensor:
    """Draw one CutMix box per sample; its share of the image is drawn from Beta(beta, beta).

    Returns
    -------
    (count, H, W) bool on the generator's device, True inside the box; boxes are cut off at the
    border.
    """
    height, width = size
    device = generator.device
    # The middle one of 2β − 1 uniform numbers is a Beta(β, β) variate. Sorted, not their median, of
    # which a GPU has no deterministic form.
    drawn = torch.rand(count, 2 * beta - 1, generator=generator, device=device)
    side = drawn.sort(dim=1).values[:, beta - 1].sqrt()[:, None]
    centre = torch.rand(2, count, 1, generator=generator, device=device)
    y = torch.arange(height, device=device)[None] + 0.5
    x = torch.arange(width, device=device)[None] + 0.5
    inside_y = (y - centre[0] * height).abs() <= side * height / 2
    inside_x = (x - centre[1] * width).abs() <= side * width / 2
    return inside_y[:, :, None] & inside_x[:, None, :]


def perturb(
    joined: Tensor, target: Tensor, settings: StudentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix noisy images and their targets by the same CutMix boxes.

    Parameters
    ----------
    joined
        (B, C, H, W), the images of all processes.
    target
        (b, 2, H, W), for this process's share of them.

    Returns
    -------
    This process's share of both.
    """
    box = cut_boxes(joined.shape[2:], len(joined), settings.cutmix_beta, generator)
    noisy = add_noise(joined, settings.noise, generator)
    return share(paste(noisy, box)), share(paste(gather(target), box))


def paste(values: Tensor, box: Tensor) -> Tensor:
    """Paste each sample's box from the sample before it, in (B, C, H, W)."""
    return torch.where(box[:, None], values.roll(1, dims=0), values)
