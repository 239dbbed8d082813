"""A comparison table on a page: its rows, and what its numbers mean."""

import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from stages.core import cli, io
from stages.evaluation.compare import COLUMNS
from stages.evaluation.statistics import CONFIDENCE, MAX_EXACT_SUBJECTS, RESAMPLES
from stages.report.page import (
    MISSING,
    Comparison,
    format_mean_std,
    format_number,
    render_template,
)
from stages.settings.report import ReportDataset

_TEXT_COLUMNS = ("dataset", "experiment", "reference", "unit", "gaze")
# Metric → decimals of mean and deviation, whether it has a unit, and whether higher is better.
_METRICS = {
    "dice": ((3, 3), False, True),
    "iou": ((3, 3), False, True),
    "hd95_penalised": ((1, 1), True, False),
    "asd_penalised": ((2, 2), True, False),
}


class Cell(NamedTuple):
    """The text of a cell, and whether it is the best value in its column."""

    text: str
    best: bool = False


class DatasetRows(NamedTuple):
    """The part of the table about one data set."""

    title: str
    # Number of test images, subjects and seeds.
    counts: str
    # (experiment, cells).
    rows: list[tuple[str, list[Cell]]]


def format_p_value(p: float) -> str:
    """Format a p-value with three decimals, or as "< 0.001"."""
    return "< 0.001" if p < 0.001 else format_number(p, 3)


def format_difference(row: dict[str, Any]) -> str:
    """Format the signed difference and its interval, or only the difference if there is none."""
    mean, low, high = (row[f"dice_difference{end}"] for end in ("", "_low", "_high"))
    if math.isnan(mean):
        return MISSING
    return f"{mean:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


def dataset_rows(title: str, table: pd.DataFrame) -> DatasetRows:
    """Return the rows of one data set; the best value is among experiments trained on gaze."""
    trained_on_gaze = table[table["gaze"] != ""]
    best = {
        name: trained_on_gaze[f"{name}_mean"].max()
        if higher_is_better
        else trained_on_gaze[f"{name}_mean"].min()
        for name, (_, _, higher_is_better) in _METRICS.items()
    }
    rows = []
    for row in cast(list[dict[str, Any]], table.to_dict("records")):
        cells = [
            Cell(
                format_mean_std(
                    row[f"{name}_mean"], row[f"{name}_std"], digits, row["unit"] * has_unit
                ),
                row["gaze"] != "" and row[f"{name}_mean"] == best[name],
            )
            for name, (digits, has_unit, _) in _METRICS.items()
        ]
        other_cells = (
            format_number(row["undefined"]),
            format_number(row["annotation_seconds_per_image"], 1),
            row["gaze"] or MISSING,
            "reference" if row["experiment"] == row["reference"] else format_difference(row),
            format_p_value(row["p"]),
            format_p_value(row["p_adjusted"]),
        )
        rows.append((row["experiment"], cells + [Cell(text) for text in other_cells]))
    first = table.iloc[0]
    images, subjects, seeds = (int(first[name]) for name in ("n", "subjects", "seeds"))
    counts = f"images: {images}, subjects: {subjects}, seeds: {seeds}"
    return DatasetRows(title, counts, rows)


def read_comparison(file: Path, titles: dict[str, str]) -> pd.DataFrame:
    """Read a table of `compare`; `titles` holds the known data sets.

    Raises
    ------
    BadInput
        The file is no such table, or has another data set.
    """
    numbers = tuple(name for name in COLUMNS if name not in _TEXT_COLUMNS)
    comparison = io.read_csv(file, _TEXT_COLUMNS, numbers)
    if unknown := sorted(set(comparison["dataset"]) - set(titles)):
        raise cli.BadInput(
            file,
            "column dataset",
            found=unknown,
            expected=f"only data sets of the settings: {list(titles)}",
            mend="add the data set to the settings",
        )
    return comparison


def render_comparison(comparison: pd.DataFrame, titles: dict[str, str]) -> str:
    """Return a table of `compare` as HTML, with the meaning of its columns below."""
    values = {
        "datasets": [
            dataset_rows(titles[str(name)], rows)
            for name, rows in comparison.groupby("dataset", sort=False)
        ],
        "confidence": f"{CONFIDENCE:.0%}".replace("%", " %"),
        "resamples": f"{RESAMPLES:,}",
        "max_exact_subjects": MAX_EXACT_SUBJECTS,
    }
    return render_template(_TEMPLATE, values)


def make_comparison(dataset: ReportDataset, name: str, file: Path) -> Comparison:
    """Make a data set's part of the report about the table `name`.

    Raises
    ------
    BadInput
        The file is no table of `compare`, or has another data set.
    """
    titles = {dataset.name: dataset.title}
    comparison = read_comparison(file, titles)
    references = ", ".join(comparison["reference"].unique())
    return Comparison(name, references, render_comparison(comparison, titles))


_TEMPLATE = """<div class="scroll" tabindex="0"><table class="wide">
<thead class="wrap"><tr><th>Data set</th><th>Experiment</th><th>Dice<sup>1</sup></th>
<th>IoU<sup>1</sup></th><th>HD95<sup>1, 2</sup></th><th>ASD<sup>1, 2</sup></th>
<th>Undefined<sup>2</sup></th><th>Annotation, s/image<sup>3</sup></th><th>Gaze<sup>3</sup></th>
<th>Dice, difference [{{ confidence }} interval]<sup>4</sup></th><th>p<sup>5</sup></th>
<th>p, adjusted<sup>6</sup></th></tr></thead>
{% for dataset in datasets %}
<tbody class="group">
{% for experiment, cells in dataset.rows %}
<tr>{% if loop.first %}<th rowspan="{{ dataset.rows | length }}">{{ dataset.title }}
<div class="small">{{ dataset.counts }}</div></th>{% endif %}
<td>{{ experiment }}</td>
{% for cell in cells %}
<td>{% if cell.best %}<strong>{{ cell.text }}</strong>{% else %}{{ cell.text }}{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table></div>
<p class="small" style="margin-top:.7rem"><strong>Bold</strong>: the best value of a data set
among the experiments trained on gaze, because masks hold more information. –: missing value.</p>
<ol class="small">
<li>Mean ± standard deviation <em>over seeds</em> of the mean over test images, at full resolution
(one seed has no deviation). Dice, IoU: higher is better. HD95, ASD: distances between outlines,
lower is better.</li>
<li>A distance is undefined if one of the two masks is empty. <em>Undefined</em> counts these cases,
all seeds together; each enters HD95 and ASD as the diagonal of its image.</li>
<li>Annotation: mean dwell time of the reader, or the stated time to draw a mask. Gaze –: trained on
masks.</li>
<li>Dice minus the reference&rsquo;s Dice on the same image, averaged over seeds, then over images.
Interval: percentiles of {{ resamples }} draws of subjects (patients) with replacement, each with
all its images. It is slightly too narrow for few subjects; one subject has no interval.</li>
<li>Two-sided sign-flip permutation test of the subjects&rsquo; mean differences. It tries all sign
patterns for up to {{ max_exact_subjects }} subjects, so p is at least 2 / 2<sup>n</sup> for n
subjects. For more subjects, it uses {{ resamples }} random patterns and the observed one. Interval
and p describe how the result depends on the subjects, for these trainings; they do not cover other
seeds.</li>
<li>p, adjusted by Holm&rsquo;s method over the rows of one data set. If every row with a value of
at most 0.05 is called different from the reference, the probability of one or more false calls is
at most 5 %.</li>
</ol>
"""
