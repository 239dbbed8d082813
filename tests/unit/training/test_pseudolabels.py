"""Pseudolabels of the teacher, refined by the CRF, and the student that learns from them."""

import json

import h5py
import numpy as np
import pytest
import torch
from tiny_training import (
    SIZE,
    SPLIT,
    TINY,
    make_files,
    make_tiny_pseudolabels,
    same_weights,
    train_tiny_student,
    train_tiny_teacher,
)

from stages.core import io
from stages.core.cli import BadInput
from stages.gaze.refinement import refine_with_crf
from stages.networks import models
from stages.settings.parts import CrfSettings
from stages.settings.training import PseudolabelSettings, StudentSettings
from stages.training.methods import distilled
from stages.training.pseudolabels import make_pseudolabels
from stages.training.samples import normalise

CRF = CrfSettings(sxy=8, srgb=25, compat=12)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def teacher(files, tmp_path_factory):
    return train_tiny_teacher(files, tmp_path_factory.mktemp("teacher"))


def test_pseudolabels_are_the_teachers_prediction_after_the_crf(files, teacher, tmp_path):
    found = make_tiny_pseudolabels(files, tmp_path, teacher, CRF)
    network = models.load(teacher, "teacher")
    with h5py.File(files["prepared"]) as source, h5py.File(files["explanations"]) as texts:
        image, text = source["image"][5], texts["embedding"][5]
    with torch.no_grad():
        shown = normalise(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
        logits = network(shown, torch.from_numpy(text)[None]).logits
    probability = logits.softmax(dim=1)[0, 1].numpy()
    expected = refine_with_crf(image, probability, (64, 64), CRF, torch.device("cpu"))
    with h5py.File(found) as file:
        assert file["probability"].shape == (len(SPLIT), *SIZE)
        assert file["probability"].dtype == np.float16
        assert file["probability"][5] == pytest.approx(expected, abs=2e-3)
        # Validation and test samples stay zero.
        assert not file["probability"][8:].any()
        assert file["probability"][:8].any(axis=(1, 2)).all()
        inputs = {name: files[name] for name in ("prepared", "explanations")}
        inputs |= {"teacher": teacher}
        assert json.loads(file.attrs["inputs"]) == {n: io.sha256(p) for n, p in inputs.items()}


def test_the_gaze_joins_in_with_its_weight(files, teacher, tmp_path):
    def make(name, **settings):
        output = tmp_path / name
        make_pseudolabels(
            files["prepared"], teacher, output, PseudolabelSettings(**settings), 1, 0,
            files["gaze"], files["explanations"],
        )  # fmt: skip
        with h5py.File(output) as file:
            return file["probability"][:8].astype(np.float32)

    alone, joined = make("alone.h5"), make("joined.h5", gaze=0.25)
    with h5py.File(files["gaze"]) as file:
        refined = file["refined"][:8].astype(np.float32)
    assert joined == pytest.approx(0.75 * alone + 0.25 * refined, abs=2e-3)
    # The CRF acts on the mean.
    aligned = make("aligned.h5", gaze=0.25, crf=CRF)
    with h5py.File(files["prepared"]) as source:
        expected = refine_with_crf(
            source["image"][5], joined[5], (64, 64), CRF, torch.device("cpu")
        )
    assert aligned[5] == pytest.approx(expected, abs=1e-2)


def test_a_weight_of_the_gaze_without_gaze_is_refused(files, teacher, tmp_path):
    with pytest.raises(BadInput, match="--gaze"):
        make_pseudolabels(
            files["prepared"], teacher, tmp_path / "out.h5", PseudolabelSettings(gaze=0.5), 1, 0,
            explanations=files["explanations"],
        )  # fmt: skip
    assert not (tmp_path / "out.h5").exists()


def test_the_number_of_threads_does_not_change_pseudolabels(files, teacher, tmp_path):
    one = make_tiny_pseudolabels(files, tmp_path, teacher, CRF).read_bytes()
    again = tmp_path / "again.h5"
    make_pseudolabels(
        files["prepared"],
        teacher,
        again,
        PseudolabelSettings(crf=CRF),
        2,
        0,
        explanations=files["explanations"],
    )
    assert again.read_bytes() == one


def test_pseudolabels_change_the_student_and_the_seed_determines_it(files, teacher, tmp_path):
    plain = train_tiny_student(files, tmp_path / "plain", teacher, target_crf=None)
    refined = train_tiny_student(files, tmp_path / "told", teacher, target_crf=CRF)
    assert not same_weights(refined, plain)
    again = train_tiny_student(files, tmp_path / "again", teacher, target_crf=CRF)
    assert again.read_bytes() == refined.read_bytes()


def test_the_gaze_loss_excludes_pixels_that_the_pseudolabels_contradict(teacher, monkeypatch):
    recorded = []

    def record(logits, target, trusted, *, dice_weight):
        recorded.append((target.bool(), trusted))
        return logits.mean()

    monkeypatch.setattr(distilled, "label_loss", record)
    settings = StudentSettings(**TINY | {"darm_ratio": 0, "target_crf": CRF})
    architecture = models.Architecture(
        role="student", channels=3, size=SIZE, widths=(8,) * 6, head_width=8
    )
    _, step = distilled.make_model_and_step(
        settings, architecture, 0, torch.device("cpu"), teacher, 16
    )
    generator = torch.Generator().manual_seed(0)
    broad = torch.rand(2, *SIZE, generator=generator) < 0.5
    probability = torch.rand(2, *SIZE, generator=generator)
    batch = {
        "image": torch.zeros(2, 3, *SIZE, dtype=torch.uint8),
        "text": torch.zeros(2, 2, 16),
        "pseudomask": broad[:, None].to(torch.uint8),
        "pseudolabel": probability,
    }
    step(batch, 1, generator)
    ((target, trusted),) = recorded
    # All are flipped together: the number of agreeing pixels stays, for foreground and background.
    for value in (False, True):
        agree = (broad == value) & ((probability > 0.5) == value)
        assert (trusted & (target == value)).sum() == agree.sum()
