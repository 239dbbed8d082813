"""Masks from DICOM segmentations (SEG) and structure sets (RTSTRUCT) of a series."""

import itertools
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
from conftest import disc, write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless, SurfaceSegmentationStorage, generate_uid
from scipy.ndimage import gaussian_filter
from skimage.measure import find_contours

from stages.core import io
from stages.core.cli import BadInput, Problems
from stages.data.datasets import folder, nci_isbi
from stages.data.datasets.labels import Labels
from stages.data.datasets.segmentations import matching
from stages.data.prepare import prepare
from stages.settings.prepare import PrepareSettings
from tests.segmentations_on_disk import (
    AXIAL,
    OBLIQUE,
    SIZE,
    write_rtstruct,
    write_seg,
    write_slices,
)

# Of three slices; the second is empty, so that a SEG leaves it out.
PROSTATE = np.stack([disc(SIZE, (9, 10 + i), 5) & (i != 1) for i in range(3)])
# Overlaps with the prostate, and is in the second slice too.
LESION = np.stack([disc(SIZE, (11, 14), 3)] * 3)
ZONES = {1: ("Prostate", PROSTATE), 2: ("Lesion", LESION)}
RECTANGLE = np.array([[2, 3], [2, 9], [6, 9], [6, 3]], float)
FILLED = np.zeros(SIZE, bool)
FILLED[2:7, 3:10] = True


@pytest.fixture
def root(tmp_path):
    (tmp_path / "masks").mkdir()
    return tmp_path


def list_records(root, adapter=folder):
    problems = Problems()
    return adapter.list_records(root, problems), [str(problem) for problem in problems]


def read_masks(root, *foreground, adapter=folder):
    records, problems = list_records(root, adapter)
    assert problems == []
    labels = Labels(foreground) if foreground else None
    return [adapter.read(replace(record, labels=labels)).mask for record in records]


def read_error(root, *foreground):
    """Return the message about a folder: of the list, else of its first image."""
    records, problems = list_records(root)
    if not problems:
        with pytest.raises(BadInput) as caught:
            folder.read(replace(records[0], labels=Labels(foreground) if foreground else None))
        problems = [str(caught.value)]
    (problem,) = problems
    assert "Planted" not in problem
    return problem


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_each_frame_goes_to_the_image_that_it_names(kind, orientation, root, caplog):
    # Neither the order of the frames nor the names of the files are those of the images.
    images = write_slices(root / "images", orientation=orientation)
    write_seg(root / "masks/of all.dcm", images[::-1], {1: ("Prostate", PROSTATE[::-1])}, kind)
    write_slices(root / "images", 2, "adc", orientation)
    with caplog.at_level(logging.INFO):
        masks = read_masks(root)
    assert masks[:2] == [None, None]  # of the other series
    assert {mask.dtype for mask in masks[2:]} == {np.dtype(bool)}
    np.testing.assert_array_equal(masks[2:], PROSTATE)
    assert f"{root}/masks/of all.dcm: masks of 3 images, 1 of them empty" in caplog.messages


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_frames(kind, root):
    images = write_slices(root / "images")
    dataset = write_seg(root / "masks/a.dcm", images, {1: ("Prostate", PROSTATE)}, kind)
    # That of GDCM ends the process.
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    dataset.save_as(root / "masks/a.dcm")
    np.testing.assert_array_equal(read_masks(root), PROSTATE)


def test_a_series_that_only_helped_to_draw_has_no_masks(root):
    images = write_slices(root / "images")
    others = write_slices(root / "images", 2, "adc")
    further = [pydicom.dcmread(other) for other in others]
    dataset = write_seg(
        root / "masks/a.dcm", images, {1: ("Prostate", PROSTATE)}, further_source_images=further
    )
    assert any(
        len(series.ReferencedInstanceSequence) == 2 for series in dataset.ReferencedSeriesSequence
    )
    first, second, *masks = read_masks(root)
    assert first is second is None
    np.testing.assert_array_equal(masks, PROSTATE)


