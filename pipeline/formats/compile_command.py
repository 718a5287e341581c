"""One call of a C or C++ compiler: is it a single compile whose reads and outputs are all known?

Pure: the words come in, with those of response files in their place. Does not know files, keys or the cache. Invariant:
a command is a `CompileReading` only if each word of it is known to name no other input than the source, what include
directories hold and what `-include` names, and no other output than the object and the depfile; anything in doubt is a
reason to leave the command alone.

Sources: GCC's manual ("Overall Options", "Preprocessor Options", "Developer Options"), Clang's command guide.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from cache.named_tuple import NamedTuple

LANGUAGES = {
    "c": "c",
    "cc": "c++",
    "cpp": "c++",
    "cxx": "c++",
    "c++": "c++",
    "CPP": "c++",
    "C": "c++",
    "S": "assembler-with-cpp",
    "sx": "assembler-with-cpp",
}
"""Ending of a source -> what it is compiled as. An `.s` passes no preprocessor, so that nothing tells what it reads."""

NO_COMPILE = "no-compile"
"""It links, preprocesses, or only says something."""
SEVERAL_SOURCES = "several-sources"
NO_SOURCE = "no-known-source"
STANDARD_INPUT = "standard-input"
UNKNOWN_FLAG = "unknown-flag"
OTHER_OUTPUTS = "more-outputs"
"""`--coverage`, `-gsplit-dwarf`, `-save-temps`, listings, dumps."""
PLUGIN_OR_SPECS = "plugin-or-specs"
SPECIAL_DEPFILE = "special-depfile"
ODD_OUTPUT = "odd-output"

_VALUED = (
    *("-isystem", "-iquote", "-idirafter", "-isysroot", "-include", "-imacros", "-target", "-MF", "-MT", "-MQ"),
    *("-D", "-U", "-I", "-L", "-l", "-o", "-x"),
)
"""Options whose value is the next word or joined; a longer one before its beginnings."""
_ONLY_SEPARATE = ("-target", "--sysroot")
_KNOWN = frozenset(
    (
        *("-c", "-MD", "-MMD", "-MP", "-w", "-ansi", "-pedantic", "-pedantic-errors", "-pipe", "-pthread", "-undef"),
        *("-nostdinc", "-nostdinc++", "-nostdlib", "-nodefaultlibs", "-nostartfiles", "-static", "-shared", "-s"),
        *("-rdynamic", "-pie", "-no-pie", "-static-pie", "-static-libgcc", "-static-libstdc++", "-trigraphs"),
        *("-Qunused-arguments", "-fdiagnostics-color", "-ffile-prefix-map", "-flto", "-fno-lto"),
    )
)
_REASONS = (
    (re.compile(r"-(?:E|S|M|MM|fsyntax-only|###|v|Q)\Z|--version\Z|-print-|-dump|--help"), NO_COMPILE),
    (re.compile(r"--coverage|-gsplit-dwarf|-save-temps|--save-temps|-ftest-coverage|-fprofile|-Wa,-a"), OTHER_OUTPUTS),
    (re.compile(r"-fdump|-fstack-usage|-fcallgraph-info|-ftime-trace|-fsave-|-fopt-info|-aux-info"), OTHER_OUTPUTS),
    (re.compile(r"-fplugin|-specs|--specs|-wrapper|-B|-Xclang|-mllvm|-load"), PLUGIN_OR_SPECS),
    (re.compile(r"-MG\Z|-Wp,|-Xpreprocessor"), SPECIAL_DEPFILE),
)
_PLAIN = re.compile(
    r"-W(?![apl],)[\w=+.,-]*\Z"
    r"|-W[l],[^@]*\Z"
    r"|-Wa,(?:--?noexecstack|-m[\w=.,-]+|--?longcalls|--text-section-literals)\Z"
    r"|-O(?:[0-3sgz]|fast)?\Z"
    r"|-g(?:[0-3]|gdb[0-3]?|dwarf(?:-[2-5])?|line-tables-only|mlt|z(?:=\w+)?)?\Z"
    r"|-g(?:no-)?(?:strict-dwarf|column-info|record-gcc-switches|statement-frontiers|variable-location-views|pubnames)\Z"
    r"|-m[a-z0-9][\w+-]*(?:=[\w+,-]+(?:p\d[\w+,-]*)?)?\Z"
    r"|-march=[\w.+-]+\Z"
    r"|--?std=[\w+:]+\Z"
    r"|--(?:target|sysroot)=[^=]+\Z"
    r"|-f(?:file|debug|macro)-prefix-map=[^=]*=[^=]*\Z"
    r"|-f(?:no-)?diagnostics-(?:color(?:=\w+)?|show-[a-z-]+|generate-patch)\Z"
)
_FEATURE = re.compile(r"-f[a-z0-9+-]+(?:=[\w+,-]+)?\Z")
_DOUBTED = re.compile(
    r"dump|profile|cover|plugin|modul|save|record|report|info|usage|time|index|file|pch|repo|emit|sanitize|crash|list"
    r"|syntax|preprocessed|directives|compilation|instrument|-map|xray|save|thinlto|diagnostics-format|output|test|path"
)
"""Words in the names of `-f` options that may read or write files of their own."""


class CompileReading(NamedTuple):
    """`language`: as `-x` takes it; `depfile`: the one that the command writes, `""`: none; `hides_system`: it leaves
    system headers out (`-MMD`); `forced`: what -include and -imacros name; `colored`: it says itself whether what it
    prints has colours."""

    source: str
    output: str
    language: str
    depfile: str = ""
    hides_system: bool = False
    forced: tuple[str, ...] = ()
    colored: bool = False


class _Walk:
    """One walk over the words."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.values: dict[str, list[str]] = {}
        self.flags: set[str] = set()
        self.reason = ""

    def over(self, words: Sequence[str]) -> None:
        rest = iter(words)
        for word in rest:
            if self.reason:
                return
            option = next((name for name in _VALUED if word.startswith(name)), "") if word[:1] == "-" else ""
            if word == "-":
                self.reason = STANDARD_INPUT
            elif word[:1] != "-":
                self.sources.append(word)
            elif (reason := next((why for pattern, why in _REASONS if pattern.match(word)), "")) or word == "-I-":
                self.reason = reason or UNKNOWN_FLAG
            elif word in _ONLY_SEPARATE or (option and option not in _ONLY_SEPARATE):
                name = option or word
                value = word[len(option) :] if option else ""
                self._take(name, value or next(rest, ""))
            elif word in _KNOWN or _PLAIN.match(word) or (_FEATURE.match(word) and not _DOUBTED.search(word)):
                self.flags.add(word)
            else:
                self.reason = UNKNOWN_FLAG

    def _take(self, name: str, value: str) -> None:
        if not value:
            self.reason = UNKNOWN_FLAG
        self.values.setdefault(name, []).append(value)


