"""`python -m virtualboard`: a board as a process of its own, for any tool that can open a serial port.

Does not know what the clients do. Invariant: one line on stdout once the port listens, nothing before; every mistake of
the caller is one message on stderr with exit status 2, never a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import TypeVar

from virtualboard.active_faults import ActiveFaults
from virtualboard.board import Board
from virtualboard.cable import Cable
from virtualboard.chip_table import NAMES, chip_named
from virtualboard.chips import ChipModel, Security, UnknownMac, UnknownSecurity, burnt, parse_mac
from virtualboard.faults import KEYS, KINDS, parse_fault
from virtualboard.machine import MachineFactory, executing, rom_of
from virtualboard.nor import FlashError, NorFlash
from virtualboard.port import DEFAULT_MAC
from virtualboard.rom_elf import ENVIRONMENT, RomElfError
from virtualboard.server import ListenError, Loop, Port, Server
from virtualboard.timing import PROFILES, parse_timing

_EPILOG = """\
examples:
  python -m virtualboard --chip esp32c3 --rfc2217 4000 --flash board.bin
      a blank ESP32-C3 that resets by itself; in another terminal:
  esptool --port rfc2217://127.0.0.1:4000 flash-id
  esptool --port rfc2217://127.0.0.1:4000 write-flash 0x0 merged.bin
  pyserial-miniterm rfc2217://127.0.0.1:4000 115200

  python -m virtualboard --chip esp32s3 --pty /tmp/board --control /tmp/board.ctl --timing esp32s3-uart
      a device file with the pace of a UART; no reset travels on it, so:
  echo download | nc -NU /tmp/board.ctl
  esptool --port /tmp/board --before no-reset --after no-reset flash-id
  echo reset | nc -NU /tmp/board.ctl

  python -m virtualboard --chip esp32c3 --rfc2217 0 --fault brown-out:write=3 --fault slow-boot:by=2
      a board with a bad supply, that also boots slowly; the first line names the port that was free

A board has one serial line: one of --rfc2217, --tcp and --pty, one client at a time, and --control beside
it. It keeps running between clients, as one on a cable does. The first line of output names the port.
The flash file is created when missing and holds what the chip's flash holds: it survives the process, and
may be read with any tool. One board per file. Loopback only.
"""

_T = TypeVar("_T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one board until SIGTERM or Ctrl-C; returns the exit status."""
    options = _parser().parse_args(argv)
    if options.usb and not chip_named(options.chip).usb:
        return _fail(f"--usb: error: {chip_named(options.chip).title} has no USB port of its own\nLeave --usb out.")
    try:
        chip = burnt(chip_named(options.chip), Security(**dict.fromkeys(options.burnt, True)))
        rom_elf = rom_of(chip, options.rom_elf, os.environ)
        flash = NorFlash(options.size, options.flash)
    except (FlashError, RomElfError) as exc:
        return _fail(str(exc))
    except UnknownSecurity as exc:
        return _fail(f"--burnt: error: {exc}")
    try:
        record = None if options.record is None else options.record.open("ab", buffering=0)
    except OSError as exc:
        flash.close()
        return _fail(f"--record: error: {options.record} cannot be written: {exc.strerror}\nGive another file.")
    try:
        return _run(options, chip, flash, executing(rom_elf), record)
    except ListenError as exc:
        return _fail(str(exc))
    finally:
        flash.close()
        if record is not None:
            record.close()


def _run(
    options: argparse.Namespace, chip: ChipModel, flash: NorFlash, factory: MachineFactory, record: FileIO | None
) -> int:
    now = time.monotonic
    board = Board(
        chip,
        flash,
        options.mac,
        now,
        execute=not options.no_cpu,
        machine_factory=factory,
        timing=options.timing,
        usb=options.usb,
        faults=ActiveFaults(options.fault),
    )
    cable, loop = Cable(board, now, _recorder(record)), Loop()
    port = _port_of(options, loop, cable, now)
    side = None
    try:
        if options.control is not None:
            from virtualboard.control import Control
            from virtualboard.control_socket import ControlSocket

            side = ControlSocket(loop, options.control, Control(cable, lambda: port.url))
        server = Server(loop, cable, port, side=side, now=now, announce=lambda url: _say(f"the port is {url} now"))
    except BaseException:
        port.close()
        raise
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: server.stop())
    if options.trace:
        started = now()
        board.trace = lambda text: print(f"{now() - started:10.3f} {text}", file=sys.stderr, flush=True)
        board.trace(f"flasher stubs are compared with those of esptool {_esptool_version()}")
    board.power_on()
    beside = "" if options.control is None else f", control {options.control}"
    _say(f"{board.chip.name} {board.mac} on {port.url}{beside}")
    server.serve()
    return 0


