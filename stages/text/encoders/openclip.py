"""The text tower of a CLIP model of the open_clip library, such as ViT-B-32 or BiomedCLIP."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.pretrained import download_pretrained

from stages.core import cli, io
from stages.core.contents import parse_json
from stages.core.device import choose_device
from stages.settings.explain import EmbedSettings

LOCAL_PREFIX = "local-dir:"
# How many characters of a library's message an error message quotes.
_MAX_QUOTED_CHARS = 400


class OpenClipEncoder:
    """An encoder that maps a sentence into the space of text and images, as a vector of length 1.

    Parameters
    ----------
    name, version
        The encoder's name and version, see `Encoder`.
    tokenizer, model
        Objects of the open_clip library; the model is on the CPU, in float32, and only its text
        tower is kept.
    device
        The device to compute on.
    """

    def __init__(
        self, name: str, version: str, tokenizer: Any, model: Any, device: torch.device
    ) -> None:
        self.name, self.version = name, version
        # The image tower holds most of the weights and is not used.
        del model.visual
        self._tokenizer, self._model, self._device = tokenizer, model.to(device).eval(), device
        self.embedding_dim = self.encode(["a"]).shape[1]

    def count_truncated(self, sentences: Sequence[str]) -> int:
        """Return how many sentences have more tokens than the text tower has positions."""
        length = self._tokenizer.context_length
        tokens = self._tokenizer(list(sentences))
        longer_tokens = self._tokenizer(list(sentences), context_length=length + 1)
        # Only in a truncated sentence, the end token replaces another token in `tokens`; in the
        # others, `longer_tokens` has more padding.
        return int((tokens != longer_tokens[:, :length]).any(dim=1).sum())

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(sentences), embedding_dim) float32, each row of length 1."""
        tokens = self._tokenizer(list(sentences)).to(self._device)
        vectors: NDArray[np.float32] = self._model.encode_text(tokens, normalize=True).cpu().numpy()
        return vectors


def _read_text_config(folder: Path) -> dict[str, Any]:
    """Return the text tower's configuration; check that the folder has the files it needs."""
    file = folder / "open_clip_config.json"
    try:
        text_config: dict[str, Any] = parse_json(file.read_text("utf-8"))["model_cfg"]["text_cfg"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise cli.BadInput(
            file,
            "model_cfg",
            found=error
            if isinstance(error, OSError | ValueError)
            else "no model_cfg with text_cfg",
            expected="a folder as open_clip publishes its models: open_clip_config.json, the "
            "weights, and the tokenizer unless it is CLIP's own",
            mend=f"set embed.model to {LOCAL_PREFIX} and the folder with open_clip_config.json",
        ) from error
    if (base := text_config.get("hf_model_name")) and not (folder / "config.json").is_file():
        raise cli.BadInput(
            folder / "config.json",
            "file",
            found="no such file",
            expected=f"the config of {base}, the architecture of the text tower",
            mend=f"copy config.json of {base} into the folder; its weights are not needed",
        )
    return text_config


def _find_weights(model: str, weights: str, quick_gelu: bool) -> Path:
    """Return the file of the weights; download it if `weights` names published ones."""
    if Path(weights).is_file():
        return Path(weights)
    tag = open_clip.get_pretrained_cfg(model, weights)
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise cli.BadInput(
            weights,
            "embed.weights",
            found=f"no such file, and {model} has no published weights of this name",
            expected=f"a file, or one of {', '.join(tags)}" if tags else "a file",
            mend="correct the path; a relative path starts at the folder where snakemake runs",
        )
    # With another activation function the same weights give other vectors.
    if bool(tag.get("quick_gelu")) != quick_gelu:
        other = model.removesuffix("-quickgelu") if quick_gelu else f"{model}-quickgelu"
        raise cli.BadInput(
            model,
            "embed.model",
            found=f"an architecture with{'' if quick_gelu else 'out'} the activation QuickGELU",
            expected=f"an architecture with{'out' if quick_gelu else ''} it, as {weights} needs",
            mend=f"set embed.model: {other}",
        )
    try:
        return Path(download_pretrained(tag))
    except (OSError, RuntimeError) as error:
        raise cli.BadInput(
            model,
            "embed.weights",
            found=f"{weights} cannot be downloaded: "
            f"{' '.join(str(error).split())[:_MAX_QUOTED_CHARS]}",
            expected="a hub that this machine can reach",
            mend="download the weights on a machine with a network, and set embed.weights to "
            "their file",
        ) from error


def _check_architecture(model: str) -> bool:
    """Return whether the architecture uses QuickGELU; raise BadInput if it cannot be used."""
    config = open_clip.get_model_config(model) if ":" not in model else None
    if config is None:
        similar = difflib.get_close_matches(model, open_clip.list_models(), n=3)
        raise cli.BadInput(
            model,
            "embed.model",
            found="no architecture of this name",
            expected=f"an architecture of open_clip {open_clip.__version__}, or {LOCAL_PREFIX} and "
            "a folder",
            mend=f"use {' or '.join(similar)}" if similar else "see open_clip.list_models()",
        )
    text_config = config["text_cfg"]
    if source := text_config.get("hf_tokenizer_name") or text_config.get("hf_model_name"):
        raise cli.BadInput(
            model,
            "embed.model",
            found=f"an architecture with a tokenizer from a hub ({source}), of no fixed revision",
            expected="an architecture with CLIP's own tokenizer, or a folder with all files",
            mend="download the model's repository into a folder (hf download), and set embed.model "
            f"to {LOCAL_PREFIX} and that folder",
        )
    return bool(config.get("quick_gelu"))


def _create_model(model: str, **options: Any) -> Any:
    try:
        return open_clip.create_model(model, require_pretrained=True, weights_only=True, **options)
    # A file with other content can make the library raise any exception.
    except Exception as error:
        raise cli.BadInput(
            options.get("pretrained", model),
            "weights",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:_MAX_QUOTED_CHARS],
            expected="weights of this architecture (*.safetensors, or a state_dict that torch.load "
            "opens with weights_only=True)",
            mend="check that weights and architecture belong together; if you trust the source, "
            "convert a TorchScript archive or another pickle to safetensors",
        ) from error


def make(settings: EmbedSettings, threads: int, gpus: int) -> OpenClipEncoder:
    """Load the encoder.

    Raises
    ------
    BadInput
        The architecture, folder or file does not exist, or the weights cannot be used.
    """
    torch.set_num_threads(threads)
    model = settings.model
    if model.startswith(LOCAL_PREFIX):
        folder = Path(model.removeprefix(LOCAL_PREFIX))
        text_config = _read_text_config(folder)
        overrides = {"hf_model_name": str(folder), "hf_model_pretrained": False}
        model_options = (
            {"text_cfg": text_config | overrides} if text_config.get("hf_model_name") else {}
        )
        network, version = _create_model(model, **model_options), io.sha256(folder)
        # A config in the folder could otherwise run code from the folder.
        tokenizer_options = (
            {"trust_remote_code": False} if text_config.get("hf_tokenizer_name") else {}
        )
    else:
        weights = _find_weights(model, settings.weights, _check_architecture(model))
        network, version = _create_model(model, pretrained=str(weights)), io.sha256(weights)
        tokenizer_options = {}
    tokenizer = open_clip.get_tokenizer(model, **tokenizer_options)
    return OpenClipEncoder(model, f"sha256:{version}", tokenizer, network, choose_device(gpus))
