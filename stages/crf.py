"""The fully connected CRF that draws a heatmap to the image's own edges.

Two labels, one bilateral Gaussian pairwise term with Potts compatibility, mean field (Krähenbühl &
Koltun, NIPS 2011), with the Gaussian filtered on the permutohedral lattice (Adams, Baek & Davis,
Eurographics 2010). All of it is array code: vertices are found by sorting packed keys instead of
hashing, so nothing has to be compiled.

With two labels one number per pixel is enough. Let h = ½ logit Q, so that Q₁ − Q₀ = tanh h, and K
the normalised kernel; the mean-field update then reads h ← ½ logit P + ½ w · K tanh h.

The message K tanh h is smooth in position and colour, so it is computed for cells of pixels alike
in both; at the last iteration each pixel reads it off its cell to first order.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

# Probabilities are kept this far from 0 and 1, as the published unary term does.
_CLIP = 1e-5
# Sides of a cell in stds of the kernel, along position and colour. At 0 every pixel is its own cell
# and the result is pydensecrf2's to 1e-5; these cost some 5e-4 of mean absolute difference with the
# published settings and make a textured 530 × 620 image four times as fast. Smooth images have few
# cells in colour, so position can be finer.
_CELL_POSITION, _CELL_COLOUR = 0.3, 0.7

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


def _group(keys: Indices) -> tuple[Indices, Indices]:
    """Order that sorts (n,) keys >= 0, stably, and where in it each distinct key starts.

    A radix sort: NumPy sorts 16-bit integers in linear time, wider ones three times as slowly.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(16, int(keys.max()).bit_length(), 16):
        digit = (keys >> shift).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order, np.flatnonzero(np.diff(keys[order], prepend=-1))


class _Lattice:
    """A Gaussian filter of std 1 between n points of a d-dimensional feature space.

    The lattice is the integer grid of d + 1 dimensions seen along its diagonal (1, …, 1): integer
    vectors that differ by a multiple of the diagonal are one vertex. Points map to it by `_basis`;
    the simplex around a point has the corners that one reaches from the floor of its coordinates
    by raising them one after the other, in descending order of their fractions. Differences of
    consecutive fractions are the barycentric weights.

    Parameters
    ----------
    features
        (d, n), each axis divided by its std. pydensecrf2's order is x, y, r, g, b, and the order
        matters a little: the lattice is not the same along each axis.

    Raises
    ------
    OverflowError
        The features span more vertices than an int64 can number.
    """

    def __init__(self, features: NDArray[np.floating]) -> None:
        d, n = features.shape
        axis = np.arange(1, d + 1)
        # Orthogonal columns, each orthogonal to the diagonal, with the scale at which splat, blur
        # and slice together have variance 1 (Adams et al., section 3).
        basis = np.triu(np.ones((d + 1, d))) - axis * np.eye(d + 1, d, -1)
        self._basis = basis * np.sqrt(2 / 3 / (axis * (axis + 1)))

        points = (self._basis @ features).T
        corner = np.floor(points)
        fraction = points - corner
        self._raised = np.argsort(-fraction, axis=1, kind="stable")
        fraction = np.take_along_axis(fraction, self._raised, 1)
        weight = np.empty((n, d + 1), np.float32)
        weight[:, 0] = 1 - fraction[:, 0] + fraction[:, -1]
        weight[:, 1:] = fraction[:, :-1] - fraction[:, 1:]

        # A vertex's key: its coordinates relative to the last one, as the digits of a number. The
        # corners of a simplex reach 1 beyond its floor and their neighbours 1 further.
        relative = corner[:, :-1] - corner[:, -1:]
        relative -= relative.min(axis=0) - 2
        extent = relative.max(axis=0) + 3
        if not extent.prod() < 2**62:
            raise OverflowError("the features span too many lattice vertices")
        radix = np.append(1, np.cumprod(extent[:-1].astype(np.int64)))
        # One step along each axis changes a key by this; along the diagonal by their sum, 0.
        step = np.append(radix, -radix.sum())
        keys = np.column_stack([relative.astype(np.int64) @ radix, step[self._raised[:, :-1]]])
        keys = np.cumsum(keys, axis=1).ravel()
        order, start = _group(keys)
        vertices = keys[order[start]]
        index = np.empty(len(keys), np.int32)
        index[order] = np.repeat(np.arange(len(start)), np.diff(start, append=len(keys)))

        self._corners = index.reshape(n, d + 1)
        indptr = np.arange(0, n * (d + 1) + 1, d + 1, dtype=np.int32)
        self._slice = csr_array((weight.ravel(), index, indptr), shape=(n, len(vertices)))
        self._splat = self._slice.T
        self._neighbours = [
            (self._find(vertices, vertices + s), self._find(vertices, vertices - s)) for s in step
        ]
        self._scale = np.float32(1 / (1 + 2.0**-d))

    @staticmethod
    def _find(vertices: Indices, wanted: Indices) -> Indices:
        """Position of each wanted key; one past the end where it is no vertex."""
        position = np.searchsorted(vertices, wanted)
        found = vertices[np.minimum(position, len(vertices) - 1)] == wanted
        return np.where(found, position, len(vertices))

    def _blur(self, values: Floats) -> Floats:
        """Values of the vertices."""
        # The last entry stands for all that is not there.
        grid = np.append(self._splat @ values, np.float32(0))
        for forward, back in self._neighbours:
            grid[:-1] += np.float32(0.5) * (grid[forward] + grid[back])
        return grid[:-1] * self._scale

    def filter(self, values: Floats) -> Floats:
        """Filter (n,) values."""
        filtered: Floats = self._slice @ self._blur(values)
        return filtered

    def filter_with_slope(self, values: Floats) -> tuple[Floats, Floats]:
        """Filter (n,) values; also the (d, n) derivatives with respect to the features."""
        grid = self._blur(values)
        corners = grid[self._corners]
        # By the weights' definition: each coordinate leads from one corner to the next.
        rise = np.empty_like(corners)
        np.put_along_axis(rise, self._raised, np.roll(corners, -1, axis=1) - corners, axis=1)
        return self._slice @ grid, self._basis.T.astype(np.float32) @ rise.T


