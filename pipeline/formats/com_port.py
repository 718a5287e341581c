"""Telnet with the COM port control option, server side (RFC 854, RFC 1143, RFC 2217), sans-I/O.

What a client sends becomes settings and bytes for a serial port; a setting is acknowledged when whoever owns the port
says that it was done. Does not know sockets, ports or boards. Invariants: bytes and settings come out in the order in
which they were sent; any byte string is survived, and at most `MAX_SUBNEGOTIATION` bytes of an unfinished command are
kept; no option is negotiated in a circle.
"""

from __future__ import annotations

from cache.named_tuple import NamedTuple

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT = 0, 1, 3, 44
AGREED = (BINARY, ECHO, SUPPRESS_GO_AHEAD, COM_PORT)
OFFERED = (SUPPRESS_GO_AHEAD, BINARY, COM_PORT)
MAX_SUBNEGOTIATION = 256

SIGNATURE, BAUD, DATA_SIZE, PARITY, STOP_SIZE, CONTROL = 0, 1, 2, 3, 4, 5
MODEM_STATE, SUSPEND, RESUME, LINE_STATE_MASK, MODEM_STATE_MASK, PURGE = 7, 8, 9, 10, 11, 12
FROM_SERVER = 100
"""A server's commands are the client's plus this."""

CTS_DSR_CD = 0xB0
"""What every board says: ready. No ESP32 board has these wires."""

BREAK_ASKED, BREAK_ON, BREAK_OFF = 4, 5, 6
DTR_ASKED, DTR_ON, DTR_OFF, RTS_ASKED, RTS_ON, RTS_OFF = 7, 8, 9, 10, 11, 12


class ComBytes(NamedTuple):
    """For the serial line."""

    data: bytes


class ComBaud(NamedTuple):
    """The client wants this rate. `reply`: give it to `acknowledge` when it is set."""

    baud: int
    reply: bytes


class ComLines(NamedTuple):
    """The client's lines after a change. `reply` as in ComBaud."""

    dtr: bool
    rts: bool
    reply: bytes


class ComPurge(NamedTuple):
    """What has come and was not sent to the client shall be forgotten. `reply` as in ComBaud."""

    reply: bytes


ComEvent = ComBytes | ComBaud | ComLines | ComPurge


