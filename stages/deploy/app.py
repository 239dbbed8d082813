"""A local page: drop images, see and take away their masks, probability, uncertainty and gaze.

The server listens on loopback only. Its address contains a random word, without which it answers
nothing: neither to other users of the machine nor to other pages in the same browser.
"""

import json
import re
import secrets
import shutil
import signal
import tempfile
import threading
import webbrowser
import zipfile
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from stages.core import cli
from stages.core.cli import BadInput, describe_system_error, log
from stages.core.contents import is_hidden
from stages.deploy.case import Case, Stopped
from stages.deploy.segment import Format, check_options, load_students
from stages.evaluation.predict import BATCH_SIZE
from stages.settings.gaze import GazeSettings

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("app.html")
# Largest upload, and largest list of its files, bytes.
MAX_BYTES = 2 * 1024**3
MAX_HEADER = 1024**2
CHUNK = 1024**2
# A connection that is silent for so long is closed, s.
TIMEOUT = 60
# Inline script and style of our own page, marked with a random word; all else only from here.
CSP = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _File(BaseModel):
    """Name and size, bytes, of an uploaded file."""

    model_config = ConfigDict(extra="forbid")
    name: str
    size: NonNegativeInt


class _Upload(BaseModel):
    """The first line of an upload, as JSON. The contents of its files follow, one after another.

    Attributes
    ----------
    format
        As for `segment`.
    settings
        The settings of a recording, in YAML.
    """

    model_config = ConfigDict(extra="forbid")
    files: list[_File]
    format: Format = "source"
    settings: str = ""


