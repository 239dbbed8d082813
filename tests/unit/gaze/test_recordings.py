"""Tables from eye trackers, from spreadsheets and from the GazeMedSeg release."""

import csv
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.core.cli import BadInput, BadInputGroup, Problems
from stages.gaze.recordings import read_scanpaths, table
from stages.settings.recording import RecordingSettings

SIZES = {"a": (60, 80), "b": (60, 80)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "recording.txt"


def read(file, ids=SIZES, shortest=50, **settings):
    sizes = ids if isinstance(ids, dict) else dict.fromkeys(ids, (60, 80))
    problems = Problems()
    found = read_scanpaths(
        file, sizes, RecordingSettings.model_validate(settings), shortest, problems
    )
    problems.raise_all()
    return found


def message(file, **options):
    with pytest.raises(BadInput) as error:
        read(file, **options)
    return str(error.value)


# The GazeMedSeg release: a file name without a folder, the number of the fixation, fractions of the
# image, milliseconds.

COLUMNS = [
    "IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION",
    "CURRENT_FIX_START", "CURRENT_FIX_PUPIL", "IMAGE_HEIGHT", "IMAGE_WIDTH",
]  # fmt: skip
A = "a.jpg,1,0.25,0.5,200,0,900,60,80"
LATER_A = "a.jpg,2,0.75,0.5,150,240,900,60,80"
B = "b.jpg,1,0.1,0.2,300,10,900,60,80"


def write(file, *rows, columns=COLUMNS, separator=",", encoding="utf-8", end="\n"):
    lines = [separator.join(columns), *rows]
    file.write_bytes((end.join(lines) + end).encode(encoding))


def test_fixations_are_grouped_by_sample(file):
    write(file, A, B, LATER_A)
    scans = read(file)
    assert sorted(scans) == ["a", "b"]
    assert scans["a"].fixations.dtype == np.float64
    assert scans["a"].fixations.tolist() == [[0.25, 0.5, 200, 0], [0.75, 0.5, 150, 240]]
    assert scans["b"].fixations.tolist() == [[0.1, 0.2, 300, 10]]
    assert [scan[1:] for scan in scans.values()] == [(0, 0), (0, 0)]


def test_repeated_fixations_are_reported(file, caplog):
    # The file repeats a part of the first export; a row with another start is another fixation.
    later = A.replace(",200,0,", ",200,500,")
    write(file, A, later, B, later, B)
    found = {name: len(scan.fixations) for name, scan in read(file).items()}
    assert found == {"a": 2, "b": 1}
    assert f"{file}: 2 of 5 fixations have the image, place, duration and start" in caplog.text
    assert "do not count (lines 5, 6): did you append an export to an existing file?" in caplog.text
    caplog.clear()
    write(file, A, later, B)
    read(file)
    assert "do not count" not in caplog.text


def test_row_of_the_gazemedseg_release(file):
    row = "Prostate3T-01-0027_14.jpg,1,0.4846041666666668,0.4931510416666668,770,2484,7,320.0,320.0"
    write(file, row)
    size = (320, 320)
    scan = read(file, ids={"Prostate3T-01-0027_14": size, "Prostate3T-01-0027_1": size})
    assert list(scan) == ["Prostate3T-01-0027_14"]
    assert scan["Prostate3T-01-0027_14"].fixations.tolist() == [
        [0.4846041666666668, 0.4931510416666668, 770, 2484]
    ]


def test_fixations_keep_the_order_of_the_file(file, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", 4)
    rows = [f"{name}.jpg,1,0.5,0.5,{100 + i},{9000 - 1000 * i},900,60,80" for i, name in
            enumerate("abbaab")]  # fmt: skip
    write(file, *rows)
    assert {name: scan.fixations[:, 2].tolist() for name, scan in read(file).items()} == {
        "a": [100, 103, 104],
        "b": [101, 102, 105],
    }


def test_sample_without_rows_is_absent(file):
    write(file, A)
    assert list(read(file)) == ["a"]


def test_rows_of_other_images_are_ignored_and_counted(file, caplog):
    write(file, A, B, LATER_A, ",1,0.25,0.5,200,0,900,60,80")
    assert list(read(file, ids=["b"])) == ["b"]
    assert "2 rows belong to no readable image of the data set, such as a.jpg" in caplog.text


def test_border_is_on_the_image_and_dropped_fixations_are_counted(file):
    rows = ["0,0,50", "1,1,60", "-0.001,0.5,100", "0.5,1.001,100", "0.5,0.5,49.9", "0.5,0.5,70",
            "2,2,49"]  # fmt: skip
    write(file, *(f"a.jpg,1,{row},0,900,60,80" for row in rows))
    scan = read(file, max_off_image=1)["a"]
    assert scan.fixations[:, 2].tolist() == [50, 60, 70]
    assert (scan.off_image, scan.short) == (2, 2)


def test_scanpath_counts_dropped_fixations(file):
    write(file, A, B)
    scans = read(file, shortest=250)
    assert scans["a"].fixations.shape == (0, 4)
    assert scans["a"][1:] == (0, 1)


@pytest.mark.parametrize("sample_id", ["NA", "frame 1", "nan", "007", "1e3", "a.b", "Größe", "a"])
@pytest.mark.parametrize(
    "form", ["{}.jpg", "{}.PNG", "{}.nii.gz", "{}", "images/{}.tif", r"C:\gaze\{}.dcm", "  {}.jpg"]
)
def test_image_names_with_folders_and_suffixes(file, sample_id, form):
    write(file, A.replace("a.jpg", form.format(sample_id)))
    assert list(read(file, ids=[sample_id])) == [sample_id]


def test_id_may_look_like_a_file_name_and_unknown_suffix_is_part_of_it(file):
    write(file, A.replace("a.jpg", "a.png"), B.replace("b.jpg", "b.1"))
    assert list(read(file, ids=["a.png", "b.1"])) == ["a.png", "b.1"]
    assert "found:    ['a.png', 'b.1']" in message(file, ids=["b", "A", "a.p"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_line_ends_and_separators(file, encoding, end, separator):
    rows = [row.replace(",", separator).replace("a.jpg", "Ä.jpg") for row in (A, LATER_A)]
    columns = [f'"{name}"' for name in COLUMNS]
    write(file, *rows, columns=columns, separator=separator, encoding=encoding, end=end)
    scans = read(file, ids=["Ä"])
    assert scans["Ä"].fixations.tolist() == [[0.25, 0.5, 200, 0], [0.75, 0.5, 150, 240]]


@pytest.mark.parametrize(("separator", "quote"), [(";", ""), ("\t", ""), (",", '"')])
def test_decimal_commas(file, separator, quote):
    values = ("0,25", "0,5", "200,5", "0")
    row = separator.join(["a.jpg", "1", *(f"{quote}{v}{quote}" for v in values), "", "", ""])
    write(file, row, separator=separator)
    assert read(file)["a"].fixations.tolist() == [[0.25, 0.5, 200.5, 0]]


def test_extra_reordered_and_unnamed_columns_do_not_matter(file):
    columns = ["", "TRIAL", "CURRENT_FIX_START", "CURRENT_FIX_DURATION", "", "CURRENT_FIX_Y",
               "CURRENT_FIX_X", "IMAGE"]  # fmt: skip
    write(file, "0,x,0,200,7,0.5,0.25,a.jpg", columns=columns)
    assert read(file)["a"].fixations.tolist() == [[0.25, 0.5, 200, 0]]


def test_trailing_separator_does_not_matter(file):
    write(file, A + ",", B + ",")
    assert sorted(read(file)) == ["a", "b"]


@pytest.mark.parametrize("column", ["IMAGE", "CURRENT_FIX_X", "CURRENT_FIX_START"])
def test_an_absent_column_is_named(file, column):
    write(file, A, columns=[c if c != column else "SOMETHING" for c in COLUMNS])
    text = message(file)
    assert f"expected: also ['{column}']" in text
    assert "SOMETHING" in text
    assert ("recording.image_column" in text) == (column == "IMAGE")


@pytest.mark.parametrize("value", [".", "", "0;25", "0.25 px", "nan", "inf", "-inf", "True"])
@pytest.mark.parametrize("rows", [2, 500_000])
def test_value_that_is_not_a_number_is_reported_with_its_line(file, value, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    write(file, A, B, A, A.replace("0.25", value))
    text = message(file)
    assert text == (
        f"{file}: column CURRENT_FIX_X, line 5\n  found:    {value!r}\n  expected: a number\n"
        "  to mend:  correct or delete the line"
    )


@pytest.mark.parametrize("separator", [",", "\t"])
def test_short_line_has_missing_values(file, separator):
    rows = [row.replace(",", separator) for row in (A, "b.jpg,1,0.5")]
    write(file, *rows, separator=separator)
    text = message(file)
    assert text.startswith("3 problems:\n")
    assert "column CURRENT_FIX_Y, line 3\n  found:    ''\n  expected: a number" in text


def test_bad_number_with_decimal_comma_is_reported_with_its_line(file):
    rows = [row.replace(",", ";").replace(".5", ",5") for row in (A, B, A.replace("0.5", "o.5"))]
    write(file, *rows, separator=";")
    assert "column CURRENT_FIX_Y, line 4\n  found:    'o,5'" in message(file)


def test_blank_lines_are_skipped_but_count_as_lines(file):
    write(file, A, "", ",,,,,,,,", B, "")
    assert sorted(read(file)) == ["a", "b"]
    write(file, A, "", "", B.replace("300", "long"))
    assert "line 5\n  found:    'long'" in message(file)


@pytest.mark.parametrize("duration", ["0", "-5"])
def test_duration_must_be_above_0(file, duration):
    write(file, A, B.replace("300", duration))
    assert message(file) == (
        f"{file}: column CURRENT_FIX_DURATION, line 3\n  found:    {duration} ms\n"
        "  expected: a duration above 0 ms\n  to mend:  correct or delete the line"
    )


def test_a_table_of_another_data_set_is_refused(file):
    write(file, A, B)
    text = message(file, ids=["d", "c"])
    assert "column IMAGE" in text
    assert "found:    ['a.jpg', 'b.jpg']" in text
    assert "such as ['c', 'd']" in text


def test_pixels_are_not_taken_for_fractions(file):
    write(file, A.replace("0.25,0.5", "20,30"), B.replace("0.1,0.2", "64,12"))
    text = message(file)
    assert f"{file}: columns CURRENT_FIX_X, CURRENT_FIX_Y" in text
    assert "found:    100% of 2 fixations off their image; x from 20 to 64, y from 12 to 30" in text
    # On so small an image percent is as likely.
    assert "x and y can be pixels or percent: compare some rows" in text
    scans = read(file, unit="px")
    assert scans["b"].fixations.tolist() == [[64 / 80, 12 / 60, 300, 10]]


def test_other_images_do_not_count_as_off_the_image(file):
    write(file, A, *[B.replace("0.1,0.2", "64,12")] * 3)
    assert list(read(file, ids=["a"])) == ["a"]


def test_all_problems_are_reported_at_once(file):
    far = A.replace("0.25", "25")
    write(file, A.replace("200", "long"), A.replace("0.5", "up"), B.replace("300", "0"), far, far)
    with pytest.raises(BadInputGroup) as error:
        read(file)
    texts = [str(problem) for problem in error.value.problems]
    assert len(texts) == 4
    assert "column CURRENT_FIX_Y, line 3\n  found:    'up'" in texts[0]
    assert "column CURRENT_FIX_DURATION, line 2\n  found:    'long'" in texts[1]
    assert "67% of 3 fixations off their image" in texts[2]
    assert "column CURRENT_FIX_DURATION, line 4\n  found:    0 ms" in texts[3]
    assert str(error.value).startswith("4 problems:\n1. ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "No columns"),
        (b"\n\n", "No columns"),
        (b"IMAGE\xe9", "utf-8"),
        (
            ",".join(COLUMNS).encode() + f"\n{A}\nGr\xf6\xdfe.jpg{A[5:]}\n".encode("latin-1"),
            "utf-8",
        ),
    ],
)
def test_file_that_is_not_a_table_is_rejected(file, content, words):
    file.write_bytes(content)
    text = message(file)
    assert words in text
    assert "expected: a table in UTF-8 or UTF-16, with tabs, commas or semicolons" in text


def test_absent_file_and_repeated_column(file):
    assert "No such file" in message(file)
    write(file, A, columns=[*COLUMNS[:-1], "IMAGE"])
    assert "line 1\n  found:    the column 'IMAGE' twice" in message(file)


def test_folder_in_place_of_a_table(tmp_path):
    assert message(tmp_path) == (
        f"{tmp_path}: file\n  found:    a folder\n"
        "  expected: a table (gaze.recording.format: gazemedseg)\n"
        "  to mend:  give the path of the table; if the folder holds maps, set "
        "gaze.recording.format to heatmaps or refined"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_table_without_read_permission(file):
    write(file, A)
    file.chmod(0)
    text = message(file)
    assert "Permission denied" in text
    assert text.endswith("to mend:  give this user permission to read it")


@pytest.mark.parametrize("row", [f"{B},1,2", "b.jpg,1,0,25,0,5,200,0,900,60,80", f"{B},1"])
def test_a_line_with_too_many_values(file, row):
    write(file, A, row)
    assert message(file) == (
        f"{file}: line 3\n  found:    more values than columns\n"
        "  expected: at most 9 values, the number of columns in line 1\n"
        "  to mend:  put values that contain the separator, such as 0,5, in quotation marks, or "
        "correct the line"
    )


@pytest.mark.parametrize("rows", [(), (A.replace("a.jpg", ""),)])
def test_a_table_without_a_named_image(rows, file):
    write(file, *rows)
    text = message(file)
    assert "column IMAGE\n  found:    no row that names an image\n" in text
    assert "to mend:  export the recording again" in text


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("behind", ["{0}junk", "{0}{0}junk", "{0}{0}{0} 1 {0}"])
def test_values_after_the_last_column_are_not_dropped(file, separator, behind):
    rows = [row.replace(",", separator) for row in (A, B, LATER_A)]
    write(file, rows[0], rows[1] + 3 * separator, rows[2], separator=separator)
    assert sorted(read(file)) == ["a", "b"]
    rows[1] += behind.format(separator)
    write(file, *rows, separator=separator)
    assert f"{file}: line 3\n  found:    more values than columns" in message(file)


# Quotation marks: two notes that begin with one must not hide the rows between them.

NOTED = [*COLUMNS, "NOTE"]


def noted(separator, notes):
    rows = [A, B, LATER_A, B.replace(",300,10,", ",300,500,")]
    return [row.replace(",", separator) + separator + note for row, note in zip(rows, notes)]


def test_single_quotation_mark_in_a_table_with_tabs(file):
    rows = noted("\t", ['"5 mm lesion', "", '"x', 'a 5" one'])
    write(file, *rows, columns=NOTED, separator="\t")
    assert {name: len(scan.fixations) for name, scan in read(file).items()} == {"a": 2, "b": 2}
    rows[0] = '"' + rows[0]
    rows[1] = rows[1].replace("0.1", '0.1"')
    write(file, *rows, columns=NOTED, separator="\t")
    assert "column CURRENT_FIX_X, line 3\n  found:    '0.1\"'" in message(file)


def test_quotation_marks_around_a_value_are_removed_in_a_table_with_tabs(file):
    row = "\t".join(f'"{value}"' for value in A.split(","))
    lost = row.replace('"0.25"', '"."')
    write(file, row, columns=[f'"{c}"' for c in COLUMNS], separator="\t")
    assert read(file)["a"].fixations.tolist() == [[0.25, 0.5, 200, 0]]
    write(file, row, lost, separator="\t")
    scan = read(file, format="eyelink", unit="fraction")["a"]
    assert (len(scan.fixations), scan.off_image) == (1, 1)


@pytest.mark.parametrize("separator", [",", ";"])
def test_quotation_must_close_on_its_line_without_tabs(file, separator):
    good = ['"a, b; c"', '"say ""5"""', 'a 5" one', ""]
    write(file, *noted(separator, good), columns=NOTED, separator=separator)
    assert {name: len(scan.fixations) for name, scan in read(file).items()} == {"a": 2, "b": 2}
    for bad in ('"5 mm lesion', 'a 5" one"' + separator + '"x', '"5" wide'):
        write(file, *noted(separator, ["", bad, '"x', ""]), columns=NOTED, separator=separator)
        if bad.startswith("a"):
            assert "line 3\n  found:    a quotation mark" in message(file)
        else:
            assert message(file) == (
                f"{file}: line 3\n  found:    a quotation mark without a closing one\n"
                "  expected: quotation marks in pairs around a value, both on one line\n"
                "  to mend:  delete the mark, or the line break after it"
            )


def test_line_break_inside_a_value_is_reported_with_its_line(file, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", 2)
    rows = noted(",", ["", "", '"two\nlines"', ""])
    write(file, *rows, columns=NOTED)
    assert "line 4\n  found:    a quotation mark" in message(file)
    write(file, *rows, columns=[f'"{NOTED[0]}', *NOTED[1:]])
    assert "line 1\n  found:    a quotation mark" in message(file)


# Any text that a person may type in one line.
notes = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 700), notes), min_size=1, max_size=9),
    st.sampled_from([",", ";", "\t"]),
)
def test_notes_do_not_change_the_rows(tmp_path_factory, rows, separator):
    file = tmp_path_factory.mktemp("noted") / "recording.txt"
    lines = [[*COLUMNS[:6], "NOTE"]]
    # Each fixation begins after the one above has ended.
    rows = [(name, 1000 * i + n, note) for i, (name, n, note) in enumerate(rows)]
    lines += [[f"{name}.jpg", "1", "0.5", "0.25", "300", str(n), note] for name, n, note in rows]
    with file.open("w", encoding="utf-8", newline="") as stream:
        if separator == "\t":
            stream.writelines("\t".join(line) + "\r\n" for line in lines)
        else:
            csv.writer(stream, delimiter=separator).writerows(lines)
    scans = read(file)
    for name in "ab":
        starts = [n for other, n, _ in rows if other == name]
        assert (scans[name].fixations[:, 3].tolist() if starts else []) == starts
        assert (name in scans) == bool(starts)


# Commas in numbers


@pytest.mark.parametrize("rows", [2, 500_000])
def test_a_column_has_one_decimal_sign(file, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    far = A.replace("0.25", '"0,75"')
    write(file, A, B, B, far)
    assert message(file) == (
        f"{file}: column CURRENT_FIX_X, line 5\n"
        "  found:    '0,75', while line 2 has '0.25'\n"
        "  expected: one decimal sign per column, and no thousands separators\n"
        "  to mend:  write all decimals with points, or all with commas"
    )
    # Another column may have another sign.
    write(file, *(row.replace("0.5", '"0,5"').replace("0.2,", '"0,2",') for row in (A, B)))
    assert read(file)["b"].fixations[0, :2].tolist() == [0.1, 0.2]


@pytest.mark.parametrize("rows", [2, 500_000])
def test_thousands_separator_is_not_a_decimal_comma(file, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    durations = ["200", "340", '"1,250"', "300"]
    write(file, *(A.replace("200", duration) for duration in durations))
    assert message(file) == (
        f"{file}: column CURRENT_FIX_DURATION, line 4\n"
        "  found:    '1,250', which may mean 1250 or 1.250\n"
        "  expected: no thousands separators\n"
        "  to mend:  remove the comma; if it is a decimal comma, write decimals with points"
    )
    for decimals in (['"200,125"', '"340,50"'], ["200", '"340,5"', '"1,250"'], ['"0,125"', "90"]):
        write(file, *(A.replace("200", duration) for duration in decimals))
        found = read(file, shortest=0)["a"].fixations[:, 2].tolist()
        assert found == [float(text.strip('"').replace(",", ".")) for text in decimals]
    # If other columns have decimal points, all commas of this column may separate thousands.
    write(file, A.replace("0.5", '"1,024"'), A.replace("0.5", '"1,500"'))
    assert "line 2\n  found:    '1,024', which may mean 1024 or 1.024" in message(file)
    write(file, A.replace("200", '"1,250,500"'))
    assert "line 2\n  found:    '1,250,500'\n  expected: a number" in message(file)


@pytest.mark.parametrize("rows", [1, 500_000])
def test_unambiguous_decimal_comma_settles_other_columns(file, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    place = {"format": "eyelink", "unit": "px", "screen": {"size": (1920, 1080)}}

    def export(x, time):
        lines = ["a.jpg;1;512,835;496,241;200;0", f"a.jpg;2;{x};0;200;{time}"]
        write(file, *lines, columns=COLUMNS[:6], separator=";")

    for x in ("1171,835", "812,5"):
        export(x, 250)
        found = read(file, **place)["a"].fixations[:, 1] * 1080
        assert found.tolist() == pytest.approx([496.241, 0])
    # Whole numbers and other ambiguous commas do not settle it; decimal points contradict it.
    for x, time in (("812", 250), ("812,250", 250), ("1171,835", 250.5)):
        export(x, time)
        assert "line 2\n  found:    '496,241', which may mean" in message(file, **place)


# Image names


def test_images_in_two_folders_are_not_one_sample(file):
    rows = ["patA/1.png" + A[5:], "1.png" + B[5:].replace(",300,10,", ",300,210,")]
    write(file, *rows, "patA/1.dcm" + B[5:].replace(",300,10,", ",300,600,"))
    assert len(read(file, ids=["1"])["1"].fixations) == 3
    write(file, *rows, r"patB\1.png" + B[5:])
    assert message(file, ids=["1"]) == (
        f"{file}: column IMAGE\n"
        "  found:    'patA/1.png', 'patB\\\\1.png' for the sample '1'\n"
        "  expected: one folder per sample: files in two folders may be different images\n"
        "  to mend:  delete the rows of the other images; if the images are the same, remove the "
        "folders from their names"
    )


def test_message_names_only_some_images_in_two_folders(file):
    names = [f"{folder}/{i}.png" for i in range(5) for folder in "xy"]
    write(file, *(name + A[5:] for name in names))
    text = message(file, ids=[str(i) for i in range(5)])
    assert "for the sample '2'; and 2 more samples\n" in text
    assert "'3'" not in text


def test_image_shown_in_another_size_is_rejected(file):
    near = A.replace("60,80", "61,79")
    unsaid = B.replace("60,80", ",.")
    write(file, A, near, unsaid)
    assert sorted(read(file)) == ["a", "b"]
    write(file, A, near, B.replace("60,80", "480.0,640.0"), A.replace("60,80", "60,82"))
    assert message(file) == (
        f"{file}: columns IMAGE_HEIGHT and IMAGE_WIDTH, line 4\n"
        "  found:    480 and 640 for the sample 'b'; 1 more with another size\n"
        "  expected: 60 and 80, the size of its image\n"
        "  to mend:  use the images that were shown; if the images were only scaled afterwards, "
        "delete the two columns"
    )
    # A user's own report may have variables of these names; one of the two columns is not enough.
    write(file, B.replace("60,80", "480,640"))
    assert list(read(file, format="eyelink", unit="fraction")) == ["b"]
    write(file, B.replace("60,80", "480,640"), columns=[*COLUMNS[:-1], "OTHER"])
    assert list(read(file)) == ["b"]


# Units of time


@pytest.mark.parametrize(
    ("durations", "words"),
    [
        (
            [0.25, 0.2, 1.5],
            "found:    3 fixations of 0.2 to 1.5 ms, with a median of 0.25 ms\n"
            "  expected: fixations of 50 ms (gaze.min_fixation_ms) or longer\n"
            "  to mend:  the durations look like seconds: set recording.time_unit: s",
        ),
        (
            [250_000, 30_000, 1_500_000],
            "found:    3 fixations of 30000 to 1.5e+06 ms, with a median of 250000 ms\n"
            "  expected: a median of at most 20000 ms\n"
            "  to mend:  the durations look like microseconds: set recording.time_unit: us",
        ),
        (
            [40, 49, 20],
            "found:    3 fixations of 20 to 49 ms, with a median of 40 ms\n"
            "  expected: fixations of 50 ms (gaze.min_fixation_ms) or longer\n"
            "  to mend:  correct recording.time_unit, or lower gaze.min_fixation_ms",
        ),
    ],
)
def test_durations_in_another_unit(file, durations, words):
    write(file, *(A.replace("200", str(duration)) for duration in durations))
    assert message(file) == f"{file}: column CURRENT_FIX_DURATION\n  {words}"


def test_single_outliers_do_not_suggest_another_unit(file):
    write(file, A.replace("200", "30000"), A, A.replace("200", "0.2"))
    assert len(read(file)["a"].fixations) == 2


def test_recording_without_usable_fixations(file):
    off = A.replace("0.25", "1.5")
    write(file, off, off, A.replace("200", "20"))
    assert message(file, max_off_image=1) == (
        f"{file}: fixations\n"
        "  found:    no usable fixation: 2 off their image, 1 too short\n"
        "  expected: fixations on their image, of 50 ms (gaze.min_fixation_ms) or longer\n"
        "  to mend:  check the unit of the durations, and unit, origin and screen of "
        "gaze.recording"
    )
    # If the coordinates are wrong already, there is no second message.
    assert "problems" not in message(file)


# EyeLink Data Viewer: tabs, a dot for a missing value, trial variables with names of the user.

REPORT = [
    "RECORDING_SESSION_LABEL", "TRIAL_INDEX", "CURRENT_FIX_INDEX", "CURRENT_FIX_X",
    "CURRENT_FIX_Y", "CURRENT_FIX_DURATION", "CURRENT_FIX_START", "NEXT_SAC_AMPLITUDE", "picture",
]  # fmt: skip
# An image of 80 × 60 px fills the screen of 1024 × 768 px.
EYELINK = {
    "format": "eyelink",
    "unit": "px",
    "screen": {"size": (1024, 768)},
    "image_column": "picture",
}
TRIALS = [
    "s1\t1\t1\t512.0\t384.0\t212\t4\t2.50\ta.bmp",
    "s1\t1\t2\t.\t.\t180\t250\t.\ta.bmp",
    "s1\t2\t1\t256.0\t192.0\t96\t8\t.\tb.bmp",
    "s2\t1\t1\t768.0\t576.0\t40\t6\t.\ta.bmp",
    "s2\t1\t2\t768.0\t576.0\t140\t66\t.\ta.bmp",
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_fixation_report(file, encoding):
    write(file, *TRIALS, columns=REPORT, separator="\t", encoding=encoding)
    scans = read(file, **EYELINK)
    # The fixations of both readers follow each other; a lost eye counts as off the image.
    assert scans["a"].fixations.tolist() == [[0.5, 0.5, 212, 4], [0.75, 0.75, 140, 66]]
    assert scans["a"][1:] == (1, 1)
    assert scans["b"].fixations.tolist() == [[0.25, 0.25, 96, 8]]


def test_a_localised_report_with_quotes(file):
    rows = [row.replace(".0\t", ",0\t").replace("a.bmp", '"a.bmp"') for row in TRIALS]
    write(file, *rows, columns=[f'"{name}"' for name in REPORT], separator="\t")
    assert read(file, **EYELINK)["a"].fixations[:, 0].tolist() == [0.5, 0.75]


def test_image_column_with_another_name(file):
    write(file, *TRIALS, columns=REPORT, separator="\t")
    text = message(file, **EYELINK | {"image_column": ""})
    assert "expected: also ['IMAGE']" in text
    assert "'picture'" in text
    assert "if another column names the image, set recording.image_column" in text


def test_report_needs_a_duration_in_every_row(file):
    write(file, TRIALS[0], TRIALS[1].replace("180", "."), columns=REPORT, separator="\t")
    assert "column CURRENT_FIX_DURATION, line 3\n  found:    '.'" in message(file, **EYELINK)


def test_report_with_too_many_lost_fixations(file):
    write(file, TRIALS[0], TRIALS[1], TRIALS[1], columns=REPORT, separator="\t")
    text = message(file, **EYELINK)
    assert "67% of 3 fixations off their image, 67% without a position" in text


# Tobii Pro Lab: one row per sample, at 10 Hz here.

EXPORT = [
    "Recording timestamp [ms]", "Sensor", "Participant name", "Recording name",
    "Gaze point X [DACS px]", "Presented Stimulus name", "Eye movement type",
    "Gaze event duration [ms]", "Eye movement type index", "Fixation point X [DACS px]",
    "Fixation point Y [DACS px]", "Fixation point X [MCS px]", "Fixation point Y [MCS px]",
    "Fixation point X [MCS norm]", "Fixation point Y [MCS norm]",
]  # fmt: skip
DACS = {"format": "tobii", "unit": "px", "screen": {"size": (800, 600)}}
MCS = {"format": "tobii", "unit": "px"}
NORM = {"format": "tobii", "unit": "fraction"}


def tobii_rows(reader="P1", recording="R1", start=1000, scale=1):
    """Rows of one fixation on a, one that begins on a and ends on b, and one on b."""

    def row(step, image="", kind="", duration="", index="", x=None, y=None):
        # On the screen of 800 × 600 px the image of 80 × 60 px is enlarged ten times.
        point = ["", ""] * 3 if x is None else [x, y, x / 10, y / 10, x / 800, y / 600]
        values = [(start + 100 * step) * scale, "Eye Tracker", reader, recording, "", image, kind,
                  duration, index, *point]  # fmt: skip
        return "\t".join(map(str, values))

    return [
        row(0),
        row(1, "a.png", "Saccade", 100, 1),
        *(row(i, "a.png", "Fixation", 300, 1, 200, 300) for i in (2, 3)),
        # A mouse event: a row without gaze in the middle of a fixation.
        row(3.5, "a.png"),
        row(4, "a.png", "Fixation", 300, 1, 200, 300),
        row(5, "a.png", "EyesNotFound", 100, 1),
        row(6, "a.png", "Fixation", 300, 2, 400, 150),
        *(row(i, "b.png", "Fixation", 300, 2, 400, 150) for i in (7, 8)),
        row(9, "b.png", "Fixation", 100, 3, 600, 450),
        row(10, "b.png", "Unclassified", 100, 1),
    ]


def write_tobii(file, *rows, columns=EXPORT, encoding="utf-8-sig"):
    write(file, *rows, columns=columns, separator="\t", encoding=encoding, end="\r\n")


@pytest.mark.parametrize("settings", [DACS, MCS, NORM], ids=["DACS", "MCS", "norm"])
@pytest.mark.parametrize("rows", [3, 7, 500_000])
def test_an_export_of_pro_lab(file, settings, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    write_tobii(file, *tobii_rows(), *tobii_rows("P2", "R7", 50_000))
    scans = read(file, **settings)
    once = [[0.25, 0.5, 300, 100], [0.5, 0.25, 300, 500]]
    np.testing.assert_allclose(scans["a"].fixations, once * 2)
    np.testing.assert_allclose(scans["b"].fixations, [[0.75, 0.75, 100, 200]] * 2)


@pytest.mark.parametrize(
    ("stamp", "scale"),
    [("Recording timestamp [μs]", 1000), ("Recording timestamp [µs]", 1000),
     ("Recording timestamp", 1000), ("Recording timestamp", 1)],
)  # fmt: skip
def test_timestamp_unit_follows_from_name_or_durations(file, stamp, scale):
    write_tobii(file, *tobii_rows(scale=scale), columns=[stamp, *EXPORT[1:]], encoding="utf-16")
    assert read(file, **MCS)["a"].fixations[:, 3].tolist() == pytest.approx([100, 500])


def test_an_older_export(file):
    older = {
        "Presented Stimulus name": "Presented Media name",
        "Gaze event duration [ms]": "Gaze event duration",
        "Fixation point X [DACS px]": "Fixation point X",
        "Fixation point Y [DACS px]": "Fixation point Y",
        "Fixation point X [MCS px]": "Fixation point X (MCSpx)",
        "Fixation point Y [MCS px]": "Fixation point Y (MCSpx)",
        "Fixation point X [MCS norm]": "Fixation point X (MCSnorm)",
        "Fixation point Y [MCS norm]": "Fixation point Y (MCSnorm)",
    }
    write_tobii(file, *tobii_rows(), columns=[older.get(name, name) for name in EXPORT])
    for settings in (DACS, MCS, NORM):
        scan = read(file, **settings)["b"]
        np.testing.assert_allclose(scan.fixations, [[0.75, 0.75, 100, 200]])


def test_newer_duration_column_and_decimal_commas(file):
    newer = [name.replace("Gaze event", "Eye movement event") for name in EXPORT]
    write_tobii(file, *(row.replace(".", ",").replace(",png", ".png") for row in tobii_rows()),
                columns=newer)  # fmt: skip
    assert read(file, **NORM)["a"].fixations[0].tolist() == pytest.approx([0.25, 0.5, 300, 100])


def test_another_column_may_name_the_image(file):
    write_tobii(file, *tobii_rows(), columns=[n.replace("Presented Stimulus name", "Snapshot")
                                              for n in EXPORT])  # fmt: skip
    assert sorted(read(file, image_column="Snapshot", **MCS)) == ["a", "b"]
    assert "expected: also ['Presented Stimulus name']" in message(file, **MCS)
    assert "expected: also ['TOI']" in message(file, image_column="TOI", **MCS)


def test_fixation_off_the_stimulus_counts_as_off_image(file):
    rows = [row if "400" not in row else "\t".join(row.split("\t")[:11] + [""] * 4)
            for row in tobii_rows()]  # fmt: skip
    write_tobii(file, *rows)
    assert read(file, **MCS)["a"].off_image == 1


def test_coordinates_that_were_not_exported(file):
    plain = [name for name in EXPORT if "MCS" not in name]
    write_tobii(file, *("\t".join(row.split("\t")[:11]) for row in tobii_rows()), columns=plain)
    text = message(file, **MCS)
    assert "also ['Fixation point X [MCS px]', 'Fixation point Y [MCS px]']" in text
    assert "recording.unit and recording.screen decide which coordinates are read" in text
    assert "'Fixation point X [DACS px]' is on the screen, so set recording.screen" in text
    assert sorted(read(file, **DACS)) == ["a", "b"]


@pytest.mark.parametrize("rows", [1, 4, 500_000])
def test_decreasing_time_starts_another_recording(file, rows, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    plain = [name for name in EXPORT if name not in ("Participant name", "Recording name")]

    def fixation(image, start, duration):
        # Each recording numbers its fixations from 1.
        values = f"Eye Tracker\t\t{image}\tFixation\t{duration}\t1\t\t\t40\t30\t\t"
        return [f"{time}\t{values}" for time in range(start, start + duration, 100)]

    write_tobii(
        file,
        *fixation("a.png", 100, 300),
        *fixation("b.png", 0, 400),
        "50" + "\t" * 12,
        *fixation("b.png", 500, 300),
        columns=plain,
    )
    scans = read(file, **MCS)
    assert scans["a"].fixations[:, 2:].tolist() == [[300, 0]]
    # The third fixation begins after the second has ended, but its recording begins earlier.
    assert scans["b"].fixations[:, 2:].tolist() == [[400, 0], [300, 0]]


def test_an_export_without_a_fixation_filter(file):
    write_tobii(file, *(row.replace("Fixation", "Unclassified") for row in tobii_rows()))
    text = message(file, **MCS)
    assert "column Eye movement type\n" in text
    assert "found:    ['EyesNotFound', 'Saccade', 'Unclassified']" in text
    assert "expected: rows of the type 'Fixation'" in text


def test_an_export_whose_fixations_are_all_on_other_images(file):
    # The saccade stays on a.png.
    rows = (
        row.replace("a.png", "c.png").replace("b.png", "c.png") if "Fixation" in row else row
        for row in tobii_rows()
    )
    write_tobii(file, *rows)
    assert "found:    none on an image of the data set" in message(file, **MCS)


def test_a_fixation_without_a_number(file):
    rows = tobii_rows()
    rows[3] = rows[3].replace("\t300\t1\t", "\t300\t\t")
    write_tobii(file, *rows)
    assert "column Eye movement type index, line 5\n  found:    no number" in message(file, **MCS)


def test_a_fixation_without_a_duration(file):
    write_tobii(file, *(row.replace("\t100\t3\t", "\t\t3\t") for row in tobii_rows()))
    text = message(file, **MCS)
    assert "column Gaze event duration [ms], line 12\n  found:    none" in text


# Settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": "eyelink"}, "recording.unit must be set for the format eyelink"),
        (
            {"format": "samples", "unit": "px"},
            "recording.detection must be set for the format samples: rate_hz, screen_mm and ",
        ),
        (
            {"detection": {"rate_hz": 500, "screen_mm": (500, 400), "distance_mm": 600}},
            "recording.detection does not apply to the format gazemedseg",
        ),
        ({**DACS, "unit": "fraction"}, "recording.unit must be px for the format tobii"),
        ({"format": "refined", "unit": "px"}, "recording.unit does not apply to the format ref"),
        ({"screen": {"size": (800, 600), "area": (10, 0, 800, 600)}}, "reaches beyond screen.size"),
    ],
)
def test_settings_that_do_not_fit_together(values, words):
    with pytest.raises(ValidationError, match=words):
        RecordingSettings.model_validate(values)


def test_settings_survive_json():
    for values in ({"format": "heatmaps"}, {"format": "refined"}, EYELINK, DACS, {}):
        settings = RecordingSettings.model_validate(values)
        assert RecordingSettings.model_validate_json(settings.model_dump_json()) == settings


def test_matches_a_plain_pandas_reader(file):
    """Compare every column with a plain pandas reader."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "IMAGE": rng.choice(["a.jpg", "b.jpg"], 500),
            **dict(zip(COLUMNS[2:4], rng.uniform(0, 1, (2, 500)))),
            "CURRENT_FIX_DURATION": rng.integers(50, 900, 500),
            "CURRENT_FIX_START": 1000 * np.arange(500),
        }
    )
    frame.to_csv(file, index=False)
    for name, scan in read(file).items():
        expected = frame[frame["IMAGE"] == f"{name}.jpg"].iloc[:, 1:]
        np.testing.assert_array_equal(scan.fixations, expected)


# Rows in the wrong order, and time that is written twice


@pytest.mark.parametrize("rows", [1, 4, 500_000])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("late", ["event", "exchanged", "sorted"])
def test_late_rows_of_tobii_do_not_cut_a_fixation(file, late, named, rows, monkeypatch, caplog):
    monkeypatch.setattr(table, "CHUNK_ROWS", rows)
    lines = []
    for index in range(4):
        image = "ab"[index // 2]
        for i in range(10):
            values = [200 * index + 20 * i, "Eye Tracker", "P1", "R1", "", f"{image}.png",
                      "Fixation", 200, index + 1, 40, 30 + index, 40, 30 + index]  # fmt: skip
            lines.append("\t".join(map(str, [*values, 0.5, 0.5])))
        if late == "event":
            # A row without gaze, and without an image, 7 ms late.
            event = [200 * index + 80 - 7, "Mouse", "P1", "R1"]
            lines.insert(len(lines) - 5, "\t".join(map(str, event)) + "\t" * 11)
        elif late == "exchanged":
            lines[-4], lines[-3] = lines[-3], lines[-4]
    columns = EXPORT
    if not named:
        columns = [name.replace("Participant name", "p").replace("Recording name", "r")
                   for name in EXPORT]  # fmt: skip
    write_tobii(file, *lines, columns=columns)
    scans = read(file, **MCS)
    for name in "ab":
        assert scans[name].fixations[:, 2:].tolist() == [[200, 0], [200, 200]]
    assert ("the time is less than in the row above" in caplog.text) == (late != "sorted")
    if late == "event":
        assert "in 4 rows" in caplog.text
        assert "(lines 7, 18, 29, 40)" in caplog.text
    # Two recordings below each other stay two, even without columns that name them.
    other = [line.replace("\tR1\t", "\tR2\t").replace("0.5", "0.25") for line in lines]
    write_tobii(file, *lines, *other, columns=columns)
    assert [len(scan.fixations) for scan in read(file, **NORM).values()] == [4, 4]


def test_a_tobii_fixation_that_began_before_its_image(file):
    """By hand: 300 ms that end before 500 began at 200, or 200 ms before the image's first row."""
    rows = [(400, 300, 1), (450, 300, 1), (500, 100, 2), (550, 100, 2)]
    lines = [f"{t}\tEye Tracker\tP1\tR1\t\ta.png\tFixation\t{d}\t{i}\t\t\t{9 * i}\t9\t\t"
             for t, d, i in rows]  # fmt: skip
    write_tobii(file, *lines)
    assert read(file, **MCS)["a"].fixations[:, 2:].tolist() == [[300, -200], [100, 100]]


def test_a_growing_fixation_counts_once(file, caplog):
    """Fifteen rows of each fixation, as in an export with a row for each sample."""
    rows = [f"{name}.jpg,{n},{0.2 * n + i / 1000},0.5,{17 * (i + 1)},{300 * n},900,60,80"
            for name in "ab" for n in range(1, 5) for i in range(15)]  # fmt: skip
    write(file, *rows)
    scans = read(file)
    for name in "ab":
        assert scans[name].fixations[:, 2].tolist() == [255] * 4
        assert scans[name].fixations[:, 0] == pytest.approx([0.214, 0.414, 0.614, 0.814])
    assert "112 of 120 fixations overlap another one of the same image in time" in caplog.text
    assert "(lines 2, 3, 4, 5, 6 and 107 more)" in caplog.text


def test_readers_of_a_report_are_told_apart(file, caplog):
    """Without the name of the session, the second reader's first fixation would overlap."""
    columns = ["RECORDING_SESSION_LABEL", *COLUMNS[:6]]
    rows = ["p1,a.jpg,1,0.25,0.5,300,0", "p2,a.jpg,1,0.3,0.5,200,20", "p2,a.jpg,2,0.9,0.5,200,250"]
    write(file, *rows, columns=columns)
    scan = read(file, format="eyelink", unit="fraction")["a"]
    assert scan.fixations[:, 2].tolist() == [300, 200, 200]
    assert "overlap" not in caplog.text


def test_times_that_begin_anew_with_each_image_keep_the_fixations_apart(file):
    """In a named recording, too: one fixation is not on two images at one time."""
    rows = [f"{t}\tEye Tracker\tP1\tR1\t\t{image}.png\tFixation\t200\t1\t40\t30\t4\t3\t\t"
            for image in "ab" for t in (0, 100)]  # fmt: skip
    write_tobii(file, *rows)
    scans = read(file, **MCS)
    assert [scans[name].fixations[:, 2:].tolist() for name in "ab"] == [[[200, 0]]] * 2
