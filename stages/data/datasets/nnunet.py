"""The raw data set of nnU-Net: dataset.json, and a volume or picture per case and channel.

The format: documentation/dataset_format.md of https://github.com/MIC-DKFZ/nnUNet. The dataset.json
of its first version, with `modality`, is read, too.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from stages.core.cli import BadInput, Problems, list_names, log
from stages.data.datasets import Record, Split, files, folder, listing, published
from stages.data.datasets.labels import Labels

# Split → the folders of its images and of its masks.
_PARTS: dict[Split, tuple[str, str]] = {
    "train": ("imagesTr", "labelsTr"),
    "test": ("imagesTs", "labelsTs"),
}
_IGNORE = "ignore"
_MEND = "correct dataset.json as nnU-Net's documentation/dataset_format.md describes"

read = folder.read


@dataclass(frozen=True)
class _Description:
    """What dataset.json says.

    Attributes
    ----------
    channels
        Number in the file names → name.
    labels
        Name → the values of its pixels: several for a region.
    ending
        Of the files, with its dot.
    training_cases
        Their number; -1 if it is not stated.
    """

    file: Path
    channels: dict[int, str]
    labels: dict[str, tuple[int, ...]]
    ending: str
    training_cases: int

    def channel(self, wanted: str | None) -> int:
        """Return the number of the channel of this name or number; None: the only one."""
        matching = [
            number
            for number, name in self.channels.items()
            if wanted in (None, name) or wanted == str(number)
        ]
        if len(matching) == 1:
            return matching[0]
        raise BadInput(
            self.file,
            "channel_names",
            found=", ".join(f"{number} ({name})" for number, name in self.channels.items()),
            expected="one channel" if wanted is None else f"the channel {wanted!r} once",
            mend="name one of these channels in prepare.channel, by its number or its name",
        )

    def chosen_labels(self, wanted: Collection[int | str] | None) -> Labels:
        """Return the labels that are foreground: the wanted ones; None: the only one."""
        values = {value for values in self.labels.values() for value in values} - {0}
        ignored = set(self.labels.get(_IGNORE, ()))
        allowed = values - ignored
        foreground: set[int] = set()
        for label in allowed if wanted is None else wanted:
            # No label has the value -1, that of a name that is not stated.
            foreground |= {label} if isinstance(label, int) else {*self.labels.get(label, (-1,))}
        if foreground <= allowed and (wanted is not None or len(allowed) == 1):
            return Labels(foreground, allowed - foreground)
        shown = (f"{name} ({', '.join(map(str, values))})" for name, values in self.labels.items())
        raise BadInput(
            self.file,
            "labels",
            found=", ".join(shown),
            expected="one label beside the background"
            if wanted is None
            else f"the labels {list_names([repr(label) for label in wanted])}",
            mend="name those that are foreground in prepare.foreground, by their values or names",
        )


def _read_labels(stated: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Read name → value, or values of a region; the first version has value → name."""
    if all(isinstance(name, str) for name in stated.values()):
        return {name: (int(value),) for value, name in stated.items()}
    return {
        name: tuple(map(int, value)) if isinstance(value, list) else (int(value),)
        for name, value in stated.items()
    }


def _read_description(root: Path) -> _Description:
    file = root / "dataset.json"
    expected = "channel_names, labels and file_ending of nnU-Net, in JSON"
    with files.report_read_errors(file, expected, _MEND):
        content = json.loads(file.read_text("utf-8-sig"))
        channels = content["modality" if "modality" in content else "channel_names"]
        description = _Description(
            file,
            {int(number): str(name) for number, name in channels.items()},
            _read_labels(content["labels"]),
            str(content.get("file_ending", ".nii.gz")).lower(),
            int(content.get("numTraining", -1)),
        )
    if description.ending not in folder.KIND_BY_ENDING:
        raise BadInput(
            file,
            "file_ending",
            found=description.ending,
            expected=f"one of {', '.join(folder.KIND_BY_ENDING)}",
            mend="convert images and masks to .nii.gz, and correct file_ending",
        )
    return description


