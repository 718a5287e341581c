"""Every category of the failure map is reached by a real cause: `CAUSES` has one for each, or this file fails.

What reaches it is real: files, tools, the board's faults, signals. Replaced are only what this machine cannot have (two
USB boards, see `port_ambiguous`) and how long a lock is waited for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.failures import FAILURE_MAP
from pipeline.livetest.selection import LiveOptions
from pipeline.livetest.session import failure_of, run_live, select
from pipeline.livetest.targets import BoardTarget
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.run import lock as project_lock
from pipeline.run.device_service import DeviceService
from pipeline.run.options import Options
from pipeline.run.run import load_run
from tests.e2e.inprocess import NONE, InProcessRun, Plants, deploy
from tests.e2e.space import Space

C = FailureCategory
MAIN = "firmware/core/main.c"
ACTION = '\n[[action]]\nname = "bad"\nargv = ["python", "-c", "raise SystemExit(3)"]\noutputs = ["build/bad"]\n'


@pytest.fixture
def space(host_space: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """The project, and its own cache (a copy of the template's)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(host_space.path / ".deploy" / "user-cache"))
    host_space.file(".deploy").mkdir(exist_ok=True)
    return host_space


Cause = Callable[[Space, pytest.MonkeyPatch], "InProcessRun | Failure"]


def run(space: Space, plants: Plants = NONE, **options: Any) -> InProcessRun:
    return deploy(space.path, plants, **options)


def with_port(space: Space, port: str) -> InProcessRun:
    space.edit("deploy.toml", 'port = "virtual:"', f'port = "{port}"')
    return run(space)


def with_code(space: Space, path: str, old: str, new: str) -> InProcessRun:
    space.edit(path, old, new)
    return run(space)


def config_error(space: Space, _: pytest.MonkeyPatch) -> Failure:
    space.edit("deploy.toml", 'kind = "zig"', 'kind = "zag"')
    found = load_run(Options(), space.path)
    assert isinstance(found, Failure)
    return found


def toolchain_missing(space: Space, patch: pytest.MonkeyPatch) -> InProcessRun:
    patch.setenv("PATH", str(space.path))
    return with_code(space, "deploy.toml", 'kind = "zig"', 'kind = "gcc"')


def compile_error(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    return with_code(space, MAIN, "    port_init();", "    port_init(;")


def link_error(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    return with_code(space, MAIN, "    port_init();", "    void nowhere(void);\n    nowhere();\n    port_init();")


def image_too_large(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    path = space.file("firmware/partitions.csv")
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in rows:
        if row[0] == "ota_0":
            row[4] = " 0x10000"
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    return run(space)


def action_failed(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    path = space.file("deploy.toml")
    path.write_text(path.read_text() + ACTION)
    result = run(space)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text == ACTION.splitlines()[2])
    assert result.report["failure"]["where"].startswith(f"deploy.toml:{line}:"), "editors go to its table"
    return result


def of_the_lock(space: Space) -> Failure:
    context = load_run(Options(), space.path)
    assert not isinstance(context, Failure)
    found = context.lock()
    assert isinstance(found, Failure)
    return found


def cache_error(space: Space, _: pytest.MonkeyPatch) -> Failure:
    locks = space.file(".deploy/locks")
    if locks.exists():
        locks.rename(space.file(".deploy/elsewhere"))
    locks.write_text("a file where the directory should be")
    return of_the_lock(space)


def lock_timeout(space: Space, patch: pytest.MonkeyPatch) -> Failure:
    patch.setattr(project_lock, "LOCK_TIMEOUT_S", 0.05)
    holder = load_run(Options(), space.path)
    assert not isinstance(holder, Failure) and isinstance(holder.lock(), float)
    try:
        return of_the_lock(space)
    finally:
        holder.unlock()


def port_missing(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    return with_port(space, "/dev/does-not-exist")


def port_busy(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    from virtualboard.nor import NorFlash

    space.flash.parent.mkdir(parents=True, exist_ok=True)
    holder = NorFlash(4 << 20, space.flash)
    try:
        return run(space)
    finally:
        holder.close()


def port_permission(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    if not Path("/proc/sys/kernel/ostype").exists():
        pytest.skip("needs a file that even root may not write")
    return with_port(space, "/proc/sys/kernel/ostype")


def port_ambiguous(space: Space, patch: pytest.MonkeyPatch) -> InProcessRun:
    from serial.tools import list_ports
    from serial.tools.list_ports_common import ListPortInfo

    def board(path: str) -> ListPortInfo:
        info = ListPortInfo(path, skip_link_detection=True)
        info.vid, info.pid = 0x303A, 0x1001
        return info

    patch.setattr(list_ports, "comports", lambda: [board("/dev/ttyACM0"), board("/dev/ttyACM1")])
    return with_port(space, "auto")


def protected_device(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    from virtualboard.chips import Security
    from virtualboard.port import open_virtual

    def burn(context: Any) -> None:
        space.flash.parent.mkdir(parents=True, exist_ok=True)
        burnt = Security(flash_encryption=True)
        context.boards._open_port = lambda device: open_virtual("esp32c3", space.flash, security=burnt)

    return run(space, edit=burn)


def planted(stage: Stage, fault: str) -> Cause:
    return lambda space, _: run(space, {stage: [fault]})


def sync_failed(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    return with_port(space, "virtual:?fault=silence:boot=0,times=0")


def wrong_image(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    named = 'out_hex(who->app_elf_sha256, sizeof who->app_elf_sha256, "");'
    return with_code(space, MAIN, named, 'out_hex(who->mac, 6, "");')


def unhealthy(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    space.edit("deploy.toml", 'until = "rpc:ready"', 'until = "rpc:health"')
    result = with_code(space, "firmware/modules/ballast.c", "return ballast_set(self, 0);", "return self == 0;")
    assert result.report["readiness"]["failure_reason"] == "unhealthy:ballast"
    told = {module["name"]: module["setup_ok"] for module in result.report["readiness"]["modules"]}
    assert told == {"blink": True, "sampler": True, "ballast": False}
    assert "ballast" in result.report["failure"]["message"]

    space.edit("deploy.toml", 'until = "rpc:health"', 'until = "rpc:health"\nallow_unhealthy = true')
    allowed = run(space)
    assert allowed.outcome == "verified_unchanged"
    assert allowed.report["readiness"]["note"].endswith("ballast")
    return result


def failed_test(space: Space, _: pytest.MonkeyPatch) -> Failure:
    """A live test on the board expects something else."""
    assert run(space).outcome == "full_flashed"
    space.file("tests/live").mkdir(parents=True)
    space.file("tests/live/wrong.toml").write_text('[[step]]\ncall = "ping"\nresult = "pang"\n')
    context = load_run(Options(), space.path)
    assert not isinstance(context, Failure)
    boards = DeviceService(context.build)
    try:
        selected = select(context.project, LiveOptions())
        assert not isinstance(selected, Failure)
        target = BoardTarget(boards, context.project.devices[0])
        suite = run_live(context.project, target, selected, LiveOptions())
        assert not isinstance(suite, Failure)
        failure = failure_of(suite)
        assert failure is not None
        return failure
    finally:
        boards.close()
        context.close()


def interrupted(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    def stop_writing(context: Any) -> None:
        context.screen.on_progress = lambda label, done, total: (
            signal.raise_signal(signal.SIGINT) if label == "app" else None
        )

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run(space, edit=stop_writing)
    finally:
        signal.signal(signal.SIGINT, before)


def over_budget(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    return with_code(space, "deploy.toml", "total = 4000", "total = 1\nenforce = true")


def unknown(space: Space, _: pytest.MonkeyPatch) -> InProcessRun:
    """A defect of ours, as any exception is that nobody expected."""

    def broken(context: Any) -> None:
        context.boards._open_port = lambda device: device.no_such_attribute

    result = run(space, edit=broken)
    assert result.report["totals"]["unknown_failures"] == 1
    assert "[this is a bug]" in result.report["failure"]["message"]
    return result


CAUSES: Mapping[FailureCategory, Cause] = {
    C.CONFIG_ERROR: config_error,
    C.TOOLCHAIN_MISSING: toolchain_missing,
    C.COMPILE_ERROR: compile_error,
    C.LINK_ERROR: link_error,
    C.IMAGE_TOO_LARGE: image_too_large,
    C.ACTION_FAILED: action_failed,
    C.CACHE_ERROR: cache_error,
    C.LOCK_TIMEOUT: lock_timeout,
    C.PORT_MISSING: port_missing,
    C.PORT_BUSY: port_busy,
    C.PORT_PERMISSION: port_permission,
    C.PORT_AMBIGUOUS: port_ambiguous,
    C.WRONG_DEVICE: planted(Stage.VERIFY_FLASH, "wrong-chip:chip=esp32s3"),
    C.PROTECTED_DEVICE: protected_device,
    C.SYNC_FAILED: sync_failed,
    C.WRITE_FAILED: planted(Stage.REFLASH, "brown-out:write=1"),
    C.VERIFY_MISMATCH: planted(Stage.REFLASH, "worn:sector=0x12000"),
    C.BOOT_LOOP: planted(Stage.REATTACH, "boot-loop:boot=0"),
    C.PANIC: planted(Stage.REATTACH, "panic:boot=0"),
    C.NO_OUTPUT: planted(Stage.REATTACH, "silence"),
    C.WRONG_IMAGE: wrong_image,
    C.RPC_TIMEOUT: planted(Stage.REATTACH, "garble:to=host,at=0,every=40"),
    C.UNHEALTHY: unhealthy,
    C.TEST_FAILED: failed_test,
    C.INTERRUPTED: interrupted,
    C.OVER_BUDGET: over_budget,
    C.UNKNOWN: unknown,
}


@pytest.mark.parametrize("category", FailureCategory)
def test_each_category_has_a_cause(category: FailureCategory, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CAUSES[category](space, monkeypatch)
    row = FAILURE_MAP[category]
    if isinstance(result, Failure):
        assert (result.category, result.stage) == (category, None)
        assert (result.retryable, result.user_action) == (row.retryable, row.user_action.value)
        return
    failure = result.report["failure"]
    assert failure["category"] == category, failure
    assert result.outcome == ("interrupted" if category is C.INTERRUPTED else "failed")
    # A whole run has no stage.
    assert failure["stage"] in {str(stage) for stage in row.stages} or row.stages == tuple(Stage), failure
    assert (failure["retryable"], failure["user_action"]) == (row.retryable, row.user_action.value)
    assert failure["message"] and failure["hint"]
    if category is not C.UNKNOWN:
        assert result.report["totals"]["unknown_failures"] == 0
    assert os.environ["XDG_CACHE_HOME"].startswith(str(space.path)), "no test reaches another one's cache"


@pytest.mark.parametrize("until", ["line:jsonrpc", "byte"])
def test_an_application_elsewhere_in_flash_is_another_one(space: Space, until: str) -> None:
    """Firmware that is not asked who it is: the bootloader says what it starts."""
    space.edit("deploy.toml", 'until = "rpc:ready"', f'until = "{until}"')
    assert run(space).outcome == "full_flashed"
    result = with_code(
        space, "firmware/boot/boot.c", "log_short_hex(app->offset);", "log_short_hex(app->offset + 0x1000);"
    )
    failure = result.report["failure"]
    assert (failure["category"], failure["stage"]) == ("wrong_image", "ttfb")
    assert "the bootloader starts the application at 0x11000, this build's lies at 0x10000" in failure["message"]
