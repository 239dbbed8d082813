"""Kvasir-SEG (Jha et al. 2020): the official download, with or without GazeMedSeg's split files."""

from pathlib import Path

from stages.core.cli import Problems
from stages.data.datasets import Record, published

read = published.read


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the frames. The release does not name patients, so each frame is its own subject."""
    return published.list_records(root, problems, ("images", ".jpg"), ("masks", ".jpg"))
