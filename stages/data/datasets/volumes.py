"""Read NRRD and NIfTI volumes as axial slices, in the orientation that radiologists use."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

import nibabel
import nrrd
import numpy as np
from nibabel import imageglobals
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.data.datasets import files
from stages.data.datasets.labels import Labels

K = TypeVar("K", Path, tuple[Path, ...])
P = ParamSpec("P")
T = TypeVar("T")
_NRRD_SPACE = "left-posterior-superior"
# NIfTI axes point right and anterior; those of DICOM and of these NRRD files left and posterior.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# mm per unit of length, by the spellings in headers: singular, lower case. Without a unit both
# formats mean mm.
_MM_PER_UNIT = {
    name: mm
    for mm, names in {
        1e3: ("m", "meter", "metre"),
        10.0: ("cm", "centimeter", "centimetre"),
        1.0: ("mm", "millimeter", "millimetre", "", "unknown", "???"),
        1e-3: ("um", "\N{GREEK SMALL LETTER MU}m", "micron", "micrometer", "micrometre"),
        1e-6: ("nm", "nanometer", "nanometre"),
    }.items()
    for name in names
}
_NIFTI_UNITS = {0: "unknown", 1: "m", 2: "mm", 3: "um"}
_NIFTI_VERSIONS = (nibabel.Nifti1Image, nibabel.Nifti2Image)
# nibabel prints a line for each unusual header, without the name of the file. What matters here is
# checked below, with a message of ours.
imageglobals.logger.disabled = True


def cache_last_two(read: Callable[Concatenate[K, P], T]) -> Callable[Concatenate[K, P], T]:
    """Cache the results of `read` for the last two files, as callers read slice after slice.

    There are two because some threads still read the last slices of a volume while others read the
    first ones of the next. One thread decodes at a time, and the others wait for its result:
    otherwise each of them would decode and hold the volume.
    """
    cached: dict[tuple[Any, ...], T] = {}
    lock = Lock()

    @wraps(read)
    def read_cached(path: K, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (path, *args, *kwargs.items())
        with lock:
            if key not in cached:
                # Delete one before reading the next, so that there are never three in memory.
                if len(cached) == 2:
                    del cached[next(iter(cached))]
                cached[key] = read(path, *args, **kwargs)
            return cached[key]

    return read_cached


@dataclass(frozen=True)
class Grid:
    """Geometry of a volume whose axes are reordered to (slice, y, x).

    Slices run from feet to head, rows from front to back, columns from the patient's right to left,
    as closely as the stored axes allow without resampling.

    Attributes
    ----------
    shape
        Slices, height, width.
    to_mm
        (4, 4) matrix from (slice, y, x, 1) to (left, posterior, superior, 1), mm.
    axis_order
        The stored axis of each axis.
    flipped_axes
        The axes that run opposite to the stored ones.
    """

    shape: tuple[int, int, int]
    to_mm: NDArray[np.float64]
    axis_order: tuple[int, ...]
    flipped_axes: tuple[int, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between slices, then size of a pixel along y and x, mm."""
        z, y, x = np.linalg.norm(self.to_mm[:3, :3], axis=0).tolist()
        return z, y, x

    def __str__(self) -> str:
        spacing = " × ".join(f"{size:.4g}" for size in self.spacing)
        return f"{self.shape} voxels (slices, height, width) of {spacing} mm"


def _make_grid(path: Path, stored: tuple[int, ...], to_mm: NDArray[np.float64], mend: str) -> Grid:
    """Make the grid of a volume of shape `stored`; `to_mm` maps its stored indices to mm."""
    steps = to_mm[:3, :3]
    # The main direction of each stored axis: left (0), posterior (1) or superior (2).
    anatomical = abs(steps).argmax(axis=0).tolist()
    single_slice_axes = [axis for axis, size in zip(anatomical, stored) if size == 1]
    # With three axes at right angles, the volume of a voxel is the product of their lengths.
    is_orthogonal = abs(np.linalg.det(steps)) > 0.5 * np.linalg.norm(steps, axis=0).prod()
    if (
        len(stored) != 3
        or sorted(anatomical) != [0, 1, 2]
        or single_slice_axes not in ([], [2])
        or not (is_orthogonal and np.isfinite(to_mm).all())
    ):
        raise BadInput(
            path,
            "header",
            found=f"{' × '.join(map(str, stored))} voxels, axes {steps.T.tolist()}",
            expected="three axes, each along one axis of the patient, with axial slices",
            mend=mend,
        )
    axis_order = tuple(anatomical.index(axis) for axis in (2, 1, 0))
    flipped_axes = tuple(
        i for i, axis in enumerate(axis_order) if steps[anatomical[axis], axis] < 0
    )
    shape = tuple(stored[axis] for axis in axis_order)
    turned = to_mm[:, [*axis_order, 3]]
    for axis in flipped_axes:
        turned[:, 3] += turned[:, axis] * (shape[axis] - 1)
        turned[:, axis] *= -1
    return Grid((shape[0], shape[1], shape[2]), turned, axis_order, flipped_axes)


