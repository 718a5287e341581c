"""`doit bench:device`: what proof and a write cost on a board, against esptool, in one run on this machine.

Virtual boards with the timing profile of an ESP32-S3 behind a UART at 115200 and 921600 baud, in scratch copies of the
project. Every figure is host time and modelled board time together; esptool's command line runs unmodified in a process
of its own on an equal board. Touches neither project nor board.
"""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.flash import delta
from pipeline.flash_model import Image, RegionPlan
from pipeline.measure.bench.deploys import DeployBench
from pipeline.measure.bench.suite import Recorder
from pipeline.measure.bench.table import BenchTarget, at_most, measured, ratio_at_most
from pipeline.measure.child import board_process, report_of
from pipeline.measure.experiment import repeated
from pipeline.model import Failure, RegionAction
from pipeline.run.build import Build, load_build
from pipeline.run.device_service import DeviceService
from pipeline.run.options import Options
from pipeline.run.project import CONFIG_FILE

BAUDS = (115200, 921600)
FAST_MD5, SLOW_MD5 = "esp32s3-uart,md5_s_per_mb=0.4", "esp32s3-uart"
"""0.4 s/MB is an S3 on USB-Serial/JTAG, 5.7 s/MB one behind a UART bridge: see docs/virtual-board.md."""

APP_OFFSET = 0x10000
APP_SIZE = 1_000_000


class _BoardLine(NamedTuple):
    """Between host and board: the timing profile, how the board is reset over it, and the rate."""

    name: str
    timing: str
    reset: str
    baud: int


ON_USB = _BoardLine("USB-Serial/JTAG", "esp32c3-usb", "usb", 115200)

DOIT = """
import atexit, sys
sys.argv[0] = "doit"
def say():
    from pipeline.run.current import current
    print("MODELLED_S=%f" % current().clock.modelled_s, file=sys.stderr)
atexit.register(say)  # a settled deploy ends the process while doit still reads its tasks
from doit.doit_cmd import DoitMain
sys.exit(DoitMain().run(sys.argv[1:]))
"""
"""doit's own main program; then says how much of the board's time was not waited for."""

ESPTOOL = """
import sys
from pathlib import Path
import serial
from virtualboard.port import open_virtual
chip, flash, size, timing, usb, *argv = sys.argv[1:]
port = open_virtual(chip, Path(flash), flash_size=int(size), timing=timing, usb=bool(usb))
port.close()
serial.serial_for_url = lambda *args, **kwargs: port
import esptool
try:
    esptool.main(argv)
finally:
    print("MODELLED_S=%f" % port.clock.skew_s, file=sys.stderr)
"""
"""esptool's command line on a virtual port instead of a serial one."""

