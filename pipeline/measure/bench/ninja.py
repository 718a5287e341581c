"""`doit bench:ninja`: a build of ninja through our engine against ninja itself, as ratios within one run.

The units of `bench:engine`, in archives of fifty, in a build directory with a `build.ninja`; each side has
a tree of its own and starts as many commands at once. The compiler is that of `bench:engine`, which costs about a
millisecond, and once this machine's own; ccache is told what it needs to serve another checkout. Does not touch the
project that it is called from.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.measure.bench import generated_project
from pipeline.measure.bench.engine import DOIT, FEW_RUNS, HOTPLATE, LARGE, MIDDLE, GeneratedBench, Times
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchTarget, measured, ratio_at_most
from pipeline.measure.child import Spent
from pipeline.measure.experiment import repeated
from pipeline.run.build import Build

UNITS = (MIDDLE, LARGE)
REAL_UNITS = 200
PER_ARCHIVE = 50
OPTIONS = 1500
"""As ESP-IDF has in sdkconfig.h."""
WORK = """int work_{number}_{n}(int x) {{
  for (int n = 0; n < x; n++) if (printf("%d %d", n, x) % {n}1) x -= {n};
  return x;
}}
"""
HEAD = """\
rule cc
  command = {cc} -O1 -g -I{root}/include -MD -MT $out -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule ar
  command = rm -f $out && ar qc $out $in && ranlib $out
