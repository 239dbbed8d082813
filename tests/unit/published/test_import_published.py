"""Checkpoints of the authors, and the forward pass of their networks from tensor names."""

import json
import math
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from stages.core import cli, io
from stages.networks import models
from stages.published.import_published import import_published, read_checkpoint, remove_wrappers
from tests.workspace import ROOT

PUBLISHED = json.loads((ROOT / "tests/data/published_networks.json").read_text("utf-8"))


def draw_tensor(name, shape, generator):
    """Draw values at a scale at which every part of a network changes its output."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator) + 0.5
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1 and not name.endswith("pos_embedding"):
        return values / math.sqrt(math.prod(shape[1:]))
    # The weight of a norm: near 1. Else a bias, a running mean or a position.
    return 1 + 0.2 * values if name.endswith("weight") else 0.3 * values


def checkpoint(teacher, student, **more):
    """Make a checkpoint like the authors' training; its best performance is a NumPy scalar."""
    return {
        "model_state_dicts": [teacher, student],
        "opt_state_dicts": [{"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]}] * 2,
        "epoch": 41,
        "iteration": 4000,
        "best_performance": np.mean(np.array([0.5, 0.75], np.float32)),
        "best_iteration": 3900,
    } | more


@pytest.fixture(scope="module")
def published():
    generator = torch.Generator().manual_seed(0)
    return {
        role: {name: draw_tensor(name, shape, generator) for name, shape in PUBLISHED[role].items()}
        for role in ("teacher", "student")
    }


@pytest.fixture(scope="module")
def imported(published):
    """Import the authors' two networks at full width; yield our files and the checkpoint."""
    # Half a gigabyte, which pytest would not delete.
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.safetensors" for name in ("teacher", "student")}
        files["checkpoint"] = Path(folder) / "model_best.pth"
        torch.save(checkpoint(**published), files["checkpoint"])
        import_published(files["checkpoint"], files["teacher"], files["student"])
        yield files


# Forward pass of the published networks


def conv(state, name, x):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def batch_norm(state, name, x):
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def blocks(state, name, x):
    for block in ("conv_0", "conv_1"):
        x = conv(state, f"{name}.{block}.conv", x)
        norm = f"{name}.{block}.adn.N"
        x = F.group_norm(x, 4, state[f"{norm}.weight"], state[f"{norm}.bias"])
        x = F.leaky_relu(x, 0.1)
    return x


def fuse_text(state, name, x, text):
    """Return LayerNorm(t + attention(t, words)) for t = feature + position, as an image."""
    width = x.shape[1]
    tokens = x.flatten(2).mT + state[f"{name}.pos_embedding"]
    words = F.linear(text, state[f"{name}.text_proj.weight"], state[f"{name}.text_proj.bias"])
    weights = state[f"{name}.attn.in_proj_weight"].chunk(3)
    biases = state[f"{name}.attn.in_proj_bias"].chunk(3)
    q, k, v = (
        F.linear(y, weight, bias).unflatten(2, (8, width // 8)).transpose(1, 2)
        for y, weight, bias in zip((tokens, words, words), weights, biases)
    )
    read = (q @ k.mT / math.sqrt(width // 8)).softmax(dim=3) @ v
    attended = F.linear(
        read.transpose(1, 2).flatten(2),
        state[f"{name}.attn.out_proj.weight"],
        state[f"{name}.attn.out_proj.bias"],
    )
    norm = (state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
    return F.layer_norm(tokens + attended, (width,), *norm).mT.reshape(x.shape)


def project(state, name, x):
    x = F.relu(batch_norm(state, f"{name}.proj.1", conv(state, f"{name}.proj.0", x)))
    return batch_norm(state, f"{name}.proj.4", conv(state, f"{name}.proj.3", x))


@torch.no_grad()
def forward(state, image, text=None):
    """Return logits and alignment features of a published network in evaluation mode."""
    x = [blocks(state, "encoder.conv_0", image)]
    for s in (1, 2, 3, 4):
        x.append(blocks(state, f"encoder.down_{s}.convs", F.max_pool2d(x[-1], 2)))
    aligned = []
    for s in (1, 2, 3, 4):
        fused = x[s] if text is None else x[s] + fuse_text(state, f"fusion_x{s}", x[s], text)
        projected = project(state, f"distill_proj_x{s}", fused)
        if text is None:
            adapter = f"student_adapter_x{s}"
            adapted = batch_norm(state, f"{adapter}.1", conv(state, f"{adapter}.0", projected))
            aligned.append(F.relu(adapted))
        else:
            aligned.append(projected)
            # x[s] without the fused text: the text reaches the decoder only through the projection.
            x[s] = x[s] + projected
    y = x[4]
    for s in (4, 3, 2, 1):
        up = f"encoder.upcat_{s}.upsample.deconv"
        y = F.conv_transpose2d(y, state[f"{up}.weight"], state[f"{up}.bias"], stride=2)
        y = blocks(state, f"encoder.upcat_{s}.convs", torch.cat([x[s - 1], y], dim=1))
    y = F.leaky_relu(conv(state, "head.0", conv(state, "encoder.final_conv", y)), 0.1)
    return conv(state, "classifier", conv(state, "head.2", y)), aligned


def assert_same(output, expected):
    logits, aligned = expected
    for found, wanted in zip([output.logits, *output.features], [logits, *aligned], strict=True):
        assert wanted.std() > 0.1
        assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-4)


def random_tensor(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_a_teacher_computes_what_the_authors_code_computes(published, imported):
    teacher = models.load(imported["teacher"], "teacher")
    image = random_tensor(1, 3, 224, 224)
    for text in (random_tensor(1, 2, 768), random_tensor(1, 1, 768)):
        with torch.no_grad():
            output = teacher(image, text)
        assert_same(output, forward(published["teacher"], image, text))


@pytest.mark.parametrize("size", [(224, 224), (192, 256)])
def test_a_student_computes_what_the_authors_code_computes(published, imported, size):
    student = models.load(imported["student"], "student")
    image = random_tensor(1, 3, *size)
    with torch.no_grad():
        output = student(image, num_aligned=len(image))
    assert_same(output, forward(published["student"], image))


def test_a_teacher_also_runs_at_another_size(imported):
    teacher = models.load(imported["teacher"], "teacher")
    with torch.no_grad():
        logits = teacher(random_tensor(1, 3, 75, 98), random_tensor(1, 2, 768)).logits
    assert logits.shape == (1, 2, 75, 98)
    assert logits.isfinite().all()


def test_the_architecture_comes_from_the_shapes(imported):
    assert models.load(imported["teacher"], "teacher").architecture == models.Architecture(
        role="teacher",
        channels=3,
        size=(224, 224),
        widths=(64, 128, 256, 512, 1024, 128),
        head_width=128,
        text_width=768,
        published=True,
    )
    assert models.load(imported["student"], "student").architecture == models.Architecture(
        role="student",
        channels=3,
        size=(224, 224),
        widths=(32, 64, 128, 256, 512, 32),
        head_width=128,
        teacher_widths=(128, 256, 512, 1024),
        published=True,
    )


def test_all_tensors_are_kept_and_the_text_has_weight_1(published, imported):
    teacher = models.load(imported["teacher"], "teacher").state_dict()
    assert torch.equal(teacher.pop("text_weight"), torch.ones(4))
    student = models.load(imported["student"], "student").state_dict()
    for found, state in ((teacher, published["teacher"]), (student, published["student"])):
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_the_files_hold_their_provenance(imported):
    for role in ("teacher", "student"):
        with safe_open(imported[role], "pt") as file:
            about = json.loads(file.metadata()["about"])
        assert about["stage"] == "import_published"
        assert json.loads(about["inputs"]) == {"checkpoint": io.sha256(imported["checkpoint"])}
        assert (about["iteration"], about["best_performance"]) == (4000, 0.625)


# Rejected checkpoints


@pytest.fixture(scope="module")
def zeros():
    """Make zero tensors of the published shapes; each repeats one number, for small files."""
    return {
        role: {name: torch.zeros(()).expand(shape) for name, shape in PUBLISHED[role].items()}
        for role in ("teacher", "student")
    }


def error_message(tmp_path, contents):
    """Import a bad checkpoint, check that nothing was written, and return the error message."""
    path, teacher, student = (tmp_path / name for name in ("best.pth", "teacher", "student"))
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        torch.save(contents, path)
    with pytest.raises(cli.BadInput) as error:
        import_published(path, teacher, student)
    assert list(tmp_path.iterdir()) == [path]
    return str(error.value).replace(str(path), "best.pth")


MEND = "  to mend:  use a complete checkpoint (.pth) that the authors' training wrote"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_small_file_of_the_published_shapes_is_imported(zeros, tmp_path, prefix):
    """The tests below change one thing of this file, which is then the reason for the error."""
    networks = {role: wrap(state, prefix) for role, state in zeros.items()}
    torch.save(checkpoint(**networks), tmp_path / "best.pth")
    import_published(tmp_path / "best.pth", tmp_path / "teacher", tmp_path / "student")


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The first two define the architecture.
        ("encoder.down_3.convs.conv_1.conv.weight", "a tensor of 4 axes"),
        ("encoder.final_conv.weight", "a tensor of 4 axes"),
        ("encoder.upcat_2.convs.conv_0.adn.N.bias", "tensors of the network"),
        ("distill_proj_x4.proj.4.num_batches_tracked", "tensors of the network"),
        ("head.2.bias", "tensors of the network"),
    ],
)
def test_a_tensor_is_missing(zeros, tmp_path, role, name, expected):
    short = {key: value for key, value in zeros[role].items() if key != name}
    first, second, third, *others = short
    names = f", among {first}, {second}, {third} and {len(others)} more"
    found = "nothing" + (names if "axes" in expected else "")
    assert error_message(tmp_path, checkpoint(**zeros | {role: short})) == (
        f"best.pth, {role}: {name}\n  found:    {found}\n  expected: {expected}\n{MEND}"
    )


def wrap(state, prefix, part=""):
    """Put a prefix before the names of a part, by default of all."""
    return {
        f"{prefix}{name}" if not part else name.replace(part, f"{part}{prefix}"): tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    ("prefix", "part"),
    [("module.", ""), ("_orig_mod.", ""), ("model.", ""), ("net.", ""), ("module._orig_mod.", ""),
     ("_orig_mod.module.", ""), ("model.module.", ""), ("model.network.", ""),
     ("module.", "encoder."), ("_orig_mod.", "encoder.")],
)  # fmt: skip
def test_the_prefix_of_a_wrapper_is_taken_off(zeros, prefix, part):
    for state in zeros.values():
        assert remove_wrappers(wrap(state, prefix, part), "best.pth") == state


def test_a_prefix_that_not_all_names_have_is_shown(zeros, tmp_path):
    mixed = wrap(zeros["teacher"], "model.") | {"step": torch.zeros(1)}
    found = error_message(tmp_path, checkpoint(mixed, zeros["student"]))
    assert "fusion_x1.pos_embedding\n  found:    nothing, among model." in found


def test_two_tensors_of_one_name_are_refused(zeros, tmp_path):
    twice = zeros["teacher"] | {"module.head.2.bias": torch.zeros(1)}
    assert "best.pth, teacher: head.2.bias\n  found:    two tensors" in error_message(
        tmp_path, checkpoint(twice, zeros["student"])
    )


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("teacher", "text_weight"),
        ("teacher", "student_adapter_x1.0.weight"),
        ("student", "fusion_x1.pos_embedding"),
    ],
)
def test_a_tensor_that_no_published_network_has(zeros, tmp_path, role, name):
    more = zeros[role] | {name: torch.zeros(4)}
    assert error_message(tmp_path, checkpoint(**zeros | {role: more})) == (
        f"best.pth, {role}: {name}\n"
        f"  found:    tensors\n  expected: no tensors with these names\n{MEND}"
    )


@pytest.mark.parametrize(
    ("role", "name", "shape", "found", "expected"),
    [
        ("teacher", "head.0.weight", (64, 128, 1, 1), None, "shape (128, 128, 1, 1)"),
        ("teacher", "fusion_x2.pos_embedding", (784, 256), None, "shape (3136, 256)"),
        ("student", "encoder.conv_0.conv_0.conv.bias", (3,), None, "shape (32,)"),
        ("student", "encoder.final_conv.weight", (128, 32), None, "a tensor of 4 axes"),
        (
            "teacher",
            "fusion_x1.pos_embedding",
            (12543, 128),
            "12543 positions",
            "the square of a number from 8 on",
        ),
        (
            "student",
            "encoder.down_1.convs.conv_1.conv.weight",
            (60, 64, 3, 3),
            "60 channels",
            "a multiple of 8",
        ),
    ],
)
def test_a_tensor_has_another_shape(zeros, tmp_path, role, name, shape, found, expected):
    other = zeros[role] | {name: torch.zeros(()).expand(shape)}
    assert error_message(tmp_path, checkpoint(**zeros | {role: other})) == (
        f"best.pth, {role}: {name}\n"
        f"  found:    {found or f'shape {shape}'}\n  expected: {expected}\n{MEND}"
    )


def test_all_problems_of_a_network_are_reported_together(zeros, tmp_path):
    state = dict(zeros["teacher"])
    del state["head.0.bias"], state["classifier.bias"]
    state["head.1.bias"] = torch.zeros(1)
    state["head.2.bias"] = torch.zeros(1)
    found = error_message(tmp_path, checkpoint(state, zeros["student"]))
    assert found.startswith("3 problems:")
    for part in ("head.0.bias, classifier.bias\n  found:    nothing", "head.1.bias", "shape (1,)"):
        assert part in found


def test_the_two_networks_are_swapped(zeros, tmp_path):
    swapped = checkpoint(zeros["student"], zeros["teacher"])
    assert "best.pth, teacher: fusion_x1.pos_embedding\n  found:    nothing" in error_message(
        tmp_path, swapped
    )


@pytest.mark.parametrize(
    "contents",
    [
        {"state_dict": {}, "opt": {}},
        {"model_state_dicts": {}, "opt": {}},
        {"model_state_dicts": [{}], "opt": {}},
        {"model_state_dicts": [{}, {"head.0.bias": 1.0}], "opt": {}},
    ],
)
def test_the_checkpoint_of_other_code(tmp_path, contents):
    assert error_message(tmp_path, contents) == (
        "best.pth: model_state_dicts\n"
        f"  found:    another structure, in a file with {', '.join(contents)}\n"
        "  expected: a list of two dictionaries of tensors, of teacher and student\n" + MEND
    )


@pytest.mark.parametrize("contents", [{}, [1], torch.zeros(3)])
def test_a_file_of_something_else(tmp_path, contents):
    assert "found:    another structure, in a file with no names\n" in error_message(
        tmp_path, contents
    )


@pytest.mark.parametrize("name", ["iteration", "best_performance"])
def test_a_number_is_missing(zeros, tmp_path, name):
    assert error_message(tmp_path, checkpoint(**zeros, **{name: None})) == (
        f"best.pth: {name}\n  found:    None\n  expected: a number\n{MEND}"
    )


class RunsCode:
    """An object that calls a function when it is unpickled."""

    def __reduce__(self):
        return print, ("this ran",)


def test_a_file_that_would_run_code(zeros, tmp_path, capsys):
    assert error_message(tmp_path, checkpoint(**zeros, args=RunsCode())) == (
        "best.pth: file\n"
        "  found:    also builtins.print\n"
        "  expected: only tensors and plain values: loading other objects can run code\n"
        "  to mend:  if you trust its source, load it with torch.load(path, weights_only=False) "
        "and save only model_state_dicts, iteration and best_performance"
    )
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("contents", [b"", b"junk", b"\x80\x02cbuiltins\nprint\nU\x01x\x85R."])
def test_a_file_that_torch_did_not_save(tmp_path, contents):
    found = error_message(tmp_path, contents)
    assert found.startswith("best.pth: file\n")
    assert found.endswith(f"  expected: a file that torch.save wrote\n{MEND}")


def test_the_file_does_not_exist(tmp_path):
    with pytest.raises(cli.BadInput, match="No such file"):
        import_published(tmp_path / "best.pth", tmp_path / "teacher", tmp_path / "student")


def test_a_scalar_of_an_older_numpy_is_read(zeros, tmp_path):
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save(checkpoint(**zeros), new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"cnumpy._core.multiarray\nscalar\n" in content
                content = content.replace(b"numpy._core.", b"numpy.core.")
            target.writestr(entry, content)
    assert read_checkpoint(old)["best_performance"] == 0.625