class _Refused(Exception):
    """A request that gets a status other than 200, and a message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def confine_name(name: str) -> str:
    """Reduce the name of an upload to a base name without unusual characters; never empty."""
    base = re.split(r"[/\\]", name)[-1]
    kept = "".join(c if c.isprintable() else "_" for c in base).strip()
    return "file" if kept in ("", ".", "..") else kept


class _Server(ThreadingHTTPServer):
    """The server of one case, which only one request at a time may change."""

    daemon_threads = True

    def __init__(self, port: int, case: Case) -> None:
        self.case, self.changing = case, threading.Lock()
        self.token = secrets.token_urlsafe(24)
        super().__init__((HOST, port), _Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        self.url = f"http://{HOST}:{self.server_port}/{self.token}/"

    def close(self) -> None:
        """Stop the work that is going on, and wait for it."""
        self.case.stopping.set()
        self.server_close()
        # No request can change the case, or write a file, after this.
        self.changing.acquire()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT

    def log_message(self, *_: Any) -> None:
        """Log nothing: the address of a request is secret."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, respond: Callable[[str], None]) -> None:
        """Answer a request that may be answered, and turn errors into messages."""
        status, message = HTTPStatus.INTERNAL_SERVER_ERROR, "the terminal of the app says why"
        try:
            respond(self._check())
            return
        except _Refused as refused:
            status, message = refused.status, str(refused)
        except BadInput as problem:
            status, message = HTTPStatus.BAD_REQUEST, self.server.case.describe_problem(problem)
        except Stopped:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, "the app was closed"
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except OSError as error:
            if (described := describe_system_error(error)) is None:
                log.exception("the app failed")
            else:
                status, message = HTTPStatus.INSUFFICIENT_STORAGE, str(described)
        except Exception:
            log.exception("the app failed")
        with suppress(ConnectionError, TimeoutError):
            self._send(message.encode("utf-8", "replace"), "text/plain; charset=utf-8", status)

    def _check(self) -> str:
        """Return the path of the request below the secret word.

        Raises
        ------
        _Refused
            The request is for another host (a page elsewhere whose name was bound to this
            machine), or does not know the word.
        """
        if (self.headers.get_all("Host") or []) not in [[host] for host in self.server.hosts]:
            raise _Refused(HTTPStatus.FORBIDDEN, "this host is not served")
        token, _, path = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(
                HTTPStatus.FORBIDDEN, "open the whole address that the app printed in its terminal"
            )
        return unquote(path.partition("?")[0])

    def _send(
        self,
        content: bytes | BinaryIO,
        kind: str,
        status: HTTPStatus = HTTPStatus.OK,
        headers: dict[str, str] | None = None,
    ) -> None:
        if isinstance(content, bytes):
            length = len(content)
        else:
            length = content.seek(0, 2)
            content.seek(0)
        self.send_response(status)
        sent = {
            "Content-Type": kind,
            "Content-Length": str(length),
            # A browser keeps nothing on its disk.
            "Cache-Control": "no-store",
            "Content-Security-Policy": CSP.format(nonce=secrets.token_urlsafe(16)),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        }
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(content, bytes):
            self.wfile.write(content)
        else:
            shutil.copyfileobj(content, self.wfile, CHUNK)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _get(self, path: str) -> None:
        case = self.server.case
        if path == "":
            nonce = secrets.token_urlsafe(16)
            page = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
            page = page.replace("MAX_BYTES", str(MAX_BYTES))
            headers = {"Content-Security-Policy": CSP.format(nonce=nonce)}
            self._send(page.encode(), "text/html; charset=utf-8", headers=headers)
        elif path == "case":
            self._send_json(case.describe())
        elif path == "progress":
            self._send_json({"slices": case.done})
        elif found := re.fullmatch(rf"{case.id}/view/(\d{{1,9}})/(\d{{1,9}})/([a-z]+)", path):
            try:
                view = case.views(int(found[1]), int(found[2]))[found[3]]
            except LookupError:
                self._refuse_path()
            self._send(view, "image/png")
        elif path == f"{case.id}/all.zip" and case.files:
            self._send_zip()
        # Only what is in this table is ever read: no path is made from a request.
        elif file := case.files.get(path.removeprefix(f"{case.id}/file/")):
            with file.open("rb") as content:
                self._send_download(content, file.name)
        else:
            self._refuse_path()

    def _refuse_path(self) -> NoReturn:
        raise _Refused(HTTPStatus.NOT_FOUND, "nothing is here any more: load the page again")

    def _send_download(self, content: BinaryIO, name: str) -> None:
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        headers = {"Content-Disposition": disposition}
        self._send(content, "application/octet-stream", headers=headers)

    def _send_zip(self) -> None:
        case = self.server.case
        with tempfile.TemporaryFile(dir=case.images.parent) as archive:
            with zipfile.ZipFile(archive, "w") as packed:
                for name, file in case.files.items():
                    packed.write(file, name)
            self._send_download(archive, "masks.zip")

    def _post(self, path: str) -> None:
        if path not in ("segment", "recording"):
            self._refuse_path()
        length = self._check_length()
        with self.server.changing:
            case = self.server.case
            if case.stopping.is_set():
                raise Stopped
            if path == "segment":
                case.clear()
                upload, files = self._receive(length, case.images)
                if not files:
                    raise BadInput(
                        "upload", "images", found="no file",
                        expected="pictures, DICOM or NIfTI files", mend="choose or drop some",
                    )  # fmt: skip
                case.segment([case.images], upload.format)
            else:
                case.clear_recording()
                upload, files = self._receive(length, case.recording)
                case.add_recording(files, upload.settings)
        self._send_json({})

    def _check_length(self) -> int:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "the upload does not say its size")
        if int(length) > MAX_BYTES:
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"these files have {int(length) / 1e9:.1f} GB together; at most "
                f"{MAX_BYTES / 1e9:.1f} GB are allowed: use the command `gaze-to-insight segment`",
            )
        return int(length)

    def _receive(self, length: int, folder: Path) -> tuple[_Upload, list[Path]]:
        """Write the files of an upload into a folder; return its first line, and the files.

        Hidden files, such as those that systems leave in folders, are left out.
        """
        line = self.rfile.readline(min(length, MAX_HEADER))
        try:
            upload = _Upload.model_validate_json(line)
        except ValidationError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "the upload has no list of files") from error
        if len(line) + sum(file.size for file in upload.files) != length:
            raise _Refused(HTTPStatus.BAD_REQUEST, "the sizes of the files differ from the upload")
        written = []
        for number, file in enumerate(upload.files, start=1):
            name = confine_name(file.name)
            target = folder / name
            if target.exists():
                # Files of several folders may have one name.
                target = folder / f"{number}_{name}"
            if is_hidden(name):
                self._copy(file.size, None)
                continue
            with target.open("xb") as output:
                self._copy(file.size, output)
            written.append(target)
        return upload, written

    def _copy(self, size: int, output: BinaryIO | None) -> None:
        while size:
            if self.server.case.stopping.is_set():
                raise Stopped
            chunk = self.rfile.read(min(size, CHUNK))
            if not chunk:
                raise ConnectionError("the upload ended early")
            size -= len(chunk)
            if output is not None:
                output.write(chunk)


