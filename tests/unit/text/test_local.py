"""The backend for local vision-language models, with tiny models."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.core.cli import BadInput
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.text.describers import Sample, Setup
from stages.text.describers.asking import Question, Unanswered
from stages.text.describers.local import LocalModel, _make_gumbel_sampler, _make_seed, make
from stages.text.describers.prompts import load_prompt
from tests.loopback import valid_answer
from tests.models_on_disk import edit_json, write_paligemma, write_qwen, write_vlm
from tests.workspace import ROOT

CPU = torch.device("cpu")
WRITERS = {"llava": write_vlm, "qwen": write_qwen, "paligemma": write_paligemma}
ANSWER = '{"Location": "middle centre", "Größe": 12}'


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """With several threads, such small networks would only be slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


@pytest.fixture
def llava(folders, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(folders["llava"], tmp_path / "llava")


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    return write_vlm(tmp_path_factory.mktemp("answering"), answer=ANSWER)


def settings(model, **changes):
    return ExplainSettings(
        backend="transformers", model=str(model), **{"dtype": "float32", "max_tokens": 16} | changes
    )


def local(model, **changes):
    return LocalModel(settings(model, **changes), CPU)


def question(height, width, text, seed=0):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Question(picture, text)


# Of different lengths and sizes, so that rows of a batch are padded.
QUESTIONS = [
    question(64, 80, "What is it?", 1),
    question(100, 60, "Describe the region that was looked at. " * 4, 2),
    question(56, 56, "é?", 3),
]


def message(model, **changes):
    with pytest.raises(BadInput) as error:
        local(model, **changes)
    return str(error.value)


# Answers


@pytest.mark.parametrize("name", WRITERS)
def test_answers_are_texts_and_reproducible(folders, name):
    model = local(folders[name])
    answers = model.generate(QUESTIONS, 0)
    # They say nonsense without an end.
    assert [type(answer) for answer in answers] == [Unanswered] * 3
    assert len({answer.text for answer in answers}) == 3
    assert model.generate(QUESTIONS, 0) == answers
    assert local(folders[name]).generate(QUESTIONS, 0) == answers


@pytest.mark.parametrize("name", WRITERS)
def test_an_answer_does_not_depend_on_its_batch(folders, name):
    model = local(folders[name])
    assert model.generate(QUESTIONS, 0) == [model.generate([one], 0)[0] for one in QUESTIONS]
    assert model.generate(QUESTIONS[::-1], 0) == model.generate(QUESTIONS, 0)[::-1]


@pytest.mark.parametrize("name", WRITERS)
def test_padding_on_the_right_changes_answers(folders, name):
    """The test above is meaningful: with wrong padding these models answer differently."""
    model = local(folders[name])
    expected = model.generate(QUESTIONS, 0)
    mask = model._make_inputs(QUESTIONS)["attention_mask"]
    # Zeros, then ones.
    assert (mask.diff(dim=1) >= 0).all() and mask[:, -1].all() and not mask.all()
    model._processor.tokenizer.padding_side = "right"
    assert model.generate(QUESTIONS, 0) != expected


@pytest.mark.parametrize("name", WRITERS)
def test_picture_and_text_both_matter(folders, name):
    model = local(folders[name])
    first, second, third = model.generate(
        [
            question(64, 80, "What is it?", 1),
            question(64, 80, "What is it?", 2),
            question(64, 80, "What is here?", 1),
        ],
        0,
    )
    assert len({first, second, third}) == 3


def test_only_the_answer_is_returned(answering):
    """Neither the question nor the end token is part of the answer."""
    assert local(answering).generate(QUESTIONS, 0) == [ANSWER] * 3


@pytest.mark.parametrize("several_ends", [False, True])
def test_an_answer_that_max_tokens_cuts_is_none(answering, several_ends):
    """The answer is one token, and the end is the second."""
    model = local(answering)
    if several_ends:
        model._generation_config.eos_token_id = [0, model._generation_config.eos_token_id]
    assert model.generate(QUESTIONS[:2], 0) == [ANSWER] * 2

    model._generation_config.max_new_tokens = 1
    assert (
        model.generate(QUESTIONS[:2], 0)
        == [
            Unanswered(
                "the answer was cut short, because all 16 tokens of explain.max_tokens were spent "
                "before its end",
                ANSWER,
                ask_again=True,
            )
        ]
        * 2
    )


def test_an_answer_has_at_most_max_tokens(folders):
    model = local(folders["llava"], max_tokens=17)
    rows = []
    generate = model._model.generate
    model._model.generate = lambda **given: rows.append(generate(**given)) or rows[-1]
    model.generate(QUESTIONS[:1], 0)
    asked = model._make_inputs(QUESTIONS[:1])["input_ids"].shape[1]
    assert rows[0].shape == (1, asked + 17)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_weights_have_the_chosen_dtype(folders, dtype):
    model = local(folders["llava"], dtype=dtype)
    assert {weight.dtype for weight in model._model.parameters()} == {getattr(torch, dtype)}
    assert len(model.generate(QUESTIONS, 0)) == 3


def test_the_model_is_in_eval_mode_and_draws_no_global_random_numbers(folders):
    model = local(folders["llava"])
    assert not model._model.training
    before = torch.get_rng_state()
    model.generate(QUESTIONS, 0)
    assert torch.equal(torch.get_rng_state(), before)


# How a question is put


def test_a_question_in_the_chat_template(folders):
    assert local(folders["llava"])._format_prompt("Why?") == "<s>user: <image>Why?\nassistant:"


def test_a_question_to_a_model_without_a_chat_template(folders):
    model = local(folders["paligemma"])
    assert model._format_prompt("Why?") == "<image>Why?"
    text = model._processor.tokenizer.decode(
        model._make_inputs([question(9, 9, "Why?")])["input_ids"][0]
    )
    # PaliGemma's own form: the patches, the beginning, the text, a line break.
    assert text == "<image>" * 16 + "<s>Why?\n"


@pytest.mark.parametrize("name", WRITERS)
def test_a_question_has_one_bos_token(folders, name):
    model = local(folders[name])
    tokens = model._make_inputs(QUESTIONS)["input_ids"]
    begin = model._processor.tokenizer.bos_token_id
    assert (tokens == begin).sum(dim=1).tolist() == [1, 1, 1]


def test_a_template_without_the_bos_token(llava):
    template = llava / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("{{ bos_token }}", ""), "utf-8")
    model = local(llava)
    tokens = model._make_inputs(QUESTIONS)["input_ids"]
    assert (tokens == model._processor.tokenizer.bos_token_id).sum(dim=1).tolist() == [1, 1, 1]


