"""Nobody's time counts twice: overlapping fixations are found, named and mended, or refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.cli import BadInput
from stages.gaze.overlaps import count_once

COLUMNS = ["sample", "reader", "x", "y", "duration_ms", "start_ms"]


def frame(*rows):
    """Rows of COLUMNS as a frame; the lines begin with 2."""
    return pd.DataFrame(rows, columns=COLUMNS, index=range(2, 2 + len(rows))).astype(
        dict.fromkeys(COLUMNS[2:], float)
    )


def kept(*rows):
    """Return line, duration of the fixations that count."""
    found = count_once("f.csv", frame(*rows))
    return list(zip(found.index, found["duration_ms"]))


def message(*rows):
    with pytest.raises(BadInput) as error:
        count_once("f.csv", frame(*rows))
    return str(error.value)


@pytest.mark.parametrize(
    ("case", "rows", "expected"),
    [
        ("apart", [(0.2, 0.2, 200, 0), (0.8, 0.8, 100, 200)], [(2, 200), (3, 100)]),
        # A row for each sample of a growing fixation: the last and longest one counts.
        (
            "growing",
            [*((0.2, 0.2, t, 0) for t in (17, 33, 50)), (0.8, 0.8, 100, 60)],
            [(4, 50), (5, 100)],
        ),
        # Left and right eye in turn; the right one begins earlier or later.
        (
            "eyes",
            [(0.2, 0.2, 200, 10), (0.22, 0.2, 210, 5), (0.8, 0.8, 100, 300), (0.8, 0.8, 90, 304)],
            [(3, 210), (4, 100)],
        ),
        # Two halves of a fixation, each with its whole duration: 98 of 200 ms are shared.
        ("halves", [(0.2, 0.2, 200, 612), (0.2, 0.2, 200, 714)], [(2, 102), (3, 200)]),
        # By hand: 0 to 300 and 100 to 200 share the whole shorter one.
        ("inner", [(0.2, 0.2, 300, 0), (0.2, 0.2, 100, 100)], [(2, 300)]),
        # A lost position has no place.
        ("lost", [(np.nan, np.nan, 100, 5), (0.2, 0.2, 110, 0)], [(3, 110)]),
        ("copy", [(0.2, 0.2, 100, 0), (0.3, 0.2, 100, 100), (0.2, 0.2, 100, 0)],
         [(2, 100), (3, 100)]),
        ("rounding", [(0.2, 0.2, 200.9, 0), (0.8, 0.8, 100, 200)], [(2, 200.9), (3, 100)]),
    ],
)  # fmt: skip
def test_time_counts_once(case, rows, expected, caplog):
    assert kept(*((0, 0, *row) for row in rows)) == expected
    assert ("f.csv: " in caplog.text) == (case not in ("apart", "rounding"))
    # Other images and other readers are not mixed up.
    others = [(sample, reader, *row) for row in rows for sample in (0, 1) for reader in (5, 7)]
    found = count_once("f.csv", frame(*others))
    assert found["duration_ms"].sum() == 4 * sum(duration for _, duration in expected)


def test_a_place_beyond_all_numbers_is_near_no_other():
    far = [(0, 0, 1e308, -1e308, 100, 0), (0, 1, 1e308, -1e308, 100, 0), (0, 1, 0.2, 0.2, 90, 200)]
    assert kept(*far) == [(2, 100), (3, 100), (4, 90)]


def test_a_warning_names_the_lines(caplog):
    kept(*((0, 0, 0.2, 0.2, 10 * (i + 1), 0) for i in range(8)), (0, 0, 0.9, 0.9, 50, 100))
    assert (
        "f.csv: 7 of 9 fixations overlap another one of the same image in time (lines 2, 3, 4, 5, 6"
        " and 2 more): both eyes, or a row for each sample?"
    ) in caplog.text


def test_the_order_of_the_rows_is_kept():
    rows = [(i % 2, 0, 0.2, 0.2, 100, start) for i, start in enumerate((9000, 50, 400, 200, 0))]
    assert [line for line, _ in kept(*rows)] == [2, 3, 4, 5, 6]


def test_two_readers_below_each_other_are_told_apart(caplog):
    first = [(0, 0, 0.2 + 0.1 * i, 0.2, 200, 250 * i) for i in range(6)]
    second = [(0, 0, 0.3 + 0.1 * i, 0.7, 180, 10 + 260 * i) for i in range(6)]
    assert len(kept(*first, *second)) == 12
    # As the file does not name them, it may also be one reader.
    assert "the fixations of a reader on an image (on 1) last longer than the time" in caplog.text
    assert "where the start falls back (line 8), another reader or trial begins" in caplog.text
    caplog.clear()
    assert len(kept(*first, *((sample, 1, *row) for sample, _, *row in second))) == 12
    assert not caplog.text


def test_both_eyes_below_each_other_are_refused():
    left = [(i // 3, 0, 0.2 + 0.1 * i, 0.2, 200, 250 * i) for i in range(9)]
    right = [(s, r, x + 0.02, y, d + 8, t - 4) for s, r, x, y, d, t in left]
    text = message(*left, *right)
    assert "f.csv: lines 2 and 11\n  found:    18 of 18 fixations begin and last like" in text
    assert "both eyes of one reader, or an export twice?" in text
    assert "name them in recording.columns.reader" in text


def test_an_eye_with_the_name_of_a_reader_is_noticed(caplog):
    left = [(i, 0, 0.2, 0.2, 200, 30) for i in range(6)]
    right = [(s, 1, x + 0.01, y, d, t + 4) for s, _, x, y, d, t in left]
    assert len(kept(*left, *right)) == 12
    assert "12 of 12 fixations begin and last like another one of the same image" in caplog.text
    assert "(such as lines 2 and 8). Their time counts twice" in caplog.text


def test_two_places_at_one_time_are_refused():
    rows = [(0, 0, x, 0.5, 200, 250 * i + 20 * (x > 0.5)) for i in range(3) for x in (0.1, 0.9)]
    text = message(*rows)
    assert "f.csv: lines 2, 3\n  found:    3 of 6 fixations of one image at the time of" in text
    assert "if they are of several readers, name them in recording.columns.reader" in text


def test_without_starts_many_repeated_or_growing_rows_are_refused():
    nan = np.nan
    rows = [(0, 0, 0.1 * i, 0.2, 200 + i, nan) for i in range(6)]
    assert len(kept(*rows)) == 6
    text = message(*rows, *rows)
    assert "lines 8, 9, 10, 11, 12 and 1 more\n  found:    6 of 12 rows repeat a fixation" in text
    growing = [(0, 0, 0.1 * i, 0.2, 17 * t, nan) for i in range(2) for t in (1, 2, 3, 4)]
    assert "found:    6 of 8 rows repeat a fixation, or continue" in message(*growing)
    lost = [(0, 0, nan, nan, 200, nan) for _ in range(6)]
    assert len(kept(*lost)) == 6


@st.composite
def readings(draw):
    """Fixations of up to three readers on two images, without any overlap."""
    rows = []
    for reader in range(draw(st.integers(1, 3))):
        for sample in range(2):
            start = draw(st.floats(0, 500))
            for _ in range(draw(st.integers(1, 6))):
                x, y = draw(st.floats(0, 1)), draw(st.floats(0, 1))
                duration = draw(st.floats(60, 900))
                rows.append((sample, reader, x, y, duration, start))
                start += duration + draw(st.floats(0, 300))
    return rows


@settings(deadline=None)
@given(
    rows=readings(),
    kind=st.sampled_from(["none", "growing", "eyes", "copy"]),
    late=st.floats(1, 20),
)
def test_a_reader_never_has_more_time_than_passed(rows, kind, late):
    """Whatever is written twice, the sum stays that of the fixations as they were made."""
    if kind == "growing":
        written = [(*r[:4], r[4] * share, r[5]) for r in rows for share in (0.2, 0.5, 0.9, 1)]
    elif kind == "eyes":
        # The other eye sees a part of each fixation.
        written = [w for r in rows for w in (r, (*r[:4], r[4] - 2 * late, r[5] + late))]
    else:
        written = rows * (2 if kind == "copy" else 1)
    found = count_once("f.csv", frame(*written))
    # Starts that are all equal say nothing.
    if len({row[5] for row in written}) > 1:
        made = frame(*rows).groupby(["sample", "reader"])["duration_ms"].sum()
        total = found.groupby(["sample", "reader"])["duration_ms"].sum()
        pd.testing.assert_series_equal(total, made)
