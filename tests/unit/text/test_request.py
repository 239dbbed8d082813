"""Endpoints that have a field of the request under another name, or refuse it."""

import json
import logging

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from stages.core.cli import BadInput
from stages.settings.explain import EndpointSettings, ExplainSettings, NameSettings
from stages.text.describers.asking import Question, Unanswered
from stages.text.describers.endpoint import EndpointModel
from stages.text.describers.prompts import load_prompt
from stages.text.describers.request import avoid_names, find_refused_words
from tests.loopback import completion, valid_answer
from tests.workspace import ROOT

QUESTION = Question(np.zeros((2, 3, 3), np.uint8), "What is it?")
OPENAI = {
    "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
    "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter",
}  # fmt: skip


def refusal(status, error):
    return status, {}, json.dumps(error).encode()


def forbid(field, status=422):
    """Return the refusal of FastAPI, which repeats what was sent."""
    where = {"type": "extra_forbidden", "loc": ["body", field], "input": "seed, at least"}
    return refusal(status, {"detail": [where | {"msg": "Extra inputs are not permitted"}]})


def make_model(url, concurrency=1, retries=0, **settings):
    return EndpointModel(
        ExplainSettings(backend="openai", model="tiny-vlm", url=url, **settings),
        EndpointSettings(concurrency=concurrency, retries=retries),
        {"type": "object"},
        pause=lambda halt, seconds: None,
    )


def refuse(**refusals):
    """Return a function that answers, unless a request has one of these fields."""

    def answer(asked):
        for field, refused in refusals.items():
            if field in asked.fields:
                return refused
        return completion(f"without {', '.join(refusals)}")

    return answer


@pytest.mark.parametrize(
    ("field", "refused", "sent_as"),
    [
        ("max_tokens", refusal(400, {"error": OPENAI}), "max_completion_tokens"),
        ("max_tokens", forbid("max_tokens"), "max_completion_tokens"),
        ("seed", forbid("seed"), None),
        ("seed", forbid("seed", 400), None),
        ("seed", refusal(400, {"error": {"message": "Unrecognized argument: seed"}}), None),
        ("seed", refusal(400, {"message": "unknown field `seed`", "param": None}), None),
        ("seed", (400, {}, b"json: unknown field \"seed\""), None),
        ("temperature", refusal(400, {"error": {
            "message": "Unsupported value: 'temperature' does not support 0 with this model. Only "
            "the default (1) value is supported.", "param": "temperature",
        }}), None),
        ("response_format", refusal(400, {"error": {"param": "response_format.type"}}), None),
    ],
)  # fmt: skip
def test_a_refused_field_is_sent_under_its_other_name_or_left_out(
    serve, caplog, field, refused, sent_as
):
    stub = serve(refuse(**{field: refused}))
    model = make_model(stub.url, json_schema=True)
    assert model.generate([QUESTION] * 5, 0) == [f"without {field}"] * 5
    # The first question costs one more request; the others are sent so from the start.
    first, *others = [asked.fields for asked in stub.requests]
    assert len(others) == 5
    for fields in others:
        changed = {k: v for k, v in first.items() if k != field}
        assert fields == changed | ({sent_as: first[field]} if sent_as else {})
    fate = f"sent as {sent_as}" if sent_as else "left out"
    setting = "json_schema" if field == "response_format" else f"names.{field}"
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"the endpoint refuses the field {field} of a request: it is {fate} (explain.{setting})"
    ]


def test_parallel_questions_cost_one_more_request_each_at_most(serve):
    stub = serve(refuse(seed=forbid("seed"), max_tokens=refusal(400, {"error": OPENAI})))
    found = make_model(stub.url, concurrency=4).generate([QUESTION] * 40, 0)
    assert found == ["without seed, max_tokens"] * 40
    assert 42 <= len(stub.requests) <= 40 + 2 * 4
    assert stub.most <= 4


def test_all_fields_of_a_refusal_are_left_out_at_once(serve):
    details = [{"loc": ["body", name], "msg": "no such field"} for name in ("seed", "temperature")]
    stub = serve(refuse(seed=refusal(422, {"detail": details})))
    assert make_model(stub.url).generate([QUESTION], 0) == ["without seed"]
    assert stub.requests[1].fields.keys() == {"model", "messages", "max_tokens"}
    assert len(stub.requests) == 2


