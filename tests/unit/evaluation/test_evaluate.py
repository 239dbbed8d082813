"""Metrics at the original size from probability maps at the working size."""

import math

import nibabel
import numpy as np
import pandas as pd
import pytest

from stages.core import io
from stages.core.cli import BadInput
from stages.data.prepare import prepare
from stages.evaluation.evaluate import COLUMNS, evaluate
from stages.settings.prepare import PrepareSettings

SAMPLES = ["train 1", "wide", "NA", "no mask", "tall"]
WIDE = [[0, 1, 1, 1]] * 4


@pytest.fixture
def prepared(tmp_path):
    """Write one training sample and four to evaluate; mask sizes differ, one mask is absent."""
    path = tmp_path / "prepared.h5"
    masks = {name: np.zeros((8, 16), np.uint8) for name in SAMPLES if name != "no mask"}
    # Upsampled from 4 columns to 16, 0 1 1 1 reaches 0.5 where (j + 0.5) / 4 − 0.5 = 0.5.
    masks["wide"][:, 4:] = 1
    masks["tall"] = np.zeros((12, 6), np.uint8)
    masks["tall"][:6] = 1
    with io.create_h5(path, "prepare", {}, {}) as file:
        io.write_strings(file, "sample_id", SAMPLES)
        io.write_strings(file, "subject_id", ["s0", "s1", "s1", "s2", "s3"])
        io.write_strings(file, "split", ["train", "val", "test", "test", "test"])
        file["has_mask"] = [name in masks for name in SAMPLES]
        file["spacing_mm"] = np.array([[np.nan] * 2] * 4 + [[0.5, 2.0]], np.float32)
        group = file.create_group("original_mask")
        for name, mask in masks.items():
            group[name] = mask
    return path


def write_predictions(path, sample_ids, split=None, **probabilities):
    with io.create_h5(path, "predict", {}, {}) as file:
        io.write_strings(file, "sample_id", sample_ids)
        io.write_strings(file, "split", split or ["val"] + ["test"] * (len(sample_ids) - 1))
        for name, maps in probabilities.items():
            file[name] = np.array(maps, np.float16)
    return path


def read(path):
    numbers = ["dice", "iou", "hd95", "asd", "diagonal"]
    return pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in numbers})


@pytest.fixture
def table(prepared, tmp_path):
    upper_half = [[1] * 4] * 2 + [[0] * 4] * 2
    upper_quarter = [[1] * 4] + [[0] * 4] * 3
    student = [WIDE, np.zeros((4, 4)), WIDE, upper_quarter]
    teacher = [np.zeros((4, 4)), WIDE, WIDE, upper_half]
    predictions = write_predictions(
        tmp_path / "predictions.h5", SAMPLES[1:], probability=student, teacher_probability=teacher
    )
    output = tmp_path / "metrics.csv"
    evaluate(prepared, predictions, output)
    return read(output)


def test_one_row_per_model_and_sample_in_order(table):
    assert list(table.columns) == COLUMNS
    assert list(table["model"]) == ["student"] * 4 + ["teacher"] * 4
    assert list(table["sample_id"]) == SAMPLES[1:] * 2
    assert list(table["subject_id"]) == ["s1", "s1", "s2", "s3"] * 2
    assert list(table["split"]) == ["val", "test", "test", "test"] * 2


def test_probability_is_upsampled_with_half_pixel_centres(table):
    # With aligned corners, the foreground would start at column 3: Dice < 1.
    row = table.iloc[0]
    assert (row["dice"], row["iou"], row["hd95"], row["asd"]) == (1, 1, 0, 0)
    assert row["unit"] == "px"
    assert row["diagonal"] == pytest.approx(math.hypot(8, 16), rel=1e-5)


