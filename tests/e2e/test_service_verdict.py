"""`hotplate` through the service, as whole processes: in Python and as the compiled client."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from pipeline.client.endpoint import RUNNER_SOCKET, SOCKET
from pipeline.client.protocol import FrameReader, ServiceFrame, encode_verdict
from pipeline.client.run_frame import COMPILED, REFUSED, frame, unpack
from pipeline.client.verdict import asked
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.fastpath import identity, quick_build
from tests.e2e.test_fastpath import NOTHING, FastPathProject
from tests.serving import TIMEOUT_S
from tests.verdict_service import VerdictThread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

SCRIPT = f"#!{sys.executable}\nimport sys\nfrom pipeline.fastpath import main\nsys.exit(main())\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> FastPathProject:
    made = FastPathProject(tmp_path_factory.mktemp("verdict"))
    made.out("doit", "compile", "link")
    made.settle()
    return made


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> quick_build.QuickPlaces:
    directory = tmp_path_factory.mktemp("environment")
    at = quick_build.QuickPlaces(directory / "bin/hotplate", directory / "libexec/hotplate")
    at.script.parent.mkdir()
    at.script.write_text(SCRIPT)
    at.script.chmod(0o755)
    runner = SystemProcessRunner(SystemClock())
    assert quick_build.install(runner, at) is None
    runner.close()
    return at


@pytest.fixture
def runtime(project: FastPathProject) -> Iterator[Path]:
    """A short directory: the path of a socket may have 100 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
    project.env["XDG_RUNTIME_DIR"] = str(directory)
    yield directory
    del project.env["XDG_RUNTIME_DIR"]
    shutil.rmtree(directory)


@pytest.fixture
def service(runtime: Path) -> Iterator[VerdictThread]:
    thread = VerdictThread(runtime)
    yield thread
    thread.close()


def run(project: FastPathProject, program: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *argv], cwd=project.root, env={**project.env, **env}, capture_output=True, text=True, check=False
    )


def said_by(project: FastPathProject, program: Path, *argv: str) -> str:
    return run(project, program, *argv).stdout


def told(service: VerdictThread, ask: Callable[[], str]) -> str:
    """What is said once the service knows: it looks at the project first, and whenever somebody mounts something."""
    for _ in range(200):
        before = service.desk.counts["yes"]
        said = ask()
        if service.desk.counts["yes"] > before:
            return said
    raise AssertionError("the service never knew")


def warm(project: FastPathProject, service: VerdictThread) -> None:
    assert told(service, lambda: project.out("hotplate", "compile", "link")) == NOTHING


def test_both_clients_are_told_what_the_disk_says(
    project: FastPathProject, service: VerdictThread, quick: quick_build.QuickPlaces
) -> None:
    for program in (quick.script, quick.kept):
        for stages in (("compile", "link"), ("link",)):
            assert told(service, partial(said_by, project, program, *stages)) == NOTHING
    assert told(service, lambda: project.out("doit", "compile", "link")) == NOTHING, (
        "doit asks when it has loaded itself"
    )
    for n, program in enumerate((quick.script, quick.kept)):
        said = service.desk.counts["yes"]
        with project.root.joinpath("include/h00.h").open("a") as header:
            header.write(f"\n/* more {n} */\n")
        done = run(project, program, "compile", "link")
        assert done.returncode == 0 and ".  compile" in done.stdout
        assert service.desk.counts["yes"] == said, "nothing that was edited is said to be up to date"
        project.settle()


@pytest.mark.parametrize("how", ["other tools", "no service wanted", "another root"])
def test_who_sees_something_else_is_sent_to_the_disk(
    project: FastPathProject, service: VerdictThread, quick: quick_build.QuickPlaces, how: str
) -> None:
    warm(project, service)
    said = service.desk.counts["yes"]
    if how == "another root":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("needs root and unshare")
        argv = ["unshare", "-m", str(quick.script), "compile", "link"]
        done = subprocess.run(argv, cwd=project.root, env=project.env, capture_output=True, text=True, check=False)
        assert done.stdout == NOTHING
    else:
        for n, program in enumerate((quick.script, quick.kept)):
            tools = f"/nowhere{n}:{os.environ['PATH']}"
            env = {"HOTPLATE_SERVICE": "0"} if how == "no service wanted" else {"PATH": tools}
            assert run(project, program, "compile", "link", **env).returncode == 0
    assert service.desk.counts["yes"] == said
    project.settle()


ANSWERS = {
    "nothing": b"",
    "half a prefix": b"\x02\x00\x00",
    "half an answer": encode_verdict(b"yes", body=b"lies\n")[:-3],
    "another kind": b"\x01" + encode_verdict(b"yes", body=b"lies\n")[1:],
    "too large": b"\x02\x00\x00\x00\x03\xff\xff\xff\xffyes",
    "a large header": b"\x02\xff\xff\xff\xff\x00\x00\x00\x05",
    "look": encode_verdict(b"look", b"why"),
    "yes and more": encode_verdict(b"yes", b"more", body=b"lies\n"),
    "yesterday": encode_verdict(b"yesterday", body=b"lies\n"),
    "no text": encode_verdict(b"look", body=b"lies\n"),
}


