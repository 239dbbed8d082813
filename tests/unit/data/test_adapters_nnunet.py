"""Raw data sets of nnU-Net."""

import json
import logging
import shutil

import numpy as np
import pytest
from conftest import NNUNET_LABELS, nnunet_zones
from PIL import Image

from stages.core.cli import BadInput, Problems
from stages.data.datasets import nnunet as adapter


def list_records(root, channel="T2", foreground=(1,), drawn=False):
    problems = Problems()
    records = adapter.list_records(
        root, problems, channel=channel, foreground=foreground, drawn=drawn
    )
    return records, [str(problem) for problem in problems]


def describe(root, **changes):
    """Change dataset.json; a value of None removes the key."""
    file = root / "dataset.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def error(root, **options):
    with pytest.raises(BadInput) as caught:
        list_records(root, **options)
    assert str(caught.value).startswith(f"{root}/dataset.json: ")
    return str(caught.value).split("\n", 1)[0].rpartition(": ")[2], str(caught.value)


def test_each_slice_of_the_parts_is_a_sample(nnunet):
    records, problems = list_records(nnunet)
    assert problems == []
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        (f"case_{i}_{z}", f"case_{i}", "train" if i <= 4 else "test")
        for i in range(1, 7)
        for z in (1, 2, 3)
    ]
    assert {r.image.name for r in records} == {f"case_{i}_0000.nii.gz" for i in range(1, 7)}


# Label 1 is the ring, 2 the inner disc: `nnunet_zones`.
CHOICES = [
    ([1], [1]), ([2], [2]), ([1, 2], [1, 2]), (["peripheral"], [1]), (["whole"], [1, 2]),
    (["central", "peripheral"], [1, 2]), (["whole", 2], [1, 2]),
]  # fmt: skip


@pytest.mark.parametrize(("foreground", "values"), CHOICES)
def test_labels_and_regions_by_value_and_by_name(nnunet, foreground, values):
    for record in list_records(nnunet, foreground=foreground)[0]:
        sample = adapter.read(record)
        zones = nnunet_zones(int(record.subject_id[-1]))[..., record.slice].T
        np.testing.assert_array_equal(sample.mask, np.isin(zones, values))
        assert sample.spacing_mm == pytest.approx((0.5, 0.75))  # the header is in micron


@pytest.mark.parametrize(("channel", "offset"), [("T2", 0), ("0", 0), ("ADC", 1000), ("1", 1000)])
def test_a_channel_by_name_and_by_number(nnunet, channel, offset):
    record = list_records(nnunet, channel=channel)[0][0]
    expected = offset + 100 + 40.0 * nnunet_zones(1)[..., 0].T
    np.testing.assert_array_equal(adapter.read(record).image[..., 0], expected)


@pytest.mark.parametrize("channel", [None, "DWI", "2"])
def test_an_ambiguous_or_unknown_channel_is_reported(nnunet, channel):
    field, text = error(nnunet, channel=channel)
    assert field == "channel_names"
    assert "found:    0 (T2), 1 (ADC)\n" in text and "prepare.channel" in text


@pytest.mark.parametrize("foreground", [None, ["prostate"], [3], [1, 3], ["background"]])
def test_ambiguous_or_unknown_labels_are_reported(nnunet, foreground):
    field, text = error(nnunet, foreground=foreground)
    assert field == "labels"
    assert "found:    background (0), peripheral (1), central (2), whole (1, 2)\n" in text
    assert "prepare.foreground" in text


def test_the_only_channel_and_label_need_no_setting(nnunet):
    describe(nnunet, channel_names={"0": "T2"}, labels={"background": 0, "prostate": [1, 2]})
    assert error(nnunet, channel=None, foreground=None)[0] == "labels"
    describe(nnunet, labels={"background": 0, "prostate": 1, "ignore": 2})
    records, problems = list_records(nnunet, channel=None, foreground=None)
    assert len(records) == 18 and problems == []
    assert records[0].labels.foreground == {1}


def test_the_first_version_of_dataset_json(nnunet):
    labels = {"0": "background", "1": "peripheral", "2": "central"}
    describe(nnunet, channel_names=None, file_ending=None, labels=labels, modality={"0": "T2"})
    records, problems = list_records(nnunet, channel=None, foreground=["central"])
    assert len(records) == 18 and problems == []
    assert records[0].labels.foreground == {2}


