"""The describer of the demo: words for what is measured inside the gaze. No language model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.measure import label, perimeter

from stages.text.describers import Answer, Explanation, Sample, Setup


def _pick(value: float, limits: tuple[float, ...], words: tuple[str, ...]) -> str:
    return words[int(np.searchsorted(limits, value, side="right"))]


def _colour(rgb: NDArray[np.floating]) -> str:
    hue, saturation, value = rgb2hsv(rgb.reshape(1, 1, 3) / 255)[0, 0]
    if value < 0.2:
        return "black"
    if saturation < 0.12:
        return _pick(value, (0.45, 0.75), ("dark grey", "grey", "whitish"))
    name = _pick(
        hue * 360,
        (15, 40, 70, 170, 260, 330),
        ("red", "reddish brown", "yellowish", "green", "blue", "purple", "pink"),
    )
    return f"dark {name}" if value < 0.45 else name


def _where(region: NDArray[np.bool_]) -> tuple[float, float, str]:
    """Centre (y, x in [0, 1]) and its words, with direction."""
    y, x = ((c + 0.5) / n for c, n in zip(ndimage.center_of_mass(region), region.shape))
    third = (1 / 3, 2 / 3)
    vertical = _pick(y, third, ("upper", "middle", "lower"))
    horizontal = _pick(x, third, ("left", "centre", "right"))
    return y, x, f"{vertical} {horizontal}"


def measure(image: NDArray[np.uint8], regions: NDArray[np.uint8]) -> Explanation | None:
    """Explain one image by what is measured inside its broad pseudomask.

    The sentences are the same for a flipped image with flipped regions.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    regions
        (L, H, W) uint8, from precise to broad.
    """
    region = regions[-1] > 0
    if not region.any() or region.all():
        return None
    grey = image.mean(axis=2)
    radius = max(2, round(0.04 * max(region.shape)))
    near = ndimage.binary_dilation(region, iterations=radius) & ~region
    y, x, words = _where(region)
    area = float(region.mean())
    # 1 for a disc, smaller for a ragged or elongated outline.
    compactness = float(min(1.0, 4 * np.pi * region.sum() / max(perimeter(region), 1.0) ** 2))
    contrast = float((grey[region].mean() - grey[near].mean()) / 255)
    edge = ndimage.gaussian_gradient_magnitude(grey, 1.0)
    rim = ndimage.binary_dilation(region) & ~ndimage.binary_erosion(region)
    sharpness = float(edge[rim].mean() / max(edge.mean(), 1e-6))
    roughness = float((grey - ndimage.gaussian_filter(grey, 2.0))[region].std() / 255)
    precise_share = float(regions[0].sum() / region.sum())
    pieces = int(label(region).max())
    colour = _colour(image[region].mean(axis=0))
    around = _colour(image[near].mean(axis=0))

    distance = float(np.hypot(y - 0.5, x - 0.5))
    place = _pick(distance, (0.12, 0.3), ("in the centre", "off the centre", "near the border"))
    outline = _pick(compactness, (0.35, 0.6), ("irregular", "slightly irregular", "regular"))
    focus = _pick(sharpness, (0.9, 1.5), ("ill-defined", "moderately defined", "well-defined"))
    tone = _pick(
        contrast,
        (-0.12, -0.03, 0.03, 0.12),
        ("much darker than", "darker than", "as bright as", "brighter than", "much brighter than"),
    )
    texture = _pick(roughness, (0.01, 0.03), ("smooth", "slightly uneven", "coarse"))
    size = _pick(area, (0.05, 0.15, 0.3), ("small", "medium-sized", "large", "very large"))
    trust = _pick(precise_share, (0.4, 0.6), ("low", "moderate", "high"))
    count = "a single region" if pieces == 1 else f"{pieces} separate regions"
    return Explanation(
        location=f"The region lies {place} of the image.",
        boundary=f"Its boundary is {outline} and {focus}.",
        characteristics=f"It is {colour}, {tone} its {around} surroundings, of {texture} texture.",
        area_percentage=f"It is {size} and covers about {round(area * 100)} percent of the image.",
        confidence=f"The confidence in its extent is {trust}.",
        remarks=f"The gaze dwelt on {count}.",
        values={
            "centre_y": y,
            "centre_x": x,
            "place": words,
            "area": area,
            "compactness": compactness,
            "contrast": contrast,
            "sharpness": sharpness,
            "roughness": roughness,
            "precise_share": precise_share,
            "pieces": float(pieces),
        },
    )


class Measured:
    """The describer that measures the image inside the gaze."""

    model = revision = ""

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Explain each image by `measure`."""
        return [Answer(explanation=measure(sample.image, sample.regions)) for sample in samples]


def make(setup: Setup) -> Measured:
    """Make the describer; it needs nothing."""
    return Measured()
