"""Time the dense CRF of stage `gaze`, a thread pool over images, against a loop over pydensecrf2.

    python benchmarks/gaze.py [--images 64] [--repeats 3]

Both get the same images and the same two cores, block by block, by turns; each image's maps are
compared. Peak memory is that of fresh processes that refine none, a quarter, all and four times the
images, drawn one by one. The last line is a JSON object. `--images 8 --repeats 1` is a quick look.
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

# Before NumPy and torch are imported: the pool's threads are all that ours gets.
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
# From cases to maps, in their order.
Method = Callable[[Sequence[Case]], list[Floats]]


def draw_case(seed: int) -> Case:
    """Return a textured (H, W, 3) image with one coloured lesion, and a (H, W) gaze heatmap."""
    rng = np.random.default_rng(seed)
    height, width = size = int(rng.integers(500, 561)), int(rng.integers(590, 651))
    side = np.sqrt(height * width)
    y, x = np.mgrid[:height, :width]
    image = np.tile(np.array([150.0, 100.0, 80.0]), (*size, 1))
    # Pixel noise, fine and coarse texture, shading: blur in px and contrast in grey levels.
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
        apart = ((y - fixation[0]) / height) ** 2 + ((x - fixation[1]) / width) ** 2
        heat += rng.uniform(0.2, 1) * np.exp(-0.5 * apart / 0.09**2)
    heat = (heat - heat.min()) / np.ptp(heat)
    return np.clip(image, 0, 255).astype(np.uint8), heat.astype(np.float32)


def refine_one(case: Case) -> Floats:
    return crf.refine(*case, sxy=(SXY, SXY), srgb=SRGB, compat=COMPAT, iterations=ITERATIONS)


def run_pool(cases: Sequence[Case]) -> list[Floats]:
    return list(parallel.ordered(refine_one, cases, THREADS))


def run_serial(cases: Sequence[Case]) -> list[Floats]:
    return [refine_one(case) for case in cases]


def run_other(cases: Sequence[Case]) -> list[Floats]:
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


def difference(ours: Floats, other: Floats) -> tuple[float, ...]:
    """Mean absolute difference, then the Dice of the maps cut at each threshold."""
    return (
        float(abs(ours - other).mean()),
        *(dice(ours >= t, other >= t) for t in THRESHOLDS),
    )


def measure_peak(images: int) -> float:
    """Peak resident memory of this process, MiB, once it has refined so many images."""
    torch.set_num_threads(1)
    cases: Iterator[Case] = (draw_case(seed) for seed in range(images))
    for refined in parallel.ordered(refine_one, cases, THREADS):
        assert np.isfinite(refined.sum())
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def median_peak(images: int, repeats: int) -> int:
    """Return the median of `measure_peak` over fresh processes, MiB."""
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

    # First of all: a child's peak counts from that of the process that starts it.
    counts = (0, arguments.images // 4, arguments.images, 4 * arguments.images)
    memory = {n: median_peak(n, arguments.repeats) for n in counts}
    print("peak memory, MiB: " + ", ".join(f"{m} of {n} images" for n, m in memory.items()))

    methods: dict[str, Method] = {"ours": run_pool, "one thread": run_serial, "other": run_other}
    for method in methods.values():
        method([draw_case(0)])
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    apart = []
    print(f"{'images':>9}" + "".join(f"{name:>12}" for name in methods) + "   s per image")
    for start in range(0, arguments.images, BLOCK):
        seeds = range(start, min(start + BLOCK, arguments.images))
        cases = [draw_case(seed) for seed in seeds]
        for turn in range(arguments.repeats):
            # Which one goes first changes too.
            names = list(methods)
            names = names[turn % 3 :] + names[: turn % 3]
            maps = {}
            for name in names:
                before = time.perf_counter()
                maps[name] = methods[name](cases)
                seconds[name].append((time.perf_counter() - before) / len(cases))
            for one, other in zip(maps["ours"], maps["one thread"]):
                assert (one == other).all(), "the thread pool changed a map"
            print(
                f"{seeds[0]:>4}–{seeds[-1]:<4}"
                + "".join(f"{seconds[name][-1]:>12.4f}" for name in methods)
            )
        apart += [difference(*pair) for pair in zip(maps["ours"], maps["other"])]

    ours, single, other = (float(np.median(seconds[name])) for name in methods)
    errors = np.array(apart)
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
