"""NRRD and NIfTI volumes: any order of the stored axes gives the same volume."""

import gzip
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import write_nifti, write_nrrd
from hypothesis import given
from hypothesis import strategies as st

from stages.core.cli import BadInput
from stages.data.datasets import volumes

# Patient axes of an array whose first axis runs to the left, the second to the back, the third to
# the head.
STORED = np.diag([0.5, 0.75, 6.0])
ORIGIN = np.array([-3.0, 5.0, 40.0])
X, Y, Z = np.indices((7, 6, 5))
# The value of a voxel encodes its indices in the stored array.
VOXELS = (X + 10 * Y + 100 * Z).astype(np.int16)
MEND = "use another file"

# Directions of the stored axes; then the stored indices of the first voxel of slice 2, the size and
# the spacing of a slice, with rows from front to back and columns from the patient's right to left.
# Stored sizes are (7, 6, 5).
ORIENTATIONS = {
    "as stored": (STORED, (0, 0, 2), (6, 7), (0.75, 0.5)),
    "front and back swapped": (np.diag([0.5, -0.75, 6.0]), (0, 5, 2), (6, 7), (0.75, 0.5)),
    "left and right swapped": (np.diag([-0.5, 0.75, 6.0]), (6, 0, 2), (6, 7), (0.75, 0.5)),
    "head first": (np.diag([0.5, 0.75, -6.0]), (0, 0, 2), (6, 7), (0.75, 0.5)),
    # The first array axis runs to the head, so there are 7 slices along it.
    "slices first": (
        np.array([[0, 0, 6.0], [0.5, 0, 0], [0, 0.75, 0]]), (2, 0, 0), (5, 6), (0.75, 0.5),
    ),
    # Tilted a little: 3-4-5 in the plane of y and z, length 1 along y.
    "tilted": (
        np.array([[0.5, 0, 0], [0, 0.8, 0.6], [0, -3.6, 4.8]]), (0, 0, 2), (6, 7), (1.0, 0.5),
    ),
}  # fmt: skip


def write(path, voxels, directions=STORED, origin=ORIGIN):
    """Write the same volume in the format of the file name."""
    if path.suffix == ".nrrd":
        write_nrrd(path, voxels, directions, origin)
        return path
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.transpose(directions), origin
    write_nifti(path, voxels, np.diag([-1, -1, 1, 1]) @ affine)  # to the right, to the front
    return path


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("case", ORIENTATIONS)
def test_the_axes_are_those_of_the_header(case, name, tmp_path):
    directions, first, size, spacing = ORIENTATIONS[case]
    path = write(tmp_path / name, VOXELS, directions)
    grid, voxels = volumes.read_grid(path, MEND), volumes.read_voxels(path, MEND)
    assert voxels.shape == grid.shape and grid.shape[1:] == size
    assert voxels[2, 0, 0] == np.dot(first, (1, 10, 100))
    assert grid.spacing == pytest.approx((6, *spacing))
    # The position of the stored voxel, and its position according to the grid.
    expected = ORIGIN + np.dot(first, directions)
    np.testing.assert_allclose(grid.to_mm @ [2, 0, 0, 1], [*expected, 1], atol=1e-5)
    assert not voxels.flags.writeable


@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    nrrd=st.booleans(),
)
def test_one_patient_stored_in_any_order_is_one_volume(tmp_path_factory, order, signs, nrrd):
    path = tmp_path_factory.mktemp("any") / ("a.nrrd" if nrrd else "a.nii")
    reversed_axes = [axis for axis in range(3) if signs[axis] < 0]
    stored = np.flip(VOXELS, reversed_axes).transpose(order)
    ends = np.where(np.array(signs) < 0, np.array(VOXELS.shape) - 1, 0)
    directions = (STORED * np.array(signs)[:, None])[list(order)]
    write(path, stored, directions, ORIGIN + ends @ STORED)
    np.testing.assert_array_equal(volumes.read_voxels(path, MEND), VOXELS.T)
    grid = volumes.read_grid(path, MEND)
    np.testing.assert_allclose(grid.to_mm @ [0, 0, 0, 1], [*ORIGIN, 1], atol=1e-5)


