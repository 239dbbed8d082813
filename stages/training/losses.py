"""The losses of the method, each a pure function of tensors.

If several processes train one network (`stages.core.processes`), a loss is this process's part. The
mean of these parts over the processes is the loss of the joined batch; the same holds for the
gradients.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from stages.core import processes


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return Σ weight · values of this process / mean over processes of Σ weight; 0 without weight.

    Dividing by this process's own weight would be wrong: a pixel would count more if its process
    has fewer trusted pixels.
    """
    return _divide_by_total_weight(values * weight, weight.to(values.dtype))


def _divide_by_total_weight(values: Tensor, weight: Tensor) -> Tensor:
    total = processes.all_reduce_sum(weight.sum()) / processes.world_size()
    return values.sum() / torch.where(total > 0, total, 1)


def partial_cross_entropy(
    logits: Tensor, target: Tensor, trusted: Tensor, *, balance: float = 0
) -> Tensor:
    """Cross-entropy over the trusted pixels only, as the paper reports for its teacher.

    With p the softmax of the logits and t the target,
    Σ −(w t log p₁ + (1 − t) log p₀) / Σ (w t + 1 − t) over the trusted pixels. The weight of
    foreground is w = (N₀ / N₁)^balance with N₁ = Σ t and N₀ = Σ (1 − t); if one of them is 0, w is
    1.

    The teacher trusts the precise pseudomask as foreground and pixels far enough from the broad
    pseudomask as background; it ignores the ring between them. The student trusts the broad
    pseudomask except in pixels that DARM masks and, with pseudolabels, in pixels where they
    contradict it.

    Parameters
    ----------
    logits
        (B, 2, H, W); channel 1 is the foreground.
    target
        (B, H, W): probability of foreground in [0, 1], or bool or integer labels 0 and 1. It gets
        no gradient.
    trusted
        (B, H, W) bool.
    balance
        In [0, 1]. 0: all pixels weigh the same; 1: both classes weigh the same.

    Returns
    -------
    Scalar; 0 if no pixel is trusted.
    """
    log_p = logits.log_softmax(dim=1)
    t = target.detach().to(log_p.dtype)
    foreground, background = trusted * t, trusted * (1 - t)
    if balance:
        n1, n0 = (processes.all_reduce_sum(part.sum()) for part in (foreground, background))
        foreground = foreground * torch.where((n0 > 0) & (n1 > 0), n0 / n1, 1) ** balance
    log_likelihood = foreground * log_p[:, 1] + background * log_p[:, 0]
    return _divide_by_total_weight(-log_likelihood, foreground + background)


def soft_dice(logits: Tensor, target: Tensor, trusted: Tensor) -> Tensor:
    """Dice loss over the trusted pixels, the mean over images, so that a small region counts too.

    With p the probability of foreground and t the target,
    1 − (Σ p + Σ t − Σ |p − t| + 1) / (Σ p + Σ t + 1) per image. For labels 0 and 1 this is the soft
    Dice loss; for a soft label it is least where p = t (Wang et al., Dice semimetric losses,
    MICCAI 2023). The 1 makes it 0 where both are empty.

    Parameters
    ----------
    logits, target, trusted
        As for `partial_cross_entropy`.

    Returns
    -------
    Scalar in [0, 1]. All processes have the same number of images, so the mean of their means is
    that of the joined batch.
    """
    p = logits.softmax(dim=1)[:, 1] * trusted
    t = target.detach().to(p.dtype) * trusted
    total = (p + t).flatten(1).sum(dim=1)
    difference = (p - t).abs().flatten(1).sum(dim=1)
    return (difference / (total + 1)).mean()


def label_loss(
    logits: Tensor, target: Tensor, trusted: Tensor, *, dice_weight: float, balance: float = 0
) -> Tensor:
    """Partial cross-entropy, and with a `dice_weight` the Dice loss times this weight.

    The parameters are those of `partial_cross_entropy`.
    """
    loss = partial_cross_entropy(logits, target, trusted, balance=balance)
    return loss + dice_weight * soft_dice(logits, target, trusted) if dice_weight else loss


def feature_alignment(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """AFC: mean over scales and pixels of 1 − cos(student, teacher) along the channels.

    All processes have the same number of samples, so the mean of their means is that of the joined
    batch.

    Parameters
    ----------
    student, teacher
        One (B, C, h, w) feature per scale, with equal shapes. The teacher gets no gradient.

    Returns
    -------
    Scalar in [0, 2]: 0 for equal directions, 2 for opposite ones.
    """
    terms = [
        1 - functional.cosine_similarity(s.float(), t.detach().float(), dim=1).mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()


def consistency(
    logits: Tensor,
    target: Tensor,
    threshold: float,
    *,
    weighted: bool = True,
    dice_weight: float = 0,
) -> Tensor:
    """CWC: negative log-likelihood of the teacher's class, weighted by its confidence.

    With q the teacher's probabilities, c = max q and ỹ = argmax q,
    CWC = Σ w · (−log p[ỹ]) / |{c ≥ τ}| over the pixels with c ≥ τ. The weight w = 2c − 1 is 0 for
    c = ½ and 1 for c = 1.

    The published formula adds a second, complementary term with weight 1 − c. With two classes
    −log(1 − p[1 − ỹ]) is −log p[ỹ], so the weights add up to c + (1 − c) = 1 and the formula equals
    plain cross-entropy. Here the doubt is subtracted, c − (1 − c), so that confidence counts.

    Parameters
    ----------
    logits
        (B, 2, H, W), logits of the student.
    target
        (B, 2, H, W), probabilities of the teacher; they get no gradient.
    threshold
        τ in [0.5, 1).
    weighted
        If False, w = 1: plain consistency, to which the published formula is equal.
    dice_weight
        Times this, the Dice loss of the teacher's class over the pixels with c ≥ τ is added.

    Returns
    -------
    Scalar; 0 if no pixel has c ≥ τ.
    """
    confidence, label = target.detach().max(dim=1)
    nll = functional.cross_entropy(logits, label, reduction="none")
    weight = 2 * confidence - 1 if weighted else torch.ones_like(confidence)
    confident = confidence >= threshold
    loss = weighted_mean(weight * nll, confident)
    return loss + dice_weight * soft_dice(logits, label, confident) if dice_weight else loss


def ramp_up(iteration: int, length: int) -> float:
    """Return the ramp exp(−5 (1 − t/T)²) of consistency and alignment; 1 from t = T on."""
    return math.exp(-5 * (1 - min(iteration / length, 1)) ** 2)
