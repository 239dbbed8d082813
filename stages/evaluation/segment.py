"""A trained student on images of anyone's: the masks, at the images' own sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.core import cli, io
from stages.core.cli import BadInput, Problems
from stages.core.device import choose, deterministic
from stages.core.resize import as_seen, resize
from stages.data.datasets import folder, listing
from stages.evaluation.evaluate import THRESHOLD
from stages.networks import models
from stages.training.samples import normalise


def _check_folders(images: Path, output: Path) -> None:
    listing.check_folder(
        images, "name the folder in --images; one image alone goes into a folder of its own"
    )
    # A mask has its image's name, and would take the place of a PNG.
    if output.exists() and output.samefile(images):
        raise BadInput(
            output,
            "output",
            found="the folder of the images",
            expected="a folder of its own for the masks",
            mend="name another folder in --output",
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            output,
            "output",
            found=error.strerror,
            expected="a folder, or a place where one can be made",
            mend="name another folder in --output",
        ) from error


def _check_free(mask: Path) -> None:
    """Stop where a file is that no student wrote: drawn or corrected by hand, it has no second."""
    if not mask.exists():
        return
    try:
        with Image.open(mask) as file:
            ours = "student" in file.info
    except (OSError, SyntaxError):
        ours = False
    if not ours:
        raise BadInput(
            mask,
            "file",
            found="one that no student wrote",
            expected="none, or a mask of a student, which is replaced",
            mend="move it, or name another folder in --output",
        )


@torch.no_grad()
def segment(student: models.Student, image: NDArray[Any]) -> NDArray[np.float32]:
    """Find how probable foreground is at each pixel of an image.

    It is what the pipeline's own predictions are, drawn to the image's size as they are to be
    evaluated: foreground is where it is `THRESHOLD` (0.5) or more.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB, or (H, W, 1) float32 of MR, CT or another grey image of more than 8
        bits, of any size; as `stages.data.datasets.files.read_image` and `dicom.read` return them.

    Returns
    -------
    (H, W) float32 in [0, 1].

    Raises
    ------
    ValueError
        The image is of another kind than those that the student learned from.
    """
    channels = student.architecture.channels
    kind = np.uint8 if channels == 3 else np.float32
    if image.ndim != 3 or image.shape[2] != channels or image.dtype != kind:
        raise ValueError(
            f"image must be (H, W, {channels}) {kind.__name__}, found {image.shape} {image.dtype}"
        )
    seen = torch.from_numpy(as_seen(image, student.architecture.size))
    batch = seen.permute(2, 0, 1)[None].to(next(student.parameters()).device)
    probability = student(normalise(batch)).log_odds.sigmoid()[0].cpu().numpy()
    return resize(probability, image.shape[:2])


def segment_folder(
    student: Path, images: Path, output: Path, threads: int = 1, gpus: int = 0
) -> None:
    """Write the mask of each image of a folder, `<id>.png`, 0 and 255, into the folder `output`.

    Images are pictures (PNG, JPEG, TIFF, BMP), DICOM files and NIfTI volumes, of the kind that the
    student learned from. An id is an image's name without its ending; that of a volume's slice has
    `_` and its number behind it, from 1 at the feet, and shows the slice as the training did, front
    at the top. What cannot be read is told at the end, and has no mask. Each mask says of which
    weights it is (SHA-256, the PNG's text `student`); a file in its place that does not is kept.
    """
    _check_folders(images, output)
    # On a machine that others use, two threads that wait for each other can take a hundred times as
    # long as one.
    torch.set_num_threads(threads)
    device = choose(gpus)
    # A GPU's convolutions would be coarser than those behind the pipeline's predictions.
    deterministic(device)
    network = models.load(student, "student").to(device)
    kind = (
        "colour, or grey of 8 bits"
        if network.architecture.channels == 3
        else "grey of more than 8 bits"
    )
    about = PngInfo()
    about.add_text("student", io.sha256(student))
    problems = Problems()
    records = folder.list_images(images, problems)
    if not records and not problems:
        raise BadInput(
            images,
            "images",
            found="no file",
            expected="pictures, DICOM or NIfTI files",
            mend="name their folder in --images",
        )
    for record in cli.progress(records, "segment"):
        with problems.collect():
            path = output / f"{record.sample_id}.png"
            _check_free(path)
            pixels = folder.read(record).image
            try:
                mask = segment(network, pixels) >= THRESHOLD
            except ValueError as error:
                raise BadInput(
                    record.image, "image", found=error, expected=f"{kind}, as in training",
                    mend="segment it with a student of such images",
                ) from error  # fmt: skip
            with io.atomic(path) as temporary:
                Image.fromarray(mask * np.uint8(255)).save(temporary, "PNG", pnginfo=about)
    problems.stop()


if __name__ == "__main__":
    cli.run(segment_folder)
