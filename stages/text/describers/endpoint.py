"""The backend for HTTP endpoints with OpenAI's chat protocol: vLLM, Ollama, GPT-4o, Doubao."""

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
from stages.text.describers import BatchRefused, Setup
from stages.text.describers.asking import ModelDescriber, Question, Unanswered
from stages.text.describers.connection import Connection, Reply, RetryableError
from stages.text.describers.prompts import load_prompt

# Pauses before a request is sent again, s: they double from the first to the maximum.
FIRST_PAUSE_S, MAX_PAUSE_S = 1, 60
# A question fails if the endpoint asks for a longer wait, s.
MAX_RETRY_AFTER_S = 600
# Statuses of temporary errors, besides all from 500 on: time-out, conflict, too early, too many
# requests.
_RETRYABLE_STATUSES = {408, 409, 425, 429}
# Statuses that one question may cause: with its picture, its length or its words.
_QUESTION_STATUSES = {400, 413, 422}
# Parts of the error codes of content filters (OpenAI and Azure, Doubao), in lower case.
_CONTENT_FILTER_CODES = ("content_filter", "content_policy", "sensitivecontent", "riskdetection")


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
class _RefusedQuestion:
    """The endpoint refused one question; `detail` is the endpoint's message."""

    status: int
    detail: str