def test_a_rescaled_nifti(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "a.nii")
    voxels = volumes.read_voxels(tmp_path / "a.nii", MEND)
    # The stored values are 0 … 456. Float64 would take twice the memory.
    assert (voxels.min(), voxels.max()) == (-3, 0.5 * 456 - 3) and voxels.dtype == np.float32
    # The stored axes run to the right and to the front.
    np.testing.assert_array_equal(voxels, 0.5 * VOXELS.T[:, ::-1, ::-1] - 3)


def test_a_two_dimensional_nifti_is_one_slice(tmp_path):
    path = write(tmp_path / "a.nii.gz", VOXELS[:, :, 3])
    assert volumes.read_grid(path, MEND).shape == (1, 6, 7)
    image = volumes.read_slice(path, 0, MEND)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[..., 0], VOXELS[:, :, 3].T)


@pytest.mark.parametrize("more", [(1,), (1, 1)])
def test_further_axes_of_length_1_are_dropped(more, tmp_path):
    path = write(tmp_path / "a.nii.gz", VOXELS.reshape(*VOXELS.shape, *more))
    assert volumes.read_grid(path, MEND).shape == (5, 6, 7)
    np.testing.assert_array_equal(volumes.read_voxels(path, MEND), VOXELS.T)


def test_threads_share_the_cache_of_two_volumes():
    """4 threads read 40 slices of each of 6 volumes, in the order of the slices."""
    reads, alive, most_alive = [], weakref.WeakSet(), [0]

    class Volume:
        pass

    @volumes.cache_last_two
    def read(path, mend):
        most_alive[0] = max(most_alive[0], len(alive) + 1)
        reads.append((path, mend))
        time.sleep(0.01)
        volume = Volume()
        alive.add(volume)
        return volume

    slices = [Path(str(i)) for i in range(6) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        # Each thread drops its result at once.
        list(pool.map(lambda path: read(path, MEND) and time.sleep(1e-4), slices))
    assert reads == [(Path(str(i)), MEND) for i in range(6)]
    assert most_alive == [2] and len(alive) == 2


def test_an_unreadable_volume_is_not_cached(tmp_path):
    path = tmp_path / "a.nii"
    with pytest.raises(BadInput):
        volumes.read_slice(path, 0, MEND)
    write(path, VOXELS)
    np.testing.assert_array_equal(volumes.read_slice(path, 1, MEND)[..., 0], VOXELS[..., 1].T)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii"])
def test_the_label_mask_is_where_values_are_above_0(name, tmp_path):
    path = write(tmp_path / name, VOXELS - 300)
    labelled = volumes.read_label_mask(path, MEND)
    assert labelled.dtype == np.bool_
    np.testing.assert_array_equal(labelled, VOXELS.T > 300)


def test_values_that_are_not_finite_are_reported(tmp_path):
    voxels = VOXELS.astype(np.float32)
    voxels[3, 3, 2] = np.nan
    path = write(tmp_path / "a.nii", voxels)
    assert volumes.read_slice(path, 1, MEND).shape == (6, 7, 1)
    with pytest.raises(BadInput, match="pixels\n  found:    1 values that are not finite"):
        volumes.read_slice(path, 2, MEND)


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    write(path, VOXELS)
    path.write_bytes(path.read_bytes()[:-20])


def another_format(path):
    path.write_bytes(gzip.compress(b"another"))


def two_axes_alike(path):
    write(path, VOXELS, np.array([[0.5, 0.1, 0], [0.6, 0.2, 0], [0, 0, 6.0]]))


def flattened(path):
    write(path, VOXELS, np.array([[1, 0.9, 0.9], [0.9, 1, 0.9], [0.9, 0.9, 1]]))


def sagittal(path):
    write(path, VOXELS[:1])


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("damage", [empty, truncated, another_format, two_axes_alike, flattened,
    sagittal, lambda path: None])  # fmt: skip
def test_an_unusable_volume_is_reported_with_its_remedy(damage, name, tmp_path):
    path = tmp_path / name
    damage(path)
    with pytest.raises(BadInput) as caught:
        volumes.read_voxels(path, MEND)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(f"to mend:  {MEND}")


def grid_error(path):
    with pytest.raises(BadInput) as caught:
        volumes.read_grid(path, MEND)
    return str(caught.value)


def test_an_nrrd_must_state_its_geometry(tmp_path):
    path = tmp_path / "a.nrrd"
    write_nrrd(path, VOXELS, STORED, space="right-anterior-superior")
    assert "header\n  found:    space right-anterior-superior, fields type" in grid_error(path)
    assert (
        "expected: space left-posterior-superior, space directions and space origin"
        in grid_error(path)
    )


def test_a_nifti_must_state_its_geometry(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, None)
    image.to_filename(tmp_path / "a.nii")
    assert "found:    neither sform nor qform" in grid_error(tmp_path / "a.nii")


def write_qform_only(path, pixdim):
    image = nibabel.Nifti1Image(VOXELS, None)
    image.set_qform(np.diag([-0.5, -0.75, 6.0, 1.0]), 1)
    image.to_filename(path)
    # nibabel writes no size of 0; pixdim[1:4] are the bytes 80 to 91.
    header = bytearray(path.read_bytes())
    header[80:92] = np.array(pixdim, "<f4").tobytes()
    path.write_bytes(header)


def test_a_voxel_of_size_0_is_not_read_as_1_mm(tmp_path):
    write_qform_only(tmp_path / "a.nii", (0.5, 0.75, 6))
    assert volumes.read_grid(tmp_path / "a.nii", MEND).spacing == (6, 0.75, 0.5)
    write_qform_only(tmp_path / "a.nii", (0.5, 0, 6))
    assert "header\n  found:    pixdim [0.5, 0.0, 6.0]\n" in grid_error(tmp_path / "a.nii")


# STORED is in mm; here the same numbers are of another unit. mm per unit, from the SI prefixes.
@pytest.mark.parametrize(("unit", "mm"), [("unknown", 1), ("meter", 1000), ("micron", 1e-3)])
@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_the_unit_of_a_nifti(version, unit, mm, tmp_path):
    affine = np.diag([-0.5, -0.75, 6.0, 1.0])
    affine[:3, 3] = [3, -5, 40]
    image = version(VOXELS, affine)
    # The unit of time shares the byte.
    image.header.set_xyzt_units(unit, "msec")
    for forms in ((1, 1), (0, 1), (1, 0)):
        image.header["sform_code"], image.header["qform_code"] = forms
        image.to_filename(tmp_path / "a.nii.gz")
        grid = volumes.read_grid(tmp_path / "a.nii.gz", MEND)
        assert grid.spacing == pytest.approx((6 * mm, 0.75 * mm, 0.5 * mm))
        np.testing.assert_allclose(grid.to_mm[:3, 3], np.array([-3, 5, 40]) * mm, rtol=1e-5)
        np.testing.assert_array_equal(volumes.read_voxels(tmp_path / "a.nii.gz", MEND), VOXELS.T)


def test_an_undefined_unit_of_a_nifti_is_reported(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header["xyzt_units"] = 5 + 16
    image.to_filename(tmp_path / "a.nii")
    text = grid_error(tmp_path / "a.nii")
    assert "unit of length\n  found:    'code 5'\n  expected: one unit for all axes: m, " in text
    assert text.endswith("to mend:  use another file, in mm")


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("um", 1e-3), ("microns", 1e-3), ("m", 1000), ("cm", 10), ("nm", 1e-6), ("Millimeters", 1),
     ("", 1), ("???", 1)],
)  # fmt: skip
@pytest.mark.parametrize("field", ["space units", "units"])
def test_the_unit_of_an_nrrd(field, unit, mm, tmp_path):
    write_nrrd(tmp_path / "a.nrrd", VOXELS, STORED, ORIGIN, **{field: [unit] * 3})
    grid = volumes.read_grid(tmp_path / "a.nrrd", MEND)
    assert grid.spacing == pytest.approx((6 * mm, 0.75 * mm, 0.5 * mm))
    np.testing.assert_allclose(grid.to_mm[:3, 3], ORIGIN * mm)


