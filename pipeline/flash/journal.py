"""The device journal: what we believe is in the flash of one MAC.

Pure: records to beliefs. Does not know files, the board or the run. One journal belongs to one MAC and lives in
`.deploy/devices.v1/`; its lines are those of `records.py`, and the writer must reach the disk after `begin`
and before the first write to flash.
Invariant: a region is believed only if the last transaction that touched any sector of it wrote it, verified it and
committed. Everything doubtful makes regions unknown: that costs a verification, never correctness.

    state  record      condition                 next   effect
    idle   begin                                 open   regions of the transaction, and beliefs it overlaps: unknown
    open   begin                                 open   as above; the transaction before stays undone
    open   written     its tx, one of its images open   remembered as written
    open   commit      its tx                    idle   written images are believed; the others stay unknown
    any    anything else                         idle   does not fit: forget everything, and say so

Record keys: `record` begin|written|commit; `tx`; begin has `at` (UTC), `images` [{name, offset, size, sha256, md5}] and
`about` {flash, toolchain} (missing when the transaction covers a part of a build), and `by` "ota" for an update without
a cable, which chooses its slot itself and is never committed here; written has `name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.chips import SECTOR
from pipeline.flash_model import Image
from pipeline.records import decode_records, encode_record, header

JOURNAL_NAME = "hotplate-device-journal"
JOURNAL_SCHEMA = 1
JOURNAL_HEADER = header(JOURNAL_NAME, JOURNAL_SCHEMA)
BY_OTA = "ota"


class JournalImage(NamedTuple):
    """An image as the journal remembers it: bytes as written, by digest (the CAS may still hold them)."""

    name: str
    offset: int
    size: int
    sha256: str
    md5: str

    def overlaps(self, other: JournalImage) -> bool:
        """Do the two share a flash sector? Erasing for one destroys the other then."""
        return _first(self) < _end(other) and _first(other) < _end(self)


def _first(image: JournalImage) -> int:
    return image.offset // SECTOR * SECTOR


def _end(image: JournalImage) -> int:
    return -(-(image.offset + image.size) // SECTOR) * SECTOR


class OpenTransaction(NamedTuple):
    """A transaction that began and did not commit. `written` names those images whose write was verified: a resumed
    write may start from them, after asking the device."""

    tx: str
    at: str
    images: tuple[JournalImage, ...]
    written: frozenset[str] = frozenset()
    about: Mapping[str, str] = MappingProxyType({})
    by: str = ""

    @property
    def kind(self) -> str:
        """Why regions are unknown since then, as a reason's kind."""
        return "updated-without-cable" if self.by == BY_OTA else "write-was-cut-off"


class DeviceState(NamedTuple):
    """What we believe about one device.

    `committed` is the last committed image by region name, `unknown` the names whose flash content is not known now.
    A name in both has a reference for a delta, but no claim."""

    committed: Mapping[str, JournalImage] = MappingProxyType({})
    unknown: frozenset[str] = frozenset()
    open: OpenTransaction | None = None
    note: str | None = None
    about: Mapping[str, str] = MappingProxyType({})
    """Of the last commit that said so: `flash` settings and `toolchain`, whose moves escalate to a full flash."""

    def believed(self, name: str) -> JournalImage | None:
        """The image that we believe is in flash at region `name`; `None`: unknown."""
        return None if name in self.unknown else self.committed.get(name)


# --- records ----------------------------------------------------------------------------------


def begin(
    tx: str, at: str, images: Sequence[Image], about: Mapping[str, str] = MappingProxyType({}), by: str = ""
) -> bytes:
    """The line to append, and sync, before the first write of a transaction that will touch `images`. `about` is given
    by a transaction that covers every image of its build, `by` by one that is no deploy by cable."""
    rows = [JournalImage(i.name, i.offset, i.size, i.digest.hex, i.md5)._asdict() for i in images]
    more = {**({"about": dict(about)} if about else {}), **({"by": by} if by else {})}
    return encode_record({"record": "begin", "tx": tx, "at": at, "images": rows, **more})


def written(tx: str, name: str) -> bytes:
    """The line that says that image `name` was written and the device confirmed it."""
    return encode_record({"record": "written", "tx": tx, "name": name})


def commit(tx: str) -> bytes:
    """The line that ends a transaction: every image it announced is in flash."""
    return encode_record({"record": "commit", "tx": tx})


def decode_journal(data: bytes) -> tuple[DeviceState, int]:
    """The state, and how many leading bytes to keep before appending (0: write `JOURNAL_HEADER` again).

    Damage inside the journal forgets everything: records behind it may have touched any region. A torn tail is a record
    whose sync never returned, so nothing relied on it."""
    decoded = decode_records(data, JOURNAL_NAME, JOURNAL_SCHEMA)
    if decoded.note is not None:
        return DeviceState(note=f"{decoded.note}; verifying all regions"), 0
    state = replay(decoded.records)
    return state, decoded.good if state.note is None else 0


# --- transitions ------------------------------------------------------------------------------


def replay(records: Iterable[Mapping[str, Any]]) -> DeviceState:
    """Fold records into the state. Total: a record that does not fit forgets everything before it, and is named."""
    state = DeviceState()
    for number, record in enumerate(records, 1):
        try:
            after = _apply(state, record)
        except (AttributeError, KeyError, TypeError, ValueError):
            after = None
        if after is None:
            what = str(record.get("record", "?"))[:20]
            note = f"{JOURNAL_NAME}: record {number} ({what}) does not fit; verifying all regions"
            state = DeviceState(note=note)
        else:
            state = after
    return state


def _apply(state: DeviceState, record: Mapping[str, Any]) -> DeviceState | None:
    tx = str(record["tx"])
    if record["record"] == "begin":
        about = {str(key): str(value) for key, value in record.get("about", {}).items()}
        return _begin(state, _opened(tx, record, about))
    if state.open is None or state.open.tx != tx:
        return None
    names = {image.name for image in state.open.images}
    if record["record"] == "written" and record["name"] in names:
        done = state.open.written | {str(record["name"])}
        return state._replace(open=state.open._replace(written=done))
    if record["record"] == "commit":
        return _commit(state, state.open)
    return None


def _opened(tx: str, record: Mapping[str, Any], about: Mapping[str, str]) -> OpenTransaction:
    return OpenTransaction(tx, str(record["at"]), _images(record["images"]), about=about, by=str(record.get("by", "")))


def _images(rows: Sequence[Mapping[str, Any]]) -> tuple[JournalImage, ...]:
    images = tuple(JournalImage(**row) for row in rows)
    for image in images:
        if not (isinstance(image.offset, int) and isinstance(image.size, int)):
            raise TypeError("offset and size are numbers")
    return images


def _begin(state: DeviceState, opened: OpenTransaction) -> DeviceState:
    hit = {image.name for image in opened.images}
    hit |= {old.name for old in state.committed.values() if any(old.overlaps(new) for new in opened.images)}
    return state._replace(unknown=state.unknown | hit, open=opened)


def _commit(state: DeviceState, opened: OpenTransaction) -> DeviceState:
    done = {image.name: image for image in opened.images if image.name in opened.written}
    # A region that moved or was overwritten under another name has no reference any more either.
    kept = {
        name: old
        for name, old in state.committed.items()
        if name in done or not any(old.overlaps(new) for new in done.values())
    }
    unknown = (state.unknown - done.keys()) & (kept.keys() | {image.name for image in opened.images})
    about = opened.about or state.about
    return DeviceState({**kept, **done}, unknown, None, state.note, about)
