"""The conda environments and the container hold what the lock pins."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml

from stages.core.fingerprint import import_closure
from tests.workspace import ROOT

LOCKED = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / "envs/lock.txt").read_text(), re.M))


@pytest.mark.parametrize("file", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda f: f.stem)
def test_an_environment_is_a_part_of_the_lock(file):
    *_, pip = yaml.safe_load(file.read_text())["dependencies"]
    pinned = dict(line.split("==") for line in pip["pip"])
    assert pinned == {name: LOCKED[name] for name in pinned}


def stage_modules(environment):
    """Stages that run in an environment, with what they import by name when a setting asks."""
    stages = set()
    for file in (ROOT / "rules").glob("*.smk"):
        for rule in re.split(r"^(?=(?:use )?rule )", file.read_text(), flags=re.M)[1:]:
            if f"envs/{environment}.yaml" in rule and "shell:" in rule:
                stages |= set(re.findall(r"(?:python -m|launch\}) (stages\.\w+\.\w+)", rule))
    folders = {f"{stage.split('.')[1]}/*" for stage in stages}
    # Adapters of raw data serve prepare, verify and export.
    folders |= {"data/*"} if environment == "gaze" else set()
    plug_ins = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in folders
        for path in (ROOT / "stages").glob(f"{folder}/*.py")
        if path.stem != "__init__"
    }
    return stages | plug_ins


def imported_packages(modules):
    """Distributions of all packages that modules of ours import, directly or not."""
    names = set()
    for module in import_closure(*modules):
        path = ROOT / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    names = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"stages"}
    known = packages_distributions()
    return {known[name][0].lower().replace("_", "-") for name in names}


@pytest.mark.parametrize("environment", sorted(f.stem for f in (ROOT / "envs").glob("*.yaml")))
def test_an_environment_has_what_its_stages_import(environment):
    modules = stage_modules(environment)
    assert modules
    *_, pip = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"]
    assert imported_packages(modules) <= {line.split("==")[0] for line in pip["pip"]}


@pytest.fixture
def recipe():
    """Steps of the container's recipe: instruction, and what follows it."""
    text = (ROOT / "envs/Dockerfile").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_container_has_the_python_that_the_project_needs(recipe):
    (base,) = (what for step, what in recipe if step == "FROM")
    found = tuple(map(int, re.fullmatch(r"python:(\d+)\.(\d+)-slim-\w+", base).groups()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.fullmatch(r">=(\S+),<(\S+)", project["requires-python"]).groups()
    first, beyond = (tuple(map(int, version.split("."))) for version in (low, high))
    assert first <= found < beyond


def test_the_container_installs_the_lock_with_its_hashes_as_make_does(recipe):
    # The folder that the image is built from is envs.
    copied = dict(what.split() for step, what in recipe if step == "COPY")
    (name,) = (name for name in copied if (ROOT / "envs" / name).samefile(ROOT / "envs/lock.txt"))
    (run,) = (what for step, what in recipe if step == "RUN")
    options = "--require-hashes --no-deps --requirement"
    assert f"{options} {copied[name]}" in run
    assert f"{options} envs/lock.txt" in (ROOT / "Makefile").read_text()
    assert "snakemake" in LOCKED


def test_the_container_runs_as_nobody_in_particular(recipe):
    users = [what for step, what in recipe if step == "USER"]
    assert users and not re.match(r"(root|0)\b", users[-1])