@pytest.mark.parametrize("micro", ["\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"])
def test_a_micrometre_with_its_sign_is_not_a_metre(micro, tmp_path):
    path = tmp_path / "a.nrrd"
    write_nrrd(path, VOXELS, STORED, **{"space units": ["XX"] * 3})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"XX", f"{micro}m".encode()))
    assert volumes.read_grid(path, MEND).spacing == pytest.approx((6e-3, 0.75e-3, 0.5e-3))
    # In Latin-1 the sign is no valid text.
    path.write_bytes(content.replace(b"XX", b"\xb5m"))
    assert "unit of length\n  found:    '\ufffdm', " in grid_error(path)


@pytest.mark.parametrize("units", [["furlong"] * 3, ["mm", "mm", "um"], ["mm", "", "um"]])
def test_an_unknown_or_mixed_unit_of_an_nrrd_is_reported(units, tmp_path):
    write_nrrd(tmp_path / "a.nrrd", VOXELS, STORED, **{"space units": units})
    assert f"found:    {', '.join(map(repr, units))}\n" in grid_error(tmp_path / "a.nrrd")


def test_volumes_in_two_units_lie_on_one_grid(tmp_path):
    for name, scale, unit in (("image", 1, "mm"), ("mask", 1000, "micron")):
        affine = np.diag([-0.5 * scale, -0.75 * scale, 6.0 * scale, 1.0])
        image = nibabel.Nifti1Image(VOXELS, affine)
        image.header.set_xyzt_units(unit)
        image.to_filename(tmp_path / f"{name}.nii")
    grid = volumes.check_same_grid(tmp_path / "image.nii", tmp_path / "mask.nii", MEND)
    assert grid.spacing == pytest.approx((6, 0.75, 0.5))


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "NII.GZ"])
def test_nifti_2_is_read_like_nifti_1(ending, tmp_path):
    affine = np.diag([-0.5, -0.75, 6.0, 1.0])
    path = tmp_path / f"a.{ending}"
    for version in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        version(VOXELS, affine).to_filename(path)
        np.testing.assert_array_equal(volumes.read_voxels(path, MEND), VOXELS.T)
        assert volumes.read_grid(path, MEND).spacing == pytest.approx((6, 0.75, 0.5))


