"""NCI-ISBI 2013 prostate MR, the preprocessed 2-D release: one DICOM file per axial slice."""

from pathlib import Path

from stages.cli import Problems
from stages.datasets import Pixels, Record, dicom, files, published


def index(root: Path, problems: Problems) -> list[Record]:
    """List the slices. An id is `<case>_<slice>`; the case is the subject."""
    return published.index(
        root, problems, "images/{}.dcm", "masks/{}.png", lambda i: i.rpartition("_")[0] or i
    )


def read(record: Record) -> Pixels:
    """Read a slice, its mask, and its pixel spacing."""
    image, spacing = dicom.read(record.image)
    mask = None if record.mask is None else files.read_mask(record.mask, image.shape[:2])
    return Pixels(image, mask, spacing)
