"""A project in a temporary directory with a fake compiler, for tests of the engine.

The compiler is real code run by a runner in this process (no child per action, so a test of 20 units takes
milliseconds): `cc` strips comments, follows `#include "x"` on its search path and writes a depfile, `ld` joins
objects. Each execution is counted in `space.ran`. Files are set back in time on request, never waited for.
"""

from __future__ import annotations

import posixpath
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.effects.api import Completed
from pipeline.effects.clock import SystemClock
from pipeline.engine.engine import Engine
from pipeline.engine.facts import each_used_file
from pipeline.engine.results import Builtin, BuiltinCall, RunResult
from pipeline.engine.workspace import BuildSteps, Directories, Host, SkippedActions, Workspace
from pipeline.model import Action, Reason, Stage, Tool

INCLUDE = re.compile(r'#include "([^"]+)"')
HAS_INCLUDE = re.compile(r'__has_include\("([^"]+)"\)')
INCBIN = re.compile(r'\.(incbin|include) \\?"([^"\\]+)\\?"')


class FakeTools:
    """`cc -I DIR... [-g] -o OUT -MF DEP SOURCE` and `ld -o OUT OBJECT...`, as functions. Also a ProcessRunner."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.during: Callable[[str], None] = lambda name: None
        """Called with the first input's name in the middle of each execution, after it was read."""
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        if self.cancelled:
            raise KeyboardInterrupt
        words = list(argv)
        tool = Path(words.pop(0)).name
        options: dict[str, list[str]] = {}
        files = []
        while words:
            word = words.pop(0)
            if word in ("-o", "-MF", "-I"):
                options.setdefault(word, []).append(words.pop(0))
            elif word.startswith("-"):
                options.setdefault(word, [])
            else:
                files.append(word)
        self.ran.append(files[0] if tool == "cc" else f"{tool} {options['-o'][0]}")
        return self._cc(files[0], options, cwd) if tool == "cc" else self._ld(files, options, cwd)

    def together(self) -> FakeChildren:
        return FakeChildren(self)

    def _cc(self, source: str, options: Mapping[str, list[str]], cwd: Path) -> Completed:
        read: list[str] = []
        text = self._preprocess(source, options.get("-I", []), cwd, read)
        text = self._assemble(text, options.get("-I", []), cwd)
        self.during(source)
        out = cwd / options["-o"][0]
        if "#error" in text:
            out.write_text("half written")
            return Completed(1, b"", f"{source}:1:2: error: #error\n".encode(), 0.001)
        code = re.sub(r"//[^\n]*", "", text)
        if "-g" in options:
            code += f"\nlines {text.count(chr(10))}"
        else:
            code = "\n".join(line for line in code.splitlines() if line.strip())
        out.write_text(code)
        (cwd / options["-MF"][0]).write_text(f"{options['-o'][0]}: {' '.join(read)}\n")
        warning = f"{source}:1: warning: hm\n".encode() if "WARN" in text else b""
        return Completed(0, b"", warning, 0.001)

    def _preprocess(self, path: str, search: Sequence[str], cwd: Path, read: list[str]) -> str:
        read.append(path)
        text = (cwd / path).read_text()

        def include(match: re.Match[str]) -> str:
            for directory in (posixpath.dirname(path), *search):
                found = posixpath.join(directory, match[1])
                if (cwd / found).is_file():
                    return self._preprocess(found, search, cwd, read)
            return f"#error no {match[1]}"

        def is_there(match: re.Match[str]) -> str:
            return str(any((cwd / place / match[1]).exists() for place in (posixpath.dirname(path), *search)))

        return INCLUDE.sub(include, HAS_INCLUDE.sub(is_there, text))

    def _assemble(self, text: str, search: Sequence[str], cwd: Path) -> str:
        """As real assemblers do: no depfile says what they read."""

        def read(match: re.Match[str]) -> str:
            for directory in ("", *search):
                found = cwd / directory / match[2]
                if found.exists():
                    inner = found.read_text()
                    return self._assemble(inner, search, cwd) if match[1] == "include" else inner
            return f"#error no {match[2]}"

        return INCBIN.sub(read, text)

    def _ld(self, files: Sequence[str], options: Mapping[str, list[str]], cwd: Path) -> Completed:
        self.during(files[0])
        data = b"".join((cwd / file).read_bytes() for file in files)
        if b"undefined" in data:
            return Completed(1, b"", b"ld: error: undefined symbol: undefined\n", 0.001)
        out = cwd / options["-o"][0]
        out.write_bytes(b"ELF" + data)
        out.chmod(0o755)
        return Completed(0, b"", b"", 0.001)


def strip(call: BuiltinCall) -> Sequence[bytes]:
    """Drop the fake debug info."""
    return [re.sub(rb"\nlines \d+", b"", call.inputs[0])]


class FakeChildren:
    """Several of them at once: each has done its work when it was started, and is said to have ended later, several at
    once."""

    def __init__(self, tools: FakeTools) -> None:
        self._tools = tools
        self._ended: dict[object, Completed | BaseException] = {}
        self._woken = threading.Event()

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> object:
        command = object()
        try:
            done = self._tools.run(argv, cwd=cwd, env=env, timeout_s=timeout_s)
            self._ended[command] = done._replace(ended_ns=time.monotonic_ns())
        except BaseException as error:
            self._ended[command] = error
        return command

    def ended(self, timeout_s: float) -> Sequence[tuple[object, Completed | BaseException]]:
        if not self._ended and timeout_s:
            self._woken.wait(timeout_s)
            self._woken.clear()
        found, self._ended = self._ended, {}
        return list(found.items())

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        pass


