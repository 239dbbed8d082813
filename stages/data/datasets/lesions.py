"""Brain MR and lung CT volumes with lesion masks (NRRD): the axial slices that show a lesion."""

from pathlib import Path
from typing import Literal

import numpy as np

from stages.core.cli import Problems
from stages.data.datasets import RawSample, Record, volumes

# Whole volumes, so that no patient is in both splits; each split has both modalities.
SPLIT_OF_VOLUME: dict[str, Literal["train", "test"]] = {
    "brain1": "train",
    "lung2": "train",
    "brain2": "test",
    "lung1": "test",
}


def _fetch_again(path: Path) -> str:
    return f"fetch the volumes again: python -m stages.data.fetch_lesions --output {path.parent}"


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the slices that show a lesion. Ids are `<volume>_<slice>`; the volume is the subject."""
    records = []
    for volume, split in SPLIT_OF_VOLUME.items():
        image, label = root / f"{volume}_image.nrrd", root / f"{volume}_label.nrrd"
        with problems.collect():
            volumes.check_same_grid(image, label, _fetch_again(image))
            masks = volumes.read_label_mask(label, _fetch_again(label))
            records += [
                Record(f"{volume}_{number:03d}", volume, split, image, label, number)
                for number in np.flatnonzero(masks.any(axis=(1, 2))).tolist()
            ]
    return records


def read(record: Record) -> RawSample:
    """Read a slice (stored intensities; MR: arbitrary, CT: Hounsfield units) and its mask."""
    assert record.mask is not None and record.slice is not None
    mend = _fetch_again(record.image)
    _, y, x = volumes.read_grid(record.image, mend).spacing
    image = volumes.read_slice(record.image, record.slice, mend)
    mask = volumes.read_label_mask(record.mask, mend, record.labels)[record.slice]
    return RawSample(image, mask, (y, x))