def _mm_per_unit(path: Path, units: Iterable[str], mend: str) -> float:
    """Return the mm per unit of length, which a header may state once for each axis."""
    stated = [unit.strip() for unit in units]
    # Lower case also unites the two characters for micro.
    factors = {
        _MM_PER_UNIT.get(name, _MM_PER_UNIT.get(name.removesuffix("s")))
        for name in map(str.casefold, stated)
    }
    if len(factors) == 1 and (factor := factors.pop()) is not None:
        return factor
    raise BadInput(
        path,
        "unit of length",
        found=", ".join(map(repr, stated)),
        expected="one unit for all axes: m, cm, mm, um or nm (or no unit, which means mm)",
        mend=f"{mend}, in mm",
    )


def _nrrd_grid(path: Path, mend: str) -> Grid:
    with (
        files.report_read_errors(path, "a readable NRRD volume", mend),
        path.open(encoding="utf-8", errors="replace") as lines,
    ):
        # From a file pynrrd would drop what is not ASCII, and read µm as m.
        header = nrrd.read_header(line for line in lines)
        stored = tuple(int(size) for size in header["sizes"])
        to_mm = np.eye(4)
        space = header.get("space")
        has_geometry = (
            space == _NRRD_SPACE and {"space directions", "space origin"} <= header.keys()
        )
        if has_geometry:
            to_mm[:3, : len(stored)] = np.asarray(header["space directions"], float).T
            to_mm[:3, 3] = header["space origin"]
    if not has_geometry:
        raise BadInput(
            path,
            "header",
            found=f"space {space}, fields {', '.join(header)}",
            expected=f"space {_NRRD_SPACE}, space directions and space origin",
            mend=mend,
        )
    # Some writers state the units of the axes in place of those of the space.
    to_mm[:3] *= _mm_per_unit(path, header.get("space units") or header.get("units") or [""], mend)
    return _make_grid(path, stored, to_mm, mend)


def _open_nifti(path: Path, mend: str) -> Any:
    """Open a volume of NIfTI-1 or NIfTI-2."""
    with files.report_read_errors(path, "a readable NIfTI volume", mend):
        versions = [version for version in _NIFTI_VERSIONS if version.path_maybe_image(path)[0]]
        # A file of neither version is opened as the first, which says what is wrong with it.
        return (*versions, *_NIFTI_VERSIONS)[0].from_filename(path)


def _stored_pixdim(path: Path, image: Any) -> list[float]:
    """Read the sizes of a voxel as stored: nibabel replaces sizes of 0 by 1."""
    header_class = type(image).header_class
    _, (content, _) = type(image).path_maybe_image(path)
    stored = header_class(content[: header_class.sizeof_hdr], check=False)["pixdim"]
    return [float(size) for size in stored[1:4]]


