"""From ninja's graph to actions: one per build statement that the wanted targets take.

Knows ninja's graph, what commands are (`formats/ninja/shell`) and where things lie. Reads manifests; does not run
anything. Invariant: an action's inputs and outputs are what ninja knows of the statement, with phony statements put
in; a statement has `evidence` only if everything that its command reads is in its words, its inputs or its depfile.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from cache.named_tuple import NamedTuple
from pipeline.formats.command_words import expand, parts
from pipeline.formats.ninja.graph import Edge, NinjaManifest, canonical
from pipeline.formats.ninja.shell import CUSTOM, CommandKind, CommandReading, read_command, without_launcher
from pipeline.model import STATEMENT_PROFILE, Action, Stage, Statement
from pipeline.toolchain.ninja_firmware import side_makers
from pipeline.toolchain.ninja_kept import VARIABLES
from pipeline.toolchain.ninja_places import NestedBuild, NinjaPlaces
from pipeline.toolchain.ninja_tools import StatementTools
from pipeline.toolchain.response_words import ResponseWords, WholeWords

LISTED = (
    r"(?:^|/)gen_esp32part\.py$",
    r"(?:^|/)ldgen\.py$",
    r"(?:^|/)esptool(?:\.py)?$",
    r"(?:^|/)elf2image\.py$",
    r"(?:^|/)check_sizes\.py$",
    r"(?:^|/)data_file_embed_asm\.cmake$",
)
"""Words of the commands whose results are cached beside compiles, archives and links: ESP-IDF's partition table, linker
script, images, size checks and embedded files."""

_KNOWN = (CommandKind.COMPILE, CommandKind.ARCHIVE, CommandKind.LINK, CommandKind.PYTHON)
_COUNTED: Mapping[CommandKind, Literal["compiled", "linked", "built"]] = {
    CommandKind.COMPILE: "compiled",
    CommandKind.LINK: "linked",
}
_SPECS = re.compile(r"--?specs=(.+)")
OWN_DEPFILE = ".hotplate.d"
"""Ending of a depfile that a statement did not ask for."""


class _Needs(NamedTuple):
    """What a path comes to once phony statements are put in. `always`: something that never is there."""

    inputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    always: bool = False


class StatementActions:
    """The actions of one manifest."""

    def __init__(
        self,
        places: NinjaPlaces,
        manifest: NinjaManifest,
        tools: StatementTools,
        prefix_map: str,
        environment: Mapping[str, str],
    ) -> None:
        self.after: tuple[str, ...] = ()
        """What must be there before any statement runs: the way to a nested build."""
        self.side_files: Sequence[str] = ()
        """Files that are made and that no statement declares."""
        self.probes: dict[str, bool] = {}
        """Every path that was asked about: was it there?"""
        self.directories: dict[str, None] = {}
        """Inputs that are directories."""
        self.response_words = ResponseWords(self._place_of_response)
        self._made: set[str] = set()
        """By the statements so far, in their order."""
        self._nested: dict[int, NestedBuild] = {}
        self._quiet: dict[int, bool] = {}
        self._places, self._manifest, self._tools, self._prefix_map = places, manifest, tools, prefix_map
        self._listing = re.compile("|".join(LISTED))
        self._env = tuple((name, environment[name]) for name in VARIABLES if name in environment)
        self._phony: dict[str, _Needs] = {}
        self._named: dict[str, str] = {}
        self._known_maps: dict[tuple[str, ...], list[str]] = {}

    def of(self, edges: Sequence[Edge], early: frozenset[int]) -> list[Action]:
        """One action for each of these that is not phony; `early`: ids of those that come before everything."""
        kept = [edge for edge in edges if not self._is_no_action(edge)]
        found = []
        declared = {self._place(path) for edge in kept for path in edge.outputs}
        side_files = [path for path in self.side_files if path not in declared]
        commands = [edge.command for edge in kept] if side_files else []
        makers = side_makers(commands, side_files, self._places.directory, self._places.root)
        for number, edge in enumerate(kept):
            action = self._action(edge, makers.get(number, []))
            self._made.update(action.outputs)
            found.append(action)
        return [
            action._replace(stage=Stage.FINGERPRINT) if id(edge) in early else action
            for action, edge in zip(found, kept, strict=True)
        ]

    def _is_no_action(self, edge: Edge) -> bool:
        return edge.is_phony or id(edge) in self._nested or self._says_only(edge)

    @cached_property
    def _waited_for(self) -> frozenset[str]:
        """Paths (of keys) that a statement waits for."""
        found: set[str] = set()
        for edge in self._manifest.edges:
            if not self._is_no_action(edge):
                found.update(self.before(edge))
        return frozenset(found)

    def _says_only(self, edge: Edge) -> bool:
        """Does it only print something? CMake has such steps, whose outputs never are there."""
        known = self._quiet.get(id(edge))
        if known is None:
            command = "" if edge.is_phony else edge.command
            known = self._quiet[id(edge)] = "echo" in command and read_command(command).kind is CommandKind.QUIET
        return known

    def take_nested(self, edge: Edge, nested: NestedBuild) -> None:
        """The statement only runs another build, whose statements are actions too: what needs it needs those."""
        self._nested[id(edge)] = nested
        self._phony.clear()

    def before(self, edge: Edge) -> tuple[str, ...]:
        """Everything that must be there before a statement runs."""
        needed, late = self._needs(edge.needed_inputs), self._needs(edge.order_only_inputs)
        return tuple(dict.fromkeys((*needed.inputs, *needed.after, *late.inputs, *late.after)))

    # --- paths --------------------------------------------------------------------------------------

    def _place(self, path: str) -> str:
        known = self._named.get(path)
        if known is None:
            known = self._named[path] = self._places.from_root(path)
        return known

    def _needs(self, paths: Sequence[str]) -> _Needs:
        inputs: dict[str, None] = {}
        after: dict[str, None] = {}
        always = False
        for path in paths:
            maker = self._manifest.producer.get(path)
            if maker is not None and (nested := self._nested.get(id(maker))) is not None:
                own = self._place(path)
                inputs.update(dict.fromkeys((own,) if own in nested.outputs else nested.results))
                continue
            if maker is None or not (maker.is_phony or self._says_only(maker)):
                inputs[self._place(path)] = None
                continue
            one = self._of_phony(path, maker)
            inputs.update(dict.fromkeys(one.inputs))
            after.update(dict.fromkeys(one.after))
            always = always or one.always
        return _Needs(tuple(inputs), tuple(after), always)

    def _of_phony(self, path: str, edge: Edge) -> _Needs:
        if path not in self._phony:
            if not edge.inputs and edge.is_phony:
                there = self._is_there(self._full(path))
                found = _Needs((self._place(path),)) if there else _Needs(always=True)
            else:
                needed, late = self._needs(edge.needed_inputs), self._needs(edge.order_only_inputs)
                found = _Needs(needed.inputs, (*needed.after, *late.inputs, *late.after), needed.always)
            self._phony[path] = found
        return self._phony[path]

    def _full(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._places.root}/{self._places.directory}/{path}"

    # --- statements -----------------------------------------------------------------------------------

    def _action(self, edge: Edge, side_files: Sequence[str]) -> Action:
        needed, late = self._needs(edge.needed_inputs), self._needs(edge.order_only_inputs)
        outputs = tuple(dict.fromkeys((*map(self._place, edge.outputs), *side_files)))
        command = edge.command
        depfile = edge.binding("depfile", escaped=False)
        rspfile = edge.binding("rspfile", escaped=False)
        content = edge.binding("rspfile_content")
        pool = edge.binding("pool")
        builddir = self._manifest.scope.variables.get("builddir", "")
        files, salt = self._without_directories(needed.inputs)
        statement = Statement(
            directory=self._places.directory,
            names=tuple(edge.outputs),
            command=f"{command};rspfile={content}" if content else command,
            after=tuple(dict.fromkeys((*needed.after, *late.inputs, *late.after, *self.after))),
            rspfile=(self._place(canonical(rspfile)), content) if rspfile else ("", ""),
            deps=edge.binding("deps"),
            depfile=self._place(canonical(depfile)) if depfile else "",
            restat=edge.flag("restat"),
            generator=edge.flag("generator"),
            pool=(pool, self._manifest.pools.get(pool, 0)),
            logs=self._place(canonical(builddir)) if builddir else "",
            always=needed.always,
        )
        plain = Action(
            name=outputs[0],
            stage=Stage.LINK,
            inputs=tuple(path for path in files if path not in outputs),
            outputs=outputs,
            argv=(self._tools.shell(), "-c", command),
            params=(
                ("directory", self._places.directory),
                *(((("rspfile", statement.rspfile[0])), ("rspfile_content", content)) if rspfile else ()),
            ),
            depfile=statement.depfile,
            profile=STATEMENT_PROFILE,
            salt=salt,
            cacheable=False,
            statement=statement,
        )
        return self._with_evidence(plain, _read_with_file(command, rspfile, content), content) or plain

    def _without_directories(self, paths: Sequence[str]) -> tuple[list[str], str]:
        """The files among inputs that no statement makes, and the times of the directories, which are all that ninja
        looks at."""
        files, times = [], []
        for path in paths:
            place = self._resolved(path)
            if path not in self._made and self._is_directory(place):
                self.directories[place] = None
                times.append(f"{path} {os.stat(place).st_mtime_ns}")  # noqa: PTH116
            else:
                files.append(path)
        return files, "\n".join(times)

    def _with_evidence(self, plain: Action, reading: CommandReading, content: str) -> Action | None:
        """The action as one whose reads are known; None where they are not."""
        statement, main = plain.statement, reading.main
        assert statement is not None
        is_known = reading.kind in _KNOWN and not plain.salt
        if not is_known or main is None or statement.always or statement.deps == "msvc":
            return None
        if any("{" in word and re.search(r"\{\w+\}", word) for word in (statement.command, content)):
            return None  # would be taken for a symbol
        if reading.kind is CommandKind.ARCHIVE:
            return self._archive(plain, reading)
        if reading.kind is CommandKind.PYTHON:
            return self._listed(plain, reading)
        words = without_launcher(main.words)
        own = {self._resolved(statement.rspfile[0]): statement.rspfile[1]} if statement.rspfile[0] else {}
        whole = self.response_words.whole(reading, words, lambda name: own.get(self._place_of_response(name) or ""))
        if whole is None:
            return None
        driver = words[0]
        wanted = [f"ld.{word.partition('=')[2]}" for word in words if word.startswith("-fuse-ld=")]
        tool = self._tools.tool(main.words[0], (driver,), wanted)
        if not tool:
            return None
        spoken = [self._places.symbolic(word) for word in main.words[1:]]
        made = (
            self._compile(plain, spoken) if reading.kind is CommandKind.COMPILE else self._link(plain, spoken, driver)
        )
        if made is None:
            return None
        extra = [self._place(canonical(path)) for path in reading.outputs]
        return made._replace(
            argv=(tool, *made.argv),
            inputs=tuple(dict.fromkeys((*made.inputs, *self._read_with(whole, statement)))),
            outputs=tuple(dict.fromkeys((*plain.outputs, *extra))),
            env=self._env,
            cacheable=True,
            count_as=_COUNTED[reading.kind],
            statement=statement._replace(evidence=True),
        )

    def _place_of_response(self, word: str) -> str | None:
        """Where a file of words lies; None where a statement makes it, and so may change it on the way."""
        path = self._of_word(self._places.symbolic(word))
        return None if path in self._made else self._resolved(path)

    def _compile(self, plain: Action, words: Sequence[str]) -> Action | None:
        """With a depfile that names system headers too, and debug information that names no place of this machine."""
        statement = plain.statement
        assert statement is not None
        spoken = ["-MD" if word == "-MMD" else word for word in words]
        if "-MD" not in spoken:
            spoken.append("-MD")
        said = [following for word, following in pairwise(spoken) if word == "-MF"]
        if len(said) > 1 or any(word.startswith("-MF") and word != "-MF" for word in spoken):
            return None
        depfile = self._of_word(said[0]) if said else f"{plain.outputs[0]}{OWN_DEPFILE}"
        if not said:
            spoken += ["-MF", self._as_word(depfile)]
        if statement.depfile not in ("", depfile):
            return None
        spoken += self._maps(spoken)
        return plain._replace(argv=tuple(spoken), depfile=depfile)

    def _maps(self, words: Sequence[str]) -> list[str]:
        """Options that keep the places with symbols out of debug information, or of everything."""
        said = tuple([word for word in words if word.startswith(("-g", "-f"))])  # the same for most compiles
        if said not in self._known_maps:
            self._known_maps[said] = self._maps_now(said)
        return self._known_maps[said]

    def _maps_now(self, words: Sequence[str]) -> list[str]:
        has_debug = any(word.startswith("-g") and word != "-g0" for word in words)
        option = {"debug": "-fdebug-prefix-map" if has_debug else "", "all": "-ffile-prefix-map"}.get(self._prefix_map)
        if not option:
            return []
        covering = r"-ffile-prefix-map=" if option == "-ffile-prefix-map" else r"-f(?:debug|file)-prefix-map="
        mapped = {word.partition("=")[2].partition("=")[0] for word in words if re.match(covering, word)}
        symbols = {"{root}": ".", **{symbol: symbol.strip("{}") for symbol in self._places.symbols}}
        return [f"{option}={symbol}={name}" for symbol, name in symbols.items() if symbol not in mapped]

    def _link(self, plain: Action, words: Sequence[str], driver: str) -> Action | None:
        """With a depfile of the linker's."""
        if not self._has_link_depfile(driver, words):
            return None
        depfile = f"{plain.outputs[0]}{OWN_DEPFILE}"
        spoken = (*words, "-Xlinker", f"--dependency-file={self._as_word(depfile)}")
        return plain._replace(argv=spoken, depfile=depfile)

    def _has_link_depfile(self, driver: str, words: Sequence[str]) -> bool:
        if posixpath.basename(driver) == "zig":
            return True
        chosen = next((word.partition("=")[2] for word in words if word.startswith("-fuse-ld=")), "")
        linker = self._tools.part(driver, f"ld.{chosen}" if chosen else "ld")
        return bool(linker) and _speaks(linker)

    def _archive(self, plain: Action, reading: CommandReading) -> Action | None:
        programs, main = reading.programs, reading.main
        tool = self._tools.tool(programs[0], programs)
        if not tool or plain.statement is None or main is None:
            return None
        rspfile, content = plain.statement.rspfile
        words = expand(
            main.words, lambda name: content if self._place_of_response(name) == self._resolved(rspfile) else None
        )
        if any(word[:1] == "@" for word in words):
            return None  # of members that nobody knows
        own = {*plain.outputs, *plain.inputs}
        named = [path for path in map(self._of_plain_word, words[1:]) if path not in own]
        members = [path for path in named if path in self._made or self._is_file(self._resolved(path))]
        argv = (self._tools.shell(), "-c", self._places.symbolic(plain.argv[2]))
        statement = plain.statement._replace(evidence=True)
        identity = self._tools.tools[tool].identity
        inputs = tuple(dict.fromkeys((*plain.inputs, *members)))
        return plain._replace(
            argv=argv, inputs=inputs, env=self._env, salt=identity, cacheable=True, statement=statement
        )

    def _of_plain_word(self, word: str) -> str:
        return self._place(canonical(word))

    def _listed(self, plain: Action, reading: CommandReading) -> Action | None:
        """A command on the list of those whose results serve others, with what its words name and what it reads."""
        statement, words = plain.statement, plain.argv[2].split()
        if statement is None or statement.depfile or not any(self._listing.search(word) for word in words):
            return None
        tool = self._tools.tool(reading.programs[0], reading.programs)
        if not tool:
            return None
        own = {*plain.outputs, *plain.inputs}
        named = {self._place(canonical(part)): None for word in words for part in parts(word)}
        there = (path for path in named if path in self._made or self._is_file(self._resolved(path)))
        inputs = [path for path in there if path not in own]
        made = tuple(path for path in plain.outputs if not self._is_never_made(path))
        return plain._replace(
            argv=(self._tools.shell(), "-c", self._places.symbolic(plain.argv[2])),
            inputs=(*plain.inputs, *inputs),
            outputs=made,
            depfile=f".deploy/trace/{hashlib.sha256(plain.name.encode()).hexdigest()[:24]}",
            env=self._env,
            salt=self._tools.tools[tool].identity,
            cacheable=True,
            statement=statement._replace(evidence=True, traced=True),
        )

    def _is_never_made(self, path: str) -> bool:
        """Is it the name of a target of CMake's that only runs commands, and that nothing waits for?"""
        if path in self._waited_for:
            return False
        return path.startswith(f"{self._places.directory}/CMakeFiles/") and not self._is_there(self._resolved(path))

    def _is_there(self, path: str) -> bool:
        if path not in self.probes:
            self.probes[path] = os.path.exists(path)  # noqa: PTH110
        return self.probes[path]

    def _is_directory(self, path: str) -> bool:
        """One look at the file system answers this and `_is_there`: of each source there is one."""
        if path in self.probes:
            return self.probes[path] and os.path.isdir(path)  # noqa: PTH112
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except (OSError, ValueError):
            mode = 0
        self.probes[path] = mode != 0
        return stat.S_ISDIR(mode)

    def _is_file(self, path: str) -> bool:
        return self._is_there(path) and os.path.isfile(path)  # noqa: PTH113

    def _resolved(self, path: str) -> str:
        for symbol, place in self._places.symbols.items():
            if path.startswith(f"{symbol}/"):
                return place + path[len(symbol) :]
        path = path.replace("{root}", self._places.root)
        return path if path.startswith("/") else f"{self._places.root}/{path}"

    def _read_with(self, whole: WholeWords, statement: Statement) -> list[str]:
        """The response and spec files that words name, and those that these name in turn."""
        named = (word[1:] for word in whole.words if word[:1] == "@" and len(word) > 1)
        said = (self._of_word(self._places.symbolic(name)) for name in (*whole.files, *named))
        files = [path for path in said if path != statement.rspfile[0]]
        specs = [found[1] for word in whole.words if (found := _SPECS.match(word))]
        paths = (self._of_word(self._places.symbolic(path)) for path in specs)
        return [*files, *(path for path in paths if self._is_file(self._resolved(path)))]  # else the compiler's own

    def _of_word(self, word: str) -> str:
        """A path in a symbolic word, as it stands in keys."""
        for symbol, place in (("{root}", self._places.root), *self._places.symbols.items()):
            word = word.replace(symbol, place)
        return self._place(canonical(word))

    def _as_word(self, path: str) -> str:
        """A path of a key, as a command in ninja's directory may name it."""
        start = f"{self._places.directory}/"
        return (
            path[len(start) :] if path.startswith(start) else f"{{root}}/{path}" if path[:1] not in ("/", "{") else path
        )


def _read_with_file(command: str, rspfile: str, content: str) -> CommandReading:
    """What a command is, if it would be that with the words of its response file as its own."""
    reading = read_command(command)
    if not content or f"@{rspfile}" not in command:
        return reading
    whole = read_command(command.replace(f"@{rspfile}", content.replace("\n", " ")))
    return reading._replace(outputs=whole.outputs) if whole.kind is reading.kind else CUSTOM


def _speaks(linker: str) -> bool:
    """Does this linker know `--dependency-file`? (binutils from 2.35, lld)"""
    try:
        return b"dependency-file" in Path(linker).read_bytes()
    except OSError:
        return False
