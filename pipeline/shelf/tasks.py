"""`devices:discover`, `ota` and `recover` as doit tasks, and what the first one does: look for boards, write the new
ones into deploy.toml.

Knows the project and the ports that may be asked; what a table looks like, `new_devices` knows. Invariants: declaring
the task imports nothing of what it runs; deploy.toml is written whole, and only when what comes out is a configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline.run.current import current, told
from pipeline.run.options import measuring_params

if TYPE_CHECKING:
    from pipeline.device.probe import FoundBoard
    from pipeline.run.project import Project


def devices_group() -> Iterator[dict[str, Any]]:
    """The group and its task."""
    yield {"basename": "devices", "name": None, "doc": "the boards of this project"}
    text = "ask this port too, such as rfc2217://host:port, which nothing lists"
    port = {"name": "port", "long": "port", "type": list, "default": [], "help": text}
    doc = "ask every port behind which a board may be, and write new boards into deploy.toml (resets them)"
    yield {
        "basename": "devices",
        "name": "discover",
        "doc": doc,
        "actions": [(_discover, [])],
        "params": [port],
        "verbosity": 2,
    }


def ota() -> dict[str, Any]:
    """The task."""
    doc = "update without a cable: send what differs of the application, restart, and prove what runs"
    return {"basename": "ota", "doc": doc, "actions": [(_ota, [])], "params": measuring_params(), "verbosity": 2}


def recover() -> dict[str, Any]:
    """The task."""
    doc = "bring back a board that does not answer: try what there is to try, and say what helped (writes no flash)"
    params = measuring_params()
    return {"basename": "recover", "doc": doc, "actions": [(_recover, [])], "params": params, "verbosity": 2}


@told(TaskFailed)
def _recover(**options: Any) -> TaskFailed | None:
    del options  # of this task only; the run has read those of the whole command line
    from pipeline.shelf.recover import recover_devices

    failed = recover_devices(current())
    told = [f"{failure.line()}\nhint: {failure.hint}" for failure in failed]
    return TaskFailed("\n".join(told)) if failed else None


@told(TaskFailed)
def _ota(**options: Any) -> TaskFailed | None:
    del options  # of this task only; the run has read those of the whole command line
    from pipeline.model import Failure
    from pipeline.report.terminal import Progress, look_of, say_failure, stage_table
    from pipeline.run.screen import Screen
    from pipeline.shelf.ota_run import update_devices

    project = current().project
    look, screen = look_of(sys.stdout), Screen()
    screen.on_progress = progress = Progress(sys.stdout, look)
    screen.on_notice = lambda text: print(text, file=sys.stderr, flush=True)
    rendered = update_devices(project.root, project.options, screen)
    progress.finish()
    if isinstance(rendered, Failure):
        say_failure(rendered, sys.stderr)
        return TaskFailed(rendered.line())
    for one in rendered:
        print("\n".join([*stage_table(one.report, look), one.line]), flush=True)
    failed = [one.report["failure"] for one in rendered if one.report["failure"] is not None]
    told = [f"{failure['where']}: error: {failure['message']}\nhint: {failure['hint']}" for failure in failed]
    return TaskFailed("\n".join(told)) if failed else None


@told(TaskFailed)
def _discover(port: list[str]) -> TaskFailed | None:
    failed = discover(current().project, port)
    return TaskFailed(failed) if failed else None


def discover(project: Project, more: list[str]) -> str:
    """Ask the ports that are no device's, and add what answers; why that failed, `""` if it did not. Every one of
    `more` has to answer: somebody named it."""
    try:
        import tomlkit
    except ImportError:
        return (
            "devices:discover: error: tomlkit is not installed, which keeps the comments of deploy.toml\n"
            "hint: install it with: pip install 'hotplate[discover]' (or uv sync --extra discover)"
        )
    assert tomlkit
    from cache.durable import read_text, write_atomic
    from pipeline.config.reader import parse_config
    from pipeline.model import Failure
    from pipeline.run.project import CONFIG_FILE
    from pipeline.shelf.new_devices import named, with_devices

    found, failed = _found(project, more)
    known = {mac: device.name for device in project.config.devices if (mac := _last_mac(project, device.name))}
    new = named(project.config, [(board.chip, board.mac, board.port) for board in found], known)
    if not new:
        print("no new board was found")
        return failed
    path = project.root / CONFIG_FILE
    text = with_devices(read_text(path), project.config, new)
    wrong = parse_config(text)
    if isinstance(wrong, Failure):
        return f"{wrong.line()} (in what would have been written; nothing was)\nhint: {wrong.hint}"
    try:
        write_atomic(path, text.encode(), durable=True)
    except OSError as error:
        return f"{CONFIG_FILE}: error: cannot be written: {error.strerror}\nhint: make it writable"
    for device in new:
        note = f"; disabled: {device.why_not}" if device.why_not else ""
        print(f"added: {device.name} ({device.chip}, {device.mac}) on {device.port}{note}")
    return failed


def _found(project: Project, more: list[str]) -> tuple[list[FoundBoard], str]:
    """What answers on the ports that no device names, and why those of `more` that do not; any other that does not is a
    note on stderr."""
    from pipeline.device.probe import free_ports, probe
    from pipeline.errors import DeployError

    owners = {device.port: device.name for device in project.config.devices}
    found, failed = [], []
    for port in dict.fromkeys([*(each.port for each in free_ports()), *more]):
        if port in owners:
            if port in more:
                print(f"note: {port} was not asked: it is the port of device {owners[port]}", file=sys.stderr)
            continue
        wrong = _wrong_port(port)
        if wrong:
            failed.append(wrong)
            continue
        try:
            found.append(probe(port))
        except DeployError as error:
            failure = error.failure._replace(where=port)
            if port in more:
                failed.append(f"{failure.line()}\nhint: {failure.hint}")
            else:
                print(f"note: {failure.line()}", file=sys.stderr)
    return found, "\n".join(failed)


def _wrong_port(port: str) -> str:
    """What can be the port of no board that is to be found, `""` otherwise."""
    from pipeline.config.values import VIRTUAL_PORT, check_value

    if port.startswith(VIRTUAL_PORT):
        hint = f'write it into deploy.toml: [device.NAME] with port = "{VIRTUAL_PORT}"'
        return f"--port: error: '{port}' is a board that comes to be when it is named\nhint: {hint}"
    wrong = check_value(("device", "--port", "port"), port)
    if wrong is None:
        return ""
    fact = wrong.message.partition("' ")[2]
    return f"--port: error: {fact}\nhint: {wrong.hint.replace('port = ', '--port ')}"


def _last_mac(project: Project, device: str) -> str:
    from cache.durable import read_text

    try:
        return read_text(project.devices_dir / f"{device}.mac").strip()
    except (OSError, UnicodeDecodeError):
        return ""
