"""What was built and is gone comes back without a run, byte for byte; what a run would say or find out, a run does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.durable import FileLock
from cache.hexfiles import HexFiles
from cache.stamps import StampTable, next_tick
from pipeline import fastpath
from pipeline.engine.put_back import put_back
from pipeline.engine.saved_state import MORE_NAME, load_lazily, load_saved
from pipeline.fastpath import FirstLook
from pipeline.fastpath.renewal import LOCK
from tests.e2e.test_fastpath import NOTHING, OUT, ZIG, FastPathProject, append, touch_and_edit

RESTORED = "-- fingerprint\n.  compile\n.  link\n"
WARNING_ZIG = ZIG.replace('cp "$source" "$out"', 'grep -q WARN "$source" && echo "a warning" >&2; cp "$source" "$out"')


class ProductsGone(FastPathProject):
    """A project that is up to date, whose products can be taken away."""

    def products(self) -> dict[str, tuple[bytes, int]]:
        """All files below build/: bytes and mode."""
        paths = (path for path in (self.root / "build").rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): (path.read_bytes(), path.stat().st_mode) for path in paths}

    def take_away(self) -> None:
        shutil.rmtree(self.root / "build")

    @property
    def calls(self) -> int:
        """How often the compiler ran."""
        return len((self.tools / "ziglang/calls").read_text().splitlines())

    @property
    def logs(self) -> int:
        """How many runs there were."""
        return len(list((self.root / ".deploy/runs").iterdir()))

    def put_back(self, *argv: str) -> str | None:
        """As a process does that found what is gone."""
        selection = argv or ("compile", "link")
        with self.inside():
            look = fastpath.answer(selection)
            assert isinstance(look, FirstLook)
            return put_back(look, selection)

    def blob_of(self, name: str) -> Path:
        """Where the store has an output of `compile`."""
        records = load_saved(self.root / ".deploy").records
        found = {path: sha256 for each in records.names() for path, sha256, _ in (records.result(each) or ((), ""))[0]}
        return BlobStore(self.store).path(Digest(found[name], 0))

    @property
    def store(self) -> Path:
        return self.root / ".deploy"


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> ProductsGone:
    """Shared by all tests of this file; each leaves it warm."""
    project = ProductsGone(tmp_path_factory.mktemp("put-back"))
    assert project.out("doit", "compile", "link") == ".  fingerprint\n.  compile\n.  link\n"
    project.settle()
    return project


@pytest.mark.parametrize("program", ["doit", "hotplate"])
def test_a_deleted_build_directory_comes_back(gone: ProductsGone, program: str) -> None:
    products, calls, logs = gone.products(), gone.calls, gone.logs
    gone.take_away()
    assert gone.out(program, "compile", "link") == RESTORED
    assert gone.products() == products and (gone.calls, gone.logs) == (calls, logs)
    assert gone.answer("compile", "link") == NOTHING
    assert gone.out("doit", "compile", "link") == NOTHING
    # The engine knows them too: one edit is one compile, and its link is recorded at once.
    append(gone.root / "src/d000/u00001.c")
    assert gone.out("doit", "compile", "link") == ".  fingerprint\n.  compile\n.  link\n"
    assert gone.calls == calls + 2
    assert gone.out("doit", "compile", "link") == NOTHING and gone.calls == calls + 2
    gone.settle()


def test_the_next_edit_of_a_large_project_reads_few_rows(gone: ProductsGone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.put_back.WORTH_ROWS", 1)
    gone.take_away()
    assert gone.put_back() == RESTORED and load_lazily(gone.root / ".deploy") is not None
    # Rows that were lost are those of a state that was written whole, not of what an edit since wrote beside it.
    append(gone.root / "src/d000/u00001.c")
    gone.out("doit", "compile", "link")
    gone.settle()
    state = gone.root / ".deploy"
    assert (state / MORE_NAME).exists()
    for name in ("stamps.v1.rows", "stamps.v1.index"):
        (state / name).unlink()
    gone.take_away()
    assert gone.put_back() == RESTORED and not (state / MORE_NAME).exists()
    lazy = load_lazily(state)
    assert lazy is not None and lazy.names == load_saved(state).names
    assert gone.out("doit", "compile", "link") == NOTHING
    gone.settle()


def test_what_is_there_stays(gone: ProductsGone) -> None:
    other = gone.root / "build/local-fast/obj/app/src/d000/u00002.c.o"
    before, image = other.stat(), gone.root / "build/local-fast/app.bin"
    (gone.root / OUT).unlink()
    assert gone.put_back() == "-- fingerprint\n.  compile\n-- link\n"
    image.unlink()
    assert gone.put_back() == "-- fingerprint\n-- compile\n.  link\n"
    assert other.stat() == before and gone.answer("compile", "link") == NOTHING


def test_only_the_stages_that_are_asked_for(gone: ProductsGone) -> None:
    assert gone.out("doit", "compile") == "-- fingerprint\n-- compile\n"
    products = gone.products()
    gone.take_away()
    assert gone.put_back("compile") == "-- fingerprint\n.  compile\n"
    assert not (gone.root / "build/local-fast/app.bin").exists() and (gone.root / OUT).exists()
    assert gone.out("hotplate", "compile", "link") == "-- fingerprint\n-- compile\n.  link\n"
    assert gone.products() == products
    gone.settle()


@pytest.mark.parametrize("program", ["hotplate", "doit", "a run"])
def test_a_damaged_blob_is_found_and_compiled_again(gone: ProductsGone, program: str) -> None:
    """And said, by whoever finds it."""
    products, calls, blob = gone.products(), gone.calls, gone.blob_of(OUT)
    blob.chmod(0o644)
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    gone.take_away()
    if program == "a run":
        (gone.root / ".deploy/fastpath.v1/-.state").unlink()
    done = gone.run("doit" if program == "a run" else program, "compile", "link")
    assert done.stdout == RESTORED and done.stderr.count("note: the store held a damaged blob") == 1, done.stderr
    assert gone.products() == products and gone.calls == calls + 1 and blob.read_bytes() == data
    gone.settle()


@pytest.mark.parametrize("what", ["blob", "entry", "usage index", "engine's state"])
def test_what_lacks_is_left_to_a_run(gone: ProductsGone, what: str) -> None:
    products = gone.products()
    records = load_saved(gone.root / ".deploy").records
    key = next(found[1] for name in records.names() if (found := records.result(name)) and found[0][0][0] == OUT)
    {
        "blob": gone.blob_of(OUT),
        "entry": Path(HexFiles(gone.store / "ac.v1").place(key)),
        "usage index": gone.root / ".deploy/fastpath.v1/-.usage",
        "engine's state": gone.root / ".deploy/stamps.v1.state",
    }[what].unlink()
    gone.take_away()
    assert gone.put_back() is None
    assert gone.out("hotplate", "compile", "link") in (RESTORED, ".  fingerprint\n.  compile\n.  link\n")
    assert gone.products() == products
    gone.settle()


def test_a_warning_is_said_again_by_a_run(gone: ProductsGone) -> None:
    gone.zig.write_text(WARNING_ZIG)
    (gone.root / "src/d000/u00002.c").write_text("// WARN\n")
    assert "a warning" in gone.run("doit", "compile", "link").stderr
    gone.settle()
    gone.take_away()
    done = gone.run("hotplate", "compile", "link")
    assert done.stdout == RESTORED and "a warning" in done.stderr
    (gone.root / "src/d000/u00002.c").write_text("// none any more\n")
    gone.settle()


def test_a_result_that_may_not_be_kept_is_made_again(gone: ProductsGone) -> None:
    config = gone.root / "deploy.toml"
    before = config.read_text()
    words = ["[[action]]", 'name = "made"', 'argv = ["cp", "{in}", "{out}"]', 'inputs = ["app.ld"]']
    action = "\n".join(["", *words, 'outputs = ["build/made.txt"]', ""])
    config.write_text(before + action)
    gone.settle()
    (gone.root / "build/made.txt").unlink()
    assert gone.put_back() is not None and (gone.root / "build/made.txt").exists(), "that of a user too"
    config.write_text(f"{before}{action}cacheable = false\n")
    gone.settle()
    (gone.root / "build/made.txt").unlink()
    assert gone.put_back() is None
    config.write_text(before)
    gone.settle()


def made_a_file(gone: ProductsGone) -> None:
    (gone.root / OUT).parent.mkdir(parents=True)
    (gone.root / OUT).write_text("somebody's\n")


def led_elsewhere(gone: ProductsGone) -> None:
    (gone.root / "elsewhere").mkdir()
    (gone.root / "build/local-fast").mkdir(parents=True)
    (gone.root / "build/local-fast/obj").symlink_to("../../elsewhere")


OBSTACLES: dict[str, Callable[[ProductsGone], object]] = {
    "a file in the place of a directory": lambda gone: (gone.root / "build").write_text(""),
    "a file in the place of an output": made_a_file,
    "a link that leads out": led_elsewhere,
    "a source touched and another edited": touch_and_edit,
    "the state withdrawn": lambda gone: (gone.root / ".deploy/fastpath.v1/-.state").unlink(),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_whatever_else_moved_is_a_matter_for_a_run(gone: ProductsGone, name: str) -> None:
    gone.take_away()
    with gone.inside():
        look = fastpath.answer(["compile", "link"])
        assert isinstance(look, FirstLook)
        OBSTACLES[name](gone)
        looked = look if "source" not in name else fastpath.answer(["compile", "link"])
        assert isinstance(looked, FirstLook) and put_back(looked, ("compile", "link")) is None
    assert not list((gone.root / "elsewhere").glob("*")) if "out" in name else True
    run = gone.run("hotplate", "compile", "link")
    assert (run.returncode != 0) == (name in ("a file in the place of a directory", "a link that leads out"))
    for path in (gone.root / "build", gone.root / "elsewhere"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    gone.settle()


def test_a_run_under_way_is_waited_for_by_a_run(gone: ProductsGone) -> None:
    products, lock = gone.products(), FileLock(gone.root / LOCK)
    gone.take_away()
    assert lock.try_acquire("a run") is None
    assert gone.put_back() is None and not (gone.root / "build").exists()
    lock.release()
    assert gone.put_back() == RESTORED and gone.products() == products


def test_two_at_once(gone: ProductsGone) -> None:
    products, calls = gone.products(), gone.calls
    gone.take_away()
    next_tick()
    code = "import sys; from pipeline.fastpath import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "compile", "link"]
    children = [subprocess.Popen(argv, cwd=gone.root, env=gone.env, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0] and set(said) <= {RESTORED, NOTHING}, said
    assert gone.products() == products and gone.calls == calls
    gone.settle()


def test_a_disk_that_is_full_in_the_middle(gone: ProductsGone, monkeypatch: pytest.MonkeyPatch) -> None:
    products, calls, real, written = gone.products(), gone.calls, os.write, []

    def full(handle: int, data: bytes) -> int:
        written.append(handle)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    gone.take_away()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert gone.put_back() is None
    there = gone.products()
    assert there and there.items() < products.items(), "what is there is whole"
    assert gone.out("hotplate", "compile", "link") == RESTORED
    assert gone.products() == products and gone.calls == calls
    gone.settle()


def test_what_somebody_writes_meanwhile_is_not_believed(gone: ProductsGone, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tick of the clock in which it was put back, with its size: a stamp could not tell."""
    products, state = gone.products(), gone.root / ".deploy/fastpath.v1/-.state"
    before = state.read_bytes()
    settle = StampTable.settle

    def edited(table: StampTable) -> None:
        with (gone.root / OUT).open("r+b") as stream:
            stream.write(b"X")
        settle(table)

    gone.take_away()
    with monkeypatch.context() as patch:
        patch.setattr(StampTable, "settle", edited)
        assert gone.put_back() is None and state.read_bytes() == before
    assert gone.answer("compile", "link") is None
    assert gone.out("hotplate", "compile", "link") == RESTORED
    assert gone.products() == products
    gone.settle()


