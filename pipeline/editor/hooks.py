"""`doit hooks:install`, `hooks:uninstall`, `hooks:git`: put build-on-save into the files that editors and git read.

Knows which file of which editor gets which text, and reads and writes those files. What the texts are, `hook_texts.py`
knows; how they go into a file and out again, `formats/marked_block.py` and `formats/jsonc.py`. Invariants: installing
twice is installing once; uninstalling gives back the bytes that were there before, and what the user wrote since; a
file that cannot be merged is not touched, and the user is told what to paste.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any

from cache.durable import write_atomic
from cache.named_tuple import NamedTuple
from pipeline.editor import hook_texts
from pipeline.formats import jsonc, marked_block
from pipeline.formats.jsonc import CannotEdit
from pipeline.toolchain import compile_commands

EDITORS = ("vscode", "neovim", "emacs")
NEOVIM_FILES = (".nvim.lua", ".nvimrc", ".exrc")
MADE = "Made by `doit hooks:install`; `doit hooks:uninstall` removes it unless something was added."
FILLED = "Empty before `doit hooks:install`; `doit hooks:uninstall` empties it unless something was added."


class HookPart(NamedTuple):
    """One file. `skeleton`: what a file of our own holds beside the block, after a first line of comment; `paste`: what
    a user puts there who must do it by hand."""

    path: Path
    put_in: Callable[[str], str]
    take_out: Callable[[str], str]
    comment: str
    skeleton: str
    paste: str
    executable: bool = False


class HookResult(NamedTuple):
    """What happened to a file: `written`, `unchanged`, `removed`, `absent`; `kept` or `refused` with the reason."""

    path: Path
    how: str
    reason: str = ""
    paste: str = ""


# --- which files ------------------------------------------------------------------------------


def program(root: Path, name: str) -> str:
    """How an editor calls a script of this environment: by its path, relative where it lies in the project. By its name
    only outside of virtual environments, which editors are seldom started in."""
    script = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin") / name
    if script.is_relative_to(root):
        return f"./{script.relative_to(root).as_posix()}"
    return str(script) if sys.prefix != sys.base_prefix and script.exists() else name


def parts_of(editor: str, root: Path) -> list[HookPart]:
    """The files of an editor. Precondition: `editor` is in EDITORS."""
    command = program(root, "hotplate")
    if editor == "vscode":
        return _vscode(root, command, program(root, "doit"))
    if editor == "emacs":
        return [_emacs(root, command)]
    return [_neovim(root, command)]


def _vscode(root: Path, command: str, doit: str) -> list[HookPart]:
    # A process task has no shell, and its command is not looked up from the workspace.
    command, doit = (f"${{workspaceFolder}}/{w[2:]}" if w.startswith("./") else w for w in (command, doit))
    tasks = hook_texts.vscode_tasks(command, doit)
    on_save = hook_texts.vscode_on_save(command)
    return [
        HookPart(
            root / hook_texts.TASKS_FILE,
            partial(_into_object, chain=("tasks",), kind="[", items=tasks),
            jsonc.removed,
            "// ",
            '{\n  "version": "2.0.0",\n  "tasks": [\n  ]\n}\n',
            '"tasks": [\n' + ",\n".join(tasks) + "\n]",
        ),
        HookPart(
            root / hook_texts.SETTINGS_FILE,
            partial(_into_object, chain=("emeraldwalk.runonsave", "commands"), kind="[", items=[on_save]),
            jsonc.removed,
            "// ",
            "{\n}\n",
            f'"emeraldwalk.runonsave": {{ "commands": [\n{on_save}\n] }}',
        ),
    ]


def _into_object(text: str, *, chain: Sequence[str], kind: str, items: Sequence[str]) -> str:
    """`items` into the array at `chain`; what is missing on the way is part of the block."""
    for depth in range(len(chain), -1, -1):
        found = jsonc.opening(text, chain[:depth])
        if found is None:
            continue
        if found[0] != (kind if depth == len(chain) else "{"):
            raise CannotEdit(
                f"{'.'.join(chain[:depth]) or 'the file'} is no {'array' if depth == len(chain) else 'object'}"
            )
        members = list(items)
        for key in reversed(chain[depth:]):
            brackets = "[]" if key == chain[-1] else "{}"
            inner = indent(",\n".join(members), "  ")
            members = [f'"{key}": {brackets[0]}\n{inner}\n{brackets[1]}']
        return jsonc.insert(text, chain[:depth], members)
    raise AssertionError("the top of the file always has an opening [this is a bug]")


def _neovim(root: Path, command: str) -> HookPart:
    """Neovim reads the first of these, so an existing one is used."""
    name = next((name for name in NEOVIM_FILES if (root / name).exists()), ".nvimrc")
    lua = name.endswith(".lua")
    body = hook_texts.neovim(command, vimscript=not lua)
    comment = "-- " if lua else '" '
    put_in = partial(marked_block.appended, body=body, comment=comment)
    return HookPart(root / name, put_in, marked_block.removed, comment, "", "\n".join(body))


def _emacs(root: Path, command: str) -> HookPart:
    body = hook_texts.emacs(command)
    return HookPart(
        root / ".dir-locals.el", partial(_into_list, body=body), _out_of_list, ";;; ", "(\n)\n", "\n".join(body)
    )


def _into_list(text: str, *, body: Sequence[str]) -> str:
    """Entries as the first of the list that the file holds."""
    place = 0
    for line in text.splitlines(keepends=True):
        if line.lstrip()[:1] not in ("", ";"):
            break
        place += len(line)
    start = len(text[place:]) - len(text[place:].lstrip()) + place
    if text[start : start + 1] != "(":
        raise CannotEdit("it does not begin with a list")
    end = marked_block.newline_of(text)
    return marked_block.put_at(text[: start + 1] + end + text[start + 1 :], start + 1 + len(end), body, ";; ")


def _out_of_list(text: str) -> str:
    """The newline behind the opening parenthesis is ours too."""
    marker = f";; {marked_block.BEGIN}"
    place = text.find(marker)
    without = marked_block.removed(text)
    if place < 0 or without == text:
        return text
    before = without[:place]
    cut = before.removesuffix("\n").removesuffix("\r")
    return cut + without[place:] if cut.endswith("(") else without


def git_part(root: Path, top: Path, hooks_dir: Path) -> HookPart:
    """The pre-commit hook of the repository at `top`, in git's directory of hooks."""
    directory = root.relative_to(top).as_posix() if root.is_relative_to(top) else str(root)
    body = hook_texts.git(program(root, "hotplate"), directory)
    return HookPart(
        hooks_dir / "pre-commit",
        partial(_behind_shebang, body=body),
        marked_block.removed,
        "# ",
        "",
        "\n".join(body),
        executable=True,
    )


