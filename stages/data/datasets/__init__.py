"""Adapters: one module for each layout of raw data, all with the same two functions.

In: a raw folder. Out: a list of `Record`, one for each sample, and the `RawSample` of each record.
`list_records(root, problems)` lists the samples without their pixels, and `read(record)` reads one
sample. Start reading at `kvasir.py`; `published.py` has what several layouts share, `layouts.py`
the files that each layout needs.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import Problems
from stages.data.datasets.labels import Labels
from stages.data.datasets.segmentations import Part

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Record:
    """One sample before any pixel is read: its files, subject and split.

    Attributes
    ----------
    split
        The split that the raw folder states; None if it states none.
    image, mask
        The files. The mask is None if the sample has no mask, or has `parts`.
    slice
        Index of the slice, from 0, if the files hold volumes; else None.
    labels
        The labels of the mask that are foreground, if the settings choose; else None.
    parts
        What DICOM segmentations and structure sets state about the image, if the mask is in these.
    patient_id
        The PatientID of a DICOM file, or empty. It joins the images of a patient and is in no
        result, log or message.
    """

    sample_id: str
    subject_id: str
    split: Split | None
    image: Path
    mask: Path | None
    slice: int | None = None
    labels: Labels | None = None
    parts: tuple[Part, ...] = ()
    patient_id: str = field(default="", repr=False)


@dataclass(frozen=True)
class RawSample:
    """One sample at its original size.

    Attributes
    ----------
    image
        (H, W, 3) uint8, or (H, W, 1) float32 for MR and CT.
    mask
        (H, W) bool, or None if the sample has no mask.
    spacing_mm
        Size of a pixel along y and x, mm; NaN if unknown.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_] | None
    spacing_mm: tuple[float, float]


class Adapter(Protocol):
    """The functions that the module of a layout provides."""

    def list_records(self, root: Path, problems: Problems, **options: Any) -> list[Record]:
        """List the samples in a fixed order; `problems` receives those that cannot be read.

        `options` are those of `PrepareSettings.layout_options`, for the layouts that have some.

        Raises
        ------
        BadInput
            A folder of samples does not exist, or is a file.
        """

    def read(self, record: Record) -> RawSample:
        """Read one sample.

        Raises
        ------
        BadInput
            A file cannot be read, or the mask does not fit the image.
        """


def load_adapter(layout: str) -> Adapter:
    """Import the module that reads the layout of this name."""
    return cast(Adapter, importlib.import_module(f"stages.data.datasets.{layout}"))
