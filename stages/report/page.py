"""The page of the report: how values read, and the HTML around them.

The template is text of a module, not a file beside it: the fingerprint that reruns the stage
hashes modules.
"""

import base64
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from stages.report.figures import DPI, PREDICTION, PSEUDOMASK, TRUTH
from stages.settings.report import ReportDataset

MISSING = "–"


def number(value: float, digits: int = 0, unit: str = "") -> str:
    """Write a number with so many decimals; one that is missing as a dash, without a unit."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f} {unit}".rstrip()


def spread(mean: float, std: float, digits: tuple[int, int], unit: str = "") -> str:
    """Write mean ± standard deviation, each with its own number of decimals."""
    if math.isnan(mean):
        return MISSING
    return f"{number(mean, digits[0])} ± {number(std, digits[1])} {unit}".rstrip()


def notes(datasets: Iterable[ReportDataset]) -> list[tuple[str, str]]:
    """(note, titles of the data sets that it is of), each note once."""
    titles: dict[str, list[str]] = {}
    for dataset in datasets:
        if dataset.note:
            titles.setdefault(dataset.note, []).append(dataset.title)
    return [(note, ", ".join(named)) for note, named in titles.items()]


class Picture(NamedTuple):
    """A PNG and what it shows, in words."""

    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Width on the page, px: 100 per inch of the figure, whatever its resolution."""
        # Bytes 16 to 19 of a PNG are its width.
        return int.from_bytes(self.png[16:20], "big") * 100 // DPI


class Shown(NamedTuple):
    """One sample of a figure."""

    sample_id: str
    why: str
    picture: Picture
    sentences: list[str]


class Level(NamedTuple):
    """One pseudomask level, in numbers; areas in percent of the image."""

    threshold: str
    area: str
    smallest: str
    largest: str
    dice: str


class Section(NamedTuple):
    """One data set."""

    title: str
    note: str
    facts: list[tuple[str, str]]
    levels: list[Level]
    gaze: list[Shown]
    gaze_caption: str
    quality: Picture | None
    quality_caption: str
    test: list[Shown]
    test_caption: str
    has_truth: bool
    curves: Picture | None
    # An empty caption: no attention was written.
    attention: list[Shown]
    attention_caption: str
    # Ends every caption that rests on gaze nobody recorded.
    simulated: str


class Provenance(NamedTuple):
    """How the results behind the page came to be."""

    # All jobs in a sentence.
    told: str
    # Cells, in the order of PROVENANCE.
    rows: list[list[str]]
    # The sets of package versions that a row's `Versions` numbers, from 1.
    versions: list[str]


class Page(NamedTuple):
    """All that the template shows."""

    # Data set → its rows, cells as text, in the order of HEADLINE.
    headline: list[tuple[str, list[list[str]]]]
    # (note, the data sets that it is of).
    notes: list[tuple[str, str]]
    chart: Picture | None
    # Titles of the data sets whose gaze nobody recorded.
    simulated: str
    full: list[list[str]]
    sections: list[Section]
    provenance: Provenance
    # Name → value.
    versions: dict[str, str]
    inputs: dict[str, str]
    settings: str


HEADLINE = ["Experiment", "Dice", "IoU", "HD95", "ASD", "n", "Undefined",
            "Annotation, s/image", "Gaze"]  # fmt: skip
FULL = ["Data set", "Experiment", "Model", "Split", "Seeds", "n", "Dice", "IoU", "HD95", "ASD",
        "Undefined", "HD95 penalised", "Dice per patient", "Annotation, s/image",
        "Gaze"]  # fmt: skip
PROVENANCE = ["Result", "Code", "Commit", "Seconds", "Peak memory, MB", "Host", "Device",
              "Versions", "SHA-256"]  # fmt: skip


