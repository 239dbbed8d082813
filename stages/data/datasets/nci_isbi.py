"""NCI-ISBI 2013 prostate MR, the preprocessed 2-D release: one DICOM file per axial slice."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mode

from stages.core.cli import BadInput, Problems, list_names
from stages.data.datasets import RawSample, Record, dicom, files, published
from stages.data.datasets.dicom import SERIES_TAGS, Header
from stages.data.datasets.segmentations import matching


def _case_name(sample_id: str) -> str:
    return sample_id.rpartition("_")[0] or sample_id


def _check_same_series(case: str, slices: list[Header]) -> None:
    """Check that all slices have the size, spacing and orientation of most slices of their case."""
    descriptions = [
        header.describe(name for name in SERIES_TAGS if name in header.geometry)
        for header in slices
    ]
    typical = slices[descriptions.index(mode(descriptions))]
    if deviating := [
        header for header in slices if dicom.differing_tags(typical, header, SERIES_TAGS)
    ]:
        names = dicom.differing_tags(typical, deviating[0], SERIES_TAGS)
        raise BadInput(
            typical.path.parent,
            f"slices of the case {case!r}",
            found=f"{deviating[0].describe(names)} in "
            f"{list_names([h.path.name for h in deviating], 5)}",
            expected=f"{typical.describe(names)}, as in {typical.path.name}",
            mend="remove the slices of another series, or name them as another case",
        )


def _shared_patients(cases: dict[str, list[Header]]) -> dict[str, str]:
    """Return case → the patient's first case, for the cases whose patient has several.

    If the files of one case name two patients, the cases of both count as one patient: otherwise
    they might be in two splits.
    """
    cases_of_patient: dict[str, set[str]] = defaultdict(set)
    for case, slices in cases.items():
        for header in slices:
            cases_of_patient[header.patient_id].add(case)
    identified = {patient: cases_of_patient[patient] for patient in cases_of_patient if patient}
    # Software that anonymises files may write the same PatientID into all of them.
    if len(identified) < 2:
        return {}
    groups: list[set[str]] = []
    for patient_cases in identified.values():
        overlapping = [group for group in groups if group & patient_cases]
        groups = [group for group in groups if group not in overlapping]
        groups.append(patient_cases.union(*overlapping))
    first = {i: next(case for case in cases if case in group) for i, group in enumerate(groups)}
    return {case: first[i] for i, group in enumerate(groups) for case in group}


def _find_segmentations(folder: Path, others: list[Path], problems: Problems) -> list[Path]:
    """Return the SEG and RTSTRUCT files among the masks that are no pictures."""
    segmentations: list[Path] = []
    unexpected: list[Path] = []
    for path in others:
        with problems.collect():
            of_many = path.suffix.lower() == ".dcm" and matching.is_segmentation(path)
            (segmentations if of_many else unexpected).append(path)
    if unexpected:
        problems.append(published.unexpected_files(folder, unexpected, ".png"))
    return segmentations


def list_records(root: Path, problems: Problems) -> list[Record]:
    """List the slices. An id is `<case>_<slice>`; the subject is the case.

    If several cases share a PatientID that not all files of the data set have, the first of them is
    their subject. The slices of a case must have the same size, spacing and orientation, as far as
    the files state them. The folder of masks may also hold SEG and RTSTRUCT files (.dcm): see
    `matching.join`.
    """
    records, cases = [], defaultdict(list)
    other_masks: list[Path] = []
    for record in published.list_records(
        root, problems, ("images", ".dcm"), ("masks", ".png"), _case_name, other_masks
    ):
        with problems.collect():
            header = dicom.read_header(record.image)
            cases[record.subject_id].append(header)
            records.append(record)
    for case, slices in cases.items():
        with problems.collect():
            _check_same_series(case, slices)
    if segmentations := _find_segmentations(root / "masks", other_masks, problems):
        headers = [header for slices in cases.values() for header in slices]
        matching.join([records], headers, segmentations, problems)
    patients = _shared_patients(cases)
    return [replace(r, subject_id=patients.get(r.subject_id, r.subject_id)) for r in records]


def read(record: Record) -> RawSample:
    """Read a slice, its mask and its pixel spacing."""
    image, spacing = dicom.read_image(record.image)
    mask = None
    if record.parts:
        mask = matching.read_mask(record.image, record.parts, record.labels)
    elif record.mask is not None:
        mask = files.read_mask(record.mask, image.shape[:2], record.labels)
    return RawSample(image, mask, spacing)
