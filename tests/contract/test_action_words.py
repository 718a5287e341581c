"""What the words of an `[[action]]` name is its input, and globs mean the same on the second run as on a clean
checkout: with real commands, in a project of actions alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.engine.engine import Engine
from pipeline.engine.workspace import BuildSteps, Directories, Host
from pipeline.errors import ConfigError
from pipeline.model import Action, Stage
from pipeline.toolchain.build import Toolchain
from tests.contract.small_project import Small

COPY = "import sys\nopen(sys.argv[1], 'w').write(' '.join(open(path).read().strip() for path in sys.argv[2:]))\n"


@pytest.fixture(scope="module")
def runner() -> Iterator[SystemProcessRunner]:
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


class WordsProject:
    """The actions of a project; what a toolchain makes is left out."""

    def __init__(self, root: Path, runner: SystemProcessRunner, *actions: str) -> None:
        self.small = Small(root, runner, "zig", more="".join(f"[[action]]\n{text}\n" for text in actions))
        self.root, self.runner = root, runner
        self.write("tools/copy.py", COPY)

    def write(self, path: str, text: str) -> None:
        self.small.write(path, text)

    def toolchain(self, profile: str = "local-fast") -> Toolchain:
        return self.small.tools(profile)

    def actions(self, profile: str = "local-fast") -> list[Action]:
        return [action for action in self.toolchain(profile).actions if action.is_users]

    def build(self, profile: str = "local-fast") -> list[str]:
        """The actions that were executed, in order."""
        made = self.toolchain(profile)
        steps = BuildSteps(self.actions(profile), made.tools, made.builtins, made.run_env)
        state = self.root / ".deploy"
        engine = Engine(Directories(self.root, state, state), steps, Host(self.runner, SystemClock(), 1))
        engine.scan()
        executed: list[str] = []
        for stage in (Stage.COMPILE, Stage.LINK):
            result = engine.run(stage, lambda label, done, total: None)
            assert result.ok and not result.notes, (result.failures, result.notes)
            executed += result.executed
        return executed

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def clean(self, *paths: str) -> None:
        """What lies there is what a build from nothing makes."""
        before = [self.text(path) for path in paths]
        shutil.rmtree(self.root / "build")
        shutil.rmtree(self.root / ".deploy")
        self.build()
        assert [self.text(path) for path in paths] == before


def action(name: str, argv: Sequence[str], inputs: Sequence[str] = (), more: str = "") -> str:
    def listed(words: Sequence[str]) -> str:
        return "[" + ", ".join(f"'''{word}'''" for word in words) + "]"

    text = f"name = '{name}'\nargv = {listed(argv)}\ninputs = {listed(inputs)}\n{more}\n"
    return text if "outputs" in more else f"{text}outputs = ['build/{name}.txt']\n"


WORDS = {
    "an option's value": (["python", "tools/opt.py", "--template=tools/t.txt", "{out}"], "tools/t.txt"),
    "a script in the root": (["python", "gen.py", "{out}"], "gen.py"),
    "a script through a parent": (["python", "sub/../tools/gen.py", "{out}"], "tools/gen.py"),
    "a script with dots": (["python", "./tools/./gen.py", "{out}"], "tools/gen.py"),
    "a module": (["python", "-m", "tools.gen", "{out}"], "tools/gen.py"),
    "a shell's text": (["sh", "-c", "cat tools/t.txt > $0", "{out}"], "tools/t.txt"),
    "a shell's input": (["sh", "-c", "cat <'tools/t.txt' >$0", "{out}"], "tools/t.txt"),
    "a response file": (["python", "tools/words.py", "@tools/t.txt", "{out}"], "tools/t.txt"),
    "named by a response file": (["python", "tools/words.py", "@tools/w.txt", "{out}"], "tools/t.txt"),
    "an absolute path": (["python", "ROOT/tools/gen.py", "{out}"], "tools/gen.py"),
    "outside": (["python", "../gen.py", "{out}"], "../gen.py"),
    "a link": (["python", "linked/gen.py", "{out}"], "tools/gen.py"),
    "a directory": (["python", "tools/dir.py", "assets", "{out}"], "assets/deep/a.txt"),
    "a directory of an option": (["python", "tools/dir.py", "--from=assets", "{out}"], "assets/deep/a.txt"),
    "a list": (["python", "tools/opt.py", "--template=none,tools/t.txt", "{out}"], "tools/t.txt"),
}
GEN = "import sys\nopen(sys.argv[-1], 'w').write('one')\n"
READ = """
import os, re, sys
text = ""
for word in sys.argv[1:-1]:
    for path in re.split("[=,@]", word):
        for top, _, names in os.walk(path):
            text += "".join(open(os.path.join(top, name)).read() for name in names)
        text += open(path).read() if os.path.isfile(path) else ""
        if path.endswith("w.txt"):
            text += open(open(path).read().strip()).read()
