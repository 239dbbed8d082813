"""Text files of EyeLink's edf2asc."""

import pytest

from tests.unit.gaze.test_recordings_exports import check, message, read, write


@pytest.fixture
def file(tmp_path):
    return tmp_path / "P01.asc"


EYELINK = {"format": "eyelink", "unit": "px"}


def trial(start, name, *fixations, variable="picture", eyes="LEFT", before=(), within=()):
    """Lines of a trial from fixations of eye, start, duration, x and y."""
    events = [
        f"EFIX {eye}   {start + since}\t{start + since + d - 4}\t{d}\t {x:7} \t {y:7}\t    783"
        for eye, since, d, x, y in fixations
    ]
    return [
        f"MSG\t{start - 20} TRIALID {name}",
        *before,
        f"START\t{start} \t{eyes}\tSAMPLES\tEVENTS",
        f"EVENTS\tGAZE\t{eyes}\tRATE\t 250.00\tTRACKING\tCR",
        f"{start}\t  212.0\t  180.5\t  779.3\t    0.0\t...",
        "SBLINK L 5",
        *within,
        *events,
        f"END\t{start + 5000} \tSAMPLES\tEVENTS\tRES\t  37.02\t  37.61",
        f"MSG\t{start + 5010} !V TRIAL_VAR {variable} {name}.png",
    ]


HEADER = [
    "** CONVERTED FROM D:\\P01.edf using edfapi 4.2.1",
    "** DATE: Mon Jan  1 10:00:00 2024",
    "",
    "MSG\t900 DISPLAY_COORDS 0 0 999 499",
    ">>>>>>> CALIBRATION (HV9,P-CR) FOR LEFT: <<<<<<<<<",
    "  -0.00041  128.4",
]
FIXATIONS = [
    ("L", 0, 200, 250.0, 250.0),
    ("L", 220, 100, 1200.0, 100.0),
    ("L", 400, 100, 500.0, 100.0),
    ("L", 600, 40, 500.0, 100.0),
    ("L", 700, 60, ".", "."),
]
EXPECTED = [[0.25, 0.5, 200, 0], [0.5, 0.2, 100, 400]]


def test_own_fixations_of_each_trial(file):
    write(file, *HEADER, *trial(1000, "scene_a", *FIXATIONS),
          *trial(9000, "scene_b", ("L", 8, 300, 750.0, 400.0)))  # fmt: skip
    scans = read(file, **EYELINK)
    check(scans["scene_a"], EXPECTED, off=2, short=1)
    check(scans["scene_b"], [[0.75, 0.8, 300, 8]])
    again = read(file, **EYELINK, image_column="picture", screen={"size": (1000, 500)})
    check(again["scene_b"], [[0.75, 0.8, 300, 8]])


def test_a_trial_variable_names_the_image(file, caplog):
    lines = [*trial(1000, "scene_a", *FIXATIONS), *trial(9000, "scene_b", *FIXATIONS)]
    plain = [line for line in lines if "TRIALID" not in line]
    write(file, *HEADER, *plain[:-1])
    scans = read(file, **EYELINK, image_column="picture")
    check(scans["scene_a"], EXPECTED, off=2, short=1)
    assert list(scans) == ["scene_a"]
    assert "no message 'picture' names the image of 5 fixations" in caplog.text
    write(file, *HEADER, *(line.replace("TRIALID scene_", "TRIALID 1") for line in lines))
    text = message(file, **EYELINK)
    assert "messages 'TRIALID'\n  found:    1a, 1b" in text
    assert "set recording.image_column: picture, as in the message '!V TRIAL_VAR picture" in text
    text = message(file, **EYELINK, image_column="stimulus")
    assert "expected: messages 'stimulus NAME', or trial variables" in text


def test_a_message_counts_from_its_time_on(file):
    within = ["MSG\t1000 -3 SHOW scene_a.png", "MSG\t1390 SHOW scene_b.png"]
    lines = trial(1000, "1", *FIXATIONS[:1], ("L", 380, 100, 250.0, 250.0), *FIXATIONS[2:3],
                  within=within)  # fmt: skip
    write(file, *HEADER, *lines)
    # The message was sent 3 ms after 1000, when the first fixation had begun.
    scans = read(file, **EYELINK, image_column="SHOW")
    check(scans["scene_a"], [[0.25, 0.5, 100, 380]])
    check(scans["scene_b"], [[0.5, 0.2, 100, 400]])


def test_a_position_may_follow_the_name(file):
    before = ["MSG\t990 !V IMGLOAD CENTER pictures/scene_b.png 500 250"]
    lines = trial(1000, "1", *FIXATIONS, before=before)
    write(file, *HEADER, *lines[:-1])
    text = message(file, **EYELINK)
    assert "set recording.image_column: !V IMGLOAD CENTER, as in the message" in text
    scans = read(file, **EYELINK, image_column="!V IMGLOAD CENTER")
    check(scans["scene_b"], EXPECTED, off=2, short=1)