def clangd_part(root: Path) -> HookPart:
    """A fragment of its own in `.clangd`, which is a file of several YAML documents."""
    body = ["---", *hook_texts.clangd()]
    put_in = partial(marked_block.appended, body=body, comment="# ")
    return HookPart(root / ".clangd", put_in, marked_block.removed, "# ", "", "\n".join(body))


def _behind_shebang(text: str, *, body: Sequence[str]) -> str:
    first, newline, _ = text.partition("\n")
    words = first.removeprefix("#!").split()
    shell = words and Path(words[-1] if Path(words[0]).name == "env" else words[0]).name
    if not first.startswith("#!") or not newline or shell not in ("sh", "bash", "dash", "zsh"):
        raise CannotEdit("the existing hook is no shell script")
    return marked_block.put_at(text, len(first) + 1, body, "# ")


# --- in and out -------------------------------------------------------------------------------


def install(part: HookPart) -> HookResult:
    """Put our text into a file, making it if need be."""
    try:
        text = _read(part.path)
        if text is None or text == "":
            base = _own(part, MADE if text is None else FILLED)
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
        if rest == _own(part, MADE):
            part.path.unlink()
            _remove_empty(part.path.parent)
        else:
            _write(part, "" if rest == _own(part, FILLED) else _without_note(part, rest))
    except (CannotEdit, UnicodeError) as error:
        return HookResult(part.path, "refused", str(error))
    except OSError as error:
        return HookResult(part.path, "refused", f"it cannot be written: {error.strerror}")
    return HookResult(part.path, "removed")


def _own(part: HookPart, note: str) -> str:
    shebang = "#!/bin/sh\n" if part.executable else ""
    return f"{shebang}{part.comment}{note}\n{part.skeleton}"


def _without_note(part: HookPart, text: str) -> str:
    for note in (MADE, FILLED):
        text = text.replace(f"{part.comment}{note}\n", "", 1)
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
    if directory.name == ".vscode" and not any(directory.iterdir()):
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
    part = _neovim(root, "")
    return [part._replace(path=root / name, comment="-- " if name.endswith(".lua") else '" ') for name in NEOVIM_FILES]


def _installed(part: HookPart) -> bool:
    try:
        text = _read(part.path)
        return text is not None and part.take_out(text) != text
    except (CannotEdit, UnicodeError, OSError):
        return False


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
