"""Measures of a sample's gaze against values computed by hand, and the limits that flag it."""

import math

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.gaze import quality
from stages.gaze.quality import (
    count_reasons,
    flag_reasons,
    flag_sample,
    measure_quality,
    measure_sample,
    quality_table,
)
from stages.gaze.recordings.scan import Scanpath
from stages.settings.quality import QualitySettings

NAN = float("nan")
LEVELS = (0.5, 0.3)
# 10 × 20 pixels: the precise level covers 4 of 200, the broad level 40.
SIZE = (10, 20)
PSEUDOMASK = np.zeros((2, *SIZE), np.uint8)
PSEUDOMASK[0, 4:6, 4:6] = 1
PSEUDOMASK[1, 2:10, 2:7] = 1
# 40 pixels: it contains the precise level, and shares three of five columns with the broad one.
TRUTH = np.zeros(SIZE, np.uint8)
TRUTH[2:10, 4:9] = 1

ROW = {
    "fixations": 10.0, "off_image": 0.0, "short": 0.0, "on_image": 1.0, "dwell_ms": 3000.0,
    "span_ms": 4000.0, "dispersion": 0.1, "area_0.5": 0.05, "area_0.3": 0.1,
    "dice_0.5": 0.6, "dice_0.3": 0.7, "on_target": 0.8, "on_target_count": 0.7,
}  # fmt: skip


def scan(*fixations, off_image=0, short=0):
    return Scanpath(np.array(fixations, np.float64).reshape(-1, 4), off_image, short)


def measures_of(scanpath, truth=TRUTH, original_size=(100, 100)):
    return measure_sample(scanpath, PSEUDOMASK, truth, LEVELS, original_size)


def test_every_measure_of_a_scanpath():
    # Columns 4 and 10 of 20, row 5 of 10: the first is on the truth, the second is not.
    row = measures_of(
        scan((0.2, 0.5, 300, 100), (0.5, 0.5, 100, 500), off_image=1, short=5), original_size=(3, 4)
    )
    assert (row["fixations"], row["off_image"], row["short"]) == (2, 1, 5)
    # Of the 3 fixations that are long enough, 2 are on the image.
    assert row["on_image"] == pytest.approx(2 / 3)
    assert row["dwell_ms"] == 400
    # From 100 to 500 + 100.
    assert row["span_ms"] == 500
    # Along x, 0.3 · 4 px apart, weights ¾ and ¼: variance 1.2² · ¾ · ¼; the diagonal is 5 px.
    assert row["dispersion"] == pytest.approx(1.2 * math.sqrt(3 / 16) / 5)
    assert row["area_0.5"] == 4 / 200
    assert row["area_0.3"] == 40 / 200
    # 4 shared of 4 + 40 pixels; 8 rows of 3 columns shared of 40 + 40.
    assert row["dice_0.5"] == pytest.approx(2 * 4 / 44)
    assert row["dice_0.3"] == pytest.approx(2 * 24 / 80)
    assert row["on_target"] == 0.75
    assert row["on_target_count"] == 0.5


def test_dispersion_depends_on_the_aspect_ratio():
    pair = ((0.5, 0.0, 100, 0), (0.5, 1.0, 100, 200))
    # Half the height of the image, over its diagonal.
    assert measures_of(scan(*pair), original_size=(300, 400))["dispersion"] == pytest.approx(0.3)
    assert measures_of(scan(*pair), original_size=(400, 300))["dispersion"] == pytest.approx(0.4)


def test_dispersion_of_uniform_gaze_matches_the_settings_description():
    x, y = np.meshgrid((np.arange(100) + 0.5) / 100, (np.arange(100) + 0.5) / 100)
    grid = np.stack([x.ravel(), y.ravel(), np.full(x.size, 200), np.zeros(x.size)], axis=1)
    found = measures_of(Scanpath(grid, 0, 0), original_size=(30, 80))["dispersion"]
    assert found == pytest.approx(math.sqrt(1 / 12), rel=1e-3)
    assert f"{found:.2f}" in QualitySettings.model_fields["max_dispersion"].description


def test_positions_at_the_border_belong_to_the_outermost_pixels():
    truth = np.zeros(SIZE, np.uint8)
    truth[-1, -1] = 1
    assert measures_of(scan((1, 1, 200, 0)), truth)["on_target"] == 1
    assert measures_of(scan((0, 0, 200, 0)), truth)["on_target"] == 0
    # Column 18 of 0 to 19, at 0.949; column 19 from 0.95.
    assert measures_of(scan((0.949, 0.95, 200, 0)), truth)["on_target"] == 0
    assert measures_of(scan((0.951, 0.95, 200, 0)), truth)["on_target"] == 1


