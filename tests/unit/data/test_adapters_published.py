"""The published releases: split files, missing files, and required entries of a raw folder."""

import logging
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from conftest import disc, write_dicom
from PIL import Image

from stages.core.cli import Problems
from stages.data.datasets import layouts, load_adapter
from stages.data.splits import assign_splits
from stages.settings.prepare import PrepareSettings


def list_records(layout, root):
    problems = Problems()
    return load_adapter(layout).list_records(root, problems), [str(problem) for problem in problems]


def test_ids_and_splits_are_those_of_the_split_files(kvasir):
    (kvasir / "val.txt").write_text("\ufeff frame 3 \r\n\r\n", encoding="utf-8")
    (kvasir / "train.txt").write_text("frame 2\nframe 0\n")
    (kvasir / "gaze").mkdir()
    records, problems = list_records("kvasir", kvasir)
    assert problems == []
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        ("frame 2", "frame 2", "train"), ("frame 0", "frame 0", "train"),
        ("frame 3", "frame 3", "val"),
        ("frame 4", "frame 4", "test"), ("frame 5", "frame 5", "test"),
    ]  # fmt: skip
    assert records[0].image == kvasir / "images/frame 2.jpg"
    assert records[0].mask == kvasir / "masks/frame 2.jpg"


def test_without_split_files_no_image_has_a_split(kvasir):
    (kvasir / "train.txt").unlink()
    (kvasir / "test.txt").unlink()
    (kvasir / "kavsir_bboxes.json").write_text("{}")
    (kvasir / "images/._frame 1.jpg").write_bytes(b"hidden")
    (kvasir / "masks/Thumbs.db").write_bytes(b"hidden, too")
    (kvasir / "masks/frame 2.jpg").unlink()
    records, problems = list_records("kvasir", kvasir)
    assert problems == []
    assert [r.sample_id for r in records] == [f"frame {i}" for i in range(6)]
    assert {r.split for r in records} == {None}
    assert [r.mask is None for r in records] == [False, False, True, False, False, False]


def test_all_problems_of_the_split_files_are_reported_together(kvasir):
    (kvasir / "images/frame 1.jpg").unlink()
    (kvasir / "train.txt").write_text("frame 1\nframe 2\nabsent\n")
    (kvasir / "test.txt").unlink()
    records, problems = list_records("kvasir", kvasir)
    assert [r.sample_id for r in records] == ["frame 2"]
    assert problems == [
        f"{kvasir}/test.txt: file\n"
        "  found:    nothing, but other split files exist\n"
        "  expected: the ids of this split, one per line\n"
        "  to mend:  add the file; or remove the others, and set prepare.split: drawn",
        f"{kvasir}/train.txt: ids\n"
        "  found:    2 without an image: frame 1, absent\n"
        f"  expected: one image per id: {kvasir}/images/<id>.jpg\n"
        "  to mend:  add the images, or delete the lines",
    ]


def test_lines_that_write_an_id_in_another_way_get_the_id(kvasir):
    frames = ("frame 0.jpg", "images/frame 1.jpg", "Frame 2", "FRAME 3.JPG", "frame 9.jpg")
    (kvasir / "train.txt").write_text("\n".join(frames))
    records, (written, absent) = list_records("kvasir", kvasir)
    assert [r.sample_id for r in records] == ["frame 4", "frame 5"]
    assert written == (
        f"{kvasir}/train.txt: ids\n"
        "  found:    4 not written as their images are named\n"
        "  expected: image names without folder and ending, in the same case\n"
        "  to mend:  write `frame 0` for `frame 0.jpg`, `frame 1` for `images/frame 1.jpg`, "
        "`frame 2` for `Frame 2`, `frame 3` for `FRAME 3.JPG`"
    )
    assert "found:    1 without an image: frame 9.jpg\n" in absent


def test_many_lines_with_endings_are_one_problem(kvasir):
    for i in range(6, 2000):
        (kvasir / f"images/frame {i}.jpg").touch()
    (kvasir / "train.txt").write_text("".join(f"frame {i}.jpg\n" for i in range(2000)))
    _, (problem,) = list_records("kvasir", kvasir)
    assert "found:    2000 not written as" in problem and problem.endswith(" and 1995 more")


def no_folder(path, found):
    return (
        f"{path}: folder\n"
        f"  found:    {found}\n"
        "  expected: a folder\n"
        "  to mend:  create the folder, or correct `root` in config.yaml"
    )


