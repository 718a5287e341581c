"""A state file that is written in parts is that of the whole value."""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

import pytest

from cache import statebytes, statefile
from cache.statebytes import decode, encode, parts_of_bytes, parts_of_pair

KIND = "parts 1"
SHARED = (("inc/a.h", "x" * 64), ("inc/b.h", "\udcff\ud800é"))


def pair(rows: int) -> tuple[dict[str, bytes], Any, Any]:
    """What has strings and tuples in common."""
    names = [f"src/{n}.c" for n in range(rows)]
    by_name = dict.fromkeys(names[:10], (b"row", SHARED, SHARED))
    return {name: name.encode() for name in names}, tuple(names[:3]), (by_name, {"build/a": ""})


@pytest.mark.parametrize("rows", [0, 1, 4095, 4096, 4097, 10_000])
def test_it_comes_back(tmp_path: Path, rows: int) -> None:
    path, (by_path, beside, other) = tmp_path / "state", pair(rows)
    statefile.save_parts(path, KIND, parts_of_pair(by_path, beside, other))
    value, trouble, name = statefile.load_named(path, KIND)
    assert (value, trouble) == (((by_path, beside), other), "")
    assert name == statefile.name_of(path, KIND) and name.endswith(b" %012d" % (path.stat().st_size - len(name) - 1))
    records = list(value[1][0].values())
    assert all(row[1] is records[0][1] and row[2] is row[1] for row in records), "what was shared is one object"


def test_no_part_is_much_of_it() -> None:
    by_path, beside, _ = pair(100_000)
    parts = [len(part) for part in parts_of_pair(by_path, beside, ())]
    assert max(parts) < sum(parts) / 20


def test_any_other_byte_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "state"
    statefile.save_parts(path, KIND, parts_of_pair(*pair(3)))
    good = path.read_bytes()
    assert decode(KIND, good)[0] is not None
    for at in range(len(good)):
        for bit in range(8):
            assert decode(KIND, good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])[0] is None, at
        assert decode(KIND, good[:at])[0] is None


def test_what_is_not_written_whole_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "state"
    statefile.save(path, KIND, "before")

    def parts() -> Any:
        yield marshal.dumps("after")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        statefile.save_parts(path, KIND, parts())
    assert statefile.load(path, KIND) == ("before", "") and list(tmp_path.iterdir()) == [path]
    assert statebytes.told_beginning(KIND, 1, 2) == b"hotplate-state parts 1 00000001 000000000002\n"


@pytest.mark.parametrize("data", [b"", b"\0\n" * 70_000, bytearray(b"abc")])
def test_named_bytes_are_written_without_another_copy(tmp_path: Path, data: bytes | bytearray) -> None:
    path = tmp_path / "named.state"
    *_, last = parts_of_bytes("a name", data)
    assert last is data
    statefile.save_parts(path, KIND, parts_of_bytes("a name", data))
    assert statefile.load(path, KIND) == (("a name", bytes(data)), "")
    assert decode(KIND, encode(KIND, ("a name", bytes(data)))) == (("a name", bytes(data)), "")
