"""Convert recorded coordinates to fractions of the image."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.settings.recording import RecordingSettings, ScreenSettings

Unit = Literal["fraction", "percent", "px"]
Origin = Literal["top-left", "bottom-left", "centre", "centre-down"]


def to_frame_fractions(
    position: NDArray[np.float64], frame: NDArray[np.float64], unit: Unit, origin: Origin
) -> NDArray[np.float64]:
    """Convert coordinates to fractions of their frame (screen or image), from its top left.

    Parameters
    ----------
    position
        (F, 2) x, y.
    frame
        (2,) or (F, 2) width, height in px.
    unit
        Unit of `position`. Fractions and percent refer to the whole frame, so from the centre
        fractions run from -0.5 to 0.5.
    origin
        Where x = y = 0 is. y points down from the top left and for `centre-down`, otherwise up.
    """
    whole = {"fraction": np.ones(2), "percent": np.full(2, 100.0), "px": frame}
    fraction: NDArray[np.float64] = position / whole[unit]
    if origin in ("centre", "bottom-left"):
        fraction[:, 1] *= -1
    if origin in ("centre", "centre-down"):
        fraction += 0.5
    elif origin == "bottom-left":
        fraction[:, 1] += 1
    return fraction


def screen_to_image_fractions(
    fraction: NDArray[np.float64], image_size: NDArray[np.float64], screen: ScreenSettings
) -> NDArray[np.float64]:
    """Convert (F, 2) fractions of the screen to fractions of the image shown on it."""
    left, top, *size = screen.area or (0.0, 0.0, *screen.size)
    area = np.array(size, np.float64)
    shown_size = image_size
    if screen.shown == "fit":
        shown_size = image_size * np.min(area / image_size, axis=1)[:, None]
    corner = np.array([left, top]) + (area - shown_size) / 2
    position: NDArray[np.float64] = (fraction * np.array(screen.size) - corner) / shown_size
    return position


def to_image_fractions(
    position: NDArray[np.float64],
    image_size: NDArray[np.float64],
    settings: RecordingSettings,
) -> NDArray[np.float64]:
    """Convert a recording's coordinates to fractions of the image.

    Parameters
    ----------
    position
        (F, 2) x, y as recorded; NaN stays NaN.
    image_size
        (F, 2) width and height of the original image of each position, px.
    settings
        The meaning of the coordinates: unit, origin, screen.

    Returns
    -------
    (F, 2) float64: 0 left or top, 1 right or bottom; values outside 0 to 1 are off the image.
    """
    screen = settings.screen
    frame = image_size if screen is None else np.array(screen.size, np.float64)
    fraction = to_frame_fractions(position, frame, settings.unit, settings.origin)
    return fraction if screen is None else screen_to_image_fractions(fraction, image_size, screen)


def is_on_image(fraction: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (F,) whether a position is on the image. The border is on it; NaN is not."""
    x, y = fraction.T
    on_image: NDArray[np.bool_] = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    return on_image