"""
DEPLOY = """\
[project]
name = "bench"
[toolchain]
kind = "ninja"
[ninja]
directory = "out"
[cache]
dir = "{cache}"
"""


class NinjaTrees(GeneratedBench):
    """Two trees with the same sources, `project` for us and `theirs` for ninja, and more of ours on demand."""

    def __init__(self, directory: Path, units: int, *, real: bool) -> None:
        super().__init__(directory, units, real=real)
        # Not through the program that hands it on: what a compiler is has to be found out, too.
        self.compiler = (shutil.which("cc") if real else None) or f"{self.zig} cc"
        self.cache = directory / "cache"
        self.theirs = directory / "theirs"
        for tree in (self.root, self.theirs):
            self.make(tree)

    def make(self, tree: Path, launcher: str = "") -> None:
        """Sources, deploy.toml and build.ninja."""
        if not (tree / "src").exists():
            generated_project.write_project(tree, self.units)
        config, wanted = tree / "deploy.toml", DEPLOY.format(cache=self.cache)
        if not config.exists() or config.read_text() != wanted:  # who deletes a build directory saves nothing else
            config.write_text(wanted)
        (tree / "out").mkdir(exist_ok=True)
        if not (tree / "out/include").exists():  # the compiler that costs nothing names headers from where it runs
            (tree / "out/include").symlink_to("../include")
        lines = [HEAD.format(cc=f"{launcher} {self.compiler}".strip(), root=tree)]
        names = generated_project.source_names(self.units)
        archives = []
        for first in range(0, self.units, PER_ARCHIVE):
            objects = [f"{name[4:-2]}.o" for name in names[first : first + PER_ARCHIVE]]
            lines += [f"build {out}: cc {tree}/src/{out[:-2]}.c\n" for out in objects]
            archives.append(f"lib{first}.a")
            lines.append(f"build {archives[-1]}: ar {' '.join(objects)}\n")
        lines.append(f"build all: phony {' '.join(archives)}\ndefault all\n")
        (tree / "out/build.ninja").write_text("".join(lines))

    def at(self, tree: Path, *argv: str) -> Spent:
        """What one process took in a tree."""
        self.root, before = tree, self.root
        try:
            return self.run(*argv)
        finally:
            self.root = before

    def comment(self, tree: Path, number: int) -> None:
        """An edit that changes no object."""
        source = tree / generated_project.source_names(1)[0]
        source.write_text(f"{generated_project.source_text(0)}// {number}\n")

    def with_options(self, tree: Path) -> None:
        """Every unit includes an option header from here on, of whose options one in a hundred units uses the first."""
        manifest = tree / "out/build.ninja"
        manifest.write_text(manifest.read_text().replace(" -MD ", " -include sdkconfig.h -MD ", 1))
        self.option(tree, 0)
        for number, name in enumerate(generated_project.source_names(self.units)):
            option = 0 if number % 100 == 0 else 1 + number % OPTIONS
            source = generated_project.source_text(number)
            work = "".join(WORK.format(number=number, n=n) for n in range(8))
            (tree / name).write_text(f"#include <stdio.h>\n{source}{work}int option_{number} = CONFIG_{option};\n")

    def option(self, tree: Path, value: int) -> None:
        """An edit of the option that few use."""
        lines = [f"#define CONFIG_{number} {number}\n" for number in range(1, 1 + OPTIONS)]
        (tree / "out/sdkconfig.h").write_text("".join((f"#define CONFIG_0 {value}\n", *lines)))

    def without(self, tree: Path, *names: str) -> None:
        """Take this of a tree away."""
        self.root, before = tree, self.root
        for name in names:
            self.put_away(name)
        self.root = before


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any], units: tuple[int, ...] = UNITS) -> None:
    """The suite. Raises CannotRun when ninja is missing, RuntimeError when a build fails."""
    del build  # its projects are generated
    ninja = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja")
    if ninja is None:
        raise CannotRun("ninja is not installed", "install it: pip install 'hotplate[bench]'")
    for count in units:
        with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
            _NinjaCases(recorder, NinjaTrees(Path(directory), count, real=False), ninja).all(options["runs"])
    recorder.step("a real compiler")
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        _NinjaCases(recorder, NinjaTrees(Path(directory), min(REAL_UNITS, *units), real=True), ninja).real()


class _NinjaCases:
    """The cases on one pair of trees."""

    def __init__(self, recorder: Recorder, trees: NinjaTrees, ninja: str) -> None:
        self._recorder, self._trees = recorder, trees
        self._ours, self._theirs = trees.root, trees.theirs
        self._ninja = (ninja, "-C", "out")

    def all(self, runs: int) -> None:
        trees, ours, theirs = self._trees, self._ours, self._theirs
        trees.at(theirs, *self._ninja)
        for _ in range(3):  # the stamps of what was written just now are believed from the next run on
            trees.at(ours, *DOIT)
        trees.at(ours, *HOTPLATE)
        commands = {"hotplate": partial(trees.at, ours, *HOTPLATE), "ninja": partial(trees.at, theirs, *self._ninja)}
        commands["doit"] = partial(trees.at, ours, *DOIT)
        times = self._interleaved("warm no-op", commands, runs)
        self._row("warm no-op", times, "hotplate", ratio_at_most(0.5 if trees.units == LARGE else 1))
        self._row("warm no-op", times, "doit", None)
        self._comment()

    def _comment(self) -> None:
        """Ours compiles one unit and stops; ninja makes the archive, too."""
        trees, edits = self._trees, iter(range(1000))

        def edited(tree: Path, argv: tuple[str, ...]) -> Spent:
            trees.comment(tree, next(edits))
            return trees.at(tree, *argv)

        commands = {"doit": partial(edited, self._ours, DOIT), "ninja": partial(edited, self._theirs, self._ninja)}
        self._row("a comment in one unit", self._interleaved("a comment", commands, FEW_RUNS), "doit", None)

    def real(self) -> None:
        """Cold, and everything restored: here and in another checkout."""
        trees = self._trees
        cold: dict[str, Callable[[], Spent]] = {
            "ninja": partial(self._deleted, self._theirs, self._ninja),
            "doit": partial(self._cold, self._ours, DOIT),
        }
        self._row("cold", self._interleaved("cold", cold, FEW_RUNS), "doit", None, ratio_at_most(1.1))
        ccache = shutil.which("ccache") or ""
        peer = "ninja and ccache" if ccache else "ninja"
        if ccache:
            # As its manual says for several directories.
            trees.env |= {"CCACHE_DIR": str(trees.root.parent / "ccache"), "CCACHE_NOHASHDIR": "1"}
            self._deleted(self._theirs, self._ninja, ccache)  # fills it
        commands: dict[str, Callable[[], Spent]] = {
            "doit": partial(self._deleted, self._ours, DOIT),
            "hotplate": partial(self._deleted, self._ours, HOTPLATE),
            peer: partial(self._deleted, self._theirs, self._ninja, ccache),
        }
        times = self._interleaved("restore", commands, FEW_RUNS)
        for ours in ("doit", "hotplate"):
            self._row("build directory deleted", times, ours, ratio_at_most(0.2), peer=peer)
        checkouts = (trees.root.parent / f"checkout{n}" for n in range(100))
        other: dict[str, Callable[[], Spent]] = {
            "doit": partial(self._checkout, checkouts, DOIT),
            "hotplate": partial(self._checkout, checkouts, HOTPLATE),
            peer: partial(self._checkout, checkouts, self._ninja, ccache),
        }
        times = self._interleaved("another checkout", other, FEW_RUNS)
        for ours in ("doit", "hotplate"):
            self._row("another checkout", times, ours, ratio_at_most(0.2), peer=peer)
        self._option()

    def _option(self) -> None:
        """An option that 1 % of the units use, against everything that ninja compiles for it; and what is left for
        ninja afterwards."""
        trees, values = self._trees, iter(range(1, 1000))
        for tree in (self._ours, self._theirs):
            trees.make(tree)  # not through ccache, which finds objects of other units in the place of some of these
            trees.with_options(tree)
            trees.at(tree, *(DOIT if tree is self._ours else self._ninja))

        def edited(tree: Path, argv: tuple[str, ...]) -> Spent:
            trees.option(tree, next(values))
            return trees.at(tree, *argv)

        commands = {"doit": partial(edited, self._ours, DOIT), "hotplate": partial(edited, self._ours, HOTPLATE)}
        commands["ninja"] = partial(edited, self._theirs, self._ninja)
        times = self._interleaved("an option", commands, FEW_RUNS)
        for ours in ("doit", "hotplate"):
            self._row("an option of 1 % of the units", times, ours, None, ratio_at_most(0.03))
        times = {"ninja after doit": [trees.at(self._ours, *self._ninja)], "ninja": times["ninja"]}
        self._row("an option of 1 % of the units", times, "ninja after doit", None)

    def _cold(self, tree: Path, argv: tuple[str, ...]) -> Spent:
        """Without products, memory and store."""
        self._trees.without(tree, "out", ".deploy", f"../{self._trees.cache.name}")
        return self._made(tree, argv)

    def _deleted(self, tree: Path, argv: tuple[str, ...], launcher: str = "") -> Spent:
        self._trees.without(tree, "out")
        return self._made(tree, argv, launcher)

    def _checkout(self, places: Iterator[Path], argv: tuple[str, ...], launcher: str = "") -> Spent:
        return self._made(next(places), argv, launcher)

    def _made(self, tree: Path, argv: tuple[str, ...], launcher: str = "") -> Spent:
        """Configured, and built."""
        self._trees.make(tree, launcher)
        self._trees.env["CCACHE_BASEDIR"] = str(tree)
        return self._trees.at(tree, *argv)

    def _row(
        self,
        case: str,
        times: Times,
        ours: str,
        target: BenchTarget | None,
        cpu: BenchTarget | None = None,
        peer: str = "ninja",
    ) -> None:
        """A row for the wall, and one for the CPU."""
        name = f"{case}, {self._trees.units} units, {ours}"
        for what, field, limit in (("", "wall_s", target), (", CPU", "cpu_s", cpu)):
            mine, theirs = ([1000 * getattr(spent, field) for spent in times[who]] for who in (ours, peer))
            self._recorder.add(measured(self._recorder.suite, name + what, mine, "ms", peer, theirs, limit))

    def _interleaved(self, label: str, commands: Mapping[str, Callable[[], Spent]], runs: int) -> Times:
        return repeated(commands, runs, partial(self._recorder.step, f"{label}, {self._trees.units} units"))
