"""Heatmaps and refined maps that were made elsewhere: one 8-bit grey file an image."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stages.cli import BadInput, log
from stages.resize import resize

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif")
_SHOWN = 3


def _check_single(files: list[Path]) -> Path:
    if len(files) > 1:
        raise BadInput(
            files[0].parent,
            f"map of {files[0].stem!r}",
            found=[file.name for file in files],
            expected="one file",
            mend="delete all but one",
        )
    return files[0]


def list_maps(folder: Path, sample_ids: Collection[str]) -> list[str]:
    """Ids of the samples that the folder has a map of, in the order of `sample_ids`.

    A map is the file `<sample_id>` with one of `ENDINGS`, of any case; other files do not matter.

    Raises
    ------
    BadInput
        It is no folder, holds a map of no sample, or two of one.
    """
    if not folder.is_dir():
        raise BadInput(
            folder, "folder", found="none", expected="a folder of maps", mend="correct its path"
        )
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in ENDINGS:
            files.setdefault(file.stem, []).append(file)
    found = [name for name in sample_ids if name in files]
    if not found:
        raise BadInput(
            folder,
            "maps",
            found=[f"{name}{files[name][0].suffix}" for name in list(files)[:_SHOWN]],
            expected=f"images named as samples, such as {sorted(sample_ids)[:_SHOWN]}, ending in "
            f"{', '.join(ENDINGS)}",
            mend="give the data set its own folder of maps",
        )
    for name in found:
        _check_single(files[name])
    if len(found) < len(files):
        log.warning("%s: %d maps are of no sample", folder, len(files) - len(found))
    return found


def read_map(folder: Path, sample_id: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """Read a sample's map at `size` (height, width), px, resized bilinearly, anti-aliased.

    Returns
    -------
    (height, width) float32 in [0, 1].

    Raises
    ------
    BadInput
        There is no map or there are two, or it is not 8-bit grey.
    """
    names = (folder / f"{sample_id}{e}" for ending in ENDINGS for e in (ending, ending.upper()))
    files = {file.stat().st_ino: file for file in names if file.is_file()}
    if not files:
        raise BadInput(
            folder,
            f"map of {sample_id!r}",
            found="none",
            expected=f"a file ending in {', '.join(ENDINGS)}",
            mend="add it",
        )
    file = _check_single(list(files.values()))
    try:
        with Image.open(file) as image:
            mode = image.mode
            channels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(
            file, "file", found=error, expected="a readable image", mend="replace the file"
        ) from error
    grey = bool((channels == channels[..., :1]).all())
    if mode not in ("L", "P", "RGB") or not grey:
        raise BadInput(
            file,
            "pixels",
            found=f"mode {mode}" if grey else f"mode {mode} with colours",
            expected="8-bit grey, 0 to 255",
            mend="save the map itself, not a picture of it in colours or in another depth",
        )
    return resize(channels[..., 0], size) / np.float32(255)
