"""`hooks:*` as doit tasks, and what they do: each prints what happened to which file.

Knows the project and its repository; which texts go where, `hooks` knows. Each of `install`, `uninstall` and `git`
returns why it failed, `""` when it did not. Invariant: declaring the tasks imports nothing of what they run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline.run.current import current, told

if TYPE_CHECKING:
    from pipeline.editor.hooks import HookResult
    from pipeline.run.run import Run


def hooks_group() -> Iterator[dict[str, Any]]:
    """The group and its tasks."""
    yield {"basename": "hooks", "name": None, "doc": "build on save in editors, and before commits"}
    editor = {
        "name": "editor",
        "long": "editor",
        "type": str,
        "default": "",
        "help": "vscode, neovim, emacs, zed or jetbrains",
    }
    agent = {"name": "agent", "long": "agent", "type": bool, "default": False, "help": "an entry in .mcp.json"}
    for name, doc, params in (
        (
            "install",
            "put build-on-save into an editor's files, and write compile_commands.json (--editor NAME); with --agent, "
            "tell AI agents of this project's tools in .mcp.json",
            [editor, agent],
        ),
        ("git", "install a pre-commit hook beside what is there", []),
        ("uninstall", "take all of it out again, or that of one editor (--editor NAME)", [editor]),
    ):
        action = (_hooks, [name])
        yield {"basename": "hooks", "name": name, "doc": doc, "actions": [action], "params": params, "verbosity": 2}
    yield {
        "basename": "hooks",
        "name": "quick",
        "doc": "let a compiled client ask the service in place of the script `hotplate` (--remove: no more)",
        "actions": [_quick],
        "params": [{"name": "remove", "long": "remove", "type": bool, "default": False, "help": "put the script back"}],
        "verbosity": 2,
    }


@told(TaskFailed)
def _quick(remove: bool) -> TaskFailed | None:
    from pipeline.fastpath import quick_build

    at = quick_build.places()
    failure = quick_build.remove(at) if remove else quick_build.install(current().build.runner, at)
    if failure is not None:
        return TaskFailed(f"{failure.line()}\nhint: {failure.hint}")
    print(f"{at.script}: {'the script again' if remove else f'asks the service, else starts {at.kept}'}")
    return None


@told(TaskFailed)
def _hooks(name: str, editor: str = "", *, agent: bool = False) -> TaskFailed | None:
    run = current()
    if agent:
        from pipeline.editor import hooks

        failed = _shown(run, [hooks.install_agent(run.project.root)])
        if failed or not editor:
            return TaskFailed(failed) if failed else None
    failed = git(run) if name == "git" else {"install": install, "uninstall": uninstall}[name](run, editor)
    return TaskFailed(failed) if failed else None


def install(run: Run, editor: str) -> str:
    """Build on save in one editor, and the database for clangd."""
    from pipeline.editor import hook_parts, hooks
    from pipeline.toolchain import compile_commands

    if editor not in hook_parts.EDITORS:
        return _no_editor(editor)
    root = run.project.root
    entries = compile_commands.database(root, run.build.toolchain)
    return _shown(run, hooks.install_editor(root, editor, entries))


def uninstall(run: Run, editor: str) -> str:
    """Take it out again: of one editor, or (`""`) everything, git's hook included."""
    from pipeline.editor import hook_parts, hooks
    from pipeline.effects.host import git_places

    if editor and editor not in hook_parts.EDITORS:
        return _no_editor(editor)
    root = run.project.root
    done = hooks.uninstall_editors(root, (editor,) if editor else hook_parts.EDITORS)
    places = None if editor else git_places(root)
    if not editor:
        done.append(hooks.uninstall_agent(root))
    if places is not None:
        done.append(hooks.uninstall(hook_parts.git_part(root, *places)))
    return _shown(run, done)


def git(run: Run) -> str:
    """The pre-commit hook."""
    from pipeline.editor import hook_parts, hooks
    from pipeline.effects.host import git_places

    places = git_places(run.project.root)
    if places is None:
        return "hooks:git: error: this project is in no git repository\nhint: run `git init` first"
    return _shown(run, [hooks.install(hook_parts.git_part(run.project.root, *places))])


def _shown(run: Run, done: Sequence[HookResult]) -> str:
    from pipeline.editor import hooks

    for one in done:
        for line in hooks.lines_of(one, run.project.root):
            print(line, file=sys.stderr if one.how == "refused" else sys.stdout)
    refused = [one for one in done if one.how == "refused"]
    return f"{len(refused)} of {len(done)} files were not changed" if refused else ""


def _no_editor(editor: str) -> str:
    from pipeline.editor import hook_parts

    fact = f"{editor!r} is no editor that hooks are known for" if editor else "no editor is named"
    return f"--editor: error: {fact}\nhint: choose one of {', '.join(hook_parts.EDITORS)}"
