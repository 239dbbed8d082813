"""Augmentation of a batch before a network reads it: geometry, colours, noise, CutMix."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stages.core.cli import BadInput
from stages.core.processes import gather_batch, local_batch
from stages.settings.training import AugmentSettings, StudentSettings
from stages.training.samples import Batch, normalise

# Share of the samples that `scale` and `shift` change, so that the others keep true texts.
MOVED_SHARE = 0.5
# Weights of R, G and B in the grey value of a colour (ITU-R BT.601).
GREY_WEIGHTS = (0.299, 0.587, 0.114)


def check_size(settings: AugmentSettings, size: tuple[int, ...], prepared: Path) -> None:
    """Raise `BadInput` if the images (H, W) of `prepared` are to be turned and are not square."""
    if settings.quarter_turns and size[0] != size[1]:
        raise BadInput(
            prepared, "size of the images", found=f"{size[0]} × {size[1]} px",
            expected="square images, because augment.quarter_turns is true",
            mend="set augment.quarter_turns to false, or choose a square prepare.size",
        )  # fmt: skip


def augment_and_normalise(
    batch: Batch, settings: AugmentSettings, generator: torch.Generator
) -> Batch:
    """Change each sample of the joined batch at random as the settings say; normalise its image.

    Image and labels move together. A text that its sample's change makes false becomes zero, as if
    it were absent.

    Parameters
    ----------
    batch
        `image` is (B, C, H, W), uint8 colour or float32 grey. All other values of three or more
        dimensions except `text` are labels (B, …, H, W): integers 0 and 1, or floating point.
        `text` is (B, K, D); with it comes a (B, K) bool for each of `settings.text_marks`, True for
        a token that the change makes false.
    generator
        Generator on the batch's device. With equal generators, all processes make the same batch.

    Returns
    -------
    The batch with the same shapes and types, except that `image` is float32 and normalised.
    """
    maps = {name: v for name, v in batch.items() if v.dim() >= 3 and name != "text"}
    maps, changed = _move_at_random(maps, settings, generator)
    maps["image"] = _normalise_and_change_colours(maps["image"], settings, generator)
    augmented = batch | maps
    if "text" in batch:
        for name, samples in changed.items():
            hidden = batch[name] & samples[:, None]
            augmented["text"] = augmented["text"] * ~hidden[..., None]
    return augmented


def _move_at_random(
    maps: Batch, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Batch, Batch]:
    """Flip, turn, scale, shift; also return per mark the samples (B,) whose texts are false."""
    count, device = len(maps["image"]), maps["image"].device
    changed: Batch = {}

    def draw(limit: float) -> Tensor:
        return limit * (2 * torch.rand(count, generator=generator, device=device) - 1)

    flip_x = flip_y = torch.zeros(count, dtype=torch.bool, device=device)
    if settings.flips:
        flip_x, flip_y = (
            torch.rand(count, generator=generator, device=device) < 0.5 for _ in range(2)
        )
    if settings.quarter_turns:
        turns = torch.randint(4, (count,), generator=generator, device=device)
        # A turn is a transposition, if it is odd, and flips. It only permutes pixels.
        transposed = turns % 2 == 1
        flip_x, flip_y = flip_x ^ (turns >= 2), flip_y ^ (turns == 1) ^ (turns == 2)
        maps = change_chosen(maps, transposed, lambda values: values.transpose(-1, -2))
        changed["false_if_turned"] = transposed
    if settings.flips or settings.quarter_turns:
        maps = change_chosen(maps, flip_x, lambda values: values.flip(-1))
        maps = change_chosen(maps, flip_y, lambda values: values.flip(-2))
    if settings.scale or settings.shift:
        moved = torch.rand(count, generator=generator, device=device) < MOVED_SHARE
        factor = (moved * draw(math.log1p(settings.scale))).exp()
        shift = moved * torch.stack([draw(settings.shift), draw(settings.shift)])
        maps = move(maps, factor, shift)
        changed["false_if_moved"] = moved
    return maps, changed


def change_chosen(maps: Batch, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Batch:
    """Replace the maps (B, …, H, W) of the samples `chosen`, (B,) bool, by their `change`."""
    count = len(chosen)
    # Select each sample or its changed one by index: five times as fast as torch.where.
    index = torch.arange(count, device=chosen.device) + count * chosen
    result = {}
    for name, values in maps.items():
        # torch.cat does not support float16 under autocast on a CPU.
        both = values.new_empty(2 * count, *values.shape[1:])
        both[:count], both[count:] = values, change(values)
        result[name] = both.index_select(0, index)
    return result


def move(maps: Batch, factor: Tensor, shift: Tensor) -> Batch:
    """Scale each sample about its centre and shift it, with one bilinear interpolation.

    Outside the image, image and labels continue as their reflections at the border, so that they
    still agree and each loss, also one that uses all pixels, has a label for each pixel. Integer
    labels are 1 where their interpolation is at least ½: nested levels stay nested, and their
    borders stay those of the image. Where both are the identity, only rounding changes a value.

    Parameters
    ----------
    maps
        `image` and labels as for `augment_and_normalise`.
    factor
        (B,), by which each sample is enlarged; below 1 it becomes smaller.
    shift
        (2, B), to the right and down, as a share of the image's width and height.
    """
    count, (height, width) = len(factor), maps["image"].shape[-2:]
    # From −1 to 1 between the outer borders, as grid_sample counts.
    x, y = (
        ((2 * torch.arange(n, device=factor.device) + 1) / n - 1 - 2 * s[:, None]) / factor[:, None]
        for n, s in zip((width, height), shift)
    )
    grid = torch.stack(
        [x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1
    )
    layers = {name: values.reshape(count, -1, height, width) for name, values in maps.items()}
    interpolated = functional.grid_sample(
        torch.cat([values.float() for values in layers.values()], dim=1),
        grid,
        padding_mode="reflection",
        align_corners=False,
    )
    parts = torch.split(interpolated, [values.shape[1] for values in layers.values()], dim=1)
    moved = {}
    for (name, values), found in zip(maps.items(), parts):
        if not values.is_floating_point():
            found = found.round() if name == "image" else found >= 0.5
        moved[name] = found.to(values.dtype).reshape(values.shape)
    return moved


def _normalise_and_change_colours(
    images: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> Tensor:
    """Change the colours of uint8 images and normalise; or normalise grey images and change them.

    Before z-scoring, which divides by each image's own contrast, the change would have no effect.
    """

    def draw(middle: float, limit: float) -> Tensor:
        if not limit:
            return torch.full((len(images),), float(middle), device=images.device)
        uniform = torch.rand(len(images), generator=generator, device=images.device)
        return middle + limit * (2 * uniform - 1)

    if images.dtype == torch.uint8:
        if settings.brightness or settings.contrast or settings.saturation:
            limits = settings.brightness, settings.contrast, settings.saturation
            images = change_colours(images, *(draw(1, limit) for limit in limits))
        return normalise(images)
    images = normalise(images)
    if settings.brightness or settings.contrast:
        offset, factor = draw(0, settings.brightness), draw(1, settings.contrast)
        images = images * factor[:, None, None, None] + offset[:, None, None, None]
    return images


def change_colours(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Multiply colours, their differences from the mean, and their differences from grey.

    Parameters
    ----------
    images
        (B, 3, H, W) uint8.
    brightness, contrast, saturation
        (B,) float, each a factor; 1 changes nothing.

    Returns
    -------
    (B, 3, H, W) uint8: b · (c · (s · x + (1 − s) · g) + (1 − c) · m) with the grey value g of a
    pixel and its mean m over the image, rounded, and clipped to 0 and 255.
    """
    b, c, s = (factor[:, None, None, None] for factor in (brightness, contrast, saturation))
    values = images.float()
    grey = sum(weight * values[:, i : i + 1] for i, weight in enumerate(GREY_WEIGHTS))
    assert isinstance(grey, Tensor)
    common = b * c * (1 - s) * grey + b * (1 - c) * grey.mean(dim=(2, 3), keepdim=True)
    return values.mul_(b * c * s).add_(common).round_().clamp_(0, 255).to(torch.uint8)


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
