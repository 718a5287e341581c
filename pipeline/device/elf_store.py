"""The ELF files with debug information of the builds of a project, by what a device calls them.

Finds one by what the device says it runs (`app_elf_sha256`): among the build's products, else in the content-addressed
store. Does not know what debug information says: each link comes here, and decoding is loaded for a panic only.
Invariant: an ELF is given only if its own bytes have the identity that was asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cache.blobs import BlobStore
from cache.digest import Digest
from cache.durable import read_file, read_text, write_atomic
from cache.named_tuple import NamedTuple
from pipeline.formats import elf

KEEP = 128
"""Identities whose ELF is remembered, two of each build; the files themselves lie in the store as long as that keeps
them."""

MIN_PREFIX = 8
"""Digits of an identity that name a build: ESP-IDF's panic handler prints nine."""


def identities(data: bytes) -> tuple[str, ...]:
    """What a device may call an ELF file: the SHA-256 of its loaded sections (ours), or of the whole file (ESP-IDF)."""
    stripped = elf.strip(data)
    whole = hashlib.sha256(data).hexdigest()
    return (whole,) if isinstance(stripped, str) else (hashlib.sha256(stripped).hexdigest(), whole)


class FoundElf(NamedTuple):
    """An ELF with debug information, and what to call it."""

    shown: str
    data: bytes


class ElfStore:
    """The ELF files of this project's builds by identity.

    elfs.v1/<app_elf_sha256>    `<sha256 of the ELF> <size> <path>`: a blob of the store below `cache_dir`
    """

    def __init__(self, root: Path, state_dir: Path, cache_dir: Path) -> None:
        self._root = root
        self._index = state_dir / "elfs.v1"
        self._blobs = BlobStore(cache_dir)

    def keep(self, path: str) -> None:
        """Remember the ELF at `path` (relative to the root) under each of its identities. A disk that is full costs a
        backtrace and no build, so that errors are deliberately ignored."""
        with contextlib.suppress(OSError):
            data = read_file(str(self._root / path))
            digest = self._blobs.put_bytes(data)
            for name in identities(data):
                write_atomic(self._index / name, f"{digest.hex} {digest.size} {path}\n".encode(), durable=False)
            entries = sorted(self._index.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
            for entry in entries[:-KEEP]:
                entry.unlink(missing_ok=True)

    def find(self, identity: str) -> FoundElf | None:
        """The ELF that calls itself `identity` (at least `MIN_PREFIX` of its hex digits)."""
        wanted = identity.lower()
        if len(wanted) < MIN_PREFIX:
            return None
        candidates = (*self._kept(wanted), *self._built())
        return next((found for found in candidates if any(i.startswith(wanted) for i in identities(found.data))), None)

    def _kept(self, wanted: str) -> Iterator[FoundElf]:
        with contextlib.suppress(OSError):
            for entry in sorted(self._index.iterdir()):
                if not entry.name.startswith(wanted):
                    continue
                with contextlib.suppress(OSError, ValueError):
                    hexadecimal, size, path = read_text(entry).rstrip("\n").split(" ", 2)
                    data = self._blobs.read(Digest(hexadecimal, int(size)))
                    if data is not None:
                        yield FoundElf(path, data)

    def _built(self) -> Iterator[FoundElf]:
        for path in sorted((self._root / "build").rglob("*.elf")):
            if not path.name.endswith(".stripped.elf"):
                with contextlib.suppress(OSError):
                    yield FoundElf(str(PurePosixPath(path.relative_to(self._root))), read_file(str(path)))
