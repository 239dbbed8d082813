import pytest
import torch

from stages import models
from stages.cli import BadInput

WIDTHS = (8, 16, 24, 32, 40, 8)


def architecture(role, **changes):
    values = {"role": role, "channels": 3, "size": (32, 48), "widths": WIDTHS, "head_width": 8}
    return models.Architecture(**(values | changes))


def images(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def teacher():
    return models.build(architecture("teacher", text_width=6), seed=0).eval()


def test_outputs_have_the_contracted_shapes(teacher):
    x, text = images(2, 3, 32, 48), images(2, 5, 6)
    out = teacher(x, text)
    assert out.logits.shape == (2, 2, 32, 48)
    assert [tuple(f.shape[1:]) for f in out.features] == [
        (16, 16, 24), (24, 8, 12), (32, 4, 6), (40, 2, 3),
    ]  # fmt: skip
    student = models.build(architecture("student", teacher_widths=(24, 32, 40, 48)), seed=0)
    aligned = student(x, align=True)
    assert [f.shape[1] for f in aligned.features] == [24, 32, 40, 48]
    assert student(x).features == []


def test_the_text_changes_the_answer_and_zeros_are_no_text(teacher):
    x, text = images(2, 3, 32, 48), images(2, 5, 6)
    with_text, without = teacher(x, text).logits, teacher(x).logits
    assert not torch.allclose(with_text, without)
    text[1] = 0
    mixed = teacher(x, text).logits
    assert torch.allclose(mixed[0], with_text[0], atol=1e-5)
    assert torch.allclose(mixed[1], without[1], atol=1e-5)


def test_each_scale_has_a_learned_weight_for_its_text(teacher):
    teacher.train()
    teacher(images(2, 3, 32, 48), images(2, 5, 6)).logits.square().sum().backward()
    assert teacher.text_weight.shape == (4,)
    assert (teacher.text_weight.grad != 0).all()
    with torch.no_grad():
        teacher.text_weight.zero_()
    teacher.eval()
    x = images(2, 3, 32, 48)
    assert torch.equal(teacher(x, images(2, 5, 6)).logits, teacher(x).logits)


def test_another_input_size_runs_with_interpolated_positions(teacher):
    assert teacher(images(1, 3, 64, 64), images(1, 5, 6)).logits.shape == (1, 2, 64, 64)


def test_alignment_parts_do_not_touch_the_students_answer():
    student = models.build(architecture("student", teacher_widths=WIDTHS[1:5]), seed=0).eval()
    x = images(1, 3, 32, 48)
    assert torch.equal(student(x).logits, student(x, align=True).logits)


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


def test_a_file_is_enough_to_rebuild_the_network(teacher, tmp_path):
    file = tmp_path / "teacher.safetensors"
    models.save(teacher, file, {"stage": "teacher"})
    loaded = models.load(file, "teacher")
    x, text = images(1, 3, 32, 48), images(1, 5, 6)
    assert torch.equal(loaded(x, text).logits, teacher(x, text).logits)
    assert not loaded.training
    written = file.read_bytes()
    models.save(teacher, file, {"stage": "teacher"})
    assert file.read_bytes() == written


def test_files_that_are_not_the_asked_network_are_refused(teacher, tmp_path):
    file = tmp_path / "teacher.safetensors"
    models.save(teacher, file, {})
    with pytest.raises(BadInput, match="role"):
        models.load(file, "student")
    file.write_bytes(b"junk")
    with pytest.raises(BadInput, match="safetensors"):
        models.load(file, "teacher")


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
