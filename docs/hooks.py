"""What MkDocs cannot do itself: the README as the front page, and formulas without a network."""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
FRONT_PAGE = "index.md"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
# What arithmatex leaves: inline \(...\) and display \[...\].
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL
)


def rewrite_links(text, add_picture):
    """Make the README's links right for a page in docs/.

    Links to pages lose their `docs/`. Pictures outside docs/ are added to the site. Other files of
    the repository are not on the site: their links become plain text.

    Raises
    ------
    PluginError
        A link names a file that does not exist.
    """

    def rewrite(match):
        picture, words, path, anchor = match.groups()
        if not (ROOT / path).is_file():
            raise PluginError(f"README.md links to {path}, which does not exist")
        if path.startswith("docs/"):
            return f"{picture}[{words}]({path.removeprefix('docs/')}{anchor or ''})"
        if picture:
            add_picture(path)
            return f"![{words}]({posixpath.basename(path)})"
        return words

    return _LINK.sub(rewrite, text)


def on_files(files, config):
    """Add the front page, which is the README, and its pictures."""

    def add_picture(path):
        name = posixpath.basename(path)
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))

    text = rewrite_links((ROOT / "README.md").read_text("utf-8"), add_picture)
    # The table of contents would leave little room for the text.
    text = "---\ntitle: Home\nhide: [toc]\n---\n" + text
    files.append(File.generated(config, FRONT_PAGE, content=text))
    return files


def on_page_content(content, page, **_):
    """Replace formulas by MathML, which browsers draw themselves."""

    def draw(match):
        kind, latex = match[2], html.unescape(match[3])
        return convert(latex, display="inline" if kind == "(" else "block")

    return _FORMULA.sub(draw, content)
