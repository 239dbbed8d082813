"""Time `segment` against MONAI's sliding-window inferer, and an exported student against torch.

    python benchmarks/segment.py [--repeats 3]

The same student (published widths, one channel, random weights), one core and the same 16 slices
of a volume, in turns. Ours is the core of `gaze-to-insight segment`: resize, batches of 8, resize
back, threshold. MONAI's gets the slices as one batch, with windows of the working size, 8 at a time
and an overlap of a quarter. In the first row slices have the working size, 128 × 128, so each has
one window and both compute the same masks (checked). In the second row 4 slices have 256 × 256:
ours resizes them as the training did, and MONAI's slides nine windows over each, which a student
trained on resized slices has never seen. The third row is student.onnx in onnxruntime against
torch, both on batches of 8. The last line is a JSON object about the first row.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Set before NumPy and torch are imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# The training of seconds is the one of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from monai.inferers import SlidingWindowInferer  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from tiny_training import make_files, train_tiny_student, train_tiny_teacher  # noqa: E402

from stages.core.resize import resize  # noqa: E402
from stages.deploy import graph  # noqa: E402
from stages.deploy.inference import Ensemble  # noqa: E402
from stages.networks import models  # noqa: E402
from stages.training.samples import normalise  # noqa: E402

SLICES, BATCH, SIZE = 16, 8, (128, 128)
WIDTHS = (32, 64, 128, 256, 512, 32)
DECODER_WIDTHS = (256, 128, 64, 32, 16)
THRESHOLD = 0.5


def draw_volume(side: int) -> list[NDArray[np.float32]]:
    """Draw SLICES slices (side, side, 1): a bright ball in noise."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:SLICES, :side, :side] / np.array([SLICES, side, side])[:, None, None, None]
    ball = (z - 0.5) ** 2 + (y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.1
    volume = 100 * ball + rng.normal(300, 30, ball.shape)
    return list(volume.astype(np.float32)[..., None])


def segment_ours(ensemble: Ensemble, slices: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    keyed = ((image.shape[:2], ensemble.shrink(image)) for image in slices)
    masks = [
        resize(maps.probability, size) >= THRESHOLD for size, maps in ensemble.stream(keyed, BATCH)
    ]
    return np.stack(masks)


@torch.no_grad()
def segment_monai(student: models.Student, slices: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    inferer = SlidingWindowInferer(roi_size=SIZE, sw_batch_size=BATCH, overlap=0.25)
    images = normalise(torch.from_numpy(np.stack(slices)).permute(0, 3, 1, 2).contiguous())
    log_odds: Any = inferer(images, lambda windows: student(windows).log_odds[:, None])
    return (log_odds.sigmoid() >= THRESHOLD)[:, 0].numpy()


def medians(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Call the methods in turns; return the median seconds of each, without the first turn."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(repeats + 1):
        # The order changes with each turn.
        names = list(methods) if turn % 2 else list(methods)[::-1]
        for name in names:
            before = time.perf_counter()
            methods[name]()
            seconds[name].append(time.perf_counter() - before)
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def make_students(folder: Path) -> dict[str, models.Student]:
    """Make a student of each kind: the published network, one on an encoder of timm, a trained one.

    The first two have random weights.
    """
    kinds = {"U-Net": {"widths": WIDTHS}}
    kinds["lite0"] = {"encoder": "tf_efficientnet_lite0", "decoder_widths": DECODER_WIDTHS}
    students: dict[str, models.Student] = {}
    for name, parts in kinds.items():
        architecture = models.Architecture(
            role="student", channels=1, size=SIZE, head_width=32, **parts
        )
        student = models.build(architecture, seed=0).eval()
        assert isinstance(student, models.Student)
        students[name] = student
    files = make_files(folder)
    trained = train_tiny_student(files, folder, train_tiny_teacher(files, folder))
    return students | {"trained": models.load(trained, "student").eval()}


def compare_with_onnx(student: models.Student, repeats: int) -> tuple[dict[str, float], float]:
    """Return the median seconds of a batch in onnxruntime and in torch, and the largest difference.

    The difference is of probabilities, over the sizes and batches of `graph.compare_onnx`.
    """
    network = graph.DeployedStudent(student).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "student.onnx")
        graph.write_onnx(graph.trace(network, any_size=True), path, {}, any_size=True)
        difference = graph.compare_onnx(network, path, any_size=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    images = network.example(BATCH, *network.size, seed=0)

    @torch.no_grad()
    def run_torch() -> object:
        return network(images)

    methods = {
        "onnx": lambda: session.run(None, {graph.INPUT: images.numpy()}),
        "torch": run_torch,
    }
    return medians(methods, repeats), difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        students = make_students(Path(folder))
    student = students["U-Net"]
    ensemble = Ensemble([student])

    print(f"{'':<34}{'ours':>10}{'other':>10}{'ratio':>8}   slices per second, one core")
    rows: dict[str, dict[str, float]] = {}

    def show(name: str, count: int, ours: float, other: float, note: str = "") -> None:
        rows[name] = {
            "ours": round(count / ours, 2),
            "other": round(count / other, 2),
            "ratio": round(other / ours, 2),
        }
        print(f"{name:<34}{count / ours:>10.2f}{count / other:>10.2f}{other / ours:>8.2f}{note}")

    slices = draw_volume(SIZE[0])
    ours, other = partial(segment_ours, ensemble), partial(segment_monai, student)
    agreement = float((ours(slices) == other(slices)).mean())
    for side, count, repeats in ((SIZE[0], SLICES, arguments.repeats), (2 * SIZE[0], 4, 1)):
        slices = draw_volume(side)[:count]
        found = medians({"ours": partial(ours, slices), "other": partial(other, slices)}, repeats)
        show(f"{side} × {side}, MONAI's windows", count, found["ours"], found["other"])

    differences = {}
    for name, network in students.items():
        found, differences[name] = compare_with_onnx(network, arguments.repeats)
        note = f"   differ by at most {differences[name]:.1e}"
        show(f"student.onnx, torch: {name}", BATCH, found["onnx"], found["torch"], note)
    first, second, *of_onnx = rows.values()
    print(
        json.dumps(
            {
                "name": "segment",
                **first,
                "unit": "slices per second",
                "repeats": arguments.repeats,
                "same_pixels": round(agreement, 6),
                "full_resolution": second,
                "onnx_against_torch": {
                    name: {**row, "largest_difference": differences[name]}
                    for name, row in zip(students, of_onnx, strict=True)
                },
            }
        )
    )


if __name__ == "__main__":
    main()