def test_a_structure_set_without_a_contour_says_that_nothing_is_there(root):
    images = write_slices(root / "images")
    write_rtstruct(root / "masks/a.dcm", images, {1: ("Lesion", [])})
    write_slices(root / "images", 1, "adc")
    other, *masks = read_masks(root)
    assert other is None and not np.any(masks) and len(masks) == 3


@pytest.mark.parametrize("chosen", [(1,), (2,), (1, 2)])
def test_the_foreground_chooses_among_segments_that_overlap(chosen, root):
    write_seg(root / "masks/a.dcm", write_slices(root / "images"), ZONES)
    expected = np.any([ZONES[number][1] for number in chosen], axis=0)
    np.testing.assert_array_equal(read_masks(root, *chosen), expected)


@pytest.mark.parametrize("chosen", [(1,), (2,), (1, 2)])
def test_the_foreground_chooses_among_the_labels_of_a_labelmap(chosen, root):
    write_seg(root / "masks/a.dcm", write_slices(root / "images"), ZONES, "LABELMAP")
    labels = np.where(LESION, 2, PROSTATE)
    np.testing.assert_array_equal(read_masks(root, *chosen), np.isin(labels, chosen))


def test_several_segments_need_a_choice(root):
    write_seg(root / "masks/a.dcm", write_slices(root / "images"), ZONES)
    assert read_error(root) == (
        f"{root}/masks/a.dcm: segments\n"
        "  found:    2: 1 'Prostate', 2 'Lesion'\n"
        "  expected: one segment\n"
        "  to mend:  name the numbers of the segments of the foreground in `prepare.foreground`, "
        "such as `foreground: [1, 2]`"
    )


@pytest.mark.parametrize(("largest", "kind"), [(100, "PROBABILITY"), (255, "OCCUPANCY")])
def test_fractions_from_one_half_on_are_foreground(largest, kind, root):
    share = np.zeros((3, *SIZE))
    share[:, 0, :5] = [0, 0.2, 0.49, 0.5, 1]
    write_seg(
        root / "masks/a.dcm", write_slices(root / "images"), {1: ("Prostate", share)}, "FRACTIONAL",
        fractional_type=kind, max_fractional_value=largest,
    )  # fmt: skip
    for mask in read_masks(root):
        np.testing.assert_array_equal(np.argwhere(mask), [[0, 3], [0, 4]])


def test_a_frame_that_names_no_image_goes_to_the_image_at_its_position(root):
    images = write_slices(root / "images", orientation=OBLIQUE)
    dataset = write_seg(root / "masks/a.dcm", images, {1: ("Prostate", PROSTATE)})
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    dataset.save_as(root / "masks/a.dcm")
    np.testing.assert_array_equal(read_masks(root), PROSTATE)


def test_slices_without_their_images_are_logged(root, caplog):
    images = write_slices(root / "images")
    write_seg(root / "masks/a.dcm", images, {1: ("Prostate", LESION), 2: ("Lesion", LESION)})
    images[1].unlink()
    np.testing.assert_array_equal(read_masks(root, 1), LESION[[0, 2]])
    assert f"{root}/masks/a.dcm: 2 of 6 frames or contours are of no image of the folder" in (
        caplog.messages
    )


@pytest.mark.parametrize("by_position", [False, True], ids=["by name", "by position"])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_contours_are_filled_on_their_image(orientation, by_position, root):
    images = write_slices(root / "images", orientation=orientation)
    hole = RECTANGLE * 0.5 + [2.25, 3.25]  # rows 3.25 to 5.25, columns 4.75 to 7.75
    contours = [(2, RECTANGLE), (2, hole), (0, RECTANGLE + 1)]
    write_rtstruct(
        root / "masks/a.dcm", images, {4: ("Prostate", contours)}, by_position=by_position
    )
    write_slices(root / "images", 2, "adc", orientation)
    *other_series, first, second, third = read_masks(root)
    assert other_series == [None, None]
    ring = FILLED.copy()
    ring[4:6, 5:8] = False
    np.testing.assert_array_equal(third, ring)
    assert not second.any()
    np.testing.assert_array_equal(first, np.roll(FILLED, (1, 1), (0, 1)))


