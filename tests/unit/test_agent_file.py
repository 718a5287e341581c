"""Our entry in `.mcp.json`: in and out again, beside whatever is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.editor.agent_file import EMPTY, NAME, SERVERS, with_entry, without
from pipeline.formats.jsonc import CannotEdit

OURS = {"command": "./.venv/bin/doit", "args": ["mcp"]}
DOIT = "./.venv/bin/doit"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda key: key != SERVERS), VALUES, max_size=3),
    st.none() | st.dictionaries(st.text(max_size=8).filter(lambda key: key != NAME), VALUES, max_size=3),
    st.sampled_from([None, 0, 1, 2, 4]),
    st.booleans(),
)
def test_in_and_out_again(more: dict[str, Any], servers: dict[str, Any] | None, indent: int | None, last: bool) -> None:
    value = more if servers is None else {**more, SERVERS: servers} if last else {SERVERS: servers, **more}
    text = json.dumps(value, indent=indent)
    edited = with_entry(text, DOIT)
    assert json.loads(edited) == {**value, SERVERS: {NAME: OURS, **(servers or {})}}
    assert with_entry(edited, DOIT) == edited, "installing twice is installing once"
    assert without(edited, DOIT) == text


def test_a_file_of_our_own() -> None:
    made = with_entry(EMPTY, DOIT)
    assert json.loads(made) == {SERVERS: {NAME: OURS}}
    assert without(made, DOIT) == EMPTY


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "no JSON"),
        ("// comment\n{}", "no JSON"),
        ("[]", "no object"),
        ('{"mcpServers": []}', "is no object"),
        ('{"mcpServers": {"hotplate": {"command": "other"}}}', "another server's entry"),
    ],
)
def test_what_is_not_touched(text: str, fact: str) -> None:
    with pytest.raises(CannotEdit, match=fact):
        with_entry(text, DOIT)


def test_an_entry_that_somebody_rewrote_stays() -> None:
    text = json.dumps({SERVERS: {NAME: {"args": ["mcp"], "command": DOIT}}})
    assert without(text, DOIT) == text
