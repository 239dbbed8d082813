"""One network, one label per pixel: from the pseudomasks, or the dense mask."""

from pathlib import Path

import torch
from torch import nn

from stages.core.processes import share
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment, loop
from stages.training.losses import partial_cross_entropy
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
    """Build a student and the step of cross-entropy on its label."""
    student = models.build(architecture, seed)

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.Terms:
        batch = augment.flip(batch, generator)
        target = share(label(batch, settings))
        logits = student(normalise(share(batch["image"]))).logits
        everywhere = torch.ones_like(target, dtype=torch.bool)
        return {"loss": partial_cross_entropy(logits, target, everywhere)}

    return nn.ModuleDict({"student": student}), step
