"""ISIC 2018 task 1, the official download: a folder of images and one of masks per part."""

from pathlib import Path

from stages.cli import BadInput, Problems
from stages.datasets import Record, Split, kvasir

# The folders of images and of masks, as the archives unpack.
PARTS: dict[Split, tuple[str, str]] = {
    "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
}
_MASK = "_segmentation.png"

read = kvasir.read


def _names(folder: Path, ending: str) -> set[str]:
    # Without hidden files, and without the texts that lie beside the images.
    found = (path.name for path in folder.glob(f"*{ending}") if path.name[0] != ".")
    return {name.removesuffix(ending) for name in found}


def _lone(path: Path, other: Path) -> BadInput:
    return BadInput(
        path,
        "file",
        found=f"no {other}",
        expected="an image and its mask",
        mend="unpack both archives of this part again",
    )


def index(root: Path, problems: Problems) -> list[Record]:
    """List the images of each part. No patients are named: each image is its own subject."""
    records = []
    for split, (input_name, truth_name) in PARTS.items():
        images, masks = root / input_name, root / truth_name
        if split == "val" and not images.is_dir() and not masks.is_dir():
            continue
        drawn, seen = _names(masks, _MASK), _names(images, ".jpg")
        for name in sorted(drawn | seen):
            image, mask = images / f"{name}.jpg", masks / f"{name}{_MASK}"
            if name not in drawn:
                problems.append(_lone(image, mask))
            elif name not in seen:
                problems.append(_lone(mask, image))
            else:
                records.append(Record(name, name, split, image, mask))
    return records