FIXTURE_AND_FOLDERS = {
    "kvasir": ("kvasir", "images", "masks"),
    "isic": ("kvasir", "images", "labels"),
    "nci_isbi": ("nci_isbi", "images", "masks"),
    "nci_isbi_volumes": ("nci_isbi_volumes", "Training", "Leaderboard", "Test"),
    "isic_challenge": (
        "isic_challenge", "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Test_GroundTruth",
        "ISIC2018_Task1-2_Validation_Input",
    ),
    "folder": ("own_folder", "images", "masks"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "name"),
    [(layout, name) for layout in FIXTURE_AND_FOLDERS for name in FIXTURE_AND_FOLDERS[layout][1:]],
)
def test_a_file_in_place_of_a_folder_is_one_problem(layout, name, request):
    root = request.getfixturevalue(FIXTURE_AND_FOLDERS[layout][0])
    if layout == "isic" and name == "images":
        (root / "labels").mkdir()
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).write_text("a file")
    problems = Problems()
    with problems.collect():
        load_adapter(layout).list_records(root, problems)
    assert [str(problem) for problem in problems] == [no_folder(root / name, "a file")]


def delete_split_files(root):
    (root / "train.txt").unlink()
    (root / "test.txt").unlink()
    return root


def test_endings_of_any_case(kvasir):
    for path in ("images/frame 1", "masks/frame 1", "masks/frame 3"):
        (kvasir / f"{path}.jpg").rename(kvasir / f"{path}.JPG")
    for _ in range(2):
        records, problems = list_records("kvasir", kvasir)
        assert [r.sample_id for r in records] == [f"frame {i}" for i in range(6)]
        assert (records[1].image.name, records[1].mask.name) == ("frame 1.JPG", "frame 1.JPG")
        assert records[3].mask.name == "frame 3.JPG" and problems == []
        if (kvasir / "train.txt").exists():
            delete_split_files(kvasir)


def test_two_files_of_one_id_are_reported(kvasir):
    shutil.copy(kvasir / "images/frame 2.jpg", kvasir / "images/frame 2.Jpg")
    records, (problem,) = list_records("kvasir", kvasir)
    assert len(records) == 6
    assert problem == (
        f"{kvasir}/images/frame 2.jpg: id 'frame 2'\n"
        "  found:    also frame 2.Jpg\n"
        "  expected: one file per id\n"
        "  to mend:  rename or remove one of the two"
    )


MEND_FILE_NAMES = (
    "  to mend:  convert, rename or remove them; for images and masks of other formats set "
    "`prepare.layout: folder`"
)


def test_with_drawn_splits_images_with_other_endings_are_reported(kvasir):
    for i in (0, 4):
        (kvasir / f"images/frame {i}.jpg").rename(kvasir / f"images/frame {i}.png")
    (kvasir / "images/LICENSE.txt").write_text("texts come with downloads")
    (kvasir / "images/old").mkdir()
    records, problems = list_records("kvasir", delete_split_files(kvasir))
    assert [r.sample_id for r in records] == [f"frame {i}" for i in (1, 2, 3, 5)]
    # Their masks are not reported as masks without an image.
    assert problems == [
        f"{kvasir}/images: files\n"
        "  found:    3 with other names: frame 0.png, frame 4.png, old\n"
        "  expected: <id>.jpg, such as frame 0.jpg\n" + MEND_FILE_NAMES
    ]


def test_with_given_splits_images_with_other_endings_are_accepted(kvasir):
    (kvasir / "train.txt").write_text("frame 1\n")
    (kvasir / "images/frame 2.jpg").rename(kvasir / "images/frame 2.png")
    records, problems = list_records("kvasir", kvasir)
    assert [r.sample_id for r in records] == ["frame 1", "frame 4", "frame 5"] and problems == []


