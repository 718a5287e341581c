"""What the command of a build statement is, as far as its text tells: a compile, an archive, a link, or something else.

Pure. Does not know files or compilers' insides. Invariant: a command is called a compile, an archive or a link only if
it consists of commands whose reads and writes are known: words of a program that is named as compilers and archivers
are, without anything that a shell would do with them, and without an option whose file or circumstance nobody declares.
Everything else is `CUSTOM`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from cache.named_tuple import NamedTuple
from pipeline.formats.map_option import map_files


class CommandKind(StrEnum):
    """`NESTED`: runs another build in a directory of its own. `QUIET`: does nothing but say something. `PYTHON`:
    programs of Python, which can say what they read, and such of CMake that read what their words name. `CUSTOM`:
    nothing is known of it."""

    COMPILE = "compile"
    ARCHIVE = "archive"
    LINK = "link"
    NESTED = "nested"
    QUIET = "quiet"
    PYTHON = "python"
    CUSTOM = "custom"


class SimpleCommand(NamedTuple):
    """One program with its words; `directory`: where a `cd` before it led, `""` for where the shell started; `stdout`:
    the file to which its output goes, `""` if that is nowhere in particular."""

    directory: str
    words: tuple[str, ...]
    stdout: str = ""

    @property
    def program(self) -> str:
        """The last part of the program's path, without the ending of Windows."""
        return _name_of(self.words[0]).removesuffix(".exe")


class CommandReading(NamedTuple):
    """`main`: the program that makes the outputs; `programs`: every program that runs; `outputs`: files that it writes
    and that the statement need not declare (a linker's map); `is_single`: the whole command is `main` alone; `why`: of
    a CUSTOM one that looked like something else, the word that it failed for."""

    kind: CommandKind
    main: SimpleCommand | None = None
    programs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    is_single: bool = False
    why: str = ""


CUSTOM = CommandReading(CommandKind.CUSTOM)

_PIECE = re.compile(
    r"(?P<blank>[ \t]+)|(?P<and>&&)|(?P<to>>)|'(?P<single>[^']*)'|\"(?P<double>(?:[^\"\\$`]|\\.)*)\"|\\(?P<escaped>.)"
    r"|(?P<plain>[^\s\\'\"`$&|;<>(){}*?\[\]#~!]+|(?<=\S)[#~!{}]|[{}](?=\S))",
    re.DOTALL,
)
_PLAIN = re.compile(
    r"[^\n-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\\'\"`$&|;<>(){}*?\[\]#~!]+\Z"
)
"""Of a command what is nothing but words, blanks and tabs. What else is white space stands here by itself: a class is
quicker than an alternative for each character."""
_BETWEEN = ("blank", "and", "to")
"""Pieces that are no part of a word."""
_IN_DOUBLE = re.compile(r'\\(["\\$`])')
_LAUNCHERS = frozenset(("ccache", "sccache", "distcc", "icecc", "buildcache"))
_DRIVER = re.compile(r"(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[\d.]+)?\Z")
_ARCHIVER = re.compile(r"(?:[\w.]+-)*(?:gcc-|llvm-)?(?:ar|ranlib)(?:-[\d.]+)?\Z")
_SOURCES = (".c", ".cc", ".cpp", ".cxx", ".c++", ".C", ".s", ".S", ".sx", ".i", ".ii", ".m", ".mm")

_HEADERS = (".h", ".hh", ".hpp", ".hxx", ".h++", ".H", ".hp", ".tcc")

