"""The two networks: a U-Net teacher that reads image and text, and a smaller student without text.

The modules have the names of the published networks, so that weights can be compared key by key.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from stages.core.cli import BadInput
from stages.core.images import IMAGENET_MEAN, IMAGENET_STD
from stages.networks.batch_norm import BatchNorm
from stages.networks.tensors import save_tensors
from stages.networks.unet import UNet

ATTENTION_HEADS = 8
CLASSES = 2


class Architecture(BaseModel):
    """The description of a network in its weights file; it is enough to rebuild the network.

    Attributes
    ----------
    role
        "teacher" or "student".
    channels
        Channels of the image: 3 for colour, 1 for MR or CT.
    size
        Height and width of the training images. Other sizes work too: the position embeddings are
        then interpolated.
    widths
        Encoder "unet": channels of the five encoder scales and of the last decoder.
    encoder
        "unet", which is trained from scratch, or the name of a model of timm.
    decoder_widths
        Encoder of timm: channels of the five decoder blocks.
    encoder_mean, encoder_std
        Encoder of timm: statistics (R, G, B) by which it wants colour images normalised.
    head_width
        Channels of the 1 × 1 head.
    text_width
        Channels of a text token; 0: the teacher reads no text.
    teacher_widths
        Channels of the teacher's four scales, to which a student aligns; empty: no alignment.
    published
        Compute as the authors' code does: the head has LeakyReLU 0.1 instead of ReLU; the teacher's
        decoder gets the text only through the projection, not through the fused scale; and only
        channel 1 decides what is foreground.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["teacher", "student"]
    channels: int
    size: tuple[int, int]
    widths: tuple[int, ...] = ()
    encoder: str = "unet"
    decoder_widths: tuple[int, ...] = ()
    encoder_mean: tuple[float, float, float] = IMAGENET_MEAN
    encoder_std: tuple[float, float, float] = IMAGENET_STD
    head_width: int
    text_width: int = 0
    teacher_widths: tuple[int, ...] = ()
    published: bool = False


def _make_unet(architecture: Architecture, encoder_weights: Mapping[str, Tensor] | None) -> Any:
    """Make encoder and decoder: a `unet.UNet`, or a `timm_unet.TimmUNet` with these weights."""
    a = architecture
    if a.encoder == "unet":
        return UNet(a.channels, a.widths, a.head_width)
    # timm takes seconds to import.
    from stages.networks.timm_unet import TimmUNet

    return TimmUNet(
        a.encoder,
        a.channels,
        a.decoder_widths,
        a.head_width,
        a.encoder_mean,
        a.encoder_std,
        encoder_weights,
    )


class Output(NamedTuple):
    """The output of a network.

    Attributes
    ----------
    logits
        (B, 2, H, W); channel 1 is the foreground.
    features
        One (B, C, h, w) per scale.
    attention
        If requested, one (B, K, h, w) per scale: the attention weight of each text token at each
        position, averaged over the heads. The weights of a position sum to 1; a sample without text
        has zeros.
    published
        Whether the network computes as the authors' code does.
    """

    logits: Tensor
    features: list[Tensor]
    attention: tuple[Tensor, ...] = ()
    published: bool = False

    @property
    def log_odds(self) -> Tensor:
        """Log-odds of foreground (B, H, W), above 0 where the network predicts foreground.

        This is channel 1 minus channel 0. For a published network it is channel 1 alone, as in the
        authors' code: their labels train only channel 1, and consistency raises channel 0 above it
        everywhere.
        """
        foreground = self.logits[:, 1]
        return foreground if self.published else foreground - self.logits[:, 0]


