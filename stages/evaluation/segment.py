"""A trained student and a folder of new images → a mask of each image at its original size."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.core import cli, io
from stages.core.cli import BadInput, Problems
from stages.core.device import choose_device, make_deterministic
from stages.core.resize import resize, resize_keep_dtype
from stages.data.datasets import folder, listing
from stages.evaluation.evaluate import THRESHOLD
from stages.networks import models
from stages.training.samples import normalise


def _check_folders(images: Path, output: Path) -> None:
    listing.check_folder(
        images, "name a folder in --images; put a single image into a folder of its own"
    )
    # A mask has the name of its image, so it would replace a PNG image.
    if output.exists() and output.samefile(images):
        raise BadInput(
            output,
            "output",
            found="the folder of the images",
            expected="another folder for the masks",
            mend="name another folder in --output",
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            output,
            "output",
            found=error.strerror,
            expected="a folder, or a path where a folder can be created",
            mend="name another folder in --output",
        ) from error


def _check_replaceable(mask: Path) -> None:
    """Raise if no student wrote the file `mask`: it may be the only copy of a hand-drawn mask."""
    if not mask.exists():
        return
    try:
        with Image.open(mask) as file:
            written_by_student = "student" in file.info
    except (OSError, SyntaxError):
        written_by_student = False
    if not written_by_student:
        raise BadInput(
            mask,
            "file",
            found="a file that no student wrote",
            expected="no file, or a mask that a student wrote (it is replaced)",
            mend="move the file, or name another folder in --output",
        )


@torch.no_grad()
def segment(student: models.Student, image: NDArray[Any]) -> NDArray[np.float32]:
    """Predict the foreground probability of each pixel of an image.

    The result equals the pipeline's own prediction, resized to the image as `evaluate` does it. A
    pixel of `THRESHOLD` (0.5) or more is foreground.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB, or (H, W, 1) float32 for MR, CT and other grey images of more than 8
        bits; any size. `read_image` of `stages.data.datasets.files` and of `dicom` return such
        arrays.

    Returns
    -------
    (H, W) float32 in [0, 1].

    Raises
    ------
    ValueError
        The student was trained on images with other channels or another dtype.
    """
    channels = student.architecture.channels
    dtype = np.uint8 if channels == 3 else np.float32
    if image.ndim != 3 or image.shape[2] != channels or image.dtype != dtype:
        raise ValueError(
            f"image must be (H, W, {channels}) {dtype.__name__}, found {image.shape} {image.dtype}"
        )
    resized = torch.from_numpy(resize_keep_dtype(image, student.architecture.size))
    batch = resized.permute(2, 0, 1)[None].to(next(student.parameters()).device)
    probability = student(normalise(batch)).log_odds.sigmoid()[0].cpu().numpy()
    return resize(probability, image.shape[:2])


def segment_folder(
    student: Path, images: Path, output: Path, threads: int = 1, gpus: int = 0
) -> None:
    """Write a mask with the values 0 and 255, `<id>.png`, for each image in the folder `images`.

    Images are pictures (PNG, JPEG, TIFF, BMP), DICOM files or NIfTI volumes, of the same kind as
    the training images. The id is the file name without its suffix. The id of a slice of a volume
    ends in `_` and the slice's number, counted from 1 at the feet; slices are oriented as in
    training, anterior at the top.

    An image that cannot be read gets no mask; one error at the end lists all of them. Each mask
    records the SHA-256 of the student's weights (PNG text `student`). A file in `output` without
    this record is never overwritten.
    """
    _check_folders(images, output)
    # On a shared machine, two threads that wait for each other can be a hundred times slower than
    # one thread.
    torch.set_num_threads(threads)
    device = choose_device(gpus)
    # By default, a GPU computes convolutions less precisely than the pipeline does.
    make_deterministic(device)
    network = models.load(student, "student").to(device)
    expected_image = (
        "colour, or grey of 8 bits"
        if network.architecture.channels == 3
        else "grey of more than 8 bits"
    )
    metadata = PngInfo()
    metadata.add_text("student", io.sha256(student))
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
            _check_replaceable(path)
            pixels = folder.read(record).image
            try:
                mask = segment(network, pixels) >= THRESHOLD
            except ValueError as error:
                raise BadInput(
                    record.image,
                    "image",
                    found=error,
                    expected=f"{expected_image}, as in training",
                    mend="segment it with a student that was trained on such images",
                ) from error
            with io.atomic_file(path) as temporary:
                Image.fromarray(mask * np.uint8(255)).save(temporary, "PNG", pnginfo=metadata)
    problems.raise_all()


if __name__ == "__main__":
    cli.run(segment_folder)
