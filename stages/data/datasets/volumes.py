"""NRRD and NIfTI volumes as axial slices, in the order and the view of radiologists."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

import nibabel
import nrrd
import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput
from stages.data.datasets import files

P = ParamSpec("P")
T = TypeVar("T")
_NRRD_SPACE = "left-posterior-superior"
# NIfTI counts to the right and to the front, DICOM and these NRRDs to the left and to the back.
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def kept(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """Keep what `read` returned of the last two files: their slices are asked for one by one.

    Two, since the threads that read the last slices of a volume and the first ones of the next
    take turns. One thread reads at a time, and the others wait for what it reads: left to
    themselves, each would decode the volume, and hold it.
    """
    held: dict[Path, T] = {}
    lock = Lock()

    @wraps(read)
    def ask(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with lock:
            if path not in held:
                # Before the next one is read, so that there are never three.
                if len(held) == 2:
                    del held[next(iter(held))]
                held[path] = read(path, *args, **kwargs)
            return held[path]

    return ask


@dataclass(frozen=True)
class Grid:
    """The voxels of a volume turned to (slice, y, x).

    Slices run from feet to head, rows from front to back, columns from the patient's right to the
    left, each as nearly as the stored axes allow without resampling.

    Attributes
    ----------
    shape
        Slices, height, width.
    to_mm
        (4, 4) from (slice, y, x, 1) to left, posterior, superior, 1, mm.
    order, backwards
        The stored axis behind each axis, and the axes that run the other way than stored.
    """

    shape: tuple[int, int, int]
    to_mm: NDArray[np.float64]
    order: tuple[int, ...]
    backwards: tuple[int, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of slices, size of a pixel along y and x, mm."""
        z, y, x = np.linalg.norm(self.to_mm[:3, :3], axis=0).tolist()
        return z, y, x

    def __str__(self) -> str:
        spacing = " × ".join(f"{size:.4g}" for size in self.spacing)
        return f"{self.shape} voxels (slices, height, width) of {spacing} mm"


def _turn(path: Path, stored: tuple[int, ...], to_mm: NDArray[np.float64], mend: str) -> Grid:
    """Make the grid of a volume with `stored` voxels, whose stored axes `to_mm` places."""
    steps = to_mm[:3, :3]
    # Left, posterior or superior: along which of these each stored axis mainly runs.
    anatomical = abs(steps).argmax(axis=0).tolist()
    lone = [axis for axis, size in zip(anatomical, stored) if size == 1]
    # Of three axes at right angles, the volume of a voxel is the product of their lengths.
    upright = abs(np.linalg.det(steps)) > 0.5 * np.linalg.norm(steps, axis=0).prod()
    if (
        len(stored) != 3
        or sorted(anatomical) != [0, 1, 2]
        or lone not in ([], [2])
        or not (upright and np.isfinite(to_mm).all())
    ):
        raise BadInput(
            path,
            "header",
            found=f"{' × '.join(map(str, stored))} voxels, axes {steps.T.tolist()}",
            expected="three axes, each along one of the patient's, with axial slices",
            mend=mend,
        )
    order = tuple(anatomical.index(axis) for axis in (2, 1, 0))
    backwards = tuple(i for i, axis in enumerate(order) if steps[anatomical[axis], axis] < 0)
    shape = tuple(stored[axis] for axis in order)
    turned = to_mm[:, [*order, 3]]
    for axis in backwards:
        turned[:, 3] += turned[:, axis] * (shape[axis] - 1)
        turned[:, axis] *= -1
    return Grid((shape[0], shape[1], shape[2]), turned, order, backwards)


def _nrrd_grid(path: Path, mend: str) -> Grid:
    with files.reading(path, "a readable NRRD volume", mend):
        header = nrrd.read_header(str(path))
        stored = tuple(int(size) for size in header["sizes"])
        to_mm = np.eye(4)
        space = header.get("space")
        placed = space == _NRRD_SPACE and {"space directions", "space origin"} <= header.keys()
        if placed:
            to_mm[:3, : len(stored)] = np.asarray(header["space directions"], float).T
            to_mm[:3, 3] = header["space origin"]
    if not placed:
        raise BadInput(
            path,
            "header",
            found=f"space {space}, fields {', '.join(header)}",
            expected=f"space {_NRRD_SPACE}, space directions and space origin",
            mend=mend,
        )
    return _turn(path, stored, to_mm, mend)


