"""Charts of the report: arrays in, PNG bytes out."""

from math import ceil
from textwrap import fill
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from stages.report.figures import FAINT, INK, SOFT, png

# Okabe and Ito's colours (2008), told apart by colour-blind readers; yellow is left to the truth,
# which lies on images and never on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# One more than there are colours, so that many experiments still differ in the pair.
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_PLAIN, _FLAGGED = PALETTE[0], PALETTE[1]
# Small multiples side by side; width and height of one, in; bins of a histogram, at most.
_ABREAST, _SMALL, _BINS = 4, (2.65, 2.0), 20


class Curve(NamedTuple):
    """The history of one network's training."""

    experiment: str
    teacher: bool
    iteration: NDArray[np.float64]
    loss: NDArray[np.float64]
    # NaN where it was not computed.
    val_dice: NDArray[np.float64]


class Spread(NamedTuple):
    """A number of each image: a histogram, or a box for each of several."""

    title: str
    # (N,), or (N, L) with L `names`; NaN: an image that lacks it.
    values: NDArray[np.float64]
    # What the bins of a histogram are: whole numbers, parts of 0 to 1, or parts of what is there.
    bins: Literal["count", "share", "range"] = "range"
    names: tuple[str, ...] = ()


def _plain(*texts: Text) -> None:
    for text in texts:
        text.set_parse_math(False)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=8)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 6),
        frameon=False, fontsize=8.5, labelcolor=INK,
    )  # fmt: skip
    _plain(*legend.get_texts())


def _look(experiments: list[str], experiment: str) -> tuple[str, str]:
    """Colour and marker of an experiment: the same in all figures of a page."""
    i = experiments.index(experiment)
    return PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]


