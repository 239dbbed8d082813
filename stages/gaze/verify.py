"""Raw images, masks and gaze → verified.csv, or one report of everything that is wrong."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.cli import Problems
from stages.data.prepare import list_samples, read_samples
from stages.gaze.recordings.scan import Scanpath, on_target_shares
from stages.gaze.scans import has_gaze, read_map, read_recorded_gaze, require_gaze
from stages.settings.verify import VerifySettings

COLUMNS = [
    "sample_id", "subject_id", "split", "height", "width", "spacing_y_mm", "spacing_x_mm", "mask",
]  # fmt: skip

# Possible mistakes in the axes of a recording, and how x and y (fractions of the image) change.
_AXIS_CHANGES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], Any]] = {
    "y were flipped": lambda x, y: (x, 1 - y),
    "x were flipped": lambda x, y: (1 - x, y),
    "x and y were both flipped": lambda x, y: (1 - x, 1 - y),
    "x and y were swapped": lambda x, y: (y, x),
    "x and y were swapped and y flipped": lambda x, y: (y, 1 - x),
    "x and y were swapped and x flipped": lambda x, y: (1 - y, x),
    "x and y were swapped and both flipped": lambda x, y: (1 - y, 1 - x),
}
# The axis check keeps the masks of at most this many training images ...
_MAX_MASKS = 200
# ... and warns only from this many of them with gaze on.
_MIN_MASKS = 3
# Largest side of a kept mask, px: fixations are not more precise, and larger masks need too much
# memory.
_MAX_MASK_SIDE = 512


def _compare_axes(
    file: Path, scanpaths: Mapping[str, Scanpath | Path], masks: Mapping[str, NDArray[np.bool_]]
) -> None:
    """Log how much gaze lies on the masks, and would with flipped or swapped axes.

    Warn if it lies off the masks but would lie on them. Such gaze may still lie on the images, so
    no other check can notice it. This is only a warning: masks must not decide which gaze the
    training uses.
    """
    fixations_by_sample = {
        name: scanpath.fixations
        for name in masks
        if isinstance(scanpath := scanpaths.get(name), Scanpath)
        and scanpath.fixations[:, 2].sum() > 0
    }
    if not fixations_by_sample:
        return

    def shares_on_mask(change_axes: Callable[..., Any]) -> NDArray[np.float64]:
        changed = (
            (masks[name], np.column_stack([*change_axes(*fixations.T[:2]), fixations[:, 2]]))
            for name, fixations in fixations_by_sample.items()
        )
        return np.array(
            [on_target_shares(fixations, mask)["on_target"] for mask, fixations in changed]
        )

    as_recorded = shares_on_mask(lambda x, y: (x, y))
    changed = {name: shares_on_mask(change) for name, change in _AXIS_CHANGES.items()}
    best = max(changed, key=lambda name: changed[name].mean())
    cli.log.info(
        "%s: %.0f %% of the gaze lies on the masks of %d training images; %s",
        *(file, 100 * as_recorded.mean(), len(fixations_by_sample)),
        ", ".join(f"{100 * share.mean():.0f} % if {name}" for name, share in changed.items()),
    )
    if (
        len(fixations_by_sample) >= _MIN_MASKS
        and changed[best].mean() > 2 * as_recorded.mean()
        and (changed[best] > as_recorded).mean() > 0.75
    ):
        cli.log.warning(
            "%s: %.0f %% of the gaze lies on the masks of %d training images; %.0f %% would if %s: "
            "compare some fixations with their images, and check that gaze.recording describes how "
            "they were recorded",
            *(file, 100 * as_recorded.mean(), len(fixations_by_sample)),
            *(100 * changed[best].mean(), best),
        )


def verify(
    raw: Path,
    output: Path,
    settings: VerifySettings,
    threads: int,
    fixations: Path | None = None,
) -> None:
    """Read everything as the stages `prepare` and `pseudomasks` do; write verified.csv.

    The table has one row per sample. Columns: sample_id, subject_id, split, height and width (px),
    spacing_y_mm and spacing_x_mm (empty if unknown), mask and gaze ("yes" or "no").

    Raises
    ------
    BadInput
        The data have errors. The message lists all of them, not only the first; no file is written.
    """
    problems = Problems()
    records = list_samples(raw, settings.prepare, problems)
    samples = read_samples(raw, records, settings.prepare, threads, problems)
    rows = []
    masks: dict[str, NDArray[np.bool_]] = {}
    for record, sample in zip(records, cli.progress(samples, "verify", len(records)), strict=True):
        if sample is None:
            continue
        rows.append(
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
        if record.split == "train" and sample.mask is not None and len(masks) < _MAX_MASKS:
            step = -(-max(sample.size) // _MAX_MASK_SIDE)
            masks[record.sample_id] = sample.mask[::step, ::step].copy()
    table = pd.DataFrame(rows, columns=COLUMNS).set_index("sample_id", drop=False)
    if not rows:
        # Without any image, every row of the recording would be reported as unknown.
        problems.raise_all()
    training = table[table["split"] == "train"]
    if settings.supervised and set(training["mask"]) == {"no"}:
        problems.append(
            cli.BadInput(
                raw,
                "masks",
                found="no training image has a mask",
                expected=f"masks of training images for {', '.join(settings.supervised)}",
                mend="add masks, or remove these experiments from the data set's `experiments`",
            )
        )
    sizes = dict(zip(table.index, zip(table["height"], table["width"])))
    # The simulation needs only a mask.
    with_gaze = list(training.index[training["mask"] == "yes"])
    scanpaths: dict[str, Scanpath | Path] = {}
    with problems.collect():
        if fixations is not None:
            scanpaths = read_recorded_gaze(
                fixations, sizes, settings.recording, settings.min_fixation_ms, problems, masks
            )
            with_gaze = [name for name in table.index if has_gaze(scanpaths, name)]
            for name, scanpath in scanpaths.items():
                if isinstance(scanpath, Path):
                    with problems.collect():
                        read_map(scanpath, settings.prepare.size, sizes[name])
        require_gaze(
            fixations or raw,
            list(training.index),
            with_gaze,
            scanpaths,
            recorded=fixations is not None,
            partial=settings.partial,
        )
    problems.raise_all()
    if fixations is not None:
        _compare_axes(fixations, scanpaths, masks)
    table["gaze"] = np.where(table.index.isin(with_gaze), "yes", "no")
    io.write_csv(table, output)
    for split in ("val", "test"):
        if not (table["split"] == split).any():
            cli.log.warning("%s: no sample is in the split %s", raw, split)
    for kind in ("mask", "gaze"):
        counts = table[kind].groupby([table["split"], table[kind]]).size().to_dict()
        cli.log.info("with %s: %s", kind, counts)
    cli.log.info("%s: %d samples, no problems found", raw, len(table))


if __name__ == "__main__":
    cli.run(verify)
