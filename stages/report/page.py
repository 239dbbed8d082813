"""The HTML page of the report: its data, its template and the format of its values.

The template is a string in this module, not a file, because the fingerprint that decides whether
the stage reruns covers only modules.
"""

import base64
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from stages.report.figures import (
    DPI,
    MISSED_COLOUR,
    PREDICTION_COLOUR,
    PSEUDOMASK_COLOUR,
    TRUTH_COLOUR,
    WRONG_COLOUR,
)
from stages.settings.report import ReportDataset

MISSING = "–"


def format_number(value: float, digits: int = 0, unit: str = "") -> str:
    """Format a number with `digits` decimals and its unit; NaN is a dash without a unit."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f} {unit}".rstrip()


def format_mean_std(mean: float, std: float, digits: tuple[int, int], unit: str = "") -> str:
    """Format mean ± standard deviation; `digits` holds the decimals of each."""
    if math.isnan(mean):
        return MISSING
    return f"{format_number(mean, digits[0])} ± {format_number(std, digits[1])} {unit}".rstrip()


def group_notes(datasets: Iterable[ReportDataset]) -> list[tuple[str, str]]:
    """Return each distinct note of the data sets with their titles, joined by commas."""
    titles: dict[str, list[str]] = {}
    for dataset in datasets:
        if dataset.note:
            titles.setdefault(dataset.note, []).append(dataset.title)
    return [(note, ", ".join(names)) for note, names in titles.items()]


class Picture(NamedTuple):
    """A PNG and its alternative text."""

    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Width on the page, px: 100 px per inch of the figure, whatever its resolution."""
        # Bytes 16 to 19 of a PNG hold its width.
        return int.from_bytes(self.png[16:20], "big") * 100 // DPI


class SampleFigure(NamedTuple):
    """One sample that the page shows."""

    sample_id: str
    # Why the sample was chosen; may be empty.
    reason: str
    picture: Picture
    # Its explanation.
    sentences: list[str]


class LevelRow(NamedTuple):
    """The table row of one pseudomask level; areas in percent of the image."""

    threshold: str
    area: str
    smallest: str
    largest: str
    dice: str


class Comparison(NamedTuple):
    """A table that compares experiments on a data set."""

    name: str
    # The experiment with which the others are compared.
    reference: str
    # HTML.
    table: str


class Section(NamedTuple):
    """The part of the page about one data set."""

    title: str
    note: str
    facts: list[tuple[str, str]]
    levels: list[LevelRow]
    gaze_samples: list[SampleFigure]
    gaze_caption: str
    quality_chart: Picture | None
    quality_caption: str
    test_samples: list[SampleFigure]
    test_caption: str
    # None and empty: there are no masks to compare with.
    outcome_chart: Picture | None
    outcome_caption: str
    has_masks: bool
    comparisons: list[Comparison]
    training_curves: Picture | None
    attention_samples: list[SampleFigure]
    # Empty: the predictions hold no attention.
    attention_caption: str
    # Last sentence of each caption if the gaze is simulated, else empty.
    simulated_note: str

    def pictures(self, prefix: str) -> dict[str, Picture]:
        """Return name → picture of all figures of the section; names begin with `prefix`."""
        charts = {
            "gaze_quality": self.quality_chart,
            "outcomes": self.outcome_chart,
            "training_curves": self.training_curves,
        }
        samples = {
            f"{kind}_{number}": sample.picture
            for kind, figures in (
                ("gaze_to_pseudomask", self.gaze_samples),
                ("test_image", self.test_samples),
                ("attention", self.attention_samples),
            )
            for number, sample in enumerate(figures, start=1)
        }
        return {
            f"{prefix}_{name}": picture for name, picture in (charts | samples).items() if picture
        }


class ProvenanceTable(NamedTuple):
    """How the jobs produced the results behind the page."""

    # All jobs in one sentence.
    summary: str
    # Cells, in the order of PROVENANCE_COLUMNS.
    rows: list[list[str]]
    # Each distinct set of package versions. The cell `Versions` of a row counts them from 1.
    version_sets: list[str]


