"""Reports, and the jobs whose provenance they show."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from rules.gaze import feature_encoders
from rules.paths import Training, dataset_files, encoder_key, training_files
from rules.training import (
    datasets_with_gaze,
    reads_text,
    table_trainings,
    training_encoders,
    trainings,
)
from stages.core.config import Config
from stages.settings.report import (
    ReportDataset,
    ReportHistory,
    ReportSettings,
    ReportTable,
    ReportTraining,
    TabulateSettings,
)


class Job(NamedTuple):
    """A job that made results: the name of its rule, and the values of its wildcards."""

    rule: str
    wildcards: dict[str, Any]


def _trained_networks(config: Config, chosen: Sequence[Training]) -> list[tuple[Training, str]]:
    """List each training with each network that it trains."""
    return [
        (training, network)
        for training in chosen
        for network in ("teacher", "student")
        if network == "student"
        or config.experiment(training.dataset, training.experiment).student.needs_teacher
    ]


def _report_datasets(config: Config, datasets: Sequence[str]) -> list[ReportDataset]:
    return [
        ReportDataset(name=name, title=dataset.title, note=dataset.note)
        for name, dataset in ((name, config.dataset(name)) for name in datasets)
    ]


def _shown_tables(config: Config, datasets: Sequence[str]) -> list[tuple[str, str]]:
    """List each data set with each comparison that its report shows."""
    return [(dataset, table) for dataset in datasets for table in config.dataset(dataset).tables]


def report_inputs(config: Config, datasets: Sequence[str]) -> dict[str, list[str]]:
    """Name the files that a report shows: pictures of the first seed, curves of every seed."""
    shown = trainings(config, datasets, config.seeds[:1])
    every = trainings(config, datasets, config.seeds)
    return {
        "prepared": dataset_files("prepared.h5", datasets),
        "gaze": dataset_files("gaze.h5", datasets),
        "quality": dataset_files("gaze_quality.csv", datasets),
        "explanations": dataset_files("explanations.h5", datasets),
        "predictions": training_files("predictions.h5", shown),
        "metrics": training_files("metrics.csv", shown),
        "histories": [
            file
            for training, network in _trained_networks(config, every)
            for file in training_files(f"{network}_history.csv", [training])
        ],
        "tables": [
            f"results/{dataset}/{table}.csv" for dataset, table in _shown_tables(config, datasets)
        ],
    }


def report_settings(config: Config, datasets: Sequence[str]) -> str:
    """Describe the files of `report_inputs`, in their order."""
    shown = trainings(config, datasets, config.seeds[:1])
    every = trainings(config, datasets, config.seeds)
    return ReportSettings(
        datasets=_report_datasets(config, datasets),
        trainings=[ReportTraining(**training._asdict()) for training in shown],
        histories=[
            ReportHistory(**training._asdict(), network=network)
            for training, network in _trained_networks(config, every)
        ],
        tables=[
            ReportTable(dataset=dataset, name=table)
            for dataset, table in _shown_tables(config, datasets)
        ],
    ).model_dump_json()


def tabulate_settings(config: Config, table: str) -> str:
    """Say what the page of a table shows besides its numbers."""
    datasets = _report_datasets(config, config.summary)
    return TabulateSettings(table=table, datasets=datasets).model_dump_json()


def _text_jobs(config: Config, dataset: str) -> list[Job]:
    """List the jobs from gaze to embedded text."""
    shards = config.dataset(dataset).explain.shards
    explained = [
        Job("explain", {"dataset": dataset, "shard": shard, "shards": shards})
        for shard in range(shards)
    ]
    return explained + [Job(rule, {"dataset": dataset}) for rule in ("texts", "embed")]


def _training_jobs(config: Config, training: Training) -> list[Job]:
    """List the jobs of a training, from its networks to its metrics."""
    student = config.experiment(training.dataset, training.experiment).student
    rules = ["teacher"] if student.needs_teacher else []
    rules += ["pseudolabels"] if student.reads_pseudolabels else []
    return [Job(rule, training._asdict()) for rule in (*rules, "student", "predict", "evaluate")]


def jobs_behind(config: Config, chosen: Sequence[Training], *, shown: bool) -> list[Job]:
    """List the jobs that made the results of trainings.

    Parameters
    ----------
    shown
        Also those of gaze, quality and texts that no training reads, for a report shows them.
    """
    jobs: list[Job] = []
    for dataset in dict.fromkeys(training.dataset for training in chosen):
        own = [training for training in chosen if training.dataset == dataset]
        rules = ["prepare"]
        if shown or datasets_with_gaze(config, own):
            rules.append("pseudomasks")
        if shown or config.dataset(dataset).quality.leave_out:
            rules.append("quality")
        jobs += [Job(rule, {"dataset": dataset}) for rule in rules]
        if shown or any(reads_text(config, t.dataset, t.experiment) for t in own):
            jobs += _text_jobs(config, dataset)
        names = [training_encoders(config, t.dataset, t.experiment) for t in own]
        if "pseudomasks" in rules:
            names.append([encoder_key(e) for e in feature_encoders(config, dataset)])
        for name in dict.fromkeys(chain.from_iterable(names)):
            if (job := Job("encoder", {"encoder": name})) not in jobs:
                jobs.append(job)
        jobs += [job for training in own for job in _training_jobs(config, training)]
    return jobs


def _report_jobs(config: Config, datasets: Sequence[str]) -> list[Job]:
    """List the jobs behind the sections of a report."""
    tables = _shown_tables(config, datasets)
    chosen = trainings(config, datasets, config.seeds)
    compared = [table_trainings(config, table, [dataset]) for dataset, table in tables]
    chosen = list(dict.fromkeys([*chosen, *chain.from_iterable(compared)]))
    return [
        *jobs_behind(config, chosen, shown=True),
        *(Job("compare", {"dataset": dataset, "table": table}) for dataset, table in tables),
    ]


def dataset_report_jobs(config: Config, dataset: str) -> list[Job]:
    """List the jobs behind the report on one data set."""
    return [*_report_jobs(config, [dataset]), Job("summarise", {"dataset": dataset})]


def joint_report_jobs(config: Config) -> list[Job]:
    """List the jobs behind the report on all data sets of `summary`."""
    return [*_report_jobs(config, config.summary), Job("summarise_together", {})]


def table_jobs(config: Config, table: str) -> list[Job]:
    """List the jobs behind the page of a table."""
    chosen = table_trainings(config, table, config.summary)
    return [
        *jobs_behind(config, chosen, shown=False),
        *(Job("compare", {"dataset": name, "table": table}) for name in config.summary),
        Job("compare_together", {"table": table}),
    ]
