"""The reference firmware as a device that tests talk to: executed by the virtual ESP32-C3, or a process of this host.

Both answer the same calls, so that one file of tests serves both. What they say is read completely: each exchange ends
with a request of our own, and what came before its answer belongs to the exchange.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import firmware_build as fb
from virtualboard import rom
from virtualboard.rv32 import Rv32Machine

BOOT_BUDGET = 3_000_000
"""Instructions in which every boot here must come to rest; a good one takes about a twentieth."""
HOST_DEADLINE_S = 300.0
_END = '{"jsonrpc":"2.0","id":"end of exchange","method":"ping"}\n'
_END_ANSWER = '{"jsonrpc":"2.0","id":"end of exchange","result":"pong"}'


class BytesFlash:
    def __init__(self, content: bytes | bytearray) -> None:
        self.content = bytearray(content)
        self.size = len(content)

    def read(self, offset: int, n: int) -> bytes:
        if not (offset >= 0 and offset + n <= self.size):
            raise ValueError("outside flash")
        return bytes(self.content[offset : offset + n])

    def program(self, offset: int, data: bytes) -> None:
        """Clears bits, as NOR flash does."""
        for at, byte in enumerate(data, offset):
            self.content[at] &= byte

    def erase(self, offset: int, n: int) -> None:
        self.content[offset : offset + n] = b"\xff" * n


class FirmwareBench:
    """A machine with its flash and a clock that only the test moves."""

    def __init__(self, flash: bytes | bytearray) -> None:
        self.now = 0.0
        self.flash = BytesFlash(flash)
        self.machine = Rv32Machine(self.flash, fb.EFUSE, lambda: self.now)

    def start(self, cause: int = rom.POWERON) -> str:
        """Reset and run until the chip rests; everything that it sent."""
        self.machine.reset(cause)
        return self.settle()

    def settle(self, budget: int = BOOT_BUDGET) -> str:
        executed = 0
        while not self.machine.idle and executed < budget:
            executed += self.machine.run(50_000)
        assert executed < budget, f"not at rest after {executed} instructions: {self.machine.transmit()!r}"
        return self.machine.transmit().decode("utf-8")

    def pass_time(self, seconds: float) -> str:
        """Let time pass, waking the chip whenever it wants to be woken; everything that it sent."""
        end, sent = self.now + seconds, ""
        while self.machine.pending_reset is None:
            wake = self.machine.wake_at
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
            self.machine.run(1)
            sent += self.settle()
        self.now = end
        self.machine.run(1)
        return sent + self.settle()

    def send(self, data: bytes) -> str:
        self.machine.feed(data)
        return self.settle()

    def ask(self, text: str) -> list[Any]:
        """One line in, the decoded messages out."""
        return messages_of(self.send(text.encode() + b"\n").split("\n")[:-1])

    def call(self, method: str, **more: Any) -> Any:
        (answer,) = self.ask(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, **more}))
        return answer.get("result", answer.get("error"))


def messages_of(lines: Sequence[str]) -> list[Any]:
    """Decoded JSON-RPC; the other lines must be log lines."""
    for line in lines:
        assert line.startswith(("{", "[", "I (", "W (", "E (")), line
    return [json.loads(line) for line in lines if line.startswith(("{", "["))]


def ready_of(log: str) -> dict[str, Any]:
    """Parameters of the one `ready` line in a boot log."""
    (line,) = [line for line in log.splitlines() if '"ready"' in line]
    message = json.loads(line)
    assert message["jsonrpc"] == "2.0" and message["method"] == "ready" and "id" not in message
    params: dict[str, Any] = message["params"]
    return params


class Device:
    """What chip and host have in common. `chip`, `mac`, `identity`, `regions`: what it has to say about itself."""

    chip: str
    mac: str
    identity: str
    regions: list[Mapping[str, Any]]
    boot_log: str
    """Everything up to the first rest of the last start."""

    def write(self, data: bytes) -> None:
        """Send bytes that complete no request."""
        raise NotImplementedError

    def exchange(self, data: bytes) -> list[str]:
        """Send whole lines; the lines that came in answer."""
        raise NotImplementedError

    def restart_by(self, method: str) -> None:
        """Send a request that ends in a restart, and wait for that."""
        raise NotImplementedError

    def let_pass(self, seconds: float) -> None:
        """Some time passes."""
        raise NotImplementedError

    def ask(self, text: str) -> list[Any]:
        """One line in, the decoded messages out."""
        return messages_of(self.exchange(text.encode() + b"\n"))

    def raw(self, method: str, params: Any = None) -> dict[str, Any]:
        """The one answer to a request."""
        more = {} if params is None else {"params": params}
        (answer,) = self.ask(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, **more}))
        assert answer["jsonrpc"] == "2.0" and answer["id"] == 1
        return dict(answer)

    def call(self, method: str, params: Any = None) -> Any:
        """The result of a request that succeeds."""
        answer = self.raw(method, params)
        assert "result" in answer, answer
        return answer["result"]

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until `condition`, or fail."""
        for _ in range(2000):
            if condition():
                return
            self.let_pass(0.05)
        raise AssertionError("it never happened")


