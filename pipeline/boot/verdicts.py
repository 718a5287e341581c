"""The words for a boot that did not become ready: category, fact, and a hint where the category's own is not the best.

Pure; does not know which lines led there (`boot/watcher.py`). Invariant: what a device said stands in a fact cut to
`SAID` characters.
"""

from __future__ import annotations

from cache.named_tuple import NamedTuple
from pipeline.boot.log_patterns import LineKind, line_kinds
from pipeline.model import FailureCategory

SAID = 200


class NotReady(NamedTuple):
    """Why. `hint` None: the category's."""

    category: FailureCategory
    message: str
    hint: str | None = None


def panicked(line: str) -> NotReady:
    """The firmware's, or the ROM's, own report of a crash."""
    return NotReady(FailureCategory.PANIC, f"the firmware crashed while booting: {line[:SAID]}")


def in_loader() -> NotReady:
    """The chip waits for a flasher."""
    return NotReady(
        FailureCategory.SYNC_FAILED,
        "the chip stayed in its ROM loader (`waiting for download`) instead of starting the firmware",
        "release BOOT (a strapping pin holds the chip in the loader), press and release EN (reset), then run again",
    )


def rom_refused(line: str, times: int) -> NotReady:
    """The mask ROM does not start the second stage."""
    counted = f" {times} times" if times > 1 else ""
    return NotReady(
        FailureCategory.BOOT_LOOP,
        f"the ROM refused the bootloader{counted}: {line[:SAID]}",
        "write the bootloader: its flash is erased or damaged, or it was built for another chip or offset",
    )


def refused(line: str, rom_refusals: int, limit: str) -> NotReady:
    """The last that was heard is `line`, by which an image is refused. `limit`: `within 5000 ms of reset`."""
    if LineKind.ROM_REFUSAL in line_kinds(line):
        return rom_refused(line, rom_refusals)
    return NotReady(
        FailureCategory.BOOT_LOOP,
        f"no application started {limit}: the bootloader refused it: {line[:SAID]}",
        "read the refusal: the image is damaged, or for another chip or partition table",
    )


def boot_loop(resets: int, last_reset: str, refusal: str, rom_refusals: int) -> NotReady:
    """One reset after the other. `refusal`: the line of the last one, `""` if there was none."""
    if refusal and LineKind.ROM_REFUSAL in line_kinds(refusal):
        return rom_refused(refusal, rom_refusals)
    why = f"; the last refusal was: {refusal[:SAID]}" if refusal else ""
    return NotReady(
        FailureCategory.BOOT_LOOP, f"the chip reset {resets} times without becoming ready (last {last_reset}){why}"
    )


def not_executed(line: str) -> NotReady:
    """A virtual board's word for what it has no model of."""
    if "the ROM" in line or "ROM function" in line:
        fact = "the firmware stopped on this board"
        hint = (
            "give the board the chip's ROM: install Espressif's esp-rom-elfs (ESP-IDF's installer brings them) and "
            "name the file with the device's `rom_elf`, or deploy to a real board"
        )
    else:
        fact = "no application runs on this board"
        hint = (
            "deploy to a board that executes it (a virtual esp32c3, or a real one), or let the flash be enough "
            "with readiness.until = 'line:not executed'"
        )
    return NotReady(FailureCategory.NO_OUTPUT, f"{fact}: {line[:SAID]}", hint)


def started_elsewhere(offset: int, ours: int, refusal: str) -> NotReady:
    """The bootloader starts an application that lies elsewhere than this build's."""
    why = f"; before it: {refusal[:SAID]}" if refusal else ""
    return NotReady(
        FailureCategory.WRONG_IMAGE,
        f"the bootloader starts the application at {offset:#x}, this build's lies at {ours:#x}{why}",
    )


def another_board(mac: str, ours: str) -> NotReady:
    """A port was gone, and who speaks on it now names another MAC."""
    return NotReady(
        FailureCategory.WRONG_DEVICE,
        f"the board that came back to the port is {mac[:SAID]!a}, not {ours}",
        "plug the board in again where it was, and deploy again",
    )
