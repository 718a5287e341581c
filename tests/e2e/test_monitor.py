"""`doit monitor` and what a deploy says about a panic: with the reference firmware, on an in-process board."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from pipeline.model import Failure
from pipeline.run.build import load_build
from pipeline.run.device_service import DeviceService
from pipeline.run.options import Options
from tests.e2e.inprocess import deploy
from tests.e2e.space import Space

PANIC = '{"jsonrpc":"2.0","id":1,"method":"panic"}\n'
CALLS = {"run_panic": "port_panic()", "serve_request": ".run(", "serve_line": "serve_request(", "serve": "rpc_byte("}
"""Function -> what stands in the line that a frame of it must name."""


@pytest.fixture
def deployed(host_space: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.setenv("XDG_CACHE_HOME", str(host_space.path / ".deploy" / "user-cache"))
    assert deploy(host_space.path).outcome == "full_flashed"
    return host_space


def boards_of(space: Space) -> DeviceService:
    build = load_build(Options(), space.path)
    assert not isinstance(build, Failure)
    return DeviceService(build)


def frames(text: str) -> dict[str, tuple[str, int]]:
    """Function -> file and line of each decoded frame."""
    found = re.findall(r"^[ |]*#\d+ 0x[0-9a-f]{8} (\w+) at (\S+):(\d+)$", text, re.M)
    return {function: (file, int(line)) for function, file, line in found}


def test_a_panic_is_decoded_live(deployed: Space) -> None:
    shown = deployed.doit("monitor", stdin=PANIC)
    assert shown.code == 0
    assert "Guru Meditation Error" in shown.out and "#0" not in shown.out, "stdout is the device's alone"
    assert "decoded with build/local-fast/app.elf (named by the device)" in shown.err
    trace = frames(shown.err)
    assert list(trace) == [
        *("port_panic", "run_panic", "serve_request", "serve_line", "rpc_byte", "serve", "core_main", "_start"),
    ]
    for function, call in CALLS.items():
        file, line = trace[function]
        assert call in deployed.file(file).read_text().splitlines()[line - 1], f"{function} at {file}:{line}"

    raw = deployed.doit("monitor", "--no-decode", stdin=PANIC)
    assert raw.err == ""
    assert raw.out.count("Guru Meditation") == 1


def test_a_call_prints_its_result_alone(deployed: Space) -> None:
    answer = deployed.doit("monitor", "--call", "echo", "--params", '["x", 7]')
    assert (answer.code, json.loads(answer.out), answer.err) == (0, ["x", 7], "")
    refused = deployed.doit("monitor", "--call", "nope")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("device bench on virtual:: error: `nope` was refused with -32601: Method not found\n")
    silent = deployed.doit("monitor", "--call", "hang", "--seconds", "0.5")
    assert silent.code == 1
    assert "`hang`: no answer came within 500 ms" in silent.err


USAGE = [
    (["bench"], "takes no arguments, got bench"),
    (["--until", "("], "--until '(' is a bad regular expression"),
    (["--call", "x", "--params", "{"], "--params '{' is not JSON"),
    (["--params", "[]"], "--params needs --call"),
    (["--call", "x", "--until", "y"], "exclude each other"),
]


def test_bad_usage(host_space: Space) -> None:
    for words, fact in USAGE:
        done = host_space.doit("monitor", *words)
        assert (done.code, done.out) == (3, ""), words
        assert fact in done.err and "hint: " in done.err


def test_a_deploy_that_panics_shows_where(deployed: Space) -> None:
    deployed.edit("firmware/core/main.c", "    port_init();", "    port_init();\n    port_panic();")
    run = deploy(deployed.path)
    assert run.category == "panic"
    trace = frames(run.report["failure"]["detail"])
    file, line = trace["core_main"]
    assert "port_panic();" in deployed.file(file).read_text().splitlines()[line - 1]
    assert run.report["failure"]["hint"].startswith("read the backtrace")


def test_the_elf_of_what_runs_is_found_although_the_build_moved_on(deployed: Space) -> None:
    boards = boards_of(deployed)
    identity = boards.build.images.expected_elf()
    panic = ["Guru Meditation Error: Core  0 panic'ed (x)", "MEPC    : 0x42000100  RA      : 0x00000000"]
    named = [*panic, f"ELF file SHA256: {identity}"]
    before = boards.decoded(named)
    assert before[0].endswith("(named by the device):") and len(before) == 2
    assert boards.decoded(panic)[0].endswith("(assumed: the device did not name its ELF):")
    assert boards.decoded(panic)[1:] == before[1:]

    deployed.edit("firmware/core/main.c", "    announce();", "    announce();\n    announce();")
    assert deploy(deployed.path).outcome in ("delta_flashed", "regions_flashed")
    moved = boards_of(deployed)
    assert moved.build.images.expected_elf() != identity
    assert moved.decoded(named) == before, "its debug information is in the store"
    shutil.rmtree(deployed.path / ".deploy/elfs.v1")
    assert moved.decoded(named) == (f"Backtrace: no ELF with app_elf_sha256 {identity} is known here",)


def test_a_call_without_a_reset_waits_for_a_board_that_opening_powers(deployed: Space) -> None:
    answer = deployed.doit("monitor", "--no-reset", "--call", "echo", "--params", '["x", 7]')
    assert (answer.code, json.loads(answer.out or "null")) == (0, ["x", 7]), answer.err
