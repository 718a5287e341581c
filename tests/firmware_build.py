"""Builds the reference firmware for tests by the rules of `firmware/README.md`, with ziglang's binary, into a
directory of the caller's. Does not use the pipeline: these tests must be able to accuse it."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLASH_SIZE = 0x400000
OTA_0, OTA_1 = 0x10000, 0x150000
EFUSE = {0x60008844: 0xA1112233, 0x60008848: 0x00007CDF}
"""MAC words of 7c:df:a1:11:22:33."""

_TARGET = ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c")
_CFLAGS = (
    *("-Os", "-gdwarf-4", "-std=gnu11", "-ffreestanding", "-fno-builtin", "-ffunction-sections", "-fdata-sections"),
    *("-fno-sanitize=undefined", "-fno-stack-protector", "-fno-pie"),
    *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
    *("-Wall", "-Wextra", "-Werror", "-Werror=date-time", "-ffile-prefix-map={zig}=zig", "-ffile-prefix-map={root}=."),
    *("-Ifirmware/core", "-Ifirmware/port/esp32c3"),
)
_IDENTITY = ('-DPROJECT_NAME="reference"', '-DPROJECT_VERSION="1.2.3"')
_IMAGE_SETTINGS = {"flash_mode": "dio", "flash_freq": "80m", "flash_size": "4MB"}


@dataclass(frozen=True)
class Firmware:
    """What a build gave. `app_elf` is the stripped ELF that the image and its identity are made from."""

    root: Path
    objects: Mapping[str, Path]
    app_elf: bytes
    app_bin: bytes
    boot_bin: bytes

    @property
    def identity(self) -> str:
        return hashlib.sha256(self.app_elf).hexdigest()


def need_tools() -> None:
    for module, package in (("ziglang", "ziglang"), ("unicorn", "unicorn"), ("esptool", "esptool")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed", allow_module_level=True)


def sources(root: Path, kind: str) -> list[str]:
    folders = {"app": ("firmware/core", "firmware/port/esp32c3"), "boot": ("firmware/boot",)}[kind]
    return sorted(path.relative_to(root).as_posix() for folder in folders for path in (root / folder).glob("*.[cS]"))


def build(out: Path, root: Path = ROOT, reuse: Firmware | None = None) -> Firmware:
    """Compile and link what lies under `root`/firmware. Sources equal to those of `reuse` are not compiled again."""
    import ziglang

    zig = Path(str(ziglang.__file__)).parent / "zig"
    out.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(out / "zig"), "ZIG_LOCAL_CACHE_DIR": str(out / "zig-local")}

    def run(*argv: str) -> None:
        done = subprocess.run([str(zig), *argv], cwd=root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}\n{done.stderr}"

    flags = [flag.format(zig=zig.parent, root=root) for flag in _CFLAGS]
    objects: dict[str, Path] = {}
    for source in (*sources(root, "app"), *sources(root, "boot")):
        if reuse and (reuse.root / source).read_bytes() == (root / source).read_bytes():
            objects[source] = reuse.objects[source]
            continue
        objects[source] = out / (source.replace("/", "_") + ".o")
        identity = _IDENTITY if source.endswith("app_desc.c") else ()
        run("cc", *_TARGET, *flags, *identity, "-c", source, "-o", str(objects[source]))
    linked = {}
    for kind, script in (("app", "firmware/port/esp32c3/app.ld"), ("boot", "firmware/boot/boot.ld")):
        elf = out / f"{kind}.elf"
        parts = [str(objects[source]) for source in sources(root, kind)]
        run("ld.lld", "--gc-sections", "--build-id=none", "--strip-all", "-T", script, *parts, "-o", str(elf))
        linked[kind] = elf.read_bytes()
    return Firmware(root, objects, linked["app"], image(linked["app"], 0xB0), image(linked["boot"], None))


def image(elf: bytes, sha256_offset: int | None) -> bytes:
    from esptool.cmds import elf2image

    offset = {} if sha256_offset is None else {"elf_sha256_offset": sha256_offset}
    made = elf2image(elf, "esp32c3", None, **_IMAGE_SETTINGS, **offset)
    assert isinstance(made, bytes)
    return made


def variant(base: Firmware, out: Path, edits: Mapping[str, tuple[str, str]]) -> Firmware:
    """The firmware with `edits`: path -> (text to replace, new text), the text occurring exactly once."""
    root = out / "checkout"
    shutil.copytree(base.root / "firmware", root / "firmware")
    for path, (old, new) in edits.items():
        text = (root / path).read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {path}"
        (root / path).write_text(text.replace(old, new))
    return build(out / "build", root, reuse=base)


def shared(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """One build for all workers of a test session."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    out = base / "reference-firmware"
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The second to come finds the objects and only links: a few milliseconds.
        done = out / "done"
        reuse = None
        if done.exists():
            objects = {s: out / (s.replace("/", "_") + ".o") for k in ("app", "boot") for s in sources(ROOT, k)}
            reuse = Firmware(ROOT, objects, b"", b"", b"")
        firmware = build(out, reuse=reuse)
        done.touch()
    return firmware


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


def deployed(firmware: Firmware, **more: bytes) -> bytearray:
    """A flash with bootloader, table and the application in ota_0; `at_<hex offset>=bytes` adds or replaces."""
    parts = {0: firmware.boot_bin, 0x8000: partition_table(), OTA_0: firmware.app_bin}
    parts.update({int(name.removeprefix("at_"), 16): data for name, data in more.items()})
    return flash_with(parts)