def _cells(image: NDArray[np.uint8], sxy: tuple[float, float], srgb: float) -> Indices:
    """Return the number of each pixel's cell, (H · W,) int64."""
    height, width = image.shape[:2]
    # At least one pixel, and not more than the image.
    row = np.arange(height) // max(1, round(min(_CELL_POSITION * sxy[0], height)))
    column = np.arange(width) // max(1, round(min(_CELL_POSITION * sxy[1], width)))
    level = (np.arange(256) / max(1.0, _CELL_COLOUR * srgb)).astype(np.int64)
    cell = row[:, None] * (column[-1] + 1) + column
    for channel in np.moveaxis(image, 2, 0):
        cell = cell * (level[-1] + 1) + level[channel]
    numbers: Indices = cell.ravel()
    return numbers


def _check(
    image: NDArray[np.uint8],
    probability: NDArray[np.floating],
    sxy: tuple[float, float],
    srgb: float,
    compat: float,
    iterations: int,
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8, found {image.shape} {image.dtype}")
    if probability.shape != image.shape[:2] or probability.dtype.kind != "f":
        raise ValueError(
            f"probability must be {image.shape[:2]} floating point, as the image, "
            f"found {probability.shape} {probability.dtype}"
        )
    low, high = probability.min(), probability.max()
    # Written so that NaN fails too, here and below.
    if not (low >= 0 and high <= 1):
        raise ValueError(f"probability must lie in [0, 1], found {low} to {high}")
    if len(sxy) != 2 or not all(0 < s < math.inf for s in sxy):
        raise ValueError(f"sxy must be two positive numbers of pixels, found {sxy}")
    if not 0 < srgb < math.inf:
        raise ValueError(f"srgb must be a positive number of grey levels, found {srgb}")
    if not 0 <= compat < math.inf:
        raise ValueError(f"compat must be at least 0, found {compat}")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, found {iterations}")


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

    Each iteration sets logit Q = logit P + w · K (2 Q − 1), where K is the bilateral kernel
    exp(−|Δposition|² / 2 sxy² − |Δcolour|² / 2 srgb²), each pixel itself included, normalised on
    both sides by the square roots of its row sums. A result is the same on every run.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    probability
        (H, W) floating point in [0, 1], P.
    sxy
        Spatial std along y and x, px.
    srgb
        Colour std, grey levels.
    compat
        Weight w >= 0 of the pairwise term.
    iterations
        0 returns P, kept 1e-5 away from 0 and 1.

    Returns
    -------
    (H, W) float32 in [0, 1], the foreground marginal Q.

    Raises
    ------
    ValueError
        A shape, type or range is wrong, or the stds are too small for the lattice.
    """
    _check(image, probability, sxy, srgb, compat, iterations)
    order, start = _group(_cells(image, sxy, srgb))
    size = np.diff(start, append=len(order))
    count = size.astype(np.float32)

    # From here on pixels lie in the order of their cells.
    clipped = np.clip(probability.ravel()[order].astype(np.float64), _CLIP, 1 - _CLIP)
    unary = (0.5 * np.log(clipped / (1 - clipped))).astype(np.float32)
    features = np.empty((5, len(order)), np.float32)
    y, x = np.divmod(order, probability.shape[1])
    features[0], features[1] = x / sxy[1], y / sxy[0]
    features[2:] = (image.reshape(-1, 3)[order] / np.float32(srgb)).T
    # The mean of a cell gives the vertices what its pixels would, unless it straddles simplices.
    mean = np.add.reduceat(features, start, axis=1) / count
    try:
        lattice = _Lattice(mean)
    except OverflowError as error:
        raise ValueError(f"sxy and srgb are too small, found {sxy} and {srgb}: {error}") from error

    total, total_slope = lattice.filter_with_slope(count)
    norm = np.reciprocal(np.sqrt(total))
    weight = np.float32(0.5 * compat)
    half = unary
    for step in range(iterations):
        source: Floats = norm * np.add.reduceat(np.tanh(half), start)
        if step < iterations - 1:
            message = np.repeat(norm * lattice.filter(source), size)
        else:
            # value / sqrt(total), to first order in the distance to the cell's mean.
            value, slope = lattice.filter_with_slope(source)
            slope = norm * (slope - np.float32(0.5) * (value / total) * total_slope)
            message = np.repeat(norm * value - (slope * mean).sum(axis=0), size)
            for along, feature in zip(slope, features):
                message += np.repeat(along, size) * feature
        half = unary + weight * message
    marginal = np.empty(probability.shape, np.float32)
    marginal.ravel()[order] = 0.5 + 0.5 * np.tanh(half)
    return marginal
