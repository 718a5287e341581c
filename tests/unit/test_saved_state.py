"""What few actions changed, as it is written beside the state: of a link with very many inputs little, and whatever is
odd there costs work alone."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cache import ahead, statefile
from pipeline.engine import keys, saved_state
from pipeline.engine.build_log import BuildRecords, Record
from pipeline.engine.inputs import Command
from pipeline.engine.record_rows import beside, whole
from pipeline.engine.saved_state import (
    MORE_KIND,
    MORE_NAME,
    STATE_NAME,
    Saved,
    decode_changed,
    load_lazily,
    load_saved,
    save_rows,
    save_state,
)

LINK, FILES = "local-fast:link", 1000
NOTHING = Record(Command("", (), (), (), ("", ""), (), (), "", "", ()), (), (), (), (), "")


@pytest.fixture
def values() -> Iterator[ahead.ValuesAhead]:
    ahead.values.cache_clear()
    yield ahead.values()
    ahead.values.cache_clear()


def link(**others: str) -> Record:
    """Of very many objects, all the same but for these (by their number)."""
    read = tuple(f"obj/{n}.o" for n in range(FILES))
    command = Command("", ("ld", *read), (), (), ("ld", "1"), read, ("app",), "", "", ())
    inputs = tuple((path, others.get(f"u{n}", "1" * 64)) for n, path in enumerate(read))
    return Record(command, inputs, (), (), (("app", "2" * 64, True),), others.get("key", "3" * 64))


def write(directory: Path, *changes: Record) -> None:
    """A state with a link, and what changed since."""
    records = BuildRecords()
    records.put(LINK, link())
    nothing: tuple[dict[str, bytes], tuple[str, ...]] = ({}, ())
    names = save_state(directory, Saved(None, BuildRecords(), ""), nothing, records.plain(), whole=True).names
    save_rows(directory, names, nothing, records.plain())
    for record in changes:
        saved = load_lazily(directory)
        assert saved is not None
        saved.records.put(LINK, record)
        save_state(directory, saved, saved.stamps, saved.records.plain(), whole=False)


def test_a_link_is_written_as_what_became_another(tmp_path: Path) -> None:
    last = link(u7="a" * 64, u900="c" * 64, key="e" * 64)
    write(tmp_path, link(u7="a" * 64, key="b" * 64), last)
    assert (tmp_path / MORE_NAME).stat().st_size < 1000 < (tmp_path / STATE_NAME).stat().st_size // 20
    lazy = load_lazily(tmp_path)
    assert lazy is not None and lazy.records.get(LINK) == last == load_saved(tmp_path).records.get(LINK)


def test_whoever_has_read_all_of_it_writes_the_same(tmp_path: Path) -> None:
    write(tmp_path, link(u7="a" * 64))
    for n, key in enumerate("bcd"):
        saved = load_saved(tmp_path)
        saved.records.put(LINK, link(u8=key * 64))
        for name in range(20):  # else it is a large part of the state that changed
            saved.records.put(f"other{name}", NOTHING)
        save_state(tmp_path, saved, saved.stamps, saved.records.plain(), whole=n == 0)
        assert load_saved(tmp_path).records.get(LINK) == link(u8=key * 64)
    more, _ = statefile.load(tmp_path / MORE_NAME, MORE_KIND)
    assert {name: told[1:] for name, told in more[3].items()} == {LINK: (None, None, None)}


def test_what_was_decoded_ahead_is_what_is_asked_for(tmp_path: Path, values: ahead.ValuesAhead) -> None:
    last = link(u7="a" * 64)
    write(tmp_path, last)
    data = (tmp_path / MORE_NAME).read_bytes()
    more, _ = statefile.decode(MORE_KIND, data)
    values.put(data, more)
    decode_changed(tmp_path, more)
    lazy = load_lazily(tmp_path)
    assert lazy is not None and values.given == 1
    assert lazy.records.get(LINK) == last
    assert values.given == 3, "and two buckets"


def test_of_another_state_nothing_is_decoded_ahead(tmp_path: Path, values: ahead.ValuesAhead) -> None:
    write(tmp_path, link(u7="a" * 64))
    more, _ = statefile.load(tmp_path / MORE_NAME, MORE_KIND)
    decode_changed(tmp_path, (b"another", *more[1:]))
    decode_changed(tmp_path, None)
    decode_changed(tmp_path / "none", more)
    assert values._made == {} == values._decoded


def test_a_record_beside_another_is_itself() -> None:
    rng = random.Random(7)
    parts = [("h",), ("i",), ()]
    for _ in range(300):
        old = rng.randbytes(rng.choice((0, 40, 1 << 10, 5000)))
        row = bytearray(old)
        for _ in range(rng.choice((0, 1, 3, 200))):
            if row:
                row[rng.randrange(len(row))] ^= rng.randrange(256)
        now = (bytes(row) + rng.choice((b"", b"", b"more")), *rng.choices(parts, k=3))
        before: Mapping[str, Any] = {"one": (old, *rng.choices(parts, k=3))}
        for base in ({}, before):
            assert whole(beside(now, base.get("one")), base.get, "one") == now
    assert beside(None, before["one"]) is None and whole(None, before.get, "one") is None


ODD = [
    7,
    (),
    (b"row", ("h",), ()),
    (((0, b"xx"),), None, None),
    (((-1, b"x"),), None, None, None),
    (((1 << 80, b"x"),), None, None, None),
    (((32 * FILES + 64, b"xx"),), None, None, None),
    (((0, "x"),), None, None, None),
    ((b"xx",), None, None, None),
    (7, None, None, None),
]


@pytest.mark.parametrize("told", ODD)
def test_what_nobody_of_ours_wrote_is_no_record(told: Any, tmp_path: Path) -> None:
    base = {"one": (bytes(32 * FILES + 65), ("h",), (), ())}
    found = whole(told, base.get, "one")
    assert found is None or found[0] is None
    assert whole((b"row", None, (), ()), lambda name: None, "one") is None, "there is none beside which it was said"
    write(tmp_path, link(u7="a" * 64))
    base_name, *rest = statefile.load(tmp_path / MORE_NAME, MORE_KIND)[0]
    statefile.save(tmp_path / MORE_NAME, MORE_KIND, (base_name, *rest[:2], {LINK: told}, rest[3]))
    lazy = load_lazily(tmp_path)
    assert lazy is not None and lazy.records.get(LINK) is None and load_saved(tmp_path).records.get(LINK) is None


def test_damage_of_what_changed_is_the_state_before_or_none(tmp_path: Path) -> None:
    write(tmp_path, link(u7="a" * 64))
    for name in (MORE_NAME, "stamps.v1.rows"):
        data = (tmp_path / name).read_bytes()
        rng = random.Random(1)
        for _ in range(60):
            at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            flipped = bytearray(data)
            flipped[at] ^= bit
            for other in (bytes(flipped), data[:at]):
                (tmp_path / name).write_bytes(other)
                lazy = load_lazily(tmp_path)
                assert lazy is None or lazy.records.get(LINK) in (None, link(), link(u7="a" * 64))
                assert load_saved(tmp_path).records.get(LINK) in (link(), link(u7="a" * 64))
        (tmp_path / name).write_bytes(data)


def test_a_state_of_another_encoding_of_keys_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records hold keys of commands, which are believed."""
    write(tmp_path, link(u7="a" * 64))
    assert load_saved(tmp_path).records.get(LINK) is not None
    monkeypatch.setattr(keys, "KEY_VERSION", "hotplate action key next")
    spec = importlib.util.find_spec(saved_state.__name__)
    assert spec is not None and spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other.load_saved(tmp_path).records.get(LINK) is None and other.load_lazily(tmp_path) is None
    assert other.MORE_KIND != MORE_KIND
