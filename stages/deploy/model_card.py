"""MODEL_CARD.md of an exported student: what the files beside it tell, and nothing else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from safetensors import safe_open

from stages.core import io
from stages.core.cli import BadInput
from stages.evaluation.statistics import CONFIDENCE, RESAMPLES, bootstrap_interval

UNKNOWN = "not known"
_TEXT_COLUMNS = ("sample_id", "subject_id", "split", "model", "unit")
_METRICS = {"dice": 3, "iou": 3, "hd95": 2, "asd": 2}
# The settings of a training that a reader looks for first; the card has all of them below.
_PROTOCOL = (
    "method", "labels", "encoder", "encoder_weights", "iterations", "batch_size", "optimiser",
    "learning_rate", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Description:
    """What a card says, in Markdown: facts as title → text, and tables.

    Attributes
    ----------
    title
        Data set, experiment and seed, from the names of the folders.
    training
        Facts about the data, the gaze, the texts and the training.
    metrics
        A table, or why there is none.
    settings, versions
        JSON.
    """

    title: str
    weights: str
    training: dict[str, str] = field(default_factory=dict)
    metrics: str = ""
    settings: str = "{}"
    versions: str = "{}"


def _code(text: object) -> str:
    """Format text that a user owns, such as the name of a folder, so that it stays text."""
    return "`" + " ".join(str(text).replace("`", "'").split()) + "`"


def _load_about(student: Path) -> dict[str, Any]:
    with safe_open(student, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
    return about


def _open_if_same(path: Path, hashes: Mapping[str, str]) -> h5py.File | None:
    """Open an input of the training if `path` is still that file, by its hash."""
    if hashes.get(path.stem) is None or not path.is_file() or io.sha256(path) != hashes[path.stem]:
        return None
    return h5py.File(path, "r")


def _describe_data(dataset: Path, hashes: Mapping[str, str]) -> dict[str, str]:
    missing = f"{UNKNOWN}: the file with which it was trained is not in {_code(dataset.name)}"
    facts = {"Data set": f"{_code(dataset.name)} (name of the folder of the results)"}
    file = _open_if_same(dataset / "prepared.h5", hashes)
    if file is None:
        return facts | {"Images": missing}
    with file:
        params = json.loads(file.attrs["params"])
        splits = io.read_strings(file, "split").tolist()
        subjects = io.read_strings(file, "subject_id").tolist()
        height, width, channels = file["image"].shape[1:]
    counts = [
        f"{splits.count(split)} {split} "
        f"({len({s for s, of in zip(subjects, splits) if of == split})} subjects)"
        for split in ("train", "val", "test")
    ]
    return facts | {
        "Layout": _code(params.get("layout", UNKNOWN)),
        "Images": f"{', '.join(counts)}; {height} × {width}, "
        + ("colour" if channels == 3 else "one channel"),
    }


def _describe_gaze(dataset: Path, hashes: Mapping[str, str], labels: str) -> str:
    if "gaze" not in hashes:
        return "none: the student learned from masks" if labels == "mask" else UNKNOWN
    file = _open_if_same(dataset / "gaze.h5", hashes)
    if file is None:
        return f"{UNKNOWN}: the gaze.h5 of the training is not beside the results"
    with file:
        origin = str(file.attrs.get("gaze_origin", UNKNOWN))
        share = f"{int(file['has_gaze'][()].sum())} of {len(file['has_gaze'])} images"
    words = {"recorded": "recorded from people", "simulated": "simulated from masks, not recorded"}
    return f"{words.get(origin, origin)}; {share}"


def _describe_text(dataset: Path, folder: Path, hashes: Mapping[str, str]) -> str:
    if "explanations" not in hashes and hashes.keys() & {"teacher", "pseudolabels"}:
        # Only the teacher read texts.
        teacher = folder / "teacher.safetensors"
        if not teacher.is_file() or io.sha256(teacher) != hashes.get("teacher"):
            return f"{UNKNOWN}: the teacher of the training is not beside the student"
        hashes = json.loads(_load_about(teacher).get("inputs", "{}"))
    if "explanations" not in hashes:
        return "none: neither the student nor a teacher read texts"
    file = _open_if_same(dataset / "explanations.h5", hashes)
    if file is None:
        return f"{UNKNOWN}: the explanations.h5 of the training is not beside the results"
    with file:
        values = {name: str(file.attrs.get(name, "")) for name in ("backend", "model", "encoder")}
    backend = f"described by {_code(values['backend'])}"
    model = f", model {_code(values['model'])}" if values["model"] else ""
    return f"{backend}{model}; encoded by {_code(values['encoder'])}. The student reads none"


def _format_mean(values: pd.Series, subjects: pd.Series, digits: int) -> str:
    known = values.notna()
    if not known.any():
        return "–"
    numbers = values[known].to_numpy(np.float64)
    low, high = bootstrap_interval(
        numbers, subjects[known].to_numpy(object), np.random.default_rng(0)
    )
    interval = "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{numbers.mean():.{digits}f}{interval}"


def _metrics_table(folder: Path, weights: str) -> str:
    """Return the table of metrics.csv, if its predictions are those of this student."""
    metrics, predictions = folder / "metrics.csv", folder / "predictions.h5"
    if not metrics.is_file() or not predictions.is_file():
        return "Not known: there is no metrics.csv with its predictions.h5 beside the student."
    try:
        with io.open_h5(predictions) as file:
            predicted_by = json.loads(file.attrs["inputs"]).get("student")
        table = io.read_csv(metrics, _TEXT_COLUMNS, tuple(_METRICS))
    except BadInput:
        return "Not known: metrics.csv or predictions.h5 beside the student cannot be read."
    if predicted_by != weights:
        return "Not known: the predictions beside the student are those of another student."
    lines = [
        "| split | images | subjects | Dice | IoU | HD95 | ASD |",
        "|---|---|---|---|---|---|---|",
    ]
    for split in ("test", "val"):
        rows = table[(table["split"] == split) & (table["model"] == "student")]
        rows = rows[rows["dice"].notna()]
        if not len(rows):
            continue
        units = ", ".join(sorted({unit for unit in rows["unit"] if unit}))
        cells = [
            _format_mean(rows[name], rows["subject_id"], digits)
            + (f" {units}" if name in ("hd95", "asd") and rows[name].notna().any() else "")
            for name, digits in _METRICS.items()
        ]
        undefined = int(rows["hd95"].isna().sum())
        note = f" ({undefined} undefined)" if undefined else ""
        count = f"{len(rows)} | {rows['subject_id'].nunique()}"
        lines.append(
            f"| {split} | {count} | {cells[0]} | {cells[1]} | {cells[2]}{note} | {cells[3]} |"
        )
    if len(lines) == 2:
        return "Not known: no image of metrics.csv has a mask."
    return "\n".join(
        [
            *lines,
            "",
            f"Mean over images at their own resolution, and its {CONFIDENCE:.0%} interval "
            f"(bootstrap over subjects, {RESAMPLES:,} draws). An image of which only the mask or "
            "only the prediction is empty has no distance.",
        ]
    )


def describe_student(student: Path, weights: str) -> Description:
    """Describe a student by its metadata and the results beside it.

    Parameters
    ----------
    student
        The weights file, in `results/{dataset}/{experiment}/seed{seed}/`. Of what lies elsewhere,
        the card says that it is not known. So it does of files that were made anew since the
        training: their hashes differ.
    weights
        SHA-256 of the file.
    """
    about = _load_about(student)
    hashes: dict[str, str] = json.loads(about.get("inputs", "{}"))
    params = json.loads(about.get("params", "{}"))
    folder = student.resolve().parent
    dataset = folder.parents[1] if len(folder.parents) > 1 else folder
    architecture = about["architecture"]
    network = architecture.get("encoder", "unet")
    protocol = ", ".join(f"{n} {_code(params[n])}" for n in _PROTOCOL if params.get(n) is not None)
    imported = "checkpoint" in hashes
    training = {
        **_describe_data(dataset, hashes),
        "Gaze": _describe_gaze(dataset, hashes, params.get("labels", "")),
        "Texts": UNKNOWN if imported else _describe_text(dataset, folder, hashes),
        "Protocol": f"imported weights of a checkpoint, SHA-256 {hashes['checkpoint']}"
        if imported
        else protocol or UNKNOWN,
        "Network": f"{_code(network)}, trained at {' × '.join(map(str, architecture['size']))}",
    }
    return Description(
        title=" / ".join(_code(path.name) for path in (dataset, folder.parent, folder)),
        weights=weights,
        training=training,
        metrics=_metrics_table(folder, weights),
        settings=json.dumps(params, indent=1, sort_keys=True),
        versions=json.dumps(json.loads(about.get("versions", "{}")), indent=1, sort_keys=True),
    )


_CARD = """# Model card: {title}

