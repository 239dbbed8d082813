"""What a network trains on, and that its labels stay true when the image is changed."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import io, samples
from stages.cli import BadInput
from stages.student import cut_boxes, paste

N, SIZE = 5, (4, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def files(tmp_path):
    """Five samples; each value of a sample is its number, so that a mix-up shows."""
    number = np.arange(N)
    paths = {name: tmp_path / f"{name}.h5" for name in ("prepared", "gaze", "explanations")}
    with io.create_h5(paths["prepared"], "prepare", {}, {}) as file:
        io.write_strings(file, "split", ["train", "val", "train", "test", "train"])
        image = io.sample_dataset(file, "image", (N, *SIZE, 3), np.uint8)
        image[...] = number[:, None, None, None] * 10
        mask = io.sample_dataset(file, "mask", (N, *SIZE), np.uint8)
        mask[...] = (number % 2)[:, None, None]
        file["has_mask"] = number != 4
        io.write_strings(file, "sample_id", number.astype(str))
    with io.create_h5(paths["gaze"], "gaze", {}, {}) as file:
        levels = io.sample_dataset(file, "pseudomask", (N, 3, *SIZE), np.uint8)
        for level in range(3):
            levels[:, level, : level + 1] = 1
        file["has_gaze"] = number > 0
        io.write_strings(file, "sample_id", number.astype(str))
    with io.create_h5(paths["explanations"], "embed", {}, {}) as file:
        embedding = io.sample_dataset(file, "embedding", (N, 2, 7), np.float32)
        embedding[...] = number[:, None, None]
        io.write_strings(file, "sample_id", number.astype(str))
    return paths


@pytest.mark.parametrize(
    ("split", "expected"), [(("train",), [0, 2, 4]), (("val", "test"), [1, 3]), ((), [])]
)
def test_the_named_splits_are_read_with_everything_that_belongs_to_them(files, split, expected):
    index, batch = samples.load_images(files["prepared"], split)
    samples.add_masks(batch, files["prepared"], index)
    samples.add_pseudomasks(batch, files["prepared"], files["gaze"], None, index)
    samples.add_text(batch, files["prepared"], files["explanations"], index)
    assert index.tolist() == expected
    assert batch["image"].shape == (len(expected), 3, *SIZE)
    # ImageNet's mean and std of red.
    red = [(10 * i / 255 - 0.485) / 0.229 for i in expected]
    assert batch["image"][:, 0, 0, 0].tolist() == pytest.approx(red, abs=1e-5)
    assert batch["mask"][:, 0, 0].tolist() == [i % 2 for i in expected]
    assert batch["has_mask"].tolist() == [i != 4 for i in expected]
    assert batch["has_gaze"].tolist() == [i > 0 for i in expected]
    assert batch["text"][:, 0, 0].tolist() == expected
    assert batch["precise"].sum(dim=(1, 2)).tolist() == [6] * len(expected)
    assert batch["broad"].sum(dim=(1, 2)).tolist() == [18] * len(expected)


def test_samples_that_the_quality_leaves_out_have_no_gaze(files, tmp_path):
    table = tmp_path / "gaze_quality.csv"
    table.write_text("sample_id,left_out,flags\n0,True,\n1,False,\n2,True,\n3,False,\n4,False,x\n")
    index, batch = samples.load_images(files["prepared"], ("train",))
    samples.add_pseudomasks(batch, files["prepared"], files["gaze"], table, index)
    assert index.tolist() == [0, 2, 4]
    assert batch["has_gaze"].tolist() == [False, False, True]


@pytest.mark.parametrize("name", ["gaze", "explanations"])
def test_files_of_other_samples_are_refused(files, name):
    with h5py.File(files[name], "r+") as file:
        file["sample_id"][0] = "another"
    index, batch = samples.load_images(files["prepared"], ("train",))
    with pytest.raises(BadInput, match=rf"{name}\.h5"):
        if name == "gaze":
            samples.add_pseudomasks(batch, files["prepared"], files["gaze"], None, index)
        else:
            samples.add_text(batch, files["prepared"], files["explanations"], index)


def test_chosen_samples_are_kept_and_none_is_an_error(tmp_path):
    batch = {"image": torch.arange(3.0), "text": torch.arange(3)}
    kept = samples.keep(batch, torch.tensor([True, False, True]), tmp_path, "fixations", "look")
    assert {name: values.tolist() for name, values in kept.items()} == {
        "image": [0, 2],
        "text": [0, 2],
    }
    with pytest.raises(BadInput, match=r"no sample with fixations[^$]*to mend:  look"):
        samples.keep(batch, torch.zeros(3, dtype=torch.bool), tmp_path, "fixations", "look")


# Flips


def batch_of(n=64, seed=0):
    """Images whose channel 0 is their label, and a text of the same shape as an image."""
    label = torch.randint(0, 2, (n, *SIZE), generator=generator(seed))
    image = torch.stack([label.float(), torch.rand(n, *SIZE, generator=generator(seed))], dim=1)
    return {
        "image": image,
        "precise": label.to(torch.uint8),
        "mask": label,
        "text": torch.rand(n, *SIZE, generator=generator(seed + 1)),
        "has_gaze": torch.rand(n, generator=generator(seed)) < 0.5,
    }


def test_labels_move_with_the_image_and_the_text_stays():
    batch = batch_of()
    flipped = samples.flip(batch, generator())
    assert torch.equal(flipped["precise"], flipped["image"][:, 0].to(torch.uint8))
    assert torch.equal(flipped["mask"], flipped["image"][:, 0].long())
    for name in ("text", "has_gaze"):
        assert torch.equal(flipped[name], batch[name])
    assert flipped["precise"].dtype == torch.uint8
    assert not torch.equal(flipped["image"], batch["image"])


def test_each_of_the_four_ways_comes_about_as_often():
    batch = batch_of(400)
    flipped = samples.flip(batch, generator())["image"]
    ways = {(): 0, (2,): 0, (1,): 0, (1, 2): 0}
    for before, after in zip(batch["image"], flipped):
        (way,) = [axes for axes in ways if torch.equal(after, before.flip(axes))]
        ways[way] += 1
    # Binomial, 400 of ¼: 100 ± 8.7; five standard deviations.
    assert all(57 <= count <= 143 for count in ways.values()), ways


def test_the_batch_itself_is_not_changed_and_a_seed_fixes_the_flips():
    batch = batch_of()
    before = {name: values.clone() for name, values in batch.items()}
    first, second = samples.flip(batch, generator(3)), samples.flip(batch, generator(3))
    for name, values in batch.items():
        assert torch.equal(values, before[name])
        assert torch.equal(first[name], second[name])


# CutMix


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)
)
def test_a_box_is_a_rectangle_that_a_seed_fixes(height, width, count, beta, seed):
    boxes = cut_boxes((height, width), count, beta, generator(seed))
    assert boxes.shape == (count, height, width)
    assert boxes.dtype == torch.bool
    assert torch.equal(boxes, cut_boxes((height, width), count, beta, generator(seed)))
    for box in boxes:
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert torch.equal(box, rows[:, None] & columns[None])
        for along in (rows, columns):
            assert (along.int().diff() != 0).sum() <= 2  # in one piece


@pytest.mark.parametrize("beta", [1, 4])
def test_a_boxs_share_is_beta_distributed_but_for_what_the_border_cuts_off(beta):
    boxes = cut_boxes((64, 64), 4000, beta, generator())
    rows, columns = boxes.any(dim=2).float().mean(dim=1), boxes.any(dim=1).float().mean(dim=1)
    # Where no border cuts it, a side is the square root of the share along both axes.
    uncut = ~(boxes[:, [0, -1]].any(dim=2).any(dim=1) | boxes[:, :, [0, -1]].any(dim=2).any(dim=1))
    assert rows[uncut].numpy() == pytest.approx(columns[uncut].numpy(), abs=1.01 / 64)

    # A centre drawn evenly leaves of a side s the mean part s − s² / 4 of it (s ≤ 1, ½ · s² / 4 off
    # each end). For s = √B the mean area is E[(s − s² / 4)²] with E[s^k] of Beta(β, β):
    # Γ(β + k/2) Γ(2β) / (Γ(β) Γ(2β + k/2)).
    def moment(k):
        terms = torch.lgamma(torch.tensor([beta + k / 2, 2 * beta, beta, 2 * beta + k / 2]))
        return float((terms[0] + terms[1] - terms[2] - terms[3]).exp())

    expected = moment(2) - moment(3) / 2 + moment(4) / 16
    assert boxes.float().mean().item() == pytest.approx(expected, rel=0.05)


def test_a_box_is_pasted_from_the_sample_before():
    values = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    box = torch.zeros(3, 4, 4, dtype=torch.bool)
    box[0, 0, 0], box[1, :2] = True, True
    mixed = paste(values, box)
    # The first takes from the last.
    assert mixed[0, :, 0, 0].tolist() == [2, 2]
    assert mixed[0].sum() == 2 * 2
    assert mixed[1, 0].tolist() == [[0] * 4] * 2 + [[1] * 4] * 2
    assert torch.equal(mixed[2], values[2])


def test_image_and_target_are_pasted_alike():
    label = torch.randint(0, 2, (6, 1, 16, 16), generator=generator())
    box = cut_boxes((16, 16), 6, 4, generator(1))
    assert torch.equal(paste(label.float(), box).long(), paste(label, box))
