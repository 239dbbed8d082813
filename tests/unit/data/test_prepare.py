import logging
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import disc, write_dicom
from PIL import Image
from pydantic import ValidationError

from stages.core import io
from stages.core.cli import BadInput
from stages.data.prepare import prepare
from stages.settings.prepare import PrepareSettings
from tests.workspace import ROOT


def settings(layout, **changes):
    return PrepareSettings(**{"layout": layout, "size": (32, 48), "val_fraction": 0.25} | changes)


def strings(path, name):
    with h5py.File(path) as file:
        return io.read_strings(file, name).tolist()


def test_prepared_kvasir_has_all_datasets(kvasir, tmp_path):
    output = tmp_path / "prepared.h5"
    prepare(kvasir, output, settings("kvasir"), 2)
    with h5py.File(output) as file:
        ids = list(io.read_strings(file, "sample_id"))
        assert ids == [f"frame {i}" for i in range(6)]
        assert list(io.read_strings(file, "subject_id")) == ids
        split = list(io.read_strings(file, "split"))
        assert sorted(split[:4]) == ["train"] * 3 + ["val"]
        assert split[4:] == ["test"] * 2
        assert file["image"].shape == (6, 32, 48, 3)
        assert file["image"].dtype == np.uint8
        assert file["image"].chunks == (1, 32, 48, 3)
        assert set(np.unique(file["mask"])) == {0, 1}
        assert file["has_mask"][()].all()
        assert file["original_size"][2].tolist() == [68, 84]
        assert np.isnan(file["spacing_mm"]).all()
        original = file["original_mask/frame 2"]
        assert original.shape == (68, 84)
        # A disc of radius 14 has about 616 pixels; JPEG moves its border by less than a pixel.
        assert original[()].sum() == pytest.approx(616, rel=0.05)
        # After resizing, the bright disc is still at its mask.
        image, mask = file["image"][2], file["mask"][2] > 0
        assert image[mask].mean() > image[~mask].mean() + 60
        for name in ("schema_version", "stage", "inputs", "params", "versions"):
            assert name in file.attrs


def test_prostate_slices_are_not_confused_and_keep_their_spacing(nci_isbi, tmp_path):
    output = tmp_path / "prepared.h5"
    prepare(nci_isbi, output, settings("nci_isbi", val_fraction=0.5), 2)
    with h5py.File(output) as file:
        ids = list(io.read_strings(file, "sample_id"))
        assert ids[:2] == ["case1_1", "case1_11"]
        assert file["image"].dtype == np.float32
        # Slice i was written with background 1000 (i + 1): 1 does not match 11.
        assert [float(np.median(image)) for image in file["image"]] == [
            1000 * (i + 1) for i in range(6)
        ]
        assert file["spacing_mm"][()].tolist() == [[0.5, 0.75]] * 6
        subjects, split = io.read_strings(file, "subject_id"), io.read_strings(file, "split")
        assert {s: len(set(split[subjects == s])) for s in subjects} == {
            "case1": 1, "case2": 1, "case3": 1,
        }  # fmt: skip
        assert set(split) == {"train", "val", "test"}


def test_one_thread_and_four_write_the_same_bytes(kvasir, tmp_path):
    for name, threads in (("a.h5", 1), ("b.h5", 4)):
        prepare(kvasir, tmp_path / name, settings("kvasir"), threads)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_images_without_masks_are_kept(kvasir, tmp_path):
    (kvasir / "masks/frame 1.jpg").unlink()
    prepare(kvasir, tmp_path / "prepared.h5", settings("kvasir"), 2)
    with h5py.File(tmp_path / "prepared.h5") as file:
        assert file["has_mask"][()].tolist() == [True, False, True, True, True, True]
        assert "frame 1" not in file["original_mask"]


def delete_image(root):
    (root / "images/frame 1.jpg").unlink()


def truncate_image(root):
    (root / "images/frame 1.jpg").write_bytes(b"\xff\xd8 no more")


def shrink_mask(root):
    Image.new("L", (10, 10)).save(root / "masks/frame 1.jpg")


def grey_mask(root):
    ramp = np.tile(np.arange(82, dtype=np.uint8) * 3, (64, 1))
    Image.fromarray(ramp).save(root / "masks/frame 1.jpg", quality=100)


def grey_image(root):
    """Replace a colour image by a grey one of 16 bits."""
    grey = np.arange(64 * 82, dtype=np.uint16).reshape(64, 82)
    (root / "images/frame 1.jpg").unlink()
    Image.fromarray(grey).save(root / "images/frame 1.jpg", format="PNG")


def put_frame_in_two_splits(root):
    (root / "test.txt").write_text("frame 1\nframe 5\n")


def copy_image(root):
    for folder in ("images", "masks"):
        shutil.copy(root / folder / "frame 1.jpg", root / folder / "frame 5.jpg")


