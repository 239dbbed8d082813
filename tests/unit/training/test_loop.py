"""The training loop, and teacher, student and predictions end to end on twelve tiny images."""

import json
import math
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_training import (
    HAS_GAZE,
    SIZE,
    SPLIT,
    make_files,
    make_tiny_pseudolabels,
    read_history,
    same_weights,
    train_tiny_student,
    train_tiny_teacher,
)
from torch import nn

from stages.core import io, precision
from stages.core.cli import BadInput
from stages.core.precision import Processor
from stages.evaluation.predict import predict
from stages.networks import models
from stages.settings.predict import PredictSettings
from stages.settings.training import OptimisationSettings, StudentSettings
from stages.training import loop
from stages.training.samples import normalise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Batches


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 99))
def test_each_epoch_has_every_sample_once(n, size, seed):
    found = loop.index_batches(n, size, generator(seed))
    drawn = []
    while len(drawn) < 3 * n:
        batch = next(found)
        assert len(batch) == size
        drawn += batch.tolist()
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_differ_in_order_and_the_seed_determines_it():
    def draw(seed):
        found = loop.index_batches(50, 50, generator(seed))
        return [next(found).tolist() for _ in range(2)]

    first, second = draw(0)
    assert first != second
    assert draw(0) == [first, second] != draw(1)


@pytest.mark.parametrize("threads", [1, 3])
def test_training_uses_the_given_number_of_threads(threads):
    before = torch.get_num_threads()
    try:
        loop.set_up_torch(threads, gpus=0)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


class InMemorySamples:
    """Samples in memory."""

    def __init__(self, **values):
        self.values = values

    def __len__(self):
        return len(next(iter(self.values.values())))

    def batches(self, indices):
        return ({name: v[index] for name, v in self.values.items()} for index in indices)

    def names(self, indices):
        return [f"sample{index}" for index in indices.tolist()]


# Validation


