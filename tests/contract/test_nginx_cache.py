"""The client of a shared cache against nginx with DAV, as docs/shared-cache.md configures it."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.actions import ActionResult, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey, digest_bytes
from cache.remote import Remote, RemoteCounts
from pipeline.config.schema import CacheSettings
from pipeline.effects.clock import SystemClock
from pipeline.remote import http_cache
from pipeline.remote.opening import open_remote

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
PAGE = Path(__file__).parents[2] / "docs/shared-cache.md"
KEY = ActionKey("ab" * 32)
WAIT_S = 60.0


def configuration(directory: Path, port: int) -> str:
    """That of the page, at home in `directory`."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    server = (
        found[1].replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/srv/hotplate-cache", f"{directory}/srv")
    )
    server = server.replace("/etc/nginx/hotplate-cache.htpasswd", f"{directory}.htpasswd")
    temporary = " ".join(
        f"{name}_temp_path {directory}/tmp/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;\n"
        f"events {{}}\nhttp {{ access_log {directory}/access; {temporary}\n{server}}}\n"
    )


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    assert NGINX is not None
    directory = tmp_path_factory.mktemp("nginx")
    (directory / "tmp").mkdir()
    (directory / "srv").mkdir()
    Path(f"{directory}.htpasswd").write_text("ci:{PLAIN}secret\n")
    argv = [NGINX, "-p", str(directory), "-c", str(directory / "conf"), "-e", str(directory / "log")]
    for _ in range(5):  # nginx cannot choose a port, and one that is free now may be another's then
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (directory / "conf").write_text(configuration(directory, port))
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if _listens(process, directory):
            break
    try:
        assert process.poll() is None, (directory / "log").read_text()
        yield f"http://127.0.0.1:{port}", directory
    finally:
        process.kill()
        process.wait()


def _listens(process: subprocess.Popen[bytes], directory: Path) -> bool:
    """It says who it is once it has its port; without one it ends."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if (directory / "pid").exists():
            return True
        time.sleep(0.01)
    process.kill()
    process.wait()
    return False


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need seconds for what is answered at once on another."""
    monkeypatch.setattr(http_cache, "FIND_S", WAIT_S)
    monkeypatch.setattr(http_cache, "STALL_S", WAIT_S)


def client(url: str, directory: Path, *, with_password: bool = True) -> Remote:
    netrc = directory / "netrc"
    netrc.write_text("machine 127.0.0.1 login ci password secret\n")
    environment = {"NETRC": str(netrc)} if with_password else {}
    opened = open_remote(CacheSettings(remote=url, remote_mode="read-write"), environment, SystemClock())
    assert not isinstance(opened, str)
    return opened


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_what_is_sent_is_found_without_a_password(nginx: tuple[str, Path], tmp_path: Path, size: int) -> None:
    url, directory = nginx
    theirs, mine = BlobStore(tmp_path / "theirs"), BlobStore(tmp_path / "mine")
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    key = ActionKey(f"{size:064x}")
    result = ActionResult(
        (OutputFile("build/a.o", theirs.put_bytes(data), True),), None, theirs.put_bytes(b"warning"), 5
    )
    sender = client(url, directory)
    sender.offer(key, result, theirs)
    sender.settle(WAIT_S)
    assert sender.notes() == () and sender.counts().offered == 1
    assert (directory / f"srv/ac/{key}").is_file()
    reader = client(url, directory, with_password=False)
    assert reader.find([key, ActionKey("f" * 64)], mine) == {key: result}
    assert reader.fetch(result.blobs(), mine, WAIT_S) == set(result.blobs())
    assert mine.read(result.outputs[0].digest) == data
    assert reader.counts() == RemoteCounts(2, 4, 1, 2, size + 7) and reader.notes() == ()
    reader.settle(1)


def test_a_thousand_questions(nginx: tuple[str, Path], tmp_path: Path) -> None:
    url, directory = nginx
    many = [b"blob %d" % n for n in range(1000)]
    (directory / "srv/cas").mkdir(exist_ok=True)
    for data in many:
        (directory / "srv/cas" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    reader = client(url, directory)
    digests = [digest_bytes(data) for data in many]
    assert reader.fetch(digests, BlobStore(tmp_path / "mine"), WAIT_S) == set(digests)
    assert reader.counts()[:4] == (1, 1000, 0, 1000)
    reader.settle(1)


def test_without_a_password_nothing_is_taken(nginx: tuple[str, Path], tmp_path: Path) -> None:
    url, directory = nginx
    blobs = BlobStore(tmp_path / "mine")
    sender = client(url, directory, with_password=False)
    key = ActionKey("cd" * 32)  # nobody else's
    sender.offer(key, ActionResult((OutputFile("build/a.o", blobs.put_bytes(b"mine"), True),)), blobs)
    sender.settle(WAIT_S)
    assert sender.counts().given_up == 1 and "does not take results: it answers 401" in sender.notes()[0]
    assert not (directory / f"srv/ac/{key}").exists()


def test_what_somebody_else_put_there_is_refused(nginx: tuple[str, Path], tmp_path: Path) -> None:
    url, directory = nginx
    digest = digest_bytes(b"what it should be")
    for kind, name in (("cas", digest.hex), ("ac", KEY)):
        (directory / "srv" / kind).mkdir(exist_ok=True)
        (directory / "srv" / kind / name).write_bytes(b"what it really is")
    reader = client(url, directory)
    blobs = BlobStore(tmp_path / "mine")
    assert reader.find([KEY], blobs) == {} and reader.fetch([digest], blobs, WAIT_S) == frozenset()
    assert reader.counts().refused == 2 and not any(p.is_file() for p in blobs.root.rglob("*"))
    reader.settle(1)
