"""Kvasir-SEG (Jha et al. 2020) with the GazeMedSeg split files."""

from pathlib import Path

from stages.datasets import Pixels, Record, published


def index(root: Path) -> list[Record]:
    """List the frames. The release names no patients: each frame is its own subject."""
    return published.index(root, lambda i: f"images/{i}.jpg", lambda i: f"masks/{i}.jpg")


def read(record: Record) -> Pixels:
    """Read a frame, RGB, and its JPEG mask."""
    image = published.open_image(record.image, "RGB")
    size = image.shape[:2]
    mask = None if record.mask is None else published.open_mask(record.mask, size)
    return Pixels(image, mask, (float("nan"), float("nan")))
