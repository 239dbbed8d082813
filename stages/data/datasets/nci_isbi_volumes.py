"""NCI-ISBI 2013 prostate MR as The Cancer Imaging Archive hands it out: series and NRRD masks.

Slices of image and mask belong together by where they lie in the patient, not by name or number.
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.core.contents import is_hidden
from stages.data.datasets import Pixels, Record, Split, dicom, files, listing, volumes
from stages.data.datasets.dicom import Plane

PARTS: dict[Split, str] = {"train": "Training", "val": "Leaderboard", "test": "Test"}
_COLUMNS = ("Subject ID", "Modality", "Number of Images", "File Location")
_AGAIN = "download the series again"
_MASK_AGAIN = "download the mask again"
# Of a slice's distance to the next: how far it may differ within a series.
_UNEVEN = 0.01
# Slices nearer to each other lie in one place, mm.
_NEAR = 0.01
# Of a mask's voxel: how far from it the image's pixel may lie.
_OFF = 0.25


def _visible(part: Path, pattern: str) -> list[Path]:
    return sorted(p for p in part.rglob(pattern) if p.is_file() and not is_hidden(p.name))


def _read_table(part: Path) -> tuple[Path, list[dict[str, str]]]:
    """Find the part's metadata.csv and read its rows of MR series."""
    tables = _visible(part, "metadata.csv")
    if len(tables) != 1:
        raise BadInput(
            part,
            "metadata.csv",
            found=", ".join(map(str, tables)) or "none",
            expected="one, as the NBIA Data Retriever writes it beside the series",
            mend="download this part of the challenge again, all of it at once",
        )
    (table,) = tables
    with files.reading(table, "a readable CSV table"), table.open(encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, restval="")
        rows = list(reader)
    columns = reader.fieldnames or ()
    if lacking := [name for name in _COLUMNS if name not in columns]:
        raise BadInput(
            table,
            "columns",
            found=", ".join(columns) or "none",
            expected=f"also {', '.join(lacking)}",
            mend="take the metadata.csv that the NBIA Data Retriever writes",
        )
    series = [row for row in rows if row["Modality"] == "MR"]
    return table, [row | {"Subject ID": listing.as_id(row["Subject ID"])} for row in series]


def _slices(table: Path, row: dict[str, str]) -> list[Path]:
    """List the files of the series in a row of the table."""
    folder = table.parent / row["File Location"].replace("\\", "/")
    if not folder.resolve().is_relative_to(table.parent.resolve()) or not folder.is_dir():
        raise BadInput(
            table,
            f"subject {row['Subject ID']}, File Location",
            found=row["File Location"],
            expected=f"a folder under {table.parent}",
            mend=_AGAIN,
        )
    slices = _visible(folder, "*.dcm")
    if not slices or str(len(slices)) != row["Number of Images"].strip():
        raise BadInput(
            folder,
            "DICOM files",
            found=len(slices),
            expected=f"{row['Number of Images']}, the Number of Images of {table}",
            mend=_AGAIN,
        )
    return slices


def in_order(folder: Path, planes: list[Plane]) -> list[Plane]:
    """Sort the slices of a series by where they lie, along their common normal.

    Raises
    ------
    BadInput
        The slices are not alike in size, spacing and orientation, two have one place or one number,
        or their distances differ by more than 1 %.
    """
    first = planes[0]
    for plane in planes:
        steps = np.array([plane.down - first.down, plane.right - first.right])
        if plane.shape != first.shape or abs(steps).max() > 1e-3 * np.linalg.norm(first.down):
            raise BadInput(
                plane.path,
                "slice",
                found=_describe(plane),
                expected=f"{_describe(first)}, as in {first.path.name}",
                mend=_AGAIN,
            )
    numbers = Counter(plane.number for plane in planes)
    if twice := [number for number, count in numbers.items() if count > 1]:
        raise BadInput(
            folder, "InstanceNumber", found=f"{twice} twice", expected="each once", mend=_AGAIN
        )
    places = np.array([plane.corner @ first.normal for plane in planes])
    order = np.argsort(places)
    gaps = np.diff(places[order])
    if not gaps.size:
        return planes
    usual = float(np.median(gaps))
    if usual < _NEAR or abs(gaps - usual).max() > _UNEVEN * usual:
        even = f"{usual:.4g} mm everywhere, within 1 %"
        raise BadInput(
            folder,
            "distances of slices",
            found=f"{gaps.min():.4g} to {gaps.max():.4g} mm",
            expected="above 0 mm" if usual < _NEAR else even,
            mend=f"{_AGAIN}: one is missing, or is there twice",
        )
    return [planes[i] for i in order.tolist()]


def _describe(plane: Plane) -> str:
    return f"{plane.shape} pixels, steps {plane.down.round(4)} and {plane.right.round(4)} mm"


