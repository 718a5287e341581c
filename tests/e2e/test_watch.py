"""`doit watch` as a real process over a project with a fake compiler that fails or waits on demand."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.lock import OPEN, try_lock
from pipeline.editor import hook_texts
from pipeline.editor.watch import stopping
from pipeline.editor.watch_set import unfinished, watch_set
from pipeline.effects.file_events import DirectoryWatcher
from pipeline.model import Stage, StageOutcome, StageResult, StageWork
from pipeline.run.lock import writing_lock
from pipeline.run.options import Options
from pipeline.run.run import Run, load_run
from pipeline.run.stage_of import StageOf
from tests.e2e.test_fastpath import ZIG, FastPathProject
from tests.e2e.watching import DEADLINE_S, FINISHED, Watching, watching
from tests.unit.test_diagnostics import GCC

STANDBY = "pipeline.editor.standby"

COMPILE = """if grep -q SLOW "$source"; then
    echo "$source" > "$(dirname "$0")/waiting"
    while [ ! -e "$(dirname "$0")/go" ]; do sleep 0.01; done
fi
if grep -q BROKEN "$source"; then echo "$source:1:2: error: it is broken" >&2; exit 1; fi
cp "$source" "$out"
"""
"""A source that says BROKEN does not compile; one that says SLOW waits until the test lets it go on."""

LINK = """if grep -q UNDEFINED "$(dirname "$0")/link" 2>/dev/null; then
    echo 'ld.lld: error: undefined symbol: gone' >&2
    echo '>>> referenced by u00001.c:7 (src/d000/u00001.c:7)' >&2
    exit 1
