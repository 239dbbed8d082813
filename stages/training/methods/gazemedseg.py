"""Two networks, one per level of gaze, trained to agree (Zhong et al., MICCAI 2024).

*Weakly-supervised Medical Image Segmentation with Gaze Annotations*, arXiv 2407.07406, following
its released code (GazeMedSeg, options `cons_mode prop`, `cons_weight 3`). Each network learns from
its own pseudomask. In addition, its prediction from *propagated* features, each a mixture of the
features around it, should equal the prediction of the other network. A network that memorised the
noise of its own level would contradict both the neighbouring features and the other network.

Differences from the released code:

- The released code trains one network per level and evaluates the mean of their logits. Here there
  are always two networks, for the precise and the broad level, and one is deployed, as in the other
  methods: the broad level's. It learns from the same labels as a student without a teacher.
- In the released code both networks start with the same weights. Here each draws its own.
- Here the networks have the student's architecture. The released networks are twice as wide, have
  no 1 × 1 head, and have one output channel, whose sigmoid equals the softmax of two channels.
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
from stages.training.losses import partial_cross_entropy
from stages.training.samples import Batch

# Offsets of the neighbours along an axis, px: a 5 × 5 window with dilation 2.
NEIGHBOUR_OFFSETS = (-4, -2, 0, 2, 4)


def propagate(feature: Tensor) -> Tensor:
    """Replace each position's feature by a mean of those around it, weighted by similarity.

    f'(x) = Σ_d w_d f(x + d), w = softmax over d of max(0, ⟨f(x), f(x + d)⟩), over the 25 positions
    of a 5 × 5 window with dilation 2. f is 0 outside the image.

    Parameters
    ----------
    feature
        (B, C, H, W) float.
    """
    height, width = feature.shape[2:]
    reach = max(NEIGHBOUR_OFFSETS)
    padded = functional.pad(feature, (reach,) * 4)
    # Views, not copies: copies would need 25 times the memory.
    neighbours = [
        padded[:, :, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        for dy in NEIGHBOUR_OFFSETS
        for dx in NEIGHBOUR_OFFSETS
    ]
    similarity = torch.stack([(feature * other).sum(dim=1) for other in neighbours], dim=1)
    weights = similarity.relu().softmax(dim=1)
    mixed = torch.zeros_like(feature)
    for weight, other in zip(weights.unbind(dim=1), neighbours):
        mixed = mixed + weight[:, None] * other
    return mixed


def cross_level_consistency(logits: Tensor, other: Tensor) -> Tensor:
    """Return the mean over pixels of 1 − Σ_c p_c q_c, the probability that the classes differ.

    The released loss is this value minus 1.

    Parameters
    ----------
    logits
        (B, 2, H, W), logits from the propagated features; p is their softmax.
    other
        (B, 2, H, W), logits of the other network; q is their softmax. They get no gradient.
    """
    agreement = (logits.softmax(dim=1) * other.detach().softmax(dim=1)).sum(dim=1)
    return 1 - agreement.mean()


def make_model_and_step(
    settings: StudentSettings,
    architecture: models.Architecture,
    seed: int,
    device: torch.device,
    teacher: Path | None,
    text_width: int,
    encoder_weights: Mapping[str, Tensor] | None = None,
) -> tuple[nn.ModuleDict, loop.Step]:
    """Build both networks and their step; `settings.cwc_weight` is the weight of consistency."""
    other_seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(seed)))
    student = cast(models.Student, models.build(architecture, seed, encoder_weights))
    other = cast(models.Student, models.build(architecture, other_seed, encoder_weights))

    def segment(network: models.Student, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits from the features of the image, and from the propagated features."""
        decoded = network.encoder.decode(*network.encoder.encode(image))
        features = network.head[2](network.head_features(decoded)).float()
        propagated = network.classifier(propagate(features))
        return network.classifier(features).float(), propagated.float()

    def step(batch: Batch, iteration: int, generator: torch.Generator) -> loop.LossTerms:
        batch = augment.augment_and_normalise(batch, settings.augment, generator)
        image, levels = local_batch(batch["image"]), local_batch(batch["pseudomask"])
        precise, broad = levels[:, 0], levels[:, -1]
        everywhere = torch.ones_like(broad, dtype=torch.bool)
        (broad_logits, broad_propagated), (precise_logits, precise_propagated) = (
            segment(network, image) for network in (student, other)
        )
        gaze = partial_cross_entropy(broad_logits, broad, everywhere)
        precise_gaze = partial_cross_entropy(precise_logits, precise, everywhere)
        consistency = cross_level_consistency(broad_propagated, precise_logits)
        consistency = consistency + cross_level_consistency(precise_propagated, broad_logits)
        return {
            "loss": gaze + precise_gaze + settings.cwc_weight * consistency,
            "gaze": gaze,
            "precise_gaze": precise_gaze,
            "consistency": consistency,
        }

    return nn.ModuleDict({"student": student, "other": other}), step