class ChipDevice(Device):
    def __init__(self, firmware: fb.BuiltFirmware) -> None:
        self.chip, self.mac, self.identity = "esp32c3", "7c:df:a1:11:22:33", firmware.identity
        self.bench = FirmwareBench(fb.deployed(firmware))
        sizes = {"bootloader": (0, len(firmware.boot_bin)), "partitions": (0x8000, 0xC00), "otadata": (0xE000, 0x2000)}
        sizes["ota_0"] = (fb.OTA_0, len(firmware.app_bin))
        self.regions = [
            region(name, offset, self.bench.flash.read(offset, size), name == "ota_0")
            for name, (offset, size) in sizes.items()
        ]
        self.boot_log = self.bench.start()

    def write(self, data: bytes) -> None:
        assert self.bench.send(data) == ""

    def exchange(self, data: bytes) -> list[str]:
        return until_end(self.bench.send(data + _END.encode()).split("\n"))

    def let_pass(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    def restart_by(self, method: str) -> None:
        machine = self.bench.machine
        machine.feed(request(method))
        for _ in range(200):
            machine.run(100_000)
            if machine.pending_reset is not None:
                break
            self.bench.now += 0.05  # a hang costs time, and only time ends it
        assert machine.pending_reset is not None, f"{method} did not end in a restart"
        self.boot_log = machine.transmit().decode() + self.bench.start(machine.pending_reset)


class HostDevice(Device):
    """The process, on pipes."""

    def __init__(self, program: Path) -> None:
        import hashlib

        self.chip, self.mac = "host", "02:00:00:00:00:01"
        data = program.read_bytes()
        self.identity = hashlib.sha256(data).hexdigest()
        self.regions = [region("app", 0, data, True)]
        self.child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.child.stdin is not None and self.child.stdout is not None
        self._in, self._out = self.child.stdin, self.child.stdout.fileno()
        self._received = b""
        self.boot_log = "".join(f"{line}\n" for line in self._lines_to('"ready"'))
        for _ in range(2):  # what its modules say of their start belongs to no exchange of a test's
            self.exchange(b"")

    def write(self, data: bytes) -> None:
        self._in.write(data)

    def exchange(self, data: bytes) -> list[str]:
        self._in.write(data + _END.encode())
        return until_end(self._lines_to(_END_ANSWER))

    def let_pass(self, seconds: float) -> None:
        select.select([], [], [], seconds)

    def restart_by(self, method: str) -> None:
        for _ in range(2):  # the log lines of a turn follow its answers: take what the old life still says
            self.exchange(b"")
        self._in.write(request(method))
        self.boot_log = "".join(f"{line}\n" for line in self._lines_to('"ready"'))

    def _lines_to(self, mark: str) -> list[str]:
        """Complete lines up to the one that holds `mark`."""
        lines: list[str] = []
        deadline = time.monotonic() + HOST_DEADLINE_S
        while not (lines and mark in lines[-1]):
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                lines.append(line.decode("utf-8").rstrip("\r"))
                self._received = rest
                continue
            ready, _, _ = select.select([self._out], [], [], deadline - time.monotonic())
            assert ready, f"no {mark!r} in time; received {lines} {self._received!r}"
            data = os.read(self._out, 65536)
            assert data, f"the process ended with {self.child.wait()}; received {lines}"
            self._received += data
        return lines

    def close(self) -> None:
        """End of input ends it; anything but a clean end was found by a sanitizer."""
        self._in.close()
        assert self.child.wait(timeout=HOST_DEADLINE_S) == 0
        assert self.child.stdout is not None
        self.child.stdout.close()


def request(method: str) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"%s"}\n' % method.encode()


def region(name: str, offset: int, data: bytes, running: bool) -> Mapping[str, Any]:
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    return {"name": name, "offset": offset, "size": len(data), "running": running, "sha256": digest}


def until_end(lines: Sequence[str]) -> list[str]:
    """The lines before the answer that ends an exchange; log lines may follow it."""
    return [line.rstrip("\r") for line in lines[: list(lines).index(_END_ANSWER)]]


def host_core(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Path]]:
    """The host's compiler with its flags for sanitizers, and the objects of core and modules, made once per session."""
    compiler, sanitize = fb.host_compiler()
    with fb.once(tmp_path_factory, "host-core") as (out, _):
        return [*compiler, *sanitize], fb.compile_host_core(out, compiler, *sanitize)


def make_host_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host port with sanitizers where the compiler has them, built once per session."""
    compiler, objects = host_core(tmp_path_factory)
    port = sorted((fb.ROOT / "firmware/port/host").glob("*.c"))
    with fb.once(tmp_path_factory, "host-firmware") as (out, done):
        return out / "firmware" if done else fb.build_host(out / "firmware", compiler, parts=[*objects, *port])
