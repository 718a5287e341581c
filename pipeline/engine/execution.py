"""Run an action's command or builtin, with its outputs' directories made and its former outputs taken away.

What lay there before a user's command is set aside, and whoever finds that it failed puts it back. Knows files and the
process runner. Does not know keys or the cache. Invariant: before an action runs, none of its
outputs exists, so that what exists afterwards was made by it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from cache.durable import read_file
from cache.named_tuple import NamedTuple
from pipeline.effects.api import Completed, ProcessRunner
from pipeline.effects.executor import HERE
from pipeline.engine.results import ActionFailure, BuiltinCall, BuiltinError, FailureKind
from pipeline.engine.waiting_files import has_no_end
from pipeline.engine.workspace import Workspace
from pipeline.formats import command_words
from pipeline.model import Action

_T = TypeVar("_T")

TIMEOUT_S = 3600.0
"""No compiler or linker needs longer; a command that waits for something must end some time."""
_OWN_WORDS = 8
"""So many of the last words of a command are its own files and the options before them; the others are many's."""
_MANY_WORDS, _MOST_RUNS = 1000, 64
_ALWAYS_TAKEN = 16_000
"""Bytes of words that any system takes: Windows takes 32767 characters, and no other fewer than 128 KiB."""


class Executed(NamedTuple):
    """What a command or builtin did; `argv` as it was run here."""

    argv: tuple[str, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    duration_s: float = 0.0
    failure: ActionFailure | None = None
    undeclared: tuple[str, ...] = ()
    """Of a statement that was traced: what it read and wrote without declaring it."""
    ended_ns: int = 0
    """As of `Completed`."""


class ToRun(NamedTuple):
    """What a process runner is to run, with `TIMEOUT_S`."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]


Steps = Generator[ToRun, Completed, _T]
"""Work that stops at each command that it needs, and goes on with what that did or raised. Who waits for commands, and
for how many at once, is not its business; given up, it cleans up."""


def in_turn(steps: Steps[_T], runner: ProcessRunner) -> _T:
    """Do it here and now, waiting for each command."""
    try:
        command = next(steps)
        while True:
            try:
                done = runner.run(command.argv, cwd=command.cwd, env=command.env, timeout_s=TIMEOUT_S)
            except BaseException as error:
                command = steps.throw(error)
            else:
                command = steps.send(done)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def execute(
    workspace: Workspace,
    action: Action,
    around: Callable[[Callable[[], Steps[Executed]]], Steps[Executed]] = lambda here: here(),
) -> Steps[Executed]:
    """Run it from the project root. `around` is given what runs it here, and may do that later or have it done
    elsewhere. Raises OSError when a directory cannot be made or a former output not removed, and KeyboardInterrupt when
    the runner was cancelled; outputs are gone then."""
    outputs = made_files(workspace, action)
    workspace.build_place.checked(outputs)
    directory = ""
    for path in outputs:
        try:
            if action.is_users:
                workspace.former.set_aside(path)
            else:
                os.unlink(path)  # noqa: PTH108 - strings here: making a Path costs as much as what is done with it
        except FileNotFoundError:
            pass
        except OSError:
            if os.path.isdir(path):  # noqa: PTH112
                name = path.removeprefix(f"{workspace.root}/")
                message = f"its output {name} is a directory; remove it, and declare the files in it"
                return Executed(failure=ActionFailure(action.name, FailureKind.OUTPUT_MISSING, message))
            raise
        last, directory = directory, path.rpartition("/")[0]
        if directory != last and not os.path.isdir(directory):  # noqa: PTH112 - asking is cheaper than making
            Path(directory).mkdir(parents=True, exist_ok=True)
    try:
        if action.builtin:
            return _builtin(workspace, action, outputs)
        return (yield from around(lambda: _command(workspace, action)))
    except BaseException:
        remove_files(outputs)
        workspace.former.put_back(outputs)
        raise
    finally:
        if action.is_users:
            workspace.build_place.forget()


def refused(action: Action, kind: FailureKind, message: str, ran: Executed) -> ActionFailure:
    """The command succeeded, and what it left cannot be used."""
    return ActionFailure(action.name, kind, message, ran.argv, 0, ran.stderr.decode("utf-8", "replace"))


def made_files(workspace: Workspace, action: Action) -> list[str]:
    """Where its outputs and its depfile lie."""
    return [workspace.resolve(path) for path in (*action.outputs, action.depfile) if path]


def remove_files(paths: Iterable[str]) -> None:
    """Remove what an action has made of `paths`: files, or what it made instead."""
    for path in paths:
        try:
            os.unlink(path)  # noqa: PTH108
        except OSError:
            if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
                import shutil

                shutil.rmtree(path, ignore_errors=True)


def _command(workspace: Workspace, action: Action) -> Steps[Executed]:
    tool = workspace.steps.tools.get(action.argv[0])
    if tool is None:
        message = f"the tool {action.argv[0]!r} is not installed"
        return Executed(failure=ActionFailure(action.name, FailureKind.TOOL_MISSING, message, action.argv))
    if path := _waited_for(workspace, action):
        message = f"{path} cannot be read: it is a FIFO or a device, and no file"
        return Executed(failure=ActionFailure(action.name, FailureKind.INPUT_MISSING, message, action.argv))
    argv, env = placed_command(workspace, action)
    if action.count_as == "compiled":
        argv = (*tool.launcher, *argv)
    try:
        if sum(map(len, argv)) + len(argv) <= _ALWAYS_TAKEN:
            done = yield from _run(workspace, action, argv, env)
        else:
            with _short_enough(workspace, action, argv) as said:
                done = yield from _run(workspace, action, said, env)
    except TimeoutError:
        message = f"the command did not end within {TIMEOUT_S:.0f} s"
        return Executed(argv, failure=ActionFailure(action.name, FailureKind.TIMEOUT, message, argv))
    except OSError as error:
        message = f"{argv[0]} cannot be run: {error.strerror or error}"
        return Executed(argv, failure=ActionFailure(action.name, FailureKind.TOOL_MISSING, message, argv))
    failure = None
    if done.exit_code != 0:
        # Many tools write their errors to stdout.
        words = (done.stderr or done.stdout).decode("utf-8", "replace")
        how = f"exit code {done.exit_code}" if done.exit_code > 0 else f"signal {-done.exit_code}"
        kind, message = FailureKind.EXIT, f"{action.name} failed with {how}"
        if said_by := _of_launcher(argv, tool.path, words):
            kind, message = FailureKind.LAUNCHER, f"the launcher failed, not the compiler: {said_by}"
        failure = ActionFailure(action.name, kind, message, argv, done.exit_code, words)
    printed = dict(action.params).get("stdout") if failure is None else None
    if printed is not None:
        Path(workspace.resolve(printed)).write_bytes(done.stdout)
        done = done._replace(stdout=b"")
    return Executed(argv, done.stdout, done.stderr, done.duration_s, failure, ended_ns=done.ended_ns)


def _of_launcher(argv: tuple[str, ...], compiler: str, words: str) -> str:
    """What the launcher that the compiler was called through says of itself, `""` if the words are the compiler's."""
    if argv[0] == compiler:
        return ""
    name = posixpath.basename(argv[0])
    return next((line for line in words.splitlines() if line.startswith((f"{name}: ", f"{name}["))), "")


def _run(workspace: Workspace, action: Action, argv: tuple[str, ...], env: dict[str, str]) -> Steps[Completed]:
    """Raises TimeoutError, and OSError when the program cannot be started."""
    root = workspace.root
    if not action.is_users:
        return (yield ToRun(argv, root, env))
    from pipeline.engine.interpreters import fresh

    with fresh(str(root), workspace.directories.state) as place:
        return (yield ToRun(tuple(place.words(argv)), root, {**place.environment(), **env}))


def _waited_for(workspace: Workspace, action: Action) -> str:
    """What the command would wait for: a script that its words name, a header where its compiler searches."""
    if action.is_users:
        named = (word for word in action.argv if word[:1] not in ("/", "-", ""))
        return next((word for word in named if has_no_end(workspace.resolve(word))), "")
    if not action.depfile:
        return ""
    if action.count_as == "linked":
        # What a script names is an input, so that no more is searched than what lies beside it; objects are most of a
        # link's inputs, and nothing is found beside one.
        beside = {posixpath.dirname(path) for path in action.inputs if path[-2:] != ".o"}
        return next(filter(None, map(workspace.waiting_files.beside, sorted(beside))), "")
    directories = tuple([path.rpartition("/")[0] for path in action.inputs])
    return workspace.waiting_files.of(directories, workspace.searches.of(action))


def placed_command(workspace: Workspace, action: Action, root: str = "") -> tuple[tuple[str, ...], dict[str, str]]:
    """The words and the environment of an action as it is run here, or where `root` is the name of its directory.
    Precondition: its tool is installed."""
    root = root or _said_root(workspace)
    said = action.argv
    shared = max(1, len(said) - _OWN_WORDS)
    words = (*_placed_once(workspace, said[1:shared], root), *_all_placed(workspace, said[shared:], root))
    argv = (workspace.steps.tools[said[0]].path, *words)
    env = {**workspace.steps.run_env, **{name: _placed(workspace, value, root) for name, value in action.env}}
    if root != str(workspace.root):
        env["PWD"] = root
    return argv, env


def _placed_once(workspace: Workspace, words: tuple[str, ...], said_root: str) -> tuple[str, ...]:
    """Words that most commands have in common."""
    if len(words) > _MANY_WORDS:
        return _all_placed(workspace, words, said_root)
    known = workspace.placed_runs.get((words, said_root))
    if known is None:
        if len(workspace.placed_runs) >= _MOST_RUNS:
            workspace.placed_runs = {}
        known = workspace.placed_runs[words, said_root] = _all_placed(workspace, words, said_root)
    return known


def _all_placed(workspace: Workspace, words: tuple[str, ...], said_root: str) -> tuple[str, ...]:
    return tuple([_placed(workspace, word, said_root) if "{" in word else word for word in words])


def _placed(workspace: Workspace, word: str, said_root: str) -> str:
    """`word` with `said_root` (the project's directory) in place of `{root}`, that of a tool in place of `{NAME_dir}`,
    and in place of `{NAME_near}` the same relative to the project if it lies there (.venv), as some tools then spell
    it."""
    if "{" not in word:
        return word
    known = workspace.placed_words.get((word, said_root))
    if known is None:
        known = workspace.placed_words[word, said_root] = _placed_now(workspace, word, said_root)
    return known


def _placed_now(workspace: Workspace, word: str, said_root: str) -> str:
    root = str(workspace.root)
    word = word.replace("{root}", said_root)
    for place, directory in workspace.places.items():
        word = word.replace(place, directory)
        word = word.replace(place.replace("_dir}", "_near}"), directory.removeprefix(f"{root}/"))
    return word


def _said_root(workspace: Workspace) -> str:
    """The project's directory as commands, which run there, are told it. A prefix map ends at the first `=`, so where
    the path has one they are told Linux's name for the directory that they run in, as compilers then report it."""
    root = str(workspace.root)
    return HERE if "=" in root and os.path.isdir(HERE) else root  # noqa: PTH112


@contextlib.contextmanager
def _short_enough(workspace: Workspace, action: Action, argv: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The command of a toolchain with its last words in a response file when they are more than the system takes."""
    if not action.is_users and sum(map(len, argv)) + len(argv) > _longest():
        kept = argv.index("-o") + 2 if "-o" in argv else 3
        path = f"{workspace.resolve(action.outputs[0])}.rsp.tmp"
        Path(path).write_bytes(os.fsencode(command_words.joined(argv[kept:])))
        try:
            yield (*argv[:kept], f"@{path.removeprefix(f'{workspace.root}/')}")
        finally:
            remove_files([path])
    else:
        yield argv


def _longest() -> int:
    """Bytes that the words of a command may have; half of what the system takes, which counts more than these."""
    try:
        return os.sysconf("SC_ARG_MAX") // 2
    except (AttributeError, ValueError, OSError):
        return _ALWAYS_TAKEN


def _builtin(workspace: Workspace, action: Action, outputs: list[str]) -> Executed:
    function = workspace.steps.builtins.get(action.builtin)
    if function is None:
        message = f"this version has no builtin {action.builtin!r}"
        return Executed(failure=ActionFailure(action.name, FailureKind.TOOL_MISSING, message))
    began_s = workspace.host.clock.now_s()
    inputs = tuple(read_file(workspace.resolve(path)) for path in action.inputs)
    made = function(BuiltinCall(action.inputs, inputs, dict(action.params)))
    if isinstance(made, BuiltinError):
        return Executed(failure=ActionFailure(action.name, FailureKind.BUILTIN, str(made), stderr=str(made)))
    for path, data in zip(outputs, made, strict=False):
        Path(path).write_bytes(data)
    return Executed(duration_s=workspace.host.clock.now_s() - began_s)
