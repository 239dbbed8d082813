"""The authors' released recipe: teacher and student at once, each the other's target.

It follows the code of Chen et al., *From Gaze to Insight* (IEEE TMI 2025, arXiv 2504.11368), to be
compared with. Where the code is beside what the paper describes, the code is followed:

- binary cross-entropy on the sigmoid of channel 1 over all pixels, so that what nobody looked at is
  background, also in the ring, and channel 0 learns from consistency alone; channel 1 alone is then
  read (`models.Output.log_odds`);
- DARM where the two pseudomasks differ; what it covers becomes background in image and label;
- alignment halved before its weight;
- consistency in two terms, which the confidence does not weigh in sum, and each network the
  other's target; the text of a mixed image is not mixed with it.

Not followed are three details of CutMix that no result hangs on: one side for all boxes of a batch,
no centre in the first eighth of either axis, and a partner drawn at random, which may be the image
itself.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core.processes import share
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment, loop
from stages.training.losses import feature_alignment, mean_over, ramp_up
from stages.training.samples import Batch, normalise


def foreground_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy on the sigmoid of channel 1, the mean over all pixels.

    Parameters
    ----------
    logits
        (B, 2, H, W); no gradient reaches channel 0.
    target
        (B, H, W), 0 or 1.
    """
    foreground = logits[:, 1]
    return functional.binary_cross_entropy_with_logits(foreground, target.to(foreground.dtype))


def two_term_consistency(logits: Tensor, target: Tensor, threshold: float) -> Tensor:
    """CWC as released: a positive and a negative term, each the mean over its own pixels.

    With q the target, c = max q and ỹ = argmax q: Σ c (−log p[ỹ]) / |{c ≥ τ}| over the pixels with
    c ≥ τ, plus Σ (1 − c) (−log(1 − p[1 − ỹ])) / |{1 − c < 1 − τ}| over those with 1 − c < 1 − τ.
    1 − p[1 − ỹ] is cut off at 10⁻⁶.

    Parameters
    ----------
    logits
        (B, 2, H, W), of the network that learns.
    target
        (B, 2, H, W), the other network's probabilities; no gradient reaches it.
    threshold
        τ in [0.5, 1).

    Returns
    -------
    Scalar; a term without a pixel counts 0.
    """
    confidence, label = target.detach().max(dim=1)
    doubt = target.detach().min(dim=1).values
    nll = functional.cross_entropy(logits, label, reduction="none")
    p = logits.softmax(dim=1)
    wrong = torch.where(label > 0, p[:, 0], p[:, 1])
    complementary = -(1 - wrong).clamp(min=1e-6).log()
    positive = mean_over(confidence * nll, confidence >= threshold)
    return positive + mean_over(doubt * complementary, doubt < 1 - threshold)


def ring_mask(
    ring: Tensor, *, ratio: float, block: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """DARM as released: cover part of the batch's rings by random square blocks.

    Centres are drawn without replacement from the rings of the whole batch, until the blocks' area
    reaches `ratio` times theirs: so an image may get most of the blocks, or none. A block reaches s
    // 2 to each side of its centre, s the drawn side, and is cut off at the border; where blocks
    overlap, the area counts several times.

    Parameters
    ----------
    ring
        (B, H, W) bool: where the pseudomasks differ.
    ratio
        In [0, 1].
    block
        Smallest and largest s, px, both included.
    generator
        On the tensor's device.

    Returns
    -------
    (B, H, W) bool, the masked pixels.
    """
    height, width = ring.shape[1:]
    device = ring.device
    centre = ring.nonzero()
    order = torch.randperm(len(centre), generator=generator, device=device)
    sample, y, x = centre[order].unbind(dim=1)
    smallest, largest = block
    side = torch.randint(smallest, largest + 1, y.shape, generator=generator, device=device)
    top, bottom = (y - side // 2).clamp(min=0), (y + side // 2 + 1).clamp(max=height)
    left, right = (x - side // 2).clamp(min=0), (x + side // 2 + 1).clamp(max=width)
    area = (bottom - top) * (right - left)
    before = area.cumsum(dim=0) - area
    drawn = before < int(ratio * len(centre))
    mask = torch.zeros_like(ring)
    for i, *edges in torch.stack([sample, top, bottom, left, right], dim=1)[drawn].tolist():
        mask[i, edges[0] : edges[1], edges[2] : edges[3]] = True
    return mask


def make(
    settings: StudentSettings,
    architecture: models.Architecture,
    seed: int,
    device: torch.device,
    teacher: Path | None,
    text_width: int,
) -> tuple[nn.ModuleDict, loop.Step]:
    """Build both networks, as published, and the step that trains both."""
    assert settings.teacher_widths is not None
    widths = settings.teacher_widths
    guide = cast(
        models.Teacher,
        models.build(
            architecture.model_copy(
                update={
                    "role": "teacher",
                    "widths": widths,
                    "text_width": text_width,
                    "published": True,
                }
            ),
            seed,
        ),
    )
    # The text branch is added as it is.
    guide.text_weight.requires_grad_(False)
    aligned = architecture.model_copy(update={"teacher_widths": widths[1:5], "published": True})
    student = cast(models.Student, models.build(aligned, seed))

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.Terms:
        batch = augment.flip(batch, generator)
        joined, text = normalise(batch["image"]), share(batch["text"])
        levels = batch["pseudomask"].bool()
        precise, broad = levels[:, 0], levels[:, -1]
        masked = ring_mask(
            precise != broad,
            ratio=settings.darm_ratio,
            block=settings.darm_block,
            generator=generator,
        )
        taught = guide(share(joined), text)
        kept = share(joined * ~masked[:, None])
        seen = student(kept, aligned=len(kept))
        teacher_gaze = foreground_cross_entropy(taught.logits, share(precise))
        student_gaze = foreground_cross_entropy(seen.logits, share(broad & ~masked))
        afc = feature_alignment(seen.features, taught.features) / 2

        said, told = (output.logits.detach().softmax(dim=1) for output in (seen, taught))
        perturbed, mixed = augment.perturb(joined, said, settings, generator)
        teacher_cwc = two_term_consistency(
            guide(perturbed, text).logits, mixed, settings.cwc_threshold
        )
        perturbed, mixed = augment.perturb(joined, told, settings, generator)
        student_cwc = two_term_consistency(student(perturbed).logits, mixed, settings.cwc_threshold)
        ramp = ramp_up(iteration, settings.ramp_iterations)
        consistency = settings.cwc_weight * (teacher_cwc + student_cwc)
        return {
            "loss": teacher_gaze + student_gaze + ramp * (settings.afc_weight * afc + consistency),
            "teacher_gaze": teacher_gaze,
            "gaze": student_gaze,
            "afc": afc,
            "teacher_cwc": teacher_cwc,
            "cwc": student_cwc,
            "masked": masked.float().mean(),
        }

    return nn.ModuleDict({"student": student, "teacher": guide}), step