def on_plane(mask: Path, plane: Plane) -> NDArray[np.bool_] | None:
    """Cut the prostate out of an NRRD mask where a slice lies.

    Returns
    -------
    (H, W) bool in the slice's own rows and columns; None where the mask does not reach.

    Raises
    ------
    BadInput
        The mask cannot be read, or its voxels do not lie on the slice's pixels.
    """
    grid = volumes.read_grid(mask, _MASK_AGAIN)
    height, width = plane.shape
    steps = np.stack([np.zeros(3), plane.down * (height - 1), plane.right * (width - 1)])
    # Three corners of the slice (first, last of the column, last of the row) in the mask's voxels.
    corners = (plane.corner + steps - grid.to_mm[:3, 3]) @ np.linalg.inv(grid.to_mm[:3, :3]).T
    down, right = abs(corners[1:] - corners[0]).argmax(axis=1).tolist()
    expected = np.tile(np.rint(corners[0]), (3, 1))
    backwards = []
    for corner, axis in ((1, down), (2, right)):
        last = grid.shape[axis] - 1
        backwards.append(bool(corners[corner, axis] < corners[0, axis]))
        expected[:, axis] = last if backwards[-1] else 0
        expected[corner, axis] = 0 if backwards[-1] else last
    off = abs(corners - expected).max()
    if down == right or (grid.shape[down], grid.shape[right]) != plane.shape or off > _OFF:
        raise BadInput(
            mask,
            "grid",
            found=f"{grid}, up to {off:.2f} voxels away from the pixels of {plane.path}",
            expected=f"{plane.shape} (height, width), in the place of the slice's pixels",
            mend=f"{_MASK_AGAIN}, or {_AGAIN}: they do not belong together",
        )
    across = 3 - down - right
    number = int(expected[0, across])
    if not 0 <= number < grid.shape[across]:
        return None
    # Peripheral zone (1) and central gland (2) are the prostate.
    inside = volumes.read_labelled(mask, _MASK_AGAIN).take(number, axis=across)
    if down > right:
        inside = inside.T
    return np.flip(inside, tuple(i for i in (0, 1) if backwards[i]))


def _masks(part: Path, subjects: set[str], problems: Problems) -> dict[str, Path]:
    """Find each subject's mask: named as the subject, alone or with `_` and more behind it."""
    found: dict[str, list[Path]] = {subject: [] for subject in subjects}
    for path in _visible(part, "*.nrrd"):
        name = listing.as_id(path.stem)
        owners = [s for s in subjects if name == s or name.startswith(f"{s}_")]
        if owners:
            found[max(owners, key=len)].append(path)
            continue
        problems.append(
            BadInput(
                path,
                "mask",
                found="no MR series of its name in metadata.csv",
                expected="<Subject ID>.nrrd, or with _ and more behind the id",
                mend=f"{_AGAIN}, or take the mask away",
            )
        )
    for subject, paths in sorted(found.items()):
        if len(paths) != 1:
            problems.append(
                BadInput(
                    part,
                    f"mask of {subject}",
                    found=", ".join(map(str, paths)) or "none",
                    expected="one NRRD file",
                    mend="take the others away" if paths else "download the part's masks",
                )
            )
    return {subject: paths[0] for subject, paths in found.items() if len(paths) == 1}


def _case(
    subject: str, split: Split, slices: list[Path], mask: Path, problems: Problems
) -> list[Record]:
    """List a case's slices that show prostate, in their order in the patient."""
    planes = []
    for path in slices:
        with problems.collect():
            planes.append(dicom.read_plane(path))
    if len(planes) < len(slices):
        return []
    records, seen = [], 0
    for plane in in_order(slices[0].parent, planes):
        inside = on_plane(mask, plane)
        if inside is not None and inside.any():
            seen += int(inside.sum())
            sample_id = f"{subject}_{plane.number}"
            records.append(Record(sample_id, subject, split, plane.path, mask))
    drawn = int(volumes.read_labelled(mask, _MASK_AGAIN).sum())
    if seen != drawn or drawn == 0:
        raise BadInput(
            mask,
            "prostate",
            found=f"{drawn} voxels, {seen} of them on slices of {slices[0].parent}",
            expected="some, and all of them on slices",
            mend=f"{_MASK_AGAIN}, or {_AGAIN}: one of the two is incomplete",
        )
    return records


def _part(part: Path, split: Split, problems: Problems) -> list[Record]:
    listing.check_folder(part)
    table, rows = _read_table(part)
    series = Counter(row["Subject ID"] for row in rows)
    for subject in sorted(subject for subject, count in series.items() if count > 1):
        problems.append(
            BadInput(
                table,
                f"subject {subject}",
                found=f"{series[subject]} MR series",
                expected="one, on which its mask was drawn",
                mend="delete the rows of the others",
            )
        )
    masks = _masks(part, {*series}, problems)
    records = []
    for row in sorted(rows, key=lambda row: row["Subject ID"]):
        subject = row["Subject ID"]
        with problems.collect():
            if series[subject] == 1 and (slices := _slices(table, row)) and subject in masks:
                records += _case(subject, split, slices, masks[subject], problems)
    return records


def index(root: Path, problems: Problems) -> list[Record]:
    """List the slices that show prostate. An id is `<case>_<InstanceNumber>`, the case the subject.

    These are the slices, and the names, of the preprocessed 2-D release and its fixations, which
    leave out ProstateDx-01-0055: its mask has fewer slices than its series.
    """
    records = []
    for split, name in PARTS.items():
        if split == "val" and not (root / name).exists():
            continue
        with problems.collect():
            records += _part(root / name, split, problems)
    return records


def read(record: Record) -> Pixels:
    """Read a slice, its pixel spacing, and the prostate on it."""
    assert record.mask is not None
    image, spacing = dicom.read(record.image)
    return Pixels(image, on_plane(record.mask, dicom.read_plane(record.image)), spacing)
