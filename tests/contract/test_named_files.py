"""Files that flags name are inputs, however they are named: with real compilers and linkers. Each case changes one file
and compares what the build makes of it with a build from nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.packages import package_dir
from pipeline.effects.process import SystemProcessRunner
from pipeline.toolchain import gcc
from tests import firmware_build as fb
from tests.contract.small_project import HALF, Small

KINDS = [
    pytest.param("gcc", marks=pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)),
    pytest.param("zig", marks=pytest.mark.needs_zig),
]
only_gcc = pytest.mark.skipif(shutil.which(gcc.DRIVER) is None, reason=fb.GCC_MISSING)


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """kind -> [one.o, two.o, one.a, two.a] of a function `half` that returns other things."""
    made: dict[str, list[Path]] = {}
    for kind in ("gcc", "zig"):
        place = tmp_path_factory.mktemp(kind)
        zig = str((package_dir("ziglang") or place) / "zig")
        cc = [zig, "cc", "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c"]
        cc, ar = (cc, [zig, "ar"]) if kind == "zig" else ([gcc.DRIVER, *gcc.TARGETS["esp32c3"]], [f"{gcc.TRIPLE}-ar"])
        if shutil.which(cc[0]) is None:
            continue
        for name, value in (("one", 1), ("two", 2)):
            (place / f"{name}.c").write_text(HALF.format(value))
            subprocess.run([*cc, "-O1", "-c", place / f"{name}.c", "-o", place / f"{name}.o"], check=True)
            shutil.copy(place / f"{name}.o", place / "half.o")
            subprocess.run([*ar, "rcsD", place / f"{name}.a", place / "half.o"], check=True, capture_output=True)
        made[kind] = [place / name for name in ("one.o", "two.o", "one.a", "two.a")]
    return made


LIBRARIES = {
    "a path": ("lib/libx.a", "lib/libx.a"),
    "an object": ("lib/x.o", "lib/x.o"),
    "-L and -l": ("-Llib -lx", "lib/libx.a"),
    "-L and -l apart": ("-L lib -l x", "lib/libx.a"),
    "-l of an exact name": ("-L./lib/ -l:x.lib", "lib/x.lib"),
    "a response file": ("@words.rsp", "lib/libx.a"),
    "an absolute path": ("ROOT/lib/libx.a", "lib/libx.a"),
    "outside the project": ("../shared/libx.a", "../shared/libx.a"),
    "elsewhere on the machine": ("OUT/libx.a", "../out/libx.a"),
    "-L elsewhere": ("-LOUT -lx", "../out/libx.a"),
    "through a parent": ("inc/../lib/libx.a", "lib/libx.a"),
    "through a link": ("linked/libx.a", "lib/libx.a"),
    "passed on": ("-Wl,-Llib -Wl,-lx", "lib/libx.a"),
    "passed on singly": ("-Xlinker -Llib -Xlinker -lx", "lib/libx.a"),
    "passed on response": ("-Wl,@words.rsp", "lib/libx.a"),
    "the script": ("-T more.ld", "lib/libx.a"),
}
ONLY_GCC = {"-l of an exact name", "passed on", "passed on singly", "passed on response", "the script"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_changes_is_linked(
    tmp_path: Path, runner: SystemProcessRunner, objects: dict[str, list[Path]], kind: str, name: str
) -> None:
    if kind == "zig" and name in ONLY_GCC:
        return  # zig knows no such words
    flags, path = LIBRARIES[name]
    projects = []
    for checkout in ("one", "two"):
        base = tmp_path / checkout
        words = flags.replace("ROOT", str(base / "p")).replace("OUT", str(base / "out")).split()
        small = Small(base / "p", runner, kind, f"ldflags = {words}".replace("'", '"'))
        small.cache = tmp_path / "cache"
        (small.root / "app/half.c").unlink()
        small.write("words.rsp", "-L 'lib'\n-lx")
        small.write("more.ld", "INPUT(lib/libx.a)\n")
        (small.root / "linked").symlink_to("lib")
        projects.append((small, path))
    one, two = (small for small, _ in projects)
    variants = objects[kind][:2] if path.endswith(".o") else objects[kind][2:]
    one.write(path, variants[0].read_bytes())
    assert "link app" in one.build()
    assert one.build() == set()
    first = one.elf()
    two.write(path, variants[1].read_bytes())
    assert "link app" in two.build(), "another library is another program, whatever the shared cache holds"
    assert two.elf() != first
    one.write(path, variants[1].read_bytes())
    one.build()
    assert one.elf() == two.elf()
    one.write(path, variants[0].read_bytes())
    assert "link app" not in one.build(), "both are in the cache"
    assert one.elf() == first
    assert two.elf() == two.clean_elf()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("earlier", ["first/libx.a", "first/libx.so"])
def test_a_library_that_would_be_found_first(
    tmp_path: Path, runner: SystemProcessRunner, objects: dict[str, list[Path]], kind: str, earlier: str
) -> None:
    small = Small(tmp_path / "p", runner, kind, 'ldflags = ["-Lfirst", "-Lmiddle", "-Llib", "-lx"]')
    (small.root / "app/half.c").unlink()
    (small.root / "first").mkdir()
    small.write("lib/libx.a", objects[kind][2].read_bytes())
    assert "link app" in small.build()
    assert small.build() == set()
    small.write(earlier, objects[kind][3].read_bytes())
    before = small.elf()
    results = small.results()
    assert "link app" in {
        name for result in results for name in (*result.executed, *(f.action for f in result.failures))
    }
    if earlier.endswith(".a"):
        assert small.elf() == small.clean_elf() != before


@only_gcc
def test_a_library_of_the_compilers_own_search_path(tmp_path: Path, runner: SystemProcessRunner) -> None:
    """Where it is found is asked of the linker; one of the same name in the project would be found first."""
    small = Small(tmp_path / "p", runner, "gcc", 'ldflags = ["-Llib", "-lgcc"]')
    assert "link app" in small.build()
    assert small.build() == set()
    small.write("lib/libgcc.a", "!<arch>\n")
    assert "link app" in small.build()


FILES = {
    "version script": ("-Wl,--version-script=a.map", "a.map", "{ global: *; };\n", "VER_1 { global: *; };\n"),
    "version script apart": ("-Wl,--version-script,a.map", "a.map", "{ global: *; };\n", "V { global: *; };\n"),
    "symbols": ("-Wl,--just-symbols=a.sym", "a.sym", "extra = 0x10;\n", "extra = 0x20;\n"),
    "symbols short": ("-Wl,-R,a.sym", "a.sym", "extra = 0x10;\n", "extra = 0x20;\n"),
    "a second script": ("-T a.ld", "a.ld", "extra = 0x10;\n", "extra = 0x20;\n"),
    "a second script joined": ("-Wl,-Ta.ld", "a.ld", "extra = 0x10;\n", "extra = 0x20;\n"),
    "a script as an input": ("a.ld", "a.ld", "extra = 0x10;\n", "extra = 0x20;\n"),
    "a script of -L": ("-Lscripts -T a.ld", "scripts/a.ld", "extra = 0x10;\n", "extra = 0x20;\n"),
    "included by a script": ("-T b.ld", "a.ld", "extra = 0x10;\n", "extra = 0x20;\n"),
    "a response file": ("@a.rsp", "a.rsp", "-Wl,--defsym=extra=1\n", "-Wl,--defsym=extra=2\n"),
    "a response file within": ("@b.rsp", "a.rsp", "-Wl,--defsym=extra=1\n", "-Wl,--defsym=extra=2\n"),
    "a response file of the linker": ("-Wl,@a.rsp", "a.rsp", "--defsym=extra=1\n", "--defsym=extra=2\n"),
    "specs": ("-specs=a.specs", "a.specs", "*link:\n+ --defsym=extra=1\n\n", "*link:\n+ --defsym=extra=2\n\n"),
    "specs apart": ("--specs=b.specs", "a.specs", "*link:\n+ --defsym=extra=1\n\n", "*link:\n+ --defsym=extra=2\n\n"),
}


@only_gcc
@pytest.mark.parametrize("name", FILES)
def test_any_file_of_the_link(tmp_path: Path, runner: SystemProcessRunner, name: str) -> None:
    flags, path, one, two = FILES[name]
    small = Small(tmp_path / "p", runner, "gcc", f"ldflags = {flags.split()}".replace("'", '"'))
    small.write("b.ld", "INCLUDE a.ld\n")
    small.write("b.rsp", "@a.rsp\n")
    small.write("b.specs", "%include <a.specs>\n")
    small.write(path, one)
    assert "link app" in small.build() and small.build() == set()
    before = small.elf()
    small.write(path, two)
    assert "link app" in small.build()
    assert small.elf() == small.clean_elf() and (small.elf() != before or "version" in name)


COMPILED = {
    "a response file": ("@a.rsp", "a.rsp", "-DX=1", "-DX=2"),
    "a response file within": ("@b.rsp", "a.rsp", "-DX=1", "-DX=2"),
    "specs": ("-specs=a.specs", "a.specs", "*cpp:\n+ -DX=1\n\n", "*cpp:\n+ -DX=2\n\n"),
    "specs within": ("-specs=b.specs", "a.specs", "*cpp:\n+ -DX=1\n\n", "*cpp:\n+ -DX=2\n\n"),
}


@only_gcc
@pytest.mark.parametrize("name", COMPILED)
def test_any_file_of_the_compile(tmp_path: Path, runner: SystemProcessRunner, name: str) -> None:
    flags, path, one, two = COMPILED[name]
    small = Small(tmp_path / "p", runner, "gcc", f'cflags = ["{flags}"]')
    small.write("b.rsp", "@a.rsp\n")
    small.write("b.specs", "%include <a.specs>\n")
    small.write("app/half.c", '#include "half.h"\nuint64_t half(uint64_t n) { return n + X; }\n')
    small.write(path, one)
    assert "compile app/half.c" in small.build() and small.build() == set()
    small.write(path, two)
    assert "compile app/half.c" in small.build()
    assert small.elf() == small.clean_elf()


@only_gcc
def test_the_compilers_own_specs_count(tmp_path: Path, runner: SystemProcessRunner) -> None:
    small = Small(tmp_path / "p", runner, "gcc", 'ldflags = ["-specs=nosys.specs"]')
    link = next(action for action in small.tools().actions if action.name == "link app")
    assert "nosys.specs" not in link.inputs
    small.write("nosys.specs", "*link:\n+ --defsym=extra=1\n\n")
    link = next(action for action in small.tools().actions if action.name == "link app")
    assert "nosys.specs" in link.inputs, "one of the project is found first"
