"""What students and gaze say about a slice → PNG pictures for the page of the app."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stages.core.images import to_rgb8
from stages.core.resize import resize, resize_keep_dtype
from stages.deploy.inference import Maps
from stages.evaluation.evaluate import THRESHOLD
from stages.gaze.levels import cut_levels
from stages.gaze.pseudomasks import GazeMaps

# Larger images are shown smaller, px of the longer side.
MAX_SIDE = 1024
# The largest standard deviation of values in [0, 1].
MAX_UNCERTAINTY = 0.5
# The colours of values from 0 to 1, equally spaced: the page has the same in its scale.
SCALE = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
MASK_COLOUR = (86, 180, 233)
# The precise and the broad pseudomask.
LEVEL_COLOURS = ((240, 228, 66), (0, 158, 115))
# Opacity where the gaze is longest.
GAZE_OPACITY = 0.75


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _resize_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST)) > 0


def _colour(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour values in [0, 1]: (H, W) → (H, W, 3)."""
    places = np.linspace(0, 1, len(SCALE))
    channels = [np.interp(values, places, levels) for levels in zip(*SCALE, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def draw_outlines(
    masks: Sequence[NDArray[np.bool_]], colours: Sequence[tuple[int, int, int]]
) -> NDArray[np.uint8]:
    """Draw the inner border of each mask, also along the border of the image.

    Parameters
    ----------
    masks
        (H, W) each. A later one is drawn over those before it.
    colours
        RGB of each mask.

    Returns
    -------
    (H, W, 4) uint8 RGBA, transparent elsewhere.
    """
    drawn = np.zeros((*masks[0].shape, 4), np.uint8)
    width = max(1, round(max(masks[0].shape) / 256))
    for mask, colour in zip(masks, colours, strict=True):
        inside = ndimage.binary_erosion(mask, np.ones((3, 3), np.bool_), iterations=width)
        drawn[mask & ~inside] = (*colour, 255)
    return drawn


def _level_colour(level: int, count: int) -> tuple[int, int, int]:
    """Return the colour of a pseudomask between that of the most precise and the broadest one."""
    place = level / max(1, count - 1)
    red, green, blue = (round(a + place * (b - a)) for a, b in zip(*LEVEL_COLOURS, strict=True))
    return red, green, blue


def draw_views(
    image: NDArray[Any], maps: Maps, gaze: GazeMaps | None, thresholds: Sequence[float]
) -> dict[str, bytes]:
    """Draw a slice, as large as it is or with a longer side of `MAX_SIDE`.

    Parameters
    ----------
    image
        (H, W, 3) uint8 or (H, W, 1) float32, from `Item.read`.
    maps
        What the students say.
    gaze
        The maps of its gaze at the working size; None: it has none.
    thresholds
        Thresholds of the pseudomasks.

    Returns
    -------
    Name → PNG. ``image`` and, in colours, ``probability`` and ``uncertainty`` are opaque; ``mask``,
    ``heatmap`` and ``pseudomasks`` lie over the image.
    """
    full: tuple[int, int] = image.shape[:2]
    reduction = min(1.0, MAX_SIDE / max(full))
    size = max(1, round(full[0] * reduction)), max(1, round(full[1] * reduction))
    mask = _resize_mask(resize(maps.probability, full) >= THRESHOLD, size)
    views = {
        "image": to_rgb8(resize_keep_dtype(image, size)),
        "mask": draw_outlines([mask], [MASK_COLOUR]),
        "probability": _colour(resize(maps.probability, size)),
    }
    if maps.uncertainty is not None:
        views["uncertainty"] = _colour(resize(maps.uncertainty, size) / MAX_UNCERTAINTY)
    if gaze is not None:
        heat = resize(gaze.heatmap, size)
        opacity = np.rint(heat * GAZE_OPACITY * 255).astype(np.uint8)
        views["heatmap"] = np.dstack([_colour(heat), opacity])
        # The broadest first, so that the others lie over it.
        levels = cut_levels(gaze.refined, thresholds)[::-1]
        colours = [_level_colour(i, len(levels)) for i in reversed(range(len(levels)))]
        views["pseudomasks"] = draw_outlines([_resize_mask(m, size) for m in levels], colours)
    return {name: _encode(pixels) for name, pixels in views.items()}
