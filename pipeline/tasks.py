"""The stages as doit tasks: names, order, docs and options. One of the three modules that know doit.

doit orders, names, selects and reports; it never decides. Each stage task has one `uptodate` callable that asks us, and
that callable is pure: it opens no port and writes nothing (`doit list -s` and `doit info` call it too).
Invariant: importing this module and creating the tasks loads neither esptool, serial, networkx nor unicorn.
"""

from __future__ import annotations

import sys
from posixpath import basename

from pipeline.fastpath import answer_and_end, end_quietly, interrupt_again

# Before the imports below, which are most of what is left of a warm `doit compile link`.
if basename(sys.argv[0]) in ("doit", "__main__.py"):
    end_quietly()
    _look = answer_and_end()
else:
    _look = None

from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

from doit.exceptions import TaskFailed

from pipeline.cli.reporter import make_reporter
from pipeline.errors import DeployError
from pipeline.model import DEVICE_STAGES, Failure, Stage, StageResult, Verdict
from pipeline.run.context import Context, load_context
from pipeline.run.device_run import DeviceRun
from pipeline.run.options import Options, last_value, parse_options

__all__ = [
    "DOIT_CONFIG",
    "task_baseline",
    "task_bench",
    "task_cache",
    "task_check",
    "task_compile",
    "task_deploy",
    "task_fingerprint",
    "task_hooks",
    "task_link",
    "task_loop",
    "task_reattach",
    "task_reflash",
    "task_ttfb",
    "task_verify_flash",
]

SHOWN_REASONS = 3

PARAMS = [
    {"name": "device", "long": "device", "type": str, "default": "", "help": "deploy to this device of deploy.toml"},
    {"name": "group", "long": "group", "type": str, "default": "", "help": "deploy to all devices of this group"},
    {
        "name": "profile",
        "long": "profile",
        "type": str,
        "default": "",
        "help": "build with this profile of deploy.toml",
    },
    {
        "name": "verify",
        "long": "verify",
        "type": str,
        "default": "",
        "help": "proof that is asked of the device: md5, app-report or journal (default: [verify] level)",
    },
    {"name": "trace", "long": "trace", "type": str, "default": "", "help": "write the run as a Chrome/Perfetto trace"},
    {"name": "junit", "long": "junit", "type": str, "default": "", "help": "write the stages as JUnit XML"},
    {"name": "json", "long": "json", "type": bool, "default": False, "help": "events on stdout, one JSON per line"},
]

MEASURING = [param for param in PARAMS if param["name"] in ("device", "group", "profile")]
"""What tasks take whose runs are children: an export that they do not hand on would be ignored in silence."""

BASELINE_PARAMS = [
    {"name": "runs", "long": "runs", "type": int, "default": 5, "help": "runs of each kind"},
    {
        "name": "deploy",
        "long": "deploy",
        "inverse": "no-deploy",
        "type": bool,
        "default": True,
        "help": "measure up to the running device (--no-deploy: only the build)",
    },
    *MEASURING,
]


def _options() -> Options:
    return parse_options(sys.argv[1:], [*DEVICE_STAGES, "deploy"])


@cache
def context() -> Context:
    """The one context of this process, made when the first task creator or command asks for it.

    A configuration that cannot be used is reported here, before anything was touched, and ends with exit code 2."""
    loaded = load_context(_options())
    if isinstance(loaded, Failure):
        from pipeline.report.terminal import say_failure

        say_failure(loaded, sys.stderr)
        if _options().json:
            from pipeline.run.exports import Stream

            Stream(sys.stdout).failure(loaded)
        raise SystemExit(2)
    return loaded


DOIT_CONFIG = {
    "default_tasks": ["deploy"],
    "reporter": make_reporter(context, _look),
    "verbosity": 2,
    "par_type": "thread",
    # never evidence, so never on disk: nothing to corrupt and nothing to fight over
    "backend": "sqlite3",
    "dep_file": ":memory:",
}


