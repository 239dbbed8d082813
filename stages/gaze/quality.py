"""gaze.h5 → gaze_quality.csv: how good each sample's gaze is, and what is wrong with it.

Numbers against the masks are for readers alone: `flags` does not see them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import cli, io, job_log
from stages.core.metrics import dice
from stages.gaze.recordings.scan import Scan, on_target
from stages.settings.quality import QualitySettings

_BETWEEN = "; "


def level_columns(kind: str, thresholds: Iterable[float]) -> list[str]:
    """Name the columns of each level's area or Dice: `area_0.5`, `area_0.3`."""
    return [f"{kind}_{threshold:g}" for threshold in thresholds]


def columns(thresholds: Sequence[float]) -> list[str]:
    """Columns of gaze_quality.csv, in their order; `thresholds` of the levels, in theirs."""
    return [
        "sample_id", "subject_id", "split",
        "fixations", "off_image", "short", "on_image", "dwell_ms", "span_ms", "dispersion",
        *level_columns("area", thresholds),
        *level_columns("dice", thresholds),
        "on_target", "on_target_count", "flags", "left_out",
    ]  # fmt: skip


def _measure_scan(scan: Scan, original_size: tuple[int, int]) -> dict[str, float]:
    x, y, duration, start = scan.fixations.T
    seen, dwell = len(duration), float(duration.sum())
    measured = {
        "on_image": seen / (seen + scan.off_image) if seen + scan.off_image else math.nan,
        "dwell_ms": dwell,
        "span_ms": float((start + duration).max() - start.min()) if seen else 0.0,
    }
    if dwell > 0:
        height, width = original_size
        position, weight = np.stack([x * width, y * height], axis=1), duration / dwell
        square = ((position - weight @ position) ** 2).sum(axis=1)
        measured["dispersion"] = math.sqrt(float(weight @ square)) / math.hypot(height, width)
    return measured


def measure(
    scan: Scan | None,
    pseudomask: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    thresholds: Sequence[float],
    original_size: tuple[int, int],
) -> dict[str, float]:
    """Measure one sample's gaze.

    Parameters
    ----------
    scan
        Its fixations; without any, kept or dropped, where nobody looked at the image. None: its
        gaze came as a map that was made elsewhere.
    pseudomask
        (L, H, W) uint8 in {0, 1}, level 0 the precise one: as the gaze gives it, before any
        sample is left out.
    truth
        (H, W) uint8 in {0, 1}. Only of the training split: the test split's truth is touched
        once, at the end. None: not known, or not to be looked at.
    thresholds
        (L,), of each level.
    original_size
        Height and width of the image as it was looked at.

    Returns
    -------
    The columns from `fixations` to `on_target_count`; NaN: does not exist.

    ``fixations, off_image, short``
        How many are on the image, off it, and too short.
    ``on_image``
        Share of the fixations, without the short ones, that is on the image.
    ``dwell_ms, span_ms``
        Sum of the durations; end of the last fixation minus start of the first.
    ``dispersion``
        √(Σ dᵢ |pᵢ − c|² / Σ dᵢ) / √(H² + W²), with the durations dᵢ, the positions pᵢ in px of
        the original image and their centre c = Σ dᵢ pᵢ / Σ dᵢ: the fixations' root mean square
        distance from their centre as a share of the image's diagonal. 0: one point; √(1/12) ≈
        0.29: evenly all over the image; at most ½.
    ``area_…, dice_…``
        Per level, the share of the image that it takes, and its Dice against the truth.
    ``on_target, on_target_count``
        Share of fixation time, and of fixations, on the truth. GazeMedSeg (Zhong et al. 2024)
        reports 0.85 of the fixations for Kvasir-SEG.
    """
    names = columns(thresholds)
    numbers = names[names.index("fixations") : names.index("flags")]
    measured = dict.fromkeys(numbers, math.nan)
    if scan is not None:
        counts = (len(scan.fixations), scan.off_image, scan.short)
        measured |= dict(zip(("fixations", "off_image", "short"), map(float, counts), strict=True))
        if not any(counts):
            return measured
        measured |= _measure_scan(scan, original_size)
    levels = pseudomask > 0
    area = levels.mean(axis=(1, 2))
    measured |= zip(level_columns("area", thresholds), map(float, area), strict=True)
    if truth is not None:
        scores = (dice(truth > 0, level) for level in levels)
        measured |= zip(level_columns("dice", thresholds), scores, strict=True)
        if scan is not None:
            measured |= on_target(scan.fixations, truth)
    return measured


