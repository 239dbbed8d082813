"""Exported data sets, read back as the published code reads them, and with our adapters."""

import json
import logging

import h5py
import numpy as np
import pandas as pd
import pydicom
import pytest
from conftest import disc
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydicom.config import RAISE
from scipy import ndimage

from stages.core import cli, io
from stages.core.cli import BadInput
from stages.data import datasets
from stages.data.dicom_writer import to_16_bit
from stages.published.export_published import check_readable_ids, export_published, to_grey_levels

SIZE, ORIGINAL = (32, 48), (48, 96)
IDS = ["case1_1", "case1_11", "case2_1", "case3_1", "case4_1"]
SPLIT = ["train", "train", "train", "val", "test"]
HAS_GAZE = [True, False, True, False, False]
HAS_MASK = [True, True, True, True, False]
THRESHOLDS = (0.5, 0.3)
ENDING = {"kvasir": ".jpg", "nci_isbi": ".png", "isic": ".jpg"}
MASK = {
    "kvasir": "masks/{}.jpg", "nci_isbi": "masks/{}.png", "isic": "labels/{}_segmentation.png"
}  # fmt: skip


def make_images(form):
    """Make five images with a bright disc, each with another background."""
    masks = np.stack([disc(SIZE, (14 + i, 20 + 2 * i), 8) for i in range(len(IDS))])
    grey = 30 * (1 + np.arange(len(IDS)))[:, None, None] + 60 * masks
    if form == "nci_isbi":
        return grey[..., None].astype(np.float32), masks
    return (grey[..., None] + [0, 10, 20]).astype(np.uint8), masks


def make_maps(masks):
    """Make smooth maps from 0 to 1 as float16, the format of gaze.h5."""
    blurred = ndimage.gaussian_filter(masks.astype(float), (0, 3, 3))
    return (blurred / blurred.max(axis=(1, 2), keepdims=True)).astype(np.float16)


class Source:
    """The three input files of a data set, with the changes of a test."""

    def __init__(self, folder, form, width=768, **changes):
        self.folder, self.form = folder, form
        image, masks = make_images(form)
        maps = make_maps(masks)
        self.data = {
            "image": image,
            "mask": (masks & np.array(HAS_MASK)[:, None, None]).astype(np.uint8),
            "has_mask": np.array(HAS_MASK),
            "original_size": np.full((5, 2), ORIGINAL, np.int32),
            "spacing_mm": np.full((5, 2), (0.6, 0.5), np.float32),
            "sample_id": IDS,
            "subject_id": [i.rpartition("_")[0] for i in IDS],
            "split": SPLIT,
            "heatmap": maps[::-1] * np.array(HAS_GAZE)[:, None, None],
            "refined": maps * np.array(HAS_GAZE)[:, None, None],
            "has_gaze": np.array(HAS_GAZE),
            "threshold": np.array(THRESHOLDS, np.float32),
            "embedding": np.random.default_rng(0).normal(size=(5, 2, width)).astype(np.float32),
        } | changes
        self.write("prepared", "image", "mask", "has_mask", "original_size", "spacing_mm",
                   "subject_id", "split")  # fmt: skip
        self.write("gaze", "heatmap", "refined", "has_gaze", "threshold")
        self.write("explanations", "embedding")

    def write(self, name, *members):
        with io.create_h5(self.folder / f"{name}.h5", name, {}, {}) as file:
            file.attrs["gaze_origin"] = "simulated"
            for member in (*members, "sample_id"):
                value = self.data[member]
                if isinstance(value, list):
                    io.write_strings(file, member, value)
                else:
                    file[member] = value

    def export(self, form=None, explain=False, quality=None):
        output = self.folder / "export"
        export_published(
            self.folder / "prepared.h5",
            self.folder / "gaze.h5",
            output,
            form or self.form,
            self.folder / "explanations.h5" if explain else None,
            quality,
        )
        return output


def read_published(root, form, sample_id, folder="gaze/crf_compat1"):
    """Read a map as the published loader does: grey, 0 to 1."""
    with Image.open(root / f"{folder}/{sample_id}{ENDING[form]}") as image:
        assert image.mode == "L"
        return np.asarray(image).astype(np.float32) / np.float32(255)


