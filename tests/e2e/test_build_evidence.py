"""`[prebuilt] build` with evidence: left out only while a proof stands, which each of these edits takes away."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import given_firmware as given
from tests.contract.test_compiler_launcher import settled
from tests.e2e.space import Space, environment
from tests.given_project import project

BUILD = """
import pathlib, shutil, sys
count = pathlib.Path("count.txt")
count.write_text(count.read_text() + "x" if count.exists() else "x")
pathlib.Path("out").mkdir(exist_ok=True)
for name in ("b.bin", "t.bin", "a.bin"):
    shutil.copy(f"made/{name}", f"out/{name}")
pathlib.Path("out/app.d").write_text("app.o: src/app.c src/app.h \\\\\\n made/a.bin\\n")
"""
CHIP = "esp32s3"


def files(directory: str) -> str:
    boot = hex(given.BOOT_OFFSETS[CHIP])
    return f'files = {{ {boot} = "{directory}/b.bin", 0x8000 = "{directory}/t.bin", 65536 = "{directory}/a.bin" }}'


def sources(root: Path) -> None:
    made = {"b.bin": given.bootloader(CHIP), "t.bin": given.table(given.TWO_SLOTS), "a.bin": given.app(CHIP)}
    given.write(root / "made", made)
    (root / "src").mkdir()
    (root / "src/app.c").write_text("int app;\n")
    (root / "src/app.h").write_text("")
    (root / "src/other.c").write_text("")
    (root / "build.py").write_text(BUILD)


def of(*lines: str) -> Callable[[Path, str], str]:
    def layout(root: Path, chip: str) -> str:
        sources(root)
        return "\n".join(('build = ["python", "build.py"]', files("out"), *lines))

    return layout


def age(root: Path) -> None:
    """What is in the project now was there before what follows."""
    settled(root / "deploy.toml")
    probe = root / "probe"
    probe.write_text("")
    settled(probe)
    probe.unlink()


class Ledger:
    """A project, and how often its build ran."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def link(self, **env: str) -> int:
        """Run; how often the build ran in it."""
        age(self.space.path)
        before = self.count
        result = self.space.doit("link", env=env)
        assert result.code == 0, result.out + result.err
        return self.count - before

    @property
    def count(self) -> int:
        path = self.space.file("count.txt")
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def evidenced(tmp_path: Path) -> Ledger:
    layout = of('inputs = ["src/**/*.c", "made/*"]', 'depfiles = ["out/*.d"]', 'env = ["FLAVOUR"]')
    return Ledger(project(tmp_path / "project", CHIP, layout))


def test_a_proven_build_is_left_out_and_the_report_says_by_what(evidenced: Ledger) -> None:
    space = evidenced.space
    age(space.path)
    first = space.deploy()
    assert first.code == 0 and evidenced.count == 1
    second = space.deploy()
    assert second.code == 0 and evidenced.count == 1 and second.outcome == "verified_unchanged"
    assert second.report["build_skipped"] == "depfiles 3 files, globs 2"
    assert first.report["build_ran"] == "it is not known what it read"
    page = (space.path / second.report["report_path"]).read_text()
    assert "build_skipped" in page and "depfiles 3 files, globs 2" in page


EDITS: tuple[Callable[[Path], object], ...] = (
    lambda root: (root / "src/app.c").write_text("int edited;\n"),
    lambda root: (root / "src/app.h").write_text("#define ONLY_IN_THE_DEPFILE 1\n"),
    lambda root: (root / "src/new.c").write_text(""),
    lambda root: (root / "src/other.c").unlink(),
    lambda root: (root / "out/a.bin").write_bytes(given.app(CHIP, "another hand")),
    lambda root: (root / "out/a.bin").unlink(),
    lambda root: (root / "out/app.d").unlink(),
    lambda root: (root / "build.py").write_text(BUILD + "# edited\n"),
    lambda root: (root / "deploy.toml").write_text((root / "deploy.toml").read_text().replace("src/**/*.c", "src/*")),
)


