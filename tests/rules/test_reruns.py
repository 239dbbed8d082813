"""The jobs that rerun after an edit; the expected jobs are written by hand."""

import copy
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
from conftest import write_kvasir

from tests.workspace import Workspace, dry_run, own_data_settings, tiny_config

TARGETS = ("demo", "demo_isic", "comparison", "export_published_demo_isic")
SEEDS = (0, 1)


def small_config() -> dict[str, Any]:
    """Return a config with own frames, their gaze and texts, and a phantom with simulated gaze."""
    config = tiny_config()
    isic = config["datasets"]["demo_isic"] | {"experiments": ["supervised"], "mask_seconds": 30}
    isic["demo"] |= {"train": 8, "test": 6}
    mine = own_data_settings(
        config, "data/mine", threads=1, experiments=["full", "gaze_only"],
        explain={"backend": "import", "source": "data/texts.csv"},
    )  # fmt: skip
    return config | {
        "seeds": list(SEEDS),
        "summary": ["mine"],
        "datasets": {"mine": mine, "demo_isic": isic},
        "tables": {"comparison": {"reference": "full", "experiments": ["gaze_only"]}},
    }


def each(rule: str, training: str, seeds: tuple[int, ...] = SEEDS) -> set[str]:
    return {f"{rule} {training}/{seed}" for seed in seeds}


# Each set has a job and all jobs that depend on it, from the end of the chain to its start.
COMPARISON = {
    "compare mine comparison", "compare_together comparison", "tabulate comparison",
    "provenance_table comparison",
}  # fmt: skip
MINE_REPORT = {"provenance_together", "report_together"}
ISIC_REPORT = {"provenance demo_isic", "report demo_isic"}
MINE_SUMMARY = {"summarise_together"} | MINE_REPORT | COMPARISON
ISIC_SUMMARY = {"summarise demo_isic"} | ISIC_REPORT
FULL_PREDICTIONS = each("predict", "mine/full") | each("evaluate", "mine/full") | MINE_SUMMARY
FULL_STUDENT = each("student", "mine/full") | FULL_PREDICTIONS
FULL_PSEUDOLABELS = each("pseudolabels", "mine/full") | FULL_STUDENT
FULL = each("teacher", "mine/full") | FULL_PSEUDOLABELS
GAZE_ONLY = {
    job for rule in ("student", "predict", "evaluate") for job in each(rule, "mine/gaze_only")
} | MINE_SUMMARY
SUPERVISED = {
    job for rule in ("student", "predict", "evaluate") for job in each(rule, "demo_isic/supervised")
} | ISIC_SUMMARY
STUDENTS = FULL_STUDENT | GAZE_ONLY | SUPERVISED

MINE_EMBED = {"embed mine"} | FULL
MINE_TEXTS = {"texts mine"} | MINE_EMBED
MINE_EXPLAIN = {"explain mine"} | MINE_TEXTS
MINE_GAZE = {"pseudomasks mine", "quality mine"} | MINE_EXPLAIN | GAZE_ONLY
MINE_PREPARE = {"prepare mine"} | MINE_GAZE
MINE_RAW = {"verify mine"} | MINE_PREPARE
# The supervised student reads neither text nor gaze, but the report and the export contain them.
ISIC_EMBED = {"embed demo_isic", "export_published demo_isic"} | ISIC_REPORT
ISIC_EXPLAIN = {"explain demo_isic", "texts demo_isic"} | ISIC_EMBED
ISIC_GAZE = {"pseudomasks demo_isic", "quality demo_isic"} | ISIC_EXPLAIN
ISIC_PREPARE = {"prepare demo_isic"} | ISIC_GAZE | SUPERVISED
ISIC_RAW = {"verify demo_isic"} | ISIC_PREPARE
ISIC_PHANTOMS = {"demo_data isic"} | ISIC_RAW
ALL = MINE_RAW | ISIC_PHANTOMS
# A third seed, or a third experiment on the own data, adds only its own trainings. If it learns
# from masks, verify also checks that there are any.
THIRD_SEED = {
    f"{rule} {training}/2"
    for rules, training in (
        (("teacher", "pseudolabels"), "mine/full"),
        *((("student", "predict", "evaluate"), training)
          for training in ("mine/full", "mine/gaze_only", "demo_isic/supervised")),
    )
    for rule in rules
}  # fmt: skip
THIRD_EXPERIMENT = {"verify mine"} | {
    job for rule in ("student", "predict", "evaluate") for job in each(rule, "mine/supervised")
}

