"""Draw phantom images for the demo: a polyp on mucosa, a prostate in a pelvis, a lesion on skin.

They imitate what makes real images difficult: uneven light, distractors with the colour or
brightness of the target, and borders from sharp to invisible. So a threshold fails, and a network
can learn. A network that is trained on phantoms is of no use for patients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
Size = tuple[int, int]


def _smooth_noise(size: Size, scale: float, rng: np.random.Generator) -> Image:
    """Draw smooth noise of mean 0 and standard deviation 1; `scale` is the blur, px."""
    field = ndimage.gaussian_filter(rng.normal(size=size), scale, mode="reflect")
    standardised: Image = (field - field.mean()) / (field.std() + 1e-9)
    return standardised


def _coordinates(size: Size) -> tuple[Image, Image]:
    """Return the coordinates y and x, from −1 to 1 along the shorter side."""
    height, width = size
    short = min(size)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return (2 * y - height + 1) / short, (2 * x - width + 1) / short


@dataclass(frozen=True)
class Blob:
    """A closed outline around a centre, with radius r(θ): an ellipse plus random harmonics."""

    centre: tuple[float, float]
    radius: float
    stretch: float
    tilt: float
    amplitude: NDArray[np.float64]
    phase: NDArray[np.float64]

    @staticmethod
    def random(
        centre: tuple[float, float], radius: float, irregularity: float, rng: np.random.Generator
    ) -> "Blob":
        """Draw a random shape; `irregularity` 0 is an ellipse, 0.3 very irregular."""
        order = np.arange(2, 8)
        return Blob(
            centre=centre,
            radius=radius,
            stretch=rng.uniform(0.75, 1.33),
            tilt=rng.uniform(0, np.pi),
            amplitude=irregularity * rng.normal(size=len(order)) / order**0.7,
            phase=rng.uniform(0, 2 * np.pi, len(order)),
        )

    def depth(self, y: Image, x: Image) -> Image:
        """Return 1 at the centre, 0 on the outline, less outside, in units of the radius."""
        dy, dx = y - self.centre[0], x - self.centre[1]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        u, v = (cos * dx + sin * dy) / self.stretch, (cos * dy - sin * dx) * self.stretch
        distance = np.hypot(u, v)
        # Waves around the outline, Σ aₖ cos(kθ + φₖ), k from 2 on: the real part of Σ cₖ zᵏ with
        # z = exp(iθ). A power is much faster than a cosine.
        z = (u + 1j * v) / np.maximum(distance, 1e-9)
        coefficients = self.amplitude * np.exp(1j * self.phase)
        waves = (np.polyval(coefficients[::-1], z) * z**2).real
        outline = self.radius * np.clip(1 + waves, 0.4, 1.8)
        depth: Image = 1 - distance / outline
        return depth


def _soft_edge(depth: Image, width: float) -> Image:
    """Return the opacity, from 0 outside to 1 inside, over `width` radii around the outline."""
    opacity: Image = 1 / (1 + np.exp(-np.clip(4 * depth / width, -50, 50)))
    return opacity


def _blend(image: Image, colour: Image, opacity: Image) -> Image:
    """Paint (3,) or (H, W, 3) `colour` over an RGB image."""
    mixed: Image = image + (colour - image) * opacity[..., None]
    return mixed


def _paint_spot(
    image: Image, y: Image, x: Image, spot: Blob, paint: Callable[[Image], Image], opacity: float
) -> None:
    """Paint a small soft spot in place; `paint` gives the colours from those below it."""
    # Farther away the spot is too faint to change a pixel of 8 bits.
    reach = 5 * spot.radius
    rows, columns = np.abs(y[:, 0] - spot.centre[0]) < reach, np.abs(x[0] - spot.centre[1]) < reach
    near = np.ix_(rows, columns)
    edge = _soft_edge(spot.depth(y[near], x[near]), 0.5)
    image[near] = _blend(image[near], paint(image[near]), opacity * edge)


def _draw_curve(size: Size, rng: np.random.Generator, width: float, bend: float) -> Image:
    """Draw the opacity of one thin curved line across a part of the image."""
    height, reach = size[0], max(size)
    t = np.linspace(0, 1, 4 * reach)
    start = rng.uniform(0, 1, 2) * size
    angle, curvature = rng.uniform(0, 2 * np.pi), rng.normal(0, bend)
    heading = angle + curvature * t
    length = rng.uniform(0.3, 0.9) * reach
    step = length / len(t)
    y = start[0] + np.cumsum(np.sin(heading)) * step
    x = start[1] + np.cumsum(np.cos(heading)) * step
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < size[1])
    line = np.zeros(size)
    line[y[inside].astype(int), x[inside].astype(int)] = 1
    blurred = ndimage.gaussian_filter(line, width)
    opacity: Image = np.clip(blurred * 2.2 * width, 0, 1)
    return opacity


def _to_uint8(image: Image) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def draw_polyp_frame(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """Draw a colonoscopy frame: folds, vessels, uneven light, highlights, and one or two polyps.

    A polyp is a dome with a pitted surface; its colour differs from that of the mucosa strongly,
    slightly or not at all. Red patches and stool have a colour too, but are flat and smooth.

    Returns
    -------
    (H, W, 3) uint8 and (H, W) bool, about 160 × 190.
    """
    size = (int(rng.integers(148, 172)), int(rng.integers(178, 206)))
    y, x = _coordinates(size)
    mucosa = np.array([0.74, 0.42, 0.34]) + rng.normal(0, [0.05, 0.04, 0.04])
    image = mucosa + 0.02 * np.stack([_smooth_noise(size, 14, rng) for _ in range(3)], axis=-1)
    image += 0.018 * _smooth_noise(size, 1.2, rng)[..., None]

    # Haustral folds: ridges along arcs around a lumen, which is off centre.
    lumen = rng.uniform(-0.9, 0.9, 2)
    distance = np.hypot(y - lumen[0], x - lumen[1]) + 0.06 * _smooth_noise(size, 16, rng)
    ridge = np.sin(2 * np.pi * distance / rng.uniform(0.38, 0.6) + rng.uniform(0, 6))
    image *= (1 + 0.13 * np.sign(ridge) * np.abs(ridge) ** 0.6)[..., None]
    image *= (1 - 0.75 * _soft_edge(0.3 - distance, 0.3))[..., None]
    for _ in range(rng.integers(4, 9)):
        vessel = _draw_curve(size, rng, 0.8, 1.5)
        image = _blend(image, image * np.array([0.85, 0.62, 0.62]), 0.6 * vessel)
    for _ in range(rng.integers(2, 5)):
        spot = Blob.random(tuple(rng.uniform(-0.9, 0.9, 2)), rng.uniform(0.1, 0.3), 0.2, rng)
        tint = np.array([1.1, 0.78, 0.78]) if rng.random() < 0.6 else np.array([0.95, 1.05, 0.55])
        image = _blend(
            image, image * tint, rng.uniform(0.4, 0.9) * _soft_edge(spot.depth(y, x), 0.5)
        )

    mask = np.zeros(size, bool)
    colour_contrast = rng.uniform(0.2, 1.2)
    for _ in range(1 if rng.random() < 0.85 else 2):
        blob = Blob.random(tuple(rng.uniform(-0.5, 0.5, 2)), rng.uniform(0.24, 0.52), 0.13, rng)
        depth = blob.depth(y, x)
        inside = _soft_edge(depth, rng.uniform(0.08, 0.3))
        colour = image * (1 + colour_contrast * (np.array([1.06, 0.8, 0.82]) - 1))
        pits = _smooth_noise(size, 2.2, rng) * np.clip(
            0.4 + 0.6 * _smooth_noise(size, 6, rng), 0, 2
        )
        colour = colour * (1 + 0.12 * pits[..., None])
        # A dome with light from one side: one bright side, one dark side, and a shadow.
        height = ndimage.gaussian_filter(np.sqrt(np.clip(depth, 0, 1)), 2.5)
        light = rng.uniform(0, 2 * np.pi)
        slope_y, slope_x = np.gradient(height)
        shade = np.sin(light) * slope_y + np.cos(light) * slope_x
        image = _blend(image, colour, inside)
        image *= (1 + np.clip(rng.uniform(2.5, 5) * shade, -0.35, 0.35))[..., None]
        shadow = ndimage.shift(inside, (-6 * np.sin(light), -6 * np.cos(light)), order=1)
        image *= (1 - 0.2 * ndimage.gaussian_filter(shadow * (1 - inside), 3))[..., None]
        mask |= depth > 0

    lamp = rng.normal(0, 0.3, 2)
    falloff = np.hypot(y - lamp[0], x - lamp[1])
    image *= (1.2 - 0.45 * falloff)[..., None]
    for _ in range(rng.integers(6, 18)):
        shine = Blob.random(tuple(rng.uniform(-1, 1, 2)), rng.uniform(0.015, 0.05), 0.3, rng)
        _paint_spot(image, y, x, shine, lambda _: np.array([1.0, 0.97, 0.95]), 1)
    image = np.clip(image, 0, 1) + 0.012 * rng.normal(size=image.shape)
    corners = (np.abs(y) + np.abs(x)) > 0.88 * (1 + size[1] / size[0])
    image[corners] = 0.02
    return _to_uint8(image), mask & ~corners


@dataclass(frozen=True)
class Pelvis:
    """The random properties that all slices of a patient share."""

    scale: float
    shift: tuple[float, float]
    gland: Blob
    zone: float
    rectum: Blob
    gas: float
    bias: tuple[float, float]
    noise: float
    seed: int

    @staticmethod
    def random(rng: np.random.Generator) -> "Pelvis":
        """Draw the properties of a patient."""
        return Pelvis(
            scale=rng.uniform(0.3, 0.46),
            # A wide range, so that the position alone does not predict the outline of the gland.
            shift=(rng.uniform(-0.15, 0.15), rng.uniform(-0.12, 0.12)),
            gland=Blob.random((0, 0), 1, 0.05, rng),
            zone=rng.uniform(0.25, 0.45),
            rectum=Blob.random((0, 0), 1, 0.12, rng),
            gas=rng.uniform(0.05, 0.6),
            bias=(rng.uniform(-0.4, 0.4), rng.uniform(0.1, 0.5)),
            noise=rng.uniform(0.02, 0.04),
            seed=int(rng.integers(2**31)),
        )

    def draw_slice(self, level: float, size: Size = (160, 160)) -> tuple[NDArray[np.uint16], Mask]:
        """Draw a T2-like axial slice at `level`, from −1 (apex) to 1 (base).

        Returns
        -------
        (H, W) uint16 of 12 bits, and the prostate, (H, W) bool.
        """
        rng = np.random.default_rng([self.seed, round((level + 1) * 1000)])
        y, x = _coordinates(size)
        y0, x0 = self.shift
        image = 0.62 + 0.06 * _smooth_noise(size, 3, rng)  # fat

        for side in (-1, 1):
            # Obturator and levator muscles flank the gland; femoral heads lie outside.
            muscle = 1 - np.hypot((y - y0 + 0.05) / 0.62, (x - x0 - side * 0.74) / 0.2)
            image += (0.2 + 0.03 * _smooth_noise(size, 2, rng) - image) * _soft_edge(muscle, 0.25)
            bone = 1 - np.hypot((y - y0 + 0.1) / 0.42, (x - x0 - side * 1.1) / 0.26)
            image += (0.5 - image) * _soft_edge(bone, 0.1)
            levator = 1 - np.hypot((y - y0 - 0.25) / 0.42, (x - x0 - side * 0.5) / 0.07)
            image += (0.24 - image) * _soft_edge(levator, 0.5)

        bladder = 1 - np.hypot((y - y0 + 0.72 + 0.25 * (1 - level)) / 0.42, (x - x0) / 0.5)
        image += (0.22 - image) * _soft_edge(bladder + 0.12, 0.1)
        image += (0.85 - image) * _soft_edge(bladder, 0.1)

        gland_radius = self.scale * np.sqrt(1 - 0.6 * level**2)
        py, px = (y - y0) / (0.86 * gland_radius), (x - x0) / (1.12 * gland_radius)
        depth = self.gland.depth(py, px)
        rectum_y = y0 + 0.86 * gland_radius + 0.2
        rectum = self.rectum.depth((y - rectum_y) / 0.2, (x - x0) / 0.26)
        image += (0.28 - image) * _soft_edge(rectum + 0.25, 0.2)
        image += (self.gas + 0.1 * _smooth_noise(size, 3, rng) - image) * _soft_edge(rectum, 0.2)

        # Central gland with nodules, a brighter peripheral zone behind it, a thin dark capsule.
        nodules = 0.4 + 0.1 * _smooth_noise(size, 4, rng) + 0.04 * _smooth_noise(size, 1.5, rng)
        peripheral = 0.58 + 0.08 * _smooth_noise(size, 3, rng)
        zone = _soft_edge(py - self.zone + 0.5 * px**2, 0.4)
        gland = nodules * (1 - zone) + peripheral * zone
        image += (gland - image) * _soft_edge(depth, 0.12)
        image -= 0.12 * np.exp(-0.5 * (depth / 0.05) ** 2)

        field = np.exp(self.bias[0] * x + self.bias[1] * y + 0.12 * _smooth_noise(size, 30, rng))
        image = image * field
        real, imaginary = (self.noise * rng.normal(size=(2, *size))).astype(np.float64)
        image = np.hypot(image + real, imaginary)
        return np.rint(np.clip(image, 0, 2) * 1200).astype(np.uint16), depth > 0


def draw_skin_image(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """Draw a dermoscopic image: hair, vignetting, ink or a ruler, freckles, and a lesion.

    The lesion is irregular and has several shades of brown, and a border from sharp to invisible.
    Freckles and blushes have its colour, but no pigment network.

    Returns
    -------
    (H, W, 3) uint8 and (H, W) bool, about 160 × 200.
    """
    size = (int(rng.integers(150, 170)), int(rng.integers(190, 214)))
    y, x = _coordinates(size)
    tone = rng.uniform(0, 1)
    base = (1 - tone) * np.array([0.9, 0.73, 0.65]) + tone * np.array([0.68, 0.47, 0.36])
    image = base + 0.025 * _smooth_noise(size, 18, rng)[..., None] * np.array([1, 0.8, 0.7])
    image += 0.012 * _smooth_noise(size, 1.5, rng)[..., None]
    for _ in range(rng.integers(1, 4)):
        blush = Blob.random(tuple(rng.uniform(-1.1, 1.1, 2)), rng.uniform(0.2, 0.45), 0.2, rng)
        tint = np.array([0.97, 0.82, 0.8]) if rng.random() < 0.5 else np.array([0.85, 0.78, 0.7])
        image = _blend(
            image, image * tint, rng.uniform(0.5, 1) * _soft_edge(blush.depth(y, x), 0.6)
        )

    blob = Blob.random(tuple(rng.uniform(-0.35, 0.35, 2)), rng.uniform(0.28, 0.6), 0.17, rng)
    depth = blob.depth(y, x)
    contrast = rng.uniform(0.15, 0.6)
    brown = np.array([0.72, 0.5, 0.38]) + rng.normal(0, 0.05, 3)
    lesion = image * (1 + contrast * (brown - 1))
    patches = _smooth_noise(size, 9, rng)
    lesion = _blend(lesion, lesion * np.array([0.72, 0.66, 0.62]), np.clip(patches, 0, 1))
    lesion = _blend(lesion, lesion * np.array([1.15, 0.95, 1.1]), np.clip(-patches - 0.6, 0, 0.8))
    # The pigment network: a mesh of dark lines.
    mesh = np.abs(_smooth_noise(size, 1.8, rng))
    lesion *= (1 - 0.16 * contrast**0.3 * np.exp(-((mesh / 0.35) ** 2)))[..., None]
    image = _blend(image, lesion, _soft_edge(depth, rng.uniform(0.06, 0.4)))
    for _ in range(rng.integers(3, 14)):
        freckle = Blob.random(tuple(rng.uniform(-1.2, 1.2, 2)), rng.uniform(0.02, 0.09), 0.2, rng)
        _paint_spot(image, y, x, freckle, lambda skin: skin * brown, rng.uniform(0.3, 0.9))

    if rng.random() < 0.5:
        ink = np.array([0.35, 0.25, 0.55])
        for _ in range(rng.integers(1, 4)):
            image = _blend(image, image * ink, 0.8 * _draw_curve(size, rng, 2.2, 0.6))
    else:
        ticks = (np.abs((x * 12) % 1 - 0.5) < 0.08) & (y > rng.uniform(0.8, 0.88))
        image[ticks] = 0.15
    for _ in range(rng.integers(0, 22)):
        image = _blend(image, np.array([0.14, 0.09, 0.07]), 0.85 * _draw_curve(size, rng, 0.6, 1.0))
    lens_distance = np.hypot(y - rng.normal(0, 0.06), x - rng.normal(0, 0.06))
    image *= (
        1 - rng.uniform(0.6, 0.97) * _soft_edge(lens_distance - rng.uniform(0.95, 1.2), 0.35)
    )[..., None]
    tilt = y * np.sin(tone * 9) + x * np.cos(tone * 9)
    image *= (1 + rng.uniform(0.08, 0.22) * tilt)[..., None]
    image += 0.01 * rng.normal(size=image.shape)
    return _to_uint8(image), depth > 0