class Liar:
    """Listens where the service would, keeps what is asked, and answers what it was told to."""

    def __init__(self, runtime: Path, answer: bytes, *, close: bool) -> None:
        (runtime / "hotplate").mkdir(mode=0o700)
        self.asked: list[bytes] = []
        self._answer, self._close = answer, close
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(runtime / "hotplate" / SOCKET))
        self._listening.listen()
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            reader, data = FrameReader(), b""
            frames: list[ServiceFrame] = []
            # One that gets no CPU for 50 ms goes without having asked.
            while not frames and (more := connection.recv(1 << 16)):
                data += more
                frames = reader.feed(more)
            if frames:
                self.asked.append(data)
            with suppress(OSError):  # it waits for 50 ms
                connection.sendall(self._answer)
            if self._close:
                connection.close()
            else:
                self._kept.append(connection)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        for connection in self._kept:
            connection.close()


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("close", [True, False])
def test_what_is_no_whole_answer_is_none(
    project: FastPathProject, runtime: Path, quick: quick_build.QuickPlaces, answer: str, close: bool
) -> None:
    liar = Liar(runtime, ANSWERS[answer], close=close)
    programs = (quick.script, quick.kept) if answer in ("nothing", "half an answer") else (quick.script,)
    for program in programs:
        before = len(liar.asked)
        for _ in range(100):  # this machine may be too busy for the deadline
            assert run(project, program, "compile", "link").stdout == NOTHING
            if len(liar.asked) > before:
                break
    liar.close()
    assert len(liar.asked) >= len(programs)


def test_both_clients_ask_the_same(project: FastPathProject, runtime: Path, quick: quick_build.QuickPlaces) -> None:
    liar = Liar(runtime, encode_verdict(b"yes", body=b"told\n"), close=True)
    odd = {"ODD": "a=b\nc", "EMPTY": ""}
    asked_by = []
    for program in (quick.script, quick.kept):
        for _ in range(100):  # this machine may be too busy for the deadline
            liar.asked.clear()
            done = run(project, program, "compile", "link", **odd)
            assert (done.stderr, done.returncode) == ("", 0)
            if done.stdout == "told\n":
                break
        assert done.stdout == "told\n"
        asked_by.append(sorted(liar.asked[0].split(b"\0")))
    liar.close()
    assert asked_by[0] == asked_by[1]
    who, words, environment = asked(FrameReader().feed(liar.asked[0])[0].header["fields"]) or pytest.fail("unreadable")
    assert tuple(map(os.fsdecode, who)) == identity(str(project.root.resolve()))
    assert list(words) == [b"compile", b"link"] and environment[b"ODD"] == b"a=b\nc" and environment[b"EMPTY"] == b""


def test_a_directory_that_others_can_enter_is_not_asked(
    project: FastPathProject, runtime: Path, quick: quick_build.QuickPlaces
) -> None:
    liar = Liar(runtime, encode_verdict(b"yes", body=b"told\n"), close=True)
    (runtime / "hotplate").chmod(0o750)
    for program in (quick.script, quick.kept):
        assert run(project, program, "compile", "link").stdout == NOTHING
    liar.close()
    assert not liar.asked


def test_closed_streams_and_readers_that_leave_change_no_exit_code(
    project: FastPathProject, runtime: Path, quick: quick_build.QuickPlaces
) -> None:
    liar = Liar(runtime, encode_verdict(b"yes", body=b"told\n" * 20000), close=True)
    for program in (quick.script, quick.kept):
        for shell in (f"{program} compile >&-", f"{program} compile | true; exit ${{PIPESTATUS[0]}}"):
            done = subprocess.run(
                ["bash", "-c", shell], cwd=project.root, env=project.env, capture_output=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, b""), shell
    liar.close()


def test_the_script_gets_its_place_back(tmp_path: Path, quick: quick_build.QuickPlaces) -> None:
    at = quick_build.QuickPlaces(tmp_path / "hotplate", tmp_path / "libexec/hotplate")
    at.kept.parent.mkdir()
    shutil.copy(quick.script, at.script)
    shutil.copy(quick.kept, at.kept)
    assert quick_build.remove(at) is None and at.script.read_text() == SCRIPT and not at.kept.exists()
    assert quick_build.remove(at) is None and at.script.read_text() == SCRIPT


@pytest.mark.parametrize(("content", "fact"), [(None, "is not there"), (b"\x7fELF", "is not the script")])
def test_what_is_no_script_of_ours_is_not_replaced(tmp_path: Path, content: bytes | None, fact: str) -> None:
    at = quick_build.QuickPlaces(tmp_path / "hotplate", tmp_path / "libexec/hotplate")
    if content is not None:
        at.script.write_bytes(content)
    runner = SystemProcessRunner(SystemClock())
    failure = quick_build.install(runner, at)
    runner.close()
    assert failure is not None and fact in failure.message
    assert content is None or at.script.read_bytes() == content