def _open_nifti(path: Path, mend: str) -> Any:
    with files.reading(path, "a readable NIfTI volume", mend):
        return nibabel.Nifti1Image.from_filename(path)


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a NIfTI volume of one slice or one time point, with three axes."""
    return (*shape, 1)[:3]


def _nifti_grid(path: Path, mend: str) -> Grid:
    image = _open_nifti(path, mend)
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise BadInput(
            path,
            "header",
            found="neither sform nor qform",
            expected="one of them, which say how the volume lies in the patient",
            mend=mend,
        )
    if image.get_data_dtype().kind not in "iufb":
        raise BadInput(
            path, "voxels", found=image.get_data_dtype(), expected="one number each", mend=mend
        )
    if any(size != 1 for size in image.shape[3:]):
        raise BadInput(
            path,
            "axes",
            found=f"{' × '.join(map(str, image.shape))} voxels",
            expected="three axes: one time point per file",
            mend="save the time point that was looked at as a file of its own",
        )
    stored = _three(image.shape)
    return _turn(path, stored, _RAS_TO_LPS @ image.affine, mend)


def is_nrrd(path: Path) -> bool:
    return path.name.lower().endswith(".nrrd")


def read_grid(path: Path, mend: str) -> Grid:
    """Read how a volume lies in the patient, without its voxels.

    Parameters
    ----------
    path
        NRRD (.nrrd; its space left-posterior-superior), else NIfTI of two or three axes (or of
        more, if their length is 1).
    mend
        What a user can do about a file that cannot be used.

    Raises
    ------
    BadInput
        The header cannot be read, does not say how the volume lies in the patient, or the axes are
        not three, each along one of the patient's.
    """
    return _nrrd_grid(path, mend) if is_nrrd(path) else _nifti_grid(path, mend)


def _nifti_voxels(path: Path, mend: str) -> NDArray[Any]:
    proxy = _open_nifti(path, mend).dataobj
    stored = np.asarray(proxy.get_unscaled())
    if (proxy.slope, proxy.inter) != (1, 0):
        # Not nibabel's own doubles, which take eight bytes a voxel.
        stored = np.multiply(stored, proxy.slope, dtype=np.float32)
        stored += np.float32(proxy.inter)
    return stored.reshape(_three(stored.shape))


def read_voxels(path: Path, mend: str) -> NDArray[Any]:
    """Read a volume's stored values, or rescaled ones (float32) where a NIfTI file asks for it.

    Returns
    -------
    Read-only array of the `shape` of its `Grid`.

    Raises
    ------
    BadInput
        As in `read_grid`, or the voxels cannot be read.
    """
    grid = read_grid(path, mend)
    with files.reading(path, "a readable volume", mend):
        stored = nrrd.read(str(path))[0] if is_nrrd(path) else _nifti_voxels(path, mend)
        voxels: NDArray[Any] = np.flip(stored.transpose(grid.order), grid.backwards)
    voxels.flags.writeable = False
    return voxels


_kept_voxels = kept(read_voxels)


@kept
def read_labelled(path: Path, mend: str) -> NDArray[np.bool_]:
    """Read where a volume's values are above 0, as `read_voxels` does."""
    return np.asarray(read_voxels(path, mend) > 0)


def read_slice(path: Path, number: int, mend: str) -> NDArray[np.float32]:
    """Read slice `number`, counted from 0 at the feet, as (H, W, 1) of finite values."""
    pixels = np.asarray(_kept_voxels(path, mend)[number], np.float32)
    return files.finite(path, pixels[..., None])


def check_same_grid(image: Path, mask: Path, mend: str) -> Grid:
    """Return the grid of `image`; stop where `mask` has other voxels, or has them elsewhere.

    A tenth of a voxel is let pass, for headers that round.
    """
    grid, other = read_grid(image, mend), read_grid(mask, mend)
    ends = ((0, size - 1) for size in grid.shape)
    corners = np.array([(*corner, 1) for corner in product(*ends)])
    apart = abs(corners @ (grid.to_mm - other.to_mm).T).max()
    if grid.shape != other.shape or apart > 0.1 * min(grid.spacing):
        raise BadInput(
            mask,
            "grid",
            found=f"{other}, its corners up to {apart:.3g} mm away from the image's",
            expected=f"as its image: {grid}, in the same place",
            mend=mend,
        )
    return grid
