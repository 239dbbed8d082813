"""Adapters: one module per layout of raw data, each with the same two functions.

`index(root, problems)` lists the samples without reading pixels; `read(record)` reads one of them.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import Problems

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Record:
    """Where one sample is and whose it is, before any pixel is read.

    Attributes
    ----------
    split
        As the raw folder states it; None where it states none.
    mask
        None where nobody drew one.
    slice
        Which slice of the files it is, where they hold volumes.
    """

    sample_id: str
    subject_id: str
    split: Split | None
    image: Path
    mask: Path | None
    slice: int | None = None


@dataclass(frozen=True)
class Pixels:
    """One sample at its original size.

    Attributes
    ----------
    image
        (H, W, 3) uint8, or (H, W, 1) float32 for MR and CT.
    mask
        (H, W) bool, or None where nobody drew one.
    spacing_mm
        Size of a pixel along y and x, mm; NaN where unknown.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_] | None
    spacing_mm: tuple[float, float]


class Adapter(Protocol):
    """What a layout's module provides."""

    def index(self, root: Path, problems: Problems) -> list[Record]:
        """List the samples in a fixed order, those that cannot be read left to `problems`.

        Raises
        ------
        BadInput
            A folder that holds the samples is absent, or is a file.
        """

    def read(self, record: Record) -> Pixels:
        """Read one sample.

        Raises
        ------
        BadInput
            A file cannot be read, or image and mask do not belong together.
        """


def adapter(layout: str) -> Adapter:
    """Return the module that reads the layout of this name."""
    return cast(Adapter, importlib.import_module(f"stages.data.datasets.{layout}"))
