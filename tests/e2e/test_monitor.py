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
    (["bench", "desk"], "takes one device, got bench desk"),
    (["--device", "bench", "bench"], "takes one device, got bench"),
    (["--filter", "["], "--filter '[' is a bad regular expression"),
    (["--mute", "("], "--mute '(' is a bad regular expression"),
    (["--levels", "wifi:Q"], "--levels: 'wifi:Q' is no TAG:LEVEL"),
    (["--seconds", "-1"], "--seconds is -1, which is no time"),
    (["--seconds", "nan"], "--seconds is nan, which is no time"),
    (["--seconds", "x"], "--seconds: error: is 'x', but must be a number"),
    (["--nope"], "--nope: error: is no option here"),
    (["--grep", "x"], "--grep searches the history"),
    (["--since", "10m"], "--since '10m' is no place of a live console"),
    (["--raw", "--timestamps"], "--raw shows every byte as it is"),
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


def test_calls_from_the_keyboard_are_answered(deployed: Space) -> None:
    """And what is a line for the board goes to the board, whatever it begins with."""
    asked = '/call echo ["x", 7]\n/call nope\n/call\n{"jsonrpc":"2.0","id":5,"method":"echo","params":["raw"]}\n'
    shown = deployed.doit("monitor", stdin=asked)
    assert shown.code == 0
    assert re.search(r"^-- echo answered after \d+ ms: \[$\n^--   \"x\",$\n^--   7$\n^-- \]$", shown.err, re.M), (
        shown.err
    )
    assert re.search(r"^-- nope answered after \d+ ms: error -32601 \(Method not found\)$", shown.err, re.M)
    assert "-- /call needs the name of a method" in shown.err
    assert '"id":5,"result":["raw"]' in shown.out.replace(" ", "")
    raw = deployed.doit("monitor", "--raw", stdin='/call echo ["x"]\n')
    assert raw.code == 0 and "answered" not in raw.err, "a raw monitor takes nothing for itself"


def test_what_a_monitor_heard_is_kept(deployed: Space) -> None:
    """With the identity of the ELF; found again later, by time and by a search."""
    assert deployed.doit("monitor", stdin=PANIC).code == 0
    kept = deployed.doit("monitor", "--history", "--since", "boot")
    assert kept.code == 0 and "ESP-ROM:" in kept.out.splitlines()[1], kept.out
    elf = boards_of(deployed).build.images.expected_elf()
    assert f"-- firmware {elf[:16]} says that it runs (elf {elf})" in deployed.doit("monitor", "--history").out
    found = deployed.doit("monitor", "--history", "--grep", "Guru", "--since", "1h")
    assert found.code == 0 and len(found.out.splitlines()) == 2
    nothing = deployed.doit("monitor", "--history", "--grep", "no such line")
    assert (nothing.code, nothing.out) == (1, "") and "nothing of that is kept" in nothing.err
    assert "no transaction 'tx-1'" in deployed.doit("monitor", "--history", "--since", "tx-1").err


def test_a_chosen_view_in_a_pipe(deployed: Space) -> None:
    """Only what matches, with instants; the crash in full, and how much was left out."""
    shown = deployed.doit("monitor", "--filter", "ready", "--timestamps", "--no-decode", stdin=PANIC)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line) for line in lines)
    assert any('"ready"' in line for line in lines) and any("Guru Meditation" in line for line in lines)
    assert not any(line.partition(" ")[2].startswith("rst:") for line in lines[:-2])
    assert re.search(r"^-- \d+ lines were not shown", shown.err, re.M)
