"""Exports as each tracker's software writes them, and tables whose columns the settings name."""

import re

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from stages.core.cli import BadInput, Problems
from stages.gaze.recordings import read_scanpaths, table
from stages.settings.recording import RecordingSettings
from tests.workspace import ROOT

# Height and width of the images, px.
SIZES = {"scene_a": (500, 1000), "scene_b": (500, 1000)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "export.txt"


def read(file, **settings):
    problems = Problems()
    found = read_scanpaths(file, SIZES, RecordingSettings.model_validate(settings), 50, problems)
    problems.raise_all()
    return found


def message(file, **settings):
    with pytest.raises(BadInput) as error:
        read(file, **settings)
    return str(error.value)


def write(file, *lines, encoding="utf-8", end="\n"):
    file.write_bytes((end.join(lines) + end).encode(encoding))


def check(scan, expected, off=0, short=0):
    """Compare with rows of x, y (fractions), duration and start (ms)."""
    np.testing.assert_allclose(scan.fixations, expected, rtol=0, atol=1e-6)
    assert scan[1:] == (off, short)


# A table whose columns the settings name

NAMED = {
    "format": "fixations",
    "unit": "px",
    "time_unit": "ms",
    "columns": {"x": "gx", "y": "gy", "duration": "dur", "start": "t", "image": "stimulus"},
}
HEADER = "stimulus,gx [px],gy [px],dur,t"
ROWS = ["scene_a.png,250,250,200,0", "scene_a.png,500,100,100,250", "scene_b.png,750,400,300,10"]
SCENE_A = [[0.25, 0.5, 200, 0], [0.5, 0.2, 100, 250]]


def test_a_table_whose_columns_are_named(file):
    write(file, HEADER, *ROWS)
    scans = read(file, **NAMED)
    check(scans["scene_a"], SCENE_A)
    check(scans["scene_b"], [[0.75, 0.8, 300, 10]])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_header_may_stand_below_a_preamble(file, encoding, end, separator):
    lines = [line.replace(",", separator) + separator for line in (HEADER, *ROWS)]
    preamble = ["Study: ü, 1; 2", "", "gx\tand gy", "Subject\tP01"]
    write(file, *preamble, *lines, encoding=encoding, end=end)
    check(read(file, **NAMED)["scene_a"], SCENE_A)
    write(file, *preamble, lines[0], lines[1].replace("200", "long"), encoding=encoding, end=end)
    assert "column dur, line 6\n  found:    'long'" in message(file, **NAMED)


def test_a_line_may_state_the_separator(file):
    header = HEADER.replace(",", ";")
    rows = [row.replace(",", ";").replace("250;250", "250,5;250,5") for row in ROWS]
    write(file, "sep=;", header, *rows)
    check(read(file, **NAMED)["scene_a"], [[0.2505, 0.501, 200, 0], SCENE_A[1]])


def test_a_start_is_not_needed(file):
    write(file, "stimulus,gx,gy,dur", *(row.rpartition(",")[0] for row in ROWS))
    columns = {name: value for name, value in NAMED["columns"].items() if name != "start"}
    scan = read(file, **NAMED | {"columns": columns})["scene_a"]
    np.testing.assert_allclose(scan.fixations, [[*row[:3], np.nan] for row in SCENE_A])


@pytest.mark.parametrize(
    ("unit", "x", "y"), [("fraction", 0.25, 0.5), ("percent", 25, 50), ("px", 250, 250)]
)
def test_units_of_positions(file, unit, x, y):
    write(file, HEADER, f"scene_a,{x},{y},200,0")
    check(read(file, **NAMED | {"unit": unit})["scene_a"], [SCENE_A[0]])


@pytest.mark.parametrize(("unit", "factor"), [("ms", 1), ("s", 1e-3), ("us", 1e3), ("ns", 1e6)])
def test_units_of_times(file, unit, factor):
    rows = [f"scene_a,250,250,{200 * factor},{1000 * factor}"]
    write(file, HEADER, *rows)
    check(read(file, **NAMED | {"time_unit": unit})["scene_a"], [[0.25, 0.5, 200, 1000]])
    # The name of the column may hold the unit.
    sign = {"us": "µs"}.get(unit, unit)
    write(file, HEADER.replace("dur,t", f"dur [{sign}],t ({sign})"), *rows)
    check(read(file, **NAMED | {"time_unit": None})["scene_a"], [[0.25, 0.5, 200, 1000]])


def test_an_unknown_or_contradictory_unit_of_time(file):
    write(file, HEADER, *ROWS)
    text = message(file, **NAMED | {"time_unit": None})
    assert "column dur\n  found:    no unit of time in its name" in text
    assert "to mend:  set recording.time_unit: ms, s, us or ns" in text
    write(file, HEADER.replace("dur", "dur [s]"), *ROWS)
    text = message(file, **NAMED)
    assert "column dur [s]\n  found:    another unit than recording.time_unit: ms" in text


def test_starts_in_another_unit_than_durations(file):
    rows = [f"scene_a,{250 + i},250,200,{100 + 0.3 * i}" for i in range(5)]
    write(file, HEADER, *rows)
    text = message(file, **NAMED)
    assert "column t\n  found:    a median step of 0.3 ms from one start to the next" in text
    assert "set recording.start_unit: s, if the starts are in seconds" in text
    scan = read(file, **NAMED, start_unit="s")["scene_a"]
    np.testing.assert_allclose(np.diff(scan.fixations[:, 3]), 300)


def test_only_chosen_rows_are_read(file):
    rows = ["Fixation,1," + ROWS[0], "Saccade,1,2,3", "Note,a,b,c,d,e,f,g,h,i", "Blink",
            '"Note, ""x""",1', "Fixation,2.0," + ROWS[1], "Fixation,3," + ROWS[1]]  # fmt: skip
    write(file, "kind,trial," + HEADER, *rows)
    chosen = {"kind": "Fixation", "trial": [1, 2]}
    check(read(file, **NAMED, rows=chosen)["scene_a"], SCENE_A)
    text = message(file, **NAMED, rows={"kind": "fixation"})
    assert "column kind\n  found:    'Fixation', 'Saccade', 'Note', 'Blink', 'Note, \"x\"'" in text
    assert "expected: a row with 'fixation' in kind" in text
    # A fixation with too many values is still an error.
    write(file, "kind,trial," + HEADER, *rows, "Fixation,1," + ROWS[0] + ",5")
    assert "line 9\n  found:    more values than columns" in message(file, **NAMED, rows=chosen)
    assert "also ['sort']" in message(file, **NAMED, rows={"sort": 1})


def test_one_image_for_all_rows(file):
    write(file, "gx,gy,dur,t", *(row.partition(",")[2] for row in ROWS[:2]))
    columns = {name: value for name, value in NAMED["columns"].items() if name != "image"}
    settings = NAMED | {"columns": columns}
    scans = read(file, **settings, image="scene_b.png")
    assert list(scans) == ["scene_b"]
    check(scans["scene_b"], SCENE_A)
    text = message(file, **settings, image="scene_x")
    assert "gaze.recording.image\n  found:    ['scene_x']" in text


def test_lost_fixations(file):
    columns = NAMED["columns"] | {"valid": "seen", "pupil": "size"}
    write(file, HEADER + ",seen,size", ROWS[0] + ",true,800", ROWS[1] + ",false,800",
          "scene_a,500,100,100,400,true,0", "scene_a,,,200,600,1,9")  # fmt: skip
    settings = NAMED | {"columns": columns, "max_off_image": 1}
    check(read(file, **settings)["scene_a"], SCENE_A[:1], off=3)
    write(file, HEADER + ",seen,size", ROWS[0] + ",4,800")
    assert "column seen, line 2\n  found:    '4'" in message(file, **settings)


@pytest.mark.parametrize("chunk", [1, 2, 500_000])
def test_a_fixation_with_several_rows(file, chunk, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", chunk)
    columns = NAMED["columns"] | {"index": "n", "reader": "who"}
    write(
        file,
        HEADER + ",n,who",
        "scene_a,1,1,50,0,1,P1",
        "scene_a,250,250,200,0,1,P1",
        "scene_a,,,,,,P1",
        # The next recording begins with the same number; so does the next reader.
        "scene_a,500,100,100,250,2,P1",
        "scene_a,500,100,100,20,2,P1",
        "scene_b,500,100,100,20,2,P2",
        "scene_a,750,400,300,20,2,P2",
    )
    scans = read(file, **NAMED | {"columns": columns})
    check(scans["scene_a"], [*SCENE_A, [0.5, 0.2, 100, 20]])
    check(scans["scene_b"], [[0.75, 0.8, 300, 20]])


def test_several_rows_of_a_fixation_do_not_count_several_times(file, caplog):
    rows = [f"scene_a,250,250,200,{time}" for time in (0, 40, 80, 120)]
    write(file, HEADER + ",n", *(f"{row},1" for row in rows), "scene_a,500,100,100,250,2")
    check(read(file, **NAMED)["scene_a"], SCENE_A)
    assert "3 of 5 fixations overlap another one of the same image in time (lines 3, 4, 5)" in (
        caplog.text
    )
    assert "recording.columns.index (rows of one fixation)" in caplog.text
    caplog.clear()
    scan = read(file, **NAMED | {"columns": NAMED["columns"] | {"index": "n"}})["scene_a"]
    check(scan, SCENE_A)
    assert "overlap" not in caplog.text


def test_names_that_differ_only_in_their_unit(file):
    write(file, "stimulus,gx (mm),gx (px),gy (px),dur,t", "scene_a,9,250,250,200,0")
    text = message(file, **NAMED)
    assert "line 1\n  found:    the columns ['gx (mm)', 'gx (px)']" in text
    assert "write the name with the unit in its brackets in recording.columns" in text
    columns = NAMED["columns"] | {"x": "GX [ px ]"}
    check(read(file, **NAMED | {"columns": columns})["scene_a"], SCENE_A[:1])


def test_a_named_column_is_absent(file):
    write(file, "Study: 1", "", HEADER.replace("dur", "length"), *ROWS)
    text = message(file, **NAMED)
    assert "found:    ['stimulus', 'gx [px]', 'gy [px]', 'length', 't']" in text
    assert "expected: also ['dur']" in text
    assert "correct recording.columns and recording.rows" in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"unit": "px"}, "recording.columns.x must be set for the format fixations"),
        ({**NAMED, "image": "scene_a"}, "exclude each other"),
        (
            {**NAMED, "columns": NAMED["columns"] | {"image": ""}},
            "recording.columns.image must be set for the format fixations; or recording.image",
        ),
        (
            {**NAMED, "columns": NAMED["columns"] | {"y": "gx"}},
            "recording.columns names 'gx' twice",
        ),
        ({**NAMED, "format": "tobii"}, "recording.columns.x does not apply to the format tobii"),
        ({**NAMED, "valid_range": (0, 3)}, "recording.valid_range needs recording.columns.valid"),
        ({"format": "fixations"}, "recording.unit must be set for the format fixations"),
        ({"format": "tobii", "unit": "percent"}, "Tobii exports no percent"),
    ],
)
def test_settings_that_do_not_fit_together(values, words):
    with pytest.raises(ValidationError, match=words):
        RecordingSettings.model_validate({"format": "fixations", **values})


