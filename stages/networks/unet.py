"""A U-Net for images of any size.

It is MONAI's BasicUNet (group norm, LeakyReLU 0.1) and uses its names. It is written out here
because importing MONAI takes longer than a small training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 4


class GroupNorm(nn.GroupNorm):
    """Group norm that, in bfloat16 on a CPU, computes groups of few channels in float32.

    If a group does not fill a vector register, the bfloat16 kernel takes four times as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        few_channels = self.num_channels // self.num_groups < 16
        return super().forward(
            input.float() if few_channels and input.device.type == "cpu" else input
        )


class TransposedConv2x2(nn.ConvTranspose2d):
    """Transposed 2 × 2 convolution of stride 2, computed as a matrix product.

    Each pixel makes its own 2 × 2 square, and squares do not overlap. A library's transposed
    convolution also supports overlap and takes up to twice as long.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        (batch, _, height, width), (in_channels, out_channels) = input.shape, self.weight.shape[:2]
        assert self.bias is not None
        square = self.weight.permute(2, 3, 1, 0).reshape(4 * out_channels, in_channels)
        squares = functional.linear(input.permute(0, 2, 3, 1), square, self.bias.repeat(4))
        # (B, h, w, 2, 2, C); transposed, so that the rows of neighbouring squares join.
        rows = squares.view(batch, height, width, 2, 2, out_channels).transpose(2, 3)
        return rows.reshape(batch, 2 * height, 2 * width, out_channels).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """3 × 3 convolution, group norm, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.adn = nn.Sequential()
        self.adn.add_module("N", GroupNorm(GROUPS, out_channels))
        self.adn.add_module("A", nn.LeakyReLU(0.1, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.adn(self.conv(x))  # type: ignore[no-any-return]


def two_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Stack two convolution blocks."""
    block = nn.Sequential()
    block.add_module("conv_0", ConvBlock(in_channels, out_channels))
    block.add_module("conv_1", ConvBlock(out_channels, out_channels))
    return block


def down(in_channels: int, out_channels: int) -> nn.Sequential:
    """Halve the size, then two convolution blocks."""
    block = nn.Sequential()
    block.add_module("max_pooling", nn.MaxPool2d(2))
    block.add_module("convs", two_conv(in_channels, out_channels))
    return block


class UpCat(nn.Module):
    """Upsample by a transposed convolution, join the skip connection, two convolution blocks.

    If the skip feature has an odd side, halving dropped its last row or column. The upsampled
    feature then repeats its edge.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, upsampled_channels: int
    ) -> None:
        super().__init__()
        self.upsample = nn.Sequential()
        self.upsample.add_module("deconv", TransposedConv2x2(in_channels, upsampled_channels))
        self.convs = two_conv(skip_channels + upsampled_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.upsample(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if rows or columns:
            x = functional.pad(x, (0, columns, 0, rows), mode="replicate")
        # torch.cat of two dtypes takes several times as long.
        return self.convs(torch.cat([skip.to(x.dtype), x], dim=1))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """A BasicUNet in two halves, so that a network can change the scales between them.

    Images need at least 16 × 16 pixels: the lowest scale then has one pixel.

    Parameters
    ----------
    channels
        Channels of the image.
    widths
        Channels of the five encoder scales and of the last decoder, multiples of 4.
    out_channels
        Output channels of `final_conv`, which reads the decoder's feature (`widths[5]` channels).
    """

    def __init__(self, channels: int, widths: tuple[int, ...], out_channels: int) -> None:
        super().__init__()
        w = widths
        self.scale_widths = w[1:5]
        self.conv_0 = two_conv(channels, w[0])
        self.down_1 = down(w[0], w[1])
        self.down_2 = down(w[1], w[2])
        self.down_3 = down(w[2], w[3])
        self.down_4 = down(w[3], w[4])
        self.upcat_4 = UpCat(w[4], w[3], w[3], w[4] // 2)
        self.upcat_3 = UpCat(w[3], w[2], w[2], w[3] // 2)
        self.upcat_2 = UpCat(w[2], w[1], w[1], w[2] // 2)
        self.upcat_1 = UpCat(w[1], w[0], w[5], w[1])
        self.final_conv = nn.Conv2d(w[5], out_channels, 1)

    @staticmethod
    def grid(size: tuple[int, int], scale: int) -> tuple[int, int]:
        """Return height and width of scale 0, 1, 2 or 3 for an image of `size`."""
        return size[0] >> (scale + 1), size[1] >> (scale + 1)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the full-size feature and the features of the scales at strides 2, 4, 8 and 16."""
        x0 = self.conv_0(x)
        x1 = self.down_1(x0)
        x2 = self.down_2(x1)
        x3 = self.down_3(x2)
        return x0, [x1, x2, x3, self.down_4(x3)]

    def decode(self, x0: Tensor, scales: list[Tensor]) -> Tensor:
        """Return the decoder's full-size feature, (B, widths[5], H, W)."""
        x1, x2, x3, x4 = scales
        u3 = self.upcat_4(x4, x3)
        u2 = self.upcat_3(u3, x2)
        u1 = self.upcat_2(u2, x1)
        return self.upcat_1(u1, x0)  # type: ignore[no-any-return]
