"""Ninja's manifest language, compared with ninja itself on the same texts."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.formats.ninja.dyndep import Dyndep, parse_dyndep
from pipeline.formats.ninja.graph import CycleError, NinjaManifest, canonical
from pipeline.formats.ninja.lexer import ManifestError
from pipeline.formats.ninja.manifest import parse_manifest

NINJA = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja") or ""
RULES = "rule cc\n  command = cc $in -o $out\nrule touch\n  command = touch $out\n"


def parse(text: str, **files: str) -> NinjaManifest:
    found = parse_manifest("build.ninja", text, {name.replace("_", "."): body for name, body in files.items()}.get)
    assert isinstance(found, NinjaManifest), str(found)
    return found


def refused(text: str) -> str:
    found = parse_manifest("build.ninja", text, lambda path: None)
    assert isinstance(found, ManifestError)
    return str(found)


def command(manifest: NinjaManifest, output: str) -> str:
    return manifest.producer[output].command


def ninja(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NINJA, *words], cwd=directory, capture_output=True, text=True, check=False)


# --- literal texts ------------------------------------------------------------------------------------


def test_variables_of_statement_rule_and_file() -> None:
    text = (
        "flags = -O\nrule cc\n  command = cc $flags $in -o $out\nbuild a.o: cc a.c b.c | c.h || d\nbuild b.o: cc b.c\n"
    )
    manifest = parse(text + "  flags = $flags -g\n")
    assert command(manifest, "a.o") == "cc -O a.c b.c -o a.o"
    assert command(manifest, "b.o") == "cc -O -g b.c -o b.o"
    edge = manifest.producer["a.o"]
    assert (edge.explicit_inputs, edge.needed_inputs, edge.order_only_inputs) == (
        ["a.c", "b.c"],
        ["a.c", "b.c", "c.h"],
        ["d"],
    )


def test_a_variable_of_the_file_is_that_of_its_time_and_one_of_a_rule_of_the_statement() -> None:
    text = "x = 1\nrule r\n  command = echo $x $y\nbuild a: r\n  y = $x\nx = 2\nbuild b: r\n  y = $x\n"
    manifest = parse(text)
    assert command(manifest, "a") == "echo 2 1"
    assert command(manifest, "b") == "echo 2 2"


def test_escapes_continuations_and_quoting() -> None:
    text = "rule cc\n  command = cc $in $in_newline -o $out $\n      $$x$:y $ z\nbuild a$ b$:c | d: cc e$ f $\n   g'h\n"
    manifest = parse(text)
    assert manifest.producer["d"].outputs == ["a b:c", "d"]
    assert command(manifest, "d") == "cc 'e f' 'g'\\''h' 'e f'\n'g'\\''h' -o 'a b:c' $x:y  z"


def test_include_shares_the_scope_and_subninja_has_its_own() -> None:
    text = "x = 1\ninclude i.ninja\nsubninja s.ninja\nbuild c: r\n"
    files = {
        "i.ninja": "rule r\n  command = run $x\nx = 2\n",
        "s.ninja": "x = 3\nrule r\n  command = other $x\nbuild s: r\n",
    }
    manifest = parse_manifest("build.ninja", text, files.get)
    assert isinstance(manifest, NinjaManifest)
    assert command(manifest, "c") == "run 2"
    assert command(manifest, "s") == "other 3"
    assert manifest.files == ["build.ninja", "i.ninja", "s.ninja"]


def test_pools_validations_defaults_and_response_files() -> None:
    text = (
        "pool heavy\n  depth = 2\nrule link\n  command = ld @$out.rsp\n  rspfile = $out.rsp\n"
        "  rspfile_content = $in_newline\n  pool = heavy\n  restat = 1\n"
        "build app: link a.o b.o |@ check\nbuild check: phony\n  pool = console\ndefault app\n"
    )
    manifest = parse(text)
    edge = manifest.producer["app"]
    assert manifest.pools == {"": 0, "console": 1, "heavy": 2}
    assert (edge.binding("pool"), edge.flag("restat"), edge.flag("generator")) == ("heavy", True, False)
    assert edge.binding("rspfile", escaped=False) == "app.rsp"
    assert (edge.command, edge.binding("rspfile_content")) == ("ld @app.rsp", "a.o\nb.o")
    assert [one.outputs[0] for one in manifest.closure(manifest.wanted())] == ["app", "check"]
    assert manifest.producer["check"].is_phony


def test_without_defaults_all_roots_are_wanted() -> None:
    manifest = parse(RULES + "build a: touch\nbuild b: cc a\nbuild c: touch\n")
    assert manifest.wanted() == ["b", "c"]
    assert manifest.wanted(["a"]) == ["a"]


def test_a_cycle_is_named() -> None:
    manifest = parse(RULES + "build a: cc b\nbuild b: cc c\nbuild c: cc a\n")
    with pytest.raises(CycleError, match="a -> b -> c -> a"):
        manifest.closure(["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build a: cc\n", "build.ninja:1: unknown build rule 'cc'"),
        ("\tx = 1\n", "build.ninja:1: tabs are not allowed, use spaces"),
        ("x = 1\ny = $%\n", "build.ninja:2: bad $-escape (literal $ must be written as $$)"),
        ("x = 1", "build.ninja:1: unexpected EOF"),
        (RULES + "build a: cc b\nbuild a: touch\n", "build.ninja:7: multiple rules generate a"),
        (RULES + "build a a: cc b\n", "build.ninja:6: a is defined as an output multiple times"),
        ("rule r\n  x = 1\n", "build.ninja:2: unexpected variable 'x'"),
        ("rule r\n  depfile = x\n", "build.ninja:3: expected 'command =' line"),
        (RULES + "default z\n", "build.ninja:5: unknown target 'z'"),
        ("include gone\n", "build.ninja:1: loading 'gone': it cannot be read"),
        ("pool p\n  depth = -1\n", "build.ninja:2: invalid pool depth"),
        (RULES + "build a: cc $x\n", "build.ninja:6: empty path"),
        (RULES + "build a: cc\n  pool = p\n", "build.ninja:7: unknown pool name 'p'"),
        (RULES + "build a: cc b\n  dyndep = dd\n", "build.ninja:7: dyndep 'dd' is not an input"),
        ("rule r\n  command = $command\nbuild a: r\n  \nbuild b: r\n  pool = $x\n", ""),
    ],
)
def test_what_ninja_refuses_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "build.ninja").write_text(text)
    said = ninja(tmp_path, "-t", "targets", "all")
    if message:
        # The line is ours: ninja's is that of the token after it, now and then.
        assert refused(text).partition(": ")[2] == message.partition(": ")[2]
        assert said.returncode != 0, said.stdout
    else:
        assert said.returncode == 0


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a", "a"),
        ("./a/../b//c/", "b/c"),
        ("../../a", "../../a"),
        ("a/../..", ".."),
        ("/a/./b", "/a/b"),
        (".", "."),
        ("a/..", "."),
        ("a./b", "a./b"),
        ("..a/b..", "..a/b.."),
    ],
)
def test_canonical_paths(path: str, name: str) -> None:
    assert canonical(path) == name


def test_dyndep_files() -> None:
    text = "ninja_dyndep_version = 1\nbuild a | a.mod: dyndep | b.mod ./c.mod\n  restat = 1\nbuild b: dyndep\n"
    assert parse_dyndep("dd", text) == (Dyndep("a", ("a.mod",), ("b.mod", "c.mod"), True), Dyndep("b", (), (), False))
    for bad in ("build a: dyndep\n", "ninja_dyndep_version = 2\n", "ninja_dyndep_version = 1\nbuild a: dyndep b\n", ""):
        assert isinstance(parse_dyndep("dd", bad), ManifestError)


# --- texts made at random --------------------------------------------------------------------------------

WORDS = ("a", "b.o", "c d", "e:f", "g$h", "sub/i", "./j", "sub/../k", "l'm", "#n", "o|p")


def _path(rng: random.Random) -> str:
    text = rng.choice(WORDS) + str(rng.randrange(4))
    escaped = text.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
    # Nothing but a variable holds `|`.
    return escaped.replace("|", "${bar}") + rng.choice(("", "", "", "$x", "${y.z}", "$\n    "))


def _value(rng: random.Random) -> str:
    pieces = (
        "-O",
        " ",
        "$x",
        "${y.z}",
        "$in",
        "$out",
        "$in_newline",
        "$$",
        "$:",
        ":",
        "|",
        "  ",
        "$ ",
        "#",
        "$\n   ",
        "é",
    )
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(6)))


def _variable(rng: random.Random) -> str:
    return rng.choice(("x", "y.z", "bar", "flags", "in", "command", "description"))


def random_manifest(rng: random.Random, files: dict[str, str], depth: int = 0) -> str:
    lines = ["bar = |\n"] if not depth else []
    known = ["phony"]
    for number in range(rng.randrange(1, 9)):
        match rng.randrange(7):
            case 0:
                lines.append(f"{_variable(rng)} = {_value(rng)}\n".replace("$in", "$x").replace("$out", "$x"))
            case 1:
                name = f"r{depth}{number}"
                known.append(name)
                lines.append(f"rule {name}\n  command = run {_value(rng)} $in -o $out $flags\n")
                if rng.random() < 0.3:
                    lines.append(f"  rspfile = $out.rsp\n  rspfile_content = x{_value(rng)}\n")
                if rng.random() < 0.3:
                    lines.append(f"  # note\n  restat = {_value(rng)}\n  depfile = $out.d\n")
            case 2 if depth < 2:
                name = f"f{len(files)}.ninja"
                files[name] = ""
                files[name] = random_manifest(rng, files, depth + 1)
                lines.append(f"{rng.choice(('include', 'subninja'))} {name}\n")
            case 3:
                lines.append("\n# a comment\n   \n")
            case _:
                lines.append(_statement(rng, known))
    return "".join(lines)


def _statement(rng: random.Random, known: list[str]) -> str:
    def paths(mark: str, most: int) -> str:
        found = [_path(rng) for _ in range(rng.randrange(most))]
        return f"{mark} {' '.join(found)} " if found and mark else " ".join(found)

    outputs = " ".join(f"out{rng.randrange(10**6)}/{_path(rng)}" for _ in range(rng.randrange(1, 3)))
    more = f" | extra{rng.randrange(10**6)}" if rng.random() < 0.3 else ""
    inputs = paths("", 4) + " " + paths("|", 3) + paths("||", 3) + paths("|@", 2)
    text = f"build {outputs}{more}: {rng.choice(known)} {inputs}\n"
    for _ in range(rng.randrange(3)):
        text += f"  {_variable(rng)} = {_value(rng)}\n".replace("$in", "$x").replace("$out", "$x")
    return text


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_random_manifests_are_read_as_ninja_reads_them(seed: int) -> None:
    compare_with_ninja(seed)


@pytest.mark.stress
def test_many_random_manifests_are_read_as_ninja_reads_them() -> None:
    for seed in range(2000):
        compare_with_ninja(seed)


def compare_with_ninja(seed: int) -> None:
    import tempfile

    files: dict[str, str] = {}
    text = random_manifest(random.Random(seed), files)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for path, body in {"build.ninja": text, **files}.items():
            (directory / path).write_text(body)
        found = parse_manifest("build.ninja", text, files.get)
        targets = ninja(directory, "-t", "targets", "all")
        if isinstance(found, ManifestError):
            assert targets.returncode != 0, f"{found}\n{text}"
            assert found.message.split(" '")[0].split(",")[0] in targets.stderr, f"{found}\n{targets.stderr}"
            return
        assert targets.returncode == 0, f"{targets.stderr}\n{text}"
        said = sorted(targets.stdout.splitlines())
        assert said == sorted(f"{path}: {edge.rule.name}" for edge in found.edges for path in edge.outputs)
        if found.edges:
            _compare_commands(directory, found, text)


def _compare_commands(directory: Path, found: NinjaManifest, text: str) -> None:
    for edge in found.edges:
        path = edge.outputs[0]
        said = ninja(directory, "-t", "commands", "-s", path)
        commands = [] if edge.is_phony else [edge.command]
        assert said.stdout == "".join(f"{one}\n" for one in commands), text
    query = ninja(directory, "-t", "query", *(edge.outputs[0] for edge in found.edges))
    assert query.returncode == 0, text
    expected = ""
    for edge in found.edges:
        expected += f"{edge.outputs[0]}:\n  input: {edge.rule.name}\n"
        marks = [*([""] * len(edge.explicit_inputs)), *(["| "] * edge.implicit), *(["|| "] * edge.order_only)]
        expected += "".join(f"    {mark}{path}\n" for mark, path in zip(marks, edge.inputs, strict=True))
        if edge.validations:
            expected += "  validations:\n" + "".join(f"    {path}\n" for path in edge.validations)
        expected += "  outputs:\n"
    # What reads an output is not asked here.
    kept, outputs = [], False
    for line in query.stdout.splitlines(keepends=True):
        outputs = line == "  outputs:\n" or (outputs and line.startswith("    "))
        if not line.startswith("  validations of:") and not (outputs and line.startswith("    ")):
            kept.append(line)
    assert "".join(kept) == expected, text
