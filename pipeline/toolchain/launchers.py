"""What compilers are called through: `[toolchain] launcher = ["ccache"]`.

Finds the program and says whether it can change what a compiler makes. Runs nothing and does not know what it keeps.
Invariant: a launcher for which there is no evidence that its objects are the compiler's own, byte for byte, is in the
key of every compile.

Evidence (riscv gcc 12.2, zig 0.17; docs/launchers.md): ccache and sccache give the compiler's bytes, from their stores
too, as long as the compiler gets the source. Where it gets preprocessed text, as on sccache's and distcc's other
machines, debug information differs: columns in macros, the name of a temporary file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.durable import read_text
from cache.named_tuple import NamedTuple
from pipeline.fastpath.watched import Watched
from pipeline.model import Action, Tool
from pipeline.toolchain.distribution import program_digest
from pipeline.toolchain.programs import launcher_variables

TRANSPARENT = frozenset(("ccache", "sccache"))
"""Launchers whose objects are the compiler's own, unless `preprocessed` says otherwise."""


class Launcher(NamedTuple):
    """`words`: what stands before the compiler here; `identity`: what of it belongs into keys, `""` for nothing."""

    words: tuple[str, ...]
    identity: str
    watched: Watched

    @property
    def run_env(self) -> Mapping[str, str]:
        """The variables that it works by; none of them says what a compiler makes."""
        return launcher_variables()

    def called(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """The tools, called through it."""
        return tuple(tool._replace(launcher=self.words) for tool in tools)

    def compiling(self, actions: Sequence[Action]) -> tuple[Action, ...]:
        """The actions, with what it can change in their keys."""
        if not self.identity:
            return tuple(actions)
        return tuple(
            action._replace(salt="\n".join(filter(None, (action.salt, f"launcher {self.identity}"))))
            if action.count_as == "compiled"
            else action
            for action in actions
        )


class NoLauncher(NamedTuple):
    """Why it cannot be used."""

    message: str
    hint: str


def find_launcher(words: Sequence[str], root: Path, search: str, state_dir: Path) -> Launcher | NoLauncher:
    """The launcher that `[toolchain] launcher` names: on the path `search` (as in PATH), or by its place, relative to
    the project."""
    name = words[0]
    named = "/" in name or os.sep in name
    place = shutil.which(str(root / name)) if named else shutil.which(name, path=search)
    hint = "install it, correct its name, or remove `launcher`"
    if place is None:
        return NoLauncher(f"the launcher '{name}' is not {'there' if named else 'on the PATH'}", hint)
    program = Path(os.path.realpath(place))
    known = program.name.removesuffix(".exe")
    settings = settings_files(known, os.environ)
    files = [str(program), *settings]
    identity = preprocessed(known, os.environ, settings) if known in TRANSPARENT else ""
    if known not in TRANSPARENT:
        # A wrapper of the user's is often an interpreter and a script of the project.
        scripts = [root / word for word in words[1:] if (root / word).is_file()]
        try:
            digests = [program_digest(path, state_dir) for path in (program, *scripts)]
        except OSError as error:
            return NoLauncher(f"the launcher '{name}' cannot be read: {error.strerror}", hint)
        identity = " ".join((*words, *(f"sha256:{digest}" for digest in digests)))
        files += map(str, scripts)
    earlier = () if named else tuple(_earlier(name, place, search))
    return Launcher((place, *words[1:]), identity, Watched({}, earlier, tuple(dict.fromkeys((place, *files)))))


def _earlier(name: str, place: str, search: str) -> list[str]:
    """Where it would be found first."""
    missed = []
    for directory in search.split(os.pathsep):
        candidate = os.path.join(directory or os.curdir, name)  # noqa: PTH118
        if candidate == place:
            break
        missed.append(candidate)
    return missed


def settings_files(name: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where ccache or sccache may be told to compile preprocessed text; of no other launcher anything is known."""
    home = environment.get("HOME", "")
    config = environment.get("XDG_CONFIG_HOME", "") or f"{home}/.config"
    if name == "ccache":
        named = environment.get("CCACHE_CONFIGPATH", "")
        store = environment.get("CCACHE_DIR", "")
        usual = (f"{config}/ccache/ccache.conf", f"{home}/.ccache/ccache.conf")
        return (named,) if named else (f"{store}/ccache.conf",) if store else usual
    if name == "sccache":
        named = environment.get("SCCACHE_CONF", "")
        usual = (f"{config}/sccache/config", f"{home}/Library/Application Support/Mozilla.sccache/config")
        return (named,) if named else usual
    return ()


def preprocessed(name: str, environment: Mapping[str, str], settings: Sequence[str]) -> str:
    """By what ccache or sccache is told to have preprocessed text compiled, elsewhere or here; `""`: it is not."""
    if name == "ccache":
        prefix = environment.get("CCACHE_PREFIX", "")
        if prefix or "CCACHE_NOCPP2" in environment:
            return f"ccache prefix={prefix} cpp2={'CCACHE_NOCPP2' not in environment}"
    for path in settings:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = read_text(path)
            said = _ccache_said(text) if name == "ccache" else _sccache_said(text)
            if said:
                return f"{name} {said}"
    return ""


def _ccache_said(text: str) -> str:
    rows = [tuple(part.strip() for part in line.partition("=")[::2]) for line in text.splitlines()]
    told = {key: value for key, value in rows if not key.startswith("#")}
    prefix, second = told.get("prefix_command", ""), told.get("run_second_cpp", "true")
    return f"prefix={prefix} cpp2={second}" if prefix or second != "true" else ""


def _sccache_said(text: str) -> str:
    import tomllib

    try:
        dist = tomllib.loads(text).get("dist", {})
    except tomllib.TOMLDecodeError:
        return ""  # sccache itself refuses it
    return "distributes" if isinstance(dist, dict) and dist.get("scheduler_url") else ""
