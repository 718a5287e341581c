"""`doit bench:work`: how much work the pipeline does, as counts that no busy machine moves; CI compares them.

Counts in children (`measure/counting.py`) with a fixed environment: on generated projects of two sizes, whose
difference is what a unit costs and whose rest is fixed, with plain doit and the same dependencies as peer; and on a
built copy of the project with a virtual board. Compares with `tests/perf/work.json`, where accepted counts are kept;
`--keep` writes it. Touches neither project, cache nor board. Invariant: nothing here reads a clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from cache.durable import write_atomic
from cache.named_tuple import NamedTuple
from cache.stamps import next_tick
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.fastpath import DIRECTORY
from pipeline.measure.bench import kept as counters
from pipeline.measure.bench.deploys import DeployBench
from pipeline.measure.bench.engine import GeneratedBench
from pipeline.measure.bench.kept import INSTRUCTIONS
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchRow
from pipeline.measure.child import board_process, report_of, run_program
from pipeline.run.build import Build
from pipeline.run.project import CONFIG_FILE

SUITE = "work"
KEPT = "tests/perf/work.json"
COMMAND = "doit bench:work --keep"
UNITS = (100, 200)
"""Of one directory and of two, so that what a directory costs is part of the slope."""

TIMEOUT_S = 300
WITHOUT_STANDARD = "modules imported, without the standard library"
"""Which modules of that are imported depends on Python's version."""

COUNT = "from pipeline.measure.counting import main; main()"
STRING, OTHER_STRING = b'"Method not found"', b'"Method not there"'
"""A string of the reference firmware, and another one of the same length."""

HEAVY = frozenset({"esptool", "networkx", "rich", "tabulate", "elftools", "watchfiles", "serial"})
"""What a warm deploy to a board in this process has no use for."""


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun when the kept counts cannot be read, or without a virtual device."""
    recorder.strict = True
    rows: list[BenchRow] = []
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        recorder.step("generated projects")
        rows += build_rows(Path(directory))
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        recorder.step("deploys to a virtual board")
        bench = DeployBench(build, Path(directory))
        bench.need_device()
        rows += device_rows(bench.project, bench.device, bench.chip, bench.scratch.env)
    path = build.project.root / KEPT
    if options["keep"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, counters.encode(rows, python(), COMMAND).encode(), durable=False)
    kept = read_kept(path)
    if kept is None:
        recorder.add(*rows)
        recorder.note("nothing to compare with", f"there is no {KEPT}; {COMMAND} writes it")
        return
    found = counters.with_targets(rows, kept, python())
    recorder.add(*found)
    for title, lines in (
        ("worse than kept", counters.worse(found, kept, COMMAND)),
        (f"better than kept; {COMMAND} holds them there", counters.better(found, kept)),
        (f"only found or only kept; {COMMAND} keeps what is found", counters.unlike(found, kept)),
    ):
        recorder.note(title, "\n".join(lines))


def read_kept(path: Path) -> counters.Kept | None:
    """None when there is no file. Raises CannotRun when it cannot be read."""
    try:
        return counters.decode(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CannotRun(f"{path}: {error}", f"write it again: {COMMAND}") from None


def python() -> str:
    """Whose bytecode is counted."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


class Counted(NamedTuple):
    """What one child did. `opened` and `stats`: below its current directory; `out`: what it printed."""

    instructions: int
    stats: int
    serial_bytes: int
    opened: list[str]
    spawned: list[list[str]]
    modules: list[str]
    out: str


