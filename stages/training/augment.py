"""Augmentation of a batch before a network reads it: flips, noise, CutMix."""

import torch
from torch import Tensor

from stages.core.processes import gather_batch, local_batch
from stages.settings.training import StudentSettings
from stages.training.samples import Batch


def random_flip(batch: Batch, generator: torch.Generator) -> Batch:
    """Flip each sample with its labels, horizontally and vertically, each with probability ½.

    The text of an explanation names no direction, so it stays valid.
    """
    flipped = dict(batch)
    count, device = len(batch["image"]), batch["image"].device
    for axis in (-1, -2):
        flips = torch.rand(count, generator=generator, device=device) < 0.5
        # Select each sample or its mirror image by index: five times as fast as torch.where.
        chosen = torch.arange(count, device=device) + count * flips
        for name, values in flipped.items():
            if values.dim() >= 3 and name != "text":
                # torch.cat does not support float16 under autocast on a CPU.
                both = values.new_empty(2 * count, *values.shape[1:])
                both[:count], both[count:] = values, values.flip(axis)
                flipped[name] = both.index_select(0, chosen)
    return flipped


def add_noise(images: Tensor, amplitude: float, generator: torch.Generator) -> Tensor:
    """Add uniform noise between −`amplitude` and +`amplitude` to each value."""
    noise = torch.empty_like(images).uniform_(-amplitude, amplitude, generator=generator)
    return images + noise


def draw_cutmix_boxes(
    size: tuple[int, ...], count: int, beta: int, generator: torch.Generator
) -> Tensor:
    """Draw one CutMix box per sample; its share of the image area follows Beta(beta, beta).

    Returns
    -------
    (count, H, W) bool on the generator's device, True inside the box. Boxes are clipped at the
    border.
    """
    height, width = size
    device = generator.device
    # The median of 2β − 1 uniform numbers follows Beta(β, β). Computed by sorting, because
    # torch.median is not deterministic on a GPU.
    uniform = torch.rand(count, 2 * beta - 1, generator=generator, device=device)
    side = uniform.sort(dim=1).values[:, beta - 1].sqrt()[:, None]
    centre = torch.rand(2, count, 1, generator=generator, device=device)
    y = torch.arange(height, device=device)[None] + 0.5
    x = torch.arange(width, device=device)[None] + 0.5
    inside_y = (y - centre[0] * height).abs() <= side * height / 2
    inside_x = (x - centre[1] * width).abs() <= side * width / 2
    return inside_y[:, :, None] & inside_x[:, None, :]


def add_noise_and_cutmix(
    images: Tensor, target: Tensor, settings: StudentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Add noise to the images, and mix images and targets with the same CutMix boxes.

    Parameters
    ----------
    images
        (B, C, H, W), the images of all processes.
    target
        (b, 2, H, W), the targets of this process's share of the images.

    Returns
    -------
    This process's share of the mixed images and of the mixed targets.
    """
    boxes = draw_cutmix_boxes(images.shape[2:], len(images), settings.cutmix_beta, generator)
    noisy = add_noise(images, settings.noise, generator)
    return local_batch(paste_boxes(noisy, boxes)), local_batch(
        paste_boxes(gather_batch(target), boxes)
    )


def paste_boxes(values: Tensor, boxes: Tensor) -> Tensor:
    """Replace each sample's box by that of the previous sample, in (B, C, H, W)."""
    return torch.where(boxes[:, None], values.roll(1, dims=0), values)
