"""A deploy without doit against doit's own, in twin projects: the same streams, reports, state and exit codes.

One twin's `dodo.py` has a statement more, which does nothing, so that doit runs it; what is equal is compared after
what no two runs have in common: instants, durations, and what follows from them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.stamps import next_tick
from pipeline.cli.direct import Asked, asked_of, steps_of
from pipeline.fastpath.plain import is_plain
from pipeline.measure.bench.device import DOIT as BENCHED_DOIT
from pipeline.run.options import Options
from pipeline.run.run import Run, load_run
from tests.e2e.space import TIMEOUT_S, environment
from tests.given_project import DODO, esp_idf, project

CHIP = "esp32s3"
"""Executes nothing, so that a deploy costs little."""
LOADED = (
    "import atexit, os, sys; atexit.register(lambda: open(os.environ['LOADED'], 'w').write(str('doit' in sys.modules)))"
)
PROGRAMS = {
    "doit": "sys.argv[0] = 'doit'; from doit.doit_cmd import DoitMain; sys.exit(DoitMain().run(sys.argv[1:]))",
    "hotplate": "sys.argv[0] = 'hotplate'; from pipeline.fastpath import main; sys.exit(main())",
}
MORE = """
[device.rack1]
port = "virtual:"
mac = "7c:df:a1:00:22:01"
groups = ["rack"]

[device.rack2]
port = "virtual:"
mac = "7c:df:a1:00:22:02"
groups = ["rack"]

[device.gone]
port = "rfc2217://127.0.0.1:1"