ESPTOOL_WRITE = """
import sys
from pathlib import Path
from virtualboard.port import open_virtual
chip, flash, size, timing, usb, baud, offset, new, old = sys.argv[1:]
import esptool
with open_virtual(chip, Path(flash), flash_size=int(size), timing=timing, usb=bool(usb)) as port:
    port.timeout = 3
    esp = esptool.detect_chip(port, connect_mode="usb-reset" if usb else "default-reset")
    began_s = port.now_s()
    esp = esptool.run_stub(esp)
    if int(baud) > 115200:
        esp.change_baud(int(baud))
    esptool.attach_flash(esp)
    more = {"diff_with": [old]} if old else {}
    esptool.write_flash(esp, [(int(offset), new)], "keep", "keep", "keep", no_progress=True, **more)
    print("WRITE_S=%f" % (port.now_s() - began_s))
"""
"""esptool's library from a synchronised loader to a verified region."""


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun when no selected device is virtual."""
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        scratch = DeployBench(build, Path(directory))
        scratch.need_device()
        bench = _DeviceBench(scratch, build, recorder, options["runs"])
        bench.verify_cases()
        bench.loop_cases()
        bench.app_report_cases()
        bench.write_cases()


class _DeviceBench:
    """The cases, on devices that are added to the scratch project's `deploy.toml`."""

    def __init__(self, scratch: DeployBench, build: Build, recorder: Recorder, runs: int) -> None:
        self._scratch = scratch
        self._recorder = recorder
        self._runs = runs
        self._flash_size = build.config.flash.size_bytes
        self._chip = build.config.toolchain.chip

    # --- devices --------------------------------------------------------------------------------

    def _device(self, name: str, **values: str | int) -> str:
        """Add a device to the scratch project."""
        path = self._scratch.project / CONFIG_FILE
        lines = [f"\n[device.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        path.write_text(path.read_text() + "\n".join(lines) + "\n")
        return name

    def _doit(self, *args: str) -> tuple[float, str]:
        """(seconds of host and board, stdout) of one whole `doit`."""
        spent = self._scratch.run("-c", DOIT, *args)
        return spent.wall_s + _modelled_s(spent.err), spent.out

    def _times(self, label: str, once: Callable[..., float], *args: object) -> list[float]:
        """Milliseconds of each of the runs."""
        return self._interleaved(label, {label: partial(once, *args)})[label]

    def _interleaved(self, label: str, commands: Mapping[str, Callable[[], float]]) -> Mapping[str, list[float]]:
        """Milliseconds of each of the runs of some that are compared."""
        times = repeated(commands, self._runs, partial(self._recorder.step, label))
        return {name: [1000 * took_s for took_s in found] for name, found in times.items()}

    def _row(
        self, case: str, ours: list[float], target: BenchTarget | None, peer: str = "", theirs: Sequence[float] = ()
    ) -> None:
        self._recorder.add(measured(self._recorder.suite, case, ours, "ms", peer, theirs, target))

    def _doit_s(self, *args: str) -> float:
        return self._doit(*args)[0]

    def _report(self, out: str) -> Any:
        return report_of(self._scratch.project, out)

    # --- verify ---------------------------------------------------------------------------------

    def verify_cases(self) -> None:
        """`doit verify-flash` against `esptool verify-flash`, both with the reset at the end, as whole processes."""
        for timing, note, target in ((FAST_MD5, "0.4", ratio_at_most(1 / 3)), (SLOW_MD5, "5.7", None)):
            for baud in BAUDS:
                line = _BoardLine(f"{baud} baud, MD5 {note} s/MB", timing, "classic", baud)
                self._verify_case(f"v{baud}-{note[0]}", line, target)
        self._verify_case("usb", ON_USB, None)
        trips = measured(self._recorder.suite, "warm verify", [self._last_round_trips("usb")], "round trips")
        self._recorder.add(trips._replace(target=at_most(25)))

    def _verify_case(self, name: str, line: _BoardLine, target: BenchTarget | None) -> None:
        """Against esptool with its stub and without: which of the two is faster depends on the line and the chip."""
        case = f"verify and reset, {line.name}"
        self._device(name, port="virtual:", timing=line.timing, baud=line.baud, reset=line.reset)
        regions = self._report(self._doit("deploy", "--device", name)[1])["regions"]
        ways: Mapping[tuple[str, ...], BenchTarget | None] = {(): target, ("--no-stub",): ratio_at_most(0.6)}
        peers = {" ".join(("esptool", *words, "verify-flash")): words for words in ways}
        commands = {
            "": partial(self._doit_s, "verify-flash", "--device", name),
            **{peer: partial(self._esptool, name, line, regions, words) for peer, words in peers.items()},
        }
        times = self._interleaved(case, commands)
        for peer, words in peers.items():
            self._row(case, times[""], ways[words], peer, times[peer])

    def _last_round_trips(self, name: str) -> int:
        report = self._report(self._doit("verify-flash", "--device", name)[1])
        stage = next(row for row in report["stages"] if row["stage"] == "verify-flash")
        return int(stage["counts"]["round_trips"])

    def _esptool(
        self, name: str, line: _BoardLine, regions: Sequence[Mapping[str, Any]], words: Sequence[str]
    ) -> float:
        """Bootloader, table and application; otadata is left out, since esptool cannot interpret it."""
        files: list[str] = []
        for row in regions:
            if row["name"] != "otadata":
                files += [hex(row["offset"]), str(self._scratch.project / self._image(row["name"]).path)]
        flash = self._scratch.project / f".deploy/boards/{name}.flash"
        usb = "usb" if line is ON_USB else ""
        how = ["--port", "virtual", "--baud", str(line.baud), *(["--before", "usb-reset"] if usb else [])]
        argv = ["--chip", self._chip, *how, *words, "verify-flash", *files]
        board = [self._chip, str(flash), str(self._flash_size), line.timing, usb]
        spent = self._scratch.run("-c", ESPTOOL, *board, *argv)
        return spent.wall_s + _modelled_s(spent.err)

    def _build(self, device: str) -> Build:
        build = load_build(Options(devices=(device,)), self._scratch.project)
        assert not isinstance(build, Failure), build
        return build

    def _image(self, name: str) -> Image:
        return next(image for image in self._build(self._scratch.device).images.all() if image.name == name)

    # --- the loop -------------------------------------------------------------------------------

    def loop_cases(self) -> None:
        """A warm deploy, from the command to the first JSON-RPC byte."""
        for baud in BAUDS:
            outs: list[str] = []
            case = f"warm full loop, {baud} baud"
            self._row(case, self._times(case, self._deploy, outs, f"v{baud}-0"), at_most(1500))
        self._recorder.note(f"the last warm loop at {baud} baud, in ms", _table_of(outs[-1]))

    def _deploy(self, outs: list[str], device: str, *args: str) -> float:
        """One deploy; what it printed is appended to `outs`."""
        elapsed_s, out = self._doit("deploy", "--device", device, *args)
        outs.append(out)
        return elapsed_s

    def app_report_cases(self) -> None:
        """A board process that keeps running; whole processes, nothing modelled."""
        for timing, note in (("instant", "no line time"), (FAST_MD5, "115200 baud")):
            with board_process(self._scratch.project, self._chip, timing, os.environ) as url:
                name = self._device(f"running-{len(note)}", port=url)
                self._doit("deploy", "--device", name)
                outs: list[str] = []
                case = f"warm with app-report, no reset, {note}"
                self._row(case, self._times(case, self._deploy, outs, name, "--verify", "app-report"), at_most(350))
                report = self._report(outs[-1])
                assert (report["outcome"], report["plan"]["reattach_mode"]) == ("app_confirmed", "none"), report

    # --- writing --------------------------------------------------------------------------------

    def write_cases(self) -> None:
        """From a synchronised loader to a verified 1 MB application. `--diff-with` believes that its old file is in
        flash, so what it takes is compared with ours after verify-flash, which has proven that; and with the proof."""
        old = firmware_bytes(APP_SIZE)
        edits = {"same-length string": _same_length(old), "code shifted from 1/8 on": _shifted(old)}
        for line in (*(_BoardLine(f"{baud} baud", FAST_MD5, "classic", baud) for baud in BAUDS), ON_USB):
            for edit, new in edits.items():
                case = f"1 MB, {edit}, {line.name}"
                commands = {
                    "proven": partial(self._delta, line, old, new, True),
                    "written": partial(self._delta, line, old, new, False),
                    "whole": partial(self._write_flash, line, old, new, None),
                    "diff": partial(self._write_flash, line, old, new, old),
                }
                proven, written, whole, diff = self._interleaved(case, commands).values()
                targets = (ratio_at_most(1 / 5), ratio_at_most(1)) if edit.startswith("same") else (None, None)
                self._row(f"{case}, proof and write", proven, targets[0], "esptool write-flash", whole)
                self._row(f"{case}, write", written, targets[1], "esptool write-flash --diff-with", diff)
                with_proof = targets[1] if line is ON_USB else None
                self._row(f"{case}, proof and write", proven, with_proof, "esptool write-flash --diff-with", diff)

    def _board(self, old: bytes) -> Path:
        """A flash file that holds the old application."""
        path = self._scratch.project / "write.flash"
        path.write_bytes((b"\xff" * APP_OFFSET + old).ljust(self._flash_size, b"\xff"))
        return path

    def _delta(self, line: _BoardLine, old: bytes, new: bytes, with_proof: bool) -> float:
        """Ours: confirm the reference (`with_proof` counts that too), write the changed runs, confirm as stage reflash
        does."""
        import hashlib

        from pipeline.stages.reflash import proven

        build = self._build(self._scratch.device)
        (device,) = build.project.devices
        flash = self._board(old)
        config = device._replace(timing=line.timing, baud=line.baud, flash_file=str(flash), reset=line.reset)
        service = DeviceService(build)
        session = service.open_session(config)
        image = _image_of(new)
        began_s = build.clock.now_s()
        assert session.md5(image.offset, len(old)) == hashlib.md5(old, usedforsecurity=False).hexdigest()
        if not with_proof:
            began_s = build.clock.now_s()
        runs = delta.runs(image, delta.differing(image, old, new), delta.cost_at(line.baud))
        session.write(image, new, runs, lambda label, done, total: None)
        assert proven(session, RegionPlan(image, RegionAction.DELTA, runs, ""), new, "bench") is None
        elapsed_s = build.clock.now_s() - began_s
        session.close()
        service.close()
        return elapsed_s

    def _write_flash(self, line: _BoardLine, old: bytes, new: bytes, reference: bytes | None) -> float:
        files = {"new.bin": new, "old.bin": reference or b""}
        for file, data in files.items():
            (self._scratch.project / file).write_bytes(data)
        usb = "usb" if line is ON_USB else ""
        board = [self._chip, str(self._board(old)), str(self._flash_size), line.timing, usb]
        argv = [str(line.baud), str(APP_OFFSET), "new.bin", "old.bin" if reference else ""]
        out = self._scratch.run("-c", ESPTOOL_WRITE, *board, *argv).out
        return float(re.findall(r"WRITE_S=(\S+)", out)[-1])


def _modelled_s(err: str) -> float:
    return float(re.findall(r"^MODELLED_S=(\S+)", err, re.M)[-1])


def _table_of(out: str) -> str:
    """The stage table that a run shows."""
    return out[out.index("stage  ") : out.index("DEPLOY_TX_ID=")]


def _image_of(data: bytes) -> Image:
    import hashlib

    from cache.digest import digest_bytes

    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Image("app", "ota_0", APP_OFFSET, len(data), 2 * APP_SIZE, "", digest_bytes(data), md5)


def firmware_bytes(size: int) -> bytes:
    """Bytes that deflate as firmware does, to about two thirds: words from a vocabulary, as instructions are."""
    words = random.Random(7)
    vocabulary = [words.randbytes(4) for _ in range(6000)]
    return b"".join(words.choices(vocabulary, k=size // 4))


def _same_length(old: bytes) -> bytes:
    """Another string in the middle, and the image's hash at its end."""
    at = len(old) // 2
    return old[:at] + b"hello, world" + old[at + 12 : -32] + random.Random(8).randbytes(32)


def _shifted(old: bytes) -> bytes:
    at = len(old) // 8
    return old[:at] + b"sixty-four bytes of new code...." * 2 + old[at:-64]
