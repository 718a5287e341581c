"""A shared cache as its users meet it: two checkouts, whole processes, and servers that are dead, silent or wrong."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache_server import CacheServer
from tests.e2e.test_concurrency import calls, products, with_store
from tests.e2e.test_fastpath import FastPathProject

COLD = 6
"""How often a compiler or linker runs."""


@pytest.fixture
def server() -> Iterator[CacheServer]:
    with CacheServer() as server:
        yield server


def checkout(directory: Path, url: str, mode: str = "") -> FastPathProject:
    """One with a store of its own."""
    project = with_store(FastPathProject(directory), directory / "store")
    config = project.root / "deploy.toml"
    config.write_text(config.read_text().replace("[cache]\n", f'[cache]\nremote = "{url}"\n'))
    project.env["HOME"] = str(directory)
    project.env["HOTPLATE_CACHE_MODE"] = mode
    return project


def test_a_second_checkout_compiles_nothing(tmp_path: Path, server: CacheServer) -> None:
    first = checkout(tmp_path / "first", server.url, "read-write")
    done = first.run("doit", "compile", "link")
    assert done.returncode == 0 and calls(first) == COLD, done.stderr
    assert "entries sent to the shared cache (" in done.stdout + done.stderr
    assert server.count("PUT", "/ac/") >= 7
    server.forget()
    second = checkout(tmp_path / "second", server.url)
    planned = second.out("doit", "plan")
    assert f"host: the shared cache {server.url} was not asked; it may have some of that\n" in planned
    assert server.requests == []
    done = second.run("doit", "compile", "link")
    assert done.returncode == 0 and calls(second) == 0, done.stderr
    told = done.stdout + done.stderr
    restored = re.findall(r"^note: (\d+) results? restored from the shared cache \(", told, re.MULTILINE)
    assert sum(map(int, restored)) >= COLD
    assert server.count("PUT") == 0
    firsts = {path: data for path, data in products(first).items() if not path.endswith(".d")}
    assert products(second) == firsts
    server.forget()
    assert "shared" not in second.out("doit", "compile", "link") + second.out("hotplate", "compile", "link")
    assert server.requests == []


def test_a_dead_server_costs_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    project = checkout(tmp_path, f"http://127.0.0.1:{port}", "read-write")
    done = project.run("doit", "compile", "link")
    assert done.returncode == 0 and calls(project) == COLD
    line = f"note: shared cache http://127.0.0.1:{port}: Connection refused; this run goes on without it\n"
    assert (done.stdout + done.stderr).count(line) == 1 and (done.stdout + done.stderr).count("shared cache") == 1


def test_a_silent_server_costs_no_more_than_is_promised(tmp_path: Path) -> None:
    """Connections are made, and nothing is ever said."""

    def costs_s(place: Path) -> float:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            project = checkout(place / "silent", f"http://127.0.0.1:{listener.getsockname()[1]}", "read-write")
            began_s = time.monotonic()
            done = project.run("doit", "compile", "link")
            silent_s = time.monotonic() - began_s
        other = checkout(place / "off", "http://127.0.0.1:1", "off")
        began_s = time.monotonic()
        assert "shared" not in other.out("doit", "compile", "link")
        assert done.returncode == 0 and calls(project) == COLD
        # That it does not answer, or where everything was made before anybody waited for that, that it was not sent to.
        assert (done.stdout + done.stderr).count("note: shared cache") == 1
        return silent_s - (time.monotonic() - began_s)

    # 2 s at the end; and what a busy machine adds, which is not the same each time
    assert any(costs_s(tmp_path / str(n)) < 2.0 + 5.0 for n in range(3))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('remote = "http://me:secret@h"', "'cache.remote' holds a user's name or password"),
        ('remote = "redis://h"', "'cache.remote' is 'redis://h', which is no URL of a shared cache"),
        ('remote_mode = "write"', "'cache.remote_mode' is 'write'"),
    ],
)
def test_bad_configuration(tmp_path: Path, line: str, error: str) -> None:
    project = with_store(FastPathProject(tmp_path), tmp_path / "store")
    config = project.root / "deploy.toml"
    config.write_text(config.read_text().replace("[cache]\n", f"[cache]\n{line}\n"))
    done = project.run("doit", "compile")
    assert done.returncode == 2 and "deploy.toml:" in done.stderr and error in done.stderr
    assert "secret" not in done.stderr
