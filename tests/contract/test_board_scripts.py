"""Two hundred random fault scripts: whatever strikes while a client works, the board is whole once they are over."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path

import pytest

from tests.contract.any_board import DEADLINE_S, AnyBoard, read_until, tcp
from tests.contract.random_faults import chatter, script
from tests.contract.test_esptool_boot import bootable
from tests.contract.test_esptool_rfc2217 import HELLO, SYNC, SYNCED, control
from tests.contract.virtual_time import still_clock
from virtualboard.active_faults import ActiveFaults
from virtualboard.board import Board, Mode
from virtualboard.chip_table import NAMES, chip_named
from virtualboard.faults import parse_fault
from virtualboard.nor import NorFlash
from virtualboard.port import VirtualPort
from virtualboard.timing import PROFILES

SCRIPTS = 200
CHIP_NAMES = sorted(NAMES)
PROFILE_NAMES = sorted(PROFILES)


@pytest.mark.parametrize("chunk", range(4))
def test_in_process(chunk: int) -> None:
    struck = 0
    for seed in range(chunk, SCRIPTS, 4):
        struck += survives(seed)
    assert struck > SCRIPTS // 16  # the scripts do something


def survives(seed: int) -> bool:
    """Run one script on the board's clock; whether any of its faults was spent."""
    faults = [parse_fault(text) for text in script(seed)]
    clock = still_clock()
    flash = NorFlash(0x400000)
    flash.program(0, bootable())
    chip = chip_named(CHIP_NAMES[seed % len(CHIP_NAMES)])
    board = Board(
        chip,
        flash,
        "7c:df:a1:00:11:22",
        clock.now,
        execute=seed % 2 == 0,
        timing=PROFILES[PROFILE_NAMES[seed % 5]],
        usb=chip.usb and seed % 7 == 0,
        faults=ActiveFaults(faults),
    )
    port = VirtualPort(board, clock)
    port.timeout = 0.05
    for message in [*chatter(seed), *chatter(seed + 1)]:
        try:
            if message == SYNC:
                reset_into_download(port)
            port.write(message)
            port.read(4096)
        except OSError:
            port.close()
            clock.advance_to(clock.now() + 0.3)
            with contextlib.suppress(OSError):
                port.port = port.current_name
                port.open()
    left = board.faults.texts
    board.faults.clear()
    board.inject(parse_fault("silence:for=0.001"))  # ends one that is for ever
    clock.advance_to(clock.now() + 5.0)
    port.close()
    port.port = port.current_name
    port.open()
    assert board.mode is not Mode.OFF, script(seed)
    board.press_reset(download=True)
    port.timeout = 3.0
    port.reset_input_buffer()
    port.write(SYNC)
    assert SYNCED * 8 in read_until(lambda _n: port.read(14 * 8), SYNCED * 8), script(seed)
    return len(left) < len(faults)


def reset_into_download(port: VirtualPort) -> None:
    for dtr, rts in ((False, True), (True, False), (False, False)):
        port.dtr, port.rts = dtr, rts


@pytest.fixture
def sock() -> Path:
    return Path(os.environ.get("TMPDIR", "/tmp")) / f"vb-scripts-{os.getpid()}.ctl"


def exercise(board: AnyBoard, seed: int, pause_s: float) -> None:
    """Talk to a board process while its faults strike; whatever the connection suffers is part of it."""
    for message in chatter(seed):
        with contextlib.suppress(OSError):
            url = board.ask("state")["port"]
            with tcp(int(url.rpartition(":")[2])) as client:
                client.settimeout(0.5)
                client.sendall(HELLO + control("dtr0") + control("rts1") + control("dtr1") + control("rts0"))
                client.sendall(message.replace(b"\xff", b"\xff\xff"))
                if select.select([client], [], [], pause_s)[0]:
                    client.recv(65536)


def whole_again(board: AnyBoard) -> None:
    """Without its faults the board answers as if nothing had been."""
    board.ask("fault clear")
    board.ask("fault silence:for=0.001")  # ends one that is for ever
    board.ask("fault clear")
    state = board.until(present=True)
    with tcp(int(state["port"].rpartition(":")[2])) as client:
        client.sendall(HELLO)
        # More than once, as esptool does: bytes of an earlier connection may still be on a paced line, and end in half
        # a frame, or in a command that boots the firmware.
        answer, deadline = b"", time.monotonic() + DEADLINE_S
        while SYNCED not in answer and time.monotonic() < deadline:
            board.ask("download")
            client.sendall(SYNC)
            while select.select([client], [], [], 0.2)[0] and SYNCED not in answer:
                answer += client.recv(65536)
        assert SYNCED in answer


def test_a_process_survives_a_dozen_after_each_other(sock: Path) -> None:
    with AnyBoard("--rfc2217", "0", "--no-cpu", control=sock) as board:
        for seed in range(12):
            for text in script(seed):
                board.ask(f"fault {text}")
            exercise(board, seed, 0.005)
            whole_again(board)
        assert board.memory()["Rss"] < 100 << 20
        assert board.stop() == (0, "")


@pytest.mark.stress
def test_two_hundred_processes_survive_one_each(sock: Path) -> None:
    for seed in range(SCRIPTS):
        options = [option for text in script(seed) for option in ("--fault", text)]
        chip, timing = CHIP_NAMES[seed % len(CHIP_NAMES)], PROFILE_NAMES[seed % 5]
        extra = ["--usb"] if chip_named(chip).usb and seed % 7 == 0 else []
        with AnyBoard("--rfc2217", "0", "--timing", timing, *extra, *options, chip=chip, control=sock) as board:
            exercise(board, seed, 0.02)
            whole_again(board)
            assert board.memory()["Rss"] < 150 << 20
            assert board.stop() == (0, ""), script(seed)
