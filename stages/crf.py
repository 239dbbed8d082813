"""The fully connected CRF that draws a heatmap to the image's own edges.

Two labels, one bilateral Gaussian pairwise term with Potts compatibility, mean field (Krähenbühl &
Koltun, NIPS 2011). The Gaussian is filtered on the permutohedral lattice (Adams, Baek & Davis,
Eurographics 2010), built here by sorting packed keys instead of hashing, so that all of it is array
code and nothing has to be compiled.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit, logit

# Probabilities are kept this far from 0 and 1, as the published unary term does.
_CLIP = 1e-5

Floats = NDArray[np.float32]


class GaussianFilter:
    """Filter values at n points of a d-dimensional feature space with a Gaussian of std 1.

    Parameters
    ----------
    features
        (n, d) float32, each axis already divided by its std.
    """

    def __init__(self, features: Floats) -> None:
        n, d = features.shape
        elevated = self._elevate(features)
        # The nearest lattice point of remainder 0, and the order of the distances to it.
        base = np.rint(elevated / (d + 1)).astype(np.int64)
        excess = base.sum(axis=1)
        base *= d + 1
        residual = elevated - base
        rank = np.empty((n, d + 1), np.int64)
        order = np.argsort(-residual, axis=1, kind="stable")
        np.put_along_axis(rank, order, np.arange(d + 1)[None], axis=1)
        # Points of a non-zero coordinate sum are not on the lattice: step to a neighbour.
        rank += excess[:, None]
        step = (d + 1) * ((rank < 0).astype(np.int64) - (rank > d))
        rank += step
        base += step

        share = ((elevated - base) / (d + 1)).astype(np.float32)
        rows = np.arange(n)[:, None]
        weight = np.zeros((n, d + 2), np.float32)
        # The ranks of a row are a permutation, so no two of these writes meet.
        weight[rows, d - rank] += share
        weight[rows, d + 1 - rank] -= share
        weight[:, 0] += 1 + weight[:, d + 1]

        # A vertex's key: its first d coordinates as digits of one integer. A margin on each digit
        # keeps the neighbours' keys from running into each other.
        low = base[:, :d].min(axis=0) - 2 * (d + 1)
        extent = base[:, :d].max(axis=0) + 2 * (d + 1) - low + 1
        radix = np.concatenate([[1], np.cumprod(extent[:-1])]).astype(np.int64)
        origin = (base[:, :d] - low) @ radix
        keys = np.empty((n, d + 1), np.int64)
        for remainder in range(d + 1):
            offset = np.where(rank[:, :d] <= d - remainder, remainder, remainder - (d + 1))
            keys[:, remainder] = origin + offset @ radix
        vertices, index = np.unique(keys, return_inverse=True)
        self._splat = csr_array(
            (weight[:, : d + 1].ravel(), index.ravel(), np.arange(0, n * (d + 1) + 1, d + 1)),
            shape=(n, len(vertices)),
        )
        # Along axis k a neighbour is one step back on every coordinate and d forward on k.
        steps = d * np.append(radix, 0) - (radix.sum() - np.append(radix, 0))
        self._neighbours = [
            (self._find(vertices, vertices + s), self._find(vertices, vertices - s)) for s in steps
        ]
        self._scale = np.float32(1 / (1 + 2.0**-d))

    @staticmethod
    def _elevate(features: Floats) -> Floats:
        """Map to the hyperplane of the lattice, in d + 1 coordinates that add up to 0."""
        n, d = features.shape
        axis = np.arange(1, d + 1)
        scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(axis * (axis + 1)))
        # Sum of the coordinates from each one on.
        tail = np.concatenate([np.cumsum(scaled[:, ::-1], axis=1)[:, ::-1], np.zeros((n, 1))], 1)
        elevated = tail.copy()
        elevated[:, 1:] -= axis * scaled
        return elevated.astype(np.float32)

    @staticmethod
    def _find(vertices: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.intp]:
        """Position of each wanted key; one past the end where it is no vertex."""
        position = np.searchsorted(vertices, wanted)
        absent = vertices[np.minimum(position, len(vertices) - 1)] != wanted
        position[absent] = len(vertices)
        return position

    def __call__(self, values: Floats) -> Floats:
        """Return the filtered (n,) values."""
        grid = np.append(self._splat.T @ values, np.float32(0))
        for forward, back in self._neighbours:
            grid[:-1] += np.float32(0.5) * (grid[forward] + grid[back])
        filtered: Floats = self._scale * (self._splat @ grid[:-1])
        return filtered


def refine(
    image: NDArray[np.uint8],
    probability: NDArray[np.floating],
    *,
    sxy: tuple[float, float],
    srgb: float,
    compat: float,
    iterations: int,
) -> Floats:
    """Refine a foreground probability by mean-field inference.

    Each iteration sets logit Q = logit P + w · (K Q − K (1 − Q)), where K is the bilateral kernel
    exp(−|Δposition|² / 2 sxy² − |Δcolour|² / 2 srgb²), normalised on both sides by the square root
    of its row sums.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    probability
        (H, W) in [0, 1], P.
    sxy
        Spatial std along y and x, px.
    srgb
        Colour std, grey levels.
    compat
        Weight w of the pairwise term.
    iterations
        0 returns P, kept 1e-5 away from 0 and 1.

    Returns
    -------
    (H, W) float32 in [0, 1], the foreground marginal Q.

    Raises
    ------
    ValueError
        A shape, type or range is wrong.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, found {image.shape} {image.dtype}")
    if probability.shape != image.shape[:2]:
        raise ValueError(f"probability must be {image.shape[:2]}, found {probability.shape}")
    if not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError(
            "probability must lie in [0, 1], found "
            f"{probability.min()} to {probability.max()}"
        )
    if min(*sxy, srgb) <= 0:
        raise ValueError(f"sxy and srgb must be positive, found {sxy} and {srgb}")

    unary = logit(np.clip(probability.astype(np.float64), _CLIP, 1 - _CLIP)).astype(np.float32)
    unary = unary.ravel()
    y, x = np.indices(probability.shape, np.float32)
    position = [y.ravel() / sxy[0], x.ravel() / sxy[1]]
    colour = image.reshape(-1, 3).astype(np.float32) / srgb
    gaussian = GaussianFilter(np.column_stack([*position, colour]).astype(np.float32))

    norm = 1 / np.sqrt(gaussian(np.ones_like(unary)) + np.float32(1e-20))
    total = norm * gaussian(norm)
    marginal = expit(unary)
    for _ in range(iterations):
        support = norm * gaussian(norm * marginal)
        marginal = expit(unary + np.float32(compat) * (2 * support - total))
    return marginal.reshape(probability.shape)