class Page(NamedTuple):
    """The values of the template."""

    # (title of a data set, its rows); cells in the order of HEADLINE_COLUMNS.
    headline: list[tuple[str, list[list[str]]]]
    # (note, titles of its data sets).
    notes: list[tuple[str, str]]
    dice_chart: Picture | None
    effort_chart: Picture | None
    # Titles of the data sets with simulated gaze.
    simulated_datasets: str
    # Cells in the order of ALL_COLUMNS.
    all_rows: list[list[str]]
    sections: list[Section]
    provenance: ProvenanceTable
    # Of this page: package → version, input → SHA-256, and its settings as JSON.
    versions: dict[str, str]
    inputs: dict[str, str]
    settings: str

    def pictures(self, datasets: list[str]) -> dict[str, Picture]:
        """Return name → picture of all figures of the page; `datasets` names the sections."""
        charts = {"dice": self.dice_chart, "annotation_effort": self.effort_chart}
        named = {name: picture for name, picture in charts.items() if picture}
        for dataset, section in zip(datasets, self.sections, strict=True):
            named |= section.pictures(dataset)
        return named


HEADLINE_COLUMNS = ["Experiment", "Dice", "95 % interval", "IoU", "HD95", "ASD", "n", "Misses",
                    "Annotation, s/image", "Gaze"]  # fmt: skip
ALL_COLUMNS = ["Data set", "Experiment", "Model", "Split", "Seeds", "n", "Dice",
               "95 % interval", "IoU", "HD95", "ASD", "Undefined", "HD95 penalised",
               "ASD penalised", "Dice per patient", "Annotation, s/image", "Gaze"]  # fmt: skip
PROVENANCE_COLUMNS = ["Result", "Code", "Commit", "Seconds", "Peak memory, MB", "Host", "Device",
                      "Versions", "SHA-256"]  # fmt: skip


