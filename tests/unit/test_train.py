"""The training loop, and teacher, student and predictions end to end on twelve tiny images."""

import json
import math
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import disc
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from stages import images, io, models, train
from stages.cli import BadInput
from stages.predict import predict
from stages.settings.predict import PredictSettings
from stages.settings.training import OptimisationSettings, StudentSettings, TeacherSettings
from stages.student import train_student
from stages.teacher import train_teacher

SIZE = (32, 32)
SPLIT = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
# Nobody looked at the first sample, at validation and at test.
LOOKED_AT = np.array([0] + [1] * 7 + [0] * 4)
TINY = {
    "widths": (8,) * 6, "head_width": 8, "iterations": 3, "batch_size": 2, "log_every": 1,
    "validate_every": 2,
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Batches


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 99))
def test_each_sample_comes_once_before_any_comes_again(n, size, seed):
    found = train.batches(n, size, generator(seed))
    drawn = []
    while len(drawn) < 3 * n:
        batch = next(found)
        assert len(batch) == size
        drawn += batch.tolist()
    for epoch in range(3):
        assert sorted(drawn[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_differ_in_their_order_and_a_seed_fixes_them():
    def draw(seed):
        found = train.batches(50, 50, generator(seed))
        return [next(found).tolist() for _ in range(2)]

    first, second = draw(0)
    assert first != second
    assert draw(0) == [first, second] != draw(1)


# Validation


def test_validation_dice_is_the_mean_over_the_samples_with_a_mask():
    # Prediction and truth of 4 px: 2 · 1 / (2 + 1), both empty: 1, no mask: left out, 0 of 3: 0.
    predicted = [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    truth = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    batch = {
        "image": torch.tensor(predicted).reshape(4, 1, 2, 2),
        "mask": torch.tensor(truth, dtype=torch.uint8).reshape(4, 2, 2),
        "has_mask": torch.tensor([True, True, False, True]),
    }
    for size in (1, 2, 8):
        dice = train.validation_dice(lambda part: part["image"][:, 0].bool(), batch, size)
        assert dice == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_validation_dice_is_nan_where_nothing_can_be_compared():
    batch = {"mask": torch.zeros(2, 2, 2), "has_mask": torch.tensor([False, False])}
    assert math.isnan(train.validation_dice(lambda part: part["mask"].bool(), batch, 8))


# The loop


class Point(nn.Module):
    """One number, to be trained towards another."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(5.0))


def fit(step, model=None, **changes):
    options = {"iterations": 7, "batch_size": 2, "learning_rate": 0.1, "log_every": 2,
               "validate_every": 3} | changes  # fmt: skip
    data = {"image": torch.arange(6.0)}
    point = model or Point()
    rows = train.fit(
        point,
        lambda batch, iteration: step(point, batch, iteration),
        data,
        lambda: 0.5,
        OptimisationSettings(**options),
        generator(),
        "point",
    )
    return point, rows


def test_the_history_has_the_mean_of_each_term_since_the_row_before():
    def step(point, batch, iteration):
        return {"loss": point.at**2, "count": torch.tensor(float(iteration))}

    _, rows = fit(step)
    assert list(rows) == ["iteration", "loss", "count", "learning_rate", "seconds", "val_dice"]
    # Every second, every third for validation, and the last.
    assert list(rows["iteration"]) == [2, 3, 4, 6, 7]
    assert list(rows["count"]) == [1.5, 3, 4, 5.5, 7]
    assert list(rows["val_dice"].fillna(-1)) == [-1, 0.5, -1, 0.5, 0.5]
    # The step size of iteration i along the cosine: 0.1 (1 + cos π (i − 1) / 7) / 2.
    cosine = [0.05 * (1 + math.cos(math.pi * (i - 1) / 7)) for i in (2, 3, 4, 6, 7)]
    assert list(rows["learning_rate"]) == pytest.approx(cosine)
    assert (rows["seconds"] >= 0).all()
    assert rows["seconds"].is_monotonic_increasing


def test_the_first_step_of_adam_is_the_learning_rate():
    point, _ = fit(lambda point, *_: {"loss": point.at**2}, iterations=1)
    assert point.at.item() == pytest.approx(5 - 0.1)


def test_it_minimises_the_term_loss_and_no_other():
    def step(point, *_):
        return {"loss": (point.at - 4) ** 2, "other": (point.at + 100) ** 2}

    point, rows = fit(step, iterations=200, log_every=50)
    assert point.at.item() == pytest.approx(4, abs=0.02)
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]


def test_a_step_gets_its_batch_and_iterations_from_1():
    seen = []

    def step(point, batch, iteration):
        seen.append((iteration, batch["image"].tolist()))
        return {"loss": point.at}

    fit(step, iterations=3)
    assert [iteration for iteration, _ in seen] == [1, 2, 3]
    assert sorted(i for _, batch in seen for i in batch) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_its_iteration(value):
    def step(point, batch, iteration):
        return {"loss": point.at * (value if iteration == 3 else 1)}

    with pytest.raises(FloatingPointError, match=f"point: loss {value} at iteration 3"):
        fit(step, log_every=1)


# The stages


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Twelve images with a brighter disc, gaze on seven of them, two words of text each."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    n, ids = len(SPLIT), [f"sample {i}" for i in range(len(SPLIT))]
    discs = [[disc(SIZE, (16, 10 + i), radius) for radius in (4, 6, 8)] for i in range(n)]
    precise, mask, broad = (np.array(masks, np.uint8) for masks in zip(*discs))
    paths = {name: folder / f"{name}.h5" for name in ("prepared", "gaze", "explanations")}
    with io.create_h5(paths["prepared"], "prepare", {}, {}) as file:
        image = io.sample_dataset(file, "image", (n, *SIZE, 3), np.uint8)
        image[...] = rng.integers(60, 100, (n, *SIZE, 3)) + 90 * mask[..., None]
        file["mask"], file["has_mask"] = mask, np.ones(n, bool)
        io.write_strings(file, "split", SPLIT)
        io.write_strings(file, "sample_id", ids)
    with io.create_h5(paths["gaze"], "gaze", {}, {}) as file:
        file["pseudomask"] = np.stack([precise, broad], 1) * LOOKED_AT[:, None, None, None]
        file["has_gaze"] = LOOKED_AT > 0
        io.write_strings(file, "sample_id", ids)
    with io.create_h5(paths["explanations"], "embed", {}, {}) as file:
        text = rng.normal(size=(n, 2, 16)) * LOOKED_AT[:, None, None]
        file["embedding"] = text.astype(np.float32)
        io.write_strings(file, "sample_id", ids)
    return paths


def teach(files, folder, seed=0, **changes):
    """Train a teacher; return its weights file."""
    output = folder / "teacher.safetensors"
    train_teacher(
        **files,
        output=output,
        history=folder / "teacher_history.csv",
        settings=TeacherSettings(**TINY | changes),
        seed=seed,
        threads=1,
        gpus=0,
    )
    return output


def study(files, folder, teacher=None, seed=0, **changes):
    """Train a student of `teacher`, or without one; return its weights file."""
    output = folder / "student.safetensors"
    options = StudentSettings(**TINY | {"distil": teacher is not None} | changes)
    inputs = {"prepared": files["prepared"]}
    if options.labels == "pseudomask":
        inputs["gaze"] = files["gaze"]
    if teacher is not None:
        inputs |= {"explanations": files["explanations"], "teacher": teacher}
    train_student(
        **inputs,
        output=output,
        history=folder / "student_history.csv",
        settings=options,
        seed=seed,
        threads=1,
        gpus=0,
    )
    return output


@pytest.fixture(scope="module")
def teacher(files, tmp_path_factory):
    return teach(files, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def student(files, teacher, tmp_path_factory):
    return study(files, tmp_path_factory.mktemp("student"), teacher)


def history(weights):
    return pd.read_csv(weights.with_name(f"{weights.stem}_history.csv"))


def copies(files, folder):
    """The files again, free to be changed."""
    return {name: shutil.copy(path, folder / path.name) for name, path in files.items()}


def same(first, second):
    one, two = load_file(first), load_file(second)
    return all(torch.equal(one[name], two[name]) for name in one | two)


def rerun(role, files, teacher, folder, seed=0):
    folder.mkdir()
    if role == "teacher":
        return teach(files, folder, seed)
    return study(files, folder, teacher, seed)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_two_runs_are_equal_and_another_seed_is_not(role, files, teacher, tmp_path, request):
    first = request.getfixturevalue(role)
    second = rerun(role, files, teacher, tmp_path / "again")
    assert same(second, first)
    pd.testing.assert_frame_equal(
        history(second).drop(columns="seconds"), history(first).drop(columns="seconds")
    )
    assert not same(rerun(role, files, teacher, tmp_path / "other", seed=1), first)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_two_runs_write_the_same_bytes(role, files, teacher, tmp_path, request):
    again = rerun(role, files, teacher, tmp_path / "again")
    assert again.read_bytes() == request.getfixturevalue(role).read_bytes()


def test_histories_have_a_column_for_each_term(teacher, student):
    rows = history(teacher)
    assert list(rows) == ["iteration", "loss", "learning_rate", "seconds", "val_dice"]
    assert list(rows["iteration"]) == [1, 2, 3]
    assert rows["val_dice"].notna().tolist() == [False, True, True]
    rows = history(student)
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


def test_the_weights_tell_of_their_making(student, teacher, files):
    with safe_open(student, "pt") as file:
        made = " ".join(file.metadata().values())
    for path in (*files.values(), teacher):
        assert io.sha256(path) in made
    for word in ("student", "seed", "torch"):
        assert word in made


def test_training_learns(files, tmp_path):
    weights = study(files, tmp_path, iterations=60, log_every=20, validate_every=60)
    rows = history(weights)
    assert rows["loss"].iloc[-1] < 0.5 * rows["loss"].iloc[0]
    assert rows["val_dice"].iloc[-1] > 0.6


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_neither_validation_nor_test_nor_the_unseen_change_the_weights(
    role, files, teacher, student, tmp_path, request
):
    changed = copies(files, tmp_path)
    others = np.flatnonzero(LOOKED_AT == 0)
    with h5py.File(changed["prepared"], "r+") as file:
        # Weak labels alone are learned from: no mask is read either.
        file["mask"][...] = 1 - file["mask"][()]
        for i in others:
            file["image"][i] = 255 - file["image"][i]
    weights = teach(changed, tmp_path) if role == "teacher" else study(changed, tmp_path, teacher)
    before = request.getfixturevalue(role)
    assert same(weights, before)
    assert list(history(weights)["val_dice"].dropna()) != list(history(before)["val_dice"].dropna())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_data_set_without_any_mask_or_validation_can_be_trained_on(
    role, files, teacher, tmp_path
):
    changed = copies(files, tmp_path)
    with h5py.File(changed["prepared"], "r+") as file:
        file["has_mask"][...] = False
        file["split"][...] = ["train"] * 8 + ["test"] * 4
    weights = teach(changed, tmp_path) if role == "teacher" else study(changed, tmp_path, teacher)
    assert history(weights)["val_dice"].isna().all()
    assert history(weights)["loss"].notna().all()


def test_a_data_set_that_nobody_looked_at_cannot(files, tmp_path):
    changed = copies(files, tmp_path)
    with h5py.File(changed["gaze"], "r+") as file:
        file["has_gaze"][...] = False
    with pytest.raises(BadInput, match=r"gaze\.h5.*\n.*no sample with gaze"):
        teach(changed, tmp_path)
    assert not (tmp_path / "teacher.safetensors").exists()


# Text


def fusion_weights(path):
    return {k: v for k, v in load_file(path).items() if "fusion" in k or k == "text_weight"}


def test_text_that_is_always_dropped_teaches_nothing(files, tmp_path):
    always = teach(files, tmp_path, text_dropout=1 - 1e-9)
    untouched = models.build(models.load(always, "teacher").architecture, seed=0).state_dict()
    for name, value in fusion_weights(always).items():
        assert torch.equal(value, untouched[name]), name


def test_text_that_is_never_dropped_is_learned_from(files, tmp_path):
    never = teach(files, tmp_path, text_dropout=0)
    untouched = models.build(models.load(never, "teacher").architecture, seed=0).state_dict()
    for scale in (1, 2, 3, 4):
        name = f"fusion_x{scale}.text_proj.weight"
        assert not torch.equal(load_file(never)[name], untouched[name])


def test_the_share_of_dropped_text_is_the_settings(files, tmp_path, monkeypatch):
    seen = []
    forward = models.Teacher.forward

    def look(self, image, text=None):
        if self.training:
            seen.extend((text != 0).any(dim=2).any(dim=1).tolist())
        return forward(self, image, text)

    monkeypatch.setattr(models.Teacher, "forward", look)
    teach(files, tmp_path, text_dropout=0.3, iterations=60, batch_size=7)
    # 420 samples, each with text at 0.7: ± 0.022; four standard deviations.
    assert len(seen) == 420
    assert np.mean(seen) == pytest.approx(0.7, abs=0.09)


def test_a_teacher_without_text_has_nothing_to_fuse(files, tmp_path):
    plain = teach(files, tmp_path, text=False)
    assert models.load(plain, "teacher").architecture.text_width == 0
    assert not fusion_weights(plain)


# A student without a teacher


@pytest.mark.parametrize("labels", ["pseudomask", "mask"])
def test_a_student_without_a_teacher_has_one_loss_and_nothing_to_align(labels, files, tmp_path):
    weights = study(files, tmp_path, labels=labels)
    assert list(history(weights)) == ["iteration", "loss", "learning_rate", "seconds", "val_dice"]
    assert models.load(weights, "student").architecture.teacher_widths == ()
    assert not [name for name in load_file(weights) if "distill" in name or "adapter" in name]


def test_dense_masks_are_learned_from_where_there_are_any(files, tmp_path):
    changed = copies(files, tmp_path)
    with h5py.File(changed["prepared"], "r+") as file:
        file["has_mask"][...] = [False] * 8 + [True] * 4
    with pytest.raises(BadInput, match=r"prepared\.h5.*\n.*no sample with a mask"):
        study(changed, tmp_path, labels="mask")


# Predictions

PLAIN, READ = PredictSettings(), PredictSettings(attention=True)


@pytest.fixture(scope="module")
def predictions(files, teacher, student, tmp_path_factory):
    output = tmp_path_factory.mktemp("predictions") / "predictions.h5"
    predict(files["prepared"], student, output, PLAIN, 1, 0, files["explanations"], teacher)
    return output


def test_predictions_are_of_validation_and_test_alone(predictions, files, teacher, student):
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


def test_probability_is_what_the_rebuilt_network_says_of_the_image(predictions, files, student):
    with h5py.File(files["prepared"]) as source:
        image = torch.from_numpy(images.normalise(source["image"][8:]))
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


def test_a_student_alone_predicts_alone_and_the_same(files, student, predictions, tmp_path):
    predict(files["prepared"], student, tmp_path / "alone.h5", PLAIN, 1, 0)
    with h5py.File(tmp_path / "alone.h5") as alone, h5py.File(predictions) as file:
        assert set(alone) == {"probability", "sample_id", "split"}
        assert np.array_equal(alone["probability"], file["probability"])


def test_batches_do_not_show(files, student, teacher, predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.predict.BATCH", 3)
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


def explained(files, folder, *indices):
    """The explanations again, with a text for the samples `indices` too."""
    path = shutil.copy(files["explanations"], folder / "explanations.h5")
    rng = np.random.default_rng(1)
    with h5py.File(path, "r+") as file:
        for i in indices:
            file["embedding"][i] = rng.normal(size=(2, 16))
    return path


def test_attention_is_written_where_asked_for_and_where_there_is_text(
    files, student, teacher, tmp_path, monkeypatch
):
    # Of the predicted samples 8 to 11, one in the second batch of three and one in the first.
    monkeypatch.setattr("stages.predict.BATCH", 3)
    texts, paths = explained(files, tmp_path, 9, 11), [tmp_path / "read.h5", tmp_path / "plain.h5"]
    for path, asked in zip(paths, (READ, PLAIN)):
        predict(files["prepared"], student, path, asked, 1, 0, texts, teacher)
    strides = (2, 4, 8, 16)
    with h5py.File(paths[0]) as read, h5py.File(paths[1]) as plain:
        assert set(read) - set(plain) == {f"attention_{stride}" for stride in strides}
        for name in plain:
            if name not in ("sample_id", "split"):
                assert read[name][()] == pytest.approx(plain[name][()], abs=1e-3)
        for stride in strides:
            share = read[f"attention_{stride}"]
            assert share.shape == (4, 2, SIZE[0] // stride, SIZE[1] // stride)
            assert share.dtype == np.float16
            assert share.chunks == (1, *share.shape[1:])
            # Two shares in float16, each rounded by at most 2⁻¹².
            assert share[[1, 3]].astype(float).sum(axis=1) == pytest.approx(1, abs=2**-11)
            assert not share[[0, 2]].any()
        assert json.loads(read.attrs["params"]) == {"attention": True}


def test_attention_of_networks_that_read_no_text_is_not_written(files, student, tmp_path):
    blind = teach(files, tmp_path, text=False)
    options = ((), (files["explanations"], blind))
    for i, networks in enumerate(options):
        output = tmp_path / f"{i}.h5"
        predict(files["prepared"], student, output, READ, 1, 0, *networks)
        with h5py.File(output) as file:
            assert not [name for name in file if name.startswith("attention")]
