"""The pixel classifier that votes on gaze maps."""

import numpy as np
import pytest
import torch
from conftest import disc

from stages.core.cli import BadInput
from stages.gaze.features import assign_folds, require_subjects, vote
from stages.settings.gaze import FeatureSettings
from stages.settings.parts import EncoderSettings
from stages.training.encoder import prepare_encoder

SIZE = (64, 80)
SETTINGS = FeatureSettings(encoder="test_efficientnet", side=160)
N = 24
SUBJECTS = [f"subject {i // 2}" for i in range(N)]
TRAINING = np.arange(N) < 20


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    with torch.random.fork_rng():
        prepare_encoder(path, EncoderSettings(encoder=SETTINGS.encoder, weights="none"))
    return path


def targets():
    """Discs at N places."""
    rng = np.random.default_rng(0)
    centres = np.stack([rng.integers(20, 44, N), rng.integers(20, 60, N)], axis=1)
    return np.array([disc(SIZE, tuple(centre), 12) for centre in centres]) > 0


def images(targets):
    """Reddish discs on a bluish ground, with noise."""
    rng = np.random.default_rng(1)
    colour = np.where(targets[..., None], (170, 90, 80), (80, 90, 150))
    return np.clip(colour + rng.normal(0, 15, (N, *SIZE, 3)), 0, 255).astype(np.uint8)


def vote_on(regions, encoder, pictures=None, threads=2, **changes):
    pictures = images(targets()) if pictures is None else pictures
    settings = SETTINGS.model_copy(update=changes)
    votes = vote(
        lambda i: pictures[i], lambda i: regions[i], SUBJECTS, TRAINING, encoder, settings,
        torch.device("cpu"), threads,
    )  # fmt: skip
    return np.stack(list(votes))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_images_on_which_the_gaze_was_wrong_are_judged_as_the_others_are(encoder):
    regions = targets()
    # Two subjects were looked at beside the target.
    wrong = [0, 1, 8, 9]
    regions[wrong] = np.roll(regions[wrong], 35, axis=2)
    found = vote_on(regions, encoder)
    assert found.shape == (N, *SIZE) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    for i in range(N):
        assert dice(found[i] >= 0.5, targets()[i]) > 0.7
    for i in wrong:
        assert dice(regions[i], targets()[i]) < 0.2


def test_labels_outside_the_training_split_are_not_read(encoder):
    regions = targets()
    regions[~TRAINING] = False
    assert np.array_equal(vote_on(regions, encoder), vote_on(targets(), encoder))


def test_an_image_is_not_judged_by_its_own_subject(encoder):
    regions = targets()
    changed = regions.copy()
    changed[4] = ~changed[4]
    before, after = vote_on(regions, encoder), vote_on(changed, encoder)
    # Both images of the subject are in one fold.
    assert np.array_equal(before[4:6], after[4:6])
    assert not np.array_equal(before, after)


def test_a_seed_fixes_the_votes_for_any_number_of_threads(encoder):
    one = vote_on(targets(), encoder, threads=1)
    assert np.array_equal(one, vote_on(targets(), encoder, threads=3))
    assert not np.array_equal(one, vote_on(targets(), encoder, seed=1))


def test_the_global_generator_is_left_alone(encoder):
    before = torch.random.get_rng_state()
    vote_on(targets(), encoder)
    assert torch.equal(before, torch.random.get_rng_state())


def test_grey_images_of_any_range_are_read(encoder):
    grey = np.where(targets()[..., None], 900.0, 200.0).astype(np.float32)
    found = vote_on(targets(), encoder, pictures=grey)
    assert np.mean([dice(f >= 0.5, t) for f, t in zip(found, targets())]) > 0.8


def test_few_training_subjects_among_many_others_are_spread_over_all_folds(encoder, monkeypatch):
    training = np.arange(N) < 8
    monkeypatch.setattr("test_features.TRAINING", training)
    for seed in range(3):
        found = vote_on(targets(), encoder, seed=seed)
        assert np.mean([dice(f >= 0.5, t) for f, t in zip(found, targets())]) > 0.7


def test_folds_are_even_and_by_subject():
    folds = assign_folds(SUBJECTS, seed=3)
    assert np.bincount(folds).tolist() == [6, 6, 6, 6]
    assert (folds[::2] == folds[1::2]).all()
    # No classifier is left without a subject to learn from.
    assert sorted(assign_folds(["a", "b", "c", "d"], seed=3)) == [0, 1, 2, 3]


def test_too_few_subjects_are_refused(tmp_path):
    with pytest.raises(BadInput, match="3 training subjects"):
        require_subjects(tmp_path / "prepared.h5", ["a", "b", "c", "a"])
