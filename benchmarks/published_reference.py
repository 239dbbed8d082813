"""A plain version of the authors' joint recipe, as a reference for the benchmarks.

Teacher and student train together, and each is the consistency target of the other. Every step
decodes and resizes the files of eight images, DARM loops over pixels, and all values are float32
in PyTorch's default layout. The networks are ours, but with the layers that the authors use:
PyTorch's attention and transposed convolution.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from stages.networks import models
from stages.networks.unet import TransposedConv2x2
from stages.training.losses import ramp_up

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
THRESHOLDS = (0.5, 0.3)
DARM_RATIO, DARM_BLOCK = 0.3, (3, 10)
AFC_WEIGHT, CWC_WEIGHT = 0.1 * 0.5, 1.0
POSITIVE, NEGATIVE = 0.8, 0.2
NOISE, BETA = 0.2, 4
RAMP = 4_000

Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """(B, 3, H, W) normalised, (B, K, D), and (B, H, W) pseudomasks of 0 and 1."""

    image: Tensor
    text: Tensor
    precise: Tensor
    broad: Tensor


class Attention(models.TextFusion):
    """Text fusion with the attention layer of PyTorch."""

    def _attend(self, tokens: Tensor, text_tokens: Tensor) -> tuple[Tensor, Tensor]:
        attended, weights = self.attn(tokens, text_tokens, text_tokens, need_weights=False)
        return attended, weights


def as_published(model: models.Teacher | models.Student) -> nn.Module:
    """Make our network compute in float32 and NCHW, with single layers of PyTorch."""

    def classify(decoded: Tensor) -> Tensor:
        return model.classifier(model.head(model.encoder.final_conv(decoded)))

    model.classify = classify
    for module in model.modules():
        if isinstance(module, models.TextFusion):
            module.__class__ = Attention
        elif isinstance(module, TransposedConv2x2):
            module.__class__ = nn.ConvTranspose2d
    return model.to(memory_format=torch.contiguous_format).train()


def read_sample(
    folder: Path, sample_id: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Floats, ...]:
    """Decode, resize and flip a sample; return image, text, precise and broad pseudomask."""

    def decode(kind: str, resample: Image.Resampling) -> Floats:
        with Image.open(folder / kind / f"{sample_id}.jpg") as file:
            return np.asarray(file.resize(size[::-1], resample), np.float32) / 255

    image = (decode("images", Image.Resampling.BILINEAR) - MEAN) / STD
    refined = decode("gaze/crf_compat1", Image.Resampling.BILINEAR)
    # The published loader reads the masks even if only weak labels are used.
    mask = decode("masks", Image.Resampling.NEAREST) >= 0.5
    precise, broad = sorted((refined >= t for t in THRESHOLDS), key=np.sum)
    planes = [image.transpose(2, 0, 1), precise, broad, mask]
    for axis in (-1, -2):
        if rng.random() < 0.5:
            planes = [np.flip(plane, axis) for plane in planes]
    image, precise, broad, _ = (np.ascontiguousarray(plane, np.float32) for plane in planes)
    return image, np.load(folder / f"embeddings/{sample_id}.npy"), precise, broad


def load_batch(
    folder: Path, sample_ids: list[str], size: tuple[int, int], rng: np.random.Generator
) -> Batch:
    """Read a batch, like a data loader without workers."""
    columns = zip(*(read_sample(folder, sample_id, size, rng) for sample_id in sample_ids))
    return Batch(*(torch.from_numpy(np.stack(values)) for values in columns))


def place_blocks(
    disagreement: NDArray[np.bool_], rng: np.random.Generator, *, count_overlaps_once: bool
) -> NDArray[np.bool_]:
    """Place blocks one by one until they fill the budget; return their mask, (B, H, W).

    Pixels in several blocks count several times, or once with `count_overlaps_once`.
    """
    masks = np.zeros_like(disagreement)
    for mask, image in zip(masks, disagreement):
        centres = np.argwhere(image)
        rng.shuffle(centres)
        area = 0
        for y, x in centres:
            if area >= DARM_RATIO * len(centres):
                break
            side = rng.integers(DARM_BLOCK[0], DARM_BLOCK[1] + 1)
            top, left = y - side // 2, x - side // 2
            block = mask[max(top, 0) : top + side, max(left, 0) : left + side]
            block[...] = True
            area = mask.sum() if count_overlaps_once else area + block.size
    return masks


def draw_darm(precise: Tensor, broad: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw blocks, (B, H, W) of 0 and 1, in the disagreement of the two pseudomasks."""
    masks = place_blocks((precise != broad).cpu().numpy(), rng, count_overlaps_once=False)
    return torch.from_numpy(masks).float().to(precise.device)


