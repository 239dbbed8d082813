"""The two networks: a U-Net teacher that reads image and text, a slimmer student without text.

Module names follow the published networks, so that their weights can be told apart key by key.
The U-Net is the BasicUNet of MONAI (group norm, LeakyReLU 0.1), written out here because importing
MONAI alone takes longer than a small job trains.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from stages import io
from stages.cli import BadInput

GROUPS = 4
HEADS = 8
CLASSES = 2


class Architecture(BaseModel):
    """What a weights file says of its network, enough to build it again.

    Attributes
    ----------
    role
        teacher or student.
    channels
        Of the image: 3 colour, 1 MR or CT.
    size
        Height and width that it was trained at; others run, with interpolated positions.
    widths
        Channels of the five encoder scales and of the last decoder.
    head_width
        Channels of the 1 × 1 head.
    text_width
        Channels of a text token; 0: a teacher without text.
    teacher_widths
        Channels of the teacher's four scales that a student aligns to; empty: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["teacher", "student"]
    channels: int
    size: tuple[int, int]
    widths: tuple[int, int, int, int, int, int]
    head_width: int
    text_width: int = 0
    teacher_widths: tuple[int, ...] = ()


class Output(NamedTuple):
    """A network's answer.

    Attributes
    ----------
    logits
        (B, 2, H, W), channel 1 the foreground.
    features
        One (B, C, h, w) per scale.
    attention
        Where it was asked for: one (B, K, h, w) per scale, the share of each text token in what a
        position reads, averaged over the heads. The shares of a position sum to 1; a sample
        without text has zeros.
    """

    logits: Tensor
    features: list[Tensor]
    attention: tuple[Tensor, ...] = ()


class ConvBlock(nn.Module):
    """3 × 3 convolution, group norm, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adn = nn.Sequential()
        self.adn.add_module("N", nn.GroupNorm(GROUPS, outputs))
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
    """Double the size by a transposed convolution, join the skip, two convolution blocks."""

    def __init__(self, inputs: int, skip: int, outputs: int, upsampled: int) -> None:
        super().__init__()
        self.upsample = nn.Sequential()
        self.upsample.add_module("deconv", nn.ConvTranspose2d(inputs, upsampled, 2, stride=2))
        self.convs = two_conv(skip + upsampled, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([skip, self.upsample(x)], dim=1))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """A BasicUNet in two halves, so that a network can work on the scales in between."""

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
        """Return the full-size decoder feature."""
        x1, x2, x3, x4 = scales
        u3 = self.upcat_4(x4, x3)
        u2 = self.upcat_3(u3, x2)
        u1 = self.upcat_2(u2, x1)
        return self.final_conv(self.upcat_1(u1, x0))  # type: ignore[no-any-return]


class TextFusion(nn.Module):
    """Cross-attention from image to text at one scale.

    tokens = feature + position; out = LayerNorm(tokens + Attention(tokens, text, text)), with the
    projected text as key and value. Samples without text (all-zero tokens) get 0.
    """

    def __init__(self, width: int, text_width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.pos_embedding = nn.Parameter(torch.empty(grid[0] * grid[1], width))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)
        self.text_proj = nn.Linear(text_width, width)
        self.attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def position(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding (h·w, width), interpolated where the grid is not the trained one."""
        if grid == self.grid:
            return self.pos_embedding
        image = self.pos_embedding.T.reshape(1, -1, *self.grid)
        resized = functional.interpolate(image, grid, mode="bicubic", align_corners=False)
        return resized.flatten(2)[0].T

    def forward(
        self, x: Tensor, text: Tensor, attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the fused feature (B, C, h, w) and, with `attention`, the shares (B, K, h, w)."""
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2) + self.position((height, width))
        words = self.text_proj(text)
        # The weights cost memory, and the faster kernel: only those who ask for them pay.
        attended, shares = self.attn(tokens, words, words, need_weights=attention)
        fused = self.norm(tokens + attended)
        present = (text != 0).any(dim=2).any(dim=1)[:, None, None]
        image: Tensor = (fused * present).transpose(1, 2).reshape(x.shape)
        if shares is None:
            return image, None
        return image, (shares * present).transpose(1, 2).unflatten(2, (height, width))


class Projection(nn.Module):
    """1 × 1 convolution, batch norm, ReLU, 1 × 1 convolution, batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1)
    )


