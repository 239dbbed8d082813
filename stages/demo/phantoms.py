"""Phantom images for the demo: a polyp on mucosa, a prostate in a pelvis, a lesion on skin.

They imitate what makes the real images hard (uneven light, distractors of the target's colour or
brightness, borders from sharp to lost), so that a threshold fails and a network can learn. They
are no patients, and nothing learned on them carries over to any.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]
Size = tuple[int, int]


def _noise(size: Size, scale: float, rng: np.random.Generator) -> Image:
    """Smooth noise of mean 0 and std 1; `scale` is its grain, px."""
    field = ndimage.gaussian_filter(rng.normal(size=size), scale, mode="reflect")
    normed: Image = (field - field.mean()) / (field.std() + 1e-9)
    return normed


def _grid(size: Size) -> tuple[Image, Image]:
    """Coordinates y and x, from −1 to 1 over the shorter side."""
    height, width = size
    short = min(size)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return (2 * y - height + 1) / short, (2 * x - width + 1) / short


@dataclass(frozen=True)
class Blob:
    """A closed outline around a centre: radius r(θ) with random harmonics."""

    centre: tuple[float, float]
    radius: float
    stretch: float
    tilt: float
    amplitude: NDArray[np.float64]
    phase: NDArray[np.float64]

    @staticmethod
    def draw(
        centre: tuple[float, float], radius: float, ragged: float, rng: np.random.Generator
    ) -> "Blob":
        """Draw a shape; `ragged` 0 is an ellipse, 0.3 very irregular."""
        order = np.arange(2, 8)
        return Blob(
            centre=centre,
            radius=radius,
            stretch=rng.uniform(0.75, 1.33),
            tilt=rng.uniform(0, np.pi),
            amplitude=ragged * rng.normal(size=len(order)) / order**0.7,
            phase=rng.uniform(0, 2 * np.pi, len(order)),
        )

    def depth(self, y: Image, x: Image) -> Image:
        """1 at the centre, 0 on the outline, negative outside, in units of the radius."""
        dy, dx = y - self.centre[0], x - self.centre[1]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        u, v = (cos * dx + sin * dy) / self.stretch, (cos * dy - sin * dx) * self.stretch
        distance = np.hypot(u, v)
        # Waves around the outline, Σ aₖ cos(kθ + φₖ), k from 2 on: the real part of Σ cₖ zᵏ with
        # z = exp(iθ). A power is far cheaper than a cosine.
        z = (u + 1j * v) / np.maximum(distance, 1e-9)
        coefficients = self.amplitude * np.exp(1j * self.phase)
        waves = (np.polyval(coefficients[::-1], z) * z**2).real
        outline = self.radius * np.clip(1 + waves, 0.4, 1.8)
        depth: Image = 1 - distance / outline
        return depth


def _soft(depth: Image, width: float) -> Image:
    """Opacity from 0 outside to 1 inside, over `width` radii around the outline."""
    opacity: Image = 1 / (1 + np.exp(-np.clip(4 * depth / width, -50, 50)))
    return opacity


def _mix(image: Image, colour: Image, opacity: Image) -> Image:
    """Paint (3,) or (H, W, 3) `colour` over an RGB image."""
    mixed: Image = image + (colour - image) * opacity[..., None]
    return mixed


def _curve(size: Size, rng: np.random.Generator, width: float, bend: float) -> Image:
    """Opacity of one thin bent line across a part of the image."""
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


def polyp(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """Paint a colonoscopy frame: folds, vessels, uneven light, highlights, and one or two polyps.

    A polyp is a dome with a pitted surface; its colour departs from the mucosa's by an amount that
    varies from plain to none. Red patches and stool are coloured but flat and smooth.

    Returns
    -------
    (H, W, 3) uint8 and (H, W) bool, about 160 × 190.
    """
    size = (int(rng.integers(148, 172)), int(rng.integers(178, 206)))
    y, x = _grid(size)
    mucosa = np.array([0.74, 0.42, 0.34]) + rng.normal(0, [0.05, 0.04, 0.04])
    image = mucosa + 0.02 * np.stack([_noise(size, 14, rng) for _ in range(3)], axis=-1)
    image += 0.018 * _noise(size, 1.2, rng)[..., None]

    # Haustral folds: ridges along arcs round a lumen that lies off to one side.
    lumen = rng.uniform(-0.9, 0.9, 2)
    distance = np.hypot(y - lumen[0], x - lumen[1]) + 0.06 * _noise(size, 16, rng)
    ridge = np.sin(2 * np.pi * distance / rng.uniform(0.38, 0.6) + rng.uniform(0, 6))
    image *= (1 + 0.13 * np.sign(ridge) * np.abs(ridge) ** 0.6)[..., None]
    image *= (1 - 0.75 * _soft(0.3 - distance, 0.3))[..., None]
    for _ in range(rng.integers(4, 9)):
        vessel = _curve(size, rng, 0.8, 1.5)
        image = _mix(image, image * np.array([0.85, 0.62, 0.62]), 0.6 * vessel)
    for _ in range(rng.integers(2, 5)):
        spot = Blob.draw(tuple(rng.uniform(-0.9, 0.9, 2)), rng.uniform(0.1, 0.3), 0.2, rng)
        tint = np.array([1.1, 0.78, 0.78]) if rng.random() < 0.6 else np.array([0.95, 1.05, 0.55])
        image = _mix(image, image * tint, rng.uniform(0.4, 0.9) * _soft(spot.depth(y, x), 0.5))

    mask = np.zeros(size, bool)
    plain = rng.uniform(0.2, 1.2)
    for _ in range(1 if rng.random() < 0.85 else 2):
        blob = Blob.draw(tuple(rng.uniform(-0.5, 0.5, 2)), rng.uniform(0.24, 0.52), 0.13, rng)
        depth = blob.depth(y, x)
        inside = _soft(depth, rng.uniform(0.08, 0.3))
        colour = image * (1 + plain * (np.array([1.06, 0.8, 0.82]) - 1))
        pits = _noise(size, 2.2, rng) * np.clip(0.4 + 0.6 * _noise(size, 6, rng), 0, 2)
        colour = colour * (1 + 0.12 * pits[..., None])
        # A dome, lit from a side: bright towards the light, dark away from it, a shadow beyond.
        height = ndimage.gaussian_filter(np.sqrt(np.clip(depth, 0, 1)), 2.5)
        light = rng.uniform(0, 2 * np.pi)
        slope_y, slope_x = np.gradient(height)
        shade = np.sin(light) * slope_y + np.cos(light) * slope_x
        image = _mix(image, colour, inside)
        image *= (1 + np.clip(rng.uniform(2.5, 5) * shade, -0.35, 0.35))[..., None]
        shadow = ndimage.shift(inside, (-6 * np.sin(light), -6 * np.cos(light)), order=1)
        image *= (1 - 0.2 * ndimage.gaussian_filter(shadow * (1 - inside), 3))[..., None]
        mask |= depth > 0

    lamp = rng.normal(0, 0.3, 2)
    falloff = np.hypot(y - lamp[0], x - lamp[1])
    image *= (1.2 - 0.45 * falloff)[..., None]
    for _ in range(rng.integers(6, 18)):
        shine = Blob.draw(tuple(rng.uniform(-1, 1, 2)), rng.uniform(0.015, 0.05), 0.3, rng)
        image = _mix(image, np.array([1.0, 0.97, 0.95]), _soft(shine.depth(y, x), 0.5))
    image = np.clip(image, 0, 1) + 0.012 * rng.normal(size=image.shape)
    corners = (np.abs(y) + np.abs(x)) > 0.88 * (1 + size[1] / size[0])
    image[corners] = 0.02
    return _to_uint8(image), mask & ~corners


@dataclass(frozen=True)
class Pelvis:
    """What a patient's slices share."""

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
    def draw(rng: np.random.Generator) -> "Pelvis":
        """Draw a patient."""
        return Pelvis(
            scale=rng.uniform(0.3, 0.46),
            # Wide enough that the gland's place alone does not tell its outline.
            shift=(rng.uniform(-0.15, 0.15), rng.uniform(-0.12, 0.12)),
            gland=Blob.draw((0, 0), 1, 0.05, rng),
            zone=rng.uniform(0.25, 0.45),
            rectum=Blob.draw((0, 0), 1, 0.12, rng),
            gas=rng.uniform(0.05, 0.6),
            bias=(rng.uniform(-0.4, 0.4), rng.uniform(0.1, 0.5)),
            noise=rng.uniform(0.02, 0.04),
            seed=int(rng.integers(2**31)),
        )

    def slice(self, level: float, size: Size = (160, 160)) -> tuple[NDArray[np.uint16], Mask]:
        """T2-like axial slice at `level`, −1 the apex to 1 the base.

        Returns
        -------
        (H, W) uint16, 12 bit, and (H, W) bool, the prostate.
        """
        rng = np.random.default_rng([self.seed, round((level + 1) * 1000)])
        y, x = _grid(size)
        y0, x0 = self.shift
        image = 0.62 + 0.06 * _noise(size, 3, rng)  # fat

        for side in (-1, 1):
            # Obturator and levator muscles flank the gland; femoral heads lie outside.
            muscle = 1 - np.hypot((y - y0 + 0.05) / 0.62, (x - x0 - side * 0.74) / 0.2)
            image += (0.2 + 0.03 * _noise(size, 2, rng) - image) * _soft(muscle, 0.25)
            bone = 1 - np.hypot((y - y0 + 0.1) / 0.42, (x - x0 - side * 1.1) / 0.26)
            image += (0.5 - image) * _soft(bone, 0.1)
            levator = 1 - np.hypot((y - y0 - 0.25) / 0.42, (x - x0 - side * 0.5) / 0.07)
            image += (0.24 - image) * _soft(levator, 0.5)

        bladder = 1 - np.hypot((y - y0 + 0.72 + 0.25 * (1 - level)) / 0.42, (x - x0) / 0.5)
        image += (0.22 - image) * _soft(bladder + 0.12, 0.1)
        image += (0.85 - image) * _soft(bladder, 0.1)

        grown = self.scale * np.sqrt(1 - 0.6 * level**2)
        py, px = (y - y0) / (0.86 * grown), (x - x0) / (1.12 * grown)
        depth = self.gland.depth(py, px)
        back = y0 + 0.86 * grown + 0.2
        rectum = self.rectum.depth((y - back) / 0.2, (x - x0) / 0.26)
        image += (0.28 - image) * _soft(rectum + 0.25, 0.2)
        image += (self.gas + 0.1 * _noise(size, 3, rng) - image) * _soft(rectum, 0.2)

        # Central gland with nodules, brighter peripheral zone behind, a thin dark capsule.
        nodules = 0.4 + 0.1 * _noise(size, 4, rng) + 0.04 * _noise(size, 1.5, rng)
        peripheral = 0.58 + 0.08 * _noise(size, 3, rng)
        zone = _soft(py - self.zone + 0.5 * px**2, 0.4)
        gland = nodules * (1 - zone) + peripheral * zone
        image += (gland - image) * _soft(depth, 0.12)
        image -= 0.12 * np.exp(-0.5 * (depth / 0.05) ** 2)

        field = np.exp(self.bias[0] * x + self.bias[1] * y + 0.12 * _noise(size, 30, rng))
        image = image * field
        real, imaginary = (self.noise * rng.normal(size=(2, *size))).astype(np.float64)
        image = np.hypot(image + real, imaginary)
        return np.rint(np.clip(image, 0, 2) * 1200).astype(np.uint16), depth > 0


