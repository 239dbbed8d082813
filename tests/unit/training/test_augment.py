"""Labels follow the augmented image, and random values have the stated distribution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed

from stages.core.cli import BadInput
from stages.settings.training import AugmentSettings
from stages.training.augment import (
    add_noise,
    augment_and_normalise,
    change_colours,
    check_size,
    draw_cutmix_boxes,
    move,
    paste_boxes,
)
from stages.training.samples import normalise

SIDE = 8
NO_FLIPS = {"flips": False}
EVERYTHING = {
    "quarter_turns": True, "scale": 0.5, "shift": 0.2, "brightness": 0.3, "contrast": 0.3,
    "saturation": 0.3,
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(n=64, seed=0, size=(SIDE, SIDE), grey=False):
    """Images with channel 0, or a grey value, that is high where their labels are 1."""
    source = generator(seed)
    precise = torch.rand(n, *size, generator=source) < 0.3
    broad = precise | (torch.rand(n, *size, generator=source) < 0.3)
    image = torch.randint(0, 256, (n, 3, *size), generator=source)
    image[:, 0] = 255 * broad
    return {
        "image": broad[:, None].float() if grey else image.to(torch.uint8),
        "pseudomask": torch.stack([precise, broad], dim=1).to(torch.uint8),
        "mask": broad.long(),
        "refined": broad.half(),
        "pseudolabel": broad.half(),
        "text": torch.rand(n, *size, generator=source) + 1,
        "false_if_moved": torch.rand(n, size[0], generator=source) < 0.5,
        "false_if_turned": torch.rand(n, size[0], generator=source) < 0.5,
        "has_gaze": torch.rand(n, generator=source) < 0.5,
    }


def augmented(batch, seed=0, **chosen):
    return augment_and_normalise(batch, AugmentSettings(**chosen), generator(seed))


MAPS = ("pseudomask", "mask", "refined", "pseudolabel")


@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_several_processes_makes_the_same_full_batch(rank, monkeypatch):
    batch = batch_of()
    alone = augmented(batch, **EVERYTHING)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)
    together = augmented(batch, **EVERYTHING)
    for name, values in alone.items():
        assert torch.equal(together[name], values)


# Defaults, and what they share


@pytest.mark.parametrize("grey", [False, True])
def test_the_defaults_are_flips_alone_drawn_horizontally_and_then_vertically(grey):
    """A training with the defaults keeps its numbers, to the bit."""
    batch, random = batch_of(grey=grey, size=(6, 4)), generator(5)
    flip_x, flip_y = (torch.rand(64, generator=random) < 0.5 for _ in range(2))
    source = generator(5)
    result = augment_and_normalise(batch, AugmentSettings(), source)
    for name in ("image", *MAPS):
        values = batch[name].clone()
        for i in range(64):
            values[i] = values[i].flip(-1) if flip_x[i] else values[i]
            values[i] = values[i].flip(-2) if flip_y[i] else values[i]
        expected = normalise(values) if name == "image" else values
        assert torch.equal(result[name], expected)
    # No other number is drawn.
    assert torch.equal(source.get_state(), random.get_state())


def test_without_any_change_only_the_image_is_normalised():
    batch, source = batch_of(), generator()
    result = augment_and_normalise(batch, AugmentSettings(flips=False), source)
    assert torch.equal(result["image"], normalise(batch["image"]))
    assert all(result[name] is batch[name] for name in batch if name != "image")
    assert torch.equal(source.get_state(), generator().get_state())


CHANGES = {
    "flips": {}, "turns": NO_FLIPS | {"quarter_turns": True}, "scale": NO_FLIPS | {"scale": 0.5},
    "shift": NO_FLIPS | {"shift": 0.3}, "colours": NO_FLIPS | {"contrast": 0.5, "saturation": 0.5},
    "everything": EVERYTHING,
}  # fmt: skip


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_seed_fixes_the_result_and_the_batch_does_not_change(name, grey):
    batch = batch_of(grey=grey)
    before = {name: values.clone() for name, values in batch.items()}
    first, second, other = (augmented(batch, seed, **CHANGES[name]) for seed in (3, 3, 4))
    for key, values in batch.items():
        assert torch.equal(values, before[key])
        assert torch.equal(first[key], second[key])
        assert first[key].shape == values.shape
        assert first[key].dtype == (torch.float32 if key == "image" else values.dtype)
    assert not torch.equal(first["image"], other["image"])
    assert torch.equal(first["has_gaze"], batch["has_gaze"])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(CHANGES)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 999),
    grey=st.booleans(),
)
def test_labels_are_those_of_the_augmented_image(name, size, seed, grey):
    if CHANGES[name].get("quarter_turns"):
        size = (size[0], size[0])
    batch = batch_of(5, seed, size, grey)
    # Not the colours: they would hide the label in the image.
    geometry = {"brightness": 0, "contrast": 0, "saturation": 0}
    result = augmented(batch, seed, **CHANGES[name] | geometry)
    precise, broad = result["pseudomask"].unbind(dim=1)
    assert set(precise.unique().tolist()) | set(broad.unique().tolist()) <= {0, 1}
    assert (precise <= broad).all()
    assert torch.equal(result["mask"], broad.long())
    for key in ("refined", "pseudolabel"):
        values = result[key]
        assert values.min() >= 0 and values.max() <= 1
        # A half lies on the border, and rounding decides.
        clear = (values.float() - 0.5).abs() > 0.005
        assert torch.equal((values > 0.5)[clear], (broad > 0)[clear])
        assert torch.equal(values, result["refined"])
    if not grey:
        value = result["image"][:, 0] * 0.229 + 0.485
        clear = (value - 0.5).abs() > 0.005
        assert torch.equal((value > 0.5)[clear], (broad > 0)[clear])
        assert value.min() >= -1e-6 and value.max() <= 1 + 1e-6
    else:
        image = move({"image": batch["image"], "mask": batch["mask"]}, *draws(5, seed))
        assert torch.equal(image["image"][:, 0] >= 0.5, image["mask"] > 0)


def draws(n, seed):
    """Random factors and shifts."""
    source = generator(seed)
    shift = torch.rand(2, n, generator=source) - 0.5
    return 0.5 + 1.5 * torch.rand(n, generator=source), shift


# Flips and quarter turns


def orders(values, chosen):
    """Return which of the eight turns and flips each sample has had."""
    found = []
    for before, after in zip(values, chosen):
        (way,) = [
            (turns, flip)
            for turns in range(4)
            for flip in (False, True)
            if torch.equal(after, torch.rot90(before.flip(-1) if flip else before, turns, (-2, -1)))
        ]
        found.append(way)
    return found


def frequencies(found):
    return {way: found.count(way) for way in set(found)}


@pytest.mark.parametrize(
    ("chosen", "ways"),
    [
        ({}, {(0, False), (0, True), (2, False), (2, True)}),
        (NO_FLIPS | {"quarter_turns": True}, {(turns, False) for turns in range(4)}),
        ({"quarter_turns": True}, {(turns, flip) for turns in range(4) for flip in (False, True)}),
    ],
)
def test_flips_and_turns_permute_pixels_exactly_and_are_equally_frequent(chosen, ways):
    n = 100 * len(ways)
    batch = batch_of(n)
    result = augmented(batch, **chosen)
    found = orders(normalise(batch["image"]), result["image"])
    counts = frequencies(found)
    assert set(counts) == ways
    # Binomial, 100 of each on average, with a deviation below 10; five of these.
    assert all(50 <= count <= 150 for count in counts.values()), counts
    for name in MAPS:
        for before, after, (turns, flip) in zip(batch[name], result[name], found):
            before = before.flip(-1) if flip else before
            assert torch.equal(after, torch.rot90(before, turns, (-2, -1)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 99))
def test_turns_keep_all_pixel_values(side, seed):
    batch = batch_of(4, seed, (side, side))
    result = augmented(batch, seed, quarter_turns=True)
    for before, after in zip(normalise(batch["image"]), result["image"]):
        assert torch.equal(before.flatten(1).sort().values, after.flatten(1).sort().values)


def test_turns_of_images_that_are_not_square_are_refused(tmp_path):
    turning = AugmentSettings(quarter_turns=True)
    check_size(turning, (8, 8), tmp_path)
    check_size(AugmentSettings(), (6, 8), tmp_path)
    with pytest.raises(BadInput, match=r"6 × 8 px[^$]*square[^$]*augment\.quarter_turns to false"):
        check_size(turning, (6, 8), tmp_path)


# Scale and shift


def row(values, factor=1.0, shift=0.0):
    """Move one row of grey values, and labels where a value is at least half of 100."""
    image = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    maps = {"image": image, "mask": (image[:, 0] >= 50).to(torch.uint8)}
    moved = move(maps, torch.tensor([factor]), torch.tensor([[shift], [0.0]]))
    return moved["image"].flatten().tolist(), moved["mask"].flatten().tolist()


def test_a_shift_by_whole_pixels_moves_them_and_reflects_the_border():
    # A quarter of 8 px to the right: the first two pixels are the reflection of the next two.
    image, mask = row([10, 20, 30, 40, 50, 60, 70, 80], shift=0.25)
    assert image == pytest.approx([20, 10, 10, 20, 30, 40, 50, 60], abs=1e-4)
    assert mask == [0, 0, 0, 0, 0, 0, 1, 1]
    # And to the left.
    image, mask = row([10, 20, 30, 40, 50, 60, 70, 80], shift=-0.25)
    assert image == pytest.approx([30, 40, 50, 60, 70, 80, 80, 70], abs=1e-4)
    assert mask == [0, 0, 1, 1, 1, 1, 1, 1]


def test_a_shift_goes_down_along_the_second_axis():
    image = torch.arange(4.0)[None, None, :, None].expand(1, 1, 4, 3)
    moved = move({"image": image}, torch.ones(1), torch.tensor([[0.0], [0.25]]))["image"]
    assert moved[0, 0, :, 1].tolist() == pytest.approx([0, 0, 1, 2], abs=1e-5)


def test_a_factor_enlarges_about_the_centre():
    # Twice as large: pixels lie at ± ¼, ± ¾ of the source's pixels around the centre.
    image, mask = row([0, 0, 100, 100], factor=2)
    assert image == pytest.approx([0, 25, 75, 100], abs=1e-4)
    assert mask == [0, 0, 1, 1]
    # Half as large: source pixels ± 1, ± 3 from the centre; those at ± 3 are reflections.
    image, mask = row([0, 40, 80, 120], factor=0.5)
    assert image == pytest.approx([20, 20, 100, 100], abs=1e-4)
    assert mask == [0, 0, 1, 1]


def test_labels_are_those_of_the_interpolation_and_other_maps_are_interpolated():
    # By a quarter of a pixel to the right: three quarters of a pixel and a quarter of the previous.
    levels = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.uint8)[None, :, None]
    maps = {
        "image": 100 * levels[:, 1:, :].expand(1, 3, 1, 4),
        "pseudomask": levels,
        "refined": levels[:, 1].half() / 2,
    }
    moved = move(maps, torch.ones(1), torch.tensor([[1 / 16], [0.0]]))
    assert moved["image"][0, 0, 0].tolist() == [0, 75, 100, 25]
    assert moved["image"].dtype == moved["pseudomask"].dtype == torch.uint8
    assert moved["pseudomask"][0, :, 0].tolist() == [[0, 0, 1, 0], [0, 1, 1, 0]]
    assert moved["refined"][0, 0].tolist() == pytest.approx([0, 0.375, 0.5, 0.125])


def test_no_scale_and_no_shift_keep_all_values():
    batch = {name: batch_of()[name] for name in ("image", *MAPS)}
    moved = move(batch, torch.ones(64), torch.zeros(2, 64))
    for name, values in batch.items():
        assert torch.equal(moved[name], values)


def test_half_of_the_samples_are_scaled_and_shifted_within_the_limits():
    # A disc of 12 px around the centre of 64: its area and centre show factor and shift.
    n, side = 400, 64
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    disc = ((y - 31.5) ** 2 + (x - 31.5) ** 2 <= 12**2).long().expand(n, -1, -1)
    batch = {"image": torch.zeros(n, 3, side, side, dtype=torch.uint8), "mask": disc}
    result = augmented(batch, flips=False, scale=0.5, shift=0.1)["mask"]
    factor = (result.sum(dim=(1, 2)) / disc[0].sum()).sqrt()
    shift = torch.stack([(result * v).sum(dim=(1, 2)) / result.sum(dim=(1, 2)) for v in (x, y)])
    shift = (shift - 31.5) / side
    kept = (result == disc).flatten(1).all(dim=1)
    # Binomial, 200 ± 10; five standard deviations.
    assert 150 <= kept.sum() <= 250
    assert 1 / 1.5 - 0.02 <= factor.min() < 0.7 and 1.45 < factor.max() <= 1.52
    assert shift.abs().max() <= 0.1 + 0.01
    assert shift.min() < -0.09 and shift.max() > 0.09
    # As many become smaller as larger.
    assert factor[~kept].log().mean().item() == pytest.approx(0, abs=5 * 0.234 / math.sqrt(200))


# Texts


def hidden_tokens(batch, result):
    """Return which tokens have become zero, (B, K); the others are unchanged."""
    hidden = (result["text"] == 0).all(dim=2)
    assert torch.equal(result["text"][~hidden], batch["text"][~hidden])
    return hidden


def test_marked_texts_of_moved_samples_are_hidden_and_no_others():
    batch = batch_of(400, grey=True)
    # A dot off the centre shows whether a sample was moved.
    batch["refined"] = torch.zeros(400, SIDE, SIDE)
    batch["refined"][:, 1, 2] = 1
    for chosen in ({"scale": 0.5}, {"shift": 0.3}, {"scale": 0.5, "shift": 0.3}):
        result = augmented(batch, **NO_FLIPS, **chosen)
        moved = ((result["refined"] - batch["refined"]).abs() > 1e-4).flatten(1).any(dim=1)
        assert 150 <= moved.sum() <= 250
        expected = batch["false_if_moved"] & moved[:, None]
        assert torch.equal(hidden_tokens(batch, result), expected)


def test_marked_texts_of_samples_on_their_side_are_hidden_and_no_others():
    batch = batch_of(400)
    result = augmented(batch, **NO_FLIPS, quarter_turns=True)
    found = orders(normalise(batch["image"]), result["image"])
    turned = torch.tensor([turns % 2 == 1 for turns, _ in found])
    expected = batch["false_if_turned"] & turned[:, None]
    assert torch.equal(hidden_tokens(batch, result), expected)


def test_flips_and_colours_hide_no_text():
    batch = batch_of()
    colours = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}
    unmarked = {name: v for name, v in batch.items() if not name.startswith("false")}
    assert torch.equal(augmented(unmarked, **colours)["text"], batch["text"])
    assert AugmentSettings(**colours).text_marks == ()


# Colours


def pixels(*colours):
    return torch.tensor(colours, dtype=torch.uint8).T[None, :, None]


def coloured(image, brightness=1.0, contrast=1.0, saturation=1.0):
    factors = (torch.tensor([factor]) for factor in (brightness, contrast, saturation))
    return change_colours(image, *factors)[0, :, 0].T.tolist()


def test_each_change_of_colour_worked_out_by_hand():
    # Grey values 0.299 · 200 + 0.587 · 100 = 118.5 and 50; their mean is 84.25.
    image = pixels((200, 100, 0), (50, 50, 50))
    assert coloured(image) == [[200, 100, 0], [50, 50, 50]]
    assert coloured(image, brightness=1.2) == [[240, 120, 0], [60, 60, 60]]
    # 118.5 + 0.5 · (81.5, −18.5, −118.5).
    assert coloured(image, saturation=0.5) == [[159, 109, 59], [50, 50, 50]]
    # 84.25 + 0.5 · (115.75, 15.75, −84.25) and 84.25 − 0.5 · 34.25.
    assert coloured(image, contrast=0.5) == [[142, 92, 42], [67, 67, 67]]
    # 1.2 · (84.25 + 0.5 · (the first of saturation − 84.25)).
    assert coloured(image, 1.2, 0.5, 0.5) == [[146, 116, 86], [81, 81, 81]]


def test_changed_colours_stay_in_range():
    image = pixels((250, 10, 0), (20, 20, 20))
    assert coloured(image, brightness=1.5) == [[255, 15, 0], [30, 30, 30]]
    assert coloured(image, contrast=1.5)[0][0] == 255
    assert coloured(image, saturation=1.5)[0] == [255, 0, 0]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), *[st.floats(0.5, 1.5)] * 3
)  # fmt: skip
def test_colours_equal_the_three_changes_one_after_the_other(height, width, seed, b, c, s):
    image = torch.randint(0, 256, (1, 3, height, width), generator=generator(seed))
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    values = image[0].double()
    grey = (weights * values).sum(dim=0)
    values = grey + s * (values - grey)
    mean = (weights * values).sum(dim=0).mean()
    values = (b * (mean + c * (values - mean))).clamp(0, 255)
    factors = (torch.tensor([factor]) for factor in (b, c, s))
    found = change_colours(image.to(torch.uint8), *factors)
    assert (found[0] - values).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_of_colour_are_even_within_their_limit(name):
    # Each of the three multiplies the difference of two channels by its factor.
    image = pixels((150, 100, 100), (50, 100, 100)).expand(400, -1, -1, -1)
    batch = {"image": image, "mask": torch.zeros(400, 1, 2, dtype=torch.uint8)}
    result = augmented(batch, **NO_FLIPS, **{name: 0.4})
    red = (result["image"][:, 0, 0] * 0.229 + 0.485) * 255
    green = (result["image"][:, 1, 0] * 0.224 + 0.456) * 255
    difference = red - green
    factor = (difference[:, 0] - difference[:, 1]) / 100
    assert factor.min() >= 0.6 - 0.02 and factor.max() <= 1.4 + 0.02
    assert factor.mean().item() == pytest.approx(1, abs=5 * 0.8 / math.sqrt(12 * 400))
    assert factor.var().item() == pytest.approx(0.8**2 / 12, rel=0.25)
    assert torch.equal(result["mask"], batch["mask"])


def test_normalised_grey_images_are_stretched_and_brightened():
    image = 1000 * torch.rand(400, 1, 5, 5, generator=generator())
    batch = {"image": image}
    result = augmented(batch, **NO_FLIPS, brightness=0.3, contrast=0.2, saturation=0.5)["image"]
    std, mean = torch.std_mean(result, dim=(1, 2, 3), correction=0)
    assert std.min() >= 0.8 - 1e-4 and std.max() <= 1.2 + 1e-4 and std.var() > 0.01
    assert mean.abs().max() <= 0.3 + 1e-4 and mean.var() > 0.02
    stretched = normalise(image) * std[:, None, None, None] + mean[:, None, None, None]
    assert torch.allclose(result, stretched, atol=1e-4)
    alone = augmented(batch, **NO_FLIPS, saturation=0.5)["image"]
    assert torch.equal(alone, normalise(image))


def test_autocast_changes_nothing():
    batch = batch_of()
    plain = augmented(batch, **EVERYTHING)
    with torch.autocast("cpu", torch.bfloat16):
        cast = augmented(batch, **EVERYTHING)
    assert all(torch.equal(plain[name], cast[name]) for name in batch)


# CutMix


@settings(max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)
)
def test_a_box_is_a_rectangle_that_a_seed_fixes(height, width, count, beta, seed):
    boxes = draw_cutmix_boxes((height, width), count, beta, generator(seed))
    assert boxes.shape == (count, height, width)
    assert boxes.dtype == torch.bool
    assert torch.equal(boxes, draw_cutmix_boxes((height, width), count, beta, generator(seed)))
    for box in boxes:
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert torch.equal(box, rows[:, None] & columns[None])
        for along in (rows, columns):
            assert (along.int().diff() != 0).sum() <= 2  # in one piece


@pytest.mark.parametrize("beta", [1, 4])
def test_the_share_of_a_box_is_beta_distributed_except_for_clipping(beta):
    boxes = draw_cutmix_boxes((64, 64), 4000, beta, generator())
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


def test_a_box_is_pasted_from_the_previous_sample():
    values = torch.arange(3.0)[:, None, None, None].expand(3, 2, 4, 4)
    box = torch.zeros(3, 4, 4, dtype=torch.bool)
    box[0, 0, 0], box[1, :2] = True, True
    mixed = paste_boxes(values, box)
    # The first takes from the last.
    assert mixed[0, :, 0, 0].tolist() == [2, 2]
    assert mixed[0].sum() == 2 * 2
    assert mixed[1, 0].tolist() == [[0] * 4] * 2 + [[1] * 4] * 2
    assert torch.equal(mixed[2], values[2])


def test_image_and_target_are_pasted_the_same_way():
    label = torch.randint(0, 2, (6, 1, 16, 16), generator=generator())
    box = draw_cutmix_boxes((16, 16), 6, 4, generator(1))
    assert torch.equal(paste_boxes(label.float(), box).long(), paste_boxes(label, box))


# Noise


def test_noise_is_uniform_within_its_amplitude():
    noise = add_noise(torch.ones(4, 3, 32, 32), 0.2, generator()) - 1
    assert noise.abs().max() <= 0.2 + 1e-6
    # Variance of a uniform number in ± a: a² / 3.
    assert noise.var().item() == pytest.approx(0.04 / 3, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
