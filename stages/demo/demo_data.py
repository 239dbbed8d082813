"""Write a phantom data set in the raw layout in which the real one is published."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.core import cli, io
from stages.data.dicom_writer import decimal, write_slice
from stages.demo.phantoms import Pelvis, polyp, skin
from stages.gaze.scanpath import simulate_fixations
from stages.settings.demo_data import DemoSettings

# Numbers of the slices of a case: 1 stands beside 11 and 21, which a sloppy match confuses.
SLICES = (1, 5, 8, 11, 15, 21)
PIXEL_MM, SLICE_MM = 0.6, 3.6

# First key of a generator's seed, so that data sets and purposes never share a stream.
_STREAM = {"kvasir": 1, "prostate": 2, "isic": 3, "fixations": 4}


def _rng(settings: DemoSettings, stream: str, index: int) -> np.random.Generator:
    """One generator per sample, so that a sample does not depend on how many there are."""
    return np.random.default_rng([settings.seed, _STREAM[stream], index])


def _save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, quality=90)


def _save_dicom(pixels: NDArray[np.uint16], case: str, number: int, seed: int, path: Path) -> None:
    """Write an axial MR slice with its geometry."""
    half = PIXEL_MM * (np.array(pixels.shape) - 1) / 2
    write_slice(
        path,
        pixels,
        study=f"{seed}/{case}",
        number=number,
        bits=12,
        attributes={
            "PatientID": case,
            "PatientName": case,
            "SeriesDescription": "phantom, T2-like, axial",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [decimal(v) for v in (-half[1], -half[0], SLICE_MM * number)],
            "PixelSpacing": [PIXEL_MM, PIXEL_MM],
            "SliceThickness": SLICE_MM,
        },
    )


def _make_kvasir(root: Path, index: int, settings: DemoSettings) -> tuple[str, Any]:
    image, mask = polyp(_rng(settings, "kvasir", index))
    sample_id = f"phantom{index:04d}"
    Image.fromarray(image).save(root / f"images/{sample_id}.jpg", quality=90)
    _save_mask(mask, root / f"masks/{sample_id}.jpg")
    return sample_id, mask


def _make_prostate(root: Path, index: int, settings: DemoSettings) -> tuple[str, Any]:
    case, position = divmod(index, len(SLICES))
    pelvis = Pelvis.draw(_rng(settings, "prostate", case))
    image, mask = pelvis.slice(np.linspace(-0.9, 0.9, len(SLICES))[position])
    name, number = f"Phantom{case:02d}", SLICES[position]
    sample_id = f"{name}_{number}"
    _save_dicom(image, name, number, settings.seed, root / f"images/{sample_id}.dcm")
    _save_mask(mask, root / f"masks/{sample_id}.png")
    return sample_id, mask


def _make_isic(root: Path, index: int, settings: DemoSettings) -> tuple[str, Any]:
    image, mask = skin(_rng(settings, "isic", index))
    sample_id = f"PHANTOM_{index:07d}"
    Image.fromarray(image).save(root / f"images/{sample_id}.jpg", quality=90)
    _save_mask(mask, root / f"labels/{sample_id}_segmentation.png")
    return sample_id, mask


_MAKERS = {"kvasir": _make_kvasir, "prostate": _make_prostate, "isic": _make_isic}


def _fixation_rows(
    sample_id: str, mask: NDArray[np.bool_], index: int, settings: DemoSettings
) -> pd.DataFrame:
    """One recording in the columns of the published export."""
    rng = _rng(settings, "fixations", index)
    x, y, duration, start = simulate_fixations(mask, settings=settings.scan, rng=rng).T
    return pd.DataFrame(
        {
            "IMAGE": f"{sample_id}.{'png' if settings.dataset == 'prostate' else 'jpg'}",
            "CURRENT_FIX_INDEX": np.arange(1, len(x) + 1),
            "CURRENT_FIX_X": x,
            "CURRENT_FIX_Y": y,
            "CURRENT_FIX_DURATION": np.rint(duration).astype(int),
            "CURRENT_FIX_PUPIL": np.rint(rng.normal(900, 60, len(x))).astype(int),
            "CURRENT_FIX_START": np.rint(start).astype(int),
            "IMAGE_HEIGHT": mask.shape[0],
            "IMAGE_WIDTH": mask.shape[1],
        }
    )


def _write(root: Path, settings: DemoSettings) -> None:
    (root / "images").mkdir(parents=True)
    (root / ("labels" if settings.dataset == "isic" else "masks")).mkdir()
    whole = len(SLICES) if settings.dataset == "prostate" else 1
    train, test = (round(count / whole) * whole for count in (settings.train, settings.test))
    ids: list[str] = []
    recordings: list[pd.DataFrame] = []
    for index in cli.progress(range(train + test), f"demo {settings.dataset}"):
        sample_id, mask = _MAKERS[settings.dataset](root, index, settings)
        ids.append(sample_id)
        if index < train and settings.dataset != "isic":
            recordings.append(_fixation_rows(sample_id, mask, index, settings))
    (root / "train.txt").write_text("\n".join(ids[:train]) + "\n")
    (root / "test.txt").write_text("\n".join(ids[train:]) + "\n")
    if recordings:
        io.write_csv(pd.concat(recordings), root / f"{settings.dataset}_fixation.csv")


def make_demo_data(output: Path, settings: DemoSettings) -> None:
    """Write images, masks, split files and, but for isic, the fixations of the training images.

    The folder appears whole or not at all. Prostate cases are whole in one split.
    """
    with io.atomic_folder(output) as temporary:
        _write(temporary, settings)


if __name__ == "__main__":
    cli.run(make_demo_data)
