"""What is in the flash is known, not believed: deltas, cut-off writes, explicit regions, escalation and the verify
ladder, on a board that keeps running between deploys."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.chips import CHIPS
from pipeline.device.ports import UsbId
from pipeline.device.rom_loader import Identity, RomLoader
from pipeline.device.serial_link import PortLink
from pipeline.device.session import EspSession
from pipeline.flash_model import Image
from pipeline.formats.otadata import OtaState, encode
from pipeline.model import Stage
from tests.bench_device import APP, SECTOR, DeviceBench, Killed, edit_app, reasons
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space, copy_project
from virtualboard.chips import Security, burnt
from virtualboard.faults import parse_fault
from virtualboard.port import DEFAULT_MAC

OTHER_MAC = "7c:df:a1:00:11:33"
NOISE = random.Random(6).randbytes(0xF000)
FLASH_ONLY = (Stage.VERIFY_FLASH, Stage.REFLASH)


@pytest.fixture
def bench(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceBench]:
    """A built project on a board that holds nothing yet."""
    copy_project(template, tmp_path / "project")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bench = DeviceBench(tmp_path / "project")
    yield bench
    bench.close()


@pytest.fixture
def deployed(bench: DeviceBench) -> DeviceBench:
    first = bench.deploy()
    assert first["outcome"] == "full_flashed", first["failure"]
    assert bench.all_there
    return bench


def written(report: dict[str, object]) -> dict[str, int]:
    """Bytes written by region."""
    regions = report["regions"]
    assert isinstance(regions, list)
    return {row["name"]: row["bytes_written"] for row in regions if row["action"] != "kept" and row["done"]}


# --- deltas -----------------------------------------------------------------------------------


def test_one_changed_sector_is_one_written_sector(deployed: DeviceBench) -> None:
    edit_app(deployed.root, b"changed", 0x5000)
    report = deployed.deploy(only=FLASH_ONLY)
    assert (report["outcome"], written(report)) == ("delta_flashed", {"app": SECTOR})
    assert reasons(report) == ["changed-since-commit"]
    assert deployed.all_there
    again = deployed.deploy(only=FLASH_ONLY)
    assert (again["outcome"], again["totals"]["bytes_written"]) == ("verified_unchanged", 0)


@pytest.mark.parametrize("loss", ["flipped", "store", "journal", "other-board"])
def test_a_reference_that_is_wrong_or_missing_writes_the_whole_region(deployed: DeviceBench, loss: str) -> None:
    if loss == "flipped":
        deployed.flip(APP + 0x9000)
    elif loss == "store":
        shutil.rmtree(next(deployed.root.parent.glob("cache/*")) / "cas.v1")
    elif loss == "journal":
        next(deployed.journals()).write_bytes(b"garbage")
    else:
        # the journal of another board: the same build, other content in its flash
        here = next(deployed.journals())
        deployed.plug(OTHER_MAC)
        shutil.copy(here, here.with_name(OTHER_MAC.replace(":", "") + ".log"))
        for image in deployed.images:
            deployed.poke(image.offset, (deployed.root / image.path).read_bytes())
        deployed.flip(APP + 0x9000)
    edit_app(deployed.root, b"changed", 0x5000)
    report = deployed.deploy(only=FLASH_ONLY)
    assert report["outcome"] == "regions_flashed"
    assert written(report) == {"app": deployed.image("app").size}
    assert deployed.all_there


@pytest.mark.parametrize("grow", [-0x6000, 0x3000])
def test_an_image_that_grows_or_shrinks(deployed: DeviceBench, grow: int) -> None:
    path = next((deployed.root / "build").rglob("app.bin"))
    data = path.read_bytes()
    path.write_bytes(data[:grow] if grow < 0 else data + b"more" * (grow // 4))
    report = deployed.deploy(only=FLASH_ONLY)
    if grow < 0:
        assert (report["outcome"], written(report)) == ("verified_unchanged", {}), "a prefix is there already"
    else:
        assert report["outcome"] == "delta_flashed" and written(report)["app"] <= grow + SECTOR
    assert deployed.all_there


# --- a write that was cut off -----------------------------------------------------------------


def killed_while_writing(bench: DeviceBench, after: int) -> None:
    bench.port.written, bench.port.kill_after = 0, after
    with pytest.raises(Killed):
        bench.deploy(only=FLASH_ONLY)


def test_a_cut_off_write_is_resumed_by_block(deployed: DeviceBench) -> None:
    edit_app(deployed.root, NOISE, 0x4000)
    killed_while_writing(deployed, 64000)
    assert not deployed.all_there
    healed = deployed.deploy(only=FLASH_ONLY)
    assert reasons(healed) == ["write-was-cut-off"], healed["reasons"]
    assert 0 < written(healed)["app"] < len(NOISE), "what had arrived is not written again"
    assert deployed.all_there
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"


@pytest.mark.parametrize("after", [300, 8000, 12000, 17000, 22000])
def test_a_first_flash_killed_anywhere_heals(bench: DeviceBench, after: int) -> None:
    killed_while_writing(bench, after)
    healed = bench.deploy()
    assert healed["outcome"] in ("full_flashed", "regions_flashed", "delta_flashed"), healed["failure"]
    assert bench.all_there and healed["readiness"]["status"] == "passed"
    assert bench.deploy()["outcome"] == "verified_unchanged"


def test_nothing_is_believed_of_a_board_whose_write_was_cut_off(deployed: DeviceBench) -> None:
    path = next((deployed.root / "build").rglob("app.bin"))
    committed = path.read_bytes()
    edit_app(deployed.root, NOISE, 0x4000)
    killed_while_writing(deployed, 25000)
    path.write_bytes(committed)
    for level in ("journal", "app-report"):
        assert "journal_trusted" != deployed.deploy(level, only=FLASH_ONLY[:1])["outcome"] != "app_confirmed"
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] in ("verified_unchanged", "delta_flashed", "regions_flashed")
    assert deployed.all_there


# --- explicit regions -------------------------------------------------------------------------


def test_an_explicit_region_records_only_what_it_did(deployed: DeviceBench) -> None:
    edit_app(deployed.root, b"changed", 0x5000)
    otadata = deployed.image("otadata")
    deployed.poke(otadata.offset, b"\xff" * otadata.size)
    deployed.poke(otadata.offset, other_slot())
    alone = deployed.deploy(region="app")
    assert (alone["outcome"], written(alone)) == ("delta_flashed", {"app": SECTOR})
    assert deployed.holds(deployed.image("app")) and not deployed.holds(otadata)
    rest = deployed.deploy(only=FLASH_ONLY)
    assert written(rest) == {"otadata": otadata.size}, "no more and no less"
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"
    assert deployed.deploy(region="app")["outcome"] == "verified_unchanged"


def other_slot() -> bytes:
    return encode(1, 2)


def test_an_explicit_region_as_a_user_types_it(host_space: Space) -> None:
    assert host_space.deploy().code == 0
    host_space.flip(APP + 0x1234)
    host_space.flip(0x20)  # in the bootloader
    alone = host_space.doit("reflash:bench:app")
    assert alone.code == 0, alone.out + alone.err
    assert [r["name"] for r in alone.report["regions"] if r["bytes_written"]] == ["app"]
    assert alone.outcome == "regions_flashed"
    others = {r["name"]: (r["bytes_written"], r["done"]) for r in alone.report["regions"] if r["name"] != "app"}
    assert others["bootloader"] == (0, False), "what nobody began to write is known"
    page = host_space.file(f"reports/{alone.report['transaction_id']}.md").read_text()
    assert "- bootloader_action: `written (planned only)`" in page
    again = host_space.doit("reflash:bench:app")
    assert "-- reflash:bench:app\n" in again.out
    assert again.report["outcome"] is None, "the bootloader still differs: nothing is claimed of the device"
    wrong = host_space.doit("reflash:bench:ap")
    assert wrong.code == 1 and "there is no region 'ap'; did you mean 'app'?" in wrong.err
    assert host_space.deploy().report["plan"]["full_flash_reason"].startswith("bootloader-moved")
    assert host_space.deploy().outcome == "verified_unchanged"


# --- escalation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "kind"),
    [('"toolchain":"zig ', "toolchain-moved"), ('"flash":"dio 80m ', "flash-settings-moved")],
)
def test_a_moved_identity_writes_everything_once(deployed: DeviceBench, record: str, kind: str) -> None:
    edit_app(deployed.root, b"changed", 0x5000)
    deployed.deploy(only=FLASH_ONLY)
    context = deployed.context()
    older = dict(context.build.identity) | {kind.split("-", maxsplit=1)[0]: "what it was before"}
    (device,) = context.project.devices
    context.boards.open_session(device).close()
    context.boards.done_with(device)
    from pipeline.device.journal_file import DeviceJournal

    journal = DeviceJournal(context.project.state_dir / "devices.v1", next(iter(deployed.boards)))
    journal.begin("tx-old", "then", deployed.images, older)
    for image in deployed.images:
        journal.written("tx-old", image.name)
    journal.commit("tx-old")
    unchanged = deployed.deploy(only=FLASH_ONLY[:1])
    assert unchanged["outcome"] == "verified_unchanged", "there is nothing that a flash would change"

    journal = DeviceJournal(context.project.state_dir / "devices.v1", next(iter(deployed.boards)))
    journal.begin("tx-old", "then", deployed.images, older)
    for image in deployed.images:
        journal.written("tx-old", image.name)
    journal.commit("tx-old")
    edit_app(deployed.root, b"again", 0x5000)
    full = deployed.deploy(only=FLASH_ONLY)
    assert full["outcome"] == "full_flashed"
    assert full["plan"]["full_flash_reason"].startswith(f"{kind} ")
    assert set(written(full)) == {"bootloader", "partitions", "app", "otadata"}
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"


def test_a_moved_partition_table_writes_everything_once(deployed: DeviceBench) -> None:
    path = next((deployed.root / "build").rglob("partition*.bin"))
    path.write_bytes(path.read_bytes().replace(b"ota_1", b"ota_x"))
    full = deployed.deploy(only=FLASH_ONLY)
    assert full["plan"]["full_flash_reason"].startswith("partition-table-moved partitions: ")
    assert full["outcome"] == "full_flashed" and len(written(full)) == 4
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"


# --- a chip on its own USB ---


def test_a_chip_on_its_own_usb_is_recognised_and_its_watchdogs_stopped(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There RTS and DTR are messages, and a reset leaves watchdogs running that would cut off a write."""
    copy_project(template, tmp_path / "project")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stopped: list[str] = []
    real = RomLoader.stop_watchdogs

    def stop_watchdogs(rom: RomLoader) -> None:
        stopped.append("ESP32-C3")
        real(rom)

    monkeypatch.setattr(RomLoader, "stop_watchdogs", stop_watchdogs)
    bench = DeviceBench(tmp_path / "project", usb=True)
    vars(bench.port)["usb"] = UsbId("7C:DF:A1:00:11:22", 0x303A, 0x1001)
    first = bench.deploy()
    assert first["outcome"] == "full_flashed", first["failure"]
    assert bench.all_there and stopped == ["ESP32-C3"]
    again = bench.deploy()
    assert (again["outcome"], again["totals"]["bytes_written"]) == ("verified_unchanged", 0)
    assert stopped == ["ESP32-C3"] * 2, "a verify of megabytes takes longer than a watchdog waits"
    bench.close()


