"""Telnet with the COM port option (RFC 854, RFC 2217), server side, sans-I/O.

Turns what a client sends into events for a serial port and writes the answers that the client waits for. Does not know
sockets or boards. Invariant: every setting is acknowledged in the same call that brought it; any byte string is
survived, and a subnegotiation holds at most `_MAX_SUB` bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT = 0, 1, 3, 44
_AGREED = (BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT)
_MAX_SUB = 256

SIGNATURE, SET_BAUDRATE, SET_DATASIZE, SET_PARITY, SET_STOPSIZE, SET_CONTROL = 0, 1, 2, 3, 4, 5
NOTIFY_MODEMSTATE, SET_LINESTATE_MASK, SET_MODEMSTATE_MASK, PURGE_DATA = 7, 10, 11, 12
_SERVER = 100  # a server's codes are the client's plus this
_CTS_DSR_CD = 0xB0
_BREAK_OFF, _DTR_ON, _DTR_OFF, _RTS_ON, _RTS_OFF = 6, 8, 9, 11, 12


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes for the serial line."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Baud:
    """The client wants this rate."""

    baud: int


@dataclass(frozen=True, slots=True)
class Lines:
    """The client's modem lines after a change."""

    dtr: bool
    rts: bool


@dataclass(frozen=True, slots=True)
class Purge:
    """The client wants what has arrived and was not yet sent to it to be forgotten."""


Event = Data | Baud | Lines | Purge


class Session:
    """One client. Take `outgoing` (and clear it) after each call."""

    def __init__(self) -> None:
        self.outgoing = bytearray()
        self.negotiated = False  # the client speaks RFC 2217
        self._state = "data"
        self._verb = 0
        self._sub: bytearray | None = None
        self._ours: set[int] = set()
        self._theirs: set[int] = set()
        self._dtr = self._rts = False
        self._settings = {SET_BAUDRATE: 9600, SET_DATASIZE: 8, SET_PARITY: 1, SET_STOPSIZE: 1}
        self._flow = 1
        for option in (SUPPRESS_GO_AHEAD, BINARY, COM_PORT):
            self._ours.add(option)
            self.outgoing += bytes([IAC, WILL, option])
            self._theirs.add(option)
            self.outgoing += bytes([IAC, DO, option])

    def send(self, data: bytes) -> None:
        """Bytes from the serial line, for the client."""
        self.outgoing += data.replace(b"\xff", b"\xff\xff")

    def feed(self, data: bytes) -> list[Event]:
        """Bytes from the client; returns what they mean for the port, in order."""
        events: list[Event] = []
        plain = bytearray()
        at = 0
        while at < len(data):
            if self._state == "data" and self._sub is None and data[at] != IAC:
                # The common case, block data, goes through in one piece up to the next IAC.
                end = data.find(b"\xff", at)
                end = len(data) if end < 0 else end
                plain += data[at:end]
                at = end
                continue
            before = len(events)
            self._byte(data[at], plain, events)
            at += 1
            if len(events) != before and plain:
                # What came before a setting belongs before it.
                events.insert(before, Data(bytes(plain)))
                plain.clear()
        if plain:
            events.append(Data(bytes(plain)))
        return events

    def _byte(self, byte: int, plain: bytearray, events: list[Event]) -> None:
        if self._state == "data":
            if byte == IAC:
                self._state = "iac"
            else:
                self._literal(byte, plain)
            return
        if self._state == "option":
            self._negotiate(self._verb, byte)
        elif byte == IAC:
            self._literal(byte, plain)
        elif byte == SB:
            self._sub = bytearray()
        elif byte == SE:
            sub, self._sub = self._sub, None
            if sub and sub[0] == COM_PORT and len(sub) > 1:
                self._command(sub[1], bytes(sub[2:]), events)
        elif byte in (DO, DONT, WILL, WONT):
            self._state, self._verb = "option", byte
            return
        self._state = "data"

    def _literal(self, byte: int, plain: bytearray) -> None:
        if self._sub is None:
            plain.append(byte)
        elif len(self._sub) < _MAX_SUB:
            self._sub.append(byte)

    def _negotiate(self, verb: int, option: int) -> None:
        """Answer only what changes something (RFC 1143): an answer to an answer would never end."""
        side, yes, no = (self._ours, WILL, WONT) if verb in (DO, DONT) else (self._theirs, DO, DONT)
        wanted = verb in (DO, WILL)
        if wanted and option == COM_PORT and not self.negotiated:
            self.negotiated = True
            self._reply(NOTIFY_MODEMSTATE, bytes([_CTS_DSR_CD]))
        if wanted and option not in _AGREED:
            self.outgoing += bytes([IAC, no, option])
        elif wanted and option not in side:
            side.add(option)
            self.outgoing += bytes([IAC, yes, option])
        elif not wanted and option in side:
            side.discard(option)
            self.outgoing += bytes([IAC, no, option])

    def _command(self, code: int, value: bytes, events: list[Event]) -> None:
        if code == SIGNATURE:
            self._reply(code, b"virtualboard")
        elif code == SET_BAUDRATE and len(value) == 4:
            baud = struct.unpack("!I", value)[0]
            if baud:  # 0 asks for the current rate
                self._settings[code] = baud
                events.append(Baud(baud))
            self._reply(code, struct.pack("!I", self._settings[code]))
        elif code in (SET_DATASIZE, SET_PARITY, SET_STOPSIZE) and len(value) == 1:
            self._settings[code] = value[0] or self._settings[code]
            self._reply(code, bytes([self._settings[code]]))
        elif code == SET_CONTROL and len(value) == 1:
            self._reply(code, bytes([self._control(value[0], events)]))
        elif code == NOTIFY_MODEMSTATE:
            self._reply(code, bytes([_CTS_DSR_CD]))
        elif code in (SET_LINESTATE_MASK, SET_MODEMSTATE_MASK):
            self._reply(code, value)
        elif code == PURGE_DATA and len(value) == 1:
            if value[0] in (1, 3):
                events.append(Purge())
            self._reply(code, value)

    def _control(self, value: int, events: list[Event]) -> int:
        """Apply or answer one SET_CONTROL value (RFC 2217 section 3)."""
        if value in (_DTR_ON, _DTR_OFF):
            self._dtr = value == _DTR_ON
        elif value in (_RTS_ON, _RTS_OFF):
            self._rts = value == _RTS_ON
        elif value in (1, 2, 3):
            self._flow = value
            return value
        else:
            dtr = _DTR_ON if self._dtr else _DTR_OFF
            rts = _RTS_ON if self._rts else _RTS_OFF
            return {0: self._flow, 4: _BREAK_OFF, 7: dtr, 10: rts}.get(value, value)
        events.append(Lines(self._dtr, self._rts))
        return value

    def _reply(self, code: int, value: bytes) -> None:
        escaped = value.replace(b"\xff", b"\xff\xff")
        self.outgoing += bytes([IAC, SB, COM_PORT, _SERVER + code]) + escaped + bytes([IAC, SE])
