"""What `doit serve --status|--stop|--release` asks the service, and how its answers are shown.

Knows the protocol's questions and words for people. Does not know doit. Invariant: what cannot be done is a failure
with its reason; nothing here starts a service.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.client import endpoint
from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import Message, ProtocolError, decode_failure
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.run.lent_ports import device_ref
from pipeline.run.options import Options
from pipeline.run.project import load_project
from pipeline.text import visible

ANSWER_S = 10.0
STOP_S = 10.0
"""Within which a service that was asked to has let go of its ports."""

LOOK_S = 0.02


def status_text() -> str | Failure:
    """One line about the service, one per device, one about what went wrong so far."""
    answer = _ask(Message.STATUS)
    if isinstance(answer, Failure):
        return answer
    header = answer.header
    lines = [
        f"service {header.get('version')}, pid {header.get('pid')}, up {_duration(header.get('uptime_s'))}, "
        f"{_number(header.get('memory_kb')) // 1024} MB, {header.get('connections')} connections"
    ]
    devices = header.get("devices")
    lines += [_device_line(state) for state in devices if isinstance(state, dict)] if isinstance(devices, list) else []
    if not devices:
        lines.append("no device was named yet: deploy to one, or watch it")
    ports = header.get("ports")
    lines += [_ports_line(row) for row in ports if isinstance(row, dict)] if isinstance(ports, list) else []
    page = header.get("page")
    if isinstance(page, dict):
        refused = page.get("refused") or {}
        told = ", ".join(f"{name}={refused[name]}" for name in sorted(refused)) or "nothing"
        lines.append(f"page: {page.get('address')}, open {page.get('pages')} times, refused: {told}")
    counts = header.get("counts")
    if isinstance(counts, dict) and counts:
        lines.append("counts: " + ", ".join(f"{name}={counts[name]}" for name in sorted(counts)))
    return "\n".join(visible(line) for line in lines) + "\n"


def _device_line(state: Mapping[str, Any]) -> str:
    device = state.get("device") or {}
    holder = state.get("holder")
    lent = f", lent to {holder.get('tx') or holder.get('command')} (pid {holder.get('pid')})" if holder else ""
    failure = state.get("failure")
    why = f" ({failure.get('message')})" if isinstance(failure, dict) else ""
    firmware = f", runs {str(state.get('elf'))[:12]}" if state.get("elf") else ""
    which = f"{device.get('name')} of {device.get('root')} on {state.get('port')}"
    seen = f"{state.get('viewers')} viewers, {state.get('bytes_seen')} bytes, {state.get('bytes_dropped')} dropped"
    return f"{which}: {state.get('state')}{why}{lent}{firmware}, {seen}"


def _ports_line(row: Mapping[str, Any]) -> str:
    """Where other programs find a device's port."""
    addresses = [str(row.get(name)) for name in ("rfc2217", "pty") if row.get(name)]
    problems = row.get("problems")
    told = [*addresses, *map(str, problems if isinstance(problems, list) else [])]
    return f"{row.get('device')}: {', '.join(told) or 'no address'}"


def ports_text() -> str | Failure:
    """Have the service serve the ports of this project's devices; their addresses, one line per device."""
    project = load_project(Options())
    if isinstance(project, Failure):
        return project
    lines = []
    for device in (one for one in project.config.devices if not (one.is_virtual or one.is_in_farm)):
        answer = _ask(Message.PORTS, device=device_ref(device, project.root)._asdict())
        if isinstance(answer, Failure):
            return answer
        lines.append(_ports_line({**answer.header, "device": device.name}))
    if not lines:
        return _no("no device of deploy.toml has a port to serve", "give one a `port` that is not virtual")
    return "\n".join(visible(line) for line in lines) + "\n"


def stop(*, now: bool) -> str | Failure:
    """End the service, and wait for its end. `now`: although a board is being written to."""
    answer = _ask(Message.STOP, now=now)
    if isinstance(answer, Failure):
        return answer
    if refused := answer.header.get("refused"):
        return _no(f"the service does not stop: {refused}", "wait until that has ended, or add --now")
    return "the service has stopped\n" if wait_for_end() else _no("the service has not ended yet", "look again")


def open_page() -> str | Failure:
    """Show the page in the user's browser, and say where it is for those that have none here."""
    from pipeline.client import page_address

    answer = _ask(Message.STATUS)
    if isinstance(answer, Failure):
        return answer
    address = page_address.page_address()
    if address is None:
        return _no("the service has no page", "see its service.log for the reason; `pip install 'hotplate[serve]'`")
    return (
        f"{address}\n" if page_address.open_page(address) else f"open this in a browser of this machine:\n{address}\n"
    )


def page_port() -> int:
    """`[service] port` of the project in this directory; 0 where there is none."""
    project = load_project(Options())
    return 0 if isinstance(project, Failure) else project.config.service.port


def wait_for_end() -> bool:
    """Has the service let go of everything by now?"""
    from cache.durable import FileLock

    directory = endpoint.runtime_dir()
    deadline = time.monotonic() + STOP_S
    while directory is not None and time.monotonic() < deadline:
        lock = FileLock(Path(directory, endpoint.LOCK))
        if lock.try_acquire("nobody") is None:
            lock.release()
            return True
        time.sleep(LOOK_S)
    return directory is None


def release(name: str) -> str | Failure:
    """Have the service let go of a device's port."""
    project = load_project(Options(devices=(name,)))
    if isinstance(project, Failure):
        return project
    device = project.devices[0]
    answer = _ask(Message.RELEASE, device=device_ref(device, project.root)._asdict())
    if isinstance(answer, Failure):
        return answer
    return f"the port of {name} ({device.port}) is left to others until somebody deploys to it or watches it\n"


def _ask(message: Message, **fields: Any) -> Any:
    """The frame of its answer, or why there is none."""
    try:
        connection = Connection.open()
        try:
            answer = connection.request(message, timeout_s=ANSWER_S, **fields)
        finally:
            connection.close()
        return decode_failure(answer) if answer.message == Message.FAILURE else answer
    except NoService as error:
        return _no(str(error), "start it with `doit serve`")
    except ProtocolError as error:
        return _no(f"the service says what cannot be: {error}", "restart it")


def _no(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="service", message=message, hint=hint)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
