import json
from pathlib import Path

import numpy as np
import pytest

from stages.settings.explain import ViewSettings
from stages.text.describers import Sample
from stages.text.describers.asking import ModelDescriber, Unanswered
from stages.text.describers.prompts import load_prompt
from stages.text.describers.view import caption, draw_view

PROMPT = load_prompt(Path(__file__).parents[3] / "workflow" / "prompts" / "polyp.yaml")
VIEW = ViewSettings(side=64)


def answer(area=10):
    return json.dumps(
        {
            "Location": "middle centre",
            "Boundary": "smooth and blurred",
            "Characteristics": ["red"],
            "Area Percentage": area,
            "Confidence": "low",
            "Remarks": "",
        }
    )


def sample(number, marked=True, broad=True):
    regions = np.zeros((2, 32, 32), np.uint8)
    regions[0, 10:20, 10 : 11 + number] = marked
    regions[1, 8:24, 8:24] = broad
    image = np.full((32, 32, 3), 10 * number, np.uint8)
    return Sample(f"s{number}", image, np.zeros((32, 32), np.float16), regions)


class Scripted:
    """Gives the prepared answers for each picture in turn; its grey value identifies a picture."""

    name, revision = "scripted", "r1"

    def __init__(self, **said):
        self.said = {int(key[1:]): iter(texts) for key, texts in said.items()}
        self.asked = []

    def generate(self, questions, attempt):
        self.asked.append((attempt, list(questions)))
        return [next(self.said[question.picture[0, 0, 0] // 10]) for question in questions]


def ask(model, samples, attempts=3):
    return ModelDescriber(model, PROMPT, VIEW, attempts).describe(samples)


def test_the_describer_has_the_models_name_and_revision():
    asked = ModelDescriber(Scripted(), PROMPT, VIEW, 1)
    assert (asked.model, asked.revision) == ("scripted", "r1")


def test_answers_are_in_the_order_of_the_samples():
    model = Scripted(s1=[answer(1)], s2=[answer(2)], s3=[answer(3)])
    samples = [sample(3), sample(1), sample(2)]
    found = ask(model, samples)
    assert [round(a.explanation.values["area"] * 100) for a in found] == [3, 1, 2]
    assert [a.raw for a in found] == [(answer(3),), (answer(1),), (answer(2),)]
    assert {a.problem for a in found} == {""}
    ((attempt, questions),) = model.asked
    assert attempt == 0
    for asked, shown in zip(questions, samples, strict=True):
        np.testing.assert_array_equal(asked.picture, draw_view(shown, VIEW))
        assert asked.text == f"{caption(shown, VIEW)}\n\n{PROMPT.text()}"


def test_a_sample_with_empty_pseudomasks_is_not_asked_about():
    model = Scripted(s1=[answer()])
    found = ask(model, [sample(2, marked=False, broad=False), sample(1, marked=False)])
    assert (found[0].explanation, found[0].problem, found[0].raw) == (None, "", ())
    assert found[1].explanation is not None
    assert len(model.asked[0][1]) == 1


def test_without_questions_the_model_is_not_called():
    model = Scripted()
    assert [a.explanation for a in ask(model, [sample(1, marked=False, broad=False)])] == [None]
    assert model.asked == []
    assert ask(model, []) == []


def test_only_unusable_answers_are_asked_again_with_the_last_reason():
    model = Scripted(s1=["Sorry.", answer(200), answer(5)], s2=[answer(6)], s3=["{}", answer(7)])
    found = ask(model, [sample(1), sample(2), sample(3)])
    assert [round(a.explanation.values["area"] * 100) for a in found] == [5, 6, 7]
    assert found[0].raw == ("Sorry.", answer(200), answer(5))
    assert {a.problem for a in found} == {""}
    assert [(attempt, len(questions)) for attempt, questions in model.asked] == [
        (0, 3), (1, 2), (2, 1)
    ]  # fmt: skip
    first, second, third = (questions[0] for _, questions in model.asked)
    np.testing.assert_array_equal(second.picture, first.picture)
    assert second.text == (
        f"{first.text}\n\nAn earlier answer of yours could not be used: it holds no valid JSON "
        "object. Answer again, as it is asked for above."
    )
    # Only the last reason is sent.
    assert third.text == (
        f"{first.text}\n\nAn earlier answer of yours could not be used: Area Percentage should be "
        "from 0 to 100. Answer again, as it is asked for above."
    )


@pytest.mark.parametrize(("attempts", "times"), [(1, "1 attempt"), (3, "3 attempts")])
def test_after_the_last_attempt_only_that_sample_fails(attempts, times):
    said = ["No.", "No!", answer(101)][-attempts:]
    model = Scripted(s1=[*said, answer()], s2=[answer()])
    failed, good = ask(model, [sample(1), sample(2)], attempts)
    assert failed.explanation is None
    assert failed.problem == (
        f"no valid answer in {times}: Area Percentage should be from 0 to 100"
    )
    assert failed.raw == tuple(said)
    assert good.explanation is not None
    assert len(model.asked) == attempts


def test_an_unanswered_question_is_not_asked_again():
    model = Scripted(
        s1=[Unanswered("the picture was refused (HTTP 400)")],
        s2=["Hm.", Unanswered("no answer in 120 s")],
    )
    refused, late = ask(model, [sample(1), sample(2)])
    assert refused.problem == "the model gave no answer: the picture was refused (HTTP 400)"
    assert (refused.explanation, refused.raw) == (None, ())
    assert late.problem == "the model gave no answer: no answer in 120 s"
    assert (late.explanation, late.raw) == (None, ("Hm.",))
    assert len(model.asked) == 2


def test_an_unusable_answer_is_asked_for_again_with_its_reason():
    cut = Unanswered("the answer was cut short", answer(99)[:-1] + "\ud800", ask_again=True)
    model = Scripted(s1=[cut, answer(5)], s2=[cut, cut, cut])
    found, failed = ask(model, [sample(1), sample(2)])
    assert found.explanation.values["area"] == 0.05
    assert found.raw == (answer(99)[:-1] + "?", answer(5))
    first, second = (questions[0] for _, questions in model.asked[:2])
    assert second.text == (
        f"{first.text}\n\nAn earlier answer of yours could not be used: the answer was cut short. "
        "Answer again, as it is asked for above."
    )
    assert failed.explanation is None
    assert failed.problem == "no valid answer in 3 attempts: the answer was cut short"
    assert failed.raw == (answer(99)[:-1] + "?",) * 3


def test_a_lone_surrogate_in_an_answer_is_replaced():
    model = Scripted(s1=["\ud800" + answer()])
    (found,) = ask(model, [sample(1)])
    assert found.explanation is not None
    assert found.raw == ("?" + answer(),)


def test_too_few_answers_raise():
    class Short(Scripted):
        def generate(self, questions, attempt):
            return [answer()]

    with pytest.raises(ValueError, match="shorter"):
        ask(Short(), [sample(1), sample(2)])