def test_without_a_mask_its_measures_are_nan():
    row = measures_of(scan((0.2, 0.5, 300, 0)), truth=None)
    missing = {name for name, value in row.items() if math.isnan(value)}
    assert missing == {"dice_0.5", "dice_0.3", "on_target", "on_target_count"}


def test_a_map_has_only_areas_and_dice():
    row = measures_of(None)
    known = {name for name, value in row.items() if not math.isnan(value)}
    assert known == {"area_0.5", "area_0.3", "dice_0.5", "dice_0.3"}


def test_image_without_gaze_has_only_counts():
    row = measures_of(scan())
    known = {name: value for name, value in row.items() if not math.isnan(value)}
    assert known == {"fixations": 0, "off_image": 0, "short": 0}


def test_scanpath_with_only_dropped_fixations():
    row = measure_sample(
        scan(off_image=4, short=2), np.zeros_like(PSEUDOMASK), TRUTH, LEVELS, (100, 100)
    )
    assert row["on_image"] == row["dwell_ms"] == row["span_ms"] == row["area_0.3"] == 0
    assert math.isnan(row["dispersion"])
    assert math.isnan(row["on_target"])
    assert row["dice_0.3"] == 0
    # All fixations are too short, and short ones do not count for this share.
    assert math.isnan(measures_of(scan(short=2))["on_image"])


def test_fixations_with_zero_duration():
    row = measures_of(scan((0.2, 0.5, 0, 0), (0.5, 0.5, 0, 10)))
    assert math.isnan(row["dispersion"])
    assert math.isnan(row["on_target"])
    assert row["on_target_count"] == 0.5


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(0, 1)),
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    st.data(),
)
def test_shares_are_shares_and_dispersion_is_at_most_half(position, original_size, data):
    spent = st.floats(1, 5000)
    duration = data.draw(arrays.arrays(np.float64, len(position), elements=spent))
    fixations = np.column_stack([position, duration, np.cumsum(duration)])
    row = measures_of(Scanpath(fixations, 1, 0), original_size=original_size)
    # The distance from the centre has a root mean square of at most half the diagonal.
    assert 0 <= row["dispersion"] <= 0.5 + 1e-9
    for name in ("on_image", "on_target", "on_target_count"):
        assert 0 <= row[name] <= 1
    assert row["span_ms"] >= duration[-1] * (1 - 1e-9)
    # The order of the fixations does not matter.
    again = measures_of(Scanpath(fixations[::-1], 1, 0), original_size=original_size)
    assert again == pytest.approx(row, abs=1e-9)


def test_good_gaze_is_not_flagged():
    assert flag_reasons(ROW, QualitySettings()) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fixations": 2.0}, "fewer than 3 fixations (2)"),
        ({"dwell_ms": 420.4}, "dwell below 500 ms (420 ms)"),
        ({"on_image": 0.69}, "below 0.7 of the fixations on the image (0.69)"),
        ({"dispersion": 0.31}, "dispersion above 0.25 (0.31)"),
        ({"area_0.5": 0.0}, "empty precise pseudomask"),
        ({"area_0.3": 0.62}, "broad pseudomask above 0.5 of the image (0.62)"),
    ],
)
def test_each_limit_has_its_reason(values, reason):
    assert flag_reasons(ROW | values, QualitySettings()) == [reason]


def test_value_equal_to_its_limit_is_not_flagged():
    at = {"fixations": 3.0, "dwell_ms": 500.0, "on_image": 0.7, "dispersion": 0.25,
          "area_0.3": 0.5}  # fmt: skip
    assert flag_reasons(ROW | at, QualitySettings()) == []


def test_limit_none_flags_nothing():
    free = QualitySettings(max_dispersion=None, max_area=None)
    assert flag_reasons(ROW | {"dispersion": 0.5, "area_0.3": 1.0}, free) == []


def test_nan_measures_are_not_flagged():
    assert flag_reasons(measures_of(scan()), QualitySettings()) == []
    assert flag_reasons(measures_of(None), QualitySettings()) == []
    assert flag_reasons(measures_of(None) | {"area_0.5": 0.0}, QualitySettings()) == [
        "empty precise pseudomask"
    ]


def test_reasons_of_a_scanpath_with_only_dropped_fixations():
    nothing = measure_sample(scan(off_image=4), np.zeros_like(PSEUDOMASK), None, LEVELS, (100, 100))
    assert flag_reasons(nothing, QualitySettings()) == [
        "fewer than 3 fixations (0)",
        "dwell below 500 ms (0 ms)",
        "below 0.7 of the fixations on the image (0.00)",
        "empty precise pseudomask",
    ]


