"""Kvasir-SEG (Jha et al. 2020): the official download, or with the GazeMedSeg split files."""

from pathlib import Path

from stages.core.cli import Problems
from stages.data.datasets import Record, published

read = published.read


def index(root: Path, problems: Problems) -> list[Record]:
    """List the frames. The release names no patients: each frame is its own subject."""
    return published.index(root, problems, ("images", ".jpg"), ("masks", ".jpg"))