class Teacher(nn.Module):
    """U-Net whose four scales are fused with the text, each by a learned weight.

    At scale s: f = x + λ_s · TextFusion(x, text); p = Projection(f); the decoder gets f + p, and p
    is what a student aligns to.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.encoder = UNet(a.channels, a.widths, a.head_width)
        for s, width in enumerate(a.widths[1:5], start=1):
            if a.text_width:
                grid = (a.size[0] >> s, a.size[1] >> s)
                self.add_module(f"fusion_x{s}", TextFusion(width, a.text_width, grid))
            self.add_module(f"distill_proj_x{s}", Projection(width))
        if a.text_width:
            self.text_weight = nn.Parameter(torch.ones(4))
        self.head = _head(a.head_width)
        self.classifier = nn.Conv2d(a.head_width, CLASSES, 1)

    def forward(self, image: Tensor, text: Tensor | None = None, attention: bool = False) -> Output:
        """Segment.

        Parameters
        ----------
        image
            (B, C, H, W) float, normalised; H and W multiples of 16.
        text
            (B, K, D) float, zeros where a sample has none; None: no sample has any.
        attention
            Also return where each text token is read, if there is text to read.
        """
        x0, scales = self.encoder.encode(image)
        features, maps = [], []
        for s, x in enumerate(scales, start=1):
            fused = x
            if self.architecture.text_width and text is not None:
                told, shares = self.get_submodule(f"fusion_x{s}")(x, text, attention)
                fused = x + self.text_weight[s - 1] * told
                if attention:
                    maps.append(shares)
            projected = self.get_submodule(f"distill_proj_x{s}")(fused)
            features.append(projected)
            scales[s - 1] = fused + projected
        logits = self.classifier(self.head(self.encoder.decode(x0, scales)))
        return Output(logits, features, tuple(maps))


class Student(nn.Module):
    """U-Net that reads the image alone: the network to deploy.

    For a teacher to align to, each scale has a projection and an adapter to the teacher's
    channels. They serve training only: the decoder uses the scales as they are.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.encoder = UNet(a.channels, a.widths, a.head_width)
        for s, (width, target) in enumerate(zip(a.widths[1:5], a.teacher_widths), start=1):
            self.add_module(f"distill_proj_x{s}", Projection(width))
            adapter = nn.Sequential(
                nn.Conv2d(width, target, 1), nn.BatchNorm2d(target), nn.ReLU(inplace=True)
            )
            self.add_module(f"student_adapter_x{s}", adapter)
        self.head = _head(a.head_width)
        self.classifier = nn.Conv2d(a.head_width, CLASSES, 1)

    def forward(self, image: Tensor, align: bool = False) -> Output:
        """Segment (B, C, H, W); with `align` also the features at the teacher's channels."""
        x0, scales = self.encoder.encode(image)
        logits = self.classifier(self.head(self.encoder.decode(x0, scales)))
        features = []
        for s, x in enumerate(scales if align else [], start=1):
            projected = self.get_submodule(f"distill_proj_x{s}")(x)
            features.append(self.get_submodule(f"student_adapter_x{s}")(projected))
        return Output(logits, features)


def build(architecture: Architecture, seed: int) -> Teacher | Student:
    """Build a network with weights drawn from `seed`, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = Teacher if architecture.role == "teacher" else Student
        model: Teacher | Student = kind(architecture)
        return model.to(memory_format=torch.channels_last)


def save(model: Teacher | Student, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write the weights as safetensors; the metadata holds architecture and provenance."""
    about = {"architecture": model.architecture.model_dump(), **provenance}
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with io.atomic(path) as temporary:
        # One entry: the order in which several are written differs from run to run.
        save_file(tensors, temporary, {"about": json.dumps(about, sort_keys=True)})


@overload
def load(path: Path, role: Literal["teacher"]) -> Teacher: ...
@overload
def load(path: Path, role: Literal["student"]) -> Student: ...
def load(path: Path, role: Literal["teacher", "student"]) -> Teacher | Student:
    """Build the network of a weights file, in evaluation mode.

    Raises
    ------
    BadInput
        The file is no safetensors file of ours, or holds the other role's network.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            architecture = Architecture.model_validate(about["architecture"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise BadInput(
            path,
            "file",
            found=error,
            expected="safetensors weights with an architecture",
            mend="name a teacher.safetensors or student.safetensors that the pipeline wrote",
        ) from error
    if architecture.role != role:
        raise BadInput(
            path, "role", found=architecture.role, expected=role, mend=f"name a {role}'s file"
        )
    model = build(architecture, seed=0)
    model.load_state_dict(tensors)
    return model.eval()
