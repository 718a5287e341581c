"""Which file of which editor, and of git, gets which text of ours, and how it goes in and comes out.

Knows names and forms of files; the texts are those of `hook_texts.py`. Looks which files exist; does not read or write
them. Invariant: `take_out(put_in(text)) == text` for every text of a user that `put_in` does not refuse.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from textwrap import indent

from cache.named_tuple import NamedTuple
from pipeline.editor import hook_texts
from pipeline.formats import jsonc, marked_block, xml_block
from pipeline.formats.jsonc import CannotEdit

EDITORS = ("vscode", "neovim", "emacs", "zed", "jetbrains")
NEOVIM_FILES = (".nvim.lua", ".nvimrc", ".exrc")
MADE = "Made by `doit hooks:install`; `doit hooks:uninstall` removes it unless something was added."
FILLED = "Empty before `doit hooks:install`; `doit hooks:uninstall` empties it unless something was added."


class HookPart(NamedTuple):
    """One file. `skeleton`: what a file of our own holds beside the block, after a first line of comment; `paste`: what
    a user puts there who must do it by hand; `head`: what must stand before the first comment; `bare`: what an editor
    that rewrites a file of ours leaves of it when our text is out."""

    path: Path
    put_in: Callable[[str], str]
    take_out: Callable[[str], str]
    comment: str
    skeleton: str
    paste: str
    head: str = ""
    comment_end: str = ""
    bare: str = ""
    executable: bool = False

    def note(self, text: str) -> str:
        """A line of comment."""
        return f"{self.comment}{text}{self.comment_end}\n"

    def own(self, note: str) -> str:
        """A file that nobody else wrote to, without our text."""
        return f"{self.head}{self.note(note)}{self.skeleton}"


def program(root: Path, name: str) -> str:
    """How an editor calls a script of this environment: by its path, relative where it lies in the project. By its name
    only outside of virtual environments, which editors are seldom started in."""
    script = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin") / name
    if script.is_relative_to(root):
        return f"./{script.relative_to(root).as_posix()}"
    return str(script) if sys.prefix != sys.base_prefix and script.exists() else name


def parts_of(editor: str, root: Path) -> list[HookPart]:
    """The files of an editor. Precondition: `editor` is in EDITORS."""
    command, doit = program(root, "hotplate"), program(root, "doit")
    match editor:
        case "vscode":
            return _vscode(root, command, doit)
        case "zed":
            return [_zed(root, command, doit)]
        case "jetbrains":
            return _jetbrains(root, command, doit)
        case "emacs":
            return [_emacs(root, command)]
        case _:
            return [neovim_part(root, command)]


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


def _zed(root: Path, command: str, doit: str) -> HookPart:
    tasks = hook_texts.zed_tasks(shlex.quote(command), shlex.quote(doit))
    put_in = partial(_into_object, chain=(), kind="[", items=tasks)
    return HookPart(
        root / hook_texts.ZED_FILE, put_in, jsonc.removed, "// ", "[\n]\n", "[\n" + ",\n".join(tasks) + "\n]"
    )


def _jetbrains(root: Path, command: str, doit: str) -> list[HookPart]:
    """File Watchers are a component of a file that the IDE rewrites; a run configuration is a file of its own."""
    macro = f"$ProjectFileDir$/{command[2:]}" if command.startswith("./") else command
    watcher = hook_texts.jetbrains_watcher(macro)
    xml = '<?xml version="1.0" encoding="UTF-8"?>\n'
    empty = '<project version="4">\n</project>\n'
    watchers = HookPart(
        root / hook_texts.WATCHERS_FILE,
        partial(xml_block.inserted, component=hook_texts.WATCHERS_COMPONENT, body=watcher),
        partial(xml_block.removed, ours=_is_our_watcher),
        "<!-- ",
        empty,
        "\n".join(watcher),
        head=xml,
        comment_end=" -->",
        bare=xml + empty,
    )
    return [
        watchers,
        *(_configuration(root, name, words) for name, words in hook_texts.run_words(command, doit).items()),
    ]


def _is_our_watcher(known: Sequence[xml_block.XmlElement], place: int) -> bool:
    return known[place].name == "TaskOptions" and any(
        option.name == "option" and option.attributes == {"name": "name", "value": hook_texts.WATCHER_NAME}
        for option in xml_block.children(known, place)
    )


def _configuration(root: Path, name: str, words: str) -> HookPart:
    """The whole file is ours, in the IDE's own words after it has saved it."""
    text = hook_texts.jetbrains_configuration(name, words)
    part = HookPart(
        root / f".run/{name.replace(': ', '-')}.run.xml", str, str, "<!-- ", "", text, comment_end=" -->"
    )  # fmt: skip
    empty = [part.own(note) for note in (MADE, FILLED)]

    def put_in(present: str) -> str:
        if present not in empty:
            raise CannotEdit("there is another run configuration in it")
        return present + text

    def take_out(present: str) -> str:
        if f'name="{name}"' not in present or not any(
            element.name == "configuration" and element.attributes.get("name") == name
            for element in xml_block.elements(present)
        ):
            return present
        return empty[1] if present.startswith(empty[1]) else empty[0]

    return part._replace(put_in=put_in, take_out=take_out)


def neovim_part(root: Path, command: str) -> HookPart:
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
        head="#!/bin/sh\n",
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
