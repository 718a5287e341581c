"""What the service and its clients say to each other: frames, the names of messages, and the values in them.

Pure: bytes in, frames out, and back. Does not know sockets or what a message makes anybody do (docs/service.md does).
Invariants: what `FrameReader` gives was sent whole, by somebody who speaks this protocol, and no side ever buffers more
than a frame of the allowed size; a value that crossed comes out equal or as a ProtocolError, never as something else.

    frame  := kind header_size body_size header body      kind: 1 byte; sizes: 4 bytes each, big-endian
    kind 1    header is a JSON object, body is bytes
    kind 2    a verdict: header is byte strings separated by NUL; the fast path asks so, which loads no JSON

The first frame of each side is HELLO or WELCOME, with PROTOCOL; anything else is answered with REFUSED and the end. A
verdict needs no greeting: it names the protocol itself (`verdict.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.client.holder import Holder
from pipeline.client.verdict import MAX_BODY, MAX_HEADER, PREFIX_BYTES, PROTOCOL, VERDICT_FRAME, prefix
from pipeline.config.schema import DeviceConfig
from pipeline.model import Failure, FailureCategory, Stage

__all__ = [
    "MAX_BODY",
    "MAX_HEADER",
    "PREFIX_BYTES",
    "PROTOCOL",
    "VERDICT_FRAME",
    "Holder",
    "prefix",
]  # to be had here, too

JSON_FRAME = 1


class Message(StrEnum):
    """The `is` of a JSON frame. Who sends it, and what it carries: docs/service.md."""

    HELLO = "hello"
    WELCOME = "welcome"
    REFUSED = "refused"
    DONE = "done"
    FAILURE = "failure"
    STATUS = "status"
    STOP = "stop"
    RELEASE = "release"
    PORTS = "ports"
    # a port, lent
    PORT = "port"
    WAITING = "waiting"
    GRANTED = "granted"
    DATA = "data"
    WRITE = "write"
    BAUD = "baud"
    LINES = "lines"
    DRAIN = "drain"
    CHANNEL = "channel"
    GONE = "gone"
    BACK = "back"
    # a console, watched
    WATCH = "watch"
    CHUNK = "chunk"
    NOTE = "note"
    SEND = "send"
    RESET = "reset"
    TELL = "tell"
    # a run in the service's runner
    RUN = "run"
    SIGNAL = "signal"
    DETACH = "detach"
    ENDED = "ended"


class ProtocolError(Exception):
    """The other side does not speak this protocol, or says what cannot be; the text says what came."""


class ServiceFrame(NamedTuple):
    """`header` of a verdict frame: `{"fields": [bytes, ...]}`."""

    kind: int
    header: Mapping[str, Any]
    body: bytes = b""

    @property
    def message(self) -> str:
        """The `is` of a JSON frame; "" for a verdict."""
        name = self.header.get("is", "")
        return name if isinstance(name, str) else ""


def encode(message: Message, body: bytes = b"", /, **fields: Any) -> bytes:
    """A JSON frame."""
    header = json.dumps({"is": message, **fields}, separators=(",", ":"), allow_nan=False).encode()
    return prefix(JSON_FRAME, len(header), len(body)) + header + body


def encode_verdict(*fields: bytes, body: bytes = b"") -> bytes:
    """A verdict frame; no field holds a NUL."""
    header = b"\0".join(fields)
    return prefix(VERDICT_FRAME, len(header), len(body)) + header + body


class FrameReader:
    """Feed it what arrives; it gives the frames that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[ServiceFrame]:
        """Raises ProtocolError; then the connection is of no more use."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= PREFIX_BYTES:
            kind = self._buffer[0]
            header_size, body_size = (int.from_bytes(self._buffer[at : at + 4], "big") for at in (1, 5))
            if kind not in (JSON_FRAME, VERDICT_FRAME) or header_size > MAX_HEADER or body_size > MAX_BODY:
                raise ProtocolError(f"no frame begins with {bytes(self._buffer[:PREFIX_BYTES]).hex(' ')}")
            end = PREFIX_BYTES + header_size + body_size
            if len(self._buffer) < end:
                break
            header = bytes(self._buffer[PREFIX_BYTES : PREFIX_BYTES + header_size])
            body = bytes(self._buffer[PREFIX_BYTES + header_size : end])
            del self._buffer[:end]
            frames.append(ServiceFrame(kind, _header(kind, header), body))
        return frames


def _header(kind: int, data: bytes) -> Mapping[str, Any]:
    if kind == VERDICT_FRAME:
        return {"fields": data.split(b"\0")}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ProtocolError(f"a header is no JSON: {data[:40]!r}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"a header is no JSON object: {data[:40]!r}")
    return value


# --- values in messages -----------------------------------------------------------------------


class DeviceRef(NamedTuple):
    """A device of a project, as the service needs to know it: it reads no `deploy.toml`. `root`: of the project,
    absolute; `mac`: of the board that was last seen there, "" when nobody knows."""

    root: str
    name: str
    chip: str
    port: str
    mac: str = ""
    monitor_baud: int = 115200
    reset: str = "auto"

    @property
    def where(self) -> str:
        """How failures name it."""
        return f"device {self.name} on {self.port}"

    @property
    def config(self) -> DeviceConfig:
        """What opens its port."""
        return DeviceConfig(self.name, self.chip, self.port, self.mac, monitor_baud=self.monitor_baud, reset=self.reset)


class Channel(StrEnum):
    """Whose bytes these are: the console's, or an answer of the chip's loader to whoever flashes it."""

    CONSOLE = "console"
    LOADER = "loader"


class NoteKind(StrEnum):
    """What happened to a console beside bytes; closed."""

    OPENED = "opened"
    PREEMPTED = "preempted"
    REATTACHED = "reattached"
    RESET = "reset"
    BOOT = "boot"
    GONE = "gone"
    BACK = "back"
    DROPPED = "dropped"
    BUSY = "busy"
    CLOSED = "closed"
    TAKEN = "taken"


class ConsoleChunk(NamedTuple):
    """Bytes of a board, as they came. `number` counts chunks and notes of this console from 1, `offset` the bytes of
    all channels before `data`, both since the service opened it; `at`: instant, UTC; `at_s`: the service's clock."""

    number: int
    at: str
    at_s: float
    offset: int
    channel: Channel
    data: bytes


