"""Name of a model of timm → a file with its pretrained weights and how it wants images."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from stages.core import cli, io, job_log
from stages.core.cli import BadInput
from stages.networks.encoder_file import read_encoder
from stages.networks.tensors import save_tensors
from stages.settings.parts import EncoderSettings
from stages.settings.training import StudentSettings, TeacherSettings


class Encoder(NamedTuple):
    """What a network needs of its encoder.

    Attributes
    ----------
    architecture
        Fields of `models.Architecture` that describe encoder and decoder.
    weights
        Pretrained weights by timm's names; None: the network starts from random weights.
    """

    architecture: dict[str, Any]
    weights: dict[str, Tensor] | None = None


def prepare_encoder(output: Path, settings: EncoderSettings) -> None:
    """Write the pretrained weights of an encoder, and the statistics of its training images.

    The weights come from a package, from timm's hub or from a file. Trainings read only the
    written file, so a node that trains needs no internet. With weights "none" the file has no
    tensors.

    Raises
    ------
    BadInput
        timm has no such model, or it makes no feature maps for a U-Net; the weights cannot be had,
        or belong to another model.
    """
    import timm

    from stages.networks.encoder_weights import read_weights
    from stages.networks.timm_unet import UnsuitableEncoder, create_backbone

    name = settings.encoder
    tensors = read_weights(name, settings.weights)
    try:
        create_backbone(name, channels=3)
    except UnsuitableEncoder as error:
        raise BadInput(
            "config.yaml", "encoder", found=error,
            expected="a model of timm with feature maps at strides 4, 8, 16 and 32",
            mend="name another one, for example tf_efficientnet_lite0, resnet34 or convnext_tiny",
        ) from error  # fmt: skip
    inputs = {"weights": Path(settings.file)} if settings.file else {}
    provenance = io.provenance("encoder", inputs, settings)
    job_log.log_provenance(provenance)
    statistics = {key: timm.get_pretrained_cfg_value(name, key) for key in ("mean", "std")}
    about = {"encoder": name, **statistics, **provenance}
    save_tensors(tensors, output, {"about": json.dumps(about, sort_keys=True)})


def load_encoder(path: Path | None, settings: TeacherSettings | StudentSettings) -> Encoder:
    """Read the encoder that a network's settings name.

    Raises
    ------
    BadInput
        The file is absent although the settings name an encoder of timm, or is another encoder's.
    """
    if settings.pretrained is None:
        return Encoder({"widths": settings.widths})
    content = read_encoder(path, settings.encoder)
    architecture = {
        "encoder": settings.encoder,
        "decoder_widths": settings.decoder_widths,
        "encoder_mean": content.mean,
        "encoder_std": content.std,
    }
    return Encoder(architecture, content.weights)


if __name__ == "__main__":
    cli.run(prepare_encoder)
