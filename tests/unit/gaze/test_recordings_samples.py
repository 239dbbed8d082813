"""Fixations in raw gaze samples: synthetic traces with known fixations, and tables of samples."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings import detection, read_scanpaths, table
from stages.settings.recording import RecordingSettings

# A screen of 1000 × 800 px on which a pixel is 0.5 mm, seen from 600 mm: near its middle
# atan(0.5 / 600) = 0.04775 degrees a pixel.
SCREEN = {"size": (1000, 800), "shown": "native"}
DEGREES_PER_PX = 0.04775
# An image of the screen's size: its pixels are those of the screen.
SIZES = {"a": (800, 1000), "b": (800, 1000)}


def settings(method="velocity", rate=500, unit="px", origin="top-left", **detection):
    return RecordingSettings.model_validate(
        {
            "format": "samples",
            "unit": unit,
            "origin": origin,
            "screen": SCREEN,
            "detection": {
                "method": method, "rate_hz": rate, "screen_mm": (500, 400), "distance_mm": 600,
                **detection,
            },
        }
    )  # fmt: skip


# Known fixations: x and y in px, duration in ms, with saccades of 20 ms between them. The shortest
# saccade has 100 px, or 4.8 degrees in 20 ms, which is eight times the velocity threshold.
KNOWN = [(500, 400, 300), (600, 400, 120), (300, 250, 420), (320, 600, 200), (700, 500, 80)]
SACCADE_MS = 20


def trace(rate=500, noise_px=0.3, known=KNOWN):
    """Return (N,) times, (N, 2) positions, and the known fixations as x, y, duration, start."""
    step, parts, expected = 1000 / rate, [], []
    for i, (x, y, duration) in enumerate(known):
        expected.append((x, y, duration, sum(map(len, parts)) * step))
        parts.append(np.tile([x, y], (round(duration / step), 1)))
        if i + 1 < len(known):
            share = (np.arange(round(SACCADE_MS / step)) + 1) / (round(SACCADE_MS / step) + 1)
            parts.append([x, y] + share[:, None] * (np.array(known[i + 1][:2]) - [x, y]))
    position = np.concatenate(parts).astype(float)
    position += np.random.default_rng(0).normal(0, noise_px, position.shape)
    return np.arange(len(position)) * step, position, np.array(expected)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "samples.csv"


def write(file, *blocks, columns="image,reader,time_ms,x,y", separator=","):
    """Write a table from blocks of (image, reader, times, positions)."""
    lines = [columns.replace(",", separator)]
    for image, reader, times, positions in blocks:
        for t, (x, y) in zip(times, positions):
            values = (image, reader, t, "" if np.isnan(x) else x, "" if np.isnan(y) else y)
            lines.append(separator.join(map(str, values)))
    file.write_text("\n".join(lines) + "\n", "utf-8")


def read(file, shortest=50, sizes=SIZES, **values):
    return read_scanpaths(file, sizes, settings(**values), shortest, Problems())


def detect(times, positions, shortest=50, **values):
    """Return start and duration of each fixation, ms."""
    samples = pd.DataFrame(positions, columns=["x", "y"]).assign(
        sample=0, sequence=0, time_ms=times
    )
    found = detection.detect_fixations(samples, settings(**values), shortest)
    return found.fixations[["start_ms", "duration_ms"]].to_numpy().tolist()


def message(file, **values):
    with pytest.raises(BadInput) as error:
        read(file, **values)
    return str(error.value)


@pytest.mark.parametrize("method", ["velocity", "dispersion"])
@pytest.mark.parametrize("rate", [250, 500, 1000])
def test_known_fixations_are_found(file, method, rate):
    times, positions, expected = trace(rate)
    write(file, ("a.png", "r1", times, positions))
    scan = read(file, method=method, rate=rate)["a"]
    assert scan[1:] == (0, 0)
    found = scan.fixations * [1000, 800, 1, 1]
    assert len(found) == len(expected)
    # Position: the mean of at least 15 samples with noise of 0.3 px, and a part of the saccades.
    # Time: the velocity window of 20 ms takes up to 10 ms from each end of a fixation; the
    # dispersion method adds up to 4 ms of a saccade.
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=1)
    duration, start = np.abs(found[:, 2:] - expected[:, 2:]).max(axis=0)
    assert duration < {"velocity": 20.1, "dispersion": 4.1}[method]
    assert start < {"velocity": 10.1, "dispersion": 4.1}[method]


def test_screen_distance_changes_the_velocity():
    """At half the distance the same pixels are twice the degrees, above the velocity threshold."""
    times = np.arange(0, 400, 2.0)
    # 100 px a second: 4.8 degrees a second from 600 mm, 9.5 from 300.
    drift = np.stack([500 + 0.1 * times, np.full(len(times), 400.0)], axis=1)
    for distance, found in ((600, 1), (300, 0)):
        limit = 100 * DEGREES_PER_PX * 1.5
        assert len(detect(times, drift, distance_mm=distance, max_velocity=limit)) == found


def test_distance_in_centimetres_is_rejected():
    with pytest.raises(ValidationError, match=r"distance_mm\n.*greater than or equal to 200"):
        settings(distance_mm=65)


def test_screen_size_in_centimetres_is_rejected():
    with pytest.raises(ValidationError, match=r"screen_mm.*\n.*greater than or equal to 100"):
        settings(screen_mm=(50, 40))


@pytest.mark.parametrize("method", ["velocity", "dispersion"])
def test_minimum_duration_and_empty_input(method):
    times, positions = np.arange(0, 100, 2.0), np.full((50, 2), 400.0)
    assert detect(times, positions, 100, method=method) == [[0, 100]]
    assert detect(times, positions, 102, method=method) == []
    assert detect(times[:0], positions[:0], method=method) == []


def test_dispersion_excludes_the_sample_that_exceeds_the_limit():
    times, positions = np.arange(0, 200, 2.0), np.full((100, 2), 400.0)
    positions[60:] = 900
    assert detect(times, positions, method="dispersion")[0] == [0, 120]


def test_sample_that_exceeds_the_dispersion_starts_the_next_fixation():
    """Three positions, each with the minimum of 25 samples."""
    positions = np.repeat([[400.0, 400.0], [900.0, 400.0], [400.0, 700.0]], 25, axis=0)
    found = detect(np.arange(0, 150, 2.0), positions, method="dispersion", smoothing_ms=0)
    assert found == [[0, 50], [50, 50], [100, 50]]


@pytest.mark.parametrize("method", ["velocity", "dispersion"])
def test_a_blink_ends_a_fixation(file, method):
    times, positions = np.arange(0, 500, 2.0), np.full((250, 2), 400.0)
    positions[100:140] = np.nan
    # A short gap is filled.
    positions[200, 1] = np.nan
    write(file, ("a", "r1", times, positions))
    fixations = read(file, method=method)["a"].fixations
    assert fixations[:, 2:].tolist() == [[200, 0], [220, 280]]


@pytest.mark.parametrize("method", ["velocity", "dispersion"])
def test_absent_samples_end_a_fixation(file, method):
    times, positions = np.arange(0, 500, 2.0), np.full((250, 2), 400.0)
    keep = np.ones(250, bool)
    keep[100:140] = False
    write(file, ("a", "r1", times[keep], positions[keep]))
    fixations = read(file, method=method)["a"].fixations
    assert fixations[:, 2:].tolist() == [[200, 0], [220, 280]]


def test_jitter_of_the_times_is_not_a_gap(file):
    times = np.arange(0, 500, 2.0) + np.random.default_rng(0).uniform(-0.4, 0.4, 250)
    write(file, ("a", "r1", times, np.full((250, 2), 400.0)))
    assert len(read(file)["a"].fixations) == 1


def test_a_sequence_is_one_reader_and_one_image(file, monkeypatch):
    """At one position, fixations of different readers or images do not merge."""
    monkeypatch.setattr(table, "CHUNK_ROWS", 70)
    times, positions = np.arange(5000, 5100, 2.0), np.full((50, 2), 400.0)
    halves = [(n, r, times[h], positions[h]) for h in (slice(0, 25), slice(25, 50))
              for n, r in (("a", "r1"), ("b", "r1"), ("a", "r2"))]  # fmt: skip
    write(file, *halves)
    scans = read(file)
    assert scans["a"].fixations.tolist() == [[0.4, 0.5, 100, 0]] * 2
    assert scans["b"].fixations.tolist() == [[0.4, 0.5, 100, 0]]


def test_reader_column_is_optional_and_image_column_can_be_set(file):
    times, positions = np.arange(0, 100, 2.0), np.full((50, 2), 400.0)
    write(file, ("a", "x", times, positions), columns="picture,more,time_ms,x,y", separator="\t")
    recording = settings().model_copy(update={"image_column": "picture"})
    assert len(read_scanpaths(file, SIZES, recording, 50, Problems())["a"].fixations) == 1
    text = message(file)
    assert "also ['image']" in text
    assert "recording.image_column" in text


@pytest.mark.parametrize("origin", ["top-left", "bottom-left", "centre"])
def test_units_and_origins(file, origin):
    times, positions, _ = trace()
    pixels = read_all(file, times, positions)
    fractions = positions / [1000, 800]
    if origin != "top-left":
        fractions[:, 1] = 1 - fractions[:, 1]
    if origin == "centre":
        fractions -= 0.5
    write(file, ("a", "r1", times, fractions))
    found = read(file, unit="fraction", origin=origin)["a"].fixations
    np.testing.assert_allclose(found, pixels, atol=1e-9)


def read_all(file, times, positions):
    write(file, ("a", "r1", times, positions))
    return read(file)["a"].fixations


@pytest.mark.parametrize("lost", ["", "NaN", "nan", "NA", ".", "-", "NULL", "null"])
def test_missing_values_mark_a_lost_eye(file, lost):
    rows = [f"a,{t},{lost if 100 <= t < 200 else 400},400" for t in range(0, 400, 2)]
    file.write_text("image,time_ms,x,y\n" + "\n".join(rows))
    assert read(file)["a"].fixations[:, 2].tolist() == [100, 200]


@pytest.mark.parametrize(
    ("no", "yes"),
    [(0, 1), ("0.0", "1.0"), ("False", "True"), ("FALSE", "TRUE"), ("false", "1"), (" 0", "true ")],
)
@pytest.mark.parametrize("rows", [30, 500_000])
def test_a_column_may_say_which_samples_are_valid(file, no, yes, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    lost = range(100, 200)
    rows = [f"a,{t},9,9,{no}" if t in lost else f"a,{t},400,400,{yes}" for t in range(0, 400, 2)]
    file.write_text("image,time_ms,x,y,valid\n" + "\n".join(rows))
    assert read(file)["a"].fixations.tolist() == [[0.4, 0.5, 100, 0], [0.4, 0.5, 200, 200]]


@pytest.mark.parametrize("unit", ["px", "fraction"])
@pytest.mark.parametrize("origin", ["top-left", "bottom-left"])
def test_samples_at_exactly_0_0_are_lost_and_counted(file, unit, origin, caplog):
    """Otherwise the half second at the corner would be the longest fixation."""
    place = (400, 400) if unit == "px" else (0.4, 0.5)
    at = [(0, 0) if 200 <= t < 700 else place for t in range(0, 1000, 2)]
    rows = [f"a,{2 * i},{x},{y}" for i, (x, y) in enumerate(at)] + ["c,0,0,0"]
    file.write_text("image,time_ms,x,y\n" + "\n".join(rows))
    assert read(file, unit=unit, origin=origin)["a"].fixations[:, 2].tolist() == [200, 300]
    assert f"{file}: 250 of 500 samples lie exactly at (0, 0), and count as lost" in caplog.text


def test_single_zero_and_screen_centre_are_valid_positions(file, caplog):
    rows = [f"a,{t},0,400" for t in range(0, 100, 2)]
    file.write_text("image,time_ms,x,y\n" + "\n".join(rows))
    assert read(file)["a"].fixations[:, 0].tolist() == [0]
    file.write_text("image,time_ms,x,y\n" + "\n".join(r.replace("400", "0") for r in rows))
    assert read(file, origin="centre", unit="fraction")["a"].fixations[0, :2].tolist() == [0.5, 0.5]
    assert "count as lost" not in caplog.text
    assert "found:    no fixation in 50 samples, of which 50 are lost" in message(file)


@pytest.mark.parametrize("other", ["4", "", "yes", "NaN"])
def test_validity_is_0_or_1_or_true_or_false(file, other):
    rows = [f"a,{t},400,400,{other if t == 10 else 0}" for t in range(0, 400, 2)]
    file.write_text("image,time_ms,x,y,valid\n" + "\n".join(rows))
    assert message(file) == (
        f"{file}: column valid, line 7\n  found:    {other!r}\n"
        "  expected: 1 or true, or 0 or false where the eye was lost\n"
        "  to mend:  set recording.valid_range to the lowest and highest value where the eye was "
        "seen; or convert the tracker's own words to 1 and 0"
    )


# Errors


@pytest.mark.parametrize(("back", "found"), [(40, "40 after 48"), (48, "48 after 48")])
def test_times_must_increase(file, back, found):
    rows = [*(f"a,{t},400,400" for t in range(0, 50, 2)), f"a,{back},500,400", "a,60,400,400"]
    file.write_text("image,time_ms,x,y\n" + "\n".join(rows))
    text = message(file)
    assert f"column time_ms, line 27\n  found:    {found}" in text
    assert "distinguish them in a column reader" in text


@pytest.mark.parametrize("place", ["400,400", ","])
def test_repeated_rows_are_reported(file, place):
    rows = [f"a,{t},{place if t == 48 else '400,400'}" for t in range(0, 60, 2)]
    file.write_text("image,time_ms,x,y\n" + "\n".join(rows[:25] + rows[24:27] + rows[26:]))
    assert message(file) == (
        f"{file}: column time_ms, line 27\n"
        "  found:    48 after 48; 2 of 32 rows repeat another\n"
        "  expected: increasing times for each reader and image\n"
        "  to mend:  delete the repeated rows"
    )


def test_two_lost_readers_do_not_count_as_repeated_rows(file):
    both = [(t, place) for t in range(0, 60, 2) for place in ("400,400", "500,400")]
    rows = [f"a,{t},{',' if t < 10 else place}" for t, place in both]
    file.write_text("image,time_ms,x,y\n" + "\n".join(rows))
    text = message(file)
    assert (
        "found:    0 after 0; 30 samples have the time of the sample before (both eyes?)\n" in text
    )
    assert "keep one sample of each time: choose one eye" in text
    assert "distinguish them in a column reader" in text


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (0.001, "the times look like seconds: set recording.time_unit: s"),
        (1000, "the times look like microseconds: set recording.time_unit: us"),
        (1e6, "the times look like nanoseconds: set recording.time_unit: ns"),
        (2, "set rate_hz to 250, if recording.time_unit is right"),
    ],
)
def test_times_of_another_unit_or_rate(file, scale, words):
    times = np.arange(0, 200, 2.0) * scale
    write(file, ("a", "r1", times, np.full((100, 2), 400.0)))
    text = message(file)
    assert "column time_ms\n" in text
    assert "expected: about 2 ms (recording.detection.rate_hz: 500)" in text
    assert text.endswith(words)


@pytest.mark.parametrize("scale", [1.15, 0.85])
def test_small_deviation_from_the_rate_is_accepted(file, scale):
    times = np.arange(0, 200, 2.0) * scale
    write(file, ("a", "r1", times, np.full((100, 2), 400.0)))
    assert len(read(file)["a"].fixations) == 1


def test_wrong_units_are_reported_before_detection(file):
    times, positions, _ = trace()
    write(file, ("a", "r1", times, positions))
    assert "set recording.unit: px" in message(file, unit="fraction")
    write(file, ("a", "r1", times, positions / [1000, 800]))
    text = message(file)
    assert f"0% of {len(times)} samples off their image" in text
    assert "set recording.unit: fraction" in text


def test_a_gaze_that_never_rests(file):
    times = np.arange(0, 400, 2.0)
    write(file, ("a", "r1", times, np.random.default_rng(0).uniform(0, 800, (200, 2))))
    text = message(file)
    assert "found:    no fixation in 200 samples" in text
    assert "check recording.detection: threshold, rate_hz, screen_mm, distance_mm" in text


def test_time_must_be_a_number(file):
    file.write_text("image,time_ms,x,y\na,0,4,4\na,,4,4\n")
    assert "column time_ms, line 3\n  found:    ''" in message(file)


def test_both_eyes_as_two_readers_are_noticed(file, caplog):
    """A reader for each eye doubles the dwell: twelve fixations in place of six."""
    times, positions = np.arange(0, 300, 2.0), np.full((150, 2), 400.0)
    names = "abcdef"
    eyes = [(name, eye, times, positions + shift) for name in names for eye, shift in
            (("left", 0), ("right", 3))]  # fmt: skip
    write(file, *eyes)
    scans = read(file, sizes=dict.fromkeys(names, (800, 1000)))
    assert [len(scan.fixations) for scan in scans.values()] == [2] * 6
    assert "12 of 12 fixations begin and last like another one of the same image" in caplog.text
    assert "both eyes of one reader" in caplog.text


# What noise does to the trace, and what is done about it


def noisy(rate, noise_degrees, seed=0, seconds=10):
    """Return times, positions and the time at rest of fixations of 350 ms with 30 ms between."""
    rng = np.random.default_rng(seed)
    known = [(*rng.uniform([200, 150], [800, 650]), 350) for _ in range(round(seconds / 0.38))]
    noise_px = noise_degrees / DEGREES_PER_PX
    times, positions, expected = trace(rate, noise_px, known)
    return times, positions, expected[:, 2].sum()


@pytest.mark.parametrize(
    ("rate", "noise"),
    [(30, 0.3), (60, 0.05), (60, 0.9), (120, 0.3), (250, 0.1), (500, 0.02), (1000, 0.1)],
)
def test_the_time_at_rest_ends_in_fixations(rate, noise):
    """Within a quarter, at the defaults; of the noisiest, 30 degrees per second keep little."""
    times, positions, rest = noisy(rate, noise)
    found = np.array(detect(times, positions, rate=rate))
    assert found[:, 1].sum() == pytest.approx(rest, rel=0.25)
    if noise == 0.9:
        fixed = detect(times, positions, rate=rate, max_velocity=30, smoothing_ms=0)
        assert sum(duration for _, duration in fixed) < 0.3 * rest


def test_uneven_times_of_two_eyes_that_are_merged():
    """Times as of Pupil Player: two eyes at 120 Hz, each with its own clock, and short gaps."""
    rng = np.random.default_rng(0)
    times, positions, rest = noisy(1000, 0.05)
    both = np.union1d(np.arange(0, len(times), 8.33), np.arange(3, len(times), 8.33)).astype(int)
    both = both[rng.uniform(size=len(both)) > 0.25]
    found = np.array(detect(times[both], positions[both], rate=240))
    assert found[:, 1].sum() == pytest.approx(rest, rel=0.25)


def test_the_threshold_from_the_noise():
    """By hand: velocities ±8 in x and ±6 in y have σ = 8 and 6, so 5 √((64 + 36) / 2) = 35.4."""
    rate, steps = 100, np.arange(400)
    # Four steps forth and four back: the slope over three samples is ±v, except at the turns.
    x = np.cumsum(np.where(steps // 4 % 2, 1, -1)) * 8 / rate
    y = np.cumsum(np.where(steps // 4 % 2, 1, -1)) * 6 / rate
    velocity = detection.choose_velocity([np.column_stack([x, y])], rate)
    assert velocity == pytest.approx(5 * np.sqrt(50))
    assert detection.choose_velocity([np.zeros((400, 2))], rate) == 30
    assert detection.choose_velocity([np.random.default_rng(0).normal(0, 9, (400, 2))], rate) == 100
    assert detection.choose_velocity([], rate) == 30


@pytest.mark.parametrize(("gap", "found"), [(70, [[0, 470]]), (80, [[0, 200], [280, 190]])])
def test_short_gaps_are_filled(gap, found):
    times = np.arange(0, 470, 2.0)
    keep = (times < 200) | (times >= 200 + gap)
    assert detect(times[keep], np.full((keep.sum(), 2), 400.0)) == found


@pytest.mark.parametrize(("pause", "shift", "count"), [(40, 5, 1), (100, 5, 2), (40, 30, 2)])
def test_neighbours_in_time_and_place_are_one(pause, shift, count):
    """A turn of 40 or 100 ms on a wide circle, and then 0.24 or 1.4 degrees away."""
    angle = np.arange(pause // 2) * 2 * np.pi / 24
    positions = np.concatenate(
        [
            np.full((100, 2), 400),
            400 + 300 * np.column_stack([np.cos(angle), np.sin(angle)]),
            np.tile([400 + shift, 400], (100, 1)),
        ]
    )
    found = detect(2.0 * np.arange(len(positions)), positions, smoothing_ms=0)
    assert len(found) == count


def test_the_share_in_fixations_is_logged_and_too_little_is_a_warning(file, caplog):
    caplog.set_level("INFO")
    times, positions, _ = noisy(60, 0.9)
    write(file, ("a", "r1", times, positions))
    read(file, rate=60)
    shown = (
        r"fixations last (\S+) of the 9.52 s in which the eye was seen \((\d+) %\); max_velocity"
    )
    dwell, percent = map(float, re.search(shown, caplog.text).groups())
    assert percent == round(100 * dwell / 9.52)
    assert "(from the noise)" in caplog.text
    assert "noisy samples: saccades are told from noise only above" in caplog.text
    assert "usual" not in caplog.text
    caplog.clear()
    read(file, rate=60, max_velocity=30, smoothing_ms=0)
    assert "% of the time in which the eye was seen is in fixations (usual: 60 % or more)" in (
        caplog.text
    )
    assert "raise recording.detection.max_velocity (30 here) or smoothing_ms" in caplog.text
    assert "noisy samples" not in caplog.text


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    rate=st.sampled_from([30, 60, 120, 500]),
    noise=st.floats(0, 2),
    lost=st.floats(0, 0.6),
    seed=st.integers(0, 1000),
    method=st.sampled_from(["velocity", "dispersion"]),
)
def test_fixations_of_a_reader_never_overlap(rate, noise, lost, seed, method):
    rng = np.random.default_rng(seed)
    times, positions, _ = noisy(rate, noise, seed, seconds=2)
    times = times + rng.uniform(0, 0.3 * 1000 / rate, len(times))
    positions[rng.uniform(size=len(times)) < lost] = np.nan
    found = np.array(detect(times, positions, method=method, rate=rate)).reshape(-1, 2)
    ends = found.sum(axis=1)
    assert (found[1:, 0] >= ends[:-1] - 1e-9).all()
    assert (ends <= times[-1] - times[0] + 1000 / rate + 1e-9).all()
