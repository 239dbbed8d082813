"""Trainings with an encoder of timm: a tiny model from random and from given weights."""

import h5py
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_training import (
    SIZE,
    make_files,
    read_history,
    same_weights,
    train_tiny_student,
    train_tiny_teacher,
)

from stages.core.cli import BadInput
from stages.deploy.segment import segment_images
from stages.evaluation.evaluate import evaluate
from stages.evaluation.predict import predict
from stages.networks import models
from stages.settings.parts import EncoderSettings
from stages.settings.predict import PredictSettings
from stages.settings.training import TeacherSettings
from stages.training import encoder

NAME = "test_efficientnet"
NETWORK = {"encoder": NAME, "encoder_weights": "none", "decoder_widths": (16, 16, 8, 8, 8)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of the user's own with weights of the tiny model."""
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model(NAME).state_dict(), path)
    return path


def prepare_encoder(folder, name=NAME, weights="none"):
    path = folder / "encoder.safetensors"
    encoder.prepare_encoder(path, EncoderSettings(encoder=name, weights=str(weights)))
    return path


def test_the_file_of_an_encoder_holds_its_weights_and_its_normalisation(tmp_path, weights):
    path = prepare_encoder(tmp_path, weights=weights)
    own = load_file(weights)
    stored = load_file(path)
    assert stored and all(stored[key].equal(own[key]) for key in stored)
    settings = TeacherSettings(**NETWORK)
    loaded = encoder.load_encoder(path, settings)
    assert loaded.architecture["encoder_mean"] == timm.get_pretrained_cfg_value(NAME, "mean")
    assert loaded.architecture["encoder_std"] == timm.get_pretrained_cfg_value(NAME, "std")
    assert set(loaded.weights) == set(stored)


def test_the_file_is_the_same_each_time(tmp_path, weights):
    first = prepare_encoder(tmp_path, weights=weights).read_bytes()
    assert prepare_encoder(tmp_path, weights=weights).read_bytes() == first


