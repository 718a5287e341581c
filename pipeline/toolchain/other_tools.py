"""What the tools of builds that are not ours read of a project by themselves: which files, and what PlatformIO's
configuration names.

Reads that configuration; runs nothing. Does not know proofs. Invariant: a file or directory of the project that a value
of platformio.ini names is among `configured`, unless the option says where PlatformIO writes.
Sources: PlatformIO's manual ("platformio.ini", "[platformio] options", "sysenv", espressif32's "Partition tables" and
"Embedding binary data"), the sketch specification of arduino-cli, the hooks in the ESP32 core's platform.txt
(partitions.csv, bootloader.bin).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cache.durable import read_file
from pipeline.formats.command_words import parts
from pipeline.toolchain.globs import is_pattern
from pipeline.toolchain.user_actions import PYTHON

_MAKE = (*("GNUmakefile", "makefile", "Makefile", "*.mk", "*.mak", ".config"), "*/Makefile", "*/*.mk")
_PIO = (
    *("*.ini", "*.py", "*.csv", "sdkconfig*", "CMakeLists.txt", "*/CMakeLists.txt", "*/idf_component.yml"),
    *("src/**", "include/**", "lib/**", "boards/**"),
)
_SKETCH = ("ino", "pde", "c", "cc", "cpp", "cxx", "h", "hh", "hpp", "tpp", "ipp", "S", "csv")
OWN_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "make": _MAKE,
        "gmake": _MAKE,
        "cargo": ("Cargo.toml", "Cargo.lock", "build.rs", "rust-toolchain*", ".cargo/config*", "*/Cargo.toml"),
        "pio": _PIO,
        "platformio": _PIO,
        "arduino-cli": (
            *(f"*.{ending}" for ending in _SKETCH),
            *("src/**", "bootloader.bin", "sketch.yaml", "arduino-cli.yaml"),
        ),
        "idf.py": (
            *("CMakeLists.txt", "sdkconfig*", "*/CMakeLists.txt", "*/Kconfig*", "*/idf_component.yml", "*.csv"),
            *("components/*/CMakeLists.txt", "components/*/Kconfig*", "components/*/idf_component.yml"),
        ),
        "west": (
            "CMakeLists.txt",
            "prj*.conf",
            "Kconfig*",
            "*.overlay",
            "boards/**",
            "west.yml",
            "VERSION",
            "sysbuild*",
        ),
        "cmake": ("CMakeLists.txt", "*/CMakeLists.txt", "CMakePresets.json", "CMakeUserPresets.json"),
        "ninja": (),
    }
)
"""Program -> patterns of files that it reads first of all, or takes for its own, and that no depfile names."""
_PLACE_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "make": ("-C", "--directory"),
        "gmake": ("-C", "--directory"),
        "pio": ("-d", "--project-dir"),
        "platformio": ("-d", "--project-dir"),
        "idf.py": ("-C", "--project-dir"),
    }
)
"""Options that say in which directory of the project a program works."""
_WRITTEN = re.compile(r"(?:\w+_)?(?:cache|core|packages|platforms|build|libdeps|workspace|monitor|test|globallib)_dir")
"""Options of platformio.ini that name directories in which PlatformIO writes."""
_SYSENV = re.compile(r"\$\{sysenv\.(\w+)\}")
_SCHEME = re.compile(r"(?:symlink|file)://")
_PATTERN = re.compile(r"([^*?\[]+)/[^*?\[]*[*?\[]")
_MOST_FILES = 64
"""More files of configuration than this are not followed."""


class OtherTool:
    """The program that a build starts, with its words. Precondition: there is at least one."""

    def __init__(self, root: Path, build: Sequence[str]) -> None:
        self._root, self._words = root, tuple(build)
        by_python = build[0] in PYTHON and build[1:2] and build[1] == "-m" and len(build) > 2
        self.name = build[2] if by_python else posixpath.basename(build[0])
        """`pio` of `/opt/pio run` and of `python -m pio run`."""

    def own_patterns(self) -> list[str]:
        """Of the files that it takes for its own, where it works."""
        return [f"{place}{pattern}" for place in self._places() for pattern in OWN_FILES.get(self.name, ())]

    def variables(self) -> tuple[str, ...]:
        """Of the environment, as the configuration names them."""
        return tuple(sorted({name for _, text in self._configuration() for name in _SYSENV.findall(text)}))

    def configured(self) -> tuple[str, ...]:
        """What the values of the configuration name, from the root, whether it is there or not."""
        said = ((place, part) for place, text in self._configuration() for part in _named(text))
        return tuple(dict.fromkeys(part if part[:1] in "/~" else f"{place}{part}" for place, part in said))

    def place_outside(self) -> str:
        """A directory beyond the project that the configuration names, `""` if there is none."""
        root = os.path.realpath(self._root)
        for name in self.configured():
            place = os.path.realpath(os.path.join(self._root, os.path.expanduser(name)))  # noqa: PTH111, PTH118
            if os.path.isdir(place) and place != root and not place.startswith(f"{root}/"):  # noqa: PTH112
                return name
        return ""

    def _places(self) -> list[str]:
        """The directories of the project in which it works, each with a slash at its end, `""` for the root."""
        words, found = self._words, list[str]()
        for option in _PLACE_OPTIONS.get(self.name, ()):
            found += [words[n + 1] for n, word in enumerate(words[:-1]) if word == option]
            joined = f"{option}=" if option[:2] == "--" else option
            found += [word[len(joined) :] for word in words if word.startswith(joined) and word != option]
        if self.name == "arduino-cli":
            found = [word for word in words[1:] if word[:1] != "-" and any((self._root / word).glob("*.ino"))]
        plain = [posixpath.relpath(place, self._root) if place[:1] == "/" else place for place in found]
        places = [posixpath.normpath(place) for place in plain]
        return ["" if place == "." else f"{place}/" for place in places if place.split("/")[0] != ".."] or [""]

    def _configuration(self) -> list[tuple[str, str]]:
        """(where the program works, text) of PlatformIO's files, and of those that these add."""
        if self.name not in ("pio", "platformio"):
            return []
        found = []
        for place in self._places():
            waiting, seen = [f"{place}platformio.ini"], set[str]()
            while waiting and len(seen) < _MOST_FILES:
                path = waiting.pop()
                if path in seen or (text := self._text(path)) is None:
                    continue
                seen.add(path)
                found.append((place, text))
                waiting += [name for part in _named(text) if part.endswith(".ini") for name in self._like(place, part)]
        return found

    def _like(self, place: str, part: str) -> list[str]:
        if not is_pattern(part):
            return [f"{place}{part}"]
        base = self._root / place
        return [] if part[:1] == "/" else [f"{place}{path.relative_to(base)}" for path in sorted(base.glob(part))]

    def _text(self, path: str) -> str | None:
        try:
            return os.fsdecode(read_file(str(self._root / path)))
        except (OSError, ValueError):
            return None


def _named(text: str) -> list[str]:
    """What values of an ini file may name, but where nothing but products lie."""
    found: list[str] = []
    option = ""
    for line in text.splitlines():
        if line.lstrip()[:1] in ("#", ";"):
            continue
        name, begins, value = line.partition("=")
        is_option = bool(begins) and not line[:1].isspace()
        option = name.strip() if is_option else option
        if not _WRITTEN.fullmatch(option):
            said = (value if is_option else line).split(" ;")[0]
            found += [part for word in said.split() for part in parts(_SCHEME.sub("", word))]
    # A pattern may match all that lies below the directory before it.
    found += [found_in[1] for part in found if (found_in := _PATTERN.match(part))]
    return found
