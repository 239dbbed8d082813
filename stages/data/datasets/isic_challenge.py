"""ISIC 2018 task 1, the official download: a folder of images and one of masks per part."""

from pathlib import Path

from stages.core.cli import BadInput, Problems, name_some
from stages.data.datasets import Record, Split, published

# The folders of images and of masks, as the archives unpack.
PARTS: dict[Split, tuple[str, str]] = {
    "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
}
_IMAGE, _MASK = ".jpg", "_segmentation.png"

read = published.read


def _find(folder: Path, ending: str, problems: Problems) -> dict[str, Path]:
    found, others = published.find(folder, ending, problems)
    if others:
        problems.append(published.strange(folder, others, ending))
    return found


def _part(images: Path, masks: Path, split: Split, problems: Problems) -> list[Record]:
    seen, drawn = _find(images, _IMAGE, problems), _find(masks, _MASK, problems)
    for folder, lone in ((images, seen.keys() - drawn.keys()), (masks, drawn.keys() - seen.keys())):
        if lone:
            problems.append(
                BadInput(
                    folder,
                    "files",
                    found=f"{len(lone)} without their like in the other folder of the part: "
                    f"{name_some(sorted(lone), published.NAMED)}",
                    expected=f"each image (<id>{_IMAGE}) with its mask (<id>{_MASK})",
                    mend="unpack both archives of this part again",
                )
            )
    both = sorted(seen.keys() & drawn.keys())
    return [Record(name, name, split, seen[name], drawn[name]) for name in both]


def index(root: Path, problems: Problems) -> list[Record]:
    """List the images of each part. No patients are named: each image is its own subject."""
    records: list[Record] = []
    for split, (input_name, truth_name) in PARTS.items():
        images, masks = root / input_name, root / truth_name
        if split == "val" and not images.exists() and not masks.exists():
            continue
        with problems.collect():
            records += _part(images, masks, split, problems)
    return records
