"""The published fixation export, as it comes and as users' own exports come."""

import numpy as np
import pytest

from stages.cli import BadInput
from stages.fixations import read_fixations

COLUMNS = [
    "IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION",
    "CURRENT_FIX_PUPIL", "CURRENT_FIX_START", "IMAGE_HEIGHT", "IMAGE_WIDTH",
]  # fmt: skip
A = "a.jpg,1,0.25,0.5,200,900,0,60,80"
LATER_A = "a.jpg,2,0.75,0.5,150,900,240,60,80"
B = "b.jpg,1,0.1,0.2,300,900,10,60,80"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "fixations.csv"


def write(file, *rows, columns=COLUMNS):
    file.write_text("\n".join([",".join(columns), *rows]) + "\n", "utf-8")


def read(file, ids=("a", "b"), shortest=50):
    return read_fixations(file, ids, shortest)


def message(file, **options):
    with pytest.raises(BadInput) as error:
        read(file, **options)
    assert str(error.value).startswith(f"{file}: ")
    return str(error.value)


def test_fixations_come_by_sample_with_position_duration_and_start(file):
    write(file, A, B, LATER_A)
    scans = read(file)
    assert sorted(scans) == ["a", "b"]
    assert scans["a"].dtype == np.float64
    assert scans["a"].tolist() == [[0.25, 0.5, 200, 0], [0.75, 0.5, 150, 240]]
    assert scans["b"].tolist() == [[0.1, 0.2, 300, 10]]


def test_the_order_is_that_of_the_file(file):
    rows = [f"{name}.jpg,1,0.5,0.5,{100 + i},900,{1000 - i},60,80" for i, name in
            enumerate("abbaab")]  # fmt: skip
    write(file, *rows)
    assert {name: scan[:, 2].tolist() for name, scan in read(file).items()} == {
        "a": [100, 103, 104],
        "b": [101, 102, 105],
    }


def test_a_sample_that_nobody_looked_at_is_absent(file):
    write(file, A)
    assert list(read(file)) == ["a"]


def test_rows_of_other_images_are_left_out_and_counted(file, caplog):
    write(file, A, B, LATER_A)
    assert list(read(file, ids=["b"])) == ["b"]
    assert "2 rows are of images outside the data set" in caplog.text


def test_the_edges_belong_to_the_image_and_the_shortest_duration_is_kept(file):
    rows = ["0,0,50", "1,1,60", "-0.001,0.5,100", "0.5,1.001,100", "0.5,0.5,49.9", "0.5,0.5,70"]
    write(file, *(f"a.jpg,1,{row},900,0,60,80" for row in rows))
    assert read(file)["a"][:, 2].tolist() == [50, 60, 70]


def test_where_every_row_is_dropped_nobody_looked(file):
    write(file, A, B)
    assert read(file, shortest=1000) == {}


@pytest.mark.parametrize("sample_id", ["NA", "frame 1", "nan", "007", "1e3", "a.b", "Größe"])
def test_an_id_is_text_whatever_it_looks_like(file, sample_id):
    write(file, A.replace("a.jpg", f"{sample_id}.jpg"))
    assert list(read(file, ids=[sample_id])) == [sample_id]


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(file):
    write(file, A, B)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert sorted(read(file)) == ["a", "b"]


def test_more_columns_in_another_order_do_not_matter(file):
    write(file, "x,0,200,0.5,0.25,a.jpg",
          columns=["TRIAL", "CURRENT_FIX_START", "CURRENT_FIX_DURATION", "CURRENT_FIX_Y",
                   "CURRENT_FIX_X", "IMAGE"])  # fmt: skip
    assert read(file)["a"].tolist() == [[0.25, 0.5, 200, 0]]


# Errors


@pytest.mark.parametrize("column", ["IMAGE", "CURRENT_FIX_X", "CURRENT_FIX_START"])
def test_an_absent_column_is_named(file, column):
    write(file, A, columns=[c if c != column else "SOMETHING" for c in COLUMNS])
    text = message(file)
    assert f"expected: also ['{column}']" in text
    assert "SOMETHING" in text


@pytest.mark.parametrize("value", [".", "", "0;25", "0.25 px", "nan", "inf", "-inf"])
def test_a_value_that_is_no_number_is_shown_with_its_line(file, value):
    write(file, A, B, A.replace("0.25", value))
    text = message(file)
    assert f"column CURRENT_FIX_X, line 4\n  found:    {value!r}\n  expected: a number" in text


def test_an_endless_duration_is_no_number(file):
    write(file, A.replace("200", "inf"))
    assert "column CURRENT_FIX_DURATION, line 2" in message(file)


def test_blank_lines_are_no_fixations_and_count_as_lines(file):
    write(file, A, "", B, "")
    assert sorted(read(file)) == ["a", "b"]
    write(file, A, "", "", B.replace("300", "long"))
    assert "line 5\n  found:    'long'" in message(file)


def test_pixels_are_not_taken_for_normalised_positions(file):
    write(file, A.replace("0.25,0.5", "20,30"), B.replace("0.1,0.2", "64,12"), LATER_A)
    text = message(file)
    assert "67% of the fixations off the image, largest x 64" in text
    assert "coordinates from 0 to 1" in text
    assert "divide pixels" in text


def test_some_fixations_off_the_image_are_no_reason_to_stop(file):
    write(file, A, B, LATER_A.replace("0.75", "1.2"))
    assert len(read(file)["a"]) == 1


def test_other_images_do_not_count_for_what_lies_off_the_image(file):
    write(file, A, *[B.replace("0.1,0.2", "64,12")] * 3)
    assert list(read(file, ids=["a"])) == ["a"]


def test_a_table_of_another_data_set_is_refused(file):
    write(file, A, B)
    text = message(file, ids=["c", "d"])
    assert "column IMAGE" in text
    assert "found:    ['a', 'b']" in text
    assert "such as ['c', 'd']" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "No columns"),
        (b"IMAGE\xe9", "utf-8"),
        (",".join(COLUMNS).encode() + f"\n{A}\n{B},1,2\n".encode(), "line 3"),
    ],
)
def test_a_file_that_is_no_table_is_refused(file, content, words):
    file.write_bytes(content)
    text = message(file)
    assert words in text
    assert "a table in UTF-8, commas between its columns" in text


def test_a_header_alone_has_no_row_of_the_data_set(file):
    write(file)
    assert "found:    []" in message(file)
