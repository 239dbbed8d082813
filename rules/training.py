"""Trainings: which there are, and what each network learns from."""

from collections.abc import Iterable

from rules.gaze import quality_inputs
from rules.paths import Training
from stages.core.config import Config
from stages.core.fingerprint import fingerprint
from stages.settings.modules import method_module


def trainings(config: Config, datasets: Iterable[str], seeds: Iterable[int]) -> list[Training]:
    """List the trainings of every experiment of the data sets."""
    seeds = tuple(seeds)
    return [
        Training(dataset, experiment, seed)
        for dataset in datasets
        for experiment in config.dataset(dataset).experiments
        for seed in seeds
    ]


def table_trainings(config: Config, table: str, datasets: Iterable[str]) -> list[Training]:
    """List the trainings that a table compares on the data sets."""
    return [
        Training(dataset, experiment, seed)
        for dataset in datasets
        for experiment in config.tables[table].rows
        for seed in config.seeds
    ]


def labels(config: Config, dataset: str, experiment: str) -> str:
    """Say what the student of an experiment learns from: pseudomask or mask."""
    return config.experiment(dataset, experiment).student.labels


def reads_text(config: Config, dataset: str, experiment: str) -> bool:
    """Whether a teacher of the experiment reads the explanations."""
    chosen = config.experiment(dataset, experiment)
    trained_first = chosen.student.needs_teacher and chosen.teacher.text
    return trained_first or chosen.student.trains_teacher_jointly


def datasets_with_gaze(config: Config, chosen: Iterable[Training]) -> list[str]:
    """List, once each, the data sets on which any of the trainings learns from gaze."""
    return list(
        dict.fromkeys(
            training.dataset
            for training in chosen
            if labels(config, training.dataset, training.experiment) == "pseudomask"
        )
    )


def explanation_inputs(config: Config, dataset: str, experiment: str) -> dict[str, str]:
    """Name the explanations, if a teacher of the experiment reads them."""
    if not reads_text(config, dataset, experiment):
        return {}
    return {"explanations": f"results/{dataset}/explanations.h5"}


def teacher_inputs(config: Config, dataset: str, experiment: str, seed: str) -> dict[str, str]:
    """Name the trained teacher and its explanations, if the student learns from one."""
    if not config.experiment(dataset, experiment).student.needs_teacher:
        return {}
    teacher = f"results/{dataset}/{experiment}/seed{seed}/teacher.safetensors"
    return {"teacher": teacher} | explanation_inputs(config, dataset, experiment)


def teacher_settings(config: Config, dataset: str, experiment: str) -> str:
    return config.experiment(dataset, experiment).teacher.model_dump_json()


def pseudolabels_settings(config: Config, dataset: str, experiment: str) -> str:
    crf = config.experiment(dataset, experiment).student.target_crf
    assert crf is not None
    return crf.model_dump_json()


def student_inputs(config: Config, dataset: str, experiment: str, seed: str) -> dict[str, str]:
    """Name only what the experiment's student learns from."""
    student = config.experiment(dataset, experiment).student
    folder = f"results/{dataset}"
    inputs = {"prepared": f"{folder}/prepared.h5"}
    if student.labels == "pseudomask":
        inputs["gaze"] = f"{folder}/gaze.h5"
        inputs |= quality_inputs(config, dataset)
    if student.trains_teacher_jointly:
        inputs |= explanation_inputs(config, dataset, experiment)
    if student.reads_pseudolabels:
        inputs["pseudolabels"] = f"{folder}/{experiment}/seed{seed}/pseudolabels.h5"
    return inputs | teacher_inputs(config, dataset, experiment, seed)


def student_settings(config: Config, dataset: str, experiment: str) -> str:
    """Give the student's settings, with the widths of a teacher that is trained with it."""
    chosen = config.experiment(dataset, experiment)
    student = chosen.student
    if student.trains_teacher_jointly and student.teacher_widths is None:
        student = student.model_copy(update={"teacher_widths": chosen.teacher.widths})
    return student.model_dump_json()


def student_code(config: Config, dataset: str, experiment: str) -> str:
    """Fingerprint the student's stage with the module of its method."""
    method = config.experiment(dataset, experiment).student.method
    return fingerprint("stages.training.student", method_module(method))
