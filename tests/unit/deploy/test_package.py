"""The installable package and its command."""

import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

from stages.deploy import main, records
from tests.unit.rules.test_environments import imported_packages
from tests.workspace import ROOT

STAGES = [path for path in (ROOT / "stages").rglob("*.py") if path.stem != "__init__"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_wheel_holds_the_stages_and_the_command(tmp_path):
    # A copy, as building writes into the folder.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("stages", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet",
         "--wheel-dir", tmp_path],
        cwd=source, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        command = archive.read(entry_points).decode()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py")}
    data = {"stages/deploy/app.html"}
    assert {name for name in names if ".dist-info/" not in name} == modules | data
    assert wheel.name.startswith(f"gaze_to_insight-{records.VERSION}-")
    assert "gaze-to-insight = stages.deploy.main:main" in command


def test_the_version_is_the_same_everywhere():
    assert PROJECT["dynamic"] == ["version"]
    assert f"\nversion: {records.VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def named(requirements):
    """Return the names of packages in requirements, as `imported_packages` writes them."""
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


@pytest.mark.parametrize("command", main.COMMANDS)
def test_a_command_needs_only_its_own_packages(command):
    extra = PROJECT["optional-dependencies"].get(command, [])
    imported = imported_packages([main.COMMANDS[command][0]])
    assert imported <= named(PROJECT["dependencies"] + extra)


def test_all_extras_are_what_the_stages_import():
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in STAGES}
    extras = PROJECT["optional-dependencies"]
    everything = [line for name in extras if name != "dev" for line in extras[name]]
    # A part of pydantic.
    found = imported_packages(modules) - {"pydantic-core"}
    assert found <= named(PROJECT["dependencies"] + everything)


def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys):
    # None in sys.modules makes an import fail as if there were no such package.
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "stages.deploy.graph", raising=False)
    monkeypatch.delitem(sys.modules, "stages.deploy.export", raising=False)
    # What another test imported is also an attribute of the package.
    monkeypatch.delattr(sys.modules["stages.deploy"], "graph", raising=False)
    with pytest.raises(SystemExit, match=r"package onnx is not installed.*'\.\[export\]'"):
        main.main(["export", "--help"])


def test_segmenting_and_the_app_import_neither_the_workflow_nor_language_models():
    script = (
        "import sys; import stages.deploy.main, stages.deploy.app, highdicom;"
        "heavy = {'snakemake', 'transformers', 'open_clip', 'monai', 'matplotlib', 'timm', 'onnx'};"
        "print(heavy & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"


def test_the_command_lists_its_subcommands_without_loading_them():
    script = (
        "import sys; from stages.deploy import main; print('torch' in sys.modules); main.main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, "--help"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert found.stdout.startswith("False\n")
    for name in main.COMMANDS:
        assert name in found.stdout


@pytest.mark.parametrize("line", [[], ["segments"], ["--student"]])
def test_another_command_is_refused(line, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(line)
    assert caught.value.code == 2
    assert "gaze-to-insight" in capsys.readouterr().err


def test_the_help_explains_each_option(capsys):
    with pytest.raises(SystemExit):
        main.main(["segment", "--help"])
    found = " ".join(capsys.readouterr().out.split())
    assert "usage: gaze-to-insight segment" in found
    assert "{source,png}" in found
    assert "Weights, student.safetensors; with several the mask is that of" in found
    assert "Parameters" not in found
