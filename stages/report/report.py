"""All results of the named data sets → report.html: tables, curves and overlays on one page."""

import json
from pathlib import Path
from typing import Any, cast

import pandas as pd

from stages.core import cli, io
from stages.evaluation.summarise import COLUMNS
from stages.report import charts
from stages.report.page import MISSING, Page, Picture, notes, number, render, spread
from stages.report.provenance_table import describe
from stages.report.sections import Trained, section
from stages.settings.report import ReportDataset, ReportSettings

_TEXT = ("dataset", "experiment", "model", "split", "unit", "gaze")


def _check(settings: ReportSettings, counts: dict[str, tuple[int, int]]) -> None:
    """Stop where files and settings do not belong together.

    `counts` holds option → (number of files, number of settings' entries).
    """

    def stop(field: str, found: object, expected: object, mend: str) -> None:
        raise cli.BadInput("--settings", field, found=found, expected=expected, mend=mend)

    for option, (files, entries) in counts.items():
        if files != entries:
            stop(option, f"{entries} entries", f"{files}, one per file of --{option}",
                 "list in the settings what each file is, in the order of the files")  # fmt: skip
    names = [dataset.name for dataset in settings.datasets]
    if len(set(names)) < len(names):
        stop("datasets", names, "each data set once", "delete one of the two")
    for field in ("trainings", "histories"):
        for entry in getattr(settings, field):
            if entry.dataset not in names:
                stop(field, entry.dataset, f"one of {names}", "add the data set and its files")


def _read_summary(file: Path, datasets: tuple[ReportDataset, ...]) -> pd.DataFrame:
    numbers = tuple(name for name in COLUMNS if name not in _TEXT)
    summary = io.read_csv(file, _TEXT, numbers)
    names = [dataset.name for dataset in datasets]
    if unknown := sorted(set(summary["dataset"]) - set(names)):
        raise cli.BadInput(
            file,
            "column dataset",
            found=unknown,
            expected=f"of {names}",
            mend="name all its data sets in the settings, with their files",
        )
    return summary


def _scores(row: dict[str, Any]) -> list[str]:
    """Dice, IoU, HD95 and ASD of a summary row, as they read."""
    unit = row["unit"]
    return [
        spread(row["dice_mean"], row["dice_std"], (3, 2)),
        spread(row["iou_mean"], row["iou_std"], (3, 2)),
        spread(row["hd95_mean"], row["hd95_std"], (1, 1), unit),
        spread(row["asd_mean"], row["asd_std"], (2, 2), unit),
    ]


def _rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], summary.to_dict("records"))


def headline(summary: pd.DataFrame) -> list[list[str]]:
    """Cells of one data set's student on test images, one row per experiment."""
    found = summary[(summary["model"] == "student") & (summary["split"] == "test")]
    cells = {
        row["experiment"]: [
            row["experiment"],
            *_scores(row),
            number(row["n"]),
            number(row["undefined"]),
            number(row["annotation_seconds_per_image"], 1),
            row["gaze"] or MISSING,
        ]
        for row in _rows(found)
    }
    return [cells.get(name, [name, *[MISSING] * 8]) for name in summary["experiment"].unique()]


def full_table(summary: pd.DataFrame, titles: dict[str, str]) -> list[list[str]]:
    """Cells of every row of the summary."""
    return [
        [
            titles[row["dataset"]],
            row["experiment"],
            row["model"],
            row["split"],
            number(row["seeds"]),
            number(row["n"]),
            *_scores(row),
            number(row["undefined"]),
            number(row["hd95_penalised"], 1, row["unit"]),
            spread(row["dice_patient_mean"], row["dice_patient_std"], (3, 2)),
            number(row["annotation_seconds_per_image"], 1),
            row["gaze"] or MISSING,
        ]
        for row in _rows(summary)
    ]


