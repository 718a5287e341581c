"""`[[action]]` tables through the whole program: real `doit`, real commands, a fake compiler."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.test_fastpath import NOTHING, FastPathProject

GENERATOR = """
import os, sys
out, *inputs = sys.argv[1:]
names = [open(path).read().strip() for path in inputs]
with open(out, "w") as stream:
    stream.write("// " + " ".join(names) + " " + os.environ.get("FLAVOUR", "plain") + "\\n")
"""
ACTION = """
[[action]]
name = "names"
argv = ["python", "tools/gen.py", "{out}", "{in}"]
inputs = ["names/*.txt"]
outputs = ["build/gen/h00.h"]
env = ["FLAVOUR"]
"""


FRAGILE = """
[[action]]
name = "fragile"
argv = ["sh", "-c", "cp fragile.txt build/fragile.bin; cp fragile.txt build/new.bin; ! grep -q broken fragile.txt"]
inputs = ["fragile.txt"]
outputs = ["build/fragile.bin", "build/new.bin"]
"""


@pytest.fixture
def project(tmp_path: Path) -> FastPathProject:
    project = FastPathProject(tmp_path)
    root = project.root
    for name in ("one", "two"):
        (root / "names").mkdir(exist_ok=True)
        (root / f"names/{name}.txt").write_text(f"{name}\n")
    (root / "tools").mkdir()
    (root / "tools/gen.py").write_text(GENERATOR)
    # The fake compiler reports include/h00.h; here the generated one takes its place.
    zig = project.zig.read_text().replace("include/h00.h", "build/gen/h00.h")
    project.zig.write_text(zig.replace('cp "$source"', '[ -s build/gen/h00.h ] || exit 9; cp "$source"'))
    config = (root / "deploy.toml").read_text()
    (root / "deploy.toml").write_text(
        config.replace('include = ["include"]', 'include = ["build/gen", "include"]') + ACTION
    )
    return project


def counts(project: FastPathProject) -> list[str]:
    """The stages that ran."""
    out = project.out("doit", "compile", "link")
    return [line.split()[1] for line in out.splitlines() if line.startswith(".")]


def add(project: FastPathProject, text: str) -> None:
    with (project.root / "deploy.toml").open("a") as stream:
        stream.write(text)


def fails(project: FastPathProject, where: str, *facts: str) -> None:
    """Exit code 2 or 1, the place, the facts, and no traceback."""
    done = project.run("doit", "compile", "link")
    assert done.returncode in (1, 2), done.stdout + done.stderr
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    for fact in (where, *facts):
        assert fact in text, text


def test_generated_header_comes_before_the_compiles_and_is_an_input(project: FastPathProject) -> None:
    header = project.root / "build/gen/h00.h"
    assert counts(project) == ["fingerprint", "compile", "link"]
    assert header.read_text() == "// one two plain\n"
    assert counts(project) == []
    (project.root / "names/one.txt").write_text("other\n")
    assert counts(project) == ["fingerprint", "compile"], "objects are copies of their sources: nothing to link"
    assert header.read_text() == "// other two plain\n"
    assert counts(project) == []


def test_glob_script_and_variable_are_inputs(project: FastPathProject) -> None:
    header = project.root / "build/gen/h00.h"
    counts(project)
    (project.root / "names/three.txt").write_text("three\n")
    assert "compile" in counts(project)
    assert header.read_text() == "// one three two plain\n"
    project.env["FLAVOUR"] = "sweet"
    assert "compile" in counts(project)
    assert header.read_text() == "// one three two sweet\n"
    script = project.root / "tools/gen.py"
    script.write_text(script.read_text().replace('"// "', '"//! "'))
    assert "compile" in counts(project)
    assert header.read_text() == "//! one three two sweet\n"
    assert counts(project) == []


def test_the_gate_knows_variables_globs_and_scripts(project: FastPathProject) -> None:
    project.settle()
    project.env["FLAVOUR"] = "sour"
    assert project.answer("compile", "link") is None
    project.settle()
    (project.root / "names/zero.txt").write_text("zero\n")
    assert project.answer("compile", "link") is None
    project.settle()
    script = project.root / "tools/gen.py"
    script.write_text(f"{script.read_text()}# another one\n")
    assert project.answer("compile", "link") is None
    project.settle()
    assert project.answer("compile", "link") == NOTHING


def test_restored_from_the_cache(project: FastPathProject) -> None:
    counts(project)
    (project.root / "tools/gen.py").chmod(0o644)
    shutil.rmtree(project.root / "build")
    counts(project)
    assert (project.root / "build/gen/h00.h").read_text() == "// one two plain\n"


def test_an_action_that_uses_an_image_runs_in_stage_link(project: FastPathProject) -> None:
    add(
        project,
        """
