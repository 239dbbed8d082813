"""The conda environments hold the versions that the lock pins."""

import re

import pytest
import yaml

from tests.workspace import ROOT

LOCKED = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / "envs/lock.txt").read_text(), re.M))


@pytest.mark.parametrize("file", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda f: f.stem)
def test_an_environment_is_a_part_of_the_lock(file):
    *_, pip = yaml.safe_load(file.read_text())["dependencies"]
    pinned = dict(line.split("==") for line in pip["pip"])
    assert pinned == {name: LOCKED[name] for name in pinned}
