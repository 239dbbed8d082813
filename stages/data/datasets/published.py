"""What the published 2-D layouts share: split files of ids, folders of images and of masks."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from stages.core.cli import BadInput, Problems, list_names, log
from stages.data.datasets import RawSample, Record, Split, files, listing

# Largest number of files that a message names.
MAX_NAMED = 5


def _read_ids(file: Path) -> list[str]:
    if not file.is_file():
        raise BadInput(
            file,
            "file",
            found="nothing, but other split files exist",
            expected="the ids of this split, one per line",
            mend="add the file; or remove the others, and set prepare.split: drawn",
        )
    with files.report_read_errors(
        file, "UTF-8 text, one id per line", "save the file as UTF-8 text"
    ):
        lines = file.read_text("utf-8-sig").splitlines()
    return [listing.normalise_id(line.strip()) for line in lines if line.strip()]


def read_splits(root: Path, problems: Problems) -> list[tuple[str, Split]] | None:
    """Read the ids of train.txt, val.txt and test.txt, in this order.

    Returns
    -------
    Each id with its split; None if none of the files exists. If one exists, `problems` receives a
    missing train.txt or test.txt; val.txt is optional.
    """
    names: dict[Split, Path] = {split: root / f"{split}.txt" for split in get_args(Split)}
    if not any(file.is_file() for file in names.values()):
        return None
    found: list[tuple[str, Split]] = []
    for split, file in names.items():
        if split != "val" or file.is_file():
            with problems.collect():
                found += [(sample_id, split) for sample_id in _read_ids(file)]
    return found


def _find_intended_id(line: str, ids: Mapping[str, str], endings: Iterable[str]) -> str | None:
    """Find the id that a line means if it is a path, has an ending or differs in case."""
    name = line.rpartition("/")[2].casefold()
    stems = (name, *(name.removesuffix(ending) for ending in endings))
    return next((ids[stem] for stem in stems if stem in ids), None)


def check_split_ids(
    root: Path,
    split_ids: Sequence[tuple[str, Split]],
    image_ids: Collection[str],
    image: tuple[str, Iterable[str]],
    problems: Problems,
) -> None:
    """Check that each line of the split files is the id of an image.

    Parameters
    ----------
    root
        The raw folder.
    split_ids
        The ids and splits that `read_splits` returns.
    image_ids
        The ids that have an image.
    image
        The path of an image, for messages, and the endings that may follow an id in a file name.
    problems
        Receives, for each file, the lines that write an id in another way, and those without an
        image.
    """
    expected_image, endings = image
    ids = {sample_id.casefold(): sample_id for sample_id in image_ids}
    for split in get_args(Split):
        names = [
            name for name, id_split in split_ids if id_split == split and name not in image_ids
        ]
        intended = {name: _find_intended_id(name, ids, endings) for name in names}
        file = root / f"{split}.txt"
        if misspelt := [
            f"`{intended_id}` for `{name}`" for name, intended_id in intended.items() if intended_id
        ]:
            problems.append(
                BadInput(
                    file,
                    "ids",
                    found=f"{len(misspelt)} not written as their images are named",
                    expected="image names without folder and ending, in the same case",
                    mend=f"write {list_names(misspelt, MAX_NAMED)}",
                )
            )
        if unmatched := [name for name, intended_id in intended.items() if not intended_id]:
            problems.append(
                BadInput(
                    file,
                    "ids",
                    found=f"{len(unmatched)} without an image: {list_names(unmatched, MAX_NAMED)}",
                    expected=f"one image per id: {expected_image}",
                    mend="add the images, or delete the lines",
                )
            )


def find_files(folder: Path, ending: str, problems: Problems) -> tuple[dict[str, Path], list[Path]]:
    """Find the files `<id><ending>` of a folder; the ending may be in upper or lower case.

    Hidden files and the texts of a download (.txt) are ignored.

    Returns
    -------
    Id → file, and the files with other endings.

    Raises
    ------
    BadInput
        `folder` does not exist, or is a file.
    """
    matching: list[Path] = []
    others: list[Path] = []
    for path in listing.list_folder(folder):
        if path.name.lower().endswith(ending):
            matching.append(path)
        elif path.suffix.lower() != ".txt":
            others.append(path)
    return listing.files_by_id(matching, lambda path: path.name[: -len(ending)], problems), others


def unexpected_files(folder: Path, others: list[Path], ending: str) -> BadInput:
    """Return the problem that the files `others` do not have the ending of the layout."""
    return BadInput(
        folder,
        "files",
        found=f"{len(others)} with other names: {list_names([p.name for p in others], MAX_NAMED)}",
        expected=f"<id>{ending}, such as {listing.normalise_id(others[0].stem)}{ending}",
        mend="convert, rename or remove them; for images and masks of other formats set "
        "`prepare.layout: folder`",
    )


def masks_without_image(folder: Path, names: list[str], expected_image: str) -> BadInput:
    """Return the problem that the masks `names` have no image, which is `expected_image`."""
    return BadInput(
        folder,
        "masks",
        found=f"{len(names)} without an image: {list_names(names, MAX_NAMED)}",
        expected=f"{expected_image} for each",
        mend="add the images, or remove the masks",
    )


def list_records(
    root: Path,
    problems: Problems,
    images: tuple[str, str],
    masks: tuple[str, str],
    subject: Callable[[str], str] = lambda sample_id: sample_id,
    other_masks: list[Path] | None = None,
) -> list[Record]:
    """List the samples of the split files, training first; without split files, of all images.

    Parameters
    ----------
    root
        The raw folder.
    problems
        Receives ids without an image, which the list omits; masks without an image; files with
        other endings (images: only without split files); and what `read_splits` reports.
    images, masks
        A folder in `root`, and the ending that follows the id in its file names. An image may lack
        a mask.
    subject
        Returns the subject of a sample id. By default each image is its own subject.
    other_masks
        Receives the files of the folder of masks with other endings; None: `problems` does.

    Raises
    ------
    BadInput
        The folder of images or of masks does not exist.
    """
    (image_folder, image_ending), (mask_folder, mask_ending) = (
        (root / folder, ending) for folder, ending in (images, masks)
    )
    expected_image = f"{image_folder}/<id>{image_ending}"
    image_files, other_images = find_files(image_folder, image_ending, problems)
    mask_files, others = find_files(mask_folder, mask_ending, problems)
    split_ids: Sequence[tuple[str, Split | None]]
    if (given_ids := read_splits(root, problems)) is not None:
        split_ids = given_ids
        check_split_ids(
            root, given_ids, image_files, (expected_image, (image_ending, mask_ending)), problems
        )
    else:
        split_ids = [(name, None) for name in image_files]
        if other_images:
            problems.append(unexpected_files(image_folder, other_images, image_ending))
    if other_masks is not None:
        other_masks += others
    elif others:
        problems.append(unexpected_files(mask_folder, others, mask_ending))
    # Omit masks whose image has a problem already: it is in a split file, or has another ending.
    image_ids = image_files.keys() | {name for name, _ in split_ids}
    image_ids |= {listing.normalise_id(path.stem) for path in other_images}
    if unmatched := [name for name in mask_files if name not in image_ids]:
        problems.append(masks_without_image(mask_folder, unmatched, expected_image))
    records = [
        Record(name, subject(name), split, image_files[name], mask_files.get(name))
        for name, split in split_ids
        if name in image_files
    ]
    without_mask = [record.sample_id for record in records if record.mask is None]
    if without_mask and mask_files:
        examples = list_names(without_mask, MAX_NAMED)
        log.warning(
            "%s: no mask of %d of %d images: %s", root, len(without_mask), len(records), examples
        )
    return records


def read(record: Record) -> RawSample:
    """Read a picture and its mask; the pixel spacing is unknown."""
    image = files.read_image(record.image)
    mask = None
    if record.mask is not None:
        mask = files.read_mask(record.mask, image.shape[:2], record.labels)
    return RawSample(image, mask, (float("nan"), float("nan")))
