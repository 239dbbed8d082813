"""The describer that asks a vision-language model and parses its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.settings.explain import ViewSettings
from stages.text.describers import Answer, Sample
from stages.text.describers.prompts import Prompt
from stages.text.describers.view import caption, draw_view

# What is stored of an answer, characters: a broken model may write megabytes.
MAX_STORED_CHARS = 20_000


class Question(NamedTuple):
    """A question for a model about one sample.

    Attributes
    ----------
    picture
        (h, w, 3) uint8, RGB.
    text
        The prompt; after a failed attempt also the error in the answer.
    """

    picture: NDArray[np.uint8]
    text: str


@dataclass(frozen=True)
class Unanswered:
    """A question without an answer, for example because an endpoint refuses it.

    Attributes
    ----------
    reason
        The reason, without a full stop: for the user, and for the model if it is asked again.
    text
        What the model wrote nevertheless, for example the beginning of an answer.
    ask_again
        Whether the model may answer if it is asked again.
    """

    reason: str
    text: str = ""
    ask_again: bool = False


def spent_max_tokens(text: str, max_tokens: int) -> Unanswered:
    """Return the outcome of a question whose answer `max_tokens` cut short: `text`."""
    return Unanswered(
        f"the answer was cut short, because all {max_tokens} tokens of explain.max_tokens were "
        "spent before its end",
        text,
        ask_again=True,
    )


class VisionLanguageModel(Protocol):
    """A model that answers questions about pictures with text.

    Attributes
    ----------
    name, revision
        The model's name and revision; the revision is empty if the model has none.
    """

    name: str
    revision: str

    def generate(self, questions: Sequence[Question], attempt: int) -> list[str | Unanswered]:
        """Answer each question, in their order.

        Parameters
        ----------
        attempt
            Counts from 0. A model that samples its words derives its seed from it, so that a
            repeated question can get another answer.

        Returns
        -------
        One item per question: the complete text, unchanged, or `Unanswered`. The caller repeats a
        question if its text cannot be used, or if `Unanswered` says so.

        Raises
        ------
        BadInput
            An error that concerns all questions: no model, no network, a wrong key.
        """


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which an endpoint can send and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _to_store(text: str) -> str:
    """Return what is stored of an answer: all of it, unless it is far too long."""
    if len(text) <= MAX_STORED_CHARS:
        return text
    return f"{text[:MAX_STORED_CHARS]}... ({len(text)} characters)"


def _append_error(question: Question, reason: str) -> Question:
    return question._replace(
        text=f"{question.text}\n\nAn earlier answer of yours could not be used: {reason}. "
        "Answer again, as it is asked for above."
    )


class ModelDescriber:
    """The describer that asks a model, and asks again if an answer cannot be used.

    It asks about each sample whose pseudomasks mark anything. It asks about all samples of a batch
    at once, and then again about those whose answers could not be used, with the reason.

    Parameters
    ----------
    view
        How the picture for the model is drawn.
    attempts
        How often it asks about a sample at most, 1 or more.
    """

    def __init__(
        self, model: VisionLanguageModel, prompt: Prompt, view: ViewSettings, attempts: int
    ) -> None:
        self.model = model.name
        self._model, self._prompt, self._view, self._attempts = model, prompt, view, attempts

    @property
    def revision(self) -> str:
        """The model's revision; an endpoint reports it with the first answer."""
        return self._model.revision

    def _make_question(self, sample: Sample) -> Question:
        text = f"{caption(sample, self._view)}\n\n{self._prompt.text()}"
        return Question(draw_view(sample, self._view), text)

    def _parse_answer(self, text: str, earlier: tuple[str, ...]) -> Answer:
        """Parse a sample's last text; `earlier` are those before it, as stored."""
        texts = (*earlier, _to_store(text))
        try:
            return Answer(explanation=self._prompt.parse(text), raw=texts)
        except ValueError as error:
            return Answer(explanation=None, problem=str(error), raw=texts)

    def describe(self, samples: Sequence[Sample]) -> list[Answer]:
        """Ask about each sample of a batch; see `Describer`."""
        answers = [Answer(explanation=None) for _ in samples]
        marked = [i for i, sample in enumerate(samples) if sample.pseudomasks[-1].any()]
        questions = {i: self._make_question(samples[i]) for i in marked}
        pending = dict(questions)
        for attempt in range(self._attempts):
            if not pending:
                break
            replies = self._model.generate(list(pending.values()), attempt)
            retry = {}
            for i, reply in zip(pending, replies, strict=True):
                raw = answers[i].raw
                if isinstance(reply, str):
                    answers[i] = self._parse_answer(_encodable(reply), raw)
                elif reply.ask_again:
                    raw = (*raw, _to_store(_encodable(reply.text)))
                    answers[i] = Answer(explanation=None, problem=reply.reason, raw=raw)
                else:
                    problem = f"the model gave no answer: {reply.reason}"
                    answers[i] = Answer(explanation=None, problem=problem, raw=raw)
                    continue
                if reason := answers[i].problem:
                    retry[i] = _append_error(questions[i], reason)
            pending = retry
        attempts_text = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
        for i in pending:
            problem = f"no valid answer in {attempts_text}: {answers[i].problem}"
            answers[i] = answers[i].model_copy(update={"problem": problem})
        return answers
