"""Every command of the documentation is one that works, or says what it needs."""

import argparse
import ast
import copy
import importlib
import importlib.util
import multiprocessing
import re
import runpy
import shlex
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from stages.deploy.export import export
from stages.networks import models
from tests.docs.pages import BLOCKS, PAGES, in_language, spans
from tests.rules.test_module import SNAKEFILE
from tests.workspace import ROOT, Workspace, dry_run, shipped_config

LANGUAGES = {"bash", "yaml", "python", "snakemake", "text", "bibtex"}
# Words that a block which no test can run may name after `needs`.
NEEDS = re.compile(r"\b(GPU|data|cluster|Docker|Apptainer|root|network)\b")
# Variables that the documentation sets, and who reads them.
VARIABLES = {"PATH": "the shell", "HDF5_USE_FILE_LOCKING": "HDF5"}
# What the examples of the documentation find: files that a plan only looks for.
RAW_FILES = [
    "data/kvasir/train.txt", "data/kvasir/test.txt", "data/kvasir/kvasir_fixation.csv",
    "data/kvasir/images/a.jpg", "data/kvasir/masks/a.jpg",
    "data/isic/train.txt", "data/isic/test.txt", "data/isic/images/a.jpg",
    "data/isic/labels/a_segmentation.png",
    "data/mine/fixations.csv", "data/mine/images/a.png", "data/mine/masks/a.png",
]  # fmt: skip


def program(words):
    """Return the name of the rule that covers a command."""
    if words[:2] == ["python", "-m"] or (words[0] == "python" and words[1].endswith(".py")):
        return "python"
    return words[0]


def parse_python(words):
    """Hand the options to the program's own parser, and end there."""

    class Parsed(Exception):
        pass

    def parse_only(parser, argv=None, namespace=None):
        raise Parsed(parse(parser, argv, namespace))

    parse = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch:
        is_module = words[1] == "-m"
        patch.setattr(sys, "argv", words[2:] if is_module else words[1:])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        run = runpy.run_module if is_module else runpy.run_path
        name = sys.argv[0] if is_module else str(ROOT / sys.argv[0])
        with pytest.raises(Parsed):
            run(name, run_name="__main__")


def check_make(words):
    subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True, text=True
    )


def check_export(words):
    (assignment,) = words[1:]
    assert assignment.partition("=")[0] in VARIABLES


def check_pytest(words):
    # The same tests as `make test`.
    assert shlex.join(words[1:]).replace("'", '"') in (ROOT / "Makefile").read_text()


def check_installed_command(words):
    parse_python(["python", "-m", "stages.deploy.main", *words[1:]])


