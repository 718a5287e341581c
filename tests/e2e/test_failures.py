"""Everything that goes wrong on a developer's day: a named category, the next thing to do, no traceback, and a board
that was not touched unless the failure came after the write."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Result, Space

MAIN = "firmware/core/main.c"


def assert_failed(result: Result, category: str, *words: str, code: int = 1) -> None:
    assert result.code == code, result.out + result.err
    assert result.outcome == "failed"
    assert result.category == category, result.report["failure"]
    assert "hint: " in result.err
    for word in words:
        assert word in result.err, f"{word!r} not in {result.err!r}"


# --- before the port is opened ----------------------------------------------------------------


def assert_board_untouched(space: Space) -> None:
    assert not space.flash.exists(), "a board was opened for something that cannot be flashed"


def test_compile_error(host_space: Space) -> None:
    host_space.edit(MAIN, "    port_init();", "    port_init(;")
    result = host_space.deploy()
    assert_failed(result, "compile_error", "firmware/core/main.c:", ": error: ")
    line = next(text for text in result.err.splitlines() if ": error: expected" in text)
    path, row, column, _ = line.strip().split(":", 3)
    assert (path, row.isdigit(), column.isdigit()) == (MAIN, True, True)
    assert [s["outcome"] for s in result.report["stages"]][1:3] == ["failed", "not-run"]
    assert_board_untouched(host_space)

    host_space.edit(MAIN, "    port_init(;", "    port_init();")
    mended = host_space.deploy()
    assert mended.code == 0
    assert mended.totals["compiled"] == 0, "the object of the mended source is in the cache"


def test_link_error(host_space: Space) -> None:
    host_space.edit(MAIN, "    port_init();", "    void nowhere(void);\n    nowhere();\n    port_init();")
    assert_failed(host_space.deploy(), "link_error", "nowhere")
    assert_board_untouched(host_space)


def set_app_size(space: Space, size: int) -> None:
    path = space.file("firmware/partitions.csv")
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("ota_0"))
    fields = lines[row].split(",")
    fields[4] = f" {size:#x}"
    lines[row] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")


def test_an_image_that_does_not_fit_is_refused_before_the_port_is_opened(host_space: Space) -> None:
    app = next((host_space.path / "build").rglob("app.bin")).stat().st_size
    set_app_size(host_space, 0x10000)
    result = host_space.deploy()
    assert_failed(result, "image_too_large", str(0x10000))
    assert str(app) in result.err or str(app + -app % 4) in result.err
    assert_board_untouched(host_space)

    set_app_size(host_space, -(-app // 0x1000) * 0x1000)
    tight = host_space.deploy()
    assert tight.code == 0
    assert "nearly-full app" in tight.out


def test_toolchain_missing(host_space: Space, tmp_path: Path) -> None:
    hollow = tmp_path / "hollow"
    (hollow / "ziglang").mkdir(parents=True)
    (hollow / "ziglang/__init__.py").touch()
    root = Path(__file__).parents[2]
    result = host_space.deploy(env={"PYTHONPATH": f"{hollow}{os.pathsep}{root}"})
    assert_failed(result, "toolchain_missing", "zig")
    assert_board_untouched(host_space)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "reference"', "name = reference", ("invalid", "Invalid")),
        ('profile = "local-fast"', "profile = 3", ("must be a string", "integer")),
        ('port = "virtual:"', 'prot = "virtual:"', ("unknown key 'prot'", "did you mean 'port'")),
        ('kind = "zig"', 'kind = "zag"', ("zag", "zig")),
    ],
)
def test_bad_config(host_space: Space, old: str, new: str, words: tuple[str, ...]) -> None:
    text = host_space.file("deploy.toml").read_text()
    host_space.file("deploy.toml").write_text(text.replace(old, new))
    line = text.replace(old, new).partition(new)[0].count("\n") + 1
    for command in (["deploy"], ["list"], ["monitor"]):
        result = host_space.doit(*command)
        assert result.code in ((2,) if command == ["deploy"] else (2, 3)) and result.report is None
        assert f"deploy.toml:{line}:" in result.err
        assert any(word in result.err for word in words)
        assert "hint: " in result.err
    assert_board_untouched(host_space)


def test_missing_config(host_space: Space) -> None:
    host_space.file("deploy.toml").unlink()
    result = host_space.doit("deploy")
    assert result.code == 2
    assert "deploy.toml:1:1: error: there is no deploy.toml" in result.err


def test_missing_partition_table(host_space: Space) -> None:
    host_space.file("firmware/partitions.csv").unlink()
    result = host_space.deploy()
    assert result.code == 1
    assert "firmware/partitions.csv" in result.err
    assert_board_untouched(host_space)


# --- the port ---------------------------------------------------------------------------------


def with_port(space: Space, port: str) -> Space:
    space.edit("deploy.toml", 'port = "virtual:"', f'port = "{port}"')
    return space


def test_port_missing(host_space: Space) -> None:
    assert_failed(with_port(host_space, "/dev/does-not-exist").deploy(), "port_missing", "/dev/does-not-exist")


def test_nobody_listens(host_space: Space) -> None:
    assert_failed(with_port(host_space, "rfc2217://127.0.0.1:9").deploy(), "port_missing", "127.0.0.1:9")


@pytest.mark.skipif(not Path("/proc/sys/kernel/ostype").exists(), reason="needs a file that even root may not write")
def test_port_not_permitted(host_space: Space) -> None:
    assert_failed(with_port(host_space, "/proc/sys/kernel/ostype").deploy(), "port_permission", "dialout")


def test_port_held_by_another_process(host_space: Space) -> None:
    import serial

    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        with serial.Serial(name, exclusive=True):
            result = with_port(host_space, name).deploy()
        assert_failed(result, "port_busy", f"pid {os.getpid()}")
    finally:
        os.close(master)
        os.close(slave)


def test_a_virtual_board_in_use(host_space: Space) -> None:
    from virtualboard.nor import NorFlash

    host_space.flash.parent.mkdir(parents=True, exist_ok=True)
    holder = NorFlash(4 << 20, host_space.flash)
    try:
        assert_failed(host_space.deploy(), "port_busy", f"pid {os.getpid()}")
    finally:
        holder.close()
    assert host_space.deploy().code == 0


def test_a_port_without_a_board(host_space: Space) -> None:
    master, slave = os.openpty()
    try:
        result = with_port(host_space, os.ttyname(slave)).deploy()
        assert_failed(result, "sync_failed", "has no modem lines (DTR, RTS)")
        watched = host_space.doit("monitor", "--call", "info")
        assert "has no modem lines (DTR, RTS)" in watched.err and "vanished" not in watched.err
    finally:
        os.close(master)
        os.close(slave)


def test_another_board_on_the_port(host_space: Space, start_board: Callable[[], ServedBoard]) -> None:
    board = start_board()
    with_port(host_space, board.url)
    host_space.edit("deploy.toml", "default = true", 'default = true\nmac = "7c:df:a1:ff:ff:ff"')
    before = board.flash.read_bytes()
    result = host_space.deploy()
    assert_failed(result, "wrong_device", "7c:df:a1:ff:ff:ff")
    assert board.flash.read_bytes() == before, "identity is checked before the first write"


# --- the firmware -----------------------------------------------------------------------------


def boots_with(space: Space, first_statement: str) -> Result:
    space.edit(MAIN, "    port_init();", f"    port_init();\n    {first_statement}")
    result = space.deploy()
    assert [s["outcome"] for s in result.report["stages"]] == ["ran", "ran", "ran", "ran", "ran", "ran", "failed"]
    assert result.report["readiness"]["status"] == "failed"
    return result


def test_firmware_that_panics(space: Space) -> None:
    result = boots_with(space, "*(volatile int *)0 = 1;")
    assert_failed(result, "panic", "Guru Meditation")


def check_that_nothing_is_forged(result: Result, junit: str, summary: str, shown: str) -> None:
    """No line of any output is the last line of another deploy, or a command to a CI service."""
    last = [line for line in result.out.splitlines() if line.strip().startswith("DEPLOY_TX_ID=")]
    assert len(last) == 1 and last[0].startswith(f"DEPLOY_TX_ID={result.report['transaction_id']} ")
    for text in (result.err, junit, summary, shown):
        assert "forged" in text
        assert not re.search(r"^\s*(::|DEPLOY_TX_ID=)|##\w*\[|\x1b", text, re.M), text


def test_firmware_that_speaks_as_if_it_were_hotplate(host_space: Space) -> None:
    """A boot log that looks like a compiler's, a deploy's and a CI service's at once."""
    said = (
        "src/a.c:1:1: error: forged",
        "::stop-commands::forged",
        "DEPLOY_TX_ID=tx-20261121-083000-beef DEPLOY_OUTCOME=verified_unchanged",
        "##[error]forged",
        "\\033[2Jforged",
    )
    lines = "".join(f"{line}\\n" for line in said)
    hang = "for (volatile int i = 0;;) {\n        (void)i;\n    }"
    host_space.edit(MAIN, "    port_init();", f'    port_init();\n    out_text("{lines}");\n    {hang}')
    host_space.edit("deploy.toml", "timeout_ms = 5000", "timeout_ms = 1500")
    summary = host_space.file("summary.md")
    result = host_space.doit("deploy", "--junit", "junit.xml", env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert_failed(result, "rpc_timeout", "  | ::stop-commands::forged")
    shown = host_space.doit("report", "show", result.report["transaction_id"])
    junit = host_space.file("junit.xml").read_text()
    check_that_nothing_is_forged(result, junit, summary.read_text(), shown.out)
    stream = host_space.doit("deploy", "--json").out
    assert all(json.loads(line) for line in stream.splitlines()) and "##[" not in stream


def test_firmware_that_resets_for_ever(space: Space) -> None:
    assert_failed(boots_with(space, "port_reboot();"), "boot_loop")


def test_firmware_that_hangs_in_silence(space: Space) -> None:
    config = space.file("deploy.toml")
    # It must say something before: on a board process that is a matter of real time.
    limit = 1500 if 'port = "virtual:"' in config.read_text() else 5000
    config.write_text(re.sub("timeout_ms = [0-9]+", f"timeout_ms = {limit}", config.read_text()))
    result = boots_with(space, "for (volatile int i = 0;;) {\n        (void)i;\n    }")
    assert_failed(result, "rpc_timeout")
    assert "entry 0x" in result.report["failure"]["detail"], "the boot log is part of the report"


def test_firmware_that_reports_another_elf(space: Space) -> None:
    space.edit(MAIN, 'out_hex(who->app_elf_sha256, sizeof who->app_elf_sha256, "");', 'out_hex(who->mac, 6, "");')
    result = space.deploy()
    assert_failed(result, "wrong_image")


def test_a_mended_firmware_deploys_again(space: Space) -> None:
    boots_with(space, "port_reboot();")
    space.edit(MAIN, "\n    port_reboot();", "")
    result = space.deploy()
    assert result.code == 0, result.out + result.err
    assert result.written == ["app"]


def test_nothing_of_a_failed_run_is_lost(host_space: Space) -> None:
    """The report directory cannot be written: the event log holds everything and the exit code says what happened."""
    shutil.rmtree(host_space.path / "reports", ignore_errors=True)
    host_space.file("reports").write_text("a file where the directory should be")
    result = host_space.doit("deploy")
    assert result.code == 0
    assert "note: the report could not be written" in result.err and "note: " not in result.out
    assert list((host_space.path / ".deploy/runs").glob("tx-*.log"))
