"""A checkpoint of the authors' code → teacher.safetensors and student.safetensors.

Their two networks have the same tensor names and shapes as ours, without the weights of the text,
which their code fixes at 1. `Architecture.published` describes where their networks compute
something else.
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
# Their best performance is a NumPy scalar. This function unpickles it; NumPy 1 has another name.
_numpy_scalar = np.float32().__reduce__()[0]
_SAFE_GLOBALS: list[Any] = [
    _numpy_scalar,
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]
# What DataParallel and torch.compile call the network that they wrap.
_WRAPPERS = {"module", "_orig_mod"}
_MEND = "use a complete checkpoint (.pth) that the authors' training wrote"


class _BadCheckpoint(cli.BadInput):
    def __init__(self, where: Path | str, field: str, found: object, expected: object) -> None:
        super().__init__(where, field, found=found, expected=expected, mend=_MEND)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code of the file.

    Returns
    -------
    The entries of the checkpoint, with `model_state_dicts` (teacher, student), `iteration` and
    `best_performance`.

    Raises
    ------
    BadInput
        `torch.save` did not write the file, it holds objects other than tensors and plain values,
        or one of these entries is missing.
    """
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            unsafe_globals = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            checkpoint = None if unsafe_globals else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        found = str(error).partition("\n")[0]
        raise _BadCheckpoint(path, "file", found, "a file that torch.save wrote") from error
    if unsafe_globals:
        raise cli.BadInput(
            path,
            "file",
            found=f"also {cli.list_names(sorted(unsafe_globals))}",
            expected="only tensors and plain values: loading other objects can run code",
            mend="if you trust its source, load it with torch.load(path, weights_only=False) and "
            "save only model_state_dicts, iteration and best_performance",
        )
    contents = checkpoint if isinstance(checkpoint, dict) else {}
    networks = contents.get("model_state_dicts")
    if not (
        isinstance(networks, list)
        and len(networks) == 2
        and all(isinstance(state, dict) for state in networks)
        and all(
            isinstance(name, str) and isinstance(value, Tensor)
            for state in networks
            for name, value in state.items()
        )
    ):
        raise _BadCheckpoint(
            path,
            "model_state_dicts",
            f"another structure, in a file with {cli.list_names(list(contents)) or 'no names'}",
            "a list of two dictionaries of tensors, of teacher and student",
        )
    for name in ("iteration", "best_performance"):
        if not isinstance(number := contents.get(name), Real):
            raise _BadCheckpoint(path, name, number, "a number")
    return contents


def remove_wrappers(state: State, where: str) -> State:
    """Take off what wrappers of a network add to the names of its tensors.

    DataParallel and torch.compile add `module` and `_orig_mod`, wherever they wrap a part. A model
    that holds the network adds one more name before all of them. A published network has several
    parts, so a name before all tensors is none of it.

    Raises
    ------
    BadInput
        Two tensors would have the same name.
    """
    bare: State = {}
    for name, tensor in state.items():
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        if (key := ".".join(parts)) in bare:
            raise _BadCheckpoint(where, key, "two tensors, in wrappers", "one tensor of this name")
        bare[key] = tensor
    while len({name.partition(".")[0] for name in bare}) == 1 and all("." in name for name in bare):
        bare = {name.partition(".")[2]: tensor for name, tensor in bare.items()}
    return bare


def _require_shape(state: State, key: str, axes: int, where: str) -> tuple[int, ...]:
    if key not in state:
        found = f"nothing, among {cli.list_names(list(state), 3) or 'no tensors'}"
        raise _BadCheckpoint(where, key, found, f"a tensor of {axes} axes")
    shape = tuple(state[key].shape)
    if len(shape) != axes:
        raise _BadCheckpoint(where, key, f"shape {shape}", f"a tensor of {axes} axes")
    return shape


def _require_width(state: State, key: str, where: str) -> int:
    width = _require_shape(state, key, 4, where)[0]
    if not width or width % models.ATTENTION_HEADS:
        raise _BadCheckpoint(
            where, key, f"{width} channels", f"a multiple of {models.ATTENTION_HEADS}"
        )
    return width


