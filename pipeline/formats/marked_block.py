"""A marked block in a text that belongs to somebody else: put in, found again, taken out.

Texts only; does not know files or what the block says. Invariant: `removed(inserted(text)) == text` for every text
without a block; what stands before the first and behind the last line of a block is never touched.

The marker says `joined` when the text had no newline at its end and ours stands before the block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BEGIN = ">>> hotplate (written by `doit hooks:install`, taken out by `doit hooks:uninstall`) >>>"
JOINED = ">>> hotplate (joined; written by `doit hooks:install`, taken out by `doit hooks:uninstall`) >>>"
END = "<<< hotplate <<<"


def newline_of(text: str) -> str:
    """How the lines of `text` end."""
    return "\r\n" if "\r\n" in text else "\n"


def appended(text: str, body: Sequence[str], comment: str) -> str:
    """`text` with a block at its end. `comment` begins a comment that ends with its line."""
    end = newline_of(text)
    joined = bool(text) and not text.endswith("\n")
    lines = [f"{comment}{JOINED if joined else BEGIN}", *body, f"{comment}{END}"]
    return text + (end if joined else "") + "".join(line + end for line in lines)


def put_at(text: str, place: int, body: Sequence[str], comment: str) -> str:
    """`text` with a block in lines of its own at `place`, where a line begins."""
    end = newline_of(text)
    return text[:place] + "".join(f"{line}{end}" for line in _framed(body, comment)) + text[place:]


def _framed(body: Sequence[str], comment: str) -> list[str]:
    return [f"{comment}{BEGIN}", *body, f"{comment}{END}"]


def removed(text: str) -> str:
    """`text` without its blocks of whole lines."""
    while (found := _BLOCK.search(text)) is not None:
        before, after = text[: found.start()], text[found.end() :]
        if found["joined"] is not None and not after:
            # as the lines of the block end: a lone carriage return before it is the owner's
            before = before.removesuffix("\r\n" if found[0].partition("\n")[0].endswith("\r") else "\n")
        text = before + after
    return text


_BLOCK = re.compile(
    rf"^[^\n]*?(?:{re.escape(BEGIN)}|(?P<joined>{re.escape(JOINED)}))[^\n]*\n(?:[^\n]*\n)*?[^\n]*?{re.escape(END)}[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)
