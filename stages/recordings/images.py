"""Which image a row of a recording is of."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.cli import BadInput, log
from stages.recordings.table import Table

# Of files in which experiments show images; a longer one before its own end.
ENDINGS = (
    ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff",
    ".gif", ".webp",
)  # fmt: skip
# How many names a message shows.
_SHOWN = 3


def base_name(name: str) -> str:
    """Name of a file without its folders, whichever way the slashes lean."""
    return name.strip().replace("\\", "/").rpartition("/")[2]


class Images:
    """The data set's images, by the names that a recording calls them.

    A name may have a folder and a known ending, of any case, or none; what is left is the sample
    id, as it is. Ids may contain dots, so an ending that is not known is part of the name.

    Parameters
    ----------
    sample_ids
        All ids of the data set; an image's position is its place among them.
    """

    def __init__(self, sample_ids: Collection[str]) -> None:
        self._ids = list(sample_ids)
        self._position = {name: place for place, name in enumerate(self._ids)}
        self._known: set[str] = set()
        self._foreign: dict[str, int] = {}

    def __len__(self) -> int:
        """How many images the data set has."""
        return len(self._ids)

    def _find(self, name: str) -> int:
        base = base_name(name)
        stems = (base[: -len(e)] for e in ENDINGS if base.lower().endswith(e))
        found = (self._position[stem] for stem in (base, *stems) if stem in self._position)
        return next(found, -1)

    def find(self, names: pd.Series) -> NDArray[np.int64]:
        """Find the position of each row's image, -1 where it is none of the data set's.

        Parameters
        ----------
        names
            (R,) categories of text; an empty one names no image.
        """
        categories = names.cat.categories
        position = np.array([self._find(name) for name in categories], np.int64)
        codes = names.cat.codes.to_numpy()
        counts = np.bincount(codes, minlength=len(categories))
        for name, place, count in zip(categories, position, counts, strict=True):
            if place >= 0:
                self._known.add(name)
            elif name.strip():
                self._foreign[name] = self._foreign.get(name, 0) + int(count)
        return position[codes] if len(position) else np.empty(0, np.int64)

    def check(self, table: Table, column: str) -> None:
        """Stop where no row was of an image of the data set; say how many were not, otherwise.

        Raises
        ------
        BadInput
            With names that were found and ids that would have been known.
        """
        if not self._known:
            raise BadInput(
                table.file,
                f"column {column}",
                found=sorted(self._foreign)[:_SHOWN],
                expected=f"names of images, such as {sorted(self._ids)[:_SHOWN]}",
                mend="give the data set its own recording, or name the images as their files are "
                "named",
            )
        if self._foreign:
            log.warning(
                "%s: %d rows are of images outside the data set, such as %s",
                table.file,
                sum(self._foreign.values()),
                min(self._foreign),
            )
