"""Contours → pixels, by the even-odd rule."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# A pixel's centre that is nearer to a contour is on it, px: files round coordinates.
_TOLERANCE = 1e-3


def _expand(low: NDArray[np.float64], high: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """List the whole numbers from low[i] to high[i] - 1 that are in 0 … size - 1, for each i.

    Returns
    -------
    (2, M): each i, and a number of it. `low` and `high` must be whole.
    """
    first, end = (np.clip(bound, 0, size).astype(np.int64) for bound in (low, high))
    counts = np.maximum(end - first, 0)
    i = np.repeat(np.arange(len(counts)), counts)
    return np.stack([i, np.arange(len(i)) - (np.cumsum(counts) - counts - first)[i]])


def _count_crossings(
    start: NDArray[np.float64], end: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.int64]:
    """Count the edges to the left of each pixel's centre in its row.

    An edge has its upper end and not its lower one, so two edges that meet count once.
    """
    height, width = shape
    (start_row, start_column), (end_row, end_column) = start.T, end.T
    upper, lower = np.minimum(start_row, end_row), np.maximum(start_row, end_row)
    edge, row = _expand(np.ceil(upper), np.ceil(lower), height)
    share = (row - start_row[edge]) / (end_row - start_row)[edge]
    column = start_column[edge] + share * (end_column - start_column)[edge]
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (row, np.clip(np.ceil(column), 0, width).astype(np.int64)), 1)
    return np.cumsum(crossings, axis=1)[:, :width]


def _mark_edges(
    start: NDArray[np.float64], end: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the pixels whose centre is on an edge."""
    on_edge = np.zeros(shape, bool)
    # Follow each edge along the axis in which it is longer: one pixel per step can be on it.
    steep = abs(end - start)[:, 0] >= abs(end - start)[:, 1]
    for axis, chosen in ((0, steep), (1, ~steep)):
        start_along, start_across = start[chosen].T[[axis, 1 - axis]]
        end_along, end_across = end[chosen].T[[axis, 1 - axis]]
        low, high = np.minimum(start_along, end_along), np.maximum(start_along, end_along)
        edge, along = _expand(
            np.ceil(low - _TOLERANCE), np.floor(high + _TOLERANCE) + 1, shape[axis]
        )
        length = (end_along - start_along)[edge]
        share = (along - start_along[edge]) / np.where(length == 0, 1, length)
        across = start_across[edge] + np.clip(share, 0, 1) * (end_across - start_across)[edge]
        nearest = np.rint(across)
        inside = (abs(across - nearest) <= _TOLERANCE) & (nearest >= 0)
        inside &= nearest < shape[1 - axis]
        pixels = along[inside], nearest[inside].astype(np.int64)
        on_edge[pixels if axis == 0 else pixels[::-1]] = True
    return on_edge


def fill_polygons(
    polygons: Iterable[NDArray[np.float64]], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Fill closed polygons together by the even-odd rule.

    A pixel is inside if a line from its centre to the outside crosses the polygons an odd number of
    times, so a polygon within another one is a hole. A pixel whose centre is on a polygon, within a
    thousandth of a pixel, is inside too: of the outer border and of a hole's, and of the channel
    that joins both in a keyhole.

    Parameters
    ----------
    polygons
        (N, 2) row and column of the corners, pixels, finite; the centre of the first pixel is
        (0, 0). The last corner is joined to the first. Parts outside the image are cut off.
    shape
        Height and width of the image, pixels.

    Returns
    -------
    (H, W) bool.
    """
    corners = [polygon for polygon in polygons if len(polygon)]
    if not corners:
        return np.zeros(shape, bool)
    start = np.concatenate(corners)
    end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in corners])
    is_odd = _count_crossings(start, end, shape) % 2 == 1
    return np.asarray(is_odd | _mark_edges(start, end, shape))
