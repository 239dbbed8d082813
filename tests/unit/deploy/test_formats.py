"""Masks in the format and geometry of their images: NIfTI, DICOM segmentations, mixed folders."""

import gzip
import os
import subprocess
import sys

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from conftest import SERIES_SPACING, write_dicom, write_nifti, write_series
from PIL import Image
from pydicom.uid import generate_uid
from test_segment import make_student, run

from stages.core.cli import BadInput
from stages.core.resize import resize
from stages.data.datasets import dicom, volumes
from stages.deploy import inference, main, records
from stages.deploy.segment import segment_images
from stages.evaluation.evaluate import THRESHOLD
from stages.networks import models
from tests.workspace import ROOT

SERIES_NUMBERS = [3, 1, 2, 4]
# Tags of the images of a clinical archive.
CLINIC = {
    "PatientID": "P-17", "PatientName": "Ada^Test", "PatientBirthDate": "19700101",
    "PatientSex": "F", "StudyDate": "20240102", "StudyTime": "101112", "StudyID": "7",
    "AccessionNumber": "A1", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.9",
    "SeriesNumber": 4, "SliceThickness": 2.5, "Manufacturer": "Scanner Ltd",
}  # fmt: skip


@pytest.fixture
def student(tmp_path):
    return make_student(tmp_path, channels=1)


def expected_masks(student, images):
    """Masks of (H, W, 1) images, each computed alone."""
    network = models.load(student, "student")
    return [inference.segment(network, image) >= THRESHOLD for image in images]


def write_clinical_series(folder, series="1.2.4", **tags):
    """Write a series of four slices whose names and numbers are in no order."""
    names = ["b.dcm", "d.dcm", "a.dcm", "IM0004"]
    write_series(folder, SERIES_NUMBERS, names)
    for name in names:
        dataset = pydicom.dcmread(folder / name)
        tags_of_file = {"SOPInstanceUID": generate_uid(), **CLINIC, **tags}
        for tag, value in (tags_of_file | {"SeriesInstanceUID": series}).items():
            setattr(dataset, tag, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / name, enforce_file_format=True)
    return [folder / name for name in names]


