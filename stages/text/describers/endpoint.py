"""The backend of HTTP endpoints that speak OpenAI's chat protocol: vLLM, Ollama, GPT-4o, Doubao."""

import base64
import io
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from stages.core.cli import BadInput, log
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.text.describers import Refused, Setup
from stages.text.describers.asking import Asked, Question, Unanswered
from stages.text.describers.connection import Connection, NotNow, Reply
from stages.text.describers.prompts import load_prompt

# Pauses before a request is sent again, s: doubled from the first up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1, 60
# The longest that an endpoint may ask to wait, s.
LONGEST_RETRY_AFTER = 600
# Statuses that pass by themselves, beside all from 500 on: time-out, conflict, too early, too many.
_PASSING = {408, 409, 425, 429}
# Statuses that may be due to one question: its picture, its length, its words.
_OF_A_QUESTION = {400, 413, 422}
# Parts of the error codes of content filters (OpenAI and Azure, Doubao), in small letters.
_FILTERED = ("content_filter", "content_policy", "sensitivecontent", "riskdetection")


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    system_fingerprint: str | None = None


@dataclass(frozen=True)
class _Refused:
    status: int
    said: str


class Endpoint:
    """A vision-language model behind an HTTP endpoint.

    Pictures are sent as PNG in a data URL, with the text in one message of the user. Up to
    `concurrency` requests are under way at a time, each of at most `timeout_s` (see `Connection`).
    What may pass (HTTP 408, 409, 425, 429 and from 500 on, time-outs, broken connections, answers
    that are no chat completion) is sent again up to `retries` times, after pauses that double and
    are drawn from their upper half, and never sooner than the endpoint asks for.

    Attributes
    ----------
    name
        The model that is asked for.
    revision
        What the endpoint reports of it, once it has answered: the model's name where it differs
        from `name`, and the fingerprint of its configuration (`system_fingerprint`). All that were
        seen, as answers may differ in them, sorted and separated by spaces. Empty where it reports
        nothing.

    Parameters
    ----------
    pause
        Waits for a number of seconds, or until an event is set.
    rng
        Of the pauses. Fresh entropy by default, so that jobs side by side do not knock in step.

    Raises
    ------
    BadInput
        The URL or the key cannot be used.
    """

    def __init__(
        self,
        settings: ExplainSettings,
        endpoint: EndpointSettings,
        *,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.name = settings.model
        self.revision = ""
        self._settings, self._endpoint = settings, endpoint
        self._connection = Connection(
            settings.url, "/chat/completions", endpoint.key_variable, endpoint.timeout_s
        )
        self._pause = pause
        self._rng = rng or np.random.default_rng()
        self._revisions: set[str] = set()

    def generate(self, questions: Sequence[Question], attempt: int) -> list[str | Unanswered]:
        """Answer each question, in their order; see `stages.text.describers.asking.Model`.

        The seed that is sent is `settings.seed` + `attempt`. A text that `max_tokens` cut short, or
        an empty one, is returned as it is: it will not parse, and the question is asked again.

        Returns
        -------
        One item per question. `Unanswered` where retries did not help, the endpoint refuses this
        question and not others (HTTP 400, 413, 422), its content filter or the model itself
        declines, or `max_tokens` was spent before the first word.

        Raises
        ------
        BadInput
            No connection, no trusted certificate, a redirect, a key that is refused (HTTP 401,
            403), a spent quota, an unknown address or model (404, and all other statuses below 500
            that do not pass).
        Refused
            Each question was refused and none was ever answered.
        """
        # Not `parallel.ordered`: behind a question in a long pause, it would let the others wait.
        halt = threading.Event()
        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            asked = [
                pool.submit(self._ask, question, attempt, rng, halt)
                for question, rng in zip(questions, self._rng.spawn(len(questions)))
            ]
            try:
                for first in as_completed(asked):
                    first.result()
            finally:
                # Where one raised, the others neither begin nor wait out their pauses.
                halt.set()
                pool.shutdown(cancel_futures=True)
        outcomes = [each.result() for each in asked]
        self.revision = " ".join(sorted(self._revisions - {""}))
        refused = [outcome for outcome in outcomes if isinstance(outcome, _Refused)]
        if refused and len(refused) == len(outcomes) and not self._revisions:
            raise self._bad(refused[0].status, refused[0].said, Refused)
        return [
            Unanswered(f"the endpoint refuses the request (HTTP {outcome.status}): {outcome.said}")
            if isinstance(outcome, _Refused)
            else outcome
            for outcome in outcomes
        ]

    def _ask(
        self, question: Question, attempt: int, rng: np.random.Generator, halt: threading.Event
    ) -> str | Unanswered | _Refused:
        body = self._body(question, attempt)
        for tried in range(self._endpoint.retries + 1):
            try:
                return self._judge(self._connection.post(body))
            except NotNow as failure:
                last = failure
            if last.after > LONGEST_RETRY_AFTER:
                return Unanswered(
                    f"{last}; the endpoint asks to wait {last.after:.0f} s, and "
                    f"{LONGEST_RETRY_AFTER} s is the most that is waited"
                )
            if tried < self._endpoint.retries:
                seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2**tried) * rng.uniform(0.5, 1)
                if last.after:
                    seconds = max(seconds, last.after + rng.random())
                log.info("%s; asking again in %.1f s", last, seconds)
                self._pause(halt, seconds)
                if halt.is_set():
                    break
        if not last.reached:
            raise BadInput(
                self._connection.address,
                "connection",
                found=last,
                expected="an endpoint that can be reached from where the job runs",
                mend="start the server, correct explain.url, or set the environment variable "
                "https_proxy where https goes through a proxy",
            )
        return Unanswered(f"{last} (tried {tried + 1} times)")

    def _body(self, question: Question, attempt: int) -> bytes:
        png = io.BytesIO()
        Image.fromarray(question.picture).save(png, "PNG")
        url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
        content = [
            {"type": "text", "text": question.text},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        fields = {
            "model": self.name,
            "messages": [{"role": "user", "content": content}],
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_tokens,
            "seed": self._settings.seed + attempt,
        }
        return json.dumps(fields).encode()

    def _judge(self, reply: Reply) -> str | Unanswered | _Refused:
        if 200 <= reply.status < 300:
            return self._text(reply.body)
        raw = reply.body[:2000].decode("utf-8", "replace")
        said = self._connection.clean(raw)
        # A spent quota has the status of too many requests, but waiting does not help.
        passes = reply.status in _PASSING or reply.status >= 500
        if passes and "insufficient_quota" not in raw:
            raise NotNow(f"HTTP {reply.status}: {said}", after=reply.after)
        if reply.status in _OF_A_QUESTION:
            if any(code in raw.lower() for code in _FILTERED):
                return Unanswered(f"the endpoint's content filter refuses the request: {said}")
            return _Refused(reply.status, said)
        if 300 <= reply.status < 400:
            said = f"a redirect to {self._connection.clean(reply.location)}"
        raise self._bad(reply.status, said)

    def _text(self, body: bytes) -> str | Unanswered:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            said = self._connection.clean(body[:2000].decode("utf-8", "replace"))
            raise NotNow(f"the answer is no chat completion: {said}") from None
        named = completion.model if completion.model != self.name else ""
        reported = (named or "", completion.system_fingerprint or "")
        self._revisions.update(self._connection.redact(word) for word in reported)
        message, end = completion.choices[0].message, completion.choices[0].finish_reason
        text = message.content or ""
        if end == "content_filter":
            return Unanswered("the endpoint's content filter withheld the answer")
        if message.refusal:
            declined = self._connection.clean(message.refusal)
            return Unanswered(f"the model declines to answer: {declined}")
        if end == "length" and not text.strip():
            return Unanswered(
                f"explain.max_tokens ({self._settings.max_tokens}) was spent before the first word "
                "of the answer; a model that reasons at length needs more"
            )
        return self._connection.redact(text)

    def _bad(self, status: int, said: str, kind: type[BadInput] = BadInput) -> BadInput:
        variable = self._endpoint.key_variable
        found = said
        if status in (401, 403):
            found = f"a key that the endpoint refuses (environment variable {variable})"
            if not self._connection.has_key:
                found = f"no key: the environment variable {variable} is unset or empty"
            # What comes with 401 quotes the key, cut or starred in ways of its own.
            found += f"; it says: {said}" if status == 403 else ""
            expected = f"the endpoint's key in the environment variable {variable}"
            mend = f"set {variable} where the job runs, or name another in endpoint.key_variable"
        elif 300 <= status < 400:
            expected = "an address that answers by itself; no key and no image follows a redirect"
            mend = "set explain.url to the endpoint's own base address, if you trust it"
        elif status == 404:
            expected = f"chat completions at this address, and a model named {self.name!r}"
            mend = (
                "correct explain.url (the base address, without /chat/completions) or explain.model"
            )
        else:
            expected = f"an endpoint that takes the request for the model {self.name!r}"
            mend = "follow what the endpoint says, and correct the settings under explain"
        return kind(
            self._connection.address, f"HTTP {status}", found=found, expected=expected, mend=mend
        )


def make(setup: Setup) -> Asked:
    """Make the describer that asks the endpoint with the prompt of this file."""
    assert setup.prompt is not None
    settings = setup.settings
    prompt = load_prompt(setup.prompt)
    return Asked(Endpoint(settings, setup.endpoint), prompt, settings.view, settings.attempts)
