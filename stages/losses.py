"""The losses of the method, each a pure function of tensors."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values` over `where`; 0, with a finite gradient, where that is empty."""
    return (values * where).sum() / where.sum().clamp(min=1)


def partial_cross_entropy(
    logits: Tensor, target: Tensor, trusted: Tensor, *, balanced: bool = False
) -> Tensor:
    """Cross-entropy over the trusted pixels alone, as is reported of the paper's teacher.

    The teacher trusts the precise pseudomask as foreground and what lies outside the broad one as
    background; the ring between them is ignored. The student trusts the broad pseudomask
    everywhere but in the pixels that DARM masked.

    Parameters
    ----------
    logits
        (B, 2, H, W), channel 1 the foreground.
    target
        (B, H, W), 0 or 1.
    trusted
        (B, H, W) bool.
    balanced
        Both classes weigh the same, whatever their shares of the trusted pixels.

    Returns
    -------
    Scalar, the mean over all trusted pixels of the batch, or, balanced, the mean of the means over
    its trusted foreground and background; 0 where there are none.
    """
    nll = functional.cross_entropy(logits, target.long(), reduction="none")
    if not balanced:
        return _mean_where(nll, trusted)
    foreground = target.bool()
    return (_mean_where(nll, trusted & foreground) + _mean_where(nll, trusted & ~foreground)) / 2


def feature_alignment(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """AFC: mean over scales of mean over pixels of 1 − cos(student, teacher) along channels.

    Parameters
    ----------
    student, teacher
        One (B, C, h, w) feature per scale, of the same shapes. No gradient reaches the teacher.

    Returns
    -------
    Scalar in [0, 2]: 0 for equal directions, 2 for opposite ones.
    """
    terms = [
        1 - functional.cosine_similarity(s, t.detach(), dim=1).mean()
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()


def confidence_weighted_consistency(logits: Tensor, target: Tensor, threshold: float) -> Tensor:
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
    """
    confidence, label = target.detach().max(dim=1)
    nll = functional.cross_entropy(logits, label, reduction="none")
    return _mean_where((2 * confidence - 1) * nll, confidence >= threshold)


def ramp_up(iteration: int, length: int) -> float:
    """exp(−5 (1 − t/T)²), 1 from t = T on: how far consistency and alignment count by now."""
    return math.exp(-5 * (1 - min(iteration / length, 1)) ** 2)
