"""Write a phantom data set in the layout of the published data set that it imitates."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.core import cli, io
from stages.data.dicom_writer import to_decimal_string, write_slice
from stages.demo.phantoms import Pelvis, draw_polyp_frame, draw_skin_image
from stages.gaze.scanpath import simulate_fixations
from stages.settings.demo_data import DemoSettings

# Slice numbers of a case: a wrong match by name would confuse 1 with 11 and 21.
SLICE_NUMBERS = (1, 5, 8, 11, 15, 21)
PIXEL_MM, SLICE_MM = 0.6, 3.6

# Part of each seed, so that each data set and each purpose has its own random numbers.
_SEED_STREAM = {"kvasir": 1, "prostate": 2, "isic": 3, "fixations": 4}


def _make_generator(settings: DemoSettings, stream: str, index: int) -> np.random.Generator:
    """Make a generator for one sample, so that a sample does not depend on their number."""
    return np.random.default_rng([settings.seed, _SEED_STREAM[stream], index])


def _save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, quality=90)


def _save_dicom(pixels: NDArray[np.uint16], case: str, number: int, seed: int, path: Path) -> None:
    """Write an axial MR slice with its position and pixel spacing."""
    half_extent = PIXEL_MM * (np.array(pixels.shape) - 1) / 2
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
            "ImagePositionPatient": [
                to_decimal_string(v) for v in (-half_extent[1], -half_extent[0], SLICE_MM * number)
            ],
            "PixelSpacing": [PIXEL_MM, PIXEL_MM],
            "SliceThickness": SLICE_MM,
        },
    )


def _make_kvasir(root: Path, index: int, settings: DemoSettings) -> tuple[str, Any]:
    image, mask = draw_polyp_frame(_make_generator(settings, "kvasir", index))
    sample_id = f"phantom{index:04d}"
    Image.fromarray(image).save(root / f"images/{sample_id}.jpg", quality=90)
    _save_mask(mask, root / f"masks/{sample_id}.jpg")
    return sample_id, mask


def _make_prostate(root: Path, index: int, settings: DemoSettings) -> tuple[str, Any]:
    case, position = divmod(index, len(SLICE_NUMBERS))
    pelvis = Pelvis.random(_make_generator(settings, "prostate", case))
    image, mask = pelvis.draw_slice(np.linspace(-0.9, 0.9, len(SLICE_NUMBERS))[position])
    case_name, number = f"Phantom{case:02d}", SLICE_NUMBERS[position]
    sample_id = f"{case_name}_{number}"
    _save_dicom(image, case_name, number, settings.seed, root / f"images/{sample_id}.dcm")
    _save_mask(mask, root / f"masks/{sample_id}.png")
    return sample_id, mask


def _make_isic(root: Path, index: int, settings: DemoSettings) -> tuple[str, Any]:
    image, mask = draw_skin_image(_make_generator(settings, "isic", index))
    sample_id = f"PHANTOM_{index:07d}"
    Image.fromarray(image).save(root / f"images/{sample_id}.jpg", quality=90)
    _save_mask(mask, root / f"labels/{sample_id}_segmentation.png")
    return sample_id, mask


_MAKE_SAMPLE = {"kvasir": _make_kvasir, "prostate": _make_prostate, "isic": _make_isic}


def _fixation_rows(
    sample_id: str, mask: NDArray[np.bool_], index: int, settings: DemoSettings
) -> pd.DataFrame:
    """Simulate the recording of one sample, in the columns of the published export."""
    rng = _make_generator(settings, "fixations", index)
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


def _write_dataset(root: Path, settings: DemoSettings) -> None:
    (root / "images").mkdir(parents=True)
    (root / ("labels" if settings.dataset == "isic" else "masks")).mkdir()
    group_size = len(SLICE_NUMBERS) if settings.dataset == "prostate" else 1
    train, test = (
        round(count / group_size) * group_size for count in (settings.train, settings.test)
    )
    ids: list[str] = []
    recordings: list[pd.DataFrame] = []
    for index in cli.progress(range(train + test), f"demo {settings.dataset}"):
        sample_id, mask = _MAKE_SAMPLE[settings.dataset](root, index, settings)
        ids.append(sample_id)
        if index < train and settings.dataset != "isic":
            recordings.append(_fixation_rows(sample_id, mask, index, settings))
    (root / "train.txt").write_text("\n".join(ids[:train]) + "\n")
    (root / "test.txt").write_text("\n".join(ids[train:]) + "\n")
    if recordings:
        io.write_csv(pd.concat(recordings), root / f"{settings.dataset}_fixation.csv")


def make_demo_data(output: Path, settings: DemoSettings) -> None:
    """Write images, masks, split files and, except for isic, the fixations of the training images.

    After a failure no new folder is left. All slices of a prostate case are in one split.
    """
    with io.atomic_folder(output) as temporary:
        _write_dataset(temporary, settings)


if __name__ == "__main__":
    cli.run(make_demo_data)
