"""What a board held and started before this run wrote to it, so that it can be put back.

Read in verify-flash's session, before the first write. A region counts as known when the device's own MD5 says that it
is what was committed to this board, and the store has the bytes, or when it was read. What ran is what the board's own
table and otadata start: after an update without a cable that is not what was last deployed by cable. Writes nothing and
does not know how anything is put back. Invariant: no byte is held of which the device did not say that it had it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cache.digest import Digest, digest_bytes
from cache.named_tuple import NamedTuple
from pipeline.chips import SECTOR
from pipeline.flash.journal import BY_OTA
from pipeline.flash.plan import BOARD_ERASED, whole
from pipeline.flash_model import Image, MatchRule, Partition, Region, RegionPlan
from pipeline.formats.esp_image import HEAD_BYTES, IMAGE_MAGIC, describe_image, identity_in_head
from pipeline.formats.otadata import LASTING, OtaState, active_entry, select
from pipeline.formats.partitions import boot_row, decode_table, ota_slots, otadata_row
from pipeline.formats.placement import APPLICATION, BOOTLOADER, OTADATA_IMAGE, TABLE
from pipeline.model import Reason, RegionAction
from pipeline.stages.replies import proven_md5, read_proven

if TYPE_CHECKING:
    from pipeline.effects.api import FlashSession
    from pipeline.flash.journal import JournalImage
    from pipeline.run.build import Build
    from pipeline.stages.handover import InLoader

READ_AT_MOST = 0x10000
"""Bytes of a region that are read when nobody has a copy: a second or some at 115200 baud. A bootloader and a table
are smaller, an application is not."""

OTADATA_ENTRY = 64

NOTHING_BEFORE = "nothing was deployed to this board before"


class Untouched(NamedTuple):
    """A slot that this run does not write, and its MD5."""

    row: Partition
    md5: str


class BoardBefore(NamedTuple):
    """`held`: the regions that can be put back, with their bytes; `starts`: offset and identity (`app_elf_sha256`, `""`
    where it has none) of the application that the board started; `untouched`: its slot, where that is not among `held`.
    `lost`: names of regions that this run overwrites and of which nobody has a copy."""

    held: tuple[tuple[Image, bytes], ...]
    rows: tuple[Partition, ...]
    starts: int
    elf: str
    untouched: Untouched | None
    lost: tuple[str, ...]
    about: Mapping[str, str]


def look(build: Build, board: InLoader, where: str) -> BoardBefore | str:
    """What can be put back on the board that waits in its loader, or why nothing can. Raises DeviceError when its
    answers make no sense: nothing was written then."""
    return _Look(build, board, where).all()


class _Look:
    """One look at one board. Bytes by the name of their region."""

    def __init__(self, build: Build, board: InLoader, where: str) -> None:
        self._build = build
        self._board = board
        self._session: FlashSession = board.session
        self._where = where
        self._held: dict[str, tuple[Image, bytes]] = {}
        self._not_stored: set[str] = set()
        self._writes = board.proof.plan.writes

    def all(self) -> BoardBefore | str:
        committed = self._board.journal.state.committed
        if any(reason.kind == BOARD_ERASED for reason in self._board.proof.plan.reasons):
            return "the board was erased: nothing ran" if committed else NOTHING_BEFORE
        for known in committed.values():
            if known.name != OTADATA_IMAGE:
                self._take_committed(known)
        for region in self._board.proof.plan.regions:
            if region.image.match is MatchRule.BYTES and region.image.name not in self._held:
                self._take_region(region)
        if BOOTLOADER in self._missing():
            return self._no_copy(BOOTLOADER)
        bootloader = self._held.get(BOOTLOADER)
        if bootloader is not None and self._board.journal.state.committed and _is_broken(bootloader[1]):
            return "nothing ran: its bootloader was none that the boot ROM starts"
        table = self._held.get(TABLE)
        if table is None:
            return self._without_table()
        rows = decode_table(table[1])
        return self._what_ran(() if isinstance(rows, Reason) else rows)

    # --- what is in the regions -----------------------------------------------------------------

    def _take_committed(self, known: JournalImage) -> None:
        """What was deployed last, where the device says that it is still there."""
        if self._md5_is(known.offset, known.size, known.md5):
            data = self._stored(known)
            if data is not None:
                image = Image(known.name, "", known.offset, known.size, known.size, "", data[0], known.md5)
                self._held[known.name] = (image, data[1])
            else:
                self._not_stored.add(known.name)

    def _md5_is(self, offset: int, size: int, md5: str) -> bool:
        """One that is known cannot be said by chance; another one may be the line's doing."""
        for region in self._board.proof.plan.regions:
            if (region.image.offset, region.image.size) == (offset, size) and region.device_md5_before == md5:
                return True
        return any(self._session.md5(offset, size).lower() == md5 for _ in range(2))

    def _stored(self, known: JournalImage) -> tuple[Digest, bytes] | None:
        from cache.store import Store

        digest = Digest(known.sha256, known.size)
        try:
            store = Store(self._build.project.cache_dir, self._build.config.cache.max_bytes)
            found = store.blobs.read(digest)
        except OSError:
            return None
        if found is None or hashlib.md5(found, usedforsecurity=False).hexdigest() != known.md5:
            return None
        return digest, found

    def _take_region(self, region: RegionPlan) -> None:
        """A region of the plan that is not what was deployed last."""
        image, images = region.image, self._build.images
        if region.action is RegionAction.KEPT or region.device_md5_before == image.md5:
            self._held[image.name] = (image, images.data(image))
            return
        span = whole(image)
        if span.size <= READ_AT_MOST:
            data = read_proven(self._where, self._session, span.offset, span.size)
            self._held[image.name] = (_as_read(image.name, span.offset, data), data)

    # --- what ran -------------------------------------------------------------------------------

    def _what_ran(self, rows: tuple[Partition, ...]) -> BoardBefore | str:
        otadata = otadata_row(rows)
        found = self._otadata(otadata) if otadata is not None else b""
        active = active_entry(found)
        row = boot_row(rows, select(found, len(ota_slots(rows))))
        if row is None:
            return "its partition table named no application" if self._board.journal.state.committed else NOTHING_BEFORE
        if active is not None and active.state not in LASTING:
            state = OtaState(active.state).name if active.state in set(OtaState) else f"{active.state:#x}"
            return f"what it started from {row.name} had not confirmed itself (otadata: {state}), and would not last"
        if not self._touched(Region(row.offset, row.size)):
            head = read_proven(self._where, self._session, row.offset, HEAD_BYTES)
            if head[0] != IMAGE_MAGIC:
                return f"otadata started {row.name}, and no application is there"
            whole_slot = proven_md5(self._where, self._session, row.name, row.offset, row.size)
            return self._before(rows, row.offset, identity_in_head(head), Untouched(row, whole_slot))
        self._take_update(row)
        held = next((each for each in self._held.values() if each[0].offset == row.offset), None)
        if held is None:
            return self._no_copy(APPLICATION, f"what it started from {row.name}")
        return self._before(rows, row.offset, identity_in_head(held[1]), None)

    def _take_update(self, row: Partition) -> None:
        """What the last update without a cable brought, where it lies in the slot that starts."""
        opened = self._board.journal.state.open
        if opened is None or opened.by != BY_OTA or APPLICATION in self._held:
            return
        for known in opened.images:
            if known.name == APPLICATION and known.size <= row.size:
                self._take_committed(known._replace(offset=row.offset))

    def _without_table(self) -> BoardBefore | str:
        """Nothing of this project says what starts; then it is the application, as ever."""
        held = self._held.get(APPLICATION)
        if held is None:
            return self._no_copy(APPLICATION)
        return self._before((), held[0].offset, identity_in_head(held[1]), None)

    def _no_copy(self, name: str, what: str = "") -> str:
        if name in self._not_stored:
            return f"the store no longer has the image '{name}' that was deployed before"
        if not self._board.journal.state.committed:
            return NOTHING_BEFORE
        return f"{what or name} is not what was deployed last from here, and there is no copy of it"

    def _otadata(self, row: Partition) -> bytes:
        """All of it, which has two entries and is erased otherwise: then they are all that is read."""
        entries = (self._session.read(row.offset + sector, OTADATA_ENTRY) for sector in (0, SECTOR))
        data = b"".join(entry.ljust(SECTOR, b"\xff") for entry in entries).ljust(row.size, b"\xff")
        if not self._md5_is(row.offset, row.size, hashlib.md5(data, usedforsecurity=False).hexdigest()):
            data = read_proven(self._where, self._session, row.offset, row.size)
        image = _as_read(OTADATA_IMAGE, row.offset, data)._replace(match=MatchRule.OTADATA)
        self._held[OTADATA_IMAGE] = (image, data)
        return data

    def _before(self, rows: tuple[Partition, ...], starts: int, elf: str, untouched: Untouched | None) -> BoardBefore:
        held = tuple(sorted(self._held.values(), key=lambda each: each[0].offset))
        about = self._board.journal.state.about
        return BoardBefore(held, rows, starts, elf, untouched, self._missing(), about)

    # --- what this run writes -------------------------------------------------------------------

    def _touched(self, span: Region) -> bool:
        runs = [run for write in self._writes for run in write.runs]
        return any(run.offset < span.end and span.offset < run.end for run in runs)

    def _missing(self) -> tuple[str, ...]:
        """Regions that are written, and of which there is no copy."""
        kept = {(image.name, image.offset) for image, _ in self._held.values()}
        images = [write.image for write in self._writes if write.image.match is MatchRule.BYTES]
        return tuple(image.name for image in images if (image.name, image.offset) not in kept)


def _is_broken(data: bytes) -> bool:
    """Is it certainly no image that is started? One whose end was not read may be one."""
    info = describe_image(data)
    return data[:1] != bytes([IMAGE_MAGIC]) if isinstance(info, Reason) else not info.checksum_ok


def _as_read(name: str, offset: int, data: bytes) -> Image:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Image(name, "", offset, len(data), len(data), "", digest_bytes(data), md5)
