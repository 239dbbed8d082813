"""Damage to files: bytes and tokens changed, parts cut, doubled, moved or exchanged."""

import re

from hypothesis import strategies as st

# What exports and headers hold where a program failed, and what parsers take for something else.
TOKENS = [
    b"", b"0", b"-1", b"1e400", b"-1e308", b"nan", b"inf", b"1,5", b"99999999999999999999",
    b"0x10", b"1_000", "١٢".encode(), b"\x00", b"\xff\xfe", "\ufeff".encode(), "\u2028".encode(),
    b'"', b"'", b";", b"\t", b",", b"\r", b"\n\n", b"=1+1", b"../x", b"/", b"null", b"[]", b"{}",
    b"[" * 2000, b"\\ud800", b"<think>", b"-", b".", b"True", b"1e-400", b" ",
]  # fmt: skip
_TOKEN = re.compile(rb"[^\s,;\t\"]+")


class Damaged(bytes):
    """The content of a damaged file, too long to print."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, {bytes(self[:60])!r} …>"


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> Damaged:
    """Draw one of the originals with one to four damages."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        start = draw(st.integers(0, size))
        end = min(size, start + draw(st.sampled_from([1, 2, 4, 8, 64, 512])))
        match draw(st.integers(0, 7)):
            case 0 | 1:  # a whole token, as between two separators
                tokens = list(_TOKEN.finditer(content))
                if tokens:
                    span = draw(st.sampled_from(tokens)).span()
                    content = (
                        content[: span[0]] + draw(st.sampled_from(TOKENS)) + content[span[1] :]
                    )
            case 2:
                content = content[:start] + draw(st.binary(max_size=8)) + content[end:]
            case 3:
                content = content[:start] + draw(st.sampled_from(TOKENS)) + content[start:]
            case 4:
                content = content[:start]
            case 5:
                content = content[:start] + content[end:]
            case 6:
                content = content[:end] + content[start:]
            case 7:  # two lines exchanged
                lines = content.split(b"\n")
                i, j = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
                lines[i], lines[j] = lines[j], lines[i]
                content = b"\n".join(lines)
    return Damaged(content)
