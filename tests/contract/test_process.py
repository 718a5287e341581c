"""The real process runner, with real children."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.effects import children as of_children
from pipeline.effects import command_server, spawned
from pipeline.effects.api import Completed
from pipeline.effects.children import PolledChildren
from pipeline.effects.clock import SystemClock
from pipeline.effects.command_server import CommandServer, ServerGone
from pipeline.effects.process import SystemProcessRunner
from pipeline.effects.spawned import Group
from tests.damage.test_state_files import gone
from tests.unit import test_fastpath_loop

SH = "/bin/sh"
PATH = {"PATH": "/usr/bin:/bin"}
helper = test_fastpath_loop.helper


@pytest.fixture(params=["in our directory", "elsewhere"])
def runner(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SystemProcessRunner]:
    """Commands in the directory of this process are started another way than those elsewhere."""
    if request.param == "in our directory":
        monkeypatch.chdir(tmp_path)
    runner = SystemProcessRunner(SystemClock())
    yield runner
    runner.close()


def test_output_exit_code_and_exact_environment(runner: SystemProcessRunner, tmp_path: Path) -> None:
    script = 'printf "out\\000\\377"; printf err >&2; pwd; /usr/bin/env; exit 3'
    done = runner.run([SH, "-c", script], cwd=tmp_path, env={"ONE": "1"}, timeout_s=300)
    assert done.exit_code == 3 and done.stderr == b"err" and done.duration_s > 0
    lines = done.stdout.split(b"\n")
    assert lines[0] == b"out\x00\xff" + os.fsencode(tmp_path)
    assert b"ONE=1" in lines and not any(line.startswith((b"HOME=", b"PATH=")) for line in lines)


def test_no_shell_and_no_input(runner: SystemProcessRunner, tmp_path: Path) -> None:
    done = runner.run(["/bin/cat", "-", "$HOME; *"], cwd=tmp_path, env=PATH, timeout_s=300)
    assert done.stdout == b"" and b"$HOME; *" in done.stderr


def test_signal_is_a_negative_exit_code(runner: SystemProcessRunner, tmp_path: Path) -> None:
    assert runner.run([SH, "-c", "kill -SEGV $$"], cwd=tmp_path, env=PATH, timeout_s=300).exit_code == -signal.SIGSEGV


def test_program_that_is_not_there(runner: SystemProcessRunner, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runner.run(["/no/such/tool"], cwd=tmp_path, env={}, timeout_s=300)


def test_timeout_kills_the_whole_tree(runner: SystemProcessRunner, tmp_path: Path) -> None:
    script = "sh -c 'echo $$ > part; mv part pid; exec sleep 1000' & wait"
    for timeout_s in (0.3, 3, 30, 300):  # long enough for two shells on a busy machine
        with pytest.raises(TimeoutError):
            runner.run([SH, "-c", script], cwd=tmp_path, env=PATH, timeout_s=timeout_s)
        if (tmp_path / "pid").exists():
            break
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_a_command_leaves_behind_is_killed_with_the_runner(runner: SystemProcessRunner, tmp_path: Path) -> None:
    done = runner.run([SH, "-c", "sleep 1000 >&- 2>&- & echo $!"], cwd=tmp_path, env=PATH, timeout_s=300)
    runner.close()
    assert gone(int(done.stdout))


def test_a_closed_runner_can_still_run(runner: SystemProcessRunner, tmp_path: Path) -> None:
    for _ in range(2):
        assert runner.run([SH, "-c", "echo on"], cwd=tmp_path, env=PATH, timeout_s=300).stdout == b"on\n"
        runner.close()


def test_one_watchdog_serves_command_after_command(runner: SystemProcessRunner, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.getpgid(0))"]
    groups = {runner.run(command, cwd=tmp_path, env=PATH, timeout_s=300).stdout for _ in range(3)}
    assert len(groups) == 1 and int(groups.pop()) != os.getpgid(0)


def test_cancel_kills_children_of_every_thread_and_refuses_new_ones(
    runner: SystemProcessRunner, tmp_path: Path
) -> None:
    raised: list[BaseException] = []
    os.mkfifo(tmp_path / "gate")

    def work() -> None:
        try:
            runner.run([SH, "-c", "echo $$ > gate; exec sleep 1000"], cwd=tmp_path, env=PATH, timeout_s=1000)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    pids: list[int] = []
    with (tmp_path / "gate").open() as gate:
        while len(pids) < 3:
            pids += [int(line) for line in gate.readline().split()]
    runner.cancel()
    for thread in threads:
        thread.join(300)
    assert [type(error) for error in raised] == [KeyboardInterrupt] * 3
    assert all(map(gone, pids))
    with pytest.raises(KeyboardInterrupt):
        runner.run([SH, "-c", ":"], cwd=tmp_path, env=PATH, timeout_s=300)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_child_does_not_outlive_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.effects.clock import SystemClock; from pipeline.effects.process import SystemProcessRunner\n"
        "script = 'echo $$ > gate; exec sleep 1000'\n"
        "SystemProcessRunner(SystemClock()).run(['/bin/sh', '-c', script], cwd=Path(sys.argv[1]),"
        " env={'PATH': '/usr/bin:/bin'}, timeout_s=1000)"
    )
    os.mkfifo(tmp_path / "gate")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL) as parent:
        child = int((tmp_path / "gate").read_text())
        parent.send_signal(how)
    assert gone(child)


def test_many_commands_at_once(runner: SystemProcessRunner, tmp_path: Path) -> None:
    outputs: list[bytes] = []

    def work(number: int) -> None:
        for round_ in range(5):
            done = runner.run([SH, "-c", f"echo {number} {round_}"], cwd=tmp_path, env=PATH, timeout_s=300)
            outputs.append(done.stdout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(b"%d %d\n" % (n, r) for n in range(8) for r in range(5))


def test_what_a_terminal_sends_does_not_end_the_watchdog() -> None:
    """Until it has a process group of its own, a Ctrl-C reaches it as well: without it, the next child has no group."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    group = Group()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(group._watchdog.pid, number)
    try:
        time.sleep(0.2)
        assert group.alive
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before, "our own mask is as it was"
    finally:
        group.kill()
    assert not group.alive


