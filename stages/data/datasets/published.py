"""What the published 2-D releases share: split files of ids, and image files beside masks."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from stages.core.cli import BadInput, Problems, log, name_some
from stages.data.datasets import Pixels, Record, Split, files, listing

# How many files a message names.
NAMED = 5


def _read_ids(file: Path) -> list[str]:
    if not file.is_file():
        raise BadInput(
            file,
            "file",
            found="none, though other split files are there",
            expected="the ids of this split, one a line",
            mend="add the file; or take the others away, and prepare.split: drawn draws the splits",
        )
    with files.reading(file, "UTF-8 text, one id a line", "save it as UTF-8 text"):
        lines = file.read_text("utf-8-sig").splitlines()
    return [listing.as_id(line.strip()) for line in lines if line.strip()]


def read_splits(root: Path, problems: Problems) -> list[tuple[str, Split]] | None:
    """Read the ids of train.txt, val.txt and test.txt, in this order.

    Returns
    -------
    Each id with its split; None where there is none of the files. Where there is one, `problems`
    takes the absence of train.txt or test.txt; val.txt may be absent.
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


def _meant(line: str, ids: Mapping[str, str], endings: Iterable[str]) -> str | None:
    """Find the id that a line means: as a path, with an ending, or in another case."""
    name = line.rpartition("/")[2].casefold()
    stems = (name, *(name.removesuffix(ending) for ending in endings))
    return next((ids[stem] for stem in stems if stem in ids), None)


def check_listed(
    root: Path,
    listed: Sequence[tuple[str, Split]],
    known: Collection[str],
    image: tuple[str, Iterable[str]],
    problems: Problems,
) -> None:
    """Note the lines of the split files that are no image's id.

    Parameters
    ----------
    root
        The raw folder.
    listed
        As `read_splits` returns it.
    known
        The ids that have an image.
    image
        Where an image is looked for, for messages, and what may follow an id in a file's name.
    problems
        Takes, of each file, the lines that say an id in another way and those without an image.
    """
    looked_for, endings = image
    ids = {sample_id.casefold(): sample_id for sample_id in known}
    for split in get_args(Split):
        names = [name for name, of in listed if of == split and name not in known]
        meant = {name: _meant(name, ids, endings) for name in names}
        file = root / f"{split}.txt"
        if so := [f"`{there}` for `{name}`" for name, there in meant.items() if there]:
            problems.append(
                BadInput(
                    file,
                    "ids",
                    found=f"{len(so)} not as their images are named",
                    expected="the name of an image without its folder and ending, in its case",
                    mend=f"write {name_some(so, NAMED)}",
                )
            )
        if lone := [name for name, there in meant.items() if not there]:
            problems.append(
                BadInput(
                    file,
                    "ids",
                    found=f"{len(lone)} without an image: {name_some(lone, NAMED)}",
                    expected=f"one image per id: {looked_for}",
                    mend="add the images, or delete the lines",
                )
            )


def find(folder: Path, ending: str, problems: Problems) -> tuple[dict[str, Path], list[Path]]:
    """Find a folder's files by id: `<id>` and `ending`, whatever its case.

    Hidden files, and the texts that come with a download (.txt), do not matter.

    Returns
    -------
    The files, each behind its id, and those with other endings.

    Raises
    ------
    BadInput
        It is no folder.
    """
    ours: list[Path] = []
    others: list[Path] = []
    for path in listing.list_folder(folder):
        if path.name.lower().endswith(ending):
            ours.append(path)
        elif path.suffix.lower() != ".txt":
            others.append(path)
    return listing.by_id(ours, lambda path: path.name[: -len(ending)], problems), others


def strange(folder: Path, others: list[Path], ending: str) -> BadInput:
    """Make the problem of a folder's `others`, which do not end as the layout says."""
    return BadInput(
        folder,
        "files",
        found=f"{len(others)} of other names: {name_some([p.name for p in others], NAMED)}",
        expected=f"<id>{ending}, such as {listing.as_id(others[0].stem)}{ending}",
        mend="save or name them so, or take them away; for images and masks of any format there "
        "is `prepare.layout: folder`",
    )


def without_image(folder: Path, names: list[str], looked_for: str) -> BadInput:
    """Make the problem of a folder's masks whose images, which are `looked_for`, are not there."""
    return BadInput(
        folder,
        "masks",
        found=f"{len(names)} without an image: {name_some(names, NAMED)}",
        expected=f"{looked_for} for each",
        mend="add the images, or take the masks away",
    )


def index(
    root: Path,
    problems: Problems,
    images: tuple[str, str],
    masks: tuple[str, str],
    subject: Callable[[str], str] = lambda sample_id: sample_id,
) -> list[Record]:
    """List the samples of the split files, training first; of all images where there are none.

    Parameters
    ----------
    root
        The raw folder.
    problems
        Takes ids without an image, which are left out, masks without an image, files that do not
        end as they should (images: only where all are read), and what `read_splits` finds.
    images, masks
        Folder of `root`, and what follows an id in the names of its files. The mask of an image
        may be absent.
    subject
        A sample's id → its subject's. By default each image is a subject.

    Raises
    ------
    BadInput
        There is no folder of images or of masks.
    """
    (image_folder, image_ending), (mask_folder, mask_ending) = (
        (root / folder, ending) for folder, ending in (images, masks)
    )
    looked_for = f"{image_folder}/<id>{image_ending}"
    seen, other_images = find(image_folder, image_ending, problems)
    drawn, other_masks = find(mask_folder, mask_ending, problems)
    listed: Sequence[tuple[str, Split | None]]
    if (given := read_splits(root, problems)) is not None:
        listed = given
        check_listed(root, given, seen, (looked_for, (image_ending, mask_ending)), problems)
    else:
        listed = [(name, None) for name in seen]
        if other_images:
            problems.append(strange(image_folder, other_images, image_ending))
    if other_masks:
        problems.append(strange(mask_folder, other_masks, mask_ending))
    # Not again what is said of images that are listed, or end as they should not.
    known = seen.keys() | {name for name, _ in listed}
    known |= {listing.as_id(path.stem) for path in other_images}
    if lone := [name for name in drawn if name not in known]:
        problems.append(without_image(mask_folder, lone, looked_for))
    records = [
        Record(name, subject(name), split, seen[name], drawn.get(name))
        for name, split in listed
        if name in seen
    ]
    lacking = [record.sample_id for record in records if record.mask is None]
    if lacking and drawn:
        some = name_some(lacking, NAMED)
        log.warning("%s: no mask of %d of %d images: %s", root, len(lacking), len(records), some)
    return records


def read(record: Record) -> Pixels:
    """Read a picture and its mask; the size of a pixel is not known."""
    image = files.read_image(record.image)
    mask = None if record.mask is None else files.read_mask(record.mask, image.shape[:2])
    return Pixels(image, mask, (float("nan"), float("nan")))