def _chart(summary: pd.DataFrame, titles: dict[str, str], experiments: list[str]) -> Picture | None:
    shown = summary[(summary["model"] == "student") & (summary["split"] == "test")]
    shown = shown[shown["dice_mean"].notna()]
    names = [name for name in titles if name in set(shown["dataset"])]
    if not names:
        return None
    mean, std = (
        shown.pivot(index="dataset", columns="experiment", values=column)
        .reindex(index=names, columns=experiments)
        .to_numpy(float)
        for column in ("dice_mean", "dice_std")
    )
    png = charts.dice_chart(mean, std, [titles[name] for name in names], experiments)
    return Picture(png, "Dice of the student on test images per data set and experiment")


def _name_inputs(
    summary: Path,
    per_dataset: dict[str, list[Path]],
    per_training: dict[str, list[Path]],
    histories: list[Path],
    settings: ReportSettings,
) -> dict[str, Path]:
    """Role → file, so that the page tells which file had which content."""
    named = {"summary": summary}
    for role, files in per_dataset.items():
        for dataset, file in zip(settings.datasets, files, strict=True):
            named[f"{dataset.name} {role}"] = file
    for role, files in per_training.items():
        for t, file in zip(settings.trainings, files, strict=True):
            named[f"{t.dataset} {t.experiment} seed{t.seed} {role}"] = file
    for h, file in zip(settings.histories, histories, strict=True):
        named[f"{h.dataset} {h.experiment} seed{h.seed} {h.network}_history"] = file
    return named


def report(
    summary: Path,
    provenance: Path,
    prepared: list[Path],
    gaze: list[Path],
    quality: list[Path],
    explanations: list[Path],
    predictions: list[Path],
    metrics: list[Path],
    histories: list[Path],
    output: Path,
    settings: ReportSettings,
) -> None:
    """Write one HTML page that holds its pictures and asks for nothing else.

    The summary's tables and a chart; then per data set its numbers, three training images from
    gaze to pseudomask, the quality of the gaze (`quality`: each gaze_quality.csv), three test
    images with the predictions, the training curves and, where it was written, the attention to the
    text; last, how each result came to be. The same files give the same bytes.
    """
    per_dataset = {
        "prepared": prepared,
        "gaze": gaze,
        "quality": quality,
        "explanations": explanations,
    }
    per_training = {"predictions": predictions, "metrics": metrics}
    _check(
        settings,
        {role: (len(files), len(settings.datasets)) for role, files in per_dataset.items()}
        | {role: (len(files), len(settings.trainings)) for role, files in per_training.items()}
        | {"histories": (len(histories), len(settings.histories))},
    )
    table = _read_summary(summary, settings.datasets)
    titles = {dataset.name: dataset.title for dataset in settings.datasets}
    # One order for the whole page: an experiment's colour is its place in it.
    named = (*table["experiment"], *(t.experiment for t in settings.trainings + settings.histories))
    experiments = list(dict.fromkeys(named))

    sections = []
    files = list(zip(*per_dataset.values(), strict=True))
    for dataset, own in cli.progress(zip(settings.datasets, files), "report", len(files)):
        trainings = [
            Trained(*entry)
            for entry in zip(settings.trainings, predictions, metrics, strict=True)
            if entry[0].dataset == dataset.name
        ]
        curves = [
            entry
            for entry in zip(settings.histories, histories, strict=True)
            if entry[0].dataset == dataset.name
        ]
        sections.append(section(dataset, own, trainings, curves, experiments))

    simulated = [found.title for found in sections if found.simulated]
    inputs = _name_inputs(summary, per_dataset, per_training, histories, settings)
    made = io.provenance("report", inputs, settings)
    page = Page(
        headline=[
            (title, rows)
            for name, title in titles.items()
            if (rows := headline(table[table["dataset"] == name]))
        ],
        notes=notes(settings.datasets),
        chart=_chart(table, titles, experiments),
        simulated=", ".join(simulated),
        full=full_table(table, titles),
        sections=sections,
        provenance=describe(provenance),
        versions=json.loads(str(made["versions"])),
        inputs=json.loads(str(made["inputs"])),
        settings=json.dumps(json.loads(str(made["params"])), indent=1, ensure_ascii=False),
    )
    with io.atomic(output) as temporary:
        temporary.write_text(render(page), "utf-8", newline="\n")


if __name__ == "__main__":
    cli.run(report)
