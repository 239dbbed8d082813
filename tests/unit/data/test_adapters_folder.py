"""Own images, in the formats that labs use."""

import shutil
from dataclasses import replace
from unicodedata import normalize

import nibabel
import numpy as np
import pytest
from conftest import disc, write_dicom, write_nifti
from PIL import Image

from stages.core.cli import BadInput, Problems
from stages.data.datasets import folder
from stages.data.datasets.labels import Labels

SIZE = (48, 64)
MASK = disc(SIZE, (24, 20), 10)
AFFINE = np.diag([-0.75, -0.5, 4.0, 1.0])


def list_records(root):
    problems = Problems()
    return folder.list_records(root, problems), [str(problem) for problem in problems]


@pytest.fixture
def empty(tmp_path):
    root = tmp_path / "own"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    return root


def test_pictures_of_all_formats_with_and_without_a_mask(own_folder):
    records, problems = list_records(own_folder)
    assert problems == []
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        (f"scan {i}", f"scan {i}", None) for i in range(8)
    ]
    assert {r.image.suffix for r in records} == {".png", ".jpg", ".tiff", ".bmp"}
    for i, record in enumerate(records):
        pixels = folder.read(record)
        assert pixels.image.shape == (*SIZE, 3) and np.isnan(pixels.spacing_mm).all()
        inside = disc(SIZE, (24, 20 + 3 * i), 10)
        assert pixels.image[inside].mean() > pixels.image[~inside].mean() + 60
        if i == 7:
            assert record.mask is None and pixels.mask is None
        else:
            np.testing.assert_array_equal(pixels.mask, inside)


def test_without_a_folder_of_masks(own_folder):
    shutil.rmtree(own_folder / "masks")
    records, problems = list_records(own_folder)
    assert len(records) == 8 and problems == [] and {r.mask for r in records} == {None}


def test_volumes_become_slices_from_the_feet(own_volumes):
    records, problems = list_records(own_volumes)
    assert problems == []
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        (f"case{i}_{number}", f"case{i}", "test" if i == 4 else "train")
        for i in range(1, 5)
        for number in (1, 2, 3)
    ]
    for record in records:
        number, volume = record.slice + 1, int(record.subject_id[-1])
        pixels = folder.read(record)
        assert pixels.image.dtype == np.float32 and pixels.spacing_mm == (0.5, 0.75)
        expected = disc(SIZE, (24, 20 + volume), 7 + number)
        np.testing.assert_array_equal(pixels.mask, expected)
        np.testing.assert_array_equal(
            pixels.image[..., 0], 100 * volume + number + 40 * pixels.mask
        )


def test_a_nifti_of_one_slice_has_the_id_of_its_file(empty):
    write_nifti(empty / "images/a.nii", MASK.T.astype(np.int16), AFFINE)
    write_nifti(empty / "masks/a.nii.gz", MASK.T.astype(np.uint8), AFFINE)
    (record,), problems = list_records(empty)
    assert (record.sample_id, record.subject_id, problems) == ("a", "a", [])
    np.testing.assert_array_equal(folder.read(record).mask, MASK)


def test_dicom_with_patient_spacing_and_masks_of_several_formats(empty):
    pixels = 100 + 50 * MASK
    write_dicom(empty / "images/a.dcm", pixels, (0.5, 0.75), PatientID="P1")
    write_dicom(empty / "images/b.DCM", pixels, (0.5, 0.75), PatientID="P1")
    write_dicom(empty / "images/1.2.840.7", pixels, (0.5, 0.75))  # no ending, and no patient
    Image.fromarray(MASK).save(empty / "masks/a.png")
    # MONOCHROME1 inverts the display, not the mask.
    write_dicom(
        empty / "masks/b.dcm", MASK * 1, (0.5, 0.75), PhotometricInterpretation="MONOCHROME1"
    )
    Image.fromarray((MASK * 255).astype(np.uint8)).save(empty / "masks/1.2.840.7.tif")
    records, problems = list_records(empty)
    assert problems == []
    assert [(r.sample_id, r.subject_id) for r in records] == [
        ("1.2.840.7", "1.2.840.7"), ("a", "a"), ("b", "a"),
    ]  # fmt: skip
    for record in records:
        read = folder.read(record)
        assert read.spacing_mm == (0.5, 0.75)
        np.testing.assert_array_equal(read.mask, MASK)
        np.testing.assert_array_equal(read.image[..., 0], pixels)


