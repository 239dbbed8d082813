"""Shards of answers: interrupted and resumed, merged, and compared with the gaze."""

import json
import unicodedata

import h5py
import numpy as np
import pandas as pd
import pytest

from stages.core import io
from stages.core.cli import BadInput
from stages.data.prepare import prepare
from stages.gaze.pseudomasks import make_pseudomasks
from stages.settings.explain import EndpointSettings, ExplainSettings, TextsSettings
from stages.settings.gaze import GazeSettings
from stages.settings.prepare import PrepareSettings
from stages.text.describers import (
    FIELDS,
    Answer,
    BatchRefused,
    Explanation,
    Sample,
    endpoint,
    measured,
)
from stages.text.describers.imported import ImportedTextDescriber, read_texts
from stages.text.explain import explain
from stages.text.texts import merge_texts


@pytest.fixture
def chain(kvasir, tmp_path):
    """prepared.h5 and gaze.h5 of six frames, four of them with gaze."""
    prepared, gaze = tmp_path / "prepared.h5", tmp_path / "gaze.h5"
    prepare(kvasir, prepared, PrepareSettings(layout="kvasir", size=(32, 48)), 1)
    make_pseudomasks(prepared, gaze, GazeSettings(), 1, 0, kvasir / "fixations.csv")
    return prepared, gaze


class Scripted:
    """A describer that answers with the sample's id and records the ids it was asked about."""

    model, revision = "lab/scripted", "abc"

    def __init__(self, broken=()):
        self.broken, self.asked = set(broken), []

    def describe(self, samples):
        self.asked += [sample.sample_id for sample in samples]
        return [self.answer(sample) for sample in samples]

    def answer(self, sample):
        if sample.sample_id in self.broken:
            return Answer(explanation=None, problem="no JSON", raw=("Sorry", "Sorry"))
        words = {name: f"{name} of {sample.sample_id}." for name in FIELDS}
        values = {"area": 0.5, "place": "upper left"}
        return Answer(explanation=Explanation(**words, values=values), raw=("{}",))


@pytest.fixture
def scripted(monkeypatch):
    """Every backend is a scripted one; set `.broken` to make samples fail."""
    describer = Scripted()
    monkeypatch.setattr(measured, "make", lambda *_: describer)
    return describer


def run(chain, folder, shards=1, only=None, cache=None, concurrency=4, **settings):
    """Explain all shards; return their files."""
    files = []
    for shard in range(shards):
        output = folder / f"{shard}of{shards}.jsonl"
        if only is None or shard == only:
            explain(
                *chain, output, ExplainSettings(**settings),
                EndpointSettings(concurrency=concurrency), shard, shards, folder / "work", 1, 0,
                cache=cache,
            )  # fmt: skip
        files.append(output)
    return files


def merge(chain, files, output, max_failed=0.0):
    merge_texts(*chain, files, output, TextsSettings(max_failed=max_failed))
    return output


def test_the_datasets_and_attributes_of_texts_h5(chain, tmp_path):
    output = merge(chain, run(chain, tmp_path), tmp_path / "texts.h5")
    with h5py.File(output) as file, h5py.File(chain[0]) as source:
        assert {name: (file[name].shape, file[name].dtype.kind) for name in file} == {
            "sample_id": ((6,), "O"), "text": ((6, len(FIELDS)), "O"), "attributes": ((6,), "O"),
            "raw_answers": ((6,), "O"), "failed": ((6,), "b"), "area_error": ((6,), "f"),
            "area_agrees": ((6,), "i"), "place_agrees": ((6,), "i"),
        }  # fmt: skip
        assert file["sample_id"][()].tolist() == source["sample_id"][()].tolist()
        assert (file.attrs["stage"], file.attrs["backend"]) == ("texts", "measured")
        assert list(file.attrs["fields"]) == list(FIELDS)
        assert json.loads(file.attrs["inputs"]).keys() == {"prepared", "gaze", "answers 0"}
        assert json.loads(file.attrs["inputs"])["prepared"] == io.sha256(chain[0])