def test_whatever_moves_lets_it_run_once(evidenced: Ledger) -> None:
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    for number, edit in enumerate(EDITS):
        edit(evidenced.space.path)
        assert (number, evidenced.link(), evidenced.link()) == (number, 1, 0)


def test_a_touched_file_is_no_reason_and_a_variable_is(evidenced: Ledger) -> None:
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    (evidenced.space.path / "src/app.c").touch()
    assert evidenced.link() == 0
    (evidenced.space.path / "src/readme.txt").write_text("no source")
    assert evidenced.link() == 0
    assert [evidenced.link(FLAVOUR="vanilla"), evidenced.link(FLAVOUR="vanilla")] == [1, 0]


def of_tool(name: str, *words: str, ini: str = "", evidence: str = 'inputs = ["made/*"]') -> Callable[[Path, str], str]:
    """A tool of that name, which does what `build.py` does."""

    def layout(root: Path, chip: str) -> str:
        sources(root)
        (root / name).write_text(f"#!{sys.executable}\n{BUILD}")
        (root / name).chmod(0o755)
        if ini:
            (root / "platformio.ini").write_text(ini)
        return "\n".join((f"build = {[f'./{name}', *words]}", files("out"), evidence))

    return layout


def edits(evidenced: Ledger, *paths: str) -> None:
    """Each of these lets it run once: when it comes, and when it is another."""
    for path in paths:
        file = evidenced.space.file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        for text in ("came", "edited"):
            file.write_text(text)
            assert (path, text, evidenced.link(), evidenced.link()) == (path, text, 1, 0)


INI = """
[platformio]
extra_configs = more/*.ini
build_dir = out
src_dir = firmware
[env:desk]
platform = espressif32 ; a remark with src/readme.txt
board_build.partitions = tables/ours.csv
board_build.embed_txtfiles =
    certs/server.pem
extra_scripts = pre:tools/version.py
build_flags = -DNAME=${sysenv.UNIT_NAME}
"""


def test_what_platformio_reads_by_itself_or_is_told_to_read(tmp_path: Path) -> None:
    evidenced = Ledger(project(tmp_path / "project", CHIP, of_tool("pio", "run", ini=INI)))
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    told = ("tables/ours.csv", "certs/server.pem", "tools/version.py", "more/one.ini", "firmware/new.c")
    edits(
        evidenced, *told, "partitions.csv", "sdkconfig.defaults", "boards/ours.json", "src/new.c", "lib/x/library.json"
    )
    assert [evidenced.link(UNIT_NAME="a"), evidenced.link(UNIT_NAME="a"), evidenced.link(UNIT_NAME="b")] == [1, 0, 1]
    evidenced.space.file("src/readme.md").parent.joinpath("../notes.txt").write_text("not told")
    evidenced.link(UNIT_NAME="b")
    assert evidenced.link(UNIT_NAME="b") == 0
    evidenced.space.file("more/one.ini").write_text("[env:desk]\nboard_build.variants_dir = variants\n")
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    edits(evidenced, "variants/ours/pins.h")


def test_a_library_outside_needs_depfiles_and_one_behind_a_link_none(tmp_path: Path) -> None:
    library = tmp_path / "shared/library"
    library.mkdir(parents=True)
    (library / "l.h").write_text("")
    ini = f"[env:desk]\nlib_deps = symlink://{library}\n"
    evidenced = Ledger(project(tmp_path / "project", CHIP, of_tool("pio", "run", ini=ini)))
    assert [evidenced.link(), evidenced.link()] == [1, 1]
    root = evidenced.space.path
    (root / "platformio.ini").write_text("[env:desk]\n")
    (root / "lib").mkdir()
    (root / "lib/shared").symlink_to(library)
    (library / "round").symlink_to(library.parent)
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    edits(evidenced, "lib/shared/l.h", "lib/shared/new.c")


