"""A deployed student: its masks equal those of the pipeline, for images of any size and kind."""

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from stages.core import io
from stages.core.cli import BadInput
from stages.core.resize import resize
from stages.data.prepare import prepare
from stages.deploy.inference import segment
from stages.deploy.segment import segment_images
from stages.evaluation.evaluate import THRESHOLD
from stages.evaluation.predict import predict
from stages.networks import models
from stages.settings.predict import PredictSettings
from stages.settings.prepare import PrepareSettings

SIZE = (32, 48)


def make_student(folder, channels):
    """Write a student whose probabilities differ between pixels."""
    architecture = models.Architecture(
        role="student", channels=channels, size=SIZE, widths=(8,) * 6, head_width=8
    )
    student = models.build(architecture, seed=0)
    student.classifier.weight.data.mul_(200)
    models.save(student, folder / "student.safetensors", {})
    return folder / "student.safetensors"


def run(student, images, output, **options):
    segment_images([student], [images], output, **options)


@pytest.mark.parametrize(("layout", "channels"), [("kvasir", 3), ("nci_isbi", 1)])
def test_a_mask_equals_the_prediction_of_the_pipeline(layout, channels, request, tmp_path):
    raw, student = request.getfixturevalue(layout), make_student(tmp_path, channels)
    prepared, predictions = tmp_path / "prepared.h5", tmp_path / "predictions.h5"
    prepare(raw, prepared, PrepareSettings(layout=layout, size=SIZE), 1)
    predict(prepared, student, predictions, PredictSettings(), 1, 0)
    run(student, raw / "images", tmp_path / "masks", format="png")
    with h5py.File(prepared) as truth, h5py.File(predictions) as predicted:
        position = {name: i for i, name in enumerate(io.read_strings(truth, "sample_id"))}
        for name, small in zip(io.read_strings(predicted, "sample_id"), predicted["probability"]):
            size = truth["original_size"][position[name]].tolist()
            probability = resize(small.astype(np.float32), size)
            with Image.open(tmp_path / "masks" / f"{name}.png") as file:
                mask = np.asarray(file)
                assert file.text["student"] == io.sha256(student)
            assert mask.shape == tuple(size)
            assert set(np.unique(mask)) == {0, 255}
            np.testing.assert_array_equal(mask > 0, probability >= THRESHOLD)


def test_each_slice_of_a_volume_has_a_mask(own_volumes, tmp_path):
    student = make_student(tmp_path, channels=1)
    run(student, own_volumes / "images", tmp_path / "masks", format="png")
    prepared = tmp_path / "prepared.h5"
    prepare(own_volumes, prepared, PrepareSettings(layout="folder", size=SIZE), 1)
    with h5py.File(prepared) as file:
        ids = set(io.read_strings(file, "sample_id"))
    assert {path.stem for path in (tmp_path / "masks").iterdir()} == ids


def test_a_gpu_convolves_in_float32_like_the_pipeline(kvasir, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    run(make_student(tmp_path, channels=3), kvasir / "images", tmp_path / "masks")
    assert not torch.backends.cudnn.allow_tf32


def test_images_that_fail_are_reported_and_the_others_are_segmented(kvasir, nci_isbi, tmp_path):
    student, images = make_student(tmp_path, channels=3), kvasir / "images"
    (images / "broken.png").write_bytes(b"no picture")
    (nci_isbi / "images/case1_1.dcm").rename(images / "scan.dcm")
    with pytest.raises(BadInput, match="2 problems") as raised:
        run(student, images, tmp_path / "masks")
    assert "broken.png: file" in str(raised.value)
    assert "scan.dcm: image" in str(raised.value)
    assert "must be (H, W, 3) uint8, found (48, 64, 1) float32" in str(raised.value)
    assert "expected: colour, or grey of 8 bits, as in training" in str(raised.value)
    masks = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert masks == [f"frame {i}.png" for i in range(6)]


def test_masks_never_replace_images(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (48, 64)).save(images / "frame.png")
    before = (images / "frame.png").read_bytes()
    (tmp_path / "link").symlink_to(images)
    with pytest.raises(BadInput, match="name another folder in --output"):
        run(make_student(tmp_path, channels=3), images, tmp_path / "link")
    assert (images / "frame.png").read_bytes() == before


def test_only_masks_that_a_student_wrote_are_replaced(kvasir, tmp_path):
    student, masks = make_student(tmp_path, channels=3), tmp_path / "masks"
    run(student, kvasir / "images", masks)
    Image.new("L", (64, 48)).save(masks / "frame 2.png")
    (masks / "frame 3.png").write_bytes(b"no picture")
    (masks / "frame 4.png").unlink()
    with pytest.raises(BadInput, match="2 problems") as raised:
        run(student, kvasir / "images", masks)
    assert "frame 2.png: file" in str(raised.value)
    assert "a file that no student wrote" in str(raised.value)
    with Image.open(masks / "frame 2.png") as drawn:
        assert drawn.getextrema() == (0, 0)
    assert (masks / "frame 3.png").read_bytes() == b"no picture"
    assert (masks / "frame 4.png").exists()


def test_a_path_that_does_not_exist_is_reported_with_its_option(tmp_path):
    with pytest.raises(BadInput, match="images\n  found:    nothing\n") as raised:
        run(make_student(tmp_path, channels=3), tmp_path / "frame.png", tmp_path / "masks")
    assert "--images" in str(raised.value)


def test_an_empty_image_folder_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(BadInput, match="images\n  found:    no file\n"):
        run(make_student(tmp_path, channels=3), tmp_path / "images", tmp_path / "masks")


def test_an_output_folder_that_cannot_be_created_is_refused_before_any_work(kvasir, tmp_path):
    (tmp_path / "masks").touch()
    for output in (tmp_path / "masks", tmp_path / "masks/new"):
        with pytest.raises(BadInput, match="name another folder in --output"):
            run(tmp_path / "student.safetensors", kvasir / "images", output)


@pytest.mark.parametrize(
    "image",
    [np.zeros((9, 9, 3), np.float32), np.zeros((9, 9, 1), np.float32), np.zeros((9, 9), np.uint8)],
)
def test_an_image_unlike_the_training_images_is_refused(image, tmp_path):
    # It is normalised differently, so its mask would look plausible and be wrong.
    student = models.load(make_student(tmp_path, channels=3), "student")
    with pytest.raises(ValueError, match="uint8, found"):
        segment(student, image)
