"""Make the compiled loop of the fast path for this user, once, where there is a compiler for this machine; the same
program starts commands where there are many (`command_server.h`).

Knows compilers, and the directory that `native_loop.py` looks into. Does not know when the program is asked. Invariant:
a program gets its name only after it answered a listing rightly, files that moved included; the name holds the digest
of its source, of the compiler and of the platform. Whatever goes wrong is noted beside it and tried again a day later:
the fast path does the same in Python.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cache.durable import write_atomic
from pipeline.effects.api import ProcessRunner
from pipeline.effects.command_server import CommandEnd, CommandServer
from pipeline.effects.packages import package_dir
from pipeline.fastpath import FileStamp, stamp_of
from pipeline.fastpath.listing import listing_of
from pipeline.fastpath.native_loop import PREFIX, VARIABLE, WORTH_FILES, ask, directory, own_stamp

SOURCE = Path(__file__).parent / "statloop.c"
INCLUDED = ("command_server.h",)
TIMEOUT_S = 60.0
"""zig makes its own libc first, which takes 10 s; cc takes a tenth of one."""
AGAIN_S = 86400.0
_KILLED = "somebody killed"
"""A compiler, as happens at the end of a run; which says nothing of the next time."""


def ready(runner: ProcessRunner) -> dict[str, FileStamp] | None:
    """The program (name -> stamp), made now if need be; None when there is none. Losing it costs work only."""
    found = _named()
    if isinstance(found, str):
        return None
    path, compiler = found
    stamp = own_stamp(str(path), stamp_of)
    note = path.with_name(f"{path.name}.failed")
    try:
        if stamp is None and not (note.exists() and time.time() - note.stat().st_mtime < AGAIN_S):
            trouble = _make(runner, compiler, path)
            stamp = own_stamp(str(path), stamp_of)
            if trouble and not trouble.startswith(_KILLED):
                write_atomic(note, f"{trouble}\n".encode(), durable=False, own=True)
            else:
                note.unlink(missing_ok=True)
    except (OSError, TimeoutError):
        return None
    return None if stamp is None else {path.name: stamp}


def there() -> str | None:
    """The path of the program, if it was made before."""
    found = _named()
    return None if isinstance(found, str) or own_stamp(str(found[0]), stamp_of) is None else str(found[0])


def describe() -> str:
    """One line for `doit cache:stats`."""
    found = _named()
    if isinstance(found, str):
        return f"none: {found}"
    path, compiler = found
    if own_stamp(str(path), stamp_of) is not None:
        return str(path)
    try:
        return f"none: {path.with_name(f'{path.name}.failed').read_text(errors='replace').splitlines()[0]}"
    except (OSError, IndexError):
        return f"none yet: {Path(compiler[0]).name} makes it when a build uses {WORTH_FILES} files or more"


def _named() -> tuple[Path, list[str]] | str:
    """Where the program belongs and what makes it, or why there can be none."""
    place = directory()
    if place is None:
        return f"{VARIABLE}=0" if os.environ.get(VARIABLE) == "0" else "not on this platform, or without a home"
    argv = compiler_argv()
    if argv is None:
        return "no compiler for this machine (cc, or the package ziglang)"
    try:
        identity, stamp = hashlib.sha256(SOURCE.read_bytes()), stamp_of(os.stat(argv[0]))  # noqa: PTH116
        for name in INCLUDED:
            identity.update(SOURCE.with_name(name).read_bytes())
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    for part in (*argv, stamp, sys.platform, os.uname().machine):
        identity.update(f"{part}\0".encode())
    return Path(place, PREFIX + identity.hexdigest()[:32]), argv


def _make(runner: ProcessRunner, compiler: Sequence[str], path: Path) -> str:
    """Compile, try, put in place; what went wrong, if anything. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as name:
        scratch = Path(name)
        made = scratch / "statloop"
        trouble = compiled(runner, [*compiler, "-O2", "-o", str(made), str(SOURCE)], scratch)
        if trouble:
            return trouble
        if not _tells_right(made, scratch):
            return f"what {compiler[0]} made does not tell which files moved"
        if not _starts(made):
            return f"what {compiler[0]} made does not start commands"
        made.replace(path)
    return ""


def compiled(runner: ProcessRunner, argv: Sequence[str], scratch: Path) -> str:
    """Run a compiler whose `-o` is followed by a file in `scratch`, which nobody may write afterwards. What went wrong,
    if anything."""
    # zig's own caches would else stay behind: 50 MB for one file of 16 kB.
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(scratch), "ZIG_LOCAL_CACHE_DIR": str(scratch)}
    try:
        done = runner.run(argv, cwd=scratch, env=env, timeout_s=TIMEOUT_S)
    except TimeoutError:
        return f"{argv[0]} took longer than {TIMEOUT_S:.0f} s"
    made = Path(argv[argv.index("-o") + 1])
    if done.exit_code != 0 or not made.exists():
        lines = done.stderr.decode(errors="replace").splitlines()
        if done.exit_code < 0:
            return f"{_KILLED} {argv[0]}, signal {-done.exit_code}"
        return f"{argv[0]} ended with {done.exit_code}: {lines[0] if lines else 'no message'}"
    made.chmod(0o500)
    return ""


def compiler_argv() -> list[str] | None:
    """What makes programs for this machine; None where nothing does."""
    compiler, package = shutil.which("cc"), package_dir("ziglang")
    return [compiler] if compiler else [str(package / "zig"), "cc"] if package is not None else None


def _tells_right(program: Path, scratch: Path) -> bool:
    """Does it find exactly the files whose stamps are others?"""
    (scratch / "files").mkdir()
    files: list[tuple[str, FileStamp]] = []
    for n in range(4):
        path = scratch / "files" / str(n)
        path.write_bytes(bytes(n))
        files.append((f"files/{n}", stamp_of(path.stat())))
    wrong = [(path, (s[0] + (n == 1), s[1] + (n == 2), s[2] + (n == 3))) for n, (path, s) in enumerate(files)]
    wrong.append(("missing/x", files[0][1]))

    def told(rows: Sequence[tuple[str, FileStamp]]) -> list[int] | None:
        return ask(str(program), str(scratch), len(rows), listing_of(rows))

    return told(files) == [] and told(wrong) == [1, 2, 3, 4]


def _starts(program: Path) -> bool:
    """Does it start a command, and tell what that printed and how it ended?"""
    server = CommandServer(str(program))
    try:
        if not server.is_well():
            return False
        server.start(7, ["/bin/sh", "-c", "echo $A; echo two >&2; exit 3"], {"A": "one"})
        until_s = time.monotonic() + TIMEOUT_S
        found: list[CommandEnd] = []
        poll = select.poll()
        poll.register(server.handle, select.POLLIN)
        while not found and time.monotonic() < until_s:
            poll.poll(TIMEOUT_S * 1000)
            found = server.answers()
        return found == [CommandEnd(7, 0, 3, b"one\n", b"two\n")]
    except OSError:
        return False
    finally:
        server.let_go()