Edit = Callable[[Workspace], Any]


def setting(path: str, value: Any) -> Edit:
    """Return an edit that sets a key of config.yaml; the context undoes it at its end."""

    @contextmanager
    def edit(workspace: Workspace) -> Iterator[None]:
        before = copy.deepcopy(workspace.config)
        *parents, key = path.split(".")
        part = workspace.config
        for name in parents:
            part = part.setdefault(name, {})
        part[key] = value
        workspace.save_config()
        yield
        workspace.config = before
        workspace.save_config()

    return edit


def file(path: str, change: Callable[[bytes], bytes | None], add: bool = False) -> Edit:
    """Return an edit that replaces a file's content by `change(content)`; None deletes the file."""

    @contextmanager
    def edit(workspace: Workspace) -> Iterator[None]:
        where = workspace.folder / path
        before = (b"", None) if add else (where.read_bytes(), where.stat())
        assert where.exists() != add
        content = change(before[0])
        where.unlink() if content is None else where.write_bytes(content)
        yield
        if add:
            where.unlink()
        else:
            where.write_bytes(before[0])
            os.utime(where, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))

    return edit


def touched(path: str) -> Edit:
    return file(path, lambda content: content)


def replaced(path: str, old: str, new: str) -> Edit:
    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return file(path, change)


def code(module: str, added: str = "\nEXTRA = 1\n") -> Edit:
    return file(f"stages/{module}.py", lambda content: content + added.encode())


class Case(NamedTuple):
    edit: Edit
    jobs: set[str]


