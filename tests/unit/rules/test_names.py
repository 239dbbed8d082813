"""One name through everything: a rule, its stage, its log and its benchmark."""

import re
from pathlib import Path

import pytest

from tests.workspace import ROOT

# The layers of pyproject.toml that have rules, and so a file in rules/.
FAMILIES = sorted(path.stem for path in (ROOT / "rules").glob("*.smk") if path.stem != "common")


def rules_of(family):
    """Name → text of each rule that runs a stage, or reuses one."""
    text = (ROOT / f"rules/{family}.smk").read_text()
    return {
        re.match(r"(?:use rule \w+ as|rule) (\w+)", block)[1]: block
        for block in re.split(r"^(?=(?:use )?rule )", text, flags=re.M)[1:]
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_one_name_in_rules_stages_and_tests(family):
    assert (ROOT / f"stages/{family}/__init__.py").read_text().startswith('"""')
    assert list((ROOT / f"tests/unit/{family}").glob("test_*.py"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_has_the_name_of_its_stage_its_log_and_its_benchmark(family):
    for name, text in rules_of(family).items():
        # A rule for all data sets or for a table reuses the stage of one for a data set.
        stage = re.sub(r"_(together|table)$", "", name)
        assert (ROOT / f"stages/{family}/{stage}.py").exists(), name
        for command in re.findall(r"(?:python -m|launch\}) (stages\.[\w.]+)", text):
            assert command == f"stages.{family}.{stage}"
        for kind in ("log", "benchmark"):
            (path,) = re.findall(rf"^    {kind}:\n +\"(.*)\"", text, re.M)
            assert Path(path).name.startswith(stage), (name, path)


@pytest.mark.parametrize("folder", [p for p in (ROOT / "stages").rglob("*") if p.is_dir()],
                         ids=lambda path: path.name)  # fmt: skip
def test_a_folder_of_stages_holds_at_most_16_modules(folder):
    assert len(list(folder.glob("*.py"))) <= 16


def test_helpers_of_all_families_stay_few():
    assert len((ROOT / "rules/common.smk").read_text().splitlines()) <= 150
