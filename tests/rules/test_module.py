"""The pipeline as a module of another workflow, which has its own folder and config."""

import copy
import re

import pytest
import yaml

from tests.workspace import Workspace, tiny_config

SNAKEFILE = """
configfile: "config.yaml"


rule all:
    input:
        "counted/demo_kvasir.txt",
        "drawn/no_number.txt",


module gaze:
    snakefile:
        "../pipeline/workflow/Snakefile"
    config:
        config["gaze"]


use rule * from gaze {how}


rule count:
    input:
        "results/{{dataset}}/gaze.h5",
    output:
        "counted/{{dataset}}.txt",
    shell:
        "wc -c < {{input}} > {{output}}"


# The pipeline also has a wildcard of this name; there it must be a number.
rule draw:
    output:
        "drawn/{{seed}}.txt",
    shell:
        "echo {{config[words]}} > {{output}}"
"""


@pytest.fixture(scope="module")
def outer(tmp_path_factory):
    """A workflow whose own rule has used pseudomasks of the module."""
    folder = tmp_path_factory.mktemp("outer")
    config = tiny_config()
    config["datasets"]["demo_isic"]["explain"] = {
        "backend": "transformers", "model": "data/vlm", "prompt": "workflow/prompts/skin.yaml",
    }  # fmt: skip
    pipeline = Workspace(folder / "pipeline", {"seeds": "not to be read"})
    outer = copy.copy(pipeline)
    outer.folder = folder / "study"
    outer.folder.mkdir()
    (outer.folder / "config.yaml").write_text(yaml.safe_dump({"words": "ours", "gaze": config}))
    (outer.folder / "Snakefile").write_text(SNAKEFILE.format(how="as gaze_*"))
    outer.must_run("--cores", "2")
    return outer


def test_results_are_in_the_folder_of_the_outer_workflow(outer):
    size = (outer.folder / "results/demo_kvasir/gaze.h5").stat().st_size
    assert int((outer.folder / "counted/demo_kvasir.txt").read_text()) == size
    assert (outer.folder / "drawn/no_number.txt").read_text() == "ours\n"
    assert not (outer.folder.parent / "pipeline/results").exists()
    assert "Nothing to be done" in outer.must_run("-n")


def test_targets_are_planned_with_prefixed_and_with_plain_names(outer):
    counts = outer.job_counts("gaze_demo", "gaze_baselines", "gaze_export_published_demo_isic")
    assert all(rule.startswith("gaze_") for rule in counts)
    # Three data sets, six experiments; one data set already has its pseudomasks.
    assert (counts["gaze_student"], counts["gaze_pseudomasks"]) == (18, 2)
    assert counts["gaze_compare_together"] == counts["gaze_report_together"] == 1
    snakefile = outer.folder / "Snakefile"
    before = snakefile.read_text()
    try:
        snakefile.write_text(SNAKEFILE.format(how="exclude all"))
        assert "Nothing to be done" in outer.must_run("-n")
        plain = outer.job_counts("demo", "baselines", "export_published_demo_isic")
    finally:
        snakefile.write_text(before)
    assert {f"gaze_{rule}": count for rule, count in plain.items()} == counts


def test_a_prompt_of_the_outer_workflow_replaces_the_shipped_one(outer):
    target = "results/demo_isic/texts.h5"

    def prompt():
        return re.findall(r"--prompt (\S+)", outer.must_run("-n", "-p", target))

    shipped = outer.folder.parent / "pipeline/workflow/prompts/skin.yaml"
    assert prompt() == [str(shipped)]
    own = outer.folder / "workflow/prompts/skin.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(shipped.read_text())
    assert prompt() == ["workflow/prompts/skin.yaml"]
