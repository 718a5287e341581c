"""A loader session on virtual boards of three chips: identity, round trips, writes, fall-backs, what faults become."""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline.chips import CHIPS as CHIP_FACTS
from pipeline.device import connect as connecting
from pipeline.device import session
from pipeline.device.rom_loader import FEED_ITSELF, MAGIC_REG, NOISE_LIMIT, WATCHDOGS, LoaderError, RomLoader
from pipeline.device.serial_link import PortLink
from pipeline.device.session import EspSession
from pipeline.errors import DeviceError
from pipeline.flash_model import DeviceFacts, Image, Region
from pipeline.model import FailureCategory
from virtualboard.chips import Security
from virtualboard.port import VirtualPort, open_virtual

FLASH = 4 << 20
CHIPS = ("esp32", "esp32s3", "esp32c3")
DATA = random.Random(3).randbytes(40_000)

Opener = Callable[..., VirtualPort]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Opener]:
    ports: list[VirtualPort] = []

    def start(chip: str = "esp32c3", **options: Any) -> VirtualPort:
        flash = tmp_path / f"{chip}{len(ports)}.flash"
        ports.append(open_virtual(chip, flash, **{"flash_size": FLASH, "execute": False, **options}))
        return ports[-1]

    yield start
    for port in ports:
        port.close()


def connect(
    port: Any, chip: str = "esp32c3", baud: int = 115200, flash_size: int = FLASH, reset: str = "instant"
) -> EspSession:
    def link() -> PortLink:
        return PortLink(port, "virtual:", "device bench", port.now_s, real_time=False)

    return session.connect(port, chip, "device bench", link, flash_size, reset, baud)


def image(data: bytes = DATA, offset: int = 0x10000) -> Image:
    md5 = hashlib.md5(data).hexdigest()
    return Image("app", "ota_0", offset, len(data), 0x100000, "app.bin", digest_bytes(data), md5)


def quiet(label: str, done: int, total: int) -> None:
    del label, done, total


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
def test_the_lean_loader_reads_what_esptool_reads(board: Opener, chip: str) -> None:
    port = board(chip)
    lean = connect(port, chip)
    assert isinstance(lean._esp, RomLoader) and lean.reasons == ()
    by_esptool = connecting.identify(connecting.esptool_loader(port, chip, "classic"), chip, FLASH)
    assert lean.facts == by_esptool
    assert lean.facts.mac == "7c:df:a1:00:11:22"


@pytest.mark.parametrize(("wanted", "there"), [(a, b) for a in CHIPS for b in CHIPS if a != b])
def test_whatever_other_chip_is_there_it_is_the_wrong_device(board: Opener, wanted: str, there: str) -> None:
    """An ESP32 knows no question that the others answer, which is no reason to take it for a board without a loader."""
    with pytest.raises(DeviceError, match=f"expected {wanted}: This chip is ") as refused:
        connect(board(there), wanted)
    assert refused.value.failure.category is FailureCategory.WRONG_DEVICE


@pytest.mark.parametrize(("garbled", "believed"), [((1,), False), ((1, 2), False), ((5, 5), True)])
def test_another_chip_is_believed_only_when_it_says_so_twice(
    board: Opener, monkeypatch: pytest.MonkeyPatch, garbled: tuple[int, ...], *, believed: bool
) -> None:
    """A reply has no checksum: garbled on its way it names another chip, but not the same one again."""
    noise = iter(garbled)
    real = RomLoader.read_reg

    def read_reg(self: RomLoader, address: int) -> int:
        return real(self, address) ^ (next(noise, 0) if address == MAGIC_REG else 0)

    monkeypatch.setattr(RomLoader, "read_reg", read_reg)
    if believed:
        with pytest.raises(DeviceError) as refused:
            connect(board("esp32"), "esp32")
        assert refused.value.failure.category is FailureCategory.WRONG_DEVICE
    else:
        session = connect(board("esp32"), "esp32")
        assert session.facts.chip == "esp32" and session.facts.mac == "7c:df:a1:00:11:22"