def test_each_image_with_gaze_is_explained_by_its_own_pixels(chain, tmp_path):
    output = merge(chain, run(chain, tmp_path, shards=3), tmp_path / "texts.h5")
    with h5py.File(output) as file, h5py.File(chain[0]) as source, h5py.File(chain[1]) as gaze:
        for i in range(4):
            expected = measured.describe_region(source["image"][i], gaze["pseudomask"][i])
            assert file["text"].asstr()[i].tolist() == expected.sentences()
            assert json.loads(file["attributes"][i]) == expected.values
        # Measured values agree with the gaze by construction.
        assert file["area_error"][:4] == pytest.approx(np.zeros(4), abs=1e-6)
        assert file["area_agrees"][:4].tolist() == file["place_agrees"][:4].tolist() == [1] * 4


def test_samples_without_a_marked_region_have_no_text(chain, tmp_path):
    with h5py.File(chain[1], "r+") as gaze:
        gaze["pseudomask"][0], gaze["pseudomask"][2] = 1, 0
    output = merge(chain, run(chain, tmp_path), tmp_path / "texts.h5")
    with h5py.File(output) as file:
        filled = (file["text"].asstr()[()] != "").all(axis=1)
        assert filled.tolist() == [False, True, False, True, False, False]
        assert not file["failed"][()].any()
        assert file["attributes"].asstr()[4:].tolist() == ["{}", "{}"]
        assert np.isnan(file["area_error"][[0, 2, 4, 5]]).all()
        assert file["area_agrees"][[0, 2, 4, 5]].tolist() == [-1] * 4


def test_the_texts_do_not_depend_on_shards_and_batches(chain, tmp_path):
    def texts(name, **how):
        output = merge(chain, run(chain, tmp_path / name, **how), tmp_path / f"{name}.h5")
        with h5py.File(output) as file:
            return {key: file[key][()].tolist() for key in file if key != "area_error"}

    whole = texts("one")
    assert texts("three", shards=3) == whole
    assert texts("more", shards=9) == whole
    assert texts("batches", batch_size=1) == whole


def test_an_interrupted_job_continues(chain, tmp_path, scripted, monkeypatch):
    undisturbed = merge(chain, run(chain, tmp_path / "a"), tmp_path / "a.h5").read_bytes()
    scripted.asked.clear()

    answer = scripted.describe

    def stop_at_the_third(samples):
        if len(scripted.asked) == 2:
            raise KeyboardInterrupt
        return answer(samples)

    scripted.describe = stop_at_the_third
    with pytest.raises(KeyboardInterrupt):
        run(chain, tmp_path / "b", batch_size=1)
    assert not list((tmp_path / "b").glob("*.jsonl"))
    scripted.describe = answer
    files = run(chain, tmp_path / "b", batch_size=1)
    assert scripted.asked == ["frame 0", "frame 1", "frame 2", "frame 3"]
    with h5py.File(merge(chain, files, tmp_path / "b.h5")) as file:
        assert file["text"].asstr()[3, 0] == "location of frame 3."
    # Another number of shards still finds them.
    run(chain, tmp_path / "b", shards=2, batch_size=1)
    assert len(scripted.asked) == 4
    assert merge(chain, run(chain, tmp_path / "a"), tmp_path / "a.h5").read_bytes() == undisturbed


@pytest.mark.parametrize(
    ("change", "asked"),
    [({"temperature": 0.5}, 8), ({"seed": 1}, 8), ({"batch_size": 3}, 8),
     ({"concurrency": 9}, 4), ({"max_failed": 1}, 4), ({"attempts": 5}, 4)],
)  # fmt: skip
def test_only_settings_that_change_the_answers_ask_again(chain, tmp_path, scripted, change, asked):
    run(chain, tmp_path)
    run(chain, tmp_path, **change)
    assert len(scripted.asked) == asked


def test_a_batch_for_an_endpoint_has_at_least_concurrency_samples(
    chain, tmp_path, scripted, monkeypatch
):
    monkeypatch.setattr(endpoint, "make", lambda *_: scripted)
    sizes, describe = [], scripted.describe

    def counted(samples):
        sizes.append(len(samples))
        return describe(samples)

    monkeypatch.setattr(scripted, "describe", counted)
    asked = {"backend": "openai", "model": "m", "url": "http://localhost"}
    run(chain, tmp_path, batch_size=1, concurrency=3, **asked)
    assert sizes == [3, 1]
    # The number of samples at a time changes no answer.
    run(chain, tmp_path, batch_size=2, concurrency=1, **asked)
    assert sizes == [3, 1]
    run(chain, tmp_path / "other", batch_size=2, concurrency=1, **asked)
    assert sizes == [3, 1, 2, 2]


