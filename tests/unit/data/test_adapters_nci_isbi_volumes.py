"""The prostate series and masks as downloaded from The Cancer Imaging Archive."""

import csv
import shutil

import numpy as np
import pydicom
import pytest
from conftest import (
    METADATA_COLUMNS,
    SERIES_CORNER,
    SERIES_SIZE,
    SERIES_SPACING,
    TO_HEAD,
    series_mask,
    write_challenge_part,
    write_nrrd,
    write_series,
    write_series_mask,
)
from hypothesis import given
from hypothesis import strategies as st

from stages.core.cli import BadInput, Problems
from stages.data.datasets import dicom
from stages.data.datasets import nci_isbi_volumes as adapter
from stages.data.datasets.dicom import SliceGeometry

CASE = "Prostate3T-01-0001"
OTHER = "ProstateDx-01-0055"
TEST = "Prostate3T-03-0001"


def list_records(root):
    problems = Problems()
    return adapter.list_records(root, problems), [str(problem) for problem in problems]


def table(root, part="Training"):
    return root / part / "manifest-1/metadata.csv"


def series(root, case=CASE, part="Training"):
    return root / part / "manifest-1/Prostate-3T" / case / "study 1/4.000000-t2-09700"


def mask(root, case=CASE):
    return root / "Training/NCI-ISBI masks" / f"{case}.nrrd"


def test_the_slices_with_prostate_of_all_parts(nci_isbi_volumes):
    records, problems = list_records(nci_isbi_volumes)
    assert problems == []
    assert [(r.sample_id, r.subject_id, r.split) for r in records] == [
        (f"{case}_{number}", case, split)
        for case, split in ((CASE, "train"), (OTHER, "train"), (TEST, "test"))
        for number in (2, 3, 4)
    ]


def test_the_leaderboard_part_is_for_validation(nci_isbi_volumes):
    write_challenge_part(nci_isbi_volumes / "Leaderboard", ["Prostate3T-02-0001"], "{}_truth.nrrd")
    records, problems = list_records(nci_isbi_volumes)
    assert problems == []
    assert {r.subject_id for r in records if r.split == "val"} == {"Prostate3T-02-0001"}


def test_image_mask_and_spacing(nci_isbi_volumes):
    record = list_records(nci_isbi_volumes)[0][1]
    pixels = adapter.read(record)
    assert pixels.image.shape == (48, 64, 1) and pixels.image.dtype == np.float32
    assert pixels.spacing_mm == (0.5, 0.75)
    np.testing.assert_array_equal(pixels.mask, series_mask(2))
    # The bright disc is at the mask, 500 above the background of slice 2.
    low = pixels.image.min()
    np.testing.assert_array_equal(pixels.image[..., 0], low + 500 * pixels.mask)


def test_slices_are_matched_by_position_not_by_name_or_number(tmp_path, nci_isbi_volumes):
    """Names, numbers and positions of 24 slices are in three different orders."""
    shutil.rmtree(series(nci_isbi_volumes))
    rng = np.random.default_rng(0)
    numbers = (rng.permutation(24) + 1).tolist()
    names = [f"1-{i + 1:02d}.dcm" for i in rng.permutation(24).tolist()]
    assert sorted(range(24), key=numbers.__getitem__) != sorted(range(24), key=names.__getitem__)
    write_series(series(nci_isbi_volumes), numbers, names, level=5000)
    write_series_mask(mask(nci_isbi_volumes), range(3, 22), first=2, count=21)
    rows = list(csv.DictReader(table(nci_isbi_volumes).open()))
    rows[0]["Number of Images"] = "24"
    write_table(nci_isbi_volumes, rows)

    records, problems = list_records(nci_isbi_volumes)
    assert problems == []
    own = [r for r in records if r.subject_id == CASE]
    # In the order of their positions: slices 3 … 21 from the feet, each with its own number.
    assert [r.sample_id for r in own] == [f"{CASE}_{numbers[i]}" for i in range(3, 22)]
    for i, record in zip(range(3, 22), own, strict=True):
        assert record.image.name == names[i]
        pixels = adapter.read(record)
        assert pixels.image.min() == 5000 + 100 * i
        np.testing.assert_array_equal(pixels.mask, series_mask(i))


