"""How a vision-language model is asked: pictures and questions out, explanations back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.settings.explain import ViewSettings
from stages.text.describers import Answer, Sample
from stages.text.describers.prompts import Prompt
from stages.text.describers.view import caption, show


class Question(NamedTuple):
    """What a model is asked about one sample.

    Attributes
    ----------
    picture
        (h, w, 3) uint8, RGB.
    text
        The prompt, and after a failed attempt what was wrong with the answer.
    """

    picture: NDArray[np.uint8]
    text: str


@dataclass(frozen=True)
class Unanswered:
    """A question to which no text came for good, such as one that an endpoint refuses.

    Attributes
    ----------
    reason
        Why, in words for the user, without a full stop.
    """

    reason: str


class Model(Protocol):
    """What answers questions about pictures with text.

    Attributes
    ----------
    name, revision
        Which model it is, and of which revision; the revision is empty where it has none.
    """

    name: str
    revision: str

    def generate(self, questions: Sequence[Question], attempt: int) -> list[str | Unanswered]:
        """Answer each question, in their order.

        Parameters
        ----------
        attempt
            From 0. A model that draws its words derives its seed from it, so that a question that
            is asked again can be answered in another way.

        Returns
        -------
        One item per question: the whole text, not stripped of anything, or `Unanswered` where
        asking again cannot help; such a question is not asked again.

        Raises
        ------
        BadInput
            What concerns all questions: no model, no network, a wrong key.
        """


def _repeat(question: Question, reason: str) -> Question:
    return question._replace(
        text=f"{question.text}\n\nAn earlier answer of yours could not be used: {reason}. "
        "Answer again, as it is asked for above."
    )


class Asked:
    """The describer that asks a model, and asks again where an answer cannot be used.

    A sample is asked about if its pseudomasks mark anything. All samples of a batch are
    asked about at once, and then again those whose answers could not be used, with the reason.

    Parameters
    ----------
    view
        What the model is shown.
    attempts
        Times that a sample is asked about at most, 1 or more.
    """

    def __init__(self, model: Model, prompt: Prompt, view: ViewSettings, attempts: int) -> None:
        self.model = model.name
        self._model, self._prompt, self._view, self._attempts = model, prompt, view, attempts

    @property
    def revision(self) -> str:
        """Of the model; an endpoint tells its own with the first answer."""
        return self._model.revision

    def _question(self, sample: Sample) -> Question:
        text = f"{caption(sample, self._view)}\n\n{self._prompt.text()}"
        return Question(show(sample, self._view), text)

    def _read(self, texts: tuple[str, ...]) -> Answer:
        """Read the last of a sample's texts."""
        try:
            return Answer(explanation=self._prompt.parse(texts[-1]), raw=texts)
        except ValueError as error:
            return Answer(explanation=None, problem=str(error), raw=texts)

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Ask about each sample of a batch; see `Describer`."""
        answers = [Answer(explanation=None) for _ in samples]
        marked = [i for i, sample in enumerate(samples) if sample.regions[-1].any()]
        questions = {i: self._question(samples[i]) for i in marked}
        asked = dict(questions)
        for attempt in range(self._attempts):
            if not asked:
                break
            replies = self._model.generate(list(asked.values()), attempt)
            again = {}
            for i, reply in zip(asked, replies, strict=True):
                if isinstance(reply, Unanswered):
                    problem = f"the model gave no answer: {reply.reason}"
                    answers[i] = answers[i].model_copy(update={"problem": problem})
                    continue
                # An endpoint can send half a character, which no file in UTF-8 takes.
                text = reply.encode("utf-8", "replace").decode()
                answers[i] = self._read((*answers[i].raw, text))
                if reason := answers[i].problem:
                    again[i] = _repeat(questions[i], reason)
            asked = again
        times = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
        for i in asked:
            problem = f"no valid answer in {times}: {answers[i].problem}"
            answers[i] = answers[i].model_copy(update={"problem": problem})
        return answers