# Axes of the file: which direction of the patient each has, and its voxel size.
AFFINES = {
    "RAS": np.diag([0.75, 0.5, 4.0, 1.0]),
    "LPS": np.diag([-0.75, -0.5, 4.0, 1.0]),
    "sagittal": np.array([[0, 0, 4.0, -9], [0.75, 0, 0, 1], [0, -0.5, 0, 2], [0, 0, 0, 1.0]]),
    "oblique": np.array([[0.7, 0.1, 0.2, 3], [-0.1, 0.5, 0.3, 4], [0, -0.2, -4, 5], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("orientation", AFFINES)
def test_the_mask_of_a_volume_has_its_grid(orientation, version, student, tmp_path):
    (tmp_path / "scans").mkdir()
    path = tmp_path / "scans/cleo.v1.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 18, 17)).astype(np.int16)
    source = version(voxels, AFFINES[orientation])
    source.header.set_xyzt_units("micron" if orientation == "LPS" else "mm", "sec")
    source.set_qform(AFFINES["RAS"], 3)
    source.set_sform(AFFINES[orientation], 2)
    source.header["descrip"] = b"Ada Test"
    source.to_filename(path)
    run(student, tmp_path / "scans", tmp_path / "masks", probability=True)
    mask = nibabel.load(tmp_path / "masks/cleo.v1.nii.gz")
    chance = nibabel.load(tmp_path / "masks/cleo.v1_probability.nii.gz")
    assert [type(mask), type(chance)] == [version] * 2
    assert [mask.get_data_dtype(), chance.get_data_dtype()] == [np.uint8, np.float32]
    for image in (mask, chance):
        assert image.shape == source.shape
        np.testing.assert_array_equal(image.affine, source.affine)
        for name in ("sform_code", "qform_code", "xyzt_units", "pixdim", "quatern_b", "qoffset_x"):
            np.testing.assert_array_equal(image.header[name], source.header[name])
        assert b"Ada" not in gzip.decompress((tmp_path / "masks/cleo.v1.nii.gz").read_bytes())
    # Each slice, oriented as in training, has the mask that the network gives it.
    slices = volumes.read_voxels(path, "")
    expected = expected_masks(student, [s[..., None].astype(np.float32) for s in slices])
    turned = volumes.read_voxels(tmp_path / "masks/cleo.v1.nii.gz", "")
    np.testing.assert_array_equal(turned > 0, expected)
    assert 0 < turned.mean() < 1
    np.testing.assert_array_equal(np.asarray(chance.dataobj) >= 0.5, np.asarray(mask.dataobj) > 0)


@pytest.mark.parametrize("shape", [(20, 18), (20, 18, 3, 1), (20, 18, 1)])
def test_a_volume_with_other_axes_keeps_its_shape(shape, student, tmp_path):
    path = tmp_path / "scans/cleo.nii"
    path.parent.mkdir()
    voxels = np.random.default_rng(0).integers(0, 1000, shape).astype(">i2")
    image = nibabel.Nifti1Image(voxels, AFFINES["RAS"])
    image.header.set_slope_inter(2, -1000)
    image.to_filename(path)
    run(student, path, tmp_path / "masks")
    mask = nibabel.load(tmp_path / "masks/cleo.nii")
    assert mask.shape == nibabel.load(path).shape
    images = [s[..., None].astype(np.float32) for s in volumes.read_voxels(path, "")]
    found = volumes.read_voxels(tmp_path / "masks/cleo.nii", "")
    np.testing.assert_array_equal(found > 0, expected_masks(student, images))


def test_a_series_has_one_segmentation_that_refers_to_its_images(student, tmp_path):
    paths = write_clinical_series(tmp_path / "scans/series")
    run(student, tmp_path / "scans", tmp_path / "masks", label="prostate", probability=True)
    output = tmp_path / "masks/series/1.2.4.dcm"
    pydicom.dcmread(output)
    segmentation = highdicom.seg.segread(output)
    segment = segmentation.get_segment_description(1)
    assert segmentation.SegmentationType == "BINARY" and segmentation.number_of_segments == 1
    assert segment.segment_label == "prostate"
    assert segment.algorithm_type == highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    weights = records.hash_pixels(student.read_bytes())
    assert weights in segment.SegmentDescription and "network" in segment.SegmentDescription
    assert segmentation.DeviceSerialNumber == weights
    assert segmentation.ManufacturerModelName == "gaze-to-insight student"
    assert segmentation.SoftwareVersions == records.VERSION
    for tag in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
        assert segmentation[tag].value == CLINIC[tag]
    assert segmentation.SeriesInstanceUID not in ("1.2.4", "")
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    assert {str(u) for _, _, u in segmentation.get_source_image_uids()} == set(uids)
    pixels = segmentation.get_pixels_by_source_instance(uids, combine_segments=True)
    images = [dicom.read_image(path)[0] for path in paths]
    np.testing.assert_array_equal(pixels > 0, expected_masks(student, images))
    maps = sorted(path.name for path in (tmp_path / "masks/series").glob("*.png"))
    assert maps == [f"{stem}_probability.png" for stem in ("IM0004", "a", "b", "d")]


def test_a_single_image_has_a_segmentation_of_its_name(student, tmp_path):
    first, *_ = write_clinical_series(tmp_path / "scans")
    run(student, first, tmp_path / "masks")
    (output,) = (tmp_path / "masks").iterdir()
    assert output.name == "b.dcm"
    pixels = highdicom.seg.segread(output).pixel_array
    expected = expected_masks(student, [dicom.read_image(first)[0]])
    np.testing.assert_array_equal(np.squeeze(pixels) > 0, expected[0])


def test_a_colour_image_without_a_position_has_a_segmentation(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    path = tmp_path / "frame.dcm"
    write_dicom(path, pixels[..., 0].astype(np.uint16), (0.5, 0.5), **CLINIC)
    dataset = pydicom.dcmread(path)
    del dataset.PixelSpacing, dataset.FrameOfReferenceUID
    dataset.Modality, dataset.SOPClassUID = "ES", pydicom.uid.VLEndoscopicImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration, dataset.SeriesInstanceUID = 0, "1.2.4"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    student = make_student(tmp_path, channels=3)
    run(student, path, tmp_path / "masks")
    found = highdicom.seg.segread(tmp_path / "masks/frame.dcm").pixel_array
    np.testing.assert_array_equal(np.squeeze(found) > 0, expected_masks(student, [pixels])[0])


def test_images_without_the_tags_of_a_segmentation_can_have_pngs(nci_isbi, student, tmp_path):
    with pytest.raises(BadInput, match="6 problems") as raised:
        run(student, nci_isbi / "images", tmp_path / "masks")
    assert "found:    no StudyInstanceUID, SeriesInstanceUID" in str(raised.value)
    assert "--format png" in str(raised.value)
    assert not list((tmp_path / "masks").iterdir())
    run(student, nci_isbi / "images", tmp_path / "masks", format="png")
    assert len(list((tmp_path / "masks").iterdir())) == 6


def test_missing_tags_that_may_be_empty_stay_empty(student, tmp_path):
    (path, *_) = write_clinical_series(tmp_path / "scans")
    dataset = pydicom.dcmread(path)
    del dataset.PatientName, dataset.PatientBirthDate, dataset.StudyID, dataset.AccessionNumber
    dataset.PatientID = ""
    dataset.save_as(path, enforce_file_format=True)
    run(student, path, tmp_path / "masks")
    found = highdicom.seg.segread(tmp_path / "masks/b.dcm")
    assert not found.PatientID and not found.PatientName


def test_the_thickness_of_slices_is_their_distance_if_no_header_states_it(student, tmp_path):
    paths = write_clinical_series(tmp_path / "scans", SliceThickness=None)
    run(student, tmp_path / "scans", tmp_path / "masks")
    found = highdicom.seg.segread(tmp_path / "masks/1.2.4.dcm")
    shared = found.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].SliceThickness == SERIES_SPACING[0]
    with pytest.raises(BadInput, match="SliceThickness\n  found:    none"):
        run(student, paths[0], tmp_path / "one")


def test_a_series_name_is_no_path(student, tmp_path):
    write_clinical_series(tmp_path / "scans", series="../../1")
    with pytest.raises(BadInput, match="expected: digits and dots"):
        run(student, tmp_path / "scans", tmp_path / "masks")


@pytest.fixture
def mixed(tmp_path):
    """A tree of a volume, two series, a slice and a deep picture, and what is none of these."""
    root = tmp_path / "archive"
    write_clinical_series(root / "mr/one", "1.2.4")
    write_clinical_series(root / "mr/two", "1.2.5")
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 18, 5)).astype(np.int16)
    write_nifti(root / "mr/cleo.nii.gz", voxels, AFFINES["LPS"])
    pixels = np.random.default_rng(1).integers(0, 60000, (30, 40)).astype(np.uint16)
    (root / "deep/er").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "deep/er/Zoë.png")
    (root / ".hidden").mkdir()
    (root / ".hidden/x.png").write_bytes(b"x")
    return root


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_folders_of_all_kinds_are_searched_with_their_subfolders(mixed, student, tmp_path):
    # The output lies among the images, so its masks are no images.
    output = mixed / "masks"
    expected = ["deep/er/Zoë.png", "mr/cleo.nii.gz", "mr/one/1.2.4.dcm", "mr/two/1.2.5.dcm"]
    for _ in range(2):
        run(student, mixed, output)
        assert listing(output) == expected
    (mixed / "circle").symlink_to(mixed)
    (mixed / "notes.txt").write_text("no image")
    with pytest.raises(BadInput, match=r"notes.txt: file"):
        run(student, mixed, output)
    assert listing(output) == expected


