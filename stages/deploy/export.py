"""A trained student → student.onnx, student.pt2 and MODEL_CARD.md."""

import json
from pathlib import Path

import torch

from stages.core import cli, io
from stages.core.cli import BadInput, log
from stages.deploy import graph, records
from stages.deploy.model_card import describe_student, write_card
from stages.evaluation.evaluate import THRESHOLD
from stages.networks import models


def _check_output(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise BadInput(
            output,
            "output",
            found="a folder with files" if output.is_dir() else "a file",
            expected="nothing, or an empty folder",
            mend="name another folder in --output, or remove this one",
        )


def _check_difference(student: Path, name: str, difference: float) -> None:
    if not difference <= graph.TOLERANCE:
        raise BadInput(
            student,
            name,
            found=f"a probability differs from torch by {difference:.2g}",
            expected=f"at most {graph.TOLERANCE:g}",
            mend="install the versions of envs/lock.txt, and export again",
        )


def _about(network: graph.DeployedStudent, weights: str, any_size: bool) -> dict[str, str]:
    """Describe the exported network in words and numbers, for the files themselves."""
    height, width = network.size
    kind = "uint8 RGB, 0 to 255" if network.channels == 3 else "float32, grey values as stored"
    sides = f"fixed: {height} × {width}"
    if any_size:
        sides = f"multiples of {network.stride}, at least {network.smallest_side}"
    return {
        "made_by": f"{records.CREATOR} {records.VERSION}",
        "student": weights,
        "opset": str(graph.OPSET),
        "input": f"{graph.INPUT}: (batch, {network.channels}, height, width), {kind}; "
        "normalised inside",
        "output": f"{graph.OUTPUT}: (batch, height, width), float32, of foreground",
        "threshold": str(THRESHOLD),
        "tolerance": str(graph.TOLERANCE),
        "training_size": json.dumps([height, width]),
        "sides": sides,
        "intended_use": "research; not a medical device",
    }


def _write_graphs(
    network: graph.DeployedStudent, student: Path, weights: str, folder: Path, any_size: bool
) -> dict[str, str]:
    """Write and check both files; return what they say about themselves."""
    about = _about(network, weights, any_size)
    program = graph.trace(network, any_size=any_size)
    graph.write_onnx(program, folder / "student.onnx", about, any_size=any_size)
    onnx = graph.compare_onnx(network, folder / "student.onnx", any_size=any_size)
    _check_difference(student, "student.onnx", onnx)
    graph.write_program(program, folder / "student.pt2", about)
    pt2 = graph.compare_program(network, folder / "student.pt2", any_size=any_size)
    _check_difference(student, "student.pt2", pt2)
    log.info("student.onnx: opset %d; differs from torch by at most %.1e", graph.OPSET, onnx)
    log.info("student.pt2: torch %s; differs by at most %.1e", torch.__version__, pt2)
    log.info("any batch; height and width: %s", about["sides"])
    return about


def export(student: Path, output: Path, threads: int = 1) -> None:
    """Write a student as ONNX and for torch.export, with a model card.

    `student.onnx` and `student.pt2` read images (batch, channels, height, width), uint8 for colour
    and float32 for grey, and return the probability of foreground (batch, height, width). They
    contain the normalisation, but not the resizing to the size of the training. Both are compared
    with the student on drawn images of several sizes; if a probability differs by more than 1e-4,
    there is no output. If torch cannot export the network for other sizes, the size is fixed, which
    the files, the card and a message say. `MODEL_CARD.md` states the data, the gaze, the texts, the
    training and the metrics, as far as the results beside the student tell them.

    Parameters
    ----------
    student
        Weights, student.safetensors.
    output
        A new or an empty folder. It appears only when all files are complete and checked.
    threads
        Number of processor cores to use.
    """
    _check_output(output)
    torch.set_num_threads(threads)
    network = graph.DeployedStudent(models.load(student, "student")).eval()
    weights = io.sha256(student)
    any_size = network.any_size
    if not any_size:
        log.warning(
            "the size is fixed: sides of the training are no multiples of %d from %d on",
            network.stride,
            network.smallest_side,
        )
    with io.atomic_folder(output) as folder:
        try:
            about = _write_graphs(network, student, weights, folder, any_size)
        except OSError:
            raise
        except Exception as error:
            if not any_size:
                raise
            log.warning(
                "cannot export it for any size, so the size is fixed: %s",
                " ".join((str(error) or repr(error)).split())[:300],
            )
            about = _write_graphs(network, student, weights, folder, any_size=False)
        write_card(folder / "MODEL_CARD.md", describe_student(student, weights), about)


if __name__ == "__main__":
    cli.run(export)
