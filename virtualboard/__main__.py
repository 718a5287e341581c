"""`python -m virtualboard`: a board as a process of its own, for any tool that can open an RFC 2217 port.

Does not know what the clients do. Invariant: one line on stdout once the port listens, nothing before; every mistake of
the caller is one message on stderr with exit status 2, never a traceback.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from virtualboard.board import Board
from virtualboard.chips import CHIPS, UnknownMac, parse_mac
from virtualboard.nor import FlashError, NorFlash
from virtualboard.port import DEFAULT_MAC
from virtualboard.rfc2217 import ListenError, Server

_EPILOG = """\
examples:
  python -m virtualboard --chip esp32c3 --rfc2217 4000 --flash board.bin
      a blank ESP32-C3; in another terminal:
  esptool --port rfc2217://127.0.0.1:4000 flash-id
  esptool --port rfc2217://127.0.0.1:4000 write-flash 0x0 merged.bin
  pyserial-miniterm rfc2217://127.0.0.1:4000 115200
      the board keeps running between the two, as one on a cable does

The first line of output names the address; with --rfc2217 0 a free port is chosen.
The flash file is created when missing and holds what the chip's flash holds: it survives the
process, and may be read with any tool. One board per file. DTR and RTS work as on a development
board with the usual two transistors: esptool resets it by itself. Loopback only.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one board until SIGTERM or Ctrl-C; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        flash = NorFlash(options.size, options.flash)
    except FlashError as exc:
        return _fail(str(exc))
    chip = CHIPS[options.chip]
    try:
        board = Board(chip, flash, options.mac, time.monotonic, execute=not options.no_cpu)
        server = Server(board, options.rfc2217)
    except ListenError as exc:
        flash.close()
        return _fail(str(exc))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: server.stop())
    board.power_on()
    try:
        print(f"virtualboard: {chip.name} {options.mac} on rfc2217://127.0.0.1:{server.port}", flush=True)
        server.serve()
    finally:
        flash.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m virtualboard",
        description="A virtual ESP32 board that unmodified esptool can flash and reset.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--chip", required=True, choices=sorted(CHIPS), help="which chip the board has")
    parser.add_argument("--rfc2217", required=True, type=_port, metavar="PORT", help="listen on 127.0.0.1:PORT; 0: any")
    parser.add_argument("--flash", required=True, type=Path, metavar="FILE", help="the flash, byte for byte")
    parser.add_argument("--mac", type=_mac, default=DEFAULT_MAC, help="factory MAC address (default %(default)s)")
    parser.add_argument("--size", type=_size, default="4MB", help="flash size, 1MB to 128MB (default %(default)s)")
    parser.add_argument("--no-cpu", action="store_true", help="download mode only: firmware is not executed")
    return parser


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