def test_nibabel_prints_nothing_between_our_messages(tmp_path, capfd, caplog):
    # Two problems that nibabel reports itself: one that it mends, one that it refuses.
    nibabel.Nifti1Image(VOXELS, np.eye(4)).to_filename(tmp_path / "a.nii")
    header = bytearray((tmp_path / "a.nii").read_bytes())
    header[252:254] = (77).to_bytes(2, "little")  # qform_code
    (tmp_path / "a.nii").write_bytes(header)
    assert volumes.read_grid(tmp_path / "a.nii", MEND).shape == (5, 6, 7)
    header[70:72] = (7777).to_bytes(2, "little")  # datatype
    (tmp_path / "a.nii").write_bytes(header)
    assert "expected: a readable NIfTI volume" in grid_error(tmp_path / "a.nii")
    assert capfd.readouterr() == ("", "") and caplog.messages == []


def test_a_nifti_of_time_or_colours(tmp_path):
    nibabel.Nifti1Image(np.zeros((3, 4, 5, 6), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert "axes\n  found:    3 × 4 × 5 × 6 voxels\n  expected: three axes" in grid_error(
        tmp_path / "a.nii"
    )
    rgb = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "b.nii")
    assert "expected: one number per voxel" in grid_error(tmp_path / "b.nii")


def test_image_and_mask_on_one_grid(tmp_path):
    image = write(tmp_path / "image.nii", VOXELS)
    # The mask is stored in reverse, and is a twentieth of a pixel away.
    near = ORIGIN + np.array([0.025, 0, 6.0 * 4])
    mask = write(tmp_path / "mask.nii", VOXELS[..., ::-1], STORED * [1, 1, -1], near)
    assert volumes.check_same_grid(image, mask, MEND).shape == (5, 6, 7)


OTHER_GRIDS = {
    "another number of slices": {"voxels": VOXELS[..., :4]},
    "elsewhere": {"origin": ORIGIN + np.array([0.06, 0, 0])},
    "of another size": {"directions": STORED * 1.02},
    "mirrored": {"directions": STORED * [[-1], [1], [1]]},
}


@pytest.mark.parametrize("case", OTHER_GRIDS)
def test_a_mask_on_another_grid_is_reported(case, tmp_path):
    image = write(tmp_path / "image.nii", VOXELS)
    mask = write(tmp_path / "mask.nii", **{"voxels": VOXELS} | OTHER_GRIDS[case])
    with pytest.raises(BadInput) as caught:
        volumes.check_same_grid(image, mask, MEND)
    text = str(caught.value)
    assert text.startswith(f"{mask}: grid\n  found:    (")
    expected = "(5, 6, 7) voxels (slices, height, width) of 6 × 0.75 × 0.5 mm, at the same position"
    assert f"expected: that of the image: {expected}" in text
    if case == "elsewhere":
        assert "with corners up to 0.06 mm away from those of the image" in text