def flags(row: Mapping[str, Any], settings: QualitySettings) -> list[str]:
    """Tell in words which limits a row of `measure` is beyond; the value stands in brackets.

    What does not exist (NaN) is beyond no limit: an image that nobody looked at is not flagged,
    and of a map that was made elsewhere only the areas are judged.
    """
    areas = [value for name, value in row.items() if name.startswith("area_")]
    if math.isnan(areas[0]):
        return []
    dispersion, largest = settings.max_dispersion, settings.max_area
    found = []
    if row["fixations"] < settings.min_fixations:
        found.append(f"fewer than {settings.min_fixations} fixations ({row['fixations']:.0f})")
    if row["dwell_ms"] < settings.min_dwell_ms:
        found.append(f"dwell below {settings.min_dwell_ms:g} ms ({row['dwell_ms']:.0f} ms)")
    if row["on_image"] < settings.min_on_image:
        found.append(
            f"below {settings.min_on_image:.3g} of the fixations on the image "
            f"({row['on_image']:.2f})"
        )
    if dispersion is not None and row["dispersion"] > dispersion:
        found.append(f"dispersion above {dispersion:.3g} ({row['dispersion']:.2f})")
    if areas[0] == 0:
        found.append("empty precise pseudomask")
    if largest is not None and areas[-1] > largest:
        found.append(f"broad pseudomask above {largest:.3g} of the image ({areas[-1]:.2f})")
    return found


def judge(row: Mapping[str, Any], settings: QualitySettings) -> dict[str, Any]:
    """Return the columns `flags` and `left_out` of a row of `measure`."""
    found = flags(row, settings)
    return {"flags": _BETWEEN.join(found), "left_out": bool(found) and settings.leave_out}


def count_reasons(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Count each reason in the column `flags`, without its value; the most frequent first."""
    reasons = (reason for text in texts if text for reason in text.split(_BETWEEN))
    return Counter(reason.partition(" (")[0] for reason in reasons).most_common()


def table(rows: Iterable[Mapping[str, Any]], thresholds: Sequence[float]) -> pd.DataFrame:
    """Put the rows in the order of `columns`.

    Raises
    ------
    ValueError
        A row has other columns.
    """
    names, found = columns(thresholds), list(rows)
    for row in found:
        if set(row) != set(names):
            raise ValueError(f"columns {sorted(set(row) ^ set(names))} are too many or absent")
    return pd.DataFrame(found, columns=names)


def _read_scan(gaze: h5py.File, i: int) -> Scan | None:
    first, last = gaze["fixation_offset"][i : i + 2]
    if gaze["has_gaze"][i] and first == last:
        return None
    fixations = gaze["fixation"][first:last].astype(np.float64)
    return Scan(fixations, int(gaze["off_image_count"][i]), int(gaze["short_count"][i]))


def measure_quality(prepared: Path, gaze: Path, output: Path, settings: QualitySettings) -> None:
    """Write gaze_quality.csv: one row per sample, in the order of gaze.h5.

    Only the masks of the training split are read, and no limit concerns them.
    """
    needed = (
        "has_gaze", "fixation", "fixation_offset", "off_image_count", "short_count",
        "pseudomask", "threshold", "sample_id",
    )  # fmt: skip
    known = ("mask", "has_mask", "split", "subject_id", "original_size", "sample_id")
    with io.open_h5(prepared, *known) as source, io.open_h5(gaze, *needed) as file:
        io.check_same_samples(source, file)
        thresholds = file["threshold"][()].tolist()
        names = ("sample_id", "subject_id", "split")
        texts = zip(*(io.read_strings(source, name) for name in names), strict=True)
        training = io.read_strings(source, "split") == "train"
        masked = source["has_mask"][()] & training
        rows = []
        for i, text in enumerate(cli.progress(texts, "quality", len(training))):
            row = measure(
                _read_scan(file, i),
                file["pseudomask"][i],
                source["mask"][i] if masked[i] else None,
                thresholds,
                tuple(source["original_size"][i].tolist()),
            )
            rows.append(dict(zip(names, text, strict=True)) | row | judge(row, settings))
    made = table(rows, thresholds)
    flagged = made.loc[training, "flags"]
    reasons = ", ".join(f"{reason}: {count}" for reason, count in count_reasons(flagged))
    cli.log.info(
        "%d of %d training samples flagged, %d left out%s",
        (flagged != "").sum(), len(flagged), made.loc[training, "left_out"].sum(),
        f" ({reasons})" if reasons else "",
    )  # fmt: skip
    job_log.made_from(io.provenance("quality", {"prepared": prepared, "gaze": gaze}, settings))
    io.write_csv(made, output)


if __name__ == "__main__":
    cli.run(measure_quality)
