"""PNG, JPEG, TIFF and BMP files as images and as masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from stages.core.cli import BadInput

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# A JPEG that carries a preview of itself, as many cameras write it, is its first picture.
_JPEG = ("JPEG", "MPO")
_DEEP = ("I;16", "I;16L", "I;16B", "I", "F")
_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
# In a JPEG mask: the first level of the foreground, the band that belongs to neither side, and
# how much of the picture ringing may leave in that band.
_HALF = 128
_BAND = (64, 191)
_RINGING = 0.05


@contextmanager
def reading(path: Path, expected: str, mend: str = "replace the file") -> Iterator[None]:
    """Turn whatever a parser raises on the file `path` into a `BadInput`.

    For calls of parsers alone: damaged bytes make them raise almost anything.
    """
    try:
        yield
    except Exception as error:
        found = str(error) or repr(error)
        if isinstance(error, PermissionError):
            mend = "let this user read it"
        raise BadInput(path, "file", found=found, expected=expected, mend=mend) from error


def finite(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `image`, of the file `path`, all of whose values must be finite."""
    if not (known := np.isfinite(image)).all():
        raise BadInput(
            path,
            "pixels",
            found=f"{np.size(known) - np.count_nonzero(known)} values that are not finite",
            expected="finite intensities",
            mend="replace NaN and infinity by the intensity of the background",
        )
    return image


def _describe(image: ImageFile.ImageFile) -> tuple[int, int, bool, bool]:
    """Frames, EXIF orientation (1: upright), whether its colours have 16 bits each, or 0 is white.

    To be asked before the pixels are loaded: Pillow forgets them, and turns TIFFs.
    """
    frames = 1 if image.format in _JPEG else getattr(image, "n_frames", 1)
    wide = len(image.getbands()) > 1 and any(";16" in str(tile.args) for tile in image.tile)
    exif = image.getexif()
    # Of 8 bits Pillow turns the levels round itself.
    inverted = image.mode in _DEEP and exif.get(_PHOTOMETRIC) == 0
    return frames, exif.get(_ORIENTATION, 1), wide, inverted


def _open(path: Path) -> Image.Image:
    """Load the one upright, opaque picture in a file."""
    with reading(path, "a readable PNG, JPEG, TIFF or BMP file"):
        with Image.open(path, formats=_FORMATS) as image:
            frames, orientation, wide, inverted = _describe(image)
            image.load()
        seen_through = False
        if image.has_transparency_data:
            seen_through = np.asarray(image.convert("RGBA"))[..., 3].min() < 255
    if frames > 1:
        raise BadInput(
            path, "pages", found=frames, expected=1, mend="save each page as a file of its own"
        )
    # Viewers ignore a value that the standard does not know.
    if 2 <= orientation <= 8:
        raise BadInput(
            path,
            "EXIF orientation",
            found=orientation,
            expected="1: viewers turn the others, so gaze would not lie on the stored pixels",
            mend="turn the pixels themselves, and set the orientation to 1",
        )
    if wide:
        raise BadInput(
            path,
            "pixels",
            found="16 bits per colour",
            expected="8 bits per colour, or grey",
            mend="save it with 8 bits per channel, or as grey",
        )
    if inverted:
        raise BadInput(
            path,
            "photometric interpretation",
            found="white is 0, with 16 bits",
            expected="black is 0",
            mend="save it with black as 0",
        )
    if seen_through:
        raise BadInput(
            path,
            "transparency",
            found="pixels that are not opaque",
            expected="none: what is seen would depend on what is behind them",
            mend="flatten the image, and save it without an alpha channel",
        )
    return image


def read_image(path: Path) -> NDArray[Any]:
    """Read a picture as it is seen.

    Returns
    -------
    (H, W, 3) uint8 RGB of an image with 8 bits per channel, grey or colour, also from a palette;
    (H, W, 1) float32 of a grey one with more, in its stored values.

    Raises
    ------
    BadInput
        The file cannot be read, holds several pages, 16-bit colours, transparent pixels or values
        that are not finite, or has an EXIF orientation other than 1.
    """
    image = _open(path)
    if image.mode in _DEEP:
        return finite(path, np.asarray(image).astype(np.float32)[..., None])
    with reading(path, "colours that can be shown as RGB"):
        return np.asarray(image.convert("RGB"))


def _levels(values: NDArray[Any]) -> str:
    levels = np.unique(values).tolist()
    shown = ", ".join(f"{level:g}" for level in levels[:8])
    return f"{len(levels)} levels: {shown}" + (", …" if len(levels) > 8 else "")


def foreground(path: Path, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell foreground from background in a mask of the file `path` that was stored without loss.

    Parameters
    ----------
    values
        Numbers, any shape: 0 and at most one other level, which is the foreground. A mask of one
        level is empty where that is 0, else full.

    Raises
    ------
    BadInput
        There are more levels, or the lower of two is not 0.
    """
    if not ((values == 0) | (values == values.max())).all():
        raise BadInput(
            path,
            "mask",
            found=_levels(values),
            expected="two levels, 0 and one other",
            mend="save the mask with 0 outside and 255 inside",
        )
    return np.asarray(values != 0)


def _foreground_of_jpeg(path: Path, grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    between = float(((grey >= _BAND[0]) & (grey <= _BAND[1])).mean())
    # Ringing needs an edge: a picture of one side only is stored exactly.
    dim = 0 < grey.max() < _HALF
    if between > _RINGING or dim:
        raise BadInput(
            path,
            "mask",
            found=f"levels up to {grey.max()}"
            if dim
            else f"{between:.1%} of the pixels from {_BAND[0]} to {_BAND[1]}",
            expected=f"levels near 0 and 255, at most {_RINGING:.0%} of the pixels between",
            mend="save the mask with 0 outside and 255 inside, as PNG where the layout allows it",
        )
    return grey >= _HALF


def _grey(path: Path, image: Image.Image, tolerance: int) -> NDArray[Any]:
    """(H, W) levels of a picture whose colours differ by `tolerance` at most."""
    if image.mode in _DEEP:
        return np.asarray(image)
    with reading(path, "colours that can be shown as RGB"):
        rgb = np.asarray(image.convert("RGB"))
    if (spread := int(np.ptp(rgb, axis=-1).max())) > tolerance:
        raise BadInput(
            path,
            "mask",
            found=f"colours: red, green and blue differ by up to {spread}",
            expected="grey",
            mend="save the mask as grey, with 0 outside and 255 inside",
        )
    return rgb[..., 1]


def check_size(path: Path, found: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Stop where the mask `path` does not have its image's height and width."""
    if found != image:
        raise BadInput(
            path,
            "size",
            found=f"{found} (height, width)",
            expected=f"the image's {image}",
            mend="pair the mask with its own image",
        )


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the mask of an image of `shape` (height, width).

    Without loss (PNG, TIFF, BMP): see `foreground`. JPEG: foreground from 128, if no more than
    5 % of the pixels lie from 64 to 191, as ringing leaves them at edges. Palettes count by their
    colours; colours must be grey. What the file itself must be is what `read_image` asks for.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    BadInput
        The file cannot be read, is no mask, or does not have the image's size.
    """
    image = _open(path)
    check_size(path, (image.height, image.width), shape)
    if image.format in _JPEG:
        # The colours of a grey JPEG may ring, too.
        return _foreground_of_jpeg(path, _grey(path, image, tolerance=_BAND[0]))
    return foreground(path, _grey(path, image, tolerance=0))