def write_table(root, rows, columns=METADATA_COLUMNS):
    with table(root).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


# Axes of the mask's array (x, y, z of the image) and their signs.
@given(order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_a_mask_with_any_order_of_axes_is_matched_to_the_image(tmp_path_factory, order, signs):
    path = tmp_path_factory.mktemp("mask") / "mask.nrrd"
    z, y, x = SERIES_SPACING
    stack = np.stack([series_mask(i).T for i in range(4)], axis=-1).astype(np.uint8)
    flipped = [axis for axis in range(3) if signs[axis] < 0]
    steps = np.diag([x, y, z])
    ends = np.where(np.array(signs) < 0, np.array(stack.shape) - 1, 0)
    write_nrrd(
        path,
        np.flip(stack, flipped).transpose(order),
        (steps * np.array(signs)[:, None])[list(order)],
        SERIES_CORNER + ends @ steps,
    )
    for i in range(-1, 6):
        found = adapter.extract_mask_slice(path, make_geometry(i))
        if 0 <= i < 4:
            np.testing.assert_array_equal(found, series_mask(i))
        else:
            assert found is None


def make_geometry(i, down=(0, 1, 0), right=(1, 0, 0), corner=SERIES_CORNER, shape=SERIES_SIZE):
    z, y, x = SERIES_SPACING
    corner = corner + z * i * TO_HEAD
    return SliceGeometry(f"slice {i}", i, shape, corner, y * np.array(down), x * np.array(right))


def test_a_slice_stored_upside_down_keeps_its_own_rows_and_columns(tmp_path):
    write_series_mask(tmp_path / "mask.nrrd", range(4), first=0, count=4)
    _, y, x = SERIES_SPACING
    far = SERIES_CORNER + np.array([x * 63, y * 47, 0])
    turned = make_geometry(2, down=(0, -1, 0), right=(-1, 0, 0), corner=far)
    found = adapter.extract_mask_slice(tmp_path / "mask.nrrd", turned)
    np.testing.assert_array_equal(found, series_mask(2)[::-1, ::-1])


ELSEWHERE = {
    "a third of a pixel aside": {"corner": SERIES_CORNER + np.array([0.25, 0, 0])},
    "between two slices": {"corner": SERIES_CORNER + np.array([0, 0, 1.5])},
    "larger pixels": {"down": (0, 1.02, 0)},
    "tilted": {"down": (0, 0.98, 0.2)},
    "another size": {"shape": (47, 64)},
    "swapped": {"down": (1, 0, 0), "right": (0, 1, 0)},
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_mask_at_another_position_is_reported(case, tmp_path):
    path = tmp_path / "mask.nrrd"
    write_series_mask(path, range(4), first=0, count=4)
    with pytest.raises(BadInput) as caught:
        adapter.extract_mask_slice(path, make_geometry(1, **ELSEWHERE[case]))
    text = str(caught.value)
    assert text.startswith(f"{path}: grid\n  found:    (4, 48, 64) voxels (slices, height, width)")
    assert "voxels away from the pixels of slice 1\n" in text


def test_rounded_headers_are_accepted(tmp_path):
    write_series_mask(tmp_path / "mask.nrrd", range(4), first=0, count=4)
    near = make_geometry(1, corner=SERIES_CORNER + np.array([0.1, -0.1, 0.3]))
    found = adapter.extract_mask_slice(tmp_path / "mask.nrrd", near)
    np.testing.assert_array_equal(found, series_mask(1))


# Damages of a download, each with the start and other parts of its only message. The other subjects
# are still listed.


def edit_table(root, change, subject=0):
    rows = list(csv.DictReader(table(root).open()))
    change(rows, rows[subject])
    write_table(root, rows)


def remove_slice(root):
    (series(root) / "1-03.dcm").unlink()


def remove_slice_and_correct_count(root):
    remove_slice(root)
    edit_table(root, lambda rows, row: row.update({"Number of Images": "4"}))


def remove_series_folder(root):
    shutil.rmtree(series(root))


def point_outside(root):
    edit_table(root, lambda rows, row: row.update({"File Location": "../../Test"}))


def two_series(root):
    edit_table(root, lambda rows, row: rows.append(row))


def remove_mask(root):
    mask(root).unlink()


def second_mask(root):
    shutil.copy(mask(root), mask(root).with_name(f"{CASE}_correctedLabels.nrrd"))


def empty_mask(root):
    write_series_mask(mask(root), range(0), first=1, count=4)


def mask_beyond_the_series(root):
    write_series_mask(mask(root), range(1, 7), first=1, count=6)


def mask_elsewhere(root):
    z, y, x = SERIES_SPACING
    write_nrrd(mask(root), np.ones((64, 48, 4), np.uint8), np.diag([x, y, z]))


def mask_not_nrrd(root):
    mask(root).write_text("none")


def change_tags(root, name, **tags):
    path = series(root) / name
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def slice_not_dicom(root):
    (series(root) / "1-02.dcm").write_text("none")


def slice_without_position(root):
    change_tags(root, "1-02.dcm", ImagePositionPatient=None)


def same_position_twice(root):
    change_tags(root, "1-02.dcm", ImagePositionPatient=[-20, -30, 106])


def all_at_one_position(root):
    for name in ("1-01.dcm", "1-02.dcm", "1-03.dcm", "1-04.dcm", "1-05.dcm"):
        change_tags(root, name, ImagePositionPatient=[-20, -30, 106])


def same_number_twice(root):
    change_tags(root, "1-02.dcm", InstanceNumber=3)


def uneven_distances(root):
    change_tags(root, "1-05.dcm", ImagePositionPatient=[-20, -30, 112.2])


def another_spacing(root):
    change_tags(root, "1-04.dcm", PixelSpacing=[0.5, 0.5])


def another_orientation(root):
    change_tags(root, "1-04.dcm", ImageOrientationPatient=[1, 0, 0, 0, 0.8, 0.6])


BAD_DOWNLOADS = {
    remove_slice: ("{series}: DICOM files", "found:    4\n", "expected: 5, the Number of Images"),
    remove_slice_and_correct_count: ("{series}: distances of slices", "found:    3 to 6 mm",
                                 "expected: 3 mm everywhere, within 1 %", "a slice is missing"),
    remove_series_folder: ("{table}: subject {case}, File Location", "found:    ./Prostate-3T/"),
    point_outside: ("{table}: subject {case}, File Location", "found:    ../../Test",
                     "expected: a folder under "),
    two_series: ("{table}: subject {case}\n", "found:    2 MR series", "delete the rows"),
    remove_mask: ("{part}: mask of {case}\n", "found:    none", "expected: one NRRD file"),
    second_mask: ("{part}: mask of {case}\n", "{case}.nrrd, ", "{case}_correctedLabels.nrrd",
                  "remove the others"),
    empty_mask: ("{mask}: prostate", "found:    0 voxels, 0 of them on slices of {series}"),
    mask_beyond_the_series: ("{mask}: prostate",
                             "found:    1182 voxels, 788 of them on slices of {series}"),
    mask_elsewhere: ("{mask}: grid", "voxels away from the pixels of "),
    mask_not_nrrd: ("{mask}: file", "expected: a readable NRRD volume", "download the mask again"),
    slice_not_dicom: ("{series}/1-02.dcm: file", "expected: a readable DICOM image"),
    slice_without_position: ("{series}/1-02.dcm: geometry", "ImagePositionPatient []"),
    same_position_twice: ("{series}: distances of slices", "found:    0 to 6 mm"),
    all_at_one_position: ("{series}: distances of slices", "found:    0 to 0 mm\n",
                       "expected: above 0 mm\n", "or occurs twice"),
    same_number_twice: ("{series}: InstanceNumber", "found:    [3] twice"),
    uneven_distances: ("{series}: distances of slices", "found:    3 to 3.2 mm"),
    another_spacing: ("{series}/1-04.dcm: slice", "steps [0.  0.5 0. ] and [0.5 0.  0. ] mm",
                      "expected: (48, 64) pixels, steps [0.  0.5 0. ] and [0.75 0.   0.  ] mm, "
                      "as in 1-01.dcm"),
    another_orientation: ("{series}/1-04.dcm: slice", "steps [0.  0.4 0.3]"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BAD_DOWNLOADS, ids=lambda damage: damage.__name__)
def test_a_bad_case_is_reported_once_and_omitted(damage, nci_isbi_volumes):
    root = nci_isbi_volumes
    damage(root)
    records, problems = list_records(root)
    assert {r.subject_id for r in records} == {OTHER, TEST}
    (problem,) = problems
    names = {
        "series": series(root), "table": table(root), "part": root / "Training",
        "mask": mask(root), "case": CASE,
    }  # fmt: skip
    start, *parts = (part.format_map(names) for part in BAD_DOWNLOADS[damage])
    assert problem.startswith(start)
    for part in parts:
        assert part in problem


def test_all_problems_are_reported_together(nci_isbi_volumes):
    root = nci_isbi_volumes
    for name in ("1-01.dcm", "1-05.dcm"):
        (series(root) / name).write_text("none")
    mask(root, OTHER).write_text("none")
    table(root, "Test").unlink()
    records, problems = list_records(root)
    assert records == []
    starts = [
        f"{series(root)}/1-01.dcm: file",
        f"{series(root)}/1-05.dcm: file",
        f"{mask(root, OTHER)}: file",
        f"{root / 'Test'}: metadata.csv\n  found:    none",
    ]
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


def test_two_tables_or_one_with_other_columns(nci_isbi_volumes):
    root = nci_isbi_volumes
    shutil.copytree(root / "Training/manifest-1", root / "Training/manifest-2")
    table(root, "Test").write_text("Series UID,Subject ID\n1,2\n")
    _, (two, lacking) = list_records(root)
    assert two.startswith(f"{root / 'Training'}: metadata.csv\n  found:    {table(root)}, ")
    assert lacking.startswith(f"{table(root, 'Test')}: columns\n  found:    Series UID, Subject ID")
    assert "also Modality, Number of Images, File Location" in lacking


def test_a_mask_without_a_series_is_reported(nci_isbi_volumes):
    # A name that only starts like that of a subject.
    unmatched_mask = mask(nci_isbi_volumes, f"{CASE}0")
    shutil.copy(mask(nci_isbi_volumes), unmatched_mask)
    records, (problem,) = list_records(nci_isbi_volumes)
    assert len(records) == 9
    assert problem.startswith(
        f"{unmatched_mask}: mask\n  found:    no MR series of this name in metadata.csv"
    )


def test_series_of_other_modalities_are_ignored(nci_isbi_volumes):
    edit_table(nci_isbi_volumes, lambda rows, row: rows.append(row | {"Modality": "SEG"}))
    records, problems = list_records(nci_isbi_volumes)
    assert len(records) == 9 and problems == []


def test_slices_are_sorted_by_position(tmp_path):
    write_series(tmp_path / "series", [3, 1, 2], ["b.dcm", "c.dcm", "a.dcm"])
    planes = [dicom.read_slice_geometry(path) for path in sorted((tmp_path / "series").iterdir())]
    ordered = adapter.sort_slices(tmp_path / "series", planes)
    assert [p.number for p in ordered] == [3, 1, 2]
