"""Each form in which an endpoint sends the answer of a chat, or none."""

import pytest

from stages.text.describers.asking import Unanswered
from stages.text.describers.completions import Completion

ANSWER = '{"Location": "middle centre"}'


def read(content, *, end="stop", usage=None, max_tokens=400, **message):
    choice = {"message": {"role": "assistant", "content": content} | message, "finish_reason": end}
    return Completion.model_validate({"choices": [choice], "usage": usage}).answer(max_tokens)


def text_part(text):
    return {"type": "text", "text": text}


THINKING_PART = {"type": "thinking", "thinking": [text_part("A draft: {}")]}


@pytest.mark.parametrize(
    "content",
    [
        ANSWER,
        [text_part(ANSWER)],
        [THINKING_PART, text_part(ANSWER)],
        [text_part(ANSWER), THINKING_PART],
        [text_part(ANSWER[:9]), text_part(ANSWER[9:])],
        [ANSWER],
        text_part(ANSWER),
        {"text": ANSWER},
        [{"type": "output_text", "text": ANSWER, "annotations": []}],
        [{"type": "reasoning", "text": "A draft: {}"}, {"text": ANSWER}],
        [{"type": "image_url", "image_url": {"url": "data:"}}, text_part(ANSWER)],
    ],
)
def test_the_text_is_the_content_or_its_parts_of_type_text(content):
    assert read(content) == ANSWER


@pytest.mark.parametrize(
    "end", [None, "", "stop", "STOP", "eos_token", "stop_sequence", "end_turn", "tool_calls"]
)
def test_an_answer_that_the_model_ended_is_complete(end):
    assert read(" a\n", end=end) == " a\n"


def test_reasoning_beside_an_answer_is_left_out():
    assert read(ANSWER, reasoning_content="A draft: {}", reasoning=None) == ANSWER


CUT = (
    "the answer was cut short, because all 400 tokens of explain.max_tokens were spent before its "
    "end"
)


@pytest.mark.parametrize("end", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
@pytest.mark.parametrize("content", [ANSWER, f"<think>{ANSWER} but", " ", "", [text_part(ANSWER)]])
def test_an_answer_that_was_cut_is_none_however_complete_it_looks(end, content):
    text = content if isinstance(content, str) else ANSWER
    assert read(content, end=end) == Unanswered(CUT, text, ask_again=True)


def test_without_a_reason_the_number_of_tokens_shows_a_cut():
    cut = Unanswered(CUT, ANSWER, ask_again=True)
    assert read(ANSWER, end=None, usage={"completion_tokens": 400}) == cut
    assert read(ANSWER, end=None, usage={"completion_tokens": 399}) == ANSWER
    assert read(ANSWER, end="stop", usage={"completion_tokens": 400}) == ANSWER
    for usage in ({}, [], 3, {"completion_tokens": "400"}):
        assert read(ANSWER, end=None, usage=usage) == ANSWER


def test_without_a_limit_no_answer_spends_it():
    assert read(ANSWER, end=None, usage={"completion_tokens": 900}, max_tokens=None) == ANSWER
    reason = "the endpoint broke the answer off (finish_reason length)"
    assert read(ANSWER, end="length", max_tokens=None) == Unanswered(reason, ANSWER, True)


@pytest.mark.parametrize("end", ["error", "abort", "insufficient_system_resource", "unheard_of"])
def test_an_answer_that_the_endpoint_broke_off_is_none(end):
    reason = f"the endpoint broke the answer off (finish_reason {end})"
    assert read(ANSWER, end=end) == Unanswered(reason, ANSWER, ask_again=True)


@pytest.mark.parametrize("end", ["content_filter", "SAFETY", "sensitive", "refusal"])
def test_a_withheld_answer_is_not_asked_for_again(end):
    assert read(ANSWER, end=end) == Unanswered("the endpoint's content filter withheld the answer")


def test_a_refusal_is_not_asked_again():
    declined = Unanswered("the model declines to answer: I can't.")
    assert read(None, refusal="I can't.") == declined
    assert read([{"type": "refusal", "refusal": "I can't."}]) == declined


PARSER_OFF = "switch the endpoint's reasoning parser off"


@pytest.mark.parametrize(
    ("content", "beside", "remark"),
    [
        (None, {}, ""),
        ("", {"reasoning_content": ""}, ""),
        (" \n", {"reasoning_content": None}, ""),
        ([], {}, ""),
        (None, {"reasoning_content": ANSWER}, f" (29 characters came as reasoning_content: "
         f"{PARSER_OFF})"),
        ("", {"reasoning": "Hm."}, f" (3 characters came as reasoning: {PARSER_OFF})"),
        ([THINKING_PART], {}, " (only parts of the type thinking)"),
    ],
)  # fmt: skip
def test_an_empty_answer_is_called_empty(content, beside, remark):
    assert read(content, **beside) == Unanswered(f"the answer is empty{remark}", ask_again=True)