share_or_nan = st.floats(0, 1) | st.just(NAN)


@given(
    share_or_nan,
    share_or_nan,
    share_or_nan,
    share_or_nan,
    st.sampled_from([{}, {"fixations": 1.0}]),
)
def test_measures_against_masks_do_not_influence_the_flags(a, b, c, d, values):
    against = {"dice_0.5": a, "dice_0.3": b, "on_target": c, "on_target_count": d}
    settings = QualitySettings(leave_out=True)
    assert flag_sample(ROW | values | against, settings) == flag_sample(ROW | values, settings)


def test_flagged_samples_are_left_out_only_with_leave_out():
    poor = ROW | {"fixations": 1.0, "dwell_ms": 90.0}
    text = "fewer than 3 fixations (1); dwell below 500 ms (90 ms)"
    assert flag_sample(poor, QualitySettings()) == {"flags": text, "left_out": False}
    strict = QualitySettings(leave_out=True)
    assert flag_sample(poor, strict) == {"flags": text, "left_out": True}
    assert flag_sample(ROW, strict) == {"flags": "", "left_out": False}


def test_reasons_are_counted_without_their_values():
    texts = [
        "fewer than 3 fixations (1); dwell below 500 ms (90 ms)",
        "",
        "dwell below 500 ms (410 ms)",
        "empty precise pseudomask",
    ]
    assert count_reasons(texts) == [
        ("dwell below 500 ms", 2),
        ("fewer than 3 fixations", 1),
        ("empty precise pseudomask", 1),
    ]


def rows():
    for i, found in enumerate([scan((0.2, 0.5, 300, 0)), scan(), None]):
        row = measures_of(found)
        name = {"sample_id": f"NA{i}", "subject_id": "NA", "split": "train"}
        yield flag_sample(row, QualitySettings(leave_out=True)) | row | name


def test_stored_table(tmp_path):
    made = quality_table(rows(), LEVELS)
    assert list(made) == [
        "sample_id", "subject_id", "split", "fixations", "off_image", "short", "on_image",
        "dwell_ms", "span_ms", "dispersion", "area_0.5", "area_0.3", "dice_0.5", "dice_0.3",
        "on_target", "on_target_count", "flags", "left_out",
    ]  # fmt: skip
    io.write_csv(made, tmp_path / "q.csv")
    lines = (tmp_path / "q.csv").read_text().splitlines()
    assert lines[1:] == [
        "NA0,NA,train,1,0,0,1,300,300,0,0.02,0.2,0.181818,0.6,1,1,"
        "fewer than 3 fixations (1); dwell below 500 ms (300 ms),True",
        "NA1,NA,train,0,0,0,,,,,,,,,,,,False",
        "NA2,NA,train,,,,,,,,0.02,0.2,0.181818,0.6,,,,False",
    ]


def test_float32_thresholds_give_the_same_column_names():
    assert quality.table_columns(np.array(LEVELS, np.float32)) == quality.table_columns(LEVELS)


def test_a_row_of_other_columns_is_refused():
    with pytest.raises(ValueError, match=r"\['area_0.3', 'area_0.4', 'dice_0.3', 'dice_0.4'\]"):
        quality_table(rows(), (0.5, 0.4))


