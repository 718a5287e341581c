"""`doit doctor`: each finding from a real cause, and the verdict that follows from all of them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.cli.doctor_command import Doctor
from pipeline.client.protocol import Holder
from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.device import port_state
from pipeline.device.leases import BoardLease, board_name, user_shelf
from pipeline.device.port_state import PortState
from pipeline.doctor import boards, packages, places
from pipeline.doctor.examine import examine
from pipeline.doctor.findings import (
    Condition,
    DoctorFinding,
    bad,
    can_deploy,
    findings_json,
    findings_text,
    note,
    ok,
    warning,
)
from pipeline.doctor.tools import needed_extras
from pipeline.run.options import Options
from tests import given_firmware as given

PREBUILT = """\
[project]
name = "given"

[toolchain]
kind = "prebuilt"

[prebuilt]
directory = "build"

[device.bench]
port = "virtual:"

[readiness]
until = "line:not executed"
"""


NO_OPTIONS = Options()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project around firmware of ESP-IDF for the ESP32-S3."""
    given.esp_idf(tmp_path / "build", "esp32s3")
    (tmp_path / "deploy.toml").write_text(PREBUILT)
    (tmp_path / "dodo.py").write_text("from pipeline.tasks import *\n")
    return tmp_path


def found(root: Path, area: str, *, probe: bool = False, options: Options = NO_OPTIONS) -> DoctorFinding:
    """The worst finding of an area."""
    findings = [one for one in examine(root, options, probe=probe) if one.area == area]
    assert findings, f"nothing was said of {area}"
    return max(findings, key=lambda one: list(Condition).index(one.condition))


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "deploy.toml").read_text()
    assert text.count(old) == 1
    (root / "deploy.toml").write_text(text.replace(old, new))


# --- the whole ----------------------------------------------------------------------------------


def test_a_project_in_order(root: Path) -> None:
    before = sorted(path.name for path in root.rglob("*"))
    findings = list(examine(root, Options(), probe=False))
    assert can_deploy(findings), findings
    for one in findings:
        assert one.condition in (Condition.OK, Condition.NOTE) or one.hint[0].islower(), one
    assert sorted(path.name for path in root.rglob("*")) == before, "an examination leaves nothing behind"
    told = {one.area: one.fact for one in findings}
    assert told["config"] == "deploy.toml is in order: given, toolchain prebuilt, esp-idf firmware for esp32s3"
    assert told["device bench"] == "a virtual esp32s3 in this process"


def test_without_a_project_it_looks_at_the_rest(tmp_path: Path) -> None:
    findings = list(examine(tmp_path, Options(), probe=False))
    assert not can_deploy(findings)
    assert [one.area for one in findings if one.condition is Condition.ERROR] == ["config"]
    assert found(tmp_path, "config").hint.startswith("run `doit init`")
    assert {"python", "packages", "cache", "disk", "service"} <= {one.area for one in findings}


def test_a_mistake_in_deploy_toml(root: Path) -> None:
    edit(root, "[readiness]", "[rediness]")
    one = found(root, "config")
    assert one.condition is Condition.ERROR and one.fact.startswith("deploy.toml:13:2: unknown"), one
    (root / "deploy.toml").write_bytes(b"\xff\xfe")
    assert found(root, "config").condition is Condition.ERROR


def test_firmware_that_a_deploy_builds_first(root: Path) -> None:
    shutil.rmtree(root / "build")
    assert found(root, "config").condition is Condition.ERROR
    edit(root, "[prebuilt]\n", '[prebuilt]\nbuild = ["idf.example", "build"]\n')
    one = found(root, "config")
    assert one.condition is Condition.NOTE and "a deploy runs `idf.example build` first" in one.fact
    assert "its chip is what the build will be for" in found(root, "device bench").fact
    one = found(root, "build")
    assert (one.condition, one.fact) == (Condition.ERROR, "[prebuilt] build needs idf.example, which is not on PATH")
    edit(root, '"idf.example"', '"sh"')
    assert found(root, "build").condition is Condition.OK


def test_no_dodo_file(root: Path) -> None:
    (root / "dodo.py").unlink()
    assert "from pipeline.tasks import" in found(root, "tasks").hint


# --- tools --------------------------------------------------------------------------------------


def test_a_compiler_that_is_not_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[2] / "deploy.toml"
    (root / "deploy.toml").write_text(example.read_text().replace('kind = "zig"', 'kind = "gcc"'))
    monkeypatch.setenv("PATH", str(root))
    one = found(root, "compiler")
    assert one.condition is Condition.ERROR and "riscv64-unknown-elf-gcc" in one.fact and one.hint.startswith("install")