class EndpointModel:
    """A vision-language model behind an HTTP endpoint.

    A picture is sent as PNG in a data URL, with the text in the same user message. Up to
    `concurrency` requests run at a time, each for at most `timeout_s` (see `Connection`). After a
    temporary error (HTTP 408, 409, 425, 429 and from 500 on, time-outs, lost connections, answers
    that are not a chat completion) a request is sent again, up to `retries` times. The limits of
    the pauses double; each pause is drawn from the upper half of its limit, and is at least as long
    as the endpoint asks for.

    Attributes
    ----------
    name
        The name of the requested model.
    revision
        What the endpoint reports about the model after an answer: the model's name if it differs
        from `name`, and the fingerprint of its configuration (`system_fingerprint`). Answers may
        report different ones, so all of them are listed, sorted and separated by spaces. Empty if
        the endpoint reports nothing.

    Parameters
    ----------
    pause
        Waits for a number of seconds, or until an event is set.
    rng
        Draws the pauses. By default it is seeded at random, so that parallel jobs do not send their
        requests at the same moments.

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
        """Answer each question, in their order; see `asking.VisionLanguageModel`.

        The request's seed is `settings.seed` + `attempt`. A text that is empty, or that
        `max_tokens` cut short, is returned as it is: the caller cannot parse it, and asks again.

        Returns
        -------
        One item per question. It is `Unanswered` if the retries failed, if the endpoint refuses
        this question but not others (HTTP 400, 413, 422), if its content filter or the model
        declines, or if the model used up `max_tokens` before the first word.

        Raises
        ------
        BadInput
            No connection, no trusted certificate, a redirect, a refused key (HTTP 401, 403), a used
            up quota, an unknown address or model (404), or another permanent error below 500.
        BatchRefused
            The endpoint refused each question and has never answered one.
        """
        # `parallel.ordered_map` would let the other questions wait while one is in a long pause.
        stop = threading.Event()
        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            futures = [
                pool.submit(self._ask_with_retries, question, attempt, rng, stop)
                for question, rng in zip(questions, self._rng.spawn(len(questions)))
            ]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                # If one question raised, the others do not start, and their pauses end.
                stop.set()
                pool.shutdown(cancel_futures=True)
        outcomes = [future.result() for future in futures]
        self.revision = " ".join(sorted(self._revisions - {""}))
        refused = [outcome for outcome in outcomes if isinstance(outcome, _RefusedQuestion)]
        if refused and len(refused) == len(outcomes) and not self._revisions:
            raise self._make_http_error(refused[0].status, refused[0].detail, BatchRefused)
        return [
            Unanswered(
                f"the endpoint refuses the request (HTTP {outcome.status}): {outcome.detail}"
            )
            if isinstance(outcome, _RefusedQuestion)
            else outcome
            for outcome in outcomes
        ]

    def _ask_with_retries(
        self, question: Question, attempt: int, rng: np.random.Generator, stop: threading.Event
    ) -> str | Unanswered | _RefusedQuestion:
        body = self._make_body(question, attempt)
        for n_retries in range(self._endpoint.retries + 1):
            try:
                return self._handle_reply(self._connection.post(body))
            except RetryableError as failure:
                last = failure
            if last.retry_after > MAX_RETRY_AFTER_S:
                return Unanswered(
                    f"{last}; the endpoint asks for a wait of {last.retry_after:.0f} s, and the "
                    f"longest allowed wait is {MAX_RETRY_AFTER_S} s"
                )
            if n_retries < self._endpoint.retries:
                seconds = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**n_retries) * rng.uniform(0.5, 1)
                if last.retry_after:
                    seconds = max(seconds, last.retry_after + rng.random())
                log.info("%s; retrying in %.1f s", last, seconds)
                self._pause(stop, seconds)
                if stop.is_set():
                    break
        if not last.connected:
            raise BadInput(
                self._connection.address,
                "connection",
                found=last,
                expected="an endpoint that the job can reach",
                mend="start the server, correct explain.url, or set the environment variable "
                "https_proxy if https needs a proxy",
            )
        return Unanswered(f"{last} (tried {n_retries + 1} times)")

    def _make_body(self, question: Question, attempt: int) -> bytes:
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

    def _handle_reply(self, reply: Reply) -> str | Unanswered | _RefusedQuestion:
        if 200 <= reply.status < 300:
            return self._read_completion(reply.body)
        raw = reply.body[:2000].decode("utf-8", "replace")
        detail = self._connection.clean_message(raw)
        # A used up quota has the status of too many requests, but waiting does not help.
        may_pass = reply.status in _RETRYABLE_STATUSES or reply.status >= 500
        if may_pass and "insufficient_quota" not in raw:
            raise RetryableError(f"HTTP {reply.status}: {detail}", retry_after=reply.retry_after)
        if reply.status in _QUESTION_STATUSES:
            if any(code in raw.lower() for code in _CONTENT_FILTER_CODES):
                return Unanswered(f"the endpoint's content filter refuses the request: {detail}")
            return _RefusedQuestion(reply.status, detail)
        if 300 <= reply.status < 400:
            detail = f"a redirect to {self._connection.clean_message(reply.location)}"
        raise self._make_http_error(reply.status, detail)

    def _read_completion(self, body: bytes) -> str | Unanswered:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            detail = self._connection.clean_message(body[:2000].decode("utf-8", "replace"))
            raise RetryableError(f"the answer is not a chat completion: {detail}") from None
        reported_model = completion.model if completion.model != self.name else ""
        reported = (reported_model or "", completion.system_fingerprint or "")
        self._revisions.update(self._connection.redact(word) for word in reported)
        message, finish_reason = completion.choices[0].message, completion.choices[0].finish_reason
        text = message.content or ""
        if finish_reason == "content_filter":
            return Unanswered("the endpoint's content filter withheld the answer")
        if message.refusal:
            refusal = self._connection.clean_message(message.refusal)
            return Unanswered(f"the model declines to answer: {refusal}")
        if finish_reason == "length" and not text.strip():
            return Unanswered(
                f"the model used all explain.max_tokens ({self._settings.max_tokens}) before the "
                "first word of the answer; a model that reasons at length needs more"
            )
        return self._connection.redact(text)

    def _make_http_error(
        self, status: int, detail: str, error_type: type[BadInput] = BadInput
    ) -> BadInput:
        variable = self._endpoint.key_variable
        found = detail
        if status in (401, 403):
            found = f"a key that the endpoint refuses (environment variable {variable})"
            if not self._connection.has_key:
                found = f"no key: the environment variable {variable} is unset or empty"
            # A reply with status 401 often quotes the key, shortened or with asterisks.
            found += f"; it says: {detail}" if status == 403 else ""
            expected = f"the endpoint's key in the environment variable {variable}"
            mend = f"set {variable} where the job runs, or correct endpoint.key_variable"
        elif 300 <= status < 400:
            expected = "an address without a redirect: no key and no image goes to another host"
            mend = "set explain.url to the endpoint's own base address, if you trust it"
        elif status == 404:
            expected = f"chat completions at this address, and a model named {self.name!r}"
            mend = (
                "correct explain.url (the base address, without /chat/completions) or explain.model"
            )
        else:
            expected = f"an endpoint that accepts the request for the model {self.name!r}"
            mend = "follow the endpoint's message, and correct the settings under explain"
        return error_type(
            self._connection.address, f"HTTP {status}", found=found, expected=expected, mend=mend
        )


def make(setup: Setup) -> ModelDescriber:
    """Return the describer that asks the endpoint with the questions of `setup.prompt`."""
    assert setup.prompt is not None
    settings = setup.settings
    prompt = load_prompt(setup.prompt)
    return ModelDescriber(
        EndpointModel(settings, setup.endpoint), prompt, settings.view, settings.attempts
    )