def test_a_format_knows_the_meaning_of_its_coordinates():
    settings = RecordingSettings.model_validate({"format": "pupil", "image": "scene_a"})
    assert (settings.unit, settings.origin) == ("fraction", "bottom-left")
    assert RecordingSettings.model_validate_json(settings.model_dump_json()) == settings
    stated = RecordingSettings.model_validate({"format": "pupil", "origin": "top-left"})
    assert (stated.unit, stated.origin) == ("fraction", "top-left")


# EyeLink Data Viewer


def test_an_eyelink_report_without_starts(file):
    write(
        file,
        "TRIAL,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,LABEL,page",
        '1,250.0,250.0,200,"word 7, left",scene_a',
        "1,3270.00,-3270.00,120,,scene_a",
        "1,500.0,100.0,30,,scene_a",
        "2,750.0,400.0,300,,scene_b",
    )
    scans = read(file, format="eyelink", image_column="page", unit="px")
    check(scans["scene_a"], [[0.25, 0.5, 200, np.nan]], off=1, short=1)
    check(scans["scene_b"], [[0.75, 0.8, 300, np.nan]])


# Gazepoint Analysis: a comma ends each line, and the time column holds a date.

GAZEPOINT = (
    "MEDIA_ID,MEDIA_NAME,CNT,TIME(2024/02/03 11:12:13.000),FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV,"
    "BPOGX,"
)