class Counter:
    """Runs programs in `root` and counts. `path`: where they find modules; `env`: their whole environment beside it."""

    def __init__(self, root: Path, path: str, env: Mapping[str, str]) -> None:
        self._root = root
        # what a compiled helper stats, nobody here can count
        self._env = {**env, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "HOTPLATE_NATIVE": "0"}
        self._runner = SystemProcessRunner(SystemClock())

    def run(self, *program: str, **more: str) -> Counted:
        """Raises RuntimeError when the program fails."""
        next_tick()  # what was written before is believed from now on, so that no file is read for being new
        out = self._root.parent / "counts.json"
        # -S: neither the site's nor the user's start-up files run, which import what they like
        argv = [sys.executable, "-S", "-c", COUNT, str(out), *program]
        spent = run_program(self._runner, argv, self._root, {**self._env, **more}, TIMEOUT_S)
        return Counted(**json.loads(out.read_text()), out=spent.out)


# --- builds ----------------------------------------------------------------------------------


class _Built(NamedTuple):
    """The counts on one generated project."""

    units: int
    programs: dict[str, Counted]
    edited: Counted
    edited_directly: Counted
    touched: Counted
    restored: Counted


def build_rows(directory: Path) -> list[BenchRow]:
    """The cases of the generated projects, in `directory`."""
    site = _site(directory / "site")
    small, large = (_built(directory / str(units), units, site) for units in UNITS)
    return [*_no_op_rows(small, large), *_edit_rows(small, large), *_restore_rows(small.restored, large.restored)]


def _site(site: Path) -> Path:
    """A directory of packages with ours and what it requires. Nothing else is installed for the counted programs: doit
    reads the metadata of every distribution that it finds, so that counts would depend on the environment."""
    site.mkdir()
    for name in _required("hotplate"):
        found = distribution(name)
        for top in sorted({file.parts[0] for file in found.files or ()}):
            if not top.endswith((".pth", "..", "__pycache__")):
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    return site


def _required(name: str) -> list[str]:
    """`name` and all that it requires without extras, as far as it is installed."""
    found: dict[str, None] = {}
    names = [name]
    while names:
        one = names.pop()
        with contextlib.suppress(PackageNotFoundError):
            requires = distribution(one).requires or ()
            found[one] = None
            mine = [re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() for text in requires if "extra ==" not in text]
            names += [name for name in mine if name not in found]
    return list(found)


def _built(directory: Path, units: int, site: Path) -> _Built:
    """Build a project of so many units, then count runs on it."""
    directory.mkdir()
    project = GeneratedBench(directory, units, real=False)
    path = os.pathsep.join([str(directory / "tools"), str(Path(__file__).parents[3]), str(site)])
    env = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    counter = Counter(project.root, path, {**env, "HOME": str(directory)})
    doit, plain = ("doit", "compile", "link"), ("doit", "-f", "plain_dodo.py")
    for _ in range(2):
        counter.run(*doit)
    counter.run(*plain)
    programs = {"hotplate": ("hotplate", "compile", "link"), "doit": doit, "plain doit": plain}
    counts = {name: counter.run(*argv, COUNT_INSTRUCTIONS="1") for name, argv in programs.items()}
    project.edit("edited")
    edited = counter.run(*doit)
    counter.run(*doit)
    project.edit("edited_again")
    edited_directly = counter.run("hotplate", "compile", "link", COUNT_INSTRUCTIONS="1")
    counter.run(*doit)
    project.touch_all()
    touched = counter.run(*doit)
    project.put_away("build")
    return _Built(units, counts, edited, edited_directly, touched, counter.run(*doit))


Take = Callable[[Counted], int]


def _split(small: Counted, large: Counted, take: Take) -> tuple[float, float]:
    """(what each unit costs, what is fixed), by the line through the two sizes."""
    few, many = UNITS
    slope = (take(large) - take(small)) / (many - few)
    return slope, round(take(small) - slope * few, 6)


def _no_op_rows(small: _Built, large: _Built) -> Iterator[BenchRow]:
    """Nothing to do: ours against plain doit."""
    takes: dict[str, Take] = {
        INSTRUCTIONS: lambda counted: counted.instructions,
        "stats": lambda counted: counted.stats,
        "files opened": lambda counted: len(_data(counted.opened)),
    }
    for unit, take in takes.items():
        theirs = _split(small.programs["plain doit"], large.programs["plain doit"], take)
        for name in ("hotplate", "doit"):
            ours = _split(small.programs[name], large.programs[name], take)
            for part, mine, other in zip(("per unit", "fixed"), ours, theirs, strict=True):
                yield BenchRow(SUITE, f"warm no-op, {name}: {unit} {part}", mine, unit, "plain doit", other)


