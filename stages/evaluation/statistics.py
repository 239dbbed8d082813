"""Statistics of two methods on the same images: confidence interval, paired test and correction.

Images of one subject (such as the slices of a patient) are not independent. Therefore the
bootstrap resamples subjects, and the test flips the signs of subjects.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
# Share of the resampled means that lie within the interval.
CONFIDENCE = 0.95
# Up to this number of subjects, the test tries all 2^n sign patterns.
MAX_EXACT_SUBJECTS = 12
# Numbers that the bootstrap holds at a time: 32 MB.
_BLOCK_VALUES = 4_000_000

FloatArray = NDArray[np.float64]


def _split_draws(count: int) -> Iterator[int]:
    """Split `RESAMPLES` draws of `count` numbers each into parts of limited size."""
    size = max(1, _BLOCK_VALUES // count)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)


def bootstrap_interval(
    values: FloatArray, subjects: NDArray[np.object_], rng: np.random.Generator
) -> tuple[float, float]:
    """Bootstrap the 95 % percentile interval of the mean of values of images, over subjects.

    Each of 10,000 draws takes N subjects out of N, with replacement, each with all its images, and
    averages over the drawn images (cluster bootstrap: Davison and Hinkley, Bootstrap Methods and
    their Application, 1997, sections 3.8 and 5.3). The interval is slightly too narrow for few
    subjects: with 24, it contains the true mean in about 93 of 100 normal samples.

    Parameters
    ----------
    values
        (M,) float64, one per image, such as the difference of two methods.
    subjects
        (M,), the subject of each image.
    rng
        Draws the subjects.

    Returns
    -------
    Lower and upper end. Both are NaN for fewer than two subjects: one subject has no spread.
    """
    _, subject_index = np.unique(subjects, return_inverse=True)
    sums = np.bincount(subject_index, weights=values)
    image_counts = np.bincount(subject_index)
    count = len(image_counts)
    if count < 2:
        return np.nan, np.nan
    parts = []
    for draws in _split_draws(count):
        # How often each draw takes each subject: (draws, subjects).
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        multiplicity = drawn.astype(np.float64)
        parts.append((multiplicity @ sums) / (multiplicity @ image_counts))
    means = np.concatenate(parts)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def sign_flip_p_value(differences: FloatArray, rng: np.random.Generator) -> float:
    """Two-sided sign-flip permutation test of the hypothesis that the mean difference is 0.

    If the two methods were equally good, each difference could have either sign with the same
    probability. p is the share of sign patterns whose mean is at least as far from 0 as the
    observed mean. Up to 12 differences, the test tries all 2^n patterns, so p is at least 2 / 2^n.
    For more, it draws 10,000 patterns, and p = (1 + number of such patterns) / (1 + 10,000), which
    is never 0 (Phipson and Smyth, 2010).

    Parameters
    ----------
    differences
        (n,) float64, one per subject.
    rng
        Draws the signs if there are more than 12 differences.

    Returns
    -------
    p in (0, 1]; NaN if there are no differences.
    """
    count = len(differences)
    if not count:
        return np.nan
    if count <= MAX_EXACT_SUBJECTS:
        sums = (2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1) - 1.0) @ differences
    else:
        parts = (rng.integers(0, 2, (draws, count)) for draws in _split_draws(count))
        sums = np.concatenate([(2.0 * positive - 1.0) @ differences for positive in parts])
    # Rounding may make equal sums differ in their last bits.
    tolerance = 1e-12 * np.abs(differences).sum()
    extreme = np.abs(sums) >= abs(differences.sum()) - tolerance
    return float(
        extreme.mean() if count <= MAX_EXACT_SUBJECTS else (1 + extreme.sum()) / (1 + RESAMPLES)
    )


def holm_adjust(p: FloatArray) -> FloatArray:
    """Adjust p-values for multiple tests with Holm's step-down method (1979).

    The k-th smallest of m p-values is multiplied by m − k + 1, limited to 1, and raised to the
    value before it if it is smaller. If each test with an adjusted p of at most α is rejected, the
    probability of one or more false rejections is at most α, whatever the dependence of the tests.

    Parameters
    ----------
    p
        (M,) float64 in [0, 1]; NaN where there was no test: it does not count towards m.

    Returns
    -------
    (M,) float64 in [0, 1], at least p; NaN where p is NaN.
    """
    adjusted = np.full(len(p), np.nan)
    # argsort puts NaN last.
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted
