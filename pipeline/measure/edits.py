"""The edits whose way to the running device a baseline measures: a comment, a header, and one that changes the image.

Knows C and C++ sources, and from the last build who reads which file. Works on a copy of the project only. Invariant:
each edit appends a line, so that nothing else moves; `undo` gives every file its first content back.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cache.durable import read_file
from pipeline.model import Failure, Stage
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options
from pipeline.toolchain.globs import Listing

SOURCES = frozenset({".c", ".cc", ".cpp", ".cxx", ".ino"})
HEADERS = frozenset({".h", ".hh", ".hpp", ".hxx"})

LINES = {
    "comment": "/* edit {n} of a baseline */",
    "header": "#define HOTPLATE_BASELINE_EDIT {n}",
    # Kept by compiler and linker although nobody refers to it: the image changes by four bytes.
    "real": '__attribute__((used, retain, section(".rodata.hotplate_baseline_{n}"))) '
    "const unsigned hotplate_baseline_edit_{n} = {n}u;",
}


class Edits:
    """Appends to files below `project`, which must have been built."""

    def __init__(self, project: Path, options: Options) -> None:
        self._project = project
        self._options = options
        self._chosen: tuple[str, str] | None = None
        self._before: dict[str, bytes] = {}
        self._last: tuple[Path, bytes] | None = None

    def make(self, kind: str, number: int) -> str:
        """Edit a file; the reason why there is none to edit, else `""`."""
        source, header = self._choose()
        name = header if kind == "header" else source
        if not name:
            return f"the project has no {'header' if kind == 'header' else 'C or C++ source'} of its own to edit"
        path = self._project / name
        data = read_file(str(path))
        self._before.setdefault(name, data)
        self._last = (path, data)
        path.write_bytes(data + b"\n" + LINES[kind].format(n=number).encode() + b"\n")
        return ""

    def take_back(self) -> None:
        """Undo the last edit alone: it could not be built, and must not spoil the next."""
        if self._last is not None:
            path, data = self._last
            path.write_bytes(data)

    def undo(self) -> list[str]:
        """Put everything back; says what was edited since the last time."""
        edited, self._before = self._before, {}
        for name, data in edited.items():
            (self._project / name).write_bytes(data)
        return [f"edited in the copy: {name}" for name in edited]

    def _choose(self) -> tuple[str, str]:
        """(source, header): the largest source of the application, and the header that most compiles read; `""` for
        none. Chosen once: edits must be comparable."""
        if self._chosen is None:
            build = load_build(self._options, self._project)
            assert not isinstance(build, Failure), "the project's own build was loaded from the same file"
            try:
                self._chosen = self._source(build), _header(build)
            finally:
                build.close()
        return self._chosen

    def _source(self, build: Build) -> str:
        project, listing = build.config.project, Listing(str(self._project))
        names = dict.fromkeys(name for pattern in project.sources for name in listing.match(pattern))
        found = [name for name in names if PurePosixPath(name).suffix in SOURCES and name != project.descriptor]
        return max(sorted(found), key=lambda name: (self._project / name).stat().st_size, default="")


def _header(build: Build) -> str:
    counts = {
        path: sum(action.stage is Stage.COMPILE for action in actions)
        for path, actions in build.engine.workspace.readers().items()
        if PurePosixPath(path).suffix in HEADERS and not path.startswith(("/", "{", "build/"))
    }
    return max(sorted(counts), key=lambda path: counts[path], default="")