@pytest.mark.parametrize("split", ["given", "drawn"])
def test_masks_with_other_names_or_without_an_image_are_reported(split, kvasir):
    for i in range(1, 7):
        shutil.copy(kvasir / "masks/frame 0.jpg", kvasir / f"masks/lone {i}.jpg")
    (kvasir / "masks/frame 3.jpg").rename(kvasir / "masks/frame 3.png")
    if split == "drawn":
        delete_split_files(kvasir)
    records, problems = list_records("kvasir", kvasir)
    assert [r.mask is None for r in records] == [False, False, False, True, False, False]
    assert problems == [
        f"{kvasir}/masks: files\n"
        "  found:    1 with other names: frame 3.png\n"
        "  expected: <id>.jpg, such as frame 3.jpg\n" + MEND_FILE_NAMES,
        f"{kvasir}/masks: masks\n"
        "  found:    6 without an image: lone 1, lone 2, lone 3, lone 4, lone 5 and 1 more\n"
        f"  expected: {kvasir}/images/<id>.jpg for each\n"
        "  to mend:  add the images, or remove the masks",
    ]


def test_the_expected_name_of_an_isic_mask_is_reported(kvasir):
    (kvasir / "labels").mkdir()
    shutil.copy(kvasir / "masks/frame 3.jpg", kvasir / "labels/frame 3.png")
    _, (problem,) = list_records("isic", kvasir)
    assert "expected: <id>_segmentation.png, such as frame 3_segmentation.png\n" in problem