def test_a_build_of_ninja(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "deploy.toml").write_text('[project]\nname = "x"\n[toolchain]\nkind = "cmake"\n')
    monkeypatch.setenv("PATH", str(root))
    assert "a deploy runs `cmake -S . -B build -G Ninja` first" in found(root, "build").fact
    assert found(root, "configure").condition is Condition.ERROR
    (root / "cmake").write_text("#!/bin/sh\n")
    (root / "cmake").chmod(0o755)
    assert found(root, "configure").condition is Condition.OK
    assert found(root, "ninja").hint == "install it: pip install ninja"
    (root / "build/build.ninja").write_text("")
    (root / "cmake").unlink()
    assert found(root, "configure").condition is Condition.WARNING
    edit(root, '"cmake"', '"ninja"')
    assert found(root, "build").condition is Condition.OK
    (root / "build/build.ninja").unlink()
    assert found(root, "build").condition is Condition.ERROR
    assert found(root, "device").fact == "none is declared: a program for this machine"


def test_esp_idf_in_a_shell_without_its_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "deploy.toml").write_text(
        '[project]\nname = "x"\n[toolchain]\nkind = "esp-idf"\n[device.d]\nport = "virtual:"\n'
    )
    shutil.rmtree(root / "build")
    monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")
    monkeypatch.delenv("IDF_PATH", raising=False)
    one = found(root, "configure")
    assert one.condition is Condition.ERROR and "export.sh" in one.hint
    (root / "idf.py").write_text('#!/bin/sh\n[ -n "$IDF_PATH" ] && echo ESP-IDF v9.9\n')
    (root / "idf.py").chmod(0o755)
    one = found(root, "configure")
    assert one.condition is Condition.ERROR and "IDF_PATH is not set" in one.fact
    monkeypatch.setenv("IDF_PATH", "/sdk")
    assert found(root, "configure") == ok("configure", "ESP-IDF v9.9")


def test_programs_of_actions(root: Path) -> None:
    action = '[[action]]\nname = "pack"\nargv = ["{}", "{{out}}"]\noutputs = ["build/x.bin"]\n'
    edit(root, "[readiness]", action.format("python") + "[readiness]")
    assert "action pack" not in {one.area for one in examine(root, Options(), probe=False)}
    edit(root, 'argv = ["python"', 'argv = ["packer.example"')
    assert found(root, "action pack").fact == "the action needs packer.example, which is not on PATH"


def test_what_a_shared_cache_a_launcher_and_a_farm_need(root: Path) -> None:
    edit(root, "[readiness]", '[cache]\nremote = "grpc://cache.example.com:8980"\n[readiness]')
    edit(root, '"virtual:"', '"labgrid://desk"')
    config = parse_config((root / "deploy.toml").read_text())
    assert isinstance(config, DeployConfig)
    assert needed_extras(config) == ["reapi", "farm"]
    assert found(root, "shared cache").fact.startswith("grpc://cache.example.com:8980, read, without HOTPLATE_")
    assert found(root, "device bench").fact == "labgrid://desk is acquired by a deploy, and not looked at here"
    example = Path(__file__).parents[2] / "deploy.toml"
    launched = example.read_text().replace('kind = "zig"', 'kind = "zig"\nlauncher = ["ccache.example"]')
    (root / "deploy.toml").write_text(launched)
    assert found(root, "launcher").condition is Condition.ERROR


# --- packages -----------------------------------------------------------------------------------


def judged(
    monkeypatch: pytest.MonkeyPatch, lines: Sequence[str] | None, versions: dict[str, str], needed: Sequence[str] = ()
) -> dict[str, DoctorFinding]:
    monkeypatch.setattr(packages, "distribution_requires", lambda name: lines)
    monkeypatch.setattr(packages, "distribution_version", lambda name: versions.get(name, ""))
    return {one.area: one for one in packages.examine_packages(needed)}


