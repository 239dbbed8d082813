"""The methods to train a student; expected values are worked out by hand."""

import math
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import tiny_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_training import (
    make_files,
    read_history,
    same_weights,
    train_tiny_student,
    train_tiny_teacher,
)
from torch import nn

from stages.core.cli import BadInput
from stages.networks import models
from stages.settings.training import StudentSettings
from stages.training import augment
from stages.training.losses import consistency
from stages.training.methods import distilled, gazemedseg, pixel_labels, published, single
from stages.training.methods.gazemedseg import cross_level_consistency, propagate
from stages.training.methods.published import (
    foreground_cross_entropy,
    ring_mask,
    two_term_consistency,
)

SIZE = (16, 16)
WIDTHS = (8,) * 6
CPU = torch.device("cpu")
STUDENT = models.Architecture(
    role="student", channels=3, size=SIZE, widths=WIDTHS, head_width=8
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def options(method, **changes):
    own = {"teacher_widths": WIDTHS} if method is published else {}
    name = method.__name__.rpartition(".")[2]
    return StudentSettings(**{"method": name, "ramp_iterations": 1} | own | changes)


def batch_of(n=4, seed=0):
    """Noise with a brighter square; the borders of the two levels lie around its border."""
    source = generator(seed)
    levels = torch.zeros(n, 2, *SIZE, dtype=torch.uint8)
    levels[:, 0, 5:11, 5:11] = 1
    levels[:, 1, 3:13, 3:13] = 1
    image = torch.randint(60, 100, (n, 3, *SIZE), generator=source)
    image += 90 * levels.sum(dim=1, keepdim=True)
    return {
        "image": image.to(torch.uint8),
        "pseudomask": levels,
        "text": torch.randn(n, 2, 16, generator=source),
    }


def make(method, seed=0, **changes):
    model, step = method.make_model_and_step(
        options(method, **changes), STUDENT, seed, CPU, None, 16
    )
    return model.train(), step


def logits_of(foreground):
    """(1, 2, 1, n) logits whose softmax gives these foreground probabilities."""
    p = torch.tensor([[foreground]], dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()], dim=1).requires_grad_()


def probabilities_of(foreground):
    q = torch.tensor([[foreground]], dtype=torch.float64)
    return torch.stack([1 - q, q], dim=1)


# Labels


def test_pixel_labels_are_the_broad_pseudomask_the_mean_of_the_levels_or_the_mask():
    levels = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.uint8)
    batch = {"pseudomask": levels[None, :, None], "mask": torch.tensor([[[0, 1, 0, 1]]])}
    broad = pixel_labels(batch, StudentSettings())
    assert broad.tolist() == [[[1, 1, 1, 0]]]
    mean = pixel_labels(batch, StudentSettings(levels=3))
    assert mean.flatten().tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    mask = pixel_labels(batch, StudentSettings(method="single", labels="mask", levels=3))
    assert mask.tolist() == [[[0, 1, 0, 1]]]


# GazeMedSeg: propagated features


def test_propagation_weighs_neighbours_by_the_softmax_of_similarity():
    # One channel, 0 but for two positions two px apart: a = 1 and b = 2. At a: likeness with itself
    # 1, with b 2, with the 23 others 0; the mixture is (e · 1 + e² · 2) / (e + e² + 23).
    feature = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    feature[0, 0, 7, 7], feature[0, 0, 7, 9] = 1, 2
    mixed = propagate(feature)
    e = math.e
    assert mixed[0, 0, 7, 7].item() == pytest.approx((e + 2 * e**2) / (e + e**2 + 23))
    assert mixed[0, 0, 7, 9].item() == pytest.approx((e**2 + 2 * e**4) / (e**2 + e**4 + 23))
    # A position of 0 weighs all its neighbours the same; none is an odd number of px away.
    assert mixed[0, 0, 7, 5].item() == pytest.approx(3 / 25)
    assert mixed[0, 0, 7, 8].item() == 0