[[action]]
name = "copy"
argv = ["cp", "{in}", "{out}"]
inputs = ["build/local-fast/app.bin"]
outputs = ["build/copy.bin"]
""",
    )
    assert counts(project) == ["fingerprint", "compile", "link"]
    built = project.root / "build"
    assert (built / "copy.bin").read_bytes() == (built / "local-fast/app.bin").read_bytes()
    (built / "copy.bin").unlink()
    assert counts(project) == ["link"]


def test_several_outputs_and_a_depfile(project: FastPathProject) -> None:
    (project.root / "names/hidden").write_text("a\n")
    add(
        project,
        """
[[action]]
name = "two"
argv = ["sh", "-c", 'cp names/hidden build/a; cp names/hidden build/b; echo "build/a: names/hidden" > build/two.d']
outputs = ["build/a", "build/b"]
depfile = "build/two.d"
""",
    )
    assert counts(project) == ["fingerprint", "compile", "link"]
    (project.root / "names/hidden").write_text("b\n")
    assert "compile" in counts(project)
    assert [(project.root / f"build/{name}").read_text() for name in "ab"] == ["b\n", "b\n"]
    assert counts(project) == []


WRONG = {
    "output twice": (
        'name = "x"\nargv = ["cp", "{in}", "{out}"]\ninputs = ["names/one.txt"]\noutputs = ["build/gen/h00.h"]',
        "@5",
        ("both 'names' and 'x'",),
    ),
    "cycle": (
        'name = "x"\nargv = ["cp", "{in}", "{out}"]\ninputs = ["build/y"]\noutputs = ["build/z"]\n[[action]]'
        '\nname = "y"\nargv = ["cp", "{in}", "{out}"]\ninputs = ["build/z"]\noutputs = ["build/y"]',
        "@1",
        ("wait for each other", "'x'", "'y'"),
    ),
    "outside": (
        'name = "x"\nargv = ["true"]\ninputs = ["../secret"]\noutputs = ["build/y"]',
        "@4",
        ("leaves the project root",),
    ),
    "not below build": ('name = "x"\nargv = ["true"]\noutputs = ["src/y.c"]', "@4", ("not below build/",)),
    "glob matches nothing": (
        'name = "x"\nargv = ["true"]\ninputs = ["nothing/*.bin"]\noutputs = ["build/y"]',
        "@4",
        ("matches no file",),
    ),
    "no such program": (
        'name = "x"\nargv = ["no-such-program"]\noutputs = ["build/y"]',
        "@3",
        ("'no-such-program'", "not on PATH"),
    ),
    "no output": ('name = "x"\nargv = ["true"]\noutputs = []', "@4", ("is empty",)),
    "unknown key": (
        'name = "x"\nargv = ["true"]\noutput = ["build/y"]',
        "@4",
        ("did you mean 'outputs'",),
    ),
    "output missing": ('name = "x"\nargv = ["true"]\noutputs = ["build/y"]', "", ("did not write its output build/y",)),
    "undeclared": (
        'name = "x"\nargv = ["sh", "-c", "echo > build/y; echo > build/stray"]\noutputs = ["build/y"]',
        "",
        ("build/stray", "no action declares"),
    ),
    "fails": (
        'name = "x"\nargv = ["sh", "-c", "echo a.txt:3: error: bad thing >&2; exit 4"]\noutputs = ["build/y"]',
        "a.txt:3",
        ("bad thing", "$ "),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_place(project: FastPathProject, name: str) -> None:
    table, where, facts = WRONG[name]
    lines = len((project.root / "deploy.toml").read_text().splitlines())
    add(project, f"\n[[action]]\n{table}\n")
    # @N: the Nth line of the table.
    fails(project, re.sub(r"@(\d)", lambda n: f"deploy.toml:{lines + 1 + int(n[1])}:", where), *facts)
    assert not (project.root / "build/y").exists()


@pytest.mark.parametrize(
    ("section", "key", "fact"),
    [
        ("toolchain", "linker_script", "the linker script 'nope' cannot be read: No such file or directory"),
        ("bootloader", "linker_script", "the linker script 'nope' cannot be read: No such file or directory"),
        ("partitions", "table", "the partition table 'nope' cannot be read: No such file or directory"),
        ("project", "descriptor", "'nope' is none of the "),
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_where_it_is_written(
    project: FastPathProject, section: str, key: str, fact: str
) -> None:
    config = project.root / "deploy.toml"
    lines = config.read_text().splitlines()
    head = lines.index(f"[{section}]")
    end = next((n for n in range(head + 1, len(lines)) if lines[n].startswith("[")), len(lines))
    lines[head + 1 : end] = [line for line in lines[head + 1 : end] if not line.startswith(f"{key} = ")]
    lines.insert(head + 1, f'{key} = "nope"')
    config.write_text("\n".join(lines) + "\n")
    fails(project, f"deploy.toml:{head + 2}:", fact)


def test_a_second_checkout_compiles_nothing(project: FastPathProject, tmp_path: Path) -> None:
    """The default store is shared between a user's projects, wherever they lie."""
    config = project.root / "deploy.toml"
    config.write_text(config.read_text().replace('dir = ".deploy"', 'max_size = "50MB"'))
    project.env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    shutil.copytree(project.root, tmp_path / "deeper/second")
    counts(project)
    assert (tmp_path / "cache/hotplate/ac.v1").is_dir() and not (project.root / ".deploy/ac.v1").exists()
    calls = project.zig.with_name("calls")
    before, made = calls.read_text(), products(project)
    assert len(before.splitlines()) == 6, "three units, the bootloader's, two links"
    project.root = tmp_path / "deeper/second"
    assert counts(project) == ["fingerprint", "compile", "link"]
    assert calls.read_text() == before
    assert products(project) == made


