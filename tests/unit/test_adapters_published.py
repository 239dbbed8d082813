"""The published releases: split files or none, what is absent, and what must lie where."""

import shutil

import numpy as np
import pytest
from conftest import disc
from PIL import Image

from stages.cli import Problems
from stages.datasets import adapter, layouts
from stages.settings.prepare import PrepareSettings


def index(layout, root):
    problems = Problems()
    return adapter(layout).index(root, problems), [str(problem) for problem in problems]


def test_ids_and_splits_are_those_of_the_split_files(kvasir):
    (kvasir / "val.txt").write_text("\ufeff frame 3 \r\n\r\n", encoding="utf-8")
    (kvasir / "train.txt").write_text("frame 2\nframe 0\n")
    (kvasir / "gaze").mkdir()
    records, problems = index("kvasir", kvasir)
    assert problems == []
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        ("frame 2", "frame 2", "train"), ("frame 0", "frame 0", "train"),
        ("frame 3", "frame 3", "val"),
        ("frame 4", "frame 4", "test"), ("frame 5", "frame 5", "test"),
    ]  # fmt: skip
    assert records[0].image == kvasir / "images/frame 2.jpg"
    assert records[0].mask == kvasir / "masks/frame 2.jpg"


def test_without_split_files_all_images_have_none(kvasir):
    (kvasir / "train.txt").unlink()
    (kvasir / "test.txt").unlink()
    (kvasir / "kavsir_bboxes.json").write_text("{}")
    (kvasir / "images/._frame 1.jpg").write_bytes(b"hidden")
    (kvasir / "masks/frame 2.jpg").unlink()
    records, problems = index("kvasir", kvasir)
    assert problems == []
    assert [r.sample_id for r in records] == [f"frame {i}" for i in range(6)]
    assert {r.split for r in records} == {None}
    assert [r.mask is None for r in records] == [False, False, True, False, False, False]


def test_all_that_the_split_files_lack_is_said_at_once(kvasir):
    (kvasir / "images/frame 1.jpg").unlink()
    (kvasir / "train.txt").write_text("frame 1\nframe 2\nabsent\n")
    (kvasir / "test.txt").unlink()
    records, problems = index("kvasir", kvasir)
    assert [r.sample_id for r in records] == ["frame 2"]
    assert problems == [
        f"{kvasir}/test.txt: file\n"
        "  found:    none, though other split files are there\n"
        "  expected: the ids of this split, one a line\n"
        "  to mend:  add the file; or take the others away, and prepare.split: drawn draws the "
        "splits",
        *(
            f"{kvasir}/train.txt: id {name!r}\n"
            f"  found:    no file {kvasir}/images/{name}.jpg\n"
            "  expected: one image per id\n"
            "  to mend:  add the image or delete the line"
            for name in ("frame 1", "absent")
        ),
    ]


def test_a_split_file_that_is_no_text_is_named(kvasir):
    (kvasir / "test.txt").write_bytes(b"frame 4\n\xff\xfe")
    records, (problem,) = index("kvasir", kvasir)
    assert len(records) == 4
    assert problem.startswith(f"{kvasir}/test.txt: file\n  found:    'utf-8' codec")
    assert "expected: UTF-8 text, one id a line" in problem


def test_a_frame_and_its_jpeg_mask(kvasir):
    records, _ = index("kvasir", kvasir)
    pixels = adapter("kvasir").read(records[2])
    assert pixels.image.shape == (68, 84, 3) and pixels.image.dtype == np.uint8
    assert (pixels.mask ^ disc((68, 84), (34, 25.2), 14)).sum() < 30
    assert np.isnan(pixels.spacing_mm).all()


def test_the_case_of_a_prostate_slice_is_its_subject(nci_isbi):
    records, problems = index("nci_isbi", nci_isbi)
    assert problems == []
    assert [(r.sample_id, r.subject_id) for r in records[:2]] == [
        ("case1_1", "case1"), ("case1_11", "case1"),
    ]  # fmt: skip
    pixels = adapter("nci_isbi").read(records[1])
    # The second slice that was written.
    np.testing.assert_array_equal(pixels.mask, disc((48, 64), (24, 21), 8))
    np.testing.assert_array_equal(pixels.image[..., 0], 2000 + 300 * pixels.mask)
    assert pixels.spacing_mm == (0.5, 0.75)


def test_fgi_folders_of_isic(kvasir):
    (kvasir / "labels").mkdir()
    for i in range(6):
        mask = disc((60 + 4 * i, 80 + 2 * i), (30, 30), 9)
        Image.fromarray(mask).save(kvasir / f"labels/frame {i}_segmentation.png")
    records, problems = index("isic", kvasir)
    assert len(records) == 6 and problems == []
    assert records[5].mask == kvasir / "labels/frame 5_segmentation.png"
    np.testing.assert_array_equal(
        adapter("isic").read(records[5]).mask, disc((80, 90), (30, 30), 9)
    )


