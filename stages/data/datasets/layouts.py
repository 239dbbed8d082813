"""The files that the raw folder of each layout needs, and where to get them.

The workflow imports this module before any job runs, so it must import quickly.
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
    """The files and folders of a raw folder, each with its meaning, and where to get them.

    Attributes
    ----------
    required
        Name → meaning of the entries that must exist.
    source
        Where to get the data.
    split_files
        Required if the raw folder gives the splits; optional if they are drawn.
    optional
        Read if they exist.
    form
        The `--form` of `export_published`; empty: the form that fits the kind of images.
    """

    required: dict[str, str]
    source: str
    split_files: dict[str, str] = field(default_factory=dict)
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
            "masks": "<case>_<slice>.png, prostate masks; or DICOM SEG or RTSTRUCT files",
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
        "your own images; data/README.md lists the formats; without split files, "
        "`prepare.split: drawn` draws the splits",
        _SPLITS,
        {
            "masks": "the same ids, in a format of the same kind as the image; or DICOM SEG or "
            "RTSTRUCT files"
        }
        | _VALIDATION,
    ),
    "nnunet": Layout(
        {
            "dataset.json": "channel_names, labels and file_ending",
            "imagesTr": "<case>_0000.nii.gz, a file of each channel",
            "labelsTr": "<case>.nii.gz, masks",
        },
        "a raw data set of nnU-Net, "
        "https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md",
        optional={
            "imagesTs": "<case>_0000.nii.gz, images for test",
            "labelsTs": "<case>.nii.gz, their masks",
        }
        | _SPLITS
        | _VALIDATION,
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


def _describe_missing_entry(path: Path) -> str | None:
    """Name an entry that does not exist or is of the wrong type; None if it is as it must be."""
    # An entry without an ending is a folder.
    if path.is_file() if path.suffix else path.is_dir():
        return None
    other_names = "a folder, not a file" if path.suffix else "a file, not a folder"
    return f"{path} ({other_names})" if path.exists() else str(path)


def _required_entries(layout: Layout, drawn: bool) -> dict[str, str]:
    return layout.required if drawn else layout.required | layout.split_files


def describe_missing(
    layout: str,
    root: Path,
    fixations: Path | None = None,
    drawn: bool = False,
    key: str = "root",
) -> str | None:
    """Say which raw data are missing and where to get them; None if nothing is missing.

    Parameters
    ----------
    layout
        A key of `LAYOUTS`.
    root
        The raw folder.
    fixations
        File or folder of the recorded gaze, if the data set has one.
    drawn
        Whether the workflow draws the splits, so that the raw folder needs no split files.
    key
        The setting that names the raw folder.
    """
    meanings = {
        root / name: meaning for name, meaning in _required_entries(LAYOUTS[layout], drawn).items()
    }
    missing = [description for path in meanings if (description := _describe_missing_entry(path))]
    if fixations is not None:
        meanings[fixations] = (
            "recorded gaze: the file, or the folder of maps, that `fixations` names"
        )
        missing += [] if fixations.exists() else [str(fixations)]
    if not missing:
        return None
    summary = f"missing: {', '.join(missing)}"
    if not root.is_dir():
        summary = f"the folder {root} is missing; {key} names it"
    if any(str(path).startswith("~") for path in (root, fixations)):
        summary += "; ~ is not expanded: write the full path"
    required = "\n".join(f"    {path}: {meaning}" for path, meaning in meanings.items())
    return f"{summary}\n  expected:\n{required}\n  get it from: {LAYOUTS[layout].source}"


def list_inputs(layout: str, root: Path, drawn: bool = False) -> list[Path]:
    """List the entries that are read: all required ones, and the optional ones that exist.

    Parameters
    ----------
    layout, root, drawn
        As in `describe_missing`.
    """
    layout_entries = LAYOUTS[layout]
    meanings = _required_entries(layout_entries, drawn)
    other_names = [
        name
        for name in (layout_entries.split_files | layout_entries.optional)
        if name not in meanings
    ]
    return [root / name for name in meanings] + [
        root / n for n in other_names if (root / n).exists()
    ]