class HostCheck:
    """The `uptodate` of a host stage. `doit info` prints it when it says no, so its text is the reasons."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._verdict: Verdict | None = None

    def __call__(self) -> bool:
        self._verdict = context().host_verdict(self._stage)
        return self._verdict.up_to_date

    def __repr__(self) -> str:
        reasons = [str(reason) for reason in self._verdict.reasons] if self._verdict is not None else []
        more = f" and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
        return "; ".join(reasons[:SHOWN_REASONS]) + more or f"inputs, commands and outputs of {self._stage}"


class DeviceCheck:
    """The `uptodate` of a device stage: only what this run has asked the board can answer; before that it says no."""

    def __init__(self, stage: Stage, device: DeviceRun, region: str = "") -> None:
        self._stage = stage
        self._device = device
        self._region = region

    def __call__(self) -> bool:
        return self._stage is Stage.REFLASH and self._device.nothing_to_write(self._region)

    def __repr__(self) -> str:
        return f"{self._device.where}: only this run's verify-flash can tell"


def _told(action: Callable[..., TaskFailed | None]) -> Callable[..., TaskFailed | None]:
    """The action, whose failures of known kinds are a line and no traceback."""

    @wraps(action)
    def told(*args: Any, **options: Any) -> TaskFailed | None:
        try:
            return action(*args, **options)
        except DeployError as error:
            return TaskFailed(error.failure.line())

    return told


class Clean:
    """`doit clean`: remove what a stage built. doit prints the text after `<` and before ` at`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __call__(self) -> None:
        try:
            context().clean(self._stage)
        except DeployError as error:
            print(error.failure.line(), file=sys.stderr)
            raise SystemExit(2) from None
        except OSError as error:  # doit would print a traceback and end with 0
            from pipeline.report.terminal import os_failure

            raise SystemExit(os_failure(f"clean {self._stage}", error)) from None

    def __repr__(self) -> str:
        return f"<remove what {self._stage} built at >"


def _run_stage(stage: Stage, device: DeviceRun | None, run: Callable[[], StageResult]) -> TaskFailed | None:
    """doit's view of a stage. The result itself goes to the reporter, which times, logs and shows it."""
    result = context().execute(stage, device, run)
    return None if result.failure is None else TaskFailed(result.failure.line())


def _host_task(stage: Stage, doc: str, after: list[str]) -> dict[str, Any]:
    def action(**_: Any) -> TaskFailed | None:
        from pipeline import stages

        return _run_stage(stage, None, lambda: stages.load(stage)(context()))

    return {
        "basename": str(stage),
        "doc": doc,
        "actions": [action],
        "uptodate": [HostCheck(stage)],
        "task_dep": after,
        "params": PARAMS,
        "verbosity": 2,
        "clean": [Clean(stage)] if stage is not Stage.FINGERPRINT else [],
        "meta": {"fastpath": True},  # its answer depends on files alone
    }


def _device_tasks(stage: Stage, doc: str, after: Stage) -> Iterator[dict[str, Any]]:
    yield {"basename": str(stage), "name": None, "doc": doc, "params": PARAMS}
    for device in context().devices:
        yield _device_task(stage, doc, after, device)


def _device_task(stage: Stage, doc: str, after: Stage, device: DeviceRun) -> dict[str, Any]:
    def action(**_: Any) -> TaskFailed | None:
        from pipeline import stages

        return _run_stage(stage, device, lambda: stages.load_device(stage)(context(), device))

    dependency = str(after) if after in (Stage.LINK,) else f"{after}:{device.name}"
    return {
        "basename": str(stage),
        "name": device.name,
        "doc": f"{doc} ({device.name})",
        "actions": [action],
        "uptodate": [DeviceCheck(stage, device)],
        "task_dep": [dependency],
        "params": PARAMS,
        "verbosity": 2,
    }


def task_fingerprint() -> dict[str, Any]:
    """which inputs moved since the last run"""
    return _host_task(Stage.FINGERPRINT, "which inputs moved since the last run", [])


def task_compile() -> dict[str, Any]:
    """compile each translation unit, or restore it from the cache"""
    return _host_task(Stage.COMPILE, "compile each translation unit, or restore it from the cache", ["fingerprint"])


def task_link() -> dict[str, Any]:
    """link, make the flash images and check that they fit"""
    return _host_task(Stage.LINK, "link, make the flash images and check that they fit", ["compile"])


def task_verify_flash() -> Iterator[dict[str, Any]]:
    """ask the board who it is and what its flash holds (MD5 per region)"""
    doc = "ask the board who it is and what its flash holds (MD5 per region)"
    return _device_tasks(Stage.VERIFY_FLASH, doc, Stage.LINK)


def task_reflash() -> Iterator[dict[str, Any]]:
    """write the sectors that differ, and only those (one region: reflash:DEVICE:REGION)"""
    doc = "write the sectors that differ, and only those"
    yield from _device_tasks(Stage.REFLASH, f"{doc} (one region: reflash:DEVICE:REGION)", Stage.VERIFY_FLASH)
    devices = {device.name: device for device in context().devices}
    for name, region in _options().regions:
        if name in devices:
            yield _region_task(devices[name], region)


def _region_task(device: DeviceRun, region: str) -> dict[str, Any]:
    """Made only when the command line names it, so that listing tasks need not read the partition table."""

    def action(**_: Any) -> TaskFailed | None:
        from pipeline.stages.reflash import run_region

        return _run_stage(Stage.REFLASH, device, lambda: run_region(context(), device, region))

    return {
        "basename": str(Stage.REFLASH),
        "name": f"{device.name}:{region}",
        "doc": f"write region {region} if it differs, and no other ({device.name})",
        "actions": [action],
        "uptodate": [DeviceCheck(Stage.REFLASH, device, region)],
        "task_dep": [f"{Stage.VERIFY_FLASH}:{device.name}"],
        "params": PARAMS,
        "verbosity": 2,
    }


