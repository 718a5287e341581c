"""Builds the reference firmware for tests by the rules of `firmware/README.md`, with ziglang's binary, Debian's gcc for
RISC-V or the host's own compiler, into a directory of the caller's. Does not use the pipeline: these tests must be able
to accuse it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLASH_SIZE = 0x400000
OTA_0, OTA_1 = 0x10000, 0x150000
EFUSE = {0x60008844: 0xA1112233, 0x60008848: 0x00007CDF}
"""MAC words of 7c:df:a1:11:22:33."""

_CFLAGS = (
    *("-Os", "-gdwarf-4", "-std=gnu11", "-ffreestanding", "-fno-builtin", "-ffunction-sections", "-fdata-sections"),
    *("-fno-stack-protector", "-fno-pie", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
    *("-Wall", "-Wextra", "-Werror", "-Werror=date-time", "-DHOTPLATE_TEST_RPC=1"),
    *("-Ifirmware/core", "-Ifirmware/modules", "-Ifirmware/port/esp32c3"),
)
_LDFLAGS = ("--gc-sections", "--build-id=none", "--strip-all")
_IDENTITY = ('-DPROJECT_NAME="reference"', '-DPROJECT_VERSION="1.2.3"')
_IMAGE_SETTINGS = {"flash_mode": "dio", "flash_freq": "80m", "flash_size": "4MB"}


@dataclass(frozen=True)
class BuiltFirmware:
    """What a build gave. `app_elf` is the stripped ELF that the image and its identity are made from."""

    root: Path
    compiler: str
    objects: Mapping[str, Path]
    app_elf: bytes
    app_bin: bytes
    boot_bin: bytes
    cflags: Sequence[str] = ()

    @property
    def identity(self) -> str:
        return hashlib.sha256(self.app_elf).hexdigest()


GCC = "riscv64-unknown-elf-gcc"
GCC_MISSING = f"{GCC} is not installed (Debian: apt-get install gcc-riscv64-unknown-elf)"


def _commands(compiler: str) -> tuple[list[str], list[str], str]:
    """Command to compile, command to link, directory that the compiler's headers come from."""
    if compiler == "gcc":
        found = shutil.which(GCC)
        if found is None:
            pytest.skip(GCC_MISSING)
        target = ["-march=rv32imc", "-mabi=ilp32", "-msmall-data-limit=0", "-fno-tree-loop-distribute-patterns"]
        link = ["-nostdlib", "-nostartfiles", "-march=rv32imc", "-mabi=ilp32", "-Wl,--no-warn-rwx-segments"]
        return [found, *target], [found, *link, *(f"-Wl,{flag}" for flag in _LDFLAGS)], "/usr/lib/gcc"
    import ziglang

    zig = Path(str(ziglang.__file__)).parent / "zig"
    target = ["-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c", "-fno-sanitize=undefined"]
    return [str(zig), "cc", *target], [str(zig), "ld.lld", *_LDFLAGS], str(zig.parent)


def need_tools() -> None:
    for module, package in (("ziglang", "ziglang"), ("unicorn", "unicorn"), ("esptool", "esptool")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed", allow_module_level=True)


def sources(root: Path, kind: str) -> list[str]:
    folders = {
        "app": ("firmware/core", "firmware/modules", "firmware/port/esp32c3"),
        "boot": ("firmware/boot",),
        "host": ("firmware/core", "firmware/modules", "firmware/port/host"),
    }[kind]
    return sorted(path.relative_to(root).as_posix() for folder in folders for path in (root / folder).glob("*.[cS]"))


def build(
    out: Path,
    root: Path = ROOT,
    reuse: BuiltFirmware | None = None,
    compiler: str = "zig",
    cflags: Sequence[str] = (),
) -> BuiltFirmware:
    """Compile and link what lies under `root`/firmware, with more `cflags`. Sources equal to those of `reuse` are not
    compiled again."""
    compile_, link, headers = _commands(compiler)
    out.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(out / "zig"), "ZIG_LOCAL_CACHE_DIR": str(out / "zig-local")}

    def run(*argv: str) -> None:
        done = subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}\n{done.stderr}"

    # zig names its headers relative to the working directory when they lie below it (.venv), else absolutely.
    places = (root, headers, headers.removeprefix(f"{root}/"))
    flags = [f"-ffile-prefix-map={place}={name}" for place, name in zip(places, (".", "cc", "cc"), strict=True)]
    flags += (*_CFLAGS, *cflags)
    objects: dict[str, Path] = {}
    for source in (*sources(root, "app"), *sources(root, "boot")):
        if reuse and (reuse.root / source).read_bytes() == (root / source).read_bytes():
            objects[source] = reuse.objects[source]
            continue
        objects[source] = out / (source.replace("/", "_") + ".o")
        identity = _IDENTITY if source.endswith("app_desc.c") else ()
        run(*compile_, *flags, *identity, "-c", source, "-o", str(objects[source]))
    linked = {}
    for kind, script in (("app", "firmware/port/esp32c3/app.ld"), ("boot", "firmware/boot/boot.ld")):
        elf = out / f"{kind}.elf"
        parts = [str(objects[source]) for source in sources(root, kind)]
        run(*link, "-T", script, *parts, "-o", str(elf))
        linked[kind] = elf.read_bytes()
    images = image(linked["app"], 0xB0), image(linked["boot"], None)
    return BuiltFirmware(root, compiler, objects, linked["app"], *images, cflags)