CASES = {
    # Settings of the whole run,
    "another seed": Case(setting("seeds", [0, 1, 2]), THIRD_SEED | MINE_SUMMARY | ISIC_SUMMARY),
    "another experiment": Case(
        setting("datasets.mine.experiments", ["full", "gaze_only", "supervised"]),
        THIRD_EXPERIMENT | {"summarise_together"} | MINE_REPORT,
    ),
    "one experiment fewer": Case(
        setting("datasets.mine.experiments", ["full"]), {"summarise_together"} | MINE_REPORT
    ),
    "an experiment that is not run": Case(setting("experiments.mine", {}), set()),
    "a table's seed": Case(setting("tables.comparison.seed", 1), COMPARISON),
    "a title": Case(
        setting("datasets.mine.title", "Others'"), {"report_together", "tabulate comparison"}
    ),
    "a note": Case(setting("datasets.demo_isic.note", "Phantoms."), {"report demo_isic"}),
    "seconds per mask": Case(setting("datasets.demo_isic.mask_seconds", 20), ISIC_SUMMARY),
    "seconds per mask, without supervised training": Case(
        setting("datasets.mine.mask_seconds", 20), set()
    ),
    "threads": Case(setting("datasets.mine.threads", 2), set()),
    "GPUs": Case(setting("datasets.mine.gpus", 1), set()),
    "memory for the data": Case(setting("datasets.mine.resident_mb", 0), set()),
    # of the raw data,
    "phantoms' seed": Case(setting("datasets.demo_isic.demo.seed", 1), ISIC_PHANTOMS),
    "size": Case(setting("datasets.mine.prepare.size", [48, 48]), MINE_RAW),
    "seed of the splits": Case(setting("datasets.demo_isic.prepare.split_seed", 1), ISIC_RAW),
    "test fraction, with split files": Case(
        setting("datasets.mine.prepare.test_fraction", 0.3), set()
    ),
    # of the gaze,
    "blur": Case(setting("datasets.mine.gaze.sigma", 60), MINE_GAZE),
    "thresholds": Case(setting("datasets.demo_isic.gaze.thresholds", [0.6, 0.3]), ISIC_GAZE),
    "CRF of the gaze": Case(setting("defaults.gaze.crf.compat", 2), MINE_GAZE | ISIC_GAZE),
    "shortest fixation": Case(
        setting("defaults.gaze.min_fixation_ms", 60), {"verify mine"} | MINE_GAZE | ISIC_GAZE
    ),
    "allowed share off the image": Case(
        setting("defaults.gaze.recording.max_off_image", 0.6), {"verify mine"} | MINE_GAZE
    ),
    "images without gaze allowed": Case(
        setting("datasets.mine.gaze.partial", True), {"verify mine"} | MINE_GAZE
    ),
    "levels by area": Case(setting("defaults.gaze.levels", "area"), MINE_GAZE | ISIC_GAZE),
    "gaze not recorded": Case(setting("datasets.mine.gaze.recorded", False), MINE_GAZE),
    "seed of simulated gaze": Case(setting("defaults.gaze.seed", 1), ISIC_GAZE),
    "jitter of simulated gaze": Case(
        setting("datasets.demo_isic.gaze.simulate", {"jitter": 0.02}), ISIC_GAZE
    ),
    "a limit of quality": Case(
        setting("datasets.mine.quality.min_dwell_ms", 400), {"quality mine"} | MINE_REPORT
    ),
    "flagged samples left out": Case(
        setting("datasets.mine.quality.leave_out", True),
        {"quality mine"} | FULL | GAZE_ONLY,
    ),
    # of the explanations,
    "failures allowed": Case(setting("datasets.mine.explain.max_failed", 0.5), MINE_TEXTS),
    "shards of explanations": Case(
        setting("datasets.mine.explain.shards", 2),
        {"explain mine 0of2", "explain mine 1of2"} | MINE_TEXTS,
    ),
    "parallel requests": Case(setting("defaults.endpoint.concurrency", 9), set()),
    "a model's seed, without a model": Case(setting("defaults.explain.seed", 1), set()),
    "vectors": Case(setting("datasets.mine.embed.tokens", "one"), MINE_EMBED),
    "sentences per batch": Case(
        setting("defaults.embed.batch_size", 3), MINE_EMBED | ISIC_EMBED
    ),
    "pooling of another encoder": Case(setting("defaults.embed.pooling", "first"), set()),
    # of the trainings,
    "teacher's background": Case(setting("defaults.teacher.background", 0.2), FULL),
    "momentum, without SGD": Case(setting("defaults.teacher.momentum", 0.8), set()),
    "weight of a term": Case(setting("defaults.student.afc_weight", 0.2), FULL_STUDENT),
    "weight of a term, of one experiment": Case(
        setting("experiments.gaze_only.student.cwc_weight", 2), set()
    ),
    "CRF of the pseudolabels": Case(
        setting("defaults.student.target_crf.sxy", 9), FULL_PSEUDOLABELS
    ),
    "weight of the gaze in the pseudolabels": Case(
        setting("defaults.student.target_gaze", 0.3), FULL_PSEUDOLABELS
    ),
    "no CRF of the pseudolabels": Case(setting("defaults.student.target_crf", None), FULL_STUDENT),
    "the teacher's augmentation": Case(setting("defaults.teacher.augment.scale", 0.2), FULL),
    "the students' augmentation": Case(setting("defaults.student.augment.flips", False), STUDENTS),
    "learning rate": Case(setting("defaults.student.learning_rate", 0.02), STUDENTS),
    "length of one data set's trainings": Case(
        setting("datasets.mine.student.iterations", 5), FULL_STUDENT | GAZE_ONLY
    ),
    "levels": Case(setting("defaults.student.levels", 2), FULL_STUDENT | GAZE_ONLY),
    "attention": Case(setting("datasets.mine.predict.attention", True), FULL_PREDICTIONS),
    # Code that many stages share,
    "io": Case(code("core/io"), ALL),
    "cli": Case(code("core/cli"), ALL),
    "resize": Case(code("core/resize"), ALL - {"demo_data isic"}),
    "splits": Case(code("data/splits"), MINE_RAW | ISIC_RAW),
    "crf": Case(code("gaze/crf"), MINE_GAZE | ISIC_GAZE),
    "losses": Case(code("training/losses"), FULL | GAZE_ONLY | SUPERVISED),
    "train": Case(code("training/loop"), FULL | GAZE_ONLY | SUPERVISED),
    "metrics": Case(
        code("core/metrics"),
        {"quality mine", "quality demo_isic"}
        | each("evaluate", "mine/full") | each("evaluate", "mine/gaze_only")
        | each("evaluate", "demo_isic/supervised") | MINE_SUMMARY | ISIC_SUMMARY,
    ),
    "figures": Case(
        code("report/figures"), {"report_together", "report demo_isic", "tabulate comparison"}
    ),
    # code of one stage or choice,
    "a layout": Case(code("data/datasets/kvasir"), MINE_RAW),
    "a layout of other data": Case(code("data/datasets/dicom"), set()),
    "the reader of the recording": Case(
        code("gaze/recordings/fixations"), {"verify mine"} | MINE_GAZE
    ),
    "readers of other recordings": Case(code("gaze/recordings/tobii"), set()),
    "the scan model": Case(code("gaze/scanpath"), ISIC_PHANTOMS),
    "heatmaps": Case(code("gaze/heatmap"), MINE_GAZE | ISIC_GAZE),
    "imported texts": Case(code("text/describers/imported"), MINE_EXPLAIN),
    "measured texts": Case(code("text/describers/measured"), ISIC_EXPLAIN),
    "marks of texts": Case(code("text/describers/claims"), MINE_EMBED | ISIC_EMBED),
    "an encoder": Case(code("text/encoders/minilm"), MINE_EMBED | ISIC_EMBED),
    "another encoder": Case(code("text/encoders/imported"), set()),
    "a method": Case(code("training/methods/distilled"), FULL_STUDENT),
    "a method of two experiments": Case(code("training/methods/single"), GAZE_ONLY | SUPERVISED),
    "augmentation": Case(code("training/augment"), FULL | GAZE_ONLY | SUPERVISED),
    "a part of a method": Case(code("training/masking"), FULL_STUDENT),
    "pseudolabels": Case(code("training/pseudolabels"), FULL_PSEUDOLABELS),
    "a section of the report": Case(
        code("report/gaze_quality"), {"report_together", "report demo_isic"}
    ),
    "statistics": Case(code("evaluation/statistics"), MINE_SUMMARY | ISIC_SUMMARY),
    "export": Case(code("published/export_published"), {"export_published demo_isic"}),
    # code of settings,
    "settings of gaze": Case(code("settings/gaze"), MINE_GAZE | ISIC_GAZE),
    "settings of trainings": Case(code("settings/training"), FULL | GAZE_ONLY | SUPERVISED),
    "settings of quality": Case(
        code("settings/quality"),
        {"quality mine", "quality demo_isic"} | MINE_REPORT | ISIC_REPORT,
    ),
    "parsing of settings": Case(code("core/config"), set()),
    # and edits of code that change no result.
    "a comment": Case(code("core/io", "\n# A comment is no change.\n"), set()),
    "a docstring": Case(
        replaced("stages/training/losses.py", '"""The losses of the', '"""Losses of the'), set()
    ),
    "layout of the code": Case(
        replaced("stages/core/metrics.py", "import numpy as np\n", "import  numpy  as  np\n\n"),
        set(),
    ),
    # Rules.
    "a command": Case(
        replaced("rules/evaluation.smk", "python -m stages.evaluation.evaluate",
                 "python -Bm stages.evaluation.evaluate"),
        each("evaluate", "mine/full") | each("evaluate", "mine/gaze_only")
        | each("evaluate", "demo_isic/supervised") | MINE_SUMMARY | ISIC_SUMMARY,
    ),
    "a comment on a rule": Case(
        replaced("rules/evaluation.smk", "rule evaluate:\n", "# Compared.\nrule evaluate:\n"), set()
    ),
    # Files.
    "an image, under the same name": Case(
        file("data/mine/images/frame 0.jpg", lambda content: content + b"\0"), MINE_RAW
    ),
    "a mask, under the same name": Case(
        file("data/mine/masks/frame 1.jpg", lambda content: content + b"\0"), MINE_RAW
    ),
    "one more image": Case(
        file("data/mine/images/frame 6.jpg", lambda _: b"image", add=True), MINE_RAW
    ),
    "one mask fewer": Case(file("data/mine/masks/frame 5.jpg", lambda _: None), MINE_RAW),
    "a hidden file": Case(
        file("data/mine/images/.DS_Store", lambda _: b"", add=True), set()
    ),
    "a split": Case(replaced("data/mine/train.txt", "frame 3\n", ""), MINE_RAW),
    "a new split file": Case(
        file("data/mine/val.txt", lambda _: b"frame 3\n", add=True), MINE_RAW
    ),
    "a split, touched": Case(touched("data/mine/train.txt"), set()),
    "fixations": Case(
        replaced("data/mine/fixations.csv", ",200,", ",210,"), {"verify mine"} | MINE_GAZE
    ),
    "fixations, touched": Case(touched("data/mine/fixations.csv"), set()),
    "a text": Case(replaced("data/texts.csv", "Polyp 1", "A polyp"), MINE_EXPLAIN),
    "texts, touched": Case(touched("data/texts.csv"), set()),
    "a result, touched": Case(touched("results/mine/gaze.h5"), set()),
    "a deleted result": Case(
        file("results/comparison.html", lambda _: None), {"tabulate comparison"}
    ),
    "a deleted intermediate file": Case(
        file("results/mine/full/seed1/metrics.csv", lambda _: None), set()
    ),
}  # fmt: skip


