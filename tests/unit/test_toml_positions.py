"""The locator finds what tomllib reads: every value's span parses back to the value, in any way of writing it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.toml_positions import KeyPath, Positions, locate

SAMPLE = '''\
# comment = "no"
top = 1
a . "b c" . 'd' = { x = [1, { y = "q=#" }], "z" = 1979-05-27 07:32:00 } # tail

[table."quoted.key"]
text = """
[not.a.header]
x = 1 """"
raw = \'\'\'it''s\'\'\'
list = [
  "one", # first
  'two',
]

[[item]]
name = "first"
[item.sub]
deep = true
[[item]]
  name = "second"
[[item.part]]
n = +1.5e3
'''


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("top",), (2, 1), (2, 7)),
        (("a",), (3, 1), (3, 1)),
        (("a", "b c"), (3, 5), (3, 5)),
        (("a", "b c", "d"), (3, 13), (3, 19)),
        (("a", "b c", "d", "x"), (3, 21), (3, 25)),
        (("a", "b c", "d", "x", 1, "y"), (3, 31), (3, 35)),
        (("a", "b c", "d", "z"), (3, 45), (3, 51)),
        (("table",), (5, 2), (5, 2)),
        (("table", "quoted.key"), (5, 8), (5, 8)),
        (("table", "quoted.key", "text"), (6, 1), (6, 8)),
        (("table", "quoted.key", "raw"), (9, 1), (9, 7)),
        (("table", "quoted.key", "list", 1), (12, 3), (12, 3)),
        (("item",), (15, 3), (15, 3)),
        (("item", 0, "name"), (16, 1), (16, 8)),
        (("item", 0, "sub", "deep"), (18, 1), (18, 8)),
        (("item", 1), (19, 3), (19, 3)),
        (("item", 1, "name"), (20, 3), (20, 10)),
        (("item", 1, "part", 0, "n"), (22, 1), (22, 5)),
        (("item", 1, "part", 0, "missing", "too"), (21, 8), (21, 8)),
        (("nothing",), (1, 1), (1, 1)),
    ],
)
def test_positions_in_a_text_with_every_form(path: KeyPath, key: tuple[int, int], value: tuple[int, int]) -> None:
    tomllib.loads(SAMPLE)
    positions = locate(SAMPLE)
    assert (positions.key(path), positions.value(path)) == (key, value)


def test_windows_line_ends_count_as_one() -> None:
    positions = locate(SAMPLE.replace("\n", "\r\n"))
    assert positions.value(("item", 1, "part", 0, "n")) == (22, 5)


# --- random documents -------------------------------------------------------------------------

scalars = st.one_of(
    st.integers(-1000, 1000).map(str),
    st.sampled_from(["true", "false", "0x1F", "1_000", "6.5e-3", "-inf"]),
    st.sampled_from(["1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5"]),
    st.text("ab#=[]{},.\\'\" \té", max_size=6).map(lambda s: '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    st.text('ab#=[]{},.\\" \té', max_size=6).map(lambda s: f"'{s}'"),
    st.text("ab#=[]\n{},' é", max_size=8).map(lambda s: f'"""{s}"""'),
    st.text('ab#=[]\n{},"\\ é', max_size=8).map(lambda s: f"'''{s}'''"),
    st.sampled_from(['""', "''", '""""""', "''''''", '"""a""\\""""', '"""a"""""', "'''b'''''"]),
    st.sampled_from(['"\\u00e9\\n"', '"""\\\n  x"""']),
)
names = st.sampled_from(list("abcdefgh"))
gaps = st.sampled_from(["", " ", "\t"])
line_gaps = st.sampled_from(["", " ", "\n", " # c ]}\n  "])


@st.composite
def keys(draw: st.DrawFn, name: str) -> str:
    written: str = draw(st.sampled_from([name, f'"{name}"', f"'{name}'", f'"\\u{ord(name):04x}"']))
    return written


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["scalar", "scalar", "array", "table"] if depth else ["scalar"]))
    if kind == "scalar":
        scalar: str = draw(scalars)
        return scalar
    if kind == "array":
        parts = [draw(values(depth - 1)) + draw(line_gaps) for _ in range(draw(st.integers(0, 3)))]
        tail = draw(st.sampled_from(["", ","])) if parts else ""
        return f"[{draw(line_gaps)}" + ("," + draw(line_gaps)).join(parts) + tail + draw(line_gaps) + "]"
    pairs = [draw(pair(name, depth - 1)) for name in draw(st.lists(names, max_size=3, unique=True))]
    return "{" + draw(gaps) + ("," + draw(gaps)).join(pairs) + draw(gaps) + "}"


@st.composite
def pair(draw: st.DrawFn, name: str, depth: int = 2) -> str:
    dotted = [name, *draw(st.lists(names, max_size=2))]
    key = f"{draw(gaps)}.{draw(gaps)}".join([draw(keys(part)) for part in dotted])
    return f"{key}{draw(gaps)}={draw(gaps)}{draw(values(depth))}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines: list[str] = []

    def body() -> None:
        for name in draw(st.lists(names, max_size=3, unique=True)):
            lines.append(draw(gaps) + draw(pair(name)) + draw(st.sampled_from(["", " # x = [", "\n"])))

    body()
    for number in range(draw(st.integers(0, 4))):
        top = f"t{number}"
        style = draw(st.sampled_from(["table", "dotted", "array", "nested"]))
        if style == "table":
            lines.append(f"[ {top} ]")
            body()
        elif style == "dotted":
            lines.append(f'[{top} . "x.y"] # c')
            body()
        else:
            for _ in range(draw(st.integers(1, 3))):
                lines.append(f"[[{top}]]")
                body()
                if style == "nested":
                    lines.append(f"[{top}.sub]")
                    body()
                    lines.append(f"[[{top}.sub.z]]")
                    body()
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n"]))


def walk(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from walk(child, (*path, key))


def check_against_tomllib(text: str) -> None:
    document = tomllib.loads(text)
    positions = locate(text)
    for path, value in walk(document):
        if not path:
            continue
        assert path in positions.keys or path in positions.values, path
        is_leaf = not isinstance(value, dict | list)
        if is_leaf or path in positions.values:
            start, end = positions.values[path]
            assert tomllib.loads(f"x = {text[start:end]}")["x"] == value, path
        if isinstance(path[-1], str):
            start, end = positions.keys[path]
            assert list(tomllib.loads(f"{text[start:end]} = 1")) == [path[-1]], path
    known = {path for path, _value in walk(document)}
    assert set(positions.keys) | set(positions.values) <= known


@given(documents())
def test_every_key_and_value_of_tomllib_is_found_where_it_is_written(text: str) -> None:
    check_against_tomllib(text)


def test_the_sample_too() -> None:
    check_against_tomllib(SAMPLE)


@given(st.text("ab=.[]{}\"'#,\n\\ 1", max_size=40))
def test_no_text_raises(text: str) -> None:
    assert isinstance(locate(text), Positions)


@pytest.mark.parametrize("text", ["[" * 100_000, "a = " + "[" * 100_000, "a = " + "{b=" * 100_000])
def test_deep_nesting_does_not_raise(text: str) -> None:
    assert locate(text).key(("a", 0, 0, 0))[0] == 1
