"""Which image a row of a recording is of."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core.cli import BadInput, log, name_some
from stages.data.datasets.listing import as_id
from stages.gaze.recordings.table import Table

# Of files in which experiments show images; a longer one before its own end.
ENDINGS = (
    ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff",
    ".gif", ".webp",
)  # fmt: skip
# How many names a message shows.
_SHOWN = 3


def split_name(name: str) -> tuple[str, str]:
    """Part the name of a file into its folders and its own, whichever way the slashes lean."""
    folders, _, base = as_id(name).strip().replace("\\", "/").rpartition("/")
    return folders, base


def stems(base: str) -> Iterator[str]:
    """Yield what the id may be that a file's own name stands for: itself, or without its ending."""
    yield base
    yield from (base[: -len(ending)] for ending in ENDINGS if base.lower().endswith(ending))


class Images:
    """The data set's images, by the names that a recording calls them.

    A name may have a folder and a known ending, of any case, or none; what is left is the sample
    id, as it is. Ids may contain dots, so an ending that is not known is part of the name.

    Parameters
    ----------
    sizes
        All ids of the data set → height and width of the image, px; an image's position is its
        place among them.

    Attributes
    ----------
    size
        (N, 2) int64 height and width by position, px.
    """

    def __init__(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        self.size = np.reshape(list(sizes.values()), (-1, 2)).astype(np.int64)
        self._ids = list(sizes)
        self._position = {name: place for place, name in enumerate(self._ids)}
        # Of each image that rows are of: its folders, and a name that puts it there.
        self._folders: dict[int, dict[str, str]] = {}
        self._foreign: dict[str, int] = {}

    def __len__(self) -> int:
        """How many images the data set has."""
        return len(self._ids)

    def __getitem__(self, place: int) -> str:
        """Id of the image at a position."""
        return self._ids[place]

    def _find(self, base: str) -> int:
        found = (self._position[stem] for stem in stems(base) if stem in self._position)
        return next(found, -1)

    def find(self, names: pd.Series) -> NDArray[np.int64]:
        """Find the position of each row's image, -1 where it is none of the data set's.

        Parameters
        ----------
        names
            (R,) categories of text; an empty one names no image.
        """
        categories = names.cat.categories
        parts = [split_name(name) for name in categories]
        position = np.array([self._find(base) for _, base in parts], np.int64)
        codes = names.cat.codes.to_numpy()
        counts = np.bincount(codes, minlength=len(categories))
        for name, (folder, _), place, count in zip(
            categories, parts, position.tolist(), counts.tolist(), strict=True
        ):
            if place >= 0:
                self._folders.setdefault(place, {}).setdefault(folder, name)
            elif name.strip():
                self._foreign[name] = self._foreign.get(name, 0) + count
        return position[codes] if len(position) else np.empty(0, np.int64)

    def check(self, table: Table, column: str) -> None:
        """Stop where the rows cannot be of the data set's images; count those of others.

        Raises
        ------
        BadInput
            No row is of an image of the data set, with names that were found and ids that would
            have been known. Or two names that lie in different folders are one image's; a name
            without a folder may be any of them.
        """
        if not self._folders:
            mend = "export the recording again: this file holds none"
            if self._foreign:
                mend = (
                    "give the data set its own recording, or name the images as their files are "
                    "named"
                )
            raise BadInput(
                table.file,
                f"column {column}",
                found=sorted(self._foreign)[:_SHOWN] or "no row that names an image",
                expected=f"names of images, such as {sorted(self._ids)[:_SHOWN]}",
                mend=mend,
            )
        if self._foreign:
            log.warning(
                "%s: %d rows are of no readable image of the data set, such as %s",
                table.file,
                sum(self._foreign.values()),
                min(self._foreign),
            )
        placed = {
            place: [name for folder, name in names.items() if folder]
            for place, names in sorted(self._folders.items())
        }
        if twice := {place: names for place, names in placed.items() if len(names) > 1}:
            raise BadInput(
                table.file,
                f"column {column}",
                found="; ".join(
                    f"{name_some([repr(name) for name in names], _SHOWN)} for the sample "
                    f"{self._ids[place]!r}"
                    for place, names in list(twice.items())[:_SHOWN]
                )
                + (f"; and {len(twice) - _SHOWN} more samples" if len(twice) > _SHOWN else ""),
                expected="pictures of one folder: those of two may be different ones",
                mend="delete the rows of the other pictures; where they are the same, take the "
                "folders off their names",
            )