def error_message(action):
    with pytest.raises(BadInput) as error:
        action()
    return str(error.value)


@pytest.fixture(params=ENDING)
def form(request):
    return request.param


def test_samples_that_quality_excludes_are_not_exported(tmp_path, form):
    source = Source(tmp_path, form)
    whole = (source.export() / "train.txt").read_text().split()
    table = tmp_path / "gaze_quality.csv"
    table.write_text(f"sample_id,left_out\n{whole[0]},True\n{whole[1]},False\n")
    root = source.export(quality=table)
    assert (root / "train.txt").read_text().split() == whole[1:]
    assert not list(root.rglob(f"{whole[0]}.*"))


def test_the_default_form_fits_the_images(tmp_path, form):
    source = Source(tmp_path, form)
    source.form = None
    masks = source.export() / "masks"
    assert {path.suffix for path in masks.iterdir()} == {".png" if form == "nci_isbi" else ".jpg"}


# The folder


def test_files_are_where_the_published_loader_looks(tmp_path, form):
    root = Source(tmp_path, form).export(explain=True)
    image = ".dcm" if form == "nci_isbi" else ".jpg"
    # case1_11 is a training sample without gaze; case4_1 has no mask.
    expected = {"train.txt", "val.txt", "test.txt", "provenance.json"}
    for name in ("case1_1", "case2_1", "case3_1", "case4_1"):
        expected |= {f"images/{name}{image}", f"embeddings/{name}.npy"}
        expected |= {MASK[form].format(name)} if name != "case4_1" else set()
    for name in ("case1_1", "case2_1"):
        expected |= {f"gaze/{kind}/{name}{ENDING[form]}" for kind in ("heatmap", "crf_compat1")}
    assert {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "explanations.h5", "export", "gaze.h5", "prepared.h5"
    ]  # fmt: skip


def test_split_files_list_the_samples_that_the_published_code_can_train_on(tmp_path, form, caplog):
    caplog.set_level(logging.INFO, "stages")
    root = Source(tmp_path, form).export()
    assert (root / "train.txt").read_bytes() == b"case1_1\ncase2_1\n"
    assert (root / "val.txt").read_bytes() == b"case3_1\n"
    assert (root / "test.txt").read_bytes() == b"case4_1\n"
    assert (
        "1 of 3 training samples have no gaze or poor gaze, and are excluded: the published code "
        "reads a map of each sample"
    ) in caplog.messages
    assert (
        "1 of 4 samples have no mask: the published code reads the mask of each sample, even if it "
        "trains only on gaze"
    ) in caplog.messages


def test_a_complete_data_set_gives_no_warning(tmp_path, form, caplog):
    source = Source(tmp_path, form, has_gaze=np.ones(5, bool), has_mask=np.ones(5, bool))
    source.export(explain=True)
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_our_adapter_reads_the_export(tmp_path, form):
    source = Source(tmp_path, form)
    root = source.export()
    adapter, problems = datasets.load_adapter(form), cli.Problems()
    records = {r.sample_id: r for r in adapter.list_records(root, problems)}
    assert problems == []
    assert {name: record.split for name, record in records.items()} == {
        "case1_1": "train", "case2_1": "train", "case3_1": "val", "case4_1": "test"
    }  # fmt: skip
    for name in records:
        i, pixels = IDS.index(name), adapter.read(records[name])
        assert pixels.image.dtype == source.data["image"].dtype
        error = np.abs(pixels.image.astype(float) - source.data["image"][i])
        # JPEG; DICOM holds whole numbers as they are.
        assert error.max() <= (0 if form == "nci_isbi" else 4)
        if form == "nci_isbi":
            assert pixels.spacing_mm == (0.9, 1.0)
        if HAS_MASK[i]:
            assert np.array_equal(pixels.mask, source.data["mask"][i] > 0)
        else:
            assert pixels.mask is None


