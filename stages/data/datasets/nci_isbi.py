"""NCI-ISBI 2013 prostate MR, the preprocessed 2-D release: one DICOM file per axial slice."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mode

from stages.core.cli import BadInput, Problems, name_some
from stages.data.datasets import Pixels, Record, dicom, files, published
from stages.data.datasets.dicom import SHARED, Header


def _case(sample_id: str) -> str:
    return sample_id.rpartition("_")[0] or sample_id


def _check_alike(case: str, slices: list[Header]) -> None:
    """Stop where a slice is of another size, spacing or orientation than most of its case."""
    stated = [header.describe(name for name in SHARED if name in header.place) for header in slices]
    usual = slices[stated.index(mode(stated))]
    if odd := [header for header in slices if dicom.differing(usual, header, SHARED)]:
        names = dicom.differing(usual, odd[0], SHARED)
        raise BadInput(
            usual.path.parent,
            f"slices of the case {case!r}",
            found=f"{odd[0].describe(names)} in {name_some([h.path.name for h in odd], 5)}",
            expected=f"{usual.describe(names)}, as in {usual.path.name}",
            mend="take the slices of another series away, or give them a case of their own",
        )


def _patients(cases: dict[str, list[Header]]) -> dict[str, str]:
    """Find the cases whose patients have others, too: case → PatientID, the first of several.

    Where files of one case name two patients, the cases of both are of one: parted, they might
    stand on both sides of a split.
    """
    of: dict[str, set[str]] = defaultdict(set)
    for case, slices in cases.items():
        for header in slices:
            of[header.patient].add(case)
    named = {patient: of[patient] for patient in of if patient}
    # Software that takes names out may write the same one into all files.
    if len(named) < 2:
        return {}
    joined: list[tuple[str, set[str]]] = []
    for patient, all_of in named.items():
        met = [group for group in joined if group[1] & all_of]
        joined = [group for group in joined if group not in met]
        joined.append((met[0][0] if met else patient, all_of.union(*(group[1] for group in met))))
    return {case: patient for patient, all_of in joined if len(all_of) > 1 for case in all_of}


def index(root: Path, problems: Problems) -> list[Record]:
    """List the slices. An id is `<case>_<slice>`; the case is the subject.

    Where files of several cases have one PatientID, and not all files of the data set have it, that
    is their subject. The slices of a case must be alike in size, spacing and orientation, as far as
    the files state them.
    """
    records, cases = [], defaultdict(list)
    for record in published.index(root, problems, ("images", ".dcm"), ("masks", ".png"), _case):
        with problems.collect():
            header = dicom.read_header(record.image)
            cases[record.subject_id].append(header)
            records.append(record)
    for case, slices in cases.items():
        with problems.collect():
            _check_alike(case, slices)
    patients = _patients(cases)
    return [replace(r, subject_id=patients.get(r.subject_id, r.subject_id)) for r in records]


def read(record: Record) -> Pixels:
    """Read a slice, its mask, and its pixel spacing."""
    image, spacing = dicom.read(record.image)
    mask = None if record.mask is None else files.read_mask(record.mask, image.shape[:2])
    return Pixels(image, mask, spacing)