def test_spacing_is_applied_along_its_own_axis(table):
    # 4 rows to 12: (i + 0.5) / 3 − 0.5 <= 0.5 keeps rows 0–2 of 0–5. Dice 2·3 / (3 + 6). Rows are
    # 0.5 mm apart, columns 2 mm. Surface of the prediction: rows 0 to 2 without the inner 4 pixels
    # of row 1 (14 pixels); of the mask: rows 0 to 5 without the inner 4 of rows 1 to 4 (20 pixels).
    # Prediction to mask: the inner 4 pixels of row 2 are 2 rows from row 0: 4 × 1 mm; the others
    # are at 0. Mask to prediction: the 6 pixels of row 5 are 3 rows from row 2, the ends of rows 3
    # and 4 are 1 and 2 rows from it: 6 × 1.5 + 2 × 0.5 + 2 × 1 = 12 mm.
    row = table.iloc[3]
    assert row["dice"] == pytest.approx(2 / 3, rel=1e-5)
    assert row["asd"] == pytest.approx((4 + 12) / 34, rel=1e-5)
    assert row["hd95"] == pytest.approx(1.5)
    assert row["diagonal"] == pytest.approx(math.hypot(12 * 0.5, 6 * 2), rel=1e-5)
    assert row["unit"] == "mm"


def test_empty_masks_are_noted(table):
    notes = ["", "both empty", "no mask", "", "empty prediction", "empty truth", "no mask", ""]
    assert list(table["note"]) == notes
    assert list(table["dice"].fillna(-1))[4:6] == [0, 0]
    assert table["hd95"].isna()[4:6].all()
    assert (table.iloc[1][["dice", "hd95"]] == [1, 0]).all()


def test_a_sample_without_mask_has_a_row_without_numbers(table):
    rows = table[table["sample_id"] == "no mask"]
    assert len(rows) == 2
    assert rows[["dice", "iou", "hd95", "asd", "diagonal"]].isna().all(axis=None)


@pytest.mark.parametrize(("probability", "dice"), [(0.5, 2 / 3), (0.499, 0)])
def test_a_pixel_is_foreground_from_one_half(prepared, tmp_path, probability, dice):
    # The upper half of "tall" is foreground: a full prediction has Dice 2·36 / (36 + 72), none 0.
    predictions = write_predictions(
        tmp_path / "predictions.h5", ["tall"], probability=np.full((1, 4, 4), probability)
    )
    evaluate(prepared, predictions, tmp_path / "metrics.csv")
    assert read(tmp_path / "metrics.csv")["dice"][0] == pytest.approx(dice, rel=1e-5)


def test_predictions_of_unknown_samples_are_refused(prepared, tmp_path):
    predictions = write_predictions(
        tmp_path / "predictions.h5", ["wide", "other"], probability=[WIDE, WIDE]
    )
    with pytest.raises(BadInput, match=r"predictions\.h5.*\n.*1 ids, such as 'other'"):
        evaluate(prepared, predictions, tmp_path / "metrics.csv")
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1), ("micron", 1000), ("meter", 0.001)])
def test_distances_are_in_mm_whatever_unit_a_volume_states(unit, scale, tmp_path):
    """The prediction is a square of 21 × 21 pixels that lies 4 columns beside that of the mask.

    A column is 0.75 mm. The 21 pixels of the far edge, a quarter of each surface, are 4 columns
    from the other surface, and no pixel is farther: HD95 is 3 mm.
    """
    root = tmp_path / "raw"
    mask = np.zeros((48, 64, 1), np.uint8)
    mask[10:31, 10:31] = 1
    affine = np.diag([-0.75, -0.5, 4.0, 1.0 / scale]) * scale
    for folder, voxels in (("images", 100 + 50 * mask), ("masks", mask)):
        (root / folder).mkdir(parents=True)
        for name in ("a", "b"):
            # The axes of a volume are x, y and z.
            values = voxels.transpose(1, 0, 2).astype(np.int16) + (folder == "images") * ord(name)
            image = nibabel.Nifti1Image(values, affine)
            image.header.set_xyzt_units(unit)
            image.to_filename(root / folder / f"{name}.nii.gz")
    (root / "train.txt").write_text("a")
    (root / "test.txt").write_text("b")
    settings = PrepareSettings(layout="folder", size=(48, 64), val_fraction=0)
    prepare(root, tmp_path / "prepared.h5", settings, 1)
    beside = np.roll(mask[..., 0], 4, axis=1)
    predictions = write_predictions(
        tmp_path / "predictions.h5", ["b"], split=["test"], probability=[beside]
    )
    evaluate(tmp_path / "prepared.h5", predictions, tmp_path / "metrics.csv")
    row = read(tmp_path / "metrics.csv").iloc[0]
    assert (row["unit"], row["hd95"]) == ("mm", pytest.approx(3, rel=1e-5))
    assert row["diagonal"] == pytest.approx(math.hypot(48 * 0.5, 64 * 0.75), rel=1e-5)