def dice_chart(
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    datasets: list[str],
    experiments: list[str],
) -> bytes:
    """Draw mean Dice ± std, one group of points per data set.

    Parameters
    ----------
    mean, std
        (data sets, experiments); NaN where there is none.
    datasets, experiments
        Their names.
    """
    figure = Figure(figsize=(10.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    _tidy(axes)
    step = min(0.8 / len(experiments), 0.2)
    handles = []
    for j, experiment in enumerate(experiments):
        if np.isnan(mean[:, j]).all():
            continue
        colour, marker = _look(experiments, experiment)
        x = np.arange(len(datasets)) + (j - (len(experiments) - 1) / 2) * step
        axes.errorbar(
            x, mean[:, j], np.nan_to_num(std[:, j]), color=colour, marker=marker,
            markersize=7, linestyle="none", elinewidth=1.6, capsize=3.5,
        )  # fmt: skip
        handles.append(
            Line2D([], [], color=colour, marker=marker, linestyle="none", label=experiment)
        )
    lowest = np.append((mean - np.nan_to_num(std))[~np.isnan(mean)], 0.9).min()
    # Points, unlike bars, need no zero: from the next tenth below, differences stay visible. A
    # point on either end is drawn whole.
    axes.set_ylim(max(0.0, np.floor(lowest * 10 - 0.2) / 10) - 0.025, 1.025)
    axes.set_xlim(-0.5, len(datasets) - 0.5)
    lines = [fill(name, max(12, 110 // len(datasets))) for name in datasets]
    axes.set_xticks(range(len(datasets)), lines, fontsize=9.5)
    axes.tick_params(axis="x", length=0)
    for edge in range(1, len(datasets)):
        axes.axvline(edge - 0.5, color=FAINT, linewidth=0.8)
    _plain(*axes.get_xticklabels())
    axes.set_ylabel("Dice of the student, test", fontsize=9, color=INK)
    _legend(figure, handles)
    return png(figure)


def training_curves(curves: list[Curve], experiments: list[str]) -> bytes:
    """Draw loss and validation Dice against the iteration; teachers dashed, students solid.

    Parameters
    ----------
    curves
        Of one data set; seeds of an experiment share its colour.
    experiments
        All of the page, in the order that gives them their colours.
    """
    figure = Figure(figsize=(10.6, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "training loss"), (right, "validation Dice")):
        _tidy(axes)
        axes.set_title(name, fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel("iteration", fontsize=9, color=INK)
    for curve in curves:
        colour, marker = _look(experiments, curve.experiment)
        line = {"color": colour, "linestyle": "--" if curve.teacher else "-", "linewidth": 1.5,
                "marker": marker, "markersize": 4}  # fmt: skip
        left.plot(curve.iteration, curve.loss, markevery=0.15, **line)
        known = ~np.isnan(curve.val_dice)
        right.plot(curve.iteration[known], curve.val_dice[known], **line)
    left.set_ylim(bottom=0)
    if all(np.isnan(curve.val_dice).all() for curve in curves):
        right.set(xticks=[], yticks=[])
        right.text(0.5, 0.5, "no validation masks", transform=right.transAxes,
                   ha="center", fontsize=9, color=SOFT)  # fmt: skip
    handles = []
    for name in experiments:
        if any(curve.experiment == name for curve in curves):
            colour, marker = _look(experiments, name)
            handles.append(Line2D([], [], color=colour, marker=marker, markersize=5, label=name))
    grey = "#7b8794"
    if not all(curve.teacher for curve in curves):
        handles.append(Line2D([], [], color=grey, linestyle="-", label="student"))
    if any(curve.teacher for curve in curves):
        handles.append(Line2D([], [], color=grey, linestyle="--", label="teacher"))
    _legend(figure, handles)
    return png(figure)


def _edges(values: NDArray[np.float64], bins: str) -> NDArray[np.float64]:
    if bins == "share":
        return np.linspace(0, 1, _BINS + 1)
    lowest, highest = values.min(), values.max()
    if bins == "count":
        step = ceil((highest - lowest + 1) / _BINS)
        return np.arange(lowest, highest + step + 1, step) - 0.5
    return np.histogram_bin_edges(values, _BINS)


def _ticks(whole: bool) -> MaxNLocator:
    return MaxNLocator(5, integer=whole, steps=[1, 2, 5, 10])


def _histogram(axes: Axes, spread: Spread, flagged: NDArray[np.bool_]) -> None:
    known = ~np.isnan(spread.values)
    values, marked = spread.values[known], flagged[known]
    axes.hist(
        [values[~marked], values[marked]], _edges(values, spread.bins).tolist(), stacked=True,
        color=[_PLAIN, _FLAGGED], edgecolor="white", linewidth=0.6,
    )  # fmt: skip
    axes.axvline(float(np.median(values)), color=INK, linewidth=1.1, linestyle="--")
    axes.xaxis.set_major_locator(_ticks(whole=spread.bins == "count"))
    axes.yaxis.set_major_locator(_ticks(whole=True))
    axes.set_ylabel("images", fontsize=8, color=SOFT)


def _boxes(axes: Axes, spread: Spread) -> None:
    line = {"color": _PLAIN, "linewidth": 1.2}
    axes.boxplot(
        [column[~np.isnan(column)] for column in spread.values.T],
        whis=(5, 95), widths=0.45, tick_labels=spread.names, patch_artist=True,
        boxprops=line | {"facecolor": "#0072B233"}, whiskerprops=line, capprops=line,
        medianprops={"color": INK, "linewidth": 1.4},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#0072B280"},
    )  # fmt: skip
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(_ticks(whole=False))


def gaze_quality(spreads: list[Spread], flagged: NDArray[np.bool_]) -> bytes:
    """Draw small multiples of how the images of one data set were looked at.

    Parameters
    ----------
    spreads
        At least one, each with a number of at least one image. Histograms stack the flagged
        images on the others and mark the median of all; a box reaches from quartile to quartile,
        its whiskers from the 5th to the 95th percentile.
    flagged
        (N,).
    """
    columns, rows = min(len(spreads), _ABREAST), ceil(len(spreads) / _ABREAST)
    # Boxes do not tell flagged images from others.
    legend = 0.3 if flagged.any() and not all(spread.names for spread in spreads) else 0
    size = (columns * _SMALL[0], rows * _SMALL[1] + legend)
    figure = Figure(figsize=size, layout="constrained")
    for place, spread in enumerate(spreads, start=1):
        axes = figure.add_subplot(rows, columns, place)
        _tidy(axes)
        axes.set_title(spread.title, fontsize=8.5, color=INK, loc="left")
        if spread.names:
            _boxes(axes, spread)
        else:
            _histogram(axes, spread, flagged)
    if legend:
        pairs = ((_PLAIN, "not flagged"), (_FLAGGED, "flagged"))
        _legend(figure, [
            Line2D([], [], color=colour, label=name, linestyle="none", marker="s", markersize=7)
            for colour, name in pairs
        ])  # fmt: skip
    return png(figure)
