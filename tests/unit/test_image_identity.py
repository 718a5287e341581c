"""Which word of a command names the ELF file of an image, and what takes its place."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.formats import elf
from pipeline.formats.ninja.elf2image import find_elf
from pipeline.model import Action, Stage, Statement
from pipeline.toolchain.builtins import STRIP
from pipeline.toolchain.ninja_identity import with_loaded_identity
from tests.unit.test_link_map import elf_file

IMAGE = "--chip esp32c3 elf2image --flash_mode dio --elf-sha256-offset 0xb0 -o /r/build/a.bin"
ESPTOOL = f"/py -m esptool {IMAGE} /r/build/a.elf"
IDF = (
    f"cd /r/build/esp-idf/esptool_py && /py /idf/esptool.py {IMAGE} /r/build/a.elf && /usr/bin/cmake -E echo done"
    " && /usr/bin/cmake -E md5sum /r/build/a.bin > /r/build/.bin_timestamp"
)


@pytest.mark.parametrize(
    ("text", "word", "directory"),
    [
        (ESPTOOL, "/r/build/a.elf", ""),
        (IDF, "/r/build/a.elf", "/r/build/esp-idf/esptool_py"),
        (
            f"cd sub && esptool {IMAGE.replace('--elf-sha256-offset 0xb0', '--elf_sha256_offset=0xb0')} a.elf",
            "a.elf",
            "sub",
        ),
        (f": && gcc x.o -o a.elf && cd /r/build && {ESPTOOL}", "/r/build/a.elf", "/r/build"),
    ],
)
def test_the_word_that_names_the_file(text: str, word: str, directory: str) -> None:
    found = find_elf(text)
    assert found is not None
    assert (found.word, text[found.start : found.end], found.directory) == (word, word, directory)
    assert "esptool" in text[found.begin : found.start]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "esptool elf2image",
        ESPTOOL.replace(" --elf-sha256-offset 0xb0", ""),
        ESPTOOL.replace("esptool", "mytool"),
        f"{ESPTOOL} && sha256sum /r/build/a.elf",
        f"{ESPTOOL} && cp /r/build/a.elf.bak x",
        f"{ESPTOOL} | tee log",
        f"{ESPTOOL} --version",
        ESPTOOL.replace("/r/build/a.elf", '"/r/build/a b.elf"'),
        "echo elf2image && && &&",
    ],
)
def test_no_word_where_anything_is_in_doubt(text: str) -> None:
    assert find_elf(text) is None


def statement(text: str, outputs: tuple[str, ...], inputs: tuple[str, ...] = ()) -> Action:
    said = Statement("build", ("x",), text)
    return Action(outputs[0], Stage.LINK, inputs, outputs, ("sh:", "-c", text), statement=said)


def test_an_action_of_its_own_before_the_image() -> None:
    link = statement("gcc -o a.elf", ("build/a.elf",))
    image = statement(IDF, ("build/.bin_timestamp", "build/a.bin"), ("build/a.elf", "sdkconfig"))
    kept, strip, made = with_loaded_identity([link, image], "/r", "build/release")
    assert kept == link
    assert (strip.builtin, strip.inputs, strip.outputs) == (STRIP, ("build/a.elf",), ("build/release/a.stripped.elf",))
    assert made.inputs == ("build/release/a.stripped.elf", "sdkconfig")
    assert made.argv[2] == IDF.replace("/r/build/a.elf", "'{root}/build/release/a.stripped.elf'")
    assert made.statement is not None and image.statement is not None
    assert (made.statement.in_place_of, made.statement.command) == (("build/a.elf",), image.statement.command)
    symbolic = statement(IDF.replace("/r/", "{root}/"), image.outputs, image.inputs)
    assert len(with_loaded_identity([link, symbolic], "/r", "build/release")) == 3


@pytest.mark.parametrize(
    "text", [ESPTOOL.replace("/r/build/a.elf", "/elsewhere/a.elf"), f"objcopy /r/build/a.elf /r/x && {ESPTOOL}", "true"]
)
def test_other_commands_stay_as_they_are(text: str) -> None:
    actions = [statement("gcc", ("build/a.elf",)), statement(text, ("build/a.bin",), ("build/a.elf",))]
    assert with_loaded_identity(actions, "/r", "build/release") == actions


def test_a_command_that_links_and_makes_the_image_strips_in_between(tmp_path: Path) -> None:
    (tmp_path / "linked").write_bytes(elf_file())
    (tmp_path / "esptool").write_text('#!/bin/sh\nfor last; do :; done\ncp "$last" a.bin\n')
    (tmp_path / "esptool").chmod(0o755)
    root = str(tmp_path)
    image = f"{root}/esptool {IMAGE.replace('/r', root)} {root}/build/a.elf"
    text = f"cp {root}/linked {root}/build/a.elf && cd {root} && {image}"
    (made,) = with_loaded_identity([statement(text, ("build/a.elf", "build/a.bin"))], root, "build/release")
    assert made.statement is not None and made.statement.in_place_of == ()
    (tmp_path / "build").mkdir()
    subprocess.run(["/bin/sh", "-c", made.argv[2].replace("{root}", root)], cwd=tmp_path, check=True)
    assert (tmp_path / "build/a.elf").read_bytes() == elf_file()
    assert (tmp_path / "a.bin").read_bytes() == elf.strip(elf_file())


def test_the_program_says_what_it_cannot_read(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "pipeline.toolchain.strip_elf", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    (tmp_path / "a.elf").write_bytes(elf_file()[:60])
    assert run() == (3, "usage: strip_elf ELF OUT\n")
    assert run(str(tmp_path / "none"), "x")[0] == 1
    code, said = run(str(tmp_path / "a.elf"), str(tmp_path / "out"))
    assert (code, said.splitlines()[0]) == (1, f"{tmp_path}/a.elf: error: its section table points outside the file")
    assert not (tmp_path / "out").exists()
    (tmp_path / "a.elf").write_bytes(elf_file())
    assert run(str(tmp_path / "a.elf"), str(tmp_path / "new/out")) == (0, "")
    loaded = elf.strip(elf_file())
    assert isinstance(loaded, bytes)
    assert hashlib.sha256((tmp_path / "new/out").read_bytes()).digest() == hashlib.sha256(loaded).digest()
