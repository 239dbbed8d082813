"""Small real files in the layouts that the adapters read."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


def write_dicom(path: Path, pixels: np.ndarray, spacing: tuple[float, float]) -> None:
    """Write a (H, W) uint16 slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "MR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = list(spacing)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """(H, W) bool disc."""
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


@pytest.fixture
def kvasir(tmp_path):
    """Six frames of different sizes, a brighter disc in each, four of them for training."""
    root = tmp_path / "kvasir"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    ids = [f"frame {i}" for i in range(6)]
    rows = ["IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,"
            "CURRENT_FIX_PUPIL,CURRENT_FIX_START,IMAGE_HEIGHT,IMAGE_WIDTH"]  # fmt: skip
    for i, name in enumerate(ids):
        size = (60 + 4 * i, 80 + 2 * i)
        mask = disc(size, (size[0] * 0.5, size[1] * 0.3), 14)
        image = rng.integers(60, 100, (*size, 3)) + 90 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / f"images/{name}.jpg", quality=95)
        Image.fromarray((mask * 255).astype(np.uint8)).save(root / f"masks/{name}.jpg")
        for j in range(3 if i < 4 else 0):
            x, y, duration = 0.28 + 0.02 * j, 0.48 + 0.02 * j, 200 + 50 * j
            rows.append(f"{name}.jpg,{j + 1},{x},{y},{duration},900,{300 * j},{size[0]},{size[1]}")
    (root / "train.txt").write_text("\n".join(ids[:4]) + "\n")
    (root / "test.txt").write_text("\n".join(ids[4:]) + "\n\n")
    (root / "fixations.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def nci_isbi(tmp_path):
    """Three cases of slices 1 and 11; the intensity of a slice tells it apart."""
    root = tmp_path / "prostate"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    ids = [f"case{case}_{number}" for case in (1, 2, 3) for number in (1, 11)]
    for i, name in enumerate(ids):
        mask = disc((48, 64), (24, 20 + i), 8)
        write_dicom(root / f"images/{name}.dcm", 1000 * (i + 1) + 300 * mask, (0.5, 0.75))
        Image.fromarray((mask * 255).astype(np.uint8)).save(root / f"masks/{name}.png")
    (root / "train.txt").write_text("\n".join(ids[:4]))
    (root / "test.txt").write_text("\n".join(ids[4:]))
    return root
