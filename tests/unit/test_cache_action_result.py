"""An entry as other programs keep it: literal bytes, what a server may do to them, and what is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.action_result import ForeignEntry, decode_result, encode_result, signature
from cache.actions import ActionResult, OutputFile
from cache.digest import ActionKey, Digest, digest_bytes
from tests.cache_server import message_of

KEY = ActionKey("ab" * 32)
HELLO = Digest("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", 5)
EMPTY = digest_bytes(b"")
RESULT = ActionResult(
    (OutputFile("build/x/a.o", HELLO, False), OutputFile("build/x/a", EMPTY, True)), None, HELLO, 1234
)
BYTES = (
    b'{"executionMetadata":{"virtualExecutionDuration":"1.234s","worker":"hotplate ac.v1 '
    b'6fdc0cbed74073d1a7d7c55ad0d5557c8eb300207f7eda933ed2794ab008574b"},"outputFiles":[{"digest":{"hash":"2cf24dba5fb0a3'
    b'0e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","sizeBytes":"5"},"isExecutable":false,"path":"build/x/a.o"},'
    b'{"digest":{"hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","sizeBytes":"0"},'
    b'"isExecutable":true,"path":"build/x/a"}],"stderrDigest":{"hash":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425'
    b'e73043362938b9824","sizeBytes":"5"}}'
)


def test_the_bytes() -> None:
    assert encode_result(KEY, RESULT, {}) == BYTES
    assert decode_result(KEY, BYTES) == ForeignEntry(RESULT)


def test_a_server_may_keep_the_message_and_not_the_bytes() -> None:
    kept = json.dumps(message_of(BYTES), indent=2).encode()
    assert b'isExecutable": false' not in kept and b'"0"' not in kept
    assert decode_result(KEY, kept) == ForeignEntry(RESULT)


def test_small_sets_come_with_the_entry() -> None:
    sets = ActionResult((OutputFile("set/0", HELLO, False),))
    data = encode_result(KEY, sets, {HELLO: b"hello"})
    assert b'"contents":"aGVsbG8="' in data
    assert decode_result(KEY, data) == ForeignEntry(sets, ((HELLO, b"hello"),))
    for other in (b'"aGVsbG4="', b'"aGVsbA=="', b'"!"', b"1", b"null"):
        assert decode_result(KEY, data.replace(b'"aGVsbG8="', other)) is None


def test_an_entry_is_of_one_key() -> None:
    assert decode_result(ActionKey("ac" * 32), BYTES) is None
    assert signature(KEY, RESULT) != signature(KEY, RESULT._replace(duration_ms=1235))


def signed(change: dict[str, Any], path: str = "build/x/a.o") -> bytes:
    """An entry as a liar writes it who knows how to sign."""
    file = {"path": path, "digest": {"hash": HELLO.hex, "sizeBytes": "5"}, "isExecutable": False}
    result = ActionResult((OutputFile(path, HELLO, False),))
    body = {"outputFiles": [{**file, **change}], "executionMetadata": {"worker": signature(KEY, result)}}
    return json.dumps(body).encode()


def test_a_signed_entry_is_believed() -> None:
    assert decode_result(KEY, signed({})) is not None


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "build/../../x", "build/", "src/main.c", "build//x", "build/./x", "build/a\0", "", "set"],
)
def test_paths_outside_of_build_are_none(path: str) -> None:
    assert decode_result(KEY, signed({}, path)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"digest": {"hash": "x", "sizeBytes": "5"}},
        {"digest": {"hash": HELLO.hex, "sizeBytes": "-5"}},
        {"digest": {"hash": HELLO.hex, "sizeBytes": "99999999999999999999"}},
        {"digest": None},
        {"isExecutable": "no"},
        {"path": 7},
    ],
)
def test_what_is_no_output_file_is_none(change: dict[str, Any]) -> None:
    assert decode_result(KEY, signed(change)) is None


@given(st.integers(0, len(BYTES) - 1), st.integers(0, 255))
def test_damage_is_no_other_result(at: int, byte: int) -> None:
    found = decode_result(KEY, BYTES[:at] + bytes([byte]) + BYTES[at + 1 :])
    assert found is None or found == ForeignEntry(RESULT)


@pytest.mark.parametrize("end", range(0, len(BYTES), 7))
def test_a_part_is_none(end: int) -> None:
    assert decode_result(KEY, BYTES[:end]) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda one: (
            st.lists(one)
            | st.dictionaries(st.sampled_from(["outputFiles", "executionMetadata", "worker", "digest", "path"]), one)
        ),
        max_leaves=9,
    )
)
def test_any_json_is_none(value: Any) -> None:
    assert decode_result(KEY, json.dumps(value).encode()) is None


def test_deep_json_is_none() -> None:
    assert decode_result(KEY, b"[" * 100_000) is None
