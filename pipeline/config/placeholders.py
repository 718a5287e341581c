"""Which `{words}` in commands and paths of `deploy.toml` look like a placeholder and are none.

Rules only, as those of `values.py`; loaded where a word has a brace that belongs to no placeholder. Does not fill any
in (`toolchain/user_actions.py`). Braces have a meaning of their own in many languages, so a word that is a piece of a
program (with spaces, quotes, `$` or a backslash, such as what stands behind `python -c`) is left alone; of a shell's
only what is close to a placeholder is taken for one. Invariant: a word that holds known placeholders alone passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.text import suggestion

OF_COMMANDS = ("{in}", "{out}", "{depfile}", "{profile}")
OF_PATHS = ("{profile}",)
_UNSAID = "{root}"
"""What the engine fills in, too: its own commands have it."""
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh")
_LOOKS_LIKE_ONE = re.compile(r"(?<!\{)\{([A-Za-z_][A-Za-z0-9_-]*)\}(?!\})")
_IN_SHELL = re.compile(r"(?<![{$])\{([A-Za-z_][A-Za-z0-9_-]*)\}(?!\})")
_PROGRAM = re.compile(r"[\s'\"`$\\]").search
_MEANT = {"input": "{in}", "inputs": "{in}", "output": "{out}", "outputs": "{out}", "deps": "{depfile}"}

Unknown = tuple[int, str, str]
"""Which word, what is wrong with it, and what to do."""


def unknown_in_command(words: Sequence[str], known: Sequence[str]) -> Unknown | None:
    """The first word with a placeholder that there is not."""
    shell = bool(words) and words[0].rpartition("/")[2] in _SHELLS
    for index, word in enumerate(words):
        is_program = _PROGRAM(word) is not None
        if is_program and not shell:
            continue
        for name in (_IN_SHELL if is_program else _LOOKS_LIKE_ONE).findall(word):
            place = f"{{{name}}}"
            if place in (*known, _UNSAID):
                continue
            meant = _meant(name, known)
            if is_program and not meant:
                continue
            told = f"; did you mean '{meant}'?" if meant else ""
            hint = f"use {_listed(known)}; braces that the program shall see can stand in a script of yours"
            return index, f"is '{word}', and '{place}' is no placeholder here{told}", hint
    return None


def unknown_in_path(path: str, known: Sequence[str]) -> tuple[str, str] | None:
    """The same of a path."""
    for name in _LOOKS_LIKE_ONE.findall(path):
        place = f"{{{name}}}"
        if place not in known:
            meant = suggestion(name, [each.strip("{}") for each in known])
            told = f"; did you mean '{{{meant}}}'?" if meant else ""
            return f"is '{path}', and '{place}' is no placeholder in a path{told}", f"use {_listed(known)}"
    return None


def _meant(name: str, known: Sequence[str]) -> str:
    """The known placeholder that was probably meant, `""` if none."""
    alias = _MEANT.get(name.lower(), "")
    near = suggestion(name, [each.strip("{}") for each in known])
    return alias if alias in known else f"{{{near}}}" if near else ""


def _listed(known: Sequence[str]) -> str:
    return f"one of {', '.join(known)}" if len(known) > 1 else known[0]
