"""What must not be written to which board: each rule by its boundary."""

from __future__ import annotations

import hashlib
import struct

import pytest

from cache.digest import digest_bytes
from pipeline.flash.board_checks import board_failure, flash_failure, image_failure
from pipeline.flash_model import DeviceFacts, Image
from pipeline.model import FailureCategory

FACTS = DeviceFacts("esp32c3", "7c:df:a1:00:11:22", 5, 101, 4 << 20, flash_encryption=False, secure_boot=False)
WHERE = "device bench on virtual:"


def header(chip_id: int = 5, lowest: int = 0, highest: int = 0xFFFF) -> bytes:
    return b"\xe9\x01\x02\x20" + bytes(8) + struct.pack("<HBHH", chip_id, 0, lowest, highest) + bytes(5)


def image(data: bytes) -> Image:
    return Image(
        "app", "ota_0", 0x10000, len(data), 0x10000, "app.bin", digest_bytes(data), hashlib.md5(data).hexdigest()
    )


def refusal(data: bytes, facts: DeviceFacts = FACTS) -> str:
    failure = image_failure(image(data), data, facts, WHERE)
    if failure is None:
        return ""
    assert failure.category is FailureCategory.WRONG_DEVICE
    return failure.message


def test_the_configured_board_passes() -> None:
    assert board_failure(FACTS, "", WHERE) is None
    assert board_failure(FACTS, "7C:DF:A1:00:11:22", WHERE) is None


def test_another_mac_is_refused_with_both() -> None:
    failure = board_failure(FACTS, "7c:df:a1:ff:ff:ff", WHERE)
    assert failure is not None and failure.category is FailureCategory.WRONG_DEVICE
    assert "7c:df:a1:00:11:22" in failure.message and "7c:df:a1:ff:ff:ff" in failure.message


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (FACTS._replace(flash_encryption=True), "flash encryption"),
        (FACTS._replace(secure_boot=True), "secure boot"),
        (FACTS._replace(secure_boot=True, flash_encryption=True), "flash encryption and secure boot"),
    ],
)
def test_a_protected_board_is_refused(facts: DeviceFacts, words: str) -> None:
    failure = board_failure(facts, "", WHERE)
    assert failure is not None and failure.category is FailureCategory.PROTECTED_DEVICE
    assert f"has {words} enabled" in failure.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(), ""),
        (header(lowest=101), ""),
        (header(lowest=102), "the chip is revision v1.1, app needs at least v1.2"),
        (header(highest=101), ""),
        (header(highest=100), "the chip is revision v1.1, app allows at most v1.0"),
        (header(highest=0), ""),
        (header(chip_id=9), "the image is for esp32s3, but the chip is esp32c3"),
        (b"\xaa\x50 a partition table", ""),
        (b"", ""),
    ],
)
def test_an_image_for_another_chip_or_revision_is_refused(data: bytes, message: str) -> None:
    assert refusal(data) == message


def test_a_smaller_flash_chip_is_refused() -> None:
    assert flash_failure(4 << 20, 4 << 20, WHERE) is None
    assert flash_failure(8 << 20, 4 << 20, WHERE) is None
    assert flash_failure(None, 4 << 20, WHERE) is None
    failure = flash_failure(2 << 20, 4 << 20, WHERE)
    assert failure is not None and failure.category is FailureCategory.WRONG_DEVICE
    assert failure.message == "the board's flash has 2048 KiB, deploy.toml says 4096 KiB"
    fits = flash_failure(2 << 20, 4 << 20, WHERE, 2 << 20)
    assert fits == failure, "then another size in deploy.toml helps"
    larger = flash_failure(2 << 20, 4 << 20, WHERE, (2 << 20) + 0x1000)
    assert larger is not None
    assert larger.message == "the board's flash has 2048 KiB, and the partition table needs 2052 KiB"
    assert "partition table" in larger.hint
