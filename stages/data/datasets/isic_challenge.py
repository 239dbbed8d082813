"""ISIC 2018 task 1, the official download: each part has a folder of images and one of masks."""

from pathlib import Path

from stages.core.cli import BadInput, Problems, list_names
from stages.data.datasets import Record, Split, published

# Split → the folders of its images and of its masks, as in the archives.
PARTS: dict[Split, tuple[str, str]] = {
    "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
}
_IMAGE, _MASK = ".jpg", "_segmentation.png"

read = published.read


def _find_files(folder: Path, ending: str, problems: Problems) -> dict[str, Path]:
    files, others = published.find_files(folder, ending, problems)
    if others:
        problems.append(published.unexpected_files(folder, others, ending))
    return files


def _list_part(images: Path, masks: Path, split: Split, problems: Problems) -> list[Record]:
    image_files, mask_files = (
        _find_files(images, _IMAGE, problems),
        _find_files(masks, _MASK, problems),
    )
    for folder, unpaired in (
        (images, image_files.keys() - mask_files.keys()),
        (masks, mask_files.keys() - image_files.keys()),
    ):
        if unpaired:
            problems.append(
                BadInput(
                    folder,
                    "files",
                    found=f"{len(unpaired)} without a partner in the other folder of this part: "
                    f"{list_names(sorted(unpaired), published.MAX_NAMED)}",
                    expected=f"each image (<id>{_IMAGE}) with its mask (<id>{_MASK})",
                    mend="unpack both archives of this part again",
                )
            )
    paired = sorted(image_files.keys() & mask_files.keys())
    return [Record(name, name, split, image_files[name], mask_files[name]) for name in paired]


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the images of each part. No file names patients, so each image is its own subject."""
    records: list[Record] = []
    for split, (input_name, truth_name) in PARTS.items():
        images, masks = root / input_name, root / truth_name
        if split == "val" and not images.exists() and not masks.exists():
            continue
        with problems.collect():
            records += _list_part(images, masks, split, problems)
    return records
