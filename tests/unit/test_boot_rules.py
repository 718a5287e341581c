"""What the mask ROMs refuse, by the table that was measured on them; and images of an ESP8266."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.boot_rules import rom_refusal, second_stage_refusal
from pipeline.formats.esp_image import check_chip, describe_image
from pipeline.formats.flash_file import FlashFile
from pipeline.formats.manifests import find_chip
from pipeline.model import Failure, Reason
from tests import given_firmware as given_by
from tests.e2e.inprocess import deploy
from tests.given_project import files, project
from virtualboard.chips import CHIPS as BOARDS
from virtualboard.rom import POWERON, boot

CHIPS = ("esp32", "esp32s3", "esp32c3")
RAM = {"esp32": 0x3FFF0000, "esp32s3": 0x3FCD0000, "esp32c3": 0x3FC90000}
WORD = b"\x6f\0\0\0"


def image(chip: str, segments: list[tuple[int, bytes]], *, mode: int = 2, freq: int = 0xF) -> bytes:
    return given_by.segments_image(chip, segments, mode=mode, size_freq=0x20 | freq)


def many(chip: str, count: int) -> bytes:
    return image(chip, [(RAM[chip] + 4 * n, WORD) for n in range(count)])


def cases(chip: str) -> list[tuple[bytes, str]]:
    """(image, part of what is said of it; `""` where the ROM starts it)."""
    ram, classic = RAM[chip], chip == "esp32"
    one = [(ram, WORD)]
    limit = 32 if classic else 16
    return [
        (image(chip, one), ""),
        (many(chip, 16), ""),
        (many(chip, limit), ""),
        (many(chip, limit + 1), f"segment count: 1 to {limit} allowed, {limit + 1} there"),
        (many(chip, 64), "segment count"),
        (image(chip, [(ram, WORD), (ram + 16, b"12345")]), "segment 1 has 0x5 bytes, which is no multiple of 4"),
        (image(chip, [(ram + 2, WORD)]), f"segment 0 is loaded to {ram + 2:#x}, which is no multiple of 4"),
        (image(chip, [(0x80000000, WORD)]), "" if classic else "loads nothing from 0x80000000 on"),
        *((image(chip, one, mode=mode), "") for mode in (3, 4, 5)),
        (image(chip, one, mode=6), "flash mode is 6" if classic else ""),
        (image(chip, one, mode=10), "flash mode is 10" if classic else ""),
        (image(chip, one, mode=11), "flash mode is 11"),
        *((image(chip, one, freq=freq), "") for freq in (0, 1, 2, 0xF)),
        *((image(chip, one, freq=freq), "" if classic else f"frequency is {freq:#x}") for freq in (3, 7, 0xE)),
    ]


@pytest.mark.parametrize("chip", CHIPS)
def test_the_rom_of_each_chip(chip: str) -> None:
    for number, (data, fact) in enumerate(cases(chip)):
        refusal = rom_refusal(data, chip)
        assert (refusal is None) == (fact == ""), (number, refusal)
        assert refusal is None or (fact in refusal.fact and refusal.hint), number


@pytest.mark.parametrize(
    ("address", "size", "overlaps"),
    [
        (0x3FCDE15C, 4, False),
        (0x3FCDE15C, 8, True),
        (0x3FCDE160, 4, True),
        (0x3FCDF660, 4, True),
        (0x3FCDF664, 4, False),
        (0x3FCD0000, 0x10000, True),
        (0x3FCDE200, 0, False),
    ],
)
def test_the_c3s_rom_keeps_its_own_memory(address: int, size: int, overlaps: bool) -> None:
    refusal = rom_refusal(image("esp32c3", [(address, bytes(size))]), "esp32c3")
    assert (refusal is not None) == overlaps
    assert refusal is None or "(0x3fcde160 to 0x3fcdf664)" in refusal.fact


@pytest.mark.parametrize("chip", CHIPS)
def test_an_application_is_the_bootloaders_to_judge(chip: str) -> None:
    """16 segments everywhere, whatever the ROM takes; the header's flash settings are only the bootloader's."""
    assert second_stage_refusal(many(chip, 16)) is None
    assert second_stage_refusal(image(chip, [(RAM[chip], WORD)], mode=9, freq=7)) is None
    assert second_stage_refusal(image(chip, [(0x3FCDE200, WORD)])) is None
    for data in (many(chip, 17), image(chip, [(RAM[chip], b"123")]), image(chip, [(RAM[chip] + 1, WORD)])):
        assert second_stage_refusal(data) is not None


ADDRESSES = st.sampled_from(
    [0x3FC90000, 0x3FFF0000, 0x3FCDE15C, 0x3FCDE160, 0x3FCDF660, 0x3FC90002, 0x80000000, 0x7FFFFFFC]
)
SEGMENTS = st.lists(
    st.tuples(ADDRESSES, st.sampled_from([WORD, WORD * 4, b"", b"123", WORD + b"1"])), min_size=1, max_size=3
)


@given(
    st.sampled_from(CHIPS),
    st.sampled_from(CHIPS),
    SEGMENTS,
    st.integers(0, 14),
    st.integers(0, 15),
    st.sampled_from([1, 1, 1, 8, 12, 40]),
)
def test_whatever_the_virtual_boards_rom_refuses_is_refused_here(
    chip: str, made_for: str, segments: list[tuple[int, bytes]], mode: int, freq: int, times: int
) -> None:
    """The virtual board keeps a table of its own, from the same measurements; entries that lead nowhere are a crash."""
    rom = BOARDS[chip].rom
    data = image(made_for, segments * times, mode=mode, freq=freq)
    flash = bytearray(b"\xff" * 0x10000)
    flash[rom.image_offset : rom.image_offset + len(data)] = data
    booted = boot(lambda at, size: bytes(flash[at : at + size]), len(flash), POWERON, rom=rom)
    entered = booted.entry is not None or b"entry 0x" in booted.log
    refused_here = check_chip(data, chip, where="") is not None or rom_refusal(data, chip) is not None
    assert entered or refused_here, booted.log
    odd = any(address % 4 or len(content) % 4 for address, content in segments)
    assert entered != refused_here or (odd and chip == "esp32"), (booted.log, rom_refusal(data, chip))


@given(st.binary(max_size=200), st.sampled_from(CHIPS), st.booleans())
def test_no_bytes_raise(data: bytes, chip: str, as_image: bool) -> None:
    data = b"\xe9\x02" + data if as_image else data
    rom_refusal(data, chip)
    second_stage_refusal(data)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("what", ["segment count", "segment length", "flash mode", "alignment"])
def test_a_bootloader_that_the_rom_refuses_opens_no_port(tmp_path: Path, chip: str, what: str) -> None:
    bad = {
        "segment count": many(chip, 40),
        "segment length": image(chip, [(RAM[chip], b"12345")]),
        "flash mode": image(chip, [(RAM[chip], WORD)], mode=12),
        "alignment": image(chip, [(RAM[chip] + 1, WORD)]),
    }[what]
    space = project(tmp_path / "project", chip, files)
    space.file("bin/b.bin").write_bytes(bad)
    run = deploy(space.path)
    assert run.category in ("link_error", "action_failed")
    assert run.report["failure"]["where"].startswith("bin/b.bin"), run.report["failure"]
    assert not space.flash.exists()


# --- ESP8266 ----------------------------------------------------------------------------------


def esp8266(version: int = 1) -> bytes:
    """esptool's `elf2image --chip esp8266`: 8 bytes of header, then a segment's address and size."""
    if version == 2:
        return struct.pack("<BBBBI", 0xEA, 4, 0, 0x40, 0x40100004) + struct.pack("<II", 0, 0x574) + bytes(0x574)
    return struct.pack("<BBBBI", 0xE9, 3, 2, 0x40, 0x40100004) + struct.pack("<II", 0x40100000, 0x574) + bytes(0x574)


@pytest.mark.parametrize("version", [1, 2])
def test_an_image_of_an_esp8266_is_named_as_one(tmp_path: Path, version: int) -> None:
    data = esp8266(version)
    reason = describe_image(data)
    assert isinstance(reason, Reason) and "ESP8266" in reason.after
    wrong = check_chip(data, "esp32", where="a.bin")
    assert wrong is not None and wrong.message == "the image is for the ESP8266, but the chip is esp32"
    found = find_chip([FlashFile(0, "a.bin")], {"a.bin": data[:24]}, "here")
    assert isinstance(found, Failure) and "the image is for the ESP8266" in found.message

    def firmware(root: Path, chip: str) -> str:
        del chip
        given_by.write(root / "bin", {"a.bin": data})
        return 'files = { 0x0 = "bin/a.bin" }'

    def platformio(root: Path, chip: str) -> str:
        del chip
        given_by.write(root / "pio", {"firmware.bin": data})
        return 'directory = "pio"'

    for n, layout in enumerate((firmware, platformio)):
        shown = project(tmp_path / f"project{n}", "esp32", layout).doit("deploy")
        assert shown.code == 2 and "the image is for the ESP8266" in shown.err + shown.out, shown.err


@pytest.mark.parametrize("chip", CHIPS)
def test_no_image_of_the_family_passes_for_an_esp8266s(chip: str) -> None:
    for data in (given_by.bootloader(chip), given_by.app(chip)):
        assert not isinstance(describe_image(data), Reason)
        assert check_chip(data, chip, where="") is None