@pytest.mark.parametrize(
    ("name", "message"),
    [("test_efficientnte", r"likely|test_efficientnet"), ("test_vit", r"strides \(16, 16, 16\)")],
)
def test_an_encoder_that_cannot_serve_stops_before_any_training(tmp_path, name, message):
    with pytest.raises(BadInput, match=message):
        prepare_encoder(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_the_file_of_another_encoder_is_refused(tmp_path, files):
    path = prepare_encoder(tmp_path, "test_resnet")
    with pytest.raises(BadInput, match=r"found: +test_resnet(.|\n)*expected: test_efficientnet"):
        train_tiny_teacher(files | {"encoder": path}, tmp_path, **NETWORK)


def test_a_training_without_the_file_of_its_encoder_says_how_to_make_it(tmp_path, files):
    with pytest.raises(BadInput, match=r"--encoder(.|\n)*stages\.training\.encoder"):
        train_tiny_teacher(files, tmp_path, **NETWORK)


@pytest.fixture(scope="module")
def trained(files, weights, tmp_path_factory):
    """A teacher and its student on pretrained encoders."""
    folder = tmp_path_factory.mktemp("trained")
    own = files | {"encoder": prepare_encoder(folder, weights=weights)}
    teacher = train_tiny_teacher(own, folder, **NETWORK)
    return teacher, train_tiny_student(own, folder, teacher, **NETWORK)


def test_teacher_and_student_learn_from_their_encoders(trained):
    for path, role in zip(trained, ("teacher", "student")):
        network = models.load(path, role)
        assert network.architecture.encoder == NAME
        assert network.architecture.widths == ()
        history = read_history(path)
        assert np.isfinite(history["loss"]).all()
    # AFC aligns the four scales of both.
    student = models.load(trained[1], "student")
    assert student.architecture.teacher_widths == tuple(student.encoder.scale_widths)
    assert (read_history(trained[1])["afc"] > 0).all()


def test_a_network_is_rebuilt_from_its_file_without_hub_or_package(trained, monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        assert not pretrained
        return create(*args, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    student = models.load(trained[1], "student")
    image = torch.zeros(1, 3, 45, 70)
    with torch.no_grad():
        assert student(image).logits.shape == (1, 2, 45, 70)


def test_predictions_of_a_network_with_an_encoder_are_scored(trained, files, tmp_path):
    teacher, student = trained
    output = tmp_path / "predictions.h5"
    predict(
        prepared=files["prepared"], student=student, output=output,
        settings=PredictSettings(attention=True), threads=1, gpus=0, teacher=teacher,
        explanations=files["explanations"],
    )  # fmt: skip
    with h5py.File(output) as file:
        assert file["probability"].shape == (4, *SIZE)
        assert "teacher_probability" in file and file["attention_4"].shape[1] == 2
    evaluate(files["prepared"], output, tmp_path / "metrics.csv")
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    # Two validation and two test images, by student, teacher and their mean.
    assert len(metrics) == 12 and metrics["dice"].between(0, 1).all()


def test_new_images_are_segmented_at_their_own_size(trained, tmp_path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/frame.png")
    segment_images([trained[1]], [tmp_path / "images"], tmp_path / "masks")
    with Image.open(tmp_path / "masks/frame.png") as mask:
        assert mask.size == (70, 50) and set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize("method", ["single", "gazemedseg", "published"])
def test_every_method_trains_an_encoder(method, files, weights, tmp_path):
    own = files | {"encoder": prepare_encoder(tmp_path, weights=weights)}
    student = train_tiny_student(own, tmp_path, method=method, **NETWORK)
    assert models.load(student, "student").architecture.encoder == NAME


def test_training_starts_from_the_given_weights(files, weights, tmp_path):
    own = files | {"encoder": prepare_encoder(tmp_path, weights=weights)}
    # So small a step changes nothing that a comparison to 1e-5 would see.
    still = {"learning_rate": 1e-9, "iterations": 1}
    student = train_tiny_student(own, tmp_path, **NETWORK, **still)
    found = load_file(student)
    given = load_file(weights)
    compared = [key for key in given if f"encoder.backbone.{key}" in found]
    assert len(compared) > 20
    for key in compared:
        torch.testing.assert_close(found[f"encoder.backbone.{key}"], given[key], atol=1e-5, rtol=0)


def test_statistics_of_the_encoders_batch_norm_stay(files, weights, tmp_path):
    own = files | {"encoder": prepare_encoder(tmp_path, weights=weights)}
    found = load_file(train_tiny_student(own, tmp_path, **NETWORK))
    given = load_file(weights)
    assert found["encoder.backbone.bn1.running_mean"].equal(given["bn1.running_mean"])
    assert not found["encoder.backbone.bn1.weight"].equal(given["bn1.weight"])


def test_the_encoder_has_its_own_learning_rate(files, weights, tmp_path):
    own = files | {"encoder": prepare_encoder(tmp_path, weights=weights)}
    rates = {"learning_rate": 1e-2, "encoder_learning_rate": 1e-9, "iterations": 1}
    found = load_file(train_tiny_student(own, tmp_path, **NETWORK, **rates))
    stem = load_file(weights)["conv_stem.weight"]
    torch.testing.assert_close(found["encoder.backbone.conv_stem.weight"], stem, atol=1e-6, rtol=0)
    untrained = models.build(
        models.load(tmp_path / "student.safetensors", "student").architecture, 0
    )
    assert not found["encoder.final_conv.weight"].allclose(
        untrained.encoder.final_conv.weight, atol=1e-3
    )


def test_a_seed_fixes_every_bit(files, weights, tmp_path):
    own = files | {"encoder": prepare_encoder(tmp_path, weights=weights)}
    results = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        teacher = train_tiny_teacher(own, tmp_path / name, **NETWORK)
        results.append(train_tiny_student(own, tmp_path / name, teacher, **NETWORK))
    assert same_weights(*results)


def test_a_grey_image_of_more_than_8_bits(weights, tmp_path):
    """One channel, as of MR: float32 and of any range."""
    paths = make_files(tmp_path)
    with h5py.File(paths["prepared"], "a") as file:
        grey = file["image"][..., :1].astype(np.float32) * 7 - 300
        del file["image"]
        file.create_dataset("image", data=grey, chunks=(1, *grey.shape[1:]))
    own = paths | {"encoder": prepare_encoder(tmp_path, weights=weights)}
    teacher = train_tiny_teacher(own, tmp_path, **NETWORK)
    student = train_tiny_student(own, tmp_path, teacher, **NETWORK)
    network = models.load(student, "student")
    assert network.architecture.channels == 1
    stem = network.encoder.backbone.conv_stem.weight
    assert stem.shape[1] == 1
