"""The backend for HTTP endpoints with OpenAI's chat protocol: vLLM, Ollama, GPT-4o, Doubao."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import numpy as np
from pydantic import ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from stages.core.cli import BadInput, log
from stages.core.contents import parse_json
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.text.describers import BatchRefused, Setup
from stages.text.describers.asking import ModelDescriber, Question, Unanswered
from stages.text.describers.completions import Completion
from stages.text.describers.connection import Connection, RetryableError, parse_retry_after
from stages.text.describers.prompts import load_prompt
from stages.text.describers.request import (
    Names,
    avoid_names,
    find_refused_words,
    make_body,
    make_message,
    make_names,
)

# Pauses before a request is sent again, s: they double from the first to the maximum.
FIRST_PAUSE_S, MAX_PAUSE_S = 1, 60
# A question fails if the endpoint asks for a longer wait, s.
MAX_RETRY_AFTER_S = 600
# More revisions are not listed: some endpoints report another one with each answer.
MAX_REVISIONS = 20
# Statuses of temporary errors, besides all from 500 on: time-out, conflict, too early, too many
# requests.
_RETRYABLE_STATUSES = {408, 409, 425, 429}
# Statuses that one question may cause: with its picture, its length or its words.
_QUESTION_STATUSES = {400, 413, 422}
# Parts of the error codes of content filters (OpenAI and Azure, Doubao), in lower case.
_CONTENT_FILTER_CODES = ("content_filter", "content_policy", "sensitivecontent", "riskdetection")


@dataclass(frozen=True)
class _RefusedQuestion:
    """The endpoint refused one question.

    Attributes
    ----------
    detail
        The endpoint's message.
    words
        The words of the message that may name a field of the request.
    """

    status: int
    detail: str
    words: set[str]


def _find_error_status(content: Any) -> int | None:
    """Return the HTTP status that a body without an answer holds as `error.code`, if any."""
    error = content.get("error") if isinstance(content, dict) else None
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else None


def _may_be_retried(failure: BaseException) -> bool:
    return isinstance(failure, RetryableError) and failure.retry_after <= MAX_RETRY_AFTER_S


def _failure_of(call: RetryCallState) -> RetryableError:
    failure = call.outcome.exception() if call.outcome else None
    assert isinstance(failure, RetryableError)
    return failure


class EndpointModel:
    """A vision-language model behind an HTTP endpoint.

    A picture is sent as PNG in a data URL, with the text in the same user message. Up to
    `concurrency` requests run at a time, each for at most `timeout_s` (see `Connection`). After a
    temporary error (HTTP 408, 409, 425, 429 and from 500 on, time-outs, lost connections, answers
    that are not JSON) a request is sent again, up to `retries` times. The limits of the pauses
    double; each pause is drawn from the upper half of its limit, and is at least as long as the
    endpoint asks for.

    If the endpoint refuses a request and names one of its fields (HTTP 400, 422), the request is
    sent again at once, with the field's other name or without it. If it is then accepted, later
    requests are sent so from the start, and a warning is logged.

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
    schema
        JSON schema of the answers, which is sent if `settings.json_schema` says so.
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
        schema: dict[str, Any],
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
        # With an empty one as soon as there is an answer.
        self._revisions: set[str] = set()
        self._has_more_revisions = False
        self._schema = schema
        self._names = make_names(settings)
        self._lock = threading.Lock()

    def generate(self, questions: Sequence[Question], attempt: int) -> list[str | Unanswered]:
        """Answer each question, in their order; see `asking.VisionLanguageModel`.

        The request's seed is `settings.seed` + `attempt`.

        Returns
        -------
        One item per question. It is `Unanswered` if the retries failed, if the endpoint refuses
        this question but not others (HTTP 400, 413, 422), if its content filter or the model
        declines, if its JSON is not a chat completion, or if the answer is empty or cut short; the
        last two can be asked again.

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
        message, refused = make_message(question), set[str]()

        def choose_pause(call: RetryCallState) -> float:
            limit = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (call.attempt_number - 1))
            seconds: float = limit * rng.uniform(0.5, 1)
            asked = _failure_of(call).retry_after
            return max(seconds, asked + rng.random()) if asked else seconds

        def pause(seconds: float) -> None:
            self._pause(stop, seconds)
            if stop.is_set():
                raise RetryableError("another question failed")

        def log_failure(call: RetryCallState) -> None:
            log.info("%s; retrying in %.1f s", _failure_of(call), call.upcoming_sleep)

        retrying = Retrying(
            retry=retry_if_exception(_may_be_retried),
            stop=stop_after_attempt(self._endpoint.retries + 1),
            wait=choose_pause,
            sleep=pause,
            before_sleep=log_failure,
            reraise=True,
        )
        try:
            return retrying(self._ask, message, attempt, refused)
        except RetryableError as failure:
            if not _may_be_retried(failure):
                return Unanswered(
                    f"{failure}; the endpoint asks for a wait of {failure.retry_after:.0f} s, and "
                    f"the longest allowed wait is {MAX_RETRY_AFTER_S} s"
                )
            if not failure.connected:
                raise BadInput(
                    self._connection.address,
                    "connection",
                    found=failure,
                    expected="an endpoint that the job can reach",
                    mend="start the server, correct explain.url, or set the environment variable "
                    "https_proxy if https needs a proxy",
                ) from None
            return Unanswered(f"{failure} (tried {retrying.statistics['attempt_number']} times)")

    def _ask(
        self, message: Mapping[str, Any], attempt: int, refused: set[str]
    ) -> str | Unanswered | _RefusedQuestion:
        """Send a request, and again without each field that a refusal names.

        `refused` holds the names of these fields; they are added to it.
        """
        first_refusal = None
        names = avoid_names(self._names, refused)
        while names is not None:
            body = make_body(message, self._settings, attempt, self._schema, names)
            outcome = self._handle_reply(self._connection.post(body))
            if not isinstance(outcome, _RefusedQuestion):
                if refused:
                    self._keep_names(names)
                return outcome
            # What the user can correct is the request that the settings ask for.
            first_refusal = first_refusal or outcome
            named = outcome.words & set(names.values())
            refused |= named
            names = avoid_names(names, refused) if named else None
        assert first_refusal is not None
        return first_refusal

    def _keep_names(self, names: Names) -> None:
        with self._lock:
            for field, name in names.items():
                if name != (before := self._names[field]):
                    log.warning(
                        "the endpoint refuses the field %s of a request: it is %s (%s)",
                        before,
                        f"sent as {name}" if name else "left out",
                        "explain.json_schema"
                        if field == "response_format"
                        else f"explain.names.{field}",
                    )
            self._names = names

    def _handle_reply(self, reply: httpx2.Response) -> str | Unanswered | _RefusedQuestion:
        raw = reply.content[:2000].decode("utf-8", "replace")
        detail = self._connection.clean_message(raw)
        status = reply.status_code
        if reply.is_success:
            try:
                content = parse_json(reply.content)
            except ValueError:
                raise RetryableError(f"the answer is not JSON: {detail}") from None
            if (error_status := _find_error_status(content)) is None:
                return self._read_completion(content, detail)
            status = error_status
        # A used up quota has the status of too many requests, but waiting does not help.
        may_pass = status in _RETRYABLE_STATUSES or status >= 500
        if may_pass and "insufficient_quota" not in raw:
            retry_after = parse_retry_after(reply.headers.get("Retry-After"))
            raise RetryableError(f"HTTP {status}: {detail}", retry_after=retry_after)
        if status in _QUESTION_STATUSES:
            if any(code in raw.lower() for code in _CONTENT_FILTER_CODES):
                return Unanswered(f"the endpoint's content filter refuses the request: {detail}")
            return _RefusedQuestion(status, detail, find_refused_words(reply.content))
        if 300 <= status < 400:
            target = self._connection.clean_message(reply.headers.get("Location", ""))
            detail = f"a redirect to {target}"
        raise self._make_http_error(status, detail)

    def _read_completion(self, content: Any, detail: str) -> str | Unanswered:
        try:
            completion = Completion.model_validate(content)
        except ValidationError:
            return Unanswered(f"the answer is not a chat completion: {detail}")
        reported_model = completion.model if completion.model != self.name else ""
        self._keep_revisions(reported_model, completion.system_fingerprint, "")
        # Another name may be in use, but no limit only if the settings say so.
        limit = self._settings.max_tokens if self._settings.names.max_tokens else None
        answer = completion.answer(limit)
        if isinstance(answer, str):
            return self._connection.redact(answer)
        return replace(
            answer,
            reason=self._connection.clean_message(answer.reason),
            text=self._connection.redact(answer.text),
        )

    def _keep_revisions(self, *reported: Any) -> None:
        with self._lock:
            for text in reported:
                # It becomes a line of the answers and an attribute, so it must be encodable.
                known = isinstance(text, str) and text
                words = self._connection.clean_message(text) if known else ""
                if len(self._revisions) <= MAX_REVISIONS or not words:
                    self._revisions.add(words)
                elif words not in self._revisions and not self._has_more_revisions:
                    self._has_more_revisions = True
                    log.warning(
                        "the endpoint reports more than %d revisions: the others are not listed",
                        MAX_REVISIONS,
                    )

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
            mend = (
                "follow the endpoint's message, and correct the settings under explain; names "
                "renames fields of the request or leaves them out"
            )
        return error_type(
            self._connection.address, f"HTTP {status}", found=found, expected=expected, mend=mend
        )


def make(setup: Setup) -> ModelDescriber:
    """Return the describer that asks the endpoint with the questions of `setup.prompt`."""
    assert setup.prompt is not None
    settings = setup.settings
    prompt = load_prompt(setup.prompt)
    model = EndpointModel(settings, setup.endpoint, prompt.json_schema())
    return ModelDescriber(model, prompt, settings.view, settings.attempts)
