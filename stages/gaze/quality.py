"""gaze.h5 → gaze_quality.csv: measures of each sample's gaze, and flags for poor gaze.

The measures that need a mask are for information only: `flag_reasons` does not use them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import cli, io, job_log
from stages.core.metrics import dice
from stages.gaze.recordings.scan import Scanpath, on_target_shares
from stages.settings.quality import QualitySettings

_REASON_SEPARATOR = "; "


def level_columns(kind: str, thresholds: Iterable[float]) -> list[str]:
    """Name the columns of each level's area or Dice: `area_0.5`, `area_0.3`."""
    return [f"{kind}_{threshold:g}" for threshold in thresholds]


def table_columns(thresholds: Sequence[float]) -> list[str]:
    """Name the columns of gaze_quality.csv, in order, for levels with these thresholds."""
    return [
        "sample_id", "subject_id", "split",
        "fixations", "off_image", "short", "on_image", "dwell_ms", "span_ms", "dispersion",
        *level_columns("area", thresholds),
        *level_columns("dice", thresholds),
        "on_target", "on_target_count", "flags", "left_out",
    ]  # fmt: skip


def _measure_fixations(scanpath: Scanpath, original_size: tuple[int, int]) -> dict[str, float]:
    x, y, duration, start = scanpath.fixations.T
    count, dwell = len(duration), float(duration.sum())
    long_enough = count + scanpath.off_image
    measures = {
        "on_image": count / long_enough if long_enough else math.nan,
        "dwell_ms": dwell,
        "span_ms": float((start + duration).max() - start.min()) if count else 0.0,
    }
    if dwell > 0:
        height, width = original_size
        position, weight = np.stack([x * width, y * height], axis=1), duration / dwell
        square = ((position - weight @ position) ** 2).sum(axis=1)
        measures["dispersion"] = math.sqrt(float(weight @ square)) / math.hypot(height, width)
    return measures


def measure_sample(
    scanpath: Scanpath | None,
    pseudomask: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    thresholds: Sequence[float],
    original_size: tuple[int, int],
) -> dict[str, float]:
    """Measure one sample's gaze.

    Parameters
    ----------
    scanpath
        The sample's fixations; it has none at all (kept or dropped) if nobody looked at the image.
        None: the recording is a map, without fixations.
    pseudomask
        (L, H, W) uint8 in {0, 1}; level 0 is the precise one.
    truth
        (H, W) uint8 in {0, 1}, the ground-truth mask, of a training sample only: the test masks are
        used once, in the final evaluation. None: no mask, or not a training sample.
    thresholds
        (L,), one per level.
    original_size
        Height and width of the original image, px.

    Returns
    -------
    The columns from `fixations` to `on_target_count`; NaN if a measure does not exist.

    ``fixations, off_image, short``
        Numbers of fixations on the image, off the image, and too short.
    ``on_image``
        Share of the fixations on the image, among those that are long enough.
    ``dwell_ms, span_ms``
        Sum of the durations; end of the last fixation minus start of the first.
    ``dispersion``
        √(Σ dᵢ |pᵢ − c|² / Σ dᵢ) / √(H² + W²), with the durations dᵢ, the positions pᵢ in px of
        the original image and their centre c = Σ dᵢ pᵢ / Σ dᵢ: the fixations' root mean square
        distance from their centre as a share of the image's diagonal. 0: one point; √(1/12) ≈
        0.29: evenly all over the image; at most ½.
    ``area_…, dice_…``
        Per level, the share of the image that it covers, and its Dice against the truth.
    ``on_target, on_target_count``
        Share of fixation time, and of fixations, on the truth. GazeMedSeg (Zhong et al. 2024)
        reports 0.85 of the fixations for Kvasir-SEG.
    """
    names = table_columns(thresholds)
    measure_names = names[names.index("fixations") : names.index("flags")]
    measures = dict.fromkeys(measure_names, math.nan)
    if scanpath is not None:
        counts = (len(scanpath.fixations), scanpath.off_image, scanpath.short)
        measures |= dict(zip(("fixations", "off_image", "short"), map(float, counts), strict=True))
        if not any(counts):
            return measures
        measures |= _measure_fixations(scanpath, original_size)
    levels = pseudomask > 0
    area = levels.mean(axis=(1, 2))
    measures |= zip(level_columns("area", thresholds), map(float, area), strict=True)
    if truth is not None:
        scores = (dice(truth > 0, level) for level in levels)
        measures |= zip(level_columns("dice", thresholds), scores, strict=True)
        if scanpath is not None:
            measures |= on_target_shares(scanpath.fixations, truth)
    return measures


