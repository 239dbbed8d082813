"""Predictions against the masks at full resolution → metrics.csv."""

from pathlib import Path

import h5py
import pandas as pd

from stages.core import cli, io, job_log
from stages.core.metrics import diagonal, pixel_size, score
from stages.core.resize import resize

# Model → its data set in predictions.h5, in the order of the rows.
MODELS = {
    "student": "probability",
    "teacher": "teacher_probability",
    "ensemble": "ensemble_probability",
}
COLUMNS = [
    "sample_id", "subject_id", "split", "model",
    "dice", "iou", "hd95", "asd", "diagonal", "unit", "note",
]  # fmt: skip
# Foreground probability from which a pixel is foreground.
THRESHOLD = 0.5


def _positions(prepared: h5py.File, predicted: h5py.File) -> list[int]:
    """Where in prepared.h5 each predicted sample is."""
    position = {name: i for i, name in enumerate(io.read_strings(prepared, "sample_id"))}
    sample_ids = io.read_strings(predicted, "sample_id")
    if unknown := [name for name in sample_ids if name not in position]:
        raise cli.BadInput(
            predicted.filename,
            "data set sample_id",
            found=f"{len(unknown)} ids, such as {unknown[0]!r}, that {prepared.filename} lacks",
            expected="samples of that file",
            mend="delete it and run snakemake again: both files must be of one data set",
        )
    return [position[name] for name in sample_ids]


def evaluate(prepared: Path, predictions: Path, output: Path) -> None:
    """Write metrics.csv: one row per model and validation or test sample.

    Each probability map is brought to its image's original size (bilinear, half-pixel centres,
    edges repeated, anti-aliased where that is smaller: the function that brought the image to the
    working size), cut at 0.5 and compared with the original mask. `hd95`, `asd` and `diagonal`,
    the image's, are in `unit`: mm where the sample's pixel spacing is known, px elsewhere; `asd`
    is the symmetric mean surface distance. A number that does not exist is empty, and `note` says
    why; a sample without a mask keeps its row, without numbers.
    """
    known = ("sample_id", "subject_id", "has_mask", "original_mask", "spacing_mm")
    with (
        io.open_h5(prepared, *known) as truth,
        io.open_h5(predictions, "sample_id", "split", "probability") as file,
    ):
        positions = _positions(truth, file)
        sample_ids = io.read_strings(file, "sample_id")
        splits = io.read_strings(file, "split")
        subject_ids = io.read_strings(truth, "subject_id")[positions]
        has_mask = truth["has_mask"][()][positions]
        spacings = truth["spacing_mm"][()][positions]

        models = [model for model, name in MODELS.items() if name in file]
        pairs = [(model, i) for model in models for i in range(len(sample_ids))]
        rows: list[dict[str, object]] = []
        for model, i in cli.progress(pairs, "evaluate"):
            spacing, unit = pixel_size(spacings[i])
            row: dict[str, object] = {
                "sample_id": sample_ids[i],
                "subject_id": subject_ids[i],
                "split": splits[i],
                "model": model,
                "unit": unit,
                "note": "no mask",
            }
            if has_mask[i]:
                mask = truth["original_mask"][sample_ids[i]][()] > 0
                probability = resize(file[MODELS[model]][i], mask.shape)
                row |= score(mask, probability >= THRESHOLD, spacing)._asdict()
                row["diagonal"] = diagonal(mask.shape, spacing)
            rows.append(row)
        if not has_mask.any():
            cli.log.warning("%s: no sample has a mask: nothing to evaluate against", prepared)
        elif not has_mask.all():
            cli.log.warning(
                "%s: %d of %d samples have no mask", prepared, int((~has_mask).sum()), len(has_mask)
            )
    job_log.made_from(
        io.provenance("evaluate", {"prepared": prepared, "predictions": predictions}, {})
    )
    io.write_csv(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    cli.run(evaluate)
