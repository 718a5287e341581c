"""`doit bench:remote`: a shared cache over HTTP against this machine's store, against compiling, and against none.

Runs `doit link` as whole processes in a scratch copy of the project, interleaved, with nginx on this machine behind
links of several kinds. Knows how a run is made cold; not what the client does. Does not touch the project, its cache or
a server of others.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cache.durable import read_text
from pipeline.effects.process import background
from pipeline.measure.bench.slow_link import free_port, silence, slow_link, wait_until_it_listens
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchTarget, at_most, measured, ratio_at_most
from pipeline.measure.child import Spent, run_program
from pipeline.measure.experiment import repeated
from pipeline.measure.scratch import Scratch
from pipeline.run.build import Build
from pipeline.run.project import CONFIG_FILE
from pipeline.run.shared_cache import MODE, OFF

TIMEOUT_S = 600
FEW_RUNS = 3
ROUND_TRIP_S = 0.05
BITS_PER_S = 20e6
CRAWL_BITS_PER_S = 0.2e6
DEAD_MS = 300
"""A silent server costs some hundredths of a second at the first question."""
WAIT_MS = 60_000
_LINK = ("-m", "doit", "link")


class RemoteBench:
    """A copy of the project, and runs of `doit link` in it with this or that store and server."""

    def __init__(self, build: Build, directory: Path) -> None:
        self._scratch = Scratch(build, directory)
        self._directory, self._runner = directory, build.runner
        self._text = read_text(self._scratch.project / CONFIG_FILE)
        self._stores, self._edits = itertools.count(), itertools.count()
        sources = [path for action in build.toolchain.actions for path in action.inputs if path.endswith(".c")]
        self._source = self._scratch.project / sources[0]

    def edited(self, port: int, *, mode: str = "read") -> Spent:
        """One source says something new; everything else is in the store here."""
        with self._source.open("a") as stream:
            stream.write(f"\nint edit{next(self._edits)};\n")
        return self.run(port, mode=mode, store="filled")

    def run(self, port: int, *, mode: str = "read", store: str = "") -> Spent:
        """From nothing built; with an empty store unless `store` names one."""
        import tomli_w

        self._scratch.erase()
        document = tomllib.loads(self._text)
        place = self._directory / "stores" / (store or f"new{next(self._stores)}")
        server = {"remote": f"http://127.0.0.1:{port}", "remote_wait_ms": WAIT_MS if mode == "read-write" else 0}
        document["cache"] |= {"dir": str(place), **server}
        (self._scratch.project / CONFIG_FILE).write_text(tomli_w.dumps(document))
        env = {**self._scratch.env, MODE: mode}
        return run_program(self._runner, [sys.executable, *_LINK], self._scratch.project, env, TIMEOUT_S)


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun without nginx, RuntimeError when a build fails."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise CannotRun("nginx is not installed", "install it: apt install nginx-light")
    runs = max(options["runs"], 1)
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as name:
        bench = RemoteBench(build, Path(name))
        with nginx(program, Path(name)) as port:
            recorder.step("filling the server")
            bench.run(port, mode="read-write", store="filled")
            _RemoteCases(recorder, bench, runs).all(port)


class _RemoteCases:
    """Each recorded as soon as it is measured."""

    def __init__(self, recorder: Recorder, bench: RemoteBench, runs: int) -> None:
        self._recorder, self._bench, self._runs = recorder, bench, runs

    def all(self, port: int) -> None:
        run = self._bench.run
        mine, theirs = partial(run, port), partial(run, port, mode=OFF, store="filled")
        compiled = partial(run, port, mode=OFF)
        name = "second checkout, loopback"
        self._compare(name, mine, "this machine's store", theirs, self._runs, ratio_at_most(1.5))
        few = min(self._runs, FEW_RUNS)
        with slow_link(port, ROUND_TRIP_S, BITS_PER_S) as slow:
            name = "second checkout, 50 ms and 20 Mbit/s"
            self._compare(name, partial(run, slow), "compiling", compiled, few, ratio_at_most(1.0))
        with slow_link(port, ROUND_TRIP_S, CRAWL_BITS_PER_S) as slow:
            name = "second checkout, 50 ms and 0.2 Mbit/s"
            self._compare(name, partial(run, slow), "compiling", compiled, few, ratio_at_most(1.1))
        with silence() as silent:
            self._dead(silent)

    def _compare(
        self,
        name: str,
        mine: Callable[[], Spent],
        peer: str,
        theirs: Callable[[], Spent],
        runs: int,
        target: BenchTarget,
    ) -> None:
        times = self._repeated(name, {"mine": mine, "theirs": theirs}, runs)
        for what, field, limit in (("", "wall_s", target), (", CPU", "cpu_s", None)):
            ours, others = ([1000 * getattr(spent, field) for spent in times[who]] for who in ("mine", "theirs"))
            self._recorder.add(measured(self._recorder.suite, name + what, ours, "ms", peer, others, limit))

    def _dead(self, silent: int) -> None:
        """How much longer an edit takes, run by run."""
        edited = self._bench.edited
        commands: Mapping[str, Callable[[], Spent]] = {
            "mine": partial(edited, silent),
            "theirs": partial(edited, silent, mode=OFF),
        }
        times = self._repeated("a server that says nothing", commands, self._runs)
        more = [1000 * (one.wall_s - two.wall_s) for one, two in zip(times["mine"], times["theirs"], strict=True)]
        name = "an edit with a server that says nothing, longer by"
        self._recorder.add(measured(self._recorder.suite, name, more, target=at_most(DEAD_MS)))

    def _repeated(
        self, name: str, commands: Mapping[str, Callable[[], Spent]], runs: int
    ) -> Mapping[str, Sequence[Spent]]:
        return repeated(commands, runs, partial(self._recorder.step, name))


@contextmanager
def nginx(program: str, directory: Path) -> Iterator[int]:
    """A server that keeps what it is given below `directory`; its port."""
    home, port = directory / "nginx", free_port()
    (home / "temp").mkdir(parents=True)
    temporary = " ".join(
        f"{name}_temp_path {home}/temp/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "conf").write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log {home}/log; events {{}}\n"
        f"http {{ access_log off; {temporary} client_max_body_size 0; keepalive_requests 100000;\n"
        f"server {{ listen 127.0.0.1:{port}; root {home}/served; dav_methods PUT; create_full_put_path on; }} }}\n"
    )
    words = [program, "-p", str(home), "-c", str(home / "conf"), "-e", str(home / "log")]
    with background(["/bin/sh", "-c", 'echo ready; exec "$@"', "sh", *words], home, {}):
        wait_until_it_listens(port)
        yield port