def _esptool_version() -> str:
    try:
        return importlib.metadata.version("esptool")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _port_of(options: argparse.Namespace, loop: Loop, cable: Cable, now: Callable[[], float]) -> Port:
    if options.pty is not None:
        from virtualboard.ptyport import PtyPort

        return PtyPort(loop, cable, options.pty)
    from virtualboard.tcp import TcpPort

    telnet = options.rfc2217 is not None
    return TcpPort(loop, cable, options.rfc2217 if telnet else options.tcp, now, telnet=telnet)


def _recorder(record: FileIO | None) -> Callable[[bytes], object]:
    """A full disk must not stop the board."""

    def write(data: bytes) -> None:
        if record is not None:
            with contextlib.suppress(OSError):
                record.write(data)

    return write


def _say(text: str) -> None:
    """One line for whoever started this; not said when nobody reads, for it must not stop the board."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [1], [], 0)[1]:
            os.write(1, f"virtualboard: {text}\n".encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m virtualboard",
        description="A virtual ESP32 board that unmodified esptool can flash and reset.",
        epilog=_EPILOG + "\n" + _fault_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--chip", required=True, choices=NAMES, metavar="CHIP", help=f"which chip: {', '.join(NAMES)}")
    line = parser.add_mutually_exclusive_group(required=True)
    line.add_argument("--rfc2217", type=_port, metavar="PORT", help="listen on 127.0.0.1:PORT; 0: any; lines travel")
    line.add_argument("--tcp", type=_port, metavar="PORT", help="bytes only (socket://): no lines, no rate")
    line.add_argument("--pty", type=Path, metavar="LINK", help="a pseudo terminal behind the link: rate, but no lines")
    parser.add_argument("--control", type=Path, metavar="SOCK", help="Unix socket for lines, resets, state, faults")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append every byte that the board sends")
    parser.add_argument("--flash", type=Path, metavar="FILE", help="the flash, byte for byte (default: in memory)")
    parser.add_argument(
        "--burnt",
        action="append",
        default=[],
        type=lambda name: name.replace("-", "_"),
        choices=Security._fields,
        metavar="EFUSE",
        help="a security efuse that is burnt: flash-encryption, secure-boot, secure-download (Secure Download Mode) or "
        "encrypted-download-disabled; may be repeated; nothing is really encrypted or signed",
    )
    parser.add_argument("--mac", type=_mac, default=DEFAULT_MAC, help="factory MAC address (default %(default)s)")
    parser.add_argument("--size", type=_size, default="4MB", help="flash size, 1MB to 128MB (default %(default)s)")
    parser.add_argument(
        "--timing",
        type=_told(parse_timing),
        default="instant",
        metavar="PROFILE[,KEY=S...]",
        help=f"how long things take: {', '.join(PROFILES)} (default %(default)s); "
        "times can be overridden: esp32s3-usb,md5_s_per_mb=0.6",
    )
    parser.add_argument("--usb", action="store_true", help="the port is the chip's own USB-Serial/JTAG, not a bridge")
    parser.add_argument("--fault", type=_told(parse_fault), action="append", default=[], help="see below; repeatable")
    parser.add_argument(
        "--rom-elf",
        type=Path,
        metavar="FILE",
        help="the chip's mask ROM, of Espressif's esp-rom-elfs: what ESP-IDF firmware calls (default: the file for the "
        f"chip in {ENVIRONMENT}, else the functions that come with the board)",
    )
    parser.add_argument("--trace", action="store_true", help="say on stderr what happens: modes, commands, stubs")
    parser.add_argument("--no-cpu", action="store_true", help="download mode only: firmware is not executed")
    return parser


def _fault_help() -> str:
    kinds = "".join(f"  {kind.example:<43}{kind.summary}\n" for kind in KINDS.values())
    keys = "".join(f"  {key + '=':<9}{text}\n" for key, text in KEYS.items())
    return f"faults: KIND[:KEY=VALUE,...]\n{kinds}keys:\n{keys}"


def _told(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """`parse`, with its message on one line, as argparse shows it."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc).replace("\n", ". ")) from exc

    return convert


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


def _mac(text: str) -> str:
    try:
        number = parse_mac(text)
    except UnknownMac as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return number.to_bytes(6, "big").hex(":")


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)MB", text)
    megabytes = int(match[1]) if match else 0
    if not 1 <= megabytes <= 128 or megabytes & (megabytes - 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of 1MB, 2MB, 4MB ... 128MB")
    return megabytes << 20


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
