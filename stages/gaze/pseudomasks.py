"""Fixations → gaze.h5: heatmap, CRF-refined map and nested pseudomasks."""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from stages.core import cli, io
from stages.core.device import choose, deterministic
from stages.core.parallel import ordered
from stages.gaze.heatmap import draw_heatmap, draw_published_heatmap
from stages.gaze.levels import cut_levels
from stages.gaze.recordings import Scan
from stages.gaze.refinement import refine
from stages.gaze.scans import check_present, find_recorded, has_gaze, read_map
from stages.settings.gaze import GazeSettings
from stages.settings.modules import SIMULATION

_DRAW = {"image": draw_heatmap, "published": draw_published_heatmap}


class _Looked(NamedTuple):
    """One sample that has gaze, before anything is computed."""

    image: NDArray[Any]
    original_size: tuple[int, int]
    scan: Scan | Path


class Traced(NamedTuple):
    """What became of one sample's gaze.

    Attributes
    ----------
    heatmap, refined
        (H, W) float16 in [0, 1]; the heatmap is 0 where only the refined map was handed in.
    pseudomask
        (L, H, W) uint8 in {0, 1}, the most confident first, nested.
    """

    heatmap: NDArray[np.float16]
    refined: NDArray[np.float16]
    pseudomask: NDArray[np.uint8]


def _trace(sample: _Looked, settings: GazeSettings, device: torch.device) -> Traced:
    size = sample.image.shape[:2]
    if isinstance(sample.scan, Scan):
        heat = _DRAW[settings.canvas](
            sample.scan.fixations, size, original_size=sample.original_size, sigma=settings.sigma
        )
    else:
        heat = read_map(sample.scan, size, sample.original_size)
    if isinstance(sample.scan, Path) and settings.recording.format == "refined":
        refined, heat = heat, np.zeros(size, np.float32)
    else:
        refined = refine(sample.image, heat, sample.original_size, settings.crf, device)
    stored = refined.astype(np.float16)
    return Traced(heat.astype(np.float16), stored, cut_levels(stored, settings.thresholds))


def _find_scans(
    source: h5py.File, prepared: Path, fixations: Path | None, settings: GazeSettings
) -> dict[str, Scan | Path]:
    problems = cli.Problems()
    sample_ids = io.read_strings(source, "sample_id")
    training = io.read_strings(source, "split") == "train"
    if fixations is not None:
        height_width = map(tuple, source["original_size"][()].tolist())
        sizes: Mapping[str, tuple[int, int]] = dict(zip(sample_ids, height_width, strict=True))
        scans = find_recorded(
            fixations, sizes, settings.recording, settings.min_fixation_ms, problems
        )
    else:
        masks, masked = source["mask"], training & source["has_mask"][()]
        # By name: where there is a recording, a change of the scan model is none of its gaze.
        simulation: Any = importlib.import_module(SIMULATION)
        scans = simulation.simulate(sample_ids, masked, lambda i: masks[i] > 0, settings)
    with problems.collect():
        check_present(
            fixations or prepared,
            sample_ids[training].tolist(),
            [name for name in sample_ids if has_gaze(scans, name)],
            scans,
            recorded=fixations is not None,
            partial=settings.partial,
        )
    problems.stop()
    return scans


def _write_scans(file: h5py.File, per_sample: list[Scan | Path | None]) -> None:
    """Write the fixations one sample after the other, and numbers per sample."""
    none = Scan(np.empty((0, 4)), 0, 0)
    found = [scan if isinstance(scan, Scan) else none for scan in per_sample]
    counts = np.array([len(scan.fixations) for scan in found], np.int32)
    file["fixation_count"] = counts
    file["fixation"] = np.concatenate([s.fixations for s in (none, *found)]).astype(np.float32)
    file["fixation_offset"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # Of a map, and of an image that nobody looked at, it is not known.
    dwell = [s.fixations[:, 2].sum() if len(s.fixations) else np.nan for s in found]
    file["dwell_ms"] = np.array(dwell, np.float32)
    file["off_image_count"] = np.array([scan.off_image for scan in found], np.int32)
    file["short_count"] = np.array([scan.short for scan in found], np.int32)


def make_gaze(
    prepared: Path,
    output: Path,
    settings: GazeSettings,
    threads: int,
    gpus: int,
    fixations: Path | None = None,
) -> None:
    """Write gaze.h5 from recorded gaze or, with `settings.simulate`, from the masks.

    Simulation reads the masks of the training split alone. Samples without gaze keep empty maps
    and pseudomasks, and `has_gaze` false.
    """
    device = choose(gpus)
    deterministic(device)
    # Images are worked on side by side; each takes one core.
    torch.set_num_threads(1)
    inputs = {"prepared": prepared} | ({"fixations": fixations} if fixations else {})
    needed = ("image", "mask", "has_mask", "split", "sample_id", "original_size")
    with (
        io.open_h5(prepared, *needed) as source,
        io.create_h5(output, "pseudomasks", inputs, settings) as file,
    ):
        scans = _find_scans(source, prepared, fixations, settings)
        sample_ids = io.read_strings(source, "sample_id")
        looked_at = np.array([has_gaze(scans, name) for name in sample_ids])
        recorded = fixations is not None and settings.recorded
        file.attrs["gaze_origin"] = "recorded" if recorded else "simulated"
        io.write_strings(file, "sample_id", sample_ids)
        file["threshold"] = np.array(sorted(settings.thresholds, reverse=True), np.float32)
        file["has_gaze"] = looked_at
        _write_scans(file, [scans.get(name) for name in sample_ids])

        n, height, width = source["mask"].shape
        size, levels = (height, width), len(settings.thresholds)
        heatmap = io.sample_dataset(file, "heatmap", (n, *size), np.float16)
        refined = io.sample_dataset(file, "refined", (n, *size), np.float16)
        pseudomask = io.sample_dataset(file, "pseudomask", (n, levels, *size), np.uint8)

        def samples() -> Iterator[_Looked]:
            for i in np.flatnonzero(looked_at).tolist():
                name, original = sample_ids[i], tuple(source["original_size"][i].tolist())
                yield _Looked(source["image"][i], original, scans[name])

        def trace(sample: _Looked) -> Traced:
            return _trace(sample, settings, device)

        found = cli.progress(
            ordered(trace, samples(), threads), "pseudomasks", int(looked_at.sum())
        )
        for i, traced in zip(np.flatnonzero(looked_at).tolist(), found, strict=True):
            heatmap[i], refined[i], pseudomask[i] = traced
        cli.log.info("gaze on %d of %d samples", looked_at.sum(), n)


if __name__ == "__main__":
    cli.run(make_gaze)
