"""Heatmaps and refined maps that were made elsewhere: one 8-bit grey file an image."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, log
from stages.core.resize import resize
from stages.data.datasets import files
from stages.data.datasets.listing import as_id

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_SHOWN = 3


def _check_single(found: list[Path]) -> Path:
    if len(found) > 1:
        raise BadInput(
            found[0].parent,
            f"map of {found[0].stem!r}",
            found=[file.name for file in found],
            expected="one file",
            mend="delete all but one",
        )
    return found[0]


def find_maps(folder: Path, sample_ids: Collection[str]) -> dict[str, Path]:
    """Find the maps of a folder: sample id → file, in the order of `sample_ids`.

    A map is the file `<sample_id>` with one of `ENDINGS`, of any case; other files do not matter.

    Raises
    ------
    BadInput
        It is no folder, holds no map of a sample, or two of one.
    """
    if not folder.is_dir():
        raise BadInput(
            folder, "folder", found="none", expected="a folder of maps", mend="correct its path"
        )
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in ENDINGS:
            by_stem.setdefault(as_id(file.stem), []).append(file)
    found = [name for name in sample_ids if name in by_stem]
    if not found:
        raise BadInput(
            folder,
            "maps",
            found=[f"{name}{by_stem[name][0].suffix}" for name in list(by_stem)[:_SHOWN]],
            expected=f"images named as samples, such as {sorted(sample_ids)[:_SHOWN]}, ending in "
            f"{', '.join(ENDINGS)}",
            mend="give the data set its own folder of maps",
        )
    if len(found) < len(by_stem):
        log.warning(
            "%s: %d maps are of no readable image of the data set",
            folder,
            len(by_stem) - len(found),
        )
    return {name: _check_single(by_stem[name]) for name in found}


def _check_shape(
    file: Path, found: tuple[int, int], original: tuple[int, int], size: tuple[int, int]
) -> None:
    # Both sides of a scaled map were rounded; the longer one tells the shorter more precisely.
    short, long = (0, 1) if original[0] <= original[1] else (1, 0)
    off = abs(found[short] - found[long] * original[short] / original[long])
    if off > 1 and found != size:
        raise BadInput(
            file,
            "size",
            found=f"{found} (height, width)",
            expected=f"the aspect of the image's {original}, or the working size {size}",
            mend="make the map of the image alone, without a border, and do not stretch it",
        )


def read_map(
    file: Path, size: tuple[int, int], original_size: tuple[int, int]
) -> NDArray[np.float32]:
    """Read a map at `size` (height, width), px, resized bilinearly, anti-aliased.

    Parameters
    ----------
    original_size
        Height and width of the image as it was looked at, px. The map has its aspect, within a
        pixel of its own, or is of the working size `size`, to which images are stretched.

    Returns
    -------
    (height, width) float32 in [0, 1].

    Raises
    ------
    BadInput
        It cannot be read, is not 8-bit grey, has another aspect than the image, or is 0
        everywhere: an image that nobody looked at has no map.
    """
    pixels = files.read_image(file)
    grey = bool((pixels == pixels[..., :1]).all())
    if pixels.dtype != np.uint8 or not grey:
        raise BadInput(
            file,
            "pixels",
            found="colours" if not grey else "grey of more than 8 bits",
            expected="8-bit grey, 0 to 255",
            mend="save the map itself, not a picture of it in colours or in another depth",
        )
    _check_shape(file, (pixels.shape[0], pixels.shape[1]), original_size, size)
    if not pixels.any():
        raise BadInput(
            file,
            "pixels",
            found="0 everywhere",
            expected="a map of where somebody looked",
            mend="delete the file: its image then counts as one without gaze",
        )
    return resize(pixels[..., 0], size) / np.float32(255)
