"""What the running firmware says about itself, and whether that is proof enough to leave the board alone.

Pure: decoded JSON-RPC results in, doubts out. Two levels of the verify ladder rest on it: `app-report` (the firmware
hashed its flash just now) and `journal` (the firmware named itself, and the rest is what we wrote there last).
Does not know ports or how the answers came. Invariant: a field that is missing or malformed is a doubt, never a
default; an empty list of doubts means that every image was accounted for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.flash.journal import DeviceState
from pipeline.flash_model import Image, MatchRule
from pipeline.model import Reason

INFO = "info"
HASHES = "image.hashes"

QUESTIONS: Mapping[str, tuple[str, ...]] = {"app-report": (INFO, HASHES), "journal": (INFO,)}
"""Methods to call, by level."""


def identity_doubts(info: object, expected_elf: str, app: Image, expected_mac: str) -> list[Reason]:
    """Against the `info` result: is it this build, in the slot that we deploy to, on the configured board?"""
    if not isinstance(info, Mapping):
        return [Reason("no-answer", INFO)]
    doubts = []
    if not mac_of(info):
        doubts.append(Reason("malformed-answer", INFO, "a MAC expected", repr(info.get("mac"))[:60]))
    elif expected_mac and mac_of(info) != expected_mac.lower():
        doubts.append(Reason("mac-differs", INFO, expected_mac.lower(), mac_of(info)))
    if not expected_elf.strip("0") or info.get("app_elf_sha256") != expected_elf:
        doubts.append(Reason("runs-other-build", app.name, expected_elf, str(info.get("app_elf_sha256"))[:64]))
    if info.get("partition") != app.partition:
        doubts.append(Reason("runs-other-slot", app.name, app.partition, str(info.get("partition"))[:20]))
    return doubts


def mac_of(info: object) -> str:
    """The MAC of an `info` or `image.hashes` result, `""` when it has none."""
    mac = info.get("mac") if isinstance(info, Mapping) else None
    return mac.lower() if isinstance(mac, str) and len(mac) == 17 and mac.count(":") == 5 else ""


def hash_doubts(hashes: object, mac: str, images: Sequence[Image], app: Image) -> list[Reason]:
    """Against the `image.hashes` result: every image at its offset with its size and SHA-256, the app's region the one
    that runs. otadata must have the very bytes of the image: others may select the same slot, but only what the loader
    reads is interpreted."""
    rows = hashes.get("regions") if isinstance(hashes, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        return [Reason("no-answer", HASHES)]
    if mac_of(hashes) != mac:
        return [Reason("mac-differs", HASHES, mac, mac_of(hashes))]
    doubts = []
    for image in images:
        row = next((row for row in rows if row.get("offset") == image.offset), None)
        if row is None:
            doubts.append(Reason("not-reported", image.name))
        elif (row.get("size"), row.get("sha256")) != (image.size, image.digest.hex):
            doubts.append(Reason("sha256-differs", image.name, image.digest.hex, str(row.get("sha256"))[:64]))
        elif image is app and row.get("running") is not True:
            doubts.append(Reason("not-running", image.name))
    running = [row.get("offset") for row in rows if row.get("running") is True]
    if not doubts and running != [app.offset]:
        doubts.append(Reason("runs-other-slot", app.name, f"{app.offset:#x}", ", ".join(map(str, running))[:60]))
    return doubts


def journal_doubts(state: DeviceState, images: Sequence[Image]) -> list[Reason]:
    """Against the journal of the MAC that the firmware named: did we write every image there, and finish?"""
    if state.note is not None:
        return [Reason("journal-damaged", "journal", "", state.note)]
    doubts = open_doubts(state)
    for image in images:
        believed = state.believed(image.name)
        if believed is None:
            doubts.append(Reason("not-in-journal", image.name))
        elif (believed.offset, believed.size, believed.sha256) != (image.offset, image.size, image.digest.hex):
            doubts.append(Reason("journal-differs", image.name, believed.sha256, image.digest.hex))
    return doubts


def open_doubts(state: DeviceState) -> list[Reason]:
    """A write that was cut off, and an update without a cable, are settled by the loader's MD5s only."""
    return [] if state.open is None else [Reason(state.open.kind, state.open.tx)]


def app_of(images: Sequence[Image]) -> Image | None:
    """The application among the images."""
    return next((image for image in images if image.name == "app" and image.match is MatchRule.BYTES), None)
