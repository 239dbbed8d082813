"""Read PNG, JPEG, TIFF and BMP files as images and as masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from stages.core.cli import BadInput
from stages.data.datasets.labels import Labels, foreground_mask

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# Many cameras add a preview to a JPEG, which Pillow calls MPO. The first picture is the image.
_JPEG_FORMATS = ("JPEG", "MPO")
_DEEP_GREY_MODES = ("I;16", "I;16L", "I;16B", "I", "F")
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 0x0106
# For a JPEG mask: the lowest level of the foreground, the levels that are neither foreground nor
# background, and the largest share of the pixels that ringing may leave at those levels.
_JPEG_THRESHOLD = 128
_JPEG_UNCLEAR_LEVELS = (64, 191)
_JPEG_MAX_UNCLEAR = 0.05


@contextmanager
def report_read_errors(path: Path, expected: str, mend: str = "replace the file") -> Iterator[None]:
    """Raise `BadInput` in place of any exception of a parser that reads the file `path`.

    Use it only around calls of parsers: damaged bytes make them raise almost any exception.
    """
    try:
        if path.exists() and not path.is_file():
            # Nothing may ever come out of a pipe.
            raise ValueError("a folder" if path.is_dir() else "a pipe or a device")
        yield
    except Exception as error:
        found = str(error) or repr(error)
        if isinstance(error, PermissionError):
            mend = "give this user the permission to read it"
        raise BadInput(path, "file", found=found, expected=expected, mend=mend) from error


def require_finite(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the `image` of the file `path`, and check that all its values are finite."""
    if not (is_finite := np.isfinite(image)).all():
        raise BadInput(
            path,
            "pixels",
            found=f"{np.size(is_finite) - np.count_nonzero(is_finite)} values that are not finite",
            expected="finite intensities",
            mend="replace NaN and infinity by the background intensity",
        )
    return image


def _read_properties(image: ImageFile.ImageFile) -> tuple[int, int, bool, bool]:
    """Return frames, EXIF orientation (1: upright), if colours have 16 bits, and if 0 is white.

    Call it before Pillow loads the pixels: loading drops these values, and rotates TIFFs.
    """
    frames = 1 if image.format in _JPEG_FORMATS else getattr(image, "n_frames", 1)
    has_16_bit_colours = len(image.getbands()) > 1 and any(
        ";16" in str(tile.args) for tile in image.tile
    )
    exif = image.getexif()
    # Pillow itself inverts images of 8 bits.
    inverted = image.mode in _DEEP_GREY_MODES and exif.get(_TIFF_PHOTOMETRIC) == 0
    return frames, exif.get(_EXIF_ORIENTATION, 1), has_16_bit_colours, inverted


def _open_picture(path: Path) -> Image.Image:
    """Load the picture of a file, and check that there is only one, upright and opaque."""
    mend = "replace the file, or save it again as PNG with a program that shows it"
    with report_read_errors(path, "a readable PNG, JPEG, TIFF or BMP file", mend):
        with Image.open(path, formats=_FORMATS) as image:
            frames, orientation, has_16_bit_colours, inverted = _read_properties(image)
            image.load()
        is_transparent = False
        if image.has_transparency_data:
            is_transparent = np.asarray(image.convert("RGBA"))[..., 3].min() < 255
    if frames > 1:
        raise BadInput(
            path, "pages", found=frames, expected=1, mend="save each page as a separate file"
        )
    # Viewers ignore values that are not in the standard.
    if 2 <= orientation <= 8:
        raise BadInput(
            path,
            "EXIF orientation",
            found=orientation,
            expected="1: viewers rotate all others, and gaze would not fit the stored pixels",
            mend="rotate the stored pixels, and set the orientation to 1",
        )
    if has_16_bit_colours:
        raise BadInput(
            path,
            "pixels",
            found="16 bits per colour",
            expected="8 bits per colour, or grey",
            mend="save the image with 8 bits per channel, or as grey",
        )
    if inverted:
        raise BadInput(
            path,
            "photometric interpretation",
            found="white is 0, with 16 bits",
            expected="black is 0",
            mend="save the image with black as 0",
        )
    if is_transparent:
        raise BadInput(
            path,
            "transparency",
            found="pixels that are not opaque",
            expected="opaque pixels only: a viewer shows its own background through the others",
            mend="flatten the image, and save it without an alpha channel",
        )
    return image


