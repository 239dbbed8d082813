"""The fully connected CRF that draws a heatmap to the image's own edges.

Two labels, one bilateral Gaussian pairwise term with Potts compatibility, mean field (Krähenbühl &
Koltun, NIPS 2011), with the Gaussian filtered on the permutohedral lattice (Adams, Baek & Davis,
Eurographics 2010). All of it is tensor code, the same on a CPU and on a GPU: vertices are found by
sorting packed keys instead of hashing, so nothing has to be compiled. Nearly all the time passes
in tensor operations, which leave Python's lock to other threads: images can be refined in parallel.

With two labels one number per pixel is enough. Let h = ½ logit Q, so that Q₁ − Q₀ = tanh h, and K
the normalised kernel; the mean-field update then reads h ← u + ½ w · K tanh h with u = ½ logit P.

The message K tanh h is smooth in position and colour, so it is computed for cells of pixels alike
in both; at the last iteration each pixel reads it off its cell to first order.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Probabilities are kept this far from 0 and 1, as the published unary term does.
_CLIP = 1e-5
# Sides of a cell in stds of the kernel, along position and colour. At 0 every pixel is its own cell
# and the result is pydensecrf2's to 1e-5; these cost some 5e-4 of mean absolute difference with the
# published settings and make a textured 530 × 620 image several times as fast. Smooth images have
# few cells in colour, so position can be finer.
_CELL_POSITION, _CELL_COLOUR = 0.3, 0.7
# A fraction in [0, 1] is ranked as an integer with this many bits, more than float32 has; with the
# bits of an axis's number below it still fits an int32.
_FRACTION_BITS, _AXIS_BITS = 27, 3
_CPU = torch.device("cpu")


def _key_type(bound: int) -> torch.dtype:
    # Half as wide is sorted twice as fast.
    return torch.int32 if bound < 2**31 else torch.int64


def _number(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted distinct values of (n,) integer keys, and the (n,) int64 number of each key's value.

    `torch.unique` gives the same, but does not use the radix sort that `torch.sort` has.
    """
    ordered, order = torch.sort(keys, stable=True)
    distinct, number = torch.unique_consecutive(ordered, return_inverse=True)
    return distinct, torch.empty_like(number).scatter_(0, order, number)