def render_template(template: str, values: dict[str, Any]) -> str:
    """Fill a template with escaped values; `STYLE` in it is the style sheet of all pages."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(values | {"STYLE": _STYLE})


def render_page(page: Page) -> str:
    """Return the page as HTML without scripts and without links to other files."""
    return render_template(
        _TEMPLATE,
        page._asdict()
        | {
            "HEADLINE_COLUMNS": HEADLINE_COLUMNS,
            "ALL_COLUMNS": ALL_COLUMNS,
            "PROVENANCE_COLUMNS": PROVENANCE_COLUMNS,
            "TRUTH_COLOUR": TRUTH_COLOUR,
            "MISSED_COLOUR": MISSED_COLOUR,
            "WRONG_COLOUR": WRONG_COLOUR,
            "PREDICTION_COLOUR": PREDICTION_COLOUR,
            "PSEUDOMASK_COLOUR": PSEUDOMASK_COLOUR,
        },
    )


_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --line: #e1e6eb; --paper: #f5f7f9;
  --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1140px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .6rem; }
h2 { font-size: 1.4rem; line-height: 1.25; letter-spacing: -.01em; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 2.25rem 0 .4rem; }
h3 .tag { color: var(--accent); margin-right: .45em; }
p { margin: 0 0 .9rem; max-width: 48rem; }
a { color: var(--accent); }
.lead { font-size: 1.06rem; color: #323f4b; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: 1.2rem 0 2rem; font-size: .93rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 1.6rem 1.6rem 1.8rem; margin: 0 0 1.75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
.wide { width: 100%; }
th, td { padding: .42rem .5rem; text-align: left; white-space: nowrap; vertical-align: top; }
thead th { font-size: .8rem; color: var(--soft); font-weight: 600;
  border-bottom: 2px solid var(--line); }
tbody td, tbody th { border-bottom: 1px solid var(--line); font-weight: 400; }
tbody th { font-weight: 600; white-space: normal; min-width: 8.5rem; }
.wrap th { white-space: normal; vertical-align: bottom; }
tbody.group + tbody.group { border-top: 2px solid var(--line); }
.small, figcaption, .hint { font-size: .87rem; color: var(--soft); }
.small { max-width: 60rem; }
.note { border-left: 3px solid #e69f00; background: #fdf6e7; padding: .55rem .9rem;
  border-radius: 0 6px 6px 0; font-size: .93rem; max-width: none; }
.columns { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
dl { display: grid; grid-template-columns: max-content auto; gap: .3rem 1.4rem; margin: 0;
  font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; font-variant-numeric: tabular-nums; }
figure { margin: .4rem 0 0; }
figcaption { max-width: 60rem; margin-top: .6rem; }
h3 + .hint { margin: 0 0 .8rem; max-width: 60rem; }
img { display: block; height: auto; max-width: none; }
.fit img { max-width: 100%; }
.sample { border-top: 1px solid var(--line); padding: .8rem 0 .9rem; }
.sample h4 { font-size: .87rem; font-weight: 400; color: var(--soft); margin: 0 0 .35rem;
  overflow-wrap: anywhere; }
.sample bdi { color: var(--ink); font-weight: 600; }
.words { margin: .5rem 0 0; font-size: .92rem; max-width: 62rem; padding-left: .8rem;
  border-left: 3px solid var(--line); }
.key { display: inline-block; width: .85em; height: .85em; border-radius: 2px; margin: 0 .15em;
  vertical-align: -.06em; border: 1px solid #00000055; }
details { margin-top: 1.1rem; }
summary { cursor: pointer; color: var(--accent); font-size: .93rem; font-weight: 600; }
details > :not(summary) { margin-top: .7rem; }
code, pre { font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media screen and (max-width: 700px) { main { padding-left: .6rem; padding-right: .6rem; }
  section { padding: 1rem; } .fit { overflow-x: auto; } .fit img { max-width: none; } }
@media print { body { background: #fff; } section { border: 0; padding: 0; }
  .scroll { overflow: visible; } img { max-width: 100%; } table { font-size: .7rem; } }
"""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Segmentation from gaze: report</title>
<style>{{ STYLE | safe }}</style>
</head>
<body>
<main>
{% macro colour_key(colour) %}
<span class="key" style="background:{{ colour }}"></span>
{%- endmacro %}
{% macro show_samples(samples) %}
{% for sample in samples %}
<div class="sample">
<h4><bdi>{{ sample.sample_id }}</bdi>{% if sample.reason %} · {{ sample.reason }}{% endif %}</h4>
<div class="scroll" tabindex="0"><img src="{{ sample.picture.uri }}"
 width="{{ sample.picture.width }}" alt="{{ sample.picture.alt }}"></div>
{% if sample.sentences %}
<p class="words">{{ sample.sentences | join(" ") }}</p>
{% endif %}
</div>
{% endfor %}
{% endmacro %}
<header>
<h1>Segmentation from gaze</h1>
<p class="lead">A teacher network learns from the gaze of a reader and from a text about the
region that the reader looked at. A student network learns from the gaze and from the teacher. The
scores are those of the <strong>student, which needs only the image</strong>: no gaze, no text. Two
further trainings of the same network are its bounds: on the broad pseudomask of the gaze without a
teacher (gaze only, lower bound) and on full masks (supervised, upper bound).</p>
<nav><a href="#summary">Summary</a>
{% for section in sections %}
<a href="#data-{{ loop.index }}">{{ section.title }}</a>
{% endfor %}
<a href="#provenance">Provenance</a></nav>
</header>