_UNKNOWN_COMPILE = re.compile(
    r"--coverage|-coverage|-ftest-coverage|-fprofile-(?:arcs|generate|use|instr)|-gsplit-dwarf|-save-temps|-fdump-|-MJ"
    r"|-fplugin|-Xclang=?-load|-wrapper|-fmodule|-fcxx-modules|-fbuiltin-module|-march=native|-mcpu=native|-mtune=native"
    r"|-fcallgraph-info|-fstack-usage|-frepo|-aux-info|--serialize-diagnostics|-fsave-optimization-record|-fauto-profile"
    r"|-frandom-seed-file|-Wa,-a|-Wp,|-Xpreprocessor|-ftime-trace|-fcrash-diagnostics|-gmodules|-pg\Z|-dumpdir|-fsanitize-"
    r"(?:ignorelist|blacklist)|-M\Z|-MM\Z|-B|-fbranch-probabilities|-fopt-info.*=|-fdiagnostics-format=.*-file|-time=|-da\Z"
    r"|--config|-i?vfsoverlay|-fpass-plugin|-load\Z|-iplugindir|-fsanitize-coverage-\w+list|-fprofile-(?:sample-use|remapping)"
    r"|-fthinlto-index|-fbasic-block-sections=list|-fvtv-"
)
"""Options by which a compiler reads, writes or starts what neither its words nor its depfile name, or looks at this
machine."""

_is_unknown_to_compile = lru_cache(maxsize=4096)(_UNKNOWN_COMPILE.match)
"""Nearly all words of a compile are those of the one before."""

_UNKNOWN_LINK = re.compile(
    r"-fprofile-(?:generate|use)|--coverage|-coverage|-save-temps|-fplugin|-wrapper|-march=native|-mcpu=native|-fuse-ld=gold"
    r"|-B|-fbranch-probabilities|--config|-fpass-plugin|-fthinlto-index|-fbasic-block-sections=list"
)
_UNKNOWN_TO_LINKER = re.compile(
    r"--?(?:plugin|out-implib|reproduce|print-map|trace|just-symbols|dependency-file|save-temps|retain|dynamic-list"
    r"|export-dynamic-symbol-list|version-script|symbol-ordering|call-graph-ordering|section-ordering|remap-inputs|mri-script"
    r"|error-handling-script|lto-|thinlto-|opt-remarks|time-trace|print-(?:archive|symbol)|why-extract)|-c\Z|@"
)
"""Of words that are handed on to the linker: an option may be begun by one dash, and a file may hold any."""
_UNKNOWN_TO_ASSEMBLER = re.compile(r"-a|--?MD|@")
"""A listing, a depfile, or a file of more words."""
_TO = "\0>"
"""Stands for the mark of a redirection among words, which hold no NUL."""
_PYTHON = re.compile(r"(?:python|python3|python3\.\d+)\Z")
_QUIET_CMAKE = frozenset(("echo", "echo_append", "true"))


def simple_commands(text: str) -> tuple[SimpleCommand, ...] | None:
    """The programs of a command that joins them by `&&` alone; None where a shell would do anything else (variables,
    patterns, redirections, pipes, assignments)."""
    parts = text.split(" && ")
    if all(map(_PLAIN.match, parts)):
        return _placed([part.split() for part in parts])
    commands: list[list[str]] = [[]]
    word: list[str] | None = None
    at = 0
    while at < len(text):
        found = _PIECE.match(text, at)
        if found is None:
            return None
        at, kind = found.end(), found.lastgroup
        if kind not in _BETWEEN:
            word = [] if word is None else word
            word.append(_text(found))
            continue
        if word is not None:
            commands[-1].append("".join(word))
            word = None
        if kind == "to":
            if text[at : at + 1] in (">", "&") or at < 2 or not text[at - 2].isspace():
                return None
            commands[-1].append(_TO)
        if kind == "and":
            commands.append([])
    if word is not None:
        commands[-1].append("".join(word))
    return _placed(commands)


def _text(found: re.Match[str]) -> str:
    kind = found.lastgroup
    assert kind is not None  # each alternative has a name
    if kind == "double":
        return _IN_DOUBLE.sub(r"\1", found[kind].replace("\\\n", ""))
    text: str = found[kind]
    return text