open(sys.argv[-1], "w").write(text)
"""


@pytest.mark.parametrize("name", WORDS)
def test_a_file_that_a_word_names(tmp_path: Path, runner: SystemProcessRunner, name: str) -> None:
    argv, path = WORDS[name]
    root = tmp_path / "p"
    project = WordsProject(root, runner, action("a", [word.replace("ROOT", str(root)) for word in argv]))
    for script in ("gen.py", "tools/gen.py", "../gen.py"):
        project.write(script, GEN)
    for script in ("opt", "words", "dir"):
        project.write(f"tools/{script}.py", READ)
    project.write("tools/w.txt", "tools/t.txt")
    project.write("tools/t.txt", "one")
    project.write("assets/deep/a.txt", "one")
    (root / "linked").symlink_to("tools")
    (root / "sub").mkdir()
    assert project.build() == ["a"] and project.build() == []
    before = project.text("build/a.txt")
    project.write(path, (root / path).read_text().replace("one", "two"))
    assert project.build() == ["a"]
    assert project.text("build/a.txt") != before
    project.clean("build/a.txt")


@pytest.mark.parametrize("word", ["tools/opt.cfg", "--config=tools/opt.cfg", "opt.cfg", "@opt.cfg", "new/sub"])
def test_a_word_for_a_file_that_does_not_exist_yet(tmp_path: Path, runner: SystemProcessRunner, word: str) -> None:
    project = WordsProject(tmp_path / "p", runner, action("a", ["python", "tools/opt.py", word, "{out}"]))
    project.write("tools/opt.py", READ)
    assert project.build() == ["a"]
    path = word.rpartition("=")[2].removeprefix("@")
    assert f"{project.root}/{path}" in project.toolchain().watched.absent, "the fast path looks for it"
    project.write(path if path != "new/sub" else "new/sub/file", "text")
    assert project.build() == ["a"]
    assert project.text("build/a.txt") == "text"


def test_a_dangling_link_that_comes_to_point_at_a_file(tmp_path: Path, runner: SystemProcessRunner) -> None:
    project = WordsProject(tmp_path / "p", runner, action("a", ["python", "tools/opt.py", "cfg", "{out}"]))
    project.write("tools/opt.py", READ)
    (project.root / "cfg").symlink_to("../elsewhere/cfg")
    assert project.build() == ["a"]
    assert str(tmp_path / "elsewhere/cfg") in project.toolchain().watched.absent
    project.write("../elsewhere/cfg", "text")
    assert project.build() == ["a"] and project.text("build/a.txt") == "text"


@pytest.mark.parametrize("word", ["build/a.txt", "--from=build/a.txt", "build/../build/a.txt", "@build/a.txt"])
def test_a_word_for_another_actions_product(tmp_path: Path, runner: SystemProcessRunner, word: str) -> None:
    """Declared first and needing the other: a dependency, not luck."""
    project = WordsProject(
        tmp_path / "p",
        runner,
        action("b", ["python", "tools/opt.py", word, "{out}"]),
        action("a", ["python", "tools/copy.py", "{out}", "{in}"], ["x.txt"]),
    )
    project.write("tools/opt.py", READ)
    for text in ("one", "two"):
        project.write("x.txt", text)
        assert project.build() == ["a", "b"] and project.build() == []
        assert project.text("build/b.txt") == text


def test_a_word_for_a_directory_of_products(tmp_path: Path, runner: SystemProcessRunner) -> None:
    project = WordsProject(
        tmp_path / "p",
        runner,
        action("b", ["python", "tools/opt.py", "build/gen", "{out}"]),
        action("a", ["python", "tools/copy.py", "{out}", "{in}"], ["x.txt"], "outputs = ['build/gen/x.txt']"),
    )
    project.write("tools/opt.py", READ)
    project.write("x.txt", "one")
    assert project.build() == ["a", "b"] and project.build() == []


def test_a_program_of_the_project_that_the_command_starts(tmp_path: Path, runner: SystemProcessRunner) -> None:
    more = "tools = ['tools/part']"
    project = WordsProject(
        tmp_path / "p", runner, action("a", ["sh", "-c", "PATH=tools:$PATH part > $0", "{out}"], [], more)
    )
    for text in ("one", "two"):
        project.write("tools/part", f"#!/bin/sh\necho {text}\n")
        (project.root / "tools/part").chmod(0o755)
        assert project.build() == ["a"] and project.text("build/a.txt") == f"{text}\n"


def test_what_an_action_writes_is_no_input_of_it(tmp_path: Path, runner: SystemProcessRunner) -> None:
    text = "cp x.txt build/d/o.txt; echo build/d/o.txt: x.txt > build/d/o.d; date +%N > /dev/null 2>log.txt"
    more = "outputs = ['build/d/o.txt']\ndepfile = 'build/d/o.d'"
    project = WordsProject(tmp_path / "p", runner, action("a", ["sh", "-c", text, "build/d"], [], more))
    project.write("x.txt", "one")
    assert project.build() == ["a"] and project.build() == []
    (made,) = project.actions()
    assert made.inputs == ("x.txt",)


@pytest.mark.parametrize("pattern", ["**/*.txt", "**", "*/*.txt", "[b]*/**", "build/**/*.txt", "build/*.txt"])
def test_a_glob_means_the_same_on_the_second_run(tmp_path: Path, runner: SystemProcessRunner, pattern: str) -> None:
    project = WordsProject(
        tmp_path / "p",
        runner,
        action("a", ["sh", "-c", "cat $@ > build/a.txt", "sh", "{in}"], ["bits/*.txt"]),
        action(
            "b", ["sh", "-c", 'echo "$@" > build/sub/b.txt', "sh", "{in}"], [pattern], "outputs = ['build/sub/b.txt']"
        ),
    )
    project.write("bits/x.txt", "one")
    project.build()
    inputs = [one.inputs for one in project.actions()]
    assert project.build() == []
    assert [one.inputs for one in project.actions()] == inputs
    made = {path for one in project.actions() if one.name == "b" for path in one.inputs if path.startswith("build/")}
    assert made == ({"build/a.txt"} if pattern.startswith("build/") else set())
    project.clean("build/sub/b.txt")


def test_globs_leave_out_what_runs_write(tmp_path: Path, runner: SystemProcessRunner) -> None:
    project = WordsProject(
        tmp_path / "p", runner, action("a", ["sh", "-c", "echo > build/a.txt"], ["**/*.md", "**/*.json"])
    )
    for path in ("docs/a.md", "x.json", "reports/tx-1.md", "compile_commands.json", ".deploy/runs/x.json"):
        project.write(path, "text")
    (made,) = project.actions()
    assert made.inputs == ("docs/a.md", "x.json")


# --- profiles -------------------------------------------------------------------------------------

FOREIGN = {
    "an input": (action("a", ["cp", "{in}", "{out}"], ["build/local-fast/app.bin"]), "", "[[action]]"),
    "a word": (action("a", ["cp", "build/local-fast/app.bin", "{out}"]), "", "argv"),
    "part of a word": (action("a", ["dd", "if=build/local-fast/app.bin", "of=build/a.txt"]), "", "argv"),
    "a library": ("", 'ldflags = ["build/local-fast/libx.a"]', "ldflags"),
    "a flag": ("", 'cflags = ["-include", "build/local-fast/x.h"]', "cflags"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_product_of_another_profile_is_refused(tmp_path: Path, runner: SystemProcessRunner, name: str) -> None:
    text, section, _ = FOREIGN[name]
    project = WordsProject(tmp_path / "p", runner, *([text] if text else []))
    project.small.toolchain = section
    for built in (False, True):
        if built:
            for path in ("app.bin", "libx.a", "x.h"):
                project.write(f"build/local-fast/{path}", "old")
        with pytest.raises(ConfigError, match="product of profile 'local-fast', but this run") as e:
            project.toolchain("release")
        line = int(e.value.failure.where.split(":")[1])
        assert "build/local-fast/" in (project.root / "deploy.toml").read_text().splitlines()[line - 1]
    project.toolchain("local-fast")


def test_profile_in_inputs_outputs_and_depfile(tmp_path: Path, runner: SystemProcessRunner) -> None:
    more = "outputs = ['build/{profile}/x.txt']\ndepfile = 'build/{profile}/x.d'"
    text = "cp x.txt {out}; echo {out}: x.txt > {depfile}"
    project = WordsProject(
        tmp_path / "p",
        runner,
        action("a", ["sh", "-c", text], [], more),
        action("b", ["sh", "-c", "echo {profile} $0 > {out}", "{in}"], ["build/{profile}/x.txt"]),
    )
    project.write("x.txt", "one")
    for profile in ("local-fast", "release"):
        assert project.build(profile) == ["a", "b"] and project.build(profile) == []
        assert project.text("build/b.txt") == f"{profile} build/{profile}/x.txt\n"
