"""Strips of image panels for the report: arrays in, PNG bytes out.

The module uses Matplotlib's objects instead of pyplot, so it keeps no global state. It draws
names from users without math mode, which would parse a dollar sign.
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

RgbImage = NDArray[np.uint8]
Mask = NDArray[np.bool_]

DPI = 150
TRUTH_COLOUR, PREDICTION_COLOUR, PSEUDOMASK_COLOUR = "#F0E442", "#56B4E9", "#009E73"
MISSED_COLOUR, WRONG_COLOUR = "#CC79A7", "#D55E00"

TEXT_COLOUR, SUBTITLE_COLOUR, LINE_COLOUR = "#1f2933", "#52606d", "#d5dbe1"
_PANELS_PER_ROW = 6
# Width of a panel, height of its title and subtitle, gap between panels; inches.
_PANEL_WIDTH, _HEADING_HEIGHT, _GAP = 1.68, 0.4, 0.07
# Area of a fixation's circle, pt² per ms.
_CIRCLE_AREA = 0.35


class Panel(NamedTuple):
    """One image of a strip, with its outlines and fixations."""

    title: str
    image: RgbImage
    subtitle: str = ""
    # (mask, colour of its outline).
    outlines: tuple[tuple[Mask, str], ...] = ()
    # (F, 4): x and y in [0, 1], duration and start in ms.
    fixations: NDArray[np.floating] | None = None


def to_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without Matplotlib's name and version, which are not part of the content.
    figure.savefig(stream, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def _colour(hex_code: str) -> NDArray[np.float64]:
    return np.array([int(hex_code[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def tint_mask(image: RgbImage, mask: Mask, colour: str) -> RgbImage:
    """Blend a colour, half transparent, over the pixels of `mask`."""
    mixed = np.rint((image + _colour(colour)) / 2).astype(np.uint8)
    return np.where(mask[..., None], mixed, image)


def overlay_map(image: RgbImage, heatmap: NDArray[np.floating]) -> RgbImage:
    """Blend a map of values in [0, 1] over the grey image: 0 transparent, 1 brightest."""
    values = heatmap.astype(np.float64)
    heat = colormaps["inferno"](values)[..., :3] * 255
    alpha = np.clip(1.6 * values, 0, 0.8)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    mixed: RgbImage = np.rint(grey * (1 - alpha) + heat * alpha).astype(np.uint8)
    return mixed


def _draw_outline(axes: Axes, mask: Mask, colour: str) -> None:
    if not mask.any():
        return
    # The padding closes the outline of a region that touches the border.
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


def _draw_fixations(axes: Axes, fixations: NDArray[np.floating], size: tuple[int, int]) -> None:
    height, width = size
    x, y = fixations[:, 0] * width - 0.5, fixations[:, 1] * height - 0.5
    axes.plot(x, y, color="white", linewidth=0.9, alpha=0.9,
              path_effects=[withStroke(linewidth=1.8, foreground="#00000080")])  # fmt: skip
    area = fixations[:, 2] * _CIRCLE_AREA
    axes.scatter(x, y, s=area, c="#0072B299", edgecolors="white", linewidths=0.8, zorder=3)
    for number, (column, row) in enumerate(zip(x, y, strict=True), start=1):
        axes.text(
            column, row, str(number), fontsize=5.5, color="white", zorder=4, clip_on=True,
            ha="center", va="center_baseline",
            path_effects=[withStroke(linewidth=1, foreground="#000000b0")],
        )  # fmt: skip


def overlay_deviation(image: RgbImage, deviation: NDArray[np.floating]) -> RgbImage:
    """Blend a map of values in [-1, 1] over the grey image: purple below 0, orange above."""
    colour = colormaps["PuOr_r"]((deviation.astype(np.float64) + 1) / 2)[..., :3] * 255
    alpha = 0.85 * abs(deviation.astype(np.float64))[..., None]
    grey = image.mean(axis=2, keepdims=True)
    mixed: RgbImage = np.rint(grey * (1 - alpha) + colour * alpha).astype(np.uint8)
    return mixed


def draw_strip(panels: list[Panel]) -> bytes:
    """Draw panels of equal size side by side, in rows of six."""
    height, width = panels[0].image.shape[:2]
    panel_height = _PANEL_WIDTH * height / width
    columns, rows = min(len(panels), _PANELS_PER_ROW), ceil(len(panels) / _PANELS_PER_ROW)
    figure_size = (columns * (_PANEL_WIDTH + _GAP) - _GAP, rows * (panel_height + _HEADING_HEIGHT))
    figure = Figure(figsize=figure_size)
    for i, panel in enumerate(panels):
        row, column = divmod(i, _PANELS_PER_ROW)
        left, bottom = (
            column * (_PANEL_WIDTH + _GAP),
            (rows - 1 - row) * (panel_height + _HEADING_HEIGHT),
        )
        axes = figure.add_axes(
            (
                left / figure_size[0],
                bottom / figure_size[1],
                _PANEL_WIDTH / figure_size[0],
                panel_height / figure_size[1],
            ),
            frameon=False,
        )
        axes.imshow(panel.image, interpolation="bilinear", aspect="auto")
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        for mask, colour in panel.outlines:
            _draw_outline(axes, mask, colour)
        if panel.fixations is not None:
            _draw_fixations(axes, panel.fixations, (height, width))
        for text, above, size, colour in (
            (panel.title, 0.19, 8.5, TEXT_COLOUR),
            (panel.subtitle, 0.05, 7.5, SUBTITLE_COLOUR),
        ):
            figure.text(
                (left + 0.01) / figure_size[0],
                (bottom + panel_height + above) / figure_size[1],
                text,
                fontsize=size, color=colour, va="bottom", parse_math=False,
            )  # fmt: skip
    return to_png(figure)


def draw_gaze_strip(
    image: RgbImage,
    fixations: NDArray[np.floating],
    heatmap: NDArray[np.floating],
    refined: NDArray[np.floating],
    levels: Mask,
    truth: Mask | None,
) -> bytes:
    """Draw the steps from the fixations of an image to its pseudomasks.

    A panel without content is omitted: gaze given as a heatmap has no fixations, and gaze given as
    a refined map has neither fixations nor heatmap.

    Parameters
    ----------
    image
        (H, W, 3).
    fixations
        (F, 4): x and y in [0, 1], duration and start in ms.
    heatmap, refined
        (H, W) in [0, 1].
    levels
        (L, H, W), from precise to broad.
    truth
        (H, W), or None for an image without a mask.
    """
    precise, broad = levels[0], levels[-1]
    panels = [Panel("image", image)]
    if len(fixations):
        subtitle = f"{len(fixations)} in {fixations[:, 2].sum() / 1000:.1f} s"
        panels.append(Panel("fixations", image, subtitle, fixations=fixations))
    if heatmap.any():
        panels.append(Panel("heatmap", overlay_map(image, heatmap)))
    panels += [
        Panel("refined map", overlay_map(image, refined)),
        Panel(
            "pseudomasks",
            tint_mask(image, precise, PSEUDOMASK_COLOUR),
            f"{precise.mean():.1%} and {broad.mean():.1%} of image",
            ((broad, PSEUDOMASK_COLOUR),),
        ),
    ]
    if truth is not None:
        panels.append(
            Panel("truth", image, f"{truth.mean():.1%} of image", ((truth, TRUTH_COLOUR),))
        )
    return draw_strip(panels)


def draw_attention_strip(
    image: RgbImage, ratios: NDArray[np.floating], titles: list[str], region: Mask
) -> bytes:
    """Draw the attention to each of K text tokens, with one colour scale.

    Parameters
    ----------
    image
        (H, W, 3).
    ratios
        (K, H, W) in [0, K]: the attention weight of a token relative to the even weight 1/K. A
        ratio of 1 has no colour; r and 1/r have opposite colours. The colours are scaled to the
        largest |log ratio|; ratios below 1/K count as 1/K
        and have the full colour.
    titles
        K names.
    region
        (H, W), the region that the text describes; it is outlined.
    """
    deviation = np.log(np.maximum(ratios, 1 / len(ratios)))
    # Even attention has no colour, and no deviation to divide by.
    deviation /= abs(deviation).max() or 1.0
    return draw_strip(
        [
            Panel(
                title,
                overlay_deviation(image, values),
                f"{ratio.min():.2f} to {ratio.max():.2f} × even",
                ((region, PSEUDOMASK_COLOUR),),
            )
            for title, values, ratio in zip(titles, deviation, ratios, strict=True)
        ]
    )


def draw_prediction_strip(
    image: RgbImage, truth: Mask | None, predictions: list[tuple[str, str, Mask]]
) -> bytes:
    """Draw an image, its true mask and its predictions, each (title, subtitle, mask).

    Pixels of the truth that a prediction misses, and pixels that it marks wrongly, have a tint.
    """
    truth_outline = () if truth is None else ((truth, TRUTH_COLOUR),)
    panels = [Panel("image", image)]
    if truth is not None:
        panels.append(Panel("truth", image, f"{truth.mean():.1%} of image", truth_outline))
    for title, subtitle, mask in predictions:
        shown = image
        if truth is not None:
            shown = tint_mask(shown, truth & ~mask, MISSED_COLOUR)
            shown = tint_mask(shown, mask & ~truth, WRONG_COLOUR)
        panels.append(Panel(title, shown, subtitle, (*truth_outline, (mask, PREDICTION_COLOUR))))
    return draw_strip(panels)
