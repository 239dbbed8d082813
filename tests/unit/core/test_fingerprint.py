import shutil
from pathlib import Path

import pytest

from stages.core import fingerprint as fp
from stages.settings.modules import method_module


def clear_caches():
    fp._parse_module.cache_clear()
    fp.fingerprint.cache_clear()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Copy the stages, so that a test can edit them."""
    shutil.copytree(fp.ROOT / "stages", tmp_path / "stages")
    monkeypatch.setattr(fp, "ROOT", tmp_path)
    clear_caches()
    yield tmp_path / "stages"
    clear_caches()


def fingerprints():
    clear_caches()
    stages = {
        "gaze": ["stages.gaze.pseudomasks"],
        "teacher": ["stages.training.teacher"],
        "student": ["stages.training.student", method_module("distilled")],
        "single": ["stages.training.student", method_module("single")],
    }
    return {name: fp.fingerprint(*modules) for name, modules in stages.items()}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_closure_contains_indirect_imports():
    assert {"stages.gaze.crf", "stages.core.io", "stages.settings.base"} <= set(
        fp.import_closure("stages.gaze.pseudomasks")
    )
    assert "stages.training.losses" not in fp.import_closure("stages.gaze.pseudomasks")


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("gaze/heatmap.py", "CANVAS_SIDE = 768", "CANVAS_SIDE = 767", {"gaze"}),
        ("gaze/crf.py", "import", "import os\nimport", {"gaze"}),
        ("training/losses.py", "* nll", "* nll * 2", {"teacher", "student", "single"}),
        ("training/masking.py", "smallest, largest + 1", "smallest, largest", {"student"}),
        ("settings/gaze.py", "default=70", "default=71", {"gaze"}),
        (
            "core/io.py",
            "SCHEMA_VERSION = 1",
            "SCHEMA_VERSION = 2",
            {"gaze", "teacher", "student", "single"},
        ),
        ("report/report.py", "import", "import os\nimport", set()),
    ],
)
def test_an_edit_changes_the_fingerprints_of_the_stages_that_import_the_file(
    project, file, old, new, changed
):
    before = fingerprints()
    edit(project / file, old, new)
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == changed


def test_comments_docstrings_and_layout_change_nothing(project):
    before = fingerprints()
    edit(project / "training/losses.py", '"""The losses of the method', '"""Losses of the method')
    edit(project / "training/losses.py", '    """CWC:', '    """Consistency:')
    edit(project / "training/masking.py", "import torch\n", "# A comment.\n\nimport torch\n")
    assert fingerprints() == before


def test_the_closure_of_each_stage_contains_the_core_modules():
    stages = ("data.prepare", "text.explain", "text.embed", "training.student")
    for stage in (*stages, "evaluation.predict", "evaluation.evaluate", "report.report"):
        found = set(fp.import_closure(f"stages.{stage}"))
        assert found > {f"stages.{stage}", "stages.core.io", "stages.core.cli"}