def _check_gaze(gaze: GazeSettings) -> None:
    for name in ("simulate", "features"):
        if getattr(gaze, name) is not None:
            raise BadInput(
                "--gaze", name, found="settings", expected="null: it needs a whole data set",
                mend=f"remove {name}",
            )  # fmt: skip
    if gaze.levels != "thresholds":
        raise BadInput(
            "--gaze", "levels", found=gaze.levels, expected="thresholds: area needs a data set",
            mend="remove levels",
        )  # fmt: skip


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


def app(
    student: list[Path],
    images: Path | None = None,
    port: int = 0,
    no_open: bool = False,
    label: str = "foreground",
    gaze: GazeSettings = GazeSettings(),  # noqa: B008 - frozen
    threads: int = 1,
    gpus: int = 0,
) -> None:
    """Open a page in the browser: drop images, see and take away their masks.

    The page shows the mask, the probability and the uncertainty of pictures, DICOM series and NIfTI
    volumes, slice by slice. The files to take away are those of `segment` with `--probability` and
    `--uncertainty`. If a recording of an eye tracker is added, it shows gaze and pseudomasks, too.

    Nothing leaves the machine: the server listens on 127.0.0.1 only, and the page loads nothing
    from elsewhere. Uploads lie in a private temporary folder, which is deleted when the app ends
    (Ctrl-C). Whoever knows the printed address can see the images.

    Parameters
    ----------
    student
        Weights, student.safetensors; with several the mask is that of their mean probability.
    images
        An image, or a folder of images, to show at the start.
    port
        Port of the page; 0: a free one.
    no_open
        Only print the address; do not open a browser.
    label
        Name of the segment in a DICOM segmentation, for example prostate.
    gaze
        How pseudomasks are made, as `gaze` in config.yaml; by default as there.
    threads
        Number of processor cores to use.
    gpus
        0: compute on the CPU. 1: on a GPU if there is one.
    """
    check_options(BATCH_SIZE, label)
    _check_gaze(gaze)
    if not 0 <= port <= 65535:
        raise BadInput("--port", "option", found=port, expected="0 to 65535", mend="correct it")
    students = load_students(student, uncertainty=True, threads=threads, gpus=gpus)
    # SIGTERM and the end of the terminal also delete the folder.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with tempfile.TemporaryDirectory(prefix="gaze-to-insight-") as folder:
        case = Case(students, Path(folder), label, gaze)
        try:
            if images is not None:
                case.segment([images], "source")
                if case.problems:
                    log.warning("%s", case.problems)
            with _open_server(port, case) as server:
                try:
                    log.info("the page is at %s\nIt ends with Ctrl-C.", server.url)
                    if not no_open:
                        webbrowser.open(server.url)
                    server.serve_forever()
                finally:
                    server.close()
        except KeyboardInterrupt:
            log.info("closed; the uploaded files are deleted")


def _open_server(port: int, case: Case) -> _Server:
    try:
        return _Server(port, case)
    except OSError as error:
        raise BadInput(
            "--port", "option", found=f"{port}: {error.strerror}", expected="a free port",
            mend="choose another one, or leave the option out",
        ) from error  # fmt: skip


if __name__ == "__main__":
    cli.run(app)