def test_a_label_that_dataset_json_lacks_or_ignores_is_reported(nnunet):
    describe(nnunet, labels=NNUNET_LABELS | {"central": 3, "whole": [1, 3], "ignore": 2})
    record = list_records(nnunet)[0][0]
    with pytest.raises(BadInput) as caught:
        adapter.read(record)
    assert str(caught.value).startswith(f"{record.mask}: mask\n  found:    3 levels: 0, 1, 2\n")
    assert "expected: the labels 0, 1, 3\n" in str(caught.value)
    assert "prepare.foreground" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"channel_names": None}, "channel_names"), ({"labels": None}, "labels"),
     ({"labels": [1, 2]}, ""), ({"labels": {"a": "b"}}, ""), ({"file_ending": ".mha"}, ".mha")],
)  # fmt: skip
def test_an_unusable_dataset_json_is_reported(nnunet, changes, found):
    describe(nnunet, **changes)
    field, text = error(nnunet)
    assert field in ("file", "file_ending") and found in text
    assert "dataset_format.md" in text or "correct file_ending" in text


def test_a_file_that_is_no_json_is_reported(nnunet):
    (nnunet / "dataset.json").write_text("{")
    assert error(nnunet)[0] == "file"


def test_incomplete_and_foreign_files_are_reported(nnunet):
    (nnunet / "imagesTr/case_1_0000.nii.gz").unlink()
    (nnunet / "labelsTs/case_5.nii.gz").rename(nnunet / "labelsTs/case_9.nii.gz")
    shutil.copy(nnunet / "imagesTr/case_2_0000.nii.gz", nnunet / "imagesTr/prostate_00.nii.gz")
    shutil.copy(nnunet / "imagesTr/case_3_0000.nii.gz", nnunet / "imagesTs/case_3_0000.nii.gz")
    _, problems = list_records(nnunet)
    names, channel, mask, count, orphan, repeated = (
        problem.removeprefix(f"{nnunet}/") for problem in problems
    )
    assert names.startswith("imagesTr: files\n  found:    1 with other names: prostate_00.nii.gz\n")
    assert "nnUNetv2_convert_MSD_dataset" in names
    assert channel.startswith("imagesTr: channel 0\n  found:    nothing for 1 cases: case_1\n")
    assert mask.startswith("labelsTr: masks\n  found:    1 without an image: case_1\n")
    assert count.startswith("imagesTr: cases\n  found:    3\n  expected: 4, the numTraining")
    assert orphan.startswith("labelsTs: masks\n  found:    1 without an image: case_9\n")
    assert repeated.startswith("imagesTs: cases\n  found:    also in imagesTr: case_3\n")


def test_an_unreadable_case_is_one_problem(nnunet):
    (nnunet / "imagesTr/case_1_0000.nii.gz").write_bytes(b"none")
    records, (problem,) = list_records(nnunet)
    assert problem.startswith(f"{nnunet}/imagesTr/case_1_0000.nii.gz: file\n")
    assert {r.subject_id for r in records} == {f"case_{i}" for i in range(2, 7)}


def test_drawn_splits_leave_the_test_part_alone(nnunet):
    for options in ({"drawn": True}, {}):
        records, problems = list_records(nnunet, **options)
        assert {(r.subject_id, r.split) for r in records} == {
            (f"case_{i}", None) for i in range(1, 5)
        }
        assert problems == []
        shutil.rmtree(nnunet / "imagesTs", ignore_errors=True)


def test_split_files_list_cases(nnunet):
    (nnunet / "train.txt").write_text("case_2\ncase_5\n")
    (nnunet / "test.txt").write_text("case_1\ncase_3_2\n")
    records, problems = list_records(nnunet)
    assert [(r.sample_id, r.split) for r in records] == [
        *((f"case_{i}_{z}", "train") for i in (2, 5) for z in (1, 2, 3)),
        *((f"case_1_{z}", "test") for z in (1, 2, 3)),
        ("case_3_2", "test"),
    ]  # fmt: skip
    assert problems == []


def test_masks_of_the_test_part_are_optional(nnunet, caplog):
    shutil.rmtree(nnunet / "labelsTs")
    (nnunet / "labelsTr/case_2.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        records, problems = list_records(nnunet)
    assert problems == []
    assert caplog.messages == [f"{nnunet}/labelsTr: no mask of 1 cases: case_2"]
    without = {r.subject_id for r in records if r.mask is None}
    assert without == {"case_2", "case_5", "case_6"}
    assert adapter.read(records[-1]).mask is None


def test_pictures(nnunet):
    describe(
        nnunet, channel_names={"0": "R", "1": "G", "2": "B"}, file_ending=".png", numTraining=1
    )
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        shutil.rmtree(nnunet / part)
        (nnunet / part).mkdir()
    shutil.rmtree(nnunet / "imagesTs")
    zones = nnunet_zones(1)[..., 0]
    rgb = np.repeat(zones[..., None] * 50, 3, axis=-1)
    Image.fromarray(rgb).save(nnunet / "imagesTr/a_0000.png")
    Image.fromarray(zones).save(nnunet / "labelsTr/a.png")
    (record,), problems = list_records(nnunet, channel="0", foreground=["central"])
    sample = adapter.read(record)
    assert (record.sample_id, problems) == ("a", [])
    np.testing.assert_array_equal(sample.image, rgb)
    np.testing.assert_array_equal(sample.mask, zones == 2)
