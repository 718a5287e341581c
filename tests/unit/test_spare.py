"""What a child that waits for its run has done before: its pages are its own."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.service import spare

CODE = """if True:
    import os, resource
    from pipeline.service.spare import own_pages
    data = bytearray(os.urandom(1 << 12)) * 4096
    before = bytes(data[:4096])
    for own in (False, True):
        if os.fork():
            os.wait()
            continue
        if own:
            own_pages()
        assert data[:4096] == before
        first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for place in range(0, len(data), 4096):
            data[place] ^= 1
        print(own, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first, flush=True)
        os._exit(0)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or tuple(map(int, platform.release().split(".")[:2])) < (5, 14), reason="Linux 5.14 can"
)
def test_a_waiting_child_copies_its_pages_once() -> None:
    """16 MB that are written to: copied page by page by the one, there already for the other."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    faults = dict(line.split() for line in done.stdout.splitlines())
    assert int(faults["False"]) >= 4000 and int(faults["True"]) < 400, done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the runner needs /proc")
@pytest.mark.parametrize("count", [3, 4])
def test_only_a_whole_run_is_said_to_be_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int) -> None:
    """Whoever reads that it is taken tells the client that it has begun."""
    monkeypatch.setattr(spare, "own_pages", lambda: None)
    ours, theirs = socket.socketpair()
    data, null = b"1\0run 1", os.open(os.devnull, os.O_RDONLY)
    socket.send_fds(ours, [len(data).to_bytes(8, "big") + data], [null] * count)
    found = spare.wait_as_spare(str(tmp_path), theirs)
    theirs.close()
    assert ours.recv(9) == spare.READY + (spare.TAKEN if count == 4 else b"")
    assert (found is not None) == (count == 4)
    for handle in (null, *(found[1] if found else ())):
        os.close(handle)
    ours.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_mapped_files_of_any_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    shared, own = b"1000-2000 r--p 00000000 08:01 7    /lib/\xff\xc2\x85.so\n", b"3000-5000 rw-p 00000000 00:00 0 \n"
    maps.write_bytes(shared + own)
    copied: list[tuple[int, ...]] = []

    def madvise(*area: int) -> int:
        copied.append(area)
        return 0

    monkeypatch.setattr(spare, "Path", lambda _: maps)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(madvise=madvise))
    spare.own_pages()
    assert copied == [(0x3000, 0x2000, spare._POPULATE_WRITE)]
