"""The backend of the demo: fixed sentences for measurements in the region; no language model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.measure import label, perimeter

from stages.text.describers import Answer, Explanation, Sample, Setup


def _choose_word(value: float, limits: tuple[float, ...], words: tuple[str, ...]) -> str:
    return words[int(np.searchsorted(limits, value, side="right"))]


def _name_colour(rgb: NDArray[np.floating]) -> str:
    hue, saturation, value = rgb2hsv(rgb.reshape(1, 1, 3) / 255)[0, 0]
    if value < 0.2:
        return "black"
    if saturation < 0.12:
        return _choose_word(value, (0.45, 0.75), ("dark grey", "grey", "whitish"))
    name = _choose_word(
        hue * 360,
        (15, 40, 70, 170, 260, 330),
        ("red", "reddish brown", "yellowish", "green", "blue", "purple", "pink"),
    )
    return f"dark {name}" if value < 0.45 else name


def _locate(region: NDArray[np.bool_]) -> tuple[float, float, str]:
    """Return the centre (y and x in [0, 1]) and the name of its ninth of the image."""
    y, x = ((c + 0.5) / n for c, n in zip(ndimage.center_of_mass(region), region.shape))
    third = (1 / 3, 2 / 3)
    vertical = _choose_word(y, third, ("upper", "middle", "lower"))
    horizontal = _choose_word(x, third, ("left", "centre", "right"))
    return y, x, f"{vertical} {horizontal}"


def describe_region(image: NDArray[np.uint8], pseudomasks: NDArray[np.uint8]) -> Explanation | None:
    """Describe the region of the broad pseudomask by measurements of its pixels.

    The sentences are the same for a flipped image with flipped pseudomasks. Return None if the
    pseudomask is empty or covers the whole image.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    pseudomasks
        (L, H, W) uint8, from precise to broad.
    """
    region = pseudomasks[-1] > 0
    if not region.any() or region.all():
        return None
    grey = image.mean(axis=2)
    radius = max(2, round(0.04 * max(region.shape)))
    surroundings = ndimage.binary_dilation(region, iterations=radius) & ~region
    y, x, place = _locate(region)
    area = float(region.mean())
    # 1 for a disc, smaller for a ragged or elongated outline.
    compactness = float(min(1.0, 4 * np.pi * region.sum() / max(perimeter(region), 1.0) ** 2))
    contrast = float((grey[region].mean() - grey[surroundings].mean()) / 255)
    edge = ndimage.gaussian_gradient_magnitude(grey, 1.0)
    rim = ndimage.binary_dilation(region) & ~ndimage.binary_erosion(region)
    sharpness = float(edge[rim].mean() / max(edge.mean(), 1e-6))
    roughness = float((grey - ndimage.gaussian_filter(grey, 2.0))[region].std() / 255)
    precise_share = float(pseudomasks[0].sum() / region.sum())
    pieces = int(label(region).max())
    colour = _name_colour(image[region].mean(axis=0))
    surrounding_colour = _name_colour(image[surroundings].mean(axis=0))

    distance = float(np.hypot(y - 0.5, x - 0.5))
    distance_words = _choose_word(
        distance, (0.12, 0.3), ("in the centre", "off the centre", "near the border")
    )
    outline = _choose_word(compactness, (0.35, 0.6), ("irregular", "slightly irregular", "regular"))
    focus = _choose_word(
        sharpness, (0.9, 1.5), ("ill-defined", "moderately defined", "well-defined")
    )
    tone = _choose_word(
        contrast,
        (-0.12, -0.03, 0.03, 0.12),
        ("much darker than", "darker than", "as bright as", "brighter than", "much brighter than"),
    )
    texture = _choose_word(roughness, (0.01, 0.03), ("smooth", "slightly uneven", "coarse"))
    size = _choose_word(area, (0.05, 0.15, 0.3), ("small", "medium-sized", "large", "very large"))
    confidence_word = _choose_word(precise_share, (0.4, 0.6), ("low", "moderate", "high"))
    region_count_text = "a single region" if pieces == 1 else f"{pieces} separate regions"
    return Explanation(
        location=f"The region lies {distance_words} of the image.",
        boundary=f"Its boundary is {outline} and {focus}.",
        characteristics=f"It is {colour}, {tone} its {surrounding_colour} surroundings, "
        f"of {texture} texture.",
        area_percentage=f"It is {size} and covers about {round(area * 100)} percent of the image.",
        confidence=f"The confidence in its extent is {confidence_word}.",
        remarks=f"The gaze dwelt on {region_count_text}.",
        values={
            "centre_y": y,
            "centre_x": x,
            "place": place,
            "area": area,
            "compactness": compactness,
            "contrast": contrast,
            "sharpness": sharpness,
            "roughness": roughness,
            "precise_share": precise_share,
            "pieces": float(pieces),
        },
    )


class MeasurementDescriber:
    """The describer that measures the region of the broad pseudomask."""

    model = revision = ""

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Explain each sample with `describe_region`."""
        return [
            Answer(explanation=describe_region(sample.image, sample.pseudomasks))
            for sample in samples
        ]


def make(setup: Setup) -> MeasurementDescriber:
    """Return the describer; it uses nothing of `setup`."""
    return MeasurementDescriber()
