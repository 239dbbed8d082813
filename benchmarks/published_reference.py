"""The authors' joint recipe, written straightforwardly, for the benchmarks to compare with.

Teacher and student train at once, each the other's target for consistency. At every step the files
of eight images are decoded and resized, DARM loops over pixels, and everything is float32 in
PyTorch's own layout. The networks have our weights, and compute them with the layers that the
authors use: PyTorch's attention and transposed convolution.
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
from stages.networks.unet import Doubling
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
    """Cross-attention by PyTorch's layer."""

    def _attend(self, tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        attended, shares = self.attn(tokens, words, words, need_weights=False)
        return attended, shares


def as_published(model: models.Teacher | models.Student) -> nn.Module:
    """Have a network of ours compute in float32, NCHW and by PyTorch's layers, one by one."""

    def classify(decoded: Tensor) -> Tensor:
        return model.classifier(model.head(model.encoder.final_conv(decoded)))

    model.classify = classify
    for module in model.modules():
        if isinstance(module, models.TextFusion):
            module.__class__ = Attention
        elif isinstance(module, Doubling):
            module.__class__ = nn.ConvTranspose2d
    return model.to(memory_format=torch.contiguous_format).train()


def read(
    folder: Path, sample_id: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Floats, ...]:
    """Decode, resize and flip one sample; return image, text, precise and broad pseudomask."""

    def decode(kind: str, resample: Image.Resampling) -> Floats:
        with Image.open(folder / kind / f"{sample_id}.jpg") as file:
            return np.asarray(file.resize(size[::-1], resample), np.float32) / 255

    image = (decode("images", Image.Resampling.BILINEAR) - MEAN) / STD
    refined = decode("gaze/crf_compat1", Image.Resampling.BILINEAR)
    # The published loader reads the masks also where weak labels alone are used.
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
    """Read a batch, as a data loader without workers does."""
    columns = zip(*(read(folder, sample_id, size, rng) for sample_id in sample_ids))
    return Batch(*(torch.from_numpy(np.stack(values)) for values in columns))


def lay_blocks(
    disagreement: NDArray[np.bool_], rng: np.random.Generator, *, recount: bool
) -> NDArray[np.bool_]:
    """Return the mask of blocks laid one by one, (B, H, W).

    Overlaps count as often as they occur or, with `recount`, once.
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
            area = mask.sum() if recount else area + block.size
    return masks


def draw_darm(precise: Tensor, broad: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw blocks, (B, H, W) of 0 and 1, in the disagreement of the two pseudomasks."""
    masks = lay_blocks((precise != broad).numpy(), rng, recount=False)
    return torch.from_numpy(masks).float()


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
    """AFC."""
    terms = [
        (1 - functional.cosine_similarity(s, t.detach(), dim=1)).mean()
        for s, t in zip(student, teacher)
    ]
    return torch.stack(terms).mean()


def consistency(logits: Tensor, target: Tensor) -> Tensor:
    """CWC with its positive and negative terms; an empty set contributes 0."""
    p = logits.softmax(dim=1)
    confidence, label = target.max(dim=1)
    doubt = target.min(dim=1).values
    sure, excluded = confidence >= POSITIVE, doubt < NEGATIVE
    loss = logits.new_zeros(())
    if sure.any():
        nll = functional.nll_loss(torch.log(p + 1e-8), label, reduction="none")
        loss = loss + (confidence * nll)[sure].mean()
    if excluded.any():
        nll = functional.nll_loss(torch.log(1 - p + 1e-8), 1 - label, reduction="none")
        loss = loss + (doubt * nll)[excluded].mean()
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
    kept = 1 - draw_darm(batch.precise, batch.broad, rng)
    box = draw_cut_mix(batch.image.shape, rng)
    taught = teacher(batch.image, batch.text)
    seen = student(batch.image * kept[:, None], aligned=len(kept))

    noise = torch.empty_like(batch.image).uniform_(-NOISE, NOISE)
    mixed = torch.where(box, (batch.image + noise).roll(1, dims=0), batch.image + noise)
    targets = []
    for logits in (taught.logits, seen.logits):
        q = logits.detach().softmax(dim=1)
        targets.append(torch.where(box, q.roll(1, dims=0), q))
    # The text is not mixed: the authors' is not.
    teacher_mixed, student_mixed = teacher(mixed, batch.text), student(mixed)

    gaze = gaze_loss(taught.logits, batch.precise) + gaze_loss(seen.logits, batch.broad * kept)
    agree = consistency(student_mixed.logits, targets[0]) + consistency(
        teacher_mixed.logits, targets[1]
    )
    align = alignment(seen.features, taught.features)
    loss = gaze + ramp_up(iteration, RAMP) * (CWC_WEIGHT * agree + AFC_WEIGHT * align)
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()
    return float(loss)
