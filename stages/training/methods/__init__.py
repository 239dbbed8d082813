"""How a student learns: one module per method, each with the same function.

`make` builds what is trained and the step that trains it.
What is trained is a module dictionary; its "student" is the network to deploy, and what else it
holds serves training only.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import loop
from stages.training.samples import Batch


class Method(Protocol):
    """What each module is."""

    def make(
        self,
        settings: StudentSettings,
        architecture: models.Architecture,
        seed: int,
        device: torch.device,
        teacher: Path | None,
        text_width: int,
    ) -> tuple[nn.ModuleDict, loop.Step]:
        """Build what is trained, and its step.

        Parameters
        ----------
        architecture
            Of the student, without a teacher to align to.
        seed
            Of the first weights.
        device
            Of the training; what is trained need not be there yet.
        teacher
            Weights of a trained teacher, for a method that needs one.
        text_width
            Channels of a token of the batches' text; 0: they have none.
        """
        ...


def label(batch: Batch, settings: StudentSettings) -> Tensor:
    """Return what a student is told of each pixel (B, H, W).

    The dense mask; or the broad pseudomask; or, with `settings.levels`, the mean over the
    levels in [0, 1]: the share of them at which a pixel is foreground.
    """
    if settings.labels == "mask":
        return batch["mask"]
    if settings.levels is None:
        return batch["pseudomask"][:, -1]
    return batch["pseudomask"].float().mean(dim=1)