def test_colour_has_its_full_resolution(tmp_path):
    # Red beside blue at every pixel: chroma at half the resolution would be one purple.
    image = np.zeros((5, *SIZE, 3), np.uint8)
    image[:, ::2, ::2] = image[:, 1::2, 1::2] = (255, 0, 0)
    image[:, 1::2, ::2] = image[:, ::2, 1::2] = (0, 0, 255)
    root = Source(tmp_path, "kvasir", image=image).export()
    read = np.asarray(Image.open(root / "images/case1_1.jpg")).astype(int)
    assert np.abs(read - image[0]).max() <= 4


def test_provenance_names_the_inputs(tmp_path, form):
    root = Source(tmp_path, form).export(explain=True)
    provenance = json.loads((root / "provenance.json").read_text())
    assert provenance["stage"] == "export_published"
    assert provenance["params"] == {"form": form}
    assert provenance["inputs"] == {
        name: io.sha256(tmp_path / f"{name}.h5") for name in ("prepared", "gaze", "explanations")
    }
    assert provenance["gaze_origin"] == "simulated"
    assert provenance["threshold"] == [0.5, 0.3]
    assert provenance["working_size"] == [32, 48]
    assert provenance["versions"]["numpy"] == np.__version__


def test_the_same_files_give_the_same_bytes(tmp_path, form):
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
        Source(folder, form).export(explain=True)
    assert io.sha256(first / "export") == io.sha256(second / "export")


# Maps


def test_heatmaps_and_refined_maps_are_in_their_folders(tmp_path, form):
    source = Source(tmp_path, form)
    root = source.export()
    for i in (0, 2):
        for kind, folder in (("heatmap", "gaze/heatmap"), ("refined", "gaze/crf_compat1")):
            error = np.abs(read_published(root, form, IDS[i], folder) - source.data[kind][i])
            # Half a grey level of rounding, and one of JPEG on a smooth map.
            assert error.max() <= (0.5 if form == "nci_isbi" else 1.5) / 255 + 1e-6


def test_png_maps_give_the_pseudomasks(tmp_path):
    source = Source(tmp_path, "nci_isbi")
    root = source.export()
    for i in (0, 2):
        refined, read = source.data["refined"][i], read_published(root, "nci_isbi", IDS[i])
        for threshold in THRESHOLDS:
            differs = (read >= threshold) != (refined >= threshold)
            assert (np.abs(refined[differs].astype(float) - threshold) <= 1 / 510).all()
            # An empty level would prove nothing.
            assert 0.05 < (read >= threshold).mean() < 0.5


@given(
    arrays(np.float16, (4, 5), elements=st.floats(0, 1, width=16)),
    st.floats(0.01, 0.99),
)
def test_grey_levels_change_a_pseudomask_only_near_the_threshold(refined, threshold):
    grey = to_grey_levels(refined)
    assert grey.dtype == np.uint8
    read = grey.astype(float) / 255
    assert np.abs(read - refined.astype(float)).max() <= 1 / 510 + 1e-7
    differs = (read >= threshold) != (refined.astype(float) >= threshold)
    assert (np.abs(refined[differs].astype(float) - threshold) <= 1 / 510 + 1e-7).all()


def test_grey_levels():
    # 127.5 rounds to the even 128; 255 · 0.3 is 76.5, and float16's 0.3 is 0.30005.
    assert to_grey_levels(np.array([0, 0.5, 0.3, 1], np.float16)).tolist() == [0, 128, 77, 255]


@pytest.mark.parametrize(("kind", "bound"), [("smooth", 1), ("noise", 2)])
def test_jpeg_adds_a_grey_level_to_a_map(tmp_path, kind, bound):
    rng = np.random.default_rng(0)
    maps = rng.random((5, *SIZE))
    if kind == "smooth":
        maps = make_maps(maps > 0.99)
    source = Source(tmp_path, "kvasir", refined=maps.astype(np.float16), has_gaze=np.ones(5, bool))
    root = source.export()
    for i in (0, 1, 2):
        with Image.open(root / f"gaze/crf_compat1/{IDS[i]}.jpg") as image:
            read = np.asarray(image).astype(int)
        assert np.abs(read - to_grey_levels(source.data["refined"][i])).max() <= bound