class ConsoleNote(NamedTuple):
    """What happened, between two chunks. `text`: a sentence for people; `tx`: where a deploy is the cause; `elf`: the
    `app_elf_sha256` of the firmware that announced itself (BOOT)."""

    number: int
    at: str
    at_s: float
    kind: NoteKind
    text: str
    tx: str = ""
    elf: str = ""


ConsoleEntry = ConsoleChunk | ConsoleNote


def encode_entry(entry: ConsoleEntry, **more: Any) -> bytes:
    """A CHUNK or NOTE frame."""
    if isinstance(entry, ConsoleChunk):
        fields = entry._asdict()
        return encode(Message.CHUNK, fields.pop("data"), **fields, **more)
    return encode(Message.NOTE, **entry._asdict(), **more)


def decode_entry(frame: ServiceFrame) -> ConsoleEntry:
    """Of a CHUNK or NOTE frame. Raises ProtocolError."""
    if frame.message == Message.CHUNK:
        chunk: ConsoleChunk = read_fields(ConsoleChunk, {**frame.header, "data": b""})
        return chunk._replace(channel=_member(Channel, chunk.channel), data=frame.body)
    note: ConsoleNote = read_fields(ConsoleNote, frame.header)
    return note._replace(kind=_member(NoteKind, note.kind))


def encode_failure(failure: Failure) -> bytes:
    """A FAILURE frame."""
    return encode(Message.FAILURE, **failure._asdict())


def decode_failure(frame: ServiceFrame) -> Failure:
    """Of a FAILURE frame. Raises ProtocolError."""
    failure: Failure = read_fields(Failure, frame.header, unchecked=("category", "stage"))
    stage = None if failure.stage is None else _member(Stage, failure.stage)
    return failure._replace(category=_member(FailureCategory, failure.category), stage=stage)


def read_fields(kind: Any, header: Mapping[str, Any], *, unchecked: tuple[str, ...] = ()) -> Any:
    """A named tuple from the fields of the same names; others are ignored. Raises ProtocolError for one that is missing
    or of another type than its annotation names."""
    values = {}
    for name in kind._fields:
        if name not in header:
            if name not in kind._field_defaults:
                raise ProtocolError(f"{kind.__name__} without {name}")
            continue
        value, wanted = header[name], _PLAIN.get(str(kind.__annotations__[name]))
        if name not in unchecked and wanted is not None and (type(value) not in wanted):
            raise ProtocolError(f"{kind.__name__} with {name} = {value!r:.60}")
        values[name] = value
    return kind(**values)


_PLAIN: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (float, int),
    "bytes": (bytes,),
    "Channel": (str, Channel),
    "NoteKind": (str, NoteKind),
}


def _member(kind: Any, value: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ProtocolError(f"{value!r:.60} is no {kind.__name__}") from None
