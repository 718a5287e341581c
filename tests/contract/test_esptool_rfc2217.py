"""esptool's command line, as a subprocess, against a board process over RFC 2217: what a user does."""

from __future__ import annotations

import hashlib
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.board_process import DEADLINE_S, BoardProcess, esptool_cli, run_ok
from tests.contract.test_esptool_library import NOISE, TEXT

pytest.importorskip("esptool")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[BoardProcess]:
    with BoardProcess(tmp_path / "flash.bin", "--mac", "7C:DF:A1:0A:0B:0C", "--no-cpu") as process:
        yield process


@pytest.mark.long
def test_a_flashers_session_at_921600_baud(board: BoardProcess, tmp_path: Path) -> None:
    text, noise, flash = tmp_path / "text.bin", tmp_path / "noise.bin", tmp_path / "flash.bin"
    text.write_bytes(TEXT)
    noise.write_bytes(NOISE)
    images = ["0x10000", str(text), "0x30000", str(noise)]
    fast = ["--baud", "921600"]
    run_ok(board.url, [[*fast, "write-flash", *images], [*fast, "verify-flash", *images]], tmp_path)
    held = flash.read_bytes()
    assert held[0x10000 : 0x10000 + len(TEXT)] == TEXT
    assert held[0x30000 : 0x30000 + len(NOISE)] == NOISE


@pytest.mark.parametrize("query", ["", "?ign_set_control"])
def test_with_pyserials_own_pace_esptool_resets_and_identifies_the_chip(
    query: str, board: BoardProcess, tmp_path: Path
) -> None:
    """Line changes 50 ms apart, and 100 ms when the client does not wait for acknowledgements."""
    done = esptool_cli(board.url + query, "--no-stub", "chip-id", cwd=tmp_path, patient=True)
    assert done.returncode == 0, done.stdout
    assert "7c:df:a1:0a:0b:0c" in done.stdout


def test_a_killed_board_keeps_what_was_written(tmp_path: Path) -> None:
    image, flash = tmp_path / "image.bin", tmp_path / "flash.bin"
    image.write_bytes(NOISE)
    with BoardProcess(flash, "--no-cpu") as board:
        run_ok(board.url, [["write-flash", "0x10000", str(image)]], tmp_path)
        assert board.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    with BoardProcess(flash, "--no-cpu") as board:
        run_ok(board.url, [["verify-flash", "0x10000", str(image)]], tmp_path)


class Raw:
    """A bare TCP client with deadlines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)

    def until(self, wanted: bytes) -> bytes:
        """Read until `wanted` has come; everything read. Ends early when the server closes."""
        got = b""
        while wanted not in got:
            piece = self.socket.recv(65536)
            if not piece:
                break
            got += piece
        return got

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()


CONTROL = {"dtr1": 8, "dtr0": 9, "rts1": 11, "rts0": 12}
HELLO = bytes.fromhex("fffb2c fffd2c")


def control(name: str) -> bytes:
    return bytes([255, 250, 44, 5, CONTROL[name], 255, 240])


def baud(rate: int) -> bytes:
    return bytes([255, 250, 44, 1]) + struct.pack("!I", rate) + bytes([255, 240])


ENTER = baud(115_200) + b"".join(map(control, ("dtr0", "rts1", "dtr1", "rts0", "dtr0")))
SYNC = b"\xc0\x00\x08\x24\x00\x00\x00\x00\x00\x07\x07\x12\x20" + b"\x55" * 32 + b"\xc0"
SYNCED = b"\xc0\x01\x08\x04\x00\x07\x07\x12\x20\x00\x00\x00\x00\xc0"


def test_the_loader_stays_between_clients_and_the_lines_drop_without_a_reset(board: BoardProcess) -> None:
    with Raw(board.port) as client:
        client.socket.sendall(HELLO + ENTER)
        assert b"waiting for download" in client.until(b"waiting for download")
    for _ in range(3):
        with Raw(board.port) as client:
            client.socket.sendall(HELLO + baud(115_200) + control("dtr1") + control("rts1") + SYNC)
            assert client.until(SYNCED * 8).endswith(SYNCED * 8)


def test_a_broken_client_costs_itself_only(board: BoardProcess) -> None:
    garbage = hashlib.shake_256(b"garbage").digest(200_000)
    for junk in (b"", b"\xff", b"\xff\xfa\x2c\x05", garbage, b"\xff\xfa" + b"\x2c" * 100_000, b"\xc0" + b"x" * 200_000):
        with Raw(board.port) as client:
            client.socket.sendall(junk)
    with Raw(board.port) as client:
        client.socket.sendall(HELLO + ENTER)
        client.until(b"waiting for download")
        client.socket.sendall(b"\xc0" + garbage.replace(b"\xff", b"") + b"\xc0\xc0" + SYNC)
        client.until(SYNCED)
    assert board.stop()[0] == 0


def test_a_second_client_gets_its_turn_or_a_refusal(board: BoardProcess) -> None:
    with Raw(board.port) as first, Raw(board.port) as second:
        first.socket.sendall(HELLO)
        first.until(b"\xff\xfa\x2c\x6b")  # the answer to the negotiation
        assert second.until(b"\n") == b"virtualboard: error: another client is connected to this board\r\n"
        with Raw(board.port) as third:
            first.socket.close()
            third.socket.sendall(HELLO)
            assert b"\xff\xfa\x2c\x6b" in third.until(b"\xff\xfa\x2c\x6b")


def test_clients_that_come_one_after_the_other_at_once_are_all_served(board: BoardProcess) -> None:
    for _ in range(30):
        with Raw(board.port) as client:
            client.socket.sendall(HELLO)
    clients = [Raw(board.port) for _ in range(10)]
    for client in clients:
        with client:
            client.socket.sendall(HELLO)
            assert b"\xff\xfa\x2c\x6b" in client.until(b"\xff\xfa\x2c\x6b")


def test_a_connection_that_never_speaks_gives_way(board: BoardProcess) -> None:
    with Raw(board.port) as silent, Raw(board.port) as client:
        client.socket.sendall(HELLO)
        assert b"\xff\xfa\x2c\x6b" in client.until(b"\xff\xfa\x2c\x6b")
        assert silent.until(b"never").startswith(b"\xff\xfb")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(board: BoardProcess, number: signal.Signals) -> None:
    with Raw(board.port) as client:
        client.socket.sendall(HELLO)
        client.until(b"\xff\xfa\x2c\x6b")
        assert board.stop(number) == (0, "")


def test_two_boards_cannot_share_a_flash_file(board: BoardProcess, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is in use by another virtual board") as caught:
        BoardProcess(tmp_path / "flash.bin", "--no-cpu")
    assert "Traceback" not in str(caught.value)


def test_the_ready_line_names_chip_mac_and_url(board: BoardProcess) -> None:
    assert board.ready == f"virtualboard: esp32c3 7c:df:a1:0a:0b:0c on {board.url}\n"
