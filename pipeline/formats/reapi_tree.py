"""Files as a Merkle tree of REAPI's Directory messages, and an action that runs in it.

Pure: paths and digests in, messages and their digests out. Does not know where files lie or how blobs travel.
Invariant: the tree is canonical - names in the order of their bytes, no empty directory, files alone (no links, nothing
executable) - so that the same files are the same root, whoever sends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cache.digest import Digest, digest_bytes
from cache.named_tuple import NamedTuple
from pipeline.formats import reapi
from pipeline.formats.protobuf import encode


class ReapiTree(NamedTuple):
    """`messages`: the directories, the root included, by their digests."""

    root: Digest
    messages: Mapping[Digest, bytes]


class ReapiAction(NamedTuple):
    """`messages`: action, command and directories, which the server must have before it executes `digest`."""

    digest: Digest
    messages: Mapping[Digest, bytes]


def fault_of_paths(paths: Sequence[str]) -> str:
    """The first of these that cannot be in a tree, `""` if all can: relative, in their plainest form, in UTF-8, and no
    file where another needs a directory."""
    directories = {"/".join(parts[:n]) for parts in (path.split("/") for path in paths) for n in range(1, len(parts))}
    for path in paths:
        if any(part in ("", ".", "..") for part in path.split("/")) or path in directories or "\0" in path:
            return path
        try:
            path.encode()
        except UnicodeEncodeError:
            return path
    return ""


def tree_of(files: Mapping[str, Digest]) -> ReapiTree:
    """Path -> digest. Precondition: `fault_of_paths` finds nothing."""
    nested: dict[str, Any] = {}
    for path, digest in files.items():
        *above, name = path.split("/")
        place = nested
        for part in above:
            place = place.setdefault(part, {})
        place[name] = digest
    messages: dict[Digest, bytes] = {}
    return ReapiTree(_directory(nested, messages), messages)


def _directory(held: Mapping[str, Any], messages: dict[Digest, bytes]) -> Digest:
    files, directories = [], []
    for name in sorted(held, key=str.encode):
        node = held[name]
        if isinstance(node, Digest):
            files.append({"name": name, "digest": reapi.digest_value(node)})
        else:
            directories.append({"name": name, "digest": reapi.digest_value(_directory(node, messages))})
    return _kept(encode(reapi.DIRECTORY, {"files": files, "directories": directories}), messages)


def action_of(
    argv: Sequence[str],
    env: Mapping[str, str],
    outputs: Sequence[str],
    platform: Mapping[str, str],
    tree: ReapiTree,
) -> ReapiAction:
    """An action whose outputs are these files and that may be answered from the server's cache."""
    messages = dict(tree.messages)
    held = {"properties": _named(platform)} if platform else None
    command = {
        "arguments": list(argv),
        "environment_variables": _named(env),
        # Servers from before 2.1 know the one, those since then look at the other alone; likewise the platform (2.2).
        "output_files": sorted(outputs),
        "output_paths": sorted(outputs),
        "platform": held,
    }
    action = {
        "command_digest": reapi.digest_value(_kept(encode(reapi.COMMAND, command), messages)),
        "input_root_digest": reapi.digest_value(tree.root),
        "platform": held,
    }
    return ReapiAction(_kept(encode(reapi.ACTION, action), messages), messages)


def _named(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": values[name]} for name in sorted(values)]


def _kept(data: bytes, messages: dict[Digest, bytes]) -> Digest:
    digest = digest_bytes(data)
    messages[digest] = data
    return digest
