"""Which files a thin archive names, as GNU ar writes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.formats.thin_archive import MAGIC, members

LONG = "a_name_of_more_than_fifteen_characters/b.o"


@pytest.mark.skipif(not shutil.which("ar"), reason="binutils are not installed")
@pytest.mark.parametrize("words", [("qcT",), ("rcsT",), ("qc", "--thin")])
def test_names_short_and_long_ones_and_those_of_a_thin_one_in_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / LONG).parent.mkdir()
    for name in ("a.o", LONG, "c.o"):
        (tmp_path / name).write_bytes(b"not an object, but bytes")
    mode, *long = words
    for made, of in (("lib/one.a", ["a.o", LONG]), ("two.a", ["c.o", "lib/one.a"])):
        (tmp_path / made).parent.mkdir(exist_ok=True)
        subprocess.run(["ar", mode, *long, made, *of], cwd=tmp_path, check=True)
    assert members((tmp_path / "lib/one.a").read_bytes()) == (b"../a.o", f"../{LONG}".encode())
    assert members((tmp_path / "two.a").read_bytes()) == (b"c.o", b"a.o", LONG.encode())


@pytest.mark.parametrize(
    "data", [b"", b"!<arch>\n", MAGIC, MAGIC + b"x" * 60, MAGIC + b"/9".ljust(48) + b"1".ljust(10) + b"`\n"]
)
def test_what_is_none_names_nothing(data: bytes) -> None:
    assert members(data) == ()


def test_a_name_that_no_path_can_be_is_left_out() -> None:
    names = b"long\0one/\nb.o/\n\n"
    headers = ((b"//", names), (b"a\0b/", b""), (b"/0", b""), (b"/10", b""), (b"c.o/", b""))
    data = b"".join(name.ljust(48) + str(len(held)).encode().ljust(10) + b"`\n" + held for name, held in headers)
    assert members(MAGIC + data) == (b"b.o", b"c.o")