def _find_images(images: Path, channel: int, ending: str, problems: Problems) -> dict[str, Path]:
    """Find the images of a channel by case: `<case>_<channel, four digits><ending>`."""
    suffix = f"_{channel:04d}{ending}"
    found, others = published.find_files(images, suffix, problems)
    name = re.compile(rf"(.+)_\d{{4}}{re.escape(ending)}", re.IGNORECASE)
    of_channels = {path: match for path in others if (match := name.fullmatch(path.name))}
    if unexpected := [path.name for path in others if path not in of_channels]:
        problems.append(
            BadInput(
                images,
                "files",
                found=f"{len(unexpected)} with other names: "
                f"{list_names(unexpected, published.MAX_NAMED)}",
                expected=f"<case>_<channel, four digits>{ending}, such as case{suffix}",
                mend="rename or remove them; `nnUNetv2_convert_MSD_dataset` converts a data set of "
                "the Medical Segmentation Decathlon",
            )
        )
    cases = {listing.normalise_id(match[1]) for match in of_channels.values()}
    if missing := sorted(cases - found.keys()):
        problems.append(
            BadInput(
                images,
                f"channel {channel}",
                found=f"nothing for {len(missing)} cases: "
                f"{list_names(missing, published.MAX_NAMED)}",
                expected=f"<case>{suffix} for each case",
                mend="add the files, or choose another channel in prepare.channel",
            )
        )
    return found


def _find_masks(masks: Path, ending: str, problems: Problems) -> dict[str, Path]:
    """Find the masks by case: `<case><ending>`."""
    found, others = published.find_files(masks, ending, problems)
    if others:
        problems.append(published.unexpected_files(masks, others, ending))
    return found


def _list_part(
    root: Path, split: Split, channel: int, ending: str, problems: Problems
) -> dict[str, list[Record]]:
    """List the samples of each case of a part. A case whose files cannot be used has none."""
    images, masks = (root / name for name in _PARTS[split])
    image_files = _find_images(images, channel, ending, problems)
    mask_files = {}
    # The masks of a test part are optional.
    if split == "train" or masks.exists():
        mask_files = _find_masks(masks, ending, problems)
        if without_image := sorted(mask_files.keys() - image_files.keys()):
            expected_image = f"{images}/<case>_{channel:04d}{ending}"
            problems.append(published.masks_without_image(masks, without_image, expected_image))
        if without_mask := sorted(image_files.keys() - mask_files.keys()):
            names = list_names(without_mask, published.MAX_NAMED)
            log.warning("%s: no mask of %d cases: %s", masks, len(without_mask), names)
    records: dict[str, list[Record]] = {}
    for case, image in image_files.items():
        # Also for a file that cannot be read, so that a split file may list it.
        records[case] = []
        with problems.collect():
            records[case] = folder.list_file(case, image, mask_files.get(case))
    return records


def list_records(
    root: Path,
    problems: Problems,
    *,
    channel: str | None,
    foreground: Collection[int | str] | None,
    drawn: bool,
) -> list[Record]:
    """List the slices of the volumes, or the pictures, of one channel.

    The id of a slice is `<case>_<number>`, the number from 1 at the feet; the subject is the case.
    The splits are those of split files in `root`, which list cases; without them imagesTr is for
    training and imagesTs for test. Splits that are drawn are drawn from imagesTr alone, as the
    images of imagesTs often have no masks.

    Parameters
    ----------
    channel
        Name or number of the channel; None: the only one.
    foreground
        Values or names of the labels that are foreground; None: the only one.
    drawn
        The splits are drawn.

    Raises
    ------
    BadInput
        dataset.json cannot be read, or does not hold the channel or the labels; a folder is
        missing.
    """
    description = _read_description(root)
    number, labels = description.channel(channel), description.chosen_labels(foreground)
    ending = description.ending
    training = _list_part(root, "train", number, ending, problems)
    if description.training_cases not in (-1, len(training)):
        problems.append(
            BadInput(
                root / "imagesTr",
                "cases",
                found=len(training),
                expected=f"{description.training_cases}, the numTraining of dataset.json",
                mend="add the missing files, or correct numTraining",
            )
        )
    has_test = not drawn and (root / "imagesTs").exists()
    test = _list_part(root, "test", number, ending, problems) if has_test else {}
    if repeated := sorted(training.keys() & test.keys()):
        problems.append(
            BadInput(
                root / "imagesTs",
                "cases",
                found=f"also in imagesTr: {list_names(repeated, published.MAX_NAMED)}",
                expected="cases for test only",
                mend="remove them from one of the folders",
            )
        )
    expected_image = f"{root}/imagesTr/<case>_{number:04d}{ending}"
    records = folder.apply_splits(root, training | test, expected_image, problems)
    if records is None:
        splits: dict[Split | None, dict[str, list[Record]]] = {"train": training, "test": test}
        splits = splits if has_test else {None: training}
        records = [
            replace(record, split=split)
            for split, cases in splits.items()
            for record in chain(*cases.values())
        ]
    return [replace(record, labels=labels) for record in records]
