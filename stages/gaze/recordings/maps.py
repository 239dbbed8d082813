"""Heatmaps and refined maps from other software: one 8-bit grey file per image."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, log
from stages.core.resize import resize
from stages.data.datasets import files
from stages.data.datasets.listing import normalise_id

MAP_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_MAX_SHOWN = 3


def _require_single(candidates: list[Path]) -> Path:
    if len(candidates) > 1:
        raise BadInput(
            candidates[0].parent,
            f"map of {candidates[0].stem!r}",
            found=[file.name for file in candidates],
            expected="one file",
            mend="delete all but one",
        )
    return candidates[0]


def find_maps(folder: Path, sample_ids: Collection[str]) -> dict[str, Path]:
    """Find the maps in a folder: sample id → file, in the order of `sample_ids`.

    A map is a file `<sample_id>` with one of `MAP_SUFFIXES`, in upper or lower case. The function
    ignores other files.

    Raises
    ------
    BadInput
        The path is not a folder, or the folder has no map of any sample, or several of one sample.
    """
    if not folder.is_dir():
        raise BadInput(
            folder,
            "folder",
            found="no folder",
            expected="a folder of maps",
            mend="correct its path",
        )
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in MAP_SUFFIXES:
            by_stem.setdefault(normalise_id(file.stem), []).append(file)
    found = [name for name in sample_ids if name in by_stem]
    if not found:
        raise BadInput(
            folder,
            "maps",
            found=[f"{name}{by_stem[name][0].suffix}" for name in list(by_stem)[:_MAX_SHOWN]],
            expected=f"files named like the samples, such as {sorted(sample_ids)[:_MAX_SHOWN]}, "
            f"ending in {', '.join(MAP_SUFFIXES)}",
            mend="use the folder with the maps of this data set",
        )
    if len(found) < len(by_stem):
        log.warning(
            "%s: %d maps belong to no readable image of the data set",
            folder,
            len(by_stem) - len(found),
        )
    return {name: _require_single(by_stem[name]) for name in found}


def _check_shape(
    file: Path, map_size: tuple[int, int], original_size: tuple[int, int], size: tuple[int, int]
) -> None:
    # Both sides of a scaled map are rounded, so the expected short side follows from the long one,
    # whose relative rounding error is smaller.
    short, long = (0, 1) if original_size[0] <= original_size[1] else (1, 0)
    difference = abs(map_size[short] - map_size[long] * original_size[short] / original_size[long])
    if difference > 1 and map_size != size:
        raise BadInput(
            file,
            "size",
            found=f"{map_size} (height, width)",
            expected=f"the aspect ratio of the image, {original_size}, or the working size {size}",
            mend="export the map of the image only, without a border, and do not stretch it",
        )


def read_map(
    file: Path, size: tuple[int, int], original_size: tuple[int, int]
) -> NDArray[np.float32]:
    """Read a map and resize it to `size` (height, width), px: bilinear, anti-aliased.

    Parameters
    ----------
    original_size
        Height and width of the original image, px. The map must have this aspect ratio, within one
        pixel of the map, or exactly the working size `size`, to which images are stretched.

    Returns
    -------
    (height, width) float32 in [0, 1].

    Raises
    ------
    BadInput
        The map is unreadable, is not 8-bit grey, has another aspect ratio than the image, or is 0
        everywhere (an image without gaze must have no map).
    """
    pixels = files.read_image(file)
    grey = bool((pixels == pixels[..., :1]).all())
    if pixels.dtype != np.uint8 or not grey:
        raise BadInput(
            file,
            "pixels",
            found="colours" if not grey else "grey of more than 8 bits",
            expected="8-bit grey, 0 to 255",
            mend="export the map as 8-bit grey values, not in colours or with more bits",
        )
    _check_shape(file, (pixels.shape[0], pixels.shape[1]), original_size, size)
    if not pixels.any():
        raise BadInput(
            file,
            "pixels",
            found="0 everywhere",
            expected="a map with values above 0",
            mend="delete the file: its image then counts as an image without gaze",
        )
    return resize(pixels[..., 0], size) / np.float32(255)