def products(project: FastPathProject) -> dict[str, bytes]:
    """Every file below build/."""
    build = project.root / "build"
    return {str(path.relative_to(build)): path.read_bytes() for path in build.rglob("*") if path.is_file()}


def test_clean_removes_what_nobody_makes_any_more(project: FastPathProject) -> None:
    header = project.root / "build/gen/h00.h"
    assert counts(project) == ["fingerprint", "compile", "link"]
    (project.root / "build/mine.txt").write_text("mine\n")
    config = (project.root / "deploy.toml").read_text()
    (project.root / "deploy.toml").write_text(config.replace("build/gen/h00.h", "build/gen/other.h"))
    assert header.exists()
    project.out("doit", "clean", "compile")
    assert not header.exists() and (project.root / "build/mine.txt").exists()


def test_an_action_that_fails_leaves_what_lay_there(project: FastPathProject) -> None:
    """Made by an earlier run or by hand: it is gone only when there is something newer."""
    add(project, FRAGILE)
    made = project.root / "build/fragile.bin"
    made.parent.mkdir(exist_ok=True)
    made.write_text("by hand")
    (project.root / "fragile.txt").write_text("broken")
    for _ in range(2):
        fails(project, "deploy.toml:", "fragile")
        assert made.read_text() == "by hand"
        assert not (project.root / "build/new.bin").exists(), "what the failed command made is gone"
    (project.root / "fragile.txt").write_text("good")
    project.out("doit", "compile", "link")
    assert made.read_text() == "good"
    (project.root / "fragile.txt").write_text("broken again")
    fails(project, "deploy.toml:", "fragile")
    assert made.read_text() == "good"
    assert not list((project.root / ".deploy/former").iterdir())


@pytest.mark.parametrize("links", [{"assets/x.bin": "../build/gen/x.bin"}, {"assets": "build/gen"}])
def test_what_reads_a_product_through_a_link_is_made_by_the_same_run(
    project: FastPathProject, links: dict[str, str]
) -> None:
    """An edit of one file among many: nothing of what its maker makes is taken for what it was, by whatever name."""
    for path, target in links.items():
        (project.root / path).parent.mkdir(exist_ok=True)
        (project.root / path).symlink_to(target)
    for name, read, made in (("gen", "data/seed", "build/gen/x.bin"), ("pack", "assets/x.bin", "build/out/y.bin")):
        add(
            project,
            f'''
[[action]]
name = "{name}"
argv = ["cp", "{{in}}", "{{out}}"]
inputs = ["{read}"]
outputs = ["{made}"]
''',
        )
    (project.root / "data").mkdir()
    seed, packed = project.root / "data/seed", project.root / "build/out/y.bin"
    seed.write_text("one\n")
    if not (project.root / "assets/x.bin").exists():  # a pattern of inputs matches what there is
        (project.root / "build/gen").mkdir(parents=True, exist_ok=True)
        (project.root / "build/gen/x.bin").write_text("one\n")
    project.settle()
    for text in ("two\n", "three\n"):
        seed.write_text(text)
        assert counts(project) == ["fingerprint", "compile"]
        assert packed.read_text() == text
        assert counts(project) == []
        project.settle()
    (project.root / "build/gen/x.bin").unlink()
    packed.unlink()
    counts(project)
    assert packed.read_text() == (project.root / "build/gen/x.bin").read_text() == "three\n"
    assert counts(project) == []


