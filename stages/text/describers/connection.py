"""The line to an HTTP endpoint: where it leads, which key it carries, what may fail on it."""

import http.client
import math
import os
import re
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import NamedTuple
from urllib import request
from urllib.error import URLError
from urllib.parse import urlsplit

import numpy as np

from stages.core.cli import BadInput, log

# Far more than any answer; a wrong address may lead to a download without end.
LARGEST_ANSWER = 10_000_000  # bytes
# Shorter keys are the stand-ins that local servers want, such as "ollama".
_SHORTEST_SECRET = 8


class NotNow(Exception):
    """A request came to nothing, and may succeed when it is sent again.

    Attributes
    ----------
    after
        How long the endpoint asks to wait, s.
    reached
        False where not even a connection came about.
    """

    def __init__(self, reason: str, *, after: float = 0.0, reached: bool = True) -> None:
        super().__init__(reason)
        self.after = after
        self.reached = reached


class Reply(NamedTuple):
    """What came back.

    Attributes
    ----------
    after
        How long the endpoint asks to wait (Retry-After), s; 0 where it does not.
    location
        Where it redirects to; empty where it does not.
    """

    status: int
    body: bytes
    after: float
    location: str


def _check_url(url: str) -> str:
    """Return the URL without a slash at its end. It may hold a secret, and is not quoted."""
    found = ""
    try:
        parts = urlsplit(url)
        if not re.fullmatch("[!-~]+", url):
            found = "a space, a line break or a letter beyond ASCII in it"
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            found = "no address that begins with http:// or https:// and a host"
        elif "@" in parts.netloc:
            found = "a user name or a password in it"
        elif parts.query or parts.fragment:
            found = "a ? or a # in it"
        elif parts.port == 0:
            found = "the port 0"
    except ValueError:
        found = "a host or a port that cannot be read"
    if found:
        raise BadInput(
            "config.yaml",
            "explain.url",
            found=found,
            expected="the endpoint's base address, such as http://localhost:8000/v1",
            mend="correct explain.url; a key belongs into the environment variable that "
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
            found="a space, a line break or a letter beyond ASCII in it (it is not shown)",
            expected="a key as the endpoint's provider gave it out",
            mend=f"set {variable} to the key alone",
        )
    return key


def _make_opener() -> request.OpenerDirector:
    """Make a client that checks certificates and follows no redirect.

    A proxy is used as the environment says (https_proxy, no_proxy), for https alone: there, it
    passes on what it cannot read, while with http it would see the key and the images.
    """
    proxies = {name: proxy for name, proxy in request.getproxies().items() if name == "https"}
    opener = request.OpenerDirector()
    opener.add_handler(request.ProxyHandler(proxies))
    opener.add_handler(request.HTTPHandler())
    opener.add_handler(request.HTTPSHandler(context=ssl.create_default_context()))
    return opener


def _retry_after(header: str | None) -> float:
    """Seconds that the header Retry-After asks to wait, 0 where it says nothing that can be read.

    It is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            when = parsedate_to_datetime(str(header))
        except (ValueError, OverflowError):
            return 0.0
        # A date in "-0000" has no zone, and is in UTC.
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Read the body, piece by piece: the socket's time-out starts anew with each byte."""
    body = b""
    while piece := response.read1(1 << 16):
        body += piece
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(body) > LARGEST_ANSWER:
            raise NotNow(f"the answer is larger than {LARGEST_ANSWER // 1_000_000} MB")
    return body


class Connection:
    """Sends one request after the other to an address, from as many threads as one likes.

    The key is read from an environment variable and goes nowhere but into the header
    Authorization; without a key there is no such header. No redirect is followed, so that neither
    the key nor an image reaches another host.

    Attributes
    ----------
    address
        Where requests go to.
    has_key
        Whether there is a key.

    Raises
    ------
    BadInput
        The URL or the key cannot be used.
    """

    def __init__(self, url: str, path: str, key_variable: str, timeout_s: float) -> None:
        self.address = _check_url(url) + path
        self._key = _read_key(key_variable)
        self.has_key = bool(self._key)
        self._opener = _make_opener()
        self._timeout_s = timeout_s

    def post(self, body: bytes) -> Reply:
        """Send JSON and return what comes back, whatever its status.

        Raises
        ------
        NotNow
            No connection, a broken one, or no full answer in time: a request may take `timeout_s`,
            and twice that if the endpoint falls silent in the middle of its answer.
        BadInput
            The certificate is not trusted.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        deadline = time.monotonic() + self._timeout_s
        try:
            sent = request.Request(self.address, body, headers)
            with self._opener.open(sent, timeout=self._timeout_s) as response:
                answer = _read(response, deadline)
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise self._untrusted(error.reason) from None
            # Then the server was there, and hung up while it was sent the request.
            reached = isinstance(error.reason, ConnectionResetError | BrokenPipeError)
            reason = f"no connection: {self.clean(str(error.reason))}"
            raise NotNow(reason, reached=reached) from None
        except TimeoutError:
            raise NotNow(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise NotNow(f"the connection broke off: {self.clean(str(error))}") from None
        said = response.headers
        location = said["Location"] or ""
        return Reply(response.status, answer, _retry_after(said["Retry-After"]), location)

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> BadInput:
        return BadInput(
            self.address,
            "certificate",
            found=error.verify_message,
            expected="a certificate of a trusted authority for this host",
            mend="name a PEM file with your authority's certificate in the environment variable "
            "SSL_CERT_FILE, or correct explain.url",
        )

    def redact(self, text: str) -> str:
        """Blot out each run of 8 or more characters of the key, which may be repeated in part."""
        size = _SHORTEST_SECRET
        runs = {self._key[i : i + size] for i in range(len(self._key) - size + 1)}
        if not any(run in text for run in runs):
            return text
        hidden = np.zeros(len(text), bool)
        for i in range(len(text) - size + 1):
            hidden[i : i + size] |= text[i : i + size] in runs
        parts = groupby(zip(text, hidden.tolist()), key=lambda pair: pair[1])
        return "".join("[key]" if key else "".join(c for c, _ in part) for key, part in parts)

    def clean(self, text: str) -> str:
        """Make what an endpoint says fit for a message: one line, of at most 300 characters."""
        printable = "".join(c if c.isprintable() else " " for c in self.redact(text))
        return (" ".join(printable.split())[:300]).rstrip(". ") or "nothing"
