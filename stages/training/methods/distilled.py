"""The method: a student that learns from the pseudomasks and from a trained teacher."""

from pathlib import Path
from typing import cast

import torch
from torch import nn

from stages.core.cli import BadInput
from stages.core.processes import gather, share
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment, loop
from stages.training.losses import consistency, feature_alignment, partial_cross_entropy, ramp_up
from stages.training.masking import disagreement_mask
from stages.training.methods import label
from stages.training.samples import Batch, normalise


def make(
    settings: StudentSettings,
    architecture: models.Architecture,
    seed: int,
    device: torch.device,
    teacher: Path | None,
    text_width: int,
) -> tuple[nn.ModuleDict, loop.Step]:
    """Build a student and its step: gaze loss under DARM, AFC, and CWC on a perturbed view.

    Where batches have a `pseudolabel` (B, H, W), the teacher's foreground probability as the CRF
    left it, that is the teacher's answer, and the gaze loss is asked only where the pseudomask
    agrees with it: what the image itself contradicts, or half of the levels, is left to
    consistency.
    """
    assert teacher is not None
    guide = models.load(teacher, "teacher").to(device)
    if guide.architecture.text_width and not text_width:
        raise BadInput(
            teacher, "text_width", found=f"{guide.architecture.text_width}, and no text",
            expected="the texts that this teacher reads",
            mend="name them, as in --explanations results/kvasir/explanations.h5",
        )  # fmt: skip
    aligned = architecture.model_copy(update={"teacher_widths": guide.architecture.widths[1:5]})
    student = cast(models.Student, models.build(aligned, seed))

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.Terms:
        batch = augment.flip(batch, generator)
        joined = normalise(batch["image"])
        image, gazed = share(joined), share(label(batch, settings))
        text = share(batch["text"]) if text_width else None
        with torch.no_grad():
            trusted = torch.ones_like(gazed, dtype=torch.bool)
            if settings.reads_pseudolabels:
                features = guide.features(image, text)
                foreground = share(batch["pseudolabel"]).float()
                target = torch.stack([1 - foreground, foreground], dim=1)
                trusted = ((foreground > 0.5) == (gazed > 0.5)) & (gazed != 0.5)
            else:
                taught = guide(image, text)
                features, target = taught.features, taught.logits.softmax(dim=1)
            own = student(image).logits
            disagreement = (own[:, 1] > own[:, 0]) != (target[:, 1] > target[:, 0])
            masked = disagreement_mask(
                gather(disagreement),
                ratio=settings.darm_ratio,
                block=settings.darm_block,
                generator=generator,
            )
            masked = share(masked)
            perturbed, mixed = augment.perturb(joined, target, settings, generator)

        # Both views at once; only the batch norm of the masked one's features mixes samples.
        views = torch.cat([image * ~masked[:, None], perturbed])
        seen = student(views, aligned=len(image))
        seen_masked, seen_perturbed = seen.logits.chunk(2)
        gaze = partial_cross_entropy(seen_masked, gazed, trusted & ~masked)
        afc = feature_alignment(seen.features, features)
        cwc = consistency(
            seen_perturbed, mixed, settings.cwc_threshold, weighted=settings.cwc_weighted
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
