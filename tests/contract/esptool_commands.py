"""Every serial command of esptool 5.6 as data: what is in flash before, the command line, what it says, what it leaves.

The same rows run in-process (milliseconds each) and as subprocesses over RFC 2217 (seconds each). `{name}` in a command
line is a file of `files`, in the caller's directory. A row's flash afterwards is compared byte for byte, all of it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.test_rom_boot import make_image
from virtualboard.chips import CHIPS

SIZE = 0x400000
MAC = "7c:df:a1:0a:0b:0c"
# Compressible, without a repeating sector, and too random to compress.
TEXT = b"".join(b"line %d of the image\n" % i for i in range(1000))[:20000]
NOISE = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(200))
CHANGED = TEXT[:0x3000] + b"new!" + TEXT[0x3004:]

STUB, ROM, OLD_STUB = "stub", "rom", "stub-1"
MODES: Mapping[str, tuple[str, ...]] = {STUB: (), ROM: ("--no-stub",), OLD_STUB: ("--stub-version", "1")}

# Where a program may lie beside either generation of the stub.
RAM = {"esp32": 0x40090000, "esp32s3": 0x40388000, "esp32c3": 0x40390000}

Flash = bytearray


def before_all(flash: Flash) -> None:
    """Zeros where the commands write, so that every erase shows."""
    flash[0:0x60000] = bytes(0x60000)


def written(flash: Flash, offset: int, data: bytes) -> None:
    """What a flasher's write leaves: whole sectors erased around the bytes."""
    erased(flash, offset - offset % 0x1000, -(-(offset + len(data)) // 0x1000) * 0x1000)
    flash[offset : offset + len(data)] = data


def erased(flash: Flash, start: int, end: int) -> None:
    flash[start:end] = b"\xff" * (end - start)


def nothing(_flash: Flash, _chip: str) -> None:
    pass


@dataclass(frozen=True)
class Row:
    """`args` after the global options. `says` must be in the output; `fails`: with exit status 2. `modes` in which the
    command exists; `refused`: what it says in the other modes."""

    args: str
    says: Callable[[str, str], str] = lambda _chip, _mode: ""
    after: Callable[[Flash, str], None] = nothing
    before: Callable[[Flash, str], None] = nothing
    back: Mapping[str, Callable[[Flash], bytes]] = field(default_factory=dict)
    fails: bool = False
    modes: tuple[str, ...] = (STUB, ROM, OLD_STUB)
    refused: str = ""


def says(text: str) -> Callable[[str, str], str]:
    return lambda _chip, _mode: text


def _bootable(chip: str) -> bytes:
    """A small valid bootloader, DIO at 80 MHz for 4 MB."""
    address = {"esp32": 0x3FFF0030, "esp32s3": 0x3FCE3808, "esp32c3": 0x3FCD5710}[chip]
    return make_image(
        [(address, bytes(range(64)))], entry=address, speed=0x2F, chip_id=CHIPS[chip].chip_id, max_revision=399
    )


def _patched(chip: str) -> bytes:
    """The same, QIO at 40 MHz for 2 MB."""
    address = {"esp32": 0x3FFF0030, "esp32s3": 0x3FCE3808, "esp32c3": 0x3FCD5710}[chip]
    return make_image(
        [(address, bytes(range(64)))], entry=address, mode=0, speed=0x10, chip_id=CHIPS[chip].chip_id, max_revision=399
    )


def files(chip: str) -> dict[str, bytes]:
    """The files that command lines name."""
    ram = RAM[chip]
    # Generation 1 of the stub takes words only.
    program = make_image([(ram, b"\x6f\0\0\0" * 16)], entry=ram, chip_id=CHIPS[chip].chip_id, max_revision=399)
    return {"text": TEXT, "changed": CHANGED, "noise": NOISE, "boot": _bootable(chip), "ram": program}


def _has_text(flash: Flash, _chip: str) -> None:
    written(flash, 0x10000, TEXT)


def _write(offset: int, data: bytes) -> Callable[[Flash, str], None]:
    return lambda flash, _chip: written(flash, offset, data)


def _write_boot(flash: Flash, chip: str) -> None:
    written(flash, CHIPS[chip].bootloader_offset, _bootable(chip))


def _write_patched(flash: Flash, chip: str) -> None:
    written(flash, CHIPS[chip].bootloader_offset, _patched(chip))


def _write_two(flash: Flash, _chip: str) -> None:
    written(flash, 0x10000, TEXT)
    written(flash, 0x30000, NOISE)


def _only_text(flash: Flash, _chip: str) -> None:
    erased(flash, 0, SIZE)
    written(flash, 0x10000, TEXT)


def _one_sector(flash: Flash, _chip: str) -> None:
    written(flash, 0x13000, CHANGED[0x3000:0x4000])


def _magic(chip: str, _mode: str) -> str:
    return f"0x40001000 = {CHIPS[chip].magic:#010x}"


def _ram(chip: str, _mode: str) -> str:
    return f"executing at {RAM[chip]:#010x}"


def _security(chip: str, mode: str) -> str:
    if chip != "esp32":
        return f"Chip ID: {CHIPS[chip].chip_id}"
    return "This command (0x14) is not supported" if mode == ROM else "(result was FF00: Command not implemented)"


FLASHER = (STUB, OLD_STUB)
ROWS: Mapping[str, Row] = {
    "chip-id": Row("chip-id", lambda chip, _mode: CHIPS[chip].title),
    "read-mac": Row("read-mac", says(MAC)),
    "flash-id": Row("flash-id", says("Detected flash size: 4MB")),
    "read-flash-sfdp": Row("read-flash-sfdp 0 4", says("SFDP[0..3]: 0x53 0x46 0x44 0x50")),
    "read-flash-status": Row("read-flash-status --bytes 3", says("Flash memory status: 0x0000")),
    "write-flash-status": Row(
        "write-flash-status --bytes 2 --non-volatile 0x0254", says("After flash memory status: 0x0254")
    ),
    "write-flash": Row("write-flash 0x10000 {text}", says("Hash of data verified."), _has_text),
    "write-flash two files": Row("write-flash 0x10000 {text} 0x30000 {noise}", after=_write_two),
    "write-flash --no-compress": Row("write-flash --no-compress 0x10000 {text}", says("verified"), _has_text),
    "write-flash --compress": Row("write-flash --compress 0x10000 {text}", says("Compressed 20000"), _has_text),
    "write-flash what does not compress": Row(
        "write-flash --compress 0x10000 {noise}", says("will flash uncompressed"), _write(0x10000, NOISE)
    ),
    "write-flash unaligned": Row(
        "write-flash 0x11234 {text}", says("is not aligned to a 0x1000 byte flash sector"), _write(0x11234, TEXT)
    ),
    "write-flash --erase-all": Row(
        "write-flash --erase-all 0x10000 {text}",
        says("Flash memory erased successfully"),
        _only_text,
        modes=FLASHER,
        refused="ROM does not support function erase_flash",
    ),
    "write-flash --skip-flashed": Row(
        "write-flash --skip-flashed 0x10000 {text}", says("skipping write"), before=_has_text
    ),
    "write-flash --skip-flashed changed": Row(
        "write-flash --skip-flashed 0x10000 {changed}", says("verified"), _write(0x10000, CHANGED), _has_text
    ),
    "write-flash --diff-with": Row(
        "write-flash 0x10000 {changed} --diff-with {text}",
        says("Reflashing 1 changed sector at 0x00013000"),
        _one_sector,
        _has_text,
    ),
    "write-flash --diff-with what is not there": Row(
        "write-flash 0x10000 {changed} --diff-with {text}",
        says("Reflashing the whole image"),
        _write(0x10000, CHANGED),
    ),
    "write-flash header kept": Row("write-flash {boot_offset} {boot}", after=_write_boot),
    "write-flash header rewritten": Row(
        "write-flash --flash-mode qio --flash-freq 40m --flash-size 2MB {boot_offset} {boot}",
        says("SHA digest in image updated."),
        _write_patched,
    ),
    "write-flash beyond the end": Row(
        "write-flash 0x3ff000 {text}", says("will not fit in 4194304 bytes of flash"), fails=True
    ),
    "verify-flash": Row("verify-flash 0x10000 {text}", says("Verification successful"), before=_has_text),
    "verify-flash --diff": Row(
        "verify-flash --diff 0x10000 {changed}", says("Verification failed"), before=_has_text, fails=True
    ),
    "verify-flash rewritten header": Row(
        "verify-flash --flash-mode qio --flash-freq 40m --flash-size 2MB {boot_offset} {boot}",
        says("Verification successful"),
        before=_write_patched,
    ),
    "read-flash": Row(
        "read-flash 0x10003 5000 {out}",
        says("Read 5000 bytes from 0x00010003"),
        before=_has_text,
        back={"out": lambda flash: bytes(flash[0x10003 : 0x10003 + 5000])},
    ),
    "read-flash over the end": Row("read-flash 0x3ff000 8192 {out}", says("goes past 4MB"), fails=True),
    "erase-flash": Row(
        "erase-flash",
        says("Flash memory erased successfully"),
        lambda flash, _chip: erased(flash, 0, SIZE),
        modes=FLASHER,
        refused="ROM does not support function erase_flash",
    ),
    "erase-region": Row(
        "erase-region 0x11000 0x3000",
        says("Flash memory region erased successfully"),
        lambda flash, _chip: erased(flash, 0x11000, 0x14000),
    ),
    "erase-region unaligned": Row("erase-region 0x11000 0x3001", says("must be a multiple of 4096"), fails=True),
    "load-ram": Row("load-ram {ram}", _ram),
    "read-mem": Row("read-mem 0x40001000", _magic),
    "write-mem": Row("write-mem 0x50000000 0x12345678 0xffff", says("Wrote 0x12345678 with mask 0x0000ffff")),
    "dump-mem": Row(
        "dump-mem 0x40001000 4 {out}",
        says("Dumped 4 bytes from 0x40001000"),
        back={"out": lambda _flash: b""},  # the chip's magic word, see `expected_back`
    ),
    "run": Row("run"),
    "get-security-info": Row("get-security-info", _security),
}


def expected_back(name: str, row: Row, flash: Flash, chip: str) -> dict[str, bytes]:
    """What the files that a command writes hold."""
    if name == "dump-mem":
        return {"out": struct.pack("<I", CHIPS[chip].magic)}
    return {file: content(flash) for file, content in row.back.items()}


def fails(name: str, row: Row, chip: str, mode: str) -> bool:
    """Whether the command ends with an error."""
    unsupported = name == "get-security-info" and chip == "esp32"
    return row.fails or unsupported or mode not in row.modes


def expectation(row: Row, chip: str, mode: str) -> str:
    return row.refused if mode not in row.modes else row.says(chip, mode)


def prepare(folder: Path, row: Row, chip: str) -> tuple[Flash, Flash]:
    """Write the files and the flash file; the flash before and as it must be afterwards."""
    flash = bytearray(b"\xff" * SIZE)
    before_all(flash)
    row.before(flash, chip)
    path = folder / "flash.bin"
    with path.open("r+b" if path.exists() else "wb") as file:  # in place: a running board has it mapped
        file.write(flash)
    for name, content in files(chip).items():
        (folder / name).write_bytes(content)
    after = bytearray(flash)
    row.after(after, chip)
    return flash, after


def arguments(folder: Path, row: Row, chip: str) -> list[str]:
    names = {name: str(folder / name) for name in (*files(chip), "out")}
    return row.args.format(**names, boot_offset=hex(CHIPS[chip].bootloader_offset)).split()
