import base64
import datetime
import gzip
import io
import ipaddress
import json
import logging
import re
import socket
import threading
import time
import traceback
from email.utils import format_datetime
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.core.cli import BadInput
from stages.settings.explain import EndpointSettings, ExplainSettings
from stages.text.describers import Sample, Setup, connection, endpoint
from stages.text.describers.asking import Question, Unanswered
from stages.text.describers.endpoint import EndpointModel
from tests.loopback import Handler, Server, completion, error, scripted
from tests.workspace import ROOT

VARIABLE = "ENDPOINT_TEST_KEY"
KEY = "sk-live-Q7w9ZkX2mN4pR8tV"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)


def make_model(url, pauses=None, **changes):
    """Make an endpoint model that records its pauses and does not wait."""
    reached = {"key_variable": VARIABLE, "timeout_s": 5} | {
        name: changes.pop(name) for name in EndpointSettings.model_fields if name in changes
    }
    kept = [] if pauses is None else pauses
    return EndpointModel(
        ExplainSettings(backend="openai", **{"model": "tiny-vlm", "url": url, **changes}),
        EndpointSettings(**reached),
        {},
        pause=lambda halt, seconds: kept.append(seconds),
        rng=np.random.default_rng(7),
    )


def question(text="What is it?"):
    return Question(np.zeros((2, 3, 3), np.uint8), text)


def error_message(model, questions=None):
    with pytest.raises(BadInput) as caught:
        model.generate(questions or [question()], 0)
    return str(caught.value)


# The request