[device.stuck]
port = "rfc2217://127.0.0.1:{port}"
"""


class DirectTwin:
    """One of the two projects; `run` as a user would."""

    def __init__(self, directory: Path, port: int) -> None:
        self.root = directory / "project"
        directory.mkdir()
        self.space = project(self.root, CHIP, esp_idf)
        with (self.root / "deploy.toml").open("a") as config:
            config.write(MORE.format(port=port))
        self.space.edit(
            "deploy.toml", '[device.bench]\nport = "virtual:"', '[device.bench]\nport = "virtual:"\ndefault = true'
        )
        self.env = environment(
            XDG_CACHE_HOME=str(directory / "cache"),
            XDG_STATE_HOME=str(directory / "state"),
            LOADED=str(directory / "loaded"),
            HOTPLATE_SERVICE="0",
            COLUMNS="80",
        )
        self.loaded = directory / "loaded"

    def start(self, program: str, *argv: str, **env: str) -> subprocess.Popen[str]:
        next_tick()  # what was written just now is not believed at once
        self.loaded.unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", f"{LOADED}; {PROGRAMS[program]}", *argv],
            cwd=self.root,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *argv: str, **env: str) -> tuple[int, str, str]:
        child = self.start(program, *argv, **env)
        out, err = child.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in out + err, out + err
        return child.returncode, out, err

    @property
    def without_doit(self) -> bool:
        return self.loaded.read_text() == "False"

    def settle(self) -> None:
        """Until the host part is proven by stamps alone."""
        for _ in range(5):
            assert self.run("doit", "link")[0] == 0
            if self.run("hotplate", "link")[0] == 0 and not self.loaded.exists():
                return
        raise AssertionError("the fast path never answered")


class Twins:
    """`plain` has nothing but our tasks; `other` has a statement more."""

    def __init__(self, directory: Path, port: int) -> None:
        self.plain = DirectTwin(directory / "plain", port)
        self.other = DirectTwin(directory / "other", port)
        (self.other.root / "dodo.py").write_text(f"{DODO}\npass\n")
        for twin in (self.plain, self.other):
            for argv in (("deploy", "--group", "rack"), ("deploy",)):
                done = twin.run("doit", *argv)
                assert done[0] == 0, done[2]
            twin.settle()

    def compare(self, *argv: str, program: str = "hotplate", direct: bool = True, **env: str) -> int:
        """Run it in both; the exit code. `direct`: is it expected without doit in the plain one?"""
        ours, theirs = self.plain.run(program, *argv, **env), self.other.run("doit", *argv, **env)
        assert not self.other.without_doit
        if program == "hotplate":
            assert self.plain.without_doit == direct
        assert ours[0] == theirs[0], (ours, theirs)
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            assert differences(plain(mine), plain(other)) == []
        assert differences(last_reports(self.plain.root), last_reports(self.other.root)) == []
        assert differences(state(self.plain.root), state(self.other.root)) == []
        return ours[0]


def plain(text: str) -> list[str]:
    """Lines without what differs from run to run; boards that are deployed beside each other say so as they come."""
    text = re.sub(r"tx-\d{8}-\d{6}-[0-9a-f]+", "TX", re.sub(r"\bhotplate\b(?= (?:list|help))", "doit", text))
    lines = [_of_stream(line) if line.startswith("{") else _of_table(line) for line in text.splitlines()]
    return sorted(line for line in lines if line)


def _of_stream(line: str) -> str:
    """A line of `--json`; how often progress is told depends on the time."""
    said = without_times(json.loads(line))
    return "" if "progress" in said.values() else json.dumps(said, sort_keys=True)


def _of_table(line: str) -> str:
    line = re.sub(r"\b(?:OVER|WITHIN)\b|(?<=bottleneck: )\S+", "VERDICT", line)
    line = re.sub(r"(?<![\w.:/])-?\d+(?:\.\d+)?(?: ms)?(?![\w.:/])", "N", line)
    return re.sub(r"[ -]{2,}", " ", line).strip()


def headings(markdown: str) -> list[str]:
    """What a report has, whatever the durations in it."""
    return [line for line in markdown.splitlines() if line.startswith("#")]


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two values of JSON differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f"{at}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for n, (mine, its) in pairs for found in differences(mine, its, f"{at}[{n}]")]
    return [] if one == other else [f"{at}: {one!r} and {other!r}"]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        timed = ("at", "bottleneck", "verdict", "fits", "transaction_id", "marks", "seconds")
        return {
            key: without_times(item)
            for key, item in value.items()
            if key not in timed and not key.endswith(("_ms", "_at", "_s"))
        }
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return re.sub(r"tx-\d{8}-\d{6}-[0-9a-f]+", "TX", value) if isinstance(value, str) else value


def last_reports(root: Path) -> list[Any]:
    """The reports of the last run, as data and as text, by device."""
    found = []
    for path in sorted(root.glob("reports/tx-*.json")):
        found.append((without_times(json.loads(path.read_text())), headings(path.with_suffix(".md").read_text())))
        path.unlink()
        path.with_suffix(".md").unlink()
    return sorted(found, key=repr)


def state(root: Path) -> list[tuple[str, list[str]]]:
    """What lies in `.deploy/`, and of each event log which events it has."""
    found = []
    for path in sorted((root / ".deploy").rglob("*")):
        name = re.sub(r"tx-\d{8}-\d{6}-[0-9a-f]+", "TX", path.relative_to(root).as_posix())
        kinds = []
        if path.suffix == ".log":
            kinds = re.findall(r'"(?:kind|event|type)": ?"([^"]+)"', path.read_text())
            path.unlink()
        found.append((name, kinds))
    return sorted(found)


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, silent: int) -> Twins:
    return Twins(tmp_path_factory.mktemp("twins"), silent)


@pytest.mark.parametrize(
    "argv",
    [
        ("deploy",),
        (),
        ("deploy:bench",),
        ("verify-flash",),
        ("verify-flash:bench", "--device", "bench"),
        ("reflash:bench:app",),
        ("reattach",),
        ("ttfb", "--device=bench"),
        ("deploy", "--device", "rack1", "--reason", "a reason"),
        ("deploy", "--group", "rack"),
        ("deploy", "--group", "rack", "--rollback", "--workers", "1"),
        ("deploy", "--json"),
        ("deploy", "--json", "--group", "rack"),
        ("deploy", "--verify", "journal"),
        ("deploy", "--trace", "t.json", "--junit", "j.xml"),
    ],
    ids=" ".join,
)
def test_a_warm_run_is_the_same_without_doit(twins: Twins, argv: tuple[str, ...]) -> None:
    assert twins.compare(*argv) == 0


def test_doit_itself_leaves_its_list_of_tasks_out(twins: Twins) -> None:
    assert twins.compare("deploy", program="doit") == 0


def test_a_board_that_somebody_else_wrote_is_reflashed(twins: Twins) -> None:
    for twin in (twins.plain, twins.other):
        flash = twin.space.flash
        data = bytearray(flash.read_bytes())
        data[0x10100] ^= 0x40
        flash.write_bytes(data)
    assert twins.compare("deploy") == 0
    assert twins.compare("deploy") == 0


@pytest.mark.parametrize(
    "argv", [("deploy", "--device", "gone"), ("deploy", "--device", "gone", "--json")], ids=" ".join
)
def test_a_failure_is_the_same(twins: Twins, argv: tuple[str, ...]) -> None:
    assert twins.compare(*argv) == 1


def test_a_failure_beside_other_boards_is_the_same(twins: Twins) -> None:
    assert twins.compare("deploy", "--device", "gone", "--device", "rack1") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ("deploy", "--device", "nobody"),
        ("deploy:nobody",),
        ("deploy", "--workers", "many"),
        ("deploy", "--profile", "x"),
    ],
    ids=" ".join,
)
def test_bad_options_are_the_same(twins: Twins, argv: tuple[str, ...]) -> None:
    assert twins.compare(*argv) == 2


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("deploy", "--no-such-option"), 3),
        (("deploy:rack1", "--device", "bench"), 3),
        (("deploy", "link"), 0),
        (("deploy", "NAME=value"), 0),
        (("deploy", "--dev", "bench"), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_what_is_doits_to_say_goes_to_doit(twins: Twins, argv: tuple[str, ...], code: int) -> None:
    assert twins.compare(*argv, direct=False) == code


def test_an_edit_goes_to_doit_and_the_next_run_need_not(twins: Twins) -> None:
    for twin in (twins.plain, twins.other):
        config = twin.root / "deploy.toml"
        config.write_text(config.read_text() + "\n[budget]\nttfb = 999\n")
    assert twins.compare("deploy", direct=False) == 0
    for twin in (twins.plain, twins.other):
        twin.settle()
    assert twins.compare("deploy") == 0


def test_files_that_were_only_touched_are_read_and_recorded(twins: Twins) -> None:
    for twin in (twins.plain, twins.other):
        twin.settle()
        given = [path for path in (twin.root / "build").rglob("*.bin") if "prebuilt" not in path.parts]
        assert given
        for path in given:
            path.touch()
    assert twins.compare("deploy") == 0
    assert twins.compare("deploy") == 0


def test_variables_of_doit_go_to_doit(twins: Twins) -> None:
    assert twins.compare("deploy", direct=False, DOIT_FILE="dodo.py") == 0


def test_ctrl_c_ends_both_alike(twins: Twins) -> None:
    """While a board does not answer: 130, the report written, the same words."""
    ended = []
    for twin, program in ((twins.plain, "hotplate"), (twins.other, "doit")):
        child = twin.start(program, "deploy", "--device", "stuck")
        assert child.stdout is not None
        head = ""
        while "verify-flash:stuck" not in head:
            line = child.stdout.readline()
            assert line, head
            head += line
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in out + err
        ended.append((child.returncode, plain(head + out), plain(err), last_reports(twin.root), state(twin.root)))
        assert twin.without_doit == (program == "hotplate")
    assert ended[0] == ended[1]
    assert ended[0][0] == 130


# --- when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], Asked(("deploy",), "")),
        (["deploy", "--json", "--take", "--fail-fast"], Asked(("deploy",), "")),
        (["reflash:bench:app", "--profile", "release"], Asked(("reflash:bench:app",), "release")),
        (["deploy", "--reason=a=b"], Asked(("deploy",), "")),
        (["deploy", "--reason", "a=b"], None),
        (["deploy", "--reason", ""], None),
        (["deploy", "--reason"], None),
        (["deploy", "--json=yes"], None),
        (["deploy", "-a"], None),
        (["-a", "deploy"], None),
        (["deploy", "deploy"], None),
        (["deploy*"], None),
        (["deploy", "--profile", "../x"], None),
        (["link"], Asked(("link",), "")),
        (["link", "compile", "--profile", "x"], Asked(("link", "compile"), "x")),
        (["link", "deploy"], None),
        (["deploy", "link"], None),
        (["link", "-a"], None),
        (["list"], None),
        (["", "deploy"], None),
    ],
)
def test_which_command_lines(argv: list[str], wanted: Asked | None) -> None:
    assert asked_of(argv) == wanted


@pytest.mark.parametrize(
    ("dodo", "wanted"),
    [
        (DODO, True),
        ('"""Words."""\n\nfrom __future__ import annotations\nfrom pipeline.tasks import *\n', True),
        ("# Tasks.\n\n# More.\nfrom pipeline.tasks import *", True),
        (" from pipeline.tasks import *\n", False),
        ("# Tasks.\r\nfrom pipeline.tasks import *\r\n", True),
        ("# Tasks.\rimport os\nfrom pipeline.tasks import *\n", False),
        ("from pipeline.tasks import *\x85# more\n", False),
        ("# \0\nfrom pipeline.tasks import *\n", False),
        ("from pipeline.tasks import *\nfrom pipeline.tasks import *\n", False),
        ("from pipeline.tasks import task_deploy\n", False),
        (f"{DODO}\nDOIT_CONFIG = {{}}\n", False),
        (f"import os\n{DODO}", False),
        ("", False),
        ("from pipeline.tasks import (\n", False),
    ],
)
def test_which_dodo(tmp_path: Path, dodo: str, wanted: bool) -> None:
    (tmp_path / "dodo.py").write_text(dodo)
    assert is_plain(str(tmp_path)) == wanted
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["doit"]\n[tool.ruff]\n')
    assert is_plain(str(tmp_path)) == wanted
    for options in ("[tool.doit]\nverbosity = 0\n", "[ tool ]\n'doit'.verbosity = 0\n", "[tool.doit"):
        (tmp_path / "pyproject.toml").write_text(options)
        assert not is_plain(str(tmp_path))
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "doit.cfg").touch()
    assert not is_plain(str(tmp_path))


def test_the_steps_are_doits_tasks(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, order and dependencies, as doit itself lists them."""
    monkeypatch.chdir(twins.plain.root)
    loaded = load_run(Options())
    assert isinstance(loaded, Run)
    monkeypatch.setattr(sys, "argv", ["doit", "list"])
    steps = steps_of(loaded)
    loaded.close()
    code, out, _ = twins.other.run("doit", "list", "--all", "--deps", "-q")
    assert code == 0
    listed = {line.strip() for line in out.splitlines() if line and line[0] != " "}
    assert set(steps) <= listed
    for name, step in steps.items():
        for before in step.task_dep:
            assert before in steps, (name, before)


