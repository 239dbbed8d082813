"""Answers that a broken or hostile endpoint could make up: an end in bounded time, and an error."""

import json
import threading
import time

import h5py
import numpy as np
import pytest

from stages.core import io
from stages.core.cli import BadInput
from stages.settings.explain import EndpointSettings, ExplainSettings, TextsSettings
from stages.text.describers import FIELDS, answers, asking, endpoint
from stages.text.describers.claims import false_if_moved, false_if_turned
from stages.text.describers.directions import remove_directional_sentences
from stages.text.describers.prompts import load_prompt
from stages.text.explain import explain
from stages.text.texts import merge_texts
from tests.loopback import completion, valid_answer
from tests.workspace import ROOT

PROMPT = load_prompt(ROOT / "workflow/prompts/generic.yaml")
LIMIT = answers.MAX_ANSWER_CHARS
KEYS = ("Location",)
MEGABYTE = 1_000_000
# Name → a text that is repeated up to a length.
REPEATED = {
    "braces": "{", "nested": '{"a":', "nested lists": '{"a":[' + "1," * 50, "quotes": '{"{',
    "strings": '{"a":"', "objects": "{}", "tags": "<think>", "unclosed tags": "<a_",
    "channels": "<|channel|>" + " " * 100, "spaces": " ", "surrogates": "\ud800", "zeros": "\0",
}  # fmt: skip
# Tags that took a time that grows with the square of the length, or faster.
TAGS = {
    "a long tag": "<think" + "a" * MEGABYTE,
    "a long end": "</" + "think_" * (MEGABYTE // 6),
    "a long prefix": "<" + "a" * MEGABYTE + ":think",
    "many names, closed from the last": "".join(f"<think{i}>" for i in range(40_000))
    + "".join(f"</think{i}>" for i in reversed(range(40_000))),
}


def processor_seconds(function, *arguments):
    """Return the time of this thread: other work on the machine does not count."""
    start = time.thread_time()
    try:
        function(*arguments)
    except ValueError as error:
        assert len(str(error)) < 1000
    return time.thread_time() - start


@pytest.mark.parametrize("length", [LIMIT, MEGABYTE])
@pytest.mark.parametrize("name", REPEATED)
def test_any_text_is_read_in_bounded_time(name, length):
    text = (REPEATED[name] * length)[:length]
    assert processor_seconds(answers.read_json_object, text, KEYS) < 5


@pytest.mark.parametrize("name", TAGS)
def test_a_tag_takes_time_in_proportion_to_its_length(name):
    assert processor_seconds(answers.read_json_object, TAGS[name], KEYS) < 5


def test_an_answer_after_long_reasoning_is_read():
    text = "<think>" + "{" * MEGABYTE + "</think>" + json.dumps(valid_answer(PROMPT))
    assert PROMPT.parse(text).values["place"] == "upper left"


def test_a_too_long_answer_is_refused_by_its_length():
    text = json.dumps(valid_answer(PROMPT) | {"Remarks": "a" * LIMIT})
    with pytest.raises(ValueError, match=f"characters, and at most {LIMIT} are wanted"):
        PROMPT.parse(text)


@pytest.mark.parametrize(
    "field", ["Location", "Boundary", "Characteristics", "Area Percentage", "Confidence", "Remarks"]
)
@pytest.mark.parametrize("part", ["a", "-", "a ", "a,", "pink, ", "A b. ", "left", "\u0000\\ud800"])
def test_a_long_value_takes_bounded_time(field, part):
    value = (part * LIMIT)[: LIMIT - 1000]
    text = json.dumps(valid_answer(PROMPT) | {field: value}, ensure_ascii=False)
    assert processor_seconds(PROMPT.parse, text[:LIMIT]) < 5
    assert processor_seconds(PROMPT.parse, text) < 5


@pytest.mark.parametrize("part", ["A b. ", "left", "half of the ", "photo", "cent", "lateral"])
@pytest.mark.parametrize(
    "search",
    [remove_directional_sentences, false_if_moved, false_if_turned],
    ids=lambda f: f.__name__,
)
def test_a_long_imported_text_takes_time_in_proportion_to_its_length(search, part):
    assert processor_seconds(search, part * (MEGABYTE // len(part))) < 10


def test_sentences_are_kept_as_long_as_they_fit():
    assert remove_directional_sentences("One. Two. Left. Six.", 9) == "One. Two."
    assert remove_directional_sentences("One. Two. Left. Six.", 14) == "One. Two. Six."
    assert remove_directional_sentences("Too long by far. Six.", 4) == "Six."


# The stages


SIZE = (16, 24)


def write_inputs(folder, size=SIZE, images=3):
    """Write images with gaze; the pseudomasks of the last one are empty."""
    ids = [f"image{i}" for i in range(images)]
    rng = np.random.default_rng(0)
    levels = np.zeros((images, 2, *size), np.uint8)
    levels[:-1, :, : max(1, size[0] // 2), : max(1, size[1] // 2)] = 1
    with io.create_h5(folder / "prepared.h5", "prepare", {}, {}) as file:
        file["image"] = rng.integers(0, 255, (images, *size, 3), np.uint8)
        io.write_strings(file, "sample_id", ids)
    with io.create_h5(folder / "gaze.h5", "pseudomasks", {}, {}) as file:
        file["pseudomask"], file["has_gaze"] = levels, np.ones(images, bool)
        file["heatmap"] = levels[:, 0].astype(np.float16)
        io.write_strings(file, "sample_id", ids)


def run(folder, prompt=ROOT / "workflow/prompts/generic.yaml", max_failed=1.0, **settings):
    """Explain and merge; return the file of texts."""
    inputs = folder / "prepared.h5", folder / "gaze.h5"
    stated = ExplainSettings(
        **{"backend": "openai", "model": "m", "attempts": 2, "view": {"side": 64}, **settings}
    )
    reached = EndpointSettings(key_variable="ABSENT_TEST_KEY", retries=0, timeout_s=60)
    output = folder / "0of1.jsonl"
    explain(*inputs, output, stated, reached, 0, 1, folder / "work", 1, 0, prompt=prompt)
    merge_texts(*inputs, [output], folder / "texts.h5", TextsSettings(max_failed=max_failed))
    return folder / "texts.h5"


def raw_answers(file):
    return [json.loads(raw) for raw in file["raw_answers"].asstr()]


def test_an_answer_of_a_megabyte_fails_and_is_not_stored_whole(serve, tmp_path):
    write_inputs(tmp_path)
    stub = serve(lambda asked: completion("{" * MEGABYTE))
    start = time.monotonic()
    with h5py.File(run(tmp_path, url=stub.url)) as file:
        assert file["failed"][()].tolist() == [True, True, False]
        first = raw_answers(file)[0]
    assert time.monotonic() - start < 120
    assert len(first) == 2  # explain.attempts
    assert first[0].endswith(f"{{... ({MEGABYTE} characters)")
    assert len(first[0]) < asking.MAX_STORED_CHARS + 100
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl")) < MEGABYTE
    with pytest.raises(BadInput, match="at most 100000 are wanted"):
        run(tmp_path, url=stub.url, max_failed=0.0)


@pytest.mark.parametrize("escaped", [True, False])
def test_control_characters_and_halves_of_surrogates_reach_no_text(serve, tmp_path, escaped):
    """They come in the remarks, which are free, in reports of the endpoint, and in its model."""
    odd = "\0 \x07\x1b[31m \x85\u2028\ud800 \udfff\U000e0001 end"
    answer = json.dumps(valid_answer(PROMPT) | {"Remarks": odd}, ensure_ascii=escaped)
    write_inputs(tmp_path)
    stub = serve(lambda asked: completion(answer, model=f"m {odd}", system_fingerprint=odd))
    with h5py.File(run(tmp_path, url=stub.url)) as file:
        texts, revision = file["text"].asstr()[()], file.attrs["revision"]
        values = [json.loads(text) for text in file["attributes"].asstr()]
        failed = file["failed"][()].tolist()
    assert failed == [False] * 3
    assert revision.isprintable() and "end" in revision
    written = [*texts.ravel(), *(value.get("remarks", "") for value in values)]
    assert all(text.isprintable() for text in written)
    # Unless it is an escape in the answer, half of a pair cannot reach the parser.
    assert values[0]["remarks"] == ("[31m end" if escaped else "[31m ? ? end")


def test_a_revision_per_answer_is_not_listed_without_end(serve, tmp_path, caplog):
    numbers, lock = iter(range(10_000)), threading.Lock()

    def answer(asked):
        with lock:
            return completion(
                json.dumps(valid_answer(PROMPT)), system_fingerprint=f"fp{next(numbers)}"
            )

    write_inputs(tmp_path, images=26)
    stub = serve(answer)
    with h5py.File(run(tmp_path, url=stub.url)) as file:
        listed = file.attrs["revision"].split()
    assert len(listed) == endpoint.MAX_REVISIONS
    warnings = [message for message in caplog.messages if "revisions" in message]
    assert warnings == [
        f"the endpoint reports more than {endpoint.MAX_REVISIONS} revisions: the others are not "
        "listed"
    ]


def test_a_question_of_100_kilobytes_is_asked_and_stored_whole(serve, tmp_path):
    prompt = tmp_path / "long.yaml"
    text = (ROOT / "workflow/prompts/generic.yaml").read_text()
    prompt.write_text(text.replace("question: |\n", "question: |\n" + f"  {'look ' * 20_000}\n", 1))
    assert prompt.stat().st_size > 100_000
    write_inputs(tmp_path)
    stub = serve(lambda asked: completion(json.dumps(valid_answer(PROMPT))))
    with h5py.File(run(tmp_path, prompt, url=stub.url, max_failed=0.0)) as file:
        assert file.attrs["prompt"] == prompt.read_text()
        assert (file["text"].asstr()[:2] != "").all()
    assert "look " * 20_000 in f"{stub.requests[0].text} "


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 400), (3, 3)])
@pytest.mark.parametrize("value", [0, 255, None])
def test_tiny_and_constant_images_are_explained_by_each_backend(serve, tmp_path, size, value):
    """An image of one pixel is either marked whole or not at all."""
    write_inputs(tmp_path, size)
    if value is not None:
        with h5py.File(tmp_path / "prepared.h5", "r+") as file:
            file["image"][()] = value
    stub = serve(lambda asked: completion(json.dumps(valid_answer(PROMPT))))
    for settings in ({"backend": "measured"}, {"url": stub.url}):
        prompt = {} if "url" not in settings else {"prompt": ROOT / "workflow/prompts/generic.yaml"}
        with h5py.File(
            run(tmp_path, max_failed=0.0, **({"prompt": None} | prompt), **settings)
        ) as file:
            texts = file["text"].asstr()[()]
            for values in file["attributes"].asstr():
                numbers = [v for v in json.loads(values).values() if not isinstance(v, str)]
                assert np.isfinite(numbers).all()
        # The gaze marks nothing of the last image, and for `measured` all of an image is nothing.
        described = size != (1, 1) or "url" in settings
        assert (texts != "").all(axis=1).tolist() == [described, described, False]
        assert texts.shape == (3, len(FIELDS))
    assert len(stub.requests) == 2


def test_many_failures_are_counted_and_not_all_logged(tmp_path, caplog):
    write_inputs(tmp_path, images=300)
    lines = [["", dict.fromkeys(("backend", "model", "revision", "prompt"), "")]]
    lines += [
        [f"image{i}", {"explanation": None, "problem": "none", "raw": []}] for i in range(300)
    ]
    answers_file = tmp_path / "0of1.jsonl"
    answers_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    merge_texts(
        tmp_path / "prepared.h5", tmp_path / "gaze.h5", [answers_file], tmp_path / "texts.h5",
        TextsSettings(max_failed=1),
    )  # fmt: skip
    assert len(caplog.messages) == 101
    assert caplog.messages[-1] == "and 200 more samples without a valid answer: the shards tell why"
