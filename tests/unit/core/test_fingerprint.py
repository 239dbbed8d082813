import shutil
from pathlib import Path

import pytest

from stages.core import fingerprint as fp
from stages.settings.modules import method_module


def forget():
    fp._read.cache_clear()
    fp.fingerprint.cache_clear()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the stages that may be edited."""
    shutil.copytree(fp.ROOT / "stages", tmp_path / "stages")
    monkeypatch.setattr(fp, "ROOT", tmp_path)
    forget()
    yield tmp_path / "stages"
    forget()


def prints():
    forget()
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


def test_the_closure_holds_what_is_imported_indirectly():
    assert {"stages.gaze.crf", "stages.core.io", "stages.settings.base"} <= set(
        fp.closure("stages.gaze.pseudomasks")
    )
    assert "stages.training.losses" not in fp.closure("stages.gaze.pseudomasks")


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("gaze/heatmap.py", "CANVAS = 768", "CANVAS = 767", {"gaze"}),
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
def test_an_edit_changes_the_stages_that_can_see_it(project, file, old, new, changed):
    before = prints()
    edit(project / file, old, new)
    after = prints()
    assert {name for name in before if before[name] != after[name]} == changed


def test_comments_docstrings_and_layout_change_nothing(project):
    before = prints()
    edit(project / "training/losses.py", '"""The losses of the method', '"""Losses of the method')
    edit(project / "training/losses.py", '    """CWC:', '    """Consistency:')
    edit(project / "training/masking.py", "import torch\n", "# A comment.\n\nimport torch\n")
    assert prints() == before


def test_every_module_of_ours_that_a_stage_imports_is_found():
    stages = ("data.prepare", "text.explain", "text.embed", "training.student")
    for stage in (*stages, "evaluation.predict", "evaluation.evaluate", "report.report"):
        found = set(fp.closure(f"stages.{stage}"))
        assert found > {f"stages.{stage}", "stages.core.io", "stages.core.cli"}
