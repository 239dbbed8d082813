"""Fixtures: small files in the layouts that the adapters read."""

import csv
import json
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from hypothesis import settings
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from tests.faults.table import forks, pytest_terminal_summary, tally
from tests.loopback import Handler, Server

# What pytest finds here, every test has.
__all__ = ["forks", "pytest_terminal_summary", "tally"]

# There is no deadline, as a busy machine is slow. Tests use the same examples in each run, so that
# only a change of the code can break them; `make test-random` tries new examples.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=1000)
settings.load_profile("fixed")


def write_dicom(path: Path, pixels: np.ndarray, spacing: tuple[float, float], **tags) -> None:
    """Write a (H, W) uint16 slice; `tags` set or replace attributes."""
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
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def write_nrrd(path: Path, voxels: np.ndarray, directions, origin=(0, 0, 0), **header) -> None:
    """Write a volume; row i of `directions` is the step of axis i: left, posterior, superior."""
    header = {"space directions": np.asarray(directions, float), **header}
    header |= {"space origin": np.asarray(origin, float), "encoding": "gzip"}
    nrrd.write(str(path), voxels, {"space": "left-posterior-superior"} | header)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume; `affine` maps indices to right, anterior, superior."""
    nibabel.Nifti1Image(voxels, affine).to_filename(path)


# Size of the slices of `write_series`, their spacing along z, y and x, mm, and their first corner.
SERIES_SIZE = (48, 64)
SERIES_SPACING = (3.0, 0.5, 0.75)
SERIES_CORNER = np.array([-20.0, -30.0, 100.0])
TO_HEAD = np.array([0, 0, 1])


def write_series(folder: Path, numbers: list[int], names: list[str], level: int = 1000) -> None:
    """Write a series of axial slices, from feet to head.

    Slice i has InstanceNumber `numbers[i]`, the file name `names[i]`, and the background
    `level` + 100 i.
    """
    folder.mkdir(parents=True)
    thickness, *spacing = SERIES_SPACING
    for i, (number, name) in enumerate(zip(numbers, names)):
        write_dicom(
            folder / name,
            level + 100 * i + 500 * series_mask(i),
            tuple(spacing),
            InstanceNumber=number,
            ImagePositionPatient=list(SERIES_CORNER + thickness * i * TO_HEAD),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )


def series_mask(i: int) -> np.ndarray:
    """Return the prostate mask of slice i, which differs for each slice."""
    return disc(SERIES_SIZE, (20 + i % 7, 25 + i), 8)


def write_series_mask(path: Path, labelled: range, first: int, count: int) -> None:
    """Write the NRRD mask of the slices first … first + count - 1, with prostate on `labelled`.

    The central gland (2) is in the middle of the peripheral zone (1). Axes: x, y, z.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.zeros((SERIES_SIZE[1], SERIES_SIZE[0], count), np.uint8)
    for i in labelled:
        inner = disc(SERIES_SIZE, (20 + i % 7, 25 + i), 4)
        voxels[..., i - first] = (series_mask(i) + inner.astype(np.uint8)).T
    thickness, y, x = SERIES_SPACING
    origin = SERIES_CORNER + thickness * first * TO_HEAD
    write_nrrd(path, voxels, np.diag([x, y, thickness]), origin)


METADATA_COLUMNS = (
    "Series UID", "Collection", "3rd Party Analysis", "Data Description URI", "Subject ID",
    "Study UID", "Study Description", "Study Date", "Series Description", "Manufacturer",
    "Modality", "SOP Class Name", "SOP Class UID", "Number of Images", "File Size",
    "File Location", "Download Timestamp",
)  # fmt: skip