LEAVES = """
import os, signal, sys, time
def leave():
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("gate", "w") as gate:
        gate.write(f"{os.getpid()}\\n")
    time.sleep(1000)
if "itself" in sys.argv or os.fork() == 0:
    leave()
if "stay" in sys.argv:
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["itself", "descendant", "descendant stay"])
def test_cancel_does_not_wait_for_who_left_the_group_with_the_pipes(
    runner: SystemProcessRunner, tmp_path: Path, how: str
) -> None:
    os.mkfifo(tmp_path / "gate")
    raised: list[BaseException] = []

    def work() -> None:
        try:
            runner.run([sys.executable, "-c", LEAVES, *how.split()], cwd=tmp_path, env=PATH, timeout_s=1000)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    pid = int((tmp_path / "gate").read_text())
    runner.cancel()
    thread.join(300)
    assert [type(error) for error in raised] == [KeyboardInterrupt]
    if how != "itself":
        os.kill(pid, signal.SIGKILL)
    assert gone(pid)


def test_a_command_that_takes_too_long_does_not_keep_its_runner_by_a_pipe(
    runner: SystemProcessRunner, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "gate")
    gate, left = os.open(tmp_path / "gate", os.O_RDWR | os.O_NONBLOCK), b""
    for timeout_s in (1, 10, 100, 300):  # long enough for an interpreter on a busy machine
        with pytest.raises(TimeoutError):
            runner.run([sys.executable, "-c", LEAVES, "descendant"], cwd=tmp_path, env=PATH, timeout_s=timeout_s)
        with contextlib.suppress(BlockingIOError):
            left += os.read(gate, 1 << 12)
        if left:
            break
    os.close(gate)
    assert left
    for pid in map(int, left.split()):
        os.kill(pid, signal.SIGKILL)
    assert runner.run([SH, "-c", "echo next"], cwd=tmp_path, env=PATH, timeout_s=300).stdout == b"next\n"


def test_what_is_printed_without_end_is_cut(runner: SystemProcessRunner, tmp_path: Path) -> None:
    """In order, and with both streams at once."""
    size = 20 << 20
    code = f"import os\nfor n in range({size >> 16}): os.write(1 + n % 2, b'x' * 65535 + b'\\n')"
    done = runner.run([sys.executable, "-c", code], cwd=tmp_path, env=PATH, timeout_s=300)
    for stream in (done.stdout, done.stderr):
        kept, more = stream.rsplit(b"\n[", 1)
        assert len(kept) < 9 << 20 and int(more.split()[0]) == size // 2 - len(kept)


def test_a_build_is_shown_as_it_comes_and_ends_without_what_it_left_behind(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from pipeline.effects.process import run_streamed\n"
        "print(run_streamed(['sh', '-c', 'echo one; echo two >&2; read x < fifo; sleep 300 & exit 4'], Path('.')))\n"
    )
    os.mkfifo(tmp_path / "fifo")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", script], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == b"one\n", "while it waits for the fifo"
    assert child.stderr.readline() == b"two\n"
    (tmp_path / "fifo").write_text("go\n")
    out, _ = child.communicate(timeout=300)
    assert out.startswith(b"(4, b'")


def test_no_handle_and_no_ignored_signal_of_ours_is_inherited(runner: SystemProcessRunner, tmp_path: Path) -> None:
    """Python ignores SIGPIPE; a program that writes to a closed pipe must end."""
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        words = [SH, "-c", f"test ! -e /proc/self/fd/{held} && yes | head -n 1"]
        done = runner.run(words, cwd=tmp_path, env=PATH, timeout_s=300)
    finally:
        os.close(held)
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"y\n", b"")


@pytest.fixture(params=["this process", "the program"])
def together(
    request: pytest.FixtureRequest, runner: SystemProcessRunner, helper: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], PolledChildren]:
    """Children that this process starts, or a program of ours from the first one on, in our directory."""
    if request.param == "the program":
        monkeypatch.setattr(of_children, "FEW", 1)
        runner.starts_with(lambda: str(helper))
    return lambda: PolledChildren(runner)


def test_many_are_waited_for_by_one_thread(together: Callable[[], PolledChildren], tmp_path: Path) -> None:
    """Each with what it did; one that closes its outputs first, and one that takes too long."""
    children = together()
    scripts = {
        "printf out; printf err >&2; exit 3": (3, b"out", b"err"),
        "exec >&- 2>&-; sleep 0.05; exit 4": (4, b"", b""),
        "head -c 200000 /dev/zero | tr '\\0' x": (0, b"x" * 200000, b""),
        "kill -9 $$": (-9, b"", b""),
        "trap '' PIPE; /usr/bin/env; pwd; cat": (0, f"PATH=/usr/bin:/bin\nPWD={tmp_path}\n{tmp_path}\n".encode(), b""),
    }
    started: dict[object, str] = {}
    for script in scripts:
        started[children.start([SH, "-c", script], cwd=tmp_path, env=PATH, timeout_s=300)] = script
    slow = children.start([SH, "-c", "echo $$ > pid; exec sleep 1000"], cwd=tmp_path, env=PATH, timeout_s=0.2)
    found: dict[object, Completed | BaseException] = {}
    while len(found) <= len(scripts):
        found.update(children.ended(300))
    assert isinstance(found.pop(slow), TimeoutError)
    for command, done in found.items():
        assert isinstance(done, Completed)
        assert (done.exit_code, done.stdout, done.stderr) == scripts[started[command]]
        assert 0 < done.ended_ns <= time.monotonic_ns()
    children.close()
    assert not (tmp_path / "pid").exists() or gone(int((tmp_path / "pid").read_text()))


def test_waiting_for_many_ends_when_somebody_says_so(together: Callable[[], PolledChildren]) -> None:
    children = together()
    threading.Thread(target=children.wake).start()
    assert children.ended(300) == []
    children.close()


def test_children_that_nobody_waits_for_any_more_are_killed(
    together: Callable[[], PolledChildren], tmp_path: Path
) -> None:
    children = together()
    os.mkfifo(tmp_path / "gate")
    children.start([SH, "-c", "echo $$ > gate; exec sleep 1000"], cwd=tmp_path, env=PATH, timeout_s=1000)
    with (tmp_path / "gate").open() as gate:
        pid = int(gate.readline())
    children.close()
    assert gone(pid)


def test_cancelled_children_end_as_such(
    runner: SystemProcessRunner, together: Callable[[], PolledChildren], tmp_path: Path
) -> None:
    children = together()
    children.start([SH, "-c", "exec sleep 1000"], cwd=tmp_path, env=PATH, timeout_s=1000)
    runner.cancel()
    found: list[object] = []
    until_s = time.monotonic() + 300
    while not found and time.monotonic() < until_s:  # it may be looked for in vain before
        found += [done for _, done in children.ended(300)]
    assert [type(done) for done in found] == [KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        children.start([SH, "-c", ":"], cwd=tmp_path, env=PATH, timeout_s=300)
    children.close()


def test_a_command_that_cannot_be_started_says_so(together: Callable[[], PolledChildren], tmp_path: Path) -> None:
    """At once, or when it is waited for."""
    children = together()
    (tmp_path / "text").write_text("no program")
    for path, error in (("/no/such/program", FileNotFoundError), (str(tmp_path / "text"), PermissionError)):
        try:
            children.start([path, "-c"], cwd=tmp_path, env=PATH, timeout_s=300)
            found: list[Any] = []
            while not found:
                found += [done for _, done in children.ended(300)]
        except OSError as raised:
            found = [raised]
        assert [type(done) for done in found] == [error] and found[0].filename == path
    children.close()


def test_a_group_that_a_command_killed_is_made_anew(together: Callable[[], PolledChildren], tmp_path: Path) -> None:
    children = together()
    for script, code in [("kill -9 0", -9), ("exit 5", 5), ("kill -9 0", -9), ("kill -9 0", -9), ("exit 6", 6)]:
        children.start([SH, "-c", script], cwd=tmp_path, env=PATH, timeout_s=300)
        found: list[Any] = []
        while not found:
            found += [done for _, done in children.ended(300)]
        assert [done.exit_code for done in found] == [code]
    children.close()


def test_what_prints_without_end_does_not_fill_the_memory(
    together: Callable[[], PolledChildren], tmp_path: Path
) -> None:
    children = together()
    size = 20 << 20
    children.start([SH, "-c", f"head -c {size} /dev/zero"], cwd=tmp_path, env=PATH, timeout_s=300)
    found: list[Any] = []
    while not found:
        found += [done for _, done in children.ended(300)]
    kept, more = found[0].stdout.rsplit(b"\n[", 1)
    assert 8 << 20 <= len(kept) < 9 << 20 and int(more.split()[0]) == size - len(kept)
    children.close()


def test_what_a_command_leaves_behind_ends_with_the_runner(
    runner: SystemProcessRunner, together: Callable[[], PolledChildren], tmp_path: Path
) -> None:
    children = together()
    script = "sleep 1000 >/dev/null 2>&1 & echo $!"
    children.start([SH, "-c", script], cwd=tmp_path, env=PATH, timeout_s=300)
    found: list[Any] = []
    while not found:
        found += [done for _, done in children.ended(300)]
    children.close()
    runner.close()
    assert gone(int(found[0].stdout))


def test_the_program_may_be_killed(runner: SystemProcessRunner, helper: Path, tmp_path: Path) -> None:
    """With it goes what it had started, which is begun anew; those that follow are started without it."""
    runner.starts_with(lambda: str(helper))
    children = PolledChildren(runner)
    first = [children.start([SH, "-c", ":"], cwd=Path.cwd(), env=PATH, timeout_s=300) for _ in range(of_children.FEW)]
    os.mkfifo(tmp_path / "gate")
    script = f"echo $$ > {tmp_path}/gate; test ! -e {tmp_path}/again || exit 7; exec sleep 1000"
    lost = children.start([SH, "-c", script], cwd=Path.cwd(), env=PATH, timeout_s=300)
    with (tmp_path / "gate").open() as gate:
        pid = int(gate.readline())
    (tmp_path / "again").touch()
    assert children._server is not None
    os.kill(children._server._pid, signal.SIGKILL)
    os.waitid(os.P_PID, children._server._pid, os.WEXITED | os.WNOWAIT)
    last = children.start([SH, "-c", "exit 4"], cwd=Path.cwd(), env=PATH, timeout_s=300)
    found: dict[object, Completed | BaseException] = {}
    reader = os.open(tmp_path / "gate", os.O_RDONLY | os.O_NONBLOCK)
    while len(found) < len(first) + 2:
        found.update(children.ended(300))
    os.close(reader)
    codes = [done.exit_code for done in (found[lost], found[last]) if isinstance(done, Completed)]
    assert codes == [7, 4] and gone(pid)
    children.close()


def test_a_damaged_program_is_done_without_and_made_anew(
    runner: SystemProcessRunner, helper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_children, "FEW", 1)
    monkeypatch.chdir(tmp_path)
    whole = helper.read_bytes()
    for damaged in (b"", whole[:64], whole[: len(whole) // 2], b"#!/bin/sh\nexit 0\n", b"#!/bin/sh\nexec sleep 1000\n"):
        program = tmp_path / "program"
        program.write_bytes(damaged)
        program.chmod(0o500)
        runner.starts_with(partial(str, program))
        children = PolledChildren(runner)
        started = children.start([SH, "-c", "exit 4"], cwd=tmp_path, env=PATH, timeout_s=300)
        found: dict[object, Completed | BaseException] = {}
        while not found:
            found.update(children.ended(300))
        assert isinstance(done := found[started], Completed) and done.exit_code == 4
        children.close()
        assert damaged in (b"", whole[:64]) or not program.exists(), "one that starts, and does nothing, is removed"
        program.unlink(missing_ok=True)


def test_all_is_gone_when_the_program_has_ended(helper: Path, tmp_path: Path) -> None:
    """However many orders and answers were under way."""
    for number in range(5):
        server = CommandServer(str(helper))
        assert server.is_well()
        pids = tmp_path / str(number)
        pids.mkdir()
        for n in range(8):
            script = f"echo > {pids}/$$; echo more; exec sleep 1000"
            server.start(n, [SH, "-c", script], PATH)
        server.let_go()
        assert all(gone(int(path.name), timeout_s=0.001) for path in pids.iterdir())


def test_an_order_that_cannot_be_said_changes_no_environment(helper: Path) -> None:
    server = CommandServer(str(helper))
    assert server.is_well()
    server.start(1, ["/usr/bin/env"], {"A": "one"})
    with pytest.raises(ValueError, match="null"):
        server.start(2, ["/usr/bin/env", "\0"], {"A": "two"})
    server.start(3, ["/usr/bin/env"], {"A": "two"})
    found: dict[int, bytes] = {}
    while len(found) < 2:
        select.select([server.handle], [], [], 300)
        found.update({each.number: each.stdout for each in server.answers()})
    assert found == {1: b"A=one\n", 3: b"A=two\n"}
    server.let_go()


def test_who_blocks_the_news_of_children_is_answered(helper: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        server = CommandServer(str(helper))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert server.is_well()
    server.start(1, [SH, "-c", "kill -PIPE $$"], PATH)
    while not (found := server.answers()):
        select.select([server.handle], [], [], 300)
    assert [each.exit_code for each in found] == [-signal.SIGPIPE]
    server.let_go()


def test_a_program_that_is_stopped_is_killed(helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_server, "_ENDED_S", 0.1)
    server = CommandServer(str(helper))
    pid = server._pid
    os.kill(pid, signal.SIGSTOP)
    server.let_go()
    assert gone(pid)


def test_what_the_program_started_ends_with_us(helper: Path, tmp_path: Path) -> None:
    """By `kill -9`."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from pipeline.effects.command_server import CommandServer\n"
        f"server = CommandServer({str(helper)!r})\n"
        "server.is_well()\n"
        "server.start(1, ['/bin/sh', '-c', 'sleep 1000 & echo $$ $! > pids; wait'], {'PATH': '/usr/bin:/bin'})\n"
        "server.answers()\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    os.mkfifo(tmp_path / "pids")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=env, stdin=subprocess.PIPE)
    with (tmp_path / "pids").open() as pids:
        started = [int(pid) for pid in pids.readline().split()]
    child.kill()
    child.wait()
    assert child.stdin is not None
    child.stdin.close()
    assert len(started) == 2 and all(map(gone, started))


