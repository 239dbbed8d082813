"""The site builds without a warning, and shows everything without a network."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest

from docs import configuration
from docs.hooks import PAGES as OTHER_PAGES
from stages.core.config import Config, Defaults
from stages.settings.training import OptimisationSettings
from tests.docs.pages import PAGES
from tests.workspace import ROOT

_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """Collect what a browser loads with a page, and the ids of its elements."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.ids = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id"))
        loads = tag in ("script", "img", "iframe", "source", "link")
        if loads and not (tag == "link" and values.get("rel") == "canonical"):
            self.addresses += filter(None, (values.get("src"), values.get("href")))


def test_no_page_loads_anything_from_elsewhere(site):
    # Only a server shows the page 404.
    pages = set(site.rglob("*.html")) - {site / "404.html"}
    assert len(pages) >= 20
    for page in pages:
        for address in Loaded(page.read_text("utf-8")).addresses:
            assert not re.match(r"(\w+:)?//", address), (page.name, address)
            if not address.startswith("data:"):
                path = address.partition("?")[0].partition("#")[0]
                assert (page.parent / path).exists() or path in ("", "."), (page.name, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8"))


def test_the_search_finds_the_pages_from_the_disk(site):
    script = (site / "search/search_index.js").read_text("utf-8")
    index = json.loads(script[script.index("{") : script.rindex("}") + 1])
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert found >= {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} | {"index.html"}


def test_formulas_are_drawn_without_a_script(site):
    page = (site / "method.html").read_text("utf-8")
    assert page.count("<math") > 20
    assert "arithmatex" not in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_relative_link_leads_to_a_heading_that_exists(page, site):
    """Of pages outside docs/, too, which the strict build does not see."""
    for path, anchor in _LINK.findall(page.read_text("utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            name = OTHER_PAGES.get(str(target.relative_to(ROOT)), target.name)
            ids = Loaded((site / name).with_suffix(".html").read_text("utf-8")).ids
            assert anchor[1:] in ids, (path, anchor)


def test_the_readme_is_one_screen_and_a_half():
    assert (ROOT / "README.md").stat().st_size <= 6000


def test_the_configuration_reference_is_up_to_date():
    found = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert found == configuration.page(), "regenerate it: make schema"


def test_the_configuration_reference_has_a_row_for_each_setting():
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    rows = Counter(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    schema = Config.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    settings = Counter(name for part in parts for name in part["properties"])
    # What teacher and student share is there once; a data set repeats the parts of the defaults.
    twice = {*OptimisationSettings.model_fields, *Defaults.model_fields}
    assert set(rows) == set(settings) - (set(Defaults.model_fields) - set(rows))
    assert all(rows[name] >= count for name, count in settings.items() if name not in twice)


def _texts():
    """Return the texts in the code; what a program fills in is an ellipsis."""
    for file in [*(ROOT / "stages").rglob("*.py"), *(ROOT / "rules").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            values = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
            if any(isinstance(value, str) and value != "…" for value in values):
                text = "".join(map(str, values))
                yield re.sub(r"%[-.\d]*[a-z]", "…", text).replace("%%", "%")


def test_the_messages_of_troubleshooting_are_those_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    headings = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert len(headings) > 30
    texts = list(_texts())
    for heading in headings:
        for message in heading.split("` with `"):
            pieces = [re.escape(piece) for piece in message.split("…") if piece.strip()]
            pattern = re.compile(".*".join(pieces), re.DOTALL)
            assert any(map(pattern.search, texts)), f"no such message: {message}"
