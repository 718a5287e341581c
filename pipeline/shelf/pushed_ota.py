"""An update by the protocols of others: pushed to Arduino's OTA listener, or pulled over HTTP by the device.

Knows where such a device is (`ota` in deploy.toml) and how to tell it. What is proven afterwards is what its firmware
can say on its console: which build it is, where readiness asks that, and the digests of its slots where it offers them.
Invariant: the console is listened to from before the transfer on, so that the restart, which is the device's own, is
not missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

from pipeline import events
from pipeline.config.until import Until, parse_until
from pipeline.device.console import CallAnswer, DeviceMonitor
from pipeline.device.espota import DEFAULT_PORT, EspotaTarget, push
from pipeline.device.ota_http import OneDownload
from pipeline.device.serial_link import reader_for
from pipeline.flash import app_proof
from pipeline.flash.plan import UNCHANGED, confirmed_plan
from pipeline.flash_model import FlashPlan, Image, Region, RegionPlan
from pipeline.model import DeployOutcome, Failure, FailureCategory, Mark, MarkName, RegionAction, Stage, StageWork
from pipeline.shelf.ota import ASK_S, LEVEL, OtaUpdate, holds
from pipeline.stages import ttfb
from pipeline.stages.handover import Booting, Confirmed

ESPOTA, HTTP = "espota://", "http://"
DOWNLOAD_S = 300.0
NAMED_ITSELF = "journal"
"""The level at which the firmware says which build it is, and no more."""
HASHES_S = 3.0
"""Until the firmware has hashed its slot; one that does not offer that may well be silent."""


def is_pushed(ota: str) -> bool:
    """Is this `ota` of one of these protocols?"""
    return ota.startswith((ESPOTA, HTTP))


class LastPiece:
    """Hands progress on, and knows when the last piece was about to be sent: the device cannot have restarted
    before."""

    def __init__(self, now_s: Callable[[], float], progress: Callable[[str, int, int], None]) -> None:
        self._now_s = now_s
        self._progress = progress
        self.before_s = self._last_s = now_s()

    def __call__(self, label: str, done: int, total: int) -> None:
        self.before_s, self._last_s = self._last_s, self._now_s()
        self._progress(label, done, total)


class PushedUpdate(OtaUpdate):
    """Its target is the device itself: the console is where it always is."""

    _sending: LastPiece | None = None
    _runs_it = False
    """Is it this build already?"""

    def _ask(self) -> StageWork:
        self._link = self._run.boards.open_link(self._target, reset=False)
        self._reader = reader_for(self._link)
        self._monitor = DeviceMonitor(self._link, self._reader, where=self._target.where)
        until = parse_until(self._run.build.config.readiness.until)
        assert isinstance(until, Until), "deploy.toml was checked when it was read [this is a bug]"
        info = self._who() if until.speaks_rpc else None
        self._mac = app_proof.mac_of(info) or self._run.boards.last_mac(self._device)
        if (wrong := self._wrong_board()) is not None:
            return StageWork(failure=wrong)
        if self._mac:
            self._journal = self._run.records.saw_device(self._device, self._mac, self._target.port)
        if isinstance(info, Mapping) and info.get("app_elf_sha256") == self._run.build.images.expected_elf():
            self._runs_it = self._left_alone(info)
        return StageWork(counts={"regions": 1, "regions_differing": int(not self._runs_it), "round_trips": 1})

    def _left_alone(self, info: Mapping[str, object]) -> bool:
        """It says that it is this build. Does its slot hold it? Firmware that cannot say has named itself, and that is
        what the outcome calls it."""
        app = self._app()
        row = self._running_row(app, HASHES_S)
        if row is None:
            self._plan(FlashPlan(()), NAMED_ITSELF)
            return True
        if not holds(row, app):
            return False
        self._plan(confirmed_plan([app._replace(offset=row["offset"], partition=str(info.get("partition")))]))
        return True

    def _send(self) -> StageWork:
        app = self._app()
        assert self._link is not None
        if self._runs_it:
            return StageWork(counts={"regions_written": 0, "bytes_written": 0})
        image = self._run.build.images.data(app)
        self._announce(app)
        self._sending = LastPiece(self._link.now_s, self._run.screen.progress)
        failure = self._pushed(image) if self._device.ota.startswith(ESPOTA) else self._pulled(image)
        if failure is not None:
            return StageWork(failure=failure)
        self._plan_write(app, NAMED_ITSELF)
        self._run.transactions.say(events.RegionDone(app.name, RegionAction.WRITTEN, app.size), self._device.name)
        return StageWork(counts={"regions_written": 1, "bytes_written": app.size})

    def _plan_write(self, placed: Image, level: str) -> None:
        written = RegionPlan(placed, RegionAction.WRITTEN, (Region(placed.offset, placed.size),), "")
        self._plan(FlashPlan((written,)), level)

    def _pushed(self, image: bytes) -> Failure | None:
        parts = urlsplit(self._device.ota)
        target = EspotaTarget(parts.hostname or "", parts.port or DEFAULT_PORT, unquote(parts.username or ""))
        assert self._sending is not None
        return push(target, image, self._target.where, self._sending)

    def _pulled(self, image: bytes) -> Failure | None:
        parts = urlsplit(self._device.ota)
        assert self._monitor is not None and self._sending is not None
        try:
            offer = OneDownload(parts.hostname or "", parts.port or 0, image, self._sending)
        except OSError as error:
            message = f"{self._device.ota} cannot be served: {error.strerror}"
            return self._fail(FailureCategory.CONFIG_ERROR, Stage.REFLASH, message)
        with offer:
            self._run.screen.notice(f"note: the device may fetch its update from {offer.url}")
            if self._device.ota_call:
                answer = self._monitor.call(self._device.ota_call, {"url": offer.url}, ASK_S)
                if not isinstance(answer, CallAnswer):
                    message = f"`{self._device.ota_call}` was not taken: {getattr(answer, 'message', answer)!s:.200}"
                    return self._fail(FailureCategory.WRITE_FAILED, Stage.REFLASH, message)
            if not offer.wait(DOWNLOAD_S):
                message = f"{offer.sent} of {len(image)} bytes were fetched within {DOWNLOAD_S:g} s"
                return self._fail(FailureCategory.WRITE_FAILED, Stage.REFLASH, message)
        return None

    def _restart(self) -> StageWork:
        assert self._link is not None
        self._released_s = self._link.now_s() if self._sending is None else self._sending.before_s
        if self._runs_it:
            return StageWork(counts={"reopened": 0, "resets": 0})
        note = "the device restarts by itself when it has the whole image"
        self._run.records.marked(self._device, Mark(MarkName.RESET_RELEASED, self._released_s, note))
        return StageWork(counts={"reopened": 0, "resets": 1})

    def _prove(self) -> StageWork:
        if self._runs_it:
            self._say_ready("the device was not restarted: it runs this build already")
            return StageWork(counts={"polls": 0})
        assert self._link is not None and self._reader is not None
        booting = Booting(self._link, self._reader, self._released_s, self._mac, self._proof)
        run = self._run
        work, confirmed = ttfb.run(self._device, booting, run.boards, run.records, run.build, run.screen, None)
        if isinstance(confirmed, Confirmed):
            return self._proven(work)
        assert work.failure is not None
        return work._replace(failure=self._rolled_back(work.failure))

    def _proven(self, work: StageWork) -> StageWork:
        """Ready. Where the firmware can say it: in which slot the update is, and that it is whole."""
        until = parse_until(self._run.build.config.readiness.until)
        app = self._app()
        row = self._running_row(app, HASHES_S) if isinstance(until, Until) and until.speaks_rpc else None
        if row is None:
            return work
        if not holds(row, app):
            held = (row.get("size"), row.get("sha256"))
            message = f"after the restart the running slot is {held}, expected {(app.size, app.digest.hex)}"
            return work._replace(failure=self._fail(FailureCategory.VERIFY_MISMATCH, Stage.TTFB, message))
        self._plan_write(app._replace(offset=row["offset"]), LEVEL)
        return work

    @property
    def _outcome(self) -> DeployOutcome:
        return UNCHANGED[self._proof.level] if self._runs_it else DeployOutcome.REGIONS_FLASHED