@pytest.mark.parametrize(
    "values",
    [
        {"min_fixations": -1},
        {"min_dwell_ms": -1},
        {"min_on_image": 1.1},
        {"max_dispersion": 0},
        {"max_area": 0},
        {"max_area": 1.1},
        {"min_dice": 0.5},
    ],
)
def test_invalid_settings_are_rejected(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        QualitySettings(**values)


# Good gaze, poor gaze, no gaze, a map, all fixations off the image; then validation and test.
IDS = ("good", "poor", "unseen", "map", "off", "val", "test")
SPLITS = ("train",) * 5 + ("val", "test")
GOOD = [[0.2, 0.5, 300, 0], [0.25, 0.5, 300, 400], [0.3, 0.5, 300, 800]]
SCANS = (GOOD, GOOD[:1], [], [], [], GOOD, GOOD)


@pytest.fixture
def files(tmp_path):
    """Write prepared.h5 and gaze.h5 of the samples above."""
    counts = [len(fixations) for fixations in SCANS]
    seen = np.array([True, True, False, True, False, True, True])
    n = len(IDS)
    paths = {"prepared": tmp_path / "prepared.h5", "gaze": tmp_path / "gaze.h5"}
    with io.create_h5(paths["prepared"], "prepare", {}, {}) as file:
        file["mask"] = np.stack([TRUTH] * n)
        file["has_mask"] = np.array([True, False] + [True] * (n - 2))
        file["original_size"] = np.array([[300, 400]] * n)
        for name, values in (("sample_id", IDS), ("subject_id", IDS), ("split", SPLITS)):
            io.write_strings(file, name, values)
    with io.create_h5(paths["gaze"], "gaze", {}, {}) as file:
        file["has_gaze"] = seen
        file["pseudomask"] = np.stack([PSEUDOMASK] * n) * seen[:, None, None, None].astype(np.uint8)
        file["threshold"] = np.array(LEVELS, np.float32)
        file["fixation"] = np.array([row for rows in SCANS for row in rows], np.float32)
        file["fixation_offset"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        file["off_image_count"] = np.array([1, 0, 0, 0, 6, 0, 0], np.int32)
        file["short_count"] = np.array([0, 2, 0, 0, 0, 0, 0], np.int32)
        io.write_strings(file, "sample_id", IDS)
    return paths | {"output": tmp_path / "out" / "gaze_quality.csv"}


def measure_all(files, **limits):
    """Run the stage; return its table with the sample id as index."""
    measure_quality(**files, settings=QualitySettings(**limits))
    return pd.read_csv(files["output"], keep_default_na=False, dtype=str).set_index("sample_id")


def test_each_sample_has_its_row(files):
    table = measure_all(files)
    assert tuple(table.index) == IDS
    assert table["split"].tolist() == list(SPLITS)
    assert table["subject_id"].tolist() == list(IDS)
    assert table["fixations"].tolist() == ["3", "1", "0", "", "0", "3", "3"]
    assert table["off_image"].tolist() == ["1", "0", "0", "", "6", "0", "0"]
    assert table["short"].tolist() == ["0", "2", "0", "", "0", "0", "0"]
    assert table["on_image"].tolist() == ["0.75", "1", "", "", "0", "1", "1"]
    assert table["area_0.3"].tolist() == ["0.2", "0.2", "", "0.2", "0", "0.2", "0.2"]
    # The outer fixations are 20 px from the middle one; the diagonal is 500 px.
    assert float(table["dispersion"]["good"]) == pytest.approx(20 * math.sqrt(2 / 3) / 500, 1e-4)


def test_only_masks_of_the_training_split_are_read(files):
    with h5py.File(files["prepared"], "a") as file:
        # The values of these masks must make no difference.
        file["mask"][5:] = 255
    table = measure_all(files)
    for column in ("dice_0.5", "dice_0.3", "on_target", "on_target_count"):
        assert table[column]["val"] == table[column]["test"] == ""
    assert table["dice_0.3"].tolist() == ["0.6", "", "", "0.6", "0", "", ""]
    assert table["on_target"].tolist() == ["1", "", "", "", "", "", ""]


def test_flagged_samples_of_a_data_set(files, caplog):
    caplog.set_level("INFO")
    table = measure_all(files, leave_out=True)
    flagged = table.loc[table["flags"] != "", "left_out"]
    assert flagged.to_dict() == {"poor": "True", "off": "True"}
    assert (table.drop(index=flagged.index)["left_out"] == "False").all()
    assert table["flags"]["off"].startswith("fewer than 3 fixations (0); dwell below 500 ms (0 ms)")
    assert (
        "2 of 5 training samples flagged, 2 left out (fewer than 3 fixations: 2, "
        "dwell below 500 ms: 2, below 0.7 of the fixations on the image: 1, "
        "empty precise pseudomask: 1)"
    ) in caplog.text


def test_without_limits_an_empty_pseudomask_is_still_a_flag(files, caplog):
    caplog.set_level("INFO")
    measure_all(files, min_fixations=0, min_dwell_ms=0, min_on_image=0)
    assert "1 of 5 training samples flagged, 0 left out (empty precise pseudomask: 1)" in (
        caplog.text
    )


def test_files_of_different_data_are_refused(files):
    with h5py.File(files["gaze"], "a") as file:
        file["sample_id"][0] = "other"
    with pytest.raises(BadInput, match=r"gaze\.h5: data set sample_id\n.*7 ids, not those of"):
        measure_all(files)
    assert not files["output"].exists()


def test_command_line(files):
    argv = ["--settings", QualitySettings(min_fixations=9).model_dump_json()]
    for name, path in files.items():
        argv += [f"--{name}", str(path)]
    cli.run(measure_quality, argv)
    assert "fewer than 9 fixations (3)" in files["output"].read_text()
