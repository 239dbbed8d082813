"""Time the DARM mask of a whole batch against the published Python loop over NumPy arrays.

    python benchmarks/darm.py [--repeats 15]

Both mask the same batches of 8 on one core, in turns. The loop shuffles the coordinates of all
disagreeing pixels and places block after block until it reaches the budget. The published loop
counts overlapping blocks several times; the exact loop counts the masked pixels, like ours. The
disagreement is a wavy ring of one of three widths, as between two outlines of one lesion. The last
line is a JSON object about the middle width at 224 × 224 px.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Set before NumPy and torch are imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from published_reference import DARM_BLOCK, DARM_RATIO, place_blocks  # noqa: E402

from stages.training.masking import disagreement_mask  # noqa: E402

BATCH = 8
SIDES = (64, 224)
# Half the width of the ring, as a fraction of the image side.
WIDTHS = (0.01, 0.03, 0.08)

Bools = NDArray[np.bool_]


def draw_rings(side: int, width: float, rng: np.random.Generator) -> Bools:
    """Draw a (BATCH, side, side) disagreement, one wavy ring per image."""
    y, x = np.mgrid[:side, :side] + 0.5
    rings = []
    for _ in range(BATCH):
        centre, radius = side * rng.uniform(0.4, 0.6, 2), side * rng.uniform(0.15, 0.25)
        wave = side / 60 * np.sin(5 * np.arctan2(y - centre[0], x - centre[1]))
        distance = np.hypot(y - centre[0], x - centre[1]) + wave
        rings.append(abs(distance - radius) < width * side)
    return np.stack(rings)


def mask_whole_batch(disagreement: Bools, generator: torch.Generator) -> Bools:
    mask = disagreement_mask(
        torch.from_numpy(disagreement), ratio=DARM_RATIO, block=DARM_BLOCK, generator=generator
    )
    return mask.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # After a large array is freed, malloc keeps memory for later arrays, as during training.
    np.ones(30 * 2**20, np.uint8)
    rng = np.random.default_rng(0)
    methods: dict[str, Callable[[Bools], Bools]] = {
        "ours": partial(mask_whole_batch, generator=torch.Generator().manual_seed(0)),
        "published loop": partial(place_blocks, rng=rng, count_overlaps_once=False),
        "exact loop": partial(place_blocks, rng=rng, count_overlaps_once=True),
    }

    columns = "".join(f"{name:>16}" for name in methods)
    print(f"{'side':>5}{'disagree':>10}{columns}{'ratio':>8}{'exact':>8}   ms per batch; masked")
    results = {}
    for side in SIDES:
        for width in WIDTHS:
            disagreement = draw_rings(side, width, rng)
            pixels = round(float(disagreement.sum()) / BATCH)
            seconds: dict[str, list[float]] = {name: [] for name in methods}
            masked = {}
            for turn in range(arguments.repeats + 1):
                # The order changes with each turn.
                names = list(methods)
                for name in names[turn % 3 :] + names[: turn % 3]:
                    before = time.perf_counter()
                    mask = methods[name](disagreement)
                    seconds[name].append(time.perf_counter() - before)
                    masked[name] = mask.sum() / disagreement.sum()
            # The first turn is the warm-up.
            ours, published, exact = (1000 * float(np.median(s[1:])) for s in seconds.values())
            results[side, width] = {
                "side": side,
                "disagreeing_pixels": pixels,
                "ours": round(ours, 2),
                "other": round(published, 2),
                "exact_loop": round(exact, 2),
                "ratio": round(published / ours, 2),
                "exact_ratio": round(exact / ours, 2),
            }
            print(
                f"{side:>5}{pixels:>10}{ours:>16.2f}{published:>16.2f}{exact:>16.2f}"
                f"{published / ours:>8.1f}{exact / ours:>8.1f}   "
                + ", ".join(f"{share:.2f}" for share in masked.values())
            )
    middle = results[SIDES[-1], WIDTHS[1]]
    print(
        json.dumps(
            {
                "name": "darm",
                "ours": middle["ours"],
                "other": middle["other"],
                "unit": "ms per batch of 8",
                "ratio": middle["ratio"],
                "repeats": arguments.repeats,
                "exact_loop": middle["exact_loop"],
                "exact_ratio": middle["exact_ratio"],
                "by_size": list(results.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
