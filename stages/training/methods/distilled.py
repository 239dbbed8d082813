"""The project's method: a student learns from the pseudomasks and from a trained teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from stages.core.cli import BadInput
from stages.core.processes import gather_batch, local_batch
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment, loop
from stages.training.losses import consistency, feature_alignment, label_loss, ramp_up
from stages.training.masking import disagreement_mask
from stages.training.methods import pixel_labels
from stages.training.samples import Batch


def make_model_and_step(
    settings: StudentSettings,
    architecture: models.Architecture,
    seed: int,
    device: torch.device,
    teacher: Path | None,
    text_width: int,
    encoder_weights: Mapping[str, Tensor] | None = None,
) -> tuple[nn.ModuleDict, loop.Step]:
    """Build a student and its step: gaze loss under DARM, AFC, and CWC on a perturbed view.

    If the settings ask for pseudolabels, a batch has a `pseudolabel` (B, H, W): the probability of
    foreground that `pseudolabels` made of the teacher's prediction, which it replaces. The gaze
    loss then uses only pixels in which pseudomask and pseudolabel agree and the levels are not
    split in half; only consistency trains the other pixels.
    """
    assert teacher is not None
    teacher_network = models.load(teacher, "teacher").to(device)
    if teacher_network.architecture.text_width and not text_width:
        raise BadInput(
            teacher, "text_width", found=f"{teacher_network.architecture.text_width}, but no text",
            expected="explanations, because this teacher reads text",
            mend="add them, for example --explanations results/kvasir/explanations.h5",
        )  # fmt: skip
    student_architecture = architecture.model_copy(
        update={"teacher_widths": tuple(teacher_network.encoder.scale_widths)}
    )
    student = cast(models.Student, models.build(student_architecture, seed, encoder_weights))

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
        batch = augment.augment_and_normalise(batch, settings.augment, generator)
        all_images = batch["image"]
        image, labels = local_batch(all_images), local_batch(pixel_labels(batch, settings))
        text = local_batch(batch["text"]) if text_width else None
        with torch.no_grad():
            trusted = torch.ones_like(labels, dtype=torch.bool)
            if settings.reads_pseudolabels:
                features = teacher_network.features(image, text)
                foreground = local_batch(batch["pseudolabel"]).float()
                target = torch.stack([1 - foreground, foreground], dim=1)
                trusted = ((foreground > 0.5) == (labels > 0.5)) & (labels != 0.5)
            else:
                teacher_output = teacher_network(image, text)
                features, target = teacher_output.features, teacher_output.logits.softmax(dim=1)
            clean_logits = student(image).logits
            disagreement = (clean_logits[:, 1] > clean_logits[:, 0]) != (
                target[:, 1] > target[:, 0]
            )
            masked = disagreement_mask(
                gather_batch(disagreement),
                ratio=settings.darm_ratio,
                block=settings.darm_block,
                generator=generator,
            )
            masked = local_batch(masked)
            perturbed, mixed_target = augment.add_noise_and_cutmix(
                all_images, target, settings, generator
            )

        # Both views in one batch: only the batch norm on the masked view's features mixes samples.
        views = torch.cat([image * ~masked[:, None], perturbed])
        output = student(views, num_aligned=len(image))
        masked_logits, perturbed_logits = output.logits.chunk(2)
        gaze = label_loss(
            masked_logits, labels, trusted & ~masked, dice_weight=settings.dice_weight
        )
        afc = feature_alignment(output.features, features)
        cwc = consistency(
            perturbed_logits,
            mixed_target,
            settings.cwc_threshold,
            weighted=settings.cwc_weighted,
            dice_weight=settings.dice_weight,
        )
        ramp = ramp_up(iteration, settings.ramp_iterations)
        loss = gaze + ramp * (settings.afc_weight * afc + settings.cwc_weight * cwc)
        return {
            "loss": loss,
            "gaze": gaze,
            "afc": afc,
            "cwc": cwc,
            "disagreement": disagreement.float().mean(),
            "masked": masked.float().mean(),
        }

    return nn.ModuleDict({"student": student}), step
