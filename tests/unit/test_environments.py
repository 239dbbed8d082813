"""The conda environments and the container hold what the lock pins."""

import re
import tomllib

import pytest
import yaml

from tests.workspace import ROOT

LOCKED = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / "envs/lock.txt").read_text(), re.M))


@pytest.mark.parametrize("file", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda f: f.stem)
def test_an_environment_is_a_part_of_the_lock(file):
    *_, pip = yaml.safe_load(file.read_text())["dependencies"]
    pinned = dict(line.split("==") for line in pip["pip"])
    assert pinned == {name: LOCKED[name] for name in pinned}


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