def test_missing_masks_are_counted_if_other_masks_exist(kvasir, caplog):
    for i in (0, 2, 5):
        (kvasir / f"masks/frame {i}.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        _, problems = list_records("kvasir", kvasir)
        warning = f"{kvasir}: no mask of 3 of 6 images: frame 0, frame 2, frame 5"
        assert problems == [] and caplog.messages == [warning]
        caplog.clear()
        shutil.rmtree(kvasir / "masks")
        (kvasir / "masks").mkdir()
        assert list_records("kvasir", kvasir)[1] == [] and caplog.messages == []


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_composed_or_decomposed(on_disk, in_list, kvasir, isic_challenge):
    name = "Zoé-रोगी"
    for folder in ("images", "masks"):
        path = kvasir / f"{folder}/{normalize(on_disk, name)}.jpg"
        (kvasir / f"{folder}/frame 0.jpg").rename(path)
    (kvasir / "train.txt").write_text(f"{normalize(in_list, name)}\n", encoding="utf-8")
    (record, *_), problems = list_records("kvasir", kvasir)
    assert (record.sample_id, record.subject_id) == (normalize("NFC", name),) * 2
    # The files keep their names.
    assert record.image.name == record.mask.name == f"{normalize(on_disk, name)}.jpg"
    assert problems == [] and load_adapter("kvasir").read(record).mask.any()

    inputs = isic_challenge / "ISIC2018_Task1-2_Training_Input"
    truth = isic_challenge / "ISIC2018_Task1_Training_GroundTruth"
    (inputs / "ISIC_0000000.jpg").rename(inputs / f"{normalize(on_disk, name)}.jpg")
    mask = truth / f"{normalize(in_list, name)}_segmentation.png"
    (truth / "ISIC_0000000_segmentation.png").rename(mask)
    records, problems = list_records("isic_challenge", isic_challenge)
    assert problems == [] and normalize("NFC", name) in {r.sample_id for r in records}


def test_a_split_file_that_is_not_text_is_reported(kvasir):
    (kvasir / "test.txt").write_bytes(b"frame 4\n\xff\xfe")
    records, (problem,) = list_records("kvasir", kvasir)
    assert len(records) == 4
    assert problem.startswith(f"{kvasir}/test.txt: file\n  found:    'utf-8' codec")
    assert "expected: UTF-8 text, one id per line" in problem


def test_a_frame_and_its_jpeg_mask(kvasir):
    records, _ = list_records("kvasir", kvasir)
    pixels = load_adapter("kvasir").read(records[2])
    assert pixels.image.shape == (68, 84, 3) and pixels.image.dtype == np.uint8
    assert (pixels.mask ^ disc((68, 84), (34, 25.2), 14)).sum() < 30
    assert np.isnan(pixels.spacing_mm).all()


def test_the_case_of_a_prostate_slice_is_its_subject(nci_isbi):
    records, problems = list_records("nci_isbi", nci_isbi)
    assert problems == []
    assert [(r.sample_id, r.subject_id) for r in records[:2]] == [
        ("case1_1", "case1"), ("case1_11", "case1"),
    ]  # fmt: skip
    pixels = load_adapter("nci_isbi").read(records[1])
    # The second slice that was written.
    np.testing.assert_array_equal(pixels.mask, disc((48, 64), (24, 21), 8))
    np.testing.assert_array_equal(pixels.image[..., 0], 2000 + 300 * pixels.mask)
    assert pixels.spacing_mm == (0.5, 0.75)


def rewrite_slices(root, **tags_of_slice):
    """Write slices anew, 48 × 64, with other tags."""
    for name, tags in tags_of_slice.items():
        write_dicom(root / f"images/{name}.dcm", np.full((48, 64), 9), (0.5, 0.75), **tags)


def test_slices_of_a_case_that_differ_are_reported(nci_isbi):
    axial, sagittal = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
    near = {"PixelSpacing": [0.5002, 0.7497], "ImageOrientationPatient": [1, 5e-4, 0, 0, 1, 0]}
    (nci_isbi / "test.txt").write_text("\n".join(f"case3_{i}" for i in range(1, 6)))
    rewrite_slices(
        nci_isbi,
        # One without values, two that differ, and a rounded one.
        case3_1={"PixelSpacing": None},
        case3_2={"ImageOrientationPatient": axial},
        case3_3={"PixelSpacing": [0.6, 0.75], "ImageOrientationPatient": sagittal},
        case3_4={"ImageOrientationPatient": axial},
        case3_5=near,
    )
    records, (problem,) = list_records("nci_isbi", nci_isbi)
    assert len(records) == 9
    assert problem == (
        f"{nci_isbi}/images: slices of the case 'case3'\n"
        f"  found:    PixelSpacing [0.6, 0.75], ImageOrientationPatient {[*map(float, sagittal)]} "
        "in case3_3.dcm\n"
        f"  expected: PixelSpacing [0.5, 0.75], ImageOrientationPatient {[*map(float, axial)]}, as "
        "in case3_2.dcm\n"
        "  to mend:  remove the slices of another series, or name them as another case"
    )


def test_a_slice_of_another_size_is_reported(nci_isbi):
    (nci_isbi / "train.txt").write_text("case1_1\ncase1_2\ncase1_11\n")
    write_dicom(nci_isbi / "images/case1_2.dcm", np.ones((48, 32)), (0.5, 0.75))
    _, (problem,) = list_records("nci_isbi", nci_isbi)
    assert "found:    Columns [32.0] in case1_2.dcm\n  expected: Columns [64.0], as in " in problem


@pytest.mark.parametrize(
    ("patients", "subjects"),
    [
        # Case 1, 1, 2, 2, 3, 3.
        (("", "", "", "", "", ""), ("case1", "case2", "case3")),
        (("P", "P", "Q", "Q", "R", "R"), ("case1", "case2", "case3")),
        (("P", "P", "Q", "Q", "P", "P"), ("case1", "case2", "case1")),
        (("P", "", "Q", "", "", "P"), ("case1", "case2", "case1")),
        # A case of two patients joins all cases of both.
        (("P", "Q", "P", "P", "Q", "Q"), ("case1", "case1", "case1")),
        (("P", "P", "Q", "Q", "P", "Q"), ("case1", "case1", "case1")),
        (("P", "R", "Q", "Q", "S", "S"), ("case1", "case2", "case3")),
        # A PatientID that all files share identifies nobody, even if some files have none.
        (("P", "P", "P", "P", "P", "P"), ("case1", "case2", "case3")),
        (("P", "P", "", "", "P", "P"), ("case1", "case2", "case3")),
    ],
)
def test_cases_of_one_patient_are_one_subject(patients, subjects, nci_isbi):
    names = [f"case{case}_{number}" for case in (1, 2, 3) for number in (1, 11)]
    rewrite_slices(
        nci_isbi, **{name: {"PatientID": p} for name, p in zip(names, patients, strict=True)}
    )
    records, problems = list_records("nci_isbi", nci_isbi)
    assert problems == []
    assert [r.subject_id for r in records] == [s for s in subjects for _ in range(2)]


def test_a_patient_in_two_splits_is_reported(nci_isbi):
    rewrite_slices(nci_isbi, case1_1={"PatientID": "P"}, case2_1={"PatientID": "Q"},
          case3_1={"PatientID": "P"})  # fmt: skip
    problems = Problems()
    assign_splits(
        list_records("nci_isbi", nci_isbi)[0],
        PrepareSettings(layout="nci_isbi"),
        nci_isbi,
        problems,
    )
    (problem,) = problems
    assert "found:    subjects in two splits: case1\n" in str(problem)


def test_an_unreadable_slice_is_named_by_the_index(nci_isbi):
    (nci_isbi / "images/case2_1.dcm").write_text("none")
    records, (problem,) = list_records("nci_isbi", nci_isbi)
    assert len(records) == 5 and problem.startswith(f"{nci_isbi}/images/case2_1.dcm: file\n")


def test_fgi_folders_of_isic(kvasir):
    (kvasir / "labels").mkdir()
    for i in range(6):
        mask = disc((60 + 4 * i, 80 + 2 * i), (30, 30), 9)
        Image.fromarray(mask).save(kvasir / f"labels/frame {i}_segmentation.png")
    records, problems = list_records("isic", kvasir)
    assert len(records) == 6 and problems == []
    assert records[5].mask == kvasir / "labels/frame 5_segmentation.png"
    np.testing.assert_array_equal(
        load_adapter("isic").read(records[5]).mask, disc((80, 90), (30, 30), 9)
    )


def test_the_official_folders_of_isic(isic_challenge):
    records, problems = list_records("isic_challenge", isic_challenge)
    assert problems == []
    splits = ["train"] * 4 + ["val"] + ["test"] * 2
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        (f"ISIC_{i:07d}", f"ISIC_{i:07d}", split) for i, split in enumerate(splits)
    ]
    for i, record in enumerate(records):
        pixels = load_adapter("isic_challenge").read(record)
        np.testing.assert_array_equal(pixels.mask, disc((48, 64), (24, 20 + 3 * i), 12))
        # The lesion is darker.
        assert pixels.image[pixels.mask].mean() < pixels.image[~pixels.mask].mean() - 50