def test_negative_similarity_counts_as_zero():
    # Opposite features: ⟨f, f'⟩ = −1 counts 0, as do the 23 of 0.
    feature = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    feature[0, 0, 7, 7], feature[0, 0, 7, 11] = 1, -1
    mixed = propagate(feature)[0, 0, 7, 7].item()
    assert mixed == pytest.approx((math.e - 1) / (math.e + 24))


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_propagation_equals_a_reference_with_unfold(channels, height, width, seed):
    feature = torch.randn(2, channels, height, width, generator=generator(seed))
    windows = nn.functional.unfold(feature, 5, dilation=2, padding=4)
    windows = windows.view(2, channels, 25, height, width)
    weight = torch.einsum("bchw,bcnhw->bnhw", feature, windows).clamp(min=0).softmax(dim=1)
    expected = torch.einsum("bcnhw,bnhw->bchw", windows, weight)
    assert torch.allclose(propagate(feature), expected, atol=1e-6)


def test_cross_level_consistency_is_the_probability_of_different_classes():
    # 1 − (0.8 · 0.9 + 0.2 · 0.1) = 0.26 and 1 − (0.5 · 0.3 + 0.5 · 0.7) = 0.5.
    ours, other = logits_of([0.8, 0.5]), logits_of([0.9, 0.3])
    loss = cross_level_consistency(ours, other)
    assert loss.item() == pytest.approx((0.26 + 0.5) / 2)
    loss.backward()
    assert ours.grad.any() and other.grad is None


def test_gazemedseg_trains_two_networks_with_different_weights_on_one_level_each(monkeypatch):
    model, step = make(gazemedseg, cwc_weight=0)
    assert set(model) == {"student", "other"}
    assert not torch.equal(model["student"].classifier.weight, model["other"].classifier.weight)
    again, _ = make(gazemedseg)
    assert torch.equal(model["other"].classifier.weight, again["other"].classifier.weight)

    def gradients(batch):
        model.zero_grad()
        step(batch, 1, generator())["loss"].backward()
        return {
            name: torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
            for name, network in model.items()
        }

    batch = batch_of()
    before = gradients(batch)
    # Another precise mask changes only one network; a level between changes none.
    levels = batch["pseudomask"]
    between = torch.ones_like(levels[:, :1])
    after = gradients(batch | {"pseudomask": torch.cat([between, between, levels[:, 1:]], dim=1)})
    assert torch.equal(before["student"], after["student"])
    assert not torch.equal(before["other"], after["other"])
    same_levels = torch.cat([levels[:, :1], between, levels[:, 1:]], dim=1)
    assert torch.equal(before["other"], gradients(batch | {"pseudomask": same_levels})["other"])


def test_the_consistency_of_both_networks_counts_by_its_weight():
    terms = {w: make(gazemedseg, cwc_weight=w)[1](batch_of(), 1, generator()) for w in (0, 3)}
    for weight, found in terms.items():
        parts = found["gaze"] + found["precise_gaze"] + weight * found["consistency"]
        assert found["loss"].item() == pytest.approx(parts.item())
    assert 0 < terms[3]["consistency"].item() < 2


# The authors' released recipe


def test_channel_0_gets_no_gradient_from_the_labels():
    # −log σ(0) = log 2 with label 1; −log (1 − σ(log 3)) = log 4 with label 0.
    logits = torch.tensor([[[5.0, -5.0]], [[0.0, math.log(3)]]])[None].requires_grad_()
    loss = foreground_cross_entropy(logits, torch.tensor([[[1, 0]]], dtype=torch.uint8))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    loss.backward()
    assert not logits.grad[:, 0].any()
    # σ − label, by the number of pixels.
    assert logits.grad[0, 1].flatten().tolist() == pytest.approx([-0.25, 0.375])


