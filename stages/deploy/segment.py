"""A trained student and new images → a mask of each image in the format of the image."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.cli import BadInput, Problems, log
from stages.core.device import choose_device, make_deterministic
from stages.core.resize import resize
from stages.data.datasets import files
from stages.deploy import records, writers
from stages.deploy.inference import Ensemble, Maps
from stages.deploy.inputs import Item, find_items
from stages.evaluation.evaluate import THRESHOLD
from stages.evaluation.predict import BATCH_SIZE
from stages.networks import models

Format = Literal["source", "png"]
_MEND_VOLUME = "export the volume again as NIfTI"


class Students(NamedTuple):
    """Loaded students, and the SHA-256 of each one's weights."""

    ensemble: Ensemble
    hashes: list[str]


@dataclass(eq=False)
class Job:
    """An item with its outputs, and the results of its slices so far.

    Attributes
    ----------
    outputs
        Content → its files: one, or one for each slice.
    origins
        Content → the record of its files.
    """

    item: Item
    outputs: dict[records.Content, tuple[Path, ...]]
    origins: dict[records.Content, dict[str, Any]] = field(default_factory=dict)
    results: defaultdict[records.Content, list[NDArray[Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def _check_output(images: list[Path], output: Path) -> None:
    # A mask has the name of its image, so it would replace the image.
    folders = [path if path.is_dir() else path.parent for path in images]
    if output.exists() and any(f.exists() and output.samefile(f) for f in folders):
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


def check_options(batch_size: int, label: str) -> None:
    if batch_size < 1:
        raise BadInput(
            "--batch-size", "option", found=batch_size, expected="1 or more", mend="raise it"
        )
    if not (1 <= len(label) <= 64 and label.isprintable() and "\\" not in label):
        raise BadInput(
            "--label",
            "option",
            found=repr(label),
            expected="1 to 64 characters, as DICOM allows, without a backslash",
            mend="choose a shorter or a simpler name",
        )


def load_students(student: list[Path], *, uncertainty: bool, threads: int, gpus: int) -> Students:
    """Load students as the options of `segment_images` say.

    Raises
    ------
    BadInput
        There is no file, one cannot be read, or the students do not fit each other.
    """
    # On a shared machine, two threads that wait for each other can be a hundred times slower than
    # one thread.
    torch.set_num_threads(threads)
    device = choose_device(gpus)
    # By default, a GPU computes convolutions less precisely than the pipeline does.
    make_deterministic(device)
    if not student:
        raise BadInput(
            "--student", "option", found="no file", expected="one or more files of weights",
            mend="add a file, for example --student student.safetensors",
        )  # fmt: skip
    networks = [models.load(path, "student").to(device) for path in student]
    try:
        ensemble = Ensemble(networks, uncertainty=uncertainty)
    except ValueError as error:
        raise BadInput(
            "--student",
            "option",
            found=error,
            expected="students of one data set, with the same channels and size",
            mend="segment with each of the others in a run of its own",
        ) from error
    return Students(ensemble, [io.sha256(path) for path in student])


def _outputs(
    item: Item, output: Path, file_format: Format, contents: list[records.Content]
) -> dict[records.Content, tuple[Path, ...]]:
    """Return the files of each content."""
    found: dict[records.Content, tuple[Path, ...]] = {}
    for content in contents:
        suffix = "" if content == "mask" else f"_{content}"
        stems, ending = item.slice_stems, ".png"
        if file_format == "source" and item.kind == "NIfTI":
            stems, ending = (item.stem,), item.ending
        elif file_format == "source" and item.kind == "DICOM" and content == "mask":
            stems, ending = (item.stem,), ".dcm"
        # A stem may contain dots.
        found[content] = tuple(
            output / stem.with_name(stem.name + suffix + ending) for stem in stems
        )
    return found


def _make_jobs(
    items: list[Item],
    output: Path,
    file_format: Format,
    contents: list[records.Content],
    problems: Problems,
) -> list[Job]:
    """Make a job for each item, except those that would write the file of an earlier one."""
    jobs: list[Job] = []
    owners: dict[Path, Item] = {}
    for item in items:
        outputs = _outputs(item, output, file_format, contents)
        paths = [path for of_content in outputs.values() for path in of_content]
        first = next((path for path in paths if path in owners), None)
        if first is not None:
            problems.append(
                BadInput(
                    item.files[0],
                    "name",
                    found=f"its output would be {first}, as that of {owners[first].files[0]}",
                    expected="an output of its own for each image",
                    mend="rename one of the two, or segment it into another folder",
                )
            )
            continue
        owners |= dict.fromkeys(paths, item)
        jobs.append(Job(item, outputs))
    return jobs


def _hash_input(item: Item) -> str:
    hashes = []
    for path in item.files:
        with files.report_read_errors(path, "a readable file"):
            hashes.append(io.sha256(path))
    return hashes[0] if len(hashes) == 1 else records.hash_pixels("".join(hashes).encode())


def _is_finished(job: Job, students: list[str], uncertainty: bool, label: str) -> bool:
    """Return whether all outputs of a job exist, of these students, this input and these options.

    Raises
    ------
    BadInput
        The input cannot be read, or something else is where an output belongs.
    """
    source = _hash_input(job.item)
    job.origins = {
        content: records.make_record(students, source, content, uncertainty)
        for content in job.outputs
    }
    if job.outputs["mask"][0].suffix == ".dcm":
        job.origins["mask"]["label"] = label
    finished = [
        records.is_finished(path, job.origins[content])
        for content, paths in job.outputs.items()
        for path in paths
    ]
    if all(finished):
        return True
    problems = Problems()
    for paths in job.outputs.values():
        for path in paths:
            with problems.collect():
                records.check_replaceable(path)
    problems.raise_all()
    return False


def _read_slices(
    jobs: Iterable[Job], ensemble: Ensemble, problems: Problems
) -> Iterator[tuple[tuple[Job, tuple[int, int]], NDArray[Any]]]:
    """Yield ((job, height and width), image at the working size) for each slice of each job.

    A job that cannot be read yields only some of its slices, and so is never complete.
    """
    expected = "colour, or grey of 8 bits" if ensemble.channels == 3 else "grey of more than 8 bits"
    for job in jobs:
        item = job.item
        with problems.collect():
            for i in range(len(item.slice_stems)):
                image = item.read(i)
                try:
                    small = ensemble.shrink(image)
                except ValueError as error:
                    raise BadInput(
                        item.files[0],
                        "image",
                        found=error,
                        expected=f"{expected}, as in training",
                        mend="segment it with a student that was trained on such images",
                    ) from error
                if i == 0 and job.outputs["mask"][0].suffix == ".dcm":
                    # A segmentation that cannot be written should not be computed.
                    writers.read_source_headers(item.files)
                yield (job, image.shape[:2]), small


def _add_result(job: Job, size: tuple[int, int], maps: Maps) -> bool:
    """Add the maps of the next slice, resized to `size`; return whether the job is complete."""
    if not np.isfinite(maps.probability).all():
        raise BadInput(
            job.item.files[0], "probability", found="infinity or NaN", expected="finite values",
            mend="train the network again with a lower `learning_rate`",
        )  # fmt: skip
    probability = resize(maps.probability, size)
    job.results["mask"].append(probability >= THRESHOLD)
    if "probability" in job.outputs:
        job.results["probability"].append(probability)
    if maps.uncertainty is not None:
        job.results["uncertainty"].append(resize(maps.uncertainty, size))
    return len(job.results["mask"]) == len(job.item.slice_stems)


def _write(job: Job, label: str) -> None:
    """Write the outputs of a job."""
    for content, paths in job.outputs.items():
        slices, record = job.results.pop(content), job.origins[content]
        ending = paths[0].suffix
        if ending == ".png":
            for path, pixels in zip(paths, slices, strict=True):
                writers.write_png(path, pixels, record)
        elif ending == ".dcm":
            writers.write_segmentation(paths[0], job.item.files, np.stack(slices), record, label)
        else:
            writers.write_nifti(paths[0], job.item.files[0], np.stack(slices), record, _MEND_VOLUME)


def write_masks(
    students: Students,
    images: list[Path],
    output: Path,
    problems: Problems,
    *,
    format: Format,
    probability: bool,
    label: str,
    batch_size: int,
) -> Iterator[tuple[Job, tuple[int, int], Maps]]:
    """Write the outputs of `segment_images`, and yield what students say about each slice.

    The students decide about uncertainty. The other parameters are as for `segment_images`.

    Parameters
    ----------
    problems
        Receives a problem for each image that cannot be segmented.

    Yields
    ------
    The job of a slice, the slice's height and width, and its maps at the working size, in the order
    of the items and their slices. With the last slice of a job, its outputs are written. A job that
    fails lacks at least its last slice; one that an earlier run finished yields nothing.

    Raises
    ------
    BadInput
        There is no file in `images`.
    """
    items = find_items(images, output, problems, as_series=format == "source")
    if not items and not problems:
        raise BadInput(
            ", ".join(map(str, images)) or "--images",
            "images",
            found="no file",
            expected="pictures, DICOM or NIfTI files",
            mend="name them or their folder in --images",
        )
    ensemble = students.ensemble
    contents: list[records.Content] = ["mask"]
    if probability:
        contents.append("probability")
    if ensemble.uncertainty:
        contents.append("uncertainty")
    jobs, finished = [], 0
    for job in _make_jobs(items, output, format, contents, problems):
        with problems.collect():
            if _is_finished(job, students.hashes, ensemble.uncertainty, label):
                finished += 1
            else:
                jobs.append(job)
    if finished:
        log.info("already segmented by these students: %d of %d", finished, len(items))
    total = sum(len(job.item.slice_stems) for job in jobs)
    slices = cli.progress(_read_slices(jobs, ensemble, problems), "segment", total)
    for (job, size), maps in ensemble.stream(slices, batch_size):
        with problems.collect():
            if _add_result(job, size, maps):
                _write(job, label)
            yield job, size, maps


def segment_images(
    student: list[Path],
    images: list[Path],
    output: Path,
    format: Literal["source", "png"] = "source",
    probability: bool = False,
    uncertainty: bool = False,
    label: str = "foreground",
    batch_size: int = BATCH_SIZE,
    threads: int = 1,
    gpus: int = 0,
) -> None:
    """Write a mask of each image, in the format and the geometry of the image.

    A picture gets a PNG mask of its size with the values 0 and 255. A NIfTI volume gets a NIfTI
    volume of its shape, orientation and affine. A DICOM series, or a DICOM image of no series or
    alone in it, gets one DICOM segmentation (SEG) that refers to its images; by the standard it
    contains the attributes of patient and study.

    An image that cannot be segmented gets no mask; one error at the end lists all of them. Each
    file records by which students and from which input it was made. A run skips files that are
    finished, and never replaces a file that no student wrote, or that was changed since.

    Parameters
    ----------
    student
        Weights, student.safetensors; with several the mask is that of their mean probability.
    images
        Pictures (PNG, JPEG, TIFF, BMP), DICOM files, NIfTI volumes, and folders with all of these,
        also in subfolders. They must be of the kind of the training images.
    output
        Folder of the masks. Masks of images in subfolders are in subfolders of the same names.
    format
        "source": as described above. "png": a PNG for each picture, DICOM image and slice of a
        volume; slices are oriented as in training, anterior at the top, and numbered from 1 at the
        feet.
    probability
        Also write the probability of foreground: NIfTI (float32) for a volume, else PNG of 16 bits
        in which 65535 means 1. A pixel of 0.5 or more is foreground.
    uncertainty
        Also write the standard deviation of the probability, from 0 to 0.5, in the same formats,
        over the students and four views of the image: as it is, flipped left to right, top to
        bottom, and both. Probability and mask are then those of the mean.
    label
        Name of the segment in a DICOM segmentation, for example prostate.
    batch_size
        Number of images or slices that a network reads at once.
    threads
        Number of processor cores to use.
    gpus
        0: compute on the CPU. 1: on a GPU if there is one.
    """
    check_options(batch_size, label)
    _check_output(images, output)
    students = load_students(student, uncertainty=uncertainty, threads=threads, gpus=gpus)
    problems = Problems()
    for _ in write_masks(
        students, images, output, problems,
        format=format, probability=probability, label=label, batch_size=batch_size,
    ):  # fmt: skip
        pass
    problems.raise_all()


if __name__ == "__main__":
    cli.run(segment_images)