def test_contours_of_a_frame_of_reference_alone(root):
    """Neither series nor images are named: the coordinates decide."""
    images = write_slices(root / "images")
    dataset = write_rtstruct(
        root / "masks/a.dcm", images, {1: ("Prostate", [(1, RECTANGLE)])}, by_position=True
    )
    del dataset.ReferencedFrameOfReferenceSequence
    dataset.save_as(root / "masks/a.dcm")
    write_slices(root / "images", 1, "other", FrameOfReferenceUID=generate_uid())
    other, *masks = read_masks(root)
    assert other is None
    assert [int(mask.sum()) for mask in masks] == [0, FILLED.sum(), 0]


def test_the_foreground_chooses_among_rois(root):
    images = write_slices(root / "images")
    point = (0, np.array([[1.0, 1.0]]))
    rois = {3: ("Prostate", [(0, RECTANGLE)]), 5: ("Bladder", [(0, RECTANGLE + 6)]), 7: ("X", [])}
    write_rtstruct(root / "masks/a.dcm", images, rois)
    other = np.roll(FILLED, (6, 6), (0, 1))
    for chosen, expected in (((3,), FILLED), ((5,), other), ((3, 5, 7), FILLED | other)):
        np.testing.assert_array_equal(read_masks(root, *chosen)[0], expected)
    assert "found:    3: 3 'Prostate', 5 'Bladder', 7 'X'\n" in read_error(root)
    # A marker is no mask; it does no harm as long as it is not chosen.
    dataset = write_rtstruct(root / "masks/a.dcm", images, rois | {7: ("Marker", [point])})
    dataset.ROIContourSequence[2].ContourSequence[0].ContourGeometricType = "POINT"
    dataset.save_as(root / "masks/b.dcm")
    (root / "masks/a.dcm").unlink()
    np.testing.assert_array_equal(read_masks(root, 3)[0], FILLED)
    assert read_error(root, 3, 7).startswith(
        f"{root}/masks/b.dcm: ContourGeometricType of contour 1 of ROI 7 'Marker'\n"
        "  found:    POINT\n"
        "  expected: CLOSED_PLANAR or CLOSEDPLANAR_XOR\n"
    )


counter = itertools.count()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.8), st.sampled_from([AXIAL, OBLIQUE]))
def test_a_mask_survives_the_way_through_contours(seed, share, orientation):
    """No contour goes through a pixel's centre, so that even the pixels at the border agree."""
    smooth = gaussian_filter(np.random.default_rng(seed).random(SIZE), 1.0)
    mask = smooth < np.quantile(smooth, share)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (image,) = write_slices(root, 1, orientation=orientation)
        contours = [
            (0, contour - 1) for contour in find_contours(np.pad(mask, 1).astype(float), 0.5)
        ]
        path = root / f"masks {next(counter)}.dcm"
        write_rtstruct(path, [image], {1: ("Random", contours)})
        (record,) = records = folder.list_file("a", image, None)
        matching.join([records], [folder.dicom.read_header(image)], [path], Problems())
        (record,) = records
        assert np.array_equal(folder.read(record).mask, mask)


def test_one_file_per_segment(root):
    images = write_slices(root / "images")
    write_seg(root / "masks/a.dcm", images, {1: ("Prostate", PROSTATE)})
    write_rtstruct(root / "masks/b.dcm", images, {2: ("Lesion", [(0, RECTANGLE)])})
    lesion = np.stack([FILLED, FILLED & False, FILLED & False])
    for chosen, expected in (((1,), PROSTATE), ((2,), lesion), ((1, 2), PROSTATE | lesion)):
        np.testing.assert_array_equal(read_masks(root, *chosen), expected)
    message = read_error(root)
    assert message.startswith(f"{root}/masks/a.dcm: segments\n")
    assert "found:    2, together with b.dcm: 1 'Prostate', 2 'Lesion'\n" in message


