"""Pictures of the report: arrays in, PNG bytes out.

Matplotlib's objects without pyplot, so that no state outlives a call. Names that users own are
drawn without math mode, where a dollar sign would be parsed.
"""

import io
from math import ceil
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]

DPI = 150
TRUTH, PREDICTION, PSEUDOMASK = "#F0E442", "#56B4E9", "#009E73"

INK, SOFT, FAINT = "#1f2933", "#52606d", "#d5dbe1"
# Panels that fit side by side on the page.
_COLUMNS = 6
# Side of a panel, in; with its title and subtitle, in; area of a circle, pt² per ms.
_PANEL, _HEADING, _GAP = 1.68, 0.4, 0.07
_CIRCLE = 0.35


class Panel(NamedTuple):
    """One image of a strip and what is drawn on it."""

    title: str
    image: Rgb
    subtitle: str = ""
    # Mask → colour of its outline.
    outlines: tuple[tuple[Mask, str], ...] = ()
    # (F, 4): x, y in [0, 1], duration in ms, start.
    fixations: NDArray[np.floating] | None = None


def png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Matplotlib's name and version are not of the picture's content.
    figure.savefig(stream, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def _colour(hex_code: str) -> NDArray[np.float64]:
    return np.array([int(hex_code[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def tint(image: Rgb, mask: Mask, colour: str) -> Rgb:
    """Lay a half-transparent colour over the pixels of `mask`."""
    mixed = np.rint((image + _colour(colour)) / 2).astype(np.uint8)
    return np.where(mask[..., None], mixed, image)


def overlay(image: Rgb, strength: NDArray[np.floating]) -> Rgb:
    """Lay a map of values in [0, 1] over the grey image, dark to bright, 0 transparent."""
    values = strength.astype(np.float64)
    heat = colormaps["inferno"](values)[..., :3] * 255
    alpha = np.clip(1.6 * values, 0, 0.8)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    mixed: Rgb = np.rint(grey * (1 - alpha) + heat * alpha).astype(np.uint8)
    return mixed


def _outline(axes: Axes, mask: Mask, colour: str) -> None:
    if not mask.any():
        return
    # The margin closes the outline of a region that reaches the border.
    height, width = mask.shape
    lines = axes.contour(
        np.arange(-1, width + 1),
        np.arange(-1, height + 1),
        np.pad(mask, 1).astype(float),
        levels=[0.5],
        colors=[colour],
        linewidths=1.3,
    )
    lines.set_path_effects([withStroke(linewidth=2.6, foreground="#000000a0")])


def _fixations(axes: Axes, fixations: NDArray[np.floating], size: tuple[int, int]) -> None:
    height, width = size
    x, y = fixations[:, 0] * width - 0.5, fixations[:, 1] * height - 0.5
    axes.plot(x, y, color="white", linewidth=0.9, alpha=0.9,
              path_effects=[withStroke(linewidth=1.8, foreground="#00000080")])  # fmt: skip
    area = fixations[:, 2] * _CIRCLE
    axes.scatter(x, y, s=area, c="#0072B299", edgecolors="white", linewidths=0.8, zorder=3)
    for number, (column, row) in enumerate(zip(x, y, strict=True), start=1):
        axes.text(
            column, row, str(number), fontsize=5.5, color="white", zorder=4, clip_on=True,
            ha="center", va="center_baseline",
            path_effects=[withStroke(linewidth=1, foreground="#000000b0")],
        )  # fmt: skip


def diverge(image: Rgb, deviation: NDArray[np.floating]) -> Rgb:
    """Lay a map of values in [-1, 1] over the grey image: purple below 0, orange above."""
    colour = colormaps["PuOr_r"]((deviation.astype(np.float64) + 1) / 2)[..., :3] * 255
    alpha = 0.85 * abs(deviation.astype(np.float64))[..., None]
    grey = image.mean(axis=2, keepdims=True)
    mixed: Rgb = np.rint(grey * (1 - alpha) + colour * alpha).astype(np.uint8)
    return mixed


def strip(panels: list[Panel]) -> bytes:
    """Draw panels of one size side by side, in as many rows as they need."""
    height, width = panels[0].image.shape[:2]
    tall = _PANEL * height / width
    columns, rows = min(len(panels), _COLUMNS), ceil(len(panels) / _COLUMNS)
    total = (columns * (_PANEL + _GAP) - _GAP, rows * (tall + _HEADING))
    figure = Figure(figsize=total)
    for i, panel in enumerate(panels):
        row, column = divmod(i, _COLUMNS)
        left, bottom = column * (_PANEL + _GAP), (rows - 1 - row) * (tall + _HEADING)
        axes = figure.add_axes(
            (left / total[0], bottom / total[1], _PANEL / total[0], tall / total[1]), frameon=False
        )
        axes.imshow(panel.image, interpolation="bilinear", aspect="auto")
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        for mask, colour in panel.outlines:
            _outline(axes, mask, colour)
        if panel.fixations is not None:
            _fixations(axes, panel.fixations, (height, width))
        for text, above, size, colour in (
            (panel.title, 0.19, 8.5, INK),
            (panel.subtitle, 0.05, 7.5, SOFT),
        ):
            figure.text(
                (left + 0.01) / total[0], (bottom + tall + above) / total[1], text,
                fontsize=size, color=colour, va="bottom", parse_math=False,
            )  # fmt: skip
    return png(figure)


def gaze_strip(
    image: Rgb,
    fixations: NDArray[np.floating],
    heatmap: NDArray[np.floating],
    refined: NDArray[np.floating],
    levels: Mask,
    truth: Mask | None,
) -> bytes:
    """Draw the way of one image from its fixations to its pseudomasks.

    Gaze that came as a map has no fixations, and as a refined map no heatmap: what there is none
    of has no panel.

    Parameters
    ----------
    image
        (H, W, 3).
    fixations
        (F, 4): x, y in [0, 1], duration in ms, start.
    heatmap, refined
        (H, W) in [0, 1].
    levels
        (L, H, W), from precise to broad.
    truth
        (H, W); None: the image has no mask.
    """
    precise, broad = levels[0], levels[-1]
    panels = [Panel("image", image)]
    if len(fixations):
        what = f"{len(fixations)} in {fixations[:, 2].sum() / 1000:.1f} s"
        panels.append(Panel("fixations", image, what, fixations=fixations))
    if heatmap.any():
        panels.append(Panel("heatmap", overlay(image, heatmap)))
    panels += [
        Panel("refined map", overlay(image, refined)),
        Panel(
            "pseudomasks",
            tint(image, precise, PSEUDOMASK),
            f"{precise.mean():.1%} and {broad.mean():.1%} of image",
            ((broad, PSEUDOMASK),),
        ),
    ]
    if truth is not None:
        panels.append(Panel("truth", image, f"{truth.mean():.1%} of image", ((truth, TRUTH),)))
    return strip(panels)


def attention_strip(
    image: Rgb, ratios: NDArray[np.floating], titles: list[str], region: Mask
) -> bytes:
    """Draw where each of several text tokens is read, on one scale of colours.

    Parameters
    ----------
    image
        (H, W, 3).
    ratios
        (K, H, W) in [0, K]: a token's share against an even one; 1 has no colour, and ratio r the
        opposite colour of 1/r. The largest deviation from 1 has the full colour, and so has all
        below 1/K.
    titles
        K names.
    region
        (H, W): what the text is of; outlined.
    """
    deviation = np.log(np.maximum(ratios, 1 / len(ratios)))
    # An even attention stays without colour.
    deviation /= abs(deviation).max() or 1.0
    return strip(
        [
            Panel(
                title,
                diverge(image, values),
                f"{ratio.min():.2f} to {ratio.max():.2f} × even",
                ((region, PSEUDOMASK),),
            )
            for title, values, ratio in zip(titles, deviation, ratios, strict=True)
        ]
    )


def prediction_strip(
    image: Rgb, truth: Mask | None, predictions: list[tuple[str, str, Mask]]
) -> bytes:
    """Draw an image, its truth and (title, subtitle, mask) of each prediction."""
    marked = () if truth is None else ((truth, TRUTH),)
    panels = [Panel("image", image)]
    if truth is not None:
        panels.append(Panel("truth", image, f"{truth.mean():.1%} of image", marked))
    for title, subtitle, mask in predictions:
        panels.append(Panel(title, image, subtitle, (*marked, (mask, PREDICTION))))
    return strip(panels)