class ComPortSession:
    """One client. Send `outgoing`, and clear it, after each call."""

    def __init__(self, signature: bytes) -> None:
        self.outgoing = bytearray()
        self.negotiated = False
        """Does the client speak RFC 2217?"""
        self.suspended = False
        """It wants no data for now."""
        self._signature = signature
        self._after_iac = False
        self._verb = 0
        """The WILL, WONT, DO or DONT whose option comes next."""
        self._command: bytearray | None = None
        self._ours: set[int] = set(OFFERED)
        self._theirs: set[int] = set(OFFERED)
        self._dtr = self._rts = False
        self._flow = 1
        self._settings = {BAUD: 115200, DATA_SIZE: 8, PARITY: 1, STOP_SIZE: 1}
        for option in OFFERED:
            self.outgoing += bytes([IAC, WILL, option, IAC, DO, option])

    def encoded(self, data: bytes) -> bytes:
        """Bytes of the serial line as the client must get them."""
        return data.replace(b"\xff", b"\xff\xff")

    def acknowledge(self, reply: bytes) -> None:
        """The setting that came with this reply is made."""
        self.outgoing += reply

    def feed(self, data: bytes) -> list[ComEvent]:
        """What the client's bytes ask for, in order."""
        events: list[ComEvent] = []
        plain = bytearray()
        place = 0
        while place < len(data):
            if not self._after_iac and not self._verb and self._command is None:
                end = data.find(b"\xff", place)
                end = len(data) if end < 0 else end
                plain += data[place:end]
                place = end
                if end == len(data):
                    break
            event = self._byte(data[place], plain)
            place += 1
            if event is not None:
                if plain:
                    events.append(ComBytes(bytes(plain)))
                    plain.clear()
                events.append(event)
        if plain:
            events.append(ComBytes(bytes(plain)))
        return events

    def _byte(self, byte: int, plain: bytearray) -> ComEvent | None:
        if self._verb:
            verb, self._verb = self._verb, 0
            self._negotiate(verb, byte)
        elif not self._after_iac:
            if byte == IAC:
                self._after_iac = True
            else:
                self._keep(byte, plain)
        else:
            self._after_iac = False
            if byte == IAC:
                self._keep(byte, plain)
            elif byte in (WILL, WONT, DO, DONT):
                self._verb = byte
            elif byte == SB:
                self._command = bytearray()
            elif byte == SE:
                command, self._command = self._command, None
                if command is not None and len(command) > 1 and command[0] == COM_PORT:
                    return self._asked(command[1], bytes(command[2:]))
        return None

    def _keep(self, byte: int, plain: bytearray) -> None:
        if self._command is None:
            plain.append(byte)
        elif len(self._command) < MAX_SUBNEGOTIATION:
            self._command.append(byte)

    def _negotiate(self, verb: int, option: int) -> None:
        """Answer what changes something, and nothing else."""
        enabled, yes, no = (self._ours, WILL, WONT) if verb in (DO, DONT) else (self._theirs, DO, DONT)
        wanted = verb in (DO, WILL)
        if wanted and option == COM_PORT and not self.negotiated:
            self.negotiated = True
            self.outgoing += self._reply(MODEM_STATE, bytes([CTS_DSR_CD]))
        if wanted and option not in AGREED:
            self.outgoing += bytes([IAC, no, option])
        elif wanted and option not in enabled:
            enabled.add(option)
            self.outgoing += bytes([IAC, yes, option])
        elif not wanted and option in enabled:
            enabled.discard(option)
            self.outgoing += bytes([IAC, no, option])

    def _asked(self, code: int, value: bytes) -> ComEvent | None:
        if code == BAUD and len(value) == 4:
            baud = int.from_bytes(value, "big")
            if baud:
                self._settings[BAUD] = baud
                return ComBaud(baud, self._reply(BAUD, value))
            self.outgoing += self._reply(BAUD, self._settings[BAUD].to_bytes(4, "big"))
        elif code == CONTROL and len(value) == 1:
            return self._control(value[0])
        elif code == PURGE and len(value) == 1:
            if value[0] in (1, 3):
                return ComPurge(self._reply(PURGE, value))
            self.outgoing += self._reply(PURGE, value)
        else:
            self._answer(code, value)
        return None

    def _answer(self, code: int, value: bytes) -> None:
        """What concerns no port of an ESP32."""
        if code == SIGNATURE:
            self.outgoing += self._reply(SIGNATURE, self._signature)
        elif code in (DATA_SIZE, PARITY, STOP_SIZE) and len(value) == 1:
            self._settings[code] = value[0] or self._settings[code]
            self.outgoing += self._reply(code, bytes([self._settings[code]]))
        elif code in (SUSPEND, RESUME):
            self.suspended = code == SUSPEND
        elif code == MODEM_STATE:
            self.outgoing += self._reply(MODEM_STATE, bytes([CTS_DSR_CD]))
        elif code in (LINE_STATE_MASK, MODEM_STATE_MASK):
            self.outgoing += self._reply(code, value)

    def _control(self, value: int) -> ComLines | None:
        reply = self._reply(CONTROL, bytes([value]))
        if value in (DTR_ON, DTR_OFF):
            self._dtr = value == DTR_ON
        elif value in (RTS_ON, RTS_OFF):
            self._rts = value == RTS_ON
        else:
            if value in (1, 2, 3):
                self._flow = value
            asked = {
                0: self._flow,
                BREAK_ASKED: BREAK_OFF,
                BREAK_ON: BREAK_OFF,
                DTR_ASKED: DTR_ON if self._dtr else DTR_OFF,
                RTS_ASKED: RTS_ON if self._rts else RTS_OFF,
            }.get(value, value)
            self.outgoing += self._reply(CONTROL, bytes([asked]))
            return None
        return ComLines(self._dtr, self._rts, reply)

    def _reply(self, code: int, value: bytes) -> bytes:
        return bytes([IAC, SB, COM_PORT, FROM_SERVER + code]) + self.encoded(value) + bytes([IAC, SE])