def _data(opened: list[str]) -> list[str]:
    """Without the code of Python modules in the project."""
    return [name for name in opened if not name.endswith((".py", ".pyc"))]


def _edit_rows(small: _Built, large: _Built) -> Iterator[BenchRow]:
    """One unit edited; all units touched, none changed."""
    for case, few, many in (("one edit", small.edited, large.edited), ("all touched", small.touched, large.touched)):
        zig = [argv for argv in many.spawned if Path(argv[0]).name == "zig"]
        compiles = sum("-c" in argv for argv in zig)
        yield BenchRow(SUITE, f"{case}: compiler runs", compiles, "")
        yield BenchRow(SUITE, f"{case}: linker runs", len(zig) - compiles, "")
        for what, take in (("sources and headers read", _sources), ("stats", lambda counted: counted.stats)):
            slope, fixed = _split(few, many, take)
            yield BenchRow(SUITE, f"{case}: {what} per unit", slope, "")
            yield BenchRow(SUITE, f"{case}: {what} fixed", fixed, "")
    yield from _direct_edit_rows(small.edited_directly, large.edited_directly)


def _direct_edit_rows(few: Counted, many: Counted) -> Iterator[BenchRow]:
    """One unit edited, without doit: a unit that is not edited costs what the loop of stats and one link cost."""
    case = "one edit, hotplate"
    # Not per unit: how often the run looks whether a command has ended is by chance, and more than the slope.
    yield BenchRow(SUITE, f"{case}: {INSTRUCTIONS}, {UNITS[1]} units", many.instructions, INSTRUCTIONS)
    slope, fixed = _split(few, many, lambda counted: counted.stats)
    yield BenchRow(SUITE, f"{case}: stats per unit", slope, "stats")
    yield BenchRow(SUITE, f"{case}: stats fixed", fixed, "stats")
    doit = sum(name.partition(".")[0] == "doit" for name in many.modules)
    yield BenchRow(SUITE, f"{case}: {WITHOUT_STANDARD}", len(_beside_standard(many.modules)), "")
    yield BenchRow(SUITE, f"{case}: modules of doit imported", doit, "")


def _restore_rows(few: Counted, many: Counted) -> Iterator[BenchRow]:
    """The build directory is gone; everything is in the store."""
    case, ours = "build directory deleted", [name for name in many.modules if name.startswith("pipeline.")]
    yield BenchRow(SUITE, f"{case}: programs started", len(many.spawned), "")
    yield BenchRow(SUITE, f"{case}: modules of ours imported", len(ours), "")
    takes: dict[str, Take] = {
        "stats": lambda counted: counted.stats,
        "files opened": lambda counted: len(counted.opened),
    }
    for what, take in takes.items():
        slope, fixed = _split(few, many, take)
        yield BenchRow(SUITE, f"{case}: {what} per unit", slope, "")
        yield BenchRow(SUITE, f"{case}: {what} fixed", fixed, "")


def _sources(counted: Counted) -> int:
    return sum(name.startswith(("src/", "include/", "boot/")) for name in counted.opened)


# --- deploys ---------------------------------------------------------------------------------


def device_rows(project: Path, device: str, chip: str, env: Mapping[str, str]) -> list[BenchRow]:
    """The cases of a board, on `project`, which is built when it is not; it is edited, and given one more device."""
    path = os.pathsep.join([str(Path(__file__).parents[3]), sysconfig.get_path("purelib")])
    deploys = _Deploys(project, Counter(project, path, env))
    deploys.run(device)
    rows = [*deploys.warm(device), *deploys.settled(device)]
    with board_process(project, chip, "instant", env) as url:
        rows += deploys.app_report(url)
    return rows + deploys.one_string(device)


