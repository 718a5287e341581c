"""May these images be written to this board? Asked before the first write, since esptool no longer refuses.

Pure: what the loader said and what the images' headers say in, the first reason against it out. Does not know ports or
how the facts were read.
Invariant: `None` is only answered when chip, revision, MAC, flash size and protection allow the write; what cannot be
known (a flash chip that does not tell its size) does not forbid it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from pipeline.chips import CHIPS
from pipeline.failures import fail
from pipeline.flash_model import DeviceFacts, Image
from pipeline.formats.esp_image import HEADER_SIZE, IMAGE_MAGIC, check_chip
from pipeline.model import Failure, FailureCategory, Stage

NO_MAXIMUM = (0, 0xFFFF)
"""`max_chip_rev_full` in the header of an image that runs on any later revision."""


def board_failure(facts: DeviceFacts, expected_mac: str, where: str) -> Failure | None:
    """Another MAC than `deploy.toml` names, or protected by efuse: true of any image."""
    if expected_mac and facts.mac != expected_mac.lower():
        return _wrong(where, f"the board's MAC is {facts.mac}, deploy.toml says {expected_mac.lower()}")
    on = (("flash encryption", facts.flash_encryption), ("secure boot", facts.secure_boot))
    what = " and ".join(name for name, enabled in on if enabled)
    if what:
        return fail(
            FailureCategory.PROTECTED_DEVICE,
            stage=Stage.VERIFY_FLASH,
            where=where,
            message=f"the board has {what} enabled (efuse); plain images would make it unbootable",
        )
    return None


def image_failure(image: Image, data: bytes, facts: DeviceFacts, where: str) -> Failure | None:
    """An image for another chip, or for another revision of it. What has no image header (a table, a file system)
    passes."""
    if len(data) < HEADER_SIZE or data[0] != IMAGE_MAGIC:
        return None
    wrong = check_chip(data, facts.chip, where=image.path)
    if wrong is not None:
        return wrong
    lowest, highest = struct.unpack_from("<HH", data, 15)
    if facts.revision < lowest:
        return _wrong(
            where, f"the chip is revision {_shown(facts.revision)}, {image.name} needs at least {_shown(lowest)}"
        )
    if highest not in NO_MAXIMUM and facts.revision > highest:
        return _wrong(
            where, f"the chip is revision {_shown(facts.revision)}, {image.name} allows at most {_shown(highest)}"
        )
    return None


def flash_failure(measured: int | None, configured: int, where: str, table_end: int = 0) -> Failure | None:
    """A flash chip that is smaller than `[flash] size`: writes beyond its end would land at its beginning. `table_end`:
    where the last partition ends, since no other size helps where that does not fit."""
    if measured is None or measured >= configured:
        return None
    if table_end > measured:
        fact = (
            f"the board's flash has {measured // 1024} KiB, and the partition table needs {-(-table_end // 1024)} KiB"
        )
        return _wrong(where, fact, "connect a board with a larger flash, or use a partition table that fits this one")
    message = f"the board's flash has {measured // 1024} KiB, deploy.toml says {configured // 1024} KiB"
    return _wrong(where, message, "set `size` in [flash] to what the board has, and build again")


def size_is_proven(recorded: Mapping[str, str], current: Mapping[str, str]) -> bool:
    """Has the board shown a flash chip of the configured size? A commit with these settings (`recorded`: of the last
    one; `current`: of this build) rests on that. Where another tool wrote everything, equal digests alone do not say
    it: beyond the end of a smaller chip lower bytes answer, and may be the same (one application in two slots, an
    erased partition)."""
    return bool(current.get("flash")) and recorded.get("flash") == current.get("flash")


def reach_failure(images: Sequence[Image], chip: str) -> Failure | None:
    """An image beyond what a loader session of this chip can address: its MD5 would be that of other bytes, and a write
    would land 16 MB lower, over the application."""
    reach = CHIPS[chip].flash_reach
    beyond = next((image for image in images if image.end > reach), None)
    if beyond is None:
        return None
    able = ", ".join(name for name, known in CHIPS.items() if known.flash_reach > reach)
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=None,
        where=beyond.path,
        message=f"{beyond.name} lies at {beyond.offset:#x} to {beyond.end:#x}, but the flash commands of {chip} reach "
        f"{reach >> 20} MB only ({reach:#x})",
        hint=f"move its partition below {reach:#x}; beyond it only {able} can be verified and written",
    )


def _shown(revision: int) -> str:
    """esptool's form: 101 is v1.1."""
    return f"v{revision // 100}.{revision % 100}"


def _wrong(where: str, message: str, hint: str | None = None) -> Failure:
    return fail(FailureCategory.WRONG_DEVICE, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)