def test_a_temporary_error_does_not_forget_the_refused_field(serve):
    turn = iter(range(9))

    def answer(asked):
        if "seed" in asked.fields:
            return forbid("seed")
        return (503, {}, b"busy") if next(turn) == 0 else completion("yes")

    stub = serve(answer)
    assert make_model(stub.url, retries=1).generate([QUESTION], 0) == ["yes"]
    assert [("seed" in asked.fields) for asked in stub.requests] == [True, False, False]


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 400. This model supports at most 256 completion tokens",
        "temperature must be between 0 and 1",
        "seed: Input should be less than or equal to 10",
        "This model's maximum context length is 2048 tokens (400 of them max_tokens)",
        "The picture is broken",
    ],
)
def test_a_refused_value_is_not_left_out(serve, message):
    stub = serve(lambda asked: refusal(400, {"error": {"message": message}}))
    with pytest.raises(BadInput, match="names renames fields of the request") as caught:
        make_model(stub.url).generate([QUESTION], 0)
    assert message in str(caught.value)
    assert len(stub.requests) == 1


def test_if_no_name_is_accepted_the_first_refusal_is_reported(serve):
    other = refusal(400, {"error": {"message": "no max_completion_tokens"}})
    stub = serve(
        lambda asked: refusal(400, {"error": OPENAI}) if "max_tokens" in asked.fields else other
    )
    with pytest.raises(BadInput, match="Unsupported parameter: 'max_tokens'"):
        make_model(stub.url).generate([QUESTION], 0)
    assert len(stub.requests) == 2


def test_a_field_that_only_one_question_is_refused_for_is_kept_for_the_others(serve):
    def answer(asked):
        return refusal(400, {"error": "no seed"}) if asked.text == "bad" else completion("yes")

    stub = serve(answer)
    bad, good = QUESTION._replace(text="bad"), QUESTION
    found = make_model(stub.url).generate([good, bad, good], 0)
    assert found[::2] == ["yes", "yes"]
    assert isinstance(found[1], Unanswered) and "no seed" in found[1].reason
    assert ["seed" in asked.fields for asked in stub.requests] == [True, True, False, True]


def test_settings_rename_fields_and_leave_them_out(serve):
    stub = serve(lambda asked: completion("yes"))
    names = {"max_tokens": "max_completion_tokens", "seed": "random_seed", "temperature": ""}
    assert make_model(stub.url, names=names).generate([QUESTION], 2) == ["yes"]
    (asked,) = stub.requests
    assert asked.fields.keys() == {"model", "messages", "max_completion_tokens", "random_seed"}
    assert (asked.fields["max_completion_tokens"], asked.fields["random_seed"]) == (400, 2)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"seed": "model"}, "the request would have two fields model"),
        ({"seed": "temperature"}, "the request would have two fields temperature"),
        ({"seed": "a b"}, "found 'a b'; allowed: letters, digits, _ and -, or an empty text"),
        ({"top_p": "p"}, "Extra inputs are not permitted"),
    ],
)
def test_names_that_cannot_be_sent_are_refused(names, found):
    with pytest.raises(ValidationError, match=found):
        NameSettings(**names)
    assert NameSettings(seed="", temperature="").seed == ""


def test_a_schema_is_sent_as_response_format(serve):
    stub = serve(lambda asked: completion("{}"))
    make_model(stub.url, json_schema=True).generate([QUESTION], 0)
    assert stub.requests[0].fields["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "explanation", "strict": True, "schema": {"type": "object"}},
    }


def test_the_schema_of_a_prompt_describes_its_answers():
    prompt = load_prompt(ROOT / "workflow/prompts/generic.yaml")
    schema = prompt.json_schema()
    assert schema["required"] == list(schema["properties"])
    answer = valid_answer(prompt)
    jsonschema.validate(answer, schema)
    assert prompt.parse(json.dumps(answer)).values["area"] == 0.12
    for change in ({"Location": "top"}, {"Boundary": "no word"}, {"More": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(answer | change, schema)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 9000, b"[1]", b'{"error": null}', b"7"])
def test_any_refusal_has_words(body):
    assert "seed" not in find_refused_words(body)
    assert avoid_names({"seed": "seed"}, find_refused_words(body)) == {"seed": "seed"}
