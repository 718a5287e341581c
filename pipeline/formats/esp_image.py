"""ESP images: what a file says about itself, whether it is whole, whether it fits and for which chip it is.

Format: the ESP32 family's image (24-byte extended header, segments, checksum, optional SHA-256) and the app
descriptor, as esptool and ESP-IDF's `esp_app_format.h`, `esp_app_desc.h` define them. Not ESP8266's 8-byte header.
Does not know files, devices or partition tables. Invariant: `describe_image` judges only the given bytes, and never
raises for any of them.
"""

import hashlib
import struct
from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, SECTOR, chip_name
from pipeline.failures import fail
from pipeline.flash_model import Image, MatchRule
from pipeline.model import Failure, FailureCategory, Reason, Stage


def image_chip_id(data: bytes) -> int | None:
    """The chip in the header of an image; None when `data` is too short for one or does not begin like one."""
    if len(data) < HEADER_SIZE or data[0] != IMAGE_MAGIC or is_esp8266(data):
        return None
    return int(struct.unpack_from("<H", data, 12)[0])


ESP8266_MAGICS = (0xE9, 0xEA)
ESP8266_IRAM = range(0x40100000, 0x40110000)
ESP8266_MEMORY = (ESP8266_IRAM, range(0x3FFE8000, 0x40000000), range(0x40200000, 0x40300000))


def is_esp8266(data: bytes) -> bool:
    """Do these first bytes begin an image of the ESP8266? Its header has 8 bytes, so that a segment's address and size
    stand where the ESP32 family has pins and the chip's id. Its entry point lies in IRAM, where no ESP32 has memory;
    version 2 (0xEA) is known by its four segments."""
    if len(data) < HEADER_SIZE or data[0] not in ESP8266_MAGICS:
        return False
    entry, first = struct.unpack_from("<II", data, 4)
    if data[0] != IMAGE_MAGIC:
        return bool(data[1] == 4 and entry in ESP8266_IRAM)
    return entry in ESP8266_IRAM and any(first in memory for memory in ESP8266_MEMORY)


# --- one image --------------------------------------------------------------------------------

IMAGE_MAGIC = 0xE9
HEADER_SIZE = 24
MAX_SEGMENTS = 16
CHECKSUM_SEED = 0xEF
DESCRIPTOR_MAGIC = 0xABCD5432
DESCRIPTOR_SIZE = 256
DESCRIPTOR_OFFSET = HEADER_SIZE + 8
"""The descriptor begins the first segment's data."""
HEAD_BYTES = DESCRIPTOR_OFFSET + DESCRIPTOR_SIZE
ELF_SHA256_OFFSET = DESCRIPTOR_OFFSET + 144
"""0xB0: what `elf2image --elf-sha256-offset` takes."""

_HEADER = struct.Struct("<BBBBIB3sHBHH4sB")
_SEGMENT = struct.Struct("<II")


class Segment(NamedTuple):
    """`address` on the chip (0: padding, not loaded), `offset` of its data in the image, `size` in bytes."""

    address: int
    offset: int
    size: int


class AppDescriptor(NamedTuple):
    """ESP-IDF's `esp_app_desc_t`, the parts that identify a build. `app_elf_sha256`: 64 hex digits, zeros if the
    image tool did not fill it in."""

    project: str
    version: str
    app_elf_sha256: str


class ImageInfo(NamedTuple):
    """What an image says about itself. `size` is its own length, hash included; the file may be longer (padding).
    `hash_ok` is None when no hash is appended, `app` when the first segment does not begin with a descriptor."""

    chip_id: int
    entry: int
    flash_mode: int
    flash_freq: int
    flash_size: int
    min_revision: int
    max_revision: int
    segments: tuple[Segment, ...]
    size: int
    checksum_ok: bool
    hash_ok: bool | None
    app: AppDescriptor | None

    @property
    def chip(self) -> str:
        return chip_name(self.chip_id)

    @property
    def ok(self) -> bool:
        """Whole: a boot ROM would take it, and no byte under a hash has changed."""
        return self.checksum_ok and self.hash_ok is not False


class _Outline(NamedTuple):
    """What headers say; `hashed`: is a hash appended?"""

    chip_id: int
    entry: int
    flash_mode: int
    size_freq: int
    min_revision: int
    max_revision: int
    segments: tuple[Segment, ...]
    checksum_at: int
    end: int
    hashed: bool


