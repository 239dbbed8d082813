"""NCI-ISBI 2013 prostate MR, the preprocessed 2-D release: one DICOM file per axial slice."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from stages.cli import BadInput
from stages.datasets import Pixels, Record, published


def index(root: Path) -> list[Record]:
    """List the slices. An id is `<case>_<slice>`; the case is the subject."""
    return published.index(
        root,
        lambda i: f"images/{i}.dcm",
        lambda i: f"masks/{i}.png",
        lambda i: i.rpartition("_")[0] or i,
    )


def read(record: Record) -> Pixels:
    """Read a slice in stored intensities, its mask, and its pixel spacing."""
    try:
        dataset = pydicom.dcmread(record.image)
        # Rescale slope and intercept are absent from MR as a rule, and a z-score undoes them.
        image = dataset.pixel_array.astype(np.float32)
    except (InvalidDicomError, AttributeError, ValueError, RuntimeError, OSError) as error:
        raise BadInput(
            record.image,
            "file",
            found=error,
            expected="a readable DICOM slice",
            mend="replace the file",
        ) from error
    if image.ndim != 2:
        raise BadInput(
            record.image,
            "pixels",
            found=f"shape {image.shape}",
            expected="one grey slice",
            mend="store one slice per file",
        )
    # Absent or empty where unknown.
    y, x = map(float, dataset.get("PixelSpacing") or (np.nan, np.nan))
    mask = None if record.mask is None else published.open_mask(record.mask, image.shape)
    return Pixels(image[..., None], mask, (y, x))