def _sum(values: Tensor, index: Tensor, n: int) -> Tensor:
    """Sum (m,) values into n bins, value i into bin index[i]; always in that order on a CPU."""
    return values.new_zeros(n).scatter_add_(0, index, values)


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
        (d, n) float32, each axis divided by its std, d <= 7. pydensecrf2's order is x, y, r, g, b,
        and the order matters a little: the lattice is not the same along each axis.

    Raises
    ------
    OverflowError
        The features span more vertices than an int64 can number.
    """

    def __init__(self, features: Tensor) -> None:
        (d, n), device = features.shape, features.device
        axis = np.arange(1, d + 1)
        # Orthogonal columns, each orthogonal to the diagonal, with the scale at which splat, blur
        # and slice together have variance 1 (Adams et al., section 3).
        basis = np.triu(np.ones((d + 1, d))) - axis * np.eye(d + 1, d, -1)
        basis *= np.sqrt(2 / 3 / (axis * (axis + 1)))
        self._basis = torch.tensor(basis, dtype=torch.float32, device=device)

        points = self._basis @ features
        corner = points.floor()
        fraction, self._raised = self._descending(points - corner)
        self._weight = fraction.roll(1, 0) - fraction
        self._weight[0] += 1

        # A vertex's key: its coordinates relative to the last one, as the digits of a number. The
        # corners of a simplex reach 1 beyond its floor and their neighbours 1 further.
        relative = corner[:-1] - corner[-1:]
        relative -= relative.amin(dim=1, keepdim=True) - 2
        extent = (relative.amax(dim=1) + 3).tolist()
        if not math.prod(extent) < 2**62:
            raise OverflowError("the features span too many lattice vertices")
        radix = [math.prod(int(e) for e in extent[:k]) for k in range(d + 1)]
        dtype = _key_type(radix.pop())
        # One step along each axis changes a key by this; along the diagonal by their sum, 0.
        step = torch.tensor([*radix, -sum(radix)], dtype=dtype, device=device)
        keys = torch.zeros((d + 1, n), dtype=dtype, device=device)
        for digit, place in zip(relative, radix):
            keys[0] += digit.to(dtype) * place
        for k in range(d):
            keys[k + 1] = keys[k] + step[self._raised[k]]
        vertices, self._corners = _number(keys.view(-1))
        self._vertices = len(vertices)
        self._neighbours = [self._find(vertices, vertices + s) for s in step]
        self._scale = 1 / (1 + 2.0**-d)

    @staticmethod
    def _descending(fraction: Tensor) -> tuple[Tensor, Tensor]:
        """Sort each column of (d + 1, n) fractions; also their axes, int64, smaller first in ties.

        An odd–even sort with whole rows: columns this short are slow to sort one at a time.
        """
        last = len(fraction) - 1
        reverse = torch.arange(last, -1, -1, dtype=torch.int32, device=fraction.device)[:, None]
        code = (fraction * 2**_FRACTION_BITS).int() * 2**_AXIS_BITS + reverse
        rows = list(code)
        for turn in range(last + 1):
            for i in range(turn % 2, last, 2):
                first, second = rows[i], rows[i + 1]
                rows[i], rows[i + 1] = torch.maximum(first, second), torch.minimum(first, second)
        code = torch.stack(rows)
        axes = last - (code & (2**_AXIS_BITS - 1)).long()
        return (code >> _AXIS_BITS) * 2.0**-_FRACTION_BITS, axes

    @staticmethod
    def _find(vertices: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """For each vertex, where its wanted one is and which one wants it; past the end for none.

        Both are (m,) int64.
        """
        m = len(vertices)
        position = torch.searchsorted(vertices, wanted)
        position.masked_fill_(vertices[position.clamp(max=m - 1)] != wanted, m)
        back = torch.full((m + 1,), m, device=vertices.device)
        back.scatter_(0, position, torch.arange(m, device=vertices.device))
        return position, back[:-1]

    def _blurred_corners(self, values: Tensor) -> Tensor:
        """Splat (n,) values and blur; the values at each point's corners, (d + 1, n)."""
        # The last entry stands for all that is not there.
        grid = _sum((self._weight * values).view(-1), self._corners, self._vertices + 1)
        inner = grid[:-1]
        for forward, back in self._neighbours:
            inner.add_(grid.index_select(0, forward) + grid.index_select(0, back), alpha=0.5)
        inner *= self._scale
        return grid.index_select(0, self._corners).view_as(self._weight)

    def filter(self, values: Tensor) -> Tensor:
        """Filter (n,) values."""
        return (self._blurred_corners(values) * self._weight).sum(dim=0)

    def filter_with_slope(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Filter (n,) values; also the (d, n) derivatives with respect to the features."""
        corners = self._blurred_corners(values)
        # By the weights' definition: each coordinate leads from one corner to the next.
        rise = torch.empty_like(corners).scatter_(0, self._raised, corners.roll(-1, 0) - corners)
        return (corners * self._weight).sum(dim=0), self._basis.T @ rise


def _cells(levels: Tensor, sxy: tuple[float, float], srgb: float) -> Tensor:
    """Key of each pixel's cell, (H · W,) integer, from (3, H, W) float32 grey levels."""
    _, height, width = levels.shape
    # At least one pixel, and not more than the image.
    tall = max(1, round(min(_CELL_POSITION * sxy[0], height)))
    wide = max(1, round(min(_CELL_POSITION * sxy[1], width)))
    per_level = 1 / max(1.0, _CELL_COLOUR * srgb)
    columns, shades = (width - 1) // wide + 1, int(255 * per_level) + 2
    dtype = _key_type(((height - 1) // tall + 1) * columns * shades**3)
    row = torch.arange(height, dtype=dtype, device=levels.device) // tall
    column = torch.arange(width, dtype=dtype, device=levels.device) // wide
    key = row[:, None] * columns + column
    for channel in levels:
        key = key * shades + (channel * per_level).to(dtype)
    return key.view(-1)


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
    device: torch.device = _CPU,
) -> NDArray[np.float32]:
    """Refine a foreground probability by mean-field inference.

    Each iteration sets logit Q = logit P + w · K (2 Q − 1), where K is the bilateral kernel
    exp(−|Δposition|² / 2 sxy² − |Δcolour|² / 2 srgb²), each pixel itself included, normalised on
    both sides by the square roots of its row sums.

    On a CPU a result is the same bit for bit on every run, from whatever thread, as long as
    `torch.set_num_threads` is the same: for many images, set it to 1 and call this from a thread
    pool. A GPU adds in no fixed order: last bits may differ from the CPU's and between runs.

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
    device
        Where to compute.

    Returns
    -------
    (H, W) float32 in [0, 1], the foreground marginal Q.

    Raises
    ------
    ValueError
        A shape, type or range is wrong, or the stds are too small for the lattice.
    """
    _check(image, probability, sxy, srgb, compat, iterations)
    height, width = probability.shape
    # x, y, r, g, b in stds.
    planes = torch.empty((5, height, width), device=device)
    planes[2:] = torch.tensor(np.ascontiguousarray(image), device=device).permute(2, 0, 1)
    keys, cell = _number(_cells(planes[2:], sxy, srgb))
    planes[0] = torch.arange(width, device=device) / float(sxy[1])
    planes[1] = torch.arange(height, device=device)[:, None] / float(sxy[0])
    planes[2:] /= float(srgb)
    planes = planes.view(5, -1)
    n = len(keys)
    count = torch.bincount(cell, minlength=n).float()
    # The mean of a cell gives the vertices what its pixels would, unless it straddles simplices.
    mean = torch.stack([_sum(plane, cell, n) for plane in planes]) / count
    try:
        lattice = _Lattice(mean)
    except OverflowError as error:
        raise ValueError(f"sxy and srgb are too small, found {sxy} and {srgb}: {error}") from error

    total, total_slope = lattice.filter_with_slope(count)
    norm = total.rsqrt()
    weight = norm * (float(compat) / 2)
    p = torch.tensor(np.ascontiguousarray(probability, np.float32), device=device)
    unary = torch.logit(p.view(-1), _CLIP) / 2
    half = unary.clone()
    for step in range(iterations):
        source = norm * _sum(half.tanh_(), cell, n)
        if step < iterations - 1:
            message = weight * lattice.filter(source)
            torch.index_select(message, 0, cell, out=half)
        else:
            # value / sqrt(total), to first order in the distance to the cell's mean.
            value, slope = lattice.filter_with_slope(source)
            slope = weight * (slope - value / total * total_slope / 2)
            message = weight * value - (slope * mean).sum(dim=0)
            torch.index_select(message, 0, cell, out=half)
            for along, plane in zip(slope, planes):
                half.addcmul_(along.index_select(0, cell), plane)
        half += unary
    marginal: NDArray[np.float32] = (2 * half).sigmoid().view(height, width).cpu().numpy()
    return marginal