def test_a_compiler_that_cannot_leaves_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: quick_build.QuickPlaces
) -> None:
    at = quick_build.QuickPlaces(tmp_path / "bin/hotplate", tmp_path / "libexec/hotplate")
    at.script.parent.mkdir()
    at.script.write_text(SCRIPT)
    at.script.chmod(0o755)

    def install(compiler: Sequence[str]) -> str:
        monkeypatch.setattr(quick_build, "compiler_argv", lambda: compiler)
        runner = SystemProcessRunner(SystemClock())
        failure = quick_build.install(runner, at)
        runner.close()
        assert failure is not None and at.script.read_text() == SCRIPT
        return failure.message

    assert "ended with 1" in install(["false"])
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf "#!/bin/sh\\necho other" > "$2"\n')
    fake.chmod(0o755)
    assert "does not start the script" in install([str(fake)])


class ReluctantRunner:
    """Keeps what is handed over, and refuses it."""

    def __init__(self, runtime: Path) -> None:
        self.handed: list[list[list[bytes]]] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(runtime / "hotplate" / RUNNER_SOCKET))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                reader = FrameReader()
                frames: list[ServiceFrame] = []
                more = b"anything"
                while more and not frames:
                    more, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    frames = reader.feed(more)
                if not frames:
                    continue
                groups = unpack(frames[0].header["fields"])
                assert groups is not None
                self.handed.append([list(group) for group in groups])
                with suppress(OSError):  # it waits for half a second
                    connection.sendall(frame(REFUSED, b"not today"))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


ALL_ALIKE = {
    "no language": {},
    "C.UTF-8": {"LANG": "C.UTF-8"},
    "C for characters": {"LC_CTYPE": "C", "LANG": "C.UTF-8"},
    "more of Python's": {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "3", "PYTHONA": "\udc80"},
    "absolute places": {"PYTHONPATH": "OURS:/opt"},
}
ONLY_THE_SCRIPT = {
    "C for all": {"LC_ALL": "C"},
    "an unknown language": {"LANG": "xx_YY.UTF-8"},
    "another encoding": {"PYTHONIOENCODING": "latin-1"},
    "another mode": {"PYTHONUTF8": "0"},
    "half buffered": {"PYTHONUNBUFFERED": "0"},
    "a relative place": {"PYTHONPATH": "OURS:src"},
    "a relative place first": {"PYTHONPATH": "src:OURS"},
    "an empty place": {"PYTHONPATH": "OURS:"},
    "nothing of the script's directory": {"PYTHONSAFEPATH": "1"},
}
LOCALE = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONIOENCODING")


@pytest.mark.parametrize("where", [*ALL_ALIKE, *ONLY_THE_SCRIPT, "a terminal"])
def test_both_clients_hand_over_the_same(
    project: FastPathProject, runtime: Path, quick: quick_build.QuickPlaces, where: str
) -> None:
    """By the compiled client, which is refused, and then by the script that it starts."""
    liar = Liar(runtime, encode_verdict(b"look", b"files moved", b"1 2 3", b"0"), close=True)
    runner = ReluctantRunner(runtime)
    env = {name: value for name, value in project.env.items() if name not in LOCALE}
    more = {**ALL_ALIKE, **ONLY_THE_SCRIPT}.get(where, {})
    env |= {name: value.replace("OURS", env["PYTHONPATH"]) for name, value in more.items()}
    main, other = pty.openpty() if where == "a terminal" else (-1, subprocess.DEVNULL)
    wanted = 1 if where in ONLY_THE_SCRIPT else 2
    for n in range(100):  # this machine may be too busy for the deadline
        source = project.root / "include/h00.h"
        source.write_text(f"{source.read_text()}\n/* handed {n} */\n")
        runner.handed.clear()
        done = subprocess.run(
            [quick.script, "compile", "link"], cwd=project.root, env=env, check=False,
            stdin=other, stdout=subprocess.DEVNULL, stderr=other if main >= 0 else subprocess.PIPE,
            preexec_fn=lambda: (os.umask(0o027), signal.signal(signal.SIGHUP, signal.SIG_IGN)),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if len(runner.handed) >= wanted:
            break
    runner.close()
    liar.close()
    for descriptor in (main, other) if main >= 0 else ():
        os.close(descriptor)
    project.settle()
    assert len(runner.handed) == wanted
    *compiled, script = runner.handed
    for one in compiled:
        (who, place, argv, path, *rest), (of_script, there, words, paths, *others) = one, script
        assert who[:4] == of_script[:4] and who[4] == COMPILED and who[5:] == of_script[8:]
        assert place[:3] + place[4:] == there[:3] + there[4:]
        assert -0.05 < float(place[3]) - float(there[3]) < 60, "a fork, an exec and a tick of the clock apart"
        assert (argv, path, rest[:-1]) == (words, paths[:1], others[:-1])
        assert rest[-1] == [b"1 2 3", b"0"], "what the service said"
        assert len(others[-1]) == (0 if where == "absolute places" else 2), "what the script could see itself"
