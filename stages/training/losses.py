"""The losses of the method, each a pure function of tensors.

Where several processes train one network (`stages.core.processes`), a loss is this process's
part: the mean of the parts over the processes, and so of their gradients, is the loss of the joined
batch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from stages.core import processes


def mean_over(values: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · values here / (Σ weight over all W processes / W), 0 where no weight is left.

    Divided by the process's own weight instead, a pixel would count the more, the fewer trusted
    ones its process happened to get.
    """
    return _quotient(values * weight, weight.to(values.dtype))


def _quotient(values: Tensor, weight: Tensor) -> Tensor:
    total = processes.total(weight.sum()) / processes.count()
    return values.sum() / torch.where(total > 0, total, 1)


def partial_cross_entropy(
    logits: Tensor, target: Tensor, trusted: Tensor, *, balance: float = 0
) -> Tensor:
    """Cross-entropy over the trusted pixels alone, as is reported of the paper's teacher.

    With p the softmax of the logits and t the target,
    Σ −(w t log p₁ + (1 − t) log p₀) / Σ (w t + 1 − t) over the trusted pixels. The weight of
    foreground is w = (N₀ / N₁)^balance with N₁ = Σ t, N₀ = Σ (1 − t), and 1 where one is 0.

    The teacher trusts the precise pseudomask as foreground and what is far enough from the broad
    one as background; the ring between them is ignored. The student trusts the broad pseudomask
    everywhere but in what DARM masked and, with pseudolabels, in what they contradict.

    Parameters
    ----------
    logits
        (B, 2, H, W), channel 1 the foreground.
    target
        (B, H, W), the probability of foreground in [0, 1], or bool or integer labels, 0 or 1. No
        gradient reaches it.
    trusted
        (B, H, W) bool.
    balance
        In [0, 1]: at 0 each pixel weighs the same, at 1 each class does.

    Returns
    -------
    Scalar; 0 where no pixel is trusted.
    """
    log_p = logits.log_softmax(dim=1)
    t = target.detach().to(log_p.dtype)
    foreground, background = trusted * t, trusted * (1 - t)
    if balance:
        n1, n0 = (processes.total(part.sum()) for part in (foreground, background))
        foreground = foreground * torch.where((n0 > 0) & (n1 > 0), n0 / n1, 1) ** balance
    missed = foreground * log_p[:, 1] + background * log_p[:, 0]
    return _quotient(-missed, foreground + background)


def feature_alignment(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """AFC: mean over scales of mean over pixels of 1 − cos(student, teacher) along channels.

    All processes hold equally many samples, so that the mean of their means is the joined one.

    Parameters
    ----------
    student, teacher
        One (B, C, h, w) feature per scale, of the same shapes. No gradient reaches the teacher.

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
    logits: Tensor, target: Tensor, threshold: float, *, weighted: bool = True
) -> Tensor:
    """CWC: negative log-likelihood of the teacher's class, weighted by its confidence.

    With q the teacher's probabilities, c = max q and ỹ = argmax q,
    CWC = Σ w · (−log p[ỹ]) / |{c ≥ τ}| over the pixels with c ≥ τ, with the weight
    w = 2c − 1, which is 0 for a coin toss and 1 for certainty.

    The published formula adds a second, complementary term with weight 1 − c. With two classes
    −log(1 − p[1 − ỹ]) is −log p[ỹ], so its weights add up to c + (1 − c) = 1 and it equals plain
    cross-entropy. Subtracting the doubt, c − (1 − c), makes confidence count.

    Parameters
    ----------
    logits
        (B, 2, H, W), the student's.
    target
        (B, 2, H, W), the teacher's probabilities; no gradient reaches it.
    threshold
        τ in [0.5, 1).
    weighted
        Without, w = 1: plain consistency, which is what the published formula amounts to.

    Returns
    -------
    Scalar; 0 where no pixel is confident.
    """
    confidence, label = target.detach().max(dim=1)
    nll = functional.cross_entropy(logits, label, reduction="none")
    weight = 2 * confidence - 1 if weighted else torch.ones_like(confidence)
    return mean_over(weight * nll, confidence >= threshold)


def ramp_up(iteration: int, length: int) -> float:
    """exp(−5 (1 − t/T)²), 1 from t = T on: how far consistency and alignment count by now."""
    return math.exp(-5 * (1 - min(iteration / length, 1)) ** 2)
