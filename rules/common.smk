"""Configuration, and the choice of files that several rules share."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).parent))

from stages.config import Config, ConfigError, parse
from stages.datasets import layouts
from stages.fingerprint import fingerprint

try:
    CONFIG: Config = parse(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    experiment="|".join(CONFIG.experiments),
    seed=r"\d+",


def generated(dataset):
    """Whether a rule of ours makes the raw data."""
    return dataset.demo is not None or dataset.prepare.layout == "lesions"


def raw_folder(wildcards):
    """The raw folder, complete; with one message on all that it lacks, otherwise."""
    dataset = CONFIG.dataset(wildcards.dataset)
    if not generated(dataset):
        fixations = Path(dataset.fixations) if dataset.fixations else None
        if lack := layouts.missing(
            dataset.prepare.layout, Path(dataset.root), fixations
        ):
            raise WorkflowError(f"data set {wildcards.dataset}: {lack}")
    return dataset.root


def fixation_source(wildcards):
    """The fixation table; in the demo the raw folder in which it is made; none if simulated."""
    dataset = CONFIG.dataset(wildcards.dataset)
    if dataset.fixations is None:
        return []
    return dataset.root if generated(dataset) else dataset.fixations


def student_inputs(wildcards):
    """Only what the experiment's student learns from."""
    student = CONFIG.experiment(wildcards.dataset, wildcards.experiment).student
    folder = f"results/{wildcards.dataset}"
    inputs = {"prepared": f"{folder}/prepared.h5"}
    if student.labels == "pseudomask":
        inputs["gaze"] = f"{folder}/gaze.h5"
    return inputs | teacher_inputs(wildcards)


def teacher_inputs(wildcards):
    """The teacher and its text, for an experiment that has one."""
    if not CONFIG.experiment(wildcards.dataset, wildcards.experiment).student.distil:
        return {}
    folder = f"results/{wildcards.dataset}"
    run = f"{folder}/{wildcards.experiment}/seed{wildcards.seed}"
    return {
        "explanations": f"{folder}/explanations.h5",
        "teacher": f"{run}/teacher.safetensors",
    }


def optional(name):
    """`--name FILE` for an input that only some experiments have."""
    return lambda wildcards, input: (
        f"--{name} {getattr(input, name)}" if name in input.keys() else ""
    )


def runs(*datasets):
    """(data set, experiment, seed) of every training that a summary is over."""
    return [
        (name, experiment, seed)
        for name in datasets
        for experiment in CONFIG.dataset(name).experiments
        for seed in CONFIG.seeds
    ]