# --- monitor ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "direct"),
    [
        (("monitor", "bench", "--until", "ESP-ROM"), 0, True),
        (("monitor", "--device=bench", "--until=nothing says this", "--seconds", "0.2", "--no-reset"), 1, True),
        (("monitor", "nobody"), 2, True),
        (("monitor", "bench", "rack1"), 3, True),
        (("monitor", "bench", "--since", "never"), 3, True),
        (("monitor", "bench", "--seconds", "soon"), 3, False),
        (("monitor", "bench", "--unt", "ESP-ROM"), 0, False),
        (("monitor", "bench", "--no-such"), 3, False),
        (("monitor", "bench", "--until", "a=b", "--seconds", "0.2"), 0, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_monitor_is_the_same_without_doit(twins: Twins, argv: tuple[str, ...], code: int, direct: bool) -> None:
    ours, theirs = twins.plain.run("hotplate", *argv), twins.plain.run("doit", *argv)
    assert (ours[0], ours[1]) == (theirs[0], theirs[1])
    assert plain(ours[2]) == plain(theirs[2])
    assert ours[0] == code or (code == 0 and not direct)
    twins.plain.run("hotplate", *argv)
    assert twins.plain.without_doit == direct
    # What was heard is kept, which the other twin has nothing of.
    shutil.rmtree(twins.plain.root / ".deploy/console", ignore_errors=True)


def test_what_a_benchmark_asks_at_the_end_is_said(twins: Twins) -> None:
    """A settled deploy ends the process before doit returns from anything."""
    for twin in (twins.plain, twins.other):  # in both, so that the next comparison finds the same
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", BENCHED_DOIT, "deploy"],
                check=True,
                cwd=twin.root,
                env=twin.env,
                capture_output=True,
                text=True,
            )
        assert re.search(r"^MODELLED_S=\d", done.stderr, re.M), done.stderr
