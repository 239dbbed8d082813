"""A shared cache: a workflow reuses answers and vectors of another one if nothing differs."""

import shutil

from tests.models_on_disk import ANSWER, write_vlm
from tests.workspace import Workspace, own_data_settings, tiny_config

EXPLANATIONS = "results/mine/explanations.h5"
FILES = ("results/mine/texts/0of1.jsonl", EXPLANATIONS)


def make_clone(folder, data, model, cache):
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


def reusing_jobs(workspace):
    """Return the jobs that reused a result of another workflow."""
    logs = (workspace.folder / "results/mine/logs").glob("*.log")
    return {log.stem for log in logs if "taken from: " in log.read_text()}


def test_a_second_workflow_reuses_cached_answers_and_vectors(tmp_path, kvasir):
    model, cache = tmp_path / "model", tmp_path / "cache"
    write_vlm(model, ANSWER)
    first, second = (
        make_clone(tmp_path / name, kvasir, model, cache) for name in ("first", "second")
    )
    first.must_run(EXPLANATIONS)
    assert reusing_jobs(first) == set()
    second.must_run(EXPLANATIONS)
    assert reusing_jobs(second) == {"explain_0of1", "embed"}
    for name in FILES:
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes(), name
    # The result is the same without a cache, so nothing reruns.
    second.config["cache"] = ""
    second.save_config()
    assert second.planned_rules(EXPLANATIONS) == set()

    second.config["cache"] = str(cache)
    second.save_config()
    prompt = second.folder / "workflow/prompts/generic.yaml"
    prompt.write_text(prompt.read_text().replace("version: 1", "version: 2"))
    second.must_run(EXPLANATIONS)
    assert reusing_jobs(second) == set()
