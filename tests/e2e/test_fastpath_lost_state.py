"""The fast path's state beside an older one of the engine: real runs of a project whose ELF file holds its objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.editor.watch_set import watch_set
from pipeline.model import Stage
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options
from tests.e2e.test_fastpath import NOTHING, ZIG, FastPathProject

LINKER = """if [ -z "$source" ]; then exec cp "$(dirname "$0")/template.elf" "$out"; fi"""
LINKER_OF_OBJECTS = (
    """if [ -z "$source" ]; then cp "$(dirname "$0")/template.elf" "$out"; cat $objects >> "$out"; exit 0; fi"""
)
COLLECTING = (
    'objects=\nfor word in "$@"; do case "$word" in *.o) [ -f "$word" ] && objects="$objects $word";; esac; done\n'
)
FIRST, SECOND = b"int edited_first;\n", b"int edited_second;\n"


class LosingProject(FastPathProject):
    """Two sources, each of which was edited; the second one back again, so that the cache has what its edit made beside
    the first one as it was."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        super().__init__(directory)
        script = ZIG.replace("while [", f"{COLLECTING}while [", 1).replace(LINKER, LINKER_OF_OBJECTS)
        assert LINKER_OF_OBJECTS in script
        self.zig.write_text(script)
        self.first, self.second = sorted((self.root / "src").rglob("*.c"))[:2]
        self.settle()
        self.elf = next((self.root / "build").rglob("app.elf"))
        before = self.second.read_bytes()
        for content in (before + SECOND, before):
            self.second.write_bytes(content)
            self.build()

    @property
    def more(self) -> Path:
        return self.root / ".deploy/stamps.v1.more"

    def build(self, program: str = "hotplate") -> None:
        for name in (program, "hotplate"):
            self.out(name, "compile", "link")

    def edit(self, path: Path, text: bytes, program: str = "hotplate") -> None:
        path.write_bytes(path.read_bytes() + text)
        self.build(program)

    def assert_is_right(self) -> None:
        elf = self.elf.read_bytes()
        assert (FIRST in elf, SECOND in elf) == (FIRST in self.first.read_bytes(), SECOND in self.second.read_bytes())
        assert self.out("hotplate", "compile", "link") == NOTHING
        calls = self.zig.with_name("calls")
        calls.unlink()
        self.elf.unlink()
        self.build()
        assert self.elf.read_bytes() == elf and not calls.exists(), "what was stored is what was built"


@pytest.fixture
def losing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LosingProject:
    return LosingProject(tmp_path, monkeypatch)


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("lose", [Path.unlink, _flipped])
def test_an_edit_after_what_changed_was_lost_builds_what_the_sources_say(
    losing: LosingProject, lose: Callable[[Path], None]
) -> None:
    losing.edit(losing.first, FIRST)
    lose(losing.more)
    losing.edit(losing.second, SECOND)
    losing.assert_is_right()


def test_what_is_gone_after_what_changed_was_lost_is_what_the_sources_say(losing: LosingProject) -> None:
    losing.edit(losing.first, FIRST)
    losing.more.unlink()
    losing.elf.unlink()
    losing.build()
    losing.assert_is_right()


def test_an_older_state_that_was_put_back_is_not_taken_for_the_last_one(losing: LosingProject) -> None:
    """By somebody's backup."""
    before = losing.more.read_bytes()
    losing.edit(losing.first, FIRST)
    losing.more.write_bytes(before)
    losing.edit(losing.second, SECOND)
    losing.assert_is_right()


def test_what_could_not_be_written_is_not_taken_for_written(losing: LosingProject) -> None:
    losing.edit(losing.first, FIRST, "hotplate without room")
    losing.edit(losing.second, SECOND)
    losing.assert_is_right()


@pytest.mark.parametrize("whole", [True, False])
def test_who_only_looks_writes_nothing_over_what_a_run_wrote_meanwhile(losing: LosingProject, whole: bool) -> None:
    """As `doit explain` and `doit watch`, which look without the project's lock."""
    losing.first.write_bytes(losing.first.read_bytes() + FIRST)
    with losing.inside():
        view = load_build(Options(), losing.root)
        assert isinstance(view, Build)
        seen = view.engine if whole else view.engines.of(Stage.FINGERPRINT)
        seen.scan()
        assert seen.table.changed and view.engines.only_partial != whole
        losing.build()
        state = {path.name: path.read_bytes() for path in (losing.root / ".deploy").glob("stamps.v1.*")}
        if not whole:
            assert view.engine is not seen
        view.close()
        watch_set(losing.root, Options())
    assert state == {path.name: path.read_bytes() for path in (losing.root / ".deploy").glob("stamps.v1.*")}
    losing.edit(losing.second, SECOND)
    losing.assert_is_right()