class EngineSpace:
    """A project: write files, run stages, look at counts."""

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        self.root = root
        self.cache = cache or root / ".deploy"
        self.tools = FakeTools()
        self.flags: tuple[str, ...] = ()
        self.profile = "local-fast"
        self.search: tuple[str, ...] = ("first", "inc")
        self.identity = "fake 1"
        self.builtins: Mapping[str, Builtin] = {"strip@1": strip}
        self.env: tuple[tuple[str, str], ...] = ()
        self.jobs = 2
        self.change: Callable[[Action], Action] = lambda action: action
        root.mkdir(parents=True, exist_ok=True)

    @property
    def ran(self) -> list[str]:
        """What was executed since the last look at this; the list is emptied by `build`."""
        return sorted(self.tools.ran)

    def write(self, path: str, text: str) -> Path:
        """Write a file; its directory is made."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def sample(self) -> EngineSpace:
        """Three sources; a.h is used by two of them."""
        self.write("src/a.c", '#include "a.h"\nint a;\n')
        self.write("src/b.c", '#include "a.h"\nint b;\n')
        self.write("src/c.c", "int c;\n")
        self.write("inc/a.h", "int h;\n")
        return self

    def actions(self) -> list[Action]:
        sources = sorted(f"src/{path.name}" for path in (self.root / "src").glob("*.c"))
        out = f"build/{self.profile}"
        search = tuple(word for directory in self.search for word in ("-I", directory))
        compiles = []
        for source in sources:
            target = f"{out}/obj/{Path(source).stem}"
            argv = ("cc", *search, *self.flags, "-o", f"{target}.o", "-MF", f"{target}.d", source)
            compiles.append(
                Action(
                    name=f"compile {source}",
                    stage=Stage.COMPILE,
                    inputs=(source,),
                    outputs=(f"{target}.o",),
                    argv=argv,
                    env=self.env,
                    depfile=f"{target}.d",
                    profile=self.profile,
                    count_as="compiled",
                )
            )
        objects = tuple(action.outputs[0] for action in compiles)
        link = Action(
            name="link",
            stage=Stage.LINK,
            inputs=objects,
            outputs=(f"{out}/app.elf",),
            argv=("ld", "-o", f"{out}/app.elf", *objects),
            profile=self.profile,
            count_as="linked",
        )
        image = Action(
            name="image",
            stage=Stage.LINK,
            inputs=link.outputs,
            outputs=(f"{out}/app.bin",),
            builtin="strip@1",
            profile=self.profile,
        )
        return [self.change(action) for action in (*compiles, link, image)]

    def engine(self, actions: Sequence[Action] | None = None, skipped: SkippedActions | None = None) -> Engine:
        """A new one, as a new process would make; of `actions` alone when they are given."""
        tools = {name: Tool(name, f"/opt/{name}", "1", self.identity) for name in ("cc", "ld")}
        return Engine(
            Directories(self.root, self.root / ".deploy", self.cache),
            BuildSteps(self.actions() if actions is None else actions, tools, self.builtins, {}),
            Host(self.tools, SystemClock(), self.jobs),
            skipped=skipped,
        )

    def build(self) -> Built:
        """What one `doit link` does: each stage if it is not up to date, in a new engine."""
        self.tools.ran.clear()
        self.tools.cancelled = False
        engine = self.engine()
        scanned = not engine.peek().up_to_date
        if scanned:
            engine.scan()
        results, reasons = [], list[Reason]()
        for stage in (Stage.COMPILE, Stage.LINK):
            verdict = engine.verdict(stage)
            if verdict.up_to_date:
                continue
            reasons += verdict.reasons
            result = engine.run(stage, lambda label, done, total: None)
            results.append(result)
            if not result.ok:
                break
        engine.save()
        return Built(scanned, tuple(results), reasons, self)

    def outputs(self) -> dict[str, bytes]:
        """Every file under build/, by path."""
        return {
            str(p.relative_to(self.root)): p.read_bytes()
            for p in sorted((self.root / "build").rglob("*"))
            if p.is_file()
        }


class Built:
    """What a `build` did."""

    def __init__(
        self, scanned: bool, results: tuple[RunResult, ...], reasons: Sequence[Reason], space: EngineSpace
    ) -> None:
        self.scanned = scanned
        self.results = results
        self.reasons = reasons
        """Why stages were not up to date, one after the other."""
        self.ran = space.ran
        self.ok = all(result.ok for result in results)

    def count(self, name: str) -> int:
        return sum(result.counts[name] for result in self.results)

    @property
    def nothing(self) -> bool:
        """Was every stage up to date, the scan too?"""
        return not self.scanned and not self.results and not self.ran


def used_files(workspace: Workspace) -> dict[str, str] | None:
    """path -> SHA-256 of every input, discovered input and output; None when an action has no record, or two records
    disagree about a file."""
    used: dict[str, str] = {}
    for found in each_used_file(workspace):
        if found is None or used.setdefault(*found) != found[1]:
            return None
    return used