def test_the_published_consistency_has_two_terms():
    # Confidence 0.9 for foreground, 0.8 for background, 0.7. First term: 0.9 (−log 0.6) and
    # 0.8 (−log 0.75), mean over two. Second: doubt 0.1 < 0.2, and 0.2 is not: 0.1 (−log 0.6).
    logits = logits_of([0.6, 0.25, 0.5])
    loss = two_term_consistency(logits, probabilities_of([0.9, 0.2, 0.7]), 0.8)
    first = (0.9 * -math.log(0.6) + 0.8 * -math.log(0.75)) / 2
    assert loss.item() == pytest.approx(first + 0.1 * -math.log(0.6))


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 1)), min_size=1, max_size=9))
def test_the_published_consistency_is_not_weighted_by_confidence(pairs):
    ours, target = zip(*pairs)
    # At the threshold itself the terms' pixels differ.
    target = [q + 0.01 if min(abs(q - 0.8), abs(q - 0.2)) < 1e-6 else q for q in target]
    found = two_term_consistency(logits_of(ours), probabilities_of(target), 0.8)
    plain = consistency(logits_of(ours), probabilities_of(target), 0.8, weighted=False)
    assert found.item() == pytest.approx(plain.item(), abs=1e-9)


def test_without_a_confident_pixel_the_published_consistency_is_0():
    assert two_term_consistency(logits_of([0.6]), probabilities_of([0.7]), 0.8).item() == 0


def draw(ring, ratio=0.3, block=(3, 10), seed=0):
    return ring_mask(ring, ratio=ratio, block=block, generator=generator(seed))


@pytest.mark.parametrize(("side", "covered"), [(3, 3), (4, 5), (5, 5), (10, 11)])
def test_a_block_reaches_half_its_side_to_each_side(side, covered):
    ring = torch.zeros(2, 40, 40, dtype=torch.bool)
    ring[1, 20, 20] = True
    mask = draw(ring, ratio=1, block=(side, side))
    expected = torch.zeros_like(ring)
    reach = covered // 2
    expected[1, 20 - reach : 21 + reach, 20 - reach : 21 + reach] = True
    assert torch.equal(mask, expected)


def test_a_block_is_clipped_at_the_border():
    ring = torch.zeros(1, 8, 8, dtype=torch.bool)
    ring[0, 0, 7] = True
    assert draw(ring, ratio=1, block=(5, 5))[0].nonzero().tolist() == [
        [y, x] for y in range(3) for x in range(5, 8)
    ]


def test_overlaps_count_several_times_so_that_less_is_masked():
    # A ring of 4 × 25 px in two images: its budget of 0.3 · 200 = 60 px is met by 7 blocks of 9,
    # which in strips of four rows overlap.
    ring = torch.zeros(2, 30, 30, dtype=torch.bool)
    ring[:, 10:14, 2:27] = True
    areas = [int(draw(ring, block=(3, 3), seed=seed).sum()) for seed in range(40)]
    assert max(areas) <= 63
    assert min(areas) < 60


def test_the_budget_is_per_batch_and_not_per_image():
    # A budget of int(0.3 · 20) = 6 px is met by the first block of 9, in one image or the other.
    ring = torch.zeros(2, 20, 20, dtype=torch.bool)
    ring[:, 10, 5:15] = True
    areas = [draw(ring, block=(3, 3), seed=seed).sum(dim=(1, 2)).tolist() for seed in range(20)]
    assert {tuple(area) for area in areas} == {(9, 0), (0, 9)}


@pytest.mark.parametrize("ratio", [0, 0.3])
def test_nothing_is_masked_without_a_ring_or_a_ratio(ratio):
    ring = torch.zeros(2, 9, 9, dtype=torch.bool)
    assert not draw(ring, ratio=ratio).any()
    ring[:, 4, 4] = True
    assert not draw(ring, ratio=0).any()


def record_inputs(model, name):
    """Record the inputs of a network of the dictionary."""
    recorded = []
    model[name].register_forward_pre_hook(lambda _, inputs: recorded.append(inputs))
    return recorded


