"""The area of what was looked at, from the spread of the fixations, and maps that keep to it.

A fixed threshold cuts small targets too large and large ones too small, since the width of the
heatmap does not follow the target. The spread of the fixations does.
"""

import numpy as np
from numpy.typing import NDArray

# Fixations that the median area of the data set counts for.
PRIOR_FIXATIONS = 1


def spread_area(fixations: NDArray[np.floating], original_size: tuple[int, int]) -> float:
    """Return the area over which fixations spread, as a share of the image.

    In a disc of radius r that is fixated evenly, half of the fixations are within D = r / √2 of the
    centre. So its area π r² is 2π D², with D the median distance of the fixations from their median
    point. The medians bear glances elsewhere, up to half of the fixations.

    Parameters
    ----------
    fixations
        (F, ≥ 2), F ≥ 1: x and y as shares of the image's width and height.
    original_size
        Height and width of the image, px.
    """
    height, width = original_size
    points = fixations[:, :2] * (width, height)
    distances = np.hypot(*(points - np.median(points, axis=0)).T)
    return float(2 * np.pi * np.median(distances) ** 2 / (height * width))


def estimate_areas(
    areas: NDArray[np.float64], counts: NDArray[np.integer], reference: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Draw each image's area towards the median of the data set, the more the fewer its fixations.

    Parameters
    ----------
    areas
        (N,) `spread_area` of each image.
    counts
        (N,) fixations of each image, ≥ 1.
    reference
        (N,) images whose median counts: those of the training split.
    """
    median = np.median(areas[reference])
    return (counts * areas + PRIOR_FIXATIONS * median) / (counts + PRIOR_FIXATIONS)


def rescale_to_area(refined: NDArray[np.float32], area: float) -> NDArray[np.float32]:
    """Rescale a map so that the pixels from ½ on have the given area.

    The order of the pixels stays: below and above the value that becomes ½, the map is linear.
    Pixels of equal value are not split, so the area can be larger.

    Parameters
    ----------
    refined
        (H, W) in [0, 1].
    area
        Share of the image in (0, 1).
    """
    count = int(np.clip(round(area * refined.size), 1, refined.size - 1))
    value = np.partition(refined, -count, axis=None)[-count]
    # Where the CRF is certain of more or of fewer pixels, the cut is in its flat part.
    value = np.clip(value, 1e-3, 1 - 1e-3)
    low, high = refined / (2 * value), 0.5 + (refined - value) / (2 * (1 - value))
    rescaled: NDArray[np.float32] = np.where(refined < value, low, high).astype(np.float32)
    return rescaled