def draw_cut_mix(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Draw a box per image, (B, 1, H, W) bool."""
    boxes = torch.zeros(shape[0], 1, *shape[2:], dtype=torch.bool)
    for box in boxes:
        side = np.sqrt(rng.beta(BETA, BETA))
        height, width = int(shape[2] * side), int(shape[3] * side)
        top, left = (
            rng.integers(shape[2] - height + 1),
            rng.integers(shape[3] - width + 1),
        )
        box[:, top : top + height, left : left + width] = True
    return boxes


def gaze_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of channel 1 over all pixels."""
    return functional.binary_cross_entropy_with_logits(logits[:, 1], label)


def alignment(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Alignment of the features (AFC)."""
    terms = [
        (1 - functional.cosine_similarity(s, t.detach(), dim=1)).mean()
        for s, t in zip(student, teacher)
    ]
    return torch.stack(terms).mean()


def consistency(logits: Tensor, target: Tensor) -> Tensor:
    """Confidence-weighted consistency (CWC), positive and negative term; an empty set gives 0."""
    p = logits.softmax(dim=1)
    confidence, label = target.max(dim=1)
    other_probability = target.min(dim=1).values
    is_confident, is_unlikely = confidence >= POSITIVE, other_probability < NEGATIVE
    loss = logits.new_zeros(())
    if is_confident.any():
        nll = functional.nll_loss(torch.log(p + 1e-8), label, reduction="none")
        loss = loss + (confidence * nll)[is_confident].mean()
    if is_unlikely.any():
        nll = functional.nll_loss(torch.log(1 - p + 1e-8), 1 - label, reduction="none")
        loss = loss + (other_probability * nll)[is_unlikely].mean()
    return loss


def make_optimiser(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9, weight_decay=4e-4, nesterov=True)


def joint_step(
    teacher: models.Teacher,
    student: models.Student,
    optimisers: tuple[torch.optim.Optimizer, ...],
    batch: Batch,
    iteration: int,
    rng: np.random.Generator,
) -> float:
    """Update both networks on one batch; return the loss."""
    unmasked = 1 - draw_darm(batch.precise, batch.broad, rng)
    box = draw_cut_mix(batch.image.shape, rng).to(batch.image.device)
    teacher_output = teacher(batch.image, batch.text)
    student_output = student(batch.image * unmasked[:, None], num_aligned=len(unmasked))

    noise = torch.empty_like(batch.image).uniform_(-NOISE, NOISE)
    mixed = torch.where(box, (batch.image + noise).roll(1, dims=0), batch.image + noise)
    targets = []
    for logits in (teacher_output.logits, student_output.logits):
        q = logits.detach().softmax(dim=1)
        targets.append(torch.where(box, q.roll(1, dims=0), q))
    # The authors do not mix the texts.
    teacher_mixed, student_mixed = teacher(mixed, batch.text), student(mixed)

    gaze_terms = gaze_loss(teacher_output.logits, batch.precise) + gaze_loss(
        student_output.logits, batch.broad * unmasked
    )
    consistency_loss = consistency(student_mixed.logits, targets[0]) + consistency(
        teacher_mixed.logits, targets[1]
    )
    alignment_loss = alignment(student_output.features, teacher_output.features)
    loss = gaze_terms + ramp_up(iteration, RAMP) * (
        CWC_WEIGHT * consistency_loss + AFC_WEIGHT * alignment_loss
    )
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()
    return float(loss)