def test_control_tokens_in_a_text_are_removed(folders):
    """A prompt with <image> would otherwise ask for a picture that is not there."""
    model = local(folders["llava"])
    plain, posing = (question(60, 60, text) for text in ("Why?", "W<image>hy</s>?"))
    assert model.generate([posing], 0) == model.generate([plain], 0)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (
            "{% for part in messages[0]['content'] if part['type'] == 'text' %}"
            "{{ part['text'] }}{% endfor %}",
            "a template that leaves out the image of a question",
        ),
        ("{{ messages[0]['content'] }}", "a template that leaves out the image of a question"),
        (
            "{{ 'user: ' + messages[0]['content'] }}",
            "a template that cannot format an image and a text: can only concatenate str "
            '(not "list") to str',
        ),
        (
            "{{ raise_exception('one text only') }}",
            "a template that cannot format an image and a text: one text only",
        ),
    ],
)
def test_a_template_that_ignores_the_picture_raises(llava, template, found):
    (llava / "chat_template.jinja").write_text(template)
    assert message(llava) == (
        f"{llava}: chat template\n"
        f"  found:    {found}\n"
        "  expected: a template that puts an image token into the text\n"
        "  to mend:  copy chat_template.jinja or processor_config.json from the model's publisher"
    )


# Drawn answers


def test_a_sampled_answer_is_reproducible(folders):
    model = local(folders["llava"], temperature=1.0, seed=4)
    answers = model.generate(QUESTIONS, 0)
    assert model.generate(QUESTIONS, 0) == answers
    assert local(folders["llava"], temperature=1.0, seed=4).generate(QUESTIONS, 0) == answers
    assert answers != local(folders["llava"]).generate(QUESTIONS, 0)