COPIES = """
[[action]]
name = "pack"
argv = ["cp", "{in}", "{out}"]
inputs = ["assets/app"]
outputs = ["build/packed"]
"""
COPIES_UNDECLARED = """
[[action]]
name = "pack"
argv = ["sh", "tools/pack.sh"]
outputs = ["build/packed"]
depfile = "build/packed.d"
"""


def link_what_sources_say(project: FastPathProject) -> None:
    """Let the fake linker put the sources behind its template, so that an edit makes another program."""
    copies, catenates = 'exec cp "$(dirname "$0")/template.elf" "$out"', 'cat "$(dirname "$0")/template.elf" src/*/*.c'
    project.zig.write_text(project.zig.read_text().replace(copies, f'{catenates} > "$out"; exit'))


@pytest.mark.parametrize("way", ["link", "depfile"])
def test_what_uses_the_program_without_naming_it_runs_after_the_link(project: FastPathProject, way: str) -> None:
    """By a symbolic link, or as its depfile told: it is in the stage of the link, and never one run late."""
    link_what_sources_say(project)
    (project.root / "assets").mkdir()
    elf, packed = project.root / "build/local-fast/app.elf", project.root / "build/packed"
    project.out("doit", "compile", "link")
    if way == "link":
        (project.root / "assets/app").symlink_to("../build/local-fast/app.elf")
        add(project, COPIES)
    else:
        program = "build/local-fast/app.elf"
        lines = (f"cp {program} build/packed", f"echo build/packed: {program} > build/packed.d")
        (project.root / "tools/pack.sh").write_text("\n".join(lines))
        add(project, COPIES_UNDECLARED)
    project.out("doit", "compile", "link")
    source = sorted((project.root / "src").rglob("*.c"))[0]
    for number in range(2):
        project.settle()
        source.write_text(f"int changed{number};\n")
        assert counts(project) == ["fingerprint", "compile", "link"]
        assert f"changed{number}" in elf.read_text(errors="replace")
        assert packed.read_bytes() == elf.read_bytes()
        assert counts(project) == []
    elf.unlink()
    packed.unlink()
    assert counts(project)[-1] == "link"
    assert packed.read_bytes() == elf.read_bytes()
    project.out("doit", "clean", "compile")
    assert packed.exists()
    project.out("doit", "clean", "link")
    assert not packed.exists(), "it belongs to the stage in which it runs"


def test_who_comes_to_read_the_program_does_so_after_its_link(project: FastPathProject) -> None:
    """A list of what is packed names it from now on, and a source is saved as well: one run packs the new program."""
    link_what_sources_say(project)
    (project.root / "tools/pack.sh").write_text(
        'cp "$(cat names/packed.lst)" build/packed; echo "build/packed: $(cat names/packed.lst)" > build/packed.d\n'
    )
    listed = project.root / "names/packed.lst"
    listed.write_text("names/one.txt")
    add(project, COPIES_UNDECLARED.replace("outputs", 'inputs = ["names/packed.lst"]\noutputs', 1))
    project.settle()
    listed.write_text("build/local-fast/app.elf")
    source = sorted((project.root / "src").rglob("*.c"))[0]
    source.write_text("int newest;\n")
    assert counts(project) == ["fingerprint", "compile", "link"]
    packed = (project.root / "build/packed").read_bytes()
    assert b"newest" in packed and packed == (project.root / "build/local-fast/app.elf").read_bytes()
    assert counts(project) == []
    # So does one whose result for the former program comes from the cache.
    listed.write_text("names/one.txt")
    project.settle()
    listed.write_text("build/local-fast/app.elf")
    source.write_text("int third;\n")
    assert counts(project) == ["fingerprint", "compile", "link"]
    packed = (project.root / "build/packed").read_bytes()
    assert b"third" in packed and packed == (project.root / "build/local-fast/app.elf").read_bytes()
    assert counts(project) == []


def test_what_copes_without_the_program_is_right_in_the_first_run(project: FastPathProject) -> None:
    """Its depfile names the program, which is not there yet when nothing orders its first run: it runs behind the link
    of the same run."""
    link_what_sources_say(project)
    program = "build/local-fast/app.elf"
    (project.root / "tools/pack.sh").write_text(
        f"cat {program} > build/packed 2> /dev/null || echo none > build/packed\n"
        f"echo build/packed: {program} > build/packed.d\n"
    )
    add(project, COPIES_UNDECLARED)
    done = project.run("doit", "compile", "link")
    assert done.returncode == 0 and "note:" not in done.stdout + done.stderr
    elf, packed = project.root / program, project.root / "build/packed"
    assert packed.read_bytes() == elf.read_bytes()
    assert counts(project) == []
