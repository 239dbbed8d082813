"""Run `verify`, `prepare` and `gaze` on many samples: images per second, and peak memory.

    python benchmarks/many.py [--images 5000] [--threads 2]

The frames have 530 × 620 px, the layout of Kvasir-SEG, and all of them gaze. The last line is a
JSON object; its ratio is 2 GiB divided by the highest peak.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIZE = (530, 620)
LIMIT_MIB = 2048
COLUMNS = (
    "IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION",
    "CURRENT_FIX_START",
)  # fmt: skip


def write_raw_folder(root: Path, images: int) -> None:
    """Write the raw folder: textured frames, each with a brighter disc that has gaze."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    texture = [
        np.asarray(Image.fromarray(rng.integers(60, 160, (40, 50, 3), np.uint8)).resize(SIZE[::-1]))
        for _ in range(8)
    ]
    with (root / "fixations.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for i in range(images):
            centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(40, 110)
            disc = np.hypot(y - centre[0] * SIZE[0], x - centre[1] * SIZE[1]) < radius
            frame = texture[i % len(texture)] + np.uint8(60) * disc[..., None]
            Image.fromarray(frame).save(root / f"images/{i:05d}.jpg", quality=90)
            Image.fromarray(disc.astype(np.uint8) * 255).save(root / f"masks/{i:05d}.jpg")
            for j in range(15):
                fixation = centre[::-1] + rng.normal(0, 0.05, 2)
                table.writerow((f"{i:05d}.jpg", j + 1, *fixation, rng.integers(100, 600), 500 * j))
    num_train = round(0.9 * images)
    (root / "train.txt").write_text("".join(f"{i:05d}\n" for i in range(num_train)))
    (root / "test.txt").write_text("".join(f"{i:05d}\n" for i in range(num_train, images)))


def run_stage(stage: str, **options: object) -> tuple[float, float]:
    """Run a stage like its rule; return its seconds and its peak resident memory, MiB."""
    command = [sys.executable, "-m", f"stages.{stage}"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{stage} failed: {' '.join(command)}")
    # Linux reports KiB, macOS bytes.
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    prepare_settings = {"layout": "kvasir", "size": [224, 224]}
    verify_settings = {
        "prepare": prepare_settings,
        "recording": {},
        "min_fixation_ms": 50,
        "partial": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        raw, fixations = Path(folder) / "raw", Path(folder) / "raw/fixations.csv"
        prepared, threads = Path(folder) / "prepared.h5", arguments.threads
        write_raw_folder(raw, arguments.images)
        measurements = {
            "verify": run_stage(
                "gaze.verify", raw=raw, fixations=fixations,
                output=Path(folder) / "verified.csv", settings=json.dumps(verify_settings),
                threads=threads,
            ),
            "prepare": run_stage(
                "data.prepare", raw=raw, output=prepared, settings=json.dumps(prepare_settings),
                threads=threads,
            ),
            "pseudomasks": run_stage(
                "gaze.pseudomasks", prepared=prepared, fixations=fixations,
                output=Path(folder) / "gaze.h5", settings="{}", threads=threads, gpus=0,
            ),
        }  # fmt: skip
    for stage, (seconds, peak) in measurements.items():
        print(f"{stage:>11}: {arguments.images / seconds:7.1f} images/s, peak {peak:6.0f} MiB")
    highest = max(peak for _, peak in measurements.values())
    print(
        json.dumps(
            {
                "name": "many",
                "ours": round(highest),
                "other": LIMIT_MIB,
                "unit": "MiB at the peak",
                "ratio": round(LIMIT_MIB / highest, 2),
                "repeats": 1,
                "images": arguments.images,
                "threads": threads,
                "images_per_second": {
                    stage: round(arguments.images / seconds, 1)
                    for stage, (seconds, _) in measurements.items()
                },
                "peak_mib": {stage: round(peak) for stage, (_, peak) in measurements.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
