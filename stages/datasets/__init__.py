"""Adapters: one module per layout of raw data, each with the same two functions.

`index(root)` lists the samples without reading pixels; `read(record)` reads one of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Record:
    """Where one sample is and whose it is, before any pixel is read."""

    sample_id: str
    subject_id: str
    split: Literal["train", "test"]
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

    def index(self, root: Path) -> list[Record]:
        """List the samples of the published training and test splits, in a fixed order."""

    def read(self, record: Record) -> Pixels:
        """Read one sample."""
