"""Kvasir-SEG (Jha et al. 2020): the official download, or with the GazeMedSeg split files."""

from pathlib import Path

from stages.cli import Problems
from stages.datasets import Pixels, Record, files, published


def index(root: Path, problems: Problems) -> list[Record]:
    """List the frames. The release names no patients: each frame is its own subject."""
    return published.index(root, problems, ("images", ".jpg"), ("masks", ".jpg"))


def read(record: Record) -> Pixels:
    """Read a frame and its mask."""
    image = files.read_image(record.image)
    mask = None if record.mask is None else files.read_mask(record.mask, image.shape[:2])
    return Pixels(image, mask, (float("nan"), float("nan")))
