"""`doit hooks:install`, `hooks:uninstall`, `hooks:git`: put build-on-save into the files that editors and git read.

Reads and writes those files. Which they are, `hook_parts.py` knows, and what the texts are, `hook_texts.py`.
Invariants: installing twice is installing once; uninstalling gives back the bytes that were there before, and what the
user wrote since; a file that cannot be merged is not touched, and the user is told what to paste.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.durable import write_atomic
from cache.named_tuple import NamedTuple
from pipeline.editor import agent_file
from pipeline.editor.hook_parts import (
    EDITORS,
    FILLED,
    MADE,
    NEOVIM_FILES,
    HookPart,
    clangd_part,
    neovim_part,
    parts_of,
    program,
)
from pipeline.formats import marked_block
from pipeline.formats.jsonc import CannotEdit
from pipeline.toolchain import compile_commands

DIRECTORIES = (".vscode", ".zed", ".idea", ".run")
"""Which are made for a file of ours, and go when they are empty."""


class HookResult(NamedTuple):
    """What happened to a file: `written`, `unchanged`, `removed`, `absent`; `kept` or `refused` with the reason."""

    path: Path
    how: str
    reason: str = ""
    paste: str = ""


# --- in and out -------------------------------------------------------------------------------


def install(part: HookPart) -> HookResult:
    """Put our text into a file, making it if need be."""
    try:
        text = _read(part.path)
        if text is None or text == "":
            base = part.own(MADE if text is None else FILLED)
        elif part.executable and not os.access(part.path, os.X_OK):
            raise CannotEdit("the existing hook is not executable, so git does not run it")
        else:
            base = part.take_out(text)
        wanted = part.put_in(base)
        if wanted == text:
            return HookResult(part.path, "unchanged")
        _write(part, wanted)
    except (CannotEdit, UnicodeError) as error:
        return HookResult(part.path, "refused", str(error), part.paste)
    except OSError as error:
        return HookResult(part.path, "refused", f"it cannot be written: {error.strerror}", part.paste)
    return HookResult(part.path, "written")


def uninstall(part: HookPart) -> HookResult:
    """Take our text out again; a file that we made and that holds nothing else goes."""
    try:
        text = _read(part.path)
        rest = None if text is None else part.take_out(text)
        if text is None or rest == text:
            return HookResult(part.path, "absent")
        assert rest is not None
        if rest == part.own(MADE) or _rewritten_and_bare(part, text, rest):
            part.path.unlink()
            _remove_empty(part.path.parent)
        else:
            _write(part, "" if rest == part.own(FILLED) else _without_note(part, rest))
    except (CannotEdit, UnicodeError) as error:
        return HookResult(part.path, "refused", str(error))
    except OSError as error:
        return HookResult(part.path, "refused", f"it cannot be written: {error.strerror}")
    return HookResult(part.path, "removed")


def _rewritten_and_bare(part: HookPart, text: str, rest: str) -> bool:
    """Did an editor drop our marks from the file, and is nothing in it but what the editor writes?"""
    return bool(part.bare) and marked_block.END not in text and "".join(rest.split()) == "".join(part.bare.split())


def _without_note(part: HookPart, text: str) -> str:
    for note in (MADE, FILLED):
        text = text.replace(part.note(note), "", 1)
    return text


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _write(part: HookPart, text: str) -> None:
    path = part.path.resolve()  # a link into a collection of dotfiles stays one
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o755 if part.executable else None
    write_atomic(path, text.encode(), durable=False)
    if mode is not None:
        path.chmod(mode)


def _remove_empty(directory: Path) -> None:
    if directory.name in DIRECTORIES and not any(directory.iterdir()):
        directory.rmdir()


def install_database(root: Path, entries: Sequence[Mapping[str, Any]]) -> HookResult:
    """Write `compile_commands.json`, unless there is one that is not ours."""
    path = root / compile_commands.NAME
    wanted = compile_commands.text_of(entries)
    try:
        text = _read(path)
        if text is not None and not compile_commands.is_ours(text, root):
            return HookResult(path, "kept", "it is another program's; remove it if it should be written here")
        if not entries:
            return HookResult(path, "kept", "this toolchain compiles nothing here that could be listed")
        if text == wanted:
            return HookResult(path, "unchanged")
        write_atomic(path, wanted.encode(), durable=False)
    except (CannotEdit, UnicodeError) as error:
        return HookResult(path, "refused", str(error))
    except OSError as error:
        return HookResult(path, "refused", f"it cannot be written: {error.strerror}")
    return HookResult(path, "written")


def uninstall_database(root: Path) -> HookResult:
    """Remove it if it is ours."""
    path = root / compile_commands.NAME
    try:
        text = _read(path)
        if text is None or not compile_commands.is_ours(text, root):
            return HookResult(path, "absent")
        path.unlink()
    except (UnicodeError, OSError) as error:
        return HookResult(path, "refused", str(error))
    return HookResult(path, "removed")


# --- the tasks --------------------------------------------------------------------------------


def install_editor(root: Path, editor: str, entries: Sequence[Mapping[str, Any]]) -> list[HookResult]:
    """`doit hooks:install`."""
    return [
        *(install(part) for part in parts_of(editor, root)),
        install_database(root, entries),
        install(clangd_part(root)),
    ]


def uninstall_editors(root: Path, editors: Sequence[str]) -> list[HookResult]:
    """`doit hooks:uninstall`. What all editors share goes with the last of them."""
    done = [uninstall(part) for editor in editors for part in _every_part(editor, root)]
    if not any(_installed(part) for editor in EDITORS for part in _every_part(editor, root)):
        done += [uninstall_database(root), uninstall(clangd_part(root))]
    return done


def _every_part(editor: str, root: Path) -> list[HookPart]:
    """Those of an editor that reads the first of several files: all of these, as another may have come since."""
    if editor != "neovim":
        return parts_of(editor, root)
    part = neovim_part(root, "")
    return [part._replace(path=root / name, comment="-- " if name.endswith(".lua") else '" ') for name in NEOVIM_FILES]


def _installed(part: HookPart) -> bool:
    try:
        text = _read(part.path)
        return text is not None and part.take_out(text) != text
    except (CannotEdit, UnicodeError, OSError):
        return False


def install_agent(root: Path) -> HookResult:
    """`doit hooks:install --agent`: our entry in `.mcp.json`."""
    path, doit = root / agent_file.FILE, program(root, "doit")
    try:
        text = _read(path)
        wanted = agent_file.with_entry(agent_file.EMPTY if text is None else text, doit)
        if text == wanted:
            return HookResult(path, "unchanged")
        write_atomic(path.resolve(), wanted.encode(), durable=False)
    except (CannotEdit, UnicodeError) as error:
        return HookResult(path, "refused", str(error), agent_file.entry(doit))
    except OSError as error:
        return HookResult(path, "refused", f"it cannot be written: {error.strerror}", agent_file.entry(doit))
    return HookResult(path, "written")


def uninstall_agent(root: Path) -> HookResult:
    """Take the entry out again; a file that holds nothing else goes."""
    path, doit = root / agent_file.FILE, program(root, "doit")
    try:
        text = _read(path)
        rest = None if text is None else agent_file.without(text, doit)
        if text is None or rest is None or rest == text:
            return HookResult(path, "absent")
        if rest == agent_file.EMPTY:
            path.unlink()
        else:
            write_atomic(path.resolve(), rest.encode(), durable=False)
    except (UnicodeError, OSError) as error:
        return HookResult(path, "refused", str(error))
    return HookResult(path, "removed")


def lines_of(done: HookResult, root: Path) -> Iterator[str]:
    """What the user is told."""
    path = done.path.relative_to(root) if done.path.is_relative_to(root) else done.path
    if done.how == "refused":
        yield f"{path}:1:1: error: not changed: {done.reason}"
        if done.paste:
            yield "hint: put this there yourself:"
            yield from (f"    {line}" for line in done.paste.splitlines())
    else:
        yield f"{path}: {done.how}" + (f": {done.reason}" if done.reason else "")
