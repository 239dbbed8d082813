"""Predictions, and the tables that sum up their metrics."""

from collections.abc import Sequence

from rules.paths import Training, dataset_files, training_files
from rules.training import (
    datasets_with_gaze,
    labels,
    reads_text,
    table_trainings,
    trainings,
)
from stages.core.config import Config
from stages.settings.evaluation import CompareSettings, SummariseSettings, TrainingRun


def predict_settings(config: Config, dataset: str, experiment: str) -> str:
    """Say what to predict; attention only of a trained teacher that reads text."""
    needs_teacher = config.experiment(dataset, experiment).student.needs_teacher
    predict = config.dataset(dataset).predict
    attention = predict.attention and needs_teacher and reads_text(config, dataset, experiment)
    return predict.model_copy(update={"attention": attention}).model_dump_json()


def metrics_inputs(config: Config, chosen: Sequence[Training]) -> dict[str, list[str]]:
    """Name the metrics of trainings, and the gaze that they learned from."""
    return {
        "metrics": training_files("metrics.csv", chosen),
        "gaze": dataset_files("gaze.h5", datasets_with_gaze(config, chosen)),
    }


def metrics_settings(config: Config, chosen: Sequence[Training]) -> SummariseSettings:
    """Describe the files of `metrics_inputs`, in their order."""

    def run(training: Training) -> TrainingRun:
        learned_from = labels(config, training.dataset, training.experiment)
        seconds = config.dataset(training.dataset).mask_seconds
        return TrainingRun(
            **training._asdict(),
            labels=learned_from,
            mask_seconds=seconds if learned_from == "mask" else None,
        )

    return SummariseSettings(
        runs=[run(training) for training in chosen], gaze=datasets_with_gaze(config, chosen)
    )


def summarise_inputs(config: Config, datasets: Sequence[str]) -> dict[str, list[str]]:
    """Name the metrics and gaze of all trainings of the data sets."""
    return metrics_inputs(config, trainings(config, datasets, config.seeds))


def summarise_settings(config: Config, datasets: Sequence[str]) -> str:
    """Describe the files of `summarise_inputs`."""
    return metrics_settings(config, trainings(config, datasets, config.seeds)).model_dump_json()


def compare_inputs(config: Config, table: str, datasets: Sequence[str]) -> dict[str, list[str]]:
    """Name the metrics and gaze of the trainings that a table compares."""
    return metrics_inputs(config, table_trainings(config, table, datasets))


def compare_settings(config: Config, table: str, datasets: Sequence[str]) -> str:
    """Describe the files of `compare_inputs`, and how to compare them."""
    chosen = config.tables[table]
    summarised = metrics_settings(config, table_trainings(config, table, datasets))
    return CompareSettings(
        **dict(summarised), reference=chosen.reference, seed=chosen.seed
    ).model_dump_json()