A network that marks one kind of structure in medical images. The pipeline gaze-to-insight trained
or imported it; its method is that of [From Gaze to Insight](https://arxiv.org/abs/2504.11368).
**It is for research and is not a medical device.** Nobody has validated it for use on patients.

| | |
|---|---|
| Weights, SHA-256 | {weights} |
| Exported by | {made_by} |

## Input and output

- Input `{input}`.
- Output `{output}`. Foreground is {threshold} or more.
- Height and width: {sides}. The training resized images to {training_size} (height, width),
  bilinear with anti-aliasing as Pillow's BILINEAR; resize an image so before, and the probability
  back to the image's size after. Other sizes were not measured.
- `student.onnx` has opset {opset}; `student.pt2` loads with `torch.export.load`. Both agree with
  the trained network within {tolerance:g} on drawn images.

## Training

{training}

## Metrics

{metrics}

## Limits

- It has seen only images like those above: another scanner, protocol, population, view or structure
  is outside what was measured, and it gives a plausible mask all the same.
- It always answers, also for an image without the structure. Its probability is not calibrated.
- Metrics of one data set say little about others, and nothing about benefit for patients. Simulated
  gaze says little about people's gaze.
- A volume is segmented slice by slice, so a mask may change abruptly between slices.
- Check each mask before you use it.

## Provenance

Settings of the training:

```json
{settings}
```

Versions:

```json
{versions}
```
"""


def write_card(path: Path, description: Description, about: Mapping[str, str]) -> None:
    """Write the card of an exported student; `about` is what the exported files say.

    Parameters
    ----------
    about
        With the keys `made_by`, `input`, `output`, `threshold`, `sides`, `training_size`, `opset`
        and `tolerance`.
    """
    training = [f"- {title}: {text}." for title, text in description.training.items()]
    text = _CARD.format(
        **{k: v for k, v in about.items() if k not in ("student", "tolerance")},
        title=description.title,
        weights=description.weights,
        training="\n".join(training),
        metrics=description.metrics,
        settings=description.settings,
        versions=description.versions,
        tolerance=float(about["tolerance"]),
    )
    with io.atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")
