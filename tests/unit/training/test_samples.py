"""Columns, rows and batches of samples, and normalisation."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core import io
from stages.core.cli import BadInput
from stages.training import samples
from stages.training.samples import Column, Samples

N, SIZE = 5, (4, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def files(tmp_path):
    """Write five samples; the values of a sample are its number, which reveals mix-ups."""
    number = np.arange(N)
    paths = {name: tmp_path / f"{name}.h5" for name in ("prepared", "gaze", "explanations")}
    with io.create_h5(paths["prepared"], "prepare", {}, {}) as file:
        io.write_strings(file, "split", ["train", "val", "train", "test", "train"])
        image = io.create_sample_dataset(file, "image", (N, *SIZE, 3), np.uint8)
        image[...] = number[:, None, None, None] * 10
        mask = io.create_sample_dataset(file, "mask", (N, *SIZE), np.uint8)
        mask[...] = (number % 2)[:, None, None]
        file["has_mask"] = number != 4
        io.write_strings(file, "sample_id", number.astype(str))
    with io.create_h5(paths["gaze"], "gaze", {}, {}) as file:
        levels = io.create_sample_dataset(file, "pseudomask", (N, 3, *SIZE), np.uint8)
        for level in range(3):
            levels[:, level, : level + 1] = 1
        refined = io.create_sample_dataset(file, "refined", (N, *SIZE), np.float16)
        refined[...] = (number / 8)[:, None, None]
        file["threshold"] = np.array([0.5, 0.25], np.float32)
        file["has_gaze"] = number > 0
        io.write_strings(file, "sample_id", number.astype(str))
    with io.create_h5(paths["explanations"], "embed", {}, {}) as file:
        embedding = io.create_sample_dataset(file, "embedding", (N, 2, 7), np.float32)
        embedding[...] = number[:, None, None]
        io.write_strings(file, "sample_id", number.astype(str))
    return paths


CPU = torch.device("cpu")


def columns(files):
    return {
        "image": Column(files["prepared"], "image"),
        "mask": Column(files["prepared"], "mask"),
        "pseudomask": Column(files["gaze"], "pseudomask"),
        "text": Column(files["explanations"], "embedding"),
    }


@pytest.mark.parametrize("resident_mb", [1, 0])
@pytest.mark.parametrize(
    ("split", "expected"), [(("train",), [0, 2, 4]), (("val", "test"), [1, 3]), ((), [])]
)
def test_batches_of_the_given_splits_have_all_columns(files, split, expected, resident_mb):
    rows = samples.rows_in_splits(files["prepared"], *split)
    assert rows.tolist() == expected
    data = Samples(columns(files), rows, CPU, resident_mb)
    assert data.resident == (resident_mb == 1 or not expected)
    assert len(data) == len(expected)
    assert data.shape("image") == (3, *SIZE)
    assert data.shape("text") == (2, 7)
    index = torch.arange(len(expected)).flip(0)
    batch = data[index]
    expected = expected[::-1]
    assert batch["image"].shape == (len(expected), 3, *SIZE)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"][:, 0, 0, 0].tolist() == [10 * i for i in expected]
    assert batch["mask"][:, 0, 0].tolist() == [i % 2 for i in expected]
    assert batch["text"][:, 0, 0].tolist() == expected
    # The three levels of a sample: one, two, three rows of 6 px.
    assert batch["pseudomask"].sum(dim=(2, 3)).tolist() == [[6, 12, 18]] * len(expected)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), max_size=6))
def test_streamed_and_resident_samples_are_equal(files, indices):
    rows = samples.rows_in_splits(files["prepared"], "train")
    resident, streamed = (Samples(columns(files), rows, CPU, mb) for mb in (1, 0))
    indices = [torch.tensor(index) for index in indices]
    for one, other in zip(resident.batches(indices), streamed.batches(indices), strict=True):
        assert set(one) == set(other)
        for name in one:
            assert torch.equal(one[name], other[name]), name


def test_rows_with_gaze_omits_samples_that_the_quality_table_excludes(files, tmp_path):
    table = tmp_path / "gaze_quality.csv"
    table.write_text("sample_id,left_out,flags\n0,True,\n1,False,\n2,True,\n3,False,\n4,False,x\n")
    rows = samples.rows_in_splits(files["prepared"], "train")
    assert samples.rows_with_gaze(files["prepared"], files["gaze"], None, rows).tolist() == [2, 4]
    assert samples.rows_with_gaze(files["prepared"], files["gaze"], table, rows).tolist() == [4]
    with pytest.raises(BadInput, match=r"gaze\.h5[^$]*no sample with gaze[^$]*`quality`"):
        samples.rows_with_gaze(files["prepared"], files["gaze"], None, rows[:1])


def test_rows_with_mask_and_require_rows(files):
    rows = samples.rows_in_splits(files["prepared"], "train")
    assert samples.rows_with_mask(files["prepared"], rows).tolist() == [0, 2]
    assert samples.require_rows(rows, files["prepared"], "a mask", "draw one") is rows
    with pytest.raises(BadInput, match=r"no sample with a mask[^$]*to mend:  draw one"):
        samples.require_rows(rows[:0], files["prepared"], "a mask", "draw one")


@pytest.mark.parametrize("name", ["gaze", "explanations"])
def test_files_with_different_samples_are_refused(files, name):
    with h5py.File(files[name], "r+") as file:
        file["sample_id"][0] = "another"
    with pytest.raises(BadInput, match=rf"{name}\.h5"):
        Samples(columns(files), np.array([0]), CPU, 1)


def test_colour_is_normalised_with_imagenet_statistics():
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    # (v / 255 − mean) / std of red, green and blue.
    expected = [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert samples.normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_scan_is_normalised_to_mean_0_and_deviation_1_and_a_constant_one_to_0():
    scans = torch.stack([torch.arange(6.0).reshape(1, 2, 3), torch.full((1, 2, 3), 7.0)])
    found = samples.normalise(scans)
    # 0 … 5: mean 2.5, variance 35 / 12.
    expected = [(v - 2.5) / (35 / 12) ** 0.5 for v in range(6)]
    assert found[0].flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert not found[1].any()


# Levels


def test_without_levels_the_stored_pseudomasks_are_used(files):
    assert samples.pseudomask_column(files["gaze"], None) == Column(files["gaze"], "pseudomask")


@pytest.mark.parametrize("resident_mb", [1, 0])
def test_levels_are_cut_from_the_refined_maps_when_read(files, resident_mb):
    found = {"pseudomask": samples.pseudomask_column(files["gaze"], 3)}
    rows = np.arange(N)
    data = Samples(columns(files) | found, rows, CPU, resident_mb)
    assert data.resident == (resident_mb == 1)
    assert data.shape("pseudomask") == (3, *SIZE)
    batch = data[torch.tensor([4, 0, 3, 2])]["pseudomask"]
    assert batch.dtype == torch.uint8
    # Sample i is i / 8 everywhere; thresholds 0.5, 0.375, 0.25.
    assert batch[:, :, 0, 0].tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_a_file_with_one_threshold_allows_one_level(files):
    with h5py.File(files["gaze"], "r+") as file:
        del file["threshold"]
        file["threshold"] = np.array([0.5], np.float32)
    assert samples.pseudomask_column(files["gaze"], 1).thresholds == (0.5,)
    wanted = r"gaze\.h5: threshold[^$]*no 2 levels fit between 0\.5 and 0\.5[^$]*gaze\.thresholds"
    with pytest.raises(BadInput, match=wanted):
        samples.pseudomask_column(files["gaze"], 2)