fi
"""


def with_failing_compiler(project: FastPathProject) -> FastPathProject:
    """The project with a compiler that obeys its sources."""
    assert ZIG.count('cp "$source" "$out"\n') == 1 and ZIG.count('if [ -z "$source" ]; then exec') == 1
    zig = ZIG.replace('cp "$source" "$out"\n', COMPILE)
    project.zig.write_text(zig.replace('if [ -z "$source" ]; then exec', 'if [ -z "$source" ]; then ' + LINK + "exec"))
    return project


@pytest.fixture
def project(tmp_path: Path) -> FastPathProject:
    return with_failing_compiler(FastPathProject(tmp_path))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastPathProject, Watching]]:
    """One watch for all tests that do not end it; each leaves it at rest, with all sources good."""
    project = with_failing_compiler(FastPathProject(tmp_path_factory.mktemp("watch")))
    with watching(project.root, project.env) as watch:
        assert "compiled=4" in watch.first()
        yield project, watch


def unit(project: FastPathProject, number: int) -> Path:
    return project.root / f"src/d000/u{number:05}.c"


def product(project: FastPathProject, number: int) -> Path:
    return project.root / f"build/local-fast/obj/app/src/d000/u{number:05}.c.o"


def saved(path: Path, text: str) -> Callable[[], object]:
    """As many editors save: another file, renamed into place."""

    def save() -> None:
        temporary = path.with_name(f".{path.name}.swp")
        temporary.write_text(text)
        temporary.replace(path)

    return save


def test_each_kind_of_save(running: tuple[FastPathProject, Watching]) -> None:
    project, watch = running
    source = unit(project, 1)
    good = source.read_text()
    assert "compiled=1" in watch.after(saved(source, good + "int more;\n"))
    assert product(project, 1).read_text() == good + "int more;\n"
    assert "nothing to do" in watch.after(lambda: os.utime(source))
    assert "restored=1" in watch.after(saved(source, good))
    assert "compiled=" in watch.after(saved(project.root / "include/h00.h", "// a header\n"))
    # files that come, go and are renamed
    assert "compiled=1, linked=1" in watch.after(saved(unit(project, 7), "int seven;\n"))
    assert "compiled=1" in watch.after(lambda: unit(project, 7).rename(unit(project, 8)))
    assert product(project, 8).read_text() == "int seven;\n"
    assert "failed" not in watch.after(unit(project, 8).unlink)
    # a header that is found before the one that was used
    assert "compiled=" in watch.after(saved(project.root / "src/d000/h00.h", "// in front\n"))
    config = project.root / "deploy.toml"
    text = config.read_text()
    assert "deploy.toml:2:1: error: unknown key" in watch.after(
        saved(config, text.replace("\n", "\nnonsense = 1\n", 1))
    )
    assert "nothing to do" in watch.after(saved(config, text))


def test_errors_stand_in_lines_that_editors_read(running: tuple[FastPathProject, Watching]) -> None:
    project, watch = running
    source = unit(project, 1)
    good = source.read_text()
    lines = watch.after(saved(source, "BROKEN\n")).splitlines()
    assert "src/d000/u00001.c:1:2: error: it is broken" in lines
    assert any(line.startswith("[watch] failed with exit code 1 (") for line in lines)
    # what a failed build reads is not known, so everything beside it counts
    assert "error: it is broken" in watch.after(saved(source.with_name("new.h"), "// not included yet\n"))
    (project.zig.parent / "link").write_text("UNDEFINED")
    lines = watch.after(saved(source, good + "// other\n")).splitlines()
    assert "src/d000/u00001.c:7:1: error: undefined symbol: gone" in lines
    (project.zig.parent / "link").unlink()
    assert "linked=1" in watch.after(lambda: os.utime(source))


def wait_for(path: Path) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < until_s, f"{path} did not appear"
        time.sleep(0.005)


def test_a_newer_save_cancels(running: tuple[FastPathProject, Watching]) -> None:
    """The compiler of the first would wait for ever."""
    project, watch = running
    waiting = project.zig.parent / "waiting"
    saved(unit(project, 0), "SLOW and cancelled\n")()
    wait_for(waiting)
    text = watch.after(saved(unit(project, 0), "int fast;\n"))
    assert "[watch] cancelled by a newer save (" in text
    assert product(project, 0).read_text() == "int fast;\n"
    assert "error" not in text and "interrupted" not in text, text
    waiting.unlink()


def test_a_write_is_let_finish(running: tuple[FastPathProject, Watching]) -> None:
    """While flash is being written (the test holds the lock as a deploy does) a newer save cancels nothing."""
    project, watch = running
    saved(unit(project, 0), "SLOW and let finish\n")()  # nothing that another test has compiled: that is restored
    wait_for(project.zig.parent / "waiting")
    handle = os.open(writing_lock(project.root / ".deploy"), OPEN)
    assert try_lock(handle, shared=True)
    before = len(watch.lines)
    saved(unit(project, 1), "int newer;\n")()
    # the watch has seen the save when it builds again, which it does after this run has ended by itself
    (project.zig.parent / "go").touch()
    lines = watch.until(lambda lines: lines[before:].count(FINISHED) == 2, "the second build")[before:]
    os.close(handle)
    assert not any("cancelled" in line for line in lines)
    assert product(project, 0).read_text() == "SLOW and let finish\n"
    assert product(project, 1).read_text() == "int newer;\n"
    (project.zig.parent / "go").unlink()
    (project.zig.parent / "waiting").unlink()
    watch.after(saved(unit(project, 0), "int fast;\n"))


def test_vs_code_sees_every_build_and_its_problems(running: tuple[FastPathProject, Watching]) -> None:
    """What VS Code's background matcher does with the real output of `doit watch`, that of the tests above included:
    problems belong to the build between a begin and an end, by our pattern and by `$gcc` alike."""
    project, watch = running
    matcher = json.loads(hook_texts.vscode_tasks("hotplate", "doit")[0])["problemMatcher"]
    begins, ends = (re.compile(matcher["background"][name]) for name in ("beginsPattern", "endsPattern"))
    watch.after(saved(unit(project, 1), "BROKEN\n"))
    watch.after(saved(unit(project, 1), "int repaired;\n"))
    builds: list[list[tuple[str, ...]]] = []
    active = False
    for line in watch.lines:
        if begins.search(line):
            assert not active
            active = True
            builds.append([])
        found, gcc = re.match(matcher["pattern"]["regexp"], line), GCC.match(line)
        assert (found and found.groups()) == (gcc and gcc.groups())
        if found is not None:
            assert active, line
            builds[-1].append(found.groups())
        if ends.search(line):
            active = False
    assert not active
    *_, broken, repaired = builds
    assert broken == [("src/d000/u00001.c", "1", "2", "error", "it is broken")]
    assert repaired == []


def test_no_write_begins_while_a_cancel_is_under_way(project: FastPathProject) -> None:
    """The other half: `reflash` waits for the lock that a cancel holds, and holds it while it writes."""
    context = load_run(Options(), project.root)
    assert isinstance(context, Run)
    path = writing_lock(project.root / ".deploy")
    path.parent.mkdir(parents=True)
    cancel = os.open(path, OPEN, 0o644)
    assert try_lock(cancel)
    began = threading.Event()

    def write(which: StageOf) -> StageWork:
        began.set()
        assert not try_lock(cancel), "a cancel must not get the lock during a write"
        return StageWork()

    context._attempt = write  # type: ignore[method-assign, assignment]
    results: list[StageResult] = []
    run = threading.Thread(target=lambda: results.append(context.execute(StageOf(Stage.REFLASH))))
    run.start()
    assert not began.wait(0.1), "the write began although a cancel held the lock"
    os.close(cancel)
    cancel = os.open(path, OPEN)
    run.join(DEADLINE_S)
    assert results[0].outcome is StageOutcome.RAN, results[0].failure
    assert try_lock(cancel), "the lock is given back"
    os.close(cancel)
    context.close()


def test_the_end_during_a_build(project: FastPathProject) -> None:
    with watching(project.root, project.env) as watch:
        watch.first()
        saved(unit(project, 0), "SLOW\n")()
        wait_for(project.zig.parent / "waiting")
        assert watch.stop(signal.SIGTERM) == 130
        assert watch.lines[-1] == FINISHED
        assert watch.lines[-2].startswith("[watch] stopped (")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_way_to_end_it(number: signal.Signals) -> None:
    before, stops = signal.getsignal(number), []
    with stopping(lambda: stops.append(number)):
        signal.raise_signal(number)
        signal.raise_signal(number)
    assert stops == [number, number]
    assert signal.getsignal(number) is before


def test_processes_that_are_killed(project: FastPathProject) -> None:
    """A spare run while it waits: one failed build, and not the end of the watch. The watch itself: nothing is left."""
    waiting = project.zig.parent / "waiting"
    unit(project, 0).write_text("SLOW first\n")
    watch = Watching(project.root, project.env)
    wait_for(waiting)
    # It is still there for a moment after its end is told, and is not the spare one.
    first_run = watch.until_child(STANDBY)
    watch.after((project.zig.parent / "go").touch)
    (project.zig.parent / "go").unlink()
    waiting.unlink()
    before = len(watch.lines)
    os.kill(watch.until_child(STANDBY, but=first_run), signal.SIGKILL)
    saved(unit(project, 0), "int zero;\n")()
    watch.until(lambda lines: lines[before:].count(FINISHED) == 1, "the failed build")
    assert "failed with exit code -9" in watch.lines[-2]
    assert "compiled=1" in watch.after(saved(unit(project, 0), "int one;\n"))
    saved(unit(project, 0), "SLOW\n")()
    wait_for(waiting)
    assert any("sleep" in command or "zig" in command for command in watch.left().values())
    watch.child.kill()
    watch.child.wait()
    watch.check_nothing_left()
    watch.join()


def test_polling(project: FastPathProject) -> None:
    """Saves of one second too, which `watchfiles` takes for one."""
    source, second_ns = unit(project, 1), time.time_ns() // 10**9 * 10**9
    os.utime(source, ns=(second_ns, second_ns))

    def save(text: str, later_ns: int) -> Callable[[], object]:
        temporary = source.with_name(".u00001.c.swp")
        temporary.write_text(text)
        os.utime(temporary, ns=(second_ns + later_ns,) * 2)
        return lambda: temporary.replace(source)

    with watching(project.root, project.env, "--poll") as watch:
        watch.first()
        assert "compiled=1" in watch.after(save("int polled;\n", 1))
        assert "compiled=1" in watch.after(save("int POLLED;\n", 2))


def test_bad_usage(project: FastPathProject) -> None:
    done = project.run("doit", "watch", "compile")
    assert done.returncode == 3 and "watch: error: takes no arguments, got compile" in done.stderr
    # A system without notifications of its own, and without the package that reads others'.
    hidden = project.root / "hidden"
    hidden.mkdir()
    (hidden / "watchfiles.py").write_text("raise ImportError('not here')\n")
    (hidden / "sitecustomize.py").write_text(
        "from pipeline.effects import directory_events\ndirectory_events.events_of = lambda report: None\n"
    )
    project.env["PYTHONPATH"] = f"{hidden}:{project.env['PYTHONPATH']}"
    done = project.run("doit", "watch")
    assert done.returncode == 2 and "hint: install it with: pip install 'hotplate[watch]'" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


# --- what is watched ----------------------------------------------------------------------------


def test_what_matters(project: FastPathProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.out("doit", "compile", "link")
    monkeypatch.setenv("PYTHONPATH", project.env["PYTHONPATH"])
    monkeypatch.syspath_prepend(str(project.tools))
    found = watch_set(project.root, Options())
    root = str(project.root)
    for name in ("deploy.toml", "dodo.py", "src/d000/u00000.c", "include/h00.h", "src/d000/h00.h"):
        assert found.concerns([f"{root}/{name}"]), name
    for name in ("README.md", "src/d000/.u00000.c.swp", "build/local-fast/app.bin", ".deploy/fastpath.v1/-.state"):
        assert not found.concerns([f"{root}/{name}"]), name
    assert found.directories >= {root, f"{root}/src/d000", f"{root}/include"}
    assert not any(
        place.startswith((f"{root}/build", f"{root}/.deploy", str(project.tools))) for place in found.directories
    )
    assert found.may_concern([f"{root}/include/new.h"])
    for name in ("include/4913", "include/new.h~", "include/.#new.h", "elsewhere/new.h", "build/x.h"):
        assert not found.may_concern([f"{root}/{name}"]), name
    assert unfinished(project.root, Options()) == ()
    (project.root / "deploy.toml").write_text("nonsense")
    broken = watch_set(project.root, Options())
    assert broken.concerns([f"{root}/deploy.toml"]) and broken.directories == {root}
    assert unfinished(project.root, Options()) == (), "the last build has said what is wrong"


def test_a_directory_watcher_reports_across_its_sets(tmp_path: Path) -> None:
    """A file saved in a directory that is in the old and the new set is never missed, nor in one that was replaced."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    seen: set[str] = set()
    news = threading.Condition()

    def report(paths: frozenset[str]) -> None:
        with news:
            seen.update(paths)
            news.notify_all()

    def wait(path: Path) -> None:
        with news:
            assert news.wait_for(lambda: str(path) in seen, DEADLINE_S), path

    watcher = DirectoryWatcher(report, poll=False)
    assert watcher.watch([str(one), str(tmp_path / "missing")])
    (one / "a").touch()
    assert watcher.watch([str(one), str(two)])
    (one / "b").touch()
    (two / "c").touch()
    for path in (one / "a", one / "b", two / "c"):
        wait(path)
    assert not watcher.watch([str(two), str(one)])
    (two / "c").unlink()
    two.rmdir()
    two.mkdir()
    wait(two)
    assert watcher.watch([str(one), str(two)]), "even with the inode number of the old one"
    (two / "d").touch()
    wait(two / "d")
    watcher.close()
    watcher.close()


