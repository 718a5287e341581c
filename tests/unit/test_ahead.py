"""Values that were decoded before anybody asked: given for the same bytes, once, and never else."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import ahead, statebytes, statefile
from pipeline.engine.build_log import BuildRecords, Record
from pipeline.engine.inputs import Command
from pipeline.engine.record_rows import decode_long
from pipeline.fastpath import DIRECTORY, KIND, USAGE_KIND, touched
from pipeline.run.ahead import decode_ahead


@pytest.fixture
def values() -> Iterator[ahead.ValuesAhead]:
    ahead.values.cache_clear()
    yield ahead.values()
    ahead.values.cache_clear()


def put(values: ahead.ValuesAhead, data: bytes) -> object:
    value, trouble = statebytes.decode("things 1", data)
    assert not trouble
    values.put(data, value)
    return value


def test_the_same_bytes_get_the_value_once(values: ahead.ValuesAhead) -> None:
    data = statebytes.encode("things 1", {"a": [1]})
    value = put(values, data)
    first = statebytes.decode("things 1", bytes(bytearray(data)))
    assert first == ({"a": [1]}, "") and first[0] is value and values.given == 1
    first[0]["a"].append(2)
    assert statebytes.decode("things 1", data) == ({"a": [1]}, ""), "what somebody may have changed is not given again"
    assert values.given == 1


def test_other_bytes_with_the_same_head_are_decoded(values: ahead.ValuesAhead) -> None:
    """As where a file was written anew between, and its checksum happened to be the same."""
    data = statebytes.encode("things 1", list(range(1000)))
    put(values, data)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    assert damaged[:128] == data[:128]
    assert statebytes.decode("things 1", damaged) == (None, "is damaged (length or checksum)")
    assert values.given == 0


def test_another_kind_is_refused_as_ever(values: ahead.ValuesAhead) -> None:
    data = statebytes.encode("things 1", (1, 2))
    put(values, data)
    assert statebytes.decode("things 2", data) == (None, "is not a 'things 2' state file")


def test_what_is_made_of_an_object_is_given_for_that_object(values: ahead.ValuesAhead) -> None:
    source, twin = marshal.dumps((1, "a")), marshal.dumps((1, "a"))
    assert source is not twin
    values.make(marshal.loads, source)
    assert values.made(marshal.loads, twin) == (1, "a") and values.given == 0
    assert values.made(marshal.loads, source) == (1, "a") and values.given == 1
    assert values.made(marshal.loads, source) == (1, "a") and values.given == 1
    values.make(int, text := "77", 8)
    assert values.made(int, text, 10) == 77, "with other arguments it is another thing"


def test_short_rows_are_not_worth_it(values: ahead.ValuesAhead) -> None:
    records = BuildRecords()
    for files in (1, 1000):
        read = tuple(f"src/{n}.c" for n in range(files))
        command = Command("", ("ld", *read), (), (), ("ld", "1"), read, ("app",), "", "", ())
        inputs, outputs = tuple((path, "0" * 64) for path in read), (("app", "0" * 64, True),)
        records.put("link", record := Record(command, inputs, (), (), outputs, "0" * 64))
        decode_long(records.plain()[0]["link"], lambda name: None, "link")
        assert len(values._made) == (files > 1)
    decode_long(("no row",), lambda name: None, "link")
    assert len(values._made) == 1, "what is none of ours is left to the run, which says so"
    assert BuildRecords(records.plain()).get("link") == record and values.given == 1


def test_a_file_that_is_written_anew_is_read(values: ahead.ValuesAhead, tmp_path: Path) -> None:
    path = tmp_path / "things.state"
    statefile.save(path, "things 1", "before")
    put(values, path.read_bytes())
    statefile.save(path, "things 1", "behind")
    assert statefile.load(path, "things 1") == ("behind", "")
    assert values.given == 0


def test_an_odd_state_costs_only_time(values: ahead.ValuesAhead, tmp_path: Path) -> None:
    """Of the right kind, whole, and of another shape."""
    directory = tmp_path / DIRECTORY
    directory.mkdir(parents=True)
    statefile.save(directory / "-.state", KIND, 7)
    statefile.save(directory / "-.usage", USAGE_KIND, (1,))
    statefile.save(directory / f"-{touched.SUFFIX}", touched.KIND, {})
    decode_ahead(str(tmp_path))
    assert values._made == {} and values.given == 0
