"""Two networks, one per level of gaze, that are to agree (Zhong et al., MICCAI 2024).

*Weakly-supervised Medical Image Segmentation with Gaze Annotations*, arXiv 2407.07406, by the steps
of its released code (GazeMedSeg, options `cons_mode prop`, `cons_weight 3`). Each network learns
from its own pseudomask; and what it says of *propagated* features, each a mixture of its
neighbours', is to be what the other network says. A network that has learned the noise of its own
level by heart would contradict both its neighbours and the other network.

Where the two differ, or the code leaves a choice:

- There, a network per level, and the mean of their logits is evaluated. Here, two for any number
  of levels, of the outermost ones, and a single network is deployed, as of the other methods: the
  broad level's, which learns from the very label of a student that has no teacher.
- There, both begin with the same weights. Here each draws its own.
- Networks are the student's. Theirs are twice as wide, have no 1 × 1 head, and one output channel,
  whose sigmoid is the softmax of two.
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
from stages.training.losses import partial_cross_entropy
from stages.training.samples import Batch, normalise

# Steps to the neighbours along an axis, px: a 5 × 5 window with a gap of one pixel in between.
STEPS = (-4, -2, 0, 2, 4)


def propagate(feature: Tensor) -> Tensor:
    """Mix each position's feature from those around it, by likeness.

    f'(x) = Σ_d w_d f(x + d), w = softmax over d of max(0, ⟨f(x), f(x + d)⟩), over the 25 positions
    of a 5 × 5 window with dilation 2. Outside the image f is 0.

    Parameters
    ----------
    feature
        (B, C, H, W) float.
    """
    height, width = feature.shape[2:]
    reach = max(STEPS)
    padded = functional.pad(feature, (reach,) * 4)
    # Views: the neighbours are not copied, which would take 25 times the memory.
    neighbours = [
        padded[:, :, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        for dy in STEPS
        for dx in STEPS
    ]
    likeness = torch.stack([(feature * other).sum(dim=1) for other in neighbours], dim=1)
    weights = likeness.relu().softmax(dim=1)
    mixed = torch.zeros_like(feature)
    for weight, other in zip(weights.unbind(dim=1), neighbours):
        mixed = mixed + weight[:, None] * other
    return mixed


def cross_level_consistency(logits: Tensor, other: Tensor) -> Tensor:
    """Mean over the pixels of 1 − Σ_c p_c q_c: how likely draws from both differ.

    The released loss is this less 1.

    Parameters
    ----------
    logits
        (B, 2, H, W), of the propagated features: p is their softmax.
    other
        (B, 2, H, W), of the other network: q is their softmax. No gradient reaches them.
    """
    agreement = (logits.softmax(dim=1) * other.detach().softmax(dim=1)).sum(dim=1)
    return 1 - agreement.mean()


def make(
    settings: StudentSettings,
    architecture: models.Architecture,
    seed: int,
    device: torch.device,
    teacher: Path | None,
    text_width: int,
) -> tuple[nn.ModuleDict, loop.Step]:
    """Build both networks and their step; the consistency weighs `settings.cwc_weight`."""
    another = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(seed)))
    student = cast(models.Student, models.build(architecture, seed))
    other = cast(models.Student, models.build(architecture, another))

    def read(network: models.Student, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the image, and of its propagated features."""
        decoded = network.encoder.decode(*network.encoder.encode(image))
        described = network.head[2](network.describe(decoded)).float()
        propagated = network.classifier(propagate(described))
        return network.classifier(described).float(), propagated.float()

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.Terms:
        batch = augment.flip(batch, generator)
        image, levels = normalise(share(batch["image"])), share(batch["pseudomask"])
        precise, broad = levels[:, 0], levels[:, -1]
        everywhere = torch.ones_like(broad, dtype=torch.bool)
        (ours, ours_propagated), (theirs, theirs_propagated) = (
            read(network, image) for network in (student, other)
        )
        gaze = partial_cross_entropy(ours, broad, everywhere)
        precise_gaze = partial_cross_entropy(theirs, precise, everywhere)
        agreement = cross_level_consistency(ours_propagated, theirs)
        agreement = agreement + cross_level_consistency(theirs_propagated, ours)
        return {
            "loss": gaze + precise_gaze + settings.cwc_weight * agreement,
            "gaze": gaze,
            "precise_gaze": precise_gaze,
            "consistency": agreement,
        }

    return nn.ModuleDict({"student": student, "other": other}), step
