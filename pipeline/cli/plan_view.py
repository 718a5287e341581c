"""The dry run as text: what the host would do, and what the journal believes of each board.

Pure. Does not know files, boards or the engine. Invariant: nothing about a board is stated as fact; each line about one
says whose belief it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cache.digest import Digest
from pipeline.engine.decision import Fate
from pipeline.engine.explain import host_stages, plural, summary
from pipeline.engine.forecast import Forecast, by_stage
from pipeline.flash.journal import DeviceState
from pipeline.flash_model import MatchRule
from pipeline.formats.placement import Placement

SHOWN = 20
"""Actions of one stage that are listed by name; more are counted."""

_VERB = {
    "compiled": "compile",
    "linked": "link",
    "built": "make",
}


def host_lines(forecasts: Sequence[Forecast]) -> Iterator[str]:
    """Per stage: the counts, then each action that is not up to date."""
    for stage in host_stages(forecasts):
        mine = by_stage(forecasts, stage)
        yield f"{stage}: {summary(mine) or 'no actions'}"
        dirty = [one for one in mine if one.fate is not Fate.UP_TO_DATE]
        for one in dirty[:SHOWN]:
            yield f"  {_what(one)}"
        if len(dirty) > SHOWN:
            yield f"  and {len(dirty) - SHOWN} more"


def _what(one: Forecast) -> str:
    outputs = ", ".join(one.action.outputs)
    verb = _VERB[one.action.count_as]
    match one.fate:
        case Fate.RUN:
            return f"{verb}: {outputs}"
        case Fate.RESTORE:
            return f"restore from the cache: {outputs}"
        case Fate.UNCERTAIN:
            waits_for = one.waits_for[0] if one.waits_for else "its inputs"
            return f"{verb}, if {waits_for} gets other bytes: {outputs}"
        case _:
            return f"fail: {one.why.name if one.why else outputs} is missing"


@dataclass(frozen=True, slots=True)
class BoardBelief:
    """What we remember of the board behind a device of deploy.toml. `mac` is `""` when no board ever answered there;
    `source` says where the MAC is from; `state` is its journal's."""

    device: str
    port: str
    mac: str
    source: str
    state: DeviceState


def image_after(path: str, forecasts: Iterable[Forecast]) -> Digest | None:
    """The digest of the image file `path` after the run, if that is known now. Images are padded to 4 bytes when they
    are written, so that the digest of any other size says nothing about the flash."""
    for one in forecasts:
        if path in one.action.outputs:
            entry = one.outputs.get(path) if one.outputs is not None else None
            return entry.digest if entry is not None and entry.digest.size % 4 == 0 else None
    return None


def device_lines(belief: BoardBelief, images: Sequence[tuple[Placement, Digest | None]]) -> Iterator[str]:
    """What a deploy of this device would write if the journal is right."""
    who = f"device {belief.device} ({belief.port})"
    if not belief.mac:
        yield f"{who}: no board has answered there yet, so every region would be written"
        yield from _rows((placement, "write: nothing is known of its flash") for placement, _ in images)
        return
    yield f"{who}: the board was not asked; the journal of {belief.mac} ({belief.source}) believes"
    if belief.state.note:
        yield f"  note: {belief.state.note}"
    if belief.state.open is not None:
        yield f"  note: {belief.state.open.tx} began and did not end; what it announced is unknown"
    yield from _rows((placement, _fate(belief.state, placement, digest)) for placement, digest in images)
    yield "  verify-flash asks the board before anything is written; its answer decides, not this"


def _fate(state: DeviceState, placement: Placement, digest: Digest | None) -> str:
    believed = state.believed(placement.name)
    if believed is None:
        return "ask: its flash content is unknown"
    if believed.offset != placement.offset:
        return f"write: it was at {believed.offset:#x}"
    if digest is None:
        return "write, if the build gives other bytes"
    if believed.sha256 == digest.hex:
        return "keep"
    if placement.match is MatchRule.OTADATA:
        return "keep, if it selects the slot of this image"
    return f"write: {believed.sha256[:12]} -> {digest.hex[:12]}"


def _rows(rows: Iterable[tuple[Placement, str]]) -> Iterator[str]:
    for placement, fate in rows:
        yield f"  {placement.name:<12} {placement.offset:#010x}  {fate}"


def not_asked(forecasts: Iterable[Forecast], remote: str) -> str:
    """What this view does not know where there is a shared cache (`remote`: its URL)."""
    if remote and any(one.fate in (Fate.RUN, Fate.UNCERTAIN) and one.action.cacheable for one in forecasts):
        return f"host: the shared cache {remote} was not asked; it may have some of that"
    return ""


def nothing_to_do(forecasts: Sequence[Forecast]) -> str:
    """The last line about the host."""
    if all(one.fate is Fate.UP_TO_DATE for one in forecasts):
        return f"host: nothing to do ({plural(len(forecasts), 'action')} up to date)"
    return ""