def test_a_sampled_answer_does_not_depend_on_its_batch(folders):
    model = local(folders["llava"], temperature=1.0)
    assert model.generate(QUESTIONS, 0) == [model.generate([one], 0)[0] for one in QUESTIONS]


def test_another_attempt_or_seed_samples_another_answer(folders):
    model = local(folders["llava"], temperature=1.0)
    other = local(folders["llava"], temperature=1.0, seed=1)
    asked = QUESTIONS[:1]
    assert (
        len({*model.generate(asked, 0), *model.generate(asked, 1), *other.generate(asked, 0)}) == 3
    )


def test_each_question_has_its_own_seed():
    asked = [question(9, 9, "Why?", 1), question(9, 9, "Why?", 2), question(9, 9, "Where?", 1)]
    seeds = {
        _make_seed(one, seed, attempt) for one in asked for seed in (0, 1) for attempt in (0, 1)
    }
    assert len(seeds) == 12


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_sampled_from_their_softmax(temperature):
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    n = 20_000
    generator = torch.Generator().manual_seed(1)
    drawn = _make_gumbel_sampler([generator] * n, temperature)(
        torch.empty(n, 0), logits.expand(n, 4)
    )
    share = drawn.argmax(dim=1).bincount(minlength=4) / n
    weights = np.exp(np.array([0, 1, 2, -np.inf]) / temperature)
    # Standard error below sqrt(0.25 / 20 000) = 0.0035; four of them.
    assert share.numpy() == pytest.approx(weights / weights.sum(), abs=0.014)
    assert share[3] == 0


def test_the_models_own_sampling_settings_are_ignored(llava):
    expected = local(llava).generate(QUESTIONS, 0)
    edit_json(
        llava / "generation_config.json", do_sample=True, temperature=5.0, top_k=3, num_beams=2
    )
    assert local(llava).generate(QUESTIONS, 0) == expected


def test_the_models_own_penalties_are_used(llava):
    expected = local(llava, max_tokens=64).generate(QUESTIONS, 0)
    edit_json(llava / "generation_config.json", repetition_penalty=1.5)
    assert local(llava, max_tokens=64).generate(QUESTIONS, 0) != expected


# Which model


def test_name_and_revision_of_a_folder(folders, llava):
    model = local(folders["llava"])
    assert model.name == str(folders["llava"])
    assert model.revision.startswith("sha256:") and len(model.revision) == 7 + 64
    assert local(llava).revision == model.revision != local(folders["qwen"]).revision


def test_a_hub_model_needs_a_commit():
    found = message("lab/model")
    assert found.startswith("lab/model: explain.revision\n")
    assert "a branch or a tag can move" in found


def test_an_unreachable_hub_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = message("lab/no-such-model", revision="a" * 40)
    assert found.startswith("lab/no-such-model: the model\n  found:    We couldn't connect to")
    assert "without a network, set explain.model to a folder" in found


def test_pickled_weights_are_not_opened(llava):
    (llava / "model.safetensors").unlink()
    torch.save({}, llava / "pytorch_model.bin")
    found = message(llava)
    assert found.startswith(f"{llava}: weights\n  found:    only pytorch_model.bin\n")


def test_pickles_next_to_unrelated_safetensors_are_not_opened(llava):
    weights = load_file(llava / "model.safetensors")
    (llava / "model.safetensors").rename(llava / "adapter.safetensors")
    torch.save(weights, llava / "pytorch_model.bin")
    assert message(llava).startswith(f"{llava}: the model\n")


def test_a_model_without_text_generation_raises(llava):
    (llava / "config.json").write_text('{"model_type": "bert"}')
    assert message(llava) == (
        f"{llava}: architecture\n"
        "  found:    bert\n"
        "  expected: a model that answers questions about images (image-text-to-text, "
        "decoder only)\n"
        "  to mend:  choose a vision-language model such as Qwen2.5-VL or SmolVLM"
    )


