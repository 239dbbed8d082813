"""Paired comparison of two methods on the same images: interval, test and correction.

Images of one subject (a patient's slices) are not independent, so it is subjects that are
resampled and whose signs are flipped.
"""

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
# Share of the resampled means that the interval holds.
CONFIDENCE = 0.95
# With so many subjects or fewer, all 2^n signs are tried.
EXACT = 12

Values = NDArray[np.float64]


def bootstrap_interval(
    differences: Values, subjects: NDArray[np.object_], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of the mean difference, bootstrapped over subjects.

    Each of 10,000 draws takes as many subjects as there are, with replacement, each with all its
    images, and averages over the drawn images (cluster bootstrap: Davison and Hinkley, Bootstrap
    Methods and their Application, 1997, sections 3.8 and 5.3). With few subjects it is somewhat
    narrow: with 24 it holds the truth in about 93 of 100 normal samples.

    Parameters
    ----------
    differences
        (N,) float64, one per image.
    subjects
        (N,) subject of each image.
    rng
        Draws the subjects.

    Returns
    -------
    Lower and upper end; NaN and NaN with fewer than two subjects, whose spread nothing tells.
    """
    _, position = np.unique(subjects, return_inverse=True)
    sums, sizes = np.bincount(position, weights=differences), np.bincount(position)
    count = len(sizes)
    if count < 2:
        return np.nan, np.nan
    # How often each subject is drawn: (draws, subjects).
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def sign_flip_p(differences: Values, rng: np.random.Generator) -> float:
    """Two-sided p-value of a mean difference of 0, by flipping the differences' signs.

    If the two methods were alike, each difference could as well have had the other sign. p is the
    share of sign patterns whose mean is at least as far from 0 as the one found: of all 2^n up to
    12 differences, so that p is never below 2 / 2^n; beyond, of 10,000 drawn patterns and the one
    found, (1 + hits) / (1 + 10,000), which is never 0 (Phipson and Smyth, 2010).

    Parameters
    ----------
    differences
        (n,) float64, one per subject.
    rng
        Draws the signs where there are more than 12.

    Returns
    -------
    p in (0, 1]; NaN without differences.
    """
    count = len(differences)
    if not count:
        return np.nan
    if count <= EXACT:
        positive = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        positive = rng.integers(0, 2, (DRAWS, count))
    sums = (2.0 * positive - 1.0) @ differences
    # Equal sums may differ in their last bits.
    slack = 1e-12 * np.abs(differences).sum()
    hits = np.abs(sums) >= abs(differences.sum()) - slack
    return float(hits.mean() if count <= EXACT else (1 + hits.sum()) / (1 + DRAWS))


def holm(p: Values) -> Values:
    """Adjust p-values for their number by Holm's step-down method (1979).

    The k-th smallest of m is multiplied by m − k + 1, cut at 1, and is no smaller than the one
    before it. Rejecting where the result is at most α, the chance of any false rejection among
    all m is at most α, whatever their dependence.

    Parameters
    ----------
    p
        (M,) float64 in [0, 1]; NaN where nothing was tested, which counts for none of the m.

    Returns
    -------
    (M,) float64 in [0, 1], each at least its p; NaN stays.
    """
    adjusted = np.full(len(p), np.nan)
    # NaN is sorted last.
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted
