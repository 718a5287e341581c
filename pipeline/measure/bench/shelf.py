"""`doit bench:shelf`: many boards beside each other against one of them, in one run on this machine.

Each board is a process of its own behind RFC 2217 whose time is real: erasing, programming, hashing and the line take
as long as on a chip, so that what the boards wait for can overlap and what this machine computes for them cannot.
Scratch copy of the project, firmware of a realistic size; touches neither project nor board. Does not know stages.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.flash_model import Partition
from pipeline.measure.bench.deploys import DeployBench
from pipeline.measure.bench.device import firmware_bytes
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import measured, ratio_at_most
from pipeline.measure.child import Spent, board_process
from pipeline.run.build import Build
from pipeline.run.project import CONFIG_FILE

BOARDS = 16
TIMING = "esp32c3-usb"
MOST = 1.5
"""Sixteen boards may take so many times as long as one."""

BULK = 1_000_000
"""Bytes of data beside the application, so that an image is as large as those that people flash."""

READY_MS = 120_000
"""A machine that runs sixteen boards must not make their firmware late."""

DATA = 1
SPECIAL = frozenset({0, 2})
"""Partition subtypes: otadata and nvs."""


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun when the project has nothing that a virtual board executes."""
    if build.config.toolchain.chip != "esp32c3":
        fact = f"the firmware is for {build.config.toolchain.chip}, and virtual boards execute only an ESP32-C3's"
        raise CannotRun(fact, "run it in a project for an ESP32-C3")
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        bench = _ShelfBench(DeployBench(build, Path(directory)), build, options["boards"])
        times: dict[str, list[Spent]] = {name: [] for name in ("write one", "write all", "warm one", "warm all")}
        for run in range(options["runs"]):
            with bench.shelf() as urls:
                bench.configure(urls)
                for number, name in enumerate(times):
                    recorder.step(name, run * len(times) + number, options["runs"] * len(times))
                    times[name].append(bench.deploy(name.rpartition(" ")[2]))
        for what, case in (("write", "erased boards: everything is written"), ("warm", "nothing changed")):
            ours, one = (_ms(times[f"{what} {which}"]) for which in ("all", "one"))
            label = f"{options['boards']} boards, {case}"
            recorder.add(measured(recorder.suite, label, ours, "ms", "one board", one, ratio_at_most(MOST)))
            cpu = [1000 * spent.cpu_s for spent in times[f"{what} all"]]
            recorder.add(measured(recorder.suite, f"{label}, CPU of the run", cpu, "ms"))
        recorder.note("the last warm run of all", _table(times["warm all"][-1].out))


def _ms(found: Sequence[Spent]) -> list[float]:
    return [1000 * spent.wall_s for spent in found]


def _table(out: str) -> str:
    """The table that the run shows."""
    return out[out.index("device  ") : out.index("DEPLOY_TX_ID=")]


class _ShelfBench:
    """The scratch project, and boards: one alone, and `count` together."""

    def __init__(self, scratch: DeployBench, build: Build, count: int) -> None:
        self._scratch = scratch
        self._count = count
        path = scratch.project / CONFIG_FILE
        text = path.read_text()
        bulk = _largest(build.project.table, {image.partition for image in build.config.images})
        if bulk is not None:
            (scratch.project / "bulk.bin").write_bytes(firmware_bytes(min(BULK, bulk.size)))
            text += f'\n[image.bulk]\npartition = "{bulk.name}"\nfile = "bulk.bin"\n'
        self._config = text
        scratch.run("-m", "doit", "link")

    @contextlib.contextmanager
    def shelf(self) -> Iterator[list[str]]:
        """The boards' URLs; each is erased and runs until the end."""
        with contextlib.ExitStack() as stack:
            env = self._scratch.scratch.env
            project, chip = self._scratch.project, self._scratch.chip
            yield [
                stack.enter_context(board_process(project, chip, TIMING, env, _mac(n))) for n in range(self._count + 1)
            ]

    def configure(self, urls: Sequence[str]) -> None:
        """A device for each; the first is alone in its group. Whoever has seen a board before must not know it. What
        the new file costs the next run is paid for here, not by one of those that are compared."""
        import tomllib

        import tomli_w

        document = tomllib.loads(self._config)
        document.setdefault("readiness", {})["timeout_ms"] = READY_MS
        for n, url in enumerate(urls):
            device = {"port": url, "mac": _mac(n), "groups": ["shelf-one" if n == 0 else "shelf-all"]}
            document["device"][f"shelf-{n}"] = device
        (self._scratch.project / CONFIG_FILE).write_text(tomli_w.dumps(document))
        for _ in range(2):  # the stamps of what was written just now are believed from the next run on
            self._scratch.run("-m", "doit", "link")

    def deploy(self, group: str) -> Spent:
        """One whole `doit deploy`."""
        words = ("deploy", "--group", f"shelf-{group}", "--workers", str(self._count))
        return self._scratch.run("-m", "doit", *words)


def _mac(number: int) -> str:
    return f"7c:df:a1:5e:{number >> 8:02x}:{number & 0xFF:02x}"


def _largest(table: Sequence[Partition], taken: set[str]) -> Partition | None:
    """The largest partition for data that no image of the project has."""
    free = [row for row in table if row.type == DATA and row.subtype not in SPECIAL and row.name not in taken]
    return max(free, key=lambda row: row.size, default=None)