def test_every_kind_can_have_pngs(mixed, student, tmp_path):
    run(student, mixed, tmp_path / "masks", format="png", probability=True, uncertainty=True)
    stems = ["deep/er/Zoë", *(f"mr/cleo_{i}" for i in range(1, 6))]
    stems += [f"mr/{s}/{n}" for s in ("one", "two") for n in ("a", "b", "d", "IM0004")]
    suffixes = ("", "_probability", "_uncertainty")
    assert listing(tmp_path / "masks") == sorted(s + x + ".png" for s in stems for x in suffixes)
    with Image.open(tmp_path / "masks/mr/cleo_1_probability.png") as chance:
        values = np.asarray(chance)
        assert chance.mode == "I;16" and values.shape == (18, 20)
    with Image.open(tmp_path / "masks/mr/cleo_1.png") as mask:
        clear = abs(values / 65535 - 0.5) > 1e-4
        np.testing.assert_array_equal((np.asarray(mask) > 0)[clear], (values > 32767)[clear])


def test_two_images_with_one_output_are_a_problem(student, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_nifti(tmp_path / name / "cleo.nii", np.zeros((20, 18, 2), np.int16), AFFINES["RAS"])
    with pytest.raises(BadInput, match="expected: an output of its own"):
        segment_images([student], [tmp_path / "one", tmp_path / "two"], tmp_path / "masks")
    assert listing(tmp_path / "masks") == ["cleo.nii"]
    # The same file twice is one file.
    twice = [tmp_path / "one", tmp_path / "one/cleo.nii"]
    segment_images([student], twice, tmp_path / "other")


def states(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*")
            if path.is_file()}  # fmt: skip


def test_a_rerun_skips_what_is_finished_and_completes_the_rest(mixed, student, tmp_path, caplog):
    masks = tmp_path / "masks"
    options = {"probability": True}
    run(student, mixed, masks, **options)
    before = states(masks)
    (masks / "mr/cleo_probability.nii.gz").unlink()
    caplog.set_level("INFO")
    run(student, mixed, masks, **options)
    assert "already segmented by these students: 3 of 4" in caplog.text
    after = states(masks)
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed == {"cleo.nii.gz", "cleo_probability.nii.gz"}
    assert {p: content for p, (_, content) in after.items() if p.suffix != ".dcm"} == {
        p: content for p, (_, content) in before.items() if p.suffix != ".dcm"
    }


def test_another_student_or_another_image_is_segmented_anew(mixed, student, tmp_path):
    masks = tmp_path / "masks"
    run(student, mixed, masks)
    first = states(masks)
    write_nifti(mixed / "mr/cleo.nii.gz", np.ones((20, 18, 5), np.int16), AFFINES["LPS"])
    run(student, mixed, masks)
    second = states(masks)
    assert [p.name for p in first if first[p] != second[p]] == ["cleo.nii.gz"]
    (tmp_path / "other").mkdir()
    other = models.load(student, "student")
    other.classifier.weight.data.neg_()
    models.save(other, tmp_path / "other/student.safetensors", {})
    run(tmp_path / "other/student.safetensors", mixed, masks)
    third = states(masks)
    assert all(second[p] != third[p] for p in second)


def edit_png(path):
    with Image.open(path) as file:
        pixels, text = np.array(file), records.PngInfo()
        for name, value in file.text.items():
            text.add_text(name, value)
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(path, pnginfo=text)


def edit_nifti(path):
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] ^= 1
    type(image)(voxels, None, image.header).to_filename(path)