def repeat_line(root):
    (root / "train.txt").write_text("frame 1\nframe 1\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (delete_image, ["train.txt", "frame 1", "one image per id"]),
        (truncate_image, ["frame 1.jpg", "a readable PNG, JPEG, TIFF or BMP file"]),
        (shrink_mask, ["masks/frame 1.jpg", "(10, 10)", "(64, 82)"]),
        (grey_mask, ["masks/frame 1.jpg"]),
        (
            grey_image,
            ["images", "5 colour: frame 0, frame 2", "1 grey of more than 8 bits: frame 1"],
        ),
        (put_frame_in_two_splits, ["more than once: 'frame 1'", "subjects in two splits: frame 1"]),
        (repeat_line, ["more than once: 'frame 1'"]),
        (copy_image, ["the same pixels in two splits: 'frame 1' (train) = 'frame 5' (test)"]),
    ],
)
def test_bad_data_are_reported_and_no_file_is_left(kvasir, tmp_path, damage, words):
    damage(kvasir)
    with pytest.raises(BadInput) as error:
        prepare(kvasir, tmp_path / "out/prepared.h5", settings("kvasir"), 2)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_corrupt_dicom_is_reported(nci_isbi, tmp_path):
    (nci_isbi / "images/case2_1.dcm").write_bytes(b"no dicom")
    with pytest.raises(BadInput, match=r"case2_1\.dcm"):
        prepare(nci_isbi, tmp_path / "prepared.h5", settings("nci_isbi"), 2)


def test_all_problems_are_reported_together(kvasir, tmp_path):
    delete_image(kvasir)
    (kvasir / "images/frame 2.jpg").write_bytes(b"no image")
    Image.new("L", (10, 10)).save(kvasir / "masks/frame 3.jpg")
    with pytest.raises(BadInput) as error:
        prepare(kvasir, tmp_path / "prepared.h5", settings("kvasir"), 2)
    message = str(error.value)
    assert message.startswith("3 problems:\n1. ")
    for words in ("frame 1", "frame 2.jpg", "masks/frame 3.jpg"):
        assert words in message


def test_splits_can_be_drawn_if_the_folder_states_none(kvasir, tmp_path):
    for split in ("train", "test"):
        (kvasir / f"{split}.txt").unlink()
    with pytest.raises(BadInput, match=r"none for 6 samples[^\0]*prepare.split: drawn"):
        prepare(kvasir, tmp_path / "prepared.h5", settings("kvasir"), 2)
    drawn = settings("kvasir", split="drawn", test_fraction=0.34)
    prepare(kvasir, tmp_path / "prepared.h5", drawn, 2)
    assert sorted(strings(tmp_path / "prepared.h5", "split")) == [
        "test", "test", "train", "train", "train", "val",
    ]  # fmt: skip


