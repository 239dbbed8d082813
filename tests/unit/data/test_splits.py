"""Whole subjects are in one split, and all problems of splits are reported."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.cli import Problems
from stages.data.datasets import RawSample, Record
from stages.data.splits import assign_splits, check_duplicate_images, pixel_digest
from stages.settings.prepare import PrepareSettings

ROOT = Path("data/ours")


def record(name, subject=None, split="train"):
    return Record(name, subject or name, split, ROOT / f"images/{name}.png", None)


def settings(**changes):
    return PrepareSettings(**{"layout": "folder", "val_fraction": 0} | changes)


def assign_without_problems(records, **changes):
    problems = Problems()
    assigned = assign_splits(records, settings(**changes), ROOT, problems)
    assert problems == []
    return assigned


def list_problems(records, **changes):
    problems = Problems()
    assign_splits(records, settings(**changes), ROOT, problems)
    return [str(problem) for problem in problems]


subjects = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@given(subjects, st.floats(0, 0.5), st.integers(0, 99))
def test_validation_takes_whole_training_subjects(numbers, fraction, seed):
    records = [record(str(i), f"s{s}", "test" if s < 3 else "train") for i, s in enumerate(numbers)]
    if not any(r.split == "train" for r in records):
        return
    assigned = assign_without_problems(records, val_fraction=fraction, split_seed=seed)
    assert assigned == assign_without_problems(records, val_fraction=fraction, split_seed=seed)
    by_subject = {}
    for before, after in zip(records, assigned, strict=True):
        assert before.sample_id == after.sample_id
        assert (before.split == "test") == (after.split == "test")
        by_subject.setdefault(after.subject_id, set()).add(after.split)
    assert all(len(splits) == 1 for splits in by_subject.values())
    training = [s for s, splits in by_subject.items() if splits != {"test"}]
    chosen = [s for s, splits in by_subject.items() if splits == {"val"}]
    expected = min(round(fraction * len(training)), len(training) - 1)
    if fraction > 0 and len(training) > 1:
        expected = max(expected, 1)
    assert len(chosen) == expected


@given(subjects, st.floats(0, 0.9), st.integers(0, 99))
def test_drawn_test_splits_have_whole_subjects_whatever_the_folder_states(numbers, fraction, seed):
    stated = ("train", "test", None)
    records = [record(str(i), f"s{s}", stated[i % 3]) for i, s in enumerate(numbers)]
    if len(set(numbers)) < 2:
        return
    assigned = assign_without_problems(
        records, split="drawn", test_fraction=fraction, split_seed=seed
    )
    everyone = {r.subject_id for r in assigned}
    tested = {r.subject_id for r in assigned if r.split == "test"}
    assert tested.isdisjoint({r.subject_id for r in assigned if r.split == "train"})
    expected = min(round(fraction * len(everyone)), len(everyone) - 1)
    if fraction > 0:
        expected = max(expected, 1)
    assert len(tested) == expected


def test_the_draw_does_not_depend_on_the_order_of_the_samples():
    records = [record(str(i)) for i in range(20)]
    drawn = {"split": "drawn", "test_fraction": 0.3, "val_fraction": 0.2}
    one = {r.sample_id: r.split for r in assign_without_problems(records, **drawn)}
    other = {r.sample_id: r.split for r in assign_without_problems(records[::-1], **drawn)}
    assert one == other
    assert sorted(one.values()).count("test") == 6
    assert one != {
        r.sample_id: r.split for r in assign_without_problems(records, **drawn, split_seed=1)
    }


def test_splits_of_a_single_subject_cannot_be_drawn():
    (problem,) = list_problems([record("a", "ANON"), record("b", "ANON")], split="drawn")
    assert "one, 'ANON', for all 2 samples" in problem and "prepare.subject" in problem


def test_a_stated_validation_split_is_unchanged():
    records = [record("a"), record("b"), record("c", split="val"), record("d", split="test")]
    assert assign_without_problems(records, val_fraction=0.5) == records


def test_the_pattern_finds_the_subject_in_an_id():
    records = [record("P01_a"), record("P01_b"), record("P02_a", split="test")]
    assigned = assign_without_problems(records, subject=r"^(P\d+)_")
    assert [r.subject_id for r in assigned] == ["P01", "P01", "P02"]


def test_an_id_without_a_subject_is_reported():
    (problem,) = list_problems([record("P01_a"), record("other")], subject=r"^(P\d+)_")
    assert "images/other.png: sample id 'other'" in problem
    assert r"^(P\d+)_" in problem


@pytest.mark.parametrize("pattern", ["P", "(a)(b)", "("])
def test_a_pattern_without_one_group_is_rejected(pattern):
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
def test_a_bad_split_is_reported(records, words):
    (problem,) = list_problems(records)
    assert problem.startswith("data/ours: ") and words in problem and "to mend:" in problem


def test_an_id_in_two_splits_is_two_problems():
    assert len(list_problems([record("a"), record("a", split="test")])) == 2


def test_many_bad_ids_are_counted_not_listed():
    records = [record(f"{i:02d}", f"p{i:02d}", s) for i in range(25) for s in ("train", "test")]
    repeated, shared = list_problems(records)
    assert "'19' and 5 more" in repeated
    assert "p19 and 5 more" in shared


def sample_with_pixel(value):
    image = np.full((4, 5, 1), 7, np.float32)
    image[0, 0] = value
    return RawSample(image, None, (1.0, 1.0))


def test_the_same_pixels_in_two_splits_are_reported_with_their_ids():
    records = [record("a"), record("b"), record("c", split="test"), record("d", split="test")]
    problems = Problems()
    digests = [pixel_digest(sample_with_pixel(value)) for value in (1, 1, 2, 1)]
    check_duplicate_images(records, digests, settings(), ROOT, problems)
    (problem,) = problems
    assert "'a' (train) = 'b' (train) = 'd' (test)" in str(problem)
    assert "'c'" not in str(problem)
    assert "to mend:  delete the copies from one of the split files" in str(problem)


def test_drawn_splits_have_no_files_to_delete_copies_from():
    records = [record("a"), record("b", split="test")]
    problems = Problems()
    check_duplicate_images(
        records, [pixel_digest(sample_with_pixel(1))] * 2, settings(split="drawn"), ROOT, problems
    )
    (problem,) = problems
    assert "'a' (train) = 'b' (test)" in str(problem)
    assert "to mend:  delete one of the files, or" in str(problem)
    assert "prepare.subject" in str(problem) and "split files" not in str(problem)


def test_copies_within_a_split_and_images_of_one_value_pass():
    records = [record("a"), record("b"), record("c", split="test"), record("d", split="test")]
    problems = Problems()
    # Two empty slices, one in each split, may be of different patients.
    check_duplicate_images(
        records,
        [pixel_digest(sample_with_pixel(v)) for v in (7, 1, 7, 2)],
        settings(),
        ROOT,
        problems,
    )
    check_duplicate_images(
        records,
        [pixel_digest(sample_with_pixel(v)) for v in (1, 1, 2, 2)],
        settings(),
        ROOT,
        problems,
    )
    check_duplicate_images(records, [None, None, None, None], settings(), ROOT, problems)
    assert problems == []


def test_a_digest_depends_on_type_shape_and_values():
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    variants = [image, image.reshape(3, 2, 1), image.astype(np.uint8), image + 1]
    assert len({pixel_digest(RawSample(v, None, (1.0, 1.0))) for v in variants}) == 4
    flipped = RawSample(np.flip(image), None, (1.0, 1.0))
    assert pixel_digest(flipped) == pixel_digest(RawSample(np.flip(image).copy(), None, (1.0, 1.0)))