def write_challenge_part(
    part: Path, cases: list[str], mask_name: str, separator: str = "/"
) -> None:
    """Write a part of the challenge as the NBIA Data Retriever does, with five slices per case.

    The second, third and fourth slice show prostate; the mask covers all slices from the second on.
    """
    downloads = part / "manifest-1"
    rows = []
    for n, case in enumerate(cases):
        location = f"Prostate-3T/{case}/study 1/4.000000-t2-09700"
        names = [f"1-{number:02d}.dcm" for number in range(1, 6)]
        level = 1000 * (n + 1) + 10 * len(part.name)  # no two cases show the same pixels
        write_series(downloads / location, [1, 2, 3, 4, 5], names, level)
        rows.append(
            dict.fromkeys(METADATA_COLUMNS, "x")
            | {"Subject ID": case, "Modality": "MR", "Number of Images": "5"}
            | {"File Location": separator.join([".", *location.split("/")])}
        )
        mask = part / "NCI-ISBI masks" / mask_name.format(case)
        write_series_mask(mask, range(1, 4), first=1, count=4)
    with (downloads / "metadata.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, METADATA_COLUMNS)
        table.writeheader()
        table.writerows(rows)


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """Return a (H, W) bool disc."""
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def write_kvasir(root: Path) -> None:
    """Write six frames of different sizes, each with a brighter disc; four are for training."""
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


@pytest.fixture
def kvasir(tmp_path):
    """The data set of `write_kvasir`."""
    root = tmp_path / "kvasir"
    write_kvasir(root)
    return root


@pytest.fixture
def nci_isbi(tmp_path):
    """Three cases with the slices 1 and 11; each slice has another intensity."""
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


@pytest.fixture
def nci_isbi_volumes(tmp_path):
    """Two cases for training and one for test, as downloaded; three slices per case are samples."""
    root = tmp_path / "prostate volumes"
    write_challenge_part(root / "Training", ["Prostate3T-01-0001", "ProstateDx-01-0055"], "{}.nrrd")
    write_challenge_part(root / "Test", ["Prostate3T-03-0001"], "{}_truth.nrrd", separator="\\")
    return root


@pytest.fixture
def isic_challenge(tmp_path):
    """Four training, one validation and two test images in the folders of the challenge."""
    root = tmp_path / "isic 2018"
    rng = np.random.default_rng(0)
    number = 0
    for part, count in (("Training", 4), ("Validation", 1), ("Test", 2)):
        images = root / f"ISIC2018_Task1-2_{part}_Input"
        masks = root / f"ISIC2018_Task1_{part}_GroundTruth"
        for folder in (images, masks):
            folder.mkdir(parents=True)
            (folder / "ATTRIBUTION.txt").write_text("ISIC")
        for _ in range(count):
            mask = disc((48, 64), (24, 20 + 3 * number), 12)
            image = rng.integers(150, 200, (48, 64, 3)) - 90 * mask[..., None]
            name = f"ISIC_{number:07d}"
            Image.fromarray(image.astype(np.uint8)).save(images / f"{name}.jpg", quality=95)
            Image.fromarray((mask * 255).astype(np.uint8)).save(masks / f"{name}_segmentation.png")
            number += 1
    return root


@pytest.fixture
def own_folder(tmp_path):
    """Eight colour pictures in four formats, masks for all but the last, no split files."""
    root = tmp_path / "own"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        mask = disc((48, 64), (24, 20 + 3 * i), 10)
        image = rng.integers(60, 100, (48, 64, 3)) + 90 * mask[..., None]
        ending = ("png", "jpg", "tiff", "bmp")[i % 4]
        Image.fromarray(image.astype(np.uint8)).save(root / f"images/scan {i}.{ending}")
        if i < 7:
            Image.fromarray(mask.astype(np.uint8)).save(root / f"masks/scan {i}.png")
    (root / "images/.DS_Store").write_bytes(b"hidden")
    return root


@pytest.fixture
def own_volumes(tmp_path):
    """Four NIfTI volumes of three slices of 48 × 64, the last for test.

    A slice's background is 100 times the number of its volume, plus its own number from the feet.
    """
    root = tmp_path / "own volumes"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    affine = np.diag([-0.75, -0.5, 4.0, 1.0])  # axes run to the left, the back and the head
    for i in range(1, 5):
        mask = np.stack([disc((48, 64), (24, 20 + i), 8 + z).T for z in range(3)], axis=-1)
        voxels = 100 * i + np.arange(1, 4) + 40 * mask
        write_nifti(root / f"images/case{i}.nii.gz", voxels.astype(np.int16), affine)
        write_nifti(root / f"masks/case{i}.nii.gz", mask.astype(np.uint8), affine)
    (root / "train.txt").write_text("case1\ncase2\ncase3\n")
    (root / "test.txt").write_text("case4\n")
    return root


NNUNET_LABELS = {"background": 0, "peripheral": 1, "central": 2, "whole": [1, 2]}


def nnunet_zones(i: int) -> np.ndarray:
    """Return the (64, 48, 3) labels of case i, with the axes x, y, z: a disc in a disc."""
    slices = []
    for z in range(3):
        outer = disc((48, 64), (24, 20 + i), 10 + z)
        slices.append((outer + disc((48, 64), (24, 20 + i), 5).astype(np.uint8)).T)
    return np.stack(slices, axis=-1).astype(np.uint8)


@pytest.fixture
def nnunet(tmp_path):
    """A raw data set of nnU-Net: four training and two test cases of two channels, in micron.

    The channel T2 of case i has the background 100 i and 40 more per label; ADC is 1000 higher.
    """
    root = tmp_path / "Dataset001_Prostate"
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (root / name).mkdir(parents=True)
    affine = np.diag([-750.0, -500.0, 4000.0, 1.0])  # axes run to the left, the back and the head
    for i in range(1, 7):
        part = "Tr" if i <= 4 else "Ts"
        zones = nnunet_zones(i)
        scan = 100 * i + np.arange(3) + 40 * zones.astype(np.int16)
        for path, voxels in (
            (f"images{part}/case_{i}_0000.nii.gz", scan),
            (f"images{part}/case_{i}_0001.nii.gz", scan + 1000),
            (f"labels{part}/case_{i}.nii.gz", zones),
        ):
            image = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
            image.header.set_xyzt_units("micron")
            image.to_filename(root / path)
    description = {
        "channel_names": {"0": "T2", "1": "ADC"}, "labels": NNUNET_LABELS, "numTraining": 4,
        "file_ending": ".nii.gz", "regions_class_order": [1, 2],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.fixture
def serve():
    """Return a function that starts an endpoint on loopback with the function of its answers."""
    servers = []

    def start(answer, certificate=None, quiet=False):
        server = Server(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        server.stub = SimpleNamespace(
            answer=answer, requests=[], running=0, most=0, lock=threading.Lock(), quiet=quiet
        )
        server.stub.url = f"{scheme}://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return server.stub

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()