def test_a_masked_pixel_is_background_in_image_and_label(monkeypatch):
    masked = torch.zeros(4, *SIZE, dtype=torch.bool)
    masked[:, 2:8, 2:8] = True
    labels = []
    cross_entropy = published.foreground_cross_entropy
    monkeypatch.setattr(published, "ring_mask", lambda ring, **_: masked)
    monkeypatch.setattr(
        published,
        "foreground_cross_entropy",
        lambda logits, target: labels.append(target) or cross_entropy(logits, target),
    )
    model, step = make(published, augment={"flips": False})
    students, teachers = record_inputs(model, "student"), record_inputs(model, "teacher")
    batch = batch_of()
    step(batch, 1, generator())
    image = students[0][0]
    assert not image.movedim(1, -1)[masked].any()
    whole = teachers[0][0].movedim(1, -1)
    assert torch.equal(image.movedim(1, -1)[~masked], whole[~masked])
    # The teacher learns from the whole precise mask, the student from the unmasked broad one.
    precise, broad = batch["pseudomask"].bool().unbind(dim=1)
    assert torch.equal(labels[0], precise)
    assert torch.equal(labels[1], broad & ~masked)
    assert labels[1].sum() < broad.sum()


def test_cutmix_mixes_images_and_targets_but_not_the_text(monkeypatch):
    box = torch.ones(4, *SIZE, dtype=torch.bool)
    monkeypatch.setattr(augment, "draw_cutmix_boxes", lambda *_: box)
    targets = []
    two_terms = published.two_term_consistency
    monkeypatch.setattr(
        published,
        "two_term_consistency",
        lambda logits, target, threshold: (
            targets.append(target) or two_terms(logits, target, threshold)
        ),
    )
    model, step = make(published, noise=0, darm_ratio=0, augment={"flips": False})
    outputs = {name: [] for name in model}
    for name, network in model.items():
        network.register_forward_hook(
            lambda _, inputs, output, name=name: outputs[name].append((inputs, output))
        )
    batch = batch_of()
    step(batch, 1, generator())
    ((clean, text), teacher_output), ((mixed, mixed_text), _) = outputs["teacher"]
    # With boxes as large as the image each sample becomes the previous one; its text stays.
    assert torch.equal(mixed, clean.roll(1, dims=0))
    assert torch.equal(text, batch["text"]) and torch.equal(mixed_text, batch["text"])
    (_, student_output), ((student_mixed,), _) = outputs["student"]
    assert torch.equal(student_mixed, mixed)
    # Each network is the target of the other.
    for target, other in zip(targets, (student_output, teacher_output)):
        assert torch.equal(target, other.logits.softmax(dim=1).roll(1, dims=0))
        assert not target.requires_grad


def test_the_losses_of_both_networks_add_up():
    _, step = make(published, ramp_iterations=100)
    found = step(batch_of(), 20, generator())
    # exp(−5 · 0.8²); λ of alignment and consistency by their defaults, 0.1 and 1.
    ramp = math.exp(-3.2)
    rest = 0.1 * found["afc"] + found["teacher_cwc"] + found["cwc"]
    expected = found["teacher_gaze"] + found["gaze"] + ramp * rest
    assert found["loss"].item() == pytest.approx(expected.item())
    # Half of a mean of 1 − cosine, which is at most 2.
    assert 0 < found["afc"].item() <= 1


def test_the_networks_are_the_published_ones_and_the_text_weight_is_fixed():
    model, step = make(published)
    student, teacher = model["student"].architecture, model["teacher"].architecture
    assert student.published and teacher.published
    assert student.teacher_widths == teacher.widths[1:5] == WIDTHS[1:5]
    assert teacher.text_width == 16
    step(batch_of(), 1, generator())["loss"].backward()
    assert model["teacher"].text_weight.grad is None
    untrained = [n for n, p in model.named_parameters() if p.grad is None]
    assert untrained == ["teacher.text_weight"]


def test_published_log_odds_are_channel_1_alone():
    model, _ = make(published)
    image = torch.randn(2, 3, *SIZE, generator=generator())
    for network in model.values():
        output = network(image)
        assert torch.equal(output.log_odds, output.logits[:, 1])
    output = make(single)[0]["student"](image)
    assert torch.equal(output.log_odds, output.logits[:, 1] - output.logits[:, 0])


# All of them


@pytest.mark.parametrize("method", [single, gazemedseg, published])
def test_training_steps_decrease_the_loss(method):
    model, step = make(method, ramp_iterations=10**6)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for iteration in range(1, 21):
        loss = step(batch_of(), iteration, generator(iteration))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


