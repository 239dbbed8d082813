"""Fixations in raw gaze samples.

Velocity threshold (I-VT, by pymovements) and dispersion threshold (I-DT) after Salvucci and
Goldberg (2000, doi:10.1145/355017.355028), in degrees of visual angle.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pymovements.events import ivt
from pymovements.transforms.numpy import pix2deg, pos2vel

from stages.gaze.recordings.placing import to_frame
from stages.settings.recording import DetectionSettings, RecordingSettings, ScreenSettings

# Velocity is the slope of a parabola through this much of the trace: less smears no saccade, and
# noise of one sample does not count as one at any rate.
VELOCITY_WINDOW_MS = 20.0
# A longer step than this, in samples, means that some are absent.
_GAP = 1.5


def _segments(
    time_ms: NDArray[np.float64], degrees: NDArray[np.float64], rate_hz: float
) -> Iterator[slice]:
    """Longest stretches without a lost or absent sample."""
    seen = np.isfinite(degrees.sum(axis=1))
    joined = seen[1:] & seen[:-1] & (np.diff(time_ms) <= _GAP * 1000 / rate_hz)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], joined, [False]]).astype(np.int8)))
    for start, last in edges.reshape(-1, 2):
        yield slice(int(start), int(last) + 1)


def _by_velocity(
    degrees: NDArray[np.float64], settings: DetectionSettings, needed: int
) -> NDArray[np.int64]:
    # An odd number of samples, three at least.
    window = 2 * max(1, round(VELOCITY_WINDOW_MS * settings.rate_hz / 2000)) + 1
    if len(degrees) < max(window, needed):
        return np.empty((0, 2), np.int64)
    velocity = pos2vel(
        degrees, settings.rate_hz, "savitzky_golay", window_length=window, polyorder=2
    )
    found = ivt(
        velocity, minimum_duration=needed - 1, velocity_threshold=settings.max_velocity
    ).frame
    edges: NDArray[np.int64] = found.select("onset", "offset").to_numpy()
    return edges


def _by_dispersion(
    degrees: NDArray[np.float64], settings: DetectionSettings, needed: int
) -> NDArray[np.int64]:
    """Grow each window of `needed` samples that is narrow enough to the sample that breaks it.

    That sample may begin the next fixation: pymovements, whose `idt` gives it to the former one and
    looks for the next behind it, misses the shortest.
    """
    found, start = [], 0
    while start + needed <= len(degrees):
        stop = start + needed
        low, high = degrees[start:stop].min(axis=0), degrees[start:stop].max(axis=0)
        if (high - low).sum() > settings.max_dispersion:
            start += 1
            continue
        for sample in degrees[stop:]:
            low, high = np.minimum(low, sample), np.maximum(high, sample)
            if (high - low).sum() > settings.max_dispersion:
                break
            stop += 1
        found.append((start, stop - 1))
        start = stop
    return np.array(found, np.int64).reshape(-1, 2)


_METHODS = {"velocity": _by_velocity, "dispersion": _by_dispersion}


def detect(
    time_ms: NDArray[np.float64],
    position: NDArray[np.float64],
    screen: ScreenSettings,
    settings: DetectionSettings,
    min_duration_ms: float,
) -> NDArray[np.int64]:
    """Find the fixations of one sequence.

    A lost sample, or a step of more than one and a half samples, ends a fixation: gaps are not
    bridged.

    Parameters
    ----------
    time_ms
        (N,), growing.
    position
        (N, 2) x, y on the screen in px from its top left; NaN where the eye was lost.
    min_duration_ms
        Shorter ones are no fixations; at least two samples make one.

    Returns
    -------
    (F, 2) int64: first and last sample of each fixation.
    """
    needed = max(2, math.ceil(min_duration_ms * settings.rate_hz / 1000))
    degrees = pix2deg(
        position,
        screen.size,
        tuple(side / 10 for side in settings.screen_mm),
        settings.distance_mm / 10,
        "upper left",
    )
    method = _METHODS[settings.method]
    found = [
        method(degrees[segment], settings, needed) + segment.start
        for segment in _segments(time_ms, degrees, settings.rate_hz)
    ]
    return np.concatenate([np.empty((0, 2), np.int64), *found])


def find_fixations(
    samples: pd.DataFrame, settings: RecordingSettings, min_duration_ms: float
) -> pd.DataFrame:
    """Find the fixations of all sequences.

    Parameters
    ----------
    samples
        As `stages.gaze.recordings.samples.read` returns them.

    Returns
    -------
    Frame of sample, x, y (mean, in the recording's unit), duration_ms (with one step of the rate
    behind the last sample) and start_ms (since the sequence began); the index is the first
    sample's line.
    """
    screen, detection = settings.screen, settings.detection
    assert screen is not None and detection is not None
    sequence, time_ms = samples["sequence"].to_numpy(), samples["time_ms"].to_numpy()
    position = samples[["x", "y"]].to_numpy()
    size = np.array(screen.size, np.float64)
    edges = np.flatnonzero(np.diff(sequence)) + 1
    starts, stops = np.append(0, edges), np.append(edges, len(sequence))
    rows, since = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for start, stop in zip(starts, stops, strict=True):
        part = slice(start, stop)
        pixels = to_frame(position[part], size, settings.unit, settings.origin) * size
        found = detect(time_ms[part], pixels, screen, detection, min_duration_ms) + start
        rows.append(found)
        since.append(np.full(len(found), time_ms[start] if stop > start else 0.0))
    first, last = np.concatenate(rows).T
    means = [position[a : b + 1].mean(axis=0) for a, b in zip(first, last, strict=True)]
    x, y = np.reshape(means, (-1, 2)).T
    return pd.DataFrame(
        {
            "sample": samples["sample"].to_numpy()[first],
            "x": x,
            "y": y,
            "duration_ms": time_ms[last] - time_ms[first] + 1000 / detection.rate_hz,
            "start_ms": time_ms[first] - np.concatenate(since),
        },
        index=samples.index[first],
    )