def test_fixations_of_gazepoint(file):
    write(
        file,
        GAZEPOINT,
        "0,scene_a,14,0.2,0.25000,0.50000,0.00000,0.20000,2,1,0.1,",
        "0,scene_a,20,0.4,1.15000,0.20000,0.25000,0.10000,3,1,0.1,",
        "1,scene_b,30,0.9,0.75000,0.80000,0.50000,0.30000,4,1,0.1,",
    )
    scans = read(file, format="gazepoint")
    check(scans["scene_a"], [[0.25, 0.5, 200, 0]], off=1)
    check(scans["scene_b"], [[0.75, 0.8, 300, 500]])


def test_all_gaze_of_gazepoint(file):
    write(
        file,
        GAZEPOINT,
        "0,scene_a,1,0.1,0.10,0.50,0.100,0.0500,2,1,0.1,",
        "0,scene_a,2,0.2,0.25,0.50,0.100,0.2000,2,1,0.1,",
        # Between fixations the last number stays.
        "0,scene_a,3,0.3,0.90,0.90,0.100,0.2000,2,0,0.1,",
        "0,scene_a,4,0.4,0.50,0.20,0.350,0.1000,3,1,0.1,",
        "0,scene_a,5,0.5,0.00,0.00,0.350,0.1000,3,0,0.1,",
    )
    check(read(file, format="gazepoint")["scene_a"],
          [[0.25, 0.5, 200, 100], [0.5, 0.2, 100, 350]])  # fmt: skip
    text = message(file, format="gazepoint", image="scene_b")
    assert "column MEDIA_NAME\n  found:    names of images, while recording.image is" in text
    chosen = read(file, format="gazepoint", image="scene_b", rows={"MEDIA_NAME": "scene_a"})
    assert [len(scan.fixations) for scan in chosen.values()] == [2]
    assert list(chosen) == ["scene_b"]