def test_an_engine_state_that_cannot_be_written(gone: ProductsGone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the fast path may not know more than a run: it would think that somebody moved what it reads."""
    state = gone.root / ".deploy/fastpath.v1/-.state"
    before = state.read_bytes()
    gone.take_away()
    with monkeypatch.context() as patch:

        def refused(*given: object) -> None:
            raise OSError(30, "Read-only file system")

        for name in ("save", "save_parts"):
            patch.setattr(f"cache.statefile.{name}", refused)
        assert gone.put_back() is None and state.read_bytes() == before
    gone.settle()


def test_each_blob_is_read_once_and_no_entry_twice(gone: ProductsGone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's work, counted."""
    outputs, read = len(gone.products()), list[str]()
    real = HexFiles.read

    def counted(files: HexFiles, name: str, size: int = -1, *, most: int) -> bytes:
        read.append(files.top.rpartition("/")[2])
        return real(files, name, size, most=most)

    gone.take_away()
    with monkeypatch.context() as patch:
        patch.setattr(HexFiles, "read", counted)
        assert gone.put_back() == RESTORED
    records = load_saved(gone.root / ".deploy").records
    assert read.count("cas.v1") == outputs and read.count("ac.v1") == len(records.names())


def test_what_was_of_use_is_used_lately(gone: ProductsGone) -> None:
    """Entries and what is kept for them; else the store would drop first what is only ever put back."""
    entries = list((gone.store / "ac.v1").glob("*/*"))
    for path in entries:
        os.utime(path, (1, 1))
    gone.take_away()
    assert gone.put_back() == RESTORED
    records = load_saved(gone.root / ".deploy").records
    wanted = {ActionKey(found[1]) for name in records.names() if (found := records.result(name))}
    used = {path.name for path in entries if path.stat().st_mtime > 1}
    bases = sum(bool(record and record.command.depfile) for record in map(records.get, records.names()))
    assert used > wanted and len(used) == len(wanted) + bases


def test_a_dodo_that_does_more_than_ours_is_run(gone: ProductsGone) -> None:
    dodo = gone.root / "dodo.py"
    before, products = dodo.read_text(), gone.products()
    dodo.write_text(f"{before}\ndef task_mine():\n    return {{'actions': None}}\n")
    gone.settle()
    logs = gone.logs
    gone.take_away()
    assert gone.out("hotplate", "compile", "link") == RESTORED and gone.logs == logs + 1
    assert gone.products() == products
    dodo.write_text(before)
    gone.settle()