def test_a_question_is_sent_as_a_chat_with_its_picture(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY + "\n")
    stub = serve(lambda asked: completion("A polyp."))
    picture = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    model = make_model(stub.url + "/", temperature=0.5, max_tokens=123, seed=40)

    assert model.generate([Question(picture, "What is it? äß")], 2) == ["A polyp."]

    (asked,) = stub.requests
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Content-Type"] == "application/json"
    image = asked.fields["messages"][0]["content"][1]["image_url"]["url"]
    assert asked.fields == {
        "model": "tiny-vlm",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it? äß"},
                    {"type": "image_url", "image_url": {"url": image}},
                ],
            }
        ],
        "temperature": 0.5,
        "max_tokens": 123,
        "seed": 42,
    }
    head, _, data = image.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.format == "PNG"
        np.testing.assert_array_equal(np.asarray(sent), picture)


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_without_a_key_there_is_no_authorization(serve, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    stub = serve(lambda asked: completion("yes"))
    assert make_model(stub.url).generate([question()], 0) == ["yes"]
    assert "Authorization" not in stub.requests[0].headers


def test_no_questions_give_no_answers():
    assert make_model("http://127.0.0.1:9/v1").generate([], 0) == []


# Many requests


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_limits_the_requests_at_a_time(serve, concurrency):
    # Opens only when this many requests wait at the same time.
    barrier = threading.Barrier(concurrency, timeout=10)

    def answer(asked):
        barrier.wait()
        return completion(f"to {asked.text}")

    stub = serve(answer)
    texts = [f"question {i}" for i in range(4 * concurrency)]
    found = make_model(stub.url, concurrency=concurrency).generate([question(t) for t in texts], 0)
    assert found == [f"to {text}" for text in texts]
    assert stub.most == concurrency


def test_answers_keep_the_order_of_the_questions(serve):
    gate = threading.Event()

    def answer(asked):
        if asked.text == "0":
            assert gate.wait(10)
        if asked.text == "5":
            gate.set()
        return completion(f"to {asked.text}")

    stub = serve(answer)
    found = make_model(stub.url, concurrency=2).generate([question(str(i)) for i in range(6)], 0)
    assert found == [f"to {i}" for i in range(6)]


def test_no_question_is_lost_under_random_errors(serve):
    """Each question gets three tries, whose results are drawn before, so the outcome is known."""
    kinds = ["well", "error", "broken", "slow", "cut", "hung up"]
    rng = np.random.default_rng(11)
    drawn = rng.choice(kinds, size=(60, 3), p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
    status = rng.choice([429, 500, 502, 503, 504], size=(60, 3)).tolist()
    tries = dict.fromkeys(range(60), -1)

    def answer(asked):
        i = int(asked.text)
        tries[i] += 1
        kind = drawn[i, tries[i]]
        if kind == "slow":
            time.sleep(0.03)
        if kind in ("well", "slow"):
            return completion(f"to {i}")
        if kind == "error":
            return status[i][tries[i]], {"Retry-After": "1"}, error("busy")
        if kind == "hung up":
            return b""
        body = json.dumps(completion(f"to {i}")).encode()
        return 200, {} if kind == "broken" else {"Content-Length": "999"}, body[:-7]

    stub = serve(answer, quiet=True)
    # After a truncated answer the server keeps the connection open, and the client times out.
    start = time.monotonic()
    model = make_model(stub.url, concurrency=5, retries=2, timeout_s=0.5)
    found = model.generate([question(str(i)) for i in range(60)], 0)
    seconds = time.monotonic() - start

    good = np.isin(drawn, ["well", "slow"])
    expected = [f"to {i}" if good[i].any() else None for i in range(60)]
    assert [None if isinstance(text, Unanswered) else text for text in found] == expected
    # Both kinds of outcome occur.
    assert 0 < expected.count(None) < 20
    first_good = np.where(good.any(1), good.argmax(1) + 1, 3)
    assert len(stub.requests) == first_good.sum()
    assert stub.most <= 5
    assert seconds < 15


# Temporary errors


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_temporary_errors_are_retried(serve, status, caplog):
    pauses = []
    stub = serve(scripted((status, {}, error("busy")), completion("now")))
    with caplog.at_level(logging.INFO, "stages"):
        assert make_model(stub.url, pauses).generate([question()], 0) == ["now"]
    assert len(stub.requests) == 2
    assert len(pauses) == 1
    said = json.dumps({"error": {"message": "busy"}})
    assert caplog.messages == [f"HTTP {status}: {said}; retrying in {pauses[0]:.1f} s"]


def test_pauses_double_up_to_a_minute_and_are_drawn_from_their_upper_half(serve):
    stub = serve(lambda asked: (503, {}, b"down for repair.\r\n"))
    pauses, again = [], []
    (found,) = make_model(stub.url, pauses, retries=8).generate([question()], 0)
    assert found == Unanswered("HTTP 503: down for repair (tried 9 times)")
    assert len(stub.requests) == 9
    longest = np.array([1, 2, 4, 8, 16, 32, 60, 60])
    shares = np.array(pauses) / longest
    assert ((shares >= 0.5) & (shares <= 1)).all()
    assert np.ptp(shares) > 0.1
    make_model(stub.url, again, retries=8).generate([question()], 0)
    assert again == pauses
    (once,) = make_model(stub.url, again, retries=0).generate([question()], 0)
    assert once.reason.endswith("(tried 1 times)")
    assert len(stub.requests) == 19


def test_parallel_questions_pause_differently(serve):
    stub = serve(lambda asked: (503, {}, b"busy"))
    pauses = []
    make_model(stub.url, pauses, retries=1).generate([question()] * 8, 0)
    assert len(set(pauses)) == 8


@pytest.mark.parametrize(
    ("stated", "least", "most"),
    [
        ("7", 7, 8),
        ("1.5", 1.5, 2.5),
        # No longer than the usual pause: 0.5 to 1 s.
        ("0", 0.5, 1),
        ("soon", 0.5, 1),
        ("-3", 0.5, 1),
        ("nan", 0.5, 1),
        ("inf", 0.5, 1),
        ("in 30 s", 27, 31),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.5, 1),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.5, 1),
    ],
)
def test_the_retry_after_header_sets_the_pause(serve, stated, least, most):
    if stated == "in 30 s":
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
        stated = format_datetime(later, usegmt=True)
    stub = serve(scripted((429, {"Retry-After": stated}, b"slowly"), completion("now")))
    pauses = []
    assert make_model(stub.url, pauses).generate([question()], 0) == ["now"]
    assert len(pauses) == 1
    assert least <= pauses[0] <= most


