"""An exported student computes what the student computes, and its card tells what is known."""

import json
import logging
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_training import make_files, train_tiny_student, train_tiny_teacher

from stages.core import io
from stages.core.cli import BadInput
from stages.deploy import export as export_module
from stages.deploy import graph, main
from stages.deploy.export import export
from stages.deploy.model_card import describe_student
from stages.evaluation.evaluate import evaluate
from stages.evaluation.predict import predict
from stages.networks import models
from stages.settings.predict import PredictSettings
from stages.training.samples import normalise

UNET = {"widths": (8,) * 6, "head_width": 8, "published": True}
TIMM = {"encoder": "test_efficientnet", "decoder_widths": (16, 16, 8, 8, 8), "head_width": 8}
KINDS = {
    "colour": {"channels": 3, "size": (32, 48), "teacher_widths": (8,) * 4, **UNET},
    "grey": {"channels": 1, "size": (32, 48), **UNET},
    "encoder": {"channels": 3, "size": (64, 64), **TIMM},
    # Trained for some steps, distilled from a teacher: see `results`.
    "trained": {"channels": 3, "size": (32, 32)},
    # With this size the network pads, so it has no graph for all sizes.
    "fixed": {"channels": 1, "size": (36, 40), **UNET},
}


def write_student(path, kind):
    student = models.build(models.Architecture(role="student", **KINDS[kind]), seed=0)
    student.classifier.weight.data.mul_(20)
    models.save(student, path, {})
    return path


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    """Kind, student and the exported folder; the messages are in `messages.txt` beside it."""
    folder = tmp_path_factory.mktemp(request.param)
    student = folder / "student.safetensors"
    if request.param == "trained":
        trained = request.getfixturevalue("results") / student.name
        student.write_bytes(trained.read_bytes())
    else:
        write_student(student, request.param)
    handler = logging.FileHandler(folder / "messages.txt")
    log = logging.getLogger("stages")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    export(student, folder / "exported")
    log.removeHandler(handler)
    return request.param, student, folder / "exported"


def images_of(kind, count, height, width):
    rng = np.random.default_rng(1)
    if KINDS[kind]["channels"] == 3:
        return rng.integers(0, 256, (count, 3, height, width)).astype(np.uint8)
    return rng.normal(100, 30, (count, 1, height, width)).astype(np.float32)


