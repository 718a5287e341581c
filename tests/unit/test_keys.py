"""Keys: pinned bytes, no collisions, each kind of input in or out as the table says."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline.engine.inputs import ACTION_FIELDS, STABILITY, TOOL_FIELDS, Command, InputKind, Stability, command_of
from pipeline.engine.keys import (
    ExplainSink,
    HashSink,
    base_key,
    command_key,
    first_difference,
    full_key,
    set_key,
    walk_command,
)
from pipeline.model import Action, Stage, Statement, Tool

ACTION = Action(
    name="compile a",
    stage=Stage.COMPILE,
    inputs=("a.c",),
    outputs=("build/a.o",),
    argv=("cc", "-c", "a.c"),
    env=(("LANG", "C"),),
    depfile="build/a.d",
    profile="fast",
    count_as="compiled",
)
TOOL = Tool("cc", "/usr/bin/cc", "1.0", "cc 1.0 sha256:00")
DIGEST = digest_bytes(b"int a;")


def key(action: Action = ACTION, tool: Tool = TOOL, content: bytes = b"int a;") -> str:
    of_command = command_key(command_of(action, {tool.name: tool}))
    return base_key(of_command, "".join([digest_bytes(content).hex for _ in action.inputs]))


def test_encoding_is_pinned() -> None:
    """Any change here must come with another KEY_VERSION."""

    def part(*texts: str) -> bytes:
        return b"".join(b"%d:%s" % (len(text), text.encode()) for text in texts)

    command = (
        part("hotplate action key 7")
        + part("builtin", "", "")
        + part("tool", "cc", "cc 1.0 sha256:00")
        + part("argument", "", "cc")
        + part("argument", "", "-c")
        + part("argument", "", "a.c")
        + part("environment", "LANG", "C")
        + part("output path", "build/a.o", "")
        + part("depfile path", "", "build/a.d")
        + part("salt", "", "")
        + part("input", "a.c", "")
    )
    of_command = command_key(command_of(ACTION, {"cc": TOOL}))
    assert of_command == hashlib.sha256(command).hexdigest()
    wanted = (
        part("hotplate action key 7")
        + part("argument", "command key", of_command)
        + part("input", "contents", DIGEST.hex)
    )
    assert key() == hashlib.sha256(wanted).hexdigest()
    found = (
        part("hotplate action key 7")
        + part("discovered input", "a.h", f"{DIGEST.hex}/6")
        + part("absent file", "first/a.h", "")
    )
    discovered = set_key([("a.h", DIGEST)], ["first/a.h"])
    assert discovered == hashlib.sha256(found).hexdigest()
    full = (
        part("hotplate action key 7")
        + part("input", "base key", key())
        + part("discovered input", "set key", discovered)
    )
    base = base_key(of_command, DIGEST.hex)
    assert full_key(base, discovered) == hashlib.sha256(full).hexdigest()


@pytest.mark.parametrize("odd", ["", "\u00e9", "\udcff"])
@pytest.mark.parametrize("at", [0, 20, 39])
def test_a_long_command_is_encoded_as_a_short_one(odd: str, at: int) -> None:
    """Words that many commands share are encoded once for all; the bytes are the same."""
    words = [f"-f{n}" for n in range(40)]
    words[at] += odd
    for last in ("one.c", "two.c"):
        sink, wanted = HashSink(), b"21:hotplate action key 7"
        sink.words(InputKind.ARGUMENT, (*words, last))
        for word in (*words, last):
            data = word.encode("utf-8", "surrogateescape")
            wanted += b"8:argument0:%d:%s" % (len(data), data)
        assert sink.key() == hashlib.sha256(wanted).hexdigest()


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 12_000])
@pytest.mark.parametrize("odd", [(), (0,), (4097, 11_000)])
def test_long_lists_are_encoded_as_short_ones(count: int, odd: tuple[int, ...]) -> None:
    """They are hashed in pieces; asking for the key does not end what is received."""

    def part(*texts: str) -> bytes:
        return b"".join(b"%d:%s" % (len(text.encode()), text.encode()) for text in texts)

    names = [f"src/{'ü' if n in odd else 'u'}{n}.c" for n in range(count)]
    sink = HashSink()
    sink.words(InputKind.ARGUMENT, names)
    sink.files(InputKind.INPUT, ((name, "5eed") for name in names))
    said = part("hotplate action key 7")
    said += b"".join([part("argument", "", name) for name in names])
    said += b"".join([part("input", name, "5eed") for name in names])
    assert sink.key() == sink.key() == hashlib.sha256(said).hexdigest()
    sink.part(InputKind.SALT, "", "pepper")
    assert sink.key() == hashlib.sha256(said + part("salt", "", "pepper")).hexdigest()


def test_every_kind_is_classified_and_every_field_has_a_kind() -> None:
    assert set(STABILITY) == set(InputKind)
    assert set(Action._fields) == set(ACTION_FIELDS)
    assert set(Tool._fields) == set(TOOL_FIELDS)


MUTATIONS: dict[str, Any] = {
    "name": "other",
    "stage": Stage.LINK,
    "inputs": ("b.c",),
    "outputs": ("build/b.o",),
    "argv": ("cc", "-c", "a.c", "-O"),
    "builtin": "strip@2",
    "params": (("chip", "esp32"),),
    "env": (("LANG", "D"),),
    "depfile": "",
    "profile": "release",
    "salt": "1",
    "absent": ("c.c",),
    "cacheable": False,
    "count_as": "linked",
    "statement": Statement("build", ("b.o",), "cc"),
}


@pytest.mark.parametrize("field", sorted(ACTION_FIELDS))
def test_action_field_moves_the_key_exactly_if_it_is_stable(field: str) -> None:
    stable = STABILITY[ACTION_FIELDS[field]] is Stability.STABLE
    assert (key(ACTION._replace(**{field: MUTATIONS[field]})) != key()) == stable


@pytest.mark.parametrize(
    ("field", "tool"),
    [
        ("identity", TOOL._replace(identity="2")),
        ("path", TOOL._replace(path="/x")),
        ("version", TOOL._replace(version="2")),
        ("launcher", TOOL._replace(launcher=("ccache",))),
    ],
)
def test_tool_field_moves_the_key_exactly_if_it_is_stable(field: str, tool: Tool) -> None:
    assert (key(tool=tool) != key()) == (STABILITY[TOOL_FIELDS[field]] is Stability.STABLE)


def test_tool_name_moves_the_key() -> None:
    assert key(ACTION._replace(argv=("dd", "-c", "a.c")), TOOL._replace(name="dd")) != key()


def test_content_moves_the_key() -> None:
    assert key(content=b"int b;") != key()


def test_order_of_environment_says_nothing_and_of_inputs_something() -> None:
    assert key(ACTION._replace(env=(("A", "1"), ("B", "2")))) == key(ACTION._replace(env=(("B", "2"), ("A", "1"))))
    assert key(ACTION._replace(inputs=("a", "b"))) != key(ACTION._replace(inputs=("b", "a")))


def test_order_of_discovered_inputs_says_nothing() -> None:
    pair = [("x.h", DIGEST), ("y.h", DIGEST)]
    assert set_key(pair, ["p", "q"]) == set_key(pair[::-1], ["q", "p"])
    assert set_key(pair, ["p"]) != set_key(pair, ["q"])


def test_volatile_part_is_refused() -> None:
    with pytest.raises(ValueError, match="this is a bug"):
        HashSink().part(InputKind.CLOCK, "", "12:00")


texts = st.text(max_size=6)
pairs = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
commands = st.builds(
    Command, texts, st.lists(texts, max_size=3).map(tuple), pairs, pairs, st.tuples(texts, texts), st.just(()),
    st.lists(texts, max_size=3).map(tuple), texts, texts, texts,
)  # fmt: skip


@given(commands, commands)
def test_keys_are_equal_exactly_when_the_walks_are(one: Command, two: Command) -> None:
    old, new = ExplainSink(), ExplainSink()
    walk_command(old, one, [(path, "") for path in one.inputs])
    walk_command(new, two, [(path, "") for path in two.inputs])
    assert (command_key(one) == command_key(two)) == (old.parts == new.parts)
    assert (first_difference(old.parts, new.parts) is None) == (old.parts == new.parts)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_words_are_delimited(one: list[str], two: list[str]) -> None:
    def of(words: list[str]) -> str:
        return key(ACTION._replace(argv=("cc", *words)))

    assert (of(one) == of(two)) == (one == two)


def difference(old: Action, new: Action) -> tuple[str, ...]:
    sinks = ExplainSink(), ExplainSink()
    for sink, action in zip(sinks, (old, new), strict=True):
        walk_command(sink, command_of(action, {"cc": TOOL}), [(path, DIGEST) for path in action.inputs])
    moved = first_difference(sinks[0].parts, sinks[1].parts)
    assert moved is not None
    return (moved.kind.value, *moved[1:])


def test_first_difference_names_what_moved() -> None:
    def words(*argv: str) -> Action:
        return ACTION._replace(argv=argv)

    assert difference(words("cc", "-Og", "x"), words("cc", "-Os", "x")) == ("argument", "", "-Og", "-Os")
    assert difference(words("cc", "x"), words("cc", "-Os", "x")) == ("argument", "", "", "-Os")
    assert difference(words("cc", "-Os", "x"), words("cc", "x")) == ("argument", "", "-Os", "")
    assert difference(words("cc", "-Os"), words("cc")) == ("argument", "", "-Os", "")
    assert difference(words("cc", "a", "b"), words("cc", "b", "a")) == ("argument", "", "order", "order")
    assert difference(ACTION, ACTION._replace(env=(("LANG", "D"),))) == ("environment", "LANG", "C", "D")
    assert difference(ACTION, ACTION._replace(inputs=("a.c", "b.c")))[:2] == ("input", "b.c")