RULES = {
    "make": check_make,
    "gaze-to-insight": check_installed_command,
    "export": check_export,
    "pytest": check_pytest,
    "python": parse_python,
    # A dry run; see the test of all plans below.
    "snakemake": lambda words: None,
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_says_what_it_is(block):
    assert block.language in LANGUAGES
    if block.language not in ("bash", "python"):
        first_words = {(line.split() or [""])[0] for line in block.text.splitlines()}
        assert not first_words & {*RULES, "pip", "docker", "sbatch"}, "this is a block for bash"


@pytest.mark.parametrize("block", in_language("bash"), ids=lambda block: block.place)
def test_a_command_works_or_says_what_it_needs(block):
    if block.needs:
        assert NEEDS.search(block.needs)
    commands = block.commands()
    assert commands
    for words in commands:
        rule = RULES.get(program(words))
        assert rule or block.needs, f"no rule covers {shlex.join(words)}"
        if rule:
            rule(words)


def commands_in_sentences():
    """List the commands of make, Snakemake and benchmarks that sentences name."""
    found = {span for page in PAGES for span in spans(page)}
    starts = ("make ", "snakemake ", "python -m ", "benchmarks/")
    return sorted(span for span in found if span.startswith(starts) and span != "benchmarks/")


@pytest.mark.parametrize("span", [s for s in commands_in_sentences() if s[0] != "s"])
def test_a_command_in_a_sentence_works(span):
    words = shlex.split(span)
    if words[0].startswith("benchmarks/"):
        words.insert(0, "python")
        assert (ROOT / words[1]).is_file()
    if words[:2] == ["python", "-m"] and len(words) == 3:
        assert importlib.util.find_spec(words[2])
    elif len(words) > 2 or words[0] != "python":
        RULES[program(words)](words)


def snakemake_commands():
    """List the different command lines of Snakemake in blocks and sentences."""
    commands = [words for block in in_language("bash") for words in block.commands()]
    commands += [
        shlex.split(span.replace("<data set>", "kvasir"))
        for span in commands_in_sentences()
        if span.startswith("snakemake ")
    ]
    # What a container or srun runs counts, too.
    commands = [words[words.index("snakemake") + 1 :] for words in commands if "snakemake" in words]
    return sorted({tuple(word for word in words if word != "-n") for words in commands})


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone with the shipped configuration, names of raw files, and the example of own data."""
    workspace = Workspace(tmp_path_factory.mktemp("clone"), shipped_config())
    for name in RAW_FILES:
        path = workspace.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\n")
    (example,) = (
        block.text for block in in_language("yaml")
        if block.place.startswith("docs/own_data") and block.text.startswith("datasets:")
    )  # fmt: skip
    (workspace.folder / "mine.yaml").write_text(example)
    return workspace


def test_snakemake_plans_every_command(clone):
    commands = snakemake_commands()
    assert ("mine", "--configfile", "mine.yaml") in commands
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["snakemake.cli"])
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as processes:
        for words in commands:
            if words == ("--unlock",):
                continue
            # The plan of a dry run ends with the number of jobs.
            plan = processes.submit(dry_run, clone.folder, words).result()
            assert re.search(r"^total +\d+|Nothing to be done", plan, re.M), (words, plan)


# YAML


MINE = {
    "title": "Ours",
    "root": "data/mine",
    "fixations": "data/mine/fixations.csv",
    "prepare": {"layout": "folder", "split": "drawn"},
}


@pytest.mark.parametrize("block", in_language("yaml"), ids=lambda block: block.place)
def test_a_fragment_fits_config_yaml(block):
    """The first line says where the lines go; without it they are at the top of the file."""
    from snakemake.utils import update_config

    from stages.core.config import parse

    fragment = yaml.safe_load(block.text)
    if place := re.match(r"# ([a-z_]+(?:\.[a-z_]+)+)\n", block.text):
        for key in reversed(place[1].split(".")):
            fragment = {key: fragment}
    raw = shipped_config()
    raw["datasets"]["mine"] = copy.deepcopy(MINE)
    update_config(raw, fragment)
    config = parse(raw)
    for name in fragment.get("datasets", {}):
        config.dataset(name)


# Python and Snakemake


@pytest.mark.parametrize("block", in_language("python"), ids=lambda block: block.place)
def test_the_imports_of_an_example_exist(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def examples(page):
    blocks = [block for block in in_language("python") if block.place.startswith(page)]
    return [compile(block.text, block.place, "exec") for block in blocks]


def test_the_examples_that_segment_an_image_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/kvasir/full/seed0"
    folder.mkdir(parents=True)
    architecture = models.Architecture(
        role="student", channels=3, size=(32, 48), widths=(8,) * 6, head_width=8
    )
    models.save(models.build(architecture, seed=0), folder / "student.safetensors", {})
    Image.new("RGB", (60, 40), (90, 60, 50)).save("frame.png")
    in_python, in_onnxruntime = examples("docs/segment.md")
    names = {}
    exec(in_python, names)
    assert isinstance(names["student"], models.Student)
    assert names["mask"].shape == (40, 60)
    assert torch.as_tensor(names["probability"]).isfinite().all()
    export(folder / "student.safetensors", Path("exported"))
    # A constant image would divide rounding errors by nearly 0.
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save("frame.png")
    exec(in_onnxruntime, names)
    expected = names["segment"](names["student"], noise)
    assert names["probability"][0] == pytest.approx(expected, abs=1e-3)


def test_the_example_of_a_layout_lists_images(tmp_path):
    for name in ("frames/b.jpg", "frames/a.jpg", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = {}
    (layout,) = examples("docs/extending.md")
    exec(layout, names)
    records = names["list_records"](tmp_path, [])
    assert [(r.sample_id, r.mask and r.mask.name) for r in records] == [
        ("a", "a.png"), ("b", None),
    ]  # fmt: skip


@pytest.mark.parametrize("block", in_language("snakemake"), ids=lambda block: block.place)
def test_the_example_of_a_module_is_the_one_that_is_tested(block):
    tested = SNAKEFILE.format(how="as gaze_*").replace("../pipeline/", "<clone>/")
    assert block.text.strip() in tested
