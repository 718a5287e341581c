"""What is believed of a loader's replies: they have no checksum, and noise on the line can look like an answer.

An MD5 that equals one that is known cannot do so by chance; any other one is believed when it is said twice, and bytes
that are interpreted when their MD5 agrees. Decides nothing about regions. Invariant: a reply that was garbled on its
way is a failure of the line, with its name, and neither a write nor a verdict on the flash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from pipeline.effects.api import FlashSession
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.flash.journal import DeviceState
from pipeline.flash.plan import erased_md5
from pipeline.flash_model import Image
from pipeline.model import Failure, FailureCategory, Stage

HINT = "check the cable, or use a shorter one; then run again"


def confirm_unknown(
    where: str, session: FlashSession, images: Sequence[Image], md5s: Mapping[str, str], state: DeviceState
) -> None:
    """Ask once more for the MD5s that are nothing known: neither the image's, nor of what was committed last, nor of
    erased flash. A garbled one would have its region, or everything, written anew, and stand in the report. Raises
    DeviceError when the two answers differ."""
    for image in images:
        last, said = state.committed.get(image.name), md5s[image.name].lower()
        if said in (image.md5, erased_md5(image.size), last.md5 if last is not None else ""):
            continue
        again = session.md5(image.offset, image.size).lower()
        if again != said:
            raise DeviceError(garbled(where, Stage.VERIFY_FLASH, image, said, again))


def read_proven(where: str, session: FlashSession, offset: int, size: int) -> bytes:
    """Bytes of the flash that are interpreted: one bit of otadata's state that turned on its way would make a choice
    that does not last look like one that does. Raises DeviceError."""
    data = session.read(offset, size)
    if session.md5(offset, size).lower() != hashlib.md5(data, usedforsecurity=False).hexdigest():
        raise DeviceError(garbled_answer(where, f"{size} bytes at {offset:#x} came otherwise than their MD5 says"))
    return data


def garbled_answer(where: str, fact: str) -> Failure:
    """The line's doing, in verify-flash."""
    message = f"garbled answers: {fact}"
    return fail(FailureCategory.SYNC_FAILED, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=HINT)


def proven_md5(where: str, session: FlashSession, name: str, offset: int, size: int) -> str:
    """An MD5 (hex) that nothing known can confirm: said twice. `name`: of the place. Raises DeviceError."""
    first, second = (session.md5(offset, size).lower() for _ in range(2))
    if first != second:
        raise DeviceError(_two_answers(where, Stage.VERIFY_FLASH, name, offset, first, second))
    return first


def garbled(where: str, stage: Stage, image: Image, first: str, second: str) -> Failure:
    """Two answers about the same bytes that differ."""
    return _two_answers(where, stage, image.name, image.offset, first, second)


def _two_answers(where: str, stage: Stage, name: str, offset: int, first: str, second: str) -> Failure:
    message = f"garbled answers: the MD5 of {name} at {offset:#x} is first {first}, then {second}"
    return fail(FailureCategory.SYNC_FAILED, stage=stage, where=where, message=message, hint=HINT)
