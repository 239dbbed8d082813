"""Time the dense CRF of stage `gaze`, a thread pool over images, against a loop over pydensecrf2.

    python benchmarks/gaze.py [--images 64] [--repeats 3]

Both refine the same images on the same two cores, in turns, block by block, and the maps of each
image are compared. Peak memory is that of new processes that refine no image, a quarter, all, and
four times the images, which are drawn one by one. The last line is a JSON object. For a quick look
use `--images 8 --repeats 1`.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Set before NumPy and torch are imported, so that only the pool starts threads.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy import fft, ndimage  # noqa: E402

from stages.core import parallel  # noqa: E402
from stages.gaze import crf  # noqa: E402

try:
    import pydensecrf.densecrf as dense
except ImportError:
    sys.exit("benchmarks/gaze.py compares with pydensecrf2: pip install pydensecrf2")

# The published settings.
SXY, SRGB, COMPAT, ITERATIONS = 80.0, 13.0, 1.0, 10
THRESHOLDS = (0.3, 0.5)
THREADS = 2
BLOCK = 16

Floats = NDArray[np.float32]
Case = tuple[NDArray[np.uint8], Floats]
# Returns the map of each case.
Method = Callable[[Sequence[Case]], list[Floats]]


def draw_case(seed: int) -> Case:
    """Draw a textured (H, W, 3) image with one coloured lesion, and a (H, W) gaze heatmap."""
    rng = np.random.default_rng(seed)
    height, width = size = int(rng.integers(500, 561)), int(rng.integers(590, 651))
    side = np.sqrt(height * width)
    y, x = np.mgrid[:height, :width]
    image = np.tile(np.array([150.0, 100.0, 80.0]), (*size, 1))
    # Pixel noise, fine and coarse texture, and shading: blur in px, contrast in grey levels.
    power = np.zeros((height, width // 2 + 1))
    for blur, contrast in ((0, 3), (2, 5), (8, 10), (side / 10, 20)):
        bell = ndimage.fourier_gaussian(np.ones_like(power), blur, n=width)
        power += contrast**2 * bell**2 / (bell**2).mean()
    for channel in range(3):
        image[..., channel] += fft.irfft2(np.sqrt(power) * fft.rfft2(rng.normal(size=size)), size)
    centre = rng.uniform(0.3, 0.7, 2) * size
    radius = rng.uniform(0.12, 0.25, 2) * side
    angle = np.arctan2(y - centre[0], x - centre[1])
    distance = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
    image[distance < 1 + 0.15 * np.sin(3 * angle)] += [40, 20, -30]

    heat = np.zeros(size)
    for _ in range(8):
        fixation = centre + 0.6 * radius * rng.normal(size=2)
        distance = ((y - fixation[0]) / height) ** 2 + ((x - fixation[1]) / width) ** 2
        heat += rng.uniform(0.2, 1) * np.exp(-0.5 * distance / 0.09**2)
    heat = (heat - heat.min()) / np.ptp(heat)
    return np.clip(image, 0, 255).astype(np.uint8), heat.astype(np.float32)


def refine_one(case: Case) -> Floats:
    return crf.refine(*case, sxy=(SXY, SXY), srgb=SRGB, compat=COMPAT, iterations=ITERATIONS)


def refine_in_pool(cases: Sequence[Case]) -> list[Floats]:
    return list(parallel.ordered_map(refine_one, cases, THREADS))


def refine_in_one_thread(cases: Sequence[Case]) -> list[Floats]:
    return [refine_one(case) for case in cases]


def refine_with_pydensecrf(cases: Sequence[Case]) -> list[Floats]:
    maps = []
    for image, heat in cases:
        model = dense.DenseCRF2D(heat.shape[1], heat.shape[0], 2)
        p = np.clip(heat.astype(np.float64), 1e-5, 1 - 1e-5).ravel()
        model.setUnaryEnergy(-np.log(np.stack([1 - p, p])).astype(np.float32))
        model.addPairwiseBilateral(
            sxy=SXY,
            srgb=SRGB,
            rgbim=image,
            compat=COMPAT,
            kernel=dense.DIAG_KERNEL,
            normalization=dense.NORMALIZE_SYMMETRIC,
        )
        maps.append(np.array(model.inference(ITERATIONS))[1].reshape(heat.shape))
    return maps


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def compare_maps(ours: Floats, other: Floats) -> tuple[float, ...]:
    """Return the mean absolute difference, then the Dice of the maps at each threshold."""
    return (
        float(abs(ours - other).mean()),
        *(dice(ours >= t, other >= t) for t in THRESHOLDS),
    )


def measure_peak(images: int) -> float:
    """Refine `images` images; return the peak resident memory of this process, MiB."""
    torch.set_num_threads(1)
    cases: Iterator[Case] = (draw_case(seed) for seed in range(images))
    for refined in parallel.ordered_map(refine_one, cases, THREADS):
        assert np.isfinite(refined.sum())
    # Linux reports KiB, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def median_peak(images: int, repeats: int) -> int:
    """Return the median of `measure_peak` over new processes, MiB."""
    context = multiprocessing.get_context("spawn")
    runs = []
    for _ in range(repeats):
        with ProcessPoolExecutor(1, mp_context=context) as child:
            runs.append(child.submit(measure_peak, images).result())
    return round(float(np.median(runs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])

    # Must come first: the peak of a child starts at that of its parent process.
    counts = (0, arguments.images // 4, arguments.images, 4 * arguments.images)
    memory = {n: median_peak(n, arguments.repeats) for n in counts}
    print("peak memory, MiB: " + ", ".join(f"{m} of {n} images" for n, m in memory.items()))

    methods: dict[str, Method] = {
        "ours": refine_in_pool,
        "one thread": refine_in_one_thread,
        "other": refine_with_pydensecrf,
    }
    for method in methods.values():
        method([draw_case(0)])
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    differences = []
    print(f"{'images':>9}" + "".join(f"{name:>12}" for name in methods) + "   s per image")
    for start in range(0, arguments.images, BLOCK):
        seeds = range(start, min(start + BLOCK, arguments.images))
        cases = [draw_case(seed) for seed in seeds]
        for turn in range(arguments.repeats):
            # The order changes with each turn.
            names = list(methods)
            names = names[turn % 3 :] + names[: turn % 3]
            maps = {}
            for name in names:
                before = time.perf_counter()
                maps[name] = methods[name](cases)
                seconds[name].append((time.perf_counter() - before) / len(cases))
            for ours_map, other in zip(maps["ours"], maps["one thread"]):
                assert (ours_map == other).all(), "the thread pool changed a map"
            print(
                f"{seeds[0]:>4}–{seeds[-1]:<4}"
                + "".join(f"{seconds[name][-1]:>12.4f}" for name in methods)
            )
        differences += [compare_maps(*pair) for pair in zip(maps["ours"], maps["other"])]

    ours, single, other = (float(np.median(seconds[name])) for name in methods)
    errors = np.array(differences)
    mean, largest, smallest = errors.mean(axis=0), errors.max(axis=0), errors.min(axis=0)
    print(f"mean absolute difference: mean {mean[0]:.5f}, worst {largest[0]:.5f}")
    for i, threshold in enumerate(THRESHOLDS, 1):
        print(f"Dice cut at {threshold}: mean {mean[i]:.4f}, worst {smallest[i]:.4f}")
    print(
        json.dumps(
            {
                "name": "gaze",
                "ours": round(ours, 4),
                "other": round(other, 4),
                "unit": "s per image",
                "ratio": round(other / ours, 2),
                "repeats": arguments.repeats,
                "images": arguments.images,
                "one_thread": round(single, 4),
                "one_thread_ratio": round(other / single, 2),
                "two_threads_to_one": round(single / ours, 2),
                "mean_absolute_difference": round(float(mean[0]), 6),
                "worst_mean_absolute_difference": round(float(largest[0]), 6),
                **{
                    f"{word}dice_at_{threshold}": round(float(values[i]), 4)
                    for i, threshold in enumerate(THRESHOLDS, 1)
                    for word, values in (("", mean), ("worst_", smallest))
                },
                "peak_mib_by_images": memory,
            }
        )
    )


if __name__ == "__main__":
    main()
