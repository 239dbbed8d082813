"""predictions.h5 and prepared.h5 → metrics.csv: the metrics of each sample at full resolution."""

from pathlib import Path

import h5py
import pandas as pd

from stages.core import cli, io, job_log
from stages.core.metrics import image_diagonal, score, spacing_and_unit
from stages.core.resize import resize

# Model → its data set in predictions.h5, in the order of the rows of metrics.csv.
PROBABILITY_DATASETS = {
    "student": "probability",
    "teacher": "teacher_probability",
    "ensemble": "ensemble_probability",
}
COLUMNS = [
    "sample_id", "subject_id", "split", "model",
    "dice", "iou", "hd95", "asd", "diagonal", "unit", "note",
]  # fmt: skip
# A pixel with this probability or more is foreground.
THRESHOLD = 0.5


def _prepared_indices(prepared: h5py.File, predictions: h5py.File) -> list[int]:
    """Return the index in prepared.h5 of each predicted sample."""
    index = {sample_id: i for i, sample_id in enumerate(io.read_strings(prepared, "sample_id"))}
    sample_ids = io.read_strings(predictions, "sample_id")
    if unknown := [sample_id for sample_id in sample_ids if sample_id not in index]:
        raise cli.BadInput(
            predictions.filename,
            "data set sample_id",
            found=f"{len(unknown)} ids, such as {unknown[0]!r}, that {prepared.filename} lacks",
            expected="only ids of that file",
            mend="delete it and run snakemake again: both files must belong to one data set",
        )
    return [index[sample_id] for sample_id in sample_ids]


def evaluate(prepared: Path, predictions: Path, output: Path) -> None:
    """Write metrics.csv: one row per model and validation or test sample.

    Each probability map is resized to the original size of its image, thresholded at 0.5 and
    compared with the original mask. The function that resizes the map also resized the image to
    the working size: bilinear, half-pixel centres, edges repeated, anti-aliased if it shrinks.

    `hd95`, `asd` (symmetric mean surface distance) and `diagonal` (of the image) are in `unit`: mm
    if the pixel spacing of the sample is known, else px. An undefined number is empty, and `note`
    says why. A sample without a mask has a row without numbers.
    """
    required = ("sample_id", "subject_id", "has_mask", "original_mask", "spacing_mm")
    with (
        io.open_h5(prepared, *required) as prepared_file,
        io.open_h5(predictions, "sample_id", "split", "probability") as predictions_file,
    ):
        indices = _prepared_indices(prepared_file, predictions_file)
        sample_ids = io.read_strings(predictions_file, "sample_id")
        splits = io.read_strings(predictions_file, "split")
        subject_ids = io.read_strings(prepared_file, "subject_id")[indices]
        has_mask = prepared_file["has_mask"][()][indices]
        spacings = prepared_file["spacing_mm"][()][indices]

        models = [model for model, name in PROBABILITY_DATASETS.items() if name in predictions_file]
        pairs = [(model, i) for model in models for i in range(len(sample_ids))]
        # Tuples need a third of the memory of dictionaries.
        rows: list[tuple[object, ...]] = []
        for model, i in cli.progress(pairs, "evaluate"):
            spacing, unit = spacing_and_unit(spacings[i])
            row: dict[str, object] = {
                "sample_id": sample_ids[i],
                "subject_id": subject_ids[i],
                "split": splits[i],
                "model": model,
                "unit": unit,
                "note": "no mask",
            }
            if has_mask[i]:
                mask = prepared_file["original_mask"][sample_ids[i]][()] > 0
                probability = resize(predictions_file[PROBABILITY_DATASETS[model]][i], mask.shape)
                row |= score(mask, probability >= THRESHOLD, spacing)._asdict()
                row["diagonal"] = image_diagonal(mask.shape, spacing)
            rows.append(tuple(map(row.get, COLUMNS)))
        if not has_mask.any():
            cli.log.warning("%s: no sample has a mask: nothing to evaluate against", prepared)
        elif not has_mask.all():
            cli.log.warning(
                "%s: %d of %d samples have no mask", prepared, int((~has_mask).sum()), len(has_mask)
            )
    job_log.log_provenance(
        io.provenance("evaluate", {"prepared": prepared, "predictions": predictions}, {})
    )
    io.write_csv(pd.DataFrame(rows, columns=COLUMNS), output)


if __name__ == "__main__":
    cli.run(evaluate)
