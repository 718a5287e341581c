"""The grammar of faults: `KIND[:KEY=VALUE,...]`. Pure: text in, a `Fault` out, or a message for a person.

Does not know what a fault does (`active_faults`, `board`). Invariant: a `Fault` that exists can be done: every value is
in range and only keys of its kind are set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from virtualboard.chip_table import NAMES
from virtualboard.chips import UnknownMac, parse_mac
from virtualboard.named_values import NamedValues

BROWN_OUT, POWER_CUT, WATCHDOG, BOOT_LOOP, PANIC = "brown-out", "power-cut", "watchdog", "boot-loop", "panic"
SILENCE, SLOW_BOOT, VANISH, WORN = "silence", "slow-boot", "vanish", "worn"
DROP, GARBLE, DUPLICATE, SLOW_LINE = "drop", "garble", "duplicate", "slow-line"
WRONG_CHIP, OTHER_MAC = "wrong-chip", "other-mac"

_MAX_COUNT = 1 << 31
_MAX_SECONDS = 86_400.0


class BadFault(ValueError):
    """The text names no fault. The message is for a person: a fact, then a hint on its own line."""


class Fault(NamedValues):
    """One fault. Which fields mean something depends on the kind, see `KINDS`.

    When: during the `write`th block that is programmed, `after` seconds, or `boot` seconds after a boot; `times` in
    all, 0 is for ever.
    """

    kind: str
    text: str
    write: int | None = None
    after: float | None = None
    boot: float | None = None
    times: int = 1
    for_s: float = 0.5
    by: float = 1.0
    name: str = "same"
    to: str = "host"
    at: int = 0
    amount: int = 1
    every: int = 0
    seed: int = 0
    sector: int = 0
    baud: int = 0
    chip: str = ""
    mac: str = ""
    pc: int = 0x42000000
    ra: int = 0x42000000


class Kind(NamedValues):
    """What a person is told about a kind: its keys, what it does, how it is written."""

    keys: tuple[str, ...]
    summary: str
    example: str
    defaults: Mapping[str, Any] = MappingProxyType({})


_WHEN = ("write", "after", "boot", "times")
_BYTES = ("to", "at", "count", "every", "seed")
_EVER = MappingProxyType({"times": 0})

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        BROWN_OUT: Kind(_WHEN, "the supply sags: half a block is written, the chip resets", "brown-out:write=3"),
        POWER_CUT: Kind(
            (*_WHEN, "for"), "no power for some seconds; half a block is written", "power-cut:write=2,for=1"
        ),
        WATCHDOG: Kind(_WHEN, "a watchdog resets the chip", "watchdog:boot=0.3"),
        BOOT_LOOP: Kind(("boot", "times"), "every boot ends in a watchdog reset", "boot-loop:boot=0.5", _EVER),
        PANIC: Kind(
            ("after", "boot", "times", "pc", "ra"),
            "the application panics, prints registers and restarts",
            "panic:boot=0.2,pc=0x42001234",
        ),
        SILENCE: Kind((*_WHEN, "for"), "nothing is sent for some seconds; for=0 is for ever", "silence:for=0"),
        SLOW_BOOT: Kind(("by", "times"), "each boot takes some seconds more", "slow-boot:by=3", _EVER),
        VANISH: Kind(
            (*_WHEN, "for", "name"),
            "the port is unplugged and comes back",
            "vanish:write=2,for=0.5,name=new",
        ),
        DROP: Kind(_BYTES, "bytes on the line get lost", "drop:to=board,at=100,count=3"),
        GARBLE: Kind(_BYTES, "bytes on the line change", "garble:to=host,at=40,every=1000,seed=7"),
        DUPLICATE: Kind(_BYTES, "bytes on the line come twice", "duplicate:to=host,at=20"),
        SLOW_LINE: Kind(("baud",), "above this rate nothing arrives as it was sent", "slow-line:baud=460800"),
        WORN: Kind(("sector", "count"), "sectors that take neither erase nor write", "worn:sector=0x12000"),
        WRONG_CHIP: Kind(("chip",), "from the next reset another chip answers", "wrong-chip:chip=esp32s3"),
        OTHER_MAC: Kind(("mac",), "from the next reset another MAC is read", "other-mac:mac=7c:df:a1:ff:ff:ff"),
    }
)

KEYS: Mapping[str, str] = MappingProxyType(
    {
        "write": "during the Nth block that is programmed (from 1), since the fault was set",
        "after": "that many seconds after the fault was set (default 0: at once)",
        "boot": "that many seconds after a boot",
        "times": "how often, 0 is for ever (default 1; boot-loop and slow-boot: 0)",
        "for": "how many seconds it lasts (default 0.5; silence: 0, for ever)",
        "by": "seconds (default 1)",
        "name": "same or new (default same)",
        "to": "host or board: the direction (default host)",
        "at": "the first byte, from 0, since the fault was set (default 0)",
        "count": "how many bytes (default 1); for worn how many sectors",
        "every": "again every so many bytes (default 0: once)",
        "seed": "chooses what garbled bytes become (default 0)",
        "baud": "the highest rate that the line takes, in bits per second (required)",
        "sector": "an offset in the sector, like 0x12000 (required)",
        "chip": "a name as --chip takes it, like esp32s3 (required)",
        "mac": "like 7c:df:a1:00:11:22 (required)",
        "pc": "the address of the panic (default 0x42000000)",
        "ra": "the return address (default 0x42000000)",
    }
)

_REQUIRED = ("sector", "chip", "mac", "baud")
_FIELDS = MappingProxyType({"for": "for_s", "count": "amount"})


def parse_fault(text: str) -> Fault:
    """The fault that `text` describes. Raises BadFault."""
    name, colon, rest = text.strip().partition(":")
    if name not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(name, KINDS, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(KINDS)}."
        raise BadFault(f"{name[:40]!r} is not a fault\n{hint}")
    kind = KINDS[name]
    values: dict[str, Any] = dict(kind.defaults)
    given = set()
    for pair in rest.split(",") if colon else ():
        key, equals, value = pair.partition("=")
        if key not in kind.keys or not equals or key in given:
            from difflib import get_close_matches

            near = get_close_matches(key, kind.keys, 1)
            hint = f"Did you mean {near[0]}?" if near and near[0] != key else f"It takes {', '.join(kind.keys)}."
            twice = "twice " if key in given else ""
            raise BadFault(f"{name} has no place {twice}for {pair[:40]!r}\n{hint} For example: {kind.example}")
        given.add(key)
        values[_FIELDS.get(key, key)] = _value(name, key, value)
    for key in set(_REQUIRED) & set(kind.keys) - given:
        raise BadFault(f"{name} needs {key}=\nWrite it like {kind.example}.")
    return _settle(Fault(name, text.strip()), values, given)


def _settle(fault: Fault, values: Mapping[str, Any], given: set[str]) -> Fault:
    """Fill in what depends on the kind, and refuse what contradicts itself."""
    fault = fault._replace(**values)
    when = [key for key in ("write", "after", "boot") if key in given]
    if len(when) > 1:
        raise BadFault(f"{fault.kind} has both {when[0]}= and {when[1]}=\nGive one of them.")
    if fault.kind == BOOT_LOOP:
        return fault._replace(boot=0.3 if fault.boot is None else fault.boot)
    if fault.kind == SILENCE and "for" not in given:
        fault = fault._replace(for_s=0.0)
    if not when and "after" in KINDS[fault.kind].keys:
        return fault._replace(after=0.0)
    return fault


def _value(kind: str, key: str, value: str) -> object:
    try:
        return _PARSERS[key](value)
    except ValueError as exc:
        raise BadFault(f"{kind}: {key}={value[:40]}: {exc}\nWrite it like {KINDS[kind].example}.") from None


def _count(lowest: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value, 0)
        except ValueError:
            number = -1
        if not lowest <= number <= _MAX_COUNT * 2 - 1:
            raise ValueError(f"not a whole number from {lowest}")
        return number

    return parse


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MAX_SECONDS:
        raise ValueError(f"not a number of seconds from 0 to {_MAX_SECONDS:g}")
    return number


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"not one of {', '.join(words)}")
        return value

    return parse


def _mac(value: str) -> str:
    try:
        return parse_mac(value).to_bytes(6, "big").hex(":")
    except (UnknownMac, OverflowError):
        raise ValueError("not a MAC address") from None


_PARSERS: Mapping[str, Callable[[str], object]] = MappingProxyType(
    {
        **dict.fromkeys(("write", "count", "baud"), _count(1)),
        **dict.fromkeys(("times", "at", "every", "seed", "sector", "pc", "ra"), _count(0)),
        **dict.fromkeys(("after", "boot", "for", "by"), _seconds),
        "name": _one_of("same", "new"),
        "to": _one_of("host", "board"),
        "chip": _one_of(*NAMES),
        "mac": _mac,
    }
)
