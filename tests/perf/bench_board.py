"""What a board costs: start-up and memory of a process, sixteen at once, the CPU's speed, the loader's throughput.

Run it: `python -m tests.perf.bench_board`. It prints one line per figure and asserts nothing; the machine decides.
"""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cache.digest import digest_bytes
from pipeline.device.serial_link import PortLink
from pipeline.device.session import connect
from pipeline.flash_model import Image, Region
from tests.contract.any_board import AnyBoard
from tests.contract.test_esptool_rfc2217 import SYNC
from tests.unit.test_vb_loader import block, frame, say
from tests.unit.test_vb_stub import begin, in_stub
from virtualboard.board import Board
from virtualboard.cable import Cable
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.port import open_virtual

MAC = "7c:df:a1:00:11:22"
RUNS = 7
BOARDS = 16
# addi a0,a0,1; j -4: two instructions for ever
LOOP = bytes.fromhex("13051500 6ff0dfff")


def main() -> None:
    """Measure everything once."""
    with TemporaryDirectory() as folder:
        start_up(Path(folder))
        many(Path(folder))
        throughput(Path(folder))
    cpu()
    loader()


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def start_up(folder: Path) -> None:
    for label, options in (("with CPU", ()), ("--no-cpu", ("--no-cpu",))):
        seconds, resident, proportional = [], [], []
        for run in range(RUNS):
            flash = folder / f"{run}{label[0]}.bin"
            started = time.perf_counter()
            with AnyBoard("--rfc2217", "0", "--flash", str(flash), *options) as board:
                seconds.append(time.perf_counter() - started)
                memory = board.memory()
                resident.append(memory["Rss"])
                proportional.append(memory["Pss"])
        print(
            f"start-up {label}: {statistics.median(seconds) * 1000:.0f} ms to the ready line; "
            f"RSS {statistics.median(resident) / 2**20:.1f} MiB, PSS {statistics.median(proportional) / 2**20:.1f} MiB"
        )


def many(folder: Path) -> None:
    boards = []
    started = time.perf_counter()
    try:
        for number in range(BOARDS):
            boards.append(AnyBoard("--rfc2217", "0", "--flash", str(folder / f"many{number}.bin")))
        seconds = time.perf_counter() - started
        memory = [board.memory() for board in boards]
        pss, rss = (sum(one[field] for one in memory) / 2**20 for field in ("Pss", "Rss"))
        print(
            f"{BOARDS} boards one after the other: {seconds:.1f} s; PSS {pss:.0f} MiB in all, RSS {rss:.0f} MiB summed"
        )
    finally:
        for board in boards:
            board.stop()


def loop_image() -> bytes:
    """An ESP32-C3 image that counts in a register for ever, its checksum right."""
    image = bytes([0xE9, 1, 2, 0x20]) + (0x40380000).to_bytes(4, "little") + b"\xee" + bytes(14) + b"\x00"
    image += (0x40380000).to_bytes(4, "little") + len(LOOP).to_bytes(4, "little") + LOOP
    image += bytes(15 - len(image) % 16)
    check = 0xEF
    for byte in LOOP:
        check ^= byte
    return image + bytes([check])


def cpu() -> None:
    flash = NorFlash(0x400000)
    flash.program(0, loop_image())
    # The clock stands, so that no watchdog bites a program that does not feed it.
    cable = Cable(Board(CHIPS["esp32c3"], flash, MAC, lambda: 0.0), lambda: 0.0)
    cable.board.power_on()
    cable.advance()

    def slices() -> None:
        for _ in range(200):
            cable.advance()

    best = 0.0
    for _ in range(RUNS):
        before = cable.board.executed
        seconds = timed(slices)
        best = max(best, (cable.board.executed - before) / seconds)
    print(f"CPU through the board: {best / 1e6:.0f} million instructions per second (best of {RUNS})")


def loader() -> None:
    board = Board(CHIPS["esp32c3"], NorFlash(0x400000), MAC, time.monotonic, execute=False)
    cable = Cable(board, time.monotonic)
    board.power_on()
    cable.press_reset(download=True)
    cable.transmit()

    def syncs() -> None:
        for _ in range(1000):
            cable.receive(SYNC)
            cable.advance()
            assert len(cable.transmit()) == 8 * 14

    print(f"frames through the cable on instant: {9000 / timed(syncs):.0f} per second (SYNC and its 8 answers)")


def throughput(folder: Path) -> None:
    """The stub's wire alone, then the same through unmodified esptool, whose own time is nearly all of it."""
    size = 1 << 20
    data = bytes(range(256)) * (size // 256)
    board = in_stub()
    begin(board, 0x02, 0, size)
    blocks = [block(0x03, seq, data[seq * 0x4000 : (seq + 1) * 0x4000]) for seq in range(size // 0x4000)]
    print(f"write, the stub's wire: {size / 1e6 / timed(lambda: [say(board, wire) for wire in blocks]):.0f} MB/s")
    md5 = frame(0x13, struct.pack("<4I", 0, 0x400000, 0, 0))
    print(f"MD5, the stub's wire: {0x400000 / 1e6 / timed(lambda: say(board, md5)):.0f} MB/s")
    port = open_virtual("esp32c3", folder / "esptool.bin")
    link = PortLink(port, "virtual:", "bench", time.monotonic, real_time=False)
    session = connect(port, "esp32c3", "bench", lambda: link, 0x400000, "instant")
    image = Image("data", "", 0, size, size, "", digest_bytes(data), "")
    written = timed(lambda: session.write(image, data, [Region(0, size)], lambda *_: None))
    print(f"write and verify, through esptool: {size / 1e6 / written:.1f} MB/s (deflated)")
    print(f"read, through esptool: {size / 1e6 / timed(lambda: session.read(0, size)):.1f} MB/s")
    session.close()


if __name__ == "__main__":
    main()
