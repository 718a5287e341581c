"""A project that ninja can build as well as we can: write files, run either, see what ran.

Commands append their names to `ran.log` beside the project, whoever runs them. Files are written in a tick of the file
system's clock of their own, so that an edit is newer than what was built before it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from cache.fileclock import filesystem_now_ns
from cache.stamps import next_tick
from pipeline.model import Failure, FailureCategory, Stage, StageOutcome, StageResult
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options

NINJA = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja") or ""
DEPLOY = """
[project]
name = "random"
[toolchain]
kind = "ninja"
[ninja]
directory = "out"
[cache]
dir = "%s"
"""


class NinjaSpace:
    """`root` is the project, `out/` in it the build directory."""

    def __init__(self, root: Path, cache: Path, deploy: str = DEPLOY) -> None:
        self.root, self.out = root, root / "out"
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = root / "ran.log"
        self.notices = ""
        """Lines that our runs showed."""
        self.how: dict[str, str] = {}
        """What our last run did about actions: name -> executed, restored, up_to_date."""
        self.asked_few = False
        """Was our last run one that asked about a part of the graph alone?"""
        (root / "deploy.toml").write_text(deploy % cache)

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def ours(self) -> list[str]:
        """Build as `doit link` does; the names of the commands that ran."""
        self.log.unlink(missing_ok=True)
        self.how = {}
        failure = self._build()
        assert failure is None, f"{failure.line()}\n{failure.detail}"
        return self.ran()

    def failure(self) -> Failure | None:
        """Build; why it failed."""
        self.log.unlink(missing_ok=True)
        return self._build()

    def _notice(self, text: str) -> None:
        self.notices += f"{text}\n"

    def _build(self) -> Failure | None:
        # In the project, as it is used: there the next run knows from the fast path's state what moved.
        next_tick()
        began_ns = filesystem_now_ns()
        with contextlib.chdir(self.root), patch("pipeline.fastpath.whole_state._process_start_ns", lambda: began_ns):
            return self._build_here()

    def _build_here(self) -> Failure | None:
        build = load_build(Options(builds=True), self.root)
        assert isinstance(build, Build), build
        build._screen.notice = self._notice  # type: ignore[method-assign]
        build._performed = lambda stage, spans: self.how.update((span.action, span.how) for span in spans)
        try:
            if not build.host_verdict(Stage.FINGERPRINT).up_to_date and (failure := build.scan().failure) is not None:
                return failure
            for stage in (Stage.COMPILE, Stage.LINK):
                if not build.host_verdict(stage).up_to_date:
                    work = build.run_actions(stage, FailureCategory.ACTION_FAILED)
                    if work.failure is not None:
                        return work.failure
            self.asked_few = "engines" in build.__dict__ and build.engines.only_partial
            passed = [StageResult(stage, StageOutcome.RAN, 0.0) for stage in (Stage.COMPILE, Stage.LINK)]
            build.approve(passed, None)
        finally:
            build.close()
        return None

    def ninja(self, *words: str, ninja: str = NINJA) -> list[str]:
        """Let ninja build; the names of the commands that ran."""
        self.log.unlink(missing_ok=True)
        done = subprocess.run([ninja, "-C", str(self.out), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.ran()

    def ran(self) -> list[str]:
        return sorted(self.log.read_text().split()) if self.log.exists() else []

    def products(self) -> dict[str, str]:
        """Every file of the build directory but ninja's own."""
        skipped = ("build.ninja", ".ninja_log", ".ninja_deps", ".ninja_lock")
        return {
            path.relative_to(self.out).as_posix(): path.read_text(errors="replace")
            for path in sorted(self.out.rglob("*"))
            if path.is_file() and path.name not in skipped
        }


INCLUDER = """#!/bin/sh
# $1 source, $2 output: each line of the source that begins with "i " names a file to put in its place
deps=""
: > "$2.tmp"
while read -r word name; do
  if [ "$word" = i ]; then cat "$name" >> "$2.tmp"; deps="$deps $name"; else echo "$word" >> "$2.tmp"; fi
done < "$1"
mv "$2.tmp" "$2"
echo "$2: $1$deps" > "$2.d"
"""

RULES = """
rule cat
  command = echo $out >> ../ran.log; cat $in $more > $out
rule lossy
  command = echo $out >> ../ran.log; cat $in | head -c 2 > $out
rule restat
  command = echo $out >> ../ran.log; cat $in | head -c 3 > $out.tmp; $
      cmp -s $out.tmp $out && rm $out.tmp || mv $out.tmp $out
  restat = 1
rule two
  command = echo $out >> ../ran.log; cat $in > $out; echo side > $side
rule deps
  command = echo $out >> ../ran.log; sh ../includer.sh $in $out
  depfile = $out.d
  deps = gcc
rule depfile
  command = echo $out >> ../ran.log; sh ../includer.sh $in $out
  depfile = $out.d
rule rsp
  command = echo $out >> ../ran.log; cat $out.rsp | xargs cat > $out
  rspfile = $out.rsp
  rspfile_content = $in
rule nothing
  command = echo $out >> ../ran.log
"""


