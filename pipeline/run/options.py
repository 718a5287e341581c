"""What the command line says beside the task names: which devices and profile, and what to export of the run.

doit hands a task's options to that task only, never to the tasks it depends on; so they are read here once, before the
tasks are created, and every stage task accepts them. Knows neither doit nor the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple

MOST_WORKERS = 8
"""Unless the command line says more."""

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "device": "only this device of deploy.toml",
        "group": "only devices of this group",
        "chip": "only devices with this chip",
        "tag": "only devices with this tag",
        "profile": "build with this profile of deploy.toml",
        "reason": "why the board is needed: shown to others, and recorded with --take",
        "verify": "proof that is asked of the device: md5, app-report or journal (default: [verify] level)",
        "trace": "write the run as a Chrome/Perfetto trace",
        "junit": "write the stages as JUnit XML",
        "workers": f"boards at once (default: as many as there are, at most {MOST_WORKERS})",
        "canary": "deploy to so many boards first, and stop unless they become ready",
    }
)
"""Those with a value, and their help."""

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "fail-fast": "stop the other boards when one has failed",
        "rollback": "put the images before back on boards that do not become ready",
    }
)
FILTERS = ("device", "group", "chip", "tag")
JSON = "--json"
TAKE = "--take"


def stage_params() -> list[dict[str, Any]]:
    """What every stage's task takes, in the form in which task runners take it."""
    flags = {
        "json": "events on stdout, one JSON per line",
        "take": "take the board over from whoever has leased it",
        **FLAGS,
    }
    return [*map(_param, OPTIONS), *(_flag(name, text) for name, text in flags.items())]


def measuring_params() -> list[dict[str, Any]]:
    """What tasks take whose runs are children: an export that they do not hand on would be ignored in silence."""
    return [*map(_param, (*FILTERS, "profile"))]


def _param(name: str) -> dict[str, Any]:
    return {"name": name, "long": name, "type": str, "default": "", "help": OPTIONS[name]}


def _flag(name: str, text: str) -> dict[str, Any]:
    return {"name": name.replace("-", "_"), "long": name, "type": bool, "default": False, "help": text}


class Options(NamedTuple):
    """Empty means: not said. Each of `devices`, `groups`, `chips` and `tags` is a filter whose values are alternatives;
    a device has to pass them all."""

    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    profile: str = ""
    trace: str = ""
    """File for the run as Chrome trace events."""
    junit: str = ""
    """File for the run as JUnit XML."""
    json: bool = False
    """The run's events on stdout, text for people on stderr."""
    named: tuple[str, ...] = ()
    """Devices named by a sub-task on the command line, such as `desk` in `verify-flash:desk`."""
    verify: str = ""
    regions: tuple[tuple[str, str], ...] = ()
    """(device, region) of sub-tasks such as `reflash:desk:app`."""
    take: bool = False
    """Take boards over from whoever has leased them."""
    reason: str = ""
    """Why the boards are needed, for others."""
    builds: bool = False
    """The command line asks for work on the build, so that a given firmware is to be built first."""
    chips: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    workers: str = ""
    canary: str = ""
    fail_fast: bool = False
    rollback: bool = False


def parse_options(argv: Sequence[str], device_tasks: Sequence[str]) -> Options:
    """Read `argv` (without the program). Unknown words are left to doit, which reports them."""
    found: dict[str, list[str]] = {name: [] for name in OPTIONS}
    named: list[str] = []
    regions: list[tuple[str, str]] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in OPTIONS:
            found[name].append(value if equals else next(words, ""))
        task, colon, device = word.partition(":")
        if colon and task in device_tasks:
            device, colon, region = device.partition(":")
            named.append(device)
            if colon:
                regions.append((device, region))
    return Options(
        devices=tuple(found["device"]),
        groups=tuple(found["group"]),
        profile=(found["profile"] or [""])[-1],
        trace=(found["trace"] or [""])[-1],
        junit=(found["junit"] or [""])[-1],
        json=JSON in argv,
        take=TAKE in argv,
        reason=(found["reason"] or [""])[-1],
        named=tuple(dict.fromkeys(named)),
        verify=found["verify"][-1] if found["verify"] else "",
        regions=tuple(dict.fromkeys(regions)),
        chips=tuple(found["chip"]),
        tags=tuple(found["tag"]),
        workers=(found["workers"] or [""])[-1],
        canary=(found["canary"] or [""])[-1],
        fail_fast="--fail-fast" in argv,
        rollback="--rollback" in argv,
    )


NO_RUN = frozenset(
    {
        *(
            "list",
            "info",
            "help",
            "clean",
            "forget",
            "ignore",
            "auto",
            "dumpdb",
            "strace",
            "tabcompletion",
            "reset-dep",
        ),
        "devices",
        "explain",
        "gate",
        "graph",
        "lease",
        "mcp",
        "monitor",
        "plan",
        "report",
        "status",
        "serve",
        "watch",
        "baseline",
        "bench",
        "cache",
        "check",
        "hooks",
        "host",
        "loop",
        "ota",
        "recover",
    }
)
"""doit's commands, ours, and the tasks that are no stages: a run of them builds nothing in this process."""


def asks_for_stages(argv: Sequence[str], stages: Sequence[str]) -> bool:
    """Does `argv` (without the program) select a stage, or nothing at all, which means the whole deploy?"""
    words = iter(argv)
    for word in words:
        name, equals, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in OPTIONS and not equals:
            next(words, "")
        elif (task := word.partition(":")[0]) in NO_RUN or task in stages:
            return task in stages
    return True


def asks_for_help(argv: Sequence[str]) -> bool:
    """Are the options of a task asked for, so that nothing is done?"""
    before = ("", *argv)
    return any(word in ("--help", "-h") and not last.startswith("--") for last, word in zip(before, argv, strict=False))


def last_value(argv: Sequence[str], name: str) -> str:
    """What `--name` says on the command line, `""` when it is not there: for the sub-tasks of a group, since doit hands
    the group's options to none of them."""
    words, found = iter(argv), ""
    for word in words:
        option, equals, value = word.partition("=")
        if option == f"--{name}":
            found = value if equals else next(words, "")
    return found
