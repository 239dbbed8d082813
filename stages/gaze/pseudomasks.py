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
from stages.core.device import choose_device, make_deterministic
from stages.core.parallel import ordered_map
from stages.gaze.area import estimate_areas, rescale_to_area, spread_area
from stages.gaze.heatmap import draw_heatmap, draw_published_heatmap
from stages.gaze.levels import cut_levels
from stages.gaze.recordings import Scanpath
from stages.gaze.refinement import refine_with_crf
from stages.gaze.scans import has_gaze, read_map, read_recorded_gaze, require_gaze
from stages.settings.gaze import GazeSettings
from stages.settings.modules import FEATURES_MODULE, SIMULATION_MODULE

_DRAW_HEATMAP = {"image": draw_heatmap, "published": draw_published_heatmap}


class GazeSample(NamedTuple):
    """The inputs for the maps of one sample with gaze.

    Attributes
    ----------
    image
        (H, W, C), as prepared.
    original_size
        Height and width of the original image, px.
    scanpath
        Its fixations, or the file of its map.
    area
        Share of the image to which the refined map is rescaled; None: it is not.
    """

    image: NDArray[Any]
    original_size: tuple[int, int]
    scanpath: Scanpath | Path
    area: float | None


class GazeMaps(NamedTuple):
    """The maps computed from one sample's gaze, (H, W) float16 in [0, 1].

    The heatmap is all 0 if the recording is a refined map.
    """

    heatmap: NDArray[np.float16]
    refined: NDArray[np.float16]


def make_maps(sample: GazeSample, settings: GazeSettings, device: torch.device) -> GazeMaps:
    """Make the maps of one sample; `cut_levels` of the refined one gives its pseudomasks."""
    size = sample.image.shape[:2]
    if isinstance(sample.scanpath, Scanpath):
        heatmap = _DRAW_HEATMAP[settings.canvas](
            sample.scanpath.fixations,
            size,
            original_size=sample.original_size,
            sigma=settings.sigma,
        )
    else:
        heatmap = read_map(sample.scanpath, size, sample.original_size)
    if isinstance(sample.scanpath, Path) and settings.recording.format == "refined":
        refined, heatmap = heatmap, np.zeros(size, np.float32)
    else:
        refined = refine_with_crf(sample.image, heatmap, sample.original_size, settings.crf, device)
    if sample.area is not None:
        refined = rescale_to_area(refined, sample.area)
    return GazeMaps(heatmap.astype(np.float16), refined.astype(np.float16))


def _load_scanpaths(
    source: h5py.File, prepared: Path, fixations: Path | None, settings: GazeSettings
) -> dict[str, Scanpath | Path]:
    """Read the recorded gaze, or simulate it; return sample id → scanpath or map file."""
    problems = cli.Problems()
    sample_ids = io.read_strings(source, "sample_id")
    training = io.read_strings(source, "split") == "train"
    if fixations is not None:
        height_width = map(tuple, source["original_size"][()].tolist())
        sizes: Mapping[str, tuple[int, int]] = dict(zip(sample_ids, height_width, strict=True))
        scanpaths = read_recorded_gaze(
            fixations, sizes, settings.recording, settings.min_fixation_ms, problems
        )
    else:
        masks, selected = source["mask"], training & source["has_mask"][()]
        # Imported by name: a change of the simulation must not rerun data sets with a recording.
        simulation: Any = importlib.import_module(SIMULATION_MODULE)
        scanpaths = simulation.simulate_gaze(sample_ids, selected, lambda i: masks[i] > 0, settings)
    with problems.collect():
        require_gaze(
            fixations or prepared,
            sample_ids[training].tolist(),
            [name for name in sample_ids if has_gaze(scanpaths, name)],
            scanpaths,
            recorded=fixations is not None,
            partial=settings.partial,
        )
    problems.raise_all()
    return scanpaths


def _estimate_areas(
    scanpaths: list[Scanpath | Path], sizes: NDArray[np.integer], training: NDArray[np.bool_]
) -> list[float | None]:
    """Estimate the area of each sample's target from its fixations; None for a map."""
    looked = [path for path in scanpaths if isinstance(path, Scanpath)]
    if len(looked) < len(scanpaths):
        return [None] * len(scanpaths)
    areas = [
        spread_area(scanpath.fixations, (int(height), int(width)))
        for scanpath, (height, width) in zip(looked, sizes, strict=True)
    ]
    counts = np.array([len(scanpath.fixations) for scanpath in looked])
    return [float(area) for area in estimate_areas(np.array(areas), counts, training)]


