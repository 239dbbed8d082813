"""All results of the named data sets → report.html: tables, curves and overlays on one page."""

import json
import math
from pathlib import Path
from typing import Any, cast

import pandas as pd

from stages.core import cli, io
from stages.evaluation.summarise import COLUMNS
from stages.report import charts
from stages.report.comparison import make_comparison
from stages.report.page import (
    MISSING,
    Page,
    Picture,
    format_mean_std,
    format_number,
    group_notes,
    render_page,
)
from stages.report.provenance_table import provenance_table
from stages.report.sections import make_section
from stages.report.trainings import TrainingFiles
from stages.settings.report import ReportDataset, ReportSettings

# Published annotation times, seconds per image; the caption of the figure in page.py cites them.
_PUBLISHED_SECONDS = {
    "box, 4 clicks": 7.0, "gaze": 8.8, "point": 22.1, "box, scribble": 35.0, "mask": 74.8,
}  # fmt: skip
_TEXT_COLUMNS = ("dataset", "experiment", "model", "split", "unit", "gaze")


def _check_settings(settings: ReportSettings, counts: dict[str, tuple[int, int]]) -> None:
    """Raise if the settings do not describe the files.

    `counts` holds option → (number of files, number of entries in the settings).
    """

    def fail(field: str, found: object, expected: object, mend: str) -> None:
        raise cli.BadInput("--settings", field, found=found, expected=expected, mend=mend)

    for option, (files, entries) in counts.items():
        if files != entries:
            fail(option, f"{entries} entries", f"{files}, one per file of --{option}",
                 "add one entry per file to the settings, in the order of the files")  # fmt: skip
    names = [dataset.name for dataset in settings.datasets]
    if len(set(names)) < len(names):
        fail("datasets", names, "each data set once", "delete one of the two")
    for field in ("trainings", "histories", "tables"):
        for entry in getattr(settings, field):
            if entry.dataset not in names:
                fail(field, entry.dataset, f"one of {names}", "add the data set and its files")


def _read_summary(file: Path, datasets: tuple[ReportDataset, ...]) -> pd.DataFrame:
    numbers = tuple(name for name in COLUMNS if name not in _TEXT_COLUMNS)
    summary = io.read_csv(file, _TEXT_COLUMNS, numbers)
    names = [dataset.name for dataset in datasets]
    if unknown := sorted(set(summary["dataset"]) - set(names)):
        raise cli.BadInput(
            file,
            "column dataset",
            found=unknown,
            expected=f"only data sets of the settings: {names}",
            mend="add the data set and its files to the settings",
        )
    return summary


def _format_interval(row: dict[str, Any]) -> str:
    """Format the 95 % interval of the mean Dice of a summary row."""
    if math.isnan(row["dice_low"]):
        return MISSING
    return f"{row['dice_low']:.3f} to {row['dice_high']:.3f}"


def _format_overlaps(row: dict[str, Any]) -> list[str]:
    """Format Dice, its interval and IoU of a summary row."""
    overlaps = [
        format_mean_std(row[f"{name}_mean"], row[f"{name}_std"], (3, 2)) for name in ("dice", "iou")
    ]
    return [overlaps[0], _format_interval(row), overlaps[1]]


def _format_penalised(row: dict[str, Any]) -> list[str]:
    """Format HD95 and ASD of a summary row, with the image's diagonal where they are undefined."""
    return [
        format_number(row[f"{name}_penalised"], digits, row["unit"])
        for name, digits in (("hd95", 1), ("asd", 2))
    ]


def _records(summary: pd.DataFrame) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], summary.to_dict("records"))


def _student_on_test(summary: pd.DataFrame) -> pd.DataFrame:
    return summary[(summary["model"] == "student") & (summary["split"] == "test")]


def headline_rows(summary: pd.DataFrame) -> list[list[str]]:
    """Return the cells of one data set: the student on test images, one row per experiment."""
    cells = {
        row["experiment"]: [
            row["experiment"],
            *_format_overlaps(row),
            *_format_penalised(row),
            format_number(row["n"]),
            format_number(row["undefined"]),
            format_number(row["annotation_seconds_per_image"], 1),
            row["gaze"] or MISSING,
        ]
        for row in _records(_student_on_test(summary))
    }
    return [cells.get(name, [name, *[MISSING] * 9]) for name in summary["experiment"].unique()]


def all_rows(summary: pd.DataFrame, titles: dict[str, str]) -> list[list[str]]:
    """Return the cells of all rows of the summary."""
    return [
        [
            titles[row["dataset"]],
            row["experiment"],
            row["model"],
            row["split"],
            format_number(row["seeds"]),
            format_number(row["n"]),
            *_format_overlaps(row),
            format_mean_std(row["hd95_mean"], row["hd95_std"], (1, 1), row["unit"]),
            format_mean_std(row["asd_mean"], row["asd_std"], (2, 2), row["unit"]),
            format_number(row["undefined"]),
            *_format_penalised(row),
            format_mean_std(row["dice_patient_mean"], row["dice_patient_std"], (3, 2)),
            format_number(row["annotation_seconds_per_image"], 1),
            row["gaze"] or MISSING,
        ]
        for row in _records(summary)
    ]


def _dice_chart(
    summary: pd.DataFrame, titles: dict[str, str], experiments: list[str]
) -> Picture | None:
    shown = _student_on_test(summary)
    shown = shown[shown["dice_mean"].notna()]
    names = [name for name in titles if name in set(shown["dataset"])]
    if not names:
        return None
    mean, low, high = (
        shown.pivot(index="dataset", columns="experiment", values=column)
        .reindex(index=names, columns=experiments)
        .to_numpy(float)
        for column in ("dice_mean", "dice_low", "dice_high")
    )
    png = charts.plot_dice(mean, low, high, [titles[name] for name in names], experiments)
    return Picture(png, "Dice of the student on test images per data set and experiment")


