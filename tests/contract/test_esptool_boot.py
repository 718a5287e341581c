"""What esptool writes is what the board executes: a nine-instruction program, in-process and over RFC 2217."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.contract.board_process import BoardProcess, run_ok
from tests.contract.test_esptool_rfc2217 import HELLO, Raw, baud, control
from virtualboard.port import open_virtual

esptool = pytest.importorskip("esptool")
pytest.importorskip("unicorn")

# lui a0,0x60000; then li a1,CHAR and sw a1,0(a0) for h, i, newline: UART0's FIFO; then wfi for ever.
PROGRAM = struct.pack(
    "<9I", 0x60000537, 0x06800593, 0x00B52023, 0x06900593, 0x00B52023, 0x00A00593, 0x00B52023, 0x10500073, 0xFFDFF06F
)


def bootable() -> bytes:
    """An ESP32-C3 image whose only segment is PROGRAM, for the ROM to load to 0x40380000 and start."""
    header = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40380000)
    header += struct.pack("<B3sHBHH4sB", 0xEE, bytes(3), 5, 0, 0, 99, bytes(4), 0)
    image = header + struct.pack("<II", 0x40380000, len(PROGRAM)) + PROGRAM
    image += bytes(15 - len(image) % 16)
    check = 0xEF
    for byte in PROGRAM:
        check ^= byte
    return image + bytes([check])


def test_in_process(tmp_path: Path) -> None:
    port = open_virtual("esp32c3", tmp_path / "flash.bin")
    esptool.log.set_verbosity("silent")
    esp = esptool.run_stub(esptool.detect_chip(port))
    esptool.write_flash(esp, [(0x0, bootable())], no_progress=True)
    port.timeout = 0.05
    for _ in range(2):  # the second reset boots the same
        esptool.reset_chip(esp, "hard-reset")
        log = port.read(4000)
        assert log.startswith(b"ESP-ROM:esp32c3") and log.endswith(b"hi\n"), log
    port.close()
    port.open()
    assert port.read(4000).endswith(b"hi\n")
    port.close()


def test_over_rfc2217(tmp_path: Path) -> None:
    (tmp_path / "boot.bin").write_bytes(bootable())
    with BoardProcess(tmp_path / "flash.bin") as board:
        run_ok(board.url, [["write-flash", "0x0", str(tmp_path / "boot.bin")]], tmp_path)
        with Raw(board.port) as client:
            client.socket.sendall(HELLO + baud(115_200) + control("dtr0") + control("rts1"))
            client.until(b"\xff\xfa\x2c\x69\x0b\xff\xf0")
            client.socket.sendall(control("rts0"))
            assert b"SPI_FAST_FLASH_BOOT" in client.until(b"hi\n")
        assert board.stop() == (0, "")
