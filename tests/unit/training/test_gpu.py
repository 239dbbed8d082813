"""Training steps on a GPU, tested without one: their operations, and fake tensors."""

import inspect
import re

import pytest
import torch
from torch import distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from stages.core.precision import autocast
from stages.networks import models
from stages.settings.training import AugmentSettings, StudentSettings, TeacherSettings
from stages.training import student, teacher
from stages.training.augment import augment_and_normalise
from stages.training.methods import distilled, gazemedseg, published, single

# Halved four times, its sides are odd on the way.
SIZE = (36, 52)
WIDTHS = (8,) * 6
# All but quarter turns, which need square images.
AUGMENT = {"scale": 0.5, "shift": 0.1, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
TEXT_WIDTH = 16
GPU = torch.device("cuda", 0)
METHODS = [
    "teacher",
    "single",
    "distilled",
    "distilled without pseudolabels",
    "gazemedseg",
    "published",
]
# PyTorch's own list: torch.use_deterministic_algorithms.
NO_DETERMINISTIC_FORM = re.compile(
    r"(avg_pool3d|_?adaptive_(avg|max)_pool\dd|fractional_max_pool\dd|reflection_pad\dd|_ctc_loss"
    r"|_?upsample_(linear|bilinear|bicubic|trilinear)\dd(_aa)?|grid_sampler_\dd)_backward\..*"
    r"|max_unpool\dd\..*|histc\..*|put_?\..*|(nan)?median\.dim.*"
)


class NondeterministicOperations(TorchDispatchMode):
    """Records operations that have no deterministic form on a GPU."""

    def __init__(self):
        super().__init__()
        self.count, self.found = 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.")
        self.count += 1
        # Of this operation only sum and mean; the fourth argument is the reduction, 0 is none.
        summed = name.startswith("nll_loss2d_forward") and args[3] != 0
        if summed or NO_DETERMINISTIC_FORM.fullmatch(name):
            self.found.add(name)
        return function(*args, **kwargs or {})


class GpuGenerator(torch.Generator):
    """A CPU generator whose `device` is a GPU."""

    device = GPU


def architecture(role, **changes):
    return models.Architecture(
        role=role, channels=3, size=SIZE, widths=WIDTHS, head_width=8, **changes
    )


@pytest.fixture
def make(tmp_path):
    """Return a function that builds a method's networks, step and predict function."""
    network = models.build(architecture("teacher", text_width=TEXT_WIDTH), 0)
    models.save(network, tmp_path / "teacher.safetensors", {})

    def build(name):
        if name == "teacher":
            settings = TeacherSettings(widths=WIDTHS, head_width=8, augment=AUGMENT)
            return network.train(), teacher.make_teacher_step(network, settings), teacher.predict
        method = {
            "single": single,
            "distilled": distilled,
            "distilled without pseudolabels": distilled,
            "gazemedseg": gazemedseg,
            "published": published,
        }[name]
        own = {
            "distilled without pseudolabels": {"target_crf": None},
            "published": {"teacher_widths": WIDTHS},
        }
        settings = StudentSettings(method=name.split()[0], augment=AUGMENT, **own.get(name, {}))
        weights = tmp_path / "teacher.safetensors" if method is distilled else None
        cpu = torch.device("cpu")
        model, step = method.make_model_and_step(
            settings, architecture("student"), 0, cpu, weights, TEXT_WIDTH
        )
        return model.train(), step, student.predict

    return build


def batch_on(device, n=4):
    def zeros(*shape, dtype):
        return torch.zeros(n, *shape, dtype=dtype, device=device)

    return {
        "image": zeros(3, *SIZE, dtype=torch.uint8),
        "pseudomask": zeros(2, *SIZE, dtype=torch.uint8),
        "refined": zeros(*SIZE, dtype=torch.float16),
        "pseudolabel": zeros(*SIZE, dtype=torch.float16),
        "text": zeros(2, TEXT_WIDTH, dtype=torch.float32),
        "false_if_moved": zeros(2, dtype=torch.bool),
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_step_has_no_operation_without_a_deterministic_form_on_a_gpu(name, make):
    _, step, _ = make(name)
    with NondeterministicOperations() as operations:
        step(batch_on("cpu"), 1, torch.Generator())["loss"].backward()
    assert operations.count > 100
    assert not operations.found


def test_nondeterministic_operations_are_recorded():
    x = torch.rand(1, 2, 4, 4, requires_grad=True)
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    with NondeterministicOperations() as operations:
        nn.functional.interpolate(x, scale_factor=2, mode="bilinear").sum().backward()
        nn.functional.interpolate(x, scale_factor=2, mode="nearest").sum().backward()
        nn.functional.cross_entropy(x, label)
        x.median(dim=1)
    assert operations.found == {
        "upsample_bilinear2d_backward.default", "nll_loss2d_forward.default", "median.dim"
    }  # fmt: skip


@pytest.fixture
def deterministic():
    """Deterministic algorithms as in a stage, but with an error instead of a warning."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def move(model, mode):
    """Replace the weights by fake tensors on a GPU."""
    for module in model.modules():
        for name, weights in module.named_parameters(recurse=False):
            fake = mode.from_tensor(weights).detach().to(GPU)
            setattr(module, name, nn.Parameter(fake, weights.requires_grad))
        for name, values in module.named_buffers(recurse=False):
            setattr(module, name, mode.from_tensor(values).to(GPU))


def pretend_two_processes(monkeypatch):
    """Act as the second of two processes; check that tensors are sent as NCCL needs them."""

    def send(*tensors):
        assert all(tensor.device == GPU and tensor.is_contiguous() for tensor in tensors)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "all_reduce", send)
    monkeypatch.setattr(distributed, "all_gather", lambda parts, sent: send(sent, *parts))


@pytest.mark.parametrize(
    ("name", "precision", "processes"),
    [*((name, "bf16", 2) for name in METHODS), ("published", "fp32", 1)],
)
def test_a_step_keeps_all_tensors_on_the_gpu(
    name, precision, processes, make, deterministic, monkeypatch
):
    # Without a GPU autocast is off.
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    # The number of blocks depends on values, and fake tensors have none.
    monkeypatch.setattr(published, "ring_mask", lambda ring, **_: ring)
    if processes == 2:
        pretend_two_processes(monkeypatch)
    model, step, predict = make(name)
    with FakeTensorMode() as mode, autocast(GPU, precision):
        # Also the teacher in the step, which is not trained.
        for held in (model, *inspect.getclosurevars(step).nonlocals.values()):
            if isinstance(held, nn.Module):
                move(held, mode)
        terms = step(batch_on(GPU), 1, GpuGenerator())
        predicted = predict(model.eval(), batch_on(GPU))
        product = torch.ones(1, 1, device=GPU) @ torch.ones(1, 1, device=GPU)
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert {(term.device, term.dtype) for term in terms.values()} == {(GPU, torch.float32)}
    assert (predicted.device, predicted.dtype) == (GPU, torch.bool)


@pytest.mark.parametrize("channels", [1, 3])
def test_turns_and_colours_keep_all_tensors_on_the_gpu(channels, deterministic):
    everything = AugmentSettings(**AUGMENT, quarter_turns=True)
    dtype = torch.uint8 if channels == 3 else torch.float32
    with FakeTensorMode(), autocast(GPU, "fp32"):
        batch = {
            "image": torch.zeros(4, channels, 8, 8, dtype=dtype, device=GPU),
            "mask": torch.zeros(4, 8, 8, dtype=torch.uint8, device=GPU),
            "text": torch.zeros(4, 2, 5, device=GPU),
        }
        batch |= {
            name: torch.zeros(4, 2, dtype=torch.bool, device=GPU) for name in everything.text_marks
        }
        result = augment_and_normalise(batch, everything, GpuGenerator())
    for name, values in result.items():
        expected = torch.float32 if name == "image" else batch[name].dtype
        assert (values.device, values.dtype) == (GPU, expected), name
        assert values.shape == batch[name].shape


def test_ring_mask_keeps_its_tensors_on_the_device_of_the_rings():
    """A tensor on another device would be on `meta`, and mixing it in raises."""
    ring = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)) < 0.3
    options = {"ratio": 0.5, "block": (2, 5)}
    expected = published.ring_mask(ring, generator=torch.Generator().manual_seed(0), **options)
    with torch.device("meta"):
        found = published.ring_mask(ring, generator=torch.Generator().manual_seed(0), **options)
    assert found.any() and torch.equal(found, expected)
