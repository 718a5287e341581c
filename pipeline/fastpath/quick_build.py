"""`doit hooks:quick`: put a compiled client in front of the script `hotplate` of this environment, and take it away.

Most of a warm `hotplate` through the service is the start of Python. `quick.c` asks the service itself, and starts the
script, which is kept in `libexec`, where the service does not know. Only on request, since it replaces a file that the
installer made. Knows compilers and this environment; not what is asked. Invariants: `hotplate` is at every instant
either the script or a client that was tried out, and both give the same answers; a file that is neither is not touched.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.effects.api import ProcessRunner
from pipeline.failures import fail
from pipeline.fastpath.native_build import compiled, compiler_argv
from pipeline.model import Failure, FailureCategory

SOURCE = Path(__file__).parent / "quick.c"
MARK = b"hotplate: error: %s cannot be started"
"""A text that only the client holds."""
TRY_S = 60.0


class QuickPlaces(NamedTuple):
    """`script`: what users start; `kept`: the installer's, once the client has its place."""

    script: Path
    kept: Path


def places() -> QuickPlaces:
    """Of this environment."""
    return QuickPlaces(Path(sysconfig.get_path("scripts"), "hotplate"), Path(sys.prefix, "libexec", "hotplate"))


def install(runner: ProcessRunner, at: QuickPlaces) -> Failure | None:
    """Make the client and put it in the script's place. Again after an update of Python or of this package."""
    compiler = compiler_argv() if os.name == "posix" else None
    if compiler is None:
        return _no("no compiler makes programs for this machine", "install cc, or the package ziglang")
    what = _what_is(at.script)
    if what == "":
        return _no(f"{at.script} is not there", "install hotplate into this environment")
    if what == "other" or (what == "client" and not at.kept.exists()):
        return _no(f"{at.script} is not the script of an installation", "install hotplate again")
    try:
        at.kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hotplate-", dir=at.script.parent) as name:
            return _make(runner, compiler, at, Path(name), fresh=what == "script")
    except OSError as error:
        return _no(f"{error.filename}: {error.strerror}", "make the environment writable")


def _make(runner: ProcessRunner, compiler: list[str], at: QuickPlaces, scratch: Path, *, fresh: bool) -> Failure | None:
    if fresh:
        shutil.copy2(at.script, scratch / "script")
        (scratch / "script").replace(at.kept)
    made, who = scratch / "hotplate", scratch / "who.h"
    values = {"VERSION": sys.version, "PREFIX": sys.prefix, "SCRIPT": str(at.kept), **_run_values(at.kept)}
    who.write_text("".join(f"#define {name} {_c_string(value)}\n" for name, value in values.items()))
    trouble = compiled(runner, [*compiler, "-O2", "-include", str(who), "-o", str(made), str(SOURCE)], scratch)
    if not trouble:
        made.chmod(0o755)
        env = {**os.environ, "XDG_RUNTIME_DIR": str(scratch)}
        said = [
            runner.run([str(program), "--version"], cwd=scratch, env=env, timeout_s=TRY_S).stdout
            for program in (made, at.kept)
        ]
        trouble = "" if said[0] == said[1] != b"" else f"what {compiler[0]} made does not start the script"
    if trouble:
        return _no(trouble, "do without: the script answers the same")
    made.replace(at.script)
    return None


def _run_values(script: Path) -> dict[str, str]:
    """What the client needs to know to hand a run over, if the script is one of this interpreter without options: what
    those would change, a runner cannot know. Nothing else can lie beside it, where Python would find modules."""
    import pipeline

    with script.open("rb") as stream:
        words = os.fsdecode(stream.readline(1 << 10)).removeprefix("#!").split()
    here = len(words) == 1 and os.path.realpath(words[0]) == os.path.realpath(sys.executable)
    if sys.platform != "linux" or not here or not script.is_absolute():
        return {}
    package, beside = os.path.dirname(pipeline.__file__ or ""), os.path.dirname(os.path.realpath(script))  # noqa: PTH120
    return {"RELEASE": pipeline.__version__, "PACKAGE": package, "BESIDE": beside}


def remove(at: QuickPlaces) -> Failure | None:
    """Give the script its place back. Idempotent."""
    if _what_is(at.script) != "client":
        return None
    try:
        at.kept.replace(at.script)
    except OSError as error:
        return _no(f"{error.filename}: {error.strerror}", "install hotplate again")
    return None


def _what_is(path: Path) -> str:
    """`script`, `client`, `other`; empty for nothing."""
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    if data.startswith(b"#!"):
        return "script"
    return "client" if MARK in data else "other"


def _c_string(text: str) -> str:
    return '"' + "".join(f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'


def _no(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="hooks:quick", message=message, hint=hint)
