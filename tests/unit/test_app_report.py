"""When the running firmware's word is proof: each lie, gap and malformed field is a doubt."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline.flash.app_proof import app_of, hash_doubts, identity_doubts, journal_doubts, mac_of, open_doubts
from pipeline.flash.journal import BY_OTA, JOURNAL_HEADER, DeviceState, begin, commit, decode_journal, written
from pipeline.flash_model import Image, MatchRule

MAC = "7c:df:a1:00:11:22"
ELF = "ab" * 32


def image(name: str, offset: int, match: MatchRule = MatchRule.BYTES) -> Image:
    data = name.encode() * 100
    md5 = hashlib.md5(data).hexdigest()
    partition = "ota_0" if name == "app" else name
    return Image(name, partition, offset, len(data), 0x10000, f"{name}.bin", digest_bytes(data), md5, match)


OTADATA = image("otadata", 0xE000, MatchRule.OTADATA)
APP = image("app", 0x10000)
IMAGES = (image("bootloader", 0), OTADATA, APP)
INFO = {"mac": MAC, "app_elf_sha256": ELF, "partition": "ota_0"}


def row(of: Image, **changes: Any) -> dict[str, Any]:
    base = {"name": of.name, "offset": of.offset, "size": of.size, "sha256": of.digest.hex, "running": of is APP}
    return base | changes


def hashes(*rows: dict[str, Any], mac: str = MAC) -> dict[str, Any]:
    return {"mac": mac, "regions": list(rows)}


GOOD = hashes(*(row(each) for each in IMAGES))


def kinds(doubts: list[Any]) -> list[str]:
    return [doubt.kind for doubt in doubts]


def test_the_truth_leaves_no_doubt() -> None:
    assert identity_doubts(INFO, ELF, APP, "") == identity_doubts(INFO, ELF, APP, MAC.upper()) == []
    assert hash_doubts(GOOD, MAC, IMAGES, APP) == []
    other_slot = row(image("app", 0x200000), running=False)
    assert hash_doubts(hashes(*GOOD["regions"], other_slot), MAC, IMAGES, APP) == [], "further regions are allowed"


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        (None, "no-answer"),
        ([], "no-answer"),
        (INFO | {"mac": "7c:df:a1:ff:ff:ff"}, "mac-differs"),
        (INFO | {"mac": 5}, "malformed-answer"),
        (INFO | {"mac": "7cdfa1001122"}, "malformed-answer"),
        (INFO | {"app_elf_sha256": "cd" * 32}, "runs-other-build"),
        (INFO | {"app_elf_sha256": None}, "runs-other-build"),
        (INFO | {"partition": "ota_1"}, "runs-other-slot"),
        ({"mac": MAC, "app_elf_sha256": ELF}, "runs-other-slot"),
    ],
)
def test_another_board_build_or_slot_is_a_doubt(info: object, kind: str) -> None:
    assert kinds(identity_doubts(info, ELF, APP, MAC)) == [kind]


def test_a_build_without_an_identity_cannot_be_recognised() -> None:
    for nothing in ("", "0" * 64):
        assert kinds(identity_doubts(INFO | {"app_elf_sha256": nothing}, nothing, APP, MAC)) == ["runs-other-build"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "no-answer"),
        ({"mac": MAC}, "no-answer"),
        ({"mac": MAC, "regions": ["x"]}, "no-answer"),
        (hashes(*GOOD["regions"], mac="7c:df:a1:ff:ff:ff"), "mac-differs"),
        (hashes(*GOOD["regions"][:2]), "not-reported"),
        (hashes(*GOOD["regions"][:2], row(APP, sha256="00" * 32)), "sha256-differs"),
        (hashes(*GOOD["regions"][:2], row(APP, size=APP.size + 4)), "sha256-differs"),
        (hashes(*GOOD["regions"][:2], row(APP, running=False)), "not-running"),
        (hashes(*GOOD["regions"][:2], row(APP, running=1)), "not-running"),
        (hashes(*GOOD["regions"], row(image("app", 0x200000), running=True)), "runs-other-slot"),
        (hashes(row(IMAGES[0]), row(OTADATA, sha256="00" * 32), row(APP)), "sha256-differs"),
    ],
)
def test_any_difference_in_the_hashes_is_a_doubt(answer: object, kind: str) -> None:
    assert kinds(hash_doubts(answer, MAC, IMAGES, APP)) == [kind]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["mac", "regions", "offset", "sha256", "size", "running"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_is_answered_is_judged_and_never_believed(answer: object) -> None:
    assert hash_doubts(answer, MAC, IMAGES, APP)
    assert identity_doubts(answer, ELF, APP, "")
    assert mac_of(answer) == ""


# --- journal ----------------------------------------------------------------------------------


def state(*lines: bytes) -> DeviceState:
    return decode_journal(JOURNAL_HEADER + b"".join(lines))[0]


COMMITTED = (begin("tx-1", "now", IMAGES), *(written("tx-1", each.name) for each in IMAGES), commit("tx-1"))


def test_a_committed_build_is_believed() -> None:
    assert journal_doubts(state(*COMMITTED), IMAGES) == []


def test_what_was_not_finished_is_not_believed() -> None:
    opened = state(*COMMITTED, begin("tx-2", "later", [APP]))
    assert kinds(journal_doubts(opened, IMAGES)) == ["write-was-cut-off", "not-in-journal"]
    assert kinds(open_doubts(opened)) == ["write-was-cut-off"]
    updated = state(*COMMITTED, begin("tx-3", "later", [APP], by=BY_OTA))
    assert kinds(open_doubts(updated)) == ["updated-without-cable"], "nothing was cut off"
    assert kinds(journal_doubts(updated, IMAGES)) == ["updated-without-cable", "not-in-journal"]
    assert kinds(journal_doubts(state(), IMAGES)) == ["not-in-journal"] * 3
    assert kinds(journal_doubts(decode_journal(b"garbage\n")[0], IMAGES)) == ["journal-damaged"]


def test_another_image_is_not_believed() -> None:
    other = image("app", 0x20000)
    assert kinds(journal_doubts(state(*COMMITTED), (*IMAGES[:2], other))) == ["journal-differs"]


def test_the_app_is_found_by_name() -> None:
    assert app_of(IMAGES) is APP and app_of(IMAGES[:2]) is None
