"""Assign whole subjects to splits, so that no subject is in two."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from stages.core.cli import BadInput, Problems, list_names
from stages.data.datasets import RawSample, Record
from stages.settings.prepare import PrepareSettings

# Second part of the seeds, so that the draws of test and validation are independent.
_TEST_STREAM, _VALIDATION_STREAM = 1, 2


def _draw_subjects(subjects: Iterable[str], fraction: float, seed: int, stream: int) -> set[str]:
    """Draw a fraction of the subjects: never all, and at least one of two or more."""
    ordered = sorted(set(subjects))
    count = min(round(fraction * len(ordered)), len(ordered) - 1)
    if fraction > 0 and len(ordered) > 1:
        count = max(count, 1)
    shuffled = np.random.default_rng([seed, stream]).permutation(np.array(ordered, object))
    return set(shuffled[:count])


def _extract_subject(record: Record, pattern: str) -> str:
    found = re.search(pattern, record.sample_id)
    if not found or not found[1]:
        raise BadInput(
            record.image,
            f"sample id {record.sample_id!r}",
            found="no match",
            expected=f"an id in which prepare.subject finds a subject: {pattern}",
            mend="correct the pattern, or rename the file",
        )
    return found[1]


def _extract_subjects(
    records: list[Record], pattern: str | None, problems: Problems
) -> list[Record]:
    if pattern is None:
        return records
    with_subject = []
    for record in records:
        with problems.collect():
            with_subject.append(replace(record, subject_id=_extract_subject(record, pattern)))
    return with_subject


def _assign_splits(records: list[Record], settings: PrepareSettings, root: Path) -> list[Record]:
    if settings.split == "drawn" and records:
        subjects = {record.subject_id for record in records}
        if len(subjects) < 2:
            raise BadInput(
                root,
                "subjects",
                found=f"one, {min(subjects, default='')!r}, for all {len(records)} samples",
                expected="two or more, because splits are drawn by subject",
                mend="set prepare.subject to find the patient in a sample id, or give the splits",
            )
        test = _draw_subjects(subjects, settings.test_fraction, settings.split_seed, _TEST_STREAM)
        records = [replace(r, split="test" if r.subject_id in test else "train") for r in records]
    elif without_split := [record for record in records if record.split is None]:
        raise BadInput(
            root,
            "split",
            found=f"none for {len(without_split)} samples, such as {without_split[0].sample_id!r}",
            expected="train.txt and test.txt, which list the samples of each split",
            mend="add the split files, or set prepare.split: drawn",
        )
    if any(record.split == "val" for record in records):
        return records
    training = (record.subject_id for record in records if record.split == "train")
    chosen = _draw_subjects(
        training, settings.val_fraction, settings.split_seed, _VALIDATION_STREAM
    )
    return [
        replace(r, split="val") if r.split == "train" and r.subject_id in chosen else r
        for r in records
    ]


def _groups_with_same_key(
    records: list[Record], key: Callable[[Record], str]
) -> list[tuple[str, list[Record]]]:
    """Return the groups of two or more records that have the same key."""
    groups = groupby(sorted(records, key=key), key)
    grouped = ((name, list(members)) for name, members in groups)
    return [(name, members) for name, members in grouped if len(members) > 1]


def _spans_two_splits(members: list[Record]) -> bool:
    return len({record.split for record in members}) > 1


def assign_splits(
    records: list[Record], settings: PrepareSettings, root: Path, problems: Problems
) -> list[Record]:
    """Give each sample its subject and its split.

    Parameters
    ----------
    records
        The records that the adapter lists.
    settings
        Given or drawn splits, pattern of the subject, fractions and seed.
    root
        The raw folder, for messages.
    problems
        Receives an id that occurs twice, a subject in two splits, an id in which the pattern finds
        no subject, and a data set without splits or without a training sample.

    Returns
    -------
    The records in the same order, each in "train", "val" or "test", and all records of a subject in
    one split. The list omits records without a subject, and is empty if there are no splits.
    """
    assigned: list[Record] = []
    records = _extract_subjects(records, settings.subject, problems)
    with problems.collect():
        assigned = _assign_splits(records, settings, root)
    if repeated := _groups_with_same_key(assigned, lambda record: record.sample_id):
        problems.append(
            BadInput(
                root,
                "sample ids",
                found="more than once: " + list_names([repr(name) for name, _ in repeated]),
                expected="each once",
                mend="delete the repeated lines of the split files, or rename one of the files",
            )
        )
    by_subject = _groups_with_same_key(assigned, lambda record: record.subject_id)
    if in_two_splits := [name for name, members in by_subject if _spans_two_splits(members)]:
        problems.append(
            BadInput(
                root,
                "split",
                found=f"subjects in two splits: {list_names(in_two_splits)}",
                expected="all images of a subject in one split",
                mend="move all images of a subject to one split, draw the splits "
                "(prepare.split: drawn), or set how to find the patient in an id (prepare.subject)",
            )
        )
    if assigned and not any(record.split == "train" for record in assigned):
        problems.append(
            BadInput(
                root,
                "split",
                found="no training sample",
                expected="at least one",
                mend="add ids to train.txt",
            )
        )
    return assigned


def pixel_digest(sample: RawSample) -> str | None:
    """Hash the pixels of an image: two files with the same pixels have the same hash.

    None for an image of one value, such as an empty end slice of a volume: such slices are the same
    for different patients.
    """
    image = np.ascontiguousarray(sample.image)
    if image.min() == image.max():
        return None
    found = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    found.update(image.tobytes())
    return found.hexdigest()


def check_duplicate_images(
    records: list[Record],
    digests: list[str | None],
    settings: PrepareSettings,
    root: Path,
    problems: Problems,
) -> None:
    """Check that no image is in two splits under different ids.

    `digests` has the `pixel_digest` of each record; None if the record is not compared.
    """
    digest_by_record = {id(record): found for record, found in zip(records, digests, strict=True)}
    comparable = [record for record in records if digest_by_record[id(record)]]
    groups = (
        members
        for _, members in _groups_with_same_key(
            comparable, lambda record: str(digest_by_record[id(record)])
        )
    )
    leaks = [
        " = ".join(f"{r.sample_id!r} ({r.split})" for r in members)
        for members in groups
        if _spans_two_splits(members)
    ]
    if leaks:
        problems.append(
            BadInput(
                root,
                "images",
                found=f"the same pixels in two splits: {list_names(leaks)}",
                expected="each image in one split",
                mend="delete one of the files, or set prepare.subject, so that their ids have one "
                "subject"
                if settings.split == "drawn"
                else "delete the copies from one of the split files or parts",
            )
        )
