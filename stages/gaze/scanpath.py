"""A model of how a reader scans an image: search, then the target, then its border."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stages.settings.scanpath import ScanSettings

# Shorter fixations are not reported by eye trackers' event detection.
SHORTEST_MS = 50.0

Points = NDArray[np.float64]


def _pick(where: NDArray[np.bool_], count: int, rng: np.random.Generator) -> Points:
    """`count` pixels of `where`, as x, y in [0, 1]."""
    y, x = np.nonzero(where)
    chosen = rng.integers(len(y), size=count)
    return np.stack([x[chosen] + 0.5, y[chosen] + 0.5], axis=1) / where.shape[::-1]


def _search(count: int, rng: np.random.Generator) -> Points:
    """Wander from near the image's centre, with steps that reach far."""
    steps = rng.normal(0, 0.17, (count, 2))
    return np.clip(0.5 + np.cumsum(steps, axis=0), 0.02, 0.98)


def _look_at(
    target: NDArray[np.bool_], settings: ScanSettings, rng: np.random.Generator
) -> tuple[list[Points], list[NDArray[np.float64]]]:
    """Fixations inside one connected target, then along its border, and median durations."""
    depth = ndimage.distance_transform_edt(np.pad(target, 1))[1:-1, 1:-1]
    core = depth >= 0.5 * depth.max()
    rim = target & (depth <= max(1.5, 0.12 * depth.max()))
    inside = int(rng.integers(settings.target[0], settings.target[1] + 1))
    around = int(rng.integers(settings.border[0], settings.border[1] + 1))
    edge = _pick(rim, around, rng)
    centre = edge.mean(axis=0)
    # The eye follows the border round instead of hopping across.
    edge = edge[np.argsort(np.arctan2(edge[:, 1] - centre[1], edge[:, 0] - centre[0]))]
    return (
        [_pick(core, inside, rng), edge],
        [np.full(inside, settings.target_ms), np.full(around, settings.border_ms)],
    )


def simulate_fixations(
    mask: NDArray[np.bool_], *, settings: ScanSettings, rng: np.random.Generator
) -> Points:
    """Draw one reader's fixations on an image.

    A recording starts near the image's centre and searches; then it visits each connected part of
    the target, the largest first: its inside, then its border, in order of angle. After any
    fixation the eye may glance at a random place and come back. All positions carry one
    calibration offset per recording and noise per fixation; all durations are log-normal. What
    falls off the image, or is shorter than 50 ms, is dropped, as an eye tracker's event detection
    drops it.

    Parameters
    ----------
    mask
        (H, W), the target; where it is empty the reader only searches.
    settings
        Counts, durations and noise.
    rng
        Decides everything else.

    Returns
    -------
    (F, 4) float64: x, y in [0, 1]; duration and start in ms.
    """
    count = int(rng.integers(settings.search[0], settings.search[1] + 1))
    points, medians = [_search(count, rng)], [np.full(count, settings.search_ms)]
    parts, n = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    for part in np.argsort(-sizes, kind="stable")[:n]:
        # Specks of a few pixels are not seen as targets of their own.
        if sizes[part] >= 0.05 * sizes.max():
            seen, median = _look_at(parts == part + 1, settings, rng)
            points += seen
            medians += median
    position, median_ms = np.concatenate(points), np.concatenate(medians)

    glance = np.flatnonzero(rng.random(len(position)) < settings.distraction)
    position = np.insert(position, glance + 1, rng.uniform(0.05, 0.95, (len(glance), 2)), axis=0)
    median_ms = np.insert(median_ms, glance + 1, settings.search_ms)

    duration = median_ms * np.exp(settings.spread * rng.normal(size=len(median_ms)))
    start = np.cumsum(duration + settings.saccade_ms) - duration
    position = (
        position
        + settings.drift * rng.normal(size=2)
        + settings.jitter * rng.normal(size=position.shape)
    )
    kept = ((position >= 0) & (position <= 1)).all(axis=1) & (duration >= SHORTEST_MS)
    return np.column_stack([position, duration, start])[kept]
