"""Answers and vectors that another workflow has made are taken where nothing differs."""

import shutil

from tests.models_on_disk import ANSWER, write_vlm
from tests.workspace import Workspace, own_data_settings, tiny_config

EXPLANATIONS = "results/mine/explanations.h5"
FILES = ("results/mine/texts/0of1.jsonl", EXPLANATIONS)


def clone(folder, data, model, cache):
    config = tiny_config()
    config["cache"] = str(cache)
    explain = {
        "backend": "transformers", "model": str(model), "dtype": "float32",
        "max_tokens": 200,
    }  # fmt: skip
    config["datasets"]["mine"] = own_data_settings(
        config, "data/polyps", explain=explain, threads=1
    )
    shutil.copytree(data, folder / "data/polyps")
    return Workspace(folder, config)


def taken(workspace):
    """The jobs that took what an earlier one had made."""
    logs = (workspace.folder / "results/mine/logs").glob("*.log")
    return {log.stem for log in logs if "taken from: " in log.read_text()}


def test_another_workflow_takes_what_one_has_made(tmp_path, kvasir):
    model, cache = tmp_path / "model", tmp_path / "cache"
    write_vlm(model, ANSWER)
    first, second = (clone(tmp_path / name, kvasir, model, cache) for name in ("first", "second"))
    first.must_run(EXPLANATIONS)
    assert taken(first) == set()
    second.must_run(EXPLANATIONS)
    assert taken(second) == {"explain_0of1", "embed"}
    for name in FILES:
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes(), name
    # Where a result comes from changes nothing in it.
    second.config["cache"] = ""
    second.save_config()
    assert second.planned_rules(EXPLANATIONS) == set()

    second.config["cache"] = str(cache)
    second.save_config()
    prompt = second.folder / "workflow/prompts/generic.yaml"
    prompt.write_text(prompt.read_text().replace("version: 1", "version: 2"))
    second.must_run(EXPLANATIONS)
    assert taken(second) == set()