def test_a_supplied_refined_map_has_no_heatmap(tmp_path, form):
    root = Source(tmp_path, form, heatmap=np.zeros((5, *SIZE), np.float16)).export()
    assert list((root / "gaze/heatmap").iterdir()) == []
    assert len(list((root / "gaze/crf_compat1").iterdir())) == 2


def test_masks_are_black_and_white(tmp_path, form):
    source = Source(tmp_path, form)
    root = source.export()
    mask = np.asarray(Image.open(root / MASK[form].format("case3_1"))).astype(int)
    # PNG is exact; the published loaders cut JPEG at one half.
    assert np.abs(mask - source.data["mask"][3].astype(int) * 255).max() <= (form == "kvasir")


# Embeddings


def test_embeddings_are_separate_files(tmp_path, form):
    source = Source(tmp_path, form)
    root = source.export(explain=True)
    for name in ("case1_1", "case2_1", "case3_1", "case4_1"):
        read = np.load(root / f"embeddings/{name}.npy", allow_pickle=False)
        assert read.dtype == np.float32
        assert np.array_equal(read, source.data["embedding"][IDS.index(name)])
    assert not (source.export() / "embeddings").exists()


def test_another_text_width_gives_a_warning(tmp_path, caplog):
    Source(tmp_path, "isic", width=384).export(explain=True)
    assert (
        "the embeddings have 384 channels, and the fusion of the published code expects 768: "
        "change its text width"
    ) in caplog.messages


# DICOM


