"""The control protocol: one request per line, one JSON object per answer. Sans-I/O.

A request is words (`dtr=0 rts=1`, `fault brown-out:write=2`) or the same as JSON (`{"set": {"dtr": 0, "rts": 1}}`,
`{"fault": "brown-out:write=2"}`). An answer is `{"ok": true, ...}` or `{"ok": false, "error": ..., "hint": ...}`.
Does not know sockets. Invariant: any line gets exactly one answer, never an exception; a request that fails has changed
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from virtualboard.cable import Cable
from virtualboard.faults import BadFault, parse_fault

MAX_LINE = 4096

HELP: Mapping[str, str] = MappingProxyType(
    {
        "set": "dtr=0|1 rts=0|1: set one or both modem lines, at once",
        "reset": "press the reset button",
        "download": "press reset while boot is held: the chip enters download mode",
        "state": "what the board is and does",
        "flash-md5": "OFFSET LEN: MD5 of a part of the flash",
        "fault": "SPEC: set a fault; `fault clear` forgets all",
        "help": "this list",
    }
)


class BadRequest(ValueError):
    """The request cannot be done. The message is for a person: a fact, then a hint on its own line."""


class Control:
    """Answers for `cable` and its board. `url` tells where clients find the line now."""

    def __init__(self, cable: Cable, url: Callable[[], str]) -> None:
        self._cable = cable
        self._url = url
        self._commands: Mapping[str, Callable[[Sequence[Any]], dict[str, Any]]] = {
            "set": self._set,
            "reset": self._reset,
            "download": self._download,
            "state": self._state,
            "flash-md5": self._flash_md5,
            "fault": self._fault,
            "help": self._help,
        }

    def answer(self, line: bytes) -> bytes:
        """The answer to one line (without its end), with its newline."""
        try:
            name, args = _parse(line)
            handler = self._commands.get(name)
            if handler is None:
                from difflib import get_close_matches

                near = get_close_matches(name, self._commands, 1)
                hint = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(self._commands)}."
                raise BadRequest(f"{name[:40]!r} is not a command\n{hint}")
            result = {"ok": True, **handler(args)}
        except (BadRequest, BadFault) as exc:
            error, _, hint = str(exc).partition("\n")
            result = {"ok": False, "error": error, "hint": hint}
        return json.dumps(result).encode() + b"\n"

    def _set(self, args: Sequence[Any]) -> dict[str, Any]:
        dtr, rts = self._cable.board.lines
        wanted = {"dtr": dtr, "rts": rts}
        for arg in args:
            name, equals, value = str(arg).partition("=")
            if name not in wanted or not equals or value not in ("0", "1"):
                raise BadRequest(f"{str(arg)[:40]!r} sets no line\nWrite dtr=0, dtr=1, rts=0 or rts=1.")
            wanted[name] = value == "1"
        if not args:
            raise BadRequest("set names no line\nWrite dtr=0, dtr=1, rts=0 or rts=1.")
        self._cable.set_lines(wanted["dtr"], wanted["rts"])
        return self._brief()

    def _reset(self, args: Sequence[Any]) -> dict[str, Any]:
        _none("reset", args)
        self._cable.press_reset(download=False)
        return self._brief()

    def _download(self, args: Sequence[Any]) -> dict[str, Any]:
        _none("download", args)
        self._cable.press_reset(download=True)
        return self._brief()

    def _state(self, args: Sequence[Any]) -> dict[str, Any]:
        _none("state", args)
        board = self._cable.board
        path = board.flash.path
        return {
            **self._brief(),
            "chip": board.chip.name,
            "mac": board.mac,
            "serial": board.serial,
            "usb": board.usb,
            "port": self._url(),
            "present": self._cable.reachable,
            "enumerations": board.plug.generation + 1,
            "flash": {"size": board.flash.size, "file": None if path is None else str(path)},
            "instructions": board.executed,
            "faults": board.faults.texts,
        }

    def _flash_md5(self, args: Sequence[Any]) -> dict[str, Any]:
        flash = self._cable.board.flash
        if len(args) != 2:
            raise BadRequest("flash-md5 takes an offset and a length\nWrite it like flash-md5 0x10000 65536.")
        offset, length = (_number(arg) for arg in args)
        if offset + length > flash.size:
            raise BadRequest(
                f"{length:#x} bytes at {offset:#x} leave the flash of {flash.size:#x} bytes\nGive a part inside it."
            )
        return {"md5": flash.md5(offset, length).hex()}

    def _fault(self, args: Sequence[Any]) -> dict[str, Any]:
        board = self._cable.board
        if len(args) != 1 or not isinstance(args[0], str):
            raise BadRequest("fault takes one fault\nWrite it like fault brown-out:write=2, or fault clear.")
        if args[0] == "clear":
            board.faults.clear()
        else:
            board.inject(parse_fault(args[0]))
        return {"faults": board.faults.texts}

    @staticmethod
    def _help(_args: Sequence[Any]) -> dict[str, Any]:
        return {"help": dict(HELP)}

    def _brief(self) -> dict[str, Any]:
        dtr, rts = self._cable.board.lines
        return {"mode": self._cable.board.mode.value, "dtr": int(dtr), "rts": int(rts)}


def _parse(line: bytes) -> tuple[str, list[Any]]:
    """Command and arguments of a line, in either form."""
    text = line.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        words = text.split()
        if not words:
            raise BadRequest("the line is empty\nSend help for the list of commands.")
        return ("set", words) if "=" in words[0] else (words[0], list(words[1:]))
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest('the line is not JSON\nWrite it like {"set": {"dtr": 0}}, or dtr=0.') from None
    if len(request) != 1:
        raise BadRequest(f'the request has {len(request)} keys\nGive one command each, like {{"state": true}}.')
    ((name, value),) = request.items()
    if isinstance(value, dict):
        return name, [f"{key}={int(item) if isinstance(item, bool) else item}" for key, item in value.items()]
    if isinstance(value, list):
        return name, value
    return name, [] if value is None or value is True else [value]


def _none(name: str, args: Sequence[Any]) -> None:
    if args:
        raise BadRequest(f"{name} takes nothing\nSend {name} alone.")


def _number(value: Any) -> int:
    try:
        number = value if type(value) is int else int(str(value), 0)
    except ValueError:
        number = -1
    if number < 0:
        raise BadRequest(f"{str(value)[:40]!r} is not an offset or a length\nWrite it like 4096 or 0x1000.")
    return number