def fill(template: str, values: dict[str, Any]) -> str:
    """Fill a template with escaped values; STYLE is the style sheet of our pages."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(values | {"STYLE": _STYLE})


def render(page: Page) -> str:
    """Return the page as HTML that fetches nothing and runs nothing."""
    return fill(
        _TEMPLATE,
        page._asdict() | {"HEADLINE": HEADLINE, "FULL": FULL, "PROVENANCE": PROVENANCE,
                          "TRUTH": TRUTH, "PREDICTION": PREDICTION, "PSEUDOMASK": PSEUDOMASK},
    )  # fmt: skip


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
@media print { body { background: #fff; } section { border: 0; padding: 0; } }
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
{% macro key(colour) %}<span class="key" style="background:{{ colour }}"></span>{% endmacro %}
{% macro samples(shown) %}
{% for sample in shown %}
<div class="sample">
<h4><bdi>{{ sample.sample_id }}</bdi>{% if sample.why %} · {{ sample.why }}{% endif %}</h4>
<div class="scroll"><img src="{{ sample.picture.uri }}" width="{{ sample.picture.width }}"
 alt="{{ sample.picture.alt }}"></div>
{% if sample.sentences %}
<p class="words">{{ sample.sentences | join(" ") }}</p>
{% endif %}
</div>
{% endfor %}
{% endmacro %}
<header>
<h1>Segmentation from gaze</h1>
<p class="lead">A teacher network learns from where a reader looked and from words about what was
looked at; a student network learns from the gaze and from the teacher. What is measured here is
the <strong>student, which reads the image alone</strong>: no gaze, no words. Two more trainings of
the same network frame it: on the gaze&rsquo;s broad pseudomask without a teacher (gaze only, the
lower bound) and on full masks (supervised, the upper bound).</p>
<nav><a href="#summary">Summary</a>
{% for section in sections %}
<a href="#data-{{ loop.index }}">{{ section.title }}</a>
{% endfor %}
<a href="#provenance">Provenance</a></nav>
</header>

<section id="summary">
<h2>Test images, student</h2>
<div class="scroll"><table class="wide">
<thead class="wrap"><tr><th>Data set</th>
{% for name in HEADLINE %}<th>{{ name }}</th>{% endfor %}</tr></thead>
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
resolution. Dice, IoU: higher is better. HD95, ASD: distances between outlines, lower is better;
where one of two masks is empty there is none, which <em>Undefined</em> counts. Annotation: the
reader&rsquo;s dwell time, or the stated time to draw a mask. Gaze: –, learned from masks.
n: images with a mask. –: missing.</p>
{% for note, titles in notes %}
<p class="note"><strong>{{ titles }}:</strong> {{ note }}</p>
{% endfor %}
{% if chart %}
<figure class="fit"><img src="{{ chart.uri }}" width="{{ chart.width }}" alt="{{ chart.alt }}">
<figcaption><strong>Test Dice of the student</strong>, mean over images and seeds; whiskers: ± one
standard deviation. Mind where the axis starts.
{% if simulated %}Gaze simulated from the masks, not recorded: {{ simulated }}.{% endif %}
</figcaption></figure>
{% endif %}
<details><summary>All models and splits</summary>
<div class="scroll"><table>
<thead class="wrap"><tr>{% for name in FULL %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in full %}
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
<div class="scroll"><table>
<thead><tr><th>Pseudomask</th><th>Threshold</th><th>Area, %</th><th>Smallest</th><th>Largest</th>
<th>Dice, train</th></tr></thead><tbody>
{% for level in section.levels %}
<tr><th>{{ "precise" if loop.first else "broad" if loop.last else "level %d" % loop.index0 }}</th>
{% for cell in level %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
</div>

<h3><span class="tag">Figure A{{ number }}</span>From gaze to pseudomask</h3>
<p class="hint">{{ section.gaze_caption }}
{% if section.gaze %}
Pseudomasks {{ key(PSEUDOMASK) }} precise filled, broad outlined;
{{ ("truth " ~ key(TRUTH) ~ " outlined.") if section.has_truth else "no masks." }}
{% endif %}
{{ section.simulated }}</p>
{{ samples(section.gaze) }}

{% if section.quality %}
<h3><span class="tag">Figure B{{ number }}</span>Gaze quality</h3>
<p class="hint">{{ section.quality_caption }} {{ section.simulated }}</p>
<figure class="fit"><img src="{{ section.quality.uri }}" width="{{ section.quality.width }}"
 alt="{{ section.quality.alt }}"></figure>
{% endif %}

<h3><span class="tag">Figure C{{ number }}</span>Test images</h3>
<p class="hint">{{ section.test_caption }}
{% if section.test %}
{{ ("Truth " ~ key(TRUTH)) if section.has_truth else "No masks" }}; prediction
{{ key(PREDICTION) }}.
{% endif %}
{{ section.simulated }}</p>
{{ samples(section.test) }}

{% if section.curves %}
<h3><span class="tag">Figure D{{ number }}</span>Training curves</h3>
<p class="hint">Loss (mean since the point before) and validation Dice at the working size; teachers
dashed, students solid, one line per seed. The losses of two experiments or networks are sums of
different terms: only their course can be compared. {{ section.simulated }}</p>
<figure class="fit"><img src="{{ section.curves.uri }}" width="{{ section.curves.width }}"
 alt="{{ section.curves.alt }}"></figure>
{% endif %}

{% if section.attention_caption %}
<h3><span class="tag">Figure E{{ number }}</span>Where the words are read</h3>
<p class="hint">{{ section.attention_caption }}
{% if section.attention %}
Outline {{ key(PSEUDOMASK) }}: the broad pseudomask, which the words are of.
{% endif %}
{{ section.simulated }}</p>
{{ samples(section.attention) }}
{% endif %}
</section>
{% endfor %}

<section id="provenance">
<h2>Provenance</h2>
<p>{{ provenance.told }}</p>
<details><summary>Each result: code, time, memory, host, device</summary>
<div class="scroll"><table>
<thead class="wrap"><tr>{% for name in PROVENANCE %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in provenance.rows %}
<tr>{% for cell in row %}<td>
{%- if loop.last %}<code>{{ cell }}</code>{% else %}{{ cell }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="small">Code: a fingerprint of all that the stage is made of. Seconds and memory: of the
whole job, which may have made several results; of a training that was cut off, of its last job.
*: took what an earlier job had made. –: unknown. Settings and inputs of each result:
<code>provenance.json</code> beside this page.</p>
{% for versions in provenance.versions %}
<p class="small"><strong>Versions {{ loop.index }}:</strong> {{ versions }}</p>
{% endfor %}
</details>
<details><summary>This page: versions, inputs and settings</summary>
<div class="scroll"><table><thead><tr><th>Package</th><th>Version</th></tr></thead><tbody>
{% for name, value in versions.items() %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
<div class="scroll"><table><thead><tr><th>Input</th><th>SHA-256</th></tr></thead><tbody>
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
