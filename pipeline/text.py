"""Words for people, wherever they are said: what was probably meant, and foreign text made printable.

Pure; does not know who says it or where it is shown. Invariant: `visible` leaves nothing in a text that could steer a
terminal, end a line, or be a command to a CI service; `quoted` leaves no line that could pass for one of ours.

CI services read commands from the log of a step: GitHub's runner takes `::name::` at the begin of a line, after spaces,
and `##[name]` anywhere in it (ActionCommand.cs of actions/runner), Azure's agent `##vso[name]`, TeamCity
`##teamcity[name]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "| "
"""Stands before every line that a device, a compiler or another program said."""

_CI_COMMAND = r"##(?=\w{0,20}\[)"


def quoted(text: str) -> list[str]:
    """The lines of a foreign text, each marked and in printable characters only."""
    return [f"{MARK}{visible(line)}" for line in text.splitlines()]


def visible_text(text: str) -> str:
    """Several lines, each in printable characters only."""
    return "\n".join(visible(line) for line in text.replace("\r\n", "\n").split("\n"))


def visible(text: str) -> str:
    """`text` in printable characters only; the others by their escape (`\\n`, `\\x1b`, `\\u202e`)."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode("ascii") for c in text)
    return re.sub(_CI_COMMAND, r"#\\x23", text) if "##" in text else text


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, without regard to case, hyphens and underscores. A cut-off above
    difflib's own: a far-fetched suggestion is worse than the list of what exists."""
    import difflib

    words = {word.lower().replace("-", "_"): word for word in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), words, n=1, cutoff=0.65)
    return words[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?`, or nothing, to end a message with."""
    meant = suggestion(name, known)
    return f"; did you mean '{meant}'?" if meant else ""
