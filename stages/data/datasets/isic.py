"""ISIC 2018 task 1 in the folder form of the published FGI release."""

from pathlib import Path

from stages.core.cli import Problems
from stages.data.datasets import Record, published

read = published.read


def index(root: Path, problems: Problems) -> list[Record]:
    """List the images. The release names no patients: each image is its own subject."""
    return published.index(root, problems, ("images", ".jpg"), ("labels", "_segmentation.png"))