def test_what_arduino_and_make_take_of_the_directory_in_which_they_work(tmp_path: Path) -> None:
    sketch = project(tmp_path / "sketch", CHIP, of_tool("arduino-cli", "compile", "Blink"))
    sketch.file("Blink").mkdir()
    sketch.file("Blink/Blink.ino").write_text("")
    evidenced = Ledger(sketch)
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    edits(evidenced, *(f"Blink/{name}" for name in ("partitions.csv", "more.c", "start.S", "t.tpp", "src/a/b.cpp")))
    evidenced = Ledger(project(tmp_path / "make", CHIP, of_tool("make", "-C", "fw")))
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    edits(evidenced, "fw/rules.mk", "fw/sub/Makefile")


def test_a_file_in_a_directory_that_the_command_names_comes_later(tmp_path: Path) -> None:
    """So it does while another directory that patterns look at moves as well."""
    layout = of_tool("builder", "./tools", "./later.txt")
    evidenced = Ledger(project(tmp_path / "project", CHIP, layout))
    evidenced.space.file("tools").mkdir()
    evidenced.space.file("tools/one.py").write_text("")
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    evidenced.space.file("notes.txt").write_text("")
    assert evidenced.link() == 0
    edits(evidenced, "tools/two.py", "later.txt")


def test_a_source_that_is_saved_while_it_builds_is_built_again(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        section = of('inputs = ["src/*"]')(root, chip)
        saved = "\nif not pathlib.Path('saved').exists():\n    pathlib.Path('saved').touch()\n"
        (root / "build.py").write_text(BUILD + saved + "    pathlib.Path('src/app.c').write_text('int saved;')\n")
        return section

    ledger = Ledger(project(tmp_path / "project", CHIP, layout))
    assert [ledger.link(), ledger.link(), ledger.link()] == [1, 1, 0]


def test_a_build_that_fails_leaves_no_proof_and_names_its_first_error(evidenced: Ledger) -> None:
    assert [evidenced.link(), evidenced.link()] == [1, 0]
    space = evidenced.space
    bad = (
        BUILD
        + 'print("\\x1b[1msrc/app.c:1:5: \\x1b[31merror: \\x1b[0mno type", file=sys.stderr)\nraise SystemExit(2)\n'
    )
    space.file("build.py").write_text(bad)
    for _ in range(2):
        failed = space.doit("link")
        assert failed.code == 1
        assert "src/app.c:1:5: error: no type" in failed.err
    space.file("build.py").write_text(BUILD)
    assert [evidenced.link(), evidenced.link()] == [1, 0]


def test_a_depfile_that_names_what_is_not_there_proves_nothing(evidenced: Ledger) -> None:
    text = BUILD.replace("src/app.h", "src/gone.h")
    evidenced.space.file("build.py").write_text(text)
    assert [evidenced.link(), evidenced.link()] == [1, 1]


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("gcc") is None, reason="needs make and gcc")
def test_make_with_depfiles(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        sources(root)
        (root / "src/app.c").write_text('#include "app.h"\nint app = APP;\n')
        (root / "src/app.h").write_text("#define APP 1\n")
        (root / "Makefile").write_text(
            "all: out/b.bin out/t.bin out/a.bin out/app.o\n"
            "out/%.bin: made/%.bin | out\n\tcp $< $@\n"
            "out/app.o: src/app.c | out\n\tgcc -MMD -c $< -o $@\n"
            "out:\n\tmkdir out\n-include out/app.d\n"
        )
        evidence = 'depfiles = ["out/*.d"]\ninputs = ["made/*"]'
        return f'build = ["make"]\n{files("out")}\n{evidence}'

    space = project(tmp_path / "project", CHIP, layout)
    age(space.path)
    assert "gcc -MMD" in space.doit("link").out
    assert "make" not in space.doit("link").out
    space.file("src/app.h").write_text("#define APP ;\n")
    age(space.path)
    failed = space.doit("link")
    assert failed.code == 1 and "src/app.h:1:13: error: expected expression before" in failed.err
    space.file("src/app.h").write_text("#define APP 2\n")
    age(space.path)
    assert "gcc -MMD" in space.doit("link").out
    space.file("Makefile").write_text(space.file("Makefile").read_text() + "# edited\n")
    age(space.path)
    assert "make: Nothing to be done" in space.doit("link").out
    assert "make" not in space.doit("link").out


def _has(*programs: str) -> bool:
    return all(map(shutil.which, programs))


@pytest.mark.skipif(not _has("cmake", "ninja", "gcc"), reason="needs cmake, ninja and gcc")
def test_cmake_with_ninjas_own_files(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        sources(root)
        (root / "src/app.c").write_text('#include "app.h"\nint app(void) { return 1; }\n')
        (root / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.20)\nproject(x C)\nadd_library(app src/app.c)\n"
            "foreach(n b t a)\n  add_custom_command(OUTPUT ${n}.bin COMMAND ${CMAKE_COMMAND} -E copy "
            "${CMAKE_SOURCE_DIR}/made/${n}.bin ${n}.bin DEPENDS ${CMAKE_SOURCE_DIR}/made/${n}.bin)\n"
            "  list(APPEND bins ${n}.bin)\nendforeach()\nadd_custom_target(bins ALL DEPENDS ${bins})\n"
        )
        subprocess.run(["cmake", "-G", "Ninja", "-B", "cbuild"], cwd=root, check=True, capture_output=True)
        return f'build = ["ninja", "-C", "cbuild"]\nninja = ["cbuild"]\n{files("cbuild")}'

    space = project(tmp_path / "project", CHIP, layout)
    age(space.path)
    assert "[" in space.doit("link").out
    second = space.doit("link")
    assert "ninja" not in second.out, second.out
    for name in ("src/app.h", "made/a.bin", "CMakeLists.txt"):
        path = space.file(name)
        path.write_bytes(path.read_bytes() if name == "made/a.bin" else path.read_bytes() + b"\n")
        if name == "made/a.bin":
            path.write_bytes(given.app(CHIP, "two"))
        age(space.path)
        assert "ninja" in space.doit("link").out, name
        assert "ninja" not in space.doit("link").out, name
    space.file("src/app.c").write_text("int app(void) { return x; }\n")
    age(space.path)
    failed = space.doit("link")
    assert failed.code == 1 and "src/app.c:1:24: error: " in failed.err


@pytest.mark.skipif(not _has("cargo"), reason="needs cargo")
def test_cargo_with_its_depfiles(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        sources(root)
        (root / "Cargo.toml").write_text('[package]\nname = "x"\nversion = "0.1.0"\nedition = "2021"\n')
        (root / "src/lib.rs").write_text("pub mod part;\n")
        (root / "src/part.rs").write_text("pub fn one() -> u32 { 1 }\n")
        subprocess.run(["cargo", "generate-lockfile", "--offline"], cwd=root, check=True, capture_output=True)
        evidence = 'depfiles = ["target/debug/*.d"]\ninputs = ["made/*"]'
        return f'build = ["cargo", "build", "--offline"]\n{evidence}\n{files("made")}'

    space = project(tmp_path / "project", CHIP, layout)
    age(space.path)
    first = space.doit("link")
    assert first.code == 0 and "Compiling x" in first.err, first.err
    assert "Finished" not in space.doit("link").err
    space.file("src/part.rs").write_text("pub fn one() -> u32 { nothing }\n")
    age(space.path)
    failed = space.doit("link")
    assert failed.code == 1
    assert "src/part.rs:1:23: error: cannot find value `nothing` in this scope [E0425]" in failed.err


def test_the_early_answer_looks_at_the_evidence(evidenced: Ledger) -> None:
    hotplate = [sys.executable, "-X", "importtime", "-c", "from pipeline.fastpath import main; main()", "link"]
    root = evidenced.space.path

    def is_run() -> bool:
        age(root)
        env = environment(PYTHONPATH=str(Path(__file__).parents[2]))
        done = subprocess.run(hotplate, cwd=root, env=env, capture_output=True, text=True, check=True)
        return "pipeline.run.run" in done.stderr

    assert [is_run() for _ in range(3)][::2] == [True, False]
    (root / "src/app.h").write_text("// only the depfile names it\n")
    assert is_run() is True
    assert evidenced.count == 2
