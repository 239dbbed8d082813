"""One data set's gaze in numbers: gaze_quality.csv as a table, a figure and its caption."""

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import cli, io
from stages.gaze import quality
from stages.report.charts import Spread, gaze_quality
from stages.report.page import Level, Picture, number, spread

_TEXT = ("sample_id", "subject_id", "split", "flags", "left_out")
# Reasons that a caption names.
_MOST = 3


class Quality(NamedTuple):
    """What the page shows of a gaze_quality.csv."""

    levels: list[Level]
    picture: Picture | None
    caption: str


def read(file: Path, gaze: h5py.File) -> pd.DataFrame:
    """Read the quality of a gaze.h5: `quality.columns`, in the file's order, and `learned`.

    `learned` tells of each sample whether its pseudomasks may be learned from: it has gaze and is
    not left out.

    Raises
    ------
    BadInput
        The table is none, or of other samples.
    """
    names = quality.columns(gaze["threshold"][()])
    table = io.read_csv(file, _TEXT, tuple(name for name in names if name not in _TEXT))
    if not np.array_equal(table["sample_id"], io.read_strings(gaze, "sample_id")):
        raise cli.BadInput(
            file,
            "column sample_id",
            found=f"{len(table)} ids, not those of {gaze.filename}",
            expected=f"the same {len(gaze['sample_id'])} ids in the same order",
            mend="delete both files and run snakemake again: they are of different runs",
        )
    kept = table["left_out"] != "True"
    return table.assign(learned=gaze["has_gaze"][()] & kept)


def _levels(learned: pd.DataFrame, thresholds: NDArray[np.float32]) -> list[Level]:
    areas = quality.level_columns("area", thresholds)
    scores = quality.level_columns("dice", thresholds)
    return [
        Level(
            threshold=f"≥ {threshold:.2g}",
            area=spread(100 * learned[area].mean(), 100 * learned[area].std(), (1, 1)),
            smallest=number(100 * learned[area].min(), 1),
            largest=number(100 * learned[area].max(), 1),
            dice=spread(learned[score].mean(), learned[score].std(), (3, 2)),
        )
        for threshold, area, score in zip(thresholds, areas, scores, strict=True)
    ]


def _spreads(looked: pd.DataFrame, thresholds: NDArray[np.float32]) -> list[Spread]:
    """Choose what there is to draw of the samples with gaze."""

    def column(name: str) -> NDArray[np.float64]:
        return looked[name].to_numpy(float)

    def columns(kind: str) -> NDArray[np.float64]:
        return looked[quality.level_columns(kind, thresholds)].to_numpy(float)

    names = tuple(f"≥ {threshold:.2g}" for threshold in thresholds)
    panels = [
        Spread("Fixations per image", column("fixations"), "count"),
        Spread("Dwell per image, s", column("dwell_ms") / 1000),
        Spread("Fixations on the image, share", column("on_image"), "share"),
        Spread("Dispersion, share of the diagonal", column("dispersion")),
        Spread("Pseudomask, share of the image", columns("area"), names=names),
        Spread("Dice against the mask, train", columns("dice"), names=names),
        Spread("Dwell on the mask, share, train", column("on_target"), "share"),
    ]
    return [panel for panel in panels if not np.isnan(panel.values).all()]


def _caption(looked: pd.DataFrame, panels: list[Spread]) -> str:
    images = "image" if len(looked) == 1 else "images"
    told = [f"{len(looked)} {images} with gaze."]
    if any(not panel.names for panel in panels):
        told.append("Bars: images; dashed line: median.")
    told.append(
        "Boxes: quartiles of each pseudomask level; whiskers: from the 5th to the 95th percentile."
    )
    means = [
        (looked["fixations"], "{:.1f} fixations"),
        (looked["dwell_ms"] / 1000, "{:.1f} s of dwell"),
        (100 * looked["on_image"], "{:.1f}% of the fixations on the image"),
        (100 * looked["dispersion"], "dispersion {:.1f}% of the diagonal"),
        (100 * looked["on_target"], "{:.1f}% of the dwell on the mask (train)"),
        (100 * looked["on_target_count"], "{:.1f}% of the fixations on the mask (train)"),
    ]
    if known := [text.format(values.mean()) for values, text in means if values.notna().any()]:
        told.append(f"Means: {'; '.join(known)}.")
    if looked["dispersion"].notna().any():
        told.append(
            "Dispersion: root mean square distance of the fixations from their centre, by duration."
        )
    flagged = int((looked["flags"] != "").sum())
    if not flagged:
        return " ".join([*told, "No image is flagged."])
    out = int((looked["left_out"] == "True").sum())
    share = "all" if out == flagged else out or "none"
    reasons = quality.count_reasons(looked["flags"])
    named = "; ".join(f"{reason} ({count})" for reason, count in reasons[:_MOST])
    most = "most frequent reasons" if len(reasons) > _MOST else "reasons"
    told.append(f"Flagged: {flagged}, {share} of them left out of training; {most}: {named}.")
    return " ".join(told)


def describe(table: pd.DataFrame, thresholds: NDArray[np.float32]) -> Quality:
    """Describe a table of `read`.

    The levels are of the samples that are learned from; figure and caption also of those left
    out.
    """
    looked = table[table[quality.level_columns("area", thresholds)[0]].notna()]
    levels = _levels(table[table["learned"]], thresholds)
    if looked.empty:
        return Quality(levels, None, "")
    panels = _spreads(looked, thresholds)
    png = gaze_quality(panels, (looked["flags"] != "").to_numpy())
    alt = "per image: " + ", ".join(panel.title for panel in panels)
    return Quality(levels, Picture(png, alt), _caption(looked, panels))