def test_both_files_compute_what_the_student_computes(exported):
    kind, student, folder = exported
    network = models.load(student, "student")
    session = onnxruntime.InferenceSession(folder / "student.onnx")
    program = torch.export.load(folder / "student.pt2").module()
    height, width = KINDS[kind]["size"]
    shapes = [(1, height, width), (5, height, width)]
    if kind != "fixed":
        smallest = 64 if kind == "encoder" else 32
        shapes += [(2, 96, 160), (1, smallest, smallest), (1, smallest, 128)]
    for shape in shapes:
        images = images_of(kind, *shape)
        with torch.no_grad():
            expected = network(normalise(torch.from_numpy(images))).log_odds.sigmoid().numpy()
        (found,) = session.run(None, {"image": images})
        assert found.shape == shape
        np.testing.assert_allclose(found, expected, atol=1e-4)
        with torch.no_grad():
            again = program(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(again, expected, atol=1e-4)
        assert np.ptp(expected) > 1e-3


def test_the_files_say_what_they_are(exported):
    kind, student, folder = exported
    model = onnx.load(folder / "student.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert [entry.version for entry in model.opset_import if not entry.domain] == [graph.OPSET]
    assert about["opset"] == str(graph.OPSET)
    assert about["student"] == io.sha256(student)
    assert "not a medical device" in about["intended_use"]
    names = dict.fromkeys(about, "")
    torch.export.load(folder / "student.pt2", extra_files=names)
    assert names == about
    (image,), (probability,) = model.graph.input, model.graph.output
    axes = [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim]
    sides = list(KINDS[kind]["size"]) if kind == "fixed" else ["height", "width"]
    assert axes == ["batch", KINDS[kind]["channels"], *sides]
    assert (image.name, probability.name) == ("image", "probability")
    messages = (folder.parent / "messages.txt").read_text()
    assert "student.onnx: opset 18" in messages
    card = (folder / "MODEL_CARD.md").read_text()
    if kind == "fixed":
        assert "the size is fixed" in messages and "fixed: 36 × 40" in about["sides"]
        assert "fixed: 36 × 40" in card
    else:
        assert "multiples of" in about["sides"] and about["sides"] in messages
    assert "is not a medical device" in card and about["student"] in card and "opset 18" in card


def test_the_layers_of_the_training_are_left_out(exported):
    kind, _, folder = exported
    if kind not in ("colour", "trained"):
        pytest.skip("this student was not aligned to a teacher")
    program = torch.export.load(folder / "student.pt2")
    assert not [name for name in program.state_dict if "distill" in name or "adapter" in name]


def test_another_size_for_which_torch_fails_becomes_a_fixed_size(tmp_path, monkeypatch, caplog):
    student = write_student(tmp_path / "student.safetensors", "grey")

    def write_graphs(network, student, weights, folder, any_size):
        if any_size:
            raise RuntimeError("cannot trace\nsecond line")
        return export_module._about(network, weights, any_size)

    monkeypatch.setattr(export_module, "_write_graphs", write_graphs)
    export(student, tmp_path / "exported")
    assert "so the size is fixed: cannot trace second line" in caplog.text
    assert "fixed: 32 × 48" in (tmp_path / "exported/MODEL_CARD.md").read_text()


def test_a_graph_that_differs_is_no_output(tmp_path, monkeypatch):
    student = write_student(tmp_path / "student.safetensors", "grey")
    monkeypatch.setattr(graph, "trace", lambda *_, **__: None)
    monkeypatch.setattr(graph, "write_onnx", lambda *_, **__: None)
    monkeypatch.setattr(graph, "compare_onnx", lambda *_, **__: 2e-4)
    with pytest.raises(BadInput, match=r"differs from torch by 0\.0002"):
        export(student, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    class Tiny(torch.nn.Module):
        def forward(self, image):
            return image.sigmoid()[:, 0]

    batch = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Tiny(), (torch.ones(2, 1, 32, 32),), dynamic_shapes=batch)
    disk = Path("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        graph.write_program(program, disk, {"a": "b"})
    with pytest.raises(OSError, match="No space left"):
        graph.write_onnx(program, disk, {}, any_size=False)


def test_the_padding_of_tensorflow_becomes_a_number_and_computes_the_same():
    # As a formula of the image's size it took many minutes to trace.
    parts = TIMM | {"encoder": "tf_efficientnet_lite0", "channels": 3, "size": (64, 96)}
    student, other = (
        models.build(models.Architecture(role="student", **parts), seed=0).eval() for _ in range(2)
    )
    network = graph.DeployedStudent(other).eval()
    layers = {type(layer).__name__ for layer in student.modules()}
    assert layers - {type(layer).__name__ for layer in network.modules()} == {"Conv2dSame"}
    for shape in ((1, 64, 96), (2, 64, 64), (1, 160, 96)):
        images = network.example(*shape, seed=1)
        with torch.no_grad():
            expected = student(normalise(images)).log_odds.sigmoid()
            torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-6)


def test_nan_is_a_difference(tmp_path):
    student = write_student(tmp_path / "student.safetensors", "grey")
    network = graph.DeployedStudent(models.load(student, "student"))

    def run(images):
        return np.full((len(images), *images.shape[2:]), np.nan, np.float32)

    assert graph._largest_difference(network, run, any_size=True) == float("inf")


def test_files_of_the_user_are_never_replaced(tmp_path):
    student = write_student(tmp_path / "student.safetensors", "grey")
    with pytest.raises(BadInput, match="found:    a folder with files"):
        export(student, tmp_path)
    with pytest.raises(BadInput, match="found:    a file"):
        export(student, student)


def test_the_command_exports(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(export_module, "_write_graphs", lambda *args: calls.append(args) or
                        export_module._about(args[0], args[2], args[4]))  # fmt: skip
    student = write_student(tmp_path / "student.safetensors", "grey")
    main.main(["export", "--student", str(student), "--output", str(tmp_path / "exported")])
    assert len(calls) == 1 and (tmp_path / "exported/MODEL_CARD.md").exists()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A data set `ours` with the results of the experiment `full`, in the folders of a run."""
    dataset = tmp_path_factory.mktemp("results") / "ours"
    run = dataset / "full/seed0"
    run.mkdir(parents=True)
    files = make_files(dataset)
    with h5py.File(files["gaze"], "a") as file:
        file.attrs["gaze_origin"] = "simulated"
    with h5py.File(files["explanations"], "a") as file:
        file.attrs.update(backend="measured", model="", encoder="all-MiniLM-L6-v2")
    with h5py.File(files["prepared"], "a") as file:
        file.attrs["params"] = json.dumps({"layout": "folder"})
    teacher = train_tiny_teacher(files, run)
    student = train_tiny_student(files, run, teacher)
    predict(files["prepared"], student, run / "predictions.h5", PredictSettings(), 1, 0)
    evaluate(files["prepared"], run / "predictions.h5", run / "metrics.csv")
    return run


def described(run):
    student = run / "student.safetensors"
    return describe_student(student, io.sha256(student))


def test_the_card_tells_data_gaze_texts_protocol_and_metrics(results):
    found = described(results)
    assert found.title == "`ours` / `full` / `seed0`"
    assert found.training["Images"] == (
        "8 train (8 subjects), 2 val (2 subjects), 2 test (2 subjects); 32 × 32, colour"
    )
    assert found.training["Gaze"] == "simulated from masks, not recorded; 7 of 12 images"
    assert "`measured`; encoded by `all-MiniLM-L6-v2`" in found.training["Texts"]
    assert "method `distilled`, labels `pseudomask`" in found.training["Protocol"]
    assert found.metrics.splitlines()[2].startswith("| test | 2 | 2 | ")
    assert found.metrics.splitlines()[3].startswith("| val | 2 | 2 | ")
    assert "95% interval" in found.metrics
    assert json.loads(found.settings)["iterations"] == 3


def test_the_card_claims_nothing_of_files_that_were_made_anew(results, tmp_path):
    moved = tmp_path / "ours/full/seed0"
    moved.mkdir(parents=True)
    for name in ("student.safetensors", "metrics.csv", "predictions.h5"):
        (moved / name).write_bytes((results / name).read_bytes())
    for name in ("prepared", "gaze", "explanations"):
        (tmp_path / f"ours/{name}.h5").write_bytes(b"another")
    found = described(moved)
    for title in ("Images", "Gaze", "Texts"):
        assert found.training[title].startswith("not known")
    network = models.load(moved / "student.safetensors", "student")
    models.save(network, moved / "student.safetensors", {})
    assert "another student" in described(moved).metrics
    (moved / "metrics.csv").unlink()
    assert "there is no metrics.csv" in described(moved).metrics


def test_names_of_folders_are_only_text(results, tmp_path):
    moved = tmp_path / "a`b\n# c/full/seed0"
    moved.mkdir(parents=True)
    (moved / "student.safetensors").write_bytes((results / "student.safetensors").read_bytes())
    assert described(moved).title.startswith("`a'b # c` / ")
