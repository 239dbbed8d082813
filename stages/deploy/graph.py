"""A student as one graph, image in and probability out: ONNX and torch.export."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stages.networks import models
from stages.training.samples import normalise

OPSET = 18
# Largest difference of a probability from torch.
TOLERANCE = 1e-4
# Sides of an image must be multiples of it: the stride of the lowest scale.
_STRIDES = {"unet": 16}
_STRIDE_OF_TIMM = 32
_LAYERS_OF_TRAINING = ("distill_proj_", "student_adapter_")
INPUT, OUTPUT = "image", "probability"


def _fix_padding(network: nn.Module) -> None:
    """Pad convolutions by numbers where timm computes the padding from the size of the image.

    TensorFlow's padding depends on the size only if a side is no multiple of the stride. As a
    formula it lets torch.export trace for minutes.
    """
    from timm.layers import Conv2dSame

    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, Conv2dSame):
                continue
            padding: tuple[int, ...] = ()
            # Pairs for the last axis come first; an odd pixel goes to the end.
            for size, stride, step in zip(layer.kernel_size, layer.stride, layer.dilation):
                total = max((size - 1) * step + 1 - stride, 0)
                padding = (total // 2, total - total // 2, *padding)
            left, right, top, bottom = padding
            plain = nn.Conv2d(
                layer.in_channels, layer.out_channels, (1, 1), layer.stride, 0, layer.dilation,
                layer.groups, layer.bias is not None,
            )  # fmt: skip
            plain.kernel_size = layer.kernel_size
            plain.weight, plain.bias = layer.weight, layer.bias
            setattr(parent, name, nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain))


class DeployedStudent(nn.Module):
    """A student with its normalisation and the sigmoid, without the layers of the training."""

    def __init__(self, student: models.Student) -> None:
        super().__init__()
        for name in [n for n, _ in student.named_children() if n.startswith(_LAYERS_OF_TRAINING)]:
            delattr(student, name)
        self.student = student
        self.channels, self.size = student.architecture.channels, student.architecture.size
        self.stride = _STRIDES.get(student.architecture.encoder, _STRIDE_OF_TIMM)
        # A graph for any size starts at two pixels on the lowest scale, since torch.export treats a
        # side of one as a special case; and it cannot pad sides of some sizes only.
        self.smallest_side = 2 * self.stride
        self.any_size = all(
            side % self.stride == 0 and side >= self.smallest_side for side in self.size
        )
        if self.any_size and student.architecture.encoder not in _STRIDES:
            _fix_padding(student)

    def forward(self, image: Tensor) -> Tensor:
        """Return the probability (B, H, W) float32.

        Parameters
        ----------
        image
            (B, 3, H, W) uint8 RGB, or (B, 1, H, W) float32 for MR, CT and other grey images.
        """
        return self.student(normalise(image)).log_odds.sigmoid()  # type: ignore[no-any-return]

    def example(self, count: int, height: int, width: int, seed: int) -> Tensor:
        """Draw images: a wavy surface with noise."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width] / self.size[0] * 9
        phase = rng.uniform(0, 6, (count, self.channels, 1, 1))
        surface = 0.5 + 0.4 * np.sin(x + phase) * np.cos(y - phase)
        images = np.clip(surface + rng.normal(0, 0.05, surface.shape), 0, 1)
        if self.channels == 3:
            return torch.from_numpy(np.rint(images * 255).astype(np.uint8))
        return torch.from_numpy(images.astype(np.float32) * 1000)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings and the progress of torch's exporters, which name their own internals."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def trace(network: DeployedStudent, *, any_size: bool) -> ExportedProgram:
    """Trace the network for any batch and, with `any_size`, any sides.

    Sides are then multiples of the network's stride, from its smallest side on.

    Raises
    ------
    Exception
        Of many kinds: torch cannot trace this network so.
    """
    sides: dict[int, Any] = {}
    if any_size:
        axes = ((2, "rows"), (3, "columns"))
        sides = {axis: network.stride * Dim(name, min=2) for axis, name in axes}
    example = network.example(2, *network.size, seed=0)
    with _quiet(), torch.no_grad():
        return torch.export.export(
            network, (example,), dynamic_shapes={"image": {0: Dim("batch"), **sides}}
        )


def write_onnx(
    program: ExportedProgram, path: Path, about: Mapping[str, str], *, any_size: bool
) -> None:
    """Convert a traced network to ONNX, with names for its axes and `about` as metadata."""
    with _quiet():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert converted is not None
        model = converted.model_proto
    sides = {-2: "height", -1: "width"} if any_size else {}
    for value in (model.graph.input[0], model.graph.output[0]):
        axes = value.type.tensor_type.shape.dim
        for axis, name in {0: "batch", **sides}.items():
            axes[axis].dim_param = name
    # What is between has the names of the traced axes; a runtime infers it.
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def write_program(program: ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    """Write a traced network as torch.export does, with `about` as extra files."""
    # Torch's own writer ends the whole process if the disk is full.
    archive = io.BytesIO()
    with _quiet():
        torch.export.save(program, archive, extra_files=dict(about))
    path.write_bytes(archive.getbuffer())


def _shapes(network: DeployedStudent, any_size: bool) -> list[tuple[int, int, int]]:
    height, width = network.size
    shapes = [(1, height, width), (3, height, width)]
    if any_size:
        step = network.stride
        shapes += [(2, height + step, width + 2 * step), (1, 2 * step, 2 * step)]
    return shapes


def _largest_difference(network: DeployedStudent, run: Any, *, any_size: bool) -> float:
    """Compare with the network for several batches and sizes; return the largest difference.

    For a constant image only finite values count: there the normalisation layers divide rounding
    errors by nearly 0, so that no two programs agree.
    """
    largest = 0.0
    for seed, shape in enumerate(_shapes(network, any_size)):
        images = network.example(*shape, seed=seed)
        with torch.no_grad():
            expected = network(images).numpy()
        found: NDArray[np.float32] = run(images)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        largest = max(largest, float(abs(found - expected).max()))
    constant = torch.ones_like(network.example(1, *network.size, seed=0))
    return largest if np.isfinite(run(constant)).all() else float("inf")


def compare_onnx(network: DeployedStudent, path: Path, *, any_size: bool) -> float:
    """Run the file `path` with onnxruntime; return its largest difference from torch."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _largest_difference(
        network,
        lambda images: session.run([OUTPUT], {INPUT: images.numpy()})[0],
        any_size=any_size,
    )


def compare_program(network: DeployedStudent, path: Path, *, any_size: bool) -> float:
    """Load and run the file `path`; return its largest difference from the network."""
    with _quiet():
        loaded = torch.export.load(path).module()
    with torch.no_grad():
        return _largest_difference(
            network, lambda images: loaded(images).numpy(), any_size=any_size
        )
