"""Of stage verify-flash, levels `app-report` and `journal`: the running firmware's word for its flash, without a reset.

Asks; what an answer proves, `flash/app_proof.py` says. Writes nothing to the board. Invariant: any doubt is a reason to
ask the loader instead, never a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.schema import DeviceConfig
from pipeline.errors import DeviceError
from pipeline.flash import app_proof
from pipeline.flash.board_checks import size_is_proven
from pipeline.flash.plan import confirmed_plan
from pipeline.model import Reason
from pipeline.stages.handover import Proof, StillRunning

if TYPE_CHECKING:
    from pipeline.stages.protocols import Boards, DeviceBuild, Records

ASK_TIMEOUT_S = 1.0
"""For the firmware's answer, hashing its flash included."""


def ask_firmware(
    device: DeviceConfig, boards: Boards, records: Records, build: DeviceBuild
) -> StillRunning | list[Reason]:
    """The running firmware's word for its flash, or why it does not suffice."""
    level, images = build.config.verify.level, build.images.all()
    app = app_proof.app_of(images)
    if app is None:
        return [Reason("no-app", "images")]
    link = boards.open_link(device, reset=False)
    try:
        answers = boards.ask(device, link, app_proof.QUESTIONS[level], ASK_TIMEOUT_S)
    except DeviceError as error:
        boards.let_go(device)
        return [Reason("no-answer", app_proof.INFO, "", error.failure.message)]
    info = answers.results.get(app_proof.INFO)
    doubts = app_proof.identity_doubts(info, build.images.expected_elf(), app, device.mac)
    if doubts:
        return doubts
    mac = app_proof.mac_of(info)
    last = boards.last_mac(device)
    if last != mac:
        # Another board may be the right one; who it is and what it holds is the loader's to say.
        return [Reason("board-changed", device.name, last or "none known", mac)]
    journal = records.saw_device(device, mac, device.port)
    if level == "journal":
        doubts = app_proof.journal_doubts(journal.state, images)
    else:
        doubts = app_proof.open_doubts(journal.state)
        doubts += app_proof.hash_doubts(answers.results.get(app_proof.HASHES), mac, images, app)
        if not size_is_proven(journal.state.about, build.identity):
            doubts.append(Reason("flash-size-unknown", device.name))
    if doubts:
        return doubts
    proof = Proof(confirmed_plan(images), level)
    records.planned(device, journal, proof)
    return StillRunning(link, answers, proof)
