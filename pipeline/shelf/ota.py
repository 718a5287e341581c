"""A deploy without a cable: the application from the store to a device that offers updates, and the proof afterwards.

Puts a transfer (`device/ota_rpc.py`) between the stages of a deploy. The running firmware
is asked first, and one that is this build already is left alone. After the restart it must say that it is this build,
from the slot that was written, whose digest it computes once more; one that does not come goes back to the image
before, by the device's own rollback, and the report says so. Knows a run and its parts; not doit. Invariants: only the
application is written, and never the slot that runs; of what was written the journal says nothing for certain, so that
the next deploy by cable looks for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pipeline import events
from pipeline.config.schema import DeviceConfig
from pipeline.device.console import CallAnswer, DeviceMonitor
from pipeline.device.ota_rpc import OtaClient, OtaRefused, OtaTransfer
from pipeline.device.serial_link import PortLink, reader_for
from pipeline.effects.api import Reader
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.flash import app_proof
from pipeline.flash.journal import BY_OTA
from pipeline.flash.plan import confirmed_plan
from pipeline.flash_model import FlashPlan, Image, Region, RegionPlan
from pipeline.model import (
    DeployOutcome,
    Failure,
    FailureCategory,
    Mark,
    MarkName,
    RegionAction,
    Stage,
    StageResult,
    StageWork,
)
from pipeline.run.attempt import attempt
from pipeline.run.run import Run
from pipeline.stages import ttfb
from pipeline.stages.handover import Booting, Confirmed, Journal, Proof

LEVEL = "app-report"
ASK_S = 10.0
"""Until the running firmware answers; a board that gets power now boots first."""
TRY_S = 1.0


class OtaUpdate:
    """Of one device, within a run that has begun. `target`: the device, on the port over which updates go."""

    def __init__(self, run: Run, device: DeviceConfig, target: DeviceConfig) -> None:
        self._run = run
        self._device = device
        self._target = target
        self._monitor: DeviceMonitor | None = None
        self._link: PortLink | None = None
        self._reader: Reader | None = None
        self._transfer: OtaTransfer | None = None
        self._journal: Journal | None = None
        self._mac = ""
        self._released_s = 0.0
        self._proof = Proof(FlashPlan(()), LEVEL)

    def perform(self) -> Failure | None:
        """Ask, send what is missing, restart, prove. The first failure, None when the device runs this build."""
        steps = (
            (Stage.VERIFY_FLASH, self._ask),
            (Stage.REFLASH, self._send),
            (Stage.REATTACH, self._restart),
            (Stage.TTFB, self._prove),
        )
        for stage, step in steps:
            self._run.transactions.say(events.StageStarted(stage), self._device.name)
            began_s = self._run.clock.now_s()
            work = attempt(stage, self._target.where, step)
            result: StageResult = work.took(stage, self._run.clock.now_s() - began_s)
            self._run.transactions.stage_finished(result, self._device.name)
            if work.failure is not None:
                return work.failure
        self._run.transactions.confirmed(self._outcome, self._device.name)
        return None

    def close(self) -> None:
        """Stop listening, before the port is let go of."""
        if self._monitor is not None:
            self._monitor.close()

    @property
    def _outcome(self) -> DeployOutcome:
        if self._transfer is None:
            return DeployOutcome.APP_CONFIRMED
        partly = self._transfer.plan.kept or self._transfer.plan.copied
        return DeployOutcome.DELTA_FLASHED if partly else DeployOutcome.REGIONS_FLASHED

    # --- what runs now --------------------------------------------------------------------------

    def _ask(self) -> StageWork:
        app = self._app()
        self._link = self._run.boards.open_link(self._target, reset=False)
        self._reader = reader_for(self._link)
        self._monitor = DeviceMonitor(self._link, self._reader, where=self._target.where)
        info = self._who()
        if not isinstance(info, Mapping) or not app_proof.mac_of(info):
            return StageWork(failure=self._no_answer(info))
        self._mac = app_proof.mac_of(info)
        if (wrong := self._wrong_board()) is not None:
            return StageWork(failure=wrong)
        self._journal = self._run.records.saw_device(self._device, self._mac, self._target.port)
        runs_it = info.get("app_elf_sha256") == self._run.build.images.expected_elf()
        row = self._running_row(app, ASK_S) if runs_it else None
        if row is not None and holds(row, app):
            self._plan(confirmed_plan([app._replace(offset=row["offset"], partition=str(info.get("partition")))]))
        return StageWork(
            counts={"regions": 1, "regions_differing": int(not self._proof.plan.regions), "round_trips": 2}
        )

    def _call(self, method: str, timeout_s: float) -> Any:
        """The result, None when there is none in time: asked again until then, since a boot loses what it hears."""
        assert self._monitor is not None and self._link is not None
        end_s = self._link.now_s() + timeout_s
        while self._link.now_s() < end_s:
            answer = self._monitor.call(method, timeout_s=TRY_S)
            if not isinstance(answer, Failure):
                return answer.result if isinstance(answer, CallAnswer) else None
        return None

    def _who(self) -> Any:
        """The answer to `info`. A line has no checksum: a MAC that is not known must be said twice. Raises
        DeviceError."""
        info = self._call(app_proof.INFO, ASK_S)
        mac = app_proof.mac_of(info)
        if mac and mac != self._run.boards.last_mac(self._device):
            again = app_proof.mac_of(self._call(app_proof.INFO, ASK_S))
            if again != mac:
                raise DeviceError(self._garbled(Stage.VERIFY_FLASH, "MAC", mac, again))
        return info

    def _running_row(self, app: Image, timeout_s: float) -> Mapping[str, Any] | None:
        """The slot that runs, as the device has hashed it just now; None when it does not say. Whatever is not `app` is
        believed when it is said twice. Raises DeviceError."""
        row = self._row_of_running(self._call(app_proof.HASHES, timeout_s))
        if row is None or holds(row, app):
            return row
        again = self._row_of_running(self._call(app_proof.HASHES, timeout_s))
        if again is not None and again != row and not holds(again, app):
            first, second = (f"{each.get('sha256')!s:.64}" for each in (row, again))
            raise DeviceError(self._garbled(Stage.TTFB, "SHA-256 of what runs", first, second))
        return again or row

    def _garbled(self, stage: Stage, what: str, first: str, second: str) -> Failure:
        return self._fail(FailureCategory.SYNC_FAILED, stage, f"garbled answers: the {what} is {first}, then {second}")

    def _wrong_board(self) -> Failure | None:
        """Another board than deploy.toml names answers at this address."""
        if not self._device.mac or self._device.mac == self._mac:
            return None
        message = f"the firmware that answers has the MAC {self._mac}, expected {self._device.mac}"
        return self._fail(FailureCategory.WRONG_DEVICE, Stage.VERIFY_FLASH, message)

    def _row_of_running(self, hashes: object) -> Mapping[str, Any] | None:
        rows = hashes.get("regions") if isinstance(hashes, Mapping) else None
        found = [row for row in rows or () if isinstance(row, Mapping) and row.get("running") is True]
        return found[0] if len(found) == 1 and type(found[0].get("offset")) is int else None

    def _plan(self, plan: FlashPlan, level: str = LEVEL) -> None:
        """Record it. What nobody named by a MAC has no journal, and so nothing is compared with that."""
        self._proof = Proof(plan, level)
        if self._journal is not None:
            self._run.records.planned(self._device, self._journal, self._proof)
        else:
            self._run.transactions.say(events.plan_made(plan, level), self._device.name)

    # --- the transfer ---------------------------------------------------------------------------

    def _send(self) -> StageWork:
        if self._proof.plan.regions:
            return StageWork(counts={"regions_written": 0, "bytes_written": 0})
        assert self._monitor is not None and self._journal is not None
        app, images = self._app(), self._run.build.images
        self._announce(app)
        client = OtaClient(self._monitor, self._target.where)
        try:
            self._transfer = client.transfer(images.data(app), app.digest.hex, self._run.screen.progress)
        except OtaRefused as refused:
            return StageWork(failure=refused.failure)
        slot, plan = self._transfer.slot, self._transfer.plan
        placed = app._replace(offset=slot.offset, partition=slot.partition)
        moved = tuple(Region(slot.offset + index * slot.block, slot.block) for index in plan.sent)
        action = RegionAction.DELTA if plan.kept or plan.copied else RegionAction.WRITTEN
        self._plan(FlashPlan((RegionPlan(placed, action, moved, ""),)))
        self._run.transactions.say(events.RegionDone(app.name, action, plan.bytes_sent), self._device.name)
        counts = {"blocks_kept": len(plan.kept), "blocks_copied": len(plan.copied), "blocks_sent": len(plan.sent)}
        return StageWork(counts={"regions_written": 1, "bytes_written": plan.bytes_sent, **counts})

    def _announce(self, app: Image) -> None:
        """What the journal believes of this board may be wrong from the first byte on. The application is kept: who
        finds it on the board may want it back."""
        if self._journal is None:
            return
        touched = [image for image in self._run.build.images.all() if image.name in (app.name, "otadata")]
        tx = self._run.transactions.transaction(self._device.name)
        self._journal.begin(tx, self._run.clock.utc(), touched, {}, BY_OTA)
        self._run.records.keep([app])

    def _restart(self) -> StageWork:
        assert self._link is not None
        if self._transfer is None:
            return StageWork(counts={"reopened": 0, "resets": 0})
        # Without an id: an answer would come with the first bytes of the boot, and neither may be lost.
        self._link.write(b'{"jsonrpc":"2.0","method":"reboot"}\n')
        self._released_s = self._link.now_s()
        self._run.records.marked(self._device, Mark(MarkName.RESET_RELEASED, self._released_s, "the firmware restarts"))
        return StageWork(counts={"reopened": 0, "resets": 1})

    # --- what runs then -------------------------------------------------------------------------

    def _prove(self) -> StageWork:
        if self._transfer is None:
            self._say_ready("the device was not restarted: it runs this build already")
            return StageWork(counts={"polls": 0})
        assert self._link is not None and self._reader is not None
        booting = Booting(self._link, self._reader, self._released_s, self._mac, self._proof)
        run = self._run
        starts = self._transfer.slot.offset
        work, confirmed = ttfb.run(self._device, booting, run.boards, run.records, run.build, run.screen, starts)
        if not isinstance(confirmed, Confirmed):
            assert work.failure is not None
            return work._replace(failure=self._rolled_back(work.failure))
        app = self._app()
        row = self._running_row(app, ASK_S)
        if row is None:
            message = "after the restart the firmware did not say what it runs (`image.hashes`)"
            return StageWork(failure=self._fail(FailureCategory.RPC_TIMEOUT, Stage.TTFB, message))
        found = (row.get("offset"), row.get("size"), row.get("sha256"))
        if found != (self._transfer.slot.offset, app.size, app.digest.hex):
            message = f"after the restart the running slot is {found}, expected {app.digest.hex}"
            return StageWork(failure=self._fail(FailureCategory.VERIFY_MISMATCH, Stage.TTFB, message))
        return work

    def _say_ready(self, note: str) -> None:
        elf = self._run.build.images.expected_elf()
        self._run.records.readiness(self._device, events.Readiness("passed", app_elf_sha256=elf, note=note))

    def _rolled_back(self, failure: Failure) -> Failure:
        """The failure, and what the device did about it: a restart without confirmation starts the image before."""
        assert self._link is not None
        with contextlib.suppress(DeviceError):  # no lines: its watchdog, or a person, restarts it
            self._link.release_reset()
        info = self._call(app_proof.INFO, ASK_S)
        told = "it was not heard again"
        if isinstance(info, Mapping):
            told = f"{info.get('partition')!s:.20} runs now, with the build {info.get('app_elf_sha256')!s:.12}"
        return failure._replace(message=f"{failure.message}; {told}")

    # --- inside ---------------------------------------------------------------------------------

    def _app(self) -> Image:
        app = app_proof.app_of(self._run.build.images.all())
        if app is None:
            raise DeviceError(self._fail(FailureCategory.CONFIG_ERROR, Stage.VERIFY_FLASH, "there is no image `app`"))
        return app

    def _no_answer(self, info: object) -> Failure:
        message = f"the running firmware did not say who it is (`info`: {info!r:.60}) within {ASK_S:g} s"
        hint = "deploy over the cable once, or check the device's `ota`"
        where = self._target.where
        return fail(FailureCategory.RPC_TIMEOUT, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)

    def _fail(self, category: FailureCategory, stage: Stage, message: str) -> Failure:
        return fail(category, stage=stage, where=self._target.where, message=message)


def holds(row: Mapping[str, Any], app: Image) -> bool:
    """Is what the device hashed there this application?"""
    return (row.get("size"), row.get("sha256")) == (app.size, app.digest.hex)
