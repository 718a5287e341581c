"""What `hotplate`, and `doit` once it has loaded our tasks, do where the fast path has no answer: put back what was
built and is gone, or a run without doit's part in it where that shows nowhere, else doit.

Stands above all folders, as `tasks.py` does, because it joins the fast path's look with the run. Knows when doit has
nothing to add: one task of ours or host stages are asked for, with options of ours; the last run's state applies, and
nothing but files of actions, ninja's manifests and directories moved since; and `dodo.py` holds nothing but our tasks,
with no options of doit beside it (`fastpath/plain.py`; those files are among what the state depends on, and are read
where `hotplate` finds none that applies). Does not know what a stage does.
Invariant: a run is begun once, here or by doit.
"""

import gc
import os
import sys

from pipeline.fastpath import (
    PUT_BACK,
    STAGES,
    FirstLook,
    end_at_once,
    end_with,
    from_service,
    interrupt_again,
    load,
    moved,
    selection_of,
    state_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.direct import Asked

STAGE_WORDS = frozenset({*STAGES, "verify-flash", "reflash", "reattach", "ttfb", "deploy"})
_GARBAGE = 100_000
"""New objects after which Python searches them for garbage: what a start makes stays, so there is none to find."""


def go_on(argv: "Sequence[str]", look: "FirstLook | None", name: str = "") -> int:
    """Do what the fast path could not answer; the exit code. `name`: see `become_doit`."""
    if argv[:1] == ["monitor"]:
        monitor(argv[1:])
    if look is None and argv and argv[0] in STAGES:
        # A child of the service's runner begins here; of its client nothing came but the command line.
        told = from_service(argv)
        if isinstance(told, str):
            end_with(told)
        look = told if isinstance(told, FirstLook) else None
    if look is not None:
        bring_back(argv, look)
    seen = run(argv, look, is_hotplate=True)
    if "" in argv:  # which doit looks into without looking whether there is anything
        print("hotplate: error: a word of the command line is empty", file=sys.stderr)
        print("hint: write a value there, or leave the option out", file=sys.stderr)
        return 3
    from pipeline.fastpath.handover import become_doit

    if any(word.startswith("-") for word in argv):  # nothing else can be a mistyped option
        from pipeline.cli.usage import speak_plainly

        speak_plainly()
    if argv[:1] in (["--help"], ["--version"]):
        return _told_by_doit(argv)
    return become_doit(argv, seen, name)


def _told_by_doit(argv: "Sequence[str]") -> int:
    """Its list of commands, or its version after ours. These it prints before it has a command that could answer for
    what cannot be written."""
    from pipeline import __version__
    from pipeline.cli.command_words import lost
    from pipeline.fastpath.handover import become_doit

    try:
        if [*argv] == ["--version"]:
            print(f"hotplate {__version__}", flush=True)
        code = become_doit(argv, None)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return lost(error)
    return code


def bring_back(argv: "Sequence[str]", look: FirstLook) -> None:
    """Put what was built and is gone in its place, without a run, and end the process. Returns where a run must do
    more, or would have more to say."""
    asked, of_ninja = selection_of(argv), "log" in look.snapshot.facts.get(PUT_BACK, ())
    # Of a build directory some files are there again, where somebody configured it.
    first = look.snapshot.paths_at(look.places if of_ninja else look.places[:1])
    if asked is None or all(map(os.path.lexists, first.values())):
        return
    if not look.snapshot.facts.get("plain") or any(name.startswith(("DOIT_", "GITHUB_STEP")) for name in os.environ):
        return
    collecting = gc.isenabled()
    gc.disable()  # what is loaded and read here lives as long as the process
    if of_ninja:
        from pipeline.engine.put_back_statements import put_back
    else:
        from pipeline.engine.put_back import put_back
    text = put_back(look, asked[1])
    if text is not None:
        end_with(text)
    if collecting:
        gc.enable()


def monitor(argv: "Sequence[str]") -> None:
    """Be `doit monitor` without doit, and end the process as it ended. Returns where doit has options of its own for
    it, or something to refuse. The first byte then is shown before doit would have been imported."""
    from pipeline.fastpath.plain import doit_has_options

    if doit_has_options(os.getcwd()):  # noqa: PTH109
        return
    from pipeline.cli.monitor_command import execute, values_of

    values = values_of(argv)
    if values is not None:
        interrupt_again()
        raise SystemExit(execute(*values))


def run(argv: "Sequence[str]", look: "FirstLook | None" = None, *, is_hotplate: bool = False) -> "FirstLook | None":
    """Do the run without doit, and end the process as it ended. Returns where doit is needed: what was looked at on the
    way, None when that was nothing. `look`: what the fast path saw, where it looked already; `is_hotplate`: nothing of
    doit is loaded yet, so that a first run is worth a look at what it would do."""
    if look is None and argv and argv[0].partition(":")[0] not in STAGE_WORDS:
        return None
    gc.set_threshold(_GARBAGE)
    from pipeline.cli import direct

    asked = direct.asked_of(argv)
    if asked is None or any(name.startswith("DOIT_") for name in os.environ):
        return look
    found, touched = look or _look_at(asked.profile), False
    if found is None:
        if is_hotplate and _is_plain():
            _run_stages(asked, None)
        return None
    plain = found.snapshot.facts.get("plain")
    if look is None and found.places:
        # What moved was not read yet, as a run that is handed a look believes.
        if not plain:
            return None
        from pipeline.fastpath.touched import is_as_it_was

        touched = is_as_it_was(found)
    if not plain or not (touched or _only_builds(found)):
        return found
    # What was only touched is read by the run too, which records the stamps.
    _run_stages(asked, None if touched else found)
    return found


def load_run() -> None:
    """What a run needs, while something else takes its time that comes before it."""
    gc.set_threshold(_GARBAGE)
    from pipeline.needed_modules import EDITED, load_modules

    load_modules(EDITED)


def _is_plain() -> bool:
    from pipeline.fastpath.plain import is_plain

    return is_plain(os.getcwd())  # noqa: PTH109


def _run_stages(asked: "Asked", look: "FirstLook | None") -> None:
    """Do them, and end the process; returns where nothing was begun."""
    from pipeline.cli import direct

    try:
        code = direct.run_stages(asked, look)
    except Exception:  # as doit ends when something outside of a task raises
        import traceback

        sys.stderr.write(traceback.format_exc())
        code = direct.UNUSABLE
    if code is not None:
        _end(code)


def _end(code: int) -> None:
    """End the process, without taking down the interpreter object by object. As Python
    ends: threads are waited for, what is registered for the end is done, what is printed gets out. Raises SystemExit
    where it is watched (a debugger, a profiler) or another thread is at work."""
    import atexit
    import threading

    gc.disable()  # at its end Python would search all that is loaded for garbage
    watching = getattr(sys, "monitoring", None)  # by which profilers look since Python 3.12
    is_watched = watching is not None and any(map(watching.get_tool, range(6)))
    if threading.active_count() > 1 or is_watched or sys.gettrace() is not None or sys.getprofile() is not None:
        raise SystemExit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # Python says so, and exits with a code of its own
            raise SystemExit(code) from None
    end_at_once(code)


def _only_builds(look: FirstLook) -> bool:
    """Is what moved no more than files of actions, ninja's manifests, and directories? None says what doit is to do:
    that are `dodo.py`, options of doit and installed packages."""
    beside = [place for place in look.places if place >= look.snapshot.used_count]
    paths = look.snapshot.paths_at(beside).values()
    return all(map(os.path.isdir, [path for path in paths if not path.endswith(b".ninja")]))


def _look_at(profile: str) -> "FirstLook | None":
    """The state of this profile, and what moved since; None when there is none that applies."""
    path, root = state_path(profile), os.getcwd()  # noqa: PTH109 - pathlib may not be loaded
    found = load(path)
    if found is None:
        return None
    snapshot, stamp = found
    places = moved(snapshot, root, alone=True)
    return None if places is None else FirstLook(root, path, stamp, snapshot, places)