def test_refused_samples_do_not_stop_a_later_job(chain, tmp_path, scripted, monkeypatch):
    scripted.broken = {"frame 1", "frame 3"}
    run(chain, tmp_path / "some")

    def refuse(samples):
        raise BatchRefused(
            "http://host", "HTTP 400", found="too large", expected="less", mend="shrink"
        )

    monkeypatch.setattr(scripted, "describe", refuse)
    (file,) = run(chain, tmp_path / "some")
    problems = [json.loads(line)[1]["problem"] for line in file.read_text().splitlines()[1:]]
    assert [bool(problem) for problem in problems] == [False, True, False, True]
    assert "http://host: HTTP 400 found: too large" in problems[1]
    # If no sample was ever answered, the settings are wrong.
    with pytest.raises(BatchRefused):
        run(chain, tmp_path / "none")
    assert not list((tmp_path / "none").glob("*.jsonl"))


def test_failed_samples_keep_their_raw_answers_and_are_asked_about_again(chain, tmp_path, scripted):
    scripted.broken = {"frame 1"}
    files = run(chain, tmp_path)
    with pytest.raises(BadInput) as error:
        merge(chain, files, tmp_path / "texts.h5", max_failed=0.2)
    for words in ("1 of 4 samples", "frame 1: no JSON", "at most 20%", "--forcerun explain"):
        assert words in str(error.value)
    assert not (tmp_path / "texts.h5").exists()
    with h5py.File(merge(chain, files, tmp_path / "texts.h5", max_failed=0.25)) as file:
        assert file["failed"][()].tolist() == [False, True, False, False, False, False]
        assert json.loads(file["raw_answers"][1]) == ["Sorry", "Sorry"]
        assert file["text"].asstr()[1].tolist() == [""] * 6
        # Half the image, at the upper left, is claimed of each.
        assert file["place_agrees"][0] == 0
    scripted.broken, scripted.asked = set(), []
    run(chain, tmp_path)
    assert scripted.asked == ["frame 1"]


def test_answers_of_another_workflow_are_reused(chain, tmp_path, scripted, monkeypatch):
    def ask(name, **options):
        before = len(scripted.asked)
        files = run(chain, tmp_path / name, cache=tmp_path / "cache", **options)
        return files, len(scripted.asked) - before

    (first,), asked = ask("first")
    assert asked == 4
    (second,), asked = ask("second")
    assert asked == 0
    assert second.read_bytes() == first.read_bytes()
    # The number of shards does not matter; a setting that changes the answers does.
    assert ask("third", shards=3)[1] == 0
    assert ask("fourth", seed=1)[1] == 4
    monkeypatch.setattr("stages.text.explain.fingerprint", lambda *_: "another code")
    assert ask("fifth")[1] == 4


def test_failed_samples_are_asked_about_again_by_other_workflows(chain, tmp_path, scripted):
    scripted.broken = {"frame 1"}
    run(chain, tmp_path / "first", cache=tmp_path / "cache")
    scripted.broken, scripted.asked = set(), []
    run(chain, tmp_path / "second", cache=tmp_path / "cache")
    assert scripted.asked == ["frame 1"]
    scripted.asked = []
    run(chain, tmp_path / "third", cache=tmp_path / "cache")
    assert scripted.asked == []


def test_unused_columns_of_imported_texts_are_reported(tmp_path, caplog):
    table = tmp_path / "texts.csv"
    table.write_text("sample_id,boundary,Size\na,sharp,small\n")
    assert read_texts(table)["a"].boundary == "sharp"
    assert f"{table}: unused columns: Size" in caplog.text
    table.write_text("sample_id,boundary,text\na,sharp,A sharp border.\n")
    with pytest.raises(BadInput, match="both text and boundary"):
        read_texts(table)


def test_an_imported_id_in_another_unicode_form_matches(tmp_path):
    table = pd.DataFrame({"sample_id": [unicodedata.normalize("NFD", "Jürgen 1 ")], "text": ["A."]})
    table.to_csv(tmp_path / "texts.csv", index=False)
    assert list(read_texts(tmp_path / "texts.csv")) == ["Jürgen 1"]


