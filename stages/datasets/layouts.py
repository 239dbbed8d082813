"""What must lie in the raw folder of each layout, and where to get it.

Light on purpose: the workflow asks before any job runs.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The required entries of a raw folder, each with what it is, and its source."""

    entries: dict[str, str]
    source: str


_SPLITS = {
    "train.txt": "ids of the training images, one a line",
    "test.txt": "ids of the test images, one a line",
}

LAYOUTS = {
    "kvasir": Layout(
        {"images": "<id>.jpg, colonoscopy frames", "masks": "<id>.jpg, polyp masks", **_SPLITS},
        "images and masks: Kvasir-SEG, https://datasets.simula.no/kvasir-seg/; split files and "
        "fixations: the GazeMedSeg release, https://github.com/med-air/GazeMedSeg",
    ),
    "nci_isbi": Layout(
        {
            "images": "<case>_<slice>.dcm, axial T2 slices",
            "masks": "<case>_<slice>.png, prostate masks",
            **_SPLITS,
        },
        "the preprocessed 2-D release and fixations: GazeMedSeg, "
        "https://github.com/med-air/GazeMedSeg; the volumes: NCI-ISBI 2013 on The Cancer "
        "Imaging Archive, https://doi.org/10.7937/K9/TCIA.2015.zF0vlOPv",
    ),
    "isic": Layout(
        {
            "images": "<id>.jpg, dermoscopy",
            "labels": "<id>_segmentation.png, lesion masks",
            **_SPLITS,
        },
        "ISIC 2018 task 1, https://challenge.isic-archive.com/data/#2018; rename its masks and "
        "write the two split files",
    ),
    "lesions": Layout(
        {
            f"{volume}_{part}.nrrd": f"{part} of the volume {volume}"
            for volume in ("brain1", "brain2", "lung1", "lung2")
            for part in ("image", "label")
        },
        "the source archive of pyradiomics 3.0.1 on the Python package index; "
        "`python -m stages.fetch_lesions` fetches it",
    ),
}


def missing(layout: str, root: Path, fixations: Path | None = None) -> str | None:
    """Say what the raw data lack and where to get them; None where they lack nothing.

    Parameters
    ----------
    layout
        A key of `LAYOUTS`.
    root
        The raw folder.
    fixations
        The fixation table, where the data set has one.
    """
    needed = {root / name: meaning for name, meaning in LAYOUTS[layout].entries.items()}
    if fixations is not None:
        needed[fixations] = "fixation table, one row per fixation"
    absent = [str(path) for path in needed if not path.exists()]
    if not absent:
        return None
    head = f"missing: {', '.join(absent)}" if root.is_dir() else f"the folder {root} is missing"
    entries = "\n".join(f"    {path}: {meaning}" for path, meaning in needed.items())
    return f"{head}\n  there must be:\n{entries}\n  get it from: {LAYOUTS[layout].source}"