def test_orders_that_are_none_end_the_program(helper: Path) -> None:
    for damaged in (b"X" * 12, struct.pack("@III", ord("E"), 0, 3) + b"A=1", struct.pack("@III", ord("S"), 1, 1 << 31)):
        server = CommandServer(str(helper))
        assert server.is_well()
        server._say(damaged)
        with pytest.raises(ServerGone):
            while select.select([server.handle], [], [], 300)[0]:
                server.answers()
        server.let_go()
    server = CommandServer(str(helper))
    assert server.is_well()
    server._say(struct.pack("@III", ord("S"), 8, 0))
    while not (found := server.answers()):
        select.select([server.handle], [], [], 300)
    assert [(answer.number, answer.error) for answer in found] == [(8, errno.EINVAL)]
    with pytest.raises(ValueError, match="null"):
        server.start(9, ["a\0b"], {})
    server.let_go()


def test_who_wakes_too_late_writes_into_no_other_file(runner: SystemProcessRunner, tmp_path: Path) -> None:
    children = runner.together()
    before = set(Path("/dev/fd").iterdir())
    children.close()
    freed = before - set(Path("/dev/fd").iterdir())
    others = [os.open(tmp_path / f"{n}", os.O_CREAT | os.O_RDWR) for n in range(len(freed) + 1)]
    try:
        children.wake()
        assert [os.fstat(handle).st_size for handle in others] == [0] * len(others)
    finally:
        for handle in others:
            os.close(handle)


