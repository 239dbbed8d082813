import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from stages.core.cli import BadInput
from stages.networks import models
from stages.networks.unet import GroupNorm, TransposedConv2x2, UpCat

WIDTHS = (8, 16, 24, 32, 40, 8)


def architecture(role, **changes):
    values = {"role": role, "channels": 3, "size": (32, 48), "widths": WIDTHS, "head_width": 8}
    return models.Architecture(**(values | changes))


def random_tensor(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def teacher():
    return models.build(architecture("teacher", text_width=6), seed=0).eval()


def test_outputs_have_the_documented_shapes(teacher):
    x, text = random_tensor(2, 3, 32, 48), random_tensor(2, 5, 6)
    out = teacher(x, text)
    assert out.logits.shape == (2, 2, 32, 48)
    assert [tuple(f.shape[1:]) for f in out.features] == [
        (16, 16, 24), (24, 8, 12), (32, 4, 6), (40, 2, 3),
    ]  # fmt: skip
    student = models.build(architecture("student", teacher_widths=(24, 32, 40, 48)), seed=0)
    aligned = student(x, num_aligned=len(x))
    assert [f.shape[1] for f in aligned.features] == [24, 32, 40, 48]
    assert student(x).features == []


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_features_inside_a_network_are_channels_last(role):
    model = models.build(architecture(role), 0)
    image = random_tensor(2, 3, 32, 32)
    assert image.is_contiguous()
    found = [model.encoder.conv_0(image), *model.encoder.encode(image)[1]]
    assert all(scale.is_contiguous(memory_format=torch.channels_last) for scale in found)


def test_text_changes_the_output_and_zero_tokens_count_as_no_text(teacher):
    x, text = random_tensor(2, 3, 32, 48), random_tensor(2, 5, 6)
    with_text, without = teacher(x, text).logits, teacher(x).logits
    assert not torch.allclose(with_text, without)
    text[1] = 0
    mixed = teacher(x, text).logits
    assert torch.allclose(mixed[0], with_text[0], atol=1e-5)
    assert torch.allclose(mixed[1], without[1], atol=1e-5)


def test_attention_weights_of_a_position_sum_to_1(teacher):
    x, text = random_tensor(3, 3, 32, 48), random_tensor(3, 5, 6)
    text[1] = 0
    asked = teacher(x, text, attention=True)
    assert [tuple(share.shape) for share in asked.attention] == [
        (3, 5, 16, 24), (3, 5, 8, 12), (3, 5, 4, 6), (3, 5, 2, 3),
    ]  # fmt: skip
    for share in asked.attention:
        assert share.min() >= 0
        assert torch.allclose(share[[0, 2]].sum(dim=1), torch.ones(1), atol=1e-5)
        assert not share[1].any()
        # Even untrained weights make the positions differ.
        assert share[0].flatten(1).std(dim=1).min() > 0
    without_attention = teacher(x, text)
    assert without_attention.attention == ()
    assert torch.allclose(asked.logits, without_attention.logits, atol=1e-5)
    assert teacher(x, attention=True).attention == ()


def test_attention_has_the_right_positions_and_token_order(teacher):
    # Eight heads of 5 channels: of each, softmax over the tokens of q · k / √5, then their mean.
    fusion = teacher.fusion_x4
    x, text = random_tensor(1, 40, 2, 3), random_tensor(1, 5, 6)
    width = 40
    with torch.no_grad():
        query, key, _ = fusion.attn.in_proj_weight.split(width)
        query_bias, key_bias, _ = fusion.attn.in_proj_bias.split(width)
        words = fusion.text_proj(text)[0] @ key.T + key_bias
        expected = torch.empty(5, 2, 3)
        for row in range(2):
            for column in range(3):
                token = x[0, :, row, column] + fusion.pos_embedding[3 * row + column]
                asked = query @ token + query_bias
                heads = [asked[h : h + 5] @ words[:, h : h + 5].T for h in range(0, width, 5)]
                score = torch.stack(heads) / 5**0.5
                expected[:, row, column] = score.softmax(dim=1).mean(dim=0)
        _, shares = fusion(x, text, attention=True)
        _, turned = fusion(x, text.flip(1), attention=True)
    assert torch.allclose(shares[0], expected, atol=1e-5)
    assert torch.allclose(turned, shares.flip(1), atol=1e-5)


def test_fusion_equals_torch_multi_head_attention(teacher):
    fusion = teacher.fusion_x4
    x, text = random_tensor(3, 40, 2, 3).requires_grad_(), random_tensor(3, 5, 6)
    with torch.no_grad():
        for parameter in fusion.attn.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    fused, _ = fusion(x, text)
    tokens, words = x.flatten(2).transpose(1, 2) + fusion.pos_embedding, fusion.text_proj(text)
    attended, _ = fusion.attn(tokens, words, words, need_weights=False)
    expected = fusion.norm(tokens + attended).transpose(1, 2).reshape(x.shape)
    assert torch.allclose(fused, expected, atol=1e-5)
    cotangent = random_tensor(*x.shape)
    wanted = [x, *fusion.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(fused, wanted, cotangent, retain_graph=True),
        torch.autograd.grad(expected, wanted, cotangent),
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_each_scale_has_a_learned_weight_for_its_text(teacher):
    teacher.train()
    teacher(random_tensor(2, 3, 32, 48), random_tensor(2, 5, 6)).logits.square().sum().backward()
    assert teacher.text_weight.shape == (4,)
    assert (teacher.text_weight.grad != 0).all()
    with torch.no_grad():
        teacher.text_weight.zero_()
    teacher.eval()
    x = random_tensor(2, 3, 32, 48)
    assert torch.equal(teacher(x, random_tensor(2, 5, 6)).logits, teacher(x).logits)


@settings(max_examples=30)
@given(
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    channels=st.integers(1, 4),
    text_width=st.integers(1, 9),
    tokens=st.integers(1, 3),
)
def test_images_and_texts_of_any_size_work(height, width, channels, text_width, tokens):
    x, text = random_tensor(2, channels, height, width), random_tensor(2, tokens, text_width)
    made = architecture("teacher", channels=channels, text_width=text_width)
    out = models.build(made, seed=0).eval()(x, text, attention=True)
    assert out.logits.shape == (2, 2, height, width)
    grids = [(height >> s, width >> s) for s in (1, 2, 3, 4)]
    assert [tuple(f.shape[2:]) for f in out.features] == grids
    assert [tuple(a.shape[1:]) for a in out.attention] == [(tokens, *grid) for grid in grids]
    student = models.build(architecture("student", channels=channels), seed=0)
    assert student(x).logits.shape == (2, 2, height, width)


def test_another_size_interpolates_the_position_embedding(teacher):
    fusion = teacher.fusion_x1
    assert fusion.position_embedding((16, 24)) is fusion.pos_embedding
    with torch.no_grad():
        rows = torch.arange(16.0)[:, None, None].expand(16, 24, 16)
        fusion.pos_embedding.copy_(rows.flatten(0, 1))
        finer = fusion.position_embedding((32, 48)).reshape(32, 48, 16)
    # Twice as many rows, centres on centres; torch's cubic kernel strays from a plane by 3/64.
    expected = (torch.arange(32.0) - 0.5) / 2
    assert torch.allclose(finer[4:-4, 7, 3], expected[4:-4], atol=0.05)


def test_an_odd_side_repeats_the_edge_of_the_upsampled_feature():
    up = UpCat(in_channels=4, skip_channels=4, out_channels=4, upsampled_channels=4)
    joined = []
    up.convs.register_forward_pre_hook(lambda _, x: joined.append(x[0]))
    x, skip = random_tensor(1, 4, 2, 3), random_tensor(1, 4, 5, 7, seed=1)
    up(x, skip)
    doubled = up.upsample(x)
    assert torch.equal(joined[0][:, :4], skip)
    padded = joined[0][:, 4:]
    assert torch.equal(padded[:, :, :4, :6], doubled)
    assert torch.equal(padded[:, :, 4, :6], doubled[:, :, 3])
    assert torch.equal(padded[:, :, :, 6], padded[:, :, :, 5])


def test_all_teacher_parameters_get_a_gradient_at_an_odd_size_with_one_token():
    model = models.build(architecture("teacher", channels=1, text_width=6), seed=0)
    model(random_tensor(2, 1, 33, 47), random_tensor(2, 1, 6)).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_alignment_layers_do_not_change_the_students_logits():
    student = models.build(architecture("student", teacher_widths=WIDTHS[1:5]), seed=0).eval()
    x = random_tensor(1, 3, 32, 48)
    assert torch.equal(student(x).logits, student(x, num_aligned=len(x)).logits)


def test_features_of_the_aligned_samples_do_not_depend_on_the_others():
    student = models.build(architecture("student", teacher_widths=WIDTHS[1:5]), seed=0).train()
    x = random_tensor(5, 3, 32, 48)
    of_five, of_two = student(x, num_aligned=2).features, student(x[:2], num_aligned=2).features
    for some, alone in zip(of_five, of_two, strict=True):
        assert len(some) == 2
        assert torch.allclose(some, alone, atol=1e-5)


def test_transposed_conv_2x2_equals_torch_conv_transpose():
    layer = TransposedConv2x2(6, 4)
    x = random_tensor(2, 6, 3, 5).requires_grad_()
    expected = functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
    upstream = random_tensor(2, 4, 6, 10, seed=1)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    over = [x, layer.weight, layer.bias]
    for ours, theirs in zip(
        torch.autograd.grad(layer(x), over, upstream),
        torch.autograd.grad(expected, over, upstream),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_fused_1x1_convs_have_the_same_output_and_gradients():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    layers = [nn.Conv2d(5, 7, 1, dtype=torch.float64), nn.Conv2d(7, 2, 1, dtype=torch.float64)]
    weights = [weight for layer in layers for weight in layer.parameters()]

    def with_gradients(y):
        return [y, *torch.autograd.grad(y.square().sum(), weights)]

    expected = with_gradients(layers[1](layers[0](x)))
    torch.testing.assert_close(with_gradients(models.fused_1x1_convs(x, *layers)), expected)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_classify_equals_head_and_classifier_one_by_one(role):
    network = models.build(architecture(role), seed=0)
    decoded = network.encoder.decode(*network.encoder.encode(random_tensor(2, 3, 32, 32)))
    one_by_one = network.classifier(network.head(network.encoder.final_conv(decoded)))
    torch.testing.assert_close(network.classify(decoded), one_by_one)


@pytest.mark.parametrize("width, computed", [(32, torch.float32), (64, torch.bfloat16)])
def test_groups_of_few_channels_are_normalised_in_float32(width, computed):
    x = random_tensor(2, width, 3, 5).bfloat16()
    layer = GroupNorm(4, width)
    assert layer(x).dtype == computed
    expected = functional.group_norm(x.float(), 4)
    assert torch.allclose(layer(x).float(), expected, atol=0.02)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = models.build(architecture("student"), seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = models.build(architecture("student"), seed=1).state_dict()
    other = models.build(architecture("student"), seed=2).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_the_weights_file_is_enough_to_rebuild_the_network(teacher, tmp_path):
    file = tmp_path / "teacher.safetensors"
    models.save(teacher, file, {"stage": "teacher"})
    loaded = models.load(file, "teacher")
    x, text = random_tensor(1, 3, 32, 48), random_tensor(1, 5, 6)
    assert torch.equal(loaded(x, text).logits, teacher(x, text).logits)
    assert not loaded.training
    written = file.read_bytes()
    models.save(teacher, file, {"stage": "teacher"})
    assert file.read_bytes() == written


def test_files_of_another_role_or_format_are_refused(teacher, tmp_path):
    file = tmp_path / "teacher.safetensors"
    models.save(teacher, file, {})
    with pytest.raises(BadInput, match="role"):
        models.load(file, "student")
    file.write_bytes(b"junk")
    with pytest.raises(BadInput, match="safetensors"):
        models.load(file, "teacher")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "no_such_model"}, "timm has no model 'no_such_model'"),
        ({"encoder": "hf-hub:someone/model"}, "timm has no model 'hf-hub:someone/model'"),
        ({"head_width": 24}, "size mismatch"),
    ],
)
def test_a_file_whose_network_cannot_be_built_is_refused(teacher, tmp_path, change, message):
    file = tmp_path / "teacher.safetensors"
    models.save(teacher, file, {})
    with safe_open(file, "pt") as content:
        about = json.loads(content.metadata()["about"])
    about["architecture"] |= change
    save_file(load_file(file), file, {"about": json.dumps(about)})
    with pytest.raises(BadInput, match=message) as error:
        models.load(file, "teacher")
    assert str(file) in str(error.value)


