"""Time DARM's whole-batch mask against a Python loop over NumPy arrays, as it was published.

    python benchmarks/darm.py [--repeats 15]

Both get the same batches of 8 on one core, by turns. The loop shuffles the coordinates of all
disagreeing pixels and lays block after block until the budget is met; the published one counts
overlaps of blocks as often as they occur, the other looks at the mask after each block, which is
what ours does. The disagreement is a wavy ring, as between two outlines of one lesion, of three
widths. The last line is a JSON object, about the middle width at 224 × 224 px.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Before NumPy and torch are imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from published_reference import DARM_BLOCK, DARM_RATIO, lay_blocks  # noqa: E402

from stages.training.masking import disagreement_mask  # noqa: E402

BATCH = 8
SIDES = (64, 224)
# Half the ring's width over the image's side.
WIDTHS = (0.01, 0.03, 0.08)

Bools = NDArray[np.bool_]


def draw_rings(side: int, width: float, rng: np.random.Generator) -> Bools:
    """Return a (BATCH, side, side) disagreement, one wavy ring per image."""
    y, x = np.mgrid[:side, :side] + 0.5
    rings = []
    for _ in range(BATCH):
        centre, radius = side * rng.uniform(0.4, 0.6, 2), side * rng.uniform(0.15, 0.25)
        wave = side / 60 * np.sin(5 * np.arctan2(y - centre[0], x - centre[1]))
        distance = np.hypot(y - centre[0], x - centre[1]) + wave
        rings.append(abs(distance - radius) < width * side)
    return np.stack(rings)


def whole_batch(disagreement: Bools, generator: torch.Generator) -> Bools:
    mask = disagreement_mask(
        torch.from_numpy(disagreement), ratio=DARM_RATIO, block=DARM_BLOCK, generator=generator
    )
    return mask.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Once it has freed an array of the size of activations, malloc keeps memory, as in training.
    np.ones(30 * 2**20, np.uint8)
    rng = np.random.default_rng(0)
    methods: dict[str, Callable[[Bools], Bools]] = {
        "ours": partial(whole_batch, generator=torch.Generator().manual_seed(0)),
        "published loop": partial(lay_blocks, rng=rng, recount=False),
        "exact loop": partial(lay_blocks, rng=rng, recount=True),
    }

    columns = "".join(f"{name:>16}" for name in methods)
    print(f"{'side':>5}{'disagree':>10}{columns}{'ratio':>8}{'exact':>8}   ms per batch; masked")
    found = {}
    for side in SIDES:
        for width in WIDTHS:
            disagreement = draw_rings(side, width, rng)
            pixels = round(float(disagreement.sum()) / BATCH)
            seconds: dict[str, list[float]] = {name: [] for name in methods}
            masked = {}
            for turn in range(arguments.repeats + 1):
                # Which one goes first changes too.
                names = list(methods)
                for name in names[turn % 3 :] + names[: turn % 3]:
                    before = time.perf_counter()
                    mask = methods[name](disagreement)
                    seconds[name].append(time.perf_counter() - before)
                    masked[name] = mask.sum() / disagreement.sum()
            # The first turn warms up.
            ours, published, exact = (1000 * float(np.median(s[1:])) for s in seconds.values())
            found[side, width] = {
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
    middle = found[SIDES[-1], WIDTHS[1]]
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
                "by_size": list(found.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
