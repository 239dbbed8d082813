"""Brain MR and lung CT volumes with lesion masks in NRRD: the axial slices that show a lesion."""

import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nrrd
import numpy as np
from numpy.typing import NDArray

from stages.cli import BadInput
from stages.datasets import Pixels, Record

# By whole volume, so that no patient is on both sides, and each modality is on both.
SPLIT: dict[str, Literal["train", "test"]] = {
    "brain1": "train",
    "lung2": "train",
    "brain2": "test",
    "lung1": "test",
}
_SPACE = "left-posterior-superior"
_FETCH = "fetch the volumes again: python -m stages.fetch_lesions --output {}"


def _axial(path: Path, data: NDArray[Any], header: dict[str, Any]) -> tuple[NDArray[Any], Any]:
    """Turn a volume to (slice, y, x), from feet to head, front to back, patient's right to left.

    Returns the volume and the (3,) size of a voxel along these axes, mm.
    """
    directions = np.asarray(header.get("space directions", np.zeros((3, 3))), float)
    # Anatomical axis (left, posterior, superior) along which each array axis mainly runs.
    anatomical = abs(directions).argmax(axis=-1).tolist()
    if header.get("space") != _SPACE or data.ndim != 3 or sorted(anatomical) != [0, 1, 2]:
        raise BadInput(
            path,
            "header",
            found=f"space {header.get('space')}, {data.ndim} axes, directions "
            f"{directions.tolist()}",
            expected=f"space {_SPACE} and three axes, each along one of the patient's",
            mend=_FETCH.format(path.parent),
        )
    order = [anatomical.index(axis) for axis in (2, 1, 0)]
    backwards = tuple(i for i, axis in enumerate(order) if directions[axis, anatomical[axis]] < 0)
    spacing = np.linalg.norm(directions, axis=1)[order]
    return np.flip(data.transpose(order), backwards), spacing


# Both files of one volume: its slices are read one after the other.
@lru_cache(maxsize=2)
def read_volume(path: Path) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read an NRRD volume as axial slices.

    Returns
    -------
    (slices, H, W) array from feet to head, each slice as radiologists look at it (front at the
    top, the patient's right at the left), and the size of a pixel along y and x, mm.
    """
    try:
        data, header = nrrd.read(str(path))
    except (nrrd.NRRDError, OSError, ValueError, KeyError, StopIteration, zlib.error) as error:
        raise BadInput(
            path,
            "file",
            found=error,
            expected="a readable NRRD volume",
            mend=_FETCH.format(path.parent),
        ) from error
    slices, (_, y, x) = _axial(path, data, header)
    return slices, (float(y), float(x))


def index(root: Path) -> list[Record]:
    """List the slices with a lesion. An id is `<volume>_<slice>`, the volume is the subject."""
    records = []
    for volume, split in SPLIT.items():
        image, label = root / f"{volume}_image.nrrd", root / f"{volume}_label.nrrd"
        masks, _ = read_volume(label)
        records += [
            Record(f"{volume}_{number:03d}", volume, split, image, label, number)
            for number in np.flatnonzero(masks.any(axis=(1, 2))).tolist()
        ]
    return records


def read(record: Record) -> Pixels:
    """Read a slice in stored intensities (MR: arbitrary; CT: Hounsfield units) and its mask."""
    assert record.mask is not None and record.slice is not None
    images, spacing = read_volume(record.image)
    masks, mask_spacing = read_volume(record.mask)
    if images.shape != masks.shape or not np.allclose(spacing, mask_spacing):
        raise BadInput(
            record.mask,
            "grid",
            found=f"{masks.shape} (slices, height, width), {mask_spacing} mm",
            expected=f"its image's {images.shape}, {spacing} mm",
            mend=_FETCH.format(record.mask.parent),
        )
    image = images[record.slice, ..., None].astype(np.float32)
    return Pixels(image, masks[record.slice] > 0, spacing)
