"""What a SEG or RTSTRUCT file says about images, before any mask is made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pydicom
from numpy.typing import NDArray

from stages.core.cli import BadInput, list_names
from stages.data.datasets.dicom import Header

# Largest number of segments in a message.
_MAX_NAMED = 12


class Item(Protocol):
    """A frame of a SEG, or a contour of an RTSTRUCT.

    Attributes
    ----------
    images
        SOPInstanceUIDs of the images that it names.
    """

    @property
    def images(self) -> frozenset[str]: ...

    def find_images(self, images: Iterable[Header]) -> list[Header]:
        """Return those of the images of its file to which it belongs.

        Raises
        ------
        BadInput
            It names an image whose geometry it does not have.
        """


@dataclass(frozen=True)
class Index:
    """The content of a file, without its masks.

    Attributes
    ----------
    segments
        Number → name of the segments of a SEG, or of the ROIs of an RTSTRUCT.
    series, images
        SeriesInstanceUIDs and SOPInstanceUIDs that the file refers to as a whole.
    frames_of_reference
        FrameOfReferenceUIDs of the file, one for each system of coordinates in it.
    items
        Its frames or contours, in the order of the file.
    """

    path: Path
    segments: dict[int, str]
    series: frozenset[str]
    images: frozenset[str]
    frames_of_reference: frozenset[str]
    items: Sequence[Item]


class OpenFile(Protocol):
    """A file whose masks can be made."""

    def draw(self, segment: int, items: Iterable[int], image: Header) -> NDArray[np.bool_]:
        """Return the (H, W) mask of a segment in an image, from these items that belong to it.

        Raises
        ------
        BadInput
            An item cannot be read, or cannot be a mask of this image.
        """


def name_segments(segments: Mapping[int, str] | Iterable[tuple[int, str]]) -> str:
    """Write numbers and names of segments, such as `1 'Prostate', 2 'Lesion'`."""
    pairs = segments.items() if isinstance(segments, Mapping) else segments
    return list_names([f"{number} {name!r}" for number, name in pairs], _MAX_NAMED) or "none"


def read_sequence(dataset: pydicom.Dataset, name: str) -> list[Any]:
    """Read the items of a sequence; none if it is absent or empty."""
    return list(dataset.get(name) or [])


def read_uid(dataset: pydicom.Dataset, name: str) -> str:
    """Read a UID; empty if it is absent."""
    return str(dataset.get(name) or "")


def check_plain(path: Path, dataset: pydicom.Dataset) -> None:
    """Check that no part of a file is encrypted.

    Raises
    ------
    BadInput
        A part is.
    """
    if "EncryptedAttributesSequence" in dataset:
        raise BadInput(
            path,
            "EncryptedAttributesSequence",
            found="encrypted attributes",
            expected="a file without encryption, whose references fit the images",
            mend="decrypt the file, or export it again without encryption",
        )
