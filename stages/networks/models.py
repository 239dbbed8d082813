"""The two networks: a U-Net teacher that reads image and text, a slimmer student without text.

Module names follow the published networks, so that their weights can be told apart key by key.
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

from stages.core import io
from stages.core.cli import BadInput
from stages.networks.batch_norm import BatchNorm
from stages.networks.unet import UNet

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
    published
        As the authors' code computes: the head has LeakyReLU 0.1 in place of ReLU, a teacher's
        decoder reads each scale without the fused text, which reaches it by the projection alone,
        and channel 1 alone says what is foreground.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["teacher", "student"]
    channels: int
    size: tuple[int, int]
    widths: tuple[int, int, int, int, int, int]
    head_width: int
    text_width: int = 0
    teacher_widths: tuple[int, ...] = ()
    published: bool = False


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
    published
        Whether the network computes as the authors' code does.
    """

    logits: Tensor
    features: list[Tensor]
    attention: tuple[Tensor, ...] = ()
    published: bool = False

    @property
    def log_odds(self) -> Tensor:
        """Log-odds of foreground (B, H, W), above 0 where a network says foreground.

        Channel 1 less channel 0. Of a published network channel 1 alone, as the authors' code
        reads it: their labels teach no other, and consistency lifts channel 0 above it everywhere.
        """
        foreground = self.logits[:, 1]
        return foreground if self.published else foreground - self.logits[:, 0]


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
        attended, shares = self._attend(tokens, self.text_proj(text))
        present = (text != 0).any(dim=2).any(dim=1)[:, None, None]
        fused = self.norm(tokens + attended) * present
        image: Tensor = fused.transpose(1, 2).reshape(x.shape)
        if not attention:
            return image, None
        return image, (shares.mean(dim=1) * present).reshape(len(x), -1, height, width)

    def _attend(self, tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `attn` does, for many tokens (B, N, C) and few words (B, K, C).

        The products of few vectors come first: the projection of the queries goes into the keys
        and that of the output into the values. So a token costs 2 · HEADS · K · C multiplications
        in place of 2 · C · (C + K).

        Returns
        -------
        (B, N, C), and the shares (B, HEADS, K, N).
        """
        (batch, count, width), out = words.shape, self.attn.out_proj
        heads = (HEADS, width // HEADS)
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        query = weight[:width].reshape(*heads, width)
        query_bias = bias[:width].reshape(*heads, 1)
        projected = functional.linear(words, weight[width:], bias[width:])
        # Each (B, HEADS, K, C / HEADS).
        key, value = projected.reshape(batch, count, 2, *heads).permute(2, 0, 3, 1, 4)
        key = key * heads[1] ** -0.5
        # (B, HEADS · K, C), and what the bias of the queries adds, (B, HEADS · K, 1).
        keys, constant = (key @ query).flatten(1, 2), (key @ query_bias).flatten(1, 2)
        values = (value @ out.weight.T.reshape(*heads, width)).flatten(1, 2)
        scores = torch.baddbmm(constant, keys, tokens.transpose(1, 2))
        shares = scores.reshape(batch, HEADS, count, -1).softmax(dim=2)
        return torch.baddbmm(out.bias, shares.flatten(1, 2).transpose(1, 2), values), shares


class Projection(nn.Module):
    """1 × 1 convolution, batch norm, ReLU, 1 × 1 convolution, batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(width, width, 1),
            BatchNorm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1),
            BatchNorm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


def _head(width: int, published: bool) -> nn.Sequential:
    activation = nn.LeakyReLU(0.1, inplace=True) if published else nn.ReLU(inplace=True)
    return nn.Sequential(nn.Conv2d(width, width, 1), activation, nn.Conv2d(width, width, 1))


def in_a_row(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """Compute two 1 × 1 convolutions in a row as one: V (U x + a) + b = (V U) x + (V a + b).

    What lies in between, as large as the image, is then neither computed nor kept: a student of the
    published widths answers in five sixths of the time.
    """
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    assert first.bias is not None and second.bias is not None
    with torch.autocast(x.device.type, enabled=False):
        outer = second.weight.flatten(1)
        weight = (outer @ first.weight.flatten(1))[:, :, None, None]
        bias = torch.addmv(second.bias, outer, first.bias)
    return functional.conv2d(x, weight, bias)


class Segmenter(nn.Module):
    """What is behind the decoder of both networks: a 1 × 1 head of two layers and a classifier."""

    encoder: UNet
    head: nn.Sequential
    classifier: nn.Conv2d

    def describe(self, decoded: Tensor) -> Tensor:
        """Return what the head's second layer reads, (B, head_width, H, W)."""
        hidden = in_a_row(decoded, self.encoder.final_conv, self.head[0])
        return self.head[1](hidden)  # type: ignore[no-any-return]

    def classify(self, decoded: Tensor) -> Tensor:
        """Return the logits (B, 2, H, W) of the decoded feature."""
        return in_a_row(self.describe(decoded), self.head[2], self.classifier).float()


class Teacher(Segmenter):
    """U-Net whose four scales are fused with the text, each by a learned weight.

    At scale s: f = x + λ_s · TextFusion(x, text); p = Projection(f); the decoder gets f + p, or
    x + p as published; p is what a student aligns to.
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
        self.head = _head(a.head_width, a.published)
        self.classifier = nn.Conv2d(a.head_width, CLASSES, 1)

    def forward(self, image: Tensor, text: Tensor | None = None, attention: bool = False) -> Output:
        """Segment an image.

        Parameters
        ----------
        image
            (B, C, H, W) float, normalised; H and W at least 16.
        text
            (B, K, D) float, K at least 1, zeros where a sample has none; None: no sample has any.
        attention
            Also return where each text token is read, if there is text to read.
        """
        x0, scales, features, maps = self._read(image, text, attention)
        logits = self.classify(self.encoder.decode(x0, scales))
        return Output(logits, features, maps, self.architecture.published)

    def features(self, image: Tensor, text: Tensor | None = None) -> list[Tensor]:
        """Compute what a student aligns to, of the same arguments, without the decoder."""
        return self._read(image, text, attention=False)[2]

    def _read(
        self, image: Tensor, text: Tensor | None, attention: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], tuple[Tensor, ...]]:
        """Return the full-size feature, the decoder's scales, the projections, the attention."""
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
            scales[s - 1] = (x if self.architecture.published else fused) + projected
        return x0, scales, features, tuple(maps)


class Student(Segmenter):
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
                nn.Conv2d(width, target, 1), BatchNorm(target), nn.ReLU(inplace=True)
            )
            self.add_module(f"student_adapter_x{s}", adapter)
        self.head = _head(a.head_width, a.published)
        self.classifier = nn.Conv2d(a.head_width, CLASSES, 1)

    def forward(self, image: Tensor, aligned: int = 0) -> Output:
        """Segment an image.

        Parameters
        ----------
        image
            (B, C, H, W) float, normalised; H and W at least 16.
        aligned
            Of how many samples, the first, the features are returned, at the teacher's channels.
        """
        x0, scales = self.encoder.encode(image)
        logits = self.classify(self.encoder.decode(x0, scales))
        features = []
        for s, x in enumerate(scales if aligned else [], start=1):
            projected = self.get_submodule(f"distill_proj_x{s}")(x[:aligned])
            features.append(self.get_submodule(f"student_adapter_x{s}")(projected))
        return Output(logits, features, published=self.architecture.published)


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
