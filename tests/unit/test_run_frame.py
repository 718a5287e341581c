"""The frames between a client and the runner, by literal bytes and by damage; whom a runner refuses, and its end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.handoff import is_worth_it, may_write
from pipeline.client.protocol import FrameReader
from pipeline.client.run_frame import ENDED, GROUPS, REFUSED, frame, pack, unpack
from pipeline.client.verdict import QUESTION, asked

words = st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\0", b"")), max_size=4)


def fields(data: bytes) -> list[bytes]:
    [one] = FrameReader().feed(data)
    return list(one.header["fields"])


def test_a_frame_byte_by_byte() -> None:
    assert frame(b"started", b"42") == b"\x02\0\0\0\x0a\0\0\0\0started\x0042"
    assert pack([b"a", b"b"], [], [b""]) == b"\x02\0\0\0\x10\0\0\0\0run 2\x002\x00a\x00b\x000\x001\x00"


@given(st.lists(words, min_size=GROUPS, max_size=GROUPS))
def test_what_is_packed_is_unpacked(groups: list[list[bytes]]) -> None:
    assert unpack(fields(pack(*groups))) == groups


@given(st.lists(words, min_size=GROUPS, max_size=GROUPS), st.integers(0, 40))
def test_what_is_cut_off_is_refused(groups: list[list[bytes]], cut: int) -> None:
    whole = fields(pack(*groups))
    shorter = whole[: max(0, len(whole) - 1 - cut)]
    found = unpack(shorter)
    assert found is None or found != groups


@pytest.mark.parametrize("bad", [[], [b"run 1"], [b"run 2", b"-1"], [b"run 2", b"9999999"], [b"run 2", b"x", b"y"]])
def test_what_is_no_run_is_refused(bad: list[bytes]) -> None:
    assert unpack(bad) is None


@pytest.mark.parametrize(
    ("argv", "worth"),
    [
        ([], True),
        (["deploy"], True),
        (["compile", "link"], True),
        (["reflash:bench:app", "--device=x"], True),
        (["list"], False),
        (["info", "deploy"], False),
        (["-n", "2", "deploy"], False),
        (["my-task", "deploy"], False),
        (["--version"], False),
    ],
)
def test_which_command_lines_are_handed_over(argv: list[str], worth: bool) -> None:
    assert is_worth_it(argv) == worth


@pytest.mark.parametrize(
    ("argv", "may"),
    [
        ([], True),
        (["--json"], True),
        (["deploy"], True),
        (["compile", "link"], False),
        (["link", "--profile", "deploy", "--json"], False),
        (["link", "--profile=release"], False),
        (["link", "reflash:bench"], True),
        (["compile", "my-task"], True),
    ],
)
def test_which_command_lines_may_write_flash(argv: list[str], may: bool) -> None:
    assert may_write(argv) == may


def test_a_question_has_the_environment_that_python_would_have() -> None:
    odd = [b"A=1", b"no value", b"A=2", b"B=x=y"]
    found = asked([QUESTION, b"/root", b"3", b"/prefix", b"1", b"compile", *odd])
    assert found is not None and found[2] == {b"A": b"1", b"B": b"x=y"}


# --- a runner, without a fork -----------------------------------------------------------------

if sys.platform == "linux":
    from pipeline.service import runner as of_runner
    from pipeline.service.alike import identity
    from pipeline.service.runner import Runner, RunnerLink

    class IdleRunner:
        """A runner in this process, with a clock of the test's."""

        def __init__(self) -> None:
            self.now_s = 0.0
            self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.starter, self.told = os.pipe()
            self.runner = Runner(self.listening, (self.starter, self.told), 600.0, lambda: self.now_s)
            self.ours, theirs = socket.socketpair()
            self.link = RunnerLink(theirs)
            self.link.descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]

        def why_not(self, **changes: list[bytes]) -> str:
            groups = {
                "who": [os.fsencode(word) for word in identity()],
                "groups": [b"%d" % number for number in sorted(os.getgroups())],
                **changes,
            }
            return self.runner._why_not(self.link, [groups["who"], [], [], [], [], groups["groups"], [], []])

    @contextlib.contextmanager
    def idle_runner() -> Iterator[IdleRunner]:
        made = IdleRunner()
        yield made
        made.link.close()
        made.ours.close()
        made.listening.close()
        made.runner._code.let_go()
        for handle in (made.starter, made.told, made.runner._wake, made.runner._woken):
            os.close(handle)

    @pytest.fixture
    def idle() -> Iterator[IdleRunner]:
        with idle_runner() as made:
            yield made

    def test_the_same_interpreter_and_groups_are_served(idle: IdleRunner) -> None:
        assert idle.why_not() == ""

    def test_others_run_alone(idle: IdleRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "interpreter" in idle.why_not(who=[b"0.0.1", *[os.fsencode(word) for word in identity()][1:]])
        assert idle.why_not(groups=[b"4242"]) == "other groups"
        idle.link.descriptors.append(os.dup(idle.starter))
        assert idle.why_not() == "not a run of this protocol"
        os.close(idle.link.descriptors.pop())
        monkeypatch.setattr(of_runner, "namespaces", lambda pid: (pid,))
        assert idle.why_not() == "other namespaces"

    def test_changed_code_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        with idle_runner() as idle:
            assert idle.why_not() == ""
            (tmp_path / "installed.pth").touch()
            assert idle.why_not() == "the code on disk is another by now"
            assert idle.runner._over

    def test_nobody_for_ten_minutes_ends_it(idle: IdleRunner) -> None:
        idle.now_s = 600.1
        assert idle.runner._once() is None and idle.runner._over

    # --- the end of a run ---------------------------------------------------------------------

    def test_the_end_is_told_before_the_process_is_gone(idle: IdleRunner) -> None:
        """And not once more when it is."""
        runner, link = idle.runner, idle.link
        link.end, said = os.pipe()
        link.child = os.fork()
        if link.child == 0:
            os.read(idle.starter, 1)  # stays until the test lets it go
            os._exit(3)
        link.root = "/project"
        runner._links[link.connection.fileno()], runner._ends[link.end] = link, link
        runner._children[link.child] = link
        os.write(said, b"3")
        runner._hear_end(link)
        assert fields(idle.ours.recv(1 << 12)) == [ENDED, b"3"] and runner._reap() == []
        assert not runner._links and not runner._ends and runner._children
        os.write(idle.told, b"x")
        os.waitid(os.P_PID, link.child, os.WEXITED | os.WNOWAIT)
        assert runner._reap() == ["/project"] and idle.ours.recv(1 << 12) == b""
        os.close(said)

    def test_one_that_ends_without_a_word_is_told_when_it_is_gone(idle: IdleRunner) -> None:
        runner, link = idle.runner, idle.link
        link.end, said = os.pipe()
        link.child = os.fork()
        if link.child == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        runner._links[link.connection.fileno()], runner._ends[link.end] = link, link
        runner._children[link.child] = link
        os.close(said)
        runner._hear_end(link)
        assert link.end == -1 and not runner._ends and runner._links
        os.waitid(os.P_PID, link.child, os.WEXITED | os.WNOWAIT)
        runner._reap()
        assert fields(idle.ours.recv(1 << 12)) == [ENDED, b"-9"] and not runner._links

    # --- where the machine has no room for another process ------------------------------------

    def no_room(*_: object) -> None:
        raise OSError(errno.EAGAIN, "not now")

    def open_handles() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    @pytest.mark.parametrize("call", ["fork", "socketpair"])
    def test_no_room_for_a_spare_is_no_spare(idle: IdleRunner, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        monkeypatch.setattr(os if call == "fork" else socket, call, no_room)
        before = open_handles()
        assert idle.runner._prepare("/project") is None
        assert not idle.runner._spares and open_handles() == before

    def test_no_room_for_a_run_leaves_it_to_its_client(idle: IdleRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        runner, link = idle.runner, idle.link
        runner._links[link.connection.fileno()] = link
        monkeypatch.setattr(runner, "_why_not", lambda *_: "")
        monkeypatch.setattr(os, "fork", no_room)
        assert runner._start(link, fields(pack([], [b"/project"], [], [], [], [], [], []))) is None
        assert fields(idle.ours.recv(1 << 12))[0] == REFUSED
        assert not runner._links and not runner._children and not link.descriptors

    def test_an_environment_is_what_python_makes_of_it(idle: IdleRunner) -> None:
        odd = [b"A=1", b"no value", b"A=2", b"=C:=C:\\", b"B=x=y", b"EMPTY="]
        handed = idle.runner._handed([[], [], [], [], [], [], odd, []], (), 0, -1)
        assert handed.environment == {b"A": b"1", b"B": b"x=y", b"EMPTY": b""}
