"""texts.h5 → explanations.h5: the words, and a vector for each sentence."""

import hashlib
import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stages.core import cli, io, job_log
from stages.core.fingerprint import fingerprint
from stages.settings.explain import EmbedSettings
from stages.settings.modules import encoder_module
from stages.text.encoders import Encoder

_READ = ("text", "attributes", "sample_id")
# What io.create_h5 says of a file's own making.
_OWN = {"schema_version", "stage", "inputs", "params", "versions"}


def join_fields(text: NDArray[np.object_]) -> NDArray[np.object_]:
    """Join the K sentences of each of N samples: (N, K) → (N, 1)."""
    return np.array([[" ".join(filter(None, row))] for row in text], object).reshape(-1, 1)


def encode_text(
    encoder: Encoder, text: NDArray[np.object_], batch_size: int
) -> NDArray[np.float32]:
    """Encode each distinct sentence once.

    Parameters
    ----------
    text
        (N, K) str.

    Returns
    -------
    (N, K, D) float32, zeros where a text is empty.
    """
    # A few vocabularies make the sentences. Those of like length share a batch.
    sentences = sorted(set(text.ravel()) - {""}, key=lambda sentence: (len(sentence), sentence))
    if cut := encoder.count_cut(sentences) if sentences else 0:
        cli.log.warning(
            "%d of %d texts are longer than %s reads; their ends do not count",
            cut,
            len(sentences),
            encoder.name,
        )
    rows = [np.zeros((1, encoder.width), np.float32)]
    for start in cli.progress(range(0, len(sentences), batch_size), "embed"):
        rows.append(encoder.encode(sentences[start : start + batch_size]))
    row = {"": 0} | {sentence: i for i, sentence in enumerate(sentences, start=1)}
    index = np.vectorize(row.__getitem__, otypes=[int])(text)
    return np.concatenate(rows)[index]


def _copy_rest(source: h5py.File, file: h5py.File) -> None:
    """Carry over what else is known of each sample, and of the texts."""
    for name, values in source.items():
        if name not in file:
            source.copy(values, file)
    for name, value in source.attrs.items():
        if name not in _OWN and name not in file.attrs:
            file.attrs[name] = value


def _write(
    read: h5py.File,
    file: h5py.File,
    text: NDArray[np.object_],
    fields: Sequence[str],
    vectors: NDArray[np.float32],
    encoder: tuple[str, str],
) -> None:
    """Write texts and vectors, and what else is known of the samples."""
    io.write_strings(file, "text", text)
    embedding = io.sample_dataset(file, "embedding", vectors.shape, np.float32)
    embedding[...] = vectors
    file.attrs["encoder"], file.attrs["encoder_version"] = encoder
    file.attrs["D"], file.attrs["fields"] = vectors.shape[2], fields
    _copy_rest(read, file)


def _import(texts: Path, output: Path, settings: EmbedSettings, source: Path, module: Any) -> None:
    with (
        io.open_h5(texts, *_READ) as read,
        io.create_h5(output, "embed", {"texts": texts, "source": source}, settings) as file,
    ):
        text, fields = io.read_strings(read, "text"), list(read.attrs["fields"])
        explained = (text != "").any(axis=1)
        vectors = module.read_vectors(source, io.read_strings(read, "sample_id"), explained)
        if vectors.shape[1] != text.shape[1]:
            fields = [""] * vectors.shape[1]
            text = np.full(vectors.shape[:2], "", object)
        _write(read, file, text, fields, vectors, ("import", f"sha256:{io.sha256(source)}"))


def _encode(texts: Path, output: Path, settings: EmbedSettings, encoder: Encoder) -> None:
    with (
        io.open_h5(texts, *_READ) as read,
        io.create_h5(output, "embed", {"texts": texts}, settings) as file,
    ):
        text, fields = io.read_strings(read, "text"), list(read.attrs["fields"])
        if settings.tokens == "one":
            text, fields = join_fields(text), ["all"]
        vectors = encode_text(encoder, text, settings.batch_size)
        _write(read, file, text, fields, vectors, (encoder.name, encoder.version))


def _key(made: Mapping[str, Any], settings: EmbedSettings, encoder: Encoder) -> str:
    """Name what an explanations.h5 depends on; `made` is its provenance."""
    code = fingerprint("stages.text.embed", encoder_module(settings.encoder))
    about = {**made, "encoder": [encoder.name, encoder.version], "code": code}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def embed(
    texts: Path,
    output: Path,
    settings: EmbedSettings,
    threads: int,
    gpus: int,
    source: Path | None = None,
    cache: Path | None = None,
) -> None:
    """Write `embedding` (N, K, D) float32, `text` (N, K), and what else texts.h5 holds.

    Parameters
    ----------
    settings
        With `tokens` "fields" K is the number of an explanation's fields; with "one" it is 1, and
        the text is all fields, joined. An empty text's vector is 0.
    source
        For the encoder "import": the folder of <id>.npy, whose K counts. The sentences are kept
        where there are K of them; else `text` is empty, since no vector stands for one of them.
    cache
        A folder that workflows share. What one has made of the same texts with the same encoder
        and settings is taken from there; what is made of them here is put there.

    Raises
    ------
    BadInput
        The encoder's model, or a file of vectors, is absent or cannot be used.
    """
    module: Any = importlib.import_module(encoder_module(settings.encoder))
    if settings.encoder == "import":
        assert source is not None
        _import(texts, output, settings, source, module)
        return
    encoder: Encoder = module.make(settings, threads, gpus)
    if cache is None:
        _encode(texts, output, settings, encoder)
        return
    made = io.provenance("embed", {"texts": texts}, settings)
    shared = cache / "embed" / f"{_key(made, settings, encoder)}.h5"
    if shared.exists():
        job_log.taken_from(shared)
    else:
        _encode(texts, shared, settings, encoder)
    with io.atomic(output) as temporary:
        shutil.copyfile(shared, temporary)


if __name__ == "__main__":
    cli.run(embed)