def test_a_dicom_mask_with_another_geometry_is_reported(empty):
    for name, spacing in (("a", (0.5, 0.75)), ("b", (2.0, 2.0))):
        write_dicom(empty / f"images/{name}.dcm", 100 + 50 * MASK, (0.5, 0.75))
        write_dicom(empty / f"masks/{name}.dcm", MASK * 1, spacing)
    (record,), (problem,) = list_records(empty)
    assert record.sample_id == "a"
    assert problem.startswith(f"{empty}/masks/b.dcm: geometry\n  found:    PixelSpacing")
    assert "expected: that of the image: PixelSpacing [0.5, 0.75]\n" in problem


def test_volumes_of_one_and_of_three_time_points(empty):
    voxels = np.arange(64 * 48 * 2).reshape(64, 48, 2, 1).astype(np.int16)
    write_nifti(empty / "images/a.nii", voxels, AFFINE)
    write_nifti(empty / "masks/a.nii", (voxels[..., 0] > 9).astype(np.uint8), AFFINE)
    write_nifti(empty / "images/b.nii", np.concatenate([voxels] * 3, axis=-1), AFFINE)
    records, (problem,) = list_records(empty)
    assert [r.sample_id for r in records] == ["a_1", "a_2"]
    pixels = folder.read(records[1])
    np.testing.assert_array_equal(pixels.image[..., 0], voxels[..., 1, 0].T)
    np.testing.assert_array_equal(pixels.mask, voxels[..., 1, 0].T > 9)
    assert problem == (
        f"{empty}/images/b.nii: axes\n"
        "  found:    64 × 48 × 2 × 3 voxels\n"
        "  expected: three axes, that is one time point per file\n"
        "  to mend:  save the time point that the reader looked at as a separate file"
    )


