"""How large a program is: totals, sections, and what each archive or component takes; against the build before and the
limits of `[size]`.

Pure, and light: every report has one. Does not know files, or how anything was measured (`size_measured.py`).
Invariant: what is not known is `null`.

A size is a dict of JSON types, which reports hold as it is:

    {elf, map, note, room, totals: [row], sections: [row + memory], archives: [{name, flash, flash_before, ram,
    ram_before, limit}]}      row = {name, size, before, limit}

`before` is that of the last report of the same build, `limit` that of `[size]`, `room` the bytes of the application's
partition; `note` says why there are no archives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple

IMAGE = "image"
"""The total that is the application's image as it is written; `flash` is every section with bytes."""
Size = Mapping[str, Any]


class SizeLimits(NamedTuple):
    """In bytes. `totals`: by the names of totals; `archives`: of what an archive takes in flash."""

    totals: Mapping[str, int] = MappingProxyType({})
    sections: Mapping[str, int] = MappingProxyType({})
    archives: Mapping[str, int] = MappingProxyType({})

    @property
    def any(self) -> bool:
        return bool(self.totals or self.sections or self.archives)


class Excess(NamedTuple):
    """A limit that does not hold: `key` as in deploy.toml, below `size`."""

    key: tuple[str, ...]
    size: int
    limit: int

    def message(self, elf: str) -> str:
        """The fact, with both values."""
        what = {IMAGE: "the application's image", "flash": "in flash, the program"}.get(self.key[0], self.key[-1])
        if self.key[0] == "archive":
            what = f"in flash, {self.key[-1]}"
        where = f" of {elf}" if elf and self.key[0] not in (IMAGE, "flash") else ""
        key = f"[size] {self.key[0]}" if len(self.key) == 1 else f"[size.{self.key[0]}] {self.key[1]}"
        return f"{what}{where} takes {self.size} bytes, but {key} is {self.limit} ({self.size - self.limit} over)"


# --- compared -------------------------------------------------------------------------------------


def compared(size: Size, before: Size | None, limits: SizeLimits) -> dict[str, Any]:
    """The size beside that of the build before (None: there is none) and the limits."""
    old = {} if before is None else before

    def rows(name: str, limit: Mapping[str, int]) -> list[dict[str, Any]]:
        known = {row["name"]: row["size"] for row in old.get(name, ())}
        now = [{**row, "before": _before(known, row, old), "limit": limit.get(row["name"])} for row in size[name]]
        names = {row["name"] for row in now}
        gone = [row for row in old.get(name, ()) if row["name"] not in names] if size["sections"] else []
        return [*now, *({**row, "size": 0, "before": row["size"], "limit": None} for row in gone if row["size"])]

    return {
        **size,
        "totals": rows("totals", limits.totals),
        "sections": rows("sections", limits.sections),
        "archives": _archives(size, old, limits.archives),
    }


def _before(known: Mapping[str, int], row: Mapping[str, Any], old: Size) -> int | None:
    """0 for what was not there; None where nothing is known of the build before."""
    return known.get(row["name"], 0) if old else None


def _archives(size: Size, old: Size, limits: Mapping[str, int]) -> list[dict[str, Any]]:
    known = {row["name"]: row for row in old.get("archives", ())}
    found = []
    for row in size["archives"]:
        past = known.pop(row["name"], {"flash": 0, "ram": 0} if old.get("archives") else {})
        both = {"flash_before": past.get("flash"), "ram_before": past.get("ram")}
        found.append({**row, **both, "limit": limits.get(row["name"])})
    for row in known.values() if size["archives"] else ():
        if row["flash"] or row["ram"]:
            both = {"flash_before": row["flash"], "ram_before": row["ram"]}
            found.append({**row, "flash": 0, "ram": 0, **both, "limit": None})
    return found


def unjudged(size: Size, limits: SizeLimits) -> list[str]:
    """Limits of which nothing can be said, a fact each."""
    found = []
    if not size["sections"] and (limits.sections or limits.archives or limits.totals.keys() - {IMAGE}):
        found.append(f"[size] judges the image alone: {size['note']}")
    for key, asked in (("sections", limits.sections), ("archives", limits.archives)):
        there = {row["name"] for row in size[key]}
        lacking = [name for name in asked if name not in there]
        if lacking and size["sections"]:
            why = f": {size['note']}" if key == "archives" and size["note"] else ""
            found.append(
                f"[size.{key[:-1]}] has no effect on {', '.join(lacking)}, which the program does not have{why}"
            )
    return found


