"""What MkDocs and its theme lack: pages from outside docs/, formulas without a network, a name."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
# Files of the repository that are also pages of the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# The table of contents would leave little room for the front page.
FRONT_MATTER = {"README.md": "---\ntitle: Home\nhide: [toc]\n---\n"}
_LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
# What arithmatex leaves: inline \(...\) and display \[...\].
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def rewrite_links(text):
    """Make the links of a page in the root right for the site.

    Links to pages and pictures lose their `docs/`. Other files of the repository are not on the
    site: their links become plain text.

    Raises
    ------
    PluginError
        A link names a file that does not exist.
    """

    def rewrite(match):
        words, path, anchor = match.groups(default="")
        if not (ROOT / path).is_file():
            raise PluginError(f"a page links to {path}, which does not exist")
        target = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path)
        return f"{words}({target}{anchor})" if target else words.strip("[]")

    return _LINK.sub(rewrite, text)


def on_files(files, config):
    """Add the pages that lie in the root."""
    for source, name in PAGES.items():
        text = FRONT_MATTER.get(source, "") + rewrite_links((ROOT / source).read_text("utf-8"))
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(content, page, **_):
    """Replace formulas by MathML, which browsers draw themselves."""

    def draw(match):
        kind, latex = match[2], html.unescape(match[3])
        return convert(latex, display="inline" if kind == "(" else "block")

    return _FORMULA.sub(draw, content)


def on_post_page(output, **_):
    """Name the theme's search for screen readers."""
    return output.replace('role="dialog">', 'role="dialog" aria-label="Search">')
