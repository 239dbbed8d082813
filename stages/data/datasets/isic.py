"""ISIC 2018 task 1, in the folders of the published FGI release."""

from pathlib import Path

from stages.core.cli import Problems
from stages.data.datasets import Record, published

read = published.read


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the images. The release does not name patients, so each image is its own subject."""
    return published.list_records(
        root, problems, ("images", ".jpg"), ("labels", "_segmentation.png")
    )