def test_packages_and_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["esptool<5.7,>=5.6", "ziglang==0.17.0; extra == 'zig'"]
    fine = judged(monkeypatch, lines, {"esptool": "5.6.0", "ziglang": "0.17.0"})
    assert {one.condition for one in fine.values()} == {Condition.OK}
    assert judged(monkeypatch, lines, {"esptool": "5.7.0"})["packages"].condition is Condition.WARNING
    gone = judged(monkeypatch, lines, {})["packages"]
    assert (gone.condition, gone.hint) == (Condition.ERROR, "install it with: pip install 'esptool<5.7,>=5.6'")
    spare = judged(monkeypatch, lines, {"esptool": "5.6"})["extra zig"]
    assert (spare.condition, spare.hint) == (Condition.NOTE, "install it with: pip install 'hotplate[zig]'")
    assert judged(monkeypatch, lines, {"esptool": "5.6"}, ["zig"])["extra zig"].condition is Condition.ERROR
    old = judged(monkeypatch, lines, {"esptool": "5.6", "ziglang": "0.13.0"})["extra zig"]
    assert old.condition is Condition.WARNING and "0.13.0" in old.fact and "==0.17.0" in old.fact
    assert judged(monkeypatch, None, {})["packages"].condition is Condition.NOTE


def test_every_extra_says_what_it_is_for() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(packages.EXTRAS) == set(project["optional-dependencies"])


# --- places -------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(root: Path) -> None:
    (root / ".deploy").write_text("a file where a directory belongs")
    one = found(root, "project")
    assert one.condition is Condition.ERROR and ".deploy cannot be written" in one.fact
    (root / "shared").write_text("")
    edit(root, "[readiness]", '[cache]\ndir = "shared/store"\n[readiness]')
    assert found(root, "cache").condition is Condition.WARNING


def test_the_cache_is_counted(root: Path) -> None:
    edit(root, "[readiness]", '[cache]\ndir = "store"\nmax_size = "2GB"\n[readiness]')
    given.write(root / "store", {"cas/aa": bytes(3_000_000), "ac/bb": bytes(1000)})
    one = found(root, "cache")
    assert one.condition is Condition.OK and one.fact.endswith(": 3 MB in 2 files, bound 2.0 GB"), one


def test_little_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=900_000_000))
    assert found(root, "disk").condition is Condition.WARNING
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1_000_000))
    assert found(root, "disk").condition is Condition.ERROR


def test_a_run_under_way_is_named(root: Path) -> None:
    lock = root / ".deploy/locks/project"
    lock.parent.mkdir(parents=True)
    lock.write_text("pid 42 (doit deploy)\n")
    assert "run" not in {one.area for one in examine(root, Options(), probe=False)}
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert found(root, "run").fact.endswith("pid 42 (doit deploy)")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/me/with\\040space tmpfs rw 0 0
/dev/sdb1 /home btrfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/etc", "ext4"), ("/home/me", "btrfs"), ("/homes", "ext4"), ("/home/me/with space/x", "tmpfs"), ("/", "ext4")],
)
def test_file_systems(path: str, kind: str) -> None:
    assert places.mounted_type(MOUNTS, path) == kind
    assert places.mounted_type("", path) == "" and places.mounted_type("x\n", path) == ""


def test_a_store_on_a_network_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "file_system", lambda place: "nfs4")
    assert found(root, "cache").condition is Condition.WARNING


# --- boards -------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[str]:
    """A pseudo-terminal in the place of a serial port."""
    ours, theirs = pty.openpty()
    yield os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_a_virtual_board_that_executes_nothing_never_becomes_ready(root: Path) -> None:
    edit(root, '"line:not executed"', '"byte"')
    one = found(root, "device bench")
    assert one.condition is Condition.ERROR and "not executed" in one.hint


def test_a_virtual_c3_without_its_rom(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root / "build")
    given.esp_idf(root / "build", "esp32c3")
    monkeypatch.delenv("ESP_ROM_ELF_DIR", raising=False)
    one = found(root, "device bench")
    assert one.condition is Condition.NOTE and "ESP_ROM_ELF_DIR" in one.hint
    monkeypatch.setenv("ESP_ROM_ELF_DIR", str(root))
    assert found(root, "device bench") == ok("device bench", "a virtual esp32c3 in this process")


def test_a_port_that_is_not_there(root: Path) -> None:
    edit(root, '"virtual:"', '"/dev/ttyEXAMPLE9"')
    one = found(root, "device bench")
    assert one.condition is Condition.ERROR and one.fact.startswith("/dev/ttyEXAMPLE9 is not there (present: ")


def test_a_port_that_is_there_is_not_opened(root: Path, terminal: str) -> None:
    edit(root, '"virtual:"', f'"{terminal}"')
    one = found(root, "device bench")
    assert one == note("device bench", f"{terminal} was not opened", one.hint) and "--probe" in one.hint