def edit_dicom(path):
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    dataset.save_as(path)


@pytest.mark.parametrize("edit", [edit_png, edit_nifti, edit_dicom])
def test_a_mask_that_was_corrected_by_hand_is_never_replaced(edit, mixed, student, tmp_path):
    masks = tmp_path / "masks"
    run(student, mixed, masks)
    name = {edit_png: "deep/er/Zoë.png", edit_nifti: "mr/cleo.nii.gz"}
    path = masks / name.get(edit, "mr/one/1.2.4.dcm")
    edit(path)
    corrected = path.read_bytes()
    # It is finished for the student that wrote it; another one may not replace it.
    run(student, mixed, masks)
    with pytest.raises(BadInput, match="changed since a student wrote it"):
        run(student, mixed, masks, uncertainty=True)
    assert path.read_bytes() == corrected


@pytest.mark.parametrize("content", [b"mine", None])
def test_a_file_of_the_user_is_never_replaced(content, mixed, student, tmp_path):
    for name in ("deep/er/Zoë.png", "mr/cleo.nii.gz", "mr/one/1.2.4.dcm"):
        path = tmp_path / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            source = {"dcm": "mr/one/a.dcm"}.get(path.name.rpartition(".")[2], name)
            path.write_bytes((mixed / source).read_bytes())
        else:
            path.write_bytes(content)
    before = states(tmp_path / "masks")
    with pytest.raises(BadInput, match="3 problems"):
        run(student, mixed, tmp_path / "masks")
    assert before.items() <= states(tmp_path / "masks").items()
    assert (tmp_path / "masks/mr/two/1.2.5.dcm").exists()


