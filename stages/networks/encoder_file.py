"""The file of an encoder: its pretrained weights, and the statistics of its training images."""

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open
from torch import Tensor

from stages.core.cli import BadInput


class EncoderFile(NamedTuple):
    """What the file of an encoder holds.

    Attributes
    ----------
    mean, std
        Statistics (R, G, B) by which it wants colour images in [0, 1] normalised.
    weights
        By timm's names; None: the encoder starts from random weights.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: dict[str, Tensor] | None


def read_encoder(path: Path | None, name: str) -> EncoderFile:
    """Read the file of an encoder of timm.

    Raises
    ------
    BadInput
        There is no path, or the file is no encoder's, or another encoder's.
    """
    mend = f"make it with python -m stages.training.encoder for {name}"
    if path is None:
        raise BadInput("--encoder", "option", found="none", expected=f"file of {name}", mend=mend)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            found, mean, std = about["encoder"], tuple(about["mean"]), tuple(about["std"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise BadInput(
            path, "file", found=error, expected="the file of an encoder", mend=mend
        ) from error
    if found != name:
        raise BadInput(path, "encoder", found=found, expected=name, mend=mend)
    return EncoderFile(mean, std, weights or None)
