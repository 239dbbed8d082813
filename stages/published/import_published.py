"""A checkpoint of the authors' code → teacher.safetensors and student.safetensors.

Their two networks have the tensors of ours, by name and shape, but for the weight of the text, as
they add it with weight 1. Where they compute otherwise, `Architecture.published` says.
"""

from math import isqrt
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stages.core import cli, io
from stages.networks import models

State = dict[str, Tensor]
_SCALES = (1, 2, 3, 4)
# What reads a NumPy scalar, which their best performance is; NumPy 1 wrote another name.
_scalar = np.float32().__reduce__()[0]
_ALLOWED: list[Any] = [
    _scalar,
    (_scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]
_TAKE = "take a checkpoint (.pth) as the authors' training writes it, whole"


class _Bad(cli.BadInput):
    def __init__(self, where: Path | str, field: str, found: object, expected: object) -> None:
        super().__init__(where, field, found=found, expected=expected, mend=_TAKE)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code of the file.

    Returns
    -------
    With `model_state_dicts`, the teacher's and the student's, `iteration` and `best_performance`.

    Raises
    ------
    BadInput
        The file is none of `torch.save`, holds more than tensors and plain values, or not these.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            others = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            checkpoint = None if others else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        found = str(error).partition("\n")[0]
        raise _Bad(path, "file", found, "a file that torch.save wrote") from error
    if others:
        raise cli.BadInput(
            path,
            "file",
            found=f"also {cli.name_some(sorted(others))}",
            expected="tensors and plain values: all else can run code when it is opened",
            mend="if you trust its source, open it with torch.load(path, weights_only=False) and "
            "save these three alone: model_state_dicts, iteration, best_performance",
        )
    contents = checkpoint if isinstance(checkpoint, dict) else {}
    networks = contents.get("model_state_dicts")
    if not (
        isinstance(networks, list)
        and len(networks) == 2
        and all(isinstance(state, dict) for state in networks)
        and all(isinstance(value, Tensor) for state in networks for value in state.values())
    ):
        raise _Bad(
            path,
            "model_state_dicts",
            f"another form, in a file with {cli.name_some(list(contents)) or 'no names'}",
            "a list of two dictionaries of tensors, the teacher's and the student's",
        )
    for name in ("iteration", "best_performance"):
        if not isinstance(number := contents.get(name), Real):
            raise _Bad(path, name, number, "a number")
    return contents


def _shape(state: State, key: str, axes: int, where: str) -> tuple[int, ...]:
    if key not in state:
        raise _Bad(where, key, "nothing", f"a tensor of {axes} axes")
    shape = tuple(state[key].shape)
    if len(shape) != axes:
        raise _Bad(where, key, f"shape {shape}", f"a tensor of {axes} axes")
    return shape


def _width(state: State, key: str, where: str) -> int:
    width = _shape(state, key, 4, where)[0]
    if not width or width % models.HEADS:
        raise _Bad(where, key, f"{width} channels", f"a multiple of {models.HEADS}")
    return width


def trained_size(teacher: State, where: str) -> tuple[int, int]:
    """Height and width of the training images, which are square, from the positions at stride 2.

    Raises
    ------
    BadInput
        There are no positions, or not as many as a square of images of at least 16 × 16 has.
    """
    key = "fusion_x1.pos_embedding"
    positions = _shape(teacher, key, 2, where)[0]
    side = isqrt(positions)
    if side < 8 or side**2 != positions:
        raise _Bad(where, key, f"{positions} positions", "the square of a number from 8")
    return 2 * side, 2 * side


def derive_architecture(
    role: Literal["teacher", "student"], state: State, size: tuple[int, int], where: str
) -> models.Architecture:
    """Read a network's architecture from the shapes of its tensors.

    Parameters
    ----------
    state
        The network's tensors, by their published names.
    size
        Height and width that it was trained at.
    where
        The file, and which of its networks, for messages.

    Raises
    ------
    BadInput
        A tensor that tells of it is absent or has an impossible shape.
    """
    blocks = ["conv_0", *(f"down_{s}.convs" for s in _SCALES), "upcat_1.convs"]
    teacher = role == "teacher"
    adapters = [] if teacher else [f"student_adapter_x{s}.0.weight" for s in _SCALES]
    return models.Architecture(
        role=role,
        channels=_shape(state, "encoder.conv_0.conv_0.conv.weight", 4, where)[1],
        size=size,
        widths=tuple(_width(state, f"encoder.{b}.conv_1.conv.weight", where) for b in blocks),
        head_width=_shape(state, "encoder.final_conv.weight", 4, where)[0],
        text_width=_shape(state, "fusion_x1.text_proj.weight", 2, where)[1] if teacher else 0,
        teacher_widths=tuple(_width(state, key, where) for key in adapters),
        published=True,
    )


def convert(
    architecture: models.Architecture, state: State, where: str
) -> models.Teacher | models.Student:
    """Make our network of a published one's tensors; the text's weights are 1.

    Raises
    ------
    BadInput
        A tensor of the architecture is absent, has another shape, or is not of it.
    """
    # Shapes alone: drawing weights that are then replaced takes seconds.
    with torch.device("meta"):
        network = models.build(architecture, seed=0)
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items() if k != "text_weight"}
    problems = cli.Problems()
    if absent := [key for key in expected if key not in state]:
        problems.append(_Bad(where, cli.name_some(absent), "nothing", "tensors of the network"))
    if more := [key for key in state if key not in expected]:
        problems.append(_Bad(where, cli.name_some(more), "tensors", "none of these names"))
    problems.extend(
        _Bad(where, key, f"shape {tuple(state[key].shape)}", f"shape {shape}")
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    )
    problems.stop()
    if architecture.text_width:
        state = state | {"text_weight": torch.ones(len(_SCALES))}
    network.load_state_dict(state, assign=True)
    return network


def import_published(checkpoint: Path, teacher: Path, student: Path) -> None:
    """Write the two networks of a `checkpoint` of the authors' code as ours.

    Both files keep the checkpoint's SHA-256, its iteration and its best performance, the student's
    Dice on their test set, by which they choose the checkpoint.

    Raises
    ------
    BadInput
        The checkpoint cannot be used: see `read_checkpoint` and `convert`.
    """
    contents = read_checkpoint(checkpoint)
    taught, learnt = contents["model_state_dicts"]
    first, second = f"{checkpoint}, teacher", f"{checkpoint}, student"
    size = trained_size(taught, first)
    networks = (
        convert(derive_architecture("teacher", taught, size, first), taught, first),
        convert(derive_architecture("student", learnt, size, second), learnt, second),
    )
    made = io.provenance("import_published", {"checkpoint": checkpoint}, {}) | {
        "iteration": int(contents["iteration"]),
        "best_performance": float(contents["best_performance"]),
    }
    for network, path in zip(networks, (teacher, student)):
        models.save(network, path, made)


if __name__ == "__main__":
    cli.run(import_published)
