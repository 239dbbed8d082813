"""Detect fixations in raw gaze samples.

The methods are a velocity threshold (I-VT, by pymovements) and a dispersion threshold (I-DT), after
Salvucci and Goldberg (2000, doi:10.1145/355017.355028), in degrees of visual angle.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pymovements.events import ivt
from pymovements.transforms.numpy import pix2deg, pos2vel

from stages.gaze.recordings.placing import to_frame_fractions
from stages.settings.recording import DetectionSettings, RecordingSettings, ScreenSettings

# The velocity is the slope of a parabola fitted to this much of the trace. The window is short
# enough not to blur saccades, and long enough that noise in one sample does not look like one.
VELOCITY_WINDOW_MS = 20.0
# A longer time step than this, in sampling intervals, means that samples are absent.
_MAX_STEP = 1.5


def _tracked_segments(
    time_ms: NDArray[np.float64], degrees: NDArray[np.float64], rate_hz: float
) -> Iterator[slice]:
    """Yield the longest segments without a lost or absent sample."""
    tracked = np.isfinite(degrees.sum(axis=1))
    joined = tracked[1:] & tracked[:-1] & (np.diff(time_ms) <= _MAX_STEP * 1000 / rate_hz)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], joined, [False]]).astype(np.int8)))
    for start, last in edges.reshape(-1, 2):
        yield slice(int(start), int(last) + 1)


def _detect_by_velocity(
    degrees: NDArray[np.float64], settings: DetectionSettings, min_samples: int
) -> NDArray[np.int64]:
    # The window is an odd number of samples, at least three.
    window = 2 * max(1, round(VELOCITY_WINDOW_MS * settings.rate_hz / 2000)) + 1
    if len(degrees) < max(window, min_samples):
        return np.empty((0, 2), np.int64)
    velocity = pos2vel(
        degrees, settings.rate_hz, "savitzky_golay", window_length=window, polyorder=2
    )
    events = ivt(
        velocity, minimum_duration=min_samples - 1, velocity_threshold=settings.max_velocity
    ).frame
    edges: NDArray[np.int64] = events.select("onset", "offset").to_numpy()
    return edges


def _detect_by_dispersion(
    degrees: NDArray[np.float64], settings: DetectionSettings, min_samples: int
) -> NDArray[np.int64]:
    """Extend each narrow window of `min_samples` samples up to the sample that exceeds the limit.

    That sample may begin the next fixation. The `idt` of pymovements adds it to the current
    fixation and continues after it, so it misses the shortest fixations.
    """
    edges, start = [], 0
    while start + min_samples <= len(degrees):
        stop = start + min_samples
        low, high = degrees[start:stop].min(axis=0), degrees[start:stop].max(axis=0)
        if (high - low).sum() > settings.max_dispersion:
            start += 1
            continue
        for sample in degrees[stop:]:
            low, high = np.minimum(low, sample), np.maximum(high, sample)
            if (high - low).sum() > settings.max_dispersion:
                break
            stop += 1
        edges.append((start, stop - 1))
        start = stop
    return np.array(edges, np.int64).reshape(-1, 2)


_METHODS = {"velocity": _detect_by_velocity, "dispersion": _detect_by_dispersion}


def detect_in_sequence(
    time_ms: NDArray[np.float64],
    position: NDArray[np.float64],
    screen: ScreenSettings,
    settings: DetectionSettings,
    min_duration_ms: float,
) -> NDArray[np.int64]:
    """Detect the fixations of one sequence.

    A lost sample, or a time step above 1.5 sampling intervals, ends a fixation; gaps stay open.

    Parameters
    ----------
    time_ms
        (N,), increasing.
    position
        (N, 2) x, y on the screen in px from its top left; NaN if the eye was lost.
    min_duration_ms
        Shortest duration of a fixation; a fixation has at least two samples.

    Returns
    -------
    (F, 2) int64: first and last sample of each fixation.
    """
    min_samples = max(2, math.ceil(min_duration_ms * settings.rate_hz / 1000))
    degrees = pix2deg(
        position,
        screen.size,
        tuple(side / 10 for side in settings.screen_mm),
        settings.distance_mm / 10,
        "upper left",
    )
    method = _METHODS[settings.method]
    edges = [
        method(degrees[segment], settings, min_samples) + segment.start
        for segment in _tracked_segments(time_ms, degrees, settings.rate_hz)
    ]
    return np.concatenate([np.empty((0, 2), np.int64), *edges])


def detect_fixations(
    samples: pd.DataFrame, settings: RecordingSettings, min_duration_ms: float
) -> pd.DataFrame:
    """Detect the fixations of all sequences.

    Parameters
    ----------
    samples
        As `stages.gaze.recordings.samples.read_gaze` returns them.

    Returns
    -------
    Frame with the columns sample, reader (the sequence), x, y (mean, in the recording's unit),
    duration_ms (including one sampling interval after the last sample) and start_ms (since the
    start of the sequence); the index is the line of the first sample.
    """
    screen, detection = settings.screen, settings.detection
    assert screen is not None and detection is not None
    sequence, time_ms = samples["sequence"].to_numpy(), samples["time_ms"].to_numpy()
    position = samples[["x", "y"]].to_numpy()
    size = np.array(screen.size, np.float64)
    boundaries = np.flatnonzero(np.diff(sequence)) + 1
    starts, stops = np.append(0, boundaries), np.append(boundaries, len(sequence))
    fixations, sequence_starts = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for start, stop in zip(starts, stops, strict=True):
        part = slice(start, stop)
        pixels = to_frame_fractions(position[part], size, settings.unit, settings.origin) * size
        edges = detect_in_sequence(time_ms[part], pixels, screen, detection, min_duration_ms)
        fixations.append(edges + start)
        sequence_starts.append(np.full(len(edges), time_ms[start] if stop > start else 0.0))
    first, last = np.concatenate(fixations).T
    means = [position[a : b + 1].mean(axis=0) for a, b in zip(first, last, strict=True)]
    x, y = np.reshape(means, (-1, 2)).T
    return pd.DataFrame(
        {
            "sample": samples["sample"].to_numpy()[first],
            "reader": sequence[first],
            "x": x,
            "y": y,
            "duration_ms": time_ms[last] - time_ms[first] + 1000 / detection.rate_hz,
            "start_ms": time_ms[first] - np.concatenate(sequence_starts),
        },
        index=samples.index[first],
    )
