"""The methods to train a student: one module each, with the same function.

In: settings, the student's architecture and, for some methods, a trained teacher. Out:
`make_model_and_step` returns the networks to train and their training step. The networks are a
module dictionary: "student" is the network to deploy, the others serve training only. Start reading
at `single.py`, the simplest; `distilled.py` is the project's own method.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import loop
from stages.training.samples import Batch


class Method(Protocol):
    """The function that each module of a method has."""

    def make_model_and_step(
        self,
        settings: StudentSettings,
        architecture: models.Architecture,
        seed: int,
        device: torch.device,
        teacher: Path | None,
        text_width: int,
        encoder_weights: Mapping[str, Tensor] | None = None,
    ) -> tuple[nn.ModuleDict, loop.Step]:
        """Build the networks to train and their training step.

        Parameters
        ----------
        architecture
            The student's architecture, without alignment to a teacher.
        seed
            Seed of the initial weights.
        device
            Device of the training. The caller moves the returned networks there.
        teacher
            Weights of a trained teacher, for a method that needs one.
        text_width
            Channels of a text token in the batches; 0: the batches have no text.
        encoder_weights
            Pretrained weights of the student's encoder, as for `models.build`.
        """
        ...


def pixel_labels(batch: Batch, settings: StudentSettings) -> Tensor:
    """Return the label of each pixel, (B, H, W).

    It is the dense mask, or the broad pseudomask, or, with `settings.levels`, the mean of the
    pseudomasks in [0, 1]: the share of levels at which a pixel is foreground.
    """
    if settings.labels == "mask":
        return batch["mask"]
    if settings.levels is None:
        return batch["pseudomask"][:, -1]
    return batch["pseudomask"].float().mean(dim=1)
