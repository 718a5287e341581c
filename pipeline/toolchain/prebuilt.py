"""Firmware that was built elsewhere: where its files go in flash, and the actions that take them over.

Reads the table and otadata among them; never writes beside them. What there is was found by `given_builds.py`. Does not
know the device. Invariant: a file of the user's is only ever an input of an action; what goes to flash is the checked
copy below `build/<profile>/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.chips import CHIPS
from pipeline.config.schema import Prebuilt
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.flash_model import MatchRule, Partition
from pipeline.formats import otadata, partitions, placement
from pipeline.formats.manifests import Firmware
from pipeline.formats.placement import Given, Misplaced, Placement
from pipeline.model import Action, Failure, FailureCategory, Stage
from pipeline.toolchain.builtins import COPY, OTADATA_OF_TABLE, part_params
from pipeline.toolchain.generate import image_path
from pipeline.toolchain.given_builds import deciding_files, read_part

# --- where it goes ----------------------------------------------------------------------------


def read_table(root: Path, firmware: Firmware, flash_size: int) -> tuple[Partition, ...] | Failure:
    """The partition table of the firmware, which is one of its files."""
    path, data = firmware.table.path, read_part(root, firmware.table)
    if isinstance(data, Failure):
        return data
    return partitions.read_table(data, path, flash_size=flash_size, table_offset=firmware.table.offset)


def placements(
    root: Path, firmware: Firmware, table: Sequence[Partition], chip: str, flash_size: int
) -> tuple[Placement, ...] | Failure:
    """Where the firmware's files go."""
    files = [Given("", file.path, offset=file.offset, part=file.part) for file in firmware.files]
    row = partitions.otadata_row(table)
    given = next((file for file in firmware.files if row is not None and file.offset == row.offset), None)
    selected = None
    if given is not None:
        data = read_part(root, given)
        if isinstance(data, Failure):
            return data
        selected = otadata.select(data, len(partitions.ota_slots(table)))
        active = otadata.active_entry(data)
        if active is not None and active.state not in otadata.LASTING:
            state = next((known.name for known in otadata.OtaState if known == active.state), str(active.state))
            fact = f"the otadata selects a slot in state {state}: a bootloader with roll-back would soon leave it"
            hint = "give otadata whose state is VALID or UNDEFINED, or leave the file out: then it is made"
            return fail(FailureCategory.CONFIG_ERROR, stage=None, where=given.path, message=fact, hint=hint)
    started = placement.started_row(table, files, selected, has_otadata=given is not None)
    if isinstance(started, Misplaced):
        return _misplaced(started, firmware.where)
    found = placement.place_firmware(table, chip, firmware.table.offset, files, started, flash_size)
    if isinstance(found, Misplaced):
        return _misplaced(found, found.given.path)
    return found


def _misplaced(found: Misplaced, where: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=found.message, hint=found.hint)


# --- actions ----------------------------------------------------------------------------------


def firmware_actions(
    root: Path, firmware: Firmware, table: Sequence[Partition], placed: Sequence[Placement], out: str, profile: str
) -> tuple[Action, ...]:
    """What `given_actions` does not cover: otadata that nobody gave, and the ELF that lies beside the application."""
    actions = []
    app = next(one for one in placed if one.name == placement.APPLICATION)
    slots = [row.name for row in partitions.ota_slots(table)]
    if any(one.match is MatchRule.OTADATA and not one.source for one in placed):
        slot = (("slot", str(slots.index(app.partition))),) if app.partition in slots else ()
        params = (*slot, *part_params(firmware.table.part))
        made = image_path(out, placement.OTADATA_IMAGE)
        source = (firmware.table.path,)
        actions.append(
            Action("otadata", Stage.LINK, source, (made,), builtin=OTADATA_OF_TABLE, params=params, profile=profile)
        )
    elf = elf_beside(app.source)
    if (root / elf).is_file():
        made = elf_beside(image_path(out, placement.APPLICATION))
        actions.append(Action("elf app", Stage.LINK, (elf,), (made,), builtin=COPY, profile=profile))
    return tuple(actions)


def elf_beside(path: str) -> str:
    """`build/blink.elf` for `build/blink.bin`: ESP-IDF, PlatformIO and Arduino leave both in one directory."""
    return f"{path.removesuffix('.bin')}.elf"


def header_params(firmware: Firmware, chip: str, flash_size: str) -> tuple[tuple[str, str], ...]:
    """Parameters of the bootloader's image: how many segments its ROM takes, and what goes into its header: the flash
    settings of a build that asks for them, and `flash_size`, that of deploy.toml, where the header says another one."""
    said = {}
    if firmware.patch:
        said = {"flash_mode": firmware.flash_mode, "flash_freq": firmware.flash_freq, "flash_size": firmware.flash_size}
    if firmware.header_size not in ("", flash_size):
        said["flash_size"] = flash_size
    settings = [(key, value) for key, value in said.items() if value]
    return (("max_segments", str(CHIPS[chip].rom.segments)), *((("chip", chip), *settings) if settings else ()))


def watched(root: Path, prebuilt: Prebuilt, firmware: Firmware, placed: Sequence[Placement]) -> Watched:
    """What decided about the files beside their content."""
    app = next(one for one in placed if one.name == placement.APPLICATION)
    maybe = [root / elf_beside(app.source), *(root / path for path in deciding_files(prebuilt, firmware))]
    there = tuple(str(path) for path in maybe if path.exists())
    return Watched({}, tuple(str(path) for path in maybe if not path.exists()), there)