def _effort_chart(
    summary: pd.DataFrame, titles: dict[str, str], experiments: list[str]
) -> Picture | None:
    shown = _student_on_test(summary)
    shown = shown[shown["dice_mean"].notna() & (shown["annotation_seconds_per_image"] > 0)]
    efforts = {
        title: [
            charts.Effort(
                row["experiment"], row["annotation_seconds_per_image"],
                row["dice_mean"], row["dice_low"], row["dice_high"],
            )
            for row in _records(shown[shown["dataset"] == name])
        ]
        for name, title in titles.items()
        if name in set(shown["dataset"])
    }  # fmt: skip
    if not efforts:
        return None
    png = charts.plot_effort(efforts, _PUBLISHED_SECONDS, experiments)
    return Picture(png, "Dice of the student on test images against annotation seconds per image")


def _name_inputs(
    summary: Path,
    per_dataset: dict[str, list[Path]],
    per_training: dict[str, list[Path]],
    histories: list[Path],
    tables: list[Path],
    settings: ReportSettings,
) -> dict[str, Path]:
    """Return a readable name of each input file → the file, for the provenance of the page."""
    named = {"summary": summary}
    for role, files in per_dataset.items():
        for dataset, file in zip(settings.datasets, files, strict=True):
            named[f"{dataset.name} {role}"] = file
    for role, files in per_training.items():
        for t, file in zip(settings.trainings, files, strict=True):
            named[f"{t.dataset} {t.experiment} seed{t.seed} {role}"] = file
    for h, file in zip(settings.histories, histories, strict=True):
        named[f"{h.dataset} {h.experiment} seed{h.seed} {h.network}_history"] = file
    for compared, file in zip(settings.tables, tables, strict=True):
        named[f"{compared.dataset} table {compared.name}"] = file
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
    tables: list[Path],
    output: Path,
    figures: Path,
    settings: ReportSettings,
) -> None:
    """Write one HTML page that contains its pictures and loads no other file.

    The page begins with the tables of the summary and two charts. Then it shows for each data set
    its numbers, comparisons of experiments (`tables`: each table of `compare` that it is to show),
    three training images from gaze to pseudomask, the quality of the gaze (`quality`: each
    gaze_quality.csv), three test images with the predictions, what the results depend on, the
    training curves and, if the predictions hold it, the attention to the text. It ends with the
    provenance of each result. The folder `figures` gets each picture as a PNG file. The same files
    give the same bytes.
    """
    per_dataset = {
        "prepared": prepared,
        "gaze": gaze,
        "quality": quality,
        "explanations": explanations,
    }
    per_training = {"predictions": predictions, "metrics": metrics}
    _check_settings(
        settings,
        {role: (len(files), len(settings.datasets)) for role, files in per_dataset.items()}
        | {role: (len(files), len(settings.trainings)) for role, files in per_training.items()}
        | {
            "histories": (len(histories), len(settings.histories)),
            "tables": (len(tables), len(settings.tables)),
        },
    )
    table = _read_summary(summary, settings.datasets)
    titles = {dataset.name: dataset.title for dataset in settings.datasets}
    # One order for the whole page: the position of an experiment decides its colour.
    entries = settings.trainings + settings.histories
    names = (*table["experiment"], *(entry.experiment for entry in entries))
    experiments = list(dict.fromkeys(names))

    sections = []
    files = list(zip(*per_dataset.values(), strict=True))
    for dataset, dataset_files in cli.progress(zip(settings.datasets, files), "report", len(files)):
        trainings = [
            TrainingFiles(*entry)
            for entry in zip(settings.trainings, predictions, metrics, strict=True)
            if entry[0].dataset == dataset.name
        ]
        dataset_histories = [
            entry
            for entry in zip(settings.histories, histories, strict=True)
            if entry[0].dataset == dataset.name
        ]
        comparisons = [
            make_comparison(dataset, entry.name, file)
            for entry, file in zip(settings.tables, tables, strict=True)
            if entry.dataset == dataset.name
        ]
        sections.append(
            make_section(
                dataset, dataset_files, trainings, dataset_histories, comparisons, experiments
            )
        )

    simulated = [section.title for section in sections if section.simulated_note]
    inputs = _name_inputs(summary, per_dataset, per_training, histories, tables, settings)
    page_provenance = io.provenance("report", inputs, settings)
    page = Page(
        headline=[
            (title, rows)
            for name, title in titles.items()
            if (rows := headline_rows(table[table["dataset"] == name]))
        ],
        notes=group_notes(settings.datasets),
        dice_chart=_dice_chart(table, titles, experiments),
        effort_chart=_effort_chart(table, titles, experiments),
        simulated_datasets=", ".join(simulated),
        all_rows=all_rows(table, titles),
        sections=sections,
        provenance=provenance_table(provenance),
        versions=json.loads(str(page_provenance["versions"])),
        inputs=json.loads(str(page_provenance["inputs"])),
        settings=json.dumps(
            json.loads(str(page_provenance["params"])), indent=1, ensure_ascii=False
        ),
    )
    html = render_page(page)
    with io.atomic_folder(figures) as folder:
        for name, picture in page.pictures(list(titles)).items():
            (folder / f"{name}.png").write_bytes(picture.png)
    with io.atomic_file(output) as temporary:
        temporary.write_text(html, "utf-8", newline="\n")


if __name__ == "__main__":
    cli.run(report)