def skin(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """Paint a dermoscopic image: hair, vignetting, ink or a ruler, freckles, and a lesion.

    The lesion is irregular, of several browns, with a border from sharp to lost; freckles and a
    blush are of its colour but without its network.

    Returns
    -------
    (H, W, 3) uint8 and (H, W) bool, about 160 × 200.
    """
    size = (int(rng.integers(150, 170)), int(rng.integers(190, 214)))
    y, x = _grid(size)
    tone = rng.uniform(0, 1)
    base = (1 - tone) * np.array([0.9, 0.73, 0.65]) + tone * np.array([0.68, 0.47, 0.36])
    image = base + 0.025 * _noise(size, 18, rng)[..., None] * np.array([1, 0.8, 0.7])
    image += 0.012 * _noise(size, 1.5, rng)[..., None]
    for _ in range(rng.integers(1, 4)):
        blush = Blob.draw(tuple(rng.uniform(-1.1, 1.1, 2)), rng.uniform(0.2, 0.45), 0.2, rng)
        tint = np.array([0.97, 0.82, 0.8]) if rng.random() < 0.5 else np.array([0.85, 0.78, 0.7])
        image = _mix(image, image * tint, rng.uniform(0.5, 1) * _soft(blush.depth(y, x), 0.6))

    blob = Blob.draw(tuple(rng.uniform(-0.35, 0.35, 2)), rng.uniform(0.28, 0.6), 0.17, rng)
    depth = blob.depth(y, x)
    contrast = rng.uniform(0.15, 0.6)
    brown = np.array([0.72, 0.5, 0.38]) + rng.normal(0, 0.05, 3)
    lesion = image * (1 + contrast * (brown - 1))
    patches = _noise(size, 9, rng)
    lesion = _mix(lesion, lesion * np.array([0.72, 0.66, 0.62]), np.clip(patches, 0, 1))
    lesion = _mix(lesion, lesion * np.array([1.15, 0.95, 1.1]), np.clip(-patches - 0.6, 0, 0.8))
    # The pigment network: a mesh of dark lines.
    mesh = np.abs(_noise(size, 1.8, rng))
    lesion *= (1 - 0.16 * contrast**0.3 * np.exp(-((mesh / 0.35) ** 2)))[..., None]
    image = _mix(image, lesion, _soft(depth, rng.uniform(0.06, 0.4)))
    for _ in range(rng.integers(3, 14)):
        freckle = Blob.draw(tuple(rng.uniform(-1.2, 1.2, 2)), rng.uniform(0.02, 0.09), 0.2, rng)
        strength = rng.uniform(0.3, 0.9)
        image = _mix(image, image * brown, strength * _soft(freckle.depth(y, x), 0.5))

    if rng.random() < 0.5:
        ink = np.array([0.35, 0.25, 0.55])
        for _ in range(rng.integers(1, 4)):
            image = _mix(image, image * ink, 0.8 * _curve(size, rng, 2.2, 0.6))
    else:
        ticks = (np.abs((x * 12) % 1 - 0.5) < 0.08) & (y > rng.uniform(0.8, 0.88))
        image[ticks] = 0.15
    for _ in range(rng.integers(0, 22)):
        image = _mix(image, np.array([0.14, 0.09, 0.07]), 0.85 * _curve(size, rng, 0.6, 1.0))
    lens = np.hypot(y - rng.normal(0, 0.06), x - rng.normal(0, 0.06))
    image *= (1 - rng.uniform(0.6, 0.97) * _soft(lens - rng.uniform(0.95, 1.2), 0.35))[..., None]
    tilt = y * np.sin(tone * 9) + x * np.cos(tone * 9)
    image *= (1 + rng.uniform(0.08, 0.22) * tilt)[..., None]
    image += 0.01 * rng.normal(size=image.shape)
    return _to_uint8(image), depth > 0