def flag_reasons(row: Mapping[str, Any], settings: QualitySettings) -> list[str]:
    """Describe each limit that a row of `measure_sample` exceeds, with the value in brackets.

    A measure that does not exist (NaN) exceeds no limit: an image without gaze is not flagged, and
    for a recorded map only the areas count.
    """
    areas = [value for name, value in row.items() if name.startswith("area_")]
    if math.isnan(areas[0]):
        return []
    max_dispersion, max_area = settings.max_dispersion, settings.max_area
    reasons = []
    if row["fixations"] < settings.min_fixations:
        reasons.append(f"fewer than {settings.min_fixations} fixations ({row['fixations']:.0f})")
    if row["dwell_ms"] < settings.min_dwell_ms:
        reasons.append(f"dwell below {settings.min_dwell_ms:g} ms ({row['dwell_ms']:.0f} ms)")
    if row["on_image"] < settings.min_on_image:
        reasons.append(
            f"below {settings.min_on_image:.3g} of the fixations on the image "
            f"({row['on_image']:.2f})"
        )
    if max_dispersion is not None and row["dispersion"] > max_dispersion:
        reasons.append(f"dispersion above {max_dispersion:.3g} ({row['dispersion']:.2f})")
    if areas[0] == 0:
        reasons.append("empty precise pseudomask")
    if max_area is not None and areas[-1] > max_area:
        reasons.append(f"broad pseudomask above {max_area:.3g} of the image ({areas[-1]:.2f})")
    return reasons


def flag_sample(row: Mapping[str, Any], settings: QualitySettings) -> dict[str, Any]:
    """Return the columns `flags` and `left_out` for a row of `measure_sample`."""
    reasons = flag_reasons(row, settings)
    return {
        "flags": _REASON_SEPARATOR.join(reasons),
        "left_out": bool(reasons) and settings.leave_out,
    }


def count_reasons(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Count each reason in the column `flags`, without its value; the most frequent comes first."""
    reasons = (reason for text in texts if text for reason in text.split(_REASON_SEPARATOR))
    return Counter(reason.partition(" (")[0] for reason in reasons).most_common()


def quality_table(rows: Iterable[Mapping[str, Any]], thresholds: Sequence[float]) -> pd.DataFrame:
    """Build the table from its rows, with the columns in the order of `table_columns`.

    Raises
    ------
    ValueError
        A row has other columns.
    """
    names = table_columns(thresholds)
    # Tuples need a third of the memory of dictionaries.
    values: list[tuple[Any, ...]] = []
    for row in rows:
        if set(row) != set(names):
            raise ValueError(f"unexpected or missing columns: {sorted(set(row) ^ set(names))}")
        values.append(tuple(row[name] for name in names))
    return pd.DataFrame(values, columns=names)


def _read_scanpath(gaze: h5py.File, i: int) -> Scanpath | None:
    """Read the scanpath of sample `i`; None if its gaze is a map, without fixations."""
    first, last = gaze["fixation_offset"][i : i + 2]
    if gaze["has_gaze"][i] and first == last:
        return None
    fixations = gaze["fixation"][first:last].astype(np.float64)
    return Scanpath(fixations, int(gaze["off_image_count"][i]), int(gaze["short_count"][i]))


def measure_quality(prepared: Path, gaze: Path, output: Path, settings: QualitySettings) -> None:
    """Write gaze_quality.csv: one row per sample, in the order of gaze.h5.

    The stage reads only the masks of the training split, and no limit uses them.
    """
    gaze_datasets = (
        "has_gaze", "fixation", "fixation_offset", "off_image_count", "short_count",
        "pseudomask", "threshold", "sample_id",
    )  # fmt: skip
    prepared_datasets = ("mask", "has_mask", "split", "subject_id", "original_size", "sample_id")
    with (
        io.open_h5(prepared, *prepared_datasets) as source,
        io.open_h5(gaze, *gaze_datasets) as file,
    ):
        io.check_same_samples(source, file)
        thresholds = file["threshold"][()].tolist()
        names = ("sample_id", "subject_id", "split")
        texts = zip(*(io.read_strings(source, name) for name in names), strict=True)
        training = io.read_strings(source, "split") == "train"
        use_mask = source["has_mask"][()] & training

        def rows() -> Iterator[dict[str, Any]]:
            for i, text in enumerate(cli.progress(texts, "quality", len(training))):
                row = measure_sample(
                    _read_scanpath(file, i),
                    file["pseudomask"][i],
                    source["mask"][i] if use_mask[i] else None,
                    thresholds,
                    tuple(source["original_size"][i].tolist()),
                )
                yield dict(zip(names, text, strict=True)) | row | flag_sample(row, settings)

        table = quality_table(rows(), thresholds)
    flags = table.loc[training, "flags"]
    reasons = ", ".join(f"{reason}: {count}" for reason, count in count_reasons(flags))
    cli.log.info(
        "%d of %d training samples flagged, %d left out%s",
        (flags != "").sum(), len(flags), table.loc[training, "left_out"].sum(),
        f" ({reasons})" if reasons else "",
    )  # fmt: skip
    job_log.log_provenance(io.provenance("quality", {"prepared": prepared, "gaze": gaze}, settings))
    io.write_csv(table, output)


if __name__ == "__main__":
    cli.run(measure_quality)
