"""The U-Net on an encoder of timm."""

import pytest
import timm
import torch
from torch import nn

from stages.core.images import IMAGENET_MEAN, IMAGENET_STD
from stages.networks.batch_norm import BatchNorm
from stages.networks.timm_unet import (
    TimmUNet,
    UnsuitableEncoder,
    create_backbone,
)

WIDTHS = (32, 24, 16, 16, 8)
# With a feature map of stride 2, without one, and with one of stride 1 as well.
MODELS = ("test_efficientnet", "test_convnext", "vgg11")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 96), (97, 50)])
def test_the_decoded_feature_has_the_size_of_the_image(name, channels, size):
    network = TimmUNet(name, channels, WIDTHS, out_channels=12).eval()
    with torch.no_grad():
        shallow, scales = network.encode(torch.randn(2, channels, *size))
        decoded = network.decode(shallow, scales)
    assert decoded.shape == (2, WIDTHS[-1], *size)
    assert tuple(scale.shape[1] for scale in scales) == network.scale_widths
    assert network.final_conv(decoded).shape == (2, 12, *size)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_the_grid_of_each_scale_is_known_before_an_image_is_seen(name):
    network = TimmUNet(name, 3, WIDTHS, out_channels=12).eval()
    with torch.no_grad():
        _, scales = network.encode(torch.randn(1, 3, 64, 96))
    grids = [network.grid((64, 96), scale) for scale in range(4)]
    assert [tuple(scale.shape[2:]) for scale in scales] == grids
    assert grids == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize("name", ["test_vit", "no_such_model"])
def test_a_model_without_a_pyramid_of_feature_maps_is_refused(name):
    with pytest.raises(UnsuitableEncoder, match=name):
        create_backbone(name, 3)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_the_deepest_map_is_that_of_timms_whole_model_with_these_weights(name):
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=0).eval()
    backbone = create_backbone(name, 3, whole.state_dict()).eval()
    image = torch.randn(1, 3, 64, 64)
    maps = []
    # What the feature maps end in: behind the last stage, before head and pooling.
    last = whole.blocks if hasattr(whole, "blocks") else getattr(whole, "stages", None)
    (last[-1] if last is not None else whole.layer4).register_forward_hook(
        lambda module, inputs, output: maps.append(output)
    )
    with torch.no_grad():
        whole.forward_features(image)
        torch.testing.assert_close(backbone(image)[-1], maps[0])


def test_a_grey_image_reads_the_sum_of_the_colour_weights():
    torch.manual_seed(0)
    whole = timm.create_model("test_efficientnet")
    grey = create_backbone("test_efficientnet", 1, whole.state_dict())
    weight = whole.conv_stem.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.conv_stem.weight, weight)


def test_images_are_normalised_as_the_encoder_was_trained():
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    torch.manual_seed(0)
    converts = TimmUNet("test_efficientnet", 3, WIDTHS, 12, mean, std).eval()
    reads = TimmUNet("test_efficientnet", 3, WIDTHS, 12).eval()
    reads.load_state_dict(converts.state_dict())
    image = torch.rand(1, 3, 32, 32)

    def normalised(by, over):
        return (image - torch.tensor(by)[:, None, None]) / torch.tensor(over)[:, None, None]

    with torch.no_grad():
        _, found = converts.encode(normalised(IMAGENET_MEAN, IMAGENET_STD))
        _, expected = reads.encode(normalised(mean, std))
    for scale, other in zip(found, expected):
        torch.testing.assert_close(scale, other, rtol=1e-3, atol=1e-4)


def test_a_grey_image_is_not_converted():
    network = TimmUNet("test_efficientnet", 1, WIDTHS, 12, (0.5,) * 3, (0.5,) * 3)
    assert network.scale.item() == 1 and network.shift.item() == 0


def test_the_encoders_batch_norm_keeps_its_statistics_and_the_decoders_does_not():
    network = TimmUNet("test_efficientnet", 3, WIDTHS, 12).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.decode(*network.encode(torch.randn(4, 3, 64, 64)))
    changed = {name for name, value in network.named_buffers() if not value.equal(before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    # Its scale and shift are trained.
    assert network.backbone.bn1.weight.requires_grad


def test_the_decoders_batch_norm_is_over_all_processes():
    network = TimmUNet("test_efficientnet", 3, WIDTHS, 12)
    norms = [m for m in network.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 10 and all(isinstance(norm, BatchNorm) for norm in norms)
