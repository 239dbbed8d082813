"""NCI-ISBI 2013 prostate MR, the download of The Cancer Imaging Archive: series and NRRD masks.

The position in the patient decides which slices of image and mask belong together, not names or
numbers.
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.cli import BadInput, Problems
from stages.core.contents import is_hidden
from stages.data.datasets import RawSample, Record, Split, dicom, files, listing, volumes
from stages.data.datasets.dicom import SliceGeometry
from stages.data.datasets.labels import Labels

PARTS: dict[Split, str] = {"train": "Training", "val": "Leaderboard", "test": "Test"}
_COLUMNS = ("Subject ID", "Modality", "Number of Images", "File Location")
_MEND_SERIES = "download the series again"
_MEND_MASK = "download the mask again"
# Largest relative difference of the slice distances of a series.
_GAP_TOLERANCE = 0.01
# Slices that are closer have the same position, mm.
_MIN_GAP_MM = 0.01
# Largest distance from a pixel of the image to its voxel of the mask, in voxels.
_MAX_OFFSET = 0.25


def _find_files(part: Path, pattern: str) -> list[Path]:
    return sorted(p for p in part.rglob(pattern) if p.is_file() and not is_hidden(p.name))


def _read_metadata(part: Path) -> tuple[Path, list[dict[str, str]]]:
    """Find the metadata.csv of a part, and read its rows of MR series."""
    tables = _find_files(part, "metadata.csv")
    if len(tables) != 1:
        raise BadInput(
            part,
            "metadata.csv",
            found=", ".join(map(str, tables)) or "none",
            expected="one, which the NBIA Data Retriever writes next to the series",
            mend="download this part of the challenge again, in one go",
        )
    (table,) = tables
    with (
        files.report_read_errors(table, "a readable CSV table"),
        table.open(encoding="utf-8-sig") as stream,
    ):
        reader = csv.DictReader(stream, restval="")
        rows = list(reader)
    columns = reader.fieldnames or ()
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise BadInput(
            table,
            "columns",
            found=", ".join(columns) or "none",
            expected=f"also {', '.join(missing)}",
            mend="use the metadata.csv that the NBIA Data Retriever writes",
        )
    series = [row for row in rows if row["Modality"] == "MR"]
    return table, [row | {"Subject ID": listing.normalise_id(row["Subject ID"])} for row in series]


def _find_slices(table: Path, row: dict[str, str]) -> list[Path]:
    """List the DICOM files of the series that a row of the table names."""
    folder = table.parent / row["File Location"].replace("\\", "/")
    if not folder.resolve().is_relative_to(table.parent.resolve()) or not folder.is_dir():
        raise BadInput(
            table,
            f"subject {row['Subject ID']}, File Location",
            found=row["File Location"],
            expected=f"a folder under {table.parent}",
            mend=_MEND_SERIES,
        )
    slices = _find_files(folder, "*.dcm")
    if not slices or str(len(slices)) != row["Number of Images"].strip():
        raise BadInput(
            folder,
            "DICOM files",
            found=len(slices),
            expected=f"{row['Number of Images']}, the Number of Images of {table}",
            mend=_MEND_SERIES,
        )
    return slices


def sort_slices(folder: Path, geometries: list[SliceGeometry]) -> list[SliceGeometry]:
    """Sort the slices of a series by position, along their common normal.

    Raises
    ------
    BadInput
        The slices differ in size, spacing or orientation, two have the same position or number, or
        their distances differ by more than 1 %.
    """
    first = geometries[0]
    for geometry in geometries:
        steps = np.array(
            [geometry.step_down - first.step_down, geometry.step_right - first.step_right]
        )
        if geometry.shape != first.shape or abs(steps).max() > 1e-3 * np.linalg.norm(
            first.step_down
        ):
            raise BadInput(
                geometry.path,
                "slice",
                found=_describe_geometry(geometry),
                expected=f"{_describe_geometry(first)}, as in {first.path.name}",
                mend=_MEND_SERIES,
            )
    numbers = Counter(geometry.number for geometry in geometries)
    if repeated := [number for number, count in numbers.items() if count > 1]:
        raise BadInput(
            folder,
            "InstanceNumber",
            found=f"{repeated} twice",
            expected="each once",
            mend=_MEND_SERIES,
        )
    positions = np.array([geometry.origin @ first.normal for geometry in geometries])
    order = np.argsort(positions)
    gaps = np.diff(positions[order])
    if not gaps.size:
        return geometries
    typical_gap = float(np.median(gaps))
    if typical_gap < _MIN_GAP_MM or abs(gaps - typical_gap).max() > _GAP_TOLERANCE * typical_gap:
        expected_gap = f"{typical_gap:.4g} mm everywhere, within 1 %"
        raise BadInput(
            folder,
            "distances of slices",
            found=f"{gaps.min():.4g} to {gaps.max():.4g} mm",
            expected="above 0 mm" if typical_gap < _MIN_GAP_MM else expected_gap,
            mend=f"{_MEND_SERIES}: a slice is missing or occurs twice",
        )
    return [geometries[i] for i in order.tolist()]


def _describe_geometry(geometry: SliceGeometry) -> str:
    steps = f"{geometry.step_down.round(4)} and {geometry.step_right.round(4)} mm"
    return f"{geometry.shape} pixels, steps {steps}"


def extract_mask_slice(
    mask: Path, geometry: SliceGeometry, labels: Labels | None = None
) -> NDArray[np.bool_] | None:
    """Read the prostate, or the zones `labels`, from an NRRD mask at the position of a slice.

    Returns
    -------
    (H, W) bool in the rows and columns of the slice; None if the slice is outside the mask.

    Raises
    ------
    BadInput
        The mask cannot be read, or its voxels are not at the positions of the slice's pixels.
    """
    grid = volumes.read_grid(mask, _MEND_MASK)
    height, width = geometry.shape
    steps = np.stack(
        [np.zeros(3), geometry.step_down * (height - 1), geometry.step_right * (width - 1)]
    )
    # Three corner pixels of the slice (first, last in the column, last in the row), in mask voxels.
    corners = (geometry.origin + steps - grid.to_mm[:3, 3]) @ np.linalg.inv(grid.to_mm[:3, :3]).T
    down, right = abs(corners[1:] - corners[0]).argmax(axis=1).tolist()
    expected = np.tile(np.rint(corners[0]), (3, 1))
    backwards = []
    for corner, axis in ((1, down), (2, right)):
        last = grid.shape[axis] - 1
        backwards.append(bool(corners[corner, axis] < corners[0, axis]))
        expected[:, axis] = last if backwards[-1] else 0
        expected[corner, axis] = 0 if backwards[-1] else last
    offset = abs(corners - expected).max()
    if (
        down == right
        or (grid.shape[down], grid.shape[right]) != geometry.shape
        or offset > _MAX_OFFSET
    ):
        raise BadInput(
            mask,
            "grid",
            found=f"{grid}, up to {offset:.2f} voxels away from the pixels of {geometry.path}",
            expected=f"{geometry.shape} (height, width), at the positions of the slice's pixels",
            mend=f"{_MEND_MASK}, or {_MEND_SERIES}: they do not belong together",
        )
    slice_axis = 3 - down - right
    number = int(expected[0, slice_axis])
    if not 0 <= number < grid.shape[slice_axis]:
        return None
    # The prostate is peripheral zone (1) and central gland (2).
    inside = volumes.read_label_mask(mask, _MEND_MASK, labels).take(number, axis=slice_axis)
    if down > right:
        inside = inside.T
    return np.flip(inside, tuple(i for i in (0, 1) if backwards[i]))


def _find_masks(part: Path, subjects: set[str], problems: Problems) -> dict[str, Path]:
    """Find the mask of each subject: `<subject>.nrrd` or `<subject>_<more>.nrrd`."""
    found: dict[str, list[Path]] = {subject: [] for subject in subjects}
    for path in _find_files(part, "*.nrrd"):
        name = listing.normalise_id(path.stem)
        matching = [s for s in subjects if name == s or name.startswith(f"{s}_")]
        if matching:
            found[max(matching, key=len)].append(path)
            continue
        problems.append(
            BadInput(
                path,
                "mask",
                found="no MR series of this name in metadata.csv",
                expected="<Subject ID>.nrrd or <Subject ID>_<more>.nrrd",
                mend=f"{_MEND_SERIES}, or remove the mask",
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
                    mend="remove the others" if paths else "download the masks of this part",
                )
            )
    return {subject: paths[0] for subject, paths in found.items() if len(paths) == 1}


def _list_case(
    subject: str, split: Split, slices: list[Path], mask: Path, problems: Problems
) -> list[Record]:
    """List the slices of a case that show prostate, from one end of the series to the other."""
    geometries = []
    for path in slices:
        with problems.collect():
            geometries.append(dicom.read_slice_geometry(path))
    if len(geometries) < len(slices):
        return []
    records, on_slices = [], 0
    for geometry in sort_slices(slices[0].parent, geometries):
        inside = extract_mask_slice(mask, geometry)
        if inside is not None and inside.any():
            on_slices += int(inside.sum())
            sample_id = f"{subject}_{geometry.number}"
            records.append(Record(sample_id, subject, split, geometry.path, mask))
    labelled = int(volumes.read_label_mask(mask, _MEND_MASK).sum())
    if on_slices != labelled or labelled == 0:
        raise BadInput(
            mask,
            "prostate",
            found=f"{labelled} voxels, {on_slices} of them on slices of {slices[0].parent}",
            expected="at least one voxel, and all of them on slices",
            mend=f"{_MEND_MASK}, or {_MEND_SERIES}: one of the two is incomplete",
        )
    return records


def _list_part(part: Path, split: Split, problems: Problems) -> list[Record]:
    listing.check_folder(part)
    table, rows = _read_metadata(part)
    series = Counter(row["Subject ID"] for row in rows)
    for subject in sorted(subject for subject, count in series.items() if count > 1):
        problems.append(
            BadInput(
                table,
                f"subject {subject}",
                found=f"{series[subject]} MR series",
                expected="one, the series on which the mask was drawn",
                mend="delete the rows of the other series",
            )
        )
    masks = _find_masks(part, {*series}, problems)
    records = []
    for row in sorted(rows, key=lambda row: row["Subject ID"]):
        subject = row["Subject ID"]
        with problems.collect():
            if series[subject] == 1 and (slices := _find_slices(table, row)) and subject in masks:
                records += _list_case(subject, split, slices, masks[subject], problems)
    return records


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the slices that show prostate.

    An id is `<case>_<InstanceNumber>`; the subject is the case. The preprocessed 2-D release and
    its fixations have the same slices and names, but not the case ProstateDx-01-0055, whose mask
    has fewer slices than its series.
    """
    records = []
    for split, name in PARTS.items():
        if split == "val" and not (root / name).exists():
            continue
        with problems.collect():
            records += _list_part(root / name, split, problems)
    return records


def read(record: Record) -> RawSample:
    """Read a slice, its pixel spacing and the mask of the prostate."""
    assert record.mask is not None
    image, spacing = dicom.read_image(record.image)
    geometry = dicom.read_slice_geometry(record.image)
    return RawSample(image, extract_mask_slice(record.mask, geometry, record.labels), spacing)