def _placed(commands: Sequence[Sequence[str]]) -> tuple[SimpleCommand, ...] | None:
    found: list[SimpleCommand] = []
    directory = ""
    for each in commands:
        words, stdout = list(each), ""
        if _TO in words:
            if words.count(_TO) != 1 or len(words) < 3 or words[-2] != _TO:
                return None
            words, stdout = words[:-2], words[-1]
        if not words or ("=" in words[0] and "/" not in words[0].partition("=")[0]):
            return None
        if words[0] == "cd":
            if len(words) != 2 or words[1].startswith("-"):
                return None
            directory = posixpath.join(directory, words[1])
        elif words[0] != ":" or stdout:
            found.append(SimpleCommand(directory, tuple(words), stdout))
    return tuple(found)


def read_command(text: str) -> CommandReading:
    """What this command is."""
    commands = simple_commands(text)
    if not commands:
        return CUSTOM
    if nested := _nested(commands):
        return nested
    working = [one for one in commands if not _is_quiet(one)]
    if not working:
        return CommandReading(CommandKind.QUIET)
    if working and all(_removes(one) or _archives(one) for one in working):
        return _archive(working)
    if all(_is_python(one) or _is_plain_cmake(one) for one in working):
        main = next(filter(_is_python, working), working[0])
        return CommandReading(CommandKind.PYTHON, main, tuple(dict.fromkeys(one.words[0] for one in working)))
    if len(working) != 1 or working[0].directory or working[0].stdout:
        return CUSTOM
    main = working[0]
    words = without_launcher(main.words)
    if not _DRIVER.match(_name_of(words[0]).removesuffix(".exe")) and not _is_zig(words):
        return CUSTOM
    is_single = len(commands) == 1 and ":" not in text.split()[:1]
    programs = tuple(dict.fromkeys((main.words[0], words[0])))
    reading = _compile(main, words) if "-c" in words else _link(main, words)
    return reading._replace(programs=programs, is_single=is_single)


@lru_cache(maxsize=1024)
def _name_of(path: str) -> str:
    """Without its directory. Most commands start the same few programs."""
    return posixpath.basename(path)


