"""A thousand mutations of each kind of file that people and other programs write: a failure in words or an answer,
never an exception, nothing written, and none that takes for ever."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import AnyStr

import pytest

from pipeline.errors import DeployError
from pipeline.formats import (
    c_source,
    command_words,
    depfile,
    diagnostics,
    elf,
    esp_image,
    jsonc,
    linker_script,
    merged,
    otadata,
    partitions,
    toml_positions,
    uf2,
)
from pipeline.formats.diagnostics import Origin
from pipeline.model import Failure
from pipeline.run.options import Options
from pipeline.run.project import load_project
from tests import given_firmware as given
from tests import given_project

MUTATIONS = 1000
ROOT = Path(__file__).parents[2]
WORDS = (
    *("\0", "\x1b[2J", "[", "]", "{", "}", "=", '"', "'", '"""', "#", "\n", "\r", ",", "-1", "1e999", "nan", "9" * 25),
    *("0x" + "f" * 30, "true", "null", "[[", "]]", "é", "\u202e", "..", "/", "[a.b.c]", "\\u0000", "\\", "\ufeff"),
    *("2500-01-01", "a" * 300, "(" * 300, "/*" * 100, " " * 300, "0x9000", "4MB", ":"),
)
BYTES = (
    *(b"\0", b"\xff", b"\xff" * 4, b"\0" * 4, b"\xe9", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xaa\x50"),
    *(b"\xeb\xeb", b"\x7fELF", b"\xff" * 32, bytes(range(32)), b"\0" * 4096),
)


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """A pattern that takes for ever on one of these fails after five minutes."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def mutations(seed: AnyStr, pieces: Sequence[AnyStr]) -> Iterator[AnyStr]:
    rng = random.Random(21)
    for _ in range(MUTATIONS):
        mutated = seed
        for _ in range(rng.randint(1, 4)):
            at, length = rng.randrange(len(mutated) + 1), rng.choice((0, 0, 1, 4, 20, 100))
            mutated = mutated[:at] + rng.choice(pieces) + mutated[at + length :]
        yield mutated


def table_of(data: bytes) -> None:
    partitions.decode_table(data)
    partitions.read_table(data, "t.bin", flash_size=4 << 20, table_offset=0x8000)


def elf_of(data: bytes) -> None:
    elf.strip(data)


def uf2_of(data: bytes) -> None:
    try:
        uf2.unpack(data)
    except ValueError as error:
        assert str(error)


def positions_of(text: str) -> None:
    toml_positions.locate(text).value(("project", "name"))


def csv_of(text: str) -> None:
    decoded = partitions.decode_csv(text.encode(), "p.csv")
    if not isinstance(decoded, Failure):
        partitions.parse_csv(decoded, "p.csv", flash_size=4 << 20, table_offset=0x8000, boot_offset=0x1000)


def jsonc_of(text: str) -> None:
    """A file that is no JSON is left alone, with an error that says so."""
    try:
        jsonc.opening(text, ["b"])
        jsonc.removed(text)
    except jsonc.CannotEdit as error:
        assert str(error)


APP = given.app("esp32c3")
DIAGNOSTICS = (
    "src/a.c:1:2: error: expected ';'\nIn file included from a.c:1:\nld.lld: error: undefined symbol: f\n"
    ">>> referenced by a.c:3 (src/a.c:3)\n>>>               a.o:(main)\n/usr/bin/ld: a.o: in function `f':\n"
    "a.c:(.text+0x1): undefined reference to `g'\nregion `FLASH' overflowed by 12 bytes\n"
)
TEXTS: dict[str, tuple[str, Callable[[str], object]]] = {
    "positions": ((ROOT / "deploy.toml").read_text(), positions_of),
    "csv": ((ROOT / "firmware/partitions.csv").read_text(), csv_of),
    "depfile": ("build/a.o: src/a.c inc/a\\ b.h \\\n inc/$$x.h C:/x.h\ninc/a.h:\n", depfile.parse),
    "linker script": ((ROOT / "firmware/port/esp32c3/app.ld").read_text(), linker_script.named_files),
    "source": ('#define H "h.h"\n#if __has_include(H)\n.incbin "x"\n#include <a.h>\n' * 5, c_source.hidden),
    "diagnostics": (DIAGNOSTICS, lambda text: diagnostics.plain(text.splitlines(), Origin({"a.o": "a.c"}, "b.ld"))),
    "jsonc": ('{ // c\n "a": [1, 2.5e3, "x\\u0041"], /* d */ "b": {"c": null,},\n}\n', jsonc_of),
}
IMAGES: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "table": (given.table(given.TWO_SLOTS), table_of),
    "application": (APP, esp_image.describe_image),
    "bootloader": (given.bootloader("esp32c3"), esp_image.describe_image),
    "otadata": (b"\1\0\0\0" + b"\xff" * 0x1FFC, lambda data: (otadata.select(data, 2), otadata.active_entry(data))),
    "elf": (b"\x7fELF\1\1\1" + bytes(300), elf_of),
    "uf2": (b"UF2\nWQ]\x9e" + bytes(504), uf2_of),
    "merged": (given.bootloader("esp32c3") + APP, lambda data: merged.split(0, data)),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text(kind: str) -> None:
    seed, read = TEXTS[kind]
    for mutated in mutations(seed, WORDS):
        read(mutated)


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image(kind: str) -> None:
    seed, read = IMAGES[kind]
    for mutated in mutations(seed, BYTES):
        read(mutated)


LONG = 200_000
SHAPES = (
    *("a", " ", "(", "/*", "\\", "a:1:", ">>> referenced by ", "a.o: in function `", "INPUT(", "__has_include(", "0"),
    *(">", " (", "'", '"', "# ", "ld: ", "{", "[", "a.", "\\ ", "$", "error: ", "\t", "a=", ",", ".incbin "),
)


@pytest.mark.parametrize("kind", [*TEXTS, "words"])
def test_a_long_line(kind: str) -> None:
    """One of 200 kB kept a run busy for a minute. Each shape takes milliseconds; what grows with the square takes
    minutes, and ends here by the alarm."""
    read = TEXTS[kind][1] if kind in TEXTS else command_words.parts
    for shape in SHAPES:
        for begin in ("", "a.c:1:1: ", '#if __has_include("', "x = "):
            read(begin + shape * (LONG // len(shape)) + "\n")


def place(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*")}


@pytest.mark.parametrize(
    "name", ["deploy.toml", "build/flasher_args.json", "build/partition_table/partition-table.bin"]
)
def test_a_project(tmp_path: Path, name: str) -> None:
    """Loaded, and everything placed that goes to flash."""
    given_project.project(tmp_path / "p", "esp32c3", given_project.esp_idf)
    path = tmp_path / "p" / name
    seed, before = path.read_bytes(), place(tmp_path)
    assert not isinstance(load_project(Options(), tmp_path / "p"), Failure)
    refused = 0
    pieces = BYTES if name.endswith(".bin") else [word.encode() for word in WORDS]
    for mutated in mutations(seed, pieces):
        path.write_bytes(mutated)
        try:
            loaded = load_project(Options(), tmp_path / "p")
            if not isinstance(loaded, Failure):
                _ = loaded.placements
        except DeployError as error:
            loaded = error.failure
        if isinstance(loaded, Failure):
            refused += 1
            assert loaded.where and loaded.message and loaded.hint and "this is a bug" not in loaded.message
    path.write_bytes(seed)
    assert place(tmp_path) == before and refused > MUTATIONS // 10