def is_size(value: Any) -> bool:
    """Has a value that was read from a file the shape of a size?"""
    if not isinstance(value, Mapping) or not all(isinstance(value.get(key), str) for key in ("elf", "map", "note")):
        return False
    tables: list[Any] = [value.get(name) for name in ("totals", "sections", "archives")]
    if type(value.get("room")) is not int or not all(isinstance(table, list) for table in tables):
        return False
    totals, sections, archives = tables
    return (
        all(isinstance(row, Mapping) for table in tables for row in table or ())
        and all(_has(row, ("size",), ("before", "limit")) for row in (*totals, *sections))
        and all(isinstance(row.get("memory"), str) for row in sections)
        and all(_has(row, ("flash", "ram"), ("flash_before", "ram_before", "limit")) for row in archives)
        and any(row["name"] == IMAGE for row in totals)
    )


def _has(row: Mapping[str, Any], numbers: Sequence[str], maybe: Sequence[str]) -> bool:
    return (
        isinstance(row.get("name"), str)
        and all(type(row.get(key)) is int for key in numbers)
        and all(key in row and (row[key] is None or type(row[key]) is int) for key in maybe)
    )


def excesses(size: Size) -> list[Excess]:
    """The limits that a size does not keep, in the order of the rows."""
    found = [Excess((row["name"],), row["size"], row["limit"]) for row in size["totals"] if _is_over(row, "size")]
    found += [
        Excess(("section", row["name"]), row["size"], row["limit"]) for row in size["sections"] if _is_over(row, "size")
    ]
    found += [
        Excess(("archive", row["name"]), row["flash"], row["limit"])
        for row in size["archives"]
        if _is_over(row, "flash")
    ]
    return found


def _is_over(row: Mapping[str, Any], key: str) -> bool:
    return row["limit"] is not None and row[key] > row["limit"]


# --- tables ---------------------------------------------------------------------------------------

NOTHING = "-"
Table = tuple[Sequence[str], list[tuple[str, ...]]]
_HEAD = ("size", "change", "limit", "left")


def change(now: int, before: int | None) -> str:
    """`+16`, `-3`, `0`, or `-` where nothing is known of before."""
    return NOTHING if before is None else f"{now - before:+d}" if now != before else "0"


def totals_table(size: Size) -> Table:
    """Of what is there; the image with the room of its partition as its limit where it has no other."""
    rows = []
    for row in size["totals"]:
        if row["size"] or row["before"] or row["limit"] is not None:
            limit = size["room"] if row["name"] == IMAGE and row["limit"] is None else row["limit"]
            rows.append((row["name"], *_numbers(row["size"], row["before"], limit)))
    return ("memory", *_HEAD), rows


def sections_table(size: Size) -> Table:
    rows = [
        (row["name"], row["memory"], *_numbers(row["size"], row["before"], row["limit"])) for row in size["sections"]
    ]
    return ("section", "memory", *_HEAD), rows


def archives_table(size: Size, most: int | None = None) -> Table:
    """The largest `most`; what changed comes along."""
    kept = [
        row
        for n, row in enumerate(size["archives"])
        if most is None or n < most or (row["flash"], row["ram"]) != _past(row)
    ]
    rows: list[tuple[str, ...]] = [
        (
            *(row["name"], str(row["flash"]), change(row["flash"], row["flash_before"])),
            *(str(row["ram"]), change(row["ram"], row["ram_before"])),
            NOTHING if row["limit"] is None else str(row["limit"]),
        )
        for row in kept
    ]
    return ("archive", "flash", "change", "ram", "change", "limit"), rows


def _past(row: Mapping[str, Any]) -> tuple[int, int]:
    flash, ram = row["flash_before"], row["ram_before"]
    return (row["flash"] if flash is None else flash, row["ram"] if ram is None else ram)


def _numbers(size: int, before: int | None, limit: int | None) -> tuple[str, ...]:
    left = NOTHING if limit is None else str(limit - size)
    return str(size), change(size, before), NOTHING if limit is None else str(limit), left


def size_line(size: Size) -> str:
    """`image 86464 (+16), flash 27276 (+12), ram 21352 (0)`."""
    rows = [row for row in size["totals"] if row["name"] in (IMAGE, "flash", "ram")]
    return ", ".join(f"{row['name']} {row['size']} ({change(row['size'], row['before'])})" for row in rows)


def is_moved(size: Size) -> bool:
    """Is any total another one than before, or met for the first time?"""
    return any(row["size"] != row["before"] for row in size["totals"])
