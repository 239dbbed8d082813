"""The connection to an HTTP endpoint: its address, its key, and its errors."""

import logging
import math
import os
import re
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import groupby
from urllib.parse import urlsplit

import httpx2
import numpy as np

from stages.core.cli import BadInput, log

# Far more than any answer: a wrong address may start an endless download.
MAX_ANSWER_BYTES = 10_000_000  # bytes
# Shorter keys are not secret: local servers ask for a placeholder such as "ollama".
_MIN_SECRET_CHARS = 8
# The client's own log names each request, and words of the endpoint that may contain the key.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class RetryableError(Exception):
    """A request failed, but may succeed if it is sent again.

    Attributes
    ----------
    retry_after
        How long the endpoint asks the client to wait, s.
    connected
        False if the client could not even connect.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0, connected: bool = True) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.connected = connected


def _check_url(url: str) -> str:
    """Return the URL without a final slash. Errors do not quote it: it may contain a secret."""
    found = ""
    try:
        parts = urlsplit(url)
        if not re.fullmatch("[!-~]+", url):
            found = "a space, a line break or a character outside ASCII"
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            found = "an address without http:// or https:// and a host"
        elif "@" in parts.netloc:
            found = "an address with a user name or a password"
        elif parts.query or parts.fragment:
            found = "an address with ? or #"
        elif parts.port == 0:
            found = "the port 0"
    except ValueError:
        found = "a host or a port that cannot be parsed"
    if found:
        raise BadInput(
            "config.yaml",
            "explain.url",
            found=found,
            expected="the endpoint's base address, such as http://localhost:8000/v1",
            mend="correct explain.url; put a key into the environment variable that "
            "endpoint.key_variable names",
        )
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("explain.url is http: the images go to %s unencrypted", parts.netloc)
    return url.rstrip("/")


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise BadInput(
            f"environment variable {variable}",
            "value",
            found="a space, a line break or a character outside ASCII (the value is not shown)",
            expected="a key as the endpoint's provider issued it",
            mend=f"set {variable} to the key and nothing else",
        )
    return key


def _make_client(headers: dict[str, str], timeout_s: float, encrypted: bool) -> httpx2.Client:
    """Return a client that checks certificates and follows no redirect.

    For https it uses the proxy of the environment (https_proxy, no_proxy), which cannot read the
    encrypted data. For http it uses no proxy, because the proxy would see the key and the images.
    """
    try:
        return httpx2.Client(
            headers=headers,
            timeout=timeout_s,
            # The caller limits the requests at a time.
            limits=httpx2.Limits(max_connections=None),
            verify=ssl.create_default_context(),
            trust_env=encrypted,
        )
    except (ValueError, ImportError, httpx2.InvalidURL):
        raise BadInput(
            "environment variables https_proxy, all_proxy and no_proxy",
            "value",
            found="a proxy that cannot be used (the value is not shown)",
            expected="an HTTP proxy, such as http://proxy:3128",
            mend="correct or unset them where the job runs",
        ) from None


def parse_retry_after(header: str | None) -> float:
    """Return the seconds that the header Retry-After asks to wait, 0 if it cannot be parsed.

    The header is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            when = parsedate_to_datetime(str(header))
        except (ValueError, OverflowError):
            return 0.0
        # A date with "-0000" has no time zone, and is in UTC.
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _read_body(response: httpx2.Response, deadline: float) -> bytes:
    """Read the body in pieces, because the client's time-out restarts with each of them."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if time.monotonic() > deadline:
            raise httpx2.ReadTimeout("")
        if len(body) > MAX_ANSWER_BYTES:
            raise RetryableError(f"the answer is larger than {MAX_ANSWER_BYTES // 1_000_000} MB")
    return bytes(body)


class Connection:
    """Sends requests to one address; several threads may use it at the same time.

    The key comes from an environment variable and is only sent in the header Authorization; without
    a key this header is not sent. Redirects are not followed, so that neither the key nor an image
    reaches another host.

    Attributes
    ----------
    address
        The address of the requests.
    has_key
        Whether the environment variable holds a key.

    Raises
    ------
    BadInput
        The URL or the key cannot be used.
    """

    def __init__(self, url: str, path: str, key_variable: str, timeout_s: float) -> None:
        self.address = _check_url(url) + path
        self._key = _read_key(key_variable)
        self.has_key = bool(self._key)
        self._timeout_s = timeout_s
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # A small compressed answer may become an endless one.
            "Accept-Encoding": "identity",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = _make_client(headers, timeout_s, urlsplit(url).scheme == "https")

    def post(self, body: bytes) -> httpx2.Response:
        """Send JSON and return the complete reply, whatever its status.

        Raises
        ------
        RetryableError
            No connection, a lost connection, or no complete answer in time. The limit is
            `timeout_s`, and twice that if the endpoint stops in the middle of its answer.
        BadInput
            The certificate is not trusted.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._client.stream("POST", self.address, content=body) as response:
                answer = _read_body(response, deadline)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            if match := re.search(r"certificate verify failed: (.+?)(?: \(_ssl|$)", str(error)):
                raise self._certificate_error(match[1]) from None
            via = " through the proxy" if isinstance(error, httpx2.ProxyError) else ""
            reason = f"no connection{via}: {self.clean_message(str(error))}"
            raise RetryableError(reason, connected=False) from None
        except httpx2.TimeoutException:
            raise RetryableError(f"no answer within {self._timeout_s:g} s") from None
        except httpx2.RequestError as error:
            raise RetryableError(
                f"the connection was lost: {self.clean_message(str(error))}"
            ) from None
        # The content is decoded already.
        response.headers.pop("Content-Encoding", None)
        return httpx2.Response(response.status_code, headers=response.headers, content=answer)

    def _certificate_error(self, found: str) -> BadInput:
        return BadInput(
            self.address,
            "certificate",
            found=found,
            expected="a certificate of a trusted authority for this host",
            mend="set the environment variable SSL_CERT_FILE to a PEM file with your "
            "authority's certificate, or correct explain.url",
        )

    def redact(self, text: str) -> str:
        """Replace each run of 8 or more characters of the key, as a text may hold parts of it."""
        size = _MIN_SECRET_CHARS
        runs = {self._key[i : i + size] for i in range(len(self._key) - size + 1)}
        if not any(run in text for run in runs):
            return text
        hidden = np.zeros(len(text), bool)
        for i in range(len(text) - size + 1):
            hidden[i : i + size] |= text[i : i + size] in runs
        parts = groupby(zip(text, hidden.tolist()), key=lambda pair: pair[1])
        return "".join("[key]" if key else "".join(c for c, _ in part) for key, part in parts)

    def clean_message(self, text: str) -> str:
        """Clean a text of the endpoint for a message: one line of at most 300 characters."""
        printable = "".join(c if c.isprintable() else " " for c in self.redact(text))
        return (" ".join(printable.split())[:300]).rstrip(". ") or "(empty)"