OWN = {"gazemedseg": {}, "published": {"teacher_widths": WIDTHS}}
AUGMENT = {
    "quarter_turns": True, "scale": 0.5, "shift": 0.2, "brightness": 0.3, "contrast": 0.3,
    "saturation": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("method", OWN)
def test_only_the_student_is_saved_and_the_seed_determines_it(method, files, tmp_path):
    changes = {"method": method} | OWN[method]
    weights = train_tiny_student(files, tmp_path / "one", **changes)
    again = train_tiny_student(files, tmp_path / "two", **changes)
    assert weights.read_bytes() == again.read_bytes()
    drop = {"columns": "seconds"}
    pd.testing.assert_frame_equal(
        read_history(weights).drop(**drop), read_history(again).drop(**drop)
    )
    assert not same_weights(
        weights, train_tiny_student(files, tmp_path / "three", seed=1, **changes)
    )
    student = models.load(weights, "student")
    assert student.architecture.widths == WIDTHS
    assert not [name for name in load_file(weights) if "fusion" in name]
    rows = read_history(weights)
    assert {"loss", "gaze", "val_dice"} <= set(rows)
    assert rows["val_dice"].iloc[-1] >= 0


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("method", ["teacher", "single", "distilled", "gazemedseg", "published"])
def test_each_training_augments_and_the_seed_determines_it(method, grey, files, tmp_path):
    prepared = tmp_path / "prepared.h5"
    shutil.copy(files["prepared"], prepared)
    if grey:
        with h5py.File(prepared, "r+") as file:
            image = file["image"][()].mean(axis=3, keepdims=True, dtype=np.float32)
            del file["image"]
            file["image"] = image
    inputs = files | {"prepared": prepared}

    def train(name, augment):
        folder, seen = tmp_path / name, {"augment": augment, "iterations": 4, "text_dropout": 0}
        if method == "teacher":
            return train_tiny_teacher(inputs, folder, **seen)
        del seen["text_dropout"]
        teacher = train_tiny_teacher(inputs, folder) if method == "distilled" else None
        return train_tiny_student(
            inputs, folder, teacher, **seen | {"method": method} | OWN.get(method, {})
        )

    weights = train("one", AUGMENT)
    assert weights.read_bytes() == train("two", AUGMENT).read_bytes()
    assert not same_weights(weights, train("flips", {}))
    assert np.isfinite(read_history(weights)["loss"]).all()
    # Each change has an effect on its own.
    for name in set(AUGMENT) - ({"saturation"} if grey else set()):
        other = train(name, {name: AUGMENT[name]})
        assert not same_weights(other, tmp_path / "flips" / other.name), name


@pytest.mark.parametrize("method", ["teacher", "distilled", "published"])
def test_texts_that_the_augmentation_makes_false_have_no_effect(
    method, files, tmp_path, monkeypatch
):
    # Every sample is moved, so its second word, which is marked, is never read.
    monkeypatch.setattr(augment, "MOVED_SHARE", 1.1)
    trained = train_tiny_teacher(files, tmp_path) if method == "distilled" else None

    def train(name, word=None):
        explanations = tmp_path / f"{name}.h5"
        shutil.copy(files["explanations"], explanations)
        if word is not None:
            with h5py.File(explanations, "r+") as file:
                file["embedding"][:, word] *= -1
        inputs = files | {"explanations": explanations}
        chosen = {"augment": {"shift": 0.1}, "iterations": 4}
        if method == "teacher":
            return train_tiny_teacher(inputs, tmp_path / name, **chosen)
        # Pseudolabels are made without augmentation, from all words.
        chosen |= {"method": method, "target_crf": None} | OWN.get(method, {})
        return train_tiny_student(inputs, tmp_path / name, trained, **chosen)

    plain = train("plain")
    assert same_weights(plain, train("second", word=1))
    assert not same_weights(plain, train("first", word=0))


def test_explanations_without_marks_are_refused_if_the_augmentation_needs_them(files, tmp_path):
    older = tmp_path / "explanations.h5"
    shutil.copy(files["explanations"], older)
    with h5py.File(older, "r+") as file:
        del file["false_if_moved"], file["false_if_turned"]
    inputs = files | {"explanations": older}
    train_tiny_teacher(inputs, tmp_path, augment={"brightness": 0.1})
    expected = (
        r"explanations\.h5: data sets\n  found:    no false_if_moved, false_if_turned\n"
        r"[^$]*delete it and run snakemake again"
    )
    chosen = {"augment": AUGMENT}
    with pytest.raises(BadInput, match=expected):
        train_tiny_teacher(inputs, tmp_path, **chosen)
    with pytest.raises(BadInput, match=expected):
        train_tiny_student(inputs, tmp_path, method="published", **OWN["published"], **chosen)
    # A network that reads no text needs no marks.
    train_tiny_teacher(inputs, tmp_path, text=False, **chosen)


def test_published_needs_the_text_and_the_widths_of_a_teacher(files, tmp_path):
    with pytest.raises(BadInput, match=r"teacher_widths[^$]*six numbers[^$]*method: published"):
        train_tiny_student(files, tmp_path, method="published")
    no_text = {name: path for name, path in files.items() if name != "explanations"}
    with pytest.raises(BadInput, match=r"--explanations[^$]*method: published"):
        train_tiny_student(no_text, tmp_path, method="published", teacher_widths=WIDTHS)


@pytest.mark.parametrize("method", ["single", "distilled"])
def test_levels_change_the_loss(method, files, tmp_path):
    teacher = train_tiny_teacher(files, tmp_path) if method == "distilled" else None
    losses = {}
    for levels in (None, 2, 3):
        weights = train_tiny_student(
            files, tmp_path / str(levels), teacher, method=method, levels=levels
        )
        losses[levels] = read_history(weights)["loss"].iloc[0]
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize("role", ["teacher", "single", "distilled"])
def test_the_dice_loss_is_added_with_its_weight(role, files, tmp_path):
    teacher = train_tiny_teacher(files, tmp_path) if role == "distilled" else None
    losses = []
    for weight in (0, 1, 2):
        options = {"dice_weight": weight, "iterations": 1}
        folder = tmp_path / str(weight)
        if role == "teacher":
            weights = train_tiny_teacher(files, folder, **options)
        else:
            weights = train_tiny_student(files, folder, teacher, method=role, **options)
        losses.append(read_history(weights)["loss"].iloc[0])
    assert losses[1] > losses[0]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def test_a_teacher_with_two_levels_equals_the_one_with_two_thresholds(files, tmp_path):
    own, two, one = (
        train_tiny_teacher(files, tmp_path / str(levels), levels=levels) for levels in (None, 2, 1)
    )
    assert same_weights(own, two) and not same_weights(own, one)


def test_plain_consistency_weighs_confident_pixels_the_same(files, tmp_path, monkeypatch):
    teacher = train_tiny_teacher(files, tmp_path)
    asked = []
    weigh = distilled.consistency
    monkeypatch.setattr(
        distilled,
        "consistency",
        lambda *args, weighted, **more: (
            asked.append(weighted) or weigh(*args, weighted=weighted, **more)
        ),
    )
    for weighted in (True, False):
        train_tiny_student(
            files, tmp_path / str(weighted), teacher, cwc_weighted=weighted, iterations=1
        )
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("method", "changes"),
    [("distilled", {}), ("single", {}), ("single", {"labels": "mask"}), ("gazemedseg", {}),
     ("published", OWN["published"]), ("single", {"optimiser": "sgd"})],
)  # fmt: skip
def test_unused_fields_are_those_that_a_training_does_not_read(
    method, changes, files, tmp_path, monkeypatch
):
    read = set()

    class Watched(StudentSettings):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    teacher = train_tiny_teacher(files, tmp_path) if method == "distilled" else None
    monkeypatch.setattr(tiny_training, "StudentSettings", Watched)
    train = tiny_training.train_student
    # The validation of the settings reads fields too; it does not count.
    monkeypatch.setattr(
        tiny_training, "train_student", lambda **options: read.clear() or train(**options)
    )
    train_tiny_student(files, tmp_path, teacher, method=method, **changes)
    fields = set(StudentSettings.model_fields)
    unused = StudentSettings(method=method, **changes).unused_fields()
    assert read & fields == fields - unused
