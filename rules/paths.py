"""Paths that the rules of several families share."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.core.contents import folder_digest
from stages.settings.parts import EncoderSettings


class PlanError(Exception):
    """The configuration cannot be run as it is; the message says how to mend it."""


class MissingInput(PlanError):
    """A file or folder that the configuration names is missing."""


class Training(NamedTuple):
    """One training of an experiment on a data set."""

    dataset: str
    experiment: str
    seed: int


def check_workflow_folder(*paths: Path) -> None:
    """Check the paths of the workflow's own folder, as it is named and as it is.

    Snakemake reads braces in a path as the name of a variable; PYTHONPATH ends a path at a colon.

    Raises
    ------
    PlanError
        A path has one of these characters.
    """
    for path in map(str, paths):
        if set(path) & set("{}:"):
            raise PlanError(
                f"the workflow is in {path!r}; allowed: a folder without {{, }} and : in its path. "
                "Rename or move it"
            )


def require_path(setting: str, path: str) -> str:
    """Return `path`, which `setting` names.

    Snakemake alone would not notice that it is missing once results exist.

    Raises
    ------
    MissingInput
        There is nothing at `path`.
    """
    if not Path(path).exists():
        raise MissingInput(f"{setting}: {path} does not exist: put it there, or mend the setting")
    return path


def folder_contents(paths: Iterable[str]) -> list[str]:
    """Digest the content of each path that is a folder; a folder's own time says too little."""
    return [folder_digest(Path(path)) for path in paths if Path(path).is_dir()]


def encoder_key(encoder: EncoderSettings) -> str:
    """Name an encoder's file: by its model, and by where its weights come from."""
    source = encoder.weights
    if encoder.file:
        source = hashlib.sha256(encoder.file.encode()).hexdigest()[:8]
    return f"{encoder.encoder}-{source}"


def encoder_inputs(encoder: EncoderSettings | None) -> dict[str, str]:
    """Name the file of an encoder, if there is one."""
    if encoder is None:
        return {}
    return {"encoder": f"results/encoders/{encoder_key(encoder)}.safetensors"}


def dataset_files(file: str, datasets: Iterable[str]) -> list[str]:
    """Name a file in the results of each data set."""
    return [f"results/{dataset}/{file}" for dataset in datasets]


def dataset_results(datasets: Iterable[str]) -> list[str]:
    """Name what a user looks at in the end, and the check of the raw data."""
    datasets = tuple(datasets)
    names = ("verified.csv", "summary.csv", "report.html")
    return [path for name in names for path in dataset_files(name, datasets)]


def training_files(file: str, trainings: Iterable[Training]) -> list[str]:
    """Name a file in the results of each training."""
    return [f"results/{t.dataset}/{t.experiment}/seed{t.seed}/{file}" for t in trainings]