def test_a_ctrl_c_while_a_watchdog_starts_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised when signals are let through again."""
    started: list[spawned._Watchdog] = []
    underneath = vars(spawned)["signal"]  # not `signal`: see there
    let_through = underneath.pthread_sigmask

    class Noted(spawned._Watchdog):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    def interrupted(how: int, mask: Iterable[int]) -> Any:
        found = let_through(how, mask)
        if how == signal.SIG_SETMASK:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(spawned, "_Watchdog", Noted)
    monkeypatch.setattr(underneath, "pthread_sigmask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Group()
    monkeypatch.undo()
    gc.collect()
    assert len(started) == 1 and started[0].has_ended()


@pytest.mark.parametrize("killed", [False, True])
def test_a_group_that_was_made_ahead_serves_the_first_command(
    runner: SystemProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """And one whose watchdog died meanwhile serves none."""
    monkeypatch.setattr(spawned, "_ahead", [])
    spawned.make_group_ahead()
    (made,) = spawned._ahead
    if killed:
        os.kill(made._watchdog.pid, signal.SIGKILL)
        os.waitid(os.P_PID, made._watchdog.pid, os.WEXITED | os.WNOWAIT)
    own = [SH, "-c", "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat"]
    found = [int(runner.run(own, cwd=tmp_path, env=PATH, timeout_s=300).stdout) for _ in range(2)]
    assert found[0] == found[1] and (found[0] == made._watchdog.pid) != killed
    assert not spawned._ahead
