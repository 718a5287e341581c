"""What the programs of build statements are: the content of a compiler and of everything that it starts.

Asks compilers where their parts lie, and ninja for its version, once per content of the program, and hashes programs
when their stamp moved. What was found out is kept with the project, and with the store, where another checkout finds
it: to hash a compiler's parts takes longer than to restore a hundred objects. Does not know statements. Invariant: two
programs have the same identity only if the driver and every part that it was found to start hold the same bytes; a
program whose parts cannot be told has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache import statefile
from cache.location import user_cache_dir
from cache.stamps import StampTable
from pipeline.model import Tool
from pipeline.toolchain import programs

if TYPE_CHECKING:
    from pipeline.config.schema import DeployConfig

_KIND = "ninja tools 1"
_NAME = "ninja-tools.v1.state"
_SEARCHED = ("COMPILER_PATH", "GCC_EXEC_PREFIX")
"""By what of the environment, beside PATH, drivers find their parts."""
_PARTS = ("cc1", "cc1plus", "collect2", "lto1", "lto-wrapper", "as", "ld")
_BINARY = (b"\x7fELF", b"MZ", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


def tools_of(root: Path, config: DeployConfig, state_dir: Path, search: str) -> StatementTools:
    """Those of a project, with what others found out that share its store."""
    # As `Project.cache_dir` has it.
    shared = config.cache.dir or user_cache_dir(os.environ, sys.platform)
    return StatementTools(state_dir, root / config.ninja.directory, search, None if shared is None else root / shared)


class StatementTools:
    """The tools of one project's statements. `search`: as in PATH, for programs that are not named by a path."""

    def __init__(self, state_dir: Path, directory: Path, search: str, shared: Path | None = None) -> None:
        """`directory`: where commands run, from which they may name programs; `shared`: where others keep what they
        found out, for a project that knows nothing yet."""
        self._paths = list(dict.fromkeys([state_dir / _NAME, (shared or state_dir) / _NAME]))
        self._directory, self._search = directory, search
        values = (statefile.load(path, _KIND)[0] for path in self._paths)
        known = (value for value in values if value.__class__ is tuple and len(value) == 2)
        stamps, parts = next(known, (None, {}))
        self._table = StampTable(lambda path: path, stamps)
        self._parts: dict[str, tuple[str, ...]] = dict(parts) if parts.__class__ is dict else {}
        self._asked = False
        self._identities: dict[tuple[str, ...], str] = {}
        self._known: dict[tuple[object, ...], str] = {}
        """What `tool` gave: most statements start the same few."""
        self.tools: dict[str, Tool] = {}
        self._programs: dict[str, str] = {}
        self.absent: dict[str, None] = {}
        """Where a program would be found before the one that was."""
        self.files: dict[str, None] = {}
        """Every program file that decided about an identity."""

    def shell(self) -> str:
        """The name of the tool that runs commands of the shell."""
        self.tools["sh:"] = Tool("sh:", "/bin/sh", "", "sh")
        return "sh:"

    def tool(self, program: str, compilers: Sequence[str] = (), wanted: Sequence[str] = ()) -> str:
        """The name of the tool `program` with the content of itself and of `compilers` (drivers among them are asked
        for their parts, and for the programs `wanted`); `""` where that cannot be told."""
        asked = (program, *compilers, None, *wanted)
        if asked not in self._known:
            self._known[asked] = self._tool(program, compilers, wanted)
        return self._known[asked]

    def _tool(self, program: str, compilers: Sequence[str], wanted: Sequence[str]) -> str:
        path = self._found(program)
        identity = self._identity((path, *map(self._found, compilers)), tuple(wanted)) if path else ""
        if not identity:
            return ""
        name = f"{posixpath.basename(program)}:{identity[:12]}"
        self.tools.setdefault(name, Tool(name, path, "", f"{posixpath.basename(program)} sha256:{identity}"))
        return name

    def part(self, driver: str, name: str) -> str:
        """The path of a program that a driver starts, `""` if there is none."""
        path = self._found(driver)
        found = self._ask(path, (name,)) if path else None
        return found[0] if found else ""

    def version(self, program: str) -> str:
        """The first line that the program says of its version, `""` where it says none. One whose bytes are all that
        decides about that is asked once."""
        path = self._found(program)
        digest = self._digest(path) if path and _is_binary(path) else ""
        key = "\n".join(("--version", digest, path))
        if not digest or key not in self._parts:
            from pipeline.effects.versions import ask_version

            line = ask_version(path) if path else ""
            if not digest or not line:
                return line
            self._parts[key] = (line,)
            self._asked = True
        return self._parts[key][0]

    def _found(self, program: str) -> str:
        if "/" in program:
            return str(self._directory / program)
        if program not in self._programs:
            found = programs.find(program, self._search)
            self._programs[program] = "" if found is None else found.path
            if found is not None:
                self.absent.update(dict.fromkeys(place for place in found.earlier if not os.path.lexists(place)))
        return self._programs[program]

    def _identity(self, paths: tuple[str, ...], wanted: tuple[str, ...]) -> str:
        known = self._identities.get((*paths, "", *wanted))
        if known is None:
            known = self._identities[(*paths, "", *wanted)] = self._hashed(paths, wanted)
        return known

    def _hashed(self, paths: tuple[str, ...], wanted: tuple[str, ...]) -> str:
        digests: list[str] = []
        for program in dict.fromkeys(paths):
            own = self._digest(program)
            if not own:
                return ""
            digests.append(own)
            if _is_driver(program):
                if not _is_binary(program):
                    return ""  # a script: what it starts, nobody knows
                parts = self._ask(program, (*_PARTS, *wanted))
                if parts is None:
                    return ""
                digests += [self._digest(part) for part in parts if part]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest() if "" not in digests else ""

    def _digest(self, path: str) -> str:
        try:
            entry = self._table.current(os.path.realpath(path))
        except OSError:
            return ""
        if entry is None:
            return ""
        self.files[path] = None
        return entry.sha256

    def _ask(self, driver: str, names: tuple[str, ...]) -> tuple[str, ...] | None:
        """Where the driver's parts lie, `""` for one that it has not; None when it does not say."""
        where = [self._search, *(os.environ.get(name, "") for name in _SEARCHED)]
        key = "\n".join((self._digest(driver), driver, *where, *names))
        if key not in self._parts:
            from pipeline.effects.versions import printed

            found = []
            for name in names:
                said = printed((driver, f"-print-prog-name={name}"))
                if said is None:
                    return None
                place = said.strip()
                if "/" not in place:
                    import shutil

                    place = shutil.which(place or name, path=self._search) or ""
                found.append(place if place and os.path.isfile(place) else "")  # noqa: PTH113
            self._parts[key] = tuple(found)
            self._asked = True
        return self._parts[key]

    def save(self) -> None:
        """Keep what was read."""
        if self._table.changed or self._asked:
            for path in self._paths:
                with contextlib.suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    statefile.save(path, _KIND, (self._table.plain(), self._parts))


def _is_driver(path: str) -> bool:
    name = posixpath.basename(path)
    return re.search(r"(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[\d.]+)?\Z", name) is not None


def _is_binary(path: str) -> bool:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read(4).startswith(_BINARY)
    except OSError:
        return False