def test_the_official_folders_of_isic(isic_challenge):
    records, problems = index("isic_challenge", isic_challenge)
    assert problems == []
    splits = ["train"] * 4 + ["val"] + ["test"] * 2
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        (f"ISIC_{i:07d}", f"ISIC_{i:07d}", split) for i, split in enumerate(splits)
    ]
    for i, record in enumerate(records):
        pixels = adapter("isic_challenge").read(record)
        np.testing.assert_array_equal(pixels.mask, disc((48, 64), (24, 20 + 3 * i), 12))
        # The lesion is darker.
        assert pixels.image[pixels.mask].mean() < pixels.image[~pixels.mask].mean() - 50


def test_isic_without_its_validation_part(isic_challenge):
    for folder in isic_challenge.glob("*Validation*"):
        shutil.rmtree(folder)
    records, problems = index("isic_challenge", isic_challenge)
    assert [r.split for r in records] == ["train"] * 4 + ["test"] * 2 and problems == []


def test_images_and_masks_of_isic_come_in_pairs(isic_challenge):
    inputs = isic_challenge / "ISIC2018_Task1-2_Training_Input"
    truth = isic_challenge / "ISIC2018_Task1_Training_GroundTruth"
    (inputs / "ISIC_0000001.jpg").unlink()
    (truth / "ISIC_0000002_segmentation.png").unlink()
    shutil.rmtree(isic_challenge / "ISIC2018_Task1_Validation_GroundTruth")
    records, problems = index("isic_challenge", isic_challenge)
    assert [r.sample_id[-1] for r in records] == ["0", "3", "5", "6"]
    first, second, third = problems
    assert first == (
        f"{truth}/ISIC_0000001_segmentation.png: file\n"
        f"  found:    no {inputs}/ISIC_0000001.jpg\n"
        "  expected: an image and its mask\n"
        "  to mend:  unpack both archives of this part again"
    )
    assert second.startswith(f"{inputs}/ISIC_0000002.jpg: file\n  found:    no {truth}/")
    assert "ISIC2018_Task1-2_Validation_Input/ISIC_0000004.jpg: file" in third


# What must lie where


def test_every_layout_of_the_settings_is_described_and_has_an_adapter():
    names = PrepareSettings.model_fields["layout"].annotation.__args__
    assert set(names) == set(layouts.LAYOUTS)
    for name in names:
        assert callable(adapter(name).index) and callable(adapter(name).read)


FIXTURES = {
    "kvasir": "kvasir", "nci_isbi": "nci_isbi", "nci_isbi_volumes": "nci_isbi_volumes",
    "isic_challenge": "isic_challenge", "own_folder": "folder", "own_volumes": "folder",
}  # fmt: skip


@pytest.mark.parametrize("fixture", FIXTURES)
def test_complete_folders_lack_nothing(fixture, request):
    root, layout = request.getfixturevalue(fixture), FIXTURES[fixture]
    assert layouts.missing(layout, root) is None
    present = layouts.present(layout, root)
    assert present and all(path.exists() for path in present)


def test_what_lacks_is_described_once_and_wholly(tmp_path):
    root = tmp_path / "kvasir"
    message = layouts.missing("kvasir", root, root / "fixations.csv")
    assert message.startswith(f"the folder {root} is missing\n  there must be:\n")
    lines = [line.split(": ")[0].strip() for line in message.splitlines()[2:-1]]
    assert lines == [
        f"{root}/{name}" for name in ("images", "masks", "train.txt", "test.txt", "fixations.csv")
    ]
    assert "get it from: images and masks: Kvasir-SEG, https://" in message
    (root / "images").mkdir(parents=True)
    assert layouts.missing("kvasir", root).startswith(f"missing: {root}/masks, {root}/train.txt")


@pytest.mark.parametrize("layout", ["kvasir", "nci_isbi", "isic"])
def test_drawn_splits_need_no_split_files(layout, tmp_path):
    for name in layouts.LAYOUTS[layout].entries:
        (tmp_path / name).mkdir()
    assert layouts.missing(layout, tmp_path, drawn=True) is None
    assert "train.txt" in layouts.missing(layout, tmp_path, drawn=False)


def test_own_images_need_neither_masks_nor_split_files(tmp_path):
    assert f"missing: {tmp_path}/images\n" in layouts.missing("folder", tmp_path)
    (tmp_path / "images").mkdir()
    assert layouts.missing("folder", tmp_path) is None
    assert layouts.present("folder", tmp_path) == [tmp_path / "images"]


def test_inputs_are_what_must_be_there_and_what_else_is(kvasir, nci_isbi_volumes):
    names = ["images", "masks", "train.txt", "test.txt"]
    assert layouts.present("kvasir", kvasir) == [kvasir / name for name in names]
    (kvasir / "val.txt").touch()
    given = [*names, "val.txt"]
    assert layouts.present("kvasir", kvasir) == [kvasir / name for name in given]
    (kvasir / "test.txt").unlink()
    # With given splits it must be there; with drawn ones, it is not.
    assert layouts.present("kvasir", kvasir) == [kvasir / name for name in given]
    drawn = ["images", "masks", "train.txt", "val.txt"]
    assert layouts.present("kvasir", kvasir, drawn=True) == [kvasir / name for name in drawn]
    parts = [nci_isbi_volumes / name for name in ("Training", "Test")]
    assert layouts.present("nci_isbi_volumes", nci_isbi_volumes) == parts