# Pupil Player: y from the bottom, durations in ms but starts in s, no column of the image.

PUPIL = "id,start_timestamp,duration,norm_pos_x,norm_pos_y,confidence,base_data"


def test_fixations_of_pupil_player(file):
    write(file, PUPIL, "1,1000.0,200.0,0.25,0.5,0.99,1000.0 1000.01", "2,1000.25,100.0,0.5,0.8,1,",
          end="\r\n")  # fmt: skip
    scan = read(file, format="pupil", image="scene_a")["scene_a"]
    check(scan, [[0.25, 0.5, 200, 1_000_000], [0.5, 0.2, 100, 1_000_250]])
    text = message(file, format="pupil")
    assert "image\n  found:    no column with its name in the fixations of Pupil Player" in text
    assert "set recording.image" in text
    write(file, PUPIL.replace("duration", "length"), "1,1000.0,200.0,0.25,0.5,0.99,1000.0 1000.01")
    text = message(file, format="pupil", image="scene_a")
    assert "expected: also ['duration']" in text
    assert "with these columns, as the fixations of Pupil Player" in text


def test_fixations_on_a_surface_of_pupil_player(file):
    header = "world_timestamp,world_index,fixation_id,start_timestamp,duration,dispersion,"
    header += "norm_pos_x,norm_pos_y,x_scaled,y_scaled,on_surf"
    write(
        file,
        header,
        "10.00,1,7,10.0,200,1,0.24,0.5,0.24,0.5,True",
        "10.03,2,7,10.0,200,1,0.25,0.5,0.25,0.5,True",
        "10.30,9,8,10.3,100,1,1.50,0.8,1.50,0.8,False",
    )
    scan = read(file, format="pupil", image="scene_a")["scene_a"]
    check(scan, [[0.25, 0.5, 200, 10_000]], off=1)


# SMI BeGaze: tabs above the table, a header for each kind of row.

SMI = [
    "[BeGaze]",
    "Sample Rate:\t120",
    "Stimulus:\tscene_a.png",
    "",
    "Table Header for Fixations:",
    "Event Type,Trial,Number,Start,End,Duration,Location X,Location Y,Dispersion X,Image",
    "",
    "Table Header for Blinks:",
    "Event Type,Trial,Number,Start,End,Duration",
    "",
    "UserEvent,1,1,100000000000,# Message: scene_a.png",
    "Saccade L,1,1,100000000000,100000050000,50000,1.0,2.0,3.0,4.0,5.0,6.0,7.0",
    "Fixation L,1,1,100000050000,100000250000,200000,250.00,250.00,46,-",
    "Fixation R,1,1,100000050000,100000250000,200000,251.00,250.00,46,-",
    "Blink L,1,1,100000250000,100000300000,50000",
    "Fixation L,1,2,100000300000,100000400000,100000,500.00,100.00,46,-",
    "Fixation L,1,3,100000500000,100000600000,100000,1500.00,100.00,46,-",
]


def test_events_of_begaze(file):
    write(file, *SMI)
    expected = [[0.25, 0.5, 200, 100_000_050], [0.5, 0.2, 100, 100_000_300]]
    check(read(file, format="smi")["scene_a"], expected, off=1)
    check(read(file, format="smi", image="scene_b")["scene_b"], expected, off=1)
    right = read(file, format="smi", rows={"Event Type": "Fixation R"})["scene_a"]
    check(right, [[0.251, 0.5, 200, 100_000_050]])


