"""A table of compare → one HTML page that says what its numbers mean."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from stages.core import cli, io
from stages.evaluation.compare import COLUMNS
from stages.evaluation.statistics import CONFIDENCE, DRAWS, EXACT
from stages.report.page import MISSING, fill, notes, number, spread
from stages.settings.report import TabulateSettings

_TEXT = ("dataset", "experiment", "reference", "unit", "gaze")
# Column → decimals of mean and deviation, has a unit, and whether more is better.
_MEASURES = {
    "dice": ((3, 3), False, True),
    "iou": ((3, 3), False, True),
    "hd95_penalised": ((1, 1), True, False),
    "asd_penalised": ((2, 2), True, False),
}


class Cell(NamedTuple):
    """What a cell says, and whether nothing in its column is better."""

    text: str
    best: bool = False


class Group(NamedTuple):
    """One data set: what it was tested on, and its rows of experiment and cells."""

    title: str
    tested: str
    rows: list[tuple[str, list[Cell]]]


def probability(p: float) -> str:
    """Write a p-value: three decimals, or that it is below 0.001."""
    return "< 0.001" if p < 0.001 else number(p, 3)


def difference(row: dict[str, Any]) -> str:
    """Write a difference and its interval, with signs, what is missing left out."""
    mean, low, high = (row[f"dice_difference{end}"] for end in ("", "_low", "_high"))
    if math.isnan(mean):
        return MISSING
    return f"{mean:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


def group(title: str, table: pd.DataFrame) -> Group:
    """Cells of one data set; the best is marked among those that learned from gaze."""
    weak = table[table["gaze"] != ""]
    best = {
        name: weak[f"{name}_mean"].max() if more else weak[f"{name}_mean"].min()
        for name, (_, _, more) in _MEASURES.items()
    }
    rows = []
    for row in cast(list[dict[str, Any]], table.to_dict("records")):
        cells = [
            Cell(
                spread(row[f"{name}_mean"], row[f"{name}_std"], digits, row["unit"] * has_unit),
                row["gaze"] != "" and row[f"{name}_mean"] == best[name],
            )
            for name, (digits, has_unit, _) in _MEASURES.items()
        ]
        others = (
            number(row["undefined"]),
            number(row["annotation_seconds_per_image"], 1),
            row["gaze"] or MISSING,
            "reference" if row["experiment"] == row["reference"] else difference(row),
            probability(row["p"]),
            probability(row["p_adjusted"]),
        )
        rows.append((row["experiment"], cells + [Cell(text) for text in others]))
    first = table.iloc[0]
    images, subjects, seeds = (int(first[name]) for name in ("n", "subjects", "seeds"))
    tested = f"images: {images}, subjects: {subjects}, seeds: {seeds}"
    return Group(title, tested, rows)


def tabulate(table: Path, output: Path, settings: TabulateSettings) -> None:
    """Write one HTML page that holds the table of `compare` and fetches nothing.

    Raises
    ------
    BadInput
        It is no such table, or has a data set that the settings do not name.
    """
    numbers = tuple(name for name in COLUMNS if name not in _TEXT)
    found = io.read_csv(table, _TEXT, numbers)
    titles = {dataset.name: dataset.title for dataset in settings.datasets}
    if unknown := sorted(set(found["dataset"]) - set(titles)):
        raise cli.BadInput(
            table,
            "column dataset",
            found=unknown,
            expected=f"of {list(titles)}",
            mend="name all its data sets in the settings",
        )
    made = io.provenance("tabulate", {"table": table}, settings)
    values = {
        "name": settings.table,
        "groups": [
            group(titles[str(name)], part) for name, part in found.groupby("dataset", sort=False)
        ],
        "references": list(found["reference"].unique()),
        "notes": notes(settings.datasets),
        "sha256": json.loads(str(made["inputs"]))["table"],
        "versions": json.loads(str(made["versions"])),
        "confidence": f"{CONFIDENCE:.0%}".replace("%", " %"),
        "draws": f"{DRAWS:,}",
        "exact": EXACT,
    }
    with io.atomic(output) as temporary:
        temporary.write_text(fill(_TEMPLATE, values), "utf-8", newline="\n")


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Segmentation from gaze: {{ name }}</title>
<style>{{ STYLE | safe }}</style>
</head>
<body>
<main>
<header>
<h1>Segmentation from gaze: {{ name }}</h1>
<p class="lead">Students on test images, each experiment trained once per seed, against
<strong>{{ references | join(", ") }}</strong>.</p>
</header>
<section>
<div class="scroll"><table class="wide">
<thead class="wrap"><tr><th>Data set</th><th>Experiment</th><th>Dice<sup>1</sup></th>
<th>IoU<sup>1</sup></th><th>HD95<sup>1, 2</sup></th><th>ASD<sup>1, 2</sup></th>
<th>Undefined<sup>2</sup></th><th>Annotation, s/image<sup>3</sup></th><th>Gaze<sup>3</sup></th>
<th>Dice, difference [{{ confidence }} interval]<sup>4</sup></th><th>p<sup>5</sup></th>
<th>p, adjusted<sup>6</sup></th></tr></thead>
{% for group in groups %}
<tbody class="group">
{% for experiment, cells in group.rows %}
<tr>{% if loop.first %}<th rowspan="{{ group.rows | length }}">{{ group.title }}
<div class="small">{{ group.tested }}</div></th>{% endif %}
<td>{{ experiment }}</td>
{% for cell in cells %}
<td>{% if cell.best %}<strong>{{ cell.text }}</strong>{% else %}{{ cell.text }}{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table></div>
<p class="small" style="margin-top:.7rem"><strong>Bold</strong>: the best of a data set among the
experiments that learned from gaze; masks are more to learn from. –: missing.</p>
<ol class="small">
<li>Mean over test images, at full resolution, of each seed; of these means, mean ± standard
deviation <em>over seeds</em> (none with one seed). Dice, IoU: higher is better. HD95, ASD:
distances between outlines, lower is better.</li>
<li>Where one of two masks is empty there is no distance: <em>Undefined</em> counts these, all seeds
together, and each enters HD95 and ASD as its image&rsquo;s diagonal.</li>
<li>What the labels took: the reader&rsquo;s dwell time, or the stated time to draw a mask. Gaze –:
learned from masks.</li>
<li>Dice minus the reference&rsquo;s on the same image, averaged over seeds, then over images.
Interval: percentiles of {{ draws }} draws of subjects (patients) with replacement, each with all
its images; somewhat narrow with few subjects, none with one.</li>
<li>Two-sided sign-flip permutation test of the subjects&rsquo; mean differences: all sign patterns
up to {{ exact }} subjects, where n subjects cannot give less than 2 / 2<sup>n</sup>; else
{{ draws }} random ones and the one found. Interval and p are about other subjects like these, given
these trainings, not about other seeds.</li>
<li>By Holm&rsquo;s method, over the rows of one data set: call different what is at or below 0.05
here, and the chance of a single false call among them is at most 5 %.</li>
</ol>
{% for note, titles in notes %}
<p class="note"><strong>{{ titles }}:</strong> {{ note }}</p>
{% endfor %}
</section>
<section>
<h2>Provenance</h2>
<p class="small">Table, SHA-256: <code>{{ sha256 }}</code></p>
<details><summary>Versions</summary>
<div class="scroll"><table><thead><tr><th>Package</th><th>Version</th></tr></thead><tbody>
{% for package, version in versions.items() %}
<tr><td>{{ package }}</td><td>{{ version }}</td></tr>
{% endfor %}
</tbody></table></div>
</details>
</section>
</main>
</body>
</html>
"""


if __name__ == "__main__":
    cli.run(tabulate)
