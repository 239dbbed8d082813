"""A U-Net on an encoder of timm, for images of any size."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stages.core.images import IMAGENET_MEAN, IMAGENET_STD
from stages.networks.batch_norm import synchronise

# Strides of the feature maps that the decoder reads; some encoders have no map of stride 2.
STRIDES = (2, 4, 8, 16, 32)
# It warns of weights behind the feature maps, which are left out on purpose.
logging.getLogger("timm.models._builder").setLevel(logging.ERROR)


class UnsuitableEncoder(ValueError):
    """A model of timm that cannot be the encoder of a U-Net."""


def create_backbone(name: str, channels: int, weights: Mapping[str, Tensor] | None = None) -> Any:
    """Create timm's model as a pyramid of feature maps.

    Parameters
    ----------
    name
        Name of a model of timm.
    channels
        Channels of the image. Weights of the first layer are adapted to it, as timm does.
    weights
        State of the whole model for colour images, by timm's names; None: random weights.

    Raises
    ------
    UnsuitableEncoder
        timm has no such model, or its feature maps do not have strides (2,) 4, 8, 16 and 32.
    """
    # timm asks the network for a name with a scheme, such as hf-hub:, even without weights.
    if not timm.is_model(name.split(".")[0]):
        raise UnsuitableEncoder(f"timm has no model {name!r}")
    pretrained = (
        {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(weights)}}
        if weights
        else {}
    )
    try:
        backbone: Any = timm.create_model(name, features_only=True, in_chans=channels, **pretrained)
        strides = tuple(s for s in backbone.feature_info.reduction() if s > 1)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise UnsuitableEncoder(f"timm cannot make feature maps of {name!r}: {error}") from error
    if strides not in (STRIDES, STRIDES[1:]):
        raise UnsuitableEncoder(
            f"the feature maps of {name!r} have strides {strides}; needed: {STRIDES}, with or"
            " without the first"
        )
    return backbone


class TimmUNet(nn.Module):
    """An encoder of timm and the U-Net decoder of segmentation_models_pytorch, in two halves.

    A network can change the scales between the halves, as in `unet.UNet`. The batch norm of the
    encoder keeps its statistics: a batch is too small to estimate them anew, and the weights were
    trained with these.

    Parameters
    ----------
    name
        Name of a model of timm.
    channels
        Channels of the image.
    decoder_widths
        Channels of the five decoder blocks, at strides 16, 8, 4, 2 and 1.
    out_channels
        Output channels of `final_conv`, which reads the decoder's feature.
    mean, std
        Statistics (R, G, B) by which colour images in [0, 1] were normalised when the encoder was
        trained. Images arrive normalised by `IMAGENET_MEAN` and `IMAGENET_STD`; the network
        converts them. Images of one channel stay as they are.
    weights
        As for `create_backbone`.

    Raises
    ------
    UnsuitableEncoder
        As `create_backbone`.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        decoder_widths: Sequence[int],
        out_channels: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = create_backbone(name, channels, weights)
        info = self.backbone.feature_info
        maps = [i for i, stride in enumerate(info.reduction()) if stride > 1]
        self.first_map = maps[0]
        widths = [info.channels()[i] for i in maps]
        self.has_stride_2 = len(widths) == len(STRIDES)
        self.scale_widths: tuple[int, ...] = tuple(widths[-4:])
        # An absent map of stride 2 becomes one without channels, so that the decoder has its step.
        skips = widths if self.has_stride_2 else [0, *widths]
        self.decoder = synchronise(
            UnetDecoder([channels, *skips], list(decoder_widths), n_blocks=len(STRIDES))
        )
        self.final_conv = nn.Conv2d(decoder_widths[-1], out_channels, 1)
        scale, shift = torch.ones(3), torch.zeros(3)
        if channels == 3:
            scale = torch.tensor(IMAGENET_STD) / torch.tensor(std)
            shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(mean)) / torch.tensor(std)
        self.register_buffer("scale", scale[:channels, None, None], persistent=False)
        self.register_buffer("shift", shift[:channels, None, None], persistent=False)

    scale: Tensor
    shift: Tensor

    def train(self, mode: bool = True) -> "TimmUNet":
        """Set the mode; the encoder's batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @staticmethod
    def grid(size: tuple[int, int], scale: int) -> tuple[int, int]:
        """Return height and width of scale 0, 1, 2 or 3 for an image of `size`."""
        stride = STRIDES[scale + 1]
        return -(-size[0] // stride), -(-size[1] // stride)

    def encode(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the decoder needs besides, and the features at strides 4, 8, 16 and 32."""
        maps = self.backbone(x * self.scale + self.shift)[self.first_map :]
        if not self.has_stride_2:
            height, width = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
            maps = [x.new_zeros(len(x), 0, height, width), *maps]
        return [x, maps[0]], maps[1:]

    def decode(self, shallow: list[Tensor], scales: list[Tensor]) -> Tensor:
        """Return the decoder's full-size feature, (B, decoder_widths[-1], H, W)."""
        decoded: Tensor = self.decoder([*shallow, *scales])
        return decoded
