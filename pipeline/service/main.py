"""The process of the service: its directory, lock and socket, its parts in one event loop, and its end.

Knows what there is to start and in which order it ends; not what any part does. Invariant: the socket exists only while
the lock is held, so that whoever holds the lock may remove one that was left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.durable import FileLock
from pipeline import __version__
from pipeline.client import endpoint
from pipeline.client.protocol import Message
from pipeline.effects.clock import SystemClock
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.service.consoles import OwnedConsoles
from pipeline.service.history import HistoryWriter
from pipeline.service.log import ServiceLog
from pipeline.service.page_door import PageDoor, PageOf
from pipeline.service.port_servers import PortServers
from pipeline.service.roles import ROLES
from pipeline.service.server import Client, Service
from pipeline.service.speed import Speed
from pipeline.service.upgrade import ask_to_stop

SWITCH_S = 0.001
"""How long a thread may compute while others wait: a byte that arrives shall not wait for a page that is rendered."""

CLOSE_S = 2.0
"""What a port may take to be let go of."""

ROOM_S = 10.0
"""What an older service may take to end."""

BACKLOG = 128


def serve(say: Callable[[str], None], *, port: int = 0) -> Failure | None:
    """Be the service until it is asked to stop; why it cannot be, if so. `say` is told once it listens. `port`:
    of its page (0: any)."""
    directory = endpoint.runtime_dir(create=True)
    if directory is None:
        return _no("there is no runtime directory of this user's alone", "set XDG_RUNTIME_DIR to one with mode 0700")
    lock = FileLock(Path(directory, endpoint.LOCK))
    try:
        busy = _acquire(lock)
        if busy:
            return _no(f"a service is running already: {busy}", "use it, or end it with `doit serve --stop`")
        listening = _listen(Path(directory, endpoint.SOCKET))
    except OSError as error:
        return _no(f"{directory} cannot be used: {error.strerror or error}", "check who owns it, and its mode")
    try:
        sys.setswitchinterval(SWITCH_S)
        log = ServiceLog(Path(directory, endpoint.LOG), SystemClock().utc)
        log.say(f"version {__version__} begins, pid {os.getpid()}")
        where = f"{directory}/{endpoint.SOCKET} (pid {os.getpid()})"
        asyncio.run(
            _run(listening, log, Path(directory), port, lambda page: say(f"listening on {where}; {page}")),
        )
        log.say(f"pid {os.getpid()} ends")
    finally:
        with contextlib.suppress(OSError):
            os.unlink(f"{directory}/{endpoint.SOCKET}")  # noqa: PTH108
        lock.release()
    return None


def _acquire(lock: FileLock) -> str:
    """ "" when it is ours, which an older service may have to make room for first; else who has it, and why still."""
    note = f"pid {os.getpid()} ({' '.join(sys.argv)[:80]})"
    busy = lock.try_acquire(note)
    if busy is None:
        return ""
    refused = ask_to_stop()
    if refused:
        return f"{busy.holder}; {refused}"
    busy = lock.acquire(note, timeout_s=ROOM_S, now_s=time.monotonic, pause=time.sleep)
    return "" if busy is None else busy.holder


def _listen(path: Path) -> socket.socket:
    """The socket, 0600 from the first instant."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


async def _run(
    listening: socket.socket, log: ServiceLog, directory: Path, port: int, ready: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    over = asyncio.Event()
    history = HistoryWriter()
    consoles = OwnedConsoles(loop, record=history.of)
    ports = PortServers(loop, consoles, directory, lambda: (clock.now_s(), clock.utc()))
    service = Service(consoles, {**ROLES, Message.PORTS.value: ports.role}, clock.now_s, clock.utc)
    service.more["ports"] = ports.status
    service.stop = over.set
    service.more["history_lost"] = lambda: history.lost
    loop.set_exception_handler(lambda _, context: _unforeseen(service, log, context))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)
    speed = Speed(loop, service, str(directory), log.say)
    server = await loop.create_unix_server(lambda: Client(service, loop), sock=listening)
    ports.remember()
    door = PageDoor(PageOf(consoles, service.environments, clock, log.say))
    closed = door.open(port)
    page = f"page: {door.address}" if closed is None else f"no page: {closed.message} ({closed.hint})"
    log.say(page)
    if closed is None:
        service.more["page"] = door.status
    try:
        ready(page)
        await over.wait()
    finally:
        server.close()
        speed.close()
        ports.close()
        await door.close()
        for client in list(service.clients):
            client.end()
        await asyncio.sleep(0)  # what was sent is written
        consoles.close(CLOSE_S)
        await asyncio.sleep(0)  # what the ports said last
        history.close(CLOSE_S)


def _unforeseen(service: Service, log: ServiceLog, context: dict[str, Any]) -> None:
    """An exception that nobody took: counted and kept, and the service goes on."""
    service.counts["errors"] += 1
    error = context.get("exception")
    trace = traceback.format_exception(error) if isinstance(error, BaseException) else []
    log.say(f"error: {context.get('message')} [this is a bug]\n{''.join(trace)}")


def _no(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="service", message=message, hint=hint)