def test_the_same_segment_in_two_files(root):
    images = write_slices(root / "images")
    for name in ("a", "b"):
        write_seg(root / f"masks/{name}.dcm", images, {1: ("Prostate", PROSTATE)})
    np.testing.assert_array_equal(read_masks(root), PROSTATE)
    other = PROSTATE.copy()
    other[0, :2, :3] = True
    write_seg(root / "masks/c.dcm", images, {1: ("Prostate", other)})
    assert read_error(root) == (
        f"{root}/masks/c.dcm: segment 1 'Prostate'\n"
        "  found:    segment 1 'Prostate' in a.dcm, with 6 other pixels in t2 1.dcm\n"
        "  expected: one file for a segment of an image, or the same segment in all\n"
        "  to mend:  remove one of the files, or give different segments different numbers"
    )


def test_one_number_with_two_names(root):
    images = write_slices(root / "images")
    for name in ("Prostate", "Lesion"):
        write_seg(root / f"masks/{name}.dcm", images, {1: (name, PROSTATE)})
    assert "found:    2, together with Prostate.dcm: 1 'Lesion', 1 'Prostate'\n" in read_error(root)
    message = read_error(root, 1)
    assert message.startswith(f"{root}/masks/Prostate.dcm: segment 1 'Prostate'\n")
    assert "found:    segment 1 'Lesion' in Lesion.dcm\n" in message


def test_an_image_with_a_second_mask(root):
    write_seg(root / "masks/a.dcm", write_slices(root / "images"), {1: ("Prostate", PROSTATE)})
    Image.fromarray(PROSTATE[0]).save(root / "masks/t2 1.png")
    message = read_error(root)
    assert message.startswith(f"{root}/masks/t2 1.png: mask\n")
    assert "found:    a second mask of the image, which a.dcm has too\n" in message


def test_masks_of_both_ways_in_one_folder(root):
    write_seg(root / "masks/a.dcm", write_slices(root / "images"), {1: ("Prostate", PROSTATE)})
    write_slices(root / "images", 1, "adc")
    write_dicom(root / "masks/adc 1.dcm", FILLED, (0.5, 0.75))
    np.testing.assert_array_equal(read_masks(root), [FILLED, *PROSTATE])


def change(path, edit):
    """Read a file, change it with `edit`, and save it again."""
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)


def set_on(dataset, **attributes):
    for name, value in attributes.items():
        setattr(dataset, name, value)


def frame(dataset, number):
    return dataset.PerFrameFunctionalGroupsSequence[number - 1]