@pytest.mark.parametrize(("image_form", "mask_form"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_composed_or_decomposed(image_form, mask_form, empty):
    for name in ("Jörg", "ผู้ป่วย é"):
        Image.fromarray(MASK).save(empty / f"images/{normalize(image_form, name)}.png")
        Image.fromarray(MASK).save(empty / f"masks/{normalize(mask_form, name)}.png")
    for split, name in (("train", "Jörg"), ("test", "ผู้ป่วย é")):
        (empty / f"{split}.txt").write_text(normalize(mask_form, name), encoding="utf-8")
    records, problems = list_records(empty)
    assert problems == []
    assert [r.sample_id for r in records] == [normalize("NFC", n) for n in ("Jörg", "ผู้ป่วย é")]
    for record in records:
        assert folder.read(record).mask.any()


def test_split_files_name_slices_volumes_and_subsets(own_volumes):
    (own_volumes / "train.txt").write_text("case2\ncase1_3\n")
    (own_volumes / "val.txt").write_text("case1_1\n")
    (own_volumes / "test.txt").write_text("case4\nabsent\ncase1_4\n")
    records, problems = list_records(own_volumes)
    assert [(r.sample_id, r.split) for r in records] == [
        ("case2_1", "train"), ("case2_2", "train"), ("case2_3", "train"), ("case1_3", "train"),
        ("case1_1", "val"),
        ("case4_1", "test"), ("case4_2", "test"), ("case4_3", "test"),
    ]  # fmt: skip
    (problem,) = problems
    assert problem.startswith(
        f"{own_volumes}/test.txt: ids\n  found:    2 without an image: absent, case1_4\n"
    )


def test_split_files_with_file_names_get_the_ids(own_folder, own_volumes):
    (own_volumes / "test.txt").write_text("case1.nii.gz\nCASE2_1\ncase3.NII\n")
    (own_folder / "train.txt").write_text("scan 0.png\n")
    (own_folder / "test.txt").write_text("scan 1\nscan 2.png\n")
    _, (of_volumes,) = list_records(own_volumes)
    assert of_volumes.endswith(
        "write `case1` for `case1.nii.gz`, `case2_1` for `CASE2_1`, `case3` for `case3.NII`"
    )
    _, problems = list_records(own_folder)
    assert [problem.splitlines()[-1] for problem in problems] == [
        f"  to mend:  write `scan {i}` for `scan {i}.png`" for i in (0, 2)
    ]


def test_ids_that_differ_only_by_case_are_two(empty):
    for name in ("g7", "G7"):
        Image.fromarray(MASK).save(empty / f"images/{name}.png")
    (empty / "train.txt").write_text("G7\n")
    (empty / "test.txt").write_text("g7\n")
    records, problems = list_records(empty)
    assert [(r.sample_id, r.split) for r in records] == [("G7", "train"), ("g7", "test")]
    assert problems == []


def test_all_problems_of_a_folder_are_reported_together(own_folder):
    images, masks = own_folder / "images", own_folder / "masks"
    (images / "notes.docx").write_text("none")
    (images / "sub").mkdir()
    shutil.copy(images / "scan 0.png", images / "scan 0.bmp")
    for i in range(90, 97):
        shutil.copy(masks / "scan 0.png", masks / f"scan {i}.png")
    (masks / "scan 1.png").rename(masks / "scan 1.nii")
    records, problems = list_records(own_folder)
    assert [r.sample_id for r in records] == [f"scan {i}" for i in (0, 2, 3, 4, 5, 6, 7)]
    endings = ".nii.gz, .nii, .dcm, .png, .jpg, .jpeg, .tif, .tiff, .bmp"
    assert problems == [
        f"{images}/notes.docx: file\n"
        "  found:    another kind of file\n"
        f"  expected: an image: {endings}, or DICOM without an ending\n"
        "  to mend:  convert the file, or remove it",
        f"{images}/scan 0.png: id 'scan 0'\n"
        "  found:    also scan 0.bmp\n"
        "  expected: one file per id\n"
        "  to mend:  rename or remove one of the two",
        f"{images}/sub: file\n"
        "  found:    a folder\n"
        f"  expected: an image: {endings}, or DICOM without an ending\n"
        "  to mend:  convert the file, or remove it",
        f"{masks}: masks\n"
        "  found:    7 without an image: scan 90, scan 91, scan 92, scan 93, scan 94 and 2 more\n"
        f"  expected: {images}/<id> and an ending for each\n"
        "  to mend:  add the images, or remove the masks",
        f"{masks}/scan 1.nii: mask\n"
        "  found:    a NIfTI file, but scan 1.jpg is a picture file\n"
        "  expected: a volume for a volume, and a single image for a single image\n"
        "  to mend:  save the mask in a format of the same kind as the image",
    ]


def test_a_split_file_may_list_an_unreadable_image(own_volumes):
    (own_volumes / "images/case2.nii.gz").write_bytes(b"none")
    write_nifti(own_volumes / "masks/case3.nii.gz", np.zeros((64, 48, 4), np.uint8), AFFINE)
    records, problems = list_records(own_volumes)
    assert {r.subject_id for r in records} == {"case1", "case4"}
    unreadable, elsewhere = problems
    assert unreadable.startswith(f"{own_volumes}/images/case2.nii.gz: file\n")
    assert elsewhere.startswith(f"{own_volumes}/masks/case3.nii.gz: grid\n  found:    (4, 48, 64)")


def test_an_unreadable_dicom_is_reported(own_folder):
    (own_folder / "images/a.dcm").write_text("none")
    records, (problem,) = list_records(own_folder)
    assert len(records) == 8
    assert problem.startswith(f"{own_folder}/images/a.dcm: file")


def read_error(record):
    with pytest.raises(BadInput) as caught:
        folder.read(record)
    return str(caught.value)


@pytest.mark.parametrize("chosen", [(1,), (2,), (1, 2)])
def test_chosen_labels_of_volumes_dicom_and_pictures(empty, chosen):
    inner = disc(SIZE, (24, 20), 4)
    zones = MASK + inner.astype(np.uint8)
    voxels = np.stack([zones.T, MASK.T], axis=-1).astype(np.uint8)  # the second slice has no 2
    write_nifti(empty / "images/a.nii", voxels, AFFINE)
    write_nifti(empty / "masks/a.nii", voxels, AFFINE)
    for name in ("b", "c"):
        write_dicom(empty / f"images/{name}.dcm", zones * 9, (1, 1))
    write_dicom(empty / "masks/b.dcm", zones, (1, 1))
    Image.fromarray(zones).save(empty / "masks/c.png")
    records, problems = list_records(empty)
    assert problems == []
    for record, expected in zip(records, (zones, MASK, zones, zones), strict=True):
        chosen_record = replace(record, labels=Labels(chosen))
        np.testing.assert_array_equal(folder.read(chosen_record).mask, np.isin(expected, chosen))


def test_labels_that_a_volume_stores_with_a_slope(empty):
    labels = np.stack([MASK.T, 2 * MASK.T], axis=-1).astype(np.float32)
    image = nibabel.Nifti1Image(labels, AFFINE)
    image.set_data_dtype(np.int16)  # nibabel then scales 2 to the largest value
    image.to_filename(empty / "masks/a.nii")
    write_nifti(empty / "images/a.nii", labels.astype(np.int16), AFFINE)
    records, _ = list_records(empty)
    masks = [folder.read(replace(r, labels=Labels([1]))).mask for r in records]
    np.testing.assert_array_equal(masks, [MASK, np.zeros_like(MASK)])


def test_a_slice_and_a_picture_of_one_name(empty):
    write_nifti(empty / "images/a.nii", np.stack([MASK.T] * 2, axis=-1).astype(np.int16), AFFINE)
    for name in ("a_2", "b"):
        Image.fromarray(MASK).save(empty / f"images/{name}.png")
    problems = Problems()
    records = folder.list_images(empty / "images", problems)
    assert [record.sample_id for record in records] == ["a_1", "b"]
    (problem,) = map(str, problems)
    assert problem.startswith(f"{empty}/images: ids\n  found:    more than once: a_2\n")


def test_masks_of_several_labels_or_colours_are_reported(empty):
    labels = np.stack([MASK.T, 2 * MASK.T], axis=-1).astype(np.uint8)
    write_nifti(empty / "images/a.nii", labels, AFFINE)
    write_nifti(empty / "masks/a.nii", labels, AFFINE)
    write_dicom(empty / "images/b.dcm", MASK * 9, (1, 1))
    write_dicom(empty / "masks/b.dcm", MASK[:, ::2] * 9, (1, 1))
    write_dicom(empty / "images/c.dcm", MASK * 9, (1, 1))
    rgb = np.repeat(MASK[..., None], 3, axis=-1).astype(np.uint8)
    write_dicom(
        empty / "masks/c.dcm", MASK, (1, 1), PhotometricInterpretation="RGB", SamplesPerPixel=3,
        PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=rgb.tobytes(),
    )  # fmt: skip
    (first, second, third, fourth), problems = list_records(empty)
    assert problems == []
    # Each slice has two levels; the volume has three.
    for record in (first, second):
        message = read_error(record)
        assert "a.nii: mask\n  found:    3 levels: 0, 1, 2\n" in message
        assert "`prepare.foreground`" in message
    assert "b.dcm: size\n  found:    (48, 32) (height, width)" in read_error(third)
    assert "c.dcm: mask\n  found:    colours\n  expected: grey" in read_error(fourth)
