"""texts.h5 → explanations.h5: the sentences, and a vector for each."""

import hashlib
import importlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stages.core import cli, io, job_log
from stages.core.fingerprint import fingerprint
from stages.settings.explain import EmbedSettings
from stages.settings.modules import encoder_module
from stages.text.describers.claims import false_if_moved, false_if_turned
from stages.text.encoders import Encoder

# Data set → the texts that it marks.
_MARKS = {"false_if_moved": false_if_moved, "false_if_turned": false_if_turned}
_DATASETS = ("text", "attributes", "sample_id")
# Attributes that io.create_h5 writes for each file anew.
_FILE_ATTRIBUTES = {"schema_version", "stage", "inputs", "params", "versions"}


def join_fields(text: NDArray[np.object_]) -> NDArray[np.object_]:
    """Join the K sentences of each of N samples: (N, K) → (N, 1)."""
    return np.array([[" ".join(filter(None, row))] for row in text], object).reshape(-1, 1)


def encode_text(
    encoder: Encoder, text: NDArray[np.object_], batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Encode each distinct sentence once.

    The vectors of all samples together would need many times the memory.

    Parameters
    ----------
    text
        (N, K) str.

    Returns
    -------
    (S, D) float32 the vectors of the empty text, which is zeros, and of the distinct sentences; and
    (N, K) int64 the row of each text.
    """
    # Many samples share the same sentences. Sentences of similar length share a batch.
    sentences = sorted(set(text.ravel()) - {""}, key=lambda sentence: (len(sentence), sentence))
    if n_truncated := encoder.count_truncated(sentences) if sentences else 0:
        cli.log.warning(
            "%d of %d texts are longer than %s can read; their ends are ignored",
            n_truncated,
            len(sentences),
            encoder.name,
        )
    vectors = [np.zeros((1, encoder.embedding_dim), np.float32)]
    for start in cli.progress(range(0, len(sentences), batch_size), "embed"):
        vectors.append(encoder.encode(sentences[start : start + batch_size]))
    row_of = {"": 0} | {sentence: i for i, sentence in enumerate(sentences, start=1)}
    rows_of_text = np.vectorize(row_of.__getitem__, otypes=[np.int64])(text)
    return np.concatenate(vectors), rows_of_text


def _copy_other_data(source: h5py.File, file: h5py.File) -> None:
    """Copy the datasets and attributes of texts.h5 that `file` does not have yet."""
    for name, values in source.items():
        if name not in file:
            source.copy(values, file)
    for name, value in source.attrs.items():
        if name not in _FILE_ATTRIBUTES and name not in file.attrs:
            file.attrs[name] = value


def _write_explanations(
    texts_file: h5py.File,
    file: h5py.File,
    text: NDArray[np.object_],
    fields: Sequence[str],
    vectors: Iterable[NDArray[np.float32]],
    width: int,
    encoder: tuple[str, str],
) -> None:
    """Write texts and their marks, vectors, and all other data of texts.h5.

    The text of an imported vector may be unknown, and is then empty: it may state anything.

    Parameters
    ----------
    text
        (N, K) str.
    vectors
        The vectors of each sample in turn, (K, D) float32.
    width
        D.
    """
    io.write_strings(file, "text", text)
    embedding = io.create_sample_dataset(file, "embedding", (*text.shape, width), np.float32)
    unknown = np.zeros(text.shape, bool)
    for i, of_sample in enumerate(vectors):
        embedding[i] = of_sample
        unknown[i] = (text[i] == "") & of_sample.any(axis=1)
    for name, is_false in _MARKS.items():
        file[name] = np.vectorize(is_false, otypes=[bool])(text) | unknown
    file.attrs["encoder"], file.attrs["encoder_version"] = encoder
    file.attrs["D"], file.attrs["fields"] = width, fields
    _copy_other_data(texts_file, file)


def _import_vectors(
    texts: Path, output: Path, settings: EmbedSettings, source: Path, module: Any
) -> None:
    with (
        io.open_h5(texts, *_DATASETS) as texts_file,
        io.create_h5(output, "embed", {"texts": texts, "source": source}, settings) as file,
    ):
        text, fields = io.read_strings(texts_file, "text"), list(texts_file.attrs["fields"])
        explained = (text != "").any(axis=1)
        sample_ids = io.read_strings(texts_file, "sample_id")
        (tokens, width), vectors = module.read_vectors(source, sample_ids, explained)
        if tokens != text.shape[1]:
            fields = [""] * tokens
            text = np.full((len(text), tokens), "", object)
        encoder = ("import", f"sha256:{io.sha256(source)}")
        _write_explanations(texts_file, file, text, fields, vectors, width, encoder)


def _encode_texts(texts: Path, output: Path, settings: EmbedSettings, encoder: Encoder) -> None:
    with (
        io.open_h5(texts, *_DATASETS) as texts_file,
        io.create_h5(output, "embed", {"texts": texts}, settings) as file,
    ):
        text, fields = io.read_strings(texts_file, "text"), list(texts_file.attrs["fields"])
        if settings.tokens == "one":
            text, fields = join_fields(text), ["all"]
        vectors, rows_of_text = encode_text(encoder, text, settings.batch_size)
        of_samples = (vectors[rows] for rows in rows_of_text)
        version = (encoder.name, encoder.version)
        _write_explanations(texts_file, file, text, fields, of_samples, vectors.shape[1], version)


def _cache_key(provenance: Mapping[str, Any], settings: EmbedSettings, encoder: Encoder) -> str:
    """Return a hash of everything that explanations.h5 depends on."""
    code = fingerprint("stages.text.embed", encoder_module(settings.encoder))
    key_parts = {**provenance, "encoder": [encoder.name, encoder.version], "code": code}
    return hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest()[:16]


def embed(
    texts: Path,
    output: Path,
    settings: EmbedSettings,
    threads: int,
    gpus: int,
    source: Path | None = None,
    cache: Path | None = None,
) -> None:
    """Write `embedding` (N, K, D) float32, `text` (N, K), and the other data of texts.h5.

    `false_if_moved` and `false_if_turned` (N, K) bool mark the texts that training hides from a
    sample when it scales or shifts, or turns, the image. A vector without a text has both marks.

    Parameters
    ----------
    settings
        With `tokens` "fields", K is the number of fields of an explanation; with "one", K is 1 and
        the text joins all fields. The vector of an empty text is 0.
    source
        For the encoder "import": the folder of <id>.npy. The files determine K. If texts.h5 has K
        sentences per sample, they are kept; otherwise `text` is empty, because no vector belongs to
        a single sentence.
    cache
        A folder that workflows share. The result for the same texts, encoder and settings is
        reused from there; a new result is stored there.

    Raises
    ------
    BadInput
        The encoder's model, or a file of vectors, is missing or cannot be used.
    """
    module: Any = importlib.import_module(encoder_module(settings.encoder))
    if settings.encoder == "import":
        assert source is not None
        _import_vectors(texts, output, settings, source, module)
        return
    encoder: Encoder = module.make(settings, threads, gpus)
    if cache is None:
        _encode_texts(texts, output, settings, encoder)
        return
    provenance = io.provenance("embed", {"texts": texts}, settings)
    shared = cache / "embed" / f"{_cache_key(provenance, settings, encoder)}.h5"
    if shared.exists():
        job_log.log_reuse(shared)
    else:
        _encode_texts(texts, shared, settings, encoder)
    with io.atomic_file(output) as temporary:
        shutil.copyfile(shared, temporary)


if __name__ == "__main__":
    cli.run(embed)
