"""Stage reflash: write the sectors that verify-flash planned, and nothing else.

Journals begin, each written region and the commit, so that a write that was cut off is known next time. A region's MD5
is read over the whole of it after its last run, and that of every region of the transaction once more after the last
write of all: a write that landed in another place is found there, before anything is believed. Over a line that checks
each packet nothing lands elsewhere: there the MD5s of the runs complete what verify-flash has proven of the rest, which
a second MD5 over a megabyte for one changed string would only repeat. An explicit region
(`reflash:bench:app`) is a transaction of its own: the journal and the outcome say nothing of the others.
Does not decide what to write. Invariant: of a committed transaction the device has confirmed every region after the
last write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.config.schema import DeviceConfig
from pipeline.effects.api import SLOWER_BAUD, FlashSession
from pipeline.failures import fail
from pipeline.flash.delta import written_spans
from pipeline.flash_model import Image, RegionPlan
from pipeline.model import Failure, FailureCategory, RegionAction, Stage, StageWork
from pipeline.stages.handover import InLoader, Proof
from pipeline.stages.replies import garbled
from pipeline.text import did_you_mean

if TYPE_CHECKING:
    from pipeline.stages.protocols import DeviceBuild, Records, StageScreen


def run(
    device: DeviceConfig, board: InLoader, records: Records, build: DeviceBuild, screen: StageScreen, region: str = ""
) -> tuple[StageWork, InLoader]:
    """Program what is still to be written; of `region` alone if it is named."""
    session, proof = board.session, board.proof
    names = [each.image.name for each in proof.plan.regions]
    if region and region not in names:
        return StageWork(failure=_no_region(device, region, names)), board
    writes = proof.pending(region)
    images = [write.image for write in writes] if region else [each.image for each in proof.plan.regions]
    written, known = 0, len(session.reasons)
    records.journal_begin(device, board, images)
    for image in images:
        if all(image is not write.image for write in writes):
            records.region_kept(device, board, image)
    for write in writes:
        written += session.write(write.image, build.images.data(write.image), write.runs, screen.progress)
        failure = proven(session, write, build.images.data(write.image), device.where)
        if failure is None:
            records.region_written(device, board, write)
            proof = proof._replace(written=(*proof.written, write))
        if failure is None and write is writes[-1]:
            failure = _proven_again(session, device.where, proof, images)
        if failure is not None:
            return StageWork(failure=failure), board._replace(proof=proof)
    records.journal_commit(device, board, images)
    slower = [reason for reason in session.reasons if reason.kind == SLOWER_BAUD]
    if slower:
        screen.notice(f"note: flashed at {slower[-1].after} baud: the line did not take {slower[0].before}")
    counts = {"regions_written": len(writes), "bytes_written": written, "round_trips": session.round_trips}
    return StageWork(session.reasons[known:], counts), board._replace(proof=proof)


def _no_region(device: DeviceConfig, region: str, names: list[str]) -> Failure:
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=Stage.REFLASH,
        where=f"reflash:{device.name}:{region}",
        message=f"there is no region '{region}'{did_you_mean(region, names)}",
        hint=f"choose one of {', '.join(names)}",
    )


def _proven_again(session: FlashSession, where: str, proof: Proof, images: Sequence[Image]) -> Failure | None:
    """The first region of the transaction that is not what it shall be, after its last write (which is proven already).
    otadata that was kept has the bytes that verify-flash interpreted."""
    last = proof.written[-1].image
    for each in proof.plan.regions:
        if each.image is last or each.image not in images:
            continue
        kept_as_read = each.action is RegionAction.KEPT and each.device_md5_before
        failure = _mismatch(session, each, each.device_md5_before if kept_as_read else each.image.md5, where)
        if failure is not None:
            return failure
    return None


def proven(session: FlashSession, write: RegionPlan, data: bytes, where: str) -> Failure | None:
    """Is the region what it shall be, after its last run?"""
    if not (session.is_checked and write.action is RegionAction.DELTA):
        return _mismatch(session, write, write.image.md5, where)
    for span, wanted in written_spans(write.image, data, write.runs):
        after = session.md5(span.offset, span.size)
        if after.lower() != wanted:  # over a line that checks what it carries
            place = f"{write.image.name}, {span.size} bytes at {span.offset:#x},"
            return _not_as_written(place, "was written", after, wanted, where)
    return None


def _mismatch(session: FlashSession, region: RegionPlan, wanted: str, where: str) -> Failure | None:
    image = region.image
    after = session.md5(image.offset, image.size).lower()
    if after == wanted.lower():
        return None
    again = session.md5(image.offset, image.size).lower()  # a reply has no checksum: the line may be to blame
    if again == wanted.lower():
        return None
    if again != after:
        return garbled(where, Stage.REFLASH, image, after, again)
    done = "was kept" if region.action is RegionAction.KEPT else "was written"
    return _not_as_written(f"{image.name} at {image.offset:#x}", done, after, wanted, where)


def _not_as_written(place: str, done: str, after: str, wanted: str, where: str) -> Failure:
    return fail(
        FailureCategory.VERIFY_MISMATCH,
        stage=Stage.REFLASH,
        where=where,
        message=f"{place} {done} but reads back as MD5 {after}, not {wanted}",
    )
