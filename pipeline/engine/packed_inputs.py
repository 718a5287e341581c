"""What the declared inputs of an action held, without an object for each: a link has ten thousand, of which one moves.

Knows paths and SHA-256s. Does not know actions, keys or where a file lies. Invariant: to whoever takes it one by one it
is the same pairs in the same order as the tuple of pairs that it stands for, and equal to that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, overload

DIGEST_BYTES = 32
_DIGITS = 2 * DIGEST_BYTES


class PackedInputs(Sequence[tuple[str, str]]):
    """(path, SHA-256) for each input, in declared order. Immutable."""

    __slots__ = ("digests", "paths")

    def __init__(self, paths: tuple[str, ...], digests: bytes) -> None:
        """`digests`: 32 bytes for each path. Raises ValueError when there are more or fewer."""
        if len(digests) != DIGEST_BYTES * len(paths):
            raise ValueError(f"{len(digests)} bytes of digests for {len(paths)} paths")
        self.paths, self.digests = paths, digests

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> PackedInputs:
        """The same as these."""
        if isinstance(pairs, cls):
            return pairs
        return cls(tuple([path for path, _ in pairs]), bytes.fromhex("".join([sha256 for _, sha256 in pairs])))

    def replaced(self, now: Mapping[int, str]) -> PackedInputs:
        """With another SHA-256 in these places."""
        digests = bytearray(self.digests)
        for place, sha256 in now.items():
            digests[DIGEST_BYTES * place : DIGEST_BYTES * (place + 1)] = bytes.fromhex(sha256)
        return PackedInputs(self.paths, bytes(digests))

    @property
    def contents(self) -> str:
        """All of the SHA-256s, one after the other."""
        return self.digests.hex()

    def outside(self, directory: str) -> list[tuple[str, str]]:
        """Those whose path does not begin with that."""
        return [self[place] for place, path in enumerate(self.paths) if not path.startswith(directory)]

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> tuple[str, str]: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[tuple[str, str], ...]: ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return tuple(self)[place]
        at = range(len(self.paths))[place]
        return (self.paths[at], self.digests[DIGEST_BYTES * at : DIGEST_BYTES * (at + 1)].hex())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        text = self.contents
        return zip(self.paths, (text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS)), strict=True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedInputs):
            return self.digests == other.digests and self.paths == other.paths
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"PackedInputs({tuple(self)})"


def doubted(inputs: Sequence[tuple[str, str]], believed: Collection[str]) -> Sequence[tuple[str, str]]:
    """Those of them that are not believed."""
    if not believed:
        return inputs
    if isinstance(inputs, PackedInputs):
        return [inputs[place] for place, path in enumerate(inputs.paths) if path not in believed]
    return [each for each in inputs if each[0] not in believed]