def test_a_killed_run_is_completed_by_the_next(mixed, student, tmp_path):
    masks = tmp_path / "masks"
    # Ends without any clean-up, in the middle of the second write.
    script = (
        "import os, sys; from pathlib import Path; from stages.deploy import writers, segment;"
        "calls = []; replace = Path.replace\n"
        "def count(path, target):\n"
        "    calls.append(path)\n"
        "    if len(calls) == 2: os._exit(9)\n"
        "    return replace(path, target)\n"
        "Path.replace = count\n"
        "segment.segment_images([Path(sys.argv[1])], [Path(sys.argv[2])], Path(sys.argv[3]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, student, mixed, masks],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert killed.returncode == 9
    finished = [p for p in listing(masks) if "/." not in p and not p.startswith(".")]
    assert len(finished) == 1
    run(student, mixed, masks)
    expected = ["deep/er/Zoë.png", "mr/cleo.nii.gz", "mr/one/1.2.4.dcm", "mr/two/1.2.5.dcm"]
    assert listing(masks) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_batch_changes_no_mask(batch_size, mixed, student, tmp_path):
    run(student, mixed, tmp_path / "one")
    run(student, mixed, tmp_path / "other", batch_size=batch_size)
    one, other = (
        np.asarray(nibabel.load(tmp_path / name / "mr/cleo.nii.gz").dataobj)
        for name in ("one", "other")
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("option", "value"),
    [("batch_size", 0), ("label", ""), ("label", "x" * 65), ("label", "a\\b"), ("label", "a\nb")],
)
def test_impossible_options_are_refused(option, value, mixed, student, tmp_path):
    with pytest.raises(BadInput, match=f"--{option.replace('_', '-')}: option"):
        run(student, mixed, tmp_path / "masks", **{option: value})


def test_another_label_is_another_segmentation(student, tmp_path):
    write_clinical_series(tmp_path / "scans")
    for label in ("prostate", "prostate gland"):
        run(student, tmp_path / "scans", tmp_path / "masks", label=label)
        found = highdicom.seg.segread(tmp_path / "masks/1.2.4.dcm")
        assert found.get_segment_description(1).segment_label == label


def test_what_is_no_file_is_a_problem_of_its_own(mixed, student, tmp_path):
    (mixed / "lost.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(mixed / "pipe.png")
    with pytest.raises(BadInput, match="2 problems") as raised:
        run(student, mixed, tmp_path / "masks")
    assert "lost.png: file" in str(raised.value) and "pipe.png: file" in str(raised.value)
    assert len(listing(tmp_path / "masks")) == 4


def test_a_student_that_computes_nan_writes_no_mask(mixed, student, tmp_path):
    network = models.load(student, "student")
    network.classifier.bias.data.fill_(float("nan"))
    models.save(network, student, {})
    with pytest.raises(BadInput, match="infinity or NaN"):
        run(student, mixed, tmp_path / "masks")
    assert not listing(tmp_path / "masks")


def test_the_ensemble_and_its_uncertainty_are_mean_and_deviation(mixed, tmp_path):
    """Worked out by hand from the networks themselves: two students, four views each."""
    students = []
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        students.append(make_student(tmp_path / str(seed), channels=1))
        network = models.load(students[-1], "student")
        network.classifier.bias.data += seed
        models.save(network, students[-1], {})
    image = mixed / "deep/er/Zoë.png"
    options = {"probability": True, "uncertainty": True, "format": "png"}
    segment_images(students, [image], tmp_path / "masks", **options)
    pixels = np.asarray(Image.open(image)).astype(np.float32)[..., None]
    shrunk = inference.Ensemble([models.load(students[0], "student")]).shrink(pixels)
    every = []
    for path in students:
        network = models.load(path, "student")
        for flip in ((), (0,), (1,), (0, 1)):
            turned = np.flip(shrunk, flip)
            (((), maps),) = inference.Ensemble([network]).stream([((), turned.copy())], 1)
            every.append(np.flip(maps.probability.astype(np.float32), flip))
    for name, expected in (("probability", np.mean(every, 0)), ("uncertainty", np.std(every, 0))):
        with Image.open(tmp_path / f"masks/Zoë_{name}.png") as file:
            found = np.asarray(file) / 65535
        np.testing.assert_allclose(found, resize(expected, pixels.shape[:2]), atol=2e-3)
    assert np.std(every, 0).max() > 0.05
    with Image.open(tmp_path / "masks/Zoë.png") as file:
        assert len(file.text["student"].split()) == 2


def test_students_of_different_data_sets_are_refused(mixed, tmp_path):
    paths = []
    for channels in (1, 3):
        (tmp_path / str(channels)).mkdir()
        paths.append(make_student(tmp_path / str(channels), channels))
    with pytest.raises(BadInput, match="students of one data set"):
        segment_images(paths, [mixed], tmp_path / "masks")
    with pytest.raises(BadInput, match="--student: option"):
        segment_images([], [mixed], tmp_path / "masks")


def test_volumes_are_read_once_and_in_batches(student, tmp_path, monkeypatch):
    path = tmp_path / "cleo.nii"
    write_nifti(path, np.ones((20, 18, 40), np.int16), AFFINES["RAS"])
    sizes = []
    predict = inference.Ensemble.predict
    monkeypatch.setattr(
        inference.Ensemble, "predict",
        lambda self, batch: (sizes.append(len(batch)), predict(self, batch))[1],
    )  # fmt: skip
    run(student, path, tmp_path / "masks")
    assert sizes == [16, 16, 8]


def test_the_command_line_has_an_option_for_each_parameter(mixed, student, tmp_path):
    main.main(
        ["segment", "--student", str(student), "--images", str(mixed / "deep"), str(mixed / "mr"),
         "--output", str(tmp_path / "masks"), "--format", "png", "--uncertainty"]
    )  # fmt: skip
    found = listing(tmp_path / "masks")
    assert "er/Zoë.png" in found and "cleo_2_uncertainty.png" in found
    assert "cleo_2_probability.png" not in found