@pytest.mark.parametrize("struck", [False, True])
def test_over_usb_a_changed_sector_is_proven_by_its_own_md5(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, struck: bool
) -> None:
    """What lies around it was proven before the write, and each packet on USB is checked."""
    copy_project(template, tmp_path / "project")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bench = DeviceBench(tmp_path / "project", usb=True)
    vars(bench.port)["usb"] = UsbId("7C:DF:A1:00:11:22", 0x303A, 0x1001)
    assert bench.deploy()["outcome"] == "full_flashed"
    size = next(image.size for image in bench.images if image.name == "app")
    asked: list[tuple[int, int]] = []
    real = EspSession.md5

    def md5(session: EspSession, offset: int, length: int) -> str:
        asked.append((offset, length))
        if struck and length == SECTOR:
            bench.flip(offset + 5)
        return real(session, offset, length)

    monkeypatch.setattr(EspSession, "md5", md5)
    edit_app(bench.root, b"changed", 0x5000)
    report = bench.deploy(only=FLASH_ONLY)
    assert asked.count((APP, size)) == 1 and asked.count((APP + 0x5000, SECTOR)) == 1, asked
    if struck:
        assert report["failure"]["category"] == "verify_mismatch"
        assert f"{SECTOR} bytes at {APP + 0x5000:#x}, was written but reads back" in report["failure"]["message"]
    else:
        assert (report["outcome"], written(report)) == ("delta_flashed", {"app": SECTOR})
        assert bench.all_there
        assert bench.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"
    bench.close()


