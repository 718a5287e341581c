"""Board processes behind TCP and pty with the control socket: resets, rates, re-enumeration, misbehaving clients."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import stat
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.schema import DeviceConfig
from pipeline.device.ports import open_port
from pipeline.device.serial_link import PortLink
from pipeline.effects.clock import SystemClock
from tests.contract.any_board import DEADLINE_S, AnyBoard, read_until, tcp, terminal
from tests.contract.board_process import esptool_cli
from tests.contract.test_esptool_boot import bootable
from tests.contract.test_esptool_rfc2217 import SYNC, SYNCED

pytest.importorskip("esptool")

NO_RESET = ("--before", "no-reset", "--after", "no-reset")
GARBAGE = hashlib.shake_256(b"garbage").digest(200_000)


@pytest.fixture
def sock(tmp_path: Path) -> Iterator[Path]:
    # pytest's own directories are longer than a socket's path may be
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"vb-{os.getpid()}.ctl"
    yield path
    path.unlink(missing_ok=True)


def test_tcp_with_the_buttons_of_the_control_socket(tmp_path: Path, sock: Path) -> None:
    image, flash = tmp_path / "image.bin", tmp_path / "flash.bin"
    image.write_bytes(GARBAGE[:10_000])
    with AnyBoard("--tcp", "0", "--flash", str(flash), "--no-cpu", control=sock) as board:
        assert board.url.startswith("socket://127.0.0.1:")
        assert board.ask("download")["mode"] == "download"
        # the host's rate does not travel, so the stub may change it
        command = ["--baud", "921600", "write-flash", "0x10000", str(image)]
        done = esptool_cli(board.url, *NO_RESET, *command, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert flash.read_bytes()[0x10000 : 0x10000 + 10_000] == GARBAGE[:10_000]
        digest = hashlib.md5(GARBAGE[:10_000]).hexdigest()
        assert board.ask("flash-md5 0x10000 10000") == {"ok": True, "md5": digest}
        assert board.stop() == (0, "")
    assert not sock.exists()


def test_a_pty_carries_the_rate_and_runs_firmware_after_a_reset(tmp_path: Path, sock: Path) -> None:
    pytest.importorskip("unicorn")
    boot, link = tmp_path / "boot.bin", tmp_path / "board.tty"
    boot.write_bytes(bootable())
    with AnyBoard("--pty", str(link), control=sock) as board:
        assert board.url == str(link) and link.is_symlink()
        board.ask("download")
        command = ["--baud", "921600", "write-flash", "0x0", str(boot)]
        done = esptool_cli(str(link), *NO_RESET, *command, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        fd = terminal(str(link))
        try:
            tty.setraw(fd)  # esptool left it so that a read does not wait
            settings = termios.tcgetattr(fd)
            settings[4] = settings[5] = termios.B115200
            termios.tcsetattr(fd, termios.TCSAFLUSH, settings)
            board.ask("reset")
            assert b"SPI_FAST_FLASH_BOOT" in read_until(lambda n: os.read(fd, n), b"hi\n")
        finally:
            os.close(fd)
        assert board.stop() == (0, "")
    assert not link.is_symlink()


def test_a_board_that_enumerates_again_has_another_terminal_and_the_same_serial_number(
    tmp_path: Path, sock: Path
) -> None:
    link = tmp_path / "board.tty"
    with AnyBoard("--pty", str(link), "--usb", "--mac", "7c:df:a1:00:00:07", "--no-cpu", control=sock) as board:
        before = link.readlink()
        fd = terminal(str(link))
        board.ask("fault power-cut:for=0.05")
        assert select.select([fd], [], [], DEADLINE_S)[0]
        with contextlib.suppress(OSError):  # hung up: an end of file, or EIO
            while os.read(fd, 4096):
                pass
        state = board.until(present=True, enumerations=2)
        assert (state["serial"], state["port"]) == ("7C:DF:A1:00:00:07", str(link))
        assert link.readlink() != before
        os.close(fd)
        board.ask("fault vanish:for=0.01,name=new")
        assert board.line() == f"virtualboard: the port is {link}-2 now\n"
        assert board.until(present=True)["port"] == f"{link}-2"
        assert not link.is_symlink() and Path(f"{link}-2").is_symlink()
        assert board.stop() == (0, "")


def test_a_tcp_port_vanishes_and_returns_under_its_own_or_another_number(sock: Path) -> None:
    with AnyBoard("--rfc2217", "0", "--no-cpu", control=sock) as board, tcp(board.port) as client:
        read_until(client.recv, b"\xff\xfd\x2c")
        board.ask("fault vanish:for=0.05")
        assert read_until(client.recv, b"never") is not None  # the end of the stream
        board.until(present=True, enumerations=2)
        with tcp(board.port) as again:
            assert b"\xff\xfd\x2c" in read_until(again.recv, b"\xff\xfd\x2c")
        board.ask("fault vanish:for=0.05,name=new")
        said = board.line()
        assert said.startswith("virtualboard: the port is rfc2217://127.0.0.1:") and said.split()[4] != board.url
        with pytest.raises(OSError):
            tcp(board.port)
        assert board.stop() == (0, "")


def test_a_paced_process_takes_the_time_of_its_line(sock: Path) -> None:
    with (
        AnyBoard("--tcp", "0", "--no-cpu", "--timing", "esp32s3-uart", control=sock) as board,
        tcp(board.port) as client,
    ):
        board.ask("download")
        read_until(client.recv, b"waiting for download\r\n")
        started = time.monotonic()
        client.sendall(SYNC)
        assert read_until(client.recv, SYNCED * 8).endswith(SYNCED * 8)
        # 46 bytes there and 112 back at 115200 baud, and a millisecond of latency
        assert time.monotonic() - started > 158 * 10 / 115_200 + 0.001
        assert board.stop() == (0, "")


def test_the_control_socket_is_its_owners_and_a_stale_one_is_replaced(sock: Path) -> None:
    with AnyBoard("--tcp", "0", "--no-cpu", control=sock) as board:
        assert stat.S_IMODE(sock.stat().st_mode) == 0o600
        with pytest.raises(AssertionError, match="cannot make the control socket"):
            AnyBoard("--tcp", "0", "--no-cpu", control=sock)
        assert board.ask("state")["ok"]
        board.process.kill()
    with AnyBoard("--tcp", "0", "--no-cpu", control=sock) as board:
        assert board.ask("state")["ok"]


def test_mistakes_are_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for options, said in (
        (("--pty", str(tmp_path / "file")), "file: error: cannot make the link: File exists"),
        (("--pty", str(tmp_path / "no" / "where")), "cannot make the link: No such file or directory"),
        (("--tcp", "0", "--control", "/" + "x" * 200), "error: the path is longer than 107 bytes"),
        (("--tcp", "0", "--pty", "x"), "not allowed with argument"),
        (("--tcp", "0", "--fault", "frost"), "'frost' is not a fault. Choose one of"),
        (("--tcp", "0", "--timing", "esp32c3-uart"), "'esp32c3-uart' is not a timing profile. Did you mean"),
    ):
        with pytest.raises(AssertionError) as caught:
            AnyBoard(*options)
        assert said in str(caught.value) and "Traceback" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


# --- clients that misbehave -----------------------------------------------------------------------------


def misbehave_raw(port: int) -> None:
    for junk in (b"", GARBAGE, b"\xc0" * 100_000, b"\xc0" + b"x" * 1_000_000, b"\xdb" * 100_000, SYNC[:7], SYNC * 5000):
        with tcp(port) as client:
            client.sendall(junk)


def misbehave_telnet(port: int) -> None:
    sub = b"\xff\xfa\x2c"
    for junk in (
        b"\xff",
        sub + b"\x01" * 3_000_000,
        (sub + b"\x05\x08\xff\xf0") * 20_000,
        (sub + b"\x00\xff\xf0") * 100_000,  # asks for a signature and never reads the answers
        bytes([255, 251, 7]) * 100_000,
        sub + b"\x01\x00\x00\x00\x01\xff\xf0" + GARBAGE,
    ):
        with tcp(port) as client:
            client.settimeout(2.0)
            with contextlib.suppress(TimeoutError):  # a server that does not read more is one that does not grow
                client.sendall(junk)


def misbehave_control(path: Path) -> None:
    for junk in (GARBAGE, b"\n" * 50_000, b"{" * 100_000, b"state\n" * 20_000, b"state", b'{"set": {"dtr": 9}}\n'):
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.settimeout(2.0)
            client.connect(str(path))
            client.sendall(junk)


@pytest.mark.parametrize("kind", ["--tcp", "--rfc2217"])
def test_no_client_kills_the_board_or_makes_it_grow(kind: str, sock: Path) -> None:
    with AnyBoard(kind, "0", "--no-cpu", control=sock) as board:
        attack = misbehave_raw if kind == "--tcp" else misbehave_telnet
        attack(board.port)
        misbehave_control(sock)
        before = board.memory()["Rss"]
        for _ in range(3):
            board.ask("download")
            attack(board.port)
            misbehave_control(sock)
        held = [tcp(board.port) for _ in range(100)]
        board.ask("state")
        for connection in held:
            connection.close()
        assert board.memory()["Rss"] - before < 8 << 20
        assert board.ask("download")["mode"] == "download"
        assert board.stop() == (0, "")


def test_a_pty_client_that_floods_and_never_reads(tmp_path: Path, sock: Path) -> None:
    link = tmp_path / "board.tty"
    with AnyBoard("--pty", str(link), "--no-cpu", control=sock) as board:
        fd = terminal(str(link))
        os.set_blocking(fd, False)
        for _ in range(3):
            board.ask("download")
            sent = 0
            while sent < 300_000:
                with contextlib.suppress(BlockingIOError):
                    sent += os.write(fd, (SYNC * 100)[:4096])
                assert select.select([], [fd], [], DEADLINE_S)[1]
        assert board.memory()["Rss"] < 80 << 20
        assert board.ask("state")["ok"]
        os.close(fd)
        assert board.stop() == (0, "")


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # of pyserial
@pytest.mark.parametrize("fault", ["", "download"])
def test_a_reset_over_rfc2217_boots_a_chip_on_its_own_usb_and_nothing_is_lost(sock: Path, fault: str) -> None:
    """Each line is a message of its own there; in the wrong order they leave the chip in download mode."""
    clock = SystemClock()
    with AnyBoard("--rfc2217", "0", "--usb", "--no-cpu", control=sock) as board:
        if fault:
            board.ask(fault)
        port = open_port("desk", DeviceConfig("desk", "esp32c3", board.url), Path(), clock, 4 << 20)
        link = PortLink(port, board.url, "device desk", clock.now_s, real_time=True, usb_lines=True)
        try:
            for _ in range(2):
                released_s = link.release_reset()
                heard = read_until(lambda n: link.read(0.1), b"invalid header")
                assert heard.startswith(b"ESP-ROM:") and b"download" not in heard.lower()
                assert released_s < link.now_s()
        finally:
            link.close()
        assert board.stop() == (0, "")