def test_a_port_that_somebody_has(root: Path, terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(root, '"virtual:"', f'"{terminal}"')
    monkeypatch.setattr(port_state, "describe_holders", lambda port: "pid 42 (screen)")
    one = found(root, "device bench")
    assert (one.condition, one.fact) == (Condition.ERROR, f"{terminal} is open in pid 42 (screen)")


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (PortState("p", group="dialout"), "run `sudo usermod -aG dialout $USER`, then log in again"),
        (PortState("p", group="dialout", member=True), "log in again: you are in the group dialout"),
        (PortState("p", group="root"), "install a udev rule"),
        (PortState("p"), "give yourself the right"),
    ],
)
def test_a_port_that_this_user_may_not_open(
    root: Path, terminal: str, state: PortState, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(root, '"virtual:"', f'"{terminal}"')
    monkeypatch.setattr(boards, "state_of", lambda port: state._replace(port=port, allowed=False))
    one = found(root, "device bench")
    assert one.condition is Condition.ERROR and one.hint.startswith(hint)


def test_permissions_are_the_systems(terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert port_state.state_of(terminal).allowed
    monkeypatch.setattr(os, "access", lambda *args: False)
    state = port_state.state_of(terminal)
    assert not state.allowed and state.group
    assert not port_state.state_of("/dev/ttyEXAMPLE9").exists


def test_ports_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [
        PortState("/dev/ttyUSB0", "CP2102", board=True),
        PortState("/dev/ttyUSB1", "GPS", holder="pid 7 (gpsd)"),
        PortState("/dev/ttyACM0", "", allowed=False, group="dialout"),
    ]
    monkeypatch.setattr(boards, "present_ports", lambda: states)
    first, second, third = boards.examine_ports()
    assert first == ok("port /dev/ttyUSB0", "looks like an ESP32 board")
    assert second.fact == "GPS; open in pid 7 (gpsd)"
    assert third.condition is Condition.WARNING and "dialout" in third.hint


def test_a_lease_of_somebody_else(root: Path) -> None:
    config = parse_config(PREBUILT)
    assert isinstance(config, DeployConfig)
    lease = user_shelf(root / ".deploy").hold(
        board_name(config.devices[0], root), Holder(os.getpid(), "make test", "a soak test"), "here"
    )
    assert isinstance(lease, BoardLease)
    try:
        one = found(root, "device bench")
        assert one.condition is Condition.ERROR and "leased to a soak test" in one.fact
    finally:
        lease.release()
    assert found(root, "device bench").condition is not Condition.ERROR


def test_a_device_that_nobody_knows(root: Path) -> None:
    one = found(root, "config", options=Options(devices=("bensh",)))
    assert one.condition is Condition.ERROR and "did you mean 'bench'" in one.fact


# --- what is printed ----------------------------------------------------------------------------


FINDINGS = [
    ok("python", "3.11.7"),
    warning("cache", "it lies on nfs4, " + "which is slow " * 6, "choose a local directory"),
    bad("device bench", "a port \x1b[31m that is not there", "plug the board in, " + "and look again " * 6),
]


def test_lines_fit_the_terminal() -> None:
    text = findings_text(FINDINGS, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    words = " ".join(text.split())
    for one in FINDINGS[1:]:
        assert " ".join(one.hint.split()) in words
    assert text.endswith("\na deploy cannot work: 1 error, and 1 warning\n")
    assert len(findings_text(FINDINGS, 0).splitlines()) == 6


def test_warnings_do_not_fail() -> None:
    assert can_deploy(FINDINGS[:2]) and not can_deploy(FINDINGS)
    assert findings_text(FINDINGS[:2], 0).endswith("a deploy can work, with 1 warning\n")
    data = findings_json(FINDINGS)
    assert (data["schema"], data["can_deploy"]) == (1, False)
    assert data["findings"][0] == {"area": "python", "condition": "ok", "fact": "3.11.7", "hint": None}
    json.dumps(data)


def executed(root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.chdir(root)
    code: int = Doctor().parse_execute(list(words))
    return code


def test_exit_codes(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert executed(root, monkeypatch, "--json") == 0
    assert json.loads(capsys.readouterr().out)["can_deploy"] is True
    assert executed(root, monkeypatch, "surplus") == 3
    (root / "deploy.toml").unlink()
    assert executed(root, monkeypatch) == 1
    assert capsys.readouterr().out.endswith("a deploy cannot work: 1 error\n")
