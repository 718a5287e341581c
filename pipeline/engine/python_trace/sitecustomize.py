"""In a program that a traced build statement starts: write down which files it opens, asks about, lists and starts.

Loaded by Python's `site` because its directory comes first on PYTHONPATH; works with every Python from 3.8 and imports
nothing but what is loaded by then. Then the `sitecustomize` that would have been loaded instead gets its turn. Knows
nothing of this project. Invariant: what the program itself sees is unchanged.

    line = kind TAB path NEWLINE;  R read, W written, M asked for and missing, L listed, P started (a program or one of
    its words), N: did something else that files do not tell
"""

# ruff: noqa: PTH100, PTH109, PTH118, PTH120, UP031 - nothing may be imported here that the program may not have

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _install(target: str) -> None:
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    seen: set[tuple[str, str]] = set()
    plain_stat, plain_access, here = os.stat, os.access, os.path.dirname(os.path.abspath(__file__))

    def note(kind: str, path: "Any") -> None:
        if isinstance(path, int):
            return
        full = os.path.join(os.getcwd(), os.fsdecode(path))
        if (kind, full) not in seen and not full.startswith(here):
            seen.add((kind, full))
            os.write(handle, ("%s\t%s\n" % (kind, full.replace("\n", "?"))).encode("utf-8", "surrogateescape"))

    def is_import() -> bool:
        return sys._getframe(2).f_code.co_filename.startswith("<frozen importlib")

    def hook(event: str, args: "Any") -> None:
        if event == "open":
            path, _, flags = args
            written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            note("W" if written else "R", path)
        elif event in ("os.listdir", "os.scandir"):
            if not is_import():
                note("L", args[0] if args[0] is not None else ".")
        elif event in ("os.rename", "os.link", "os.symlink"):
            note("W", args[1])
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            words = [args[1]] if isinstance(args[1], (str, bytes)) else list(args[1] or ())
            for word in [args[0] or words[0], *words[1:]]:
                note("P", word)
        elif event in ("os.system", "pty.spawn", "socket.connect", "socket.sendto"):
            note("N", event)

    def stat(path: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        try:
            found = plain_stat(path, *args, **kwargs)
        except (OSError, ValueError):
            note("M", path)
            raise
        if found.st_mode & 0o170000 != 0o040000:
            note("R", path)
        return found

    def access(path: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        found = plain_access(path, *args, **kwargs)
        note("R" if found else "M", path)
        return found

    sys.addaudithook(hook)
    os.stat, os.access = stat, access


if os.environ.get("HOTPLATE_TRACE"):
    _install(os.environ["HOTPLATE_TRACE"])
sys.path[:] = [_place for _place in sys.path if _place != os.path.dirname(__file__)]
_next = sys.modules["_frozen_importlib_external"].PathFinder.find_spec("sitecustomize", sys.path)
if _next is not None and _next.loader is not None:
    _next.loader.exec_module(sys.modules[__name__])
