import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages import io
from stages.cli import BadInput
from stages.datasets import Record, layouts
from stages.prepare import draw_validation, prepare, resize
from stages.settings.prepare import PrepareSettings


def settings(layout, **changes):
    return PrepareSettings(**{"layout": layout, "size": (32, 48), "val_fraction": 0.25} | changes)


def test_kvasir_to_the_contract(kvasir, tmp_path):
    output = tmp_path / "prepared.h5"
    prepare(kvasir, output, settings("kvasir"))
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
        # The bright disc is where its mask is, after resizing.
        image, mask = file["image"][2], file["mask"][2] > 0
        assert image[mask].mean() > image[~mask].mean() + 60
        for name in ("schema_version", "stage", "inputs", "params", "versions"):
            assert name in file.attrs


def test_prostate_slices_are_not_confused_and_keep_their_spacing(nci_isbi, tmp_path):
    output = tmp_path / "prepared.h5"
    prepare(nci_isbi, output, settings("nci_isbi", val_fraction=0.5))
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


def test_two_runs_write_the_same_bytes(kvasir, tmp_path):
    for name in ("a.h5", "b.h5"):
        prepare(kvasir, tmp_path / name, settings("kvasir"))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_images_without_masks_are_kept(kvasir, tmp_path):
    (kvasir / "masks/frame 1.jpg").unlink()
    prepare(kvasir, tmp_path / "prepared.h5", settings("kvasir"))
    with h5py.File(tmp_path / "prepared.h5") as file:
        assert file["has_mask"][()].tolist() == [True, False, True, True, True, True]
        assert "frame 1" not in file["original_mask"]


def delete_image(root):
    (root / "images/frame 1.jpg").unlink()


def truncate_image(root):
    (root / "images/frame 1.jpg").write_bytes(b"\xff\xd8 no more")


def shrink_mask(root):
    Image.new("L", (10, 10)).save(root / "masks/frame 1.jpg")


def binary_mask(root):
    mask = np.zeros((64, 82), np.uint8)
    mask[20:40, 20:40] = 1
    (root / "masks/frame 1.jpg").unlink()
    Image.fromarray(mask).save(root / "masks/frame 1.jpg", format="PNG")


def leak(root):
    (root / "test.txt").write_text("frame 1\nframe 5\n")


def repeat(root):
    (root / "train.txt").write_text("frame 1\nframe 1\n")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (delete_image, ["train.txt", "frame 1", "one image per id"]),
        (truncate_image, ["frame 1.jpg", "readable image"]),
        (shrink_mask, ["masks/frame 1.jpg", "(10, 10)", "(64, 82)"]),
        (binary_mask, ["masks/frame 1.jpg", "0 and 255", "multiply"]),
        (leak, ["frame 1", "train and test"]),
        (repeat, ["train.txt", "more than once"]),
    ],
)
def test_bad_data_stop_with_the_file_and_leave_nothing(kvasir, tmp_path, harm, words):
    harm(kvasir)
    with pytest.raises(BadInput) as error:
        prepare(kvasir, tmp_path / "out/prepared.h5", settings("kvasir"))
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_corrupt_dicom_is_named(nci_isbi, tmp_path):
    (nci_isbi / "images/case2_1.dcm").write_bytes(b"no dicom")
    with pytest.raises(BadInput, match=r"case2_1\.dcm"):
        prepare(nci_isbi, tmp_path / "prepared.h5", settings("nci_isbi"))


@given(
    subjects=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    fraction=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_validation_takes_whole_training_subjects(subjects, fraction, seed):
    records = [
        Record(str(i), f"s{s}", "test" if s < 3 else "train", None, None)
        for i, s in enumerate(subjects)
    ]
    split = draw_validation(records, fraction, seed)
    assert split == draw_validation(records, fraction, seed)
    by_subject = {}
    for record, where in zip(records, split):
        assert (record.split == "test") == (where == "test")
        by_subject.setdefault(record.subject_id, set()).add(where)
    assert all(len(where) == 1 for where in by_subject.values())
    training = {s for s, where in by_subject.items() if where != {"test"}}
    chosen = {s for s, where in by_subject.items() if where == {"val"}}
    expected = round(fraction * len(training))
    if fraction > 0 and len(training) > 1:
        expected = max(expected, 1)
    assert len(chosen) == expected


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_resize_keeps_constants_and_stays_in_range(height, width, seed):
    flat = np.full((height, width, 2), 7.5, np.float32)
    assert np.allclose(resize(flat, (16, 32)), 7.5)
    image = np.random.default_rng(seed).uniform(-3, 5, (height, width)).astype(np.float32)
    resized = resize(image, (16, 32))
    assert resized.shape == (16, 32)
    assert image.min() - 1e-4 <= resized.min() <= resized.max() <= image.max() + 1e-4


def test_a_missing_folder_is_described_once_and_wholly(tmp_path):
    root = tmp_path / "data/kvasir"
    message = layouts.missing("kvasir", root, root / "kvasir_fixation.csv")
    for word in (str(root), "images", "masks", "train.txt", "test.txt", "fixation", "https://"):
        assert word in message
    (root / "images").mkdir(parents=True)
    assert "missing: " in layouts.missing("kvasir", root)


def test_a_complete_folder_lacks_nothing(kvasir):
    assert layouts.missing("kvasir", kvasir, kvasir / "fixations.csv") is None