def test_events_of_begaze_for_several_trials(file):
    write(file, *SMI, SMI[-2].replace("L,1,", "L,2,"))
    text = message(file, format="smi")
    assert "column Trial\n  found:    several trials: 1, 2" in text
    assert "recording.rows: {Trial: NUMBER}" in text
    scan = read(file, format="smi", image="scene_b", rows={"Trial": 2})["scene_b"]
    check(scan, [[0.5, 0.2, 100, 100_000_300]])
    write(file, *(line for line in SMI if not line.startswith("Stimulus")))
    assert "set recording.image to the image of all rows" in message(file, format="smi")


def test_newer_export_of_begaze(file):
    names = "Trial,Stimulus,Participant,Category,Eye L/R,Event Start Trial Time [ms],"
    names += "Event Duration [ms],Fixation Position X [px],Fixation Position Y [px]"
    write(
        file,
        names,
        "Trial001,scene_a.png,P01,Fixation,Left,10.5,200,250,250",
        "Trial001,scene_a.png,P01,Fixation,Right,10.5,200,251,250",
        "Trial001,scene_a.png,P01,Saccade,Left,210.5,40,-,-",
        "Trial002,scene_b.png,P01,Visual Intake,Left,0,300,750,400",
    )
    scans = read(file, format="smi")
    check(scans["scene_a"], [[0.25, 0.5, 200, 10.5]])
    check(scans["scene_b"], [[0.75, 0.8, 300, 0]])


# iMotions: one row per sample, with the number of its fixation.


def test_fixations_of_imotions(file):
    write(
        file,
        "9.0",
        "#METADATA",
        '#Description,"a, b"',
        "#DATA",
        "Row,Timestamp,SourceStimuliName,Fixation Index,Fixation X,Fixation Y,Fixation Start,"
        "Fixation End,Fixation Duration",
        "1,0,scene_a,,,,,,",
        "2,10,scene_a,1,250,250,10,210,200",
        "3,40,scene_a,1,250,250,10,210,200",
        "4,260,scene_a,2,500,100,260,360,100",
    )
    check(read(file, format="imotions")["scene_a"], [[0.25, 0.5, 200, 10], [0.5, 0.2, 100, 260]])


# Tobii Studio 2 (one row per fixation), Studio 3 and Pro Lab with snapshots (one row per sample).


def test_fixations_of_tobii_studio_2(file):
    write(
        file,
        "Data properties:",
        "",
        "Screen resolution: 1000 x 500",
        "",
        "FixationIndex\tTimestamp\tFixationDuration\tMappedFixationPointX\tMappedFixationPointY\t",
        "1\t31\t200\t250\t250\t",
        "2\t331\t100\t1200\t529\t",
        "3\t631\t100\t500\t100\t",
        end="\r\n",
    )
    scan = read(file, format="tobii", unit="px", image="scene_a")["scene_a"]
    check(scan, [[0.25, 0.5, 200, 31], [0.5, 0.2, 100, 631]], off=1)
    assert "set recording.image" in message(file, format="tobii", unit="px")


STUDIO = [
    "ParticipantName", "RecordingName", "MediaName", "RecordingTimestamp", "StudioEvent",
    "FixationIndex", "SaccadeIndex", "GazeEventType", "GazeEventDuration",
    "FixationPointX (MCSpx)", "FixationPointY (MCSpx)", "GazePointX (ADCSpx)", "",
]  # fmt: skip


def studio_rows(*rows):
    """Rows of time, image, eye movement, index, duration and position."""
    lines = ["\t".join(STUDIO)]
    for time, image, movement, index, duration, x, y in rows:
        values = ["P1", "Rec 1", image, time, "", *(["", index] if movement == "Saccade" else
                  [index, ""]), movement, duration, x, y, 77, ""]  # fmt: skip
        lines.append("\t".join(map(str, values)))
    return lines


