"""Masks of many images in one DICOM file: segmentations (SEG) and contours (RTSTRUCT).

In: such files and the headers of the images. Out: which frames or contours belong to which image
(`matching.join`), and the mask of an image (`matching.read_mask`). Start reading at
`matching.py`; `seg.py` and `rtstruct.py` each read one kind of file, `polygons.py` fills contours.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """What one file states about one image.

    Attributes
    ----------
    path
        The SEG or RTSTRUCT file.
    segments
        Number and name of all segments of the SEG, or of all ROIs of the RTSTRUCT.
    items
        The frames of the SEG, or the contours of the RTSTRUCT, that belong to the image, as indices
        from 0. Empty: the file says that no segment is in the image.
    """

    path: Path
    segments: tuple[tuple[int, str], ...]
    items: tuple[int, ...]