HOST_SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def host_compiler() -> tuple[list[str], tuple[str, ...]]:
    """The host's C compiler and its flags for the sanitizers, none when it cannot link them. Skips without one."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler for this host (cc, gcc or clang)")
    with tempfile.TemporaryDirectory() as scratch:
        probe = [found, *HOST_SANITIZE, "-x", "c", "-", "-o", f"{scratch}/probe"]
        done = subprocess.run(probe, input=b"int main(void) { return 0; }", capture_output=True, check=False)
    return [found], HOST_SANITIZE if done.returncode == 0 else ()


def compile_host_core(out: Path, compiler: Sequence[str], *flags: str) -> list[Path]:
    """Objects of core and modules for this host."""
    if not any(out.glob("*.o")):
        sources_ = [str(ROOT / source) for source in sources(ROOT, "host") if "/port/" not in source]
        _run_host([*compiler, *_HOST_WORDS, *flags, "-c", *sources_], out)
    return sorted(out.glob("*.o"))


def build_host(out: Path, compiler: Sequence[str], *flags: str, parts: Sequence[Path] = ()) -> Path:
    """Compile and link `parts` (sources and objects; without any, core, modules and host port) for this host."""
    everything = [ROOT / source for source in sources(ROOT, "host")]
    _run_host([*compiler, *_HOST_WORDS, *flags, *map(str, parts or everything), "-o", str(out)], ROOT)
    return out


_HOST_WORDS = (
    *("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-DHOTPLATE_TEST_RPC=1", *_IDENTITY),
    *(f"-I{ROOT / folder}" for folder in ("firmware/core", "firmware/modules", "firmware/port/host")),
)


def _run_host(argv: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stderr}"


def image(elf: bytes, sha256_offset: int | None) -> bytes:
    from esptool.cmds import elf2image

    offset = {} if sha256_offset is None else {"elf_sha256_offset": sha256_offset}
    made = elf2image(elf, "esp32c3", None, **_IMAGE_SETTINGS, **offset)
    assert isinstance(made, bytes)
    return made


def variant(base: BuiltFirmware, out: Path, edits: Mapping[str, tuple[str, str]]) -> BuiltFirmware:
    """The firmware with `edits`: path -> (text to replace, new text), the text occurring exactly once."""
    root = out / "checkout"
    shutil.copytree(base.root / "firmware", root / "firmware")
    for path, (old, new) in edits.items():
        text = (root / path).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {path}"
        (root / path).write_text(text.replace(old, new))
    return build(out / "build", root, reuse=base, compiler=base.compiler, cflags=base.cflags)


def shared(
    tmp_path_factory: pytest.TempPathFactory, compiler: str = "zig", cflags: Sequence[str] = ()
) -> BuiltFirmware:
    """One build for all workers of a test session."""
    with once(tmp_path_factory, "".join(["reference-firmware-", compiler, *cflags])) as (out, done):
        # The second to come finds the objects and only links: a few milliseconds.
        reuse = None
        if done:
            objects = {s: out / (s.replace("/", "_") + ".o") for k in ("app", "boot") for s in sources(ROOT, k)}
            reuse = BuiltFirmware(ROOT, compiler, objects, b"", b"", b"")
        return build(out, reuse=reuse, compiler=compiler, cflags=cflags)


@contextlib.contextmanager
def once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A directory that all workers of a test session share, locked; and whether somebody has filled it already."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield out, (out / "done").exists()
        (out / "done").touch()


# --- flash contents, as literal bytes of ESP-IDF's formats -----------------------------------------


def partition_row(kind: int, subtype: int, offset: int, size: int, label: str) -> bytes:
    return struct.pack("<HBBII16sI", 0x50AA, kind, subtype, offset, size, label.encode(), 0)


def partition_table(*, md5: bool = True) -> bytes:
    """What `firmware/partitions.csv` says."""
    rows = (
        partition_row(1, 0x02, 0x9000, 0x5000, "nvs")
        + partition_row(1, 0x00, 0xE000, 0x2000, "otadata")
        + partition_row(0, 0x10, OTA_0, 0x140000, "ota_0")
        + partition_row(0, 0x11, OTA_1, 0x140000, "ota_1")
        + partition_row(1, 0x82, 0x290000, 0x170000, "storage")
    )
    return rows + (b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(rows).digest() if md5 else b"")


def otadata_entry(sequence: int, state: int = 2, crc: int | None = None) -> bytes:
    import zlib

    crc = zlib.crc32(struct.pack("<I", sequence), 0xFFFFFFFF) if crc is None else crc
    return struct.pack("<I20sII", sequence, b"\xff" * 20, state, crc)


def flash_with(parts: Mapping[int, bytes]) -> bytearray:
    flash = bytearray(b"\xff" * FLASH_SIZE)
    for offset, data in parts.items():
        flash[offset : offset + len(data)] = data
    return flash


def deployed(firmware: BuiltFirmware, **more: bytes) -> bytearray:
    """A flash with bootloader, table and the application in ota_0; `at_<hex offset>=bytes` adds or replaces."""
    parts = {0: firmware.boot_bin, 0x8000: partition_table(), OTA_0: firmware.app_bin}
    parts.update({int(name.removeprefix("at_"), 16): data for name, data in more.items()})
    return flash_with(parts)
