"""A text encoder of the transformers library, such as RoBERTa or PubMedBERT."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from stages.core import cli
from stages.core.device import choose_device
from stages.settings.explain import EmbedSettings
from stages.text import pretrained

Pooling = Literal["mean", "first"]


class HuggingFaceEncoder:
    """An encoder that pools the last hidden states of a sentence's tokens, scaled to length 1.

    Parameters
    ----------
    name, version
        The encoder's name and version, see `Encoder`.
    tokenizer, model
        Objects of the transformers library; the model is on the CPU, in float32.
    pooling
        "mean": over the sentence's tokens, including those that the tokenizer adds at both ends;
        "first": the first token, [CLS] or <s>.
    device
        The device to compute on.
    """

    def __init__(
        self,
        name: str,
        version: str,
        tokenizer: Any,
        model: Any,
        pooling: Pooling,
        device: torch.device,
    ) -> None:
        self.name, self.version = name, version
        self.embedding_dim: int = model.config.hidden_size
        self._tokenizer, self._model = tokenizer, model.to(device).eval()
        self._pooling, self._device = pooling, device
        # A tokenizer that was saved without its limit reports a huge one. RoBERTa's first position
        # is the padding token's id plus one.
        positions: int = model.config.max_position_embeddings
        self._max_tokens: int = tokenizer.model_max_length
        if self._max_tokens > positions:
            self._max_tokens = positions - tokenizer.pad_token_id - 1

    def count_truncated(self, sentences: Sequence[str]) -> int:
        """Return how many sentences have more tokens than the model has positions."""
        tokens = self._tokenizer(list(sentences), verbose=False)["input_ids"]
        return sum(len(row) > self._max_tokens for row in tokens)

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(sentences), embedding_dim) float32, each row of length 1."""
        batch = self._tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        tokens = self._model(**batch).last_hidden_state
        if self._pooling == "first":
            pooled = tokens[:, 0]
        else:
            weight = batch["attention_mask"][..., None].to(tokens.dtype)
            pooled = (tokens * weight).sum(1) / weight.sum(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors


def _check_architecture(model: str, config: Any) -> None:
    known = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if not known or config.is_encoder_decoder or not hasattr(config, "max_position_embeddings"):
        raise cli.BadInput(
            model,
            "architecture",
            found=config.model_type,
            expected="a text encoder trained by predicting masked words, such as BERT or RoBERTa",
            mend="choose another embed.model; a CLIP of open_clip needs embed.encoder: open_clip",
        )


def _check_tokenizer(model: str, tokenizer: Any, config: Any) -> None:
    # If the files are missing, the library creates a tokenizer with only the special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        found = "no vocabulary"
    elif len(tokenizer) > config.vocab_size:
        found = f"{len(tokenizer)} tokens, but the model knows only {config.vocab_size}"
    elif tokenizer.pad_token is None:
        found = "no padding token"
    else:
        return
    raise cli.BadInput(
        model,
        "tokenizer",
        found=found,
        expected="the tokenizer that the model was trained with",
        mend="copy tokenizer.json, or the vocabulary files, and tokenizer_config.json from the "
        "model's publisher",
    )


def load_text_model(model: str, load_options: dict[str, Any]) -> tuple[Any, Any]:
    """Load the tokenizer and the model, the model on the CPU in float32.

    Parameters
    ----------
    model
        A folder or a hub id.
    load_options
        From `pretrained.pin_model`.

    Raises
    ------
    BadInput
        A file is missing or broken, the weights are not in safetensors files, or the model is not a
        text encoder.
    """
    load_options = load_options | {"trust_remote_code": False}
    with pretrained.report_load_errors(model, "embed"):
        try:
            config = transformers.AutoConfig.from_pretrained(model, **load_options)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise cli.BadInput(
                model,
                "architecture",
                found="an architecture that is defined by code in the model's files",
                expected="an architecture of the transformers library",
                mend="choose another embed.model",
            ) from error
        _check_architecture(model, config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **load_options)
        _check_tokenizer(model, tokenizer, config)
        network, report = transformers.AutoModel.from_pretrained(
            model,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **load_options,
        )
    # The library initialises missing weights at random. The pooler is not used, and many files
    # do not have it.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise cli.BadInput(
            model,
            "weights",
            found=f"{len(missing)} of the model's tensors are missing, such as {missing[0]}",
            expected="all tensors",
            mend="download the model again, with all of its safetensors files",
        )
    return tokenizer, network


def make(settings: EmbedSettings, threads: int, gpus: int) -> HuggingFaceEncoder:
    """Load the encoder.

    Raises
    ------
    BadInput
        The model does not exist, has no fixed revision, or cannot be used.
    """
    torch.set_num_threads(threads)
    pinned = pretrained.pin_model(settings.model, settings.revision, "embed")
    tokenizer, model = load_text_model(settings.model, pinned.load_options)
    return HuggingFaceEncoder(
        settings.model, pinned.revision, tokenizer, model, settings.pooling, choose_device(gpus)
    )