class TextFusion(nn.Module):
    """Cross-attention from image to text at one scale.

    tokens = feature + position; out = LayerNorm(tokens + Attention(tokens, text, text)), with the
    projected text as key and value. For a sample without text (all tokens zero) the output is 0.
    """

    def __init__(self, width: int, text_width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.pos_embedding = nn.Parameter(torch.empty(grid[0] * grid[1], width))
        nn.init.trunc_normal_(self.pos_embedding, std=0.02)
        self.text_proj = nn.Linear(text_width, width)
        heads = math.gcd(width, ATTENTION_HEADS)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding (h·w, width), interpolated if `grid` is not `self.grid`."""
        if grid == self.grid:
            return self.pos_embedding
        trained = self.pos_embedding.T.reshape(1, -1, *self.grid)
        resized = functional.interpolate(trained, grid, mode="bicubic", align_corners=False)
        return resized.flatten(2)[0].T

    def forward(
        self, x: Tensor, text: Tensor, attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the fused feature (B, C, h, w) and, if requested, the attention (B, K, h, w)."""
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2) + self.position_embedding((height, width))
        attended, attention_weights = self._attend(tokens, self.text_proj(text))
        has_text = (text != 0).any(dim=2).any(dim=1)[:, None, None]
        fused = self.norm(tokens + attended) * has_text
        feature: Tensor = fused.transpose(1, 2).reshape(x.shape)
        if not attention:
            return feature, None
        return feature, (attention_weights.mean(dim=1) * has_text).reshape(
            len(x), -1, height, width
        )

    def _attend(self, tokens: Tensor, text_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the same as `attn`, faster: image tokens (B, N, C), text tokens (B, K, C).

        There are many image tokens and few text tokens. The query projection is therefore applied
        to the keys and the output projection to the values. An image token then costs
        2 · heads · K · C multiplications instead of 2 · C · (C + K).

        Returns
        -------
        The attended tokens (B, N, C) and the attention weights (B, heads, K, N).
        """
        (batch, num_tokens, width), out_proj = text_tokens.shape, self.attn.out_proj
        num_heads = self.attn.num_heads
        heads = (num_heads, width // num_heads)
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        query = weight[:width].reshape(*heads, width)
        query_bias = bias[:width].reshape(*heads, 1)
        projected = functional.linear(text_tokens, weight[width:], bias[width:])
        # Each (B, heads, K, C / heads).
        key, value = projected.reshape(batch, num_tokens, 2, *heads).permute(2, 0, 3, 1, 4)
        key = key * heads[1] ** -0.5
        # (B, heads · K, C), and the part of the query bias, (B, heads · K, 1).
        keys, key_bias = (key @ query).flatten(1, 2), (key @ query_bias).flatten(1, 2)
        values = (value @ out_proj.weight.T.reshape(*heads, width)).flatten(1, 2)
        scores = torch.baddbmm(key_bias, keys, tokens.transpose(1, 2))
        attention_weights = scores.reshape(batch, num_heads, num_tokens, -1).softmax(dim=2)
        return torch.baddbmm(
            out_proj.bias, attention_weights.flatten(1, 2).transpose(1, 2), values
        ), attention_weights


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


def _make_head(width: int, published: bool) -> nn.Sequential:
    activation = nn.LeakyReLU(0.1, inplace=True) if published else nn.ReLU(inplace=True)
    return nn.Sequential(nn.Conv2d(width, width, 1), activation, nn.Conv2d(width, width, 1))


def fused_1x1_convs(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """Apply two successive 1 × 1 convolutions as one: V (U x + a) + b = (V U) x + (V a + b).

    The feature between them is as large as the image; it is neither computed nor stored. A student
    of the published widths then takes five sixths of the time.
    """
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
    assert first.bias is not None and second.bias is not None
    with torch.autocast(x.device.type, enabled=False):
        outer = second.weight.flatten(1)
        weight = (outer @ first.weight.flatten(1))[:, :, None, None]
        bias = torch.addmv(second.bias, outer, first.bias)
    return functional.conv2d(x, weight, bias)


class Segmenter(nn.Module):
    """Base of both networks: behind the decoder, a two-layer 1 × 1 head and a classifier."""

    # A `unet.UNet` or a `timm_unet.TimmUNet`.
    encoder: Any
    head: nn.Sequential
    classifier: nn.Conv2d

    def head_features(self, decoded: Tensor) -> Tensor:
        """Return the input of the head's second layer, (B, head_width, H, W)."""
        hidden = fused_1x1_convs(decoded, self.encoder.final_conv, self.head[0])
        return self.head[1](hidden)  # type: ignore[no-any-return]

    def classify(self, decoded: Tensor) -> Tensor:
        """Return the logits (B, 2, H, W) for the decoder's feature."""
        return fused_1x1_convs(self.head_features(decoded), self.head[2], self.classifier).float()


class Teacher(Segmenter):
    """U-Net whose four scales are fused with the text, each with a learned weight.

    At scale s: f = x + λ_s · TextFusion(x, text); p = Projection(f). The decoder gets f + p, or
    x + p in a published network. A student aligns to p.
    """

    def __init__(
        self, architecture: Architecture, encoder_weights: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.encoder = _make_unet(a, encoder_weights)
        for s, width in enumerate(self.encoder.scale_widths, start=1):
            if a.text_width:
                grid = self.encoder.grid(a.size, s - 1)
                self.add_module(f"fusion_x{s}", TextFusion(width, a.text_width, grid))
            self.add_module(f"distill_proj_x{s}", Projection(width))
        if a.text_width:
            self.text_weight = nn.Parameter(torch.ones(4))
        self.head = _make_head(a.head_width, a.published)
        self.classifier = nn.Conv2d(a.head_width, CLASSES, 1)

    def forward(self, image: Tensor, text: Tensor | None = None, attention: bool = False) -> Output:
        """Segment an image.

        Parameters
        ----------
        image
            (B, C, H, W) float, normalised; H and W at least 16.
        text
            (B, K, D) float, K at least 1, zeros for a sample without text; None: no sample has
            text.
        attention
            Also return the attention weights of the text tokens, if there is text.
        """
        x0, scales, features, attention_maps = self._encode(image, text, attention)
        logits = self.classify(self.encoder.decode(x0, scales))
        return Output(logits, features, attention_maps, self.architecture.published)

    def features(self, image: Tensor, text: Tensor | None = None) -> list[Tensor]:
        """Return the projected features to which a student aligns, without running the decoder."""
        return self._encode(image, text, attention=False)[2]

    def _encode(
        self, image: Tensor, text: Tensor | None, attention: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], tuple[Tensor, ...]]:
        """Return the full-size feature, the scales for the decoder, projections and attention."""
        x0, scales = self.encoder.encode(image)
        features, attention_maps = [], []
        for s, x in enumerate(scales, start=1):
            fused = x
            if self.architecture.text_width and text is not None:
                text_feature, attention_weights = self.get_submodule(f"fusion_x{s}")(
                    x, text, attention
                )
                fused = x + self.text_weight[s - 1] * text_feature
                if attention:
                    attention_maps.append(attention_weights)
            projected = self.get_submodule(f"distill_proj_x{s}")(fused)
            features.append(projected)
            scales[s - 1] = (x if self.architecture.published else fused) + projected
        return x0, scales, features, tuple(attention_maps)


class Student(Segmenter):
    """U-Net that reads only the image: the network to deploy.

    To align with a teacher, each scale has a projection and an adapter to the teacher's channels.
    Only training uses them: the decoder reads the scales unchanged.
    """

    def __init__(
        self, architecture: Architecture, encoder_weights: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.encoder = _make_unet(a, encoder_weights)
        widths = zip(self.encoder.scale_widths, a.teacher_widths)
        for s, (width, teacher_width) in enumerate(widths, start=1):
            self.add_module(f"distill_proj_x{s}", Projection(width))
            adapter = nn.Sequential(
                nn.Conv2d(width, teacher_width, 1), BatchNorm(teacher_width), nn.ReLU(inplace=True)
            )
            self.add_module(f"student_adapter_x{s}", adapter)
        self.head = _make_head(a.head_width, a.published)
        self.classifier = nn.Conv2d(a.head_width, CLASSES, 1)

    def forward(self, image: Tensor, num_aligned: int = 0) -> Output:
        """Segment an image.

        Parameters
        ----------
        image
            (B, C, H, W) float, normalised; H and W at least 16.
        num_aligned
            Return features for this many samples, the first of the batch, with the teacher's
            channels.
        """
        x0, scales = self.encoder.encode(image)
        logits = self.classify(self.encoder.decode(x0, scales))
        features = []
        for s, x in enumerate(scales if num_aligned else [], start=1):
            projected = self.get_submodule(f"distill_proj_x{s}")(x[:num_aligned])
            features.append(self.get_submodule(f"student_adapter_x{s}")(projected))
        return Output(logits, features, published=self.architecture.published)


def build(
    architecture: Architecture, seed: int, encoder_weights: Mapping[str, Tensor] | None = None
) -> Teacher | Student:
    """Build a network with weights drawn from `seed`; the global generator stays unchanged.

    Parameters
    ----------
    encoder_weights
        Pretrained weights of an encoder of timm, by timm's names; None: drawn, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network_class = Teacher if architecture.role == "teacher" else Student
        model: Teacher | Student = network_class(architecture, encoder_weights)
        return model.to(memory_format=torch.channels_last)


def save(model: Teacher | Student, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write the weights as safetensors, with architecture and provenance as metadata."""
    metadata = {"architecture": model.architecture.model_dump(), **provenance}
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    # One metadata entry: the order of several entries would differ from run to run.
    save_tensors(tensors, path, {"about": json.dumps(metadata, sort_keys=True)})


@overload
def load(path: Path, role: Literal["teacher"]) -> Teacher: ...
@overload
def load(path: Path, role: Literal["student"]) -> Student: ...
def load(path: Path, role: Literal["teacher", "student"]) -> Teacher | Student:
    """Load a network from its weights file, in evaluation mode.

    Raises
    ------
    BadInput
        The pipeline did not write this file, it holds a network of the other role, or timm no
        longer has its encoder.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["about"])
            architecture = Architecture.model_validate(metadata["architecture"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise BadInput(
            path,
            "file",
            found=error,
            expected="a safetensors file with weights and an architecture",
            mend="give a teacher.safetensors or student.safetensors that the pipeline wrote",
        ) from error
    if architecture.role != role:
        raise BadInput(
            path,
            "role",
            found=architecture.role,
            expected=role,
            mend=f"give the weights file of a {role}",
        )
    try:
        model = build(architecture, seed=0)
        model.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            path,
            "architecture",
            found=error,
            expected="weights that fit the architecture in the file",
            mend="install the versions of envs/lock.txt, or train the network anew",
        ) from error
    return model.eval()