def test_isic_without_its_validation_part(isic_challenge):
    for folder in isic_challenge.glob("*Validation*"):
        shutil.rmtree(folder)
    records, problems = list_records("isic_challenge", isic_challenge)
    assert [r.split for r in records] == ["train"] * 4 + ["test"] * 2 and problems == []


def test_images_and_masks_of_isic_come_in_pairs(isic_challenge):
    inputs = isic_challenge / "ISIC2018_Task1-2_Training_Input"
    truth = isic_challenge / "ISIC2018_Task1_Training_GroundTruth"
    (inputs / "ISIC_0000001.jpg").unlink()
    (truth / "ISIC_0000002_segmentation.png").unlink()
    shutil.rmtree(isic_challenge / "ISIC2018_Task1_Validation_GroundTruth")
    records, problems = list_records("isic_challenge", isic_challenge)
    assert [r.sample_id[-1] for r in records] == ["0", "3", "5", "6"]
    first, second, third = problems
    assert first == (
        f"{inputs}: files\n"
        "  found:    1 without a partner in the other folder of this part: ISIC_0000002\n"
        "  expected: each image (<id>.jpg) with its mask (<id>_segmentation.png)\n"
        "  to mend:  unpack both archives of this part again"
    )
    assert second.startswith(f"{truth}: files\n  found:    1 ") and "ISIC_0000001\n" in second
    assert third == no_folder(isic_challenge / "ISIC2018_Task1_Validation_GroundTruth", "nothing")
    (inputs / "ISIC_0000003.jpg").rename(inputs / "ISIC_0000003.jpeg")
    _, (unexpected, *_) = list_records("isic_challenge", isic_challenge)
    assert unexpected.startswith(
        f"{inputs}: files\n  found:    1 with other names: ISIC_0000003.jpeg\n"
    )


# Required entries


def test_every_layout_of_the_settings_has_a_description_and_an_adapter():
    names = PrepareSettings.model_fields["layout"].annotation.__args__
    assert set(names) == set(layouts.LAYOUTS)
    for name in names:
        assert callable(load_adapter(name).list_records) and callable(load_adapter(name).read)


FIXTURES = {
    "kvasir": "kvasir", "nci_isbi": "nci_isbi", "nci_isbi_volumes": "nci_isbi_volumes",
    "isic_challenge": "isic_challenge", "own_folder": "folder", "own_volumes": "folder",
}  # fmt: skip


@pytest.mark.parametrize("fixture", FIXTURES)
def test_complete_folders_miss_nothing(fixture, request):
    root, layout = request.getfixturevalue(fixture), FIXTURES[fixture]
    drawn = layout == "folder"
    assert layouts.describe_missing(layout, root, drawn=drawn) is None
    present = layouts.list_inputs(layout, root, drawn)
    assert present and all(path.exists() for path in present)


