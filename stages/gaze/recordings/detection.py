"""Detect fixations in raw gaze samples.

The methods are a velocity threshold (I-VT, by pymovements) and a dispersion threshold (I-DT), after
Salvucci and Goldberg (2000, doi:10.1145/355017.355028), in degrees of visual angle. Before them,
short gaps are filled and the trace is smoothed; after them, neighbours in time and place are
merged, as in Olsen (2012), The Tobii I-VT fixation filter.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pymovements.events import ivt
from pymovements.events.detection.microsaccades import compute_threshold
from pymovements.transforms.numpy import pix2deg, pos2vel
from scipy.ndimage import median_filter

from stages.gaze.placing import to_frame_fractions
from stages.settings.recording import DetectionSettings, RecordingSettings

# The velocity is the slope of a parabola fitted to this much of the trace. The window is short
# enough not to blur saccades, and long enough that noise in one sample does not look like one.
VELOCITY_WINDOW_MS = 20.0
# Gaps up to this long are filled along a straight line: they are shorter than a blink.
MAX_GAP_MS = 75.0
# Fixations with less between them are one: so much time, and so much distance of their centres.
MERGE_MS, MERGE_DEGREES = 75.0, 0.5
# The threshold from the noise: this many standard deviations of the velocity (Engbert and
# Mergenthaler 2006, doi:10.1073/pnas.0509557103), within this range, degrees per second. The lower
# end is the usual threshold of quiet recordings; small saccades are not faster than the upper one.
NOISE_FACTOR, VELOCITY_RANGE = 5.0, (30.0, 100.0)


class Detected(NamedTuple):
    """What was found in all samples.

    Attributes
    ----------
    fixations
        Frame with the columns sample, reader (the sequence), x, y (mean, in the recording's unit),
        duration_ms (from the first sample to one sampling interval after the last) and start_ms
        (since the start of the sequence); the index is the line of the first sample.
    seen_ms
        Time in which the eye was seen, with the gaps that are filled.
    threshold
        Degrees per second (velocity) or degrees (dispersion).
    """

    fixations: pd.DataFrame
    seen_ms: float
    threshold: float


class _Trace(NamedTuple):
    """Samples without a long gap, on a regular grid of time.

    Attributes
    ----------
    seen
        (S,) numbers of the seen samples.
    time_ms
        (S,) their times.
    grid_ms
        (N,) times of the grid.
    degrees
        (N, 2) position there, filled and smoothed.
    """

    seen: NDArray[np.int64]
    time_ms: NDArray[np.float64]
    grid_ms: NDArray[np.float64]
    degrees: NDArray[np.float64]


def _odd_window(ms: float, rate_hz: float, least: int) -> int:
    """Return the odd number of samples nearest to a time, at least `least`."""
    return max(least, 2 * math.floor(ms * rate_hz / 2000) + 1)


def _trace_segments(
    time_ms: NDArray[np.float64], degrees: NDArray[np.float64], settings: DetectionSettings
) -> Iterator[_Trace]:
    """Yield the stretches without a gap above `MAX_GAP_MS`, filled and smoothed."""
    interval = 1000 / settings.rate_hz
    seen = np.flatnonzero(np.isfinite(degrees).all(axis=1))
    # At low rates the next sample may be later than that, without a gap.
    gap = np.diff(time_ms[seen]) > max(MAX_GAP_MS + interval, 1.5 * interval)
    window = _odd_window(settings.smoothing_ms, settings.rate_hz, 1)
    for part in np.split(seen, np.flatnonzero(gap) + 1):
        if not len(part):
            continue
        time = time_ms[part]
        grid = np.arange(time[0], time[-1] + interval / 2, interval)
        filled = np.column_stack([np.interp(grid, time, axis) for axis in degrees[part].T])
        smooth = median_filter(filled, size=(window, 1), mode="nearest")
        yield _Trace(part, time, grid, smooth)


def _velocity(degrees: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """Return (N, 2) the velocity, degrees per second; none for a trace shorter than the window."""
    window = _odd_window(VELOCITY_WINDOW_MS, rate_hz, 3)
    if len(degrees) < window:
        return np.empty((0, 2))
    velocity: NDArray[np.float64] = pos2vel(
        degrees, rate_hz, "savitzky_golay", window_length=window, polyorder=2
    )
    return velocity


def choose_velocity(traces: list[NDArray[np.float64]], rate_hz: float) -> float:
    """Return the velocity threshold that fits the noise, degrees per second.

    λ √((σx² + σy²) / 2) with λ = 5 and the median-based σ of the velocities of Engbert and Kliegl
    (2003, doi:10.1016/S0042-6989(03)00084-1): σ² is the median of (v - median of v)². Not below 30
    or above 100.

    Parameters
    ----------
    traces
        (N, 2) positions each, degrees.
    rate_hz
        Samples per second.
    """
    velocity = np.concatenate([np.empty((0, 2)), *(_velocity(trace, rate_hz) for trace in traces)])
    if not len(velocity):
        return VELOCITY_RANGE[0]
    sigma = np.asarray(compute_threshold(velocity, method="engbert2015"))
    return float(np.clip(NOISE_FACTOR * np.hypot(*sigma) / math.sqrt(2), *VELOCITY_RANGE))


def _detect_by_velocity(
    degrees: NDArray[np.float64], rate_hz: float, threshold: float, min_samples: int
) -> NDArray[np.int64]:
    """Return runs of slow samples of any length: merging may lengthen them."""
    velocity = _velocity(degrees, rate_hz)
    if not len(velocity):
        return np.empty((0, 2), np.int64)
    events = ivt(velocity, minimum_duration=0, velocity_threshold=threshold).frame
    edges: NDArray[np.int64] = events.select("onset", "offset").to_numpy()
    return edges


def _detect_by_dispersion(
    degrees: NDArray[np.float64], rate_hz: float, threshold: float, min_samples: int
) -> NDArray[np.int64]:
    """Extend each narrow window of `min_samples` samples up to the sample that exceeds the limit.

    That sample may begin the next fixation. The `idt` of pymovements adds it to the current
    fixation and continues after it, so it misses the shortest fixations.
    """
    edges, start = [], 0
    while start + min_samples <= len(degrees):
        stop = start + min_samples
        low, high = degrees[start:stop].min(axis=0), degrees[start:stop].max(axis=0)
        if (high - low).sum() > threshold:
            start += 1
            continue
        for sample in degrees[stop:]:
            low, high = np.minimum(low, sample), np.maximum(high, sample)
            if (high - low).sum() > threshold:
                break
            stop += 1
        edges.append((start, stop - 1))
        start = stop
    return np.array(edges, np.int64).reshape(-1, 2)


_METHODS = {"velocity": _detect_by_velocity, "dispersion": _detect_by_dispersion}


def _merge(
    edges: NDArray[np.int64], degrees: NDArray[np.float64], rate_hz: float
) -> list[tuple[int, int]]:
    """Merge neighbours in time and place."""
    merged: list[tuple[int, int]] = []
    for first, last in edges.tolist():
        if merged:
            start, stop = merged[-1]
            distance = degrees[start : stop + 1].mean(axis=0) - degrees[first : last + 1].mean(
                axis=0
            )
            near = float(np.hypot(*distance)) <= MERGE_DEGREES
            if near and (first - stop - 1) * 1000 / rate_hz <= MERGE_MS:
                merged[-1] = (start, last)
                continue
        merged.append((first, last))
    return merged


def _detect_in_trace(
    trace: _Trace, settings: DetectionSettings, threshold: float, min_samples: int
) -> Iterator[tuple[int, int]]:
    """Yield the first and the last seen sample of each fixation."""
    rate_hz = settings.rate_hz
    edges = _METHODS[settings.method](trace.degrees, rate_hz, threshold, min_samples)
    for first, last in _merge(edges, trace.degrees, rate_hz):
        if last - first + 1 < min_samples:
            continue
        # A sample belongs to the nearest time of the grid.
        limits = trace.grid_ms[first] - 500 / rate_hz, trace.grid_ms[last] + 500 / rate_hz
        start, stop = np.searchsorted(trace.time_ms, limits).tolist()
        if stop - start > 1:
            yield int(trace.seen[start]), int(trace.seen[stop - 1])


def detect_fixations(
    samples: pd.DataFrame, settings: RecordingSettings, min_duration_ms: float
) -> Detected:
    """Detect the fixations of all sequences.

    Gaps up to `MAX_GAP_MS` are filled along a straight line; longer ones end a fixation. The trace
    is smoothed by a running median over `smoothing_ms`, which keeps the edges of saccades. Without
    `max_velocity` the threshold follows from the noise of all samples; see `choose_velocity`.
    Fixations at most `MERGE_MS` and `MERGE_DEGREES` apart are one.

    Parameters
    ----------
    samples
        As `stages.gaze.recordings.samples.read_gaze` returns them.
    settings
        Of the recording, with `screen` and `detection`.
    min_duration_ms
        Shortest duration of a fixation; a fixation has at least two samples.
    """
    screen, detection = settings.screen, settings.detection
    assert screen is not None and detection is not None
    sequence, time_ms = samples["sequence"].to_numpy(), samples["time_ms"].to_numpy()
    position = samples[["x", "y"]].to_numpy()
    size = np.array(screen.size, np.float64)
    degrees = pix2deg(
        to_frame_fractions(position, size, settings.unit, settings.origin) * size,
        screen.size,
        tuple(side / 10 for side in detection.screen_mm),
        detection.distance_mm / 10,
        "upper left",
    )
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(sequence)) + 1, [len(sequence)]])
    traces = [
        trace._replace(seen=trace.seen + start)
        for start, stop in pairwise(bounds.tolist())
        for trace in _trace_segments(time_ms[start:stop], degrees[start:stop], detection)
    ]
    interval = 1000 / detection.rate_hz
    threshold = (
        detection.max_dispersion
        if detection.method == "dispersion"
        else detection.max_velocity
        or choose_velocity([trace.degrees for trace in traces], detection.rate_hz)
    )
    min_samples = max(2, math.ceil(min_duration_ms / interval))
    edges = [
        edge
        for trace in traces
        for edge in _detect_in_trace(trace, detection, threshold, min_samples)
    ]
    first, last = np.array(edges, np.int64).reshape(-1, 2).T
    means = [np.nanmean(position[a : b + 1], axis=0) for a, b in edges]
    x, y = np.reshape(means, (-1, 2)).T
    # A sample lasts until the next one, if that comes early.
    following = np.append(time_ms, np.inf)[last + 1]
    following[np.isin(last + 1, bounds)] = np.inf
    end = np.minimum(time_ms[last] + interval, following)
    begin = time_ms[bounds[np.searchsorted(bounds, first, "right") - 1]]
    fixations = pd.DataFrame(
        {
            "sample": samples["sample"].to_numpy()[first],
            "reader": sequence[first],
            "x": x,
            "y": y,
            "duration_ms": end - time_ms[first],
            "start_ms": time_ms[first] - begin,
        },
        index=samples.index[first],
    )
    seen_ms = sum(float(trace.time_ms[-1] - trace.time_ms[0]) + interval for trace in traces)
    return Detected(fixations, seen_ms, threshold)
