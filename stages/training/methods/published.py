"""The authors' released recipe: teacher and student train together, each is the other's target.

It follows the code of Chen et al., *From Gaze to Insight* (IEEE TMI 2025, arXiv 2504.11368), for
comparison. Where code and paper differ, it follows the code:

- The gaze loss is binary cross-entropy on the sigmoid of channel 1 over all pixels. Pixels without
  gaze are background, also in the ring. Channel 0 learns only from consistency, so the prediction
  reads only channel 1 (`models.Output.log_odds`).
- DARM masks where the two pseudomasks differ; masked pixels become background in image and label.
- Alignment is halved before its weight applies.
- Consistency has two terms, whose weights by confidence cancel in the sum; each network is the
  other's target. CutMix mixes images and targets, but not the texts.

Three details of CutMix are not followed; no result depends on them: one side for all boxes of a
batch, no centre in the first eighth of either axis, and a random partner, which may be the image
itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core.processes import local_batch
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment, loop
from stages.training.losses import feature_alignment, ramp_up, weighted_mean
from stages.training.samples import Batch


def foreground_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy on the sigmoid of channel 1, averaged over all pixels.

    Parameters
    ----------
    logits
        (B, 2, H, W); channel 0 gets no gradient.
    target
        (B, H, W), 0 or 1.
    """
    foreground = logits[:, 1]
    return functional.binary_cross_entropy_with_logits(foreground, target.to(foreground.dtype))


def two_term_consistency(logits: Tensor, target: Tensor, threshold: float) -> Tensor:
    """CWC as released: a positive and a complementary term, each averaged over its own pixels.

    With q the target, c = max q and ỹ = argmax q: Σ c (−log p[ỹ]) / |{c ≥ τ}| over the pixels with
    c ≥ τ, plus Σ (1 − c) (−log(1 − p[1 − ỹ])) / |{1 − c < 1 − τ}| over those with 1 − c < 1 − τ.
    1 − p[1 − ỹ] is clamped to at least 10⁻⁶.

    Parameters
    ----------
    logits
        (B, 2, H, W), logits of the network that learns.
    target
        (B, 2, H, W), probabilities of the other network; they get no gradient.
    threshold
        τ in [0.5, 1).

    Returns
    -------
    Scalar; a term without pixels is 0.
    """
    confidence, label = target.detach().max(dim=1)
    doubt = target.detach().min(dim=1).values
    nll = functional.cross_entropy(logits, label, reduction="none")
    p = logits.softmax(dim=1)
    other_class = torch.where(label > 0, p[:, 0], p[:, 1])
    complementary = -(1 - other_class).clamp(min=1e-6).log()
    positive = weighted_mean(confidence * nll, confidence >= threshold)
    return positive + weighted_mean(doubt * complementary, doubt < 1 - threshold)


def ring_mask(
    ring: Tensor, *, ratio: float, block: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """DARM as released: mask random square blocks in the rings of a batch.

    The centres are drawn without replacement from the rings of the whole batch, until the area of
    the blocks reaches `ratio` times the area of the rings. So one image may get most of the blocks
    and another none. A block with the drawn side s reaches s // 2 px to each side of its centre
    and is clipped at the border. Where blocks overlap, the area counts several times.

    Parameters
    ----------
    ring
        (B, H, W) bool: True where the pseudomasks differ.
    ratio
        Area of the blocks over area of the rings, in [0, 1].
    block
        Smallest and largest s in px, both included.
    generator
        Generator on the tensor's device.

    Returns
    -------
    The masked pixels, (B, H, W) bool.
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
    used = before < int(ratio * len(centre))
    mask = torch.zeros_like(ring)
    for i, *edges in torch.stack([sample, top, bottom, left, right], dim=1)[used].tolist():
        mask[i, edges[0] : edges[1], edges[2] : edges[3]] = True
    return mask


def make_model_and_step(
    settings: StudentSettings,
    architecture: models.Architecture,
    seed: int,
    device: torch.device,
    teacher: Path | None,
    text_width: int,
    encoder_weights: Mapping[str, Tensor] | None = None,
) -> tuple[nn.ModuleDict, loop.Step]:
    """Build both networks as published, and the step that trains them together."""
    update = {"role": "teacher", "text_width": text_width, "published": True}
    if architecture.encoder == "unet":
        assert settings.teacher_widths is not None
        update |= {"widths": settings.teacher_widths}
    teacher_network = cast(
        models.Teacher,
        models.build(architecture.model_copy(update=update), seed, encoder_weights),
    )
    # As released, the text has no learned weight: it stays 1.
    teacher_network.text_weight.requires_grad_(False)
    student_architecture = architecture.model_copy(
        update={
            "teacher_widths": tuple(teacher_network.encoder.scale_widths),
            "published": True,
        }
    )
    student = cast(models.Student, models.build(student_architecture, seed, encoder_weights))

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
        batch = augment.augment_and_normalise(batch, settings.augment, generator)
        all_images, text = batch["image"], local_batch(batch["text"])
        levels = batch["pseudomask"].bool()
        precise, broad = levels[:, 0], levels[:, -1]
        masked = ring_mask(
            precise != broad,
            ratio=settings.darm_ratio,
            block=settings.darm_block,
            generator=generator,
        )
        teacher_output = teacher_network(local_batch(all_images), text)
        masked_images = local_batch(all_images * ~masked[:, None])
        student_output = student(masked_images, num_aligned=len(masked_images))
        teacher_gaze = foreground_cross_entropy(teacher_output.logits, local_batch(precise))
        student_gaze = foreground_cross_entropy(student_output.logits, local_batch(broad & ~masked))
        afc = feature_alignment(student_output.features, teacher_output.features) / 2

        student_probabilities, teacher_probabilities = (
            output.logits.detach().softmax(dim=1) for output in (student_output, teacher_output)
        )
        perturbed, mixed_target = augment.add_noise_and_cutmix(
            all_images, student_probabilities, settings, generator
        )
        teacher_cwc = two_term_consistency(
            teacher_network(perturbed, text).logits, mixed_target, settings.cwc_threshold
        )
        perturbed, mixed_target = augment.add_noise_and_cutmix(
            all_images, teacher_probabilities, settings, generator
        )
        student_cwc = two_term_consistency(
            student(perturbed).logits, mixed_target, settings.cwc_threshold
        )
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

    return nn.ModuleDict({"student": student, "teacher": teacher_network}), step
