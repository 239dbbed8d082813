"""The files by which others find, cite and change the project agree with it."""

import re
import tomllib

import pytest
import yaml

from stages.deploy.records import VERSION
from tests.workspace import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKED = set(re.findall(r"^([\w.-]+)==", (ROOT / "envs/lock.txt").read_text("utf-8"), re.M))


def read(name):
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_citation_is_of_this_version_and_names_both_papers():
    citation = read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (VERSION, PROJECT["license"])
    page = (ROOT / "docs/citing.md").read_text("utf-8")
    for paper in citation["references"]:
        assert paper["title"] in " ".join(page.split())
        assert paper["url"] in page


def test_the_changelog_has_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## Unreleased" in changes
    assert VERSION in changes


def test_hooks_run_tools_of_the_lock_and_no_other():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    commands = (ROOT / "Makefile").read_text("utf-8")
    for hook in repository["hooks"]:
        program, *options = hook["entry"].split()
        assert program.removeprefix(".venv/bin/") in LOCKED
        assert f"\t{program.removeprefix('.venv/bin/')} {options[0]}" in commands


TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize(
    "template", [t for t in TEMPLATES if t.stem != "config"], ids=lambda path: path.stem
)
def test_a_template_of_an_issue_asks_for_something(template):
    content = read(template.relative_to(ROOT))
    assert content["name"] and content["description"]
    fields = [part for part in content["body"] if part["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) >= 2
    assert all(field["attributes"]["label"] for field in fields)


def test_the_workflow_catalog_describes_how_to_run_it():
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (ROOT / "workflow/Snakefile").is_file()
