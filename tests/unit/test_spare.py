"""What a child that waits for its run has done before: its pages are its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