def test_samples_of_tobii_studio_3(file):
    write(
        file,
        *studio_rows(
            # This fixation begins before the image appears.
            (0, "", "Fixation", 1, 100, "", ""),
            (50, "scene_a", "Fixation", 1, 100, "", ""),
            (100, "scene_a", "Saccade", 1, 50, "", ""),
            (150, "scene_a", "Fixation", 2, 200, 250, 250),
            (200, "scene_a", "", "", "", "", ""),
            (200, "scene_a", "Fixation", 2, 200, 250, 250),
            # Off the image there is no position.
            (400, "scene_a", "Fixation", 3, 100, "", ""),
            (550, "scene_a", "Fixation", 4, 100, 500, 100),
        ),
        encoding="utf-8-sig",
        end="\r\n",
    )
    scan = read(file, format="tobii", unit="px")["scene_a"]
    check(scan, [[0.25, 0.5, 200, 100], [0.5, 0.2, 100, 500]], off=1)
    text = message(file, format="tobii", unit="px", screen={"size": (1920, 1080)})
    assert "'FixationPointX (MCSpx)' is on the image, so remove recording.screen" in text


def mapped_rows(*rows, names=("scene_a", "scene_b")):
    """Rows of time, and per snapshot the movement, its index and its position."""
    parts = ("eye movement type", "eye movement type index", "fixation X", "fixation Y")
    header = ["Recording timestamp", "Sensor", "Participant name", "Recording name", "Event"]
    header += [f"Mapped {part} [{name}]" for name in names for part in parts]
    header += ["Eye movement type", "Gaze event duration", "Eye movement type index",
               "Fixation point X", "Fixation point Y"]  # fmt: skip
    lines = ["\t".join(header)]
    for time, duration, *snapshots in rows:
        values = [time, "Eye Tracker", "P1", "Rec 1", ""]
        for snapshot in snapshots:
            values += snapshot or ["", "", "", ""]
        lines.append("\t".join(map(str, [*values, "Fixation", duration, 300 + time, 10, 20])))
    return lines


LOST = ["EyesNotFoundMovement", 1, "", ""]


def test_gaze_mapped_on_snapshots(file):
    one, two = ["Fixation", 1, 250, 250], ["Fixation", 2, 500, 100]
    rows = mapped_rows(
        (0, 100, LOST, LOST),
        (100_000, 200, one, LOST),
        (200_000, 200, one, LOST),
        (400_000, 100, two, ["Fixation", 1, 750, 400]),
        (500_000, 300, LOST, ["Saccade", 1, "", ""]),
        (800_000, 300, LOST, ["Fixation", 2, 1200, 400]),
        (900_000, 300, LOST, ["Fixation", 2, 1200, 400]),
    )
    write(file, *rows)
    scans = read(file, format="tobii", unit="px")
    check(scans["scene_a"], [[0.25, 0.5, 200, 100], [0.5, 0.2, 100, 400]])
    check(scans["scene_b"], [[0.75, 0.8, 100, 400]], off=1)
    text = message(file, format="tobii", unit="fraction")
    assert "gaze mapped on scene_a, scene_b, in pixels of the snapshot" in text
    assert "remove recording.image" in message(file, format="tobii", unit="px", image="scene_b")


def test_one_snapshot_may_have_another_name_than_its_image(file):
    rows = mapped_rows((0, 200, ["Fixation", 1, 250, 250]), names=["Snapshot 1"])
    write(file, *rows)
    scans = read(file, format="tobii", unit="px", image="scene_b")
    check(scans["scene_b"], [[0.25, 0.5, 200, 0]])
    text = message(file, format="tobii", unit="px")
    assert "column Mapped eye movement type [Snapshot 1]\n  found:    ['Snapshot 1']" in text
    write(file, *(line.replace("Mapped fixation X", "Mapped X") for line in rows))
    text = message(file, format="tobii", unit="px", image="scene_b")
    assert "also ['Mapped fixation x [Snapshot 1]']" in text


# A wrong format

FORMATS = {
    "gazepoint": [GAZEPOINT, "0,scene_a,14,0.2,0.25,0.5,0.0,0.2,2,1,0.1,"],
    "pupil": [PUPIL, "1,1000.0,200.0,0.25,0.5,0.99,1000.0 1000.01"],
    "smi": SMI,
    "eyelink": ["CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,page", "1,1,200,scene_a"],
    "tobii": studio_rows((0, "scene_a", "Fixation", 1, 100, 250, 250)),
}


@pytest.mark.parametrize("stated", ["gazemedseg", "eyelink", "gazepoint", "pupil", "tobii", "smi"])
@pytest.mark.parametrize("right", FORMATS)
def test_the_right_format_is_advised(file, stated, right):
    if stated == right:
        return
    write(file, *FORMATS[right])
    text = message(file, format=stated, unit="px")
    assert "to mend:  these are the columns of " in text
    assert f": set recording.format: {right}" in text
    assert "recording.unit: px" not in text
    if right in ("eyelink", "tobii"):
        assert f"recording.format: {right}, recording.unit: px" in message(
            file, format="smi", unit="fraction"
        )
    no_image = right in ("eyelink", "pupil")
    assert ("recording.image, if none does" in text) == no_image


