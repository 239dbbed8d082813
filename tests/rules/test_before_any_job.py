"""Errors that stop the workflow with one message, before any job."""

import re

import pytest

from stages.core.config import RESERVED_NAMES
from tests.workspace import ROOT, Workspace, own_data_settings, shipped_config, tiny_config


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("workspace"), shipped_config())


@pytest.mark.parametrize(
    ("dataset", "entries"),
    [
        ("kvasir", ["train.txt", "test.txt", "images", "masks", "kvasir_fixation.csv"]),
        ("prostate", ["train.txt", "test.txt", "images", "masks", "prostate_fixation.csv"]),
        ("isic", ["train.txt", "test.txt", "images", "labels"]),
    ],
)
def test_message_names_a_missing_folder_its_files_and_source(workspace, dataset, entries):
    status, printed = workspace.run("-n", dataset)
    assert status != 0
    assert printed.count("is missing") == 1
    assert f"the folder data/{dataset} is missing; datasets.{dataset}.root names it" in printed
    for entry in entries:
        assert f"data/{dataset}/{entry}" in printed
    assert "get it from: " in printed and "https://" in printed
    assert "Traceback (most recent call last)" not in printed


def test_message_lists_only_the_missing_files_of_a_folder(workspace):
    root = workspace.folder / "data/kvasir"
    (root / "images").mkdir(parents=True)
    (root / "train.txt").write_text("a\n")
    status, printed = workspace.run("-n", "kvasir")
    (listed,) = re.findall(r"missing: (.*)", printed)
    assert status != 0
    assert set(listed.split(", ")) == {
        f"data/kvasir/{name}" for name in ("test.txt", "masks", "kvasir_fixation.csv")
    }


def test_message_names_a_loop_of_links_and_its_data_set(tmp_path, own_folder):
    config = tiny_config()
    config["datasets"]["ours"] = own_data_settings(config, str(own_folder))
    config["datasets"]["ours"]["prepare"] |= {"layout": "folder", "split": "drawn"}
    (own_folder / "fixations.csv").touch()
    for one, other in ("ab", "ba"):
        (own_folder / f"images/{one}").symlink_to(own_folder / f"images/{other}")
    status, printed = Workspace(tmp_path / "clone", config).run("-n", "ours")
    assert status != 0
    assert re.search(rf"data set ours: {own_folder}/images/[ab]: .*: mend it, or remove", printed)
    assert "OSError" not in printed and "Traceback (most recent call last)" not in printed


def test_a_missing_data_set_does_not_stop_another(workspace):
    assert "demo_data" in workspace.must_run("-n", "demo_kvasir")


@pytest.mark.parametrize("name", ["a{b}c", "a}c", "a:c"])
def test_message_names_a_clone_whose_path_snakemake_or_python_would_misread(tmp_path, name):
    folder = tmp_path / name
    status, printed = Workspace(folder, tiny_config()).run("-n", "demo")
    assert status != 0
    (line,) = (line for line in printed.splitlines() if "allowed" in line)
    allowed = "allowed: a folder without {, } and : in its path. Rename or move it"
    assert re.fullmatch(rf"the workflow is in '{re.escape(str(folder))}.*'; {allowed}", line)
    assert "Traceback (most recent call last)" not in printed


def test_a_clone_in_a_folder_with_other_characters_is_planned(tmp_path):
    folder = tmp_path / "a b'c\"d%e$f[g]*ü"
    assert "demo_data" in Workspace(folder, tiny_config()).must_run("-n", "demo")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("student.learning_rte", 1, "did you mean 'learning_rate'?"),
        ("student.learning_rate", "fast", 'found "fast"; allowed: a number'),
        ("gaze.thresholds", [0.5, 0.5], "thresholds must differ"),
    ],
)
def test_message_names_the_key_of_a_wrong_setting(tmp_path, path, value, message):
    config = tiny_config()
    part, key = path.split(".")
    config["defaults"][part][key] = value
    status, printed = Workspace(tmp_path, config).run("-n", "demo")
    assert status != 0
    assert f"defaults.{part}" in printed and message in printed
    assert "Traceback (most recent call last)" not in printed


def test_message_names_both_lines_of_a_duplicate_key(tmp_path):
    workspace = Workspace(tmp_path, tiny_config())
    file = tmp_path / "config.yaml"
    file.write_text(f"{file.read_text()}seeds: [0]\nseeds: [1, 2]\n")
    *_, before, after = file.read_text().splitlines()
    assert (before, after) == ("seeds: [0]", "seeds: [1, 2]")
    status, printed = workspace.run("-n", "demo")
    assert status != 0
    assert re.search(r"seeds: found twice, in lines \d+ and \d+", printed)
    assert "Traceback (most recent call last)" not in printed


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("explain", {"backend": "import", "source": "gone.csv"}),
        ("explain", {"backend": "transformers", "model": "a", "prompt": "gone.yaml"}),
        ("embed", {"encoder": "import", "source": "gone.h5"}),
        ("embed", {"encoder": "open_clip", "model": "ViT-B-32", "weights": "weights/gone.pt"}),
    ],
)
def test_message_names_a_missing_file_of_a_setting(tmp_path, part, settings):
    config = tiny_config()
    config["defaults"][part] = settings
    status, printed = Workspace(tmp_path, config).run("-n", "demo")
    missing_file = settings.get("source") or settings.get("weights") or settings["prompt"]
    assert status != 0
    assert re.search(rf"data set demo_\w+: {part}\.\w+: \S*{missing_file} does not exist", printed)
    assert "Traceback (most recent call last)" not in printed


def test_every_rule_with_jobs_has_all_directives():
    jobs = 0
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for block in re.split(r"\n(?=(?:use )?rule )", file.read_text())[1:]:
            if "shell:" not in block or block.startswith("use "):
                continue
            jobs += 1
            for directive in (
                '    """', "output:", "params:", "log:", "benchmark:", "threads:", "conda:",
                "shell:", "code=",
            ):  # fmt: skip
                assert directive in block, (file.name, block.split(":")[0], directive)
            assert re.search(r"output:\n +\w+=", block), "outputs are named"
    # The pattern does find rules.
    assert jobs > 10


def test_names_of_rules_are_reserved():
    text = "".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    rules = re.findall(r"^rule (\w+):|^use rule \w+ as (\w+) ", text, re.M)
    assert {name for pair in rules for name in pair if name} <= RESERVED_NAMES
