"""What `doit hooks:install|uninstall|git` do, for the task that calls them: each prints what happened to which file.

Knows the project and its repository; which texts go where, `hooks` knows. Does not know doit. Each function returns
why it failed, `""` when it did not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.editor import hooks
from pipeline.editor.hooks import HookResult
from pipeline.effects.host import git_places
from pipeline.run.context import Context
from pipeline.toolchain import compile_commands


def install(context: Context, editor: str) -> str:
    """Build on save in one editor, and the database for clangd."""
    if editor not in hooks.EDITORS:
        return _no_editor(editor)
    entries = compile_commands.database(context.root, context.toolchain)
    return _shown(context, hooks.install_editor(context.root, editor, entries))


def uninstall(context: Context, editor: str) -> str:
    """Take it out again: of one editor, or (`""`) everything, git's hook included."""
    if editor and editor not in hooks.EDITORS:
        return _no_editor(editor)
    done = hooks.uninstall_editors(context.root, (editor,) if editor else hooks.EDITORS)
    places = None if editor else git_places(context.root)
    if places is not None:
        done.append(hooks.uninstall(hooks.git_part(context.root, *places)))
    return _shown(context, done)


def git(context: Context) -> str:
    """The pre-commit hook."""
    places = git_places(context.root)
    if places is None:
        return "hooks:git: error: this project is in no git repository\nhint: run `git init` first"
    return _shown(context, [hooks.install(hooks.git_part(context.root, *places))])


def _shown(context: Context, done: Sequence[HookResult]) -> str:
    for one in done:
        for line in hooks.lines_of(one, context.root):
            print(line, file=sys.stderr if one.how == "refused" else sys.stdout)
    refused = [one for one in done if one.how == "refused"]
    return f"{len(refused)} of {len(done)} files were not changed" if refused else ""


def _no_editor(editor: str) -> str:
    fact = f"{editor!r} is no editor that hooks are known for" if editor else "no editor is named"
    return f"--editor: error: {fact}\nhint: choose one of {', '.join(hooks.EDITORS)}"