def _write_fixations(file: h5py.File, per_sample: list[Scanpath | Path | None]) -> None:
    """Write the fixations of all samples, concatenated in sample order, and counts per sample."""
    empty = Scanpath(np.empty((0, 4)), 0, 0)
    scanpaths = [scanpath if isinstance(scanpath, Scanpath) else empty for scanpath in per_sample]
    counts = np.array([len(scanpath.fixations) for scanpath in scanpaths], np.int32)
    file["fixation_count"] = counts
    file["fixation"] = np.concatenate([s.fixations for s in (empty, *scanpaths)]).astype(np.float32)
    file["fixation_offset"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # The dwell time is unknown (NaN) for maps and for images without fixations.
    dwell = [s.fixations[:, 2].sum() if len(s.fixations) else np.nan for s in scanpaths]
    file["dwell_ms"] = np.array(dwell, np.float32)
    file["off_image_count"] = np.array([scanpath.off_image for scanpath in scanpaths], np.int32)
    file["short_count"] = np.array([scanpath.short for scanpath in scanpaths], np.int32)


def make_pseudomasks(
    prepared: Path,
    output: Path,
    settings: GazeSettings,
    threads: int,
    gpus: int,
    fixations: Path | None = None,
    encoder: Path | None = None,
) -> None:
    """Write gaze.h5 from recorded gaze or, with `settings.simulate`, from the masks.

    Simulation reads only the masks of the training split. For a sample without gaze, the maps and
    pseudomasks are all 0 and `has_gaze` is false. With `settings.features`, `aligned` holds the
    maps on which the classifier has not voted, and `encoder` is the file of its encoder.
    """
    device = choose_device(gpus)
    make_deterministic(device)
    # Images are processed in parallel, each on one core.
    torch.set_num_threads(1)
    inputs = {"prepared": prepared}
    inputs |= {"fixations": fixations} if fixations else {}
    inputs |= {"encoder": encoder} if encoder else {}
    needed = ("image", "mask", "has_mask", "split", "sample_id", "subject_id", "original_size")
    with (
        io.open_h5(prepared, *needed) as source,
        io.create_h5(output, "pseudomasks", inputs, settings) as file,
    ):
        scanpaths = _load_scanpaths(source, prepared, fixations, settings)
        sample_ids = io.read_strings(source, "sample_id")
        with_gaze = np.array([has_gaze(scanpaths, name) for name in sample_ids])
        rows = np.flatnonzero(with_gaze)
        training = io.read_strings(source, "split") == "train"
        recorded = fixations is not None and settings.recorded
        file.attrs["gaze_origin"] = "recorded" if recorded else "simulated"
        io.write_strings(file, "sample_id", sample_ids)
        file["threshold"] = np.array(sorted(settings.thresholds, reverse=True), np.float32)
        file["has_gaze"] = with_gaze
        _write_fixations(file, [scanpaths.get(name) for name in sample_ids])

        n, height, width = source["mask"].shape
        size, levels = (height, width), len(settings.thresholds)
        heatmap = io.create_sample_dataset(file, "heatmap", (n, *size), np.float16)
        refined = io.create_sample_dataset(file, "refined", (n, *size), np.float16)
        pseudomask = io.create_sample_dataset(file, "pseudomask", (n, levels, *size), np.uint8)
        sizes = source["original_size"][()]
        areas: list[float | None] = [None] * len(rows)
        if settings.levels == "area":
            looked = [scanpaths[sample_ids[i]] for i in rows]
            areas = _estimate_areas(looked, sizes[rows], training[rows])

        def samples() -> Iterator[GazeSample]:
            for i, area in zip(rows.tolist(), areas, strict=True):
                original, scanpath = tuple(sizes[i].tolist()), scanpaths[sample_ids[i]]
                yield GazeSample(source["image"][i], original, scanpath, area)

        def maps_of(sample: GazeSample) -> GazeMaps:
            return make_maps(sample, settings, device)

        aligned = refined
        if settings.features is not None:
            aligned = io.create_sample_dataset(file, "aligned", (n, *size), np.float16)
        all_maps = cli.progress(ordered_map(maps_of, samples(), threads), "pseudomasks", len(rows))
        for i, maps in zip(rows.tolist(), all_maps, strict=True):
            heatmap[i], aligned[i] = maps
        if settings.features is not None:
            # By name, like the simulation.
            classifier: Any = importlib.import_module(FEATURES_MODULE)
            weight = settings.features.weight
            subjects = io.read_strings(source, "subject_id")[rows].tolist()
            classifier.require_subjects(
                prepared, [subjects[k] for k in np.flatnonzero(training[rows])]
            )
            votes = classifier.vote(
                lambda k: source["image"][rows[k]],
                lambda k: aligned[rows[k]] >= 0.5,
                subjects, training[rows], encoder, settings.features, device, threads,
            )  # fmt: skip
            for i, probability in zip(
                rows.tolist(), cli.progress(votes, "features", len(rows)), strict=True
            ):
                refined[i] = weight * probability + (1 - weight) * aligned[i].astype(np.float32)
        # Cut from the stored values, so that readers of the file get the same levels.
        for i in rows.tolist():
            pseudomask[i] = cut_levels(refined[i], settings.thresholds)
        cli.log.info("%d of %d samples have gaze", with_gaze.sum(), n)


if __name__ == "__main__":
    cli.run(make_pseudomasks)