def training_image_size(teacher: State, where: str) -> tuple[int, int]:
    """Derive the size of the square training images from the position embeddings at stride 2.

    Raises
    ------
    BadInput
        There are no position embeddings, or their number does not fit square images of at least
        16 × 16.
    """
    key = "fusion_x1.pos_embedding"
    positions = _require_shape(teacher, key, 2, where)[0]
    side = isqrt(positions)
    if side < 8 or side**2 != positions:
        raise _BadCheckpoint(
            where, key, f"{positions} positions", "the square of a number from 8 on"
        )
    return 2 * side, 2 * side


def derive_architecture(
    role: Literal["teacher", "student"], state: State, size: tuple[int, int], where: str
) -> models.Architecture:
    """Derive the architecture of a network from the shapes of its tensors.

    Parameters
    ----------
    role
        Which of the two networks it is.
    state
        The tensors of the network, with their published names.
    size
        Height and width of the training images.
    where
        The file and the network, for messages.

    Raises
    ------
    BadInput
        A tensor that defines the architecture is absent or has an impossible shape.
    """
    blocks = ["conv_0", *(f"down_{s}.convs" for s in _SCALES), "upcat_1.convs"]
    teacher = role == "teacher"
    adapters = [] if teacher else [f"student_adapter_x{s}.0.weight" for s in _SCALES]
    return models.Architecture(
        role=role,
        channels=_require_shape(state, "encoder.conv_0.conv_0.conv.weight", 4, where)[1],
        size=size,
        widths=tuple(
            _require_width(state, f"encoder.{block}.conv_1.conv.weight", where) for block in blocks
        ),
        head_width=_require_shape(state, "encoder.final_conv.weight", 4, where)[0],
        text_width=_require_shape(state, "fusion_x1.text_proj.weight", 2, where)[1]
        if teacher
        else 0,
        teacher_widths=tuple(_require_width(state, key, where) for key in adapters),
        published=True,
    )


def convert_network(
    architecture: models.Architecture, state: State, where: str
) -> models.Teacher | models.Student:
    """Make our network from the tensors of a published one; the weights of the text are 1.

    Raises
    ------
    BadInput
        A tensor is absent, has another shape, or does not belong to the architecture.
    """
    # Without values: drawing initial weights, which are then replaced, takes seconds.
    with torch.device("meta"):
        network = models.build(architecture, seed=0)
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items() if k != "text_weight"}
    problems = cli.Problems()
    if missing := [key for key in expected if key not in state]:
        problems.append(
            _BadCheckpoint(where, cli.list_names(missing), "nothing", "tensors of the network")
        )
    if unexpected := [key for key in state if key not in expected]:
        problems.append(
            _BadCheckpoint(
                where, cli.list_names(unexpected), "tensors", "no tensors with these names"
            )
        )
    problems.extend(
        _BadCheckpoint(where, key, f"shape {tuple(state[key].shape)}", f"shape {shape}")
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    )
    problems.raise_all()
    if architecture.text_width:
        state = state | {"text_weight": torch.ones(len(_SCALES))}
    network.load_state_dict(state, assign=True)
    return network


def import_published(checkpoint: Path, teacher: Path, student: Path) -> None:
    """Convert the two networks of a `checkpoint` of the authors' code to our weight files.

    Both files hold the SHA-256, the iteration and the best performance of the checkpoint. The best
    performance is the student's Dice on their test set, which their code uses to choose the
    checkpoint.

    Raises
    ------
    BadInput
        The checkpoint cannot be used: see `read_checkpoint` and `convert_network`.
    """
    contents = read_checkpoint(checkpoint)
    teacher_source, student_source = f"{checkpoint}, teacher", f"{checkpoint}, student"
    teacher_state, student_state = (
        remove_wrappers(state, source)
        for state, source in zip(contents["model_state_dicts"], (teacher_source, student_source))
    )
    size = training_image_size(teacher_state, teacher_source)
    networks = (
        convert_network(
            derive_architecture("teacher", teacher_state, size, teacher_source),
            teacher_state,
            teacher_source,
        ),
        convert_network(
            derive_architecture("student", student_state, size, student_source),
            student_state,
            student_source,
        ),
    )
    metadata = io.provenance("import_published", {"checkpoint": checkpoint}, {}) | {
        "iteration": int(contents["iteration"]),
        "best_performance": float(contents["best_performance"]),
    }
    for network, path in zip(networks, (teacher, student)):
        models.save(network, path, metadata)


if __name__ == "__main__":
    cli.run(import_published)