def task_reattach() -> Iterator[dict[str, Any]]:
    """start the monitor on the same port, then let the board boot"""
    return _device_tasks(Stage.REATTACH, "start the monitor on the same port, then let the board boot", Stage.REFLASH)


def task_ttfb() -> Iterator[dict[str, Any]]:
    """wait for the first JSON-RPC byte of exactly this build"""
    return _device_tasks(Stage.TTFB, "wait for the first JSON-RPC byte of exactly this build", Stage.REATTACH)


def task_deploy() -> Iterator[dict[str, Any]]:
    """from C source to the first JSON-RPC byte of the running device (the default)"""
    doc = "from C source to the first JSON-RPC byte of the running device (the default)"
    yield {"basename": "deploy", "name": None, "doc": doc, "params": PARAMS}
    for device in context().devices:
        yield {
            "basename": "deploy",
            "name": device.name,
            "doc": f"{doc} ({device.name})",
            "actions": [(_confirm, [device])],
            "task_dep": [f"ttfb:{device.name}"],
            "params": PARAMS,
            "verbosity": 2,
        }


def _confirm(device: DeviceRun, **_: Any) -> bool:
    """The deploy counts when its last stage confirmed this build; doit runs this only then."""
    return context().confirm(device)


def task_baseline() -> Iterator[dict[str, Any]]:
    """how fast this project's loop is on this machine, before and after"""
    doc = "how fast this project's loop is on this machine, before and after"
    yield {"basename": "baseline", "name": None, "doc": doc}
    for mode, what in (
        ("cold", "deploys from nothing: empty cache, nothing built, virtual board erased"),
        ("warm", "deploys with nothing changed"),
        ("full", "cold and warm, and each kind of edit until it runs"),
    ):
        yield {
            "basename": "baseline",
            "name": mode,
            "doc": f"measure {what} (--runs N, --device NAME, --no-deploy)",
            "actions": [(_baseline, [mode])],
            "params": BASELINE_PARAMS,
            "verbosity": 2,
        }


@_told
def _baseline(mode: str, runs: int, deploy: bool, **_: Any) -> TaskFailed | None:
    from pipeline.measure.baseline import screen

    failed = screen.show(context(), mode, runs, deploy=deploy)
    return TaskFailed(failed) if failed else None


def task_loop() -> dict[str, Any]:
    """measure the warm loop until it is green, or say what stands in its way (see LOOP.md)"""

    def number(name: str, default: int, text: str) -> dict[str, Any]:
        return {"name": name, "long": name, "type": int, "default": default, "help": text}

    def switch(name: str, *, default: bool, text: str) -> dict[str, Any]:
        long = name.replace("_", "-")
        return {"name": name, "long": long, "inverse": f"no-{long}", "type": bool, "default": default, "help": text}

    between = "run this command before each further iteration; it must pass"
    return {
        "basename": "loop",
        "doc": "measure the warm loop until it is green, or say what stands in its way (see LOOP.md)",
        "actions": [_loop],
        "params": [
            number("max", 8, "iterations at most"),
            number("repeats", 3, "runs of each warm test; the median counts"),
            switch("until_green", default=False, text="go on when a rule asks for an action, until green or stuck"),
            switch("rebuild", default=True, text="build twice from nothing and compare every output"),
            {"name": "between", "long": "between", "type": str, "default": "", "help": between},
            *MEASURING,
        ],
        "verbosity": 2,
    }


@_told
def _loop(max: int, repeats: int, until_green: bool, rebuild: bool, between: str, **_: Any) -> TaskFailed | None:
    import shlex

    from pipeline.measure.loop import screen
    from pipeline.measure.loop.runner import Asked

    command = shlex.join(["doit", *sys.argv[1:]])
    asked = Asked(max, repeats, until_green, between, rebuild, command)
    failed = screen.show(context(), asked)
    return TaskFailed(failed) if failed else None


BENCHES = (
    ("warm", 10, "warm and cold deploy against an empty doit run, per stage and import"),
    ("engine", 9, "the action engine against ninja and plain doit, on generated projects (takes minutes)"),
    ("device", 5, "proof and writes on virtual boards with real timing, against esptool (takes minutes)"),
    ("watch", 9, "from a save to the end of its build, to its first diagnostic, to nothing to do"),
    ("work", 0, "counters of work that no busy machine moves, against those that are kept"),
)
"""Suite, measurements of each case (0: once is enough), doc."""