# --- the one retry ---


def test_an_answer_that_was_lost_before_the_first_write_costs_one_retry(deployed: DeviceBench) -> None:
    deployed.flip(APP + 0x2345)
    deployed.port.board.inject(parse_fault("drop:to=board,at=190,count=3"))  # inside the request for an MD5
    report = deployed.deploy(only=FLASH_ONLY)
    assert (report["outcome"], reasons(report).count("retried")) == ("regions_flashed", 1), report["failure"]
    assert deployed.all_there


def test_there_is_no_second_retry(deployed: DeviceBench) -> None:
    deployed.flip(APP + 0x2345)
    deployed.port.board.inject(parse_fault("drop:to=board,at=190,every=190,count=3"))
    report = deployed.deploy(only=FLASH_ONLY)
    assert (report["outcome"], report["failure"]["category"]) == ("failed", "sync_failed")
    assert report["totals"]["bytes_written"] == 0


# --- replies have no checksum ---


def turned(monkeypatch: pytest.MonkeyPatch, method: str, turn: Callable[[int, Any], Any]) -> None:
    """What a method of the lean loader answers about an address is turned once on its way to us."""
    real, left = getattr(RomLoader, method), [True]

    def answer(rom: RomLoader, address: int, *more: int) -> Any:
        said = real(rom, address, *more)
        heard = turn(address, said) if left[0] else said
        left[0] = left[0] and heard == said
        return heard

    monkeypatch.setattr(RomLoader, method, answer)


