"""Directories packed by the field's own packages: the same bytes at any time, read back by something else, refused
where they do not fit."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.values import FORMAT_OPTIONS
from pipeline.engine.results import BuiltinCall, BuiltinError
from pipeline.formats import fat, spiffs
from pipeline.toolchain.filesystems import FILESYSTEMS, PACKERS

FILES = {
    "index.html": b"<html>",
    "js/application.min.js": bytes(range(256)) * 50,
    "a/b/c.txt": b"",
    "z.bin": b"\0" * 4096,
}


def packed(kind: str, files: Mapping[str, bytes], size: int, **options: str) -> bytes | BuiltinError:
    params = {key: values[0] for key, values in FORMAT_OPTIONS[kind].items()} | options
    paths = tuple(f"web/{name}" for name in files)
    call = BuiltinCall(paths, tuple(files.values()), {**params, "size": str(size), "root": "web", "package": "x"})
    made = FILESYSTEMS[PACKERS[kind].builtin](call)
    return made if isinstance(made, BuiltinError) else made[0]


def image(kind: str, files: Mapping[str, bytes], size: int, **options: str) -> bytes:
    made = packed(kind, files, size, **options)
    assert isinstance(made, bytes), made
    assert len(made) == size, "it fills its partition"
    return made


SIZES = {"littlefs": 0x20000, "spiffs": 0x20000, "fat": 0x90000}


@pytest.mark.parametrize("kind", SIZES)
def test_the_same_files_give_the_same_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(PACKERS[kind].module or "pipeline")
    first = image(kind, FILES, SIZES[kind])
    if kind == "fat":  # the library asks the clock
        from fatfs import wrapper

        class Later:
            @staticmethod
            def now() -> Any:
                import datetime

                return datetime.datetime(2031, 5, 6, 7, 8, 9)

        monkeypatch.setattr(wrapper, "datetime", type("module", (), {"datetime": Later}))
    assert image(kind, dict(reversed(FILES.items())), SIZES[kind]) == first
    assert image(kind, {**FILES, "z.bin": b"1"}, SIZES[kind]) != first


def test_littlefs_is_read_back() -> None:
    littlefs = pytest.importorskip("littlefs")
    made = image("littlefs", FILES, 0x20000)
    volume = littlefs.LittleFS(mount=False, block_size=4096, block_count=0, name_max=64)
    volume.context.buffer = bytearray(made)
    volume.mount()
    assert {name: volume.open(name, "rb").read() for name in FILES} == FILES
    assert (volume.fs_stat().block_count, volume.fs_stat().disk_version) == (32, 0x20000)
    newer = image("littlefs", FILES, 0x20000, disk_version="2.1")
    assert newer != made


def test_spiffs_is_read_back() -> None:
    assert spiffs.unpack(image("spiffs", FILES, 0x20000), spiffs.SpiffsSettings()) == FILES


class FatReader:
    """FAT12 and FAT16 as Microsoft's specification has them, long names included."""

    def __init__(self, volume: bytes) -> None:
        size, per, reserved, fats, roots, total, _, length = struct.unpack_from("<HBHBHHBH", volume, 11)
        self._volume, self._fat, self._cluster = volume, reserved * size, per * size
        self._root, self._root_size = (reserved + fats * length) * size, roots * 32
        self._data = self._root + self._root_size
        self._wide = (total * size - self._data) // self._cluster >= 4085

    def files(self) -> dict[str, bytes]:
        return dict(self._files(self._volume[self._root : self._root + self._root_size], ""))

    def _files(self, directory: bytes, prefix: str) -> list[tuple[str, bytes]]:
        found, long = [], ""
        for at in range(0, len(directory), 32):
            row = directory[at : at + 32]
            if row[0] == 0:
                break
            if row[11] == 0x0F:
                text = (row[1:11] + row[14:26] + row[28:32]).decode("utf-16-le").split("\0")[0]
                long = text.rstrip("\uffff") + long
                continue
            # Windows NT's two bits: the short name or its ending is in small letters
            stem, ending = row[:8].decode().rstrip(), row[8:11].decode().rstrip()
            stem, ending = stem.lower() if row[12] & 8 else stem, ending.lower() if row[12] & 16 else ending
            name, long = long or stem + (f".{ending}" if ending else ""), ""
            first, size = struct.unpack_from("<HI", row, 26)
            assert row[14:18] == struct.pack("<HH", 0, 0x21) == row[22:26], "no instant"
            if row[0] == 0x2E:
                continue
            content = self._chain(first)
            if row[11] & 0x10:
                found += self._files(content, f"{prefix}{name}/")
            else:
                found.append((f"{prefix}{name}", content[:size]))
        return found

    def _chain(self, cluster: int) -> bytes:
        parts = []
        while 2 <= cluster < (0xFFF8 if self._wide else 0xFF8):
            start = self._data + (cluster - 2) * self._cluster
            parts.append(self._volume[start : start + self._cluster])
            if self._wide:
                (cluster,) = struct.unpack_from("<H", self._volume, self._fat + 2 * cluster)
            else:
                (pair,) = struct.unpack_from("<H", self._volume, self._fat + cluster * 3 // 2)
                cluster = pair >> 4 if cluster & 1 else pair & 0xFFF
        return b"".join(parts)


def test_fat_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("fatfs")
    made = image("fat", FILES, 0x90000)
    sectors = fat.fat_sectors(0x90000)
    volume = made[4096 : 4096 + sectors * 4096]
    assert FatReader(volume).files() == FILES
    plain = image("fat", FILES, 0x90000, wear_levelling="false")
    assert FatReader(plain).files() == FILES and plain[:3] == volume[:3]
    if shutil.which("mtype"):  # mtools, where they are installed, as a second opinion
        (tmp_path / "v.img").write_bytes(volume)
        said = subprocess.run(
            ["mtype", "-i", str(tmp_path / "v.img"), "::/js/application.min.js"], capture_output=True, check=True
        )
        assert said.stdout == FILES["js/application.min.js"]


CSV = "# comment\nkey,type,encoding,value\nwifi,namespace,,\nssid,data,string,home\nchannel,data,u8,7\n"


def test_nvs_holds_its_entries() -> None:
    """By ESP-IDF's page format: 32-byte entries behind a header and a bitmap, a namespace entry first."""
    pytest.importorskip("esp_idf_nvs_partition_gen")
    files = {"nvs.csv": f"{CSV}cert,file,binary,keys/cert.pem\n".encode(), "keys/cert.pem": b"-----BEGIN"}
    made = image("nvs", files, 0x5000)
    entries = [made[at : at + 32] for at in range(64, 4096, 32)]
    assert made[:4] == b"\xfe\xff\xff\xff" and made[8] == 0xFE, "an active page of version 2"
    names = [entry[8:24].partition(b"\0")[0] for entry in entries]
    assert names[0] == b"wifi" and entries[0][0:2] == b"\x00\x01"
    assert b"ssid" in names and b"channel" in names and b"cert" in names
    channel = entries[names.index(b"channel")]
    assert (channel[0], channel[1], channel[24]) == (1, 0x01, 7), "namespace 1, u8, 7"
    assert b"-----BEGIN" in made and b"home\0" in made
    assert made == image("nvs", files, 0x5000)


@pytest.mark.parametrize(
    ("kind", "files", "size", "where", "fact"),
    [
        ("littlefs", {"x": bytes(40000)}, 0x8000, "web", "LittleFS cannot hold it"),
        ("littlefs", {"n" * 65: b""}, 0x8000, f"web/{'n' * 65}", "has 65 bytes, but `name_max` is 64"),
        ("spiffs", {"x": bytes(40000)}, 0x8000, "web", "the files need 45056 bytes in SPIFFS"),
        ("fat", {"x": b""}, 0x20000, "web", "the partition has 131072 bytes, but a FAT needs 540672"),
        ("fat", {"x": bytes(600_000)}, 0x90000, "web", "its 1 files have 600000 bytes, the partition 589824"),
        ("nvs", {"x.txt": b""}, 0x5000, "web", "NVS is made of one CSV file, and there are: none"),
        ("nvs", {"a.csv": b"key,type\n"}, 0x5000, "web/a.csv", "the first line is not key,type,encoding,value"),
        ("nvs", {"a.csv": CSV.encode()}, 0x2000, "web", "needs three or more whole pages"),
        ("nvs", {"a.csv": f"{CSV}big,data,u8,700\n".encode()}, 0x5000, "web/a.csv", "entry 4 ('big', data, u8):"),
        ("nvs", {"a.csv": f"{CSV}x,data,u77,1\n".encode()}, 0x5000, "web/a.csv", "entry 4 ('x', data, u77):"),
        ("nvs", {"a.csv": f"{CSV}{'k' * 16},data,u8,1\n".encode()}, 0x5000, "web/a.csv", "has 16 characters"),
        ("nvs", {"a.csv": f"{CSV}c,file,binary,c.pem\n".encode()}, 0x5000, "web/a.csv", "names the file 'c.pem'"),
        ("nvs", {"a.csv": CSV.encode().replace(b"home", b"\xff")}, 0x5000, "web/a.csv", "it is not UTF-8"),
    ],
)
def test_what_cannot_be_packed_is_refused_in_words(
    kind: str, files: Mapping[str, bytes], size: int, where: str, fact: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(PACKERS[kind].module or "pipeline")
    refused = packed(kind, files, size)
    assert isinstance(refused, BuiltinError)
    assert refused.where == where and fact in refused.message, refused
    assert refused.hint
    assert capfd.readouterr() == ("", ""), "no package says anything of its own"
