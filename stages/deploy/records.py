"""The record in each file that `segment` writes: by which students, from which input.

A run skips what is finished, and replaces only what a student wrote and nobody has changed since.
A record is in the file itself: a text of a PNG, an extension of a NIfTI header, or a private
element of a DICOM file.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.core.cli import BadInput

Content = Literal["mask", "probability", "uncertainty"]
CREATOR = "gaze-to-insight"
# The version of the package, too: pyproject.toml reads it here.
VERSION = "0.1.0"
PNG_TEXT = "record"
NIFTI_COMMENT = 6
PRIVATE_GROUP, PRIVATE_ELEMENT = 0x0071, 0x01


def make_record(students: list[str], source: str, content: Content, flips: bool) -> dict[str, Any]:
    """Make the record of a file, still without the hash of its pixels.

    Parameters
    ----------
    students
        SHA-256 of the weights files.
    source
        SHA-256 of the input.
    content
        What the pixels mean.
    flips
        Whether each student saw four views of the image.
    """
    return {
        "creator": CREATOR,
        "version": VERSION,
        "students": students,
        "input": source,
        "content": content,
        "flips": flips,
    }


def hash_pixels(pixels: NDArray[Any] | bytes) -> str:
    """Return the SHA-256 of pixels, whatever their byte order in memory."""
    if isinstance(pixels, np.ndarray):
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    return sha256(pixels).hexdigest()


def seal(record: Mapping[str, Any], pixels: NDArray[Any] | bytes) -> str:
    """Return the text of a record, with the hash of the pixels that it describes."""
    return json.dumps({**record, "pixels": hash_pixels(pixels)}, sort_keys=True)


def png_info(record: Mapping[str, Any], pixels: NDArray[Any]) -> PngInfo:
    """Return the texts of a PNG: `student`, the hashes of the students, and `record`."""
    info = PngInfo()
    info.add_text("student", " ".join(record["students"]))
    info.add_text(PNG_TEXT, seal(record, pixels))
    return info


def _read(path: Path) -> tuple[str, Any]:
    """Return the text of the record ("" without one) and the unread pixels."""
    name = path.name.lower()
    if name.endswith(".png"):
        with Image.open(path) as picture:
            picture.load()
            return str(picture.info.get(PNG_TEXT, "")), picture
    if name.endswith(".dcm"):
        dataset = pydicom.dcmread(path)
        block = dataset.private_block(PRIVATE_GROUP, CREATOR)
        return str(block[PRIVATE_ELEMENT].value), dataset.PixelData
    image: Any = nibabel.load(path)
    comments = [e.get_content() for e in image.header.extensions if e.get_code() == NIFTI_COMMENT]
    texts = [(c if isinstance(c, bytes) else c.encode()).rstrip(b"\0") for c in comments]
    return (texts[0].decode() if texts else ""), image.dataobj


def _read_record(path: Path) -> tuple[dict[str, Any], Any]:
    """Return the record of a file, empty if it has none, and its unread pixels."""
    try:
        text, pixels = _read(path)
        record = json.loads(text)
        if record["creator"] == CREATOR:
            return record, pixels
    except Exception:
        # Any file may lie there; parsers raise almost any exception.
        return {}, None
    return {}, None


def is_finished(path: Path, record: Mapping[str, Any]) -> bool:
    """Return whether `path` is a file with this record, whatever its pixels are now."""
    if not path.exists():
        return False
    found, _ = _read_record(path)
    found.pop("pixels", None)
    return found == record


def check_replaceable(path: Path) -> None:
    """Check that nobody's work is lost if the file `path` is replaced.

    Raises
    ------
    BadInput
        No student wrote the file, or its pixels were changed since: it may be the only copy of a
        mask that was drawn or corrected by hand.
    """
    if not path.exists():
        return
    record, pixels = _read_record(path)
    try:
        if pixels is not None and not isinstance(pixels, bytes):
            # As stored: a NIfTI file of ours has no slope.
            unscaled = getattr(pixels, "get_unscaled", None)
            pixels = np.asarray(unscaled() if unscaled else pixels)
        unchanged = bool(record) and hash_pixels(pixels) == record.get("pixels")
    except Exception:
        unchanged = False
    if not unchanged:
        raise BadInput(
            path,
            "file",
            found="changed since a student wrote it" if record else "a file that no student wrote",
            expected="no file, or one as a student wrote it (it is replaced)",
            mend="move the file, or name another folder in --output",
        )
