"""Merkle trees and actions in bytes, and what cannot be in a tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import Digest, digest_bytes
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode, encode
from pipeline.formats.reapi_tree import action_of, fault_of_paths, tree_of

X, Y = digest_bytes(b"x"), digest_bytes(b"yy")


def node(name: str, digest: Digest) -> bytes:
    """A file or directory of a Directory: lengths as they are for a name of one byte and a size of one digit."""
    inner = b"\x0a\x40" + digest.hex.encode() + b"\x10" + bytes([digest.size])
    return b"\x0a\x01" + name.encode() + b"\x12\x44" + inner


def test_a_tree_in_bytes() -> None:
    below = b"\x0a\x49" + node("a", X) + b"\x0a\x49" + node("b", Y)
    assert digest_bytes(below).size == 150  # two bytes of length, in the node above
    tree = tree_of({"d/b": Y, "d/a": X, "c": Y})
    assert tree.messages[digest_bytes(below)] == below
    above = encode(
        reapi.DIRECTORY,
        {
            "files": [{"name": "c", "digest": reapi.digest_value(Y)}],
            "directories": [{"name": "d", "digest": reapi.digest_value(digest_bytes(below))}],
        },
    )
    assert above[:75] == b"\x0a\x49" + node("c", Y)
    assert tree.root == digest_bytes(above) and len(tree.messages) == 2


def test_an_empty_tree_is_the_empty_message() -> None:
    assert tree_of({}).root == digest_bytes(b"")


def test_names_are_in_the_order_of_their_bytes() -> None:
    names = ["b", "a", "B", "\u00e9", "\uffff", "\U00010000", "a.c", "a-c"]
    tree = tree_of(dict.fromkeys(names, X))
    read = decode(reapi.DIRECTORY, tree.messages[tree.root])
    assert read is not None
    assert [file["name"] for file in read["files"]] == sorted(names, key=str.encode)


@given(st.dictionaries(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join), st.just(X), max_size=6))
def test_the_order_of_files_says_nothing(files: dict[str, Digest]) -> None:
    if fault_of_paths([*files]) == "":
        assert tree_of(files) == tree_of(dict(reversed(files.items())))


@pytest.mark.parametrize(
    "paths",
    [["../x"], ["/x"], ["a//b"], ["a/./b"], ["a/../b"], [""], ["a/"], ["x\0"], ["\udc80"], ["a", "a/b"], ["a/b", "a"]],
)
def test_what_cannot_be_in_a_tree(paths: list[str]) -> None:
    assert fault_of_paths(paths) in paths and fault_of_paths(["ok", "dir/ok", "dir/..x"]) == ""
    assert fault_of_paths(paths) != "" or paths == [""]


def test_an_action_is_canonical_and_may_be_cached() -> None:
    tree = tree_of({"a": X})
    one = action_of(["cc", "-c"], {"B": "2", "A": "1"}, ["o.d", "o"], {"os": "linux", "arch": "x"}, tree)
    two = action_of(["cc", "-c"], {"A": "1", "B": "2"}, ["o", "o.d"], {"arch": "x", "os": "linux"}, tree)
    assert one == two and len(one.messages) == 3
    action = decode(reapi.ACTION, one.messages[one.digest])
    assert action is not None and not action["do_not_cache"] and action["salt"] == b""
    command = decode(reapi.COMMAND, one.messages[reapi.digest_of(action["command_digest"]) or X])
    assert command is not None and command["output_paths"] == command["output_files"] == ["o", "o.d"]
    assert [each["name"] for each in command["environment_variables"]] == ["A", "B"]
    assert [each["name"] for each in action["platform"]["properties"]] == ["arch", "os"]
