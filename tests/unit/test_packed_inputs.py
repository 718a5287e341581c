"""Inputs of an action that has many: the same as the pairs that they stand for."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.build_log import BuildRecords, Record
from pipeline.engine.inputs import Command
from pipeline.engine.keys import command_key
from pipeline.engine.packed_inputs import PackedInputs, doubted
from pipeline.engine.record_rows import MANY_INPUTS, argv_of, said_words


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


pairs = st.lists(st.tuples(st.sampled_from(["a.o", "b.o", "build/c.o", "\u00e9.o"]), st.text(max_size=3).map(digest)))


@given(pairs)
def test_they_are_the_pairs(given_pairs: list[tuple[str, str]]) -> None:
    observed = tuple(given_pairs)
    packed = PackedInputs.of(observed)
    assert tuple(packed) == observed and packed == observed and observed == packed
    assert hash(packed) == hash(observed) and len(packed) == len(observed)
    assert [packed[n] for n in range(-len(observed), len(observed))] == [*observed, *observed]
    assert packed[1:] == observed[1:] and PackedInputs.of(packed) is packed
    assert packed.contents == "".join(sha256 for _, sha256 in observed)
    assert packed.outside("build/") == [each for each in observed if not each[0].startswith("build/")]
    with pytest.raises(IndexError):
        packed[len(observed)]


@given(pairs, st.frozensets(st.sampled_from(["a.o", "build/c.o"])))
def test_those_in_doubt(given_pairs: list[tuple[str, str]], believed: frozenset[str]) -> None:
    wanted = [each for each in given_pairs if each[0] not in believed]
    for inputs in (tuple(given_pairs), PackedInputs.of(given_pairs)):
        assert list(doubted(inputs, believed)) == wanted


@given(pairs.filter(bool), st.data())
def test_one_that_moved(given_pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(given_pairs) - 1))
    packed = PackedInputs.of(given_pairs)
    moved = packed.replaced({place: digest("new")})
    given_pairs[place] = (given_pairs[place][0], digest("new"))
    assert moved == tuple(given_pairs)
    assert packed.replaced({}) == packed


def test_digests_of_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match="33 bytes of digests for 1 paths"):
        PackedInputs(("a",), bytes(33))


@pytest.mark.parametrize("count", [0, 3, MANY_INPUTS + 1, 300])
@pytest.mark.parametrize("between", [[], ["-Wl,--start-group"], ["n1.o"]])
def test_words_that_are_files_are_said_by_their_place(count: int, between: list[str]) -> None:
    files = tuple(f"n{n}.o" for n in range(count))
    half = count // 2
    for argv in (
        ("ld", *files[:half], *between, *files[half:], "-o", "app"),
        ("ld", *reversed(files), *between, "-o", "app"),
        ("ld", *files, *files, *between),
    ):
        words = said_words(argv, (*files, "app", ""))
        assert argv_of(words, (*files, "app", "")) == argv
        if count > MANY_INPUTS and argv[1:2] == files[:1]:
            assert len(words) < 10, "as ranges"


def test_places_that_are_none_are_refused() -> None:
    files = tuple(f"n{n}.o" for n in range(MANY_INPUTS + 1))
    assert argv_of((len(files),), files) is None
    assert argv_of(((0, len(files) + 1),), files) is None, "fewer words would be another command"
    assert argv_of((5,), ("a",)) is None


def test_few_files_among_many_words_are_said_one_by_one() -> None:
    argv = ("cc", *(f"-f{n}" for n in range(100)), "a.c", "a.o")
    assert argv_of(said_words(argv, ("a.c", "a.o", "")), ("a.c", "a.o", "")) == argv


def test_a_record_of_many_inputs_comes_back_whole() -> None:
    files = tuple(f"n{n}.o" for n in range(500))
    command = Command("", ("ld", *files, "-o", "app"), (), (), ("ld", "1"), files, ("app",), "", "", ())
    inputs = tuple((path, digest(path)) for path in files)
    records = BuildRecords()
    record = Record(
        command, PackedInputs.of(inputs), (), (), (("app", digest("app"), True),), digest("key"), command_key(command)
    )
    records.put("link", record)
    again = BuildRecords(records.plain())
    found = again.get("link")
    assert found == record and found is not None and found.inputs == inputs
    again.put("link", record)
    assert not again.changed
    moved = record._replace(inputs=PackedInputs.of(inputs).replaced({7: digest("moved")}))
    again.put("link", moved)
    assert again.changed and again.get("link") == moved
    how = again.plain()[0]["link"][1]
    assert len(how[1]) < 10 and how[10] == command_key(command)
    for damaged in (how[:10], (*how[:10], "no key"), (*how[:1], ((0, "1"),), *how[2:]), (*how[:1], (1.5,), *how[2:])):
        rows = {"link": (again.plain()[0]["link"][0], damaged, (), ())}
        assert BuildRecords((rows, {})).get("link") is None
