"""A U-Net for images of any size.

It is the BasicUNet of MONAI (group norm, LeakyReLU 0.1) with its names, written out here because
importing MONAI alone takes longer than a small job trains.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 4


class GroupNorm(nn.GroupNorm):
    """Group norm; in bfloat16 on a CPU it computes thin groups in float32.

    For groups that do not fill a vector, the kernel of bfloat16 takes four times as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        thin = self.num_channels // self.num_groups < 16
        return super().forward(input.float() if thin and input.device.type == "cpu" else input)


class Doubling(nn.ConvTranspose2d):
    """Transposed 2 × 2 convolution of stride 2, as a matrix product.

    Each pixel makes its own square of four, which none else reaches. A library's transposed
    convolution, made for squares that overlap, takes up to twice as long.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, stride=2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        (batch, _, height, width), (inputs, outputs) = input.shape, self.weight.shape[:2]
        assert self.bias is not None
        square = self.weight.permute(2, 3, 1, 0).reshape(4 * outputs, inputs)
        made = functional.linear(input.permute(0, 2, 3, 1), square, self.bias.repeat(4))
        # (B, h, w, 2, 2, C), and each square's rows among those of its neighbours.
        rows = made.view(batch, height, width, 2, 2, outputs).transpose(2, 3)
        return rows.reshape(batch, 2 * height, 2 * width, outputs).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """3 × 3 convolution, group norm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adn = nn.Sequential()
        self.adn.add_module("N", GroupNorm(GROUPS, outputs))
        self.adn.add_module("A", nn.LeakyReLU(0.1, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.adn(self.conv(x))  # type: ignore[no-any-return]


def two_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Stack two convolution blocks."""
    block = nn.Sequential()
    block.add_module("conv_0", ConvBlock(inputs, outputs))
    block.add_module("conv_1", ConvBlock(outputs, outputs))
    return block


def down(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the size, then two convolution blocks."""
    block = nn.Sequential()
    block.add_module("max_pooling", nn.MaxPool2d(2))
    block.add_module("convs", two_conv(inputs, outputs))
    return block


class UpCat(nn.Module):
    """Double the size by a transposed convolution, join the skip, two convolution blocks.

    Halving a skip with an odd side dropped its last row: the doubled feature's edge is repeated.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, upsampled: int) -> None:
        super().__init__()
        self.upsample = nn.Sequential()
        self.upsample.add_module("deconv", Doubling(inputs, upsampled))
        self.convs = two_conv(skip + upsampled, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.upsample(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if rows or columns:
            x = functional.pad(x, (0, columns, 0, rows), mode="replicate")
        # Joining two types takes several times as long.
        return self.convs(torch.cat([skip.to(x.dtype), x], dim=1))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """A BasicUNet in two halves, so that a network can work on the scales in between.

    Images have at least 16 × 16 pixels, one for the lowest scale.

    Parameters
    ----------
    channels
        Of the image.
    widths
        Channels of the five encoder scales and of the last decoder, multiples of 4.
    outputs
        Channels that `final_conv`, behind the decoder, makes of the last of `widths`.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        w = widths
        self.conv_0 = two_conv(channels, w[0])
        self.down_1 = down(w[0], w[1])
        self.down_2 = down(w[1], w[2])
        self.down_3 = down(w[2], w[3])
        self.down_4 = down(w[3], w[4])
        self.upcat_4 = UpCat(w[4], w[3], w[3], w[4] // 2)
        self.upcat_3 = UpCat(w[3], w[2], w[2], w[3] // 2)
        self.upcat_2 = UpCat(w[2], w[1], w[1], w[2] // 2)
        self.upcat_1 = UpCat(w[1], w[0], w[5], w[1])
        self.final_conv = nn.Conv2d(w[5], outputs, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the full-size feature and the four scales at strides 2, 4, 8 and 16."""
        x0 = self.conv_0(x)
        x1 = self.down_1(x0)
        x2 = self.down_2(x1)
        x3 = self.down_3(x2)
        return x0, [x1, x2, x3, self.down_4(x3)]

    def decode(self, x0: Tensor, scales: list[Tensor]) -> Tensor:
        """Return the full-size decoder feature, (B, widths[5], H, W)."""
        x1, x2, x3, x4 = scales
        u3 = self.upcat_4(x4, x3)
        u2 = self.upcat_3(u3, x2)
        u1 = self.upcat_2(u2, x1)
        return self.upcat_1(u1, x0)  # type: ignore[no-any-return]