def test_a_mac_that_esptool_read_is_believed_only_when_it_is_read_twice(
    board: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = connecting.identify, itertools.count()

    def identify(esp: Any, chip: str, flash_size: int) -> DeviceFacts:
        facts = real(esp, chip, flash_size)
        return facts if next(asked) else facts._replace(mac="7c:df:a1:00:11:23")

    monkeypatch.setattr(connecting, "identify", identify)
    loader = connecting.connect(board("esp32c6"), "esp32c6", "", FLASH, "instant", known="7c:df:a1:00:11:22")
    assert loader.facts.mac == "7c:df:a1:00:11:22"
    assert [reason.kind for reason in loader.reasons] == ["standard-connect", "retried"]


@pytest.mark.parametrize("chip", CHIPS)
def test_md5_and_read_are_of_the_flash(board: Opener, chip: str) -> None:
    port = board(chip)
    port.board.flash.program(0x10000, DATA)
    session = connect(port, chip)
    assert session.md5(0x10000, len(DATA)) == hashlib.md5(DATA).hexdigest()
    assert session.md5(0x10001, 333) == hashlib.md5(DATA[1:334]).hexdigest()
    assert session.read(0x10040, 100) == DATA[0x40 : 0x40 + 100]
    before = session.round_trips
    assert session.flash_size() == FLASH
    assert session.md5(0x10000, 64) == hashlib.md5(DATA[:64]).hexdigest(), "esptool goes on where the lean loader was"
    assert before < session.round_trips


def test_a_warm_verify_takes_few_round_trips_and_no_esptool(board: Opener) -> None:
    session = connect(board())
    for offset in (0x0, 0x8000, 0xE000, 0x10000):
        session.md5(offset, 0x1000)
    assert session.round_trips == 12
    session.close()


USB_CHIPS = ("esp32c3", "esp32s3")


def written_by_esptool(port: VirtualPort, chip: str) -> dict[int, int]:
    """Registers that esptool's own `disable_watchdogs` leaves on this board."""
    esp = connecting.esptool_loader(port, chip, "usb")
    connecting._connect_esptool(esp, port, "usb-reset")
    esp.uses_usb_jtag_serial = lambda: True
    esp.disable_watchdogs()
    return {address: esp.read_reg(address) for address in WATCHDOGS[chip]}


@pytest.mark.parametrize("chip", USB_CHIPS)
def test_over_the_chips_own_usb_the_lean_loader_stops_the_watchdogs_that_esptool_stops(
    board: Opener, chip: str
) -> None:
    port = board(chip, usb=True)
    session = connect(port, chip, reset="usb")
    assert isinstance(session._esp, RomLoader) and session.reasons == () and session.is_checked
    left = {address: session._esp.read_reg(address) for address in WATCHDOGS[chip]}
    assert left == written_by_esptool(board(chip, usb=True), chip)
    assert left[WATCHDOGS[chip].config] == 0 and left[WATCHDOGS[chip].super_config] & FEED_ITSELF
    assert session.md5(0, 4096) == hashlib.md5(b"\xff" * 4096).hexdigest()
    assert session.write(image(), DATA, [Region(0x10000, len(DATA))], quiet) == len(DATA)
    assert session.md5(0x10000, len(DATA)) == image().md5


def test_over_usb_the_full_sequence_follows_one_that_was_too_short(
    board: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots_the_app = ((False, True, 0.0), (False, False, 0.0))
    monkeypatch.setitem(connecting.LEAN, "usb", (boots_the_app, connecting.USB))
    session = connect(board(usb=True), reset="usb")
    assert isinstance(session._esp, RomLoader) and session.reasons == ()


def test_nothing_of_esptool_is_imported_for_reading(tmp_path: Path) -> None:
    import subprocess

    program = (
        "import sys; from pathlib import Path; from virtualboard.port import open_virtual\n"
        "from pipeline.device import session\n"
        f"port = open_virtual('esp32c3', Path({str(tmp_path / 'f')!r}), execute=False)\n"
        "opened = session.connect(port, 'esp32c3', '', lambda: None, 4 << 20, 'instant')\n"
        "opened.md5(0, 4096)\n"
        "print(sorted({'esptool', 'esp_pylib', 'rich', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "[]\n"


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("baud", [115200, 921600])
def test_runs_are_programmed_and_nothing_else(board: Opener, chip: str, baud: int) -> None:
    port = board(chip)
    port.board.flash.program(0x10000, bytes(0xA000))
    session = connect(port, chip, baud)
    seen: list[tuple[int, int]] = []
    runs = (Region(0x10000, 0x1000), Region(0x13000, 0x2000), Region(0x19000, 0x1000))
    written = session.write(image(), DATA, runs, lambda _, done, total: seen.append((done, total)))
    last = len(DATA) - 0x9000
    assert written == 0x3000 + last
    flash = port.board.flash.read(0x10000, 0xA000)
    assert flash[:0x1000] == DATA[:0x1000] and flash[0x3000:0x5000] == DATA[0x3000:0x5000]
    assert flash[0x1000:0x3000] == bytes(0x2000) and flash[0x5000:0x9000] == bytes(0x4000)
    assert flash[0x9000 : 0x9000 + last] == DATA[0x9000:]
    assert seen[-1] == (written, written) and sorted(seen) == seen
    assert session.md5(0x13000, 0x2000) == hashlib.md5(DATA[0x3000:0x5000]).hexdigest()


def test_a_write_formats_no_packet_for_a_trace_that_nobody_sees(board: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    from esptool import loader

    dumps: list[int] = []
    dump = loader.HexFormatter.__str__

    def counted(self: Any) -> str:
        dumps.append(len(self._s))
        return str(dump(self))

    monkeypatch.setattr(loader, "HexFormatter", type("HexFormatter", (loader.HexFormatter,), {"__str__": counted}))
    port = board()
    connect(port).write(image(), DATA, (Region(0x10000, 0xA000),), quiet)
    assert port.board.flash.read(0x10000, len(DATA)) == DATA
    assert dumps == []


def test_the_board_leaves_the_loader_when_the_session_ends(board: Opener) -> None:
    port = board()
    session = connect(port)
    session.close()
    session.close()
    assert not port.is_open and str(port.board.mode) != "Mode.LOADER"


# --- beyond 16 MB -------------------------------------------------------------------------------

LARGE, HIGH = 32 << 20, 0x1010000


def test_a_large_flash_is_hashed_and_written_where_it_says(board: Opener) -> None:
    """The ROM's commands would answer for 0x10000, and a write through them would land there."""
    port = board("esp32s3", flash_size=LARGE)
    port.board.flash.program(0x10000, bytes(0xA000))
    port.board.flash.program(HIGH, DATA)
    session = connect(port, "esp32s3", flash_size=LARGE)
    assert session.md5(0x10000, 0xA000) == hashlib.md5(bytes(0xA000)).hexdigest()
    assert isinstance(session._esp, RomLoader), "below 16 MB the ROM answers"
    assert session.md5(HIGH, len(DATA)) == image().md5
    assert session.read(HIGH + 64, 64) == DATA[64:128]
    assert session.md5(0x10000, 0xA000) == hashlib.md5(bytes(0xA000)).hexdigest()
    again = DATA[::-1]
    session.write(image(again, HIGH + 0x10000), again, (Region(HIGH + 0x10000, 0xA000),), quiet)
    assert port.board.flash.read(HIGH + 0x10000, len(DATA)) == again
    assert port.board.flash.read(0x10000, 0xA000) == bytes(0xA000)


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
@pytest.mark.parametrize("offset", [HIGH, (16 << 20) - 0x1000])
def test_what_a_chips_loader_cannot_address_is_never_hashed_or_written(board: Opener, chip: str, offset: int) -> None:
    port = board(chip, flash_size=LARGE)
    session = connect(port, chip, flash_size=LARGE)
    calls: tuple[Callable[[], object], ...] = (
        lambda: session.md5(offset, 0x2000),
        lambda: session.read(offset, 0x2000),
        lambda: session.write(image(offset=offset), DATA, (Region(offset, 0x1000),), quiet),
    )
    for call in calls:
        with pytest.raises(DeviceError) as refused:
            call()
        assert refused.value.failure.category is FailureCategory.CONFIG_ERROR
        assert "reaches 0x1000000" in refused.value.failure.message
    assert port.board.flash.read(0, 1 << 20) == b"\xff" * (1 << 20)


def test_the_chips_whose_stub_reaches_far_are_esptools() -> None:
    import esptool

    ours = {name: chip.stub_address_bits == 32 for name, chip in CHIP_FACTS.items()}
    assert ours == {name: esptool.CHIP_DEFS[name].STUB_CLASS.FLASH_32BIT_ADDR_SUPPORTED for name in CHIP_FACTS}


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["brown-out:write=2", "power-cut:write=1,for=1", "worn:sector=0x12000"])
def test_a_write_that_fails_is_a_failed_write(board: Opener, fault: str) -> None:
    session = connect(board(faults=[fault]))
    try:
        session.write(image(), DATA, (Region(0x10000, 0xA000),), quiet)
    except DeviceError as error:
        assert error.failure.category is FailureCategory.WRITE_FAILED
        assert error.failure.message.startswith("cannot write app at 0x10000: ")
    else:
        assert session.md5(0x10000, len(DATA)) != image().md5, "a worn sector is only found by reading back"


def test_another_chip_is_refused(board: Opener) -> None:
    for chip, other in (("esp32s3", "esp32c3"), ("esp32c3", "esp32s3"), ("esp32c3", "esp32")):
        port = board(chip)
        with pytest.raises(DeviceError) as caught:
            connect(port, other)
        assert caught.value.failure.category is FailureCategory.WRONG_DEVICE
        assert not port.is_open


def test_a_protected_board_says_so(board: Opener) -> None:
    session = connect(board(security=Security(secure_boot=True, flash_encryption=True)))
    assert (session.facts.secure_boot, session.facts.flash_encryption) == (True, True)
    with pytest.raises(DeviceError) as caught:
        connect(board(security=Security(secure_download=True)))
    assert caught.value.failure.category is FailureCategory.PROTECTED_DEVICE


def test_a_silent_board_is_a_named_failure(board: Opener) -> None:
    port = board(faults=["silence:for=0"])
    with pytest.raises(DeviceError) as caught:
        connect(port)
    assert caught.value.failure.category is FailureCategory.SYNC_FAILED
    assert not port.is_open


def test_where_the_lean_reset_fails_esptools_follows_and_it_is_said(board: Opener, monkeypatch: Any) -> None:
    monkeypatch.setitem(connecting.LEAN, "instant", (((False, True, 0.0), (False, False, 0.0)),))  # boots the app
    port = board()
    port.board.flash.program(0x10000, DATA)
    session = connect(port)
    assert [(reason.kind, reason.subject) for reason in session.reasons] == [("standard-connect", "loader")]
    assert session.md5(0x10000, len(DATA)) == image().md5
    assert session.facts.mac == "7c:df:a1:00:11:22"


def test_a_chip_that_we_do_not_read_is_left_to_esptool(board: Opener, monkeypatch: Any) -> None:
    monkeypatch.setattr(connecting, "reads", lambda chip: chip != "esp32c3")
    session = connect(board())
    assert [reason.kind for reason in session.reasons] == ["standard-connect"]
    assert session.facts.chip_id == 5


# --- the lean loader on a bad line --------------------------------------------------------------


class ScriptedLine:
    """A port that answers what it was given, then nothing."""

    def __init__(self, answers: bytes) -> None:
        self._answers = answers
        self.timeout = 1.0

    @property
    def in_waiting(self) -> int:
        return len(self._answers)

    def read(self, size: int) -> bytes:
        taken, self._answers = self._answers[:size], self._answers[size:]
        return taken

    def write(self, data: bytes) -> int:
        return len(data)

    def reset_input_buffer(self) -> None:
        """What was given stays: it is what comes."""


ANSWER = bytes.fromhex("c0 01 0a 04 00 db dc 31 50 6f 00 00 00 00 c0")


@given(st.binary(max_size=60))
def test_noise_before_an_answer_never_becomes_one(noise: bytes) -> None:
    loader = RomLoader(ScriptedLine(noise + b"\xc0" + ANSWER), "esp32c3")
    try:
        value = loader.read_reg(0x40001000)
    except LoaderError:
        return
    assert value == 0x6F5031C0 or b"\x01\x0a" in noise


def test_answers_to_other_commands_and_broken_frames_are_skipped() -> None:
    late = bytes.fromhex("c0 01 08 04 00 07 07 12 20 00 00 00 00 c0") * 7
    broken = ANSWER[:-3] + b"\xc0"
    assert (
        RomLoader(ScriptedLine(b"waiting for download\r\n" + late + broken + ANSWER), "esp32c3").read_reg(0)
        == 0x6F5031C0
    )


@pytest.mark.parametrize(
    "answers",
    [b"", b"\xc0" * 50, bytes(2 * NOISE_LIMIT), bytes.fromhex("c0 01 0a 04 00 00 00 00 00 01 05 00 00 c0")],
)
def test_silence_noise_and_refusals_end(answers: bytes) -> None:
    with pytest.raises(LoaderError):
        RomLoader(ScriptedLine(answers), "esp32c3").read_reg(0)
