"""One network and one label per pixel, from the pseudomasks or the dense mask."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.core.processes import local_batch
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment, loop
from stages.training.losses import label_loss
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
    """Build a student and its step: cross-entropy on the labels."""
    student = models.build(architecture, seed, encoder_weights)

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
        batch = augment.augment_and_normalise(batch, settings.augment, generator)
        target = local_batch(pixel_labels(batch, settings))
        logits = student(local_batch(batch["image"])).logits
        everywhere = torch.ones_like(target, dtype=torch.bool)
        return {"loss": label_loss(logits, target, everywhere, dice_weight=settings.dice_weight)}

    return nn.ModuleDict({"student": student}), step