class _Deploys:
    """`doit deploy`, counted."""

    def __init__(self, project: Path, counter: Counter) -> None:
        self._project = project
        self._counter = counter

    def run(self, device: str, *args: str, **env: str) -> tuple[Counted, Any]:
        """What it did, and its report."""
        counted = self._counter.run("doit", "deploy", "--device", device, *args, **env)
        return counted, report_of(self._project, counted.out)

    def warm(self, device: str) -> list[BenchRow]:
        """Nothing changed, on a board in the process. What the fast path knows is taken away: whether the first
        deploy's stamps are believed by now depends on how long it took."""
        for state in (self._project / DIRECTORY).glob("*.state"):
            state.unlink()
        counted, report = self.run(device)
        verify = next(row for row in report["stages"] if row["stage"] == "verify-flash")
        imported = _beside_standard(counted.modules)
        heavy = {name.partition(".")[0] for name in imported} & HEAVY
        totals = report["totals"]
        return [
            BenchRow(SUITE, "warm deploy: serial round trips of verify-flash", verify["counts"]["round_trips"], ""),
            BenchRow(SUITE, "warm deploy: bytes written", totals["bytes_written"], "bytes"),
            BenchRow(SUITE, "warm deploy: compiled", totals["compiled"], ""),
            BenchRow(SUITE, f"warm deploy: {WITHOUT_STANDARD}", len(imported), ""),
            BenchRow(SUITE, f"warm deploy: imported of {', '.join(sorted(HEAVY))}", len(heavy), ""),
        ]

    def settled(self, device: str) -> list[BenchRow]:
        """Once more: now what the first deploy made is old enough for the fast path's state to be believed."""
        counted, _ = self.run(device)
        ours = [name for name in counted.modules if name.partition(".")[0] in ("cache", "pipeline")]
        direct = self._counter.run("hotplate", "deploy", "--device", device)
        doit = sum(name.partition(".")[0] == "doit" for name in direct.modules)
        return [
            BenchRow(SUITE, "settled deploy: modules of ours imported, without the board's", len(ours), ""),
            BenchRow(SUITE, f"settled deploy: {WITHOUT_STANDARD}", len(_beside_standard(counted.modules)), ""),
            BenchRow(SUITE, f"settled deploy, hotplate: {WITHOUT_STANDARD}", len(_beside_standard(direct.modules)), ""),
            BenchRow(SUITE, "settled deploy, hotplate: modules of doit imported", doit, ""),
        ]

    def app_report(self, url: str) -> list[BenchRow]:
        """The running firmware is asked for what it holds; nothing is reset."""
        config = self._project / CONFIG_FILE
        config.write_text(f'{config.read_text()}\n[device.counted]\nport = "{url}"\n')
        self.run("counted")
        counted, report = self.run("counted", "--verify", "app-report", COUNT_SERIAL="1")
        assert report["outcome"] == "app_confirmed", report["outcome"]
        return [
            BenchRow(
                SUITE,
                "warm deploy with app-report: bytes on the serial line",
                counted.serial_bytes,
                "bytes",
            )
        ]

    def one_string(self, device: str) -> list[BenchRow]:
        """Another string of the same length; none in a project that does not have it."""
        sources = [path for path in sorted(self._project.rglob("*.c")) if STRING in path.read_bytes()]
        if not sources:
            return []
        sources[0].write_bytes(sources[0].read_bytes().replace(STRING, OTHER_STRING))
        _, report = self.run(device)
        written, whole = report["totals"]["bytes_written"], sum(row["size"] for row in report["regions"])
        case = "one-string edit: bytes written"
        return [
            BenchRow(SUITE, case, written, "bytes", "all images", whole),
            BenchRow(SUITE, "one-string edit: compiled", report["totals"]["compiled"], ""),
        ]


def _beside_standard(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names]