def job_names(printed: str) -> set[str]:
    """Return the name of each job of a dry run: its rule and the values of its wildcards."""
    jobs = re.findall(r"^rule (\w+):\n((?: .+\n)+)", printed, re.M)
    found = set()
    for rule, details in jobs:
        (wildcards,) = re.findall(r"wildcards: (.*)", details) or [""]
        values = dict(part.split("=") for part in wildcards.split(", ") if part)
        training = [values.pop(key) for key in ("dataset", "experiment", "seed") if key in values]
        shard = "of".join(values.pop(key) for key in ("shard", "shards") if key in values)
        name = " ".join(filter(None, [rule, "/".join(training), shard, *values.values()]))
        found.add(name.replace(" 0of1", ""))
    return found - set(TARGETS)


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The jobs of a dry run after each edit, and after all edits are undone."""
    folder = tmp_path_factory.mktemp("reruns")
    write_kvasir(folder / "first/data/mine")
    lines = [f"frame {i},Polyp {i}.\n" for i in range(4)]
    (folder / "first/data/texts.csv").write_text("sample_id,text\n" + "".join(lines))
    first = Workspace(folder / "first", small_config())
    first.must_run(*TARGETS)
    shutil.copytree(first.folder, folder / "second", symlinks=True)
    second = copy.deepcopy(first)
    second.folder = folder / "second"
    # Two at a time, each in its own folder. A dry run takes a second, and its imports another.
    free: SimpleQueue[Workspace] = SimpleQueue()
    for workspace in (first, second):
        free.put(workspace)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["snakemake.cli"])
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as processes:

        def plan(edit: Edit) -> set[str]:
            workspace = free.get()
            with edit(workspace):
                jobs = job_names(processes.submit(dry_run, workspace.folder, TARGETS).result())
            free.put(workspace)
            return jobs

        with ThreadPoolExecutor(2) as threads:
            found = dict(zip(CASES, threads.map(plan, (case.edit for case in CASES.values()))))
        undone = [
            job_names(processes.submit(dry_run, w.folder, TARGETS).result())
            for w in (first, second)
        ]
    return found, undone


def test_nothing_reruns_once_all_edits_are_undone(plans):
    assert plans[1] == [set(), set()]


@pytest.mark.parametrize("name", CASES)
def test_an_edit_reruns_exactly_what_depends_on_it(plans, name):
    assert plans[0][name] == CASES[name].jobs
