"""Sentences to vectors, with the real weights of the encoder."""

import json

import h5py
import numpy as np
import pytest

from stages import io
from stages.cli import BadInput
from stages.describers import FIELDS
from stages.embed import MiniLM, embed
from stages.settings.explain import EmbedSettings

SHARP = "Its boundary is regular and well-defined."
CLEAR = "Its border is even and sharply outlined."
AREA = "It is small and covers about 3 percent of the image."
LONG = "It is dark reddish brown, much darker than its whitish surroundings, of coarse texture."


@pytest.fixture(scope="module")
def encoder():
    return MiniLM(batch_size=64)


# The encoder


def test_vectors_have_length_1(encoder):
    vectors = encoder.encode([SHARP, CLEAR, AREA, LONG, "a"])
    assert vectors.shape == (5, 384) == (5, encoder.width)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_what_means_the_same_lies_closer_than_what_does_not(encoder):
    sharp, clear, area, other = encoder.encode([SHARP, CLEAR, AREA, "The bank opens at nine."])
    assert sharp @ clear > sharp @ area + 0.2
    assert sharp @ clear > clear @ other + 0.2


def test_a_vector_does_not_depend_on_its_batch(encoder):
    sentences = [SHARP, "a", LONG, AREA, CLEAR]
    together = encoder.encode(sentences)
    for size in (1, 2, 3):
        encoder.batch_size = size
        try:
            assert encoder.encode(sentences) == pytest.approx(together, abs=1e-5)
        finally:
            encoder.batch_size = 64


def test_nothing_to_encode_is_no_vector(encoder):
    assert encoder.encode([]).shape == (0, 384)


# The stage

ABOUT = {
    "backend": "some model", "model": "lab/describer", "revision": "abc", "prompt": "Why?",
    "prompt_sha256": "ab12",
}  # fmt: skip


@pytest.fixture
def texts(tmp_path):
    """texts.h5 of three samples: two explained, the second by nobody."""
    path = tmp_path / "texts.h5"
    rows = [[SHARP, AREA, LONG], ["", "", ""], [CLEAR, AREA, ""]]
    with io.create_h5(path, "explain", {}, {}) as file:
        io.write_strings(file, "sample_id", ["a", "frame ä", "NA"])
        io.write_strings(file, "text", rows)
        io.write_strings(file, "attributes", ['{"values": {"area": 0.03}}', "{}", "{}"])
        for name, value in ABOUT.items():
            file.attrs[name] = value
        file.attrs["fields"] = list(FIELDS[:3])
    return path


def test_the_contract(texts, tmp_path):
    output = tmp_path / "explanations.h5"
    embed(texts, output, EmbedSettings())
    with h5py.File(output) as file, h5py.File(texts) as source:
        assert sorted(file) == ["attributes", "embedding", "sample_id", "text"]
        for name in source:
            assert file[name][()].tolist() == source[name][()].tolist()
        assert file["embedding"].shape == (3, 3, 384)
        assert file["embedding"].dtype == np.float32
        assert file["embedding"].chunks == (1, 3, 384)
        attributes = dict(file.attrs)
        assert attributes["stage"] == "embed"
        assert {name: attributes[name] for name in ABOUT} == ABOUT
        assert list(attributes["fields"]) == list(FIELDS[:3])
        assert attributes["encoder"] == "all-MiniLM-L6-v2"
        assert attributes["D"] == 384
        assert json.loads(attributes["inputs"]) == {"texts": io.sha256(texts)}


def test_each_sentence_has_its_own_vector_and_no_sentence_has_zeros(texts, tmp_path, encoder):
    embed(texts, tmp_path / "explanations.h5", EmbedSettings())
    sharp, clear, area, long = encoder.encode([SHARP, CLEAR, AREA, LONG])
    none = np.zeros(384)
    expected = [[sharp, area, long], [none] * 3, [clear, area, none]]
    with h5py.File(tmp_path / "explanations.h5") as file:
        assert file["embedding"][()] == pytest.approx(np.array(expected), abs=1e-5)
        assert (file["embedding"][1] == 0).all()


def test_a_data_set_without_any_text_is_all_zeros(texts, tmp_path):
    with h5py.File(texts, "r+") as file:
        file["text"][...] = ""
    embed(texts, tmp_path / "explanations.h5", EmbedSettings())
    with h5py.File(tmp_path / "explanations.h5") as file:
        assert file["embedding"].shape == (3, 3, 384)
        assert not file["embedding"][()].any()


def test_two_runs_write_the_same_bytes(texts, tmp_path):
    for name in ("a.h5", "b.h5"):
        embed(texts, tmp_path / name, EmbedSettings(), threads=1)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "texts.h5").write_text("no HDF5")
    with pytest.raises(BadInput, match=r"texts\.h5"):
        embed(tmp_path / "texts.h5", tmp_path / "explanations.h5", EmbedSettings())
    assert not (tmp_path / "explanations.h5").exists()