def _three_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a NIfTI volume of one slice or one time point with exactly three axes."""
    return (*shape, 1)[:3]


def _nifti_grid(path: Path, mend: str) -> Grid:
    image = _open_nifti(path, mend)
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise BadInput(
            path,
            "header",
            found="neither sform nor qform",
            expected="one of them, for the position of the volume in the patient",
            mend=mend,
        )
    if image.get_data_dtype().kind not in "iufb":
        raise BadInput(
            path, "voxels", found=image.get_data_dtype(), expected="one number per voxel", mend=mend
        )
    if any(size != 1 for size in image.shape[3:]):
        raise BadInput(
            path,
            "axes",
            found=f"{' × '.join(map(str, image.shape))} voxels",
            expected="three axes, that is one time point per file",
            mend="save the time point that the reader looked at as a separate file",
        )
    stored = _three_axes(image.shape)
    if not image.header["sform_code"]:
        # Only then does the position come from the qform, whose voxel sizes are the pixdim.
        sizes = _stored_pixdim(path, image)
        if any(size == 0 and count > 1 for size, count in zip(sizes, stored, strict=True)):
            raise BadInput(
                path, "header", found=f"pixdim {sizes}", expected="sizes of a voxel", mend=mend
            )
    unit = int(image.header["xyzt_units"]) % 8
    to_mm = _RAS_TO_LPS @ image.affine
    to_mm[:3] *= _mm_per_unit(path, [_NIFTI_UNITS.get(unit, f"code {unit}")], mend)
    return _make_grid(path, stored, to_mm, mend)


def is_nrrd(path: Path) -> bool:
    return path.name.lower().endswith(".nrrd")


def read_grid(path: Path, mend: str) -> Grid:
    """Read the geometry of a volume, without its voxels, in mm, whatever unit the header states.

    Parameters
    ----------
    path
        NRRD (.nrrd, with the space left-posterior-superior), else NIfTI-1 or NIfTI-2 with two or
        three axes (further axes must have length 1).
    mend
        How the user can repair a file that cannot be used, for messages.

    Raises
    ------
    BadInput
        The header cannot be read, does not give the position in the patient or states an unknown
        unit of length, or the volume does not have three axes, each along one axis of the patient.
    """
    return _nrrd_grid(path, mend) if is_nrrd(path) else _nifti_grid(path, mend)


def _nifti_voxels(path: Path, mend: str) -> NDArray[Any]:
    proxy = _open_nifti(path, mend).dataobj
    stored = np.asarray(proxy.get_unscaled())
    if (proxy.slope, proxy.inter) != (1, 0):
        # Float32, as the float64 of nibabel takes eight bytes per voxel.
        stored = np.multiply(stored, proxy.slope, dtype=np.float32)
        stored += np.float32(proxy.inter)
    return stored.reshape(_three_axes(stored.shape))


def read_voxels(path: Path, mend: str) -> NDArray[Any]:
    """Read the stored values of a volume; rescaled (float32) if a NIfTI file has a slope.

    Returns
    -------
    Read-only array with the `shape` of the volume's `Grid`.

    Raises
    ------
    BadInput
        As in `read_grid`, or the voxels cannot be read.
    """
    grid = read_grid(path, mend)
    with files.report_read_errors(path, "a readable volume", mend):
        stored = nrrd.read(str(path))[0] if is_nrrd(path) else _nifti_voxels(path, mend)
        voxels: NDArray[Any] = np.flip(stored.transpose(grid.axis_order), grid.flipped_axes)
    voxels.flags.writeable = False
    return voxels


_read_cached_voxels = cache_last_two(read_voxels)


@cache_last_two
def read_label_mask(path: Path, mend: str, labels: Labels | None = None) -> NDArray[np.bool_]:
    """Read a label volume with `read_voxels`; return where its values are above 0, or `labels`."""
    voxels = read_voxels(path, mend)
    return np.asarray(voxels > 0) if labels is None else labels.choose(path, voxels)


def read_slice(path: Path, number: int, mend: str) -> NDArray[np.float32]:
    """Read slice `number`, from 0 at the feet, as (H, W, 1); all its values must be finite."""
    pixels = np.asarray(_read_cached_voxels(path, mend)[number], np.float32)
    return files.require_finite(path, pixels[..., None])


def check_same_grid(image: Path, mask: Path, mend: str) -> Grid:
    """Return the grid of `image`, after checking that `mask` has the same shape and position.

    Corners may differ by a tenth of a voxel, because some headers are rounded.

    Raises
    ------
    BadInput
        A header cannot be read, or shape or position differ.
    """
    grid, mask_grid = read_grid(image, mend), read_grid(mask, mend)
    ends = ((0, size - 1) for size in grid.shape)
    corners = np.array([(*corner, 1) for corner in product(*ends)])
    distance = abs(corners @ (grid.to_mm - mask_grid.to_mm).T).max()
    if grid.shape != mask_grid.shape or distance > 0.1 * min(grid.spacing):
        raise BadInput(
            mask,
            "grid",
            found=f"{mask_grid}, with corners up to {distance:.3g} mm away from those of the image",
            expected=f"that of the image: {grid}, at the same position",
            mend=mend,
        )
    return grid