# --- saves at random ----------------------------------------------------------------------------


def saves_at_random(project: FastPathProject, count: int, seed: int) -> None:
    """Saves of random kinds at random intervals while builds run. What is on disk at the end is what is built."""
    rng = random.Random(seed)
    (project.zig.parent / "go").touch()
    with watching(project.root, project.env) as watch:
        watch.first()
        for n in range(count):
            path = unit(project, rng.randrange(6))
            kind = rng.random()
            if kind < 0.1 and path != unit(project, 0):
                path.unlink(missing_ok=True)
            elif kind < 0.2:
                saved(path, f"BROKEN {n}\n")()
            elif kind < 0.6:
                path.write_text(f"int v{n};\n")
            else:
                saved(path, f"SLOW int v{n};\n")()
            # the rhythm of the saves is what is tested; nothing depends on it
            time.sleep(rng.choice((0.0, 0.001, 0.01, 0.05, 0.2)) * rng.random())
        # First, so that a build of the last saves has seen it however late each of them is noticed.
        for number in range(3, 6):
            unit(project, number).unlink(missing_ok=True)
        for number in range(3):
            saved(unit(project, number), f"int last{number};\n")()

        def settled(lines: list[str]) -> bool:
            objects = [product(project, n).read_bytes() if product(project, n).exists() else b"" for n in range(3)]
            done = lines and lines[-1] == FINISHED and "cancelled" not in lines[-2] and "failed" not in lines[-2]
            return bool(done) and objects == [f"int last{n};\n".encode() for n in range(3)]

        watch.until(settled, "the last state")
    assert project.out("doit", "compile", "link") == "-- fingerprint\n-- compile\n-- link\n"


def test_saves_during_builds(project: FastPathProject) -> None:
    saves_at_random(project, 10, 5)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3))
def test_200_saves_during_builds(project: FastPathProject, seed: int) -> None:
    saves_at_random(project, 200, seed)
