"""Trainings: which there are, and what each network learns from."""

from collections.abc import Iterable

from rules.gaze import quality_inputs
from rules.paths import PlanError, Training, encoder_inputs, encoder_key, require_path
from stages.core.config import Config
from stages.core.fingerprint import fingerprint
from stages.settings.modules import method_module
from stages.settings.parts import EncoderSettings


def training_gpus(config: Config, dataset: str, *, limit: int | None) -> int:
    """Count the GPUs of a training.

    Snakemake would lower them to the limit of the run, and a later run with another limit would
    then train everything anew.

    Raises
    ------
    PlanError
        A training asks for several GPUs, and for more than `limit`; None: there is no limit.
    """
    gpus = config.dataset(dataset).gpus
    if gpus > 1 and limit and limit < gpus:
        raise PlanError(
            f"a training asks for gpus: {gpus}, and this run has {limit}: run snakemake with"
            f" --resources gpu={gpus}, or lower `gpus`"
        )
    return gpus


def launch_command(gpus: int) -> str:
    """Start one process for each GPU, in place of the shell, which a signal would end."""
    if gpus > 1:
        return (
            "exec python -m torch.distributed.run --standalone"
            # Seconds that writing a checkpoint may take; SLURM has its own limit.
            f" --shutdown-timeout 600 --nproc-per-node {gpus} -m"
        )
    return "exec python -m"


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
    return config.experiment(dataset, experiment).student.pseudolabels.model_dump_json()


def pseudolabels_inputs(config: Config, dataset: str, experiment: str, seed: str) -> dict[str, str]:
    """Name the teacher, its explanations and, where they join in, the maps of the gaze."""
    inputs = teacher_inputs(config, dataset, experiment, seed)
    if config.experiment(dataset, experiment).student.target_gaze:
        inputs["gaze"] = f"results/{dataset}/gaze.h5"
    return inputs


def encoders(config: Config) -> dict[str, EncoderSettings]:
    """Name the file of every pretrained encoder that an experiment or the gaze may need."""
    networks = (
        network
        for dataset in config.datasets
        for experiment in config.experiments_of(dataset)
        for chosen in [config.experiment(dataset, experiment)]
        for network in (chosen.teacher, chosen.student)
    )
    features = (settings.gaze.features for settings in config.datasets.values())
    found = (part.pretrained for part in (*networks, *features) if part is not None)
    return {encoder_key(encoder): encoder for encoder in found if encoder is not None}


def training_encoders(config: Config, dataset: str, experiment: str) -> list[str]:
    """Name the encoder files that a training reads."""
    chosen = config.experiment(dataset, experiment)
    networks = [chosen.teacher] if chosen.student.needs_teacher else []
    found = (network.pretrained for network in [*networks, chosen.student])
    return [encoder_key(encoder) for encoder in found if encoder is not None]


def encoder_weights_inputs(config: Config, encoder: str) -> dict[str, str]:
    """Name the user's own file of weights, if an encoder has one.

    Raises
    ------
    MissingInput
        The file does not exist.
    """
    file = encoders(config)[encoder].file
    return {"weights": require_path("encoder_weights", file)} if file else {}


def teacher_network_inputs(config: Config, dataset: str, experiment: str) -> dict[str, str]:
    """Name the table of gaze quality, the explanations and the encoder, where they are read."""
    return (
        quality_inputs(config, dataset)
        | explanation_inputs(config, dataset, experiment)
        | encoder_inputs(config.experiment(dataset, experiment).teacher.pretrained)
    )


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
    inputs |= encoder_inputs(student.pretrained)
    return inputs | teacher_inputs(config, dataset, experiment, seed)


def student_settings(config: Config, dataset: str, experiment: str) -> str:
    """Give the student's settings, with the widths of a teacher that is trained with it."""
    chosen = config.experiment(dataset, experiment)
    student = chosen.student
    joint = student.trains_teacher_jointly and student.pretrained is None
    if joint and student.teacher_widths is None:
        student = student.model_copy(update={"teacher_widths": chosen.teacher.widths})
    return student.model_dump_json()


def student_code(config: Config, dataset: str, experiment: str) -> str:
    """Fingerprint the student's stage with the module of its method."""
    method = config.experiment(dataset, experiment).student.method
    return fingerprint("stages.training.student", method_module(method))
