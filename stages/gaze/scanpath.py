"""A model of how a reader looks at an image: search, then the target, then its border."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stages.settings.scanpath import ScanSettings

# Event detection of eye trackers does not report shorter fixations.
MIN_FIXATION_MS = 50.0

Points = NDArray[np.float64]


def _draw_pixels(region: NDArray[np.bool_], count: int, rng: np.random.Generator) -> Points:
    """Draw `count` pixels of `region`; return their centres, (count, 2) x, y in [0, 1]."""
    y, x = np.nonzero(region)
    chosen = rng.integers(len(y), size=count)
    return np.stack([x[chosen] + 0.5, y[chosen] + 0.5], axis=1) / region.shape[::-1]


def _draw_search(count: int, step: float, rng: np.random.Generator) -> Points:
    """Draw a random walk that starts near the image's centre."""
    steps = rng.normal(0, step, (count, 2))
    return np.clip(0.5 + np.cumsum(steps, axis=0), 0.02, 0.98)


def _draw_inside(
    region: NDArray[np.bool_], count: int, settings: ScanSettings, rng: np.random.Generator
) -> Points:
    """Draw fixations that cover a region evenly, and order them so that the eye moves little."""
    choices = _draw_pixels(region, count * settings.even, rng).reshape(count, settings.even, 2)
    places = [choices[0, 0]]
    for choice in choices[1:]:
        to_nearest = np.linalg.norm(choice[:, None] - np.stack(places), axis=2).min(axis=1)
        places.append(choice[to_nearest.argmax()])
    path = [places.pop(0)]
    while places:
        distance = [math.dist(place, path[-1]) for place in places[: settings.nearest]]
        path.append(places.pop(int(np.argmin(distance))))
    return np.stack(path)


def _draw_target_visit(
    target: NDArray[np.bool_], settings: ScanSettings, rng: np.random.Generator
) -> tuple[list[Points], list[NDArray[np.float64]]]:
    """Draw fixations inside one connected target, then along its border.

    Returns
    -------
    Positions inside and on the border, x, y in [0, 1]; and the median duration of each, ms.
    """
    depth = ndimage.distance_transform_edt(np.pad(target, 1))[1:-1, 1:-1]
    core = target & (depth >= settings.core * depth.max())
    rim = target & (depth <= max(1.5, 0.12 * depth.max()))
    # People look longer at a large target.
    growth = 1 + settings.growth * math.sqrt(target.mean())
    inside_count, border_count = (
        round(growth * int(rng.integers(low, high + 1)))
        for low, high in (settings.target, settings.border)
    )
    border = _draw_pixels(rim, border_count, rng)
    # The eye follows the border; it does not jump across the target.
    around = border - border.mean(axis=0) if border_count else border
    border = border[np.argsort(np.arctan2(around[:, 1], around[:, 0]))]
    return (
        [_draw_inside(core, inside_count, settings, rng), border],
        [np.full(inside_count, settings.target_ms), np.full(border_count, settings.border_ms)],
    )


def simulate_fixations(
    mask: NDArray[np.bool_], *, settings: ScanSettings, rng: np.random.Generator
) -> Points:
    """Draw one reader's fixations on an image.

    The reader starts near the image's centre and searches. Then the reader visits each connected
    part of the target, the largest first: its inside, then its border in order of angle. After any
    fixation the eye may glance at a random place and come back. Each recording adds one calibration
    offset to all positions, and each fixation adds noise; all durations are log-normal. Fixations
    off the image or shorter than 50 ms are dropped, as by an eye tracker's event detection.

    Parameters
    ----------
    mask
        (H, W), the target; if it is empty, the reader only searches.
    settings
        Counts, durations and noise.
    rng
        Source of all random draws.

    Returns
    -------
    (F, 4) float64: x, y in [0, 1]; duration and start in ms.
    """
    count = int(rng.integers(settings.search[0], settings.search[1] + 1))
    points, medians = (
        [_draw_search(count, settings.search_step, rng)],
        [np.full(count, settings.search_ms)],
    )
    parts, n = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())[1:]
    for part in np.argsort(-sizes, kind="stable")[:n]:
        # The reader does not notice specks of a few pixels as separate targets.
        if sizes[part] >= 0.05 * sizes.max():
            visited, visited_ms = _draw_target_visit(parts == part + 1, settings, rng)
            points += visited
            medians += visited_ms
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
    kept = ((position >= 0) & (position <= 1)).all(axis=1) & (duration >= MIN_FIXATION_MS)
    return np.column_stack([position, duration, start])[kept]
