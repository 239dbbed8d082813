"""Run the workflow in a separate folder, with data and networks so small that it takes a minute."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DEMO_DATASETS = ("demo_kvasir", "demo_prostate", "demo_isic")


def shipped_config() -> dict[str, Any]:
    """Return the config.yaml of the repository, with aliases resolved."""
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def tiny_config() -> dict[str, Any]:
    """Return the shipped config with a tiny demo: 12 + 6 images of 32 × 32, four iterations."""
    config = shipped_config()
    config["datasets"].pop("lesions")  # the workflow would fetch it from the package index
    for name in DEMO_DATASETS:
        dataset = config["datasets"][name]
        dataset["demo"] |= {"train": 12, "test": 6}
        # With one half, training and validation get one each of the prostate's two training cases.
        dataset["prepare"] |= {"size": [32, 32], "val_fraction": 0.5}
        for network in ("teacher", "student"):
            dataset[network] = {
                "widths": [8] * 6, "head_width": 8, "batch_size": 2,
                "iterations": 4, "log_every": 2, "validate_every": 2,
            }  # fmt: skip
    return config


def own_data_settings(config: dict[str, Any], root: str, **changes: Any) -> dict[str, Any]:
    """Return settings for own data: the frames of the fixture `kvasir` in the folder `root`."""
    return {
        "title": "Ours",
        "root": root,
        "fixations": f"{root}/fixations.csv",
        "prepare": {"layout": "kvasir", "size": [32, 48], "val_fraction": 0.25},
        "student": config["datasets"]["demo_kvasir"]["student"],
        "teacher": config["datasets"]["demo_kvasir"]["teacher"],
        "gpus": 0,
    } | changes


class Workspace:
    """A clone with its own config; `workspace.run("demo")` runs `snakemake demo` in it."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        for name in ("workflow", "rules", "stages", "envs"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        self.save_config()

    def save_config(self) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    def start(
        self, *arguments: str, program: Sequence[str] = ("-m", "snakemake")
    ) -> subprocess.Popen[str]:
        """Start `snakemake` with these arguments, in a separate process group."""
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=self.folder,
            # The workspace has its own code and must not import that of the checkout.
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run `snakemake`; return the exit status and the output."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=600)
        return process.returncode, printed

    def must_run(self, *arguments: str) -> str:
        status, printed = self.run(*arguments)
        assert status == 0, printed
        return printed

    def job_counts(self, *targets: str) -> dict[str, int]:
        """Return the number of jobs of each rule in a dry run."""
        printed = self.must_run("-n", *targets, "--quiet", "rules")
        lines = (line.split() for line in printed.splitlines())
        counts = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
        return {rule: count for rule, count in counts.items() if rule != "total"}

    def planned_rules(self, *targets: str) -> set[str]:
        """Return the rules that a dry run would run."""
        return set(self.job_counts(*targets))


def dry_run(folder: Path, targets: tuple[str, ...]) -> str:
    """Return the output of `snakemake -n`, run in this process, which must not be used again."""
    from snakemake.cli import main

    log = folder / "plan.txt"
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.chdir(folder)
    try:
        main(["-n", *targets])
    except SystemExit as end:
        assert not end.code, log.read_text()
    return log.read_text()
