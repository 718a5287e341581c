"""The images of a build as they will lie in flash: bytes, digests, and whether they can be flashed at all.

Pure: bytes and placements in, images and the first thing against them out. Does not know files or boards; who reads the
files is `run/built_images.py`. Invariant: what is hashed is what is written, padding included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cache.digest import digest_bytes
from cache.named_tuple import NamedTuple
from pipeline.failures import fail
from pipeline.flash.board_checks import reach_failure
from pipeline.flash_model import Image, Partition
from pipeline.formats.boot_rules import rom_refusal, second_stage_refusal
from pipeline.formats.esp_image import check_chip, check_fits, descriptor_of, room_warnings
from pipeline.formats.partitions import decode_table
from pipeline.formats.placement import APPLICATION, BOOTLOADER, TABLE, Placement
from pipeline.model import Failure, FailureCategory, Reason, Stage


class CheckedImages(NamedTuple):
    """The first thing that forbids flashing, and what is worth a warning."""

    failure: Failure | None
    warnings: tuple[Reason, ...] = ()


def as_written(data: bytes) -> bytes:
    """esptool pads to 4 bytes, so that is what is hashed and compared too."""
    return data + b"\xff" * (-len(data) % 4)


def make_image(placement: Placement, path: str, data: bytes) -> Image:
    """The image that `data`, as written, is at its placement."""
    return Image(
        name=placement.name,
        partition=placement.partition,
        offset=placement.offset,
        size=len(data),
        limit=placement.limit,
        path=path,
        digest=digest_bytes(data),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        match=placement.match,
    )


def check_images(
    images: Sequence[Image],
    data: Mapping[str, bytes],
    placements: Sequence[Placement],
    chip: str,
    asked: str = "",
    table: Sequence[Partition] = (),
) -> CheckedImages:
    """Do the images fit, are they for `chip`, and does its ROM start them? No port is opened before this said yes.

    `data`: name of an image -> its bytes as written. `table`: the rows by which everything was placed, which the table
    among the images must hold (an action may have made another one since). `asked`: what the running firmware must
    answer with the application's identity, `""` if nothing."""
    failures = [*_moved_table(images, data, table), *check_fits(images)]
    beyond = reach_failure(images, chip)
    failures += [beyond] if beyond is not None else []
    programs = {placement.name for placement in placements if placement.program}
    for image in images:
        wrong = _program_failure(image, data[image.name], chip) if image.name in programs else None
        failures += [wrong] if wrong is not None else []
    given = {placement.name: placement.source for placement in placements if placement.source}
    if asked and not elf_identity(data[APPLICATION]).strip("0"):
        failures.append(_nameless(given.get(APPLICATION, ""), asked))
    # A given file is the user's to change; our copy of it is not.
    shown = {image.path: given[image.name] for image in images if image.name in given}
    failures = [failure._replace(where=shown.get(failure.where, failure.where)) for failure in failures]
    return CheckedImages(failures[0] if failures else None, tuple(room_warnings(images)))


def _moved_table(images: Sequence[Image], data: Mapping[str, bytes], rows: Sequence[Partition]) -> list[Failure]:
    image = next((image for image in images if image.name == TABLE), None)
    if image is None or not rows or decode_table(data[TABLE]) == tuple(rows):
        return []
    message = "the partition table became another one in this run, and everything was placed by the one before"
    hint = "run again: then everything goes where the new table says"
    return [fail(FailureCategory.CONFIG_ERROR, stage=None, where=image.path, message=message, hint=hint)]


def _program_failure(image: Image, data: bytes, chip: str) -> Failure | None:
    """Is it for this chip, and would it be started?"""
    wrong = check_chip(data, chip, where=image.path)
    if wrong is not None:
        return wrong
    by_rom = image.name == BOOTLOADER
    refusal = rom_refusal(data, chip) if by_rom else second_stage_refusal(data)
    if refusal is None:
        return None
    who = f"the boot ROM of {chip}" if by_rom else "the bootloader"
    return fail(
        FailureCategory.LINK_ERROR,
        stage=Stage.LINK,
        where=image.path,
        message=f"{who} would not start {image.name}: {refusal.fact}",
        hint=refusal.hint,
    )


def _nameless(where: str, asked: str) -> Failure:
    fact = f"it names no ELF (app_elf_sha256), so that no answer to '{asked}' could prove that it runs"
    hint = 'set readiness.until to "line:<regular expression>" or "byte", or put the ELF\'s SHA-256 into the image'
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=fact, hint=hint)


def elf_identity(app: bytes) -> str:
    """`app_elf_sha256` in an application image: the identity that the running device must report; `""` without one."""
    found = descriptor_of(app)
    return found.app_elf_sha256 if found is not None else ""
