"""Runs that the service's runner does for a client: the same streams, reports and exit codes as without, and the same
end whoever is interrupted or killed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cache.durable import FileLock
from cache.lock import OPEN, try_lock
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.fastpath import from_service, quick_build
from tests.e2e.space import TIMEOUT_S, Space, copy_project, environment
from tests.serving import ServiceProcess, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the runner needs /proc")

TRIES = 5
"""On a busy machine the service may answer too late, and a run takes place where it was asked for."""

DODO = """from pipeline.tasks import *

import locale, os, resource, signal, sys

umask = os.umask(0o22)
os.umask(umask)
print("facts", os.getppid(), os.getpid(), flush=True)
print(sys.argv[1:], os.getcwd(), oct(umask), os.environ.get("MARK"), os.environ["PATH"][:20], os.nice(0))
print([(s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.name, s.mode) for s in
       (sys.stdin, sys.stdout, sys.stderr)], locale.getlocale(), sys.flags)
print([str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)])
if "WRITES" in os.environ:
    from pathlib import Path
    from pipeline.run.lock import ProjectLock

    writing = ProjectLock(Path.cwd(), Path.cwd() / ".deploy").writing()
    writing.__enter__()
print(sys.stdin.read() if "READ" in os.environ else "", sys.path[0] == os.getcwd() or sys.path[0])
"""


class HandedProject:
    """A project whose dodo.py says by whom and in which process it was loaded, with a service beside it."""

    def __init__(self, space: Space, service: ServiceProcess) -> None:
        self.space = space
        self.service = service
        self.base = environment(
            XDG_RUNTIME_DIR=str(service.runtime),
            XDG_CACHE_HOME=str(space.path / ".deploy/user-cache"),
            XDG_STATE_HOME=str(space.path / ".deploy/user-state"),
            MARK="here",
        )

    def env(self, *, alone: bool = False, **extra: str) -> dict[str, str]:
        return {**self.base, **({"HOTPLATE_SERVICE": "0"} if alone else {}), **extra}

    def start(self, *argv: str, alone: bool = False, program: str = "doit", **extra: str) -> subprocess.Popen[str]:
        code = "import sys; sys.argv[0] = 'hotplate'; from pipeline.fastpath import main; sys.exit(main())"
        words = {"doit": [sys.executable, "-m", "doit"], "hotplate": [sys.executable, "-c", code]}.get(program)
        return subprocess.Popen(
            [*(words or [program]), *argv],
            cwd=self.space.path,
            env=self.env(alone=alone, **extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str, stdin: str = "", **how: Any) -> tuple[int, str, str]:
        child = self.start(*argv, **how)
        out, err = child.communicate(stdin, timeout=TIMEOUT_S)
        assert "Traceback" not in out + err, out + err
        return child.returncode, out, err

    @property
    def runner(self) -> int:
        """Its pid; started by the first run that finds none."""
        pid: int = self.service.status()["runner_pid"]
        return pid

    def warm(self) -> int:
        if not self.runner:
            self.run("deploy")
            eventually(lambda: self.runner != 0)
        return self.runner

    def settle(self) -> None:
        """Nothing is to be done."""
        for _ in range(5):
            if "-- fingerprint\n-- compile\n-- link\n" in self.run("deploy", alone=True)[1]:
                return
        raise AssertionError("never up to date")

    def was_handed(self, out: str) -> bool:
        found = re.search(r"^facts (\d+)", out, re.M)
        assert found, out
        return int(found[1]) == self.runner


@pytest.fixture(scope="module")
def handed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandedProject]:
    path = tmp_path_factory.mktemp("handed")
    copy_project(template, path / "project")
    runtime = Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        # As most people have it, the service too: what is printed comes out in the order of one buffer.
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        service = ServiceProcess(runtime, path / "project")
        (path / "project/dodo.py").write_text(DODO)
        made = HandedProject(Space(path / "project"), service)
        assert made.run("deploy")[0] == 0
        yield made
        service.stop()
    shutil.rmtree(runtime)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled client, in the place of a script."""
    directory = tmp_path_factory.mktemp("environment")
    at = quick_build.QuickPlaces(directory / "bin/hotplate", directory / "libexec/hotplate")
    at.script.parent.mkdir()
    at.script.write_text(f"#!{sys.executable}\nimport sys\nfrom pipeline.fastpath import main\nsys.exit(main())\n")
    at.script.chmod(0o755)
    runner = SystemProcessRunner(SystemClock())
    assert quick_build.install(runner, at) is None
    runner.close()
    return str(at.script)