# Raw gaze: one fixation of 400 ms in the middle of the image, at 50 Hz, then 200 ms without an eye,
# then one of 200 ms.

RAW = {
    "screen": {"size": (1000, 500)},
    "detection": {
        "method": "dispersion", "rate_hz": 50, "screen_mm": (500, 250), "distance_mm": 600,
    },
}  # fmt: skip
TIMES = [20 * i for i in range(40)]


def raw_rows(form, *, lost, seen, scale=1.0, px=True, up=False):
    """Lines of samples: `form` is filled with time, x, y and a flag."""
    x, y = (500, 100) if px else (0.5, 0.2)
    y = 1 - y if up else y
    return [
        form.format(t=t * scale, x=x, y=y, v=lost if 20 <= i < 30 else seen)
        for i, t in enumerate(TIMES)
    ]


def check_raw(scan):
    check(scan, [[0.5, 0.2, 400, 0], [0.5, 0.2, 200, 600]])


def test_raw_gaze_of_gazepoint(file):
    rows = raw_rows(
        "0,scene_a,{t:.3f},{x},{y},{v},1,2,3,4,0,", lost=0, seen=1, scale=1e-3, px=False
    )
    header = "MEDIA_ID,MEDIA_NAME,TIME(2024/02/03),BPOGX,BPOGY,BPOGV,FPOGX,FPOGY,FPOGS,FPOGD,"
    write(file, header + "FPOGV,", *rows)
    check_raw(read(file, format="gazepoint", **RAW)["scene_a"])


def test_raw_gaze_of_pupil_player(file):
    header = "gaze_timestamp,world_index,confidence,norm_pos_x,norm_pos_y,base_data"
    rows = raw_rows("{t:.3f},1,{v},{x},{y},a b", lost=0.59, seen=0.6, scale=1e-3, px=False, up=True)
    write(file, header, *rows, end="\r\n")
    check_raw(read(file, format="pupil", image="scene_a", **RAW)["scene_a"])
    text = message(file, format="pupil", image="scene_a")
    assert "these are the columns of gaze positions of Pupil Player" in text
    assert "set recording.format: pupil, with recording.detection and recording.screen" in text
    # A column of flags in place of the confidence does not take over its range.
    write(file, header + ",ok", *(f"{row},{0 if '0.59' in row else 1}" for row in rows))
    settings = {"format": "pupil", "image": "scene_a", "columns": {"valid": "ok"}, **RAW}
    check_raw(read(file, **settings)["scene_a"])


def test_raw_gaze_of_imotions(file):
    names = "Timestamp,ET_GazeLeftx,ET_GazeLefty,ET_ValidityLeftEye"
    preamble = ["8.1", "#HEADER", "Camera", "", "#METADATA", f"FieldName,{names}",
                "DataType,Double,Double,Double,Double", 'Note,"0, 4",,,', "#DATA"]  # fmt: skip
    rows = raw_rows("0,{t},{x},{y},{v}", lost=4, seen=0)
    write(file, *preamble, f"RowNumber,{names}", *rows)
    check_raw(read(file, format="imotions", image="scene_a", **RAW)["scene_a"])
    text = message(file, format="imotions", image="scene_a")
    assert "set recording.format: imotions, with recording.detection" in text
    columns = dict(zip(("start", "x", "y", "valid"), names.split(",")))
    settings = {"format": "samples", "unit": "px", "image": "scene_a", "columns": columns, **RAW}
    scans = read(file, **settings, time_unit="ms", valid_range=(0, 3))
    check_raw(scans["scene_a"])
    assert "column ET_ValidityLeftEye" in message(file, **settings, time_unit="ms")
    text = message(file, **settings, valid_range=(0, 3))
    assert "column Timestamp\n  found:    no unit of time in its name" in text