class RandomGraph:
    """Sources and statements made at random, and edits of them, in one or more trees alike."""

    def __init__(self, rng: random.Random, spaces: list[NinjaSpace], size: int = 9) -> None:
        self.rng, self.spaces = rng, spaces
        self.sources = {f"s{n}": self._text() for n in range(4)} | {f"h{n}": f"head{n}\n" for n in range(3)}
        self.statements: list[dict[str, str]] = []
        for number in range(size):
            self._add(number)
        self.former: list[tuple[dict[str, str], list[dict[str, str]]]] = []
        self.rewired: set[str] = set()
        """What the last step gave other inputs. If one of them was made at about the same time as it was, each tree
        has its own truth about which came first."""
        for space in spaces:
            space.write("includer.sh", INCLUDER)
        self._write_all()

    def _text(self) -> str:
        lines = [f"{self.rng.randrange(100)} x\n" for _ in range(self.rng.randrange(1, 3))]
        if self.rng.random() < 0.7:
            lines.insert(self.rng.randrange(len(lines) + 1), f"i ../h{self.rng.randrange(3)}\n")
        return "".join(lines)

    def _add(self, number: int) -> None:
        rng = self.rng
        made = [f"n{n}" for n in range(number)]
        files = [f"../{name}" for name in self.sources if name.startswith("s")]
        rule = rng.choice(("cat", "cat", "lossy", "restat", "two", "deps", "depfile", "rsp", "phony", "nothing"))
        if rule == "nothing" and rng.random() < 0.6:
            rule = "restat"
        usable = [name for name in made if self.statements[int(name[1:])]["rule"] not in ("phony", "nothing")]
        inputs = (
            rng.sample(files, 1) if rule in ("deps", "depfile") else rng.sample(files + usable, rng.randrange(1, 3))
        )
        one = {"rule": rule, "out": f"n{number}", "in": " ".join(inputs), "implicit": "", "late": "", "more": ""}
        if made and rng.random() < 0.4:
            one["implicit"] = rng.choice(made)
        if made and rng.random() < 0.3:
            one["late"] = rng.choice(made)
        self.statements.append(one)

    def text(self) -> str:
        lines = [RULES]
        for one in self.statements:
            side = f" | {one['out']}.side" if one["rule"] == "two" else ""
            implicit = " ".join(filter(None, (one["implicit"], one["more"])))
            implicit = f" | {implicit}" if implicit else ""
            late = f" || {one['late']}" if one["late"] else ""
            lines.append(f"build {one['out']}{side}: {one['rule']} {one['in']}{implicit}{late}\n")
            if one["rule"] == "two":
                lines.append(f"  side = {one['out']}.side\n")
            if one["more"]:
                lines.append(f"  more = {one['more']}\n")
        return "".join(lines)

    def _write_all(self, only: str = "") -> None:
        next_tick()
        for space in self.spaces:
            for name, text in self.sources.items():
                if only in ("", name):
                    space.write(name, text)
            if only in ("", "build.ninja"):
                space.write("out/build.ninja", self.text())
        next_tick()

    def step(self) -> str:
        """One edit; what it was."""
        rng = self.rng
        self.rewired.clear()
        kinds: list[Callable[[], str]] = [
            self._edit,
            self._edit,
            self._edit,
            self._touch,
            self._delete,
            self._command,
            self._rewire,
        ]
        return rng.choice(kinds)()

    def _edit(self) -> str:
        name = self.rng.choice(sorted(self.sources))
        self.sources[name] = self._text() if name.startswith("s") else f"head{self.rng.randrange(5)}\n"
        self._write_all(name)
        return f"edit {name}"

    def set_back(self) -> str:
        """An edit that leaves an old mtime, or the one from before: ninja sees none of them."""
        name = self.rng.choice(sorted(self.sources))
        how = self.rng.choice(("old", "as before", "moved"))
        before = [(space.root / name).stat().st_mtime_ns for space in self.spaces]
        self.sources[name] = self._text() if name.startswith("s") else f"head{self.rng.randrange(5)}\n"
        for space, then in zip(self.spaces, before, strict=True):
            written = f"{name}.aside" if how == "moved" else name
            space.write(written, self.sources[name])
            os.utime(space.root / written, ns=(then, then - (0 if how == "as before" else 10**12)))
            (space.root / written).replace(space.root / name)
        return f"set back {name}, {how}"

    def write_to(self, space: NinjaSpace) -> None:
        """Everything, in another tree."""
        self.spaces, before = [space], self.spaces
        space.write("includer.sh", INCLUDER)
        self._write_all()
        self.spaces = before

    def _touch(self) -> str:
        name = self.rng.choice(sorted(self.sources))
        self._write_all(name)
        return f"touch {name}"

    def _delete(self) -> str:
        one = self.rng.choice(self.statements)
        for space in self.spaces:
            (space.out / one["out"]).unlink(missing_ok=True)
        return f"delete {one['out']}"

    def _command(self) -> str:
        one = self.rng.choice([one for one in self.statements if one["rule"] == "cat"] or self.statements)
        one["more"] = "" if one["more"] else f"../h{self.rng.randrange(3)}"
        self._write_all("build.ninja")
        return f"command of {one['out']}"

    def _rewire(self) -> str:
        one = self.rng.choice(self.statements[1:])
        one["implicit"] = self.rng.choice(["", f"n{self.rng.randrange(int(one['out'][1:]))}"])
        self.rewired.add(one["out"])
        self._write_all("build.ninja")
        return f"implicit of {one['out']}: {one['implicit']}"