def describe_image(data: bytes, max_segments: int = MAX_SEGMENTS) -> ImageInfo | Reason:
    """Read an image; a Reason of kind `bad-image` when the bytes are not one, or end too early. A wrong checksum or
    hash is not a reason but a fact in the result."""
    found = _outline(data, max_segments)
    if isinstance(found, Reason):
        return found
    segments, end = found.segments, found.end
    return ImageInfo(
        chip_id=found.chip_id,
        entry=found.entry,
        flash_mode=found.flash_mode,
        flash_freq=found.size_freq & 0xF,
        flash_size=found.size_freq >> 4,
        min_revision=found.min_revision,
        max_revision=found.max_revision,
        segments=segments,
        size=end,
        checksum_ok=_checksum(data, segments) == data[found.checksum_at],
        hash_ok=hashlib.sha256(data[: end - 32]).digest() == data[end - 32 : end] if found.hashed else None,
        app=_descriptor(data, segments[0]),
    )


def descriptor_of(data: bytes) -> AppDescriptor | None:
    """What `describe_image` finds as `app`, without its proof that the image is whole; None where it finds no image."""
    found = _outline(data, MAX_SEGMENTS)
    return None if isinstance(found, Reason) else _descriptor(data, found.segments[0])


def identity_in_head(head: bytes) -> str:
    """`app_elf_sha256` of the application that begins with these bytes, at least HEAD_BYTES; `""` without one. Whether
    the image is whole they cannot say."""
    if len(head) < HEAD_BYTES or head[0] != IMAGE_MAGIC:
        return ""
    found = _descriptor(head, Segment(0, DESCRIPTOR_OFFSET, DESCRIPTOR_SIZE))
    return found.app_elf_sha256 if found is not None else ""


def _outline(data: bytes, max_segments: int) -> _Outline | Reason:
    if len(data) < HEADER_SIZE:
        return Reason("bad-image", "header", f"{HEADER_SIZE} bytes needed", f"{len(data)} bytes there")
    if is_esp8266(data):
        return Reason("bad-image", "header", "one of the ESP32 family needed", "an ESP8266's there")
    magic, count, mode, size_freq, entry, _wp, _drive, chip_id, _rev, min_rev, max_rev, _res, hashed = (
        _HEADER.unpack_from(data)
    )
    if magic != IMAGE_MAGIC:
        return Reason("bad-image", "magic", f"{IMAGE_MAGIC:#04x} needed", f"{magic:#04x} there")
    if not 1 <= count <= max_segments:
        return Reason("bad-image", "segment count", f"1 to {max_segments} allowed", f"{count} there")
    if hashed not in (0, 1):
        return Reason("bad-image", "hash flag", "0 or 1 allowed", f"{hashed} there")
    segments: list[Segment] = []
    at = HEADER_SIZE
    for index in range(count):
        if at + _SEGMENT.size > len(data):
            return _truncated(f"header of segment {index}", at + _SEGMENT.size, data)
        address, length = _SEGMENT.unpack_from(data, at)
        at += _SEGMENT.size
        if at + length > len(data):
            return _truncated(f"segment {index}", at + length, data)
        segments.append(Segment(address, at, length))
        at += length
    checksum_at = at | 15
    end = checksum_at + 1 + (32 if hashed else 0)
    if end > len(data):
        return _truncated("hash" if hashed else "checksum", end, data)
    parts = tuple(segments)
    return _Outline(chip_id, entry, mode, size_freq, min_rev, max_rev, parts, checksum_at, end, bool(hashed))


def with_flash_settings(data: bytes, mode: int, freq: int, size: int) -> bytes:
    """A whole image with these codes in its header and, if it has one, its hash computed again: what esptool writes
    when it is told flash settings. What follows the image (padding, a signature) stays."""
    info = describe_image(data, 0xFF)
    assert isinstance(info, ImageInfo), "the caller knows that it is an image [this is a bug]"
    changed = data[:2] + bytes([mode, size << 4 | freq]) + data[4:]
    if info.hash_ok is None or changed == data:
        return changed
    end = info.size - 32
    return changed[:end] + hashlib.sha256(changed[:end]).digest() + changed[info.size :]


