"""The phantom data sets: published layouts, real geometry, and hard enough to be worth learning."""

import importlib
import platform
import subprocess
from itertools import pairwise

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

from stages.core import io
from stages.core.cli import Problems
from stages.data.datasets import layouts
from stages.demo import demo_data
from stages.demo.demo_data import SLICE_MM, SLICE_NUMBERS, make_demo_data
from stages.gaze.recordings import read_scanpaths
from stages.settings.demo_data import DemoSettings
from stages.settings.recording import RecordingSettings
from stages.settings.scanpath import ScanSettings

LAYOUT = {"kvasir": "kvasir", "prostate": "nci_isbi", "isic": "isic"}
TRAIN, TEST = 18, 6


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Make each data set once, with 24 images."""
    folder = tmp_path_factory.mktemp("demo")
    for name in LAYOUT:
        make_demo_data(folder / name, DemoSettings(dataset=name, train=TRAIN, test=TEST))
    return folder


@pytest.fixture(params=LAYOUT)
def name(request):
    return request.param


@pytest.fixture
def root(roots, name):
    return roots / name


def read(root):
    """Read records and samples with the adapter of the published layout."""
    adapter = importlib.import_module(f"stages.data.datasets.{LAYOUT[root.name]}")
    problems = Problems()
    records = adapter.list_records(root, problems)
    assert problems == []
    return records, [adapter.read(record) for record in records]


# Layout


def test_the_adapter_of_the_published_layout_reads_it(root, name):
    fixations = None if name == "isic" else root / f"{name}_fixation.csv"
    assert layouts.describe_missing(LAYOUT[name], root, fixations) is None
    records, pixels = read(root)
    assert [r.split for r in records] == ["train"] * TRAIN + ["test"] * TEST
    for record, sample in zip(records, pixels):
        io.check_sample_id(record.sample_id, root)
        assert sample.image.dtype == (np.float32 if name == "prostate" else np.uint8)
        assert sample.image.shape[2] == (1 if name == "prostate" else 3)
        # A target, and not most of the image.
        assert 0.005 < sample.mask.mean() < 0.5


def test_jpeg_masks_are_not_exactly_black_and_white(roots):
    for path in sorted((roots / "kvasir/masks").iterdir()):
        levels = set(np.unique(np.asarray(Image.open(path))))
        assert path.suffix == ".jpg"
        assert levels - {0, 255}


@pytest.mark.parametrize("folder", ["prostate/masks", "isic/labels"])
def test_png_masks_are_exactly_black_and_white(roots, folder):
    for path in sorted((roots / folder).iterdir()):
        assert set(np.unique(np.asarray(Image.open(path)))) == {0, 255}


def test_image_sizes_differ_except_for_the_scanner(root, name):
    sizes = {sample.image.shape for sample in read(root)[1]}
    assert len(sizes) == 1 if name == "prostate" else len(sizes) > 10


def test_no_two_images_are_the_same(root):
    assert len({sample.image.tobytes() for sample in read(root)[1]}) == TRAIN + TEST


# Prostate


@pytest.mark.parametrize(("train", "cases"), [(8, 1), (9, 2), (18, 3)])
def test_all_slices_of_a_patient_are_in_one_split(tmp_path, train, cases):
    make_demo_data(tmp_path / "prostate", DemoSettings(dataset="prostate", train=train, test=6))
    records, _ = read(tmp_path / "prostate")
    subjects = {
        split: [r.subject_id for r in records if r.split == split] for split in ("train", "test")
    }
    assert not set(subjects["train"]) & set(subjects["test"])
    # The number of training images is rounded to whole patients.
    assert [subjects["train"].count(s) for s in sorted(set(subjects["train"]))] == [6] * cases
    assert len(set(subjects["test"])) == 1


def test_slices_have_the_geometry_of_a_scanner(roots):
    cases = {}
    for path in (roots / "prostate/images").iterdir():
        dataset = pydicom.dcmread(path)
        assert path.stem == f"{dataset.PatientID}_{dataset.InstanceNumber}"
        assert dataset.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
        assert dataset.PixelSpacing == [0.6, 0.6]
        assert dataset.pixel_array.max() < 2**dataset.BitsStored
        cases.setdefault(dataset.PatientID, []).append(dataset)
    assert len(cases) == 4
    for slices in cases.values():
        slices.sort(key=lambda s: s.InstanceNumber)
        numbers = tuple(s.InstanceNumber for s in slices)
        assert numbers == SLICE_NUMBERS
        z = [float(s.ImagePositionPatient[2]) for s in slices]
        assert all(low < high for low, high in pairwise(z))
        assert np.diff(z) == pytest.approx(SLICE_MM * np.diff(numbers))
        # Sorted by file name, 11 comes before 5, so names do not give positions.
        assert sorted(map(str, numbers)) != [str(n) for n in numbers]
        assert len({s.SeriesInstanceUID for s in slices}) == 1
    every = [s for slices in cases.values() for s in slices]
    assert len({s.SOPInstanceUID for s in every}) == len(every)
    assert len({s.SeriesInstanceUID for s in every}) == len(cases)
    for s in every:
        assert pydicom.uid.UID(s.SOPInstanceUID).is_valid


def test_the_gland_is_largest_in_the_middle_of_a_case(roots):
    _, pixels = read(roots / "prostate")
    areas = np.array([sample.mask.sum() for sample in pixels]).reshape(-1, len(SLICE_NUMBERS))
    assert (areas[:, 2:4].min(axis=1) > areas[:, [0, 5]].max(axis=1)).all()


@pytest.mark.parametrize("spacing", [None, "absent"])
def test_a_slice_without_a_spacing_is_read_in_pixels(roots, tmp_path, spacing):
    make_demo_data(tmp_path / "prostate", DemoSettings(dataset="prostate", train=6, test=6))
    adapter = importlib.import_module("stages.data.datasets.nci_isbi")
    record = adapter.list_records(tmp_path / "prostate", Problems())[0]
    dataset = pydicom.dcmread(record.image)
    if spacing is None:
        dataset.PixelSpacing = None
    else:
        del dataset.PixelSpacing
    dataset.save_as(record.image)
    assert np.isnan(adapter.read(record).spacing_mm).all()


# Fixations


@pytest.mark.parametrize("name", ["kvasir", "prostate"])
def test_fixations_have_the_published_columns(roots, name):
    root = roots / name
    table = pd.read_csv(root / f"{name}_fixation.csv")
    assert list(table.columns) == [
        "IMAGE", "CURRENT_FIX_INDEX", "CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION",
        "CURRENT_FIX_PUPIL", "CURRENT_FIX_START", "IMAGE_HEIGHT", "IMAGE_WIDTH",
    ]  # fmt: skip
    assert table["CURRENT_FIX_DURATION"].min() >= 50
    assert table[["CURRENT_FIX_X", "CURRENT_FIX_Y"]].stack().between(0, 1).all()
    records, pixels = read(root)
    size = {r.sample_id: p.image.shape[:2] for r, p in zip(records, pixels)}
    for image, rows in table.groupby("IMAGE"):
        assert list(rows["CURRENT_FIX_INDEX"]) == list(range(1, len(rows) + 1))
        assert rows["CURRENT_FIX_START"].is_monotonic_increasing
        height, width = size[image.rpartition(".")[0]]
        assert (rows["IMAGE_HEIGHT"] == height).all()
        assert (rows["IMAGE_WIDTH"] == width).all()


@pytest.mark.parametrize("name", ["kvasir", "prostate"])
def test_exactly_the_training_images_have_gaze(roots, name):
    records, pixels = read(roots / name)
    ids = [r.sample_id for r in records]
    table = roots / name / f"{name}_fixation.csv"
    sizes = {r.sample_id: sample.mask.shape for r, sample in zip(records, pixels)}
    scans = read_scanpaths(table, sizes, RecordingSettings(), 50, Problems())
    assert set(scans) == {r.sample_id for r in records if r.split == "train"}
    # Most of the dwell time is on or near the target, more than its share of the image area.
    on_target, share = [], []
    for sample_id, sample in zip(ids[:TRAIN], pixels):
        x, y, duration, _ = scans[sample_id].fixations.T
        height, width = sample.mask.shape
        row = np.minimum((y * height).astype(int), height - 1)
        column = np.minimum((x * width).astype(int), width - 1)
        on_target.append(duration[sample.mask[row, column]].sum() / duration.sum())
        share.append(sample.mask.mean())
    assert np.mean(on_target) > 0.6 > 3 * np.mean(share)


def test_isic_has_no_recorded_gaze(roots):
    assert sorted(p.name for p in (roots / "isic").iterdir()) == [
        "images", "labels", "test.txt", "train.txt",
    ]  # fmt: skip


# Reruns


def small_demo_digest(output, name, **changes):
    make_demo_data(output, DemoSettings(**{"dataset": name, "train": 6, "test": 6} | changes))
    return io.sha256(output)


def test_a_seed_fixes_the_bytes_of_the_folder_and_another_changes_them(root, name, tmp_path):
    first = small_demo_digest(tmp_path / "a" / name, name)
    assert small_demo_digest(tmp_path / "b" / name, name) == first
    assert small_demo_digest(tmp_path / "c" / name, name, seed=1) != first
    # An image does not depend on the number of images.
    images = sorted((tmp_path / "a" / name / "images").iterdir())
    assert len(images) == 12
    for path in images:
        assert path.read_bytes() == (root / "images" / path.name).read_bytes()


def test_the_images_do_not_depend_on_the_scan_settings(roots, tmp_path):
    small_demo_digest(
        tmp_path / "prostate", "prostate", scan=ScanSettings(search=(20, 20), drift=0)
    )
    for path in (tmp_path / "prostate/images").iterdir():
        assert path.read_bytes() == (roots / "prostate/images" / path.name).read_bytes()
    rows = pd.read_csv(tmp_path / "prostate/prostate_fixation.csv").groupby("IMAGE").size()
    assert rows.min() > 19


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_only_the_old_folder(tmp_path, monkeypatch, failure, before):
    output = tmp_path / "kvasir"
    if before:
        output.mkdir()
        (output / "train.txt").write_text("old")
    make = demo_data._MAKE_SAMPLE["kvasir"]

    def fail_at_the_third(root, index, settings):
        if index == 2:
            raise failure
        return make(root, index, settings)

    monkeypatch.setitem(demo_data._MAKE_SAMPLE, "kvasir", fail_at_the_third)
    with pytest.raises(failure):
        small_demo_digest(output, "kvasir")
    assert [p.name for p in tmp_path.iterdir()] == (["kvasir"] if before else [])
    assert not before or (output / "train.txt").read_text() == "old"


def test_the_files_of_a_killed_run_are_deleted(tmp_path):
    expected = small_demo_digest(tmp_path / "a/prostate", "prostate")
    killed = subprocess.Popen(["true"])
    killed.wait()
    left = tmp_path / f"b/.prostate.{platform.node()}.{killed.pid}.tmp/new/images"
    left.mkdir(parents=True)
    (left / "half.dcm").write_text("half")
    assert small_demo_digest(tmp_path / "b/prostate", "prostate") == expected
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["prostate"]


# Difficulty


def otsu_dice(image, mask):
    """Return the Dice of Otsu's threshold for each channel, above and below the threshold."""
    channels = [image[..., c].astype(float) for c in range(image.shape[2])]
    if len(channels) == 3:
        channels += [image.mean(axis=2), rgb2hsv(image)[..., 1]]
    above = [channel > threshold_otsu(channel) for channel in channels]
    return [
        2 * (found & mask).sum() / (found.sum() + mask.sum())
        for inside in above
        for found in (inside, ~inside)
    ]


def test_a_threshold_fails_to_segment_the_target(root):
    # R, G, B, grey and saturation for colour, the intensity for MR, both polarities. Over 96
    # images of seeds 0 to 2 the channel and polarity that are best on average reach 0.26 (kvasir),
    # 0.17 to 0.19 (prostate) and 0.42 to 0.48 (isic); chosen for each image by its own mask, 0.33,
    # 0.18 to 0.19 and 0.50 to 0.53.
    scores = np.array([otsu_dice(sample.image, sample.mask) for sample in read(root)[1]])
    assert len(scores) == TRAIN + TEST
    assert scores.mean(axis=0).max() < 0.6
    assert scores.max(axis=1).mean() < 0.6
