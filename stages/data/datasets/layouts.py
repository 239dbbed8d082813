"""What must lie in the raw folder of each layout, and where to get it.

Light on purpose: the workflow asks before any job runs.
"""

from dataclasses import dataclass, field
from pathlib import Path

_SPLITS = {
    "train.txt": "ids of the training images, one a line",
    "test.txt": "ids of the test images, one a line",
}
_VALIDATION = {"val.txt": "ids of the validation images, one a line"}


@dataclass(frozen=True)
class Layout:
    """What a raw folder holds, each entry with what it is, and where to get it.

    Attributes
    ----------
    entries
        Required.
    splits
        Required where splits are given, welcome where they are drawn.
    optional
        Read where they are there.
    form
        Whose published loader an export is for; empty: the one that fits the kind of images.
    """

    entries: dict[str, str]
    source: str
    splits: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    form: str = ""


LAYOUTS = {
    "kvasir": Layout(
        {"images": "<id>.jpg, colonoscopy frames", "masks": "<id>.jpg, polyp masks"},
        "images and masks: Kvasir-SEG, https://datasets.simula.no/kvasir-seg/; split files and "
        "fixations: the GazeMedSeg release, https://github.com/med-air/GazeMedSeg; without split "
        "files, `prepare.split: drawn` draws the splits",
        _SPLITS,
        _VALIDATION,
    ),
    "nci_isbi": Layout(
        {
            "images": "<case>_<slice>.dcm, axial T2 slices",
            "masks": "<case>_<slice>.png, prostate masks",
        },
        "the preprocessed 2-D release and fixations: GazeMedSeg, "
        "https://github.com/med-air/GazeMedSeg; for the volumes of The Cancer Imaging Archive, "
        "`prepare.layout: nci_isbi_volumes`",
        _SPLITS,
        _VALIDATION,
    ),
    "nci_isbi_volumes": Layout(
        {
            "Training": "the download of the challenge's training part: DICOM series with "
            "metadata.csv, and NRRD masks",
            "Test": "the same of its test part",
        },
        "NCI-ISBI 2013 on The Cancer Imaging Archive, "
        "https://doi.org/10.7937/K9/TCIA.2015.zF0vlOPv, with the NBIA Data Retriever",
        optional={"Leaderboard": "the same of its leaderboard part, for validation"},
    ),
    "isic": Layout(
        {"images": "<id>.jpg, dermoscopy", "labels": "<id>_segmentation.png, lesion masks"},
        "ISIC 2018 task 1, https://challenge.isic-archive.com/data/#2018, in the folders of the "
        "FGI release; for the official folders, `prepare.layout: isic_challenge`",
        _SPLITS,
        _VALIDATION,
        form="isic",
    ),
    "isic_challenge": Layout(
        {
            "ISIC2018_Task1-2_Training_Input": "<id>.jpg, dermoscopy",
            "ISIC2018_Task1_Training_GroundTruth": "<id>_segmentation.png, lesion masks",
            "ISIC2018_Task1-2_Test_Input": "<id>.jpg, dermoscopy",
            "ISIC2018_Task1_Test_GroundTruth": "<id>_segmentation.png, lesion masks",
        },
        "ISIC 2018 task 1, https://challenge.isic-archive.com/data/#2018: unpack its archives "
        "side by side",
        optional={
            "ISIC2018_Task1-2_Validation_Input": "<id>.jpg, dermoscopy",
            "ISIC2018_Task1_Validation_GroundTruth": "<id>_segmentation.png, lesion masks",
        },
        form="isic",
    ),
    "folder": Layout(
        {"images": "<id>.png, .jpg, .tif, .bmp, .dcm, .nii or .nii.gz"},
        "your own; data/README.md says what the files may be; without split files, "
        "`prepare.split: drawn` draws the splits",
        _SPLITS,
        {"masks": "the same ids, in a format of the image's kind"} | _VALIDATION,
    ),
    "lesions": Layout(
        {
            f"{volume}_{part}.nrrd": f"{part} of the volume {volume}"
            for volume in ("brain1", "brain2", "lung1", "lung2")
            for part in ("image", "label")
        },
        "the source archive of pyradiomics 3.0.1 on the Python package index; "
        "`python -m stages.data.fetch_lesions` fetches it",
    ),
}


def _lack(path: Path) -> str | None:
    """Name an entry that is not there, or is not what it must be."""
    # What has no ending is a folder.
    if path.is_file() if path.suffix else path.is_dir():
        return None
    other = "a folder, not a file" if path.suffix else "a file, not a folder"
    return f"{path} ({other})" if path.exists() else str(path)


def _needed(layout: Layout, drawn: bool) -> dict[str, str]:
    return layout.entries if drawn else layout.entries | layout.splits


def missing(
    layout: str,
    root: Path,
    fixations: Path | None = None,
    drawn: bool = False,
    key: str = "root",
) -> str | None:
    """Say what the raw data lack and where to get them; None where they lack nothing.

    Parameters
    ----------
    layout
        A key of `LAYOUTS`.
    root
        The raw folder.
    fixations
        The recorded gaze, a file or a folder, where the data set has one.
    drawn
        Whether the splits are drawn, so that the raw folder need not state them.
    key
        The setting that names the raw folder.
    """
    needed = {root / name: meaning for name, meaning in _needed(LAYOUTS[layout], drawn).items()}
    lacking = [lack for path in needed if (lack := _lack(path))]
    if fixations is not None:
        needed[fixations] = "recorded gaze: the file, or the folder of maps, that `fixations` names"
        lacking += [] if fixations.exists() else [str(fixations)]
    if not lacking:
        return None
    head = f"missing: {', '.join(lacking)}"
    if not root.is_dir():
        head = f"the folder {root} is missing, which {key} names"
    if any(str(path).startswith("~") for path in (root, fixations)):
        head += "; ~ is not expanded: write the path in full"
    entries = "\n".join(f"    {path}: {meaning}" for path, meaning in needed.items())
    return f"{head}\n  there must be:\n{entries}\n  get it from: {LAYOUTS[layout].source}"


def present(layout: str, root: Path, drawn: bool = False) -> list[Path]:
    """List what is read of a raw folder: all that must be there, and what else is.

    Parameters
    ----------
    layout, root, drawn
        As in `missing`.
    """
    known = LAYOUTS[layout]
    needed = _needed(known, drawn)
    other = [name for name in (known.splits | known.optional) if name not in needed]
    return [root / name for name in needed] + [root / n for n in other if (root / n).exists()]