def test_a_bit_of_otadata_that_turned_on_its_way_is_not_believed(
    deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry's CRC is of the sequence alone: a rejected slot would look like a chosen one."""
    otadata = deployed.image("otadata")
    entry = bytearray(encode(0, 2)[:32])
    entry[24:28] = OtaState.INVALID.to_bytes(4, "little")
    deployed.poke(otadata.offset, b"\xff" * otadata.size)
    deployed.poke(otadata.offset, bytes(entry))

    def valid(address: int, said: bytes) -> bytes:
        return said[:24] + bytes([said[24] ^ 1]) + said[25:] if address == otadata.offset else said

    turned(monkeypatch, "read_flash", valid)
    report = deployed.deploy(only=FLASH_ONLY)
    assert written(report) == {"otadata": otadata.size} and reasons(report).count("retried") == 1
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"


def turned_md5(monkeypatch: pytest.MonkeyPatch, image: Image, number: int) -> None:
    """The answer `number` (from 1) to a question for the MD5 of the image's region."""
    real, asked = EspSession.md5, itertools.count(1)

    def md5(session: EspSession, offset: int, size: int) -> str:
        said = real(session, offset, size)
        struck = (offset, size) == (image.offset, image.size) and next(asked) == number
        return f"{int(said, 16) ^ 1:032x}" if struck else said

    monkeypatch.setattr(EspSession, "md5", md5)


@pytest.mark.parametrize("name", ["bootloader", "app"])
def test_an_md5_that_turned_on_its_way_writes_nothing(
    deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    turned_md5(monkeypatch, deployed.image(name), 1)
    report = deployed.deploy(only=FLASH_ONLY)
    assert (report["outcome"], reasons(report)) == ("verified_unchanged", ["retried"]), report["failure"]


def test_an_md5_after_a_write_that_turned_on_its_way_is_no_verdict_on_the_flash(
    deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_app(deployed.root, b"changed", 0x5000)
    turned_md5(monkeypatch, deployed.image("app"), 2)  # the first is verify-flash's
    report = deployed.deploy(only=FLASH_ONLY)
    assert report["outcome"] == "delta_flashed", report["failure"]
    assert deployed.all_there


def test_a_mac_that_turned_on_its_way_is_nobody_s(deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed.flip(APP + 0x2345)
    mac_word = CHIPS["esp32c3"].efuse_base + 0x44
    turned(monkeypatch, "read_reg", lambda address, said: said ^ 0x100 if address == mac_word else said)
    report = deployed.deploy(only=FLASH_ONLY)
    assert (report["outcome"], report["device"]["mac"]) == ("regions_flashed", DEFAULT_MAC), report["failure"]
    assert "board-changed" not in reasons(report)
    assert len(list(deployed.journals())) == 1


def test_protection_whose_bit_turned_on_its_way_is_asked_again_before_a_write(
    deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a board that is known, and was encrypted since: plain images would make it unbootable."""
    edit_app(deployed.root, b"changed", 0x5000)
    board = deployed.port.board
    board.chip = burnt(board.chip, Security(flash_encryption=True))
    real, asked = RomLoader.identify, itertools.count()

    def identify(rom: RomLoader) -> Identity:
        return real(rom)._replace(flash_encryption=next(asked) > 0)

    monkeypatch.setattr(RomLoader, "identify", identify)
    report = deployed.deploy(only=FLASH_ONLY)
    assert report["failure"] and report["failure"]["category"] == "protected_device"
    assert report["totals"]["bytes_written"] == 0


@pytest.mark.parametrize("turned_to", [0x200000, None])
def test_a_flash_size_that_turned_on_its_way_refuses_nothing(
    deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch, turned_to: int | None
) -> None:
    edit_app(deployed.root, b"changed", 0x5000)
    real, asked = EspSession.flash_size, itertools.count()

    def flash_size(session: EspSession) -> int | None:
        return real(session) if next(asked) else turned_to

    monkeypatch.setattr(EspSession, "flash_size", flash_size)
    report = deployed.deploy(only=FLASH_ONLY)
    assert (report["outcome"], reasons(report).count("retried")) == ("delta_flashed", 1), report["failure"]


# --- the verify ladder ------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "outcome"), [("app-report", "app_confirmed"), ("journal", "journal_trusted")])
def test_a_running_firmware_answers_without_a_reset(deployed: DeviceBench, level: str, outcome: str) -> None:
    resets = deployed.port.board.executed
    report = deployed.deploy(level)
    assert (report["outcome"], report["plan"]["verified_by"]) == (outcome, level)
    assert report["plan"]["reattach_mode"] == "none"
    assert report["ttfb"]["from"] == "request_sent" and report["ttfb"]["total_ms"] is not None
    assert "rom_banner" not in report["marks"] and "reset_released" not in report["marks"]
    assert report["device"]["mac"] == "7c:df:a1:00:11:22"
    assert deployed.port.board.executed > resets
    assert report["readiness"]["polls"] == 0, "the answer to verify-flash was the first byte: nothing is asked twice"


def test_a_firmware_s_word_does_not_do_on_a_board_whose_flash_chip_was_never_measured(deployed: DeviceBench) -> None:
    next(deployed.journals()).unlink()
    first = deployed.deploy("app-report")
    assert first["outcome"] == "verified_unchanged" and "flash-size-unknown" in reasons(first)
    assert deployed.deploy("app-report")["outcome"] == "app_confirmed"


@pytest.mark.parametrize(("setup_ok", "allowed"), [(True, False), (False, False), (False, True)])
def test_a_running_firmware_says_how_it_is(
    deployed: DeviceBench, monkeypatch: pytest.MonkeyPatch, *, setup_ok: bool, allowed: bool
) -> None:
    """`rpc:health` without a reset tells the same as after one."""
    config = deployed.root / "deploy.toml"
    until = 'until = "rpc:health"' + ("\nallow_unhealthy = true" if allowed else "")
    config.write_text(config.read_text().replace('until = "rpc:ready"', until))
    if not setup_ok:
        spoil_answer(monkeypatch)
    report = deployed.deploy("app-report")
    gate = report["readiness"]
    told = {module["name"]: module["setup_ok"] for module in gate["modules"]}
    assert told == {"blink": setup_ok, "sampler": True, "ballast": True} and gate["polls"] == 1
    if setup_ok or allowed:
        assert report["outcome"] == "app_confirmed" and gate["note"].endswith("blink") is allowed
    else:
        assert (report["outcome"], gate["failure_reason"]) == ("failed", "unhealthy:blink")
        assert report["failure"]["message"].startswith("not every module is set up: blink")


def spoil_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The firmware's own answer, with the first `setup_ok` turned on its way."""
    real = PortLink.read

    def read(link: PortLink, timeout_s: float) -> bytes:
        return real(link, timeout_s).replace(b'"blink","setup_ok":true', b'"blink","setup_ok":false')

    monkeypatch.setattr(PortLink, "read", read)


@pytest.mark.parametrize("level", ["app-report", "journal"])
@pytest.mark.parametrize("change", ["app", "other-tool", "slot", "swap", "swap-same", "silent"])
def test_whatever_changed_behind_us_is_noticed(deployed: DeviceBench, level: str, change: str) -> None:
    app = deployed.image("app")
    if change == "app":
        edit_app(deployed.root, b"changed", app.size - 64)  # the same descriptor, other bytes
    elif change == "other-tool":
        deployed.flip(0x40)  # bootloader: the running app goes on as if nothing had happened
    elif change == "slot":
        slot = next(row for row in deployed.build.project.table if row.name == "ota_1")
        deployed.poke(slot.offset, (deployed.root / app.path).read_bytes())
        deployed.poke(deployed.image("otadata").offset, other_slot())
        deployed.reset()
    elif change == "swap":
        deployed.plug(OTHER_MAC)
    elif change == "swap-same":
        deployed.plug(OTHER_MAC)
        for image in deployed.images:
            deployed.poke(image.offset, (deployed.root / image.path).read_bytes())
        deployed.reset()
    else:
        deployed.port.setDTR(False)
        deployed.port.setRTS(True)  # held in reset: nobody answers
    report = deployed.deploy(level, only=(*FLASH_ONLY,))
    if (level, change) == ("journal", "other-tool"):
        assert report["outcome"] == "journal_trusted", "which is all that this rung says"
        return
    assert report["plan"]["verified_by"] == "md5"
    assert report["outcome"] != "app_confirmed" and reasons(report)
    assert report["outcome"] == ("verified_unchanged" if change in ("swap-same", "silent") else report["outcome"])
    if change.startswith("swap"):
        assert "board-changed" in reasons(report) or "no-answer" in reasons(report)
        assert report["device"]["mac"] == OTHER_MAC
    if change != "slot":
        assert deployed.all_there
    assert deployed.deploy(only=FLASH_ONLY)["outcome"] == "verified_unchanged"


def test_a_running_board_is_asked_over_a_real_port(host_space: Space, start_board: Callable[[], ServedBoard]) -> None:
    host_space.on_process(start_board().url)
    assert host_space.deploy().outcome == "full_flashed"
    asked = host_space.doit("deploy", "--verify", "app-report")
    assert asked.code == 0, asked.out + asked.err
    assert (asked.outcome, asked.report["verify_level"]) == ("app_confirmed", "app-report")
    assert asked.stage("reattach")["counts"] == {"reopened": 0, "resets": 0}
    host_space.edit("deploy.toml", 'level = "md5"', 'level = "journal"')
    assert host_space.deploy().outcome == "journal_trusted"
    assert host_space.doit("deploy", "--verify", "md5").outcome == "verified_unchanged"


def test_an_unknown_level_is_refused(host_space: Space) -> None:
    wrong = host_space.doit("deploy", "--verify", "hope")
    assert wrong.code == 2 and "--verify: error: 'verify.level' is 'hope'" in wrong.err
