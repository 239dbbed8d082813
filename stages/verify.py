"""Raw images, masks and gaze → verified.csv, or one report of all that is wrong with them."""

from pathlib import Path

import numpy as np
import pandas as pd

from stages import cli, io
from stages.cli import Problems
from stages.prepare import list_samples, read_samples
from stages.recordings import Scan
from stages.scans import check_present, find_recorded, has_gaze, read_map
from stages.settings.verify import VerifySettings

COLUMNS = [
    "sample_id", "subject_id", "split", "height", "width", "spacing_y_mm", "spacing_x_mm", "mask",
]  # fmt: skip


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
    read = [
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
        for record, sample in zip(
            records, cli.progress(samples, "verify", len(records)), strict=True
        )
        if sample is not None
    ]
    table = pd.DataFrame(read, columns=COLUMNS).set_index("sample_id", drop=False)
    if not read:
        # All gaze would be called that of other images.
        problems.stop()
    training = table[table["split"] == "train"]
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
    table["gaze"] = np.where(table.index.isin(with_gaze), "yes", "no")
    io.write_csv(table, output)
    for split in ("val", "test"):
        if not (table["split"] == split).any():
            cli.log.warning("%s: no sample is in the split %s", raw, split)
    if not (training["mask"] == "yes").any():
        cli.log.warning("%s: no training image has a mask: `supervised` has nothing to learn", raw)
    for kind in ("mask", "gaze"):
        counts = table[kind].groupby([table["split"], table[kind]]).size().to_dict()
        cli.log.info("with %s: %s", kind, counts)
    cli.log.info("%s: %d samples, nothing wrong", raw, len(table))


if __name__ == "__main__":
    cli.run(verify)
