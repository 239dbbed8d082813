"""Raw images, masks and gaze → verified.csv, or one report of all that is wrong with them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.cli import Problems
from stages.data.prepare import list_samples, read_samples
from stages.gaze.recordings.scan import Scan, on_target
from stages.gaze.scans import check_present, find_recorded, has_gaze, read_map
from stages.settings.verify import VerifySettings

COLUMNS = [
    "sample_id", "subject_id", "split", "height", "width", "spacing_y_mm", "spacing_x_mm", "mask",
]  # fmt: skip

# Other readings of a fixation's x and y, as fractions of the image.
_READINGS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], Any]] = {
    "y ran the other way": lambda x, y: (x, 1 - y),
    "x ran the other way": lambda x, y: (1 - x, y),
    "x and y both ran the other way": lambda x, y: (1 - x, 1 - y),
    "x and y were exchanged": lambda x, y: (y, x),
}
# Of how many training images the masks are kept for it, and fewer than how many say nothing.
_MOST, _FEWEST = 200, 5
# Of such a mask, px: fixations are not placed more finely, and large images would fill the memory.
_SIDE = 512


def _doubt_reading(
    file: Path, scans: Mapping[str, Scan | Path], masks: Mapping[str, NDArray[np.bool_]]
) -> None:
    """Warn where gaze lies off the masks, and would lie on them under another reading.

    Such gaze may lie on the images as well as any, so that nothing else tells. It is no more than
    a warning: nothing of what is learned from is chosen by the masks.
    """
    seen = {
        name: scan.fixations
        for name in masks
        if isinstance(scan := scans.get(name), Scan) and scan.fixations[:, 2].sum() > 0
    }
    if len(seen) < _FEWEST:
        return

    def shares(read: Callable[..., Any]) -> NDArray[np.float64]:
        changed = (
            (masks[name], np.column_stack([*read(*fixations.T[:2]), fixations[:, 2]]))
            for name, fixations in seen.items()
        )
        return np.array([on_target(fixations, mask)["on_target"] for mask, fixations in changed])

    stated = shares(lambda x, y: (x, y))
    others = {said: shares(read) for said, read in _READINGS.items()}
    said = max(others, key=lambda said: others[said].mean())
    if others[said].mean() > 2 * stated.mean() and (others[said] > stated).mean() > 0.75:
        cli.log.warning(
            "%s: %.0f %% of the gaze lies on the masks of %d training images; %.0f %% would if %s: "
            "hold the fixations of some images against what was looked at, and gaze.recording "
            "against how they were recorded",
            *(file, 100 * stated.mean(), len(seen), 100 * others[said].mean(), said),
        )


def verify(
    raw: Path,
    output: Path,
    settings: VerifySettings,
    threads: int,
    fixations: Path | None = None,
) -> None:
    """Read everything as `prepare` and `gaze` would, and write verified.csv, one row per sample.

    Columns: sample_id, subject_id, split, height and width (px), spacing_y_mm and spacing_x_mm
    (empty where unknown), mask and gaze ("yes" or "no").

    Raises
    ------
    BadInput
        All that is wrong, not the first of it; no file is then written.
    """
    problems = Problems()
    records = list_samples(raw, settings.prepare, problems)
    samples = read_samples(raw, records, settings.prepare, threads, problems)
    read = []
    masks: dict[str, NDArray[np.bool_]] = {}
    for record, sample in zip(records, cli.progress(samples, "verify", len(records)), strict=True):
        if sample is None:
            continue
        read.append(
            {
                "sample_id": record.sample_id,
                "subject_id": record.subject_id,
                "split": record.split,
                "height": sample.size[0],
                "width": sample.size[1],
                "spacing_y_mm": sample.spacing_mm[0],
                "spacing_x_mm": sample.spacing_mm[1],
                "mask": "no" if sample.mask is None else "yes",
            }
        )
        if record.split == "train" and sample.mask is not None and len(masks) < _MOST:
            step = -(-max(sample.size) // _SIDE)
            masks[record.sample_id] = sample.mask[::step, ::step].copy()
    table = pd.DataFrame(read, columns=COLUMNS).set_index("sample_id", drop=False)
    if not read:
        # All gaze would be called that of other images.
        problems.stop()
    training = table[table["split"] == "train"]
    if settings.supervised and set(training["mask"]) == {"no"}:
        problems.append(
            cli.BadInput(
                raw,
                "masks",
                found="none of a training image",
                expected=f"some, for {', '.join(settings.supervised)} to learn from",
                mend="add masks, or name the data set's `experiments` without those",
            )
        )
    sizes = dict(zip(table.index, zip(table["height"], table["width"])))
    with_gaze = list(training.index[training["mask"] == "yes"])  # all that simulation needs
    scans: dict[str, Scan | Path] = {}
    with problems.collect():
        if fixations is not None:
            scans = find_recorded(
                fixations, sizes, settings.recording, settings.min_fixation_ms, problems
            )
            with_gaze = [name for name in table.index if has_gaze(scans, name)]
            for name, scan in scans.items():
                if isinstance(scan, Path):
                    with problems.collect():
                        read_map(scan, settings.prepare.size, sizes[name])
        check_present(
            fixations or raw,
            list(training.index),
            with_gaze,
            scans,
            recorded=fixations is not None,
            partial=settings.partial,
        )
    problems.stop()
    if fixations is not None:
        _doubt_reading(fixations, scans, masks)
    table["gaze"] = np.where(table.index.isin(with_gaze), "yes", "no")
    io.write_csv(table, output)
    for split in ("val", "test"):
        if not (table["split"] == split).any():
            cli.log.warning("%s: no sample is in the split %s", raw, split)
    for kind in ("mask", "gaze"):
        counts = table[kind].groupby([table["split"], table[kind]]).size().to_dict()
        cli.log.info("with %s: %s", kind, counts)
    cli.log.info("%s: %d samples, nothing wrong", raw, len(table))


if __name__ == "__main__":
    cli.run(verify)
