"""Actions that this program performs itself: stripping, ELF to flash image, partition table, initial otadata, and
taking over files that were made elsewhere.

Bytes in, bytes out; does not know where they come from or go to. Invariant: a builtin depends on its call alone, and
its version is raised when it makes other bytes from the same call (for that reason esptool's own is a parameter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pipeline import chips
from pipeline.engine.results import Builtin, BuiltinCall, BuiltinError
from pipeline.flash_model import Partition
from pipeline.formats import elf, esp_image, otadata, partitions
from pipeline.formats.flash_file import WHOLE, FilePart
from pipeline.model import Failure, Reason

STRIP = "strip@1"
ELF2IMAGE = "elf2image@1"
PARTITION_TABLE = "partition-table@1"
OTADATA = "otadata@2"
OTADATA_OF_TABLE = "otadata-of-table@2"
COPY = "copy@1"
IMAGE = "image@2"


def strip(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """ELF -> ELF with its loaded sections only: the file whose SHA-256 identifies the build."""
    made = elf.strip(call.inputs[0])
    return BuiltinError(call.paths[0], made) if isinstance(made, str) else [made]


def elf2image(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """ELF -> image, by esptool. Parameters: `chip, flash_mode, flash_freq, flash_size`; `elf_sha256_offset` (hex) puts
    the ELF's SHA-256 there; `esptool` (its version) is only for the key."""
    from esptool.cmds import elf2image as convert
    from esptool.util import FatalError

    quiet_esptool()
    options = {}
    if "elf_sha256_offset" in call.params:
        options["elf_sha256_offset"] = int(call.params["elf_sha256_offset"], 0)
    try:
        image = convert(
            call.inputs[0],
            call.params["chip"],
            None,
            call.params["flash_freq"],
            call.params["flash_mode"],
            call.params["flash_size"],
            **options,
        )
    except (FatalError, KeyError, ValueError) as error:
        return BuiltinError(call.paths[0], f"esptool makes no image of it: {error}", "correct the linker script")
    return [image]


def partition_table(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """CSV -> binary table. Parameters: `flash_size`, `table_offset` and (optional) `boot_offset` in bytes."""
    rows = _rows(call)
    return rows if isinstance(rows, BuiltinError) else [partitions.encode_table(rows)]


def ota_select(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """CSV -> otadata that selects ota_0; erased where there is a factory app, which that starts, or no OTA slot.
    Parameters as `partition_table`."""
    rows = _rows(call)
    if isinstance(rows, BuiltinError):
        return rows
    slots = 0 if partitions.factory_row(rows) is not None else len(partitions.ota_slots(rows))
    return [otadata.encode(0, slots) if slots else otadata.erased()]


def ota_select_of_table(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """Binary table (or the part of a file that the parameters of `part_params` name) -> otadata that selects the slot
    of parameter `slot`; erased without it."""
    table = _part(call)
    if isinstance(table, BuiltinError):
        return table
    rows = partitions.decode_table(table)
    if isinstance(rows, Reason):
        return _refused(call, rows)
    if "slot" not in call.params:
        return [otadata.erased()]
    return [otadata.encode(int(call.params["slot"]), len(partitions.ota_slots(rows)))]


def copy(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """The same bytes, or the part of them that the parameters of `part_params` name: from here on they are ours, in the
    cache, and named by their digest."""
    data = _part(call)
    if isinstance(data, BuiltinError):
        return data
    return [data] if data else BuiltinError(call.paths[0], "the file is empty", "build it again")


def part_params(part: FilePart) -> tuple[tuple[str, str], ...]:
    """The parameters of `copy` and `take_image` for a part of a file; none for the whole."""
    if part == WHOLE:
        return ()
    return (("packed", str(int(part.packed))), ("size", str(part.size)), ("start", str(part.start)))


def _part(call: BuiltinCall) -> bytes | BuiltinError:
    if "start" not in call.params:
        return call.inputs[0]
    start, size, packed = (int(call.params[key]) for key in ("start", "size", "packed"))
    try:
        return FilePart(start, size, bool(packed)).take(call.inputs[0])
    except ValueError as error:
        return BuiltinError(call.paths[0], str(error), "build it again")


def take_image(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """A program's image, if it is whole. Parameters (optional): those of `part_params`; `max_segments`; `chip` with
    `flash_mode, flash_freq, flash_size`, each of which goes into the header as `esptool write-flash` would do it."""
    data, path = _part(call), call.paths[0]
    if isinstance(data, BuiltinError):
        return data
    info = esp_image.describe_image(data, int(call.params.get("max_segments", esp_image.MAX_SEGMENTS)))
    if isinstance(info, Reason):
        return _refused(call, info)
    if not info.ok:
        what = "SHA-256" if info.checksum_ok else "checksum"
        return BuiltinError(path, f"the image is damaged: its {what} does not match its bytes", "build it again")
    if not {"flash_mode", "flash_freq", "flash_size"} & call.params.keys():
        return [data]
    mode, freq, size = info.flash_mode, info.flash_freq, info.flash_size
    if "flash_mode" in call.params:
        mode = chips.FLASH_MODES.index(call.params["flash_mode"])
    if "flash_freq" in call.params:
        freq = chips.flash_freq_code(call.params["chip"], call.params["flash_freq"])
    if "flash_size" in call.params:
        size = chips.FLASH_SIZES.index(call.params["flash_size"])
    return [esp_image.with_flash_settings(data, mode, freq, size)]


def _refused(call: BuiltinCall, reason: Reason) -> BuiltinError:
    what = "partition table" if reason.kind == "bad-partition-table" else "whole image"
    fact = f"this is no {what}: {reason.subject}: {reason.before}, {reason.after}"
    return BuiltinError(call.paths[0], fact, "build it again, or correct its place in deploy.toml")


BUILTINS: Mapping[str, Builtin] = MappingProxyType(
    {
        STRIP: strip,
        ELF2IMAGE: elf2image,
        PARTITION_TABLE: partition_table,
        OTADATA: ota_select,
        OTADATA_OF_TABLE: ota_select_of_table,
        COPY: copy,
        IMAGE: take_image,
    }
)
"""What the engine is given: name@version -> function."""


def _rows(call: BuiltinCall) -> tuple[Partition, ...] | BuiltinError:
    path = call.paths[0]
    text = partitions.decode_csv(call.inputs[0], path)
    if isinstance(text, Failure):
        return BuiltinError(text.where, text.message, text.hint)
    size, table = int(call.params["flash_size"]), int(call.params["table_offset"])
    boot = int(call.params["boot_offset"]) if "boot_offset" in call.params else None
    rows = partitions.parse_csv(text, path, flash_size=size, table_offset=table, boot_offset=boot)
    return BuiltinError(rows.where, rows.message, rows.hint) if isinstance(rows, Failure) else rows


def quiet_esptool() -> None:
    """esptool prints what it makes. Its logger is one for the process; a flash session installs its own later."""
    from esp_pylib.logger import EspLog, EspLogBase

    class Quiet(EspLogBase):  # type: ignore[misc]
        """Says nothing: a refusal arrives as an exception."""

        def print(self, *args: object, **kwargs: object) -> None: ...
        def err(self, *args: object, suggestion: str | None = None) -> None: ...
        def warn(self, *args: object, suggestion: str | None = None) -> None: ...
        def note(self, *args: object) -> None: ...
        def hint(self, *args: object) -> None: ...
        def debug(self, *args: object) -> None: ...
        def set_verbosity(self, mode: int | str) -> None: ...
        def progress_bar(self, *args: object, **kwargs: object) -> None: ...

    EspLog.set_logger(Quiet())
