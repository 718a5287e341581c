"""`doit init`: the first `deploy.toml` and `dodo.py` of a directory, from what lies in it.

Writes files; what was found, `init_look.py` says, and what is written, `config/templates.py`. Does not know doit or the
terminal. Invariant: a file that exists is never written over, and where one of the two cannot be written neither is
left behind.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.durable import read_text
from pipeline.cli.init_look import LOOKED_FOR, below, chosen_of, recognise
from pipeline.config.reader import parse_config
from pipeline.config.templates import DODO, KINDS, SMALLEST, template
from pipeline.failures import fail
from pipeline.formats.projects import FoundProject
from pipeline.model import Failure, FailureCategory
from pipeline.text import did_you_mean, visible

CONFIG_FILE, TASKS_FILE = "deploy.toml", "dodo.py"
_IMPORTS_OURS = re.compile(r"^\s*(?:from\s+pipeline(?:\.tasks)?\s+import|import\s+pipeline)\b", re.M)


def init_text(root: Path, kind: str, place: str, *, dry_run: bool) -> str | Failure:
    """Write the files (`dry_run`: only say what would stand in them), and what was found and written. `kind` and
    `place`: what the user chose of several, `""` for nothing."""
    if kind and kind not in KINDS:
        return _refused("--kind", f"is '{kind}'{did_you_mean(kind, KINDS)}", f"use one of {', '.join(KINDS)}")
    found = recognise(root)
    chosen = chosen_of(found, kind, place.rstrip("/").removeprefix("./") if place else "")
    if len(chosen) != 1:
        return _several(chosen, kind) if chosen else _nothing(root, found, kind or place)
    files = _files(root, chosen[0])
    if isinstance(files, Failure):
        return files
    wrong = parse_config(files[CONFIG_FILE])
    assert not isinstance(wrong, Failure), f"{wrong.line()} [this is a bug]"
    said = [f"found: {visible(chosen[0].because)}"]
    beside = [one for one in found if one != chosen[0] and one not in chosen]
    said += [f"also here, and not used: {visible(one.because)}" for one in beside[:3]]
    if dry_run:
        return "\n".join([*(f"# {line}" for line in said), *(f"\n# --- {n} ---\n{t}" for n, t in files.items())])
    failure = _write(root, files)
    if failure is not None:
        return failure
    return "\n".join([*said, f"wrote: {', '.join(files)}", *_next(root, chosen[0]), ""])


def _files(root: Path, chosen: FoundProject) -> dict[str, str] | Failure:
    """Name -> text of what has to be written."""
    if (root / CONFIG_FILE).exists() or (root / CONFIG_FILE).is_symlink():
        hint = "edit it, or move it away and run `doit init` again; `doit doctor` says whether it can work"
        return _refused(CONFIG_FILE, "exists, and is not written over", hint)
    files = {CONFIG_FILE: template(chosen)}
    path = root / TASKS_FILE
    if not path.exists() and not path.is_symlink():
        return {**files, TASKS_FILE: DODO}
    try:
        text = read_text(path, errors="replace")
    except OSError as error:
        return _refused(TASKS_FILE, f"cannot be read: {error.strerror}", "make it a readable file")
    if not _IMPORTS_OURS.search(text):
        hint = "add the line `from pipeline.tasks import *` to it, then run `doit init` again for deploy.toml"
        return _refused(TASKS_FILE, "exists, is not written over, and has no tasks of Hotplate", hint)
    return files


def _write(root: Path, files: Mapping[str, str]) -> Failure | None:
    written: list[Path] = []
    for name, text in files.items():
        path = root / name
        try:
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                written.append(path)
                stream.write(text)
        except OSError as error:
            for done in written:
                with contextlib.suppress(OSError):
                    done.unlink()
            return _refused(name, f"cannot be written: {error.strerror}", "make the directory writable")
    return None


def _next(root: Path, chosen: FoundProject) -> list[str]:
    lines = ["next: `doit doctor` says whether a deploy can work; then `doit deploy`"]
    if chosen.kind == "arduino" and not chosen.of:
        lines.insert(0, f"to do: nothing names the board; put its FQBN into {CONFIG_FILE}")
    if (root / ".git").exists():
        lines.append("for git: add .deploy/ and reports/ to .gitignore")
    return lines


def _several(chosen: Sequence[FoundProject], kind: str) -> Failure:
    names = [visible(f"{one.kind} at {one.place} ({one.because})") for one in chosen]
    kinds = list(dict.fromkeys(one.kind for one in chosen))
    one_kind = f"--from {chosen[0].place}"
    option = one_kind if kind or len(kinds) == 1 else " or ".join(f"--kind {name}" for name in kinds)
    detail = "\n".join(f"found: {name}" for name in names)
    hint = f"choose one: `doit init {option}`"
    return _refused("init", f"{len(chosen)} projects are here", hint, detail)


def _nothing(root: Path, found: Sequence[FoundProject], asked: str) -> Failure:
    if found:
        names = "; ".join(visible(one.because) for one in found[:5])
        kinds = ", ".join(dict.fromkeys(one.kind for one in found))
        return _refused("init", f"nothing here is '{asked}'; found: {names}", f"choose one of {kinds}, or leave it out")
    further = below(root)
    if further:
        names = "; ".join(visible(f"{one.because} in {one.place}") for one in further[:5])
        hint = "change into the directory of the project: `deploy.toml` belongs there"
        return _refused("init", f"no project here, but below: {names}", hint)
    detail = f"A project that Hotplate itself compiles is C sources, a linker script and a {CONFIG_FILE}:\n\n{SMALLEST}"
    hint = f"change into the directory of your project, or write a {CONFIG_FILE} like the one above by hand"
    return _refused("init", f"nothing to build or deploy in {root}: looked for {', '.join(LOOKED_FOR)}", hint, detail)


def _refused(where: str, message: str, hint: str, detail: str = "") -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint, detail=detail)