@settings(max_examples=300)
@given(st.none() | st.text(max_size=40) | st.from_regex(r"\w{3}, \d+ (Jan|Feb) \d+ \d+:\d+:\d+ .*"))
@example("Wed, 21 Oct 99999 07:28:00 GMT")
@example("1e999")
@example("Wed, 1 Jan 2025 0:3000000000:0 GMT")
def test_any_retry_after_header_gives_a_finite_time(header):
    seconds = connection.parse_retry_after(header)
    assert 0 <= seconds < float("inf")


def test_a_retry_after_above_ten_minutes_fails_at_once(serve):
    stub = serve(lambda asked: (429, {"Retry-After": "3600"}, b"daily limit"))
    pauses = []
    assert make_model(stub.url, pauses).generate([question()], 0) == [
        Unanswered(
            "HTTP 429: daily limit; the endpoint asks for a wait of 3600 s, and the longest "
            "allowed wait is 600 s"
        )
    ]
    assert pauses == []
    assert len(stub.requests) == 1


def test_a_silent_endpoint_times_out(serve):
    over = threading.Event()

    def answer(asked):
        over.wait(10)
        return completion("too late")

    stub = serve(answer)
    start = time.monotonic()
    found = make_model(stub.url, timeout_s=0.2, retries=1).generate([question()], 0)
    seconds = time.monotonic() - start
    over.set()
    assert found == [Unanswered("no answer within 0.2 s (tried 2 times)")]
    assert 0.4 <= seconds < 5
    assert len(stub.requests) == 2