def plain(text: str) -> str:
    """Without what no two runs have in common."""
    text = re.sub(r"tx-\d{8}-\d{6}-[0-9a-f]+", "TX", re.sub(r"^facts \d+ \d+", "facts", text, flags=re.M))
    text = re.sub(r"pid \d+", "pid N", text)
    text = re.sub(r"^(\w[\w-]* +(?:ran|up-to-date|failed)?) .*$", r"\1", text, flags=re.M)
    text = re.sub(r"^(startup|dispatch|remainder|total +\w+|bottleneck:).*$", r"\1", text, flags=re.M)
    return re.sub(r"\d+ ms", "N ms", text)


STRESS = pytest.mark.stress
CASES = [
    pytest.param("doit", "edited"),
    pytest.param("doit", "broken code"),
    pytest.param("hotplate", "input"),
    pytest.param("doit", "unknown task"),
    pytest.param("hotplate", "unchanged", marks=STRESS),
    pytest.param("hotplate", "edited", marks=STRESS),
    pytest.param("doit", "unchanged", marks=STRESS),
    pytest.param("doit", "no words", marks=STRESS),
    pytest.param("doit", "broken config", marks=STRESS),
    pytest.param("doit", "unknown device", marks=STRESS),
    pytest.param("doit", "json", marks=STRESS),
]


@pytest.mark.parametrize(("program", "case"), CASES)
def test_a_run_there_is_the_run_here(handed: HandedProject, program: str, case: str) -> None:
    handed.warm()
    argv = {
        "unknown task": ("deploy", "nosuch"),
        "no words": (),
        "unknown device": ("deploy", "--device=bnech"),
        "json": ("deploy", "--json"),
    }.get(case, ("deploy",))
    handed.settle()
    source, config = handed.space.file("firmware/core/main.c"), handed.space.file("deploy.toml")
    before = source.read_bytes(), config.read_bytes()
    try:
        if case == "broken code":
            source.write_bytes(before[0] + b"int x = ;\n")
            handed.run(*argv, alone=True)  # a second one has no fingerprints to take
        if case == "broken config":
            config.write_bytes(before[1] + b"[prject]\n")

        def run(number: int, *, alone: bool) -> tuple[int, str, str]:
            if case == "edited":
                source.write_bytes(before[0] + f"\n// {program} {number}\n".encode())
            extra = {"READ": "1"} if case == "input" else {}
            return handed.run(*argv, alone=alone, program=program, stdin="some input", **extra)

        code, out, err = run(0, alone=True)
        for number in range(TRIES):
            code_there, out_there, err_there = run(number + 1, alone=False)
            if case == "json" or handed.was_handed(out_there):
                break
    finally:
        source.write_bytes(before[0])
        config.write_bytes(before[1])
    if case != "json":
        assert not handed.was_handed(out) and handed.was_handed(out_there)
    assert code == code_there and (code == 0) == (not case.startswith(("broken", "unknown")))
    assert plain(err) == plain(err_there)
    if case != "json":
        assert plain(out) == plain(out_there)
    else:
        kinds = [re.findall(r'"(?:kind|event)": *"(\w+)"', text) for text in (out, out_there)]
        assert kinds[0] == kinds[1] != []


class Edited:
    """A project that the service knows, with an edit that it was told of. The client's process is looked at: it has to
    be the compiled one to its end, and no interpreter."""

    def __init__(self, handed: HandedProject, compiled: str) -> None:
        self.handed, self.compiled = handed, compiled
        self.source = handed.space.file("firmware/core/main.c")
        self.text = self.source.read_text()

    def settle(self) -> None:
        self.source.write_text(self.text)
        self.handed.settle()
        self.handed.run("compile", "link", alone=True, program="hotplate")
        eventually(self._is_known)

    def _is_known(self) -> bool:
        """Does the service say yes, to this process as one of the project?"""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.handed.space.path)
            for name in set(os.environ) - set(self.handed.base):
                patch.delenv(name)
            for name, value in self.handed.base.items():
                patch.setenv(name, value)
            return isinstance(from_service(("compile", "link")), str)