def test_the_eyes_do_not_count_twice(file, caplog):
    caplog.set_level("INFO")
    right = [("R", since, d, 750.0, 400.0) for _, since, d, *_ in FIXATIONS[:2]]
    write(file, *HEADER, *trial(1000, "scene_a", *FIXATIONS, *right),
          *trial(9000, "scene_b", *right[:1]))  # fmt: skip
    scans = read(file, **EYELINK)
    check(scans["scene_a"], EXPECTED, off=2, short=1)
    check(scans["scene_b"], [[0.75, 0.8, 200, 0]])
    assert "2 fixations of the right eye do not count" in caplog.text
    chosen = read(file, **EYELINK, rows={"eye": "R"})["scene_a"]
    assert chosen.fixations[:, 0].tolist() == [0.75, 0.75]
    assert "fixations of the eyes ['L', 'R']" in message(file, **EYELINK, rows={"eye": "X"})


def test_the_display_must_fit(file):
    lines = [line.replace("0 0 999 499", "0 0 1279 1023") for line in HEADER]
    write(file, *lines, *trial(1000, "scene_a", *FIXATIONS))
    text = message(file, **EYELINK)
    assert "a screen of [1280, 1024] px, while the image 'scene_a' has [1000, 500] px" in text
    assert "set recording.screen: {size: [1280, 1024]}" in text
    text = message(file, **EYELINK, screen={"size": (1000, 500)})
    assert "set recording.screen.size: [1280, 1024]" in text
    lines = trial(1000, "scene_a", ("L", 0, 200, 390.0, 512.0))
    write(file, *HEADER[:3], "MSG\t900 DISPLAY_COORDS 0 0 1279 1023", *lines)
    scan = read(file, **EYELINK, screen={"size": (1280, 1024), "shown": "native"})["scene_a"]
    check(scan, [[0.25, 0.5, 200, 0]])


@pytest.mark.parametrize("numbers", ["", "0 0- 999 499", "0 0 999", "0 0 999 499x", "0 0 . 499"])
def test_an_unreadable_size_of_the_display_is_told(numbers, file, caplog):
    lines = [line.replace("0 0 999 499", numbers) for line in HEADER]
    write(file, *lines, *trial(1000, "scene_a", *FIXATIONS))
    check(read(file, **EYELINK)["scene_a"], EXPECTED, off=2, short=1)
    assert "line 4: no four numbers follow DISPLAY_COORDS" in caplog.text


@pytest.mark.parametrize("numbers", ["= 0 0 1279 1023", "0.00 0.00 1279.00 1023.00"])
def test_the_size_of_the_display_in_other_forms(numbers, file):
    lines = [line.replace("0 0 999 499", numbers) for line in HEADER]
    write(file, *lines, *trial(1000, "scene_a", *FIXATIONS))
    assert "a screen of [1280, 1024] px" in message(file, **EYELINK)


def test_one_image_for_one_trial(file):
    write(file, *HEADER, *trial(1000, "7", *FIXATIONS))
    check(read(file, **EYELINK, image="scene_b")["scene_b"], EXPECTED, off=2, short=1)
    write(file, *HEADER, *trial(1000, "7", *FIXATIONS), *trial(9000, "8", *FIXATIONS))
    text = message(file, **EYELINK, image="scene_b")
    assert "found:    'scene_b', for 2 trials" in text


@pytest.mark.parametrize(
    ("old", "new", "settings", "words"),
    [
        ("EFIX", "ESACC", {}, "EFIX\n  found:    no fixation"),
        ("EVENTS\tGAZE", "EVENTS\tHREF", {}, "expected: events in GAZE coordinates"),
        ("\t200\t", "\tlong\t", {}, "found:    'long'\n  expected: a number as value 5 of EFIX"),
        ("\t200\t", "\tinf\t", {}, "found:    'inf'\n  expected: a number as value 5 of EFIX"),
        ("\t200\t", "\t1e999\t", {}, "found:    '1e999'\n  expected: a number as value 5 of EFIX"),
        ("\t200\t", "\t2_0\t", {}, "found:    '2_0'\n  expected: a number as value 5 of EFIX"),
        ("", "", {"unit": "fraction"}, "set recording.unit: px"),
        ("", "", {"time_unit": "s"}, "found:    recording.time_unit"),
        ("", "", {"columns": {"x": "gx"}}, "found:    recording.columns.x"),
        ("", "", {"format": "gazemedseg"}, "set recording.format: eyelink"),
    ],
)
def test_unusable_files_and_settings(file, old, new, settings, words):
    lines = [*HEADER, *trial(1000, "scene_a", *FIXATIONS)]
    write(file, *(line.replace(old, new) for line in lines))
    assert words in message(file, **EYELINK | settings)


def test_a_trial_may_have_several_blocks(file):
    """The tracker was stopped and started again while the image was shown."""
    first = trial(1000, "scene_a", ("L", 0, 200, 250.0, 250.0))
    second = trial(7000, "scene_a", ("L", 100, 300, 500.0, 100.0))
    again = [line for line in second if "TRIALID" not in line]
    write(file, *HEADER, *first, *again, *trial(20_000, "scene_b", ("L", 8, 300, 750.0, 400.0)))
    scans = read(file, **EYELINK)
    check(scans["scene_a"], [[0.25, 0.5, 200, 0], [0.5, 0.2, 300, 6100]])
    check(scans["scene_b"], [[0.75, 0.8, 300, 8]])
