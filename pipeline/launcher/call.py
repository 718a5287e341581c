"""One call of `hotplate cc`: what was asked, where, and in which environment; and how to do it without us.

Knows the command line, the working directory and the environment; not what a compiler makes of them. Invariants: two
calls with equal `text` ask the same of a compiler, if the files are the same; `plain` never returns, and what it starts
sees the arguments, environment and signals that it would have seen without us.

A part of every hit's start-up: nothing is imported that the interpreter has not loaded.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys

from cache.location import user_cache_dir

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

FORMAT = "hotplate cc 2"
"""Part of each key: raised when the same command comes to another result."""
ROOT = "{root}"
MAP = "-ffile-prefix-map="
VARIABLES = frozenset(
    (
        *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH"),
        *("SOURCE_DATE_EPOCH", "FORCE_SOURCE_DATE", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "LANG", "LANGUAGE"),
        *("SDKROOT", "GNUTARGET", "NO_COLOR", "CLICOLOR_FORCE", "PATH", "LD_RUN_PATH", "ZERO_AR_DATE"),
    )
)
PREFIXES = ("LC_", "GCC_", "CLANG_", "CCC_", "ZIG_", "XTENSA_", "MACOSX_")
"""Names of variables, and how names begin, by which compilers decide what to make or to say."""
_OF_TERMINAL = ("TERM", "COLUMNS", "COLORTERM", "TERM_URLS")
_SMALL = 1 << 18
_ENDS_A_PATH = "/=:,;\"' \t\n\\"


class Call:
    """`words`: the compiler and its arguments, with ours; `cwd`: as a compiler names the working directory."""

    __slots__ = ("cache", "cwd", "environment", "on_terminal", "root", "text", "words")

    def __init__(self, words: "Sequence[str]", environment: "Mapping[str, str]", cache: str) -> None:
        self.environment = environment
        self.cache = cache
        self.cwd = _directory(environment)
        self.on_terminal = os.isatty(2)
        self.words = list(words)
        given = environment.get("HOTPLATE_CC_ROOT", "").rstrip("/")
        self.root = given if given.startswith("/") else _mapped_root(words, self.cwd)
        if any(ROOT in word for word in (*words, self.cwd)):
            self.root = ""
        elif self.root == given != "" and not any(word.startswith(f"{MAP}{given}=") for word in words):
            self.words.append(f"{MAP}{given}=.")
        parts = [FORMAT, self.symbolic(self.cwd), "terminal" if self.on_terminal else "", *self.variables()]
        self.text = "\0".join((*parts, "", *map(self.symbolic, self.words)))

    def variables(self) -> "list[str]":
        """`NAME=value` of the environment that counts, in order."""
        names = [name for name in self.environment if name in VARIABLES or name.startswith(PREFIXES)]
        if self.on_terminal:
            names += [name for name in _OF_TERMINAL if name in self.environment]
        return [f"{name}={self.symbolic(self.environment[name])}" for name in sorted(names)]

    def symbolic(self, text: str) -> str:
        """`text` with the root's place as a symbol."""
        if not self.root or self.root not in text:
            return text
        first, *rest = text.split(self.root)
        return first + "".join((ROOT if not part or part[0] in _ENDS_A_PATH else self.root) + part for part in rest)

    def concrete(self, text: str) -> str:
        """The inverse of `symbolic`."""
        return text.replace(ROOT, self.root) if self.root else text

    def place(self, name: str) -> str:
        """Where a name of a key or of the command can be opened: names are relative to the working directory."""
        return self.concrete(name) if ROOT in name else name


def _directory(environment: "Mapping[str, str]") -> str:
    """The working directory; by PWD where that leads to it, since compilers put that into debug information."""
    here, said = os.getcwd(), environment.get("PWD", "")  # noqa: PTH109
    if said != here and said.startswith("/"):
        try:
            if os.path.samestat(os.stat(said), os.stat(".")):  # noqa: PTH116
                return said
        except OSError:
            pass
    return here


def _mapped_root(words: "Sequence[str]", cwd: str) -> str:
    """The directory around the working directory that the compiler is told to leave out of everything, `""` if none."""
    for word in words:
        if word.startswith(MAP):
            old, found, _ = word[len(MAP) :].partition("=")
            old = old.rstrip("/")
            if found and old.startswith("/") and (cwd == old or cwd.startswith(f"{old}/")):
                return old
    return ""


def original_environment() -> "dict[str, str]":
    """The environment that this process was started with: Python adds LC_CTYPE where nothing chose a locale, and then
    a compiler would print other quotes."""
    found = dict(os.environ)
    if found.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8") and not found.get("LC_ALL"):
        try:
            with open("/proc/self/environ", "rb") as stream:  # noqa: PTH123
                said = stream.read().split(b"\0")
        except OSError:
            return found
        own = next((row for row in said if row.startswith(b"LC_CTYPE=")), b"")
        if not own:
            del found["LC_CTYPE"]
        else:
            found["LC_CTYPE"] = os.fsdecode(own[9:])
    return found


def cache_directory(environment: "Mapping[str, str]") -> str:
    """Where results are stored, `""` where no place is known."""
    given = environment.get("HOTPLATE_CACHE_DIR", "")
    return given if given.startswith("/") else user_cache_dir(environment, sys.platform) or ""


def plain(words: "Sequence[str]", environment: "Mapping[str, str]") -> "NoReturn":
    """Be the compiler."""
    for name in ("SIGPIPE", "SIGXFSZ"):  # which Python ignores, and what it starts would go on ignoring
        if hasattr(_signal, name):
            _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    try:
        if os.name == "posix":
            os.execvpe(words[0], list(words), environment)
        os._exit(os.spawnvpe(os.P_WAIT, words[0], list(words), environment))
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        os.write(2, f"hotplate: error: the compiler '{words[0]}' cannot be started: {error.strerror}\n".encode())
        os._exit(code)


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hex. To load OpenSSL takes longer than the interpreter's own code needs for a small object."""
    if len(data) <= _SMALL:
        try:
            from _sha2 import sha256 as small  # type: ignore[import-not-found]
        except ImportError:
            try:
                from _sha256 import sha256 as small  # type: ignore[import-not-found]
            except ImportError:
                from hashlib import sha256 as small
        return str(small(data).hexdigest())
    from hashlib import sha256

    return sha256(data).hexdigest()


def count(cache: str, what: str) -> None:
    """One more of these: a file per name, whose size is the number, so that many processes can count at once."""
    directory = f"{cache}/cc.v1/counts"
    for _ in range(2):
        try:
            handle = os.open(f"{directory}/{what}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except FileNotFoundError:
            try:
                os.makedirs(directory, exist_ok=True)  # noqa: PTH103
            except OSError:
                return
            continue
        except OSError:
            return
        try:
            os.write(handle, b".")
        except OSError:
            pass
        finally:
            os.close(handle)
        return
