"""gaze_quality.csv of one data set → a table, a chart and its caption."""

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import cli, io
from stages.gaze import quality
from stages.report.charts import Distribution, plot_gaze_quality
from stages.report.page import LevelRow, Picture, format_mean_std, format_number

_TEXT_COLUMNS = ("sample_id", "subject_id", "split", "flags", "left_out")
# Limit of the reasons in a caption.
_MAX_REASONS = 3


class QualityFigure(NamedTuple):
    """The part of the page about a gaze_quality.csv."""

    levels: list[LevelRow]
    picture: Picture | None
    caption: str


def read_quality(file: Path, gaze: h5py.File) -> pd.DataFrame:
    """Read the quality of a gaze.h5: `quality.table_columns` and `is_usable`.

    The rows have the order of gaze.h5. `is_usable` is True for a sample that has gaze and is not
    excluded: its pseudomasks may serve as training labels.

    Raises
    ------
    BadInput
        The file is no such table, or has other samples than gaze.h5.
    """
    names = quality.table_columns(gaze["threshold"][()])
    table = io.read_csv(
        file, _TEXT_COLUMNS, tuple(name for name in names if name not in _TEXT_COLUMNS)
    )
    if not np.array_equal(table["sample_id"], io.read_strings(gaze, "sample_id")):
        raise cli.BadInput(
            file,
            "column sample_id",
            found=f"{len(table)} ids, which differ from those of {gaze.filename}",
            expected=f"the same {len(gaze['sample_id'])} ids in the same order",
            mend="delete both files and run snakemake again: they come from different runs",
        )
    is_included = table["left_out"] != "True"
    return table.assign(is_usable=gaze["has_gaze"][()] & is_included)


def _level_rows(usable: pd.DataFrame, thresholds: NDArray[np.float32]) -> list[LevelRow]:
    areas = quality.level_columns("area", thresholds)
    scores = quality.level_columns("dice", thresholds)
    return [
        LevelRow(
            threshold=f"≥ {threshold:.2g}",
            area=format_mean_std(100 * usable[area].mean(), 100 * usable[area].std(), (1, 1)),
            smallest=format_number(100 * usable[area].min(), 1),
            largest=format_number(100 * usable[area].max(), 1),
            dice=format_mean_std(usable[score].mean(), usable[score].std(), (3, 2)),
        )
        for threshold, area, score in zip(thresholds, areas, scores, strict=True)
    ]


def _distributions(with_gaze: pd.DataFrame, thresholds: NDArray[np.float32]) -> list[Distribution]:
    """Return the distributions of the samples with gaze, without those that have no value."""

    def column(name: str) -> NDArray[np.float64]:
        return with_gaze[name].to_numpy(float)

    def columns(kind: str) -> NDArray[np.float64]:
        return with_gaze[quality.level_columns(kind, thresholds)].to_numpy(float)

    names = tuple(f"≥ {threshold:.2g}" for threshold in thresholds)
    distributions = [
        Distribution("Fixations per image", column("fixations"), "count"),
        Distribution("Dwell per image, s", column("dwell_ms") / 1000),
        Distribution("Fixations on the image, share", column("on_image"), "share"),
        Distribution("Dispersion, share of the diagonal", column("dispersion")),
        Distribution("Pseudomask, share of the image", columns("area"), names=names),
        Distribution("Dice against the mask, train", columns("dice"), names=names),
        Distribution("Dwell on the mask, share, train", column("on_target"), "share"),
    ]
    return [
        distribution for distribution in distributions if not np.isnan(distribution.values).all()
    ]


def _caption(with_gaze: pd.DataFrame, distributions: list[Distribution]) -> str:
    images = "image" if len(with_gaze) == 1 else "images"
    sentences = [f"{len(with_gaze)} {images} with gaze."]
    if any(not distribution.names for distribution in distributions):
        sentences.append("Bars: number of images; dashed line: median.")
    sentences.append("Boxes: quartiles of each pseudomask level; whiskers: 5th to 95th percentile.")
    means = [
        (with_gaze["fixations"], "{:.1f} fixations"),
        (with_gaze["dwell_ms"] / 1000, "{:.1f} s of dwell time"),
        (100 * with_gaze["on_image"], "{:.1f}% of the fixations on the image"),
        (100 * with_gaze["dispersion"], "dispersion {:.1f}% of the diagonal"),
        (100 * with_gaze["on_target"], "{:.1f}% of the dwell time on the mask (train)"),
        (100 * with_gaze["on_target_count"], "{:.1f}% of the fixations on the mask (train)"),
    ]
    if known := [text.format(values.mean()) for values, text in means if values.notna().any()]:
        sentences.append(f"Means: {'; '.join(known)}.")
    if with_gaze["dispersion"].notna().any():
        sentences.append(
            "Dispersion: root mean square distance of the fixations from their centre, weighted "
            "by duration."
        )
    flagged = int((with_gaze["flags"] != "").sum())
    if not flagged:
        return " ".join([*sentences, "No image is flagged."])
    excluded = int((with_gaze["left_out"] == "True").sum())
    share = "all" if excluded == flagged else excluded or "none"
    reasons = quality.count_reasons(with_gaze["flags"])
    named = "; ".join(f"{reason} ({count})" for reason, count in reasons[:_MAX_REASONS])
    label = "most frequent reasons" if len(reasons) > _MAX_REASONS else "reasons"
    sentences.append(
        f"Flagged: {flagged}, {share} of them excluded from training; {label}: {named}."
    )
    return " ".join(sentences)


def quality_figure(table: pd.DataFrame, thresholds: NDArray[np.float32]) -> QualityFigure:
    """Return the level rows, the chart and its caption from a table of `read_quality`.

    The level rows cover the usable samples. Chart and caption cover all samples with gaze, also
    the excluded ones.
    """
    with_gaze = table[table[quality.level_columns("area", thresholds)[0]].notna()]
    levels = _level_rows(table[table["is_usable"]], thresholds)
    if with_gaze.empty:
        return QualityFigure(levels, None, "")
    distributions = _distributions(with_gaze, thresholds)
    png = plot_gaze_quality(distributions, (with_gaze["flags"] != "").to_numpy())
    alt = "per image: " + ", ".join(distribution.title for distribution in distributions)
    return QualityFigure(levels, Picture(png, alt), _caption(with_gaze, distributions))
