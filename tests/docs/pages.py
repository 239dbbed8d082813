"""The pages of the documentation, and the blocks of code in them."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.workspace import ROOT

PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")]
    + [*(ROOT / "docs").glob("*.md")]
)
_BLOCK = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# The visible mark of a block that no test can run, in its first line.
_MARK = re.compile(r"# needs (.+)")


class Block(NamedTuple):
    """A block of code: its page with the line number, its language, and its text."""

    place: str
    language: str
    text: str

    @property
    def needs(self) -> str:
        """What a marked block needs, such as a GPU; empty if it is not marked."""
        found = _MARK.match(self.text)
        return found[1] if found else ""

    def commands(self) -> list[list[str]]:
        """Return the words of each command of a block for the shell."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        commands = []
        for line in filter(None, words):
            while "&&" in line:
                commands.append(line[: line.index("&&")])
                line = line[line.index("&&") + 1 :]
            commands.append(line)
        return commands


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    name = page.relative_to(ROOT)
    return [
        Block(
            f"{name}:{text.count(chr(10), 0, found.start()) + 1}",
            found[2],
            textwrap.dedent(found[3]),
        )
        for found in _BLOCK.finditer(text)
    ]


def spans(page: Path) -> list[str]:
    """Return the code inside the sentences of a page."""
    return _SPAN.findall(_BLOCK.sub("", page.read_text("utf-8")))


BLOCKS = [block for page in PAGES for block in blocks(page)]


def in_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]