def read_compile(words: Sequence[str]) -> CompileReading | str:
    """The words after the compiler's; why the command is to be left alone."""
    walk = _Walk()
    walk.over(words)
    if walk.reason or "-c" not in walk.flags:
        return walk.reason or NO_COMPILE
    if len(walk.sources) != 1:
        return SEVERAL_SOURCES if walk.sources else NO_SOURCE
    source = walk.sources[0]
    languages = walk.values.get("-x", [])
    language = LANGUAGES.get(posixpath.splitext(source)[1][1:], "")
    if languages:
        language = languages[0] if len(languages) == 1 and languages[0] in LANGUAGES.values() else ""
    if not language or source.startswith("@"):
        return NO_SOURCE
    outputs = walk.values.get("-o", [])
    output = outputs[-1] if outputs else f"{posixpath.splitext(posixpath.basename(source))[0]}.o"
    name, ending = posixpath.splitext(posixpath.basename(output))
    if len(outputs) > 1 or not name or not ending or output == source:
        return ODD_OUTPUT
    depfile = _depfile(walk, output)
    if depfile is None:
        return SPECIAL_DEPFILE
    return CompileReading(
        source=source,
        output=output,
        language=language,
        depfile=depfile,
        hides_system="-MMD" in walk.flags,
        forced=(*walk.values.get("-include", ()), *walk.values.get("-imacros", ())),
        colored=any("diagnostics-color" in flag or "color-diagnostics" in flag for flag in walk.flags),
    )


def _depfile(walk: _Walk, output: str) -> str | None:
    """The depfile that the command writes, `""` for none; None where that is not simply told."""
    files = walk.values.get("-MF", [])
    asked = walk.flags & {"-MD", "-MMD"}
    if not asked:
        return None if files or "-MP" in walk.flags or walk.values.keys() & {"-MT", "-MQ"} else ""
    if len(asked) > 1 or len(files) > 1:
        return None
    if files:
        return None if files[0] in ("-", output) else files[0]
    return f"{posixpath.splitext(output)[0]}.d"


def listing_words(words: Sequence[str], depfile: str) -> list[str]:
    """The words of a command that was read, as those of one that only lists what is included, system headers too."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-c", "-MD", "-MMD", "-MP"):
            continue
        option = next((name for name in ("-MF", "-MT", "-MQ", "-o") if word.startswith(name)), "")
        if not option:
            found.append(word)
        elif word == option:
            next(rest, "")
    return [*found, "-M", "-MF", depfile, "-MT", "x"]
