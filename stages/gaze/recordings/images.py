"""Match the names and sizes of images in a recording with the images of the data set."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, list_names, log
from stages.data.datasets.listing import normalise_id
from stages.gaze.recordings.table import Table

# Suffixes of image files; a long suffix comes before its own end (.nii.gz before .nii).
IMAGE_SUFFIXES = (
    ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff",
    ".gif", ".webp",
)  # fmt: skip
# Columns of the GazeMedSeg tables with the height and width of the shown image, px.
SIZE_COLUMNS = ("IMAGE_HEIGHT", "IMAGE_WIDTH")
# Largest number of names in a message.
_MAX_SHOWN = 3


def split_folder(name: str) -> tuple[str, str]:
    """Split a path into its folder and its base name; separators are slashes or backslashes."""
    folders, _, base = normalise_id(name).strip().replace("\\", "/").rpartition("/")
    return folders, base


def possible_ids(base: str) -> Iterator[str]:
    """Yield the sample ids that a base name may mean: the name, and the name without suffix."""
    yield base
    yield from (base[: -len(ending)] for ending in IMAGE_SUFFIXES if base.lower().endswith(ending))


class ImageIndex:
    """Finds the data set's images by their names in a recording.

    A name is a sample id, with or without a folder and a known suffix in upper or lower case. Ids
    may contain dots, so an unknown suffix is part of the id.

    Parameters
    ----------
    sizes
        Sample id → height and width of the image, px, for all images of the data set. The position
        of an image is its index in this order.

    Attributes
    ----------
    sizes
        (N, 2) int64 height and width of each image, px.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        self.sizes = np.reshape(list(sizes.values()), (-1, 2)).astype(np.int64)
        self._ids = list(sizes)
        self._position_by_id = {name: position for position, name in enumerate(self._ids)}
        # Position → folder → a name in the recording with this folder.
        self._folders: dict[int, dict[str, str]] = {}
        # Names that match no image → number of rows.
        self._unknown: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of images in the data set."""
        return len(self._ids)

    def __getitem__(self, position: int) -> str:
        """Return the id of the image at a position."""
        return self._ids[position]

    def _find_position(self, base: str) -> int:
        matches = (
            self._position_by_id[name]
            for name in possible_ids(base)
            if name in self._position_by_id
        )
        return next(matches, -1)

    def find_positions(self, names: pd.Series) -> NDArray[np.int64]:
        """Return (R,) the position of each row's image, -1 if the data set has no such image.

        Parameters
        ----------
        names
            (R,) categorical text; an empty text names no image.
        """
        categories = names.cat.categories
        parts = [split_folder(name) for name in categories]
        positions = np.array([self._find_position(base) for _, base in parts], np.int64)
        codes = names.cat.codes.to_numpy()
        counts = np.bincount(codes, minlength=len(categories))
        for name, (folder, _), position, count in zip(
            categories, parts, positions.tolist(), counts.tolist(), strict=True
        ):
            if position >= 0:
                self._folders.setdefault(position, {}).setdefault(folder, name)
            elif name.strip():
                self._unknown[name] = self._unknown.get(name, 0) + count
        return positions[codes] if len(positions) else np.empty(0, np.int64)

    @property
    def unknown(self) -> list[str]:
        """Names in the recording that mean no image of the data set, the most frequent first."""
        return sorted(self._unknown, key=lambda name: (-self._unknown[name], name))

    def has(self, name: str) -> bool:
        """Return whether a name in a recording means an image of the data set."""
        return self._find_position(split_folder(name)[1]) >= 0

    def repeat_position(self, name: str, rows: int) -> NDArray[np.int64]:
        """Return (rows,) the position of one image that all rows belong to, as `find_positions`."""
        return self.find_positions(pd.Series(pd.Categorical([name] * rows)))

    def check_matches(self, table: Table, field: str) -> None:
        """Check that the names belong to the data set's images; log the number of unknown rows.

        Raises
        ------
        BadInput
            No row names an image of the data set; the message shows names that were found and ids
            that were expected. Or names with different folders match one image; a name without a
            folder fits any folder.
        """
        if not self._folders:
            mend = "export the recording again: this file names no image"
            if self._unknown:
                mend = (
                    "use the recording of this data set, or name the images in it like their files"
                )
            raise BadInput(
                table.file,
                field,
                found=sorted(self._unknown)[:_MAX_SHOWN] or "no row that names an image",
                expected=f"names of images, such as {sorted(self._ids)[:_MAX_SHOWN]}",
                mend=mend,
            )
        if self._unknown:
            log.warning(
                "%s: %d rows belong to no readable image of the data set, such as %s",
                table.file,
                sum(self._unknown.values()),
                min(self._unknown),
            )
        with_folder = {
            position: [name for folder, name in names.items() if folder]
            for position, names in sorted(self._folders.items())
        }
        if ambiguous := {p: names for p, names in with_folder.items() if len(names) > 1}:
            raise BadInput(
                table.file,
                field,
                found="; ".join(
                    f"{list_names([repr(name) for name in names], _MAX_SHOWN)} for the sample "
                    f"{self._ids[position]!r}"
                    for position, names in list(ambiguous.items())[:_MAX_SHOWN]
                )
                + (
                    f"; and {len(ambiguous) - _MAX_SHOWN} more samples"
                    if len(ambiguous) > _MAX_SHOWN
                    else ""
                ),
                expected="one folder per sample: files in two folders may be different images",
                mend="delete the rows of the other images; if the images are the same, remove the "
                "folders from their names",
            )


class _ShownSize(NamedTuple):
    line: int
    size: tuple[float, float]


class ShownSizes:
    """Collects the images that were shown in another size, each with its first line."""

    def __init__(self, images: ImageIndex) -> None:
        self._images = images
        self._wrong: dict[int, _ShownSize] = {}

    def add(self, sample: NDArray[np.int64], shown: pd.DataFrame) -> None:
        """Add rows.

        Parameters
        ----------
        sample
            (R,) position of each row's image.
        shown
            (R, 2) height and width, px; NaN if unknown. The index is the line.
        """
        size = shown.to_numpy()
        # A missing size is NaN, which never compares as different.
        wrong = (np.abs(size - self._images.sizes[sample]) > 1).any(axis=1)
        for row in np.flatnonzero(wrong).tolist():
            height, width = size[row].tolist()
            self._wrong.setdefault(
                int(sample[row]), _ShownSize(int(shown.index[row]), (height, width))
            )

    def check(self, table: Table) -> None:
        """Check the sizes.

        Raises
        ------
        BadInput
            The size of an image differs from the data set's by more than a pixel.
        """
        if self._wrong:
            position, (line, (height, width)) = next(iter(self._wrong.items()))
            others = len(self._wrong) - 1
            more = f"; {others} more with another size" if others else ""
            raise BadInput(
                table.file,
                f"columns {' and '.join(SIZE_COLUMNS)}, line {line}",
                found=f"{height:g} and {width:g} for the sample {self._images[position]!r}{more}",
                expected="{} and {}, the size of its image".format(*self._images.sizes[position]),
                mend="use the images that were shown; if the images were only scaled afterwards, "
                "delete the two columns",
            )
