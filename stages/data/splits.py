"""Who is in which split: whole subjects, and nobody in two."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from stages.core.cli import BadInput, Problems, name_some
from stages.data.datasets import Pixels, Record
from stages.settings.prepare import PrepareSettings

# First keys of the generators' seeds, so that the two draws do not share a stream.
_TEST, _VALIDATION = 1, 2


def _draw(subjects: Iterable[str], fraction: float, seed: int, stream: int) -> set[str]:
    """Draw a share of the subjects: never all, and at least one where there are two."""
    ordered = sorted(set(subjects))
    count = min(round(fraction * len(ordered)), len(ordered) - 1)
    if fraction > 0 and len(ordered) > 1:
        count = max(count, 1)
    shuffled = np.random.default_rng([seed, stream]).permutation(np.array(ordered, object))
    return set(shuffled[:count])


def _subject(record: Record, pattern: str) -> str:
    found = re.search(pattern, record.sample_id)
    if not found or not found[1]:
        raise BadInput(
            record.image,
            f"sample id {record.sample_id!r}",
            found="no match",
            expected=f"a subject in it, by prepare.subject: {pattern}",
            mend="correct the pattern, or rename the file",
        )
    return found[1]


def _name_subjects(records: list[Record], pattern: str | None, problems: Problems) -> list[Record]:
    if pattern is None:
        return records
    named = []
    for record in records:
        with problems.collect():
            named.append(replace(record, subject_id=_subject(record, pattern)))
    return named


def _assign(records: list[Record], settings: PrepareSettings, root: Path) -> list[Record]:
    if settings.split == "drawn" and records:
        subjects = {record.subject_id for record in records}
        if len(subjects) < 2:
            raise BadInput(
                root,
                "subjects",
                found=f"one, {min(subjects, default='')!r}, of all {len(records)} samples",
                expected="two or more: splits are drawn by subject",
                mend="say how a sample's id names its patient: prepare.subject; or give the splits",
            )
        test = _draw(subjects, settings.test_fraction, settings.split_seed, _TEST)
        records = [replace(r, split="test" if r.subject_id in test else "train") for r in records]
    elif unplaced := [record for record in records if record.split is None]:
        raise BadInput(
            root,
            "split",
            found=f"none for {len(unplaced)} samples, such as {unplaced[0].sample_id!r}",
            expected="train.txt and test.txt, which name the samples of each split",
            mend="add the split files, or draw the splits by subject: prepare.split: drawn",
        )
    if any(record.split == "val" for record in records):
        return records
    training = (record.subject_id for record in records if record.split == "train")
    chosen = _draw(training, settings.val_fraction, settings.split_seed, _VALIDATION)
    return [
        replace(r, split="val") if r.split == "train" and r.subject_id in chosen else r
        for r in records
    ]


def _shared(records: list[Record], key: Callable[[Record], str]) -> list[tuple[str, list[Record]]]:
    """Find the groups of two records or more with the same key."""
    groups = groupby(sorted(records, key=key), key)
    listed = ((name, list(members)) for name, members in groups)
    return [(name, members) for name, members in listed if len(members) > 1]


def _in_two(members: list[Record]) -> bool:
    return len({record.split for record in members}) > 1


def place(
    records: list[Record], settings: PrepareSettings, root: Path, problems: Problems
) -> list[Record]:
    """Give each sample its subject and its split.

    Parameters
    ----------
    records
        As the adapter lists them.
    settings
        Whether splits are given or drawn, the pattern of subjects, shares and seed.
    root
        The raw folder, for messages.
    problems
        Takes an id that occurs twice, a subject in two splits, a subject that the pattern does not
        find, and a data set without splits or without a training sample.

    Returns
    -------
    The samples in the same order, each in "train", "val" or "test", all of a subject in one;
    without those whose subject was not found, and none where there are no splits.
    """
    placed: list[Record] = []
    records = _name_subjects(records, settings.subject, problems)
    with problems.collect():
        placed = _assign(records, settings, root)
    if twice := _shared(placed, lambda record: record.sample_id):
        problems.append(
            BadInput(
                root,
                "sample ids",
                found="more than once: " + name_some([repr(name) for name, _ in twice]),
                expected="each once",
                mend="delete the repeated lines of the split files, or rename a file",
            )
        )
    by_subject = _shared(placed, lambda record: record.subject_id)
    if both := [name for name, members in by_subject if _in_two(members)]:
        problems.append(
            BadInput(
                root,
                "split",
                found=f"subjects in two splits: {name_some(both)}",
                expected="all images of a subject in one split",
                mend="move all of a subject's images to one split, draw the splits "
                "(prepare.split: drawn), or say how an id names its patient (prepare.subject)",
            )
        )
    if placed and not any(record.split == "train" for record in placed):
        problems.append(
            BadInput(
                root,
                "split",
                found="no training sample",
                expected="at least one",
                mend="add ids to train.txt",
            )
        )
    return placed


def digest(pixels: Pixels) -> str | None:
    """Hash an image's pixels: the same for two files with the same pixels.

    None for an image of one value, such as the empty ends of a volume, which tells nobody apart.
    """
    image = np.ascontiguousarray(pixels.image)
    if image.min() == image.max():
        return None
    found = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    found.update(image.tobytes())
    return found.hexdigest()


def check_pixels(
    records: list[Record],
    digests: list[str | None],
    settings: PrepareSettings,
    root: Path,
    problems: Problems,
) -> None:
    """Note images that are in two splits under different ids.

    `digests` are those of the records' images, None where there is none to compare.
    """
    of = {id(record): found for record, found in zip(records, digests, strict=True)}
    read = [record for record in records if of[id(record)]]
    groups = (members for _, members in _shared(read, lambda record: str(of[id(record)])))
    leaks = [
        " = ".join(f"{r.sample_id!r} ({r.split})" for r in members)
        for members in groups
        if _in_two(members)
    ]
    if leaks:
        problems.append(
            BadInput(
                root,
                "images",
                found=f"the same pixels in two splits: {name_some(leaks)}",
                expected="each image in one split",
                mend="delete one of the files, or say how their ids name one patient: "
                "prepare.subject"
                if settings.split == "drawn"
                else "delete the copies from one of the split files or parts",
            )
        )