def _truncated(part: str, needed: int, data: bytes) -> Reason:
    return Reason("bad-image", part, f"{needed} bytes needed", f"{len(data)} bytes there")


def _checksum(data: bytes, segments: Sequence[Segment]) -> int:
    """XOR of every data byte. Folding halves of one big integer is 6 times faster than a loop over 1 MB of bytes."""
    result = CHECKSUM_SEED
    for segment in segments:
        width = 1 << max(segment.size - 1, 0).bit_length()
        value = int.from_bytes(data[segment.offset : segment.offset + segment.size], "little")
        while width > 1:
            width //= 2
            value = (value >> (8 * width)) ^ (value & ((1 << (8 * width)) - 1))
        result ^= value
    return result


def _descriptor(data: bytes, first: Segment) -> AppDescriptor | None:
    if first.size < DESCRIPTOR_SIZE or struct.unpack_from("<I", data, first.offset)[0] != DESCRIPTOR_MAGIC:
        return None
    at = first.offset
    return AppDescriptor(
        project=_text(data[at + 48 : at + 80]),
        version=_text(data[at + 16 : at + 48]),
        app_elf_sha256=data[at + 144 : at + 176].hex(),
    )


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


# --- images on a chip and in their partitions -------------------------------------------------

WARN_PERCENT = 90


def check_chip(data: bytes, chip: str, *, where: str) -> Failure | None:
    """Is this image made for `chip` (esptool no longer refuses a wrong one)? `where` names the image for the message.
    Bytes that are no image at all pass: a file system has no chip."""
    chip_id = image_chip_id(data)
    if is_esp8266(data):
        return fail(
            FailureCategory.WRONG_DEVICE,
            stage=Stage.VERIFY_FLASH,
            where=where,
            message=f"the image is for the ESP8266, but the chip is {chip}",
            hint=f"build for {chip}: the two share neither instructions nor boot ROM",
        )
    if chip_id is None or (chip in CHIPS and chip_id == CHIPS[chip].image_chip_id):
        return None
    return fail(
        FailureCategory.WRONG_DEVICE,
        stage=Stage.VERIFY_FLASH,
        where=where,
        message=f"the image is for {chip_name(chip_id)}, but the chip is {chip}",
        hint=f"connect a board with {chip_name(chip_id)}, or build for {chip}",
    )


def check_fits(images: Sequence[Image]) -> list[Failure]:
    """Every image that is larger than its room, that does not begin on a sector, or that reaches into the next one;
    in the order of their offsets. Empty: all can be written."""
    failures = []
    ordered = sorted(images, key=lambda image: (image.offset, image.end))
    for image in ordered:
        if image.size > image.limit:
            over = image.size - image.limit
            room = f"partition '{image.partition}'" if image.partition else f"the room at {image.offset:#x}"
            failures.append(
                _too_large(
                    image, f"{image.name} has {image.size} bytes, but {room} holds {image.limit}: {over} too many"
                )
            )
        if image.offset % SECTOR:
            failures.append(
                _too_large(image, f"{image.name} begins at {image.offset:#x}, which is not a multiple of {SECTOR:#x}")
            )
    reach = None
    for image in ordered:
        if reach is not None and image.offset < reach.end:
            failures.append(
                _too_large(
                    image, f"{image.name} at {image.offset:#x} overlaps {reach.name}, which ends at {reach.end:#x}"
                )
            )
        if reach is None or image.end > reach.end:
            reach = image
    return failures


def _too_large(image: Image, message: str) -> Failure:
    return fail(FailureCategory.IMAGE_TOO_LARGE, stage=Stage.LINK, where=image.path, message=message)


def room_warnings(images: Sequence[Image]) -> list[Reason]:
    """Images that fit but fill 90 % of their room or more: `nearly-full NAME: SIZE bytes -> LIMIT bytes (PERCENT %)`.
    otadata fills its partition by definition and is left out."""
    return [
        Reason(
            "nearly-full",
            image.name,
            f"{image.size} bytes",
            f"{image.limit} bytes ({image.size * 100 // image.limit} %)",
        )
        for image in images
        if image.match is MatchRule.BYTES and image.limit * WARN_PERCENT <= image.size * 100 <= image.limit * 100
    ]
