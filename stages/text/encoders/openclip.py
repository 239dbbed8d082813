"""The text tower of a CLIP of the open_clip library, such as ViT-B-32 or BiomedCLIP."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.pretrained import download_pretrained

from stages.core import cli, io
from stages.core.device import choose
from stages.settings.explain import EmbedSettings

LOCAL = "local-dir:"
# How much of a library's message a message of ours repeats, characters.
_QUOTED = 400


class OpenClip:
    """A sentence's vector is its place in the space that text and images share, of length 1.

    Parameters
    ----------
    name, version
        Which encoder it is.
    tokenizer, model
        Of the open_clip library, the model on the CPU, in float32; only its text tower is kept.
    device
        Where to compute.
    """

    def __init__(
        self, name: str, version: str, tokenizer: Any, model: Any, device: torch.device
    ) -> None:
        self.name, self.version = name, version
        # Most of the weights, and nobody shows it an image.
        del model.visual
        self._tokenizer, self._model, self._device = tokenizer, model.to(device).eval(), device
        self.width = self.encode(["a"]).shape[1]

    def count_cut(self, sentences: Sequence[str]) -> int:
        """Return how many sentences have more tokens than the text tower has positions."""
        length = self._tokenizer.context_length
        read = self._tokenizer(list(sentences))
        more = self._tokenizer(list(sentences), context_length=length + 1)
        # The last token of a sentence that is cut is the one that ends it, elsewhere padding.
        return int((read != more[:, :length]).any(dim=1).sum())

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(sentences), width) float32, each row of length 1."""
        tokens = self._tokenizer(list(sentences)).to(self._device)
        vectors: NDArray[np.float32] = self._model.encode_text(tokens, normalize=True).cpu().numpy()
        return vectors


def _check_folder(folder: Path) -> dict[str, Any]:
    """Read how a folder's text tower is built; all that it needs is to come from the folder."""
    file = folder / "open_clip_config.json"
    try:
        text: dict[str, Any] = json.loads(file.read_text("utf-8"))["model_cfg"]["text_cfg"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise cli.BadInput(
            file,
            "model_cfg",
            found=error
            if isinstance(error, OSError | ValueError)
            else "no model_cfg with text_cfg",
            expected="a folder that open_clip's models are published in: open_clip_config.json, "
            "the weights, and the tokenizer where it is not CLIP's own",
            mend=f"state embed.model as {LOCAL} and the folder that holds open_clip_config.json",
        ) from error
    if (base := text.get("hf_model_name")) and not (folder / "config.json").is_file():
        raise cli.BadInput(
            folder / "config.json",
            "file",
            found="no such file",
            expected=f"the config of {base}, as which the text tower is built",
            mend=f"copy config.json of {base} into the folder; its weights are not needed",
        )
    return text


def _find_weights(model: str, weights: str, quick_gelu: bool) -> Path:
    """Return the file of the weights, downloaded where they are published ones."""
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
            mend="correct the path; a relative one starts at the folder where snakemake runs",
        )
    # With another activation function the same weights give another vector.
    if bool(tag.get("quick_gelu")) != quick_gelu:
        other = model.removesuffix("-quickgelu") if quick_gelu else f"{model}-quickgelu"
        raise cli.BadInput(
            model,
            "embed.model",
            found=f"an architecture with{'' if quick_gelu else 'out'} the activation QuickGELU",
            expected=f"the one that the weights {weights} were trained "
            f"with{'out' if quick_gelu else ''}",
            mend=f"set embed.model: {other}",
        )
    try:
        return Path(download_pretrained(tag))
    except (OSError, RuntimeError) as error:
        raise cli.BadInput(
            model,
            "embed.weights",
            found=f"{weights} cannot be downloaded: {' '.join(str(error).split())[:_QUOTED]}",
            expected="a hub that can be reached from here",
            mend="download the weights where there is a network, and state their file as "
            "embed.weights",
        ) from error


def _check_architecture(model: str) -> bool:
    """Return whether an architecture of open_clip uses QuickGELU; stop where it cannot be used."""
    config = open_clip.get_model_config(model) if ":" not in model else None
    if config is None:
        close = difflib.get_close_matches(model, open_clip.list_models(), n=3)
        raise cli.BadInput(
            model,
            "embed.model",
            found="no architecture of this name",
            expected=f"one of open_clip {open_clip.__version__}, or {LOCAL} and a folder",
            mend=f"take {' or '.join(close)}" if close else "see open_clip.list_models()",
        )
    text = config["text_cfg"]
    if source := text.get("hf_tokenizer_name") or text.get("hf_model_name"):
        raise cli.BadInput(
            model,
            "embed.model",
            found=f"an architecture whose tokenizer a hub holds ({source}), of no fixed revision",
            expected="an architecture with CLIP's own tokenizer, or a folder with all files",
            mend="download the model's repository into a folder (hf download), and set embed.model "
            f"to {LOCAL} and that folder",
        )
    return bool(config.get("quick_gelu"))


def _create(model: str, **options: Any) -> Any:
    try:
        return open_clip.create_model(model, require_pretrained=True, weights_only=True, **options)
    # Whatever a file of weights holds, the library takes it for weights.
    except Exception as error:
        raise cli.BadInput(
            options.get("pretrained", model),
            "weights",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:_QUOTED],
            expected="weights of this architecture (*.safetensors, or a state_dict that torch.load "
            "opens with weights_only=True)",
            mend="check that weights and architecture belong together; write a TorchScript archive "
            "or another pickle as safetensors, if you trust where it is from",
        ) from error


def make(settings: EmbedSettings, threads: int, gpus: int) -> OpenClip:
    """Load the encoder.

    Raises
    ------
    BadInput
        There is no such architecture, folder or file, or the weights cannot be used.
    """
    torch.set_num_threads(threads)
    model = settings.model
    if model.startswith(LOCAL):
        folder = Path(model.removeprefix(LOCAL))
        text = _check_folder(folder)
        hub = {"hf_model_name": str(folder), "hf_model_pretrained": False}
        built = {"text_cfg": text | hub} if text.get("hf_model_name") else {}
        network, version = _create(model, **built), io.sha256(folder)
        # A config of the folder could ask for code of the folder to be run.
        own = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    else:
        weights = _find_weights(model, settings.weights, _check_architecture(model))
        network, version = _create(model, pretrained=str(weights)), io.sha256(weights)
        own = {}
    tokenizer = open_clip.get_tokenizer(model, **own)
    return OpenClip(model, f"sha256:{version}", tokenizer, network, choose(gpus))
