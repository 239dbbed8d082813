"""A deployed student: its masks are the pipeline's own, of images of any size and kind."""

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from stages.core import io
from stages.core.cli import BadInput
from stages.core.resize import resize
from stages.data.prepare import prepare
from stages.evaluation.evaluate import THRESHOLD
from stages.evaluation.predict import predict
from stages.evaluation.segment import segment, segment_folder
from stages.networks import models
from stages.settings.predict import PredictSettings
from stages.settings.prepare import PrepareSettings

SIZE = (32, 48)


def make_student(folder, channels):
    """Write a student whose answers differ from pixel to pixel."""
    architecture = models.Architecture(
        role="student", channels=channels, size=SIZE, widths=(8,) * 6, head_width=8
    )
    student = models.build(architecture, seed=0)
    student.classifier.weight.data.mul_(200)
    models.save(student, folder / "student.safetensors", {})
    return folder / "student.safetensors"


@pytest.mark.parametrize(("layout", "channels"), [("kvasir", 3), ("nci_isbi", 1)])
def test_a_mask_is_what_the_pipeline_predicts(layout, channels, request, tmp_path):
    raw, student = request.getfixturevalue(layout), make_student(tmp_path, channels)
    prepared, predictions = tmp_path / "prepared.h5", tmp_path / "predictions.h5"
    prepare(raw, prepared, PrepareSettings(layout=layout, size=SIZE), 1)
    predict(prepared, student, predictions, PredictSettings(), 1, 0)
    segment_folder(student, raw / "images", tmp_path / "masks")
    with h5py.File(prepared) as truth, h5py.File(predictions) as said:
        position = {name: i for i, name in enumerate(io.read_strings(truth, "sample_id"))}
        for name, small in zip(io.read_strings(said, "sample_id"), said["probability"]):
            size = truth["original_size"][position[name]].tolist()
            probability = resize(small.astype(np.float32), size)
            with Image.open(tmp_path / "masks" / f"{name}.png") as file:
                mask = np.asarray(file)
                assert file.text == {"student": io.sha256(student)}
            assert mask.shape == tuple(size)
            assert set(np.unique(mask)) == {0, 255}
            # Predictions are kept in float16.
            sure = abs(probability - THRESHOLD) > 1e-3
            assert ((mask > 0) == (probability >= THRESHOLD))[sure].all()
            assert sure.mean() > 0.9


def test_slices_of_volumes_have_a_mask_each(own_volumes, tmp_path):
    student = make_student(tmp_path, channels=1)
    segment_folder(student, own_volumes / "images", tmp_path / "masks")
    prepared = tmp_path / "prepared.h5"
    prepare(own_volumes, prepared, PrepareSettings(layout="folder", size=SIZE), 1)
    with h5py.File(prepared) as file:
        ids = set(io.read_strings(file, "sample_id"))
    assert {path.stem for path in (tmp_path / "masks").iterdir()} == ids


def test_a_gpu_convolves_in_float32_as_for_the_pipelines_predictions(kvasir, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    segment_folder(make_student(tmp_path, channels=3), kvasir / "images", tmp_path / "masks")
    assert not torch.backends.cudnn.allow_tf32


def test_what_cannot_be_segmented_is_told_and_costs_no_other_mask(kvasir, nci_isbi, tmp_path):
    student, images = make_student(tmp_path, channels=3), kvasir / "images"
    (images / "broken.png").write_bytes(b"no picture")
    (nci_isbi / "images/case1_1.dcm").rename(images / "scan.dcm")
    with pytest.raises(BadInput, match="2 problems") as raised:
        segment_folder(student, images, tmp_path / "masks")
    assert "broken.png: file" in str(raised.value)
    assert "scan.dcm: image" in str(raised.value)
    assert "must be (H, W, 3) uint8, found (48, 64, 1) float32" in str(raised.value)
    assert "expected: colour, or grey of 8 bits, as in training" in str(raised.value)
    masks = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert masks == [f"frame {i}.png" for i in range(6)]


def test_masks_never_take_the_place_of_images(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (48, 64)).save(images / "frame.png")
    before = (images / "frame.png").read_bytes()
    (tmp_path / "link").symlink_to(images)
    with pytest.raises(BadInput, match="name another folder in --output"):
        segment_folder(make_student(tmp_path, channels=3), images, tmp_path / "link")
    assert (images / "frame.png").read_bytes() == before


def test_only_masks_of_a_student_are_replaced(kvasir, tmp_path):
    student, masks = make_student(tmp_path, channels=3), tmp_path / "masks"
    segment_folder(student, kvasir / "images", masks)
    Image.new("L", (64, 48)).save(masks / "frame 2.png")
    (masks / "frame 3.png").write_bytes(b"no picture")
    (masks / "frame 4.png").unlink()
    with pytest.raises(BadInput, match="2 problems") as raised:
        segment_folder(student, kvasir / "images", masks)
    assert "frame 2.png: file" in str(raised.value)
    assert "one that no student wrote" in str(raised.value)
    with Image.open(masks / "frame 2.png") as drawn:
        assert drawn.getextrema() == (0, 0)
    assert (masks / "frame 3.png").read_bytes() == b"no picture"
    assert (masks / "frame 4.png").exists()


@pytest.mark.parametrize("found", ["none", "a file"])
def test_a_folder_of_images_that_is_none_is_told_by_its_option(found, tmp_path):
    images = tmp_path / "frame.png"
    if found == "a file":
        Image.new("RGB", (48, 64)).save(images)
    with pytest.raises(BadInput, match=f"found:    {found}\n") as raised:
        segment_folder(make_student(tmp_path, channels=3), images, tmp_path / "masks")
    assert "--images" in str(raised.value)
    assert "config.yaml" not in str(raised.value)


def test_an_empty_folder_of_images_is_told(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(BadInput, match="images\n  found:    no file\n"):
        segment_folder(make_student(tmp_path, channels=3), tmp_path / "images", tmp_path / "masks")


def test_a_folder_of_masks_that_cannot_be_made_is_told_before_any_work(kvasir, tmp_path):
    (tmp_path / "masks").touch()
    for output in (tmp_path / "masks", tmp_path / "masks/new"):
        with pytest.raises(BadInput, match="name another folder in --output"):
            segment_folder(tmp_path / "student.safetensors", kvasir / "images", output)


@pytest.mark.parametrize(
    "image",
    [np.zeros((9, 9, 3), np.float32), np.zeros((9, 9, 1), np.float32), np.zeros((9, 9), np.uint8)],
)
def test_an_image_of_another_kind_is_refused(image, tmp_path):
    # Scaled in other ways, it would get a mask that looks like one.
    student = models.load(make_student(tmp_path, channels=3), "student")
    with pytest.raises(ValueError, match="uint8, found"):
        segment(student, image)