def task_bench() -> Iterator[dict[str, Any]]:
    """all benchmarks in one report, ours and the peers' side by side"""
    doc = "all benchmarks in one report, ours and the peers' side by side (takes many minutes)"
    runs_param = {"name": "runs", "long": "runs", "type": int, "help": "runs of each case"}
    keep_param = {"name": "keep", "long": "keep", "type": bool, "default": False, "help": "keep what is counted"}
    yield {"basename": "bench", "name": None, "doc": doc, "params": [{**runs_param, "default": 0}]}
    for name, runs, doc in BENCHES:
        yield {
            "basename": "bench",
            "name": name,
            "doc": f"{doc} (--runs N)" if runs else f"{doc} (--keep)",
            "actions": [(_bench, [name])],
            "params": [{**runs_param, "default": runs} if runs else keep_param],
            "verbosity": 2,
        }
    doc = "the end of `doit bench`: missed targets, and which suites could not run"
    yield {"basename": "bench", "name": "report", "doc": doc, "actions": [_bench_report], "verbosity": 2}


@cache
def _benches() -> Any:
    """The suites of this command. In `doit bench` one that cannot run must not keep the others from running, so that
    its failure is held back for `bench:report`, which comes last."""
    import shlex

    from pipeline.measure.bench.suites import Session

    gathered = not {"bench", "bench:*", "bench:report"}.isdisjoint(sys.argv[1:])
    return Session(context(), shlex.join(["doit", *sys.argv[1:]]), gathered=gathered)


@_told
def _bench(suite: str, **options: Any) -> TaskFailed | None:
    asked = last_value(sys.argv[1:], "runs") if "bench" in sys.argv[1:] else ""
    if asked and "runs" in options:
        options["runs"] = int(asked)
    try:
        failed = _benches().run(suite, options)
    except OSError as error:  # even the report that would say so cannot be written
        from pipeline.report.terminal import os_failure

        failed = os_failure(f"bench:{suite}", error)
    return TaskFailed(failed) if failed else None


@_told
def _bench_report() -> TaskFailed | None:
    failed = _benches().finish()
    return TaskFailed(failed) if failed else None


def task_cache() -> Iterator[dict[str, Any]]:
    """look after the content-addressed store that this user's projects share"""
    yield {"basename": "cache", "name": None, "doc": "look after the store that this user's projects share"}
    for name, doc in (
        ("stats", "how much the store holds"),
        ("gc", "remove what was not used for longest, down to [cache] max_size"),
        ("verify", "read everything and remove what is damaged"),
        ("clear", "remove everything; the next build compiles"),
    ):
        yield {"basename": "cache", "name": name, "doc": doc, "actions": [(_cache, [name])], "verbosity": 2}


@_told
def _cache(name: str) -> None:
    from pipeline.cli import cache_tasks

    if cache_tasks.spared(name, sys.argv[1:]):
        print(f"cache:{name}: left alone; name it to run it")
        return
    _, table = getattr(cache_tasks, name)(context().cache_dir, context().config.cache.max_bytes)
    print(table)


def task_check() -> Iterator[dict[str, Any]]:
    """checks of the sources beside compiling them"""
    yield {"basename": "check", "name": None, "doc": "checks of the sources beside compiling them"}
    yield {
        "basename": "check",
        "name": "boundary",
        "doc": "firmware/core and firmware/modules reach for nothing of the platform",
        "actions": [_check_boundary],
        "verbosity": 2,
    }


@_told
def _check_boundary() -> TaskFailed | None:
    from pipeline.toolchain import boundary

    failures = boundary.check(context().root, context().config, context().runner, context().state_dir)
    for failure in failures:
        print(failure.line(), file=sys.stderr)
    if not failures:
        return None
    print(f"hint: {failures[0].hint}", file=sys.stderr)
    return TaskFailed(f"{len(failures)} violations")


def task_hooks() -> Iterator[dict[str, Any]]:
    """build on save in editors, and before commits"""
    yield {"basename": "hooks", "name": None, "doc": "build on save in editors, and before commits"}
    editor = {"name": "editor", "long": "editor", "type": str, "default": "", "help": "vscode, neovim or emacs"}
    for name, doc, params in (
        (
            "install",
            "put build-on-save into an editor's files, and write compile_commands.json (--editor NAME)",
            [editor],
        ),
        ("git", "install a pre-commit hook beside what is there", []),
        ("uninstall", "take all of it out again, or that of one editor (--editor NAME)", [editor]),
    ):
        action = (_hooks, [name])
        yield {"basename": "hooks", "name": name, "doc": doc, "actions": [action], "params": params, "verbosity": 2}


@_told
def _hooks(name: str, editor: str = "") -> TaskFailed | None:
    from pipeline.editor import tasks

    given = () if name == "git" else (editor,)
    failed = getattr(tasks, name)(context(), *given)
    return TaskFailed(failed) if failed else None


interrupt_again()
