"""A comparison table → one HTML page that explains its numbers."""

import json
from pathlib import Path

from stages.core import cli, io
from stages.report.comparison import read_comparison, render_comparison
from stages.report.page import group_notes, render_template
from stages.settings.report import TabulateSettings


def tabulate(table: Path, output: Path, settings: TabulateSettings) -> None:
    """Write a table of `compare` as one HTML page that loads no other file.

    Raises
    ------
    BadInput
        The file is no such table, or the settings lack one of its data sets.
    """
    titles = {dataset.name: dataset.title for dataset in settings.datasets}
    comparison = read_comparison(table, titles)
    page_provenance = io.provenance("tabulate", {"table": table}, settings)
    values = {
        "name": settings.table,
        "comparison": render_comparison(comparison, titles),
        "references": list(comparison["reference"].unique()),
        "notes": group_notes(settings.datasets),
        "sha256": json.loads(str(page_provenance["inputs"]))["table"],
        "versions": json.loads(str(page_provenance["versions"])),
    }
    with io.atomic_file(output) as temporary:
        temporary.write_text(render_template(_TEMPLATE, values), "utf-8", newline="\n")


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
<p class="lead">The students on test images. Each experiment is trained once per seed and compared
with <strong>{{ references | join(", ") }}</strong>.</p>
</header>
<section>
{{ comparison | safe }}
{% for note, titles in notes %}
<p class="note"><strong>{{ titles }}:</strong> {{ note }}</p>
{% endfor %}
</section>
<section>
<h2>Provenance</h2>
<p class="small">Table, SHA-256: <code>{{ sha256 }}</code></p>
<details><summary>Versions</summary>
<div class="scroll" tabindex="0"><table>
<thead><tr><th>Package</th><th>Version</th></tr></thead><tbody>
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
