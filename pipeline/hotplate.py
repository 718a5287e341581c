"""What `hotplate`, and `doit` once it has loaded our tasks, do where the fast path has no answer: a run without doit's
part in it where that shows nowhere, else doit.

Stands above all folders, as `tasks.py` does, because it joins the fast path's look with the run. Knows when doit has
nothing to add: one task of ours is asked for, with options of ours; the last run's state applies and nothing of the
host part moved, so that nothing is to be built; and `dodo.py` holds nothing but our tasks, with no options of doit
beside it (`fastpath/plain.py`; those files are among what the state depends on). Does not know what a stage does.
Invariant: a run is begun once, here or by doit.
"""

import gc
import os
import sys

from pipeline.fastpath import FirstLook, interrupt_again, load, moved, state_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_GARBAGE = 100_000
"""New objects after which Python searches them for garbage: what a start makes stays, so there is none to find."""
STAGE_WORDS = frozenset({"verify-flash", "reflash", "reattach", "ttfb", "deploy"})


def go_on(argv: "Sequence[str]", look: "FirstLook | None", name: str = "") -> int:
    """Do what the fast path could not answer; the exit code. `name`: see `become_doit`."""
    if argv[:1] == ["monitor"]:
        monitor(argv[1:])
    seen = deploy(argv) if look is None else look
    from pipeline.fastpath.handover import become_doit

    return become_doit(argv, seen, name)


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


def deploy(argv: "Sequence[str]") -> "FirstLook | None":
    """Do the run without doit, and end the process as it ended. Returns where doit is needed: what was looked at on the
    way, None when that was nothing."""
    if argv and argv[0].partition(":")[0] not in STAGE_WORDS:
        return None
    gc.set_threshold(_GARBAGE)
    from pipeline.cli import direct

    asked = direct.asked_of(argv)
    if asked is None or any(name.startswith("DOIT_") for name in os.environ):
        return None
    look = _look_at(asked.profile)
    if look is None or not look.snapshot.facts.get("plain"):
        # What moved was not read, as a run that is handed a look would believe.
        return None if look is None or look.places else look
    if look.places:
        from pipeline.fastpath.touched import only_touched

        if not only_touched(look.snapshot, look.places, look.path):
            return look
        look = None  # the run reads them too, and records their stamps
    try:
        code = direct.run_stages(asked, look)
    except Exception:  # as doit ends when something outside of a task raises
        import traceback

        sys.stderr.write(traceback.format_exc())
        code = direct.UNUSABLE
    if code is None:
        return look
    _end(code)
    return look


def _end(code: int) -> None:
    """End the process, without taking down the interpreter object by object, which costs as much as a boot. As Python
    ends: threads are waited for, what is registered for the end is done, what is printed gets out. Raises SystemExit
    where it is watched (a debugger, a profiler) or another thread is at work."""
    import atexit
    import threading

    gc.disable()  # at its end Python would search all that is loaded for garbage
    if threading.active_count() > 1 or sys.gettrace() is not None or sys.getprofile() is not None:
        raise SystemExit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # Python says so, and exits with a code of its own
            raise SystemExit(code) from None
    os._exit(code)


def _look_at(profile: str) -> "FirstLook | None":
    """The state of this profile, and what moved since; None when there is none that applies."""
    path, root = state_path(profile), os.getcwd()  # noqa: PTH109 - pathlib may not be loaded
    found = load(path)
    if found is None:
        return None
    snapshot, stamp = found
    places = moved(snapshot, root, alone=True)
    return None if places is None else FirstLook(root, path, stamp, snapshot, places)