def read_dicom(path):
    """Read a slice, and check every value against the standard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "reading_validation_mode", RAISE)
        dataset = pydicom.dcmread(path)
        for element in dataset:
            assert element.value is not None
    return dataset


def test_slices_state_their_pixel_spacing_and_patient(tmp_path):
    # A name that DICOM does not allow: more than 64 characters, and a backslash.
    subjects = ["Ägir\\" * 20, "b", "Ägir\\" * 20, "c", "d"]
    root = Source(tmp_path, "nci_isbi", subject_id=subjects).export()
    first, second, other = (read_dicom(root / f"images/{IDS[i]}.dcm") for i in (0, 2, 3))
    # 0.6 mm · 48 / 32 and 0.5 mm · 96 / 48.
    assert first.PixelSpacing == [0.9, 1.0]
    assert first.Modality == "MR"
    assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID
    assert len({s.SOPInstanceUID for s in (first, second, other)}) == 3
    for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert first[name].value == second[name].value != other[name].value
    assert [s.InstanceNumber for s in (first, second, other)] == [1, 3, 4]


def test_an_unknown_spacing_stays_unknown(tmp_path):
    spacing = np.full((5, 2), np.nan, np.float32)
    root = Source(tmp_path, "nci_isbi", spacing_mm=spacing).export()
    assert "PixelSpacing" not in read_dicom(root / "images/case1_1.dcm")


def test_negative_ct_values_are_unchanged(tmp_path):
    image = make_images("nci_isbi")[0] * 10 - 1024
    root = Source(tmp_path, "nci_isbi", image=image).export()
    dataset = read_dicom(root / "images/case1_1.dcm")
    assert dataset.pixel_array.dtype == np.int16
    assert np.array_equal(dataset.pixel_array, image[0, ..., 0])
    assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, 0)


def test_slope_and_intercept_restore_fractions(tmp_path):
    image = np.random.default_rng(0).normal(3, 1e-3, (5, *SIZE, 1)).astype(np.float32)
    root = Source(tmp_path, "nci_isbi", image=image).export()
    dataset = read_dicom(root / "images/case1_1.dcm")
    stored, original = dataset.pixel_array.astype(float), image[0, ..., 0].astype(float)
    slope = float(dataset.RescaleSlope)
    assert slope == pytest.approx(np.ptp(original) / 65535, rel=1e-9)
    restored = stored * slope + float(dataset.RescaleIntercept)
    assert np.abs(restored - original).max() <= slope * 0.501
    record = datasets.load_adapter("nci_isbi").list_records(root, cli.Problems())[0]
    read = datasets.load_adapter("nci_isbi").read(record).image[..., 0]
    # Float32 around 3 has steps of 2⁻²².
    assert np.abs(read - original).max() <= slope * 0.501 + 2**-22
    # The published loader uses only the stored values, after a z-score.
    scores = [(x - x.mean()) / x.std() for x in (stored, original)]
    assert np.abs(scores[0] - scores[1]).max() < 2e-4


def test_conversion_to_16_bits_by_hand():
    # 1 / 65535 is 1.52590218966964e-05, rounded to 16 characters 1.5259021897e-05, which is a
    # little more, so that ½ is a little less than 32767.5 steps.
    pixels, slope, intercept = to_16_bit(np.array([[2, 2.5, 3]], np.float32))
    assert (pixels.tolist(), slope, intercept) == ([[0, 32767, 65535]], 1.5259021897e-05, 2)
    for value in (0.25, 1e5):
        pixels, slope, intercept = to_16_bit(np.full((2, 2), value, np.float32))
        assert (pixels.max(), slope, intercept) == (0, 1, value)


@given(arrays(np.float32, (3, 4), elements=st.floats(-1e9, 1e9, width=32, allow_subnormal=False)))
@example(np.array([[-32768, 32767]], np.float32))
@example(np.array([[0, 65535]], np.float32))
@example(np.array([[-1, 32768]], np.float32))
@example(np.array([[-1e9, 1e9]], np.float32))
# Neighbouring floats, equal in ten digits: rounding must not wrap around the range.
@example(np.array([[-1.2345678e-20, np.nextafter(np.float32(-1.2345678e-20), 0)]], np.float32))
def test_any_image_can_be_restored_from_16_bits(image):
    pixels, slope, intercept = to_16_bit(image)
    restored = pixels.astype(float) * slope + intercept
    low, high = float(image.min()), float(image.max())
    fits = any(a <= low <= high <= b for a, b in ((0, 65535), (-32768, 32767)))
    if fits and (image == np.rint(image)).all():
        assert np.array_equal(restored, image)
    else:
        assert pixels.dtype == np.uint16
        # DICOM's 16 characters hold at least nine digits of the offset.
        error = np.abs(restored - image.astype(float)).max()
        assert error <= 0.501 * slope * (high > low) + 1e-9 * max(abs(low), abs(high))


# Rejected inputs


@pytest.mark.parametrize(
    ("ids", "broken", "expected"),
    [
        (["a", "frame 1", "b"], "frame 1", "without a space, which separates columns"),
        (["007", "12"], "007", "that pandas does not read as numbers or missing values"),
        (["a", "NA"], "NA", "that pandas does not read as numbers or missing values"),
        (["1.50"], "1.50", "that pandas does not read as numbers or missing values"),
    ],
)
def test_ids_that_the_published_code_would_misread(tmp_path, ids, broken, expected):
    assert error_message(lambda: check_readable_ids(ids, tmp_path)) == (
        f"{tmp_path}: sample ids\n"
        f"  found:    1 that the published code would read as other ids: ['{broken}']\n"
        f"  expected: ids {expected}\n"
        "  to mend:  rename these images, their masks, their recordings and their lines in the "
        "split files, and run the command again"
    )


@settings(max_examples=200)
@given(st.lists(st.text("0123456789aNeE._-+ é", min_size=1, max_size=4), min_size=1, max_size=4))
@example(["a", "007"])
@example(["12", "7"])
@example(["TRUE", "True"])
def test_pandas_reads_accepted_ids_unchanged(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("ids")
    try:
        check_readable_ids(ids, folder)
    except BadInput:
        return
    file = folder / "train.txt"
    file.write_text("\n".join(ids) + "\n", "utf-8")
    read = pd.read_csv(file, sep=" ", header=None).iloc[:, 0].tolist()
    assert [f"{value}" for value in read] == ids


@pytest.mark.parametrize("split", range(5))
def test_an_id_with_a_space_is_rejected_in_every_split(tmp_path, split):
    ids = [*IDS[:split], "frame 1", *IDS[split + 1 :]]
    source = Source(tmp_path, "kvasir", sample_id=ids)
    if split == 1:
        # This sample has no gaze, so it is not exported.
        source.export()
    else:
        assert "['frame 1']" in error_message(source.export)
        assert not (tmp_path / "export").exists()


def test_an_id_cannot_leave_the_folder(tmp_path):
    source = Source(tmp_path, "kvasir", sample_id=["../../x", *IDS[1:]])
    assert "found:    '../../x'" in error_message(source.export)


def test_an_unknown_form(tmp_path):
    assert error_message(lambda: Source(tmp_path, "kvasir").export("coco")) == (
        "command line: --form\n"
        "  found:    'coco'\n"
        "  expected: one of kvasir, nci_isbi, isic\n"
        "  to mend:  name the data set whose published loader will read the folder"
    )


@pytest.mark.parametrize(
    ("images", "form", "found", "expected", "mend"),
    [
        ("nci_isbi", "kvasir", "float32 with 1", "uint8 with 3", "nci_isbi"),
        ("nci_isbi", "isic", "float32 with 1", "uint8 with 3", "nci_isbi"),
        ("isic", "nci_isbi", "uint8 with 3", "float32 with 1", "kvasir or isic"),
    ],
)
def test_a_form_that_does_not_fit_the_images(tmp_path, images, form, found, expected, mend):
    assert error_message(lambda: Source(tmp_path, images).export(form)) == (
        f"{tmp_path / 'prepared.h5'}: data set image\n"
        f"  found:    {found} channel(s)\n"
        f"  expected: {expected} channel(s), for this --form\n"
        f"  to mend:  use --form {mend}"
    )


@pytest.mark.parametrize(
    ("changes", "split", "wanted"),
    [
        ({"has_gaze": np.zeros(5, bool)}, "train", "sample with gaze"),
        ({"split": ["train"] * 5}, "test", "sample"),
    ],
)
def test_a_split_that_would_be_empty(tmp_path, changes, split, wanted):
    assert error_message(Source(tmp_path, "isic", **changes).export) == (
        f"{tmp_path / 'prepared.h5'}: split '{split}'\n"
        f"  found:    no {wanted}\n"
        "  expected: at least one, as the published code does not start without it\n"
        "  to mend:  check the split files and the source of the fixations"
    )


def test_files_of_different_data_sets(tmp_path):
    source = Source(tmp_path, "kvasir")
    source.data["sample_id"] = IDS[::-1]
    source.write("gaze", "heatmap", "refined", "has_gaze", "threshold")
    assert "data set sample_id" in error_message(source.export)


@pytest.mark.parametrize("name", ["notes.txt", "provenance.json"])
def test_a_folder_of_other_files_is_not_replaced(tmp_path, name):
    other = tmp_path / "export" / name
    other.parent.mkdir()
    other.write_text('{"stage": "mine"}')
    assert error_message(Source(tmp_path, "kvasir").export) == (
        f"{tmp_path / 'export'}: folder\n"
        "  found:    files that this stage did not write\n"
        "  expected: no folder, or an earlier export\n"
        "  to mend:  name another folder, or delete this one"
    )
    assert other.read_text() == '{"stage": "mine"}'


def test_a_failure_leaves_only_the_earlier_export(tmp_path, monkeypatch):
    source = Source(tmp_path, "kvasir")
    root = source.export()
    before = io.sha256(root)

    def fail(path, array):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        source.export(explain=True)
    assert io.sha256(root) == before
    assert not list(tmp_path.glob("*.tmp"))


def test_an_earlier_export_is_replaced_as_a_whole(tmp_path):
    source = Source(tmp_path, "kvasir")
    source.export(explain=True)
    root = source.export("isic")
    assert not (root / "masks").exists()
    assert not (root / "embeddings").exists()
    assert (root / "labels/case1_1_segmentation.png").is_file()


def test_the_command_line(tmp_path):
    Source(tmp_path, "isic")
    paths = {name: str(tmp_path / f"{name}.h5") for name in ("prepared", "gaze", "explanations")}
    options = [f"--{name}={path}" for name, path in paths.items()]
    cli.run(export_published, [*options, f"--output={tmp_path / 'export'}", "--form=isic"])
    with h5py.File(paths["explanations"]) as file:
        expected = file["embedding"][4]
    assert np.array_equal(np.load(tmp_path / "export/embeddings/case4_1.npy"), expected)
