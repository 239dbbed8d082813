"""Fixations → gaze.h5: heatmap, CRF-refined map and nested pseudomasks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages import cli, crf, io
from stages.fixations import read_fixations
from stages.images import to_rgb8
from stages.scanpath import simulate_fixations
from stages.settings.gaze import GazeSettings

# The published heatmaps are drawn on a square of this side, px, laid over the image.
CANVAS = 768


def draw_heatmap(
    fixations: NDArray[np.float64], size: tuple[int, int], sigma: float
) -> NDArray[np.float32]:
    """Duration-weighted sum of Gaussians, one per fixation, min–max normalised.

    The published notebook blurs a 768 × 768 canvas; here each Gaussian is evaluated at the pixel
    centres of the working size, which is the same map without a border to wrap around or reflect.

    Parameters
    ----------
    fixations
        (F, 4): x, y in [0, 1], duration in ms, start (unused).
    size
        Height and width of the map.
    sigma
        Std of the Gaussian, px on the canvas; along each axis sigma / 768 of the image's side.

    Returns
    -------
    (H, W) float32 in [0, 1]; all 0 where there are no fixations or the map is constant.
    """

    def bells(position: NDArray[np.float64], length: int) -> NDArray[np.float64]:
        centres = (np.arange(length) + 0.5) / length
        bell: NDArray[np.float64] = np.exp(
            -0.5 * ((centres - position[:, None]) * CANVAS / sigma) ** 2
        )
        return bell

    height, width = size
    x, y, duration = fixations[:, 0], fixations[:, 1], fixations[:, 2]
    heat = (bells(y, height) * duration[:, None]).T @ bells(x, width)
    span = np.ptp(heat)
    if span == 0:
        return np.zeros(size, np.float32)
    heatmap: NDArray[np.float32] = ((heat - heat.min()) / span).astype(np.float32)
    return heatmap


def cut_levels(refined: NDArray[np.floating], thresholds: tuple[float, ...]) -> NDArray[np.uint8]:
    """Nested pseudomasks `refined >= t`, the highest threshold first.

    Returns
    -------
    (L, H, W) uint8 in {0, 1}; each level contains the one before it.
    """
    levels = np.array(sorted(thresholds, reverse=True), np.float32)
    return (refined.astype(np.float32)[None] >= levels[:, None, None]).astype(np.uint8)


def _simulate(
    masks: NDArray[np.uint8],
    sample_ids: NDArray[np.object_],
    training: NDArray[np.bool_],
    settings: GazeSettings,
) -> dict[str, NDArray[np.float64]]:
    assert settings.simulate is not None
    fixations = {}
    for i in np.flatnonzero(training):
        # One generator per sample id: a sample's gaze does not depend on which others there are.
        rng = np.random.default_rng([settings.seed, *str(sample_ids[i]).encode()])
        found = simulate_fixations(masks[i] > 0, settings=settings.simulate, rng=rng)
        fixations[str(sample_ids[i])] = found[found[:, 2] >= settings.min_fixation_ms]
    return fixations


def make_gaze(
    prepared: Path, output: Path, settings: GazeSettings, fixations: Path | None = None
) -> None:
    """Write gaze.h5 from recorded fixations or, with `settings.simulate`, from the masks.

    Simulation reads the masks of the training split alone. Samples without fixations keep an
    empty heatmap and empty pseudomasks, and a fixation count of 0.
    """
    inputs = {"prepared": prepared} | ({"fixations": fixations} if fixations else {})
    needed = ("image", "mask", "has_mask", "split", "sample_id", "original_size")
    with (
        io.open_h5(prepared, *needed) as source,
        io.create_h5(output, "gaze", inputs, settings) as file,
    ):
        sample_ids = io.read_strings(source, "sample_id")
        if fixations is not None:
            scans = read_fixations(fixations, set(sample_ids), settings.min_fixation_ms)
        else:
            training = (io.read_strings(source, "split") == "train") & source["has_mask"][()]
            if not training.any():
                raise cli.BadInput(
                    prepared,
                    "data set has_mask",
                    found="no training sample with a mask",
                    expected="masks, from which the fixations are simulated",
                    mend="add the masks, or name a table of recorded fixations",
                )
            scans = _simulate(source["mask"], sample_ids, training, settings)
        recorded = fixations is not None and settings.recorded
        file.attrs["gaze_origin"] = "recorded" if recorded else "simulated"

        n, height, width = source["mask"].shape
        size, levels = (height, width), len(settings.thresholds)
        heatmap = io.sample_dataset(file, "heatmap", (n, *size), np.float16)
        refined = io.sample_dataset(file, "refined", (n, *size), np.float16)
        pseudomask = io.sample_dataset(file, "pseudomask", (n, levels, *size), np.uint8)
        none = np.empty((0, 4))
        per_sample = [scans.get(str(i), none) for i in sample_ids]
        for i, scan in enumerate(cli.progress(per_sample, "gaze")):
            if not len(scan):
                continue
            heat = draw_heatmap(scan, size, settings.sigma)
            # The CRF's spatial std is in original pixels: scaled to the working size per axis.
            scale = np.array(size) / source["original_size"][i]
            marginal = crf.refine(
                to_rgb8(source["image"][i]),
                heat,
                sxy=(settings.crf.sxy * scale[0], settings.crf.sxy * scale[1]),
                srgb=settings.crf.srgb,
                compat=settings.crf.compat,
                iterations=settings.crf.iterations,
            )
            heatmap[i] = heat
            refined[i] = marginal
            pseudomask[i] = cut_levels(refined[i], settings.thresholds)

        counts = np.array([len(scan) for scan in per_sample], np.int32)
        io.write_strings(file, "sample_id", sample_ids)
        file["threshold"] = np.array(sorted(settings.thresholds, reverse=True), np.float32)
        file["fixation_count"] = counts
        file["fixation"] = np.concatenate([none, *per_sample]).astype(np.float32)
        file["fixation_offset"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        file["dwell_ms"] = np.array([s[:, 2].sum() for s in per_sample], np.float32)
        file["span_ms"] = np.array(
            [(s[:, 2] + s[:, 3]).max() - s[:, 3].min() if len(s) else 0 for s in per_sample],
            np.float32,
        )
        cli.log.info("gaze on %d of %d samples", int((counts > 0).sum()), n)


if __name__ == "__main__":
    cli.run(make_gaze)