def test_names_and_ids_of_patients_are_in_no_result_and_no_message(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    planted = {
        "PatientName": "Planted^Name", "OtherPatientIDs": "Planted-Other",
        "PatientBirthDate": "19010203", "AccessionNumber": "Planted-Number",
    }  # fmt: skip
    for i in range(6):
        pixels = 9 * disc((8, 9), (4, 4), i)
        planted["PatientID"] = f"Planted-Id-{i % 3}\0"
        write_dicom(tmp_path / f"images/{i}.dcm", pixels, (1, 1), **planted)
    output = tmp_path / "prepared.h5"
    prepare(tmp_path, output, settings("folder", split="drawn", test_fraction=0.3), 1)
    # The images 0 and 3, 1 and 4, 2 and 5 are each of one patient.
    assert sorted(strings(output, "subject_id")) == ["0", "0", "1", "1", "2", "2"]
    with pytest.raises(BadInput) as caught:
        (tmp_path / "train.txt").write_text("0\n1\n4\n")
        (tmp_path / "test.txt").write_text("2\n3\n5\n")
        prepare(tmp_path, tmp_path / "a.h5", settings("folder"), 1)
    assert "subjects in two splits: 0\n" in str(caught.value)
    found = output.read_bytes() + str(caught.value).encode() + caplog.text.encode()
    assert b"Planted" not in found
    assert b"19010203" not in found


@pytest.fixture
def zones(own_folder):
    """Give the first two masks of `own_folder` the labels 1 and 2, and convert the others."""
    for i in range(7):
        path = own_folder / f"masks/scan {i}.png"
        mask = np.asarray(Image.open(path))
        Image.fromarray(mask * np.uint8(1 + (i < 2))).save(path)
    return own_folder


def foreground_areas(path):
    with h5py.File(path) as file:
        return {name: int(mask[()].sum()) for name, mask in file["original_mask"].items()}


def test_the_foreground_of_a_data_set(zones, tmp_path, caplog):
    area = disc((48, 64), (24, 20), 10).sum()
    for chosen, areas in (([2], [area, area, 0]), ([1], [0, 0, area]), ([1, 2], [area] * 3)):
        drawn = settings("folder", split="drawn", foreground=chosen)
        with caplog.at_level(logging.INFO):
            prepare(zones, tmp_path / "a.h5", drawn, 2)
        found = foreground_areas(tmp_path / "a.h5")
        assert [found[f"scan {i}"] for i in range(3)] == areas
        logged = [line for line in caplog.messages if "counts as background" in line]
        assert logged == [
            f"the label {label} counts as background in {count} masks, such as {zones}/masks/{name}"
            for label, count, name in ((1, 5, "scan 2.png"), (2, 2, "scan 0.png"))
            if label not in chosen
        ]
        caplog.clear()


def test_a_foreground_that_no_mask_holds(zones, tmp_path, caplog):
    some = settings("folder", split="drawn", foreground=[2, 3])
    prepare(zones, tmp_path / "a.h5", some, 2)
    assert f"{zones}: no mask holds the labels [3] of prepare.foreground" in caplog.text
    none = settings("folder", split="drawn", foreground=[3, 4])
    with pytest.raises(BadInput) as caught:
        prepare(zones, tmp_path / "b.h5", none, 2)
    assert str(caught.value).startswith(
        f"{zones}: masks\n"
        "  found:    the labels [1, 2] in all masks together\n"
        "  expected: the labels of `prepare.foreground`, [3, 4]\n"
    )
    assert not (tmp_path / "b.h5").exists()


def test_one_zone_of_the_prostate(nci_isbi_volumes, tmp_path):
    """The inner disc of radius 4 has the label 2; the ring up to the radius 8 has 1."""
    inner, outer = (disc((48, 64), (24, 24), radius).sum() for radius in (4, 8))
    for chosen, area in ((None, outer), ([2], inner), ([1], outer - inner), ([1, 2], outer)):
        prepare(
            nci_isbi_volumes, tmp_path / "a.h5", settings("nci_isbi_volumes", foreground=chosen), 1
        )
        areas = foreground_areas(tmp_path / "a.h5")
        assert len(areas) == 9 and {*areas.values()} == {area}


def test_the_foreground_in_the_published_layouts(nci_isbi, kvasir, tmp_path):
    prepare(nci_isbi, tmp_path / "a.h5", settings("nci_isbi", foreground=[255]), 1)
    assert {*foreground_areas(tmp_path / "a.h5").values()} == {disc((48, 64), (24, 24), 8).sum()}
    with pytest.raises(BadInput, match="a JPEG, whose compression changes labels"):
        prepare(kvasir, tmp_path / "b.h5", settings("kvasir", foreground=[255]), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"foreground": []}, "at least 1 item"), ({"foreground": [0]}, "found 0; allowed: a label"),
     ({"foreground": [1.5]}, "found 1.5"), ({"foreground": [True]}, "found True"),
     ({"foreground": ["whole"]}, "only the layout nnunet names labels"),
     ({"channel": "T2"}, "only the layout nnunet has channels")],
)  # fmt: skip
def test_impossible_labels_and_channels_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings("folder", **changes)


def test_a_channel_may_be_a_number():
    for channel in (1, "1"):
        given = settings("nnunet", channel=channel, foreground=[1, "whole"])
        again = PrepareSettings.model_validate_json(given.model_dump_json())
        assert again == given and again.channel == "1" and again.foreground == (1, "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
@pytest.mark.parametrize("layout", ["folder", "kvasir"])
def test_file_names_that_are_not_utf_8_are_reported_with_all_other_problems(
    layout, kvasir, tmp_path
):
    """As after unpacking an archive from Windows: an image with its mask, one other file."""
    for split in ("train", "test"):
        (kvasir / f"{split}.txt").unlink()
    for folder in ("images", "masks"):
        (kvasir / folder / "frame 1.jpg").rename(kvasir / folder / os.fsdecode(b"gr\xf6\xdfe.jpg"))
    (kvasir / "images/frame 2.jpg").write_bytes(b"none")
    with pytest.raises(BadInput) as caught:
        prepare(kvasir, tmp_path / "prepared.h5", settings(layout, split="drawn"), 1)
    unreadable, name = sorted(map(str, caught.value.problems))
    assert "sample id\n  found:    'gr\\udcf6\\udcdfe'\n" in name
    assert unreadable.startswith(f"{kvasir}/images/frame 2.jpg: file\n")
    assert not (tmp_path / "prepared.h5").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
@pytest.mark.parametrize("name", [b"masks/f\xfcr.jpg", b"images/notizen f\xfcr.doc"])
def test_the_log_holds_a_message_about_a_name_that_is_not_utf_8(name, kvasir, tmp_path):
    (kvasir / os.fsdecode(name)).write_bytes(b"none")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "stages.data.prepare", "--raw", str(kvasir), "--threads", "1"]
    command += ["--output", str(tmp_path / "a.h5"), "--log", str(log)]
    command += ["--settings", settings("folder").model_dump_json()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    for text in (ended.stderr, log.read_text("utf-8")):
        assert r"f\udcfcr" in text and "to mend:" in text and "Traceback" not in text