def test_published_networks_compute_as_the_authors_do_and_their_file_says_so(tmp_path):
    theirs = models.build(architecture("teacher", text_width=6, published=True), seed=0).eval()
    ours = models.build(architecture("teacher", text_width=6), seed=0).eval()
    ours.load_state_dict(theirs.state_dict())
    x, text = random_tensor(1, 3, 32, 48), random_tensor(1, 2, 6)
    assert not torch.allclose(theirs(x, text).logits, ours(x, text).logits, atol=1e-3)
    # The features for alignment are the same; only later layers differ.
    for found, expected in zip(theirs(x, text).features, ours(x, text).features, strict=True):
        assert torch.equal(found, expected)
    models.save(theirs, tmp_path / "teacher.safetensors", {})
    loaded = models.load(tmp_path / "teacher.safetensors", "teacher")
    assert torch.equal(loaded(x, text).logits, theirs(x, text).logits)


# Parameters of the published networks, worked out by hand from their published widths: a 1 × 1 or
# k × k convolution has out · in · k² + out, a norm 2 · out.
def test_published_widths_give_the_published_shapes():
    student = models.Student(
        models.Architecture(
            role="student",
            channels=3,
            size=(224, 224),
            widths=(32, 64, 128, 256, 512, 32),
            head_width=128,
            teacher_widths=(128, 256, 512, 1024),
        )
    )
    shapes = {name: tuple(value.shape) for name, value in student.state_dict().items()}
    assert shapes["encoder.down_4.convs.conv_1.adn.N.weight"] == (512,)
    assert shapes["encoder.upcat_4.upsample.deconv.weight"] == (512, 256, 2, 2)
    assert shapes["encoder.upcat_1.convs.conv_0.conv.weight"] == (32, 96, 3, 3)
    assert shapes["encoder.final_conv.weight"] == (128, 32, 1, 1)
    assert shapes["distill_proj_x4.proj.4.running_var"] == (512,)
    assert shapes["student_adapter_x4.0.weight"] == (1024, 512, 1, 1)
    assert shapes["classifier.weight"] == (2, 128, 1, 1)