def test_all_missing_data_are_described_in_one_message(tmp_path):
    root = tmp_path / "kvasir"
    message = layouts.describe_missing("kvasir", root, root / "fixations.csv")
    assert message.startswith(f"the folder {root} is missing; root names it\n  expected:\n")
    lines = [line.split(": ")[0].strip() for line in message.splitlines()[2:-1]]
    assert lines == [
        f"{root}/{name}" for name in ("images", "masks", "train.txt", "test.txt", "fixations.csv")
    ]
    assert "get it from: images and masks: Kvasir-SEG, https://" in message
    (root / "images").mkdir(parents=True)
    assert layouts.describe_missing("kvasir", root).startswith(
        f"missing: {root}/masks, {root}/train.txt"
    )


@pytest.mark.parametrize("layout", ["kvasir", "nci_isbi", "isic", "folder"])
def test_drawn_splits_need_no_split_files(layout, tmp_path):
    for name in layouts.LAYOUTS[layout].required:
        (tmp_path / name).mkdir()
    assert layouts.describe_missing(layout, tmp_path, drawn=True) is None
    assert "train.txt" in layouts.describe_missing(layout, tmp_path, drawn=False)


def test_a_file_in_place_of_a_folder_or_the_reverse_is_missing(kvasir):
    shutil.rmtree(kvasir / "masks")
    (kvasir / "masks").write_text("a file")
    (kvasir / "test.txt").unlink()
    (kvasir / "test.txt").mkdir()
    masks, test = f"{kvasir}/masks (a file, not a folder)", f"{kvasir}/test.txt (a folder, not a"
    assert layouts.describe_missing("kvasir", kvasir).startswith(
        f"missing: {masks}, {test} file)\n"
    )


def test_recorded_gaze_is_a_file_or_a_folder_of_maps(kvasir):
    gaze = kvasir / "gaze"
    meaning = "recorded gaze: the file, or the folder of maps, that `fixations` names"
    message = layouts.describe_missing("kvasir", kvasir, gaze)
    assert message.startswith(f"missing: {gaze}\n") and f"    {gaze}: {meaning}\n" in message
    gaze.mkdir()
    assert layouts.describe_missing("kvasir", kvasir, gaze) is None


@pytest.mark.parametrize(
    ("root", "fixations", "has_hint"),
    [
        ("~/polyps", "data/gaze.csv", True),
        ("data/none", "~ann/gaze.csv", True),
        ("data/~polyps", None, False),
    ],
)
def test_a_tilde_is_not_expanded_and_gets_a_hint(root, fixations, has_hint):
    root, fixations = Path(root), fixations and Path(fixations)
    message = layouts.describe_missing("kvasir", root, fixations, key="datasets.ours.root")
    head = f"the folder {root} is missing; datasets.ours.root names it"
    head += "; ~ is not expanded: write the full path" * has_hint
    assert message.splitlines()[0] == head


def test_own_images_need_no_masks(tmp_path):
    assert f"missing: {tmp_path}/images\n" in layouts.describe_missing(
        "folder", tmp_path, drawn=True
    )
    (tmp_path / "images").mkdir()
    assert layouts.describe_missing("folder", tmp_path, drawn=True) is None
    assert layouts.list_inputs("folder", tmp_path, drawn=True) == [tmp_path / "images"]


def test_inputs_are_required_entries_and_existing_optional_ones(kvasir, nci_isbi_volumes):
    names = ["images", "masks", "train.txt", "test.txt"]
    assert layouts.list_inputs("kvasir", kvasir) == [kvasir / name for name in names]
    (kvasir / "val.txt").touch()
    given = [*names, "val.txt"]
    assert layouts.list_inputs("kvasir", kvasir) == [kvasir / name for name in given]
    (kvasir / "test.txt").unlink()
    # It is required with given splits, and optional with drawn ones.
    assert layouts.list_inputs("kvasir", kvasir) == [kvasir / name for name in given]
    drawn = ["images", "masks", "train.txt", "val.txt"]
    assert layouts.list_inputs("kvasir", kvasir, drawn=True) == [kvasir / name for name in drawn]
    parts = [nci_isbi_volumes / name for name in ("Training", "Test")]
    assert layouts.list_inputs("nci_isbi_volumes", nci_isbi_volumes) == parts