<section id="summary">
<h2>Test images, student</h2>
<div class="scroll" tabindex="0"><table class="wide">
<thead class="wrap"><tr><th>Data set</th>
{% for name in HEADLINE_COLUMNS %}<th>{{ name }}</th>{% endfor %}</tr></thead>
{% for title, rows in headline %}
<tbody class="group">
{% for row in rows %}
<tr>{% if loop.first %}<th rowspan="{{ rows | length }}">{{ title }}</th>{% endif %}
{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
{% endfor %}
</table></div>
<p class="small" style="margin-top:.7rem">Mean ± standard deviation over images and seeds, at full
resolution. Dice, IoU: higher is better. HD95, ASD: distances between outlines, lower is better. If
one of the two masks is empty, the image counts as a miss, with its diagonal as the distance; the
table of all models also has the distances without misses. 95 % interval: of the mean Dice, by a
bootstrap over patients, or over images that are not grouped by patient.
Annotation: mean dwell time of the reader, or the stated time to draw a mask. Gaze –: trained on
masks. n: number of images with a mask. –: missing value.</p>
{% for note, titles in notes %}
<p class="note"><strong>{{ titles }}:</strong> {{ note }}</p>
{% endfor %}
{% if dice_chart %}
<figure class="fit" tabindex="0"><img src="{{ dice_chart.uri }}" width="{{ dice_chart.width }}"
 alt="{{ dice_chart.alt }}">
<figcaption><strong>Test Dice of the student</strong>, mean over images and seeds; whiskers: 95 %
interval of the mean. The axis may not start at 0.
{% if simulated_datasets %}Gaze simulated from the masks, not recorded:
{{ simulated_datasets }}.{% endif %}
</figcaption></figure>
{% endif %}
{% if effort_chart %}
<figure class="fit" tabindex="0"><img src="{{ effort_chart.uri }}" width="{{ effort_chart.width }}"
 alt="{{ effort_chart.alt }}">
<figcaption><strong>Test Dice of the student against the time to annotate an image</strong>;
whiskers: 95 % interval. Dotted lines, published times: gaze 8.8 s and a mask 74.8 s per image of
Kvasir-SEG (Zhong et al., MICCAI 2024); a box 35 s, or 7 s by extreme clicking (Papadopoulos et al.,
ICCV 2017); a point 22.1 s and a scribble 34.9 s per photograph of PASCAL VOC (Bearman et al., ECCV
2016). Photographs are not medical images, so read these lines as orders of magnitude.
{% if simulated_datasets %}The time of simulated gaze is simulated, too.{% endif %}
</figcaption></figure>
{% endif %}
<details><summary>All models and splits</summary>
<div class="scroll" tabindex="0"><table>
<thead class="wrap"><tr>{% for name in ALL_COLUMNS %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in all_rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></details>
</section>

{% for section in sections %}
{% set number = loop.index %}
<section id="data-{{ number }}">
<h2>{{ section.title }}</h2>
{% if section.note %}
<p class="note">{{ section.note }}</p>
{% endif %}
<div class="columns">
<dl>{% for name, value in section.facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
<div class="scroll" tabindex="0"><table>
<thead><tr><th>Pseudomask</th><th>Threshold</th><th>Area, %</th><th>Smallest</th><th>Largest</th>
<th>Dice, train</th></tr></thead><tbody>
{% for level in section.levels %}
<tr><th>{{ "precise" if loop.first else "broad" if loop.last else "level %d" % loop.index0 }}</th>
{% for cell in level %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
</div>

{% for comparison in section.comparisons %}
<h3>Comparison: {{ comparison.name }}</h3>
<p class="hint">The students on test images. Each experiment is trained once per seed and compared
with <strong>{{ comparison.reference }}</strong>. {{ section.simulated_note }}</p>
{{ comparison.table | safe }}
{% endfor %}

<h3><span class="tag">Figure A{{ number }}</span>From gaze to pseudomask</h3>
<p class="hint">{{ section.gaze_caption }}
{% if section.gaze_samples %}
Pseudomasks {{ colour_key(PSEUDOMASK_COLOUR) }}: precise filled, broad outlined;
{{ ("truth " ~ colour_key(TRUTH_COLOUR) ~ ": outlined.") if section.has_masks else "no masks." }}
{% endif %}
{{ section.simulated_note }}</p>
{{ show_samples(section.gaze_samples) }}

{% if section.quality_chart %}
<h3><span class="tag">Figure B{{ number }}</span>Gaze quality</h3>
<p class="hint">{{ section.quality_caption }} {{ section.simulated_note }}</p>
<figure class="fit" tabindex="0"><img src="{{ section.quality_chart.uri }}"
 width="{{ section.quality_chart.width }}" alt="{{ section.quality_chart.alt }}"></figure>
{% endif %}

<h3><span class="tag">Figure C{{ number }}</span>Test images</h3>
<p class="hint">{{ section.test_caption }}
{% if section.test_samples %}
{% if section.has_masks %}
Truth {{ colour_key(TRUTH_COLOUR) }}; prediction {{ colour_key(PREDICTION_COLOUR) }}; missed
{{ colour_key(MISSED_COLOUR) }}; wrongly marked {{ colour_key(WRONG_COLOUR) }}.
{% else %}
No masks; prediction {{ colour_key(PREDICTION_COLOUR) }}.
{% endif %}
{% endif %}
{{ section.simulated_note }}</p>
{{ show_samples(section.test_samples) }}

{% if section.outcome_chart %}
<h3><span class="tag">Figure D{{ number }}</span>What the results depend on</h3>
<p class="hint">{{ section.outcome_caption }} {{ section.simulated_note }}</p>
<figure class="fit" tabindex="0"><img src="{{ section.outcome_chart.uri }}"
 width="{{ section.outcome_chart.width }}" alt="{{ section.outcome_chart.alt }}"></figure>
{% endif %}

{% if section.training_curves %}
<h3><span class="tag">Figure E{{ number }}</span>Training curves</h3>
<p class="hint">Loss (mean since the previous point) and validation Dice at the working size.
Teachers: dashed; students: solid; one line per seed. The loss has different terms for different
experiments and networks, so compare the shape of the curves, not their values.
{{ section.simulated_note }}</p>
<figure class="fit" tabindex="0"><img src="{{ section.training_curves.uri }}"
 width="{{ section.training_curves.width }}" alt="{{ section.training_curves.alt }}"></figure>
{% endif %}

{% if section.attention_caption %}
<h3><span class="tag">Figure F{{ number }}</span>Attention to the text</h3>
<p class="hint">{{ section.attention_caption }}
{% if section.attention_samples %}
Outline {{ colour_key(PSEUDOMASK_COLOUR) }}: the broad pseudomask, which the text describes.
{% endif %}
{{ section.simulated_note }}</p>
{{ show_samples(section.attention_samples) }}
{% endif %}
</section>
{% endfor %}

<section id="provenance">
<h2>Provenance</h2>
<p>{{ provenance.summary }}</p>
<details><summary>Each result: code, time, memory, host, device</summary>
<div class="scroll" tabindex="0"><table>
<thead class="wrap"><tr>
{% for name in PROVENANCE_COLUMNS %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in provenance.rows %}
<tr>{% for cell in row %}<td>
{%- if loop.last %}<code>{{ cell }}</code>{% else %}{{ cell }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="small">Code: fingerprint of the stage and its imports. Seconds and memory are those of the
whole job, which may write several results; for an interrupted training, those of its last job.
*: the job reused the result of an earlier job. –: unknown. The file <code>provenance.json</code>
beside this page holds the settings and inputs of each result.</p>
{% for version_set in provenance.version_sets %}
<p class="small"><strong>Versions {{ loop.index }}:</strong> {{ version_set }}</p>
{% endfor %}
</details>
<details><summary>This page: versions, inputs and settings</summary>
<div class="scroll" tabindex="0"><table>
<thead><tr><th>Package</th><th>Version</th></tr></thead><tbody>
{% for name, value in versions.items() %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
<div class="scroll" tabindex="0"><table>
<thead><tr><th>Input</th><th>SHA-256</th></tr></thead><tbody>
{% for name, value in inputs.items() %}
<tr><td>{{ name }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody></table></div>
<pre>{{ settings }}</pre>
</details>
</section>
</main>
</body>
</html>
"""
