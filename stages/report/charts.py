"""Charts of the report: arrays in, PNG bytes out."""

from math import ceil
from textwrap import fill
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from stages.report.figures import LINE_COLOUR, SUBTITLE_COLOUR, TEXT_COLOUR, to_png

# The colours of Okabe and Ito (2008), which colour-blind readers can distinguish. Without yellow:
# it marks the truth on images and is hard to see on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# One more than colours, so that many experiments have distinct pairs of colour and marker.
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_UNFLAGGED_COLOUR, _FLAGGED_COLOUR = PALETTE[0], PALETTE[1]
# Gaze quality: charts per row; width and height of a chart, inches; bins of a histogram.
_CHARTS_PER_ROW, _CHART_SIZE, _BINS = 4, (2.65, 2.0), 20


class Curve(NamedTuple):
    """The training history of one network."""

    experiment: str
    teacher: bool
    iteration: NDArray[np.float64]
    loss: NDArray[np.float64]
    # NaN at iterations without validation.
    val_dice: NDArray[np.float64]


class Series(NamedTuple):
    """Points of one experiment; an empty name stands for the labels."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    # Half the length of the whiskers; NaN: none.
    half: NDArray[np.float64]


class Relation(NamedTuple):
    """One quantity against another, with a series per experiment."""

    title: str
    x_name: str
    y_name: str
    series: list[Series]
    # Whether both axes are shares, and the diagonal is where they are equal.
    diagonal: bool = False


class Effort(NamedTuple):
    """The results of one experiment on one data set, and what its labels cost."""

    experiment: str
    # Annotation, seconds per image.
    seconds: float
    # Mean Dice and the ends of its interval; NaN: none.
    dice: float
    low: float
    high: float


class Distribution(NamedTuple):
    """A quantity per image, drawn as a histogram; or several quantities, drawn as boxes."""

    title: str
    # (N,), or (N, L) with L `names`; NaN for an image without the quantity.
    values: NDArray[np.float64]
    # Bins of the histogram: whole numbers, from 0 to 1, or from the lowest to the highest value.
    bins: Literal["count", "share", "range"] = "range"
    names: tuple[str, ...] = ()


def _disable_math(*texts: Text) -> None:
    for text in texts:
        text.set_parse_math(False)


def _style_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE_COLOUR)
    axes.tick_params(color=LINE_COLOUR, labelcolor=TEXT_COLOUR, labelsize=8)
    axes.grid(axis="y", color=LINE_COLOUR, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_legend(figure: Figure, handles: list[Line2D]) -> None:
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 6),
        frameon=False, fontsize=8.5, labelcolor=TEXT_COLOUR,
    )  # fmt: skip
    _disable_math(*legend.get_texts())


def _experiment_style(experiments: list[str], experiment: str) -> tuple[str, str]:
    """Return colour and marker of an experiment: the same in all figures of a page."""
    i = experiments.index(experiment)
    return PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]


def _experiment_handle(experiments: list[str], experiment: str, **style: Any) -> Line2D:
    """Return the entry of an experiment in a legend."""
    colour, marker = _experiment_style(experiments, experiment)
    return Line2D([], [], color=colour, marker=marker, label=experiment, **style)


def plot_dice(
    mean: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    datasets: list[str],
    experiments: list[str],
) -> bytes:
    """Plot mean Dice and its interval, one group of points per data set.

    Parameters
    ----------
    mean, low, high
        (data sets, experiments); NaN if missing.
    datasets, experiments
        Names of rows and columns.
    """
    figure = Figure(figsize=(10.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    _style_axes(axes)
    step = min(0.8 / len(experiments), 0.2)
    handles = []
    for j, experiment in enumerate(experiments):
        if np.isnan(mean[:, j]).all():
            continue
        colour, marker = _experiment_style(experiments, experiment)
        x = np.arange(len(datasets)) + (j - (len(experiments) - 1) / 2) * step
        axes.errorbar(
            x, mean[:, j], np.nan_to_num([mean[:, j] - low[:, j], high[:, j] - mean[:, j]]),
            color=colour, marker=marker, markersize=7, linestyle="none", elinewidth=1.6,
            capsize=3.5,
        )  # fmt: skip
        handles.append(_experiment_handle(experiments, experiment, linestyle="none"))
    lowest = np.append(np.fmin(mean, low)[~np.isnan(mean)], 0.9).min()
    # Unlike bars, points need no zero, so the axis starts at the next tenth below: differences stay
    # visible. The margin of 0.025 keeps points at both ends whole.
    axes.set_ylim(max(0.0, np.floor(lowest * 10 - 0.2) / 10) - 0.025, 1.025)
    axes.set_xlim(-0.5, len(datasets) - 0.5)
    lines = [fill(name, max(12, 110 // len(datasets))) for name in datasets]
    axes.set_xticks(range(len(datasets)), lines, fontsize=9.5)
    axes.tick_params(axis="x", length=0)
    for edge in range(1, len(datasets)):
        axes.axvline(edge - 0.5, color=LINE_COLOUR, linewidth=0.8)
    _disable_math(*axes.get_xticklabels())
    axes.set_ylabel("Dice of the student, test", fontsize=9, color=TEXT_COLOUR)
    _draw_legend(figure, handles)
    return to_png(figure)


def plot_relations(relations: list[Relation], experiments: list[str]) -> bytes:
    """Plot relations side by side, with one legend.

    Parameters
    ----------
    relations
        One or more.
    experiments
        All experiments of the page; the position decides the colour.
    """
    figure = Figure(figsize=(3.55 * len(relations), 3.3), layout="constrained")
    named: list[str] = []
    for axes, relation in zip(figure.subplots(1, len(relations), squeeze=False)[0], relations):
        _style_axes(axes)
        axes.set_title(relation.title, fontsize=9.5, color=TEXT_COLOUR, loc="left")
        axes.set_xlabel(relation.x_name, fontsize=9, color=TEXT_COLOUR)
        axes.set_ylabel(relation.y_name, fontsize=9, color=TEXT_COLOUR)
        if relation.diagonal:
            axes.plot([0, 1], [0, 1], color=LINE_COLOUR, linestyle="--", linewidth=1.2)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for series in relation.series:
            colour, marker = (
                _experiment_style(experiments, series.name) if series.name else (TEXT_COLOUR, "o")
            )
            named += [series.name] if series.name and series.name not in named else []
            known = ~np.isnan(series.y)
            axes.errorbar(
                series.x[known], series.y[known], np.nan_to_num(series.half[known]), color=colour,
                marker=marker, markersize=5, linewidth=1.3, elinewidth=1, capsize=2,
            )  # fmt: skip
    if named:
        handles = [_experiment_handle(experiments, name, markersize=5) for name in named]
        _draw_legend(figure, handles)
    return to_png(figure)


def plot_effort(
    efforts: dict[str, list[Effort]], published: dict[str, float], experiments: list[str]
) -> bytes:
    """Plot Dice against the annotation time, one small chart per data set.

    Parameters
    ----------
    efforts
        Title of each data set → its experiments; at least one.
    published
        Name of a kind of annotation → its published seconds per image: a dotted line.
    experiments
        All experiments of the page; the position decides the colour.
    """
    columns, rows = min(len(efforts), 3), ceil(len(efforts) / 3)
    figure = Figure(figsize=(3.55 * columns, 3.0 * rows + 0.3), layout="constrained")
    for position, (title, points) in enumerate(efforts.items(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        _style_axes(axes)
        _disable_math(axes.set_title(title, fontsize=9.5, color=TEXT_COLOUR, loc="left"))
        axes.set_xscale("log")
        for name, seconds in published.items():
            axes.axvline(seconds, color=SUBTITLE_COLOUR, linewidth=0.9, linestyle=":")
            axes.text(
                seconds, 0.02, f" {name}", transform=axes.get_xaxis_transform(), rotation=90,
                fontsize=7.5, color=SUBTITLE_COLOUR, ha="right", va="bottom",
            )  # fmt: skip
        for point in points:
            colour, marker = _experiment_style(experiments, point.experiment)
            whiskers = np.nan_to_num([[point.dice - point.low], [point.high - point.dice]])
            axes.errorbar(
                point.seconds, point.dice, whiskers, color=colour, marker=marker, markersize=6,
                elinewidth=1.2, capsize=2.5,
            )  # fmt: skip
        times = [point.seconds for point in points] + list(published.values())
        axes.set_xlim(min(times) / 1.6, max(times) * 1.6)
        axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("annotation, seconds per image", fontsize=9, color=TEXT_COLOUR)
        axes.set_ylabel("Dice of the student, test", fontsize=9, color=TEXT_COLOUR)
    shown = {point.experiment for points in efforts.values() for point in points}
    handles = [
        _experiment_handle(experiments, name, linestyle="none")
        for name in experiments
        if name in shown
    ]
    _draw_legend(figure, handles)
    return to_png(figure)


def plot_training_curves(curves: list[Curve], experiments: list[str]) -> bytes:
    """Plot loss and validation Dice against the iteration; teachers dashed, students solid.

    Parameters
    ----------
    curves
        The curves of one data set. All seeds of an experiment have the same colour.
    experiments
        All experiments of the page; the position decides the colour.
    """
    figure = Figure(figsize=(10.6, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "training loss"), (right, "validation Dice")):
        _style_axes(axes)
        axes.set_title(name, fontsize=9.5, color=TEXT_COLOUR, loc="left")
        axes.set_xlabel("iteration", fontsize=9, color=TEXT_COLOUR)
    for curve in curves:
        colour, marker = _experiment_style(experiments, curve.experiment)
        line = {"color": colour, "linestyle": "--" if curve.teacher else "-", "linewidth": 1.5,
                "marker": marker, "markersize": 4}  # fmt: skip
        left.plot(curve.iteration, curve.loss, markevery=0.15, **line)
        known = ~np.isnan(curve.val_dice)
        right.plot(curve.iteration[known], curve.val_dice[known], **line)
    left.set_ylim(bottom=0)
    if all(np.isnan(curve.val_dice).all() for curve in curves):
        right.set(xticks=[], yticks=[])
        right.text(0.5, 0.5, "no validation masks", transform=right.transAxes,
                   ha="center", fontsize=9, color=SUBTITLE_COLOUR)  # fmt: skip
    handles = []
    for name in experiments:
        if any(curve.experiment == name for curve in curves):
            handles.append(_experiment_handle(experiments, name, markersize=5))
    grey = "#7b8794"
    if not all(curve.teacher for curve in curves):
        handles.append(Line2D([], [], color=grey, linestyle="-", label="student"))
    if any(curve.teacher for curve in curves):
        handles.append(Line2D([], [], color=grey, linestyle="--", label="teacher"))
    _draw_legend(figure, handles)
    return to_png(figure)


def _bin_edges(values: NDArray[np.float64], bins: str) -> NDArray[np.float64]:
    if bins == "share":
        return np.linspace(0, 1, _BINS + 1)
    lowest, highest = values.min(), values.max()
    if bins == "count":
        step = ceil((highest - lowest + 1) / _BINS)
        return np.arange(lowest, highest + step + 1, step) - 0.5
    return np.histogram_bin_edges(values, _BINS)


def _tick_locator(integer: bool) -> MaxNLocator:
    return MaxNLocator(5, integer=integer, steps=[1, 2, 5, 10])


def _draw_histogram(axes: Axes, distribution: Distribution, flagged: NDArray[np.bool_]) -> None:
    known = ~np.isnan(distribution.values)
    values, is_flagged = distribution.values[known], flagged[known]
    axes.hist(
        [values[~is_flagged], values[is_flagged]],
        _bin_edges(values, distribution.bins).tolist(), stacked=True,
        color=[_UNFLAGGED_COLOUR, _FLAGGED_COLOUR], edgecolor="white", linewidth=0.6,
    )  # fmt: skip
    axes.axvline(float(np.median(values)), color=TEXT_COLOUR, linewidth=1.1, linestyle="--")
    axes.xaxis.set_major_locator(_tick_locator(integer=distribution.bins == "count"))
    axes.yaxis.set_major_locator(_tick_locator(integer=True))
    axes.set_ylabel("images", fontsize=8, color=SUBTITLE_COLOUR)


def _draw_boxes(axes: Axes, distribution: Distribution) -> None:
    line = {"color": _UNFLAGGED_COLOUR, "linewidth": 1.2}
    axes.boxplot(
        [column[~np.isnan(column)] for column in distribution.values.T],
        whis=(5, 95), widths=0.45, tick_labels=distribution.names, patch_artist=True,
        boxprops=line | {"facecolor": "#0072B233"}, whiskerprops=line, capprops=line,
        medianprops={"color": TEXT_COLOUR, "linewidth": 1.4},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#0072B280"},
    )  # fmt: skip
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(_tick_locator(integer=False))


def plot_gaze_quality(distributions: list[Distribution], flagged: NDArray[np.bool_]) -> bytes:
    """Plot the gaze quality of the images of one data set, one small chart per distribution.

    Histograms stack flagged images on the others and mark the median of all. Boxes show the
    quartiles; their whiskers reach from the 5th to the 95th percentile.

    Parameters
    ----------
    distributions
        One or more; each has a value for at least one image.
    flagged
        (N,), whether the image is flagged.
    """
    columns, rows = (
        min(len(distributions), _CHARTS_PER_ROW),
        ceil(len(distributions) / _CHARTS_PER_ROW),
    )
    # Boxes do not distinguish flagged images, so they need no legend.
    legend_height = (
        0.3
        if flagged.any() and not all(distribution.names for distribution in distributions)
        else 0
    )
    size = (columns * _CHART_SIZE[0], rows * _CHART_SIZE[1] + legend_height)
    figure = Figure(figsize=size, layout="constrained")
    for position, distribution in enumerate(distributions, start=1):
        axes = figure.add_subplot(rows, columns, position)
        _style_axes(axes)
        axes.set_title(distribution.title, fontsize=8.5, color=TEXT_COLOUR, loc="left")
        if distribution.names:
            _draw_boxes(axes, distribution)
        else:
            _draw_histogram(axes, distribution, flagged)
    if legend_height:
        colours = ((_UNFLAGGED_COLOUR, "not flagged"), (_FLAGGED_COLOUR, "flagged"))
        _draw_legend(figure, [
            Line2D([], [], color=colour, label=name, linestyle="none", marker="s", markersize=7)
            for colour, name in colours
        ])  # fmt: skip
    return to_png(figure)