def mirror(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[
        0
    ].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def move(dataset):
    frame(dataset, 2).PlanePositionSequence[0].ImagePositionPatient = [-20, -30, 109]


def lengthen(dataset):
    dataset.NumberOfFrames = 3


def encrypt(dataset):
    dataset.EncryptedAttributesSequence = [pydicom.Dataset()]


# What is changed in a SEG of the prostate, and the message.
BAD_SEG = {
    "mirrored": (
        mirror, "geometry of frame 1", "ImageOrientationPatient [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
        "that of the image t2 3.dcm, which the frame names: ImageOrientationPatient [1.0, ",
    ),
    "moved": (
        move, "geometry of frame 2", "ImagePositionPatient [-20.0, -30.0, 109.0]",
        "that of the image t2 1.dcm, which the frame names: ImagePositionPatient [-20.0, -30.0, 10",
    ),
    "other spacing": (
        lambda dataset: set_on(
            dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], PixelSpacing=[1, 1]
        ),
        "geometry of frame 1", "PixelSpacing [1.0, 1.0]", "PixelSpacing [0.5, 0.75]",
    ),
    "unknown segment": (
        lambda dataset: set_on(
            dataset.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence[0],
            ReferencedSegmentNumber=7,
        ),
        "segment of frame 1", "7", "a segment that the file describes: 1 'Prostate'",
    ),
    "no segment": (
        lambda dataset: set_on(dataset, SegmentSequence=[]), "segment of frame 1", "1",
        "a segment that the file describes: none",
    ),
    "no number of a frame": (
        lambda dataset: delattr(
            dataset.SharedFunctionalGroupsSequence[0], "SegmentIdentificationSequence"
        ),
        "file", "'Dataset' object has no attribute 'ReferencedSegmentNumber'",
        "a readable DICOM segmentation (SEG)",
    ),
    "another type": (
        lambda dataset: set_on(dataset, SegmentationType="MESH"), "SegmentationType", "MESH",
        "BINARY or FRACTIONAL or LABELMAP",
    ),
    "too few frames described": (lengthen, "NumberOfFrames", "3", "2, as the file describes"),
    "encrypted": (
        encrypt, "EncryptedAttributesSequence", "encrypted attributes", "a file without encryption",
    ),
    "surfaces": (
        lambda dataset: set_on(dataset, SOPClassUID=SurfaceSegmentationStorage), "SOPClassUID",
        "a segmentation by surfaces", "a segmentation by pixels (SEG)",
    ),
    "cut": (
        lambda dataset: set_on(dataset, PixelData=dataset.PixelData[:40]), "file", "",
        "a readable DICOM segmentation (SEG)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SEG)
def test_an_unusable_segmentation_is_reported(name, root):
    edit, field, found, expected = BAD_SEG[name]
    path = root / "masks/a.dcm"
    write_seg(path, write_slices(root / "images"), {1: ("Prostate", PROSTATE)})
    change(path, edit)
    message = read_error(root)
    assert message.startswith(f"{path}: {field}\n  found:    {found}")
    assert expected in message and "to mend:" in message


def other_frame_of_reference(dataset):
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"


def contour(dataset):
    return dataset.ROIContourSequence[0].ContourSequence[0]


def lift(dataset):
    data = np.array(contour(dataset).ContourData, float)
    data[2] += 1.5
    contour(dataset).ContourData = data.tolist()


BAD_RTSTRUCT = {
    "open": (
        lambda dataset: set_on(contour(dataset), ContourGeometricType="OPEN_PLANAR"),
        "ContourGeometricType of contour 1 of ROI 1 'Prostate'", "OPEN_PLANAR",
        "CLOSED_PLANAR or CLOSEDPLANAR_XOR",
    ),
    "off the plane": (
        lift, "plane of contour 1 of ROI 1 'Prostate'",
        "points 1.5 mm away from the image t2 1.dcm", "within 0.5 mm",
    ),
    "other coordinates": (
        other_frame_of_reference,
        "ReferencedFrameOfReferenceUID of contour 1 of ROI 1 'Prostate'", "1.2.3",
        "that of the image t2 1.dcm",
    ),
    "a number is missing": (
        lambda dataset: set_on(contour(dataset), ContourData=contour(dataset).ContourData[:-1]),
        "file", "contour 1 of ROI 1 'Prostate': 11 numbers of 4 points in ContourData", "RTSTRUCT",
    ),
    "not finite": (
        lambda dataset: set_on(contour(dataset), ContourData=["nan", *["1"] * 11]),
        "file", "contour 1 of ROI 1 'Prostate': numbers in ContourData that are no mm", "RTSTRUCT",
    ),
    "no ROI": (
        lambda dataset: set_on(dataset, StructureSetROISequence=[], ROIContourSequence=[]), "ROIs",
        "none", "at least one",
    ),
    "contours of no ROI": (
        lambda dataset: set_on(dataset, StructureSetROISequence=[]), "file",
        "contours of ROI 1, which StructureSetROISequence lacks", "a readable DICOM structure set",
    ),
    "encrypted": (encrypt, "EncryptedAttributesSequence", "encrypted", "without encryption"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RTSTRUCT)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_unusable_structure_set_is_reported(name, root):
    edit, field, found, expected = BAD_RTSTRUCT[name]
    path = root / "masks/a.dcm"
    write_rtstruct(path, write_slices(root / "images"), {1: ("Prostate", [(0, RECTANGLE)])})
    change(path, edit)
    message = read_error(root)
    assert message.startswith(f"{path}: {field}\n  found:    {found}")
    assert expected in message and "to mend:" in message


@pytest.mark.parametrize("write", [write_seg, write_rtstruct])
def test_a_file_of_other_images_is_reported(write, root):
    images = write_slices(root / "elsewhere")
    content = PROSTATE if write is write_seg else [(0, RECTANGLE)]
    write(root / "masks/a.dcm", images, {1: ("Prostate", content)})
    write_slices(root / "images", 2, "adc")
    message = read_error(root)
    assert message.startswith(f"{root}/masks/a.dcm: images\n  found:    ")
    assert (
        "of no image of the folder\n  expected: at least one of an image of the folder" in message
    )


def test_images_of_another_size_are_reported(root):
    images = write_slices(root / "images")
    write_seg(root / "masks/a.dcm", images, {1: ("Prostate", PROSTATE)})
    change(images[0], lambda dataset: set_on(dataset, Rows=23, Columns=19))
    message = read_error(root)
    assert message.startswith(f"{root}/masks/a.dcm: geometry of frame 2\n")
    assert "found:    Rows [19.0], Columns [23.0]\n" in message
    assert "the image t2 1.dcm, which the frame names: Rows [23.0], Columns [19.0]\n" in message


def test_contours_need_the_position_of_their_image(root):
    images = write_slices(root / "images")
    write_rtstruct(root / "masks/a.dcm", images, {1: ("Prostate", [(0, RECTANGLE)])})
    change(images[0], lambda dataset: set_on(dataset, ImagePositionPatient=None))
    message = read_error(root)
    assert message.startswith(f"{root}/images/t2 1.dcm: geometry\n  found:    PixelSpacing [0.5, ")
    assert (
        "PixelSpacing, ImagePositionPatient, ImageOrientationPatient, for the contours" in message
    )


def test_copies_of_an_image_are_reported(root):
    images = write_slices(root / "images")
    write_seg(root / "masks/a.dcm", images, {1: ("Prostate", PROSTATE)})
    (root / "images/copy.dcm").write_bytes(images[0].read_bytes())
    message = read_error(root)
    assert "found:    2 images with one SOPInstanceUID: copy.dcm, t2 1.dcm\n" in message


def test_a_file_that_is_not_dicom_is_reported(root):
    write_slices(root / "images")
    (root / "masks/seg.dcm").write_text("no dicom")
    message = read_error(root)
    assert message.startswith(f"{root}/masks/seg.dcm: file\n  found:    no DICM after the first")


@pytest.mark.parametrize("write", [write_seg, write_rtstruct])
def test_a_segmentation_among_the_images_is_reported(write, root):
    images = write_slices(root / "images")
    content = PROSTATE if write is write_seg else [(0, RECTANGLE)]
    write(root / "images/a.dcm", images, {1: ("Prostate", content)})
    assert read_error(root).endswith("belong to the masks")


def chosen_settings(layout, **changes):
    return PrepareSettings(
        layout=layout, size=(32, 48), split="drawn", test_fraction=0.34, val_fraction=0, **changes
    )


@pytest.fixture
def patients(root):
    """Three patients of three slices each; of the first two a SEG, of the last an RTSTRUCT."""
    for i in range(3):
        images = write_slices(root / "images", series=f"p{i}", PatientID=f"Planted-Id-{i}")
        if i < 2:
            write_seg(root / f"masks/{i}.dcm", images, ZONES)
        else:
            rois = {1: ("Prostate", [(1, RECTANGLE)]), 2: ("Lesion", [])}
            write_rtstruct(root / f"masks/{i}.dcm", images, rois)
    return root


def test_prepared_masks(patients, tmp_path, caplog):
    output = tmp_path / "prepared.h5"
    with caplog.at_level(logging.INFO):
        prepare(patients, output, chosen_settings("folder", foreground=[1]), 2)
    empty = np.zeros(SIZE, bool)
    expected = [*PROSTATE, *PROSTATE, empty, FILLED, empty]
    with h5py.File(output) as file:
        ids = io.read_strings(file, "sample_id").tolist()
        assert ids == [f"p{i} {number}" for i in range(3) for number in (1, 2, 3)]
        subjects = io.read_strings(file, "subject_id").tolist()
        assert subjects == [f"p{i} 1" for i in range(3) for _ in range(3)]
        assert file["has_mask"][()].all()
        for name, mask in zip(ids, expected, strict=True):
            np.testing.assert_array_equal(file[f"original_mask/{name}"][()], mask)
        # At the working size the disc is still there, and an empty slice is still empty.
        areas = file["mask"][()].sum(axis=(1, 2)) / (32 * 48)
        shares = np.mean(expected, axis=(1, 2))
        np.testing.assert_allclose(areas, shares, atol=0.02)
    found = output.read_bytes() + caplog.text.encode()
    assert b"Planted" not in found
    assert "the label 2 counts as background in 3 masks, such as" in caplog.text


def test_a_segment_that_no_file_has(patients, tmp_path):
    for chosen in ([7], [1, 7]):
        with pytest.raises(BadInput) as caught:
            prepare(patients, tmp_path / "a.h5", chosen_settings("folder", foreground=chosen), 1)
        assert str(caught.value) == (
            f"{patients}: segments\n"
            "  found:    the numbers [7] in `prepare.foreground`, which no file has\n"
            "  expected: numbers of segments or ROIs: 1 'Prostate', 2 'Lesion'\n"
            "  to mend:  correct `prepare.foreground`"
        )
    assert not (tmp_path / "a.h5").exists()


def test_slices_of_the_published_prostate_layout(root):
    images = write_slices(root / "images", series="case1")
    for number, image in enumerate(images, start=1):
        image.rename(root / f"images/case1_{number}.dcm")
    images = sorted((root / "images").iterdir())
    write_seg(root / "masks/case1.dcm", images, {1: ("Prostate", PROSTATE)})
    np.testing.assert_array_equal(read_masks(root, adapter=nci_isbi), PROSTATE)
    write_dicom(root / "masks/other.dcm", FILLED, (1, 1))
    _, (message,) = list_records(root, nci_isbi)
    assert message.startswith(f"{root}/masks: files\n  found:    1 with other names: other.dcm\n")


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP", "RTSTRUCT"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_raise_bad_input_or_give_a_mask(kind, tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    image, *_ = images = write_slices(root / "images")
    original = root / "original.dcm"
    if kind == "RTSTRUCT":
        write_rtstruct(original, images, {1: ("Prostate", [(0, RECTANGLE)])})
    else:
        write_seg(original, images, {1: ("Prostate", PROSTATE)}, kind)
    header = folder.dicom.read_header(image)

    @settings(max_examples=25)
    @given(st.integers(0, len(original.read_bytes()) - 1), st.integers(0, 255))
    def check(at, value):
        content = bytearray(original.read_bytes())
        content[at] = value
        path = root / f"{next(counter)}.dcm"
        path.write_bytes(content)
        records, problems = folder.list_file("a", image, None), Problems()
        try:
            if matching.is_segmentation(path):
                matching.join([records], [header], [path], problems)
                problems.raise_all()
                mask = folder.read(records[0]).mask
                assert mask is None or (mask.shape == SIZE and mask.dtype == bool)
        except BadInput as problem:
            assert str(problem).startswith((f"{path}: ", "2 problems"))
        path.unlink(missing_ok=True)

    check()