@pytest.mark.parametrize(
    "content",
    [
        b"sample_id,text\nframe 0,Pale.\nframe 1,Red.\n",
        b"sample_id;text\nframe 0;Pale.\nframe 1;Red.\n",
        b"\xef\xbb\xbfsample_id\ttext\r\nframe 0\tPale.\r\nframe 1\tRed.\r\n",
        "sample_id;text\nframe 0.JPG;Pale.\nimages\\frame 1.png;Red.\n".encode("utf-16"),
    ],
)
def test_imported_texts_in_spreadsheet_formats(content, tmp_path):
    (tmp_path / "texts.csv").write_bytes(content)
    describer = ImportedTextDescriber(tmp_path / "texts.csv")
    samples = [Sample(name, None, None, None) for name in ("frame 0", "frame 1", "frame 2")]
    pale, red, none = describer.describe(samples)
    assert pale.explanation.characteristics == "Pale."
    assert red.explanation.characteristics == "Red."
    assert none.problem == "texts.csv has no row for this sample"


@pytest.mark.parametrize(
    ("first", "second"),
    [("patient_a/im0.png", "patient_b/im0.png"), ("im0.png", "im0.jpg"), ("im0.png", "im0"),
     ("im0", "patient_a/im0"), (r"c:\a\im0.png", "im0.NII.GZ")],
)  # fmt: skip
def test_two_imported_rows_for_one_image_raise(first, second, tmp_path):
    rows = [(first, "Flat."), (second, "Raised."), ("a/im1.png", "Pale."), ("b/other.png", "Red.")]
    pd.DataFrame(rows, columns=["sample_id", "text"]).to_csv(tmp_path / "texts.csv", index=False)
    describer = ImportedTextDescriber(tmp_path / "texts.csv")
    with pytest.raises(BadInput) as caught:
        describer.describe([Sample(name, None, None, None) for name in ("im0", "im1")])
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/texts.csv: column sample_id\n")
    assert f"found:    {first!r} and {second!r} for the sample 'im0'\n" in text
    assert "delete the rows of the other images" in text
    # Rows of images that the data set lacks do not matter.
    (pale,) = describer.describe([Sample("im1", None, None, None)])
    assert pale.explanation.characteristics == "Pale."


def test_an_imported_text_that_no_file_can_hold_raises(tmp_path):
    (tmp_path / "t.jsonl").write_text(r'{"sample_id": "a", "text": "Pale\u0000."}')
    with pytest.raises(BadInput) as caught:
        read_texts(tmp_path / "t.jsonl")
    assert str(caught.value).startswith(f"{tmp_path}/t.jsonl: characteristics of 'a'\n")


def test_an_imported_line_that_is_nested_too_deeply_raises(tmp_path):
    (tmp_path / "t.jsonl").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="file with one object per line"):
        read_texts(tmp_path / "t.jsonl")


def test_an_additional_value_in_a_line_raises(tmp_path):
    (tmp_path / "texts.csv").write_text("sample_id,text\na,Pale, flat.\nb,Red, raised.\n")
    with pytest.raises(BadInput, match=r"texts\.csv: file[^$]*with quotation marks"):
        read_texts(tmp_path / "texts.csv")


def test_a_text_with_only_directional_sentences_is_reported(tmp_path):
    (tmp_path / "texts.csv").write_text("sample_id,text\na,Pale in the upper left.\nb,\n")
    samples = [Sample(name, None, None, None) for name in "ab"]
    directed, empty = ImportedTextDescriber(tmp_path / "texts.csv").describe(samples)
    assert "each sentence of its row in texts.csv names a direction" in directed.problem
    assert empty.problem == "its row in texts.csv has no text"


def test_shards_of_other_data_raise(chain, tmp_path, scripted):
    (file,) = run(chain, tmp_path)
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[:2], *lines[3:]]))
    with pytest.raises(BadInput, match="3 answers"):
        merge(chain, [file], tmp_path / "texts.h5")


def test_grey_scans_are_explained(nci_isbi, tmp_path):
    chain = tmp_path / "prepared.h5", tmp_path / "gaze.h5"
    prepare(nci_isbi, chain[0], PrepareSettings(layout="nci_isbi", size=(32, 48)), 1)
    make_pseudomasks(*chain, GazeSettings(simulate={}), 1, 0)
    with h5py.File(merge(chain, run(chain, tmp_path), tmp_path / "texts.h5")) as file:
        assert (file["text"].asstr()[()] != "").all(axis=1).sum() == 2


def test_gaze_of_other_samples_raises(chain, tmp_path):
    with h5py.File(chain[1], "r+") as gaze:
        gaze["sample_id"][0] = "another"
    with pytest.raises(BadInput, match=r"gaze\.h5.*\n.*ids, not those of"):
        run(chain, tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))
