"""The rules make or import explanations; a change reruns what depends on it."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from tests.models_on_disk import ANSWER, write_vlm
from tests.workspace import Workspace, own_data_settings, tiny_config

TEXTS, EXPLANATIONS = "results/mine/texts.h5", "results/mine/explanations.h5"


@pytest.fixture
def workspace(tmp_path, kvasir):
    config = tiny_config()
    shutil.move(kvasir, tmp_path / "clone/data/polyps")
    explain = {
        "backend": "transformers", "model": "data/model", "dtype": "float32",
        "batch_size": 2, "max_tokens": 200, "attempts": 2, "shards": 2,
    }  # fmt: skip
    config["datasets"]["mine"] = own_data_settings(
        config, "data/polyps", explain=explain, threads=1
    )
    return Workspace(tmp_path / "clone", config)


def write_model(workspace, answer=None):
    shutil.rmtree(workspace.folder / "data/model", ignore_errors=True)
    write_vlm(workspace.folder / "data/model", answer)


def test_a_model_from_a_folder_explains_and_its_answers_are_embedded(workspace):
    write_model(workspace, ANSWER)
    workspace.must_run(EXPLANATIONS)
    with h5py.File(workspace.folder / EXPLANATIONS) as file:
        text = file["text"].asstr()[()]
        assert (text[:4] != "").all() and (text[4:] == "").all()
        assert text[0, 1] == "Its boundary is smooth and well-defined."
        assert not any("left" in sentence for sentence in text.ravel())
        assert json.loads(file["attributes"].asstr()[0])["place"] == "middle left"
        assert not file["failed"][()].any()
        # The discs are at 0.3 of the width; the model claims an area of 12 % for each.
        assert file["place_agrees"][:4].tolist() == [1] * 4
        assert np.isfinite(file["area_error"][:4]).all()
        assert file["embedding"].shape == (6, 6, 384)
        assert file.attrs["backend"] == "transformers"
        assert file.attrs["revision"].startswith("sha256:")
        assert "Area Percentage" in file.attrs["prompt"]


def test_invalid_answers_count_as_failures(workspace):
    write_model(workspace)
    status, printed = workspace.run(TEXTS)
    assert status == 1
    assert "4 of 4 samples without a valid answer" in printed
    assert "no valid answer in 2 attempts" in printed and "explain.max_failed" in printed
    assert not (workspace.folder / TEXTS).exists()

    workspace.config["datasets"]["mine"]["explain"]["max_failed"] = 1.0
    workspace.save_config()
    assert workspace.planned_rules(TEXTS) == {"texts"}
    workspace.must_run(TEXTS)
    with h5py.File(workspace.folder / TEXTS) as file:
        assert file["failed"][()].tolist() == [True] * 4 + [False] * 2
        assert (file["text"].asstr()[()] == "").all()
        answers = [json.loads(raw) for raw in file["raw_answers"].asstr()[:4]]
        assert [len(texts) for texts in answers] == [2] * 4


def test_imported_texts_and_vectors_are_used_unchanged(workspace):
    mine, root = workspace.config["datasets"]["mine"], workspace.folder / "data"
    rows = [{"sample_id": f"frame {i}", "text": f"Polyp {i}. At the left."} for i in range(4)]
    (root / "my texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mine["explain"] = {"backend": "import", "source": "data/my texts.jsonl"}
    rng = np.random.default_rng(0)
    vectors = {f"frame {i}": rng.normal(size=(2, 768)).astype(np.float32) for i in range(4)}
    (root / "my vectors").mkdir()
    for name, vector in vectors.items():
        np.save(root / f"my vectors/{name}.npy", vector)
    mine["embed"] = {"encoder": "import", "source": "data/my vectors"}
    workspace.save_config()
    workspace.must_run(EXPLANATIONS)
    with h5py.File(workspace.folder / TEXTS) as file:
        assert file["text"].asstr()[:4, 2].tolist() == [f"Polyp {i}." for i in range(4)]
    with h5py.File(workspace.folder / EXPLANATIONS) as file:
        for i, name in enumerate(file["sample_id"].asstr()[:4]):
            assert np.array_equal(file["embedding"][i], vectors[name])
    np.save(root / "my vectors/frame 0.npy", vectors["frame 1"])
    assert workspace.planned_rules(EXPLANATIONS) == {"embed"}


def test_another_prompt_asks_the_model_again_another_encoder_does_not(workspace):
    write_model(workspace, ANSWER)
    mine = workspace.config["datasets"]["mine"]
    mine["experiments"] = ["full"]
    workspace.save_config()
    workspace.must_run("mine")
    downstream = {
        "teacher",
        "pseudolabels",
        "student",
        "predict",
        "evaluate",
        "summarise",
        "provenance",
        "report",
        "mine",
    }
    mine["embed"] = {"tokens": "one"}
    workspace.save_config()
    assert workspace.planned_rules("mine") == downstream | {"embed"}
    mine["embed"] = {}
    mine["explain"]["prompt"] = "workflow/prompts/polyp.yaml"
    workspace.save_config()
    assert workspace.planned_rules("mine") == downstream | {"embed", "texts", "explain"}
    mine["explain"].pop("prompt")
    workspace.save_config()
    assert workspace.planned_rules("mine") == set()
    # Another model in the same folder has a file with another time.
    weights = workspace.folder / "data/model/model.safetensors"
    time_before = weights.stat().st_mtime_ns
    os.utime(weights, ns=(time_before, time_before + 1))
    assert workspace.planned_rules("mine") == downstream | {"embed", "texts", "explain"}
    os.utime(weights, ns=(time_before, time_before))
    assert workspace.planned_rules("mine") == set()
    prompt = workspace.folder / "workflow/prompts/generic.yaml"
    prompt.write_text(prompt.read_text().replace("version: 1", "version: 2"))
    assert workspace.planned_rules("mine") == downstream | {"embed", "texts", "explain"}
