"""Raw samples in text files of EyeLink's edf2asc."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.gaze.test_recordings_asc import EYELINK, HEADER
from tests.unit.gaze.test_recordings_exports import message, read, write

# ms from one sample to the next.
STEP = 4
RAW = EYELINK | {
    "screen": {"size": (1000, 500)},
    "detection": {"rate_hz": 250, "screen_mm": (376, 188), "distance_mm": 650},
}
# The right eye is seen this much to the right of the left one, px.
APART = 40.0


@pytest.fixture
def file(tmp_path):
    return tmp_path / "P01.asc"


def rest(x, y, ms):
    """Return the samples of a fixation; lost ones have no place."""
    return [(x, y)] * (ms // STEP)


def block(start, *rests, eyes=("LEFT",), kind="GAZE", within=()):
    """Lines from START to END; `within` are pairs of a time and a message."""
    names = "\t".join(eyes)
    lines = [f"START\t{start} \t{names}\tSAMPLES\tEVENTS", "PRESCALER\t1",
             f"EVENTS\tGAZE\t{names}\tRATE\t 250.00\tTRACKING\tCR\tFILTER\t2",
             f"SAMPLES\t{kind}\t{names}\tRATE\t 250.00\tTRACKING\tCR\tFILTER\t2\tINPUT",
             f"INPUT\t{start}\t0"]  # fmt: skip
    places = [place for samples in rests for place in samples]
    messages = dict(within)
    for number, place in enumerate(places):
        time = start + STEP * number
        if time in messages:
            lines.append(f"MSG\t{time} {messages[time]}")
        seen = [
            f"{place[0] + APART * (eye == 'RIGHT'):7.1f}\t{place[1]:7.1f}\t  779.3"
            if place
            else "      .\t      .\t    0.0"
            for eye in eyes
        ]
        lines.append("\t".join([str(time), *seen, "    0.0", "..."]))
    return [*lines, f"END\t{start + STEP * len(places)} \tSAMPLES\tEVENTS\tRES\t 37.0\t 37.6"]


def trial(start, name, *rests, **values):
    return [f"MSG\t{start - 20} TRIALID {name}", *block(start, *rests, **values)]


def check(scan, *expected):
    """Compare with x, y (px) and duration of each fixation: two samples may be in the saccade."""
    found = scan.fixations[:, :3] * [1000, 500, 1]
    assert found.shape == (len(expected), 3)
    np.testing.assert_allclose(found[:, :2], [row[:2] for row in expected], atol=1)
    np.testing.assert_allclose(found[:, 2], [row[2] for row in expected], atol=6 * STEP)


FIRST, SECOND = (250.0, 250.0, 200), (750.0, 400.0, 300)


def test_fixations_are_detected_in_the_samples_of_each_trial(file):
    write(file, *HEADER, *trial(1000, "scene_a", rest(*FIRST), rest(*SECOND)),
          *trial(9000, "scene_b", rest(*SECOND)))  # fmt: skip
    scans = read(file, **RAW)
    check(scans["scene_a"], FIRST, SECOND)
    check(scans["scene_b"], SECOND)


def test_one_eye_of_each_block_counts(file):
    both = trial(1000, "scene_a", rest(*FIRST), rest(*SECOND), eyes=("LEFT", "RIGHT"))
    write(file, *HEADER, *both, *trial(9000, "scene_b", rest(*FIRST), eyes=("RIGHT",)))
    scans = read(file, **RAW)
    check(scans["scene_a"], FIRST, SECOND)
    moved = [(x + APART, y, ms) for x, y, ms in (FIRST, SECOND)]
    check(scans["scene_b"], moved[0])
    check(read(file, **RAW, rows={"eye": "R"})["scene_a"], *moved)
    left = read(file, **RAW, rows={"eye": "L"})
    assert list(left) == ["scene_a"]
    check(left["scene_a"], FIRST, SECOND)
    write(file, *HEADER, *trial(9000, "scene_b", rest(*FIRST), eyes=("RIGHT",)))
    assert "found:    no sample of the eye L" in message(file, **RAW, rows={"eye": "L"})
    assert "expected: one eye: L or R" in message(file, **RAW, rows={"eye": ["L", "R"]})


def test_a_blink_ends_a_fixation(file):
    blink = [None] * 30
    write(file, *HEADER, *trial(1000, "scene_a", rest(*FIRST), blink, rest(*FIRST)))
    check(read(file, **RAW)["scene_a"], FIRST, FIRST)


def test_a_lost_pupil_is_a_lost_eye(file):
    write(file, *HEADER, *trial(1000, "scene_a", rest(*FIRST), rest(*FIRST)))
    text = file.read_text().splitlines()
    # The second half has a place, but no pupil.
    lost = [line.replace("779.3", "0.0") if line[:1] == "1" and int(line[:4]) >= 1200 else line
            for line in text]  # fmt: skip
    assert lost != text
    write(file, *lost)
    check(read(file, **RAW)["scene_a"], FIRST)


def test_blocks_of_one_trial_are_apart(file):
    """The tracker was stopped for 20 ms, less than the gaps that are filled."""
    pause = 1000 + FIRST[2] + 20
    write(file, *HEADER, *trial(1000, "scene_a", rest(*FIRST)), *block(pause, rest(*FIRST)))
    check(read(file, **RAW)["scene_a"], FIRST, FIRST)


def test_a_message_names_the_image_from_its_time_on(file):
    within = [(1000, "SHOW scene_a.png 500 250"), (1200, "SHOW scene_b.png 500 250")]
    lines = trial(1000, "7", rest(*FIRST), rest(*FIRST), within=within)
    write(file, *HEADER, *lines)
    scans = read(file, **RAW, image_column="SHOW")
    check(scans["scene_a"], FIRST)
    check(scans["scene_b"], FIRST)
    assert "set recording.image_column: SHOW" in message(file, **RAW)
    write(file, *HEADER, *lines, "MSG\t2000 !V TRIAL_VAR picture scene_b.png")
    check(read(file, **RAW, image_column="picture")["scene_b"], (250.0, 250.0, 400))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("SAMPLES\tGAZE", "SAMPLES\tHREF", "expected: samples in GAZE coordinates"),
        ("SAMPLES\tGAZE", "X", "line 13\n  found:    a sample without a line SAMPLES above it"),
        ("1004\t", "1004\tx", "line 14\n  found:    'x'\n  expected: a number as value 2"),
        ("1004\t  250.0\t  250.0\t  779.3\t    0.0\t...", "1004\t  250.0", "found:    ''\n"),
        ("1004\t", "990\t", "expected: increasing times for each reader and image"),
        ("\t  779.3\t    0.0\t...", "", "as value 4 of the sample 1000"),
    ],
)
def test_unusable_samples(file, old, new, words):
    lines = "\n".join([*HEADER, *trial(1000, "scene_a", rest(*FIRST))])
    assert old in lines
    write(file, lines.replace(old, new))
    assert words in message(file, **RAW)


def test_samples_and_their_rate_must_be_there(file):
    write(file, *HEADER, *trial(1000, "scene_a"))
    assert "samples\n  found:    no sample\n" in message(file, **RAW)
    write(file, *HEADER, *trial(1000, "scene_a", rest(*FIRST)))
    fast = RAW | {"detection": RAW["detection"] | {"rate_hz": 1000}}
    assert "found:    a median step of 4 from one sample to the next" in message(file, **fast)
    assert "EFIX\n  found:    no fixation" in message(file, **EYELINK)
    write(file, "picture\tCURRENT_FIX_X", "scene_a\t5")
    assert "found:    a table, not a text file of edf2asc" in message(file, **RAW)


@st.composite
def sessions(draw):
    """Trials with the eyes of their block, and fixations far from each other."""
    eyes = st.sampled_from([("LEFT",), ("RIGHT",), ("LEFT", "RIGHT")])
    places = [(150.0, 100.0), (500.0, 400.0), (850.0, 150.0)]
    fixation = st.lists(st.integers(25, 100), min_size=1, max_size=3)
    return [
        (name, draw(eyes), [(*place, STEP * n) for place, n in zip(places, draw(fixation))])
        for name in draw(st.permutations(["scene_a", "scene_b"]))
    ]


@hypothesis_settings(deadline=None, max_examples=40)
@given(session=sessions(), lost=st.booleans())
def test_what_was_looked_at_is_read(tmp_path_factory, session, lost):
    file = tmp_path_factory.mktemp("session") / "P01.asc"
    lines = list(HEADER)
    for number, (name, eyes, fixations) in enumerate(session):
        rests = [rest(*fixation) for fixation in fixations]
        if lost:
            # A short gap is filled.
            rests[0][10:13] = [None] * 3
        lines += trial(1000 + 10_000 * number, name, *rests, eyes=eyes)
    write(file, *lines)
    scans = read(file, **RAW)
    for name, eyes, fixations in session:
        moved = APART * ("LEFT" not in eyes)
        check(scans[name], *((x + moved, y, ms) for x, y, ms in fixations))
