"""What a chip's mask ROM refuses to start, and what ESP-IDF's second stage refuses: asked before anything is written.

Pure: the bytes of an image in, the first fact against it out. Sources: the mask ROMs of ESP32 and ESP32-C3, measured
one damaged image after the other; `esp_image_format.c` of ESP-IDF for what the second stage loads. Whether an image is
for this chip, undamaged and small enough is asked elsewhere (`esp_image.py`). Invariant: bytes that are no image are
refused for what they are, and no bytes raise.
"""

from __future__ import annotations

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, RomRules
from pipeline.formats.esp_image import ImageInfo, Segment, describe_image
from pipeline.model import Reason

MAX_LENGTH = 1 << 24
"""Of one segment, for ROM and second stage."""

FIRST_UNLOADABLE = 0x80000000
"""From this address on the ROM loads nothing."""


class Refusal(NamedTuple):
    """`fact`: what is wrong with the image, with both values; `hint` starts with a verb."""

    fact: str
    hint: str


def rom_refusal(data: bytes, chip: str) -> Refusal | None:
    """Why the mask ROM of `chip` does not start this image, which lies where it looks for the bootloader."""
    rules = CHIPS[chip].rom
    info = describe_image(data, rules.segments)
    if isinstance(info, Reason):
        return _unreadable(info)
    return _header(info, rules) or _segments(info, rules)


def second_stage_refusal(data: bytes) -> Refusal | None:
    """Why ESP-IDF's bootloader does not start this application."""
    info = describe_image(data)
    return _unreadable(info) if isinstance(info, Reason) else _segments(info, RomRules(checks_segments=False))


def _unreadable(reason: Reason) -> Refusal:
    return Refusal(f"it is no whole image: {reason.subject}: {reason.before}, {reason.after}", "build it again")


def _header(info: ImageInfo, rules: RomRules) -> Refusal | None:
    if info.flash_mode >= rules.modes:
        fact = f"its flash mode is {info.flash_mode}, and the highest that the boot ROM knows is {rules.modes - 1}"
        return Refusal(fact, "set `mode` in [flash], or build it with a flash mode")
    if rules.freqs and info.flash_freq not in rules.freqs:
        known = ", ".join(f"{code:#x}" for code in rules.freqs)
        fact = f"the code of its flash frequency is {info.flash_freq:#x}, and the boot ROM knows {known}"
        return Refusal(fact, "set `freq` in [flash], or build it with a flash frequency")
    return None


def _segments(info: ImageInfo, rules: RomRules) -> Refusal | None:
    for number, segment in enumerate(info.segments):
        fact = _segment(segment, rules)
        if fact:
            return Refusal(f"its segment {number} {fact}", "correct the linker script")
    return None


def _segment(segment: Segment, rules: RomRules) -> str:
    """A fact about the segment that rules it out, `""` for a good one."""
    address, size, end = segment.address, segment.size, segment.address + segment.size
    if size % 4 or size >= MAX_LENGTH:
        return f"has {size:#x} bytes, which is no multiple of 4 below {MAX_LENGTH:#x}"
    if address % 4:
        return f"is loaded to {address:#x}, which is no multiple of 4"
    if rules.checks_segments and address >= FIRST_UNLOADABLE:
        return f"is loaded to {address:#x}, and the boot ROM loads nothing from {FIRST_UNLOADABLE:#x} on"
    if size and rules.ram and address < rules.ram.stop and end > rules.ram.start:
        ours = f"{rules.ram.start:#x} to {rules.ram.stop:#x}"
        return f"is loaded to {address:#x} to {end:#x}, over the memory that the boot ROM needs itself ({ours})"
    return ""