def test_raw_gaze_of_tobii_studio(file):
    header = ["ParticipantName", "MediaName", "RecordingTimestamp", "StudioEvent", "GazePointIndex",
              "GazePointX (ADCSpx)", "GazePointY (ADCSpx)", "GazePointX (MCSpx)", ""]  # fmt: skip
    rows = raw_rows("P1\tscene_a\t{t}\t\t{t}\t{x}\t{y}\t7\t", lost=0, seen=0)
    rows[20:30] = [row.replace("500\t100", "\t") for row in rows[20:30]]
    # An event has the time of the next sample.
    rows.insert(5, "P1\tscene_a\t100\tURLStart\t\t\t\t\t")
    write(file, "\t".join(header), *rows, encoding="utf-8-sig", end="\r\n")
    check_raw(read(file, format="tobii", unit="px", **RAW)["scene_a"])


@pytest.mark.parametrize("unit", ["μs", "ms"])
@pytest.mark.parametrize("system", [" [DACS px]", ""])
@pytest.mark.parametrize("image", ["Presented Stimulus name", "Presented Media name"])
def test_raw_gaze_of_tobii_pro_lab(file, unit, system, image):
    header = [f"Recording timestamp [{unit}]", "Sensor", "Participant name", image,
              f"Gaze point X{system}", f"Gaze point Y{system}"]  # fmt: skip
    rows = raw_rows("{t}\tEye Tracker\tP1\tscene_a\t{x}\t{y}", lost=0, seen=0,
                    scale=1000 if unit == "μs" else 1)  # fmt: skip
    rows[20:30] = [row.replace("500\t100", "\t") for row in rows[20:30]]
    rows.insert(5, rows[5].replace("Eye Tracker", "Gyroscope"))
    write(file, "\t".join(header), *rows)
    check_raw(read(file, format="tobii", unit="px", **RAW)["scene_a"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": "smi", **RAW}, "recording.detection does not apply to the format smi"),
        ({"format": "pupil", "detection": RAW["detection"]}, "recording.screen must be set"),
        ({"format": "pupil", **RAW, "start_unit": "s"}, "start_unit does not apply to raw samples"),
        (
            {"format": "pupil", **RAW, "columns": {"duration": "d"}},
            "recording.columns.duration does not apply to raw samples",
        ),
    ],
)
def test_settings_of_raw_gaze_that_do_not_fit_together(values, words):
    with pytest.raises(ValidationError, match=words):
        RecordingSettings.model_validate(values)


# The examples in docs/trackers.md

GUIDE = (ROOT / "docs/trackers.md").read_text("utf-8")
GUIDE = GUIDE[GUIDE.index("## EyeLink Data Viewer") : GUIDE.index("## Maps")]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_guide_is_valid(example):
    RecordingSettings.model_validate(yaml.safe_load(example))


def test_the_guide_has_an_example_of_each_tracker():
    shown = {yaml.safe_load(example)["format"] for example in EXAMPLES}
    maps_and_default = {"heatmaps", "refined", "gazemedseg"}
    formats = RecordingSettings.model_json_schema()["properties"]["format"]["enum"]
    assert shown == set(formats) - maps_and_default


TOBII_HEADER = (
    "Recording timestamp\tPresented Stimulus name\tEye movement type\tEye movement type index\t"
    "Gaze event duration\tFixation point X (MCS px)\tFixation point Y (MCS px)"
)
ASC_TRIAL = [
    "MSG\t{0}0 TRIALID {1}", "START\t{0}1 \tLEFT\tEVENTS", "EVENTS\tGAZE\tLEFT\tRATE\t 250.00",
    "{2}", "END\t{0}9 \tEVENTS",
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"format": "tobii", "unit": "px"},
         [TOBII_HEADER, "0\tscene_a\tUnclassified\t1\t200\t\t",
          "10\tscene_z\tFixation\t1\t200\t30\t30"]),
        ({**NAMED, "columns": {**NAMED["columns"], "index": "n"}},
         [HEADER + ",n", "scene_a,1,2,,0,", "scene_z,10,20,200,10,1"]),
        ({"format": "eyelink", "unit": "px"},
         [line.format(*values) for values in ((1, "scene_a", "SFIX L 12"),
                                              (2, "scene_z", "EFIX L 21 25 200 20.0 30.0 5"))
          for line in ASC_TRIAL]),
    ],
    ids=["tobii", "named columns", "edf2asc"],
)  # fmt: skip
def test_fixations_on_other_images_only(file, settings, lines):
    """The images occur in the file, but without any fixation."""
    write(file, *lines)
    text = message(file, **settings)
    found = (
        "fixations\n  found:    none on an image of the data set; rows name other images: scene_z"
    )
    if lines[0].startswith("MSG"):
        # Of edf2asc only the fixations are rows.
        found = "column TRIALID\n  found:    ['scene_z']"
    assert text.startswith(f"{file}: {found}\n")