def test_an_output_without_the_question_raises(folders):
    """Encoder–decoder models do not, and the beginning of their answers would be lost."""
    model = local(folders["llava"])
    generate = model._model.generate
    model._model.generate = lambda **given: generate(**given)[:, -16:]
    with pytest.raises(BadInput) as error:
        model.generate(QUESTIONS, 0)
    assert str(error.value) == (
        f"{model.name}: architecture\n"
        "  found:    llava, whose output does not repeat the question\n"
        "  expected: a model whose output is the question and then the answer (image-text-to-text, "
        "decoder only)\n"
        "  to mend:  choose a vision-language model such as Qwen2.5-VL or SmolVLM"
    )


def test_missing_weights_raise(llava):
    config = json.loads((llava / "config.json").read_text("utf-8"))
    edit_json(
        llava / "config.json",
        text_config=config["text_config"] | {"num_hidden_layers": 3, "layer_types": None},
    )
    assert message(llava) == (
        f"{llava}: weights\n"
        "  found:    9 of the model's tensors are missing, such as "
        "model.language_model.layers.2.input_layernorm.weight\n"
        "  expected: all tensors\n"
        "  to mend:  download the model again, with all of its safetensors files"
    )


def test_truncated_weights_raise(llava):
    file = llava / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    found = message(llava)
    assert found.startswith(f"{llava}: the model\n  found:    Error while deserializing header")
    assert found.endswith("choose a model that this version of transformers supports")


def test_the_models_own_code_is_not_run(llava):
    edit_json(llava / "config.json", model_type="ours", auto_map={"AutoConfig": "code.Config"})
    marker = llava / "was_run"
    (llava / "code.py").write_text(f"open({str(marker)!r}, 'w').close()")
    assert message(llava).endswith(
        "read the code, and if you trust it, set explain.trust_remote_code: true"
    )
    assert not marker.exists()


@pytest.mark.parametrize("trust", [False, True])
def test_trusting_remote_code_logs_a_warning(folders, caplog, trust):
    with caplog.at_level(logging.WARNING, logger="stages"):
        local(folders["llava"], trust_remote_code=trust)
    warning = (
        f"explain.trust_remote_code: code that comes with {folders['llava']} may run with your "
        "rights"
    )
    assert [record.getMessage() for record in caplog.records] == [warning] * trust


# Memory


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def test_a_batch_that_does_not_fit_into_memory_raises(folders):
    model = local(folders["llava"], batch_size=3)
    model._model.generate = out_of_memory
    with pytest.raises(BadInput) as error:
        model.generate(QUESTIONS, 0)
    assert str(error.value) == (
        f"{model.name}: explain.batch_size\n"
        "  found:    cpu ran out of memory\n"
        "  expected: a model and a batch of questions that fit\n"
        "  to mend:  choose a smaller explain.batch_size than 3, or a smaller explain.view.side"
    )


def test_a_model_that_does_not_fit_into_memory_raises(folders, monkeypatch):
    monkeypatch.setattr("transformers.LlavaForConditionalGeneration.to", out_of_memory)
    assert message(folders["llava"]) == (
        f"{folders['llava']}: explain.model\n"
        "  found:    cpu ran out of memory\n"
        "  expected: a model and a batch of questions that fit\n"
        "  to mend:  choose a smaller model, or a 16-bit explain.dtype"
    )


# The backend


def test_a_sample_is_explained(tmp_path):
    file = ROOT / "workflow" / "prompts" / "generic.yaml"
    answer = json.dumps(valid_answer(load_prompt(file)))
    folder = write_vlm(tmp_path / "model", answer=answer)
    describer = make(Setup(settings(folder), EndpointSettings(), file, None, threads=1, gpus=0))
    assert describer.model == str(folder)
    assert describer.revision.startswith("sha256:")
    regions = np.zeros((2, 48, 48), np.uint8)
    regions[0, 20:28, 20:28] = regions[1, 16:32, 16:32] = 1
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    sample = Sample("a", image, np.zeros((48, 48), np.float32), regions)
    found = describer.describe([sample, sample])
    assert [one.raw for one in found] == [(answer,)] * 2
    assert found[0].explanation.values["area"] == 0.12
    assert found[0].explanation.values["place"] == "upper left"
