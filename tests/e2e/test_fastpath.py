"""The fast path against real `doit` runs of a project with a fake compiler: what it answers, and what it must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.stamps import next_tick
from cache.statebytes import decode, encode
from pipeline import fastpath
from pipeline.editor.watch_set import unfinished
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.fastpath import FirstLook, Snapshot, load, native_build, native_loop
from pipeline.fastpath import state as fastpath_state
from pipeline.fastpath import touched as touched_files
from pipeline.fastpath.state import FORMER_DIRECTORIES, FastPathState, _with
from pipeline.measure.bench.generated_project import write_compiler, write_project
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options

ROOT = Path(__file__).parents[2]
ZIG = """#!/bin/sh
# copies the source (or, when linking, the template) to the output; the depfile names the headers
echo "$*" >> "$(dirname "$0")/calls"
while [ $# -gt 0 ]; do
    case "$1" in -o) out=$2; shift;; -c) source=$2; shift;; -MF) dep=$2; shift;; -target|-T) shift;; esac
    shift
done
if [ -z "$source" ]; then exec cp "$(dirname "$0")/template.elf" "$out"; fi
cp "$source" "$out"
echo "$out: $source include/h00.h" > "$dep"
"""
NOTHING = "-- fingerprint\n-- compile\n-- link\n"


class FastPathProject:
    """Three units; `doit` and `hotplate` as real processes, `answer` as the fast path here, by both of its loops."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "project"
        self.tools = directory / "tools"
        write_project(self.root, 3)
        self.zig = write_compiler(self.tools)
        self.zig.write_text(ZIG)
        self.zig.chmod(0o755)
        self.env = {**os.environ, "PYTHONPATH": f"{self.tools}:{ROOT}"}
        self.env.pop("DEPLOY_TX_ID", None)
        runner = SystemProcessRunner(SystemClock())
        self.helper = native_build.ready(runner)
        """One for all projects of this session, whose cache directory is that of the user."""
        assert (self.helper is not None) == hasattr(os, "posix_spawn")
        runner.close()

    def run(self, program: str, *argv: str) -> subprocess.CompletedProcess[str]:
        code = {
            "doit": "import sys; sys.argv[0] = 'doit'; from doit.doit_cmd import DoitMain; "
            "sys.exit(DoitMain().run(sys.argv[1:]))",
            "doit of a large project": "import sys; sys.argv[0] = 'doit'; import pipeline.run.engines as c; "
            "c.WORTH_FILES = 1; from doit.doit_cmd import DoitMain; sys.exit(DoitMain().run(sys.argv[1:]))",
            "hotplate": "import sys; from pipeline.fastpath import main; sys.exit(main())",
            "hotplate without room": "import sys; from cache import statefile\n"
            "def save(*what): raise OSError(28, 'No space left on device')\n"
            "statefile.save = save\nfrom pipeline.fastpath import main; sys.exit(main())",
        }[program]
        # A stamp is believed when it is older than the process that uses it.
        next_tick()
        return subprocess.run(
            [sys.executable, "-c", code, *argv],
            check=False,
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
        )

    def out(self, program: str, *argv: str) -> str:
        done = self.run(program, *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This process as a new one of the project."""
        here = Path.cwd()
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self.env.keys():
                patch.delenv(name)
            for name, value in self.env.items():
                patch.setenv(name, value)
            os.chdir(self.root)
            try:
                yield
            finally:
                os.chdir(here)

    def answer(self, *argv: str) -> str | None:
        """As a new process would answer; the compiled loop says the same."""
        with self.inside(), pytest.MonkeyPatch.context() as patch:
            told = fastpath.answer(argv)
            patch.setattr(fastpath, "load", self._load_with_helper)
            again = fastpath.answer(argv)
        if isinstance(told, FirstLook) and isinstance(again, FirstLook):
            assert told.places == again.places
            return None
        assert told == again and not isinstance(told, FirstLook)
        return told

    def _load_with_helper(self, path: str) -> Any:
        """The state as that of a large project."""
        found = load(path)
        return found and (_with(found[0], helper=self.helper), found[1])

    def settle(self) -> None:
        """Run until the fast path answers: what was written just now is not believed at once."""
        for _ in range(5):
            self.out("doit", "compile", "link")
            if self.answer("compile", "link") is not None:
                return
        raise AssertionError("the fast path never answered")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> FastPathProject:
    """Shared by all tests of this file; each leaves it warm."""
    project = FastPathProject(tmp_path_factory.mktemp("fastpath"))
    assert project.out("doit", "compile", "link") == ".  fingerprint\n.  compile\n.  link\n"
    project.settle()
    return project


def test_the_fast_path_says_what_doit_says(built: FastPathProject) -> None:
    assert built.out("hotplate", "compile", "link") == built.out("doit", "compile", "link") == NOTHING
    # The other way to load doit does not ask the fast path: the engine's own answer.
    assert built.out("hotplate", "link") == NOTHING
    built.settle()


def test_an_answer_is_no_run(built: FastPathProject) -> None:
    """Runs of host stages write an event log; an answer leaves everything as it was, that included."""
    before = {path: path.stat().st_mtime_ns for path in (built.root / ".deploy").rglob("*")}
    assert any(path.suffix == ".log" for path in before)
    assert built.out("hotplate", "compile", "link") == NOTHING
    assert {path: path.stat().st_mtime_ns for path in (built.root / ".deploy").rglob("*")} == before


def test_a_selection_is_answered_after_doit_ran_it(built: FastPathProject) -> None:
    assert built.answer("compile") is None
    assert built.out("hotplate", "compile") == "-- fingerprint\n-- compile\n"
    assert built.answer("compile") == "-- fingerprint\n-- compile\n"
    assert built.answer("compile", "link") == NOTHING


@pytest.mark.parametrize("argv", [[], ["deploy"], ["-a", "link"], ["link", "-v0"], ["list"], ["link", "--device", "x"]])
def test_everything_else_goes_to_doit(built: FastPathProject, argv: list[str]) -> None:
    assert built.answer(*argv) is None


def test_nothing_heavy_is_loaded(built: FastPathProject) -> None:
    code = (
        "import sys; before = set(sys.modules); sys.argv = ['hotplate', 'compile', 'link']; import os\n"
        "from pipeline import fastpath\n"
        "assert fastpath.answer(sys.argv[1:])\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=built.root, env=built.env, capture_output=True, text=True, check=True
    )
    ours = {"cache", "cache.statebytes", "pipeline", "pipeline.fastpath"}
    # `site` may have loaded the rest already, depending on the interpreter.
    assert set(eval(done.stdout)) - ours <= {"binascii", "_operator", "gc", "zlib"}


@pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="the fast path has no compiled loop here")
def test_a_large_project_is_looked_at_by_the_compiled_loop(
    built: FastPathProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int] | None] = []
    ask = native_loop.ask

    def counted(*given: Any) -> list[int] | None:
        asked.append(ask(*given))
        return asked[-1]

    monkeypatch.setattr(native_loop, "ask", counted)
    path = built.root / ".deploy/fastpath.v1/-.state"
    append(built.root / "src/d000/u00001.c")
    for _ in range(5):
        built.out("doit of a large project", "compile", "link")
        if path.exists() and state_in(path).answers:
            break
    assert state_in(path).helper == built.helper
    assert built.answer("compile", "link") == NOTHING
    assert asked == [[], []], "with the state as it is, and as `answer` changes it"
    with built.inside(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastpath, "load", built._load_with_helper)
        (built.root / "src/d000/u00002.c").touch()
        assert fastpath.answer(("compile", "link"), lambda: pytest.fail("nothing is to be done")) == NOTHING
    asked[:] = asked[:2]
    built.env["HOTPLATE_NATIVE"] = "0"
    assert built.answer("compile", "link") == NOTHING
    assert len(asked) == 2
    del built.env["HOTPLATE_NATIVE"]
    append(built.root / "src/d000/u00002.c")
    assert built.answer("compile", "link") is None
    assert len(asked) == 4 and len(asked[2] or ()) == 1
    assert asked[3] == asked[2]
    loaded: list[int] = []
    with built.inside(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastpath, "load", built._load_with_helper)
        assert isinstance(fastpath.answer(("compile", "link"), lambda: loaded.append(1)), FirstLook)
    assert loaded == [1], "while the program looks on"
    # What the next `doit` narrows its work to comes from the same program.
    assert built.out("hotplate", "compile", "link") == ".  fingerprint\n.  compile\n.  link\n"
    built.settle()
    assert state_in(path).helper is None, "three units are not worth it"


def edit(path: Path, text: str | None = None) -> None:
    """Other bytes of the same size, unless `text` is given."""
    data = path.read_bytes()
    path.write_bytes(text.encode() if text is not None else data[:-2] + b" \n")


def state_in(path: Path) -> Snapshot:
    found = load(str(path))
    assert found is not None
    return found[0]


def append(path: Path) -> None:
    with path.open("a") as stream:
        stream.write("# more\n")


def same_size_and_mtime(path: Path) -> None:
    status = path.stat()
    edit(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch_and_edit(project: FastPathProject) -> None:
    (project.root / "src/d000/u00000.c").touch()
    append(project.root / "src/d000/u00002.c")


OUT = "build/local-fast/obj/app/src/d000/u00001.c.o"
CHANGES: dict[str, tuple[Callable[[FastPathProject], object], str]] = {
    "source edited": (lambda p: edit(p.root / "src/d000/u00001.c"), ".  fingerprint\n.  compile\n.  link\n"),
    "same size and mtime": (lambda p: same_size_and_mtime(p.root / "src/d000/u00002.c"), ".  fingerprint\n.  compile"),
    "header edited": (lambda p: edit(p.root / "include/h00.h"), ".  fingerprint\n.  compile"),
    "source touched and another edited": (touch_and_edit, ".  fingerprint\n.  compile"),
    "output touched": (lambda p: (p.root / OUT).touch(), "-- fingerprint\n.  compile\n"),
    "deploy.toml touched": (lambda p: (p.root / "deploy.toml").touch(), NOTHING),
    "output edited in place": (lambda p: same_size_and_mtime(p.root / OUT), "-- fingerprint\n.  compile\n"),
    "output removed": (lambda p: (p.root / OUT).unlink(), "-- fingerprint\n.  compile\n"),
    "image removed": (lambda p: (p.root / "build/local-fast/app.bin").unlink(), "-- compile\n.  link\n"),
    "linker script": (lambda p: append(p.root / "app.ld"), ".  fingerprint\n-- compile\n.  link\n"),
    "new source": (lambda p: edit_new(p.root / "src/d000/u77777.c"), ".  fingerprint\n.  compile\n.  link\n"),
    "new header in front": (lambda p: edit_new(p.root / "src/d000/h00.h"), "-- fingerprint\n.  compile\n"),
    "deploy.toml": (lambda p: append(p.root / "deploy.toml"), NOTHING),
    "dodo.py": (lambda p: append(p.root / "dodo.py"), NOTHING),
    "doit options": (lambda p: edit_new(p.root / "doit.cfg"), NOTHING),
    "compiler": (lambda p: append(p.zig), ".  compile\n.  link\n"),
    "compiler's version": (
        lambda p: (p.tools / "ziglang-0.17.0.dist-info").rename(p.tools / "ziglang-0.18.0.dist-info"),
        ".  compile",
    ),
    "another package in front": (lambda p: edit_new(p.tools / "esptool.cfg"), NOTHING),
    "PATH": (lambda p: p.env.update(PATH=p.env["PATH"] + ":/nowhere"), NOTHING),
    "state removed": (lambda p: (p.root / ".deploy/fastpath.v1/-.state").unlink(), NOTHING),
}


def edit_new(path: Path) -> None:
    path.write_text("\n")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_never_missed(built: FastPathProject, name: str) -> None:
    """The fast path falls silent; `hotplate` then does what `doit` does; afterwards the fast path answers again."""
    change, wanted = CHANGES[name]
    assert built.answer("compile", "link") == NOTHING
    change(built)
    assert built.answer("compile", "link") is None
    out = built.out("hotplate", "compile", "link")
    assert wanted in out
    built.settle()
    assert built.answer("compile", "link") == NOTHING


def touched(project: FastPathProject) -> list[Path]:
    """A source, a header that all use, and the linker script: saved as editors do, with what they hold."""
    found = [project.root / name for name in ("src/d000/u00001.c", "include/h00.h", "app.ld")]
    for path in found:
        saved = path.with_name(".saved")
        saved.write_bytes(path.read_bytes())
        saved.replace(path)
    return found


def test_files_that_were_saved_without_change_are_read_and_nothing_else_is_done(built: FastPathProject) -> None:
    before = {path: path.stat().st_mtime_ns for path in (built.root / ".deploy").rglob("*")}
    touched(built)
    for _ in range(2):
        assert built.answer("compile", "link") == built.out("hotplate", "compile", "link") == NOTHING
    assert {path: path.stat().st_mtime_ns for path in (built.root / ".deploy").rglob("*")} == before
    with built.inside():
        assert unfinished(built.root, Options()) == (), "doit watch must not build once more"
    # What was read is not remembered: an edit of the same tick as the save cannot hide behind its stamp.
    append(built.root / "include/h00.h")
    assert built.answer("compile", "link") is None
    built.settle()


@pytest.mark.parametrize("name", ["removed", "damaged", "of another run", "of another kind"])
def test_contents_that_do_not_belong_to_the_state_are_not_believed(built: FastPathProject, name: str) -> None:
    path = built.root / ".deploy/fastpath.v1/-.contents"
    good = path.read_bytes()
    token, fingerprints = decode(touched_files.KIND, good)[0]
    touched(built)
    assert built.answer("compile", "link") == NOTHING
    if name == "removed":
        path.unlink()
    else:
        path.write_bytes(
            {
                "damaged": good[:-1] + bytes([good[-1] ^ 1]),
                "of another run": encode(touched_files.KIND, (token[::-1], fingerprints)),
                "of another kind": encode("fast path contents 0", (token, fingerprints)),
            }[name]
        )
    assert built.answer("compile", "link") is None
    path.write_bytes(good)
    built.settle()


def test_what_is_no_regular_file_is_not_read(built: FastPathProject) -> None:
    """A named pipe would be waited for."""
    source = built.root / "src/d000/u00001.c"
    aside = source.with_suffix(".aside")
    source.rename(aside)
    for make in (os.mkfifo, os.mkdir):
        make(source)
        assert built.answer("compile", "link") is None
        source.unlink() if source.is_fifo() else source.rmdir()
    aside.rename(source)
    built.settle()


def test_many_files_saved_without_change_are_read_once(built: FastPathProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run, and no event log; but what `doit` then stats is known."""
    touched(built)
    next_tick()
    monkeypatch.setattr(touched_files, "MOST", 2)
    logs = sorted((built.root / ".deploy/runs").iterdir())
    with built.inside():
        assert fastpath.answer(["compile", "link"]) == NOTHING
        found = load(".deploy/fastpath.v1/-.state")
        assert found is not None and fastpath.moved(found[0], str(built.root)) == [], "their stamps are written"
    assert sorted((built.root / ".deploy/runs").iterdir()) == logs
    assert built.out("doit", "compile", "link") == built.out("hotplate", "compile", "link") == NOTHING
    touch_and_edit(built)
    touched(built)
    assert built.answer("compile", "link") is None, "one of them is another"
    assert ".  compile" in built.out("hotplate", "compile", "link")
    monkeypatch.undo()
    built.settle()


def test_a_run_of_doit_records_the_stamps_of_what_was_only_touched(built: FastPathProject) -> None:
    """However few, so that the next look need not read them. (`doit` itself answers at once.)"""
    touched(built)
    next_tick()
    run = FastPathState(built.root, "")
    state = built.root / ".deploy/fastpath.v1/-.state"
    before = state.read_bytes()
    with built.inside():
        assert run.facts() is not None, "read, and found unchanged"
        assert state.read_bytes() == before, "nothing is written before the run has ended"
        run.renew()
        assert fastpath.moved(state_in(state), str(built.root)) == []
    append(built.root / "src/d000/u00000.c")
    assert built.answer("compile", "link") is None
    built.settle()


def test_the_images_of_a_build_in_which_nothing_moved_need_no_listing(built: FastPathProject) -> None:
    """What they are called stands in the state; a table that moved may have one more."""
    with built.inside():
        build = load_build(Options(), built.root)
        assert isinstance(build, Build)
        names = [image.name for image in build.images.all()]
        assert "toolchain" not in build.__dict__ and {"bootloader", "partitions", "app"} <= {*names}
        append(built.root / "partitions.csv")
        again = load_build(Options(), built.root)
        assert isinstance(again, Build)
        assert [image.name for image in again.images.all()] == names and "toolchain" in again.__dict__
    built.settle()


def test_the_run_of_the_same_process_believes_its_first_look(
    built: FastPathProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an edit costs one stat per path before the compiler starts; but not what is old by then."""
    looks: list[str] = []

    def counted(snapshot: Snapshot, root: str) -> list[int] | None:
        looks.append(root)
        return fastpath.moved(snapshot, root)

    def places(look: FirstLook, wait: bool = False) -> Mapping[int, str]:
        run = FastPathState(built.root, "")
        run.believe(look)
        if wait:
            run.waited()
        found = run.usage_index()
        assert found is not None
        return found[1]

    append(built.root / "src/d000/u00001.c")
    built.settle()
    state = built.root / ".deploy/fastpath.v1/-.state"
    saved = state.read_bytes()
    append(built.root / "src/d000/u00000.c")
    with built.inside():
        look = fastpath.answer(["compile", "link"])
        assert isinstance(look, FirstLook)
        monkeypatch.setattr(fastpath_state, "moved", counted)
        assert len(places(look)) == 1 and not looks
        append(built.root / "src/d000/u00001.c")
        assert len(places(look)) == 1 and not looks, "an edit after the look is the next run's"
        assert len(places(look, wait=True)) == 2 and len(looks) == 1, "other runs in line count on this one to look"
        state.write_bytes(saved)
        assert len(places(look)) == 2 and len(looks) == 2, "another run wrote the state"
        state.unlink()
        run = FastPathState(built.root, "")
        run.believe(look)
        assert run.usage_index() is None, "another run is changing things"
    monkeypatch.undo()
    built.settle()


def test_hotplate_hands_its_look_to_the_run_that_follows(
    built: FastPathProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes, counted: after an edit `hotplate` stats what `doit` does, which looks after it was loaded."""
    counts = tmp_path / "counts.json"
    monkeypatch.setitem(built.env, "PYTHONPATH", f"{built.env['PYTHONPATH']}:{sysconfig.get_path('purelib')}")

    def stats_of(program: str) -> int:
        next_tick()
        code = "from pipeline.measure.counting import main; main()"
        # -S: start-up files of the environment would be counted too
        argv = [sys.executable, "-S", "-c", code, str(counts), program, "compile", "link"]
        subprocess.run(argv, cwd=built.root, env=built.env, check=True, capture_output=True)
        return int(json.loads(counts.read_text())["stats"])

    found: dict[str, int] = {}
    for program in ("doit", "hotplate"):
        for _ in range(2):
            stats_of("doit")
        nothing_to_do = stats_of("hotplate")
        append(built.root / "src/d000/u00001.c")
        found[program] = stats_of(program)
    assert found["hotplate"] < found["doit"] + nothing_to_do / 2
    monkeypatch.undo()
    built.settle()


def test_what_an_earlier_version_left_is_removed_and_not_believed(built: FastPathProject, tmp_path: Path) -> None:
    """Also where a link stands in its place: what it leads to is not ours."""
    state = built.root / ".deploy/fastpath.v1/-.state"
    good = state.read_bytes()
    [former] = [built.root / name for name in FORMER_DIRECTORIES]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    for place in ("directory", "link"):
        if place == "directory":
            former.mkdir()
            (former / "-.state").write_bytes(good)
        else:
            former.symlink_to(elsewhere)
        state.unlink()
        assert built.answer("compile", "link") is None
        append(built.root / "src/d000/u00001.c")
        built.settle()
        assert not former.is_symlink() and not former.exists()
    assert [path.name for path in elsewhere.iterdir()] == ["kept"]


def test_damaged_state_is_not_believed(built: FastPathProject) -> None:
    path = built.root / ".deploy/fastpath.v1/-.state"
    good = path.read_bytes()
    variants = [good[:length] for length in range(0, len(good), 997)]
    variants += [good[:n] + bytes([good[n] ^ 1 << n % 8]) + good[n + 1 :] for n in range(0, len(good), 991)]
    for bad in variants:
        path.write_bytes(bad)
        assert built.answer("compile", "link") is None
    path.write_bytes(good)
    assert built.answer("compile", "link") == NOTHING


def test_what_a_linker_script_includes_is_an_input_of_the_link(tmp_path: Path) -> None:
    """Through another script, and one that did not exist at first."""
    project = FastPathProject(tmp_path)
    (project.root / "app.ld").write_text("INCLUDE part.ld\n")
    (project.root / "part.ld").write_text("/* comment: INCLUDE no.ld */ INPUT(late.ld)\n")
    project.settle()
    assert project.answer("compile", "link") == NOTHING
    append(project.root / "part.ld")
    assert project.out("hotplate", "compile", "link") == ".  fingerprint\n-- compile\n.  link\n"
    (project.root / "late.ld").write_text("/* now it is there */\n")
    assert project.out("hotplate", "compile", "link") == ".  fingerprint\n-- compile\n.  link\n"


def test_a_failed_run_leaves_no_state(built: FastPathProject) -> None:
    source = built.root / "src/d000/u00000.c"
    text = source.read_text()
    zig = built.zig.read_text()
    edit(source)
    built.zig.write_text(zig.replace("cp ", "exit 1; cp "))
    failed = built.run("hotplate", "compile", "link")
    assert failed.returncode == 1
    # What lay beside the state stays, as of that state alone.
    assert {path.suffix for path in (built.root / ".deploy/fastpath.v1").iterdir()} <= {".usage", ".contents"}
    assert built.answer("compile", "link") is None
    source.write_text(text)
    built.zig.write_text(zig)
    built.settle()


def test_profiles_have_states_of_their_own(built: FastPathProject) -> None:
    assert built.answer("link", "--profile", "local-fast") is None
    for _ in range(5):  # the end of another test may have moved a link of the compiler's just now
        assert built.out("doit", "link", "--profile", "local-fast") == NOTHING
        if built.answer("link", "--profile", "local-fast") is not None:
            break
    assert built.answer("link", "--profile", "local-fast") == NOTHING
    assert built.answer("link", "--profile", "../x") is None
    assert fastpath.selection_of(["--profile", "x", "link"]) is None, "doit reads this as an option of `run`"


def test_a_tool_whose_link_count_moved_is_read(built: FastPathProject, tmp_path: Path) -> None:
    """Another environment that links to the same files moves their ctime; other bytes go to doit."""
    built.settle()
    before = built.zig.stat()
    (tmp_path / "zig").hardlink_to(built.zig)
    assert built.zig.stat().st_ctime_ns != before.st_ctime_ns
    assert built.answer("compile", "link") == NOTHING
    zig = built.zig.read_text()
    built.zig.write_text(zig.replace("copies", "COPIES"))
    assert built.zig.stat().st_size == before.st_size and built.answer("compile", "link") is None
    built.zig.write_text(zig)
    built.settle()
