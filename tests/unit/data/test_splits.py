"""Whole subjects in one split, and every way in which that can fail."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.cli import Problems
from stages.data.datasets import Pixels, Record
from stages.data.splits import check_pixels, digest, place
from stages.settings.prepare import PrepareSettings

ROOT = Path("data/ours")


def record(name, subject=None, split="train"):
    return Record(name, subject or name, split, ROOT / f"images/{name}.png", None)


def settings(**changes):
    return PrepareSettings(**{"layout": "folder", "val_fraction": 0} | changes)


def placed(records, **changes):
    problems = Problems()
    found = place(records, settings(**changes), ROOT, problems)
    assert problems == []
    return found


def faults(records, **changes):
    problems = Problems()
    place(records, settings(**changes), ROOT, problems)
    return [str(problem) for problem in problems]


subjects = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@given(subjects, st.floats(0, 0.5), st.integers(0, 99))
def test_validation_takes_whole_training_subjects(numbers, fraction, seed):
    records = [record(str(i), f"s{s}", "test" if s < 3 else "train") for i, s in enumerate(numbers)]
    if not any(r.split == "train" for r in records):
        return
    found = placed(records, val_fraction=fraction, split_seed=seed)
    assert found == placed(records, val_fraction=fraction, split_seed=seed)
    by_subject = {}
    for before, after in zip(records, found, strict=True):
        assert before.sample_id == after.sample_id
        assert (before.split == "test") == (after.split == "test")
        by_subject.setdefault(after.subject_id, set()).add(after.split)
    assert all(len(where) == 1 for where in by_subject.values())
    training = [s for s, where in by_subject.items() if where != {"test"}]
    chosen = [s for s, where in by_subject.items() if where == {"val"}]
    expected = min(round(fraction * len(training)), len(training) - 1)
    if fraction > 0 and len(training) > 1:
        expected = max(expected, 1)
    assert len(chosen) == expected


@given(subjects, st.floats(0, 0.9), st.integers(0, 99))
def test_drawn_tests_are_whole_subjects_whatever_the_folder_states(numbers, fraction, seed):
    stated = ("train", "test", None)
    records = [record(str(i), f"s{s}", stated[i % 3]) for i, s in enumerate(numbers)]
    if len(set(numbers)) < 2:
        return
    found = placed(records, split="drawn", test_fraction=fraction, split_seed=seed)
    everyone = {r.subject_id for r in found}
    tested = {r.subject_id for r in found if r.split == "test"}
    assert tested.isdisjoint({r.subject_id for r in found if r.split == "train"})
    expected = min(round(fraction * len(everyone)), len(everyone) - 1)
    if fraction > 0:
        expected = max(expected, 1)
    assert len(tested) == expected


def test_the_draw_does_not_depend_on_the_order_of_the_samples():
    records = [record(str(i)) for i in range(20)]
    drawn = {"split": "drawn", "test_fraction": 0.3, "val_fraction": 0.2}
    one = {r.sample_id: r.split for r in placed(records, **drawn)}
    other = {r.sample_id: r.split for r in placed(records[::-1], **drawn)}
    assert one == other
    assert sorted(one.values()).count("test") == 6
    assert one != {r.sample_id: r.split for r in placed(records, **drawn, split_seed=1)}


def test_one_subject_for_all_cannot_be_drawn_from():
    (fault,) = faults([record("a", "ANON"), record("b", "ANON")], split="drawn")
    assert "one, 'ANON', of all 2 samples" in fault and "prepare.subject" in fault


def test_a_stated_validation_part_is_left_as_it_is():
    records = [record("a"), record("b"), record("c", split="val"), record("d", split="test")]
    assert placed(records, val_fraction=0.5) == records


def test_subjects_come_out_of_the_ids_by_the_pattern():
    records = [record("P01_a"), record("P01_b"), record("P02_a", split="test")]
    found = placed(records, subject=r"^(P\d+)_")
    assert [r.subject_id for r in found] == ["P01", "P01", "P02"]


def test_an_id_without_a_subject_is_a_problem_of_its_own():
    (fault,) = faults([record("P01_a"), record("other")], subject=r"^(P\d+)_")
    assert "images/other.png: sample id 'other'" in fault
    assert r"^(P\d+)_" in fault


@pytest.mark.parametrize("pattern", ["P", "(a)(b)", "("])
def test_a_pattern_that_names_no_subject_cannot_be_set(pattern):
    with pytest.raises(ValueError, match="regular expression"):
        settings(subject=pattern)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([record("a"), record("b"), record("a")], "more than once: 'a'"),
        ([record("a", "p"), record("b", "p", "test")], "subjects in two splits: p"),
        ([record("a", split="val"), record("b", split="test")], "no training sample"),
        ([record("a"), record("b", split=None)], "none for 1 samples, such as 'b'"),
    ],
)
def test_what_is_wrong_is_told(records, words):
    (fault,) = faults(records)
    assert fault.startswith("data/ours: ") and words in fault and "to mend:" in fault


def test_an_id_in_two_splits_is_both_faults():
    assert len(faults([record("a"), record("a", split="test")])) == 2


def test_many_offenders_are_counted_not_listed():
    records = [record(f"{i:02d}", f"p{i:02d}", s) for i in range(25) for s in ("train", "test")]
    repeated, shared = faults(records)
    assert "'19' and 5 more" in repeated
    assert "p19 and 5 more" in shared


def pixels(value):
    image = np.full((4, 5, 1), 7, np.float32)
    image[0, 0] = value
    return Pixels(image, None, (1.0, 1.0))


def test_the_same_pixels_in_two_splits_are_told_with_their_ids():
    records = [record("a"), record("b"), record("c", split="test"), record("d", split="test")]
    problems = Problems()
    digests = [digest(pixels(value)) for value in (1, 1, 2, 1)]
    check_pixels(records, digests, settings(), ROOT, problems)
    (problem,) = problems
    assert "'a' (train) = 'b' (train) = 'd' (test)" in str(problem)
    assert "'c'" not in str(problem)
    assert "to mend:  delete the copies from one of the split files" in str(problem)


def test_drawn_splits_have_no_files_to_delete_copies_from():
    records = [record("a"), record("b", split="test")]
    problems = Problems()
    check_pixels(records, [digest(pixels(1))] * 2, settings(split="drawn"), ROOT, problems)
    (problem,) = problems
    assert "'a' (train) = 'b' (test)" in str(problem)
    assert "to mend:  delete one of the files, or" in str(problem)
    assert "prepare.subject" in str(problem) and "split files" not in str(problem)


def test_copies_within_a_split_and_images_of_one_value_pass():
    records = [record("a"), record("b"), record("c", split="test"), record("d", split="test")]
    problems = Problems()
    # Two empty slices, one in each split, say nothing of their patients.
    check_pixels(records, [digest(pixels(v)) for v in (7, 1, 7, 2)], settings(), ROOT, problems)
    check_pixels(records, [digest(pixels(v)) for v in (1, 1, 2, 2)], settings(), ROOT, problems)
    check_pixels(records, [None, None, None, None], settings(), ROOT, problems)
    assert problems == []


def test_a_digest_tells_type_shape_and_values():
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    variants = [image, image.reshape(3, 2, 1), image.astype(np.uint8), image + 1]
    assert len({digest(Pixels(v, None, (1.0, 1.0))) for v in variants}) == 4
    flipped = Pixels(np.flip(image), None, (1.0, 1.0))
    assert digest(flipped) == digest(Pixels(np.flip(image).copy(), None, (1.0, 1.0)))
