"""Time stages.crf against pydensecrf2 on one core, alternating, and compare their maps.

    python benchmarks/crf.py [--repeats 6] [--size 530 620]

The last line is a JSON object.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Before NumPy is imported: pydensecrf2 has one thread, so ours gets one.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy import ndimage  # noqa: E402

from stages.crf import refine  # noqa: E402

try:
    import pydensecrf.densecrf as dense
except ImportError:
    sys.exit("benchmarks/crf.py compares with pydensecrf2: pip install pydensecrf2")

# The published settings; the spatial std belongs to images of about 530 × 620.
SXY, SRGB, COMPAT, ITERATIONS = 80.0, 13.0, 1.0, 10
THRESHOLDS = (0.3, 0.5)

Floats = NDArray[np.float32]


def draw_case(size: tuple[int, int], seed: int) -> tuple[NDArray[np.uint8], Floats]:
    """Return a textured (H, W, 3) image with one coloured lesion, and a (H, W) gaze heatmap."""
    rng = np.random.default_rng(seed)
    height, width = size
    side = np.sqrt(height * width)
    y, x = np.mgrid[:height, :width]
    image = np.tile(np.array([150.0, 100.0, 80.0]), (*size, 1))
    # Pixel noise, fine and coarse texture, shading: blur in px and contrast in grey levels.
    for blur, contrast in ((0, 3), (2, 5), (8, 10), (side / 10, 20)):
        for channel in range(3):
            noise = ndimage.gaussian_filter(rng.normal(size=size), blur)
            image[..., channel] += contrast * noise / noise.std()
    centre = rng.uniform(0.3, 0.7, 2) * size
    radius = rng.uniform(0.12, 0.25, 2) * side
    angle = np.arctan2(y - centre[0], x - centre[1])
    distance = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
    image[distance < 1 + 0.15 * np.sin(3 * angle)] += [40, 20, -30]

    heat = np.zeros(size)
    for _ in range(8):
        fixation = centre + 0.6 * radius * rng.normal(size=2)
        apart = ((y - fixation[0]) / height) ** 2 + ((x - fixation[1]) / width) ** 2
        heat += rng.uniform(0.2, 1) * np.exp(-0.5 * apart / 0.09**2)
    heat = (heat - heat.min()) / np.ptp(heat)
    return np.clip(image, 0, 255).astype(np.uint8), heat.astype(np.float32)


def run_ours(image: NDArray[np.uint8], heat: Floats, sxy: tuple[float, float]) -> Floats:
    return refine(image, heat, sxy=sxy, srgb=SRGB, compat=COMPAT, iterations=ITERATIONS)


def run_other(image: NDArray[np.uint8], heat: Floats, sxy: tuple[float, float]) -> Floats:
    height, width = heat.shape
    model = dense.DenseCRF2D(width, height, 2)
    p = np.clip(heat.astype(np.float64), 1e-5, 1 - 1e-5).ravel()
    model.setUnaryEnergy(-np.log(np.stack([1 - p, p])).astype(np.float32))
    model.addPairwiseBilateral(
        sxy=sxy[::-1],
        srgb=SRGB,
        rgbim=image,
        compat=COMPAT,
        kernel=dense.DIAG_KERNEL,
        normalization=dense.NORMALIZE_SYMMETRIC,
    )
    return np.array(model.inference(ITERATIONS))[1].reshape(heat.shape)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def timed(run: Callable[..., Floats], *arguments: object) -> tuple[float, Floats]:
    start = time.perf_counter()
    result = run(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=6, help="number of images")
    parser.add_argument("--size", type=int, nargs=2, default=(530, 620), help="height and width")
    arguments = parser.parse_args()
    size = tuple(arguments.size)
    sxy = (SXY * size[0] / 530, SXY * size[1] / 620)

    warm = draw_case((64, 64), 0)
    run_ours(*warm, sxy)
    run_other(*warm, sxy)
    rows = []
    print(f"{'image':>5} {'ours, s':>9} {'other, s':>9} {'MAE':>9} {'Dice 0.3':>9} {'Dice 0.5':>9}")
    for i in range(arguments.repeats):
        case = draw_case(size, i)
        # Which one goes first alternates too.
        runs = (run_ours, run_other) if i % 2 == 0 else (run_other, run_ours)
        found = {run: timed(run, *case, sxy) for run in runs}
        (ours, mine), (other, theirs) = found[run_ours], found[run_other]
        error = float(abs(mine - theirs).mean())
        row = (ours, other, error, *(dice(mine >= t, theirs >= t) for t in THRESHOLDS))
        rows.append(row)
        print(f"{i:>5} {row[0]:>9.4f} {row[1]:>9.4f} {row[2]:>9.5f} {row[3]:>9.4f} {row[4]:>9.4f}")
    ours, other = np.median([row[:2] for row in rows], axis=0)
    mean = np.mean(rows, axis=0)
    print(f"median {ours:.4f} s against {other:.4f} s on {size[0]} × {size[1]}")
    print(
        json.dumps(
            {
                "name": "crf",
                "ours": round(float(ours), 4),
                "other": round(float(other), 4),
                "unit": "s per image",
                "ratio": round(float(other / ours), 2),
                "repeats": arguments.repeats,
                "mean_absolute_difference": round(float(mean[2]), 6),
                "dice_at_0.5": round(float(mean[4]), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