def test_a_slowly_dripping_answer_times_out():
    """Each byte arrives within the time-out, but the whole answer does not."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        line, _ = listener.accept()
        with line:
            line.recv(1 << 16)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
            for _ in range(100):
                try:
                    line.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.05)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    start = time.monotonic()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    found = make_model(url, timeout_s=0.3, retries=0).generate([question()], 0)
    seconds = time.monotonic() - start
    thread.join(5)
    listener.close()
    assert found == [Unanswered("no answer within 0.3 s (tried 1 times)")]
    assert 0.3 <= seconds < 3


def test_a_closed_connection_is_retried(serve):
    stub = serve(lambda asked: b"", quiet=True)
    found = make_model(stub.url, retries=1).generate([question()], 0)
    assert found == [
        Unanswered(
            "the connection was lost: Server disconnected without sending a response "
            "(tried 2 times)"
        )
    ]
    assert len(stub.requests) == 2


def test_a_compressed_answer_is_read(serve):
    body = gzip.compress(json.dumps(completion("A polyp.")).encode())
    stub = serve(lambda asked: (200, {"Content-Encoding": "gzip"}, body))
    assert make_model(stub.url).generate([question()], 0) == ["A polyp."]
    assert stub.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_too_large_answer_fails(serve, monkeypatch):
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1_000_000)
    stub = serve(lambda asked: (200, {}, b" " * 3_000_000))
    found = make_model(stub.url, retries=0).generate([question()], 0)
    assert found == [Unanswered("the answer is larger than 1 MB (tried 1 times)")]


# What an answer says


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "(empty)"),
        (b"{", "{"),
        (b'{"choices": [{"mess', '{"choices": [{"mess'),
        (b"[" * 100_000, "[" * 300),
        (b"<html>\n  <b>Gateway</b>\n</html>", "<html> <b>Gateway</b> </html>"),
        (b'{"error": "no\x1b[31m memory"}', '{"error": "no [31m memory"}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 5000, "x" * 300),
    ],
)
def test_an_answer_that_is_not_json_is_retried(serve, body, said):
    stub = serve(lambda asked: (200, {}, body))
    found = make_model(stub.url, retries=1).generate([question()], 0)
    assert found == [Unanswered(f"the answer is not JSON: {said} (tried 2 times)")]
    assert len(stub.requests) == 2
    stub.answer = lambda asked: completion("now")
    assert make_model(stub.url, retries=1).generate([question()], 0) == ["now"]


@pytest.mark.parametrize(
    "body",
    [
        "null",
        "[]",
        "{}",
        '"text"',
        '{"choices": []}',
        '{"choices": [{}]}',
        '{"choices": "none"}',
        '{"choices": [{"message": {"content": 12}}]}',
        '{"choices": [{"message": {"content": {"Location": "upper left"}}}]}',
        '{"choices": [{"message": {"content": [{"type": "text"}]}}]}',
        '{"error": {"message": "no memory"}}',
        '{"error": "no memory"}',
    ],
)
def test_json_that_is_not_a_chat_completion_is_not_sent_again(serve, body):
    stub = serve(lambda asked: (200, {}, body.encode()))
    found = make_model(stub.url).generate([question()], 0)
    assert found == [Unanswered(f"the answer is not a chat completion: {body}")]
    assert len(stub.requests) == 1


@pytest.mark.parametrize("code", [429, "503", 502])
def test_an_error_that_came_with_status_200_is_treated_by_its_own_status(serve, code):
    failed = {"error": {"message": "Provider busy", "code": code}}
    stub = serve(scripted(failed, completion("now")))
    assert make_model(stub.url).generate([question()], 0) == ["now"]
    assert len(stub.requests) == 2
    stub = serve(lambda asked: {"error": {"message": "no credit", "code": 402}})
    assert f"{stub.url}/chat/completions: HTTP 402\n" in error_message(make_model(stub.url))


def test_a_text_that_cannot_be_encoded_is_returned(serve):
    stub = serve(lambda asked: completion("\ud800"))
    assert make_model(stub.url).generate([question()], 0) == ["\ud800"]


def test_reasons_and_texts_of_unusable_answers_are_cleaned(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    stub = serve(lambda asked: completion(f"Half {KEY}", end=f"error\n{KEY}"))
    assert make_model(stub.url).generate([question()], 0) == [
        Unanswered(
            "the endpoint broke the answer off (finish_reason error [key])",
            "Half [key]",
            ask_again=True,
        )
    ]
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("reported", "revision"),
    [
        ([{}], ""),
        ([{"model": None, "system_fingerprint": None}], ""),
        ([{"model": "tiny-vlm"}], ""),
        ([{"model": "tiny-vlm-2026-01-09"}], "tiny-vlm-2026-01-09"),
        ([{"model": "tiny-vlm", "system_fingerprint": "fp_1"}], "fp_1"),
        ([{"model": "b", "system_fingerprint": "fp_1"}], "b fp_1"),
        ([{"model": "b"}, {"model": "a"}, {"model": "b"}, {}], "a b"),
        ([{"model": "b", "system_fingerprint": f"fp_{i}"} for i in (2, 1, 2)], "b fp_1 fp_2"),
    ],
)
def test_the_revision_is_what_the_endpoint_reports(serve, reported, revision):
    stub = serve(scripted(*[completion("a", **beside) for beside in reported]))
    model = make_model(stub.url)
    assert (model.name, model.revision) == ("tiny-vlm", "")
    for attempt in range(len(reported)):
        model.generate([question()], attempt)
    assert (model.name, model.revision) == ("tiny-vlm", revision)


# Errors that concern all questions


def test_a_missing_server_raises():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pauses = []
    assert error_message(make_model(f"http://127.0.0.1:{port}/v1", pauses, retries=2)) == (
        f"http://127.0.0.1:{port}/v1/chat/completions: connection\n"
        "  found:    no connection: [Errno 111] Connection refused\n"
        "  expected: an endpoint that the job can reach\n"
        "  to mend:  start the server, correct explain.url, or set the environment variable "
        "https_proxy if https needs a proxy"
    )
    assert len(pauses) == 2


def test_a_server_may_start_late(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    model = make_model(f"http://127.0.0.1:{port}/v1")

    def start(halt, seconds):
        server = Server(("127.0.0.1", port), Handler)
        server.stub = SimpleNamespace(
            answer=lambda asked: completion("here"),
            requests=[],
            running=0,
            most=0,
            lock=threading.Lock(),
        )
        threading.Thread(target=server.handle_request, daemon=True).start()
        model._pause = lambda halt, seconds: None

    model._pause = start
    assert model.generate([question()], 0) == ["here"]


REFUSALS = {
    (401, True): (
        f"a key that the endpoint refuses (environment variable {VARIABLE})",
        f"the endpoint's key in the environment variable {VARIABLE}",
        f"set {VARIABLE} where the job runs, or correct endpoint.key_variable",
    ),
    (401, False): (
        f"no key: the environment variable {VARIABLE} is unset or empty",
        f"the endpoint's key in the environment variable {VARIABLE}",
        f"set {VARIABLE} where the job runs, or correct endpoint.key_variable",
    ),
    (403, True): (
        f"a key that the endpoint refuses (environment variable {VARIABLE}); it says: not so",
        f"the endpoint's key in the environment variable {VARIABLE}",
        f"set {VARIABLE} where the job runs, or correct endpoint.key_variable",
    ),
    (404, True): (
        "not so",
        "chat completions at this address, and a model named 'tiny-vlm'",
        "correct explain.url (the base address, without /chat/completions) or explain.model",
    ),
    **{
        (status, True): (
            "not so",
            "an endpoint that accepts the request for the model 'tiny-vlm'",
            "follow the endpoint's message, and correct the settings under explain; names "
            "renames fields of the request or leaves them out",
        )
        for status in (400, 402, 405, 413, 415, 422)
    },
}


@pytest.mark.parametrize(("status", "with_key"), REFUSALS)
def test_a_refusal_of_all_questions_raises(serve, monkeypatch, status, with_key):
    if with_key:
        monkeypatch.setenv(VARIABLE, KEY)
    stub = serve(lambda asked: (status, {}, b"not so.\n"))
    found, expected, mend = REFUSALS[status, with_key]
    assert error_message(make_model(stub.url)) == (
        f"{stub.url}/chat/completions: HTTP {status}\n"
        f"  found:    {found}\n  expected: {expected}\n  to mend:  {mend}"
    )
    assert len(stub.requests) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 415])
def test_a_permanent_error_raises_even_after_answers(serve, status):
    stub = serve(scripted(completion("a"), (status, {}, b"no longer")))
    model = make_model(stub.url)
    assert model.generate([question()], 0) == ["a"]
    assert error_message(model).startswith(f"{stub.url}/chat/completions: HTTP {status}\n")


def test_a_used_up_quota_is_not_retried(serve):
    said = error("You exceeded your quota", code="insufficient_quota")
    stub = serve(lambda asked: (429, {}, said))
    message = error_message(make_model(stub.url))
    assert message.startswith(f"{stub.url}/chat/completions: HTTP 429\n  found:    {said.decode()}")
    assert len(stub.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_one_question_does_not_affect_the_others(serve, status):
    def answer(asked):
        if asked.text == "refused":
            return status, {}, error("picture too large")
        return completion(f"to {asked.text}")

    refused = Unanswered(
        f'the endpoint refuses the request (HTTP {status}): {{"error": {{"message": "picture too '
        'large"}}'
    )
    stub = serve(answer)
    model = make_model(stub.url, concurrency=1)
    texts = ["refused", "a", "refused", "b"]
    assert model.generate([question(t) for t in texts], 0) == [refused, "to a", refused, "to b"]
    # The endpoint answered others with the same settings, so this question is the cause.
    assert model.generate([question("refused")], 1) == [refused]
    assert "HTTP" in error_message(make_model(stub.url), [question("refused")] * 2)


@pytest.mark.parametrize(
    "code", ["content_filter", "content_policy_violation", "InputImageSensitiveContentDetected"]
)
def test_a_content_filter_refuses_one_question(serve, code):
    stub = serve(lambda asked: (400, {}, error("no", code=code)))
    (found,) = make_model(stub.url).generate([question()], 0)
    said = error("no", code=code).decode()
    assert found == Unanswered(f"the endpoint's content filter refuses the request: {said}")


def test_an_error_for_all_questions_stops_them_at_once(serve):
    """One question waits, many have not started, and then the endpoint refuses the key."""
    asked_first = threading.Event()

    def answer(asked):
        if asked.text == "0":
            asked_first.set()
            return 503, {"Retry-After": "500"}, b"busy"
        assert asked_first.wait(10)
        time.sleep(0.1)
        return 401, {}, b""

    stub = serve(answer)
    stated = {"backend": "openai", "model": "m", "url": stub.url}
    reached = EndpointSettings(key_variable=VARIABLE, concurrency=2)
    model = EndpointModel(ExplainSettings(**stated), reached, {})
    start = time.monotonic()
    message = error_message(model, [question(str(i)) for i in range(40)])
    assert time.monotonic() - start < 5
    assert "HTTP 401" in message
    assert len(stub.requests) < 6


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_neither_key_nor_image_follows_a_redirect(serve, monkeypatch, status):
    monkeypatch.setenv(VARIABLE, KEY)
    other = serve(lambda asked: completion("caught"))
    target = f"{other.url}/chat/completions"
    stub = serve(lambda asked: (status, {"Location": target}, b""))
    assert error_message(make_model(stub.url)) == (
        f"{stub.url}/chat/completions: HTTP {status}\n"
        f"  found:    a redirect to {target}\n"
        "  expected: an address without a redirect: no key and no image goes to another host\n"
        "  to mend:  set explain.url to the endpoint's own base address, if you trust it"
    )
    assert other.requests == []
    assert len(stub.requests) == 1


# The address, the key and the connection


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("localhost:8000/v1", "an address without http:// or https:// and a host"),
        ("file:///etc/hosts", "an address without http:// or https:// and a host"),
        ("http:///v1", "an address without http:// or https:// and a host"),
        ("http://host/v 1", "a space, a line break or a character outside ASCII"),
        ("http://host/v1\r\nX: y", "a space, a line break or a character outside ASCII"),
        ("http://höst/v1", "a space, a line break or a character outside ASCII"),
        (f"http://user:{KEY}@host/v1", "an address with a user name or a password"),
        (f"http://host/v1?key={KEY}", "an address with ? or #"),
        (f"http://host:{KEY}/v1", "a host or a port that cannot be parsed"),
        ("http://host:99999/v1", "a host or a port that cannot be parsed"),
        ("http://host:0/v1", "the port 0"),
        ("http://[::1/v1", "a host or a port that cannot be parsed"),
    ],
)
def test_an_invalid_address_raises_without_quoting_it(url, found):
    with pytest.raises(BadInput) as caught:
        make_model(url)
    assert str(caught.value) == (
        "config.yaml: explain.url\n"
        f"  found:    {found}\n"
        "  expected: the endpoint's base address, such as http://localhost:8000/v1\n"
        "  to mend:  correct explain.url; put a key into the environment variable that "
        "endpoint.key_variable names"
    )
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", ["sk-1234 5678", "sk-1234\n5678", "sk-1234ä5678"])
def test_a_key_that_cannot_be_a_header_is_not_shown(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(BadInput) as caught:
        make_model("http://localhost:1/v1")
    assert str(caught.value) == (
        f"environment variable {VARIABLE}: value\n"
        "  found:    a space, a line break or a character outside ASCII (the value is not shown)\n"
        "  expected: a key as the endpoint's provider issued it\n"
        f"  to mend:  set {VARIABLE} to the key and nothing else"
    )
    assert "1234" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://localhost:8000/v1", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("https://api.example.org/v1", False),
        ("http://node7:8000/v1", True),
    ],
)
def test_unencrypted_images_log_a_warning(caplog, url, warned):
    make_model(url)
    message = "explain.url is http: the images go to node7:8000 unencrypted"
    assert caplog.messages == [message] * warned


def echoes(text):
    """Return answers that repeat `text` in each place that can reach a message, a log or a file."""
    content = completion(text, model=text, system_fingerprint=text)
    refusal = {"choices": [{"message": {"content": None, "refusal": text}}], "model": text}
    return [
        content,
        refusal,
        *[(status, {}, error(text)) for status in (400, 401, 402, 403, 404, 429, 500)],
        (429, {}, error(text, code="insufficient_quota")),
        (400, {}, error(text, code="content_filter")),
        (302, {"Location": f"http://127.0.0.1:9/{text}"}, b""),
        (200, {}, text.encode()),
        (200, {}, ("x" * 290 + text).encode()),
        text.encode() + b"\r\n\r\n",
        b"HTTP/1.1 " + text.encode() + b"\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}\r\n".encode(),
        (503, {"Retry-After": text}, b""),
    ]


@pytest.mark.parametrize("part", [KEY, f"Bearer {KEY}", KEY[:10] + "...", KEY[-9:], KEY * 2])
@pytest.mark.parametrize("which", range(len(echoes(""))))
def test_the_key_appears_only_in_its_header(serve, monkeypatch, caplog, capfd, part, which):
    monkeypatch.setenv(VARIABLE, KEY)
    answer = echoes(part)[which]
    stub = serve(lambda asked: answer, quiet=True)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_S", 0)
    stated = {"backend": "openai", "model": "m", "url": stub.url}
    prompt = next((ROOT / "workflow/prompts").glob("*.yaml"))
    setting = ExplainSettings(**stated, attempts=2)
    reached = EndpointSettings(key_variable=VARIABLE, retries=1)
    regions = np.zeros((2, 70, 70), np.uint8)
    regions[:, 20:40, 20:40] = 1
    sample = Sample("a", np.zeros((70, 70, 3), np.uint8), np.ones((70, 70)), regions)
    written = []
    with caplog.at_level(logging.DEBUG):
        describer = endpoint.make(Setup(setting, reached, prompt, None, threads=1, gpus=0))
        try:
            written += [answer.model_dump_json() for answer in describer.describe([sample])]
        except BadInput as problem:
            written += traceback.format_exception(problem)
        written += [describer._model.revision, repr(describer), repr(describer._model)]
        written.append(setting.model_dump_json())
    captured = capfd.readouterr()
    everything = "\n".join([*written, caplog.text, captured.out, captured.err])
    assert {asked.headers["Authorization"] for asked in stub.requests} == {f"Bearer {KEY}"}
    runs = {KEY[i : i + 8] for i in range(len(KEY) - 7)}
    assert [run for run in runs if run in everything] == []
    # The searched text is not empty: it names the endpoint.
    assert stub.url in everything


@pytest.mark.parametrize("stand_in", ["EMPTY", "ollama", "none"])
def test_a_placeholder_key_may_occur_in_answers(serve, monkeypatch, stand_in):
    monkeypatch.setenv(VARIABLE, stand_in)
    stub = serve(lambda asked: completion(f"Remarks: {stand_in}"))
    assert make_model(stub.url).generate([question()], 0) == [f"Remarks: {stand_in}"]
    assert stub.requests[0].headers["Authorization"] == f"Bearer {stand_in}"


PIECES = st.lists(
    st.text(st.characters(exclude_characters=KEY), max_size=5)
    | st.tuples(st.integers(0, len(KEY)), st.integers(0, len(KEY))).map(
        lambda ends: KEY[min(ends) : max(ends)]
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def keyed_connection():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        return connection.Connection("https://host/v1", "", VARIABLE, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a {KEY} b", "a [key] b"),
        (f"{KEY}{KEY}", "[key]"),
        (f"{KEY[:8]}***{KEY[-9:]}", "[key]***[key]"),
        (f"{KEY[:7]}***", f"{KEY[:7]}***"),
        ("", ""),
    ],
)
def test_the_key_is_redacted(keyed_connection, text, expected):
    assert keyed_connection.redact(text) == expected


@settings(max_examples=300)
@given(pieces=PIECES)
def test_no_part_of_the_key_survives_redaction(keyed_connection, pieces):
    text = "".join(pieces)
    found = keyed_connection.redact(text)
    runs = [KEY[i : i + 8] for i in range(len(KEY) - 7)]
    assert not any(run in found for run in runs)
    if not any(run in text for run in runs):
        assert found == text
    # The rest of the text is kept, in its order.
    around = ".*".join(re.escape(part) for part in found.split("[key]"))
    assert re.fullmatch(around, text, re.DOTALL)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A PEM file with a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("certificate") / "self_signed.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


def test_an_untrusted_certificate_raises(serve, monkeypatch, certificate):
    monkeypatch.setenv(VARIABLE, KEY)
    stub = serve(lambda asked: completion("caught"), certificate, quiet=True)
    pauses = []
    assert error_message(make_model(stub.url, pauses)) == (
        f"{stub.url}/chat/completions: certificate\n"
        "  found:    self-signed certificate\n"
        "  expected: a certificate of a trusted authority for this host\n"
        "  to mend:  set the environment variable SSL_CERT_FILE to a PEM file with your "
        "authority's certificate, or correct explain.url"
    )
    assert stub.requests == []
    assert pauses == []


def test_a_certificate_of_a_custom_authority_is_accepted(serve, monkeypatch, certificate):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    stub = serve(lambda asked: completion("safely"), certificate, quiet=True)
    assert make_model(stub.url).generate([question()], 0) == ["safely"]


def test_an_unencrypted_request_goes_through_no_proxy(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    proxy = serve(lambda asked: completion("caught"))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("all_proxy", proxy.url)
    stub = serve(lambda asked: completion("directly"))
    assert make_model(stub.url).generate([question()], 0) == ["directly"]
    assert proxy.requests == []


@pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "ftp://proxy", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_value(monkeypatch, proxy):
    monkeypatch.setenv("https_proxy", f"{proxy}/{KEY}")
    with pytest.raises(BadInput) as caught:
        make_model("https://api.example.org/v1")
    assert str(caught.value) == (
        "environment variables https_proxy, all_proxy and no_proxy: value\n"
        "  found:    a proxy that cannot be used (the value is not shown)\n"
        "  expected: an HTTP proxy, such as http://proxy:3128\n"
        "  to mend:  correct or unset them where the job runs"
    )
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("listed", ["*", "127.0.0.1", "localhost,127.0.0.1"])
def test_a_host_of_no_proxy_is_reached_directly(serve, monkeypatch, certificate, listed):
    proxy = serve(lambda asked: completion("caught"))
    monkeypatch.setenv("https_proxy", proxy.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", listed)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    stub = serve(lambda asked: completion("directly"), certificate)
    assert make_model(stub.url).generate([question()], 0) == ["directly"]
    assert proxy.requests == []


def test_a_proxy_for_https_sees_the_host_and_no_key(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    proxy = serve(lambda asked: completion("caught"))
    monkeypatch.setenv("https_proxy", proxy.url.removesuffix("/v1"))
    message = error_message(make_model("https://api.example.org/v1", retries=0))
    assert "found:    no connection through the proxy: 403 Forbidden" in message
    (asked,) = proxy.requests
    assert asked.path == "api.example.org:443"
    assert "Authorization" not in asked.headers