def read_image(path: Path) -> NDArray[Any]:
    """Read a picture as a viewer shows it.

    Returns
    -------
    (H, W, 3) uint8 RGB for an image of 8 bits per channel: grey, colour or with a palette;
    (H, W, 1) float32 with the stored values for a grey image of more bits.

    Raises
    ------
    BadInput
        The file cannot be read, holds several pages, 16-bit colours, transparent pixels or values
        that are not finite, or has an EXIF orientation other than 1.
    """
    image = _open_picture(path)
    if image.mode in _DEEP_GREY_MODES:
        return require_finite(path, np.asarray(image).astype(np.float32)[..., None])
    with report_read_errors(path, "colours that can be shown as RGB"):
        return np.asarray(image.convert("RGB"))


def _jpeg_foreground_mask(path: Path, grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    lowest, highest = _JPEG_UNCLEAR_LEVELS
    unclear_share = float(((grey >= lowest) & (grey <= highest)).mean())
    # JPEG stores a mask of one level exactly: without edges there is no ringing.
    is_dim = 0 < grey.max() < _JPEG_THRESHOLD
    if unclear_share > _JPEG_MAX_UNCLEAR or is_dim:
        raise BadInput(
            path,
            "mask",
            found=f"levels up to {grey.max()}"
            if is_dim
            else f"{unclear_share:.1%} of the pixels from {lowest} to {highest}",
            expected="levels near 0 and 255, "
            f"at most {_JPEG_MAX_UNCLEAR:.0%} of the pixels between",
            mend="save the mask with 0 outside and 255 inside, as PNG if the layout allows it",
        )
    return grey >= _JPEG_THRESHOLD


def _grey_levels(path: Path, image: Image.Image, tolerance: int) -> NDArray[Any]:
    """Return the (H, W) levels of a picture whose colour channels differ by at most `tolerance`."""
    if image.mode in _DEEP_GREY_MODES:
        return np.asarray(image)
    with report_read_errors(path, "colours that can be shown as RGB"):
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


def check_mask_size(path: Path, mask_size: tuple[int, ...], image_size: tuple[int, ...]) -> None:
    """Check that the mask `path` has the height and width of its image."""
    if mask_size != image_size:
        raise BadInput(
            path,
            "size",
            found=f"{mask_size} (height, width)",
            expected=f"the image's {image_size}",
            mend="give the image its own mask",
        )


def read_mask(
    path: Path, shape: tuple[int, int], labels: Labels | None = None
) -> NDArray[np.bool_]:
    """Read the mask of an image of `shape` (height, width).

    For PNG, TIFF and BMP see `labels.foreground_mask`. A JPEG cannot hold `labels`: its foreground
    is 128 and more, and at most 5 % of the pixels may be from 64 to 191, as ringing leaves them at
    edges. The colours must be grey; those of a palette count, not its indices. `read_image` lists
    further conditions.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    BadInput
        The file cannot be read, is not a mask, or does not have the size of the image.
    """
    image = _open_picture(path)
    check_mask_size(path, (image.height, image.width), shape)
    if image.format in _JPEG_FORMATS:
        if labels is not None:
            raise BadInput(
                path,
                "mask",
                found="a JPEG, whose compression changes labels",
                expected="a PNG, TIFF or BMP, from which `prepare.foreground` chooses labels",
                mend="save the mask as PNG from its source, or remove `prepare.foreground`",
            )
        # Ringing also changes the colours of a grey JPEG.
        return _jpeg_foreground_mask(
            path, _grey_levels(path, image, tolerance=_JPEG_UNCLEAR_LEVELS[0])
        )
    return foreground_mask(path, _grey_levels(path, image, tolerance=0), labels)