def test_validation_dice_is_the_mean_over_the_samples():
    # Prediction and truth of 4 px: 2 · 1 / (2 + 1), both empty: 1, 0 of 3: 0.
    predicted = [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    truth = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    data = InMemorySamples(
        image=torch.tensor(predicted).reshape(3, 1, 2, 2),
        mask=torch.tensor(truth, dtype=torch.uint8).reshape(3, 2, 2),
    )
    for size in (1, 2, 8):
        dice = loop.validation_dice(lambda part: part["image"][:, 0].bool(), data, size)
        assert dice == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_validation_dice_is_nan_without_samples():
    data = InMemorySamples(mask=torch.zeros(0, 2, 2))
    assert math.isnan(loop.validation_dice(lambda part: part["mask"].bool(), data, 8))


# The loop


class OneWeight(nn.Module):
    """A model with one trained weight, 5 at first, and one frozen weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(5.0))
        self.frozen = nn.Parameter(torch.tensor(1.0), requires_grad=False)


def make_run(folder, **changes):
    options = {"iterations": 7, "batch_size": 2, "learning_rate": 0.1, "log_every": 2,
               "validate_every": 3} | changes  # fmt: skip
    return loop.Run(
        name="student", inputs={"prepared": PROVENANCE}, settings=OptimisationSettings(**options),
        seed=0, device=torch.device("cpu"), output=folder / "w", history=folder / "h",
        work=folder / "work", modules=("stages.training.loop",),
    )  # fmt: skip


# Any file: a run stores the hash of its inputs.
PROVENANCE = Path(__file__)
NO_MASKS = InMemorySamples(mask=torch.zeros(0, 2, 2))
MASKS = InMemorySamples(mask=torch.ones(1, 2, 2))


@pytest.fixture
def fit(tmp_path):
    """Return a function that trains a `OneWeight`; its result is the model and its history."""

    def do(step, val=NO_MASKS, predict=None, **changes):
        model = OneWeight()
        rows = loop.fit(
            make_run(tmp_path, **changes),
            model,
            lambda batch, iteration, generator: step(model, batch, iteration),
            predict,
            InMemorySamples(image=torch.arange(6.0)),
            val,
        )
        return model, rows

    return do


def test_the_history_has_the_mean_of_each_term_since_the_previous_row(fit):
    def step(model, batch, iteration):
        return {"loss": model.weight**2, "count": torch.tensor(float(iteration))}

    _, rows = fit(step)
    assert list(rows) == ["iteration", "loss", "count", "learning_rate", "seconds", "val_dice"]
    # Every second, every third for validation, and the last.
    assert list(rows["iteration"]) == [2, 3, 4, 6, 7]
    assert list(rows["count"]) == [1.5, 3, 4, 5.5, 7]
    assert rows["val_dice"].isna().all()
    # The step size of iteration i along the cosine: 0.1 (1 + cos π (i − 1) / 7) / 2.
    cosine = [0.05 * (1 + math.cos(math.pi * (i - 1) / 7)) for i in (2, 3, 4, 6, 7)]
    assert list(rows["learning_rate"]) == pytest.approx(cosine)
    assert (rows["seconds"] >= 0).all()
    assert rows["seconds"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("wanted", "amx", "expected", "reason"),
    [
        ("auto", True, "bf16", "AMX"),
        ("auto", False, "fp32", "without AMX"),
        ("bf16", False, "bf16", "as set"),
        ("fp32", True, "fp32", "as set"),
    ],
)
def test_steps_and_validation_run_in_the_precision_that_is_logged_and_kept_in_the_checkpoint(
    wanted, amx, expected, reason, fit, monkeypatch, caplog
):
    processor = Processor("GenuineIntel", avx512_bf16=True, amx_bf16=amx)
    monkeypatch.setattr(precision, "read_processor", lambda: processor)
    kept, dtypes = [], []

    class RecordingCheckpoint(loop.Checkpoint):
        def __init__(self, folder, name, dependencies):
            kept.append(dependencies["precision"])
            super().__init__(folder, name, dependencies)

    def multiply():
        dtypes.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)

    def step(model, *_):
        multiply()
        return {"loss": model.weight**2}

    def predict(model, batch):
        multiply()
        return batch["mask"] > 0

    monkeypatch.setattr(loop, "Checkpoint", RecordingCheckpoint)
    with caplog.at_level("INFO", logger="stages"):
        fit(step, MASKS, predict, iterations=2, validate_every=1, precision=wanted)
    lines = [line for line in caplog.messages if line.startswith("precision:")]
    assert len(lines) == 1 and f"precision: {expected} (" in lines[0] and reason in lines[0]
    assert kept == [expected]
    assert dtypes == 4 * [{"bf16": torch.bfloat16, "fp32": torch.float32}[expected]]


def test_the_learning_rate_falls_to_the_final_one():
    options = OptimisationSettings(iterations=4, learning_rate=1, final_learning_rate=0.2)
    # Half way of the cosine: the mean of both ends.
    assert loop.learning_rate(1, options) == 1
    assert loop.learning_rate(3, options) == pytest.approx(0.6)
    assert loop.learning_rate(5, options) == pytest.approx(0.2)


def test_weights_and_gradients_become_views_of_one_vector_each():
    def build():
        inner = nn.Sequential(nn.Conv2d(3, 5, 3), nn.PReLU(), nn.Conv2d(5, 2, 1))
        return inner.to(memory_format=torch.channels_last)

    torch.manual_seed(0)
    network = build()
    apart = build()
    apart.load_state_dict(network.state_dict())
    flat = loop.flatten_parameters(list(network.parameters()))
    image = torch.arange(2 * 3 * 6 * 6.0).view(2, 3, 6, 6) / 100
    for model in (network, apart):
        model(image).square().sum().backward()
    for (name, one), other in zip(network.named_parameters(), apart.parameters(), strict=True):
        assert one.shape == other.shape and one.stride() == other.stride(), name
        assert torch.equal(one, other) and torch.equal(one.grad, other.grad), name
        assert one.data_ptr() % 64 == flat.data_ptr() % 64, name
    # The padding between them is zero.
    count = sum(parameter.count_nonzero() for parameter in apart.parameters())
    assert flat.count_nonzero() == count
    assert flat.grad.norm().item() == pytest.approx(
        torch.cat([parameter.grad.flatten() for parameter in apart.parameters()]).norm().item()
    )
    with torch.no_grad():
        flat += 1
    assert all(
        torch.equal(one, other + 1)
        for one, other in zip(network.parameters(), apart.parameters(), strict=True)
    )


def test_frozen_parameters_do_not_change(fit):
    def step(model, *_):
        return {"loss": (model.weight * model.frozen).sum() ** 2}

    model, _ = fit(step, optimiser="sgd", weight_decay=0.5, clip=0, learning_rate=0.01)
    assert model.weight.item() < 4.9
    assert model.frozen.item() == 1


def test_weights_that_are_not_finite_after_the_last_step_are_refused(fit):
    # A loss of 0 with an infinite slope.
    with pytest.raises(BadInput, match="weights"):
        fit(
            lambda model, *_: {"loss": (model.weight - model.weight.detach()).abs().sqrt()},
            iterations=1,
        )


def test_the_first_step_of_adam_is_the_learning_rate(fit):
    model, _ = fit(lambda model, *_: {"loss": model.weight**2}, iterations=1)
    assert model.weight.item() == pytest.approx(5 - 0.1)


def test_the_first_step_of_sgd_follows_the_gradient_with_momentum_and_decay(fit):
    # Gradient 2 · 5 + 0.5 · 5 = 12.5; Nesterov's first step is (1 + momentum) · gradient.
    model, _ = fit(
        lambda model, *_: {"loss": model.weight**2},
        iterations=1, optimiser="sgd", momentum=0.6, weight_decay=0.5, clip=0, learning_rate=0.01,
    )  # fmt: skip
    assert model.weight.item() == pytest.approx(5 - 0.01 * 1.6 * 12.5)


def test_gradients_are_clipped_to_the_largest_norm(fit):
    model, _ = fit(
        lambda model, *_: {"loss": model.weight**2},
        iterations=1, optimiser="sgd", clip=2, learning_rate=0.1,
    )  # fmt: skip
    assert model.weight.item() == pytest.approx(5 - 0.1 * 1.9 * 2)


def test_training_minimises_only_the_term_loss(fit):
    def step(model, *_):
        return {"loss": (model.weight - 4) ** 2, "other": (model.weight + 100) ** 2}

    model, rows = fit(step, iterations=200, log_every=50)
    assert model.weight.item() == pytest.approx(4, abs=0.02)
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]


def test_a_step_gets_its_batch_and_iterations_from_1(fit):
    has_text = []

    def step(model, batch, iteration):
        has_text.append((iteration, batch["image"].tolist()))
        return {"loss": model.weight}

    fit(step, iterations=3)
    assert [iteration for iteration, _ in has_text] == [1, 2, 3]
    assert sorted(i for _, batch in has_text for i in batch) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_the_next_row(value, fit):
    batches = []

    def step(model, batch, iteration):
        batches.append(batch["image"].int().tolist())
        return {"loss": model.weight * (value if iteration == 4 else 1)}

    wanted = r"student: loss[^$]*nan[^$]*3 iterations up to 6; the first is 4, [^$]*learning_rate"
    with pytest.raises(BadInput, match=wanted) as error:
        fit(step, log_every=3, validate_every=8)
    assert ", ".join(f"sample{index}" for index in batches[3]) in str(error.value)


def test_the_moving_average_of_the_weights_is_the_result(fit):
    # Each step changes the weight by the learning rate, 0.1: 4.9, 4.8, 4.7. The average starts
    # at the first: 4.9, then half of it and half of the next: 4.85, 4.775.
    model, _ = fit(
        lambda model, *_: {"loss": model.weight},
        iterations=3, ema=0.5, optimiser="adam", final_learning_rate=0.1,
    )  # fmt: skip
    assert model.weight.item() == pytest.approx(4.775, abs=1e-4)


def predict_shares(*dice):
    """Return a predict function with the listed shares of four pixels, validation by validation."""
    shares = iter(dice)

    def predict(model, batch):
        # k of 4 predicted: 2k / (k + 4).
        k = round(4 * next(shares))
        return (torch.arange(4) < k).reshape(1, 2, 2)

    return predict


def test_patience_stops_early_with_the_weights_of_the_best_validation(fit):
    # Validations at 1, 2, 3, …: the second is the best; two worse ones stop it at 4.
    model, rows = fit(
        lambda model, *_: {"loss": model.weight}, val=MASKS,
        predict=predict_shares(0.25, 0.75, 0.5, 0.5, 1),
        iterations=9, validate_every=1, patience=2, final_learning_rate=0.1,
    )  # fmt: skip
    assert list(rows["iteration"]) == [1, 2, 3, 4]
    assert model.weight.item() == pytest.approx(5 - 2 * 0.1, abs=1e-4)


def test_without_patience_the_last_weights_are_the_result(fit):
    model, rows = fit(
        lambda model, *_: {"loss": model.weight}, val=MASKS,
        predict=predict_shares(0.25, 0.75, 0.5),
        iterations=3, validate_every=1, final_learning_rate=0.1,
    )  # fmt: skip
    assert list(rows["val_dice"]) == pytest.approx([2 / 5, 6 / 7, 4 / 6])
    assert model.weight.item() == pytest.approx(5 - 3 * 0.1, abs=1e-4)


def test_patience_without_validation_masks_is_refused(fit):
    with pytest.raises(BadInput, match=r"no sample with a mask[^$]*leave `patience` out"):
        fit(lambda model, *_: {"loss": model.weight}, patience=2)


# The stages


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def teacher(files, tmp_path_factory):
    return train_tiny_teacher(files, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def student(files, teacher, tmp_path_factory):
    return train_tiny_student(files, tmp_path_factory.mktemp("student"), teacher)


def copy_files(files, folder):
    """Copy the files so that a test can change them."""
    return {name: shutil.copy(path, folder / path.name) for name, path in files.items()}


def rerun(role, files, teacher, folder, seed=0):
    folder.mkdir()
    if role == "teacher":
        return train_tiny_teacher(files, folder, seed)
    return train_tiny_student(files, folder, teacher, seed)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_two_runs_are_equal_and_another_seed_differs(role, files, teacher, tmp_path, request):
    first = request.getfixturevalue(role)
    second = rerun(role, files, teacher, tmp_path / "again")
    assert same_weights(second, first)
    pd.testing.assert_frame_equal(
        read_history(second).drop(columns="seconds"), read_history(first).drop(columns="seconds")
    )
    assert not same_weights(rerun(role, files, teacher, tmp_path / "other", seed=1), first)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_two_runs_write_the_same_bytes(role, files, teacher, tmp_path, request):
    again = rerun(role, files, teacher, tmp_path / "again")
    assert again.read_bytes() == request.getfixturevalue(role).read_bytes()


def test_histories_have_a_column_for_each_term(teacher, student):
    rows = read_history(teacher)
    assert list(rows) == ["iteration", "loss", "learning_rate", "seconds", "val_dice"]
    assert list(rows["iteration"]) == [1, 2, 3]
    assert rows["val_dice"].notna().tolist() == [False, True, True]
    rows = read_history(student)
    assert next(iter(rows)) == "iteration"
    assert {"loss", "gaze", "afc", "cwc", "learning_rate", "seconds", "val_dice"} <= set(rows)
    assert np.isfinite(rows.drop(columns="val_dice")).all(axis=None)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_the_weights_file_alone_rebuilds_the_network(role, tmp_path, request):
    source = request.getfixturevalue(role)
    moved = shutil.copy(source, tmp_path / "weights.safetensors")
    model = models.load(moved, role)
    assert model.architecture.widths == (8,) * 6
    assert model.architecture.size == SIZE
    weights = load_file(source)
    assert set(weights) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])


def test_the_weights_file_holds_its_provenance(student, teacher, files):
    with safe_open(student, "pt") as file:
        made = " ".join(file.metadata().values())
    for path in (*files.values(), teacher):
        assert io.sha256(path) in made
    for word in ("student", "seed", "torch"):
        assert word in made


def test_training_reduces_the_loss_and_finds_the_region(files, tmp_path):
    weights = train_tiny_student(files, tmp_path, iterations=60, log_every=20, validate_every=60)
    rows = read_history(weights)
    assert rows["loss"].iloc[-1] < 0.5 * rows["loss"].iloc[0]
    assert rows["val_dice"].iloc[-1] > 0.6


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_samples_without_gaze_validation_and_test_do_not_change_the_weights(
    role, files, teacher, student, tmp_path, request
):
    changed = copy_files(files, tmp_path)
    others = np.flatnonzero(HAS_GAZE == 0)
    with h5py.File(changed["prepared"], "r+") as file:
        # Training uses only weak labels: it reads no mask either.
        file["mask"][...] = 1 - file["mask"][()]
        for i in others:
            file["image"][i] = 255 - file["image"][i]
    weights = (
        train_tiny_teacher(changed, tmp_path)
        if role == "teacher"
        else train_tiny_student(changed, tmp_path, teacher)
    )
    before = request.getfixturevalue(role)
    assert same_weights(weights, before)
    assert list(read_history(weights)["val_dice"].dropna()) != list(
        read_history(before)["val_dice"].dropna()
    )


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_training_works_without_masks_and_without_validation(role, files, teacher, tmp_path):
    changed = copy_files(files, tmp_path)
    with h5py.File(changed["prepared"], "r+") as file:
        file["has_mask"][...] = False
        file["split"][...] = ["train"] * 8 + ["test"] * 4
    weights = (
        train_tiny_teacher(changed, tmp_path)
        if role == "teacher"
        else train_tiny_student(changed, tmp_path, teacher)
    )
    assert read_history(weights)["val_dice"].isna().all()
    assert read_history(weights)["loss"].notna().all()


def test_a_data_set_without_gaze_is_refused(files, tmp_path):
    changed = copy_files(files, tmp_path)
    with h5py.File(changed["gaze"], "r+") as file:
        file["has_gaze"][...] = False
    with pytest.raises(BadInput, match=r"gaze\.h5.*\n.*no sample with gaze"):
        train_tiny_teacher(changed, tmp_path)
    assert not (tmp_path / "teacher.safetensors").exists()


# Text


def fusion_weights(path):
    return {k: v for k, v in load_file(path).items() if "fusion" in k or k == "text_weight"}


def test_text_that_is_always_dropped_does_not_change_the_fusion(files, tmp_path):
    always = train_tiny_teacher(files, tmp_path, text_dropout=1 - 1e-9)
    untouched = models.build(models.load(always, "teacher").architecture, seed=0).state_dict()
    for name, value in fusion_weights(always).items():
        assert torch.equal(value, untouched[name]), name


def test_text_that_is_never_dropped_changes_the_fusion(files, tmp_path):
    never = train_tiny_teacher(files, tmp_path, text_dropout=0)
    untouched = models.build(models.load(never, "teacher").architecture, seed=0).state_dict()
    for scale in (1, 2, 3, 4):
        name = f"fusion_x{scale}.text_proj.weight"
        assert not torch.equal(load_file(never)[name], untouched[name])


def test_the_share_of_dropped_text_follows_the_settings(files, tmp_path, monkeypatch):
    has_text = []
    forward = models.Teacher.forward

    def look(self, image, text=None):
        if self.training:
            has_text.extend((text != 0).any(dim=2).any(dim=1).tolist())
        return forward(self, image, text)

    monkeypatch.setattr(models.Teacher, "forward", look)
    train_tiny_teacher(files, tmp_path, text_dropout=0.3, iterations=60, batch_size=7)
    # 420 samples, each with text at 0.7: ± 0.022; four standard deviations.
    assert len(has_text) == 420
    assert np.mean(has_text) == pytest.approx(0.7, abs=0.09)


def input_roles(made):
    """Return the roles of a result's inputs."""
    if made.suffix == ".h5":
        with h5py.File(made) as file:
            return set(json.loads(file.attrs["inputs"]))
    with safe_open(made, "pt") as file:
        return set(json.loads(json.loads(file.metadata()["about"])["inputs"]))


def test_a_teacher_without_text_has_no_fusion_and_needs_no_explanations(files, tmp_path):
    no_explanations = {name: path for name, path in files.items() if name != "explanations"}
    plain = train_tiny_teacher(no_explanations, tmp_path, text=False)
    assert models.load(plain, "teacher").architecture.text_width == 0
    assert not fusion_weights(plain)
    assert same_weights(train_tiny_teacher(files, tmp_path / "told", text=False), plain)
    # Nor does any result made from it.
    student = train_tiny_student(no_explanations, tmp_path, plain)
    output = tmp_path / "predictions.h5"
    predict(files["prepared"], student, output, PLAIN, 1, 0, teacher=plain)
    for made in (plain, student, tmp_path / "pseudolabels.h5", output):
        assert "explanations" not in input_roles(made)


def test_a_teacher_that_reads_text_requires_explanations(files, teacher, student, tmp_path):
    no_explanations = {name: path for name, path in files.items() if name != "explanations"}
    with pytest.raises(BadInput, match="--explanations"):
        train_tiny_teacher(no_explanations, tmp_path)
    with pytest.raises(BadInput, match="--explanations"):
        make_tiny_pseudolabels(no_explanations, tmp_path, teacher, StudentSettings().target_crf)
    with pytest.raises(BadInput, match="--explanations"):
        predict(files["prepared"], student, tmp_path / "p.h5", PLAIN, 1, 0, teacher=teacher)
    with pytest.raises(BadInput, match=r"teacher\.safetensors: text_width[^$]*--explanations"):
        train_tiny_student(no_explanations, tmp_path, teacher, target_crf=None)
    assert not list(tmp_path.rglob("*.h5")) + list(tmp_path.rglob("*.safetensors"))


# What the teacher trusts


def test_another_background_changes_the_teacher_only_if_it_changes_the_labels(
    files, teacher, tmp_path
):
    # The broad pseudomask has 0.31 and more, all outside it 0.
    assert same_weights(train_tiny_teacher(files, tmp_path / "same", background=0.3), teacher)
    assert same_weights(train_tiny_teacher(files, tmp_path / "none", background=None), teacher)


def test_a_background_above_the_broad_threshold_is_refused(files, tmp_path):
    with pytest.raises(BadInput, match=r"gaze\.h5[^$]*0\.3, with `background` 0\.4"):
        train_tiny_teacher(files, tmp_path, background=0.4)


# A student without a teacher


@pytest.mark.parametrize("labels", ["pseudomask", "mask"])
def test_a_student_without_a_teacher_has_one_loss_and_no_alignment_layers(labels, files, tmp_path):
    weights = train_tiny_student(files, tmp_path, labels=labels)
    assert list(read_history(weights)) == [
        "iteration",
        "loss",
        "learning_rate",
        "seconds",
        "val_dice",
    ]
    assert models.load(weights, "student").architecture.teacher_widths == ()
    assert not [name for name in load_file(weights) if "distill" in name or "adapter" in name]


def test_training_on_masks_requires_a_mask(files, tmp_path):
    changed = copy_files(files, tmp_path)
    with h5py.File(changed["prepared"], "r+") as file:
        file["has_mask"][...] = [False] * 8 + [True] * 4
    with pytest.raises(BadInput, match=r"prepared\.h5.*\n.*no sample with a mask"):
        train_tiny_student(changed, tmp_path, labels="mask")


# Predictions

PLAIN, READ = PredictSettings(), PredictSettings(attention=True)


@pytest.fixture(scope="module")
def predictions(files, teacher, student, tmp_path_factory):
    output = tmp_path_factory.mktemp("predictions") / "predictions.h5"
    predict(files["prepared"], student, output, PLAIN, 1, 0, files["explanations"], teacher)
    return output


def test_predictions_are_only_for_validation_and_test(predictions, files, teacher, student):
    maps = ("probability", "teacher_probability", "ensemble_probability")
    with h5py.File(predictions) as file:
        assert set(file) == {*maps, "sample_id", "split"}
        assert file["sample_id"].asstr()[()].tolist() == [f"sample {i}" for i in range(8, 12)]
        assert file["split"].asstr()[()].tolist() == SPLIT[8:]
        for name in maps:
            assert file[name].shape == (4, *SIZE)
            assert file[name].dtype == np.float16
            assert file[name].chunks == (1, *SIZE)
            assert 0 <= file[name][()].min() <= file[name][()].max() <= 1
        inputs = {"student": student, "teacher": teacher, "prepared": files["prepared"],
                  "explanations": files["explanations"]}  # fmt: skip
        assert json.loads(file.attrs["inputs"]) == {n: io.sha256(p) for n, p in inputs.items()}


def test_probability_is_the_output_of_the_rebuilt_network(predictions, files, student):
    with h5py.File(files["prepared"]) as source:
        image = normalise(torch.from_numpy(source["image"][8:]).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = models.load(student, "student")(image).logits.softmax(dim=1)[:, 1]
    with h5py.File(predictions) as file:
        assert file["probability"][()] == pytest.approx(expected.numpy(), abs=1e-3)


def test_the_ensemble_is_the_mean_of_the_logits(predictions):
    with h5py.File(predictions) as file:
        student, teacher, both = (
            file[name][()].astype(float)
            for name in ("probability", "teacher_probability", "ensemble_probability")
        )
    # The logit of a foreground probability is log p / (1 − p), the difference of both channels.
    logit = (np.log(student / (1 - student)) + np.log(teacher / (1 - teacher))) / 2
    assert both == pytest.approx(1 / (1 + np.exp(-logit)), abs=2e-3)


def test_a_student_without_its_teacher_predicts_the_same(files, student, predictions, tmp_path):
    predict(files["prepared"], student, tmp_path / "alone.h5", PLAIN, 1, 0)
    with h5py.File(tmp_path / "alone.h5") as alone, h5py.File(predictions) as file:
        assert set(alone) == {"probability", "sample_id", "split"}
        assert np.array_equal(alone["probability"], file["probability"])


def test_the_batch_size_does_not_change_predictions(
    files, student, teacher, predictions, tmp_path, monkeypatch
):
    monkeypatch.setattr("stages.evaluation.predict.BATCH_SIZE", 3)
    predict(
        files["prepared"], student, tmp_path / "b.h5", PLAIN, 1, 0, files["explanations"], teacher
    )
    with h5py.File(tmp_path / "b.h5") as other, h5py.File(predictions) as file:
        for name in ("probability", "teacher_probability"):
            assert other[name][()] == pytest.approx(file[name][()], abs=1e-3)


def test_weights_of_the_other_role_are_refused(files, teacher, tmp_path):
    with pytest.raises(BadInput, match="role"):
        predict(files["prepared"], teacher, tmp_path / "predictions.h5", PLAIN, 1, 0)
    assert not (tmp_path / "predictions.h5").exists()


def add_texts(files, folder, *indices):
    """Copy the explanations and add a text for the samples `indices`."""
    path = shutil.copy(files["explanations"], folder / "explanations.h5")
    rng = np.random.default_rng(1)
    with h5py.File(path, "r+") as file:
        for i in indices:
            file["embedding"][i] = rng.normal(size=(2, 16))
    return path


def test_attention_is_written_if_requested_and_only_for_samples_with_text(
    files, student, teacher, tmp_path, monkeypatch
):
    # Of the predicted samples 8 to 11, one in the second batch of three and one in the first.
    monkeypatch.setattr("stages.evaluation.predict.BATCH_SIZE", 3)
    texts, paths = add_texts(files, tmp_path, 9, 11), [tmp_path / "read.h5", tmp_path / "plain.h5"]
    for path, asked in zip(paths, (READ, PLAIN)):
        predict(files["prepared"], student, path, asked, 1, 0, texts, teacher)
    strides = (2, 4, 8, 16)
    with h5py.File(paths[0]) as read, h5py.File(paths[1]) as plain:
        assert set(read) - set(plain) == {f"attention_{scale}" for scale in (1, 2, 3, 4)}
        for name in plain:
            if name not in ("sample_id", "split"):
                assert read[name][()] == pytest.approx(plain[name][()], abs=1e-3)
        for scale, stride in enumerate(strides, start=1):
            share = read[f"attention_{scale}"]
            assert share.shape == (4, 2, SIZE[0] // stride, SIZE[1] // stride)
            assert share.dtype == np.float16
            assert share.chunks == (1, *share.shape[1:])
            # Two shares in float16, each rounded by at most 2⁻¹².
            assert share[[1, 3]].astype(float).sum(axis=1) == pytest.approx(1, abs=2**-11)
            assert not share[[0, 2]].any()
        assert json.loads(read.attrs["params"]) == {"attention": True}


def test_log_odds_that_are_not_finite_are_refused(files, student, tmp_path):
    network = models.load(student, "student")
    network.classifier.bias.data[1] = math.inf
    broken, output = tmp_path / "student.safetensors", tmp_path / "predictions.h5"
    models.save(network, broken, {})
    with pytest.raises(BadInput, match=r"probability[^$]*infinity or NaN"):
        predict(files["prepared"], broken, output, PLAIN, 1, 0)
    assert not output.exists()


def test_attention_of_networks_that_read_no_text_is_not_written(files, student, tmp_path):
    blind = train_tiny_teacher(files, tmp_path, text=False)
    options = ((), (files["explanations"], blind))
    for i, networks in enumerate(options):
        output = tmp_path / f"{i}.h5"
        predict(files["prepared"], student, output, READ, 1, 0, *networks)
        with h5py.File(output) as file:
            assert not [name for name in file if name.startswith("attention")]
