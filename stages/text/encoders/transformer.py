"""A text encoder of the transformers library, such as RoBERTa or PubMedBERT."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from stages.core import cli
from stages.core.device import choose
from stages.settings.explain import EmbedSettings
from stages.text import pretrained

Pooling = Literal["mean", "first"]


class Transformer:
    """A sentence's vector is pooled from its tokens' last hidden states, and scaled to length 1.

    Parameters
    ----------
    name, version
        Which encoder it is.
    tokenizer, model
        Of the transformers library, the model on the CPU, in float32.
    pooling
        "mean": over the sentence's tokens, with those that the tokenizer adds at both ends;
        "first": the first token, [CLS] or <s>.
    device
        Where to compute.
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
        self.width: int = model.config.hidden_size
        self._tokenizer, self._model = tokenizer, model.to(device).eval()
        self._pooling, self._device = pooling, device
        # A tokenizer that was saved without its limit claims to have none. RoBERTa counts
        # positions from behind the padding token's id.
        positions: int = model.config.max_position_embeddings
        self._longest: int = tokenizer.model_max_length
        if self._longest > positions:
            self._longest = positions - tokenizer.pad_token_id - 1

    def count_cut(self, sentences: Sequence[str]) -> int:
        """Return how many sentences have more tokens than the model has positions."""
        tokens = self._tokenizer(list(sentences), verbose=False)["input_ids"]
        return sum(len(row) > self._longest for row in tokens)

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(sentences), width) float32, each row of length 1."""
        batch = self._tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self._longest,
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


def _check_kind(model: str, config: Any) -> None:
    known = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if not known or config.is_encoder_decoder or not hasattr(config, "max_position_embeddings"):
        raise cli.BadInput(
            model,
            "architecture",
            found=config.model_type,
            expected="a text encoder that was trained on masked words, such as BERT or RoBERTa",
            mend="choose another embed.model; a CLIP of open_clip needs embed.encoder: open_clip",
        )


def _check_tokenizer(model: str, tokenizer: Any, config: Any) -> None:
    # Without its files, the library makes a tokenizer that knows only the special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        found = "no vocabulary"
    elif len(tokenizer) > config.vocab_size:
        found = f"{len(tokenizer)} tokens, of which the model knows {config.vocab_size}"
    elif tokenizer.pad_token is None:
        found = "no padding token"
    else:
        return
    raise cli.BadInput(
        model,
        "tokenizer",
        found=found,
        expected="the tokenizer that the model was trained with",
        mend="take tokenizer.json, or the vocabulary's files, and tokenizer_config.json from the "
        "model's publisher",
    )


def load(model: str, origin: dict[str, Any]) -> tuple[Any, Any]:
    """Load tokenizer and model, as `pretrained.pin` found them, the model on the CPU in float32.

    Raises
    ------
    BadInput
        Something is missing, broken, not in safetensors files, or no text encoder.
    """
    origin = origin | {"trust_remote_code": False}
    with pretrained.loading(model, "embed"):
        try:
            config = transformers.AutoConfig.from_pretrained(model, **origin)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise cli.BadInput(
                model,
                "architecture",
                found="one that comes as code with the model's files",
                expected="one that the transformers library has",
                mend="choose another embed.model",
            ) from error
        _check_kind(model, config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **origin)
        _check_tokenizer(model, tokenizer, config)
        network, report = transformers.AutoModel.from_pretrained(
            model,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **origin,
        )
    # The library draws what it does not find. Nobody reads the pooler, which many files lack.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise cli.BadInput(
            model,
            "weights",
            found=f"{len(missing)} of the model's tensors are absent, such as {missing[0]}",
            expected="all of them",
            mend="download the model again, with all of its safetensors files",
        )
    return tokenizer, network


def make(settings: EmbedSettings, threads: int, gpus: int) -> Transformer:
    """Load the encoder.

    Raises
    ------
    BadInput
        There is no such model, it is not pinned, or it cannot be used.
    """
    torch.set_num_threads(threads)
    pinned = pretrained.pin(settings.model, settings.revision, "embed")
    tokenizer, model = load(settings.model, pinned.origin)
    return Transformer(
        settings.model, pinned.revision, tokenizer, model, settings.pooling, choose(gpus)
    )