def without_launcher(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a compiler behind ccache and its like."""
    while len(words) > 1 and _name_of(words[0]).removesuffix(".exe") in _LAUNCHERS and words[1][:1] != "-":
        words = words[1:]
    return words


def _is_zig(words: Sequence[str]) -> bool:
    return _name_of(words[0]).removesuffix(".exe") == "zig" and words[1:2] in (("cc",), ("c++",))


def _is_quiet(command: SimpleCommand) -> bool:
    is_cmake = command.program == "cmake" and command.words[1:2] == ("-E",)
    return is_cmake and set(command.words[2:3]) <= _QUIET_CMAKE and not command.stdout


def _is_python(command: SimpleCommand) -> bool:
    words = command.words[4:] if command.words[1:3] == ("-E", "env") and command.program == "cmake" else command.words
    return _PYTHON.match(_name_of(words[0])) is not None if words else False


def _is_plain_cmake(command: SimpleCommand) -> bool:
    """Does CMake only look at files that the words name, or embed one?"""
    words = command.words
    if command.program != "cmake":
        return False
    if words[1:2] == ("-E",):
        return words[2:3] in (("echo",), ("echo_append",), ("true",), ("md5sum",), ("sha256sum",), ("touch",))
    return words[-2:-1] == ("-P",) and _name_of(words[-1]) == "data_file_embed_asm.cmake"


def _removes(command: SimpleCommand) -> bool:
    if command.directory:
        return False
    if command.program == "rm":
        return command.words[1:2] == ("-f",) and len(command.words) == 3
    return command.program == "cmake" and command.words[1:4] in (("-E", "rm", "-f"), ("-E", "remove", "-f"))


def _archives(command: SimpleCommand) -> bool:
    words = command.words
    if command.directory:
        return False
    if command.program == "zig":
        return words[1:2] == ("ar",) or words[1:2] == ("ranlib",)
    return _ARCHIVER.match(command.program) is not None


def _archive(commands: Sequence[SimpleCommand]) -> CommandReading:
    """One archive, made anew from files that the statement names."""
    makers = [one for one in commands if _archives(one) and "ranlib" not in " ".join(one.words[:2])]
    if len(makers) != 1:
        return CUSTOM
    main = makers[0]
    words = main.words[2:] if main.program == "zig" else main.words[1:]
    if len(words) < 2 or not re.fullmatch(r"-?[qrcsDSu]+", words[0]) or not re.search("[qr]", words[0]):
        return CUSTOM._replace(why=words[0] if words else "")
    if "u" in words[0]:  # by the times of files
        return CUSTOM._replace(why=words[0])
    if long := next((word for word in words if word.startswith("--")), ""):
        return CUSTOM._replace(why=long)  # one that is thin, or a plugin
    programs = tuple(dict.fromkeys(one.words[0] for one in commands if not _removes(one)))
    return CommandReading(CommandKind.ARCHIVE, main, programs)


def _compile(main: SimpleCommand, words: Sequence[str]) -> CommandReading:
    strange = next(filter(_is_unknown_to_compile, words), "") or _handed_on(
        words, "-Wa,", "-Xassembler", _UNKNOWN_TO_ASSEMBLER
    )
    sources = [word for word in words[1:] if word.endswith(_SOURCES) and word[:1] != "-"]
    if strange or words.count("-o") != 1 or words[-1] == "-o":
        return CUSTOM._replace(why=strange or "-o")
    if len(set(sources)) != 1:
        return CUSTOM._replace(why="several sources" if sources else "no source")
    return CommandReading(CommandKind.COMPILE, main)


def _link(main: SimpleCommand, words: Sequence[str]) -> CommandReading:
    strange = next(
        (word for word in words if _UNKNOWN_LINK.match(word) or word in ("-E", "-S", "-M", "-fsyntax-only")), ""
    ) or _handed_on(words, "-Wl,", "-Xlinker", _UNKNOWN_TO_LINKER)
    if strange or words.count("-o") != 1 or words[-1] == "-o":
        return CUSTOM._replace(why=strange or "-o")
    if any(word.endswith(_SOURCES) and word[:1] != "-" for word in words):
        return CUSTOM._replace(why="compiles and links at once")
    if header := next((word for word in words if word.endswith(_HEADERS) or word.startswith("-x")), ""):
        return CUSTOM._replace(why=header)  # precompiled without -c, or compiled whatever it is called
    return CommandReading(CommandKind.LINK, main, outputs=tuple(map_files(words)))


def _handed_on(words: Sequence[str], prefix: str, alone: str, unknown: re.Pattern[str]) -> str:
    """The first word that a driver hands on and that is unknown: by `-Wl,A,B`, or by `-Xlinker A`."""
    before = ""
    for word in words:
        pieces = word[len(prefix) :].split(",") if word.startswith(prefix) else [word] if before == alone else []
        for piece in pieces:
            if unknown.match(piece):
                return word
        before = word
    return ""


def with_words(reading: CommandReading, words: Sequence[str]) -> CommandReading:
    """What a compile or a link is with these words, of files that it names, among its own."""
    assert reading.main is not None
    whole = (_compile if "-c" in words else _link)(reading.main, words)
    return reading._replace(outputs=whole.outputs) if whole.kind is reading.kind else CUSTOM._replace(why=whole.why)


def _nested(commands: Sequence[SimpleCommand]) -> CommandReading | None:
    """`cd DIR && cmake --build .`, as ExternalProject writes it with BUILD_ALWAYS, or `ninja` in place of cmake. Where
    it makes a stamp afterwards, it runs once and not each time, and is a command like any other."""
    main, *rest = commands
    if not main.directory and main.words[1:2] != ("--build",):
        return None
    is_cmake = main.program == "cmake" and main.words[1:2] == ("--build",) and len(main.words) >= 3
    if is_cmake and main.words[3:] not in ((), ("--config", ""), ("--target", "all")):
        return None
    is_ninja = main.program in ("ninja", "ninja-build", "samu") and len(main.words) == 1
    if not (is_cmake or is_ninja) or not all(map(_is_quiet, rest)):
        return None
    place = posixpath.normpath(posixpath.join(main.directory, main.words[2] if is_cmake else "."))
    return CommandReading(CommandKind.NESTED, main._replace(directory=place), (main.words[0],))