@pytest.fixture
def edited(handed: HandedProject, compiled: str) -> Iterator[Edited]:
    made = Edited(handed, compiled)
    handed.warm()
    made.settle()
    yield made
    made.source.write_text(made.text)


def is_compiled(client: subprocess.Popen[str]) -> bool:
    return not Path(f"/proc/{client.pid}/exe").readlink().name.startswith("python")


@pytest.mark.parametrize("more", ["// {}\n", "int x = ;\n// {}\n"])
def test_the_compiled_client_hands_an_edit_over(edited: Edited, more: str) -> None:
    """With the same end as the script's own run of the same edit."""
    handed = edited.handed
    edited.source.write_text(edited.text + more.format("alone"))
    code, out, err = handed.run("compile", "link", alone=True, program="hotplate")
    assert not handed.was_handed(out) and (code == 0) == (more[0] == "/")
    for _ in range(TRIES):
        edited.settle()
        edited.source.write_text(edited.text + more.format("there"))
        code_there, out_there, err_there = handed.run("compile", "link", program=edited.compiled)
        if handed.was_handed(out_there):
            break
    assert handed.was_handed(out_there)
    assert (code_there, plain(out_there), plain(err_there)) == (code, plain(out), plain(err).replace("alone", "there"))


def in_terminal(handed: HandedProject, *argv: str, alone: bool) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "doit", *argv],
        cwd=handed.space.path,
        env=handed.env(alone=alone, TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    data = b""
    with contextlib.suppress(OSError):
        while more := os.read(ours, 1 << 16):
            data += more
    os.close(ours)
    return child.wait(TIMEOUT_S), data.decode()


def test_a_terminal_is_a_terminal_there_too(handed: HandedProject) -> None:
    handed.warm()
    code, here = in_terminal(handed, "deploy", alone=True)
    for _ in range(TRIES):
        code_there, there = in_terminal(handed, "deploy", alone=False)
        if handed.was_handed(there.replace("\r", "")):
            break
    assert handed.was_handed(there.replace("\r", "")) and not handed.was_handed(here.replace("\r", ""))
    assert code == code_there == 0

    def lines(text: str) -> list[str]:
        """Without the progress line, which is as often there as there is time for it."""
        return [
            line.rpartition("\r")[2] for line in plain(text.replace("\r\n", "\n")).splitlines() if "facts" not in line
        ]

    assert [line for line in lines(here) if "True" in line] == [line for line in lines(there) if "True" in line] != []
    assert lines(here)[-1:] == lines(there)[-1:]


@pytest.mark.parametrize(
    "how",
    [
        "a statement above",
        pytest.param("other settings", marks=STRESS),
        pytest.param("traced", marks=STRESS),
        pytest.param("a command", marks=STRESS),
        pytest.param("first an option", marks=STRESS),
    ],
)
def test_where_a_difference_could_be_seen_the_run_stays(handed: HandedProject, how: str) -> None:
    handed.warm()
    dodo = handed.space.file("dodo.py")
    argv = {"a command": ("info", "deploy"), "first an option": ("-v2", "deploy")}.get(how, ("deploy",))
    extra = {"PYTHONNODEBUGRANGES": "1"} if how == "other settings" else {}
    if how == "a statement above":
        dodo.write_text(f"print('once')\n{DODO}")
    if how == "traced":
        dodo.write_text(f"import sys\nsys.setprofile(lambda *_: None)\n{DODO}")
    try:
        code, out, err = handed.run(*argv, **extra)
    finally:
        dodo.write_text(DODO)
    assert not handed.was_handed(out) and out.count("once") == (how == "a statement above")
    assert code == (1 if how == "a command" else 0), out + err


# --- a run that waits, as long as the test wants ----------------------------------------------


class Waiting:
    """A deploy in the runner that waits for the project's lock."""

    def __init__(self, handed: HandedProject, *argv: str, program: str = "doit", **extra: Any) -> None:
        handed.warm()
        self.handed = handed
        self.locks = handed.space.path / ".deploy/locks"
        self.lock = FileLock(self.locks / "project")
        assert self.lock.try_acquire("the test") is None
        self.before = self.reports()
        for _ in range(3):  # a runner that is being renewed lets a run go on by itself
            self.client = handed.start(*(argv or ("deploy",)), program=program, **extra)
            assert self.client.stderr is not None and self.client.stdout is not None
            self.out = self.client.stdout.readline()
            if handed.was_handed(self.out):
                break
            self.client.kill()
            self.client.communicate()
            handed.warm()
        else:
            self.lock.release()
            raise AssertionError(f"not handed over: {self.out}")
        note = self.client.stderr.readline()
        assert "waiting for another run" in note
        # The runner may have other children: one that waits for the next run, and one that was too late for this one.
        self.child = pid_of(self.out)

    def reports(self) -> set[str]:
        return {path.name for path in (self.handed.space.path / "reports").glob("tx-*.json")}

    def ended(self) -> bool:
        return not Path(f"/proc/{self.child}").exists()

    def give_up(self) -> None:
        self.lock.release()
        self.client.kill()
        self.client.communicate()
        eventually(self.ended)

    def end(self) -> tuple[int, str, str]:
        out, err = self.client.communicate(timeout=TIMEOUT_S)
        return self.client.returncode, self.out + out, err


@pytest.fixture
def waiting(handed: HandedProject) -> Iterator[Waiting]:
    made = Waiting(handed)
    yield made
    made.lock.release()
    made.client.kill()
    made.client.communicate()
    eventually(made.ended)


@contextlib.contextmanager
def written(waiting: Waiting) -> Iterator[None]:
    """As if flash were written meanwhile."""
    handle = os.open(waiting.locks / "writing", OPEN, 0o644)
    assert try_lock(handle, shared=True)
    yield
    os.close(handle)


def test_it_goes_on_when_the_lock_is_free(waiting: Waiting) -> None:
    waiting.lock.release()
    code, out, err = waiting.end()
    assert (code, err) == (0, "") and "verified_unchanged" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_client_ends_the_run(waiting: Waiting, number: signal.Signals) -> None:
    waiting.client.send_signal(number)
    code, out, err = waiting.end()
    assert code in (130, -number), (code, out, err)
    eventually(waiting.ended)
    assert waiting.reports() == waiting.before, "it had not begun"


def test_ctrl_c_during_a_write_ends_the_view_only(waiting: Waiting) -> None:
    with written(waiting):
        waiting.client.send_signal(signal.SIGINT)
        code, _, err = waiting.end()
    assert code == 130 and "the deploy goes on: doit attach tx-" in err
    assert not waiting.ended()
    waiting.lock.release()
    eventually(waiting.ended)
    assert len(waiting.reports() - waiting.before) == 1


def test_ctrl_c_ends_a_run_of_host_stages_whoever_writes(handed: HandedProject) -> None:
    """What is written is another run's."""
    source = handed.space.file("firmware/core/main.c")
    before = source.read_text()
    source.write_text(f"{before}// host stages\n")
    waiting = Waiting(handed, "compile", "link")
    try:
        with written(waiting):
            waiting.client.send_signal(signal.SIGINT)
            code, out, err = waiting.end()
            assert code in (130, -signal.SIGINT) and "goes on" not in err, (code, out, err)
            eventually(waiting.ended)
    finally:
        waiting.lock.release()
        waiting.client.kill()
        waiting.client.communicate()
        source.write_text(before)


@pytest.mark.parametrize("who", ["it", "another", "nobody"])
def test_a_killed_client_takes_its_run_with_it_unless_that_writes_flash(handed: HandedProject, who: str) -> None:
    waiting = Waiting(handed, WRITES="1") if who == "it" else Waiting(handed)
    with written(waiting) if who == "another" else contextlib.nullcontext():
        waiting.client.kill()
        waiting.client.communicate()
        if who == "it":
            eventually(lambda: Path(f"/proc/{waiting.child}/fd/1").readlink() == Path(os.devnull))
            waiting.lock.release()
        eventually(waiting.ended)
    waiting.lock.release()
    assert len(waiting.reports() - waiting.before) == (who == "it")


def test_a_killed_client_takes_its_build_with_it_whoever_writes_flash(handed: HandedProject) -> None:
    source = handed.space.file("firmware/core/main.c")
    before = source.read_text()
    source.write_text(f"{before}// there is something to build\n")
    try:
        waiting = Waiting(handed, "compile", "link")
        with written(waiting):
            waiting.client.kill()
            waiting.client.communicate()
            eventually(waiting.ended)
        waiting.lock.release()
    finally:
        source.write_text(before)


def test_a_killed_runner_takes_its_run_with_it_and_the_next_works(waiting: Waiting) -> None:
    os.kill(waiting.handed.runner, signal.SIGKILL)
    code, _, err = waiting.end()
    assert code == 130 and "the service's runner was killed" in err and "hint: run again" in err
    eventually(waiting.ended)
    waiting.lock.release()
    code, out, _ = waiting.handed.run("deploy")
    assert code == 0 and not waiting.handed.was_handed(out), "the first one starts another runner"
    waiting.handed.warm()
    assert any(waiting.handed.was_handed(waiting.handed.run("deploy")[1]) for _ in range(TRIES))


def test_a_stopped_client_stops_its_run(waiting: Waiting) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    waiting.client.send_signal(signal.SIGTSTP)
    eventually(lambda: state(waiting.client.pid) == state(waiting.child) == "T")
    waiting.client.send_signal(signal.SIGCONT)
    eventually(lambda: state(waiting.child) != "T")
    waiting.lock.release()
    assert waiting.end()[0] == 0


@pytest.fixture
def waiting_compiled(edited: Edited) -> Iterator[Waiting]:
    for _ in range(TRIES):
        edited.source.write_text(f"{edited.text}// waiting\n")
        made = Waiting(edited.handed, "compile", "link", program=edited.compiled)
        if is_compiled(made.client):
            break
        made.give_up()
        edited.settle()
    assert is_compiled(made.client)
    yield made
    made.give_up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_compiled_client_ends_the_run(waiting_compiled: Waiting, number: signal.Signals) -> None:
    waiting_compiled.client.send_signal(number)
    code, out, err = waiting_compiled.end()
    assert code in (130, -number), (code, out, err)
    eventually(waiting_compiled.ended)


def test_a_stopped_compiled_client_stops_its_run_and_goes_on(waiting_compiled: Waiting) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    waiting = waiting_compiled
    waiting.client.send_signal(signal.SIGTSTP)
    eventually(lambda: state(waiting.client.pid) == state(waiting.child) == "T")
    waiting.client.send_signal(signal.SIGCONT)
    eventually(lambda: state(waiting.child) != "T")
    waiting.lock.release()
    code, out, _ = waiting.end()
    assert code == 0 and ".  compile" in out


def test_a_killed_runner_ends_the_compiled_client(waiting_compiled: Waiting) -> None:
    os.kill(waiting_compiled.handed.runner, signal.SIGKILL)
    code, _, err = waiting_compiled.end()
    assert code == 130 and "the service's runner was killed" in err and "hint: run again" in err
    eventually(waiting_compiled.ended)


@STRESS
@pytest.mark.parametrize("shell", ["{doit} deploy >&-", "{doit} deploy | head -1; exit ${{PIPESTATUS[0]}}"])
def test_closed_streams(handed: HandedProject, shell: str) -> None:
    handed.warm()
    command = shell.format(doit=f"{sys.executable} -m doit")
    for alone in (True, False):
        argv: Sequence[str] = ["bash", "-c", command]
        done = subprocess.run(
            argv, cwd=handed.space.path, env=handed.env(alone=alone), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done


# --- a child that was forked before its run came ----------------------------------------------


def children(pid: int) -> list[int]:
    """None of a process that is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def spare_of(handed: HandedProject) -> int:
    """The child of the runner that waits for the next run of this project, once it is ready: it sleeps."""
    ready: list[int] = []

    def sleeps(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def is_ready() -> bool:
        found = children(handed.runner)
        if len(found) != 1 or not sleeps(found[0]):
            return False
        time.sleep(0.1)
        ready[:] = found
        return children(handed.runner) == found and sleeps(found[0])

    handed.warm()
    if not children(handed.runner):
        handed.run("deploy")
    eventually(is_ready)
    return ready[0]


def run_by_the_spare(handed: HandedProject, change: Callable[[int], object], *argv: str, **extra: str) -> str:
    """What a run says that got the child which waits for it; `change` comes before, with the number of the try."""
    for number in range(TRIES):
        spare = spare_of(handed)
        change(number)
        code, out, err = handed.run(*(argv or ("compile", "link")), **extra)
        assert code == 0, out + err
        if pid_of(out) == spare:
            return out
    raise AssertionError(f"never by the spare: {out}")


@pytest.fixture
def spared(handed: HandedProject) -> HandedProject:
    handed.settle()
    return handed


def pid_of(out: str) -> int:
    found = re.search(r"^facts \d+ (\d+)", out, re.M)
    assert found, out
    return int(found[1])


def test_a_run_gets_the_child_that_waits_for_it(spared: HandedProject) -> None:
    for _ in range(2):
        assert spared.was_handed(run_by_the_spare(spared, lambda number: None, "deploy"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_does_not_answer_is_done_without(spared: HandedProject, number: signal.Signals) -> None:
    for _ in range(10):
        spare = spare_of(spared)
        os.kill(spare, number)
        code, out, err = spared.run("deploy")
        assert code == 0 and pid_of(out) != spare, err
        if spared.was_handed(out):  # a client on a busy machine may not wait so long for it
            break
    else:
        raise AssertionError(f"never handed over: {err}")
    eventually(lambda: not Path(f"/proc/{spare}").exists())
    assert spare_of(spared) != spare


def test_what_changed_while_it_waited_is_seen(spared: HandedProject) -> None:
    """A state that a run without the service wrote, an edit, a configuration, an environment."""
    space = spared.space
    source, config = space.file("firmware/core/main.c"), space.file("deploy.toml")
    before = source.read_text(), config.read_text()

    def edit_alone(number: int) -> None:
        source.write_text(f"{before[0]}// alone {number}\n")
        assert ".  compile" in spared.run("compile", "link", alone=True)[1]
        source.write_text(f"{before[0]}// after the other run {number}\n")

    def edit(number: int) -> None:
        source.write_text(f"{before[0]}// with a spare {number}\n")

    def configure(number: int) -> None:
        config.write_text(re.sub(r"(?m)^cflags = \[", f'cflags = ["-DSPARE={number}", ', before[1], count=1))
        assert "SPARE" in config.read_text()

    done = partial(run_by_the_spare, spared)
    try:
        assert ".  compile" in done(edit_alone), "an edit after a state that another run wrote meanwhile"
        assert ".  compile" in done(edit)
        assert ".  compile" in done(configure), "what was configured meanwhile holds"
        assert (space.path / ".deploy/fastpath.v1/-.state").exists(), (
            "and is older than the run, though not than its child"
        )
        assert "here and there" in done(lambda number: None, "deploy", MARK="here and there")
    finally:
        source.write_text(before[0])
        config.write_text(before[1])


def test_two_clients_at_once_are_two_runs(spared: HandedProject) -> None:
    for _ in range(TRIES):
        spare = spare_of(spared)
        clients = [spared.start("deploy") for _ in range(2)]
        ends = [client.communicate(timeout=TIMEOUT_S) for client in clients]
        pids = {pid_of(out) for out, _ in ends}
        assert [client.returncode for client in clients] == [0, 0] and len(pids) == 2
        if spare in pids:
            break
    assert spare in pids


def test_who_leaves_before_the_word_to_begin_has_begun_nothing(handed: HandedProject) -> None:
    """The client ends just before it would have said the word; what was forked for it sees that, and does nothing."""
    # Nothing of an earlier run is under way then: its child, or the one for the next run that is forked at its end.
    spare_of(handed)
    code = """if True:
        import os, sys
        from pipeline.client import handoff
        write = os.write
        os.write = lambda handle, data: os._exit(7) if data == b"g" else write(handle, data)
        handoff.hand_over("doit", ["deploy"])
    """
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=handed.space.path,
            env=handed.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            break
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    runner = handed.runner
    eventually(lambda: not children(runner))


def test_the_runner_ends_with_its_service(handed: HandedProject) -> None:
    runner = handed.warm()
    handed.service.stop()
    eventually(lambda: not Path(f"/proc/{runner}").exists())
    assert not (handed.service.runtime / "hotplate/runner.sock").exists()
    code, out, err = handed.run("deploy")
    assert code == 0 and "DEPLOY_OUTCOME=verified_unchanged" in out, err
    handed.space.file("dodo.py").write_text("from pipeline.tasks import *\n")
    handed.service.start()
    handed.space.file("dodo.py").write_text(DODO)
